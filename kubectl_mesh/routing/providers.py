"""Which Service or ServiceEntry provides a host for a proxy, where several do.

Models istiod's `selectServices` and `appendSidecarServices`, and `collectImportedServices` for
destinations that a Sidecar does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.sidecars import Egress
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import (
    BEST_NAMESPACE,
    EXPORTED_WITH_PRIVATE,
    ONE_NAMESPACE,
    SOURCES_HAVE_CLUSTERS,
    TIES_BY_NAME,
)
from kubectl_mesh.mesh.virtual_services import VirtualService, VirtualServices
from kubectl_mesh.routing.rules import Rule, merged_rules

_DISTINCT = ("resolution", "workloadSelector", "exportTo")
"""ServiceEntries of one host and namespace are one where these are alike, and their labels."""


class Providers:
    """The Services of each host, as proxies know them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._istio = snapshot.config.istio

    def for_sidecar(self, client: Proxy, host: str, port: int) -> Service | None:
        """What a sidecar's cluster for a host and port is made of, whoever sends requests there.

        Where its Sidecar does not import the host, it has a cluster for what its rules lead to (see
        `lead_to`).
        """
        found = self._imported(client, host, port)
        if found:
            return _of_cluster(found, port)
        visible = self._visible(host, client.namespace)
        best = self._istio.has(BEST_NAMESPACE)
        key = (lambda it: not it.is_kubernetes) if best else (lambda it: it.namespace)
        return _of_cluster(_of_one_namespace(visible, client.namespace, key), port)

    def _imported(self, client: Proxy, host: str, port: int) -> list[Service]:
        """What the first of a sidecar's egress listeners that imports a host for a port imports."""
        listeners = self._snapshot.sidecars.listeners(client.namespace, client.labels)
        fitting = (each for each in listeners if each.port in (None, port))
        return next(filter(None, (self.imported(client, each, host) for each in fitting)), [])

    def lead_to(self, client: Proxy, host: str, port: int) -> bool:
        """Whether a sidecar has a cluster for what a route leads to, if there is something at all.

        Models `virtualServiceDestinationsFilteredBySourceNamespace`: a rule of which some match
        names another sourceNamespace, and none the client's, makes none.
        """
        if not self._istio.has(SOURCES_HAVE_CLUSTERS) or self._imported(client, host, port):
            return True
        virtual_services = self._snapshot.virtual_services
        listeners = self._snapshot.sidecars.listeners(client.namespace, client.labels)
        owners = {to.virtual_service for to in virtual_services.by_destination_host.get(host, ())}
        return any(
            _leads_to(virtual_services, vs, host, client.namespace)
            for vs in {root for each in owners for root in virtual_services.roots_of(each)}
            if vs.on_mesh and vs.export.reaches(client.namespace)
            if any(each.sees_virtual_service(vs.namespace, vs.hosts) for each in listeners)
        )

    def for_gateway(
        self, host: str, namespace: str, port: int = 0, *, prefer: str | None = None
    ) -> Service | None:
        """What provides a host for a gateway's proxies of a namespace, that of `prefer` first."""
        visible = self._visible(host, namespace)
        preferred = [service for service in visible if service.namespace == prefer]
        return _of_cluster(sorted(preferred or visible, key=_not_kubernetes), port)

    def imported(self, client: Proxy, egress: Egress, host: str) -> list[Service]:
        """What a sidecar knows of a host by an egress listener, what clusters are of first.

        That is what one namespace provides. Before 1.24 without a Sidecar all of it was, and with a
        Sidecar a Kubernetes Service was not preferred.
        """
        found = [
            service
            for service in self._visible(host, client.namespace)
            if egress.sees_service(service.namespace, service.host)
        ]
        if len(found) < 2:
            return found
        if self._istio.has(ONE_NAMESPACE):
            return _of_one_namespace(found, client.namespace, _not_kubernetes)
        if self._snapshot.sidecars.for_client(client.namespace, client.labels):
            return _of_one_namespace(found, client.namespace, lambda _: False)
        return sorted(found, key=_not_kubernetes)

    def _visible(self, host: str, namespace: str) -> list[Service]:
        """What provides a host and is exported to a namespace, in istiod's order."""
        found = [
            service
            for service in self._snapshot.registry.by_host(host)
            if service.export.reaches(namespace)
        ]
        return sorted(found, key=lambda it: self.rank(it, namespace)) if len(found) > 1 else found

    def rank(self, service: Service, namespace: str) -> tuple[Any, ...]:
        """By this istiod sorts Services, and by nothing else: `SortServicesByCreationTime`."""
        closeness = 2 if service.export.everyone else int(service.namespace != namespace)
        if closeness == 1 and self._istio.has(EXPORTED_WITH_PRIVATE):
            closeness = 0
        name = service.resource.name if service.is_kubernetes else service.host
        tie: object = (name, service.namespace)
        if not self._istio.has(TIES_BY_NAME):
            tie = f"{name}.{service.namespace}"
        return (closeness, service.resource.age_key[0], tie)


def _leads_to(
    virtual_services: VirtualServices, vs: VirtualService, host: str, namespace: str
) -> bool:
    """Whether a rule of a root makes a cluster for a host in sidecars of a namespace."""
    if any(to.protocol != "http" and to.host == host for to in vs.destinations):
        return True
    rules = merged_rules(virtual_services, vs)
    return any(not _is_for_others(rule, namespace) and host in _hosts_of(rule) for rule in rules)


def _hosts_of(rule: Rule) -> set[str]:
    """Where a rule sends requests or copies of them, be it with the weight 0."""
    found = [each.get("destination") for each in rule.data.get("route") or ()]
    found += [each.get("destination") for each in rule.data.get("mirrors") or ()]
    found.append(rule.data.get("mirror"))
    return {to.get("host") or "" for to in found if to}


def _is_for_others(rule: Rule, namespace: str) -> bool:
    named = {match.source_namespace for match in rule.matches or () if match.source_namespace}
    return bool(named) and namespace not in named


def _not_kubernetes(service: Service) -> bool:
    return not service.is_kubernetes


def _of_one_namespace(
    found: Iterable[Service], own: str, key: Callable[[Service], object]
) -> list[Service]:
    """Those of a proxy's own namespace, else of the namespace of the first one by a key."""
    ordered = sorted(found, key=key)  # type: ignore[arg-type]
    if not ordered:
        return []
    namespaces = {service.namespace for service in ordered}
    chosen = own if own in namespaces else ordered[0].namespace
    return sorted((it for it in ordered if it.namespace == chosen), key=_not_kubernetes)


def with_port(found: Iterable[Service], port: int) -> Service | None:
    """The first of some Services that has a port; None where none has."""
    return next((service for service in found if service.port(port)), None)


def _of_cluster(found: Sequence[Service], port: int) -> Service | None:
    """The first, or what istiod joins with it for a port that it does not have."""
    if not found:
        return None
    alike = [service for service in found if _joined(found[0], service)]
    return with_port(alike, port) or found[0]


def _joined(one: Service, other: Service) -> bool:
    """Models `canMergeServices`."""
    if one is other:
        return True
    if one.is_kubernetes or other.is_kubernetes or one.namespace != other.namespace:
        return False
    first, second = one.resource, other.resource
    return first.labels == second.labels and all(
        first.spec.get(field) == second.spec.get(field) for field in _DISTINCT
    )
