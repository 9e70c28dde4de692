"""One cluster for one command: its kubeconfig is read once, its credential plugin runs once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.kube.kubeconfig import DEFAULT_NAMESPACE, ClusterOptions, Kubeconfig

if TYPE_CHECKING:
    from kubectl_mesh.kube.http import Client

__all__ = ["ClusterOptions", "Session"]


class Session:
    """The cluster that the options name. Nothing is read, run or asked before it is needed."""

    def __init__(self, options: ClusterOptions) -> None:
        self.options = options

    @cached_property
    def kubeconfig(self) -> Kubeconfig:
        """Raises ClusterError where it cannot be read."""
        return Kubeconfig(self.options)

    @cached_property
    def client(self) -> Client:
        """What talks to the API server. Raises ClusterError where it is not known how."""
        from kubectl_mesh.kube.config import connect
        from kubectl_mesh.kube.http import Client

        return Client(connect(self.kubeconfig.target(), self.options.request_timeout))

    @cached_property
    def namespace_on_disk(self) -> str:
        """The context's namespace; DEFAULT_NAMESPACE where there is no kubeconfig to be read.

        That of manifests that name none. Raises ClusterError where a kubeconfig or a context is
        asked for by name and not to be had.
        """
        if self.options.kubeconfig or self.options.context:
            return self.kubeconfig.namespace
        try:
            return self.kubeconfig.namespace
        except ClusterError:
            return DEFAULT_NAMESPACE
