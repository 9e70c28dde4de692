"""Whose proxies get a VirtualService: from which namespaces requests meet its rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from kubectl_mesh.mesh.gateways import MESH, Gateway
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import Workload


@dataclass(frozen=True, slots=True)
class Clients:
    """Proxies of one namespace.

    `gateway` is the "namespace/name" of the Gateway that they serve; None for sidecars. `certain`
    is False where no such pod was seen, and the namespace is just where one would be expected.
    """

    namespace: str
    gateway: str | None = None
    certain: bool = True

    def __str__(self) -> str:
        if self.gateway:
            return f"the proxies of Gateway {self.gateway} in namespace {self.namespace}"
        return f"clients in namespace {self.namespace}"


def clients_of(
    snapshot: Snapshot, destination: Destination, service_namespace: str | None
) -> Iterator[Clients]:
    """The clients that may differ in the DestinationRule that they get for a destination.

    A namespace differs from the others only if it is the VirtualService's or the Service's, has a
    rule of its own for the host, or is named in the exportTo of one; all others get the same, and
    the first with a sidecar stands for them. So the cost does not grow with the namespaces.
    """
    for root in snapshot.virtual_services.roots_of(destination.virtual_service):
        own = root is destination.virtual_service
        for gateway in sorted(destination.gateways if own else root.gateways):
            if gateway != MESH:
                for namespace, certain in gateway_namespaces(snapshot, gateway):
                    if root.export.reaches(namespace) or not certain:
                        yield Clients(namespace, gateway, certain)
                continue
            for namespace, certain in _mesh_namespaces(snapshot, destination, service_namespace):
                if root.export.reaches(namespace):
                    yield Clients(namespace, None, certain)


def gateway_namespaces(snapshot: Snapshot, gateway: str) -> list[tuple[str, bool]]:
    """The namespaces of the pods that a Gateway ("namespace/name") configures.

    Where none are in the snapshot it is the root namespace, where Istio installs them: uncertain.
    """
    found = snapshot.gateways.by_id.get(gateway)
    namespaces = (
        dict.fromkeys(pod.namespace for pod in gateway_pods(snapshot, found)) if found else {}
    )
    return [(name, True) for name in namespaces] or [(snapshot.config.root_namespace, False)]


def gateway_pods(snapshot: Snapshot, gateway: Gateway) -> list[Workload]:
    """The pods that a Gateway configures, by namespace and name; one without selector has none.

    Where all are scaled to zero these are given: they tell where a pod will start.
    """
    pods = snapshot.workloads.select_anywhere(gateway.selector) if gateway.selector else ()
    awake = [pod for pod in pods if not pod.is_scaled_to_zero]
    return sorted(awake or pods, key=lambda pod: (pod.namespace, pod.resource.name))


def named_namespaces(
    snapshot: Snapshot, destination: Destination, service_namespace: str | None
) -> frozenset[str]:
    """The namespaces whose clients may get other DestinationRules for a destination than the rest.

    That of the Service is one only if it holds more than the pods of gateways.
    """
    named = {destination.virtual_service.namespace}
    if service_namespace and not _is_for_gateways(snapshot, destination, service_namespace):
        named.add(service_namespace)
    for rule in snapshot.destination_rules.covering(destination.host):
        named |= {rule.namespace, *rule.export.namespaces}
    return frozenset(named)


def _is_for_gateways(snapshot: Snapshot, destination: Destination, namespace: str) -> bool:
    """Whether a namespace without known clients holds gateways, to which the destination leads."""
    if snapshot.workloads.by_namespace.get(namespace):
        return namespace not in snapshot.sidecar_namespaces
    providers = snapshot.registry.providers(destination.host)
    if providers:
        return any(snapshot.gateways.configure(each.selector) for each in providers)
    through = destination.virtual_service.gateways - {MESH}
    return snapshot.is_system(namespace) or bool(through and destination.gateways == {MESH})


def _mesh_namespaces(
    snapshot: Snapshot, destination: Destination, service_namespace: str | None
) -> list[tuple[str, bool]]:
    """The namespaces of sidecars, and whether there certainly are some, the certain ones first."""
    named = named_namespaces(snapshot, destination, service_namespace)
    if not snapshot.workloads.all:
        home = {destination.virtual_service.namespace, service_namespace} & named
        return [(namespace, namespace in home) for namespace in sorted(named, key=_first(home))]
    with_clients = [
        namespace for namespace in sorted(named) if namespace in snapshot.sidecar_namespaces
    ]
    other = next((ns for ns in snapshot.sure_sidecar_namespaces if ns not in named), None)
    if other is not None:
        with_clients.append(other)
    found = with_clients or [destination.virtual_service.namespace]
    return [(namespace, True) for namespace in found]


def _first(preferred: Collection[str | None]) -> Callable[[str], tuple[bool, str]]:
    """A key that sorts the preferred names before the others."""
    return lambda name: (name not in preferred, name)
