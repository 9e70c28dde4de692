"""The namespace of manifests that name none, where no cluster is used."""

from __future__ import annotations

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.kube.kubeconfig import (
    DEFAULT_NAMESPACE,
    ClusterOptions,
    namespace_of_context,
)

__all__ = ["ClusterOptions", "namespace_on_disk"]


def namespace_on_disk(options: ClusterOptions) -> str:
    """The context's namespace; DEFAULT_NAMESPACE where there is no kubeconfig to be read.

    Raises ClusterError where a kubeconfig or a context is asked for by name and not to be had.
    """
    if options.kubeconfig or options.context:
        return namespace_of_context(options)
    try:
        return namespace_of_context(options)
    except ClusterError:
        return DEFAULT_NAMESPACE
