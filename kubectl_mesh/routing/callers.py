"""Where requests come from: as somebody says, or whoever calls a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.gateways import Gateway
from kubectl_mesh.mesh.unread import REASON
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.expected import Source
from kubectl_mesh.routing.proxies import (
    NamedProxy,
    gateway_named,
    gateways_serving,
    of_client,
    of_gateway,
    of_workload,
)
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Router

_KIND_NAMES: Mapping[str, str] = {
    **{kind.lower(): kind for kind in WORKLOAD_KINDS},
    **{f"{kind.lower()}s": kind for kind in WORKLOAD_KINDS},
    "po": "Pod",
    "deploy": "Deployment",
    "sts": "StatefulSet",
    "ds": "DaemonSet",
    "rs": "ReplicaSet",
    "rc": "ReplicationController",
    "cj": "CronJob",
}


@dataclass(frozen=True)
class Caller:
    """Where requests come from. Without all of these it is whoever calls their host.

    `gateway` is [NAMESPACE/]NAME, `workload` is [NAMESPACE/][KIND/]NAME; `namespace` and `labels`
    are those of a pod.
    """

    gateway: str | None = None
    workload: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str] | None = None

    def where(self, own: str) -> tuple[str | None, str | None]:
        """The namespace that is named, else `own`, and the kind of the workload.

        None where nothing is said of a namespace, or of a kind. Raises UsageError for a workload
        that is none.
        """
        if self.gateway is not None:
            return self.gateway.rpartition("/")[0] or own, None
        if self.workload is not None:
            namespace, kind, _ = _named_workload(self.workload, own)
            return namespace, kind
        return self.namespace, None


class Callers:
    """The proxies of a mesh by the names that people give them.

    Names without a namespace are in `namespace`.
    """

    def __init__(self, router: Router, caller: Caller, namespace: str) -> None:
        self.router = router
        self.caller = caller
        self.namespace = namespace
        self._snapshot = router.snapshot
        self._known: dict[Source, NamedProxy] = {}
        self._serving: dict[tuple[str, str | None, str], list[Gateway]] = {}

    def of(self, source: Source) -> NamedProxy:
        """Raises UsageError where there is no such Gateway, or pods are of another revision."""
        if source not in self._known:
            namespace, config = source.namespace or self.namespace, self._snapshot.config
            if not source.gateway and namespace in config.other_revisions:
                revision = config.other_revisions[namespace]
                raise UsageError(
                    f"namespace {namespace} selects revision {revision} of Istio, and the answers "
                    f"are for revision {config.revision}: ask from it in another run"
                )
            if source.gateway:
                self._known[source] = self._of_gateway(source.gateway)
            else:
                self._known[source] = of_client(namespace, dict(source.labels))
        return self._known[source]

    def default(self, request: Request | Connection) -> NamedProxy:
        """The caller, or who calls where nothing is said of one.

        Raises UsageError where there is none, or must be chosen.
        """
        if self._chosen is not None:
            return self._chosen
        key = (request.host, getattr(request, "server_name", ""), getattr(request, "dialled", ""))
        if key not in self._serving:
            self._serving[key] = gateways_serving(self.router, request)
        serving = self._serving[key]
        if serving:
            named = ", ".join(f"--gateway {gateway.id}" for gateway in serving)
            raise UsageError(
                f"{request.host} is served by a Gateway: say where the request comes from, with "
                f"{named}, or with --from POD or --from-namespace {self.namespace} for a caller "
                "in the mesh"
            )
        return self.of(Source(None, self.namespace))

    def ways_in_unread(self, request: Request | Connection) -> Iterator[str]:
        """By which ways that are not followed a request may come in, without a caller."""
        if self._chosen is None:
            for ruled in self.router.bearing.ways_in(request.host):
                yield (
                    f"{ruled} takes {request.host} at a Kubernetes Gateway, and {REASON}; this is "
                    "the answer for callers in the mesh"
                )

    @cached_property
    def _chosen(self) -> NamedProxy | None:
        caller = self.caller
        if caller.gateway is not None:
            return self._of_gateway(caller.gateway)
        if caller.workload is not None:
            return of_workload(self._snapshot, self._workload(caller.workload))
        if caller.namespace is not None or caller.labels is not None:
            return of_client(caller.namespace or self.namespace, caller.labels or {})
        return None

    def _of_gateway(self, name: str) -> NamedProxy:
        return of_gateway(self._snapshot, gateway_named(self._snapshot, name, self.namespace))

    def _workload(self, text: str) -> Workload:
        namespace, kind, name = _named_workload(text, self.namespace)
        found = [
            workload
            for workload in self._snapshot.workloads.by_namespace.get(namespace, ())
            if workload.resource.name == name and kind in (None, workload.resource.kind)
        ]
        if found:
            return min(found, key=lambda workload: workload.resource.kind != "Pod")
        reason = self._snapshot.missing(kind or "Pod", namespace)
        if not reason:
            reason = "for the pods of a Deployment write deploy/NAME"
        raise UsageError(f"no {kind or 'pod'} {name} in namespace {namespace}: {reason}")


def _named_workload(text: str, namespace: str) -> tuple[str, str | None, str]:
    """Namespace, kind (None: not named) and name of --from. Raises UsageError."""
    parts = text.split("/")
    if all(parts) and len(parts) == 1:
        return namespace, None, parts[0]
    if all(parts) and len(parts) == 2:
        kind = _KIND_NAMES.get(parts[0].lower())
        return (namespace, kind, parts[1]) if kind else (parts[0], None, parts[1])
    if all(parts) and len(parts) == 3 and parts[1].lower() in _KIND_NAMES:
        return parts[0], _KIND_NAMES[parts[1].lower()], parts[2]
    raise UsageError(f"--from {text!r} names no pod: write [NAMESPACE/][KIND/]NAME")
