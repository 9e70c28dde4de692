"""Which proxies are compared: one for all that rules cannot tell apart.

Sidecars are told apart by namespace (exportTo, DestinationRules, Sidecars, sourceNamespace) and by
labels (sourceLabels, workload selectors); gateways by the Gateways that select their pods.
Their pods count, and every combination of labels that rules ask for, in each of those namespaces:
manifests may be a part of the mesh, and in a cluster such a pod may start at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_mesh.mesh.clients import gateway_pods
from kubectl_mesh.mesh.hosts import patterns_for
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.sidecars import selector_of
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.rules import connection_rules, own_rules

MAX_COMBINATIONS = 256
"""So many combinations of labels are assumed in a namespace beside its pods."""

Selector = frozenset[tuple[str, str]]


@dataclass
class Distinctions:
    """What tells sidecars apart: namespaces, and selectors by labels.

    `anywhere` holds the selectors that count in all namespaces, `within` those of one alone.
    `complete` is False if too many do.
    """

    namespaces: set[str] = field(default_factory=set)
    anywhere: set[Selector] = field(default_factory=set)
    within: dict[str, set[Selector]] = field(default_factory=dict)
    complete: bool = True

    @property
    def key(self) -> Hashable:
        """The same for what tells the same sidecars apart."""
        within = frozenset((name, frozenset(found)) for name, found in self.within.items())
        return frozenset(self.namespaces), frozenset(self.anywhere), within

    def selectors(self, namespace: str) -> set[Selector]:
        """Those that count in a namespace."""
        return self.anywhere | self.within.get(namespace, set())

    def add_source(self, namespace: str | None, labels: Mapping[str, str] | None) -> None:
        """Clients of a namespace (None: of any) with labels (None: whatever they are)."""
        if namespace:
            self.namespaces.add(namespace)
        if labels:
            found = self.within.setdefault(namespace, set()) if namespace else self.anywhere
            found.add(frozenset(labels.items()))

    def add_virtual_service(self, router: Router, vs: VirtualService) -> None:
        if not vs.export.everyone:
            self.namespaces |= {vs.namespace, *vs.export.namespaces}
        for rule in router.rules(vs):
            for match in rule.matches or ():
                if not match.gateways:
                    self.add_source(match.source_namespace, match.source_labels)
        for rule in connection_rules(vs):
            for match in rule.matches or ():
                self.add_source(match.source_namespace, match.source_labels)

    def add_host(self, router: Router, host: str) -> None:
        """What tells apart which DestinationRule and which Service a client has for a host."""
        snapshot = router.snapshot
        for rule in snapshot.destination_rules.covering(host):
            self.namespaces |= {rule.namespace, *rule.export.namespaces}
            self.add_source(rule.namespace, rule.workload_selector)
        providers = [
            service for name in patterns_for(host) for service in snapshot.registry.by_host(name)
        ]
        for service in providers:
            if not service.export.everyone:
                self.namespaces |= {service.namespace, *service.export.namespaces}
        if len(providers) > 1 or snapshot.sidecars.depends_on_namespace:
            self.namespaces |= {service.namespace for service in providers}

    def add_sidecars(self, snapshot: Snapshot) -> None:
        for resource in snapshot.of("Sidecar"):
            labels = selector_of(resource)
            if labels or resource.namespace != snapshot.config.root_namespace:
                self.add_source(resource.namespace, labels)


def distinctions(routers: Sequence[Router], domain: str) -> Distinctions:
    """What tells apart the sidecars that may treat requests to a host, or to a wildcard's."""
    found = Distinctions()
    for router in routers:
        snapshot = router.snapshot
        found.add_sidecars(snapshot)
        names = {domain, *patterns_for(domain)}
        for name in {domain, domain.removeprefix("*.")}:
            for host in router.called(name, ""):
                names |= {host, *patterns_for(host)}
        hosts = set(names)
        rules = {
            vs
            for name in names
            for vs in (
                *snapshot.virtual_services.on_mesh_by_host.get(name, ()),
                *(snapshot.virtual_services.mesh_below(name) if name == domain else ()),
            )
        }
        for vs in rules:
            found.add_virtual_service(router, vs)
            if snapshot.sidecars.depends_on_namespace:
                found.namespaces.add(vs.namespace)
            hosts |= {target.host for target in router.destinations(vs)}
        for host in hosts:
            found.add_host(router, host)
    return found


def clients(
    routers: Sequence[Router], told_apart: Distinctions, *, assume: bool = True
) -> list[Proxy]:
    """A sidecar for each class of them; sets `complete` to False where there are too many.

    With `assume` those too that no pod was seen of, after those that were.
    """
    found = _clients([router.snapshot for router in routers], told_apart, assume=assume)
    return sorted(found, key=lambda client: client.assumed)


def _clients(
    snapshots: Sequence[Snapshot], told_apart: Distinctions, *, assume: bool
) -> Iterator[Proxy]:
    elsewhere: dict[frozenset[Selector], Proxy] = {}
    for namespace in sorted(told_apart.namespaces):
        known = _classes(snapshots, namespace, told_apart.selectors(namespace))
        yield from known.values()
        if assume:
            yield from _imagined(namespace, told_apart, known)
    for namespace in sorted({ns for snapshot in snapshots for ns in snapshot.sidecar_namespaces}):
        if namespace not in told_apart.namespaces:
            for satisfied, client in _classes(snapshots, namespace, told_apart.anywhere).items():
                elsewhere.setdefault(satisfied, client)
    yield from elsewhere.values()
    if assume:
        names = ("default", "other", *(f"other-{number}" for number in range(1000)))
        taken = told_apart.namespaces | {
            ns for each in snapshots for ns in _object_namespaces(each)
        }
        free = [name for name in names if name not in told_apart.namespaces]
        yield from _imagined(
            next((name for name in free if name not in taken), free[0]), told_apart, elsewhere
        )


def _object_namespaces(snapshot: Snapshot) -> Iterator[str]:
    return (service.namespace for service in snapshot.registry.services)


def _classes(
    snapshots: Sequence[Snapshot], namespace: str, selectors: Iterable[Selector]
) -> dict[frozenset[Selector], Proxy]:
    """The pods of a namespace that have a sidecar, or may have one, one for each class."""
    found: dict[frozenset[Selector], Proxy] = {}
    for snapshot in snapshots:
        for workload in snapshot.workloads.by_namespace.get(namespace, ()):
            satisfied = _satisfied(workload.labels, selectors)
            if satisfied not in found and snapshot.is_client(workload) is not False:
                found[satisfied] = Proxy(namespace, _telling(workload.labels, selectors))
    return found


def _telling(labels: Mapping[str, str], selectors: Iterable[Selector]) -> Mapping[str, str]:
    """The labels by which selectors could tell the pod from others."""
    names = {name for selector in selectors for name, _ in selector}
    return {name: value for name, value in labels.items() if name in names}


def _satisfied(labels: Mapping[str, str], selectors: Iterable[Selector]) -> frozenset[Selector]:
    return frozenset(selector for selector in selectors if selector <= labels.items())


def _imagined(
    namespace: str, told_apart: Distinctions, known: Collection[frozenset[Selector]]
) -> Iterator[Proxy]:
    """A client for each combination of selectors that one pod can satisfy, less what is known."""
    selectors = told_apart.selectors(namespace)
    found: dict[frozenset[Selector], dict[str, str]] = {frozenset(): {}}
    for selector in sorted(selectors, key=sorted):
        for labels in list(found.values()):
            if all(labels.get(name, value) == value for name, value in selector):
                merged = {**labels, **dict(selector)}
                found.setdefault(_satisfied(merged, selectors), merged)
        if len(found) > MAX_COMBINATIONS:
            told_apart.complete = False
            break
    for satisfied, labels in found.items():
        if satisfied not in known:
            yield Proxy(namespace, labels, assumed=True)


def gateways_compared(snapshots: Sequence[Snapshot]) -> list[Proxy]:
    """The gateways of several states of a mesh, as they are in the first.

    Where no pods are seen that a Gateway selects they are taken to be in the root namespace.
    """
    found: dict[tuple[str, Selector], Proxy] = {}
    keys = {
        pair
        for snapshot in snapshots
        for gateway in snapshot.gateways.all
        for pair in gateway.selector.items()
    }
    for snapshot in snapshots:
        for vs in snapshot.virtual_services.all:
            keys |= _source_labels(vs)
        for rule in snapshot.destination_rules.all:
            keys |= set((rule.workload_selector or {}).items())
    for snapshot in snapshots:
        for gateway in snapshot.gateways.all:
            pods = [pod for each in snapshots for pod in gateway_pods(each, gateway)]
            placed: Iterable[tuple[str, Mapping[str, str]]] = [
                (workload.namespace, workload.labels) for workload in pods
            ] or [(snapshot.config.root_namespace, gateway.selector)]
            for namespace, labels in placed:
                telling = frozenset(pair for pair in labels.items() if pair in keys)
                if (namespace, telling) not in found:
                    found[namespace, telling] = Proxy.of_gateway(
                        snapshots[0], namespace, dict(sorted(telling)), assumed=not pods
                    )
    return list(found.values())


def _source_labels(vs: VirtualService) -> set[tuple[str, str]]:
    return {
        pair
        for rule in own_rules(vs)
        for match in rule.matches or ()
        for pair in match.source_labels.items()
    }
