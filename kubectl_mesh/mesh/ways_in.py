"""The two ways in to a host: through a gateway, and from inside the mesh.

A request that comes in through a gateway meets the rules of the VirtualServices bound to that
gateway, and no other: rules for the mesh are applied by the sidecars of callers, and an ingress
proxy has none of them. Here rules of the one way are put beside those of the other.

This is no routing engine. It compares rules two at a time, and takes them to meet the same request
unless uri, method, header, query parameter or port rule that out; a regular expression rules out
nothing, and of tcp and tls rules the port alone is compared. Callers are those that no rule chooses
by their labels or namespace.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from kubectl_mesh.mesh.clients import gateway_namespaces
from kubectl_mesh.mesh.destination_rules import Subset
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import covers, namespace_of
from kubectl_mesh.mesh.registry import endpoint_labels
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination, HttpRule, VirtualService
from kubectl_mesh.mesh.workloads import Workload

_Conditions = Mapping[tuple[str, ...], Mapping[str, str]]
"""What a match demands: by field (("uri",), ("headers", "x-user")), a string match."""

_ANYTHING: _Conditions = {}
_ANY_URI = frozenset(("name", "uri", "ignoreUriCase"))
_L4 = ("tcp", "tls")
_GENERATED_LABELS = frozenset(
    (
        "pod-template-hash",
        "pod-template-generation",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class GatewayRule:
    """An http rule that requests through gateways can meet.

    `root` is the VirtualService bound to them, `rule.owner` that or its delegate. `gateways` are
    "namespace/name", in order.
    """

    root: VirtualService
    rule: HttpRule
    gateways: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MeshRule:
    """An http rule that calls from inside the mesh meet, of the VirtualService that wins."""

    root: VirtualService
    rule: HttpRule


@lru_cache(maxsize=1)
def gateway_rules(snapshot: Snapshot) -> tuple[GatewayRule, ...]:
    """Every http rule bound to a gateway other than the mesh, less those that no request can meet.

    A Gateway that is not in the snapshot is taken to serve what is bound to it. Kept for the last
    snapshot that was asked about, as several rules start from it.
    """
    return tuple(_gateway_rules(snapshot))


def _gateway_rules(snapshot: Snapshot) -> Iterator[GatewayRule]:
    virtual_services = snapshot.virtual_services
    for root in virtual_services.roots:
        serving = _serving(snapshot, root, http=True)
        for rule in virtual_services.http_rules(root) if serving else ():
            live = tuple(gateway for gateway in serving if rule.is_open_on(gateway))
            if live:
                yield GatewayRule(root, rule, live)
            serving = [gw for gw in serving if gw not in live or not _takes_everything(rule, gw)]
            if not serving:
                break


@dataclass(frozen=True, slots=True)
class NotCompared:
    """Two VirtualServices with too many matches to put each of the one beside each of the other."""

    root: VirtualService
    winner: VirtualService

    def __str__(self) -> str:
        return (
            f"what requests miss that meet {self.root.resource} and not {self.winner.resource}: "
            "their matches are too many to be compared"
        )


class RulesMissed:
    """Finds the mesh's rules that requests through gateways would meet if they called inside.

    Only those that are `wanted`, which is asked with a rule and the host that is called. What is
    worked out for one rule is kept for the next, so an object is for one pass over the rules of
    gateways. In that it compares no more than PAIRS matches with those of one VirtualService.
    """

    PAIRS = 1_000_000

    def __init__(self, snapshot: Snapshot, wanted: Callable[[HttpRule, str], bool]) -> None:
        self._snapshot = snapshot
        self._wanted = wanted
        self._branches = cache(_branches)
        self._rules = cache(self._read_rules)
        self._chosen = cache(self._choose)
        self._winners: dict[tuple[str, str], tuple[VirtualService, ...]] = {}
        self._compared: Counter[VirtualService] = Counter()

    def by(self, way_in: GatewayRule, to: Destination) -> Iterator[MeshRule | NotCompared]:
        """The wanted rules that requests through `way_in` would meet if they called `to.host`.

        The callers looked at are those of the Service's namespace, of the VirtualService's and of
        any other; what is exported to further namespaces only is meant for these. A VirtualService
        that is bound to both ways in is never put beside itself. A rule that sends calls for the
        host somewhere else, where `way_in` takes the same host in, is the one that brings requests
        to an egress gateway: they have met it already.
        """
        root = way_in.root
        key = (to.host, root.namespace)
        if key not in self._winners:
            self._winners[key] = mesh_winners(self._snapshot, to.host, root)
        for winner in self._winners[key]:
            if winner is root:
                continue
            wanted, leading = self._chosen(winner, to.host)
            if any(host != "*" and covers(host, to.host) for host in root.hosts):
                wanted &= leading
            if not wanted:
                continue
            rules, inside = self._rules(winner)
            outside = [
                _as_arriving(branch, way_in.rule, to)
                for gateway in way_in.gateways
                for branch in self._branches(way_in.rule, gateway)
            ]
            self._compared[winner] += len(outside) * len(inside)
            if self._compared[winner] > self.PAIRS:
                yield NotCompared(root, winner)
                continue
            met = {index for request in outside for index in _met(inside, request)}
            for index in sorted(met & wanted):
                yield MeshRule(winner, rules[index])

    def _read_rules(
        self, winner: VirtualService
    ) -> tuple[tuple[HttpRule, ...], list[tuple[int, _Conditions]]]:
        """The rules of a VirtualService, and their indexes with what each match demands."""
        rules = tuple(self._snapshot.virtual_services.http_rules(winner))
        return rules, [
            (index, branch)
            for index, rule in enumerate(rules)
            for branch in self._branches(rule, MESH)
        ]

    def _choose(self, winner: VirtualService, host: str) -> tuple[frozenset[int], frozenset[int]]:
        """The indexes of the rules that are wanted for a host, and of those that lead to it."""
        rules = tuple(enumerate(self._rules(winner)[0]))
        return (
            frozenset(index for index, rule in rules if self._wanted(rule, host)),
            frozenset(index for index, rule in rules if any(to.host == host for to in rule.routes)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bypass:
    """A route of a gateway that names no subset, and the subsets that rules for the mesh choose.

    `root` is the VirtualService bound to the gateways ("namespace/name"); `missed` are routes to
    `to.host`, each with the VirtualService that is bound to the mesh.
    """

    root: VirtualService
    gateways: tuple[str, ...]
    to: Destination
    missed: tuple[tuple[VirtualService, Destination], ...]


def bypasses(snapshot: Snapshot) -> Iterator[Bypass | NotCompared]:
    """Where requests, or connections, through a gateway miss the mesh's choice of subsets.

    A rule that names a subset of the host, for a part of the requests, has made its own choice.
    """

    def chooses(rule: HttpRule, host: str) -> bool:
        return any(route.subset and route.host == host for route in rule.routes)

    rules_missed = RulesMissed(snapshot, chooses)
    for way_in in gateway_rules(snapshot):
        for to in _without_subset(way_in.rule.routes):
            missed: list[tuple[VirtualService, Destination]] = []
            for rule in rules_missed.by(way_in, to):
                if isinstance(rule, NotCompared):
                    yield rule
                    continue
                missed += (
                    (rule.root, route)
                    for route in rule.rule.routes
                    if route.subset and route.host == to.host
                )
            if missed:
                yield Bypass(way_in.root, way_in.gateways, to, tuple(missed))
    for root in snapshot.virtual_services.roots:
        if root.gateways == {MESH} or not any(root.resource.spec.get(key) for key in _L4):
            continue
        serving = _serving(snapshot, root, http=False)
        for path, _ in _connection_rules(root):
            for to in _without_subset(root.routes_of(path)):
                gateways = tuple(name for name in serving if name in to.gateways)
                connections = tuple(dict.fromkeys(_connections_missed(snapshot, root, to)))
                if gateways and connections:
                    yield Bypass(root, gateways, to, connections)


def _without_subset(routes: tuple[Destination, ...]) -> Iterator[Destination]:
    chosen = {to.host for to in routes if to.subset}
    return (to for to in routes if to.host not in chosen)


def _connection_rules(vs: VirtualService) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The tcp and tls rules of a VirtualService, each with its path."""
    for protocol in _L4:
        for index, rule in enumerate(vs.resource.spec.get(protocol) or ()):
            yield ("spec", protocol, index), rule


def _connections_missed(
    snapshot: Snapshot, root: VirtualService, to: Destination
) -> Iterator[tuple[VirtualService, Destination]]:
    """The routes to subsets of `to.host` that its callers in the mesh meet, less those of `root`.

    Rules are told apart by port alone; one that takes all connections to the port is the last.
    """
    for namespace in _callers(snapshot, to.host, root):
        for vs, path, match in _open_connection_matches(snapshot, to.host, namespace):
            if match.get("port") and to.port and match["port"] != to.port:
                continue
            if vs is root:
                break
            for route in vs.routes_of(path):
                if route.subset and route.host == to.host:
                    yield vs, route
            narrowed = match.get("destinationSubnets") or match.get("sniHosts")
            if not narrowed and (to.port or not match.get("port")):
                break


def _open_connection_matches(
    snapshot: Snapshot, host: str, namespace: str | None
) -> Iterator[tuple[VirtualService, Path, Mapping[str, Any]]]:
    """What tcp and tls rules for the mesh demand of connections by any caller, in order."""
    for vs in snapshot.virtual_services.mesh_connections(host, namespace):
        for path, rule in _connection_rules(vs):
            matches: list[Mapping[str, Any]] = rule.get("match") or [{}]
            for match in matches:
                named = match.get("gateways")
                if (named and MESH not in named) or match.get("sourceLabels"):
                    continue
                if not match.get("sourceNamespace"):
                    yield vs, path, match


def mesh_winners(snapshot: Snapshot, host: str, near: VirtualService) -> tuple[VirtualService, ...]:
    """The VirtualServices whose rules callers of a host meet: in most cases one, or none.

    The callers are those of the Service's namespace, of `near`'s, and of any other namespace.
    """
    winners = (
        snapshot.virtual_services.mesh_winner(host, namespace)
        for namespace in _callers(snapshot, host, near)
    )
    return tuple(dict.fromkeys(winner for winner in winners if winner))


def _callers(snapshot: Snapshot, host: str, near: VirtualService) -> tuple[str | None, ...]:
    """The namespaces whose callers are looked at; None stands for any other.

    Where all VirtualServices for the host are public, all callers are alike.
    """
    if all(vs.export.everyone for vs in snapshot.virtual_services.on_mesh_for(host)):
        return (None,)
    return (None, service_namespace(snapshot, host), near.namespace)


def service_namespace(snapshot: Snapshot, host: str) -> str | None:
    """The namespace of what provides a host, or the one that its name tells."""
    providers = snapshot.registry.providers(host)
    return providers[0].namespace if providers else namespace_of(host, snapshot.config.domain)


def absent_gateways(snapshot: Snapshot, gateways: tuple[str, ...]) -> list[str]:
    """A sentence for each Gateway that is known by name only."""
    return [
        f"Gateway {gateway} is not in the input: taken to exist"
        for gateway in gateways
        if gateway not in snapshot.gateways.by_id
    ]


def _serving(snapshot: Snapshot, root: VirtualService, *, http: bool) -> list[str]:
    """The gateways that take http rules, or tcp and tls rules, of a VirtualService, in order.

    That is: they admit one of its hosts, and their proxies can see it.
    """
    found: list[str] = []
    for name in sorted(root.gateways - {MESH}):
        gateway = snapshot.gateways.by_id.get(name)
        if gateway is None or (
            any(
                server.takes_http_routes is http
                for host in root.hosts
                for server in gateway.admitting(host, root.namespace)
            )
            and (
                root.export.everyone
                or any(
                    root.export.reaches(namespace) or not certain
                    for namespace, certain in gateway_namespaces(snapshot, name)
                )
            )
        ):
            found.append(name)
    return found


def _branches(rule: HttpRule, gateway: str) -> list[_Conditions]:
    """What each match of a rule demands on a gateway, of any client; none where it cannot hold."""
    if not rule.is_open_on(gateway):
        return []
    if not rule.matches and rule.under is None:
        return [_ANYTHING]
    own = [_conditions(match) for match in rule.open_matches_on(gateway)] or [_ANYTHING]
    if rule.under is None:
        return own
    return [{**outer, **inner} for outer in _branches(rule.under, gateway) for inner in own]


def _conditions(match: Mapping[str, Any]) -> _Conditions:
    found: dict[tuple[str, ...], Mapping[str, str]] = {}
    for field in ("uri", "scheme", "method", "authority"):
        if match.get(field):
            found[(field,)] = match[field]
    for field in ("headers", "withoutHeaders", "queryParams"):
        for name, value in (match.get(field) or {}).items():
            key = name if field == "queryParams" else name.lower()
            found[field, key] = value or {}
    if match.get("port"):
        found[("port",)] = {"exact": str(match["port"])}
    if found.get(("uri",)) in ({"prefix": "/"}, {"regex": ".*"}, {"regex": "/.*"}):
        del found[("uri",)]
    elif match.get("ignoreUriCase") and ("uri",) in found:
        found["uri", "in any case"] = found.pop(("uri",))
    return found


def _takes_everything(rule: HttpRule, gateway: str) -> bool:
    """Whether istiod leaves out the rules after this one, for a gateway: a match of all requests.

    A match that names gateways is none, though it holds for all requests.
    """
    if rule.under is not None and not _takes_everything(rule.under, gateway):
        return False
    return not rule.matches or any(
        match.keys() <= _ANY_URI and not _conditions(match)
        for match in rule.open_matches_on(gateway)
    )


def _as_arriving(outside: _Conditions, rule: HttpRule, to: Destination) -> _Conditions:
    """What is known of requests when they arrive at a host, the gateway's rule having changed them.

    The port that a gateway listens on and the name that it was asked for tell nothing inside.
    """
    known = dict(outside)
    for lost in ("port", "authority", "scheme"):
        known.pop((lost,), None)
    rewrite = rule.data.get("rewrite") or {}
    if rewrite.get("uri") or rewrite.get("uriRegexRewrite"):
        for key in [key for key in known if key[0] in ("uri", "queryParams")]:
            del known[key]
    routes: list[Mapping[str, Any]] = rule.data.get("route") or []
    if any((place.get("headers") or {}).get("request") for place in (rule.data, *routes)):
        for key in [key for key in known if key[0] in ("headers", "withoutHeaders")]:
            del known[key]
    if to.port:
        known[("port",)] = {"exact": str(to.port)}
    return known


def _met(rules: list[tuple[int, _Conditions]], request: _Conditions) -> Iterator[int]:
    """The indexes of the mesh's rules that such requests may meet, up to one that takes all."""
    for index, inside in rules:
        shared = request.keys() & inside.keys()
        if any(
            key[0] != "withoutHeaders" and _exclude(request[key], inside[key]) for key in shared
        ):
            continue
        yield index
        if all(key in request and _implies(request[key], inside[key]) for key in inside):
            return


def _exclude(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether no string satisfies both."""
    if one.get("exact") and other.get("exact"):
        return one["exact"] != other["exact"]
    if one.get("prefix") and other.get("exact"):
        return not other["exact"].startswith(one["prefix"])
    if one.get("exact") and other.get("prefix"):
        return not one["exact"].startswith(other["prefix"])
    if one.get("prefix") and other.get("prefix"):
        return not (
            one["prefix"].startswith(other["prefix"]) or other["prefix"].startswith(one["prefix"])
        )
    return False


def _implies(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether every string that satisfies `one` certainly satisfies `other`; {} is any string."""
    if not other:
        return True
    if other.get("prefix"):
        return (one.get("exact") or one.get("prefix") or "").startswith(other["prefix"])
    return one == other


class Share(enum.Enum):
    """Which of a host's pods a subset selects. Those that ALL_NOW leaves out are scaled to zero."""

    ALL = enum.auto()
    ALL_NOW = enum.auto()
    SOME = enum.auto()
    UNKNOWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Selection:
    """What choosing a subset does to requests for a host.

    `subset` is its definition, None where none was found, `siblings` how many subsets of the host
    are defined beside it. `why` says what `share` rests on.
    """

    share: Share
    subset: Subset | None
    siblings: int
    why: str


def select(snapshot: Snapshot, host: str, name: str, client_namespace: str) -> Selection:
    """What the subset `name` of a host selects, as clients of a namespace have it defined."""
    namespace = service_namespace(snapshot, host)
    rules = snapshot.destination_rules
    subsets = rules.lookup(host, client_namespace, namespace).subsets
    if name not in subsets:
        subsets = {subset.name: subset for rule in rules.covering(host) for subset in rule.subsets}
    subset = subsets.get(name)
    siblings = len(subsets) - 1 if subset else 0
    endpoints = [(str(pod), pod.labels, pod.is_scaled_to_zero) for pod in pods_of(snapshot, host)]
    for service in snapshot.registry.providers(host):
        where = f"an endpoint of {service.resource}"
        endpoints += [(where, labels, False) for labels in endpoint_labels(service)]
    if subset is None:
        versions = {_own_labels(labels) for _, labels, _ in endpoints}
        if len(versions) == 1 and not (namespace and snapshot.unknown_workloads(namespace)):
            return Selection(Share.ALL, None, 0, f"all pods of {host} are alike")
        return Selection(Share.UNKNOWN, None, 0, f"nothing that is known defines subset {name}")
    outside = [
        (where, asleep)
        for where, labels, asleep in endpoints
        if not subset.labels.items() <= labels.items()
    ]
    for where, asleep in outside:
        if not asleep:
            return Selection(Share.SOME, subset, siblings, f"subset {name} leaves out {where}")
    reason = snapshot.unknown_workloads(namespace) if namespace else None
    if not reason and not endpoints:
        reason = f"no pod of {host} is known"
    if reason:
        return Selection(Share.UNKNOWN, subset, siblings, reason)
    if outside:
        why = f"subset {name} leaves out {outside[0][0]}, which is scaled to zero"
        return Selection(Share.ALL_NOW, subset, siblings, why)
    return Selection(Share.ALL, subset, siblings, f"subset {name} selects all pods of {host}")


def _own_labels(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """A pod's labels without those that controllers give to each pod or revision."""
    return frozenset((key, value) for key, value in labels.items() if key not in _GENERATED_LABELS)


def pods_of(snapshot: Snapshot, host: str) -> tuple[Workload, ...]:
    """The pods, or what makes them, behind the Services that provide a host.

    What a Deployment has left behind at zero replicas is left out: nobody scales that up.
    """
    return tuple(
        workload
        for service in snapshot.registry.providers(host)
        if service.selector
        for workload in snapshot.workloads.select(service.namespace, service.selector)
        if not (workload.is_scaled_to_zero and workload.resource.metadata.get("ownerReferences"))
    )
