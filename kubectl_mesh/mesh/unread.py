"""Objects that route and that the model does not follow: those of the Kubernetes Gateway API.

They are read to be named, and so that nothing is claimed of what they may decide.

Models, of istiod's conversion of the Gateway API, which requests an object may have a bearing on:
a route whose parent is a Service or a ServiceEntry rules its hosts for sidecars (those of the
route's own namespace alone, where the Service is in another); one whose parent is a Gateway rules
its hostnames at the pods of that Gateway. It may turn out that it has no effect there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.hosts import overlap
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.schema import GATEWAY_API, ISTIO, KUBERNETES_GATEWAY

ROUTES = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
_LISTENER_SETS = ("ListenerSet", "XListenerSet")
KINDS = (KUBERNETES_GATEWAY, *_LISTENER_SETS, *ROUTES)
REASON = "kubectl mesh does not follow the Kubernetes Gateway API yet"

_MAX_NAMES = 3


def told(resources: Iterable[Resource]) -> Iterator[str]:
    """The objects, counted and named, a line for each namespace."""
    grouped: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for each in resources:
        grouped[each.namespace][each.id.api_kind].append(each.name)
    for namespace, kinds in sorted(grouped.items()):
        counted = [_counted(kind, sorted(names)) for kind, names in sorted(kinds.items())]
        yield f"namespace {namespace}: {', '.join(counted)}: {REASON}"


def _counted(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    many = "" if len(names) == 1 else "s"
    return f"{len(names)} {kind}{many} ({', '.join(names[:_MAX_NAMES])}{more})"


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that a route names as parent or backend; `port` is 0 where it names none."""

    group: str
    kind: str
    namespace: str
    name: str
    port: int = 0

    @classmethod
    def read(
        cls, value: Mapping[str, Any], namespace: str, group: str = "", kind: str = "Service"
    ) -> Reference:
        """A reference in an object of `namespace`; `group` and `kind` are what is left out."""
        return cls(
            value.get("group", group),
            value.get("kind") or kind,
            value.get("namespace") or namespace,
            value.get("name") or "",
            value.get("port") or 0,
        )

    @property
    def is_gateway(self) -> bool:
        return self.group == GATEWAY_API and self.kind == "Gateway"

    @property
    def is_service(self) -> bool:
        return not self.group and self.kind == "Service"

    @property
    def is_service_entry(self) -> bool:
        return self.group == ISTIO and self.kind == "ServiceEntry"


@dataclass(frozen=True, eq=False)
class Route:
    """A route of the Gateway API, whatever its kind."""

    resource: Resource

    @property
    def namespace(self) -> str:
        return self.resource.namespace

    @cached_property
    def parents(self) -> tuple[Reference, ...]:
        return tuple(
            Reference.read(each, self.namespace, GATEWAY_API, "Gateway")
            for each in self.resource.spec.get("parentRefs") or ()
        )

    @cached_property
    def backends(self) -> tuple[Reference, ...]:
        """Where it sends requests, copies of them included."""
        found: list[Mapping[str, Any]] = []
        for rule in self.resource.spec.get("rules") or ():
            found += rule.get("backendRefs") or ()
            for each in rule.get("filters") or ():
                found.append((each.get("requestMirror") or {}).get("backendRef") or {})
        return tuple(Reference.read(each, self.namespace) for each in found if each)

    @property
    def hostnames(self) -> tuple[str, ...]:
        return tuple(self.resource.spec.get("hostnames") or ())


class Unread:
    """What there is of the Kubernetes Gateway API in a mesh."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.all = tuple(resources)
        """Every object of KINDS."""

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        return tuple(Route(each) for each in self.all if each.kind in ROUTES)

    def concerning(
        self, namespaces: Collection[str], hosts: Collection[str]
    ) -> Iterator[ResourceId]:
        """What is in some namespaces, has to do with them, or is for some of the hosts."""
        parents: set[tuple[str, str]] = set()
        for route in self.routes:
            if (
                route.namespace in namespaces
                or any(each.namespace in namespaces for each in (*route.parents, *route.backends))
                or any(overlap(name, host) for name in route.hostnames for host in hosts)
            ):
                yield route.resource.id
                parents |= {(each.namespace, each.name) for each in route.parents}
        for each in self.all:
            if each.kind in ROUTES:
                continue
            if each.namespace in namespaces or (each.namespace, each.name) in parents:
                yield each.id
