"""Objects that route and that the model does not follow: those of the Kubernetes Gateway API.

They are read to be named, and so that nothing is claimed of what they may decide.

Models, of istiod's conversion of the Gateway API, on which requests an object may have a bearing.
A route whose parent is a Service or a ServiceEntry rules its hosts for sidecars: for those of the
route's own namespace alone, where the parent is in another. One whose parent is a Gateway rules its
hostnames at the pods of that Gateway, which istiod makes, or finds by the Service that the Gateway
names as its address. Whether a route is accepted, and which of its rules is met, is not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.hosts import HostMap, overlap
from kubectl_mesh.mesh.injection import GATEWAY_NAMES, REVISION
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.schema import GATEWAY_API, ISTIO, KUBERNETES_GATEWAY
from kubectl_mesh.mesh.texts import first_of

ROUTES = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
_LISTENER_SETS = ("ListenerSet", "XListenerSet")
_CLASS = "GatewayClass"
KINDS = (KUBERNETES_GATEWAY, *_LISTENER_SETS, *ROUTES, _CLASS)
REASON = "kubectl mesh does not follow the Kubernetes Gateway API yet"

_CONTROLLERS = "istio.io/"
_MAX_NAMES = 3


_PATH = {"type": "PathPrefix", "value": "/"}
_NAMESPACES = {"namespaces": {"from": "Same"}}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "rules": {"matches": [{"path": _PATH}]},
    "matches": {"path": _PATH},
    "path": _PATH,
    "headers": {"type": "Exact"},
    "queryParams": {"type": "Exact"},
    "method": {"type": "Exact"},
    "parentRefs": {"group": GATEWAY_API, "kind": "Gateway"},
    "backendRefs": {"group": "", "kind": "Service", "weight": 1},
    "backendRef": {"group": "", "kind": "Service"},
    "requestRedirect": {"statusCode": 302},
    "listeners": {"allowedRoutes": _NAMESPACES},
    "allowedRoutes": _NAMESPACES,
    "namespaces": {"from": "Same"},
    "tls": {"mode": "Terminate"},
    "certificateRefs": {"group": "", "kind": "Secret"},
}
"""By field, what the API server adds to its mapping, or to each of its list."""


def content(resource: Resource) -> Any:
    """What an object says, the same as it is written and as the API server has it."""
    return _filled(resource.spec, "spec")


def _filled(value: Any, field: str) -> Any:
    if isinstance(value, list):
        return [_filled(each, field) for each in value]
    if not isinstance(value, Mapping):
        return value
    stated = {key: _filled(each, key) for key, each in value.items()}
    return {**_DEFAULTS.get(field, {}), **stated}


def not_of_revision(revision: str) -> str:
    """Why an object of another revision is not followed."""
    return f"not of revision {revision}, which was looked at (label {REVISION})"


def told(resources: Iterable[Resource], why: str = REASON) -> Iterator[str]:
    """The objects, counted and named, a line for each namespace."""
    grouped: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in resources:
        if each.namespace:
            grouped[each.namespace][each.id.api_kind].add(each.name)
    for namespace, kinds in sorted(grouped.items()):
        counted = [_counted(kind, sorted(names)) for kind, names in sorted(kinds.items())]
        yield f"namespace {namespace}: {', '.join(counted)}: {why}"


def summed_up(resources: Iterable[Resource], why: str = REASON) -> str:
    """The objects of all namespaces, counted and named, in one line; "" for none."""
    grouped: dict[str, set[str]] = defaultdict(set)
    for each in resources:
        if each.namespace:
            grouped[each.id.api_kind].add(f"{each.namespace}/{each.name}")
    counted = [_counted(kind, sorted(names)) for kind, names in sorted(grouped.items())]
    return f"{', '.join(counted)}: {why}" if counted else ""


def _counted(kind: str, names: Sequence[str]) -> str:
    many = "" if len(names) == 1 else "s"
    return f"{len(names)} {kind}{many} ({first_of(names, _MAX_NAMES)})"


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that another one names; `port` is 0 where it names none."""

    group: str
    kind: str
    namespace: str
    name: str
    port: int = 0
    section: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any], namespace: str, group: str, kind: str) -> Reference:
        """A reference in an object of `namespace`; `group` and `kind` are what is left out."""
        return cls(
            value.get("group", group),
            value.get("kind") or kind,
            value.get("namespace") or namespace,
            value.get("name") or "",
            value.get("port") or 0,
            value.get("sectionName") or "",
        )

    @property
    def id(self) -> ResourceId:
        """The object, as a snapshot knows it."""
        is_gateway = (self.group, self.kind) == (GATEWAY_API, "Gateway")
        return ResourceId(
            KUBERNETES_GATEWAY if is_gateway else self.kind, self.namespace, self.name
        )

    @property
    def is_service(self) -> bool:
        return not self.group and self.kind == "Service"

    @property
    def is_service_entry(self) -> bool:
        return self.group == ISTIO and self.kind == "ServiceEntry"


@dataclass(frozen=True, eq=False)
class Route:
    """A route, whatever its kind."""

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
        return tuple(Reference.read(each, self.namespace, "", "Service") for each in found if each)

    @property
    def hostnames(self) -> tuple[str, ...]:
        return tuple(self.resource.spec.get("hostnames") or ())


@dataclass(frozen=True, slots=True)
class Ruled:
    """Hosts that a route may rule at the pods of a Gateway; `port` 0 stands for any."""

    resource: Resource
    host: str
    port: int


@dataclass(frozen=True, eq=False)
class Gateway:
    """A Gateway of the Kubernetes Gateway API."""

    resource: Resource
    domain: str

    @property
    def class_name(self) -> str:
        return str(self.resource.spec.get("gatewayClassName") or "")

    @cached_property
    def services(self) -> tuple[str, ...]:
        """The hosts of the Services whose pods it configures; none where istiod makes the pods."""
        return tuple(
            value if "." in value else f"{value}.{self.resource.namespace}.svc.{self.domain}"
            for each in self.resource.spec.get("addresses") or ()
            if each.get("type") == "Hostname" and (value := each.get("value"))
        )

    def makes(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod is one that istiod makes for it."""
        return (
            not self.services
            and namespace == self.resource.namespace
            and any(labels.get(name) == self.resource.name for name in GATEWAY_NAMES)
        )


class Unread:
    """What there is of the Kubernetes Gateway API in a mesh."""

    def __init__(
        self, resources: Iterable[Resource], entries: Iterable[Resource], domain: str
    ) -> None:
        """`entries` are the mesh's ServiceEntries, which routes name by their names."""
        self.all = tuple(resources)
        """Every object of KINDS."""
        self._entries = {each.id: each for each in entries} if self.all else {}
        self._domain = domain

    def __bool__(self) -> bool:
        return bool(self.all)

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        return tuple(Route(each) for each in self.all if each.kind in ROUTES)

    @cached_property
    def gateways(self) -> tuple[Gateway, ...]:
        """The Gateways, less those that a controller other than Istio's is known to look after."""
        others = {
            each.name
            for each in self.all
            if each.kind == _CLASS
            and not str(each.spec.get("controllerName") or _CONTROLLERS).startswith(_CONTROLLERS)
        }
        found = (
            Gateway(each, self._domain) for each in self.all if each.kind == KUBERNETES_GATEWAY
        )
        return tuple(each for each in found if each.class_name not in others)

    @cached_property
    def destinations(self) -> tuple[tuple[ResourceId, str], ...]:
        """The hosts of the registry to which routes send requests, each with the route's name."""
        return tuple(
            (route.resource.id, host)
            for route in self.routes
            for backend in route.backends
            for host in self._hosts(backend)
        )

    # In the mesh

    def in_mesh(self, host: str, namespace: str, port: int) -> Iterator[Resource]:
        """The routes that may rule what sidecars of a namespace send to a host of the registry."""
        for ruling in self._mesh_rules.covering(host):
            for route, parent in ruling:
                if parent.port in (0, port) and (route.namespace in (parent.namespace, namespace)):
                    yield route.resource

    def ruling(self, host: str) -> Iterator[Resource]:
        """The routes that may rule a host of the registry for any sidecar."""
        for ruling in self._mesh_rules.covering(host):
            yield from (route.resource for route, _ in ruling)

    @cached_property
    def _mesh_rules(self) -> HostMap[tuple[Route, Reference]]:
        return HostMap(
            (host, (route, parent))
            for route in self.routes
            for parent in route.parents
            for host in self._hosts(parent)
        )

    def _hosts(self, reference: Reference) -> Iterator[str]:
        """The hosts of the registry that a Service or a ServiceEntry gives."""
        if reference.is_service:
            yield f"{reference.name}.{reference.namespace}.svc.{self._domain}"
        elif reference.is_service_entry and (entry := self._entries.get(reference.id)):
            yield from entry.spec.get("hosts") or ()
        elif (reference.group, reference.kind) == (ISTIO, "Hostname"):
            yield reference.name

    # At gateways

    def at(self, gateway: Gateway) -> Sequence[Ruled]:
        """What is ruled at the pods of a Gateway."""
        return self._at_gateways[0].get(gateway.resource.id, ())

    @property
    def homeless(self) -> Sequence[tuple[ResourceId, Ruled]]:
        """The hostnames of routes whose parent is not among the objects, each with the parent."""
        return self._at_gateways[1]

    @cached_property
    def _at_gateways(
        self,
    ) -> tuple[Mapping[ResourceId, Sequence[Ruled]], Sequence[tuple[ResourceId, Ruled]]]:
        there = {each.id: each for each in self.all}
        found: dict[ResourceId, list[Ruled]] = defaultdict(list)
        homeless: list[tuple[ResourceId, Ruled]] = []
        for route in self.routes:
            for parent in route.parents:
                holder = there.get(parent.id)
                if holder is None and not (parent.is_service or parent.is_service_entry):
                    homeless += (
                        (parent.id, Ruled(route.resource, host, parent.port))
                        for host in route.hostnames
                    )
                elif holder is not None:
                    found[_gateway_of(holder)] += _ruled(route, parent, holder)
        return found, homeless

    def naming(self, hosts: Collection[str]) -> Iterator[tuple[ResourceId, str]]:
        """The routes that may rule some of the hosts, in the mesh or at gateways, and which."""
        for route in self.routes:
            own = (host for parent in route.parents for host in self._hosts(parent))
            names = {*route.hostnames, *own} - {"*"}
            for host in hosts:
                if any(overlap(name, host) for name in names):
                    yield route.resource.id, host

    def concerning(
        self, namespaces: Collection[str], hosts: Collection[str]
    ) -> Iterator[ResourceId]:
        """What is in some namespaces, has to do with them, or is for some of the hosts."""
        named: set[ResourceId] = set()
        for route in self.routes:
            if (
                route.namespace in namespaces
                or any(each.namespace in namespaces for each in (*route.parents, *route.backends))
                or any(overlap(name, host) for name in route.hostnames for host in hosts)
            ):
                yield route.resource.id
                named |= {each.id for each in route.parents}
        for each in self.all:
            if each.kind in _LISTENER_SETS and (each.namespace in namespaces or each.id in named):
                yield each.id
                named.add(_gateway_of(each))
        for each in self.all:
            if each.kind == _CLASS or (
                each.kind == KUBERNETES_GATEWAY
                and (each.namespace in namespaces or each.id in named)
            ):
                yield each.id


def _gateway_of(holder: Resource) -> ResourceId:
    """The Gateway that has the listeners of a Gateway or of a ListenerSet."""
    if holder.kind == KUBERNETES_GATEWAY:
        return holder.id
    parent = holder.spec.get("parentRef") or {}
    return Reference.read(parent, holder.namespace, GATEWAY_API, "Gateway").id


def _ruled(route: Route, parent: Reference, holder: Resource) -> Iterator[Ruled]:
    """What a route rules by the listeners of one of its parents."""
    for listener in holder.spec.get("listeners") or ():
        port = listener.get("port") or 0
        if parent.section in ("", listener.get("name")) and parent.port in (0, port):
            for host in route.hostnames or (listener.get("hostname") or "*",):
                yield Ruled(route.resource, host, port)
