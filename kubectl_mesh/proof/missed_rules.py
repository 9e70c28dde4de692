"""Rules for the mesh that requests from a gateway pass by, and a gateway's that calls inside do.

A request that comes in through a gateway meets the rules of the VirtualServices bound to that
gateway, and no other: rules for the mesh are applied by the sidecars of callers, and an ingress
proxy has none of them. Here rules of the one way are put beside those of the other.

Of http rules those meet the same request for which examples.py finds one: what a gateway's route
takes, as it arrives at the host, and what a sidecar's route for the host takes as well. Claims of
tokens and expressions that it cannot read are taken to hold or not, as suits. Of tcp and tls rules
the port alone is compared. Callers are those that no rule chooses by their labels or namespace, and
a gateway's rules are read without what other VirtualServices add there.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from kubectl_mesh.mesh.added_labels import ADDED, adders, endpoint_has
from kubectl_mesh.mesh.clients import gateway_namespaces
from kubectl_mesh.mesh.destination_rules import Subset
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import covers, namespace_of
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import endpoint_labels
from kubectl_mesh.mesh.snapshot import Snapshot, once_per_snapshot
from kubectl_mesh.mesh.unread import REASON
from kubectl_mesh.mesh.virtual_services import Destination, VirtualService
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.proof.dead_rules import ports_of
from kubectl_mesh.proof.examples import Hosts, Search, TooMany
from kubectl_mesh.routing.matching import Conditions, StringMatch
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.rules import Match, Rule, connection_rules
from kubectl_mesh.routing.table import Route, WayIn, routes_of

_ANY_HOST = Hosts("*", "any.example.org")
_L4 = ("tcp", "tls")
_URI = ":uri"
_Routes = tuple[Route, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A route by which requests come in: the one at `index` among a VirtualService's on a gateway.

    `port` is the server's; 0 stands for those of an unknown Gateway that no match names.
    """

    port: int
    routes: _Routes
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class GatewayRule:
    """An http rule that requests through gateways can meet.

    `root` is the VirtualService bound to them, `rule.owner` that or its delegate. `gateways` are
    "namespace/name", in order.
    """

    root: VirtualService
    rule: Rule
    gateways: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MeshRule:
    """An http rule that calls from inside the mesh meet, of the VirtualService that wins."""

    root: VirtualService
    rule: Rule


@once_per_snapshot
def gateway_rules(snapshot: Snapshot) -> tuple[GatewayRule, ...]:
    """Every http rule bound to a gateway other than the mesh, up to the first catch-all.

    A Gateway that is not in the snapshot is taken to serve what is bound to it.
    """
    return tuple(_gateway_rules(snapshot))


def _gateway_rules(snapshot: Snapshot) -> Iterator[GatewayRule]:
    router = router_of(snapshot)
    for root in snapshot.virtual_services.roots:
        serving = _serving(snapshot, root, http=True)
        rules = router.rules(root) if serving else ()
        found: dict[Rule | None, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        alike: dict[_Identity, _Routes] = {}
        for gateway, served in serving.items():
            for port in served or ports_of(snapshot, root.hosts, rules, gateway):
                routes = routes_of(root, rules, WayIn(Proxy(""), gateway, port), {})
                routes = alike.setdefault(_identity(routes), routes)
                for index, route in enumerate(routes):
                    found[route.rule][gateway].append(Entry(port, routes, index))
        for rule in rules:
            if rule in found:
                entries = tuple(entry for each in found[rule].values() for entry in each)
                yield GatewayRule(root, rule, tuple(found[rule]), entries)


_Identity = tuple[tuple[int, int], ...]


def _identity(routes: _Routes) -> _Identity:
    """What tells apart the routes that the same rules give on several proxies."""
    return tuple((id(route.rule), id(route.match)) for route in routes)


@dataclass(frozen=True, slots=True)
class NotCompared:
    """Two VirtualServices whose rules could not be put beside each other, and why.

    `unread` tells that an object which is not followed may decide.
    """

    root: VirtualService
    winner: VirtualService
    why: str
    unread: bool = False

    def __str__(self) -> str:
        return (
            f"what requests miss that meet {self.root.resource} and not {self.winner.resource}: "
            f"{self.why}"
        )


class RulesMissed:
    """Finds the mesh's rules that requests through gateways would meet if they called inside.

    Only those that are `wanted`, which is asked with a rule and the host that is called. An object
    is for one pass over the rules of gateways. In that it spends no more than EFFORT on those of
    one VirtualService: a search is SEARCH, and one for each match that it has to avoid.
    """

    EFFORT = 500_000
    SEARCH = 50

    def __init__(self, snapshot: Snapshot, wanted: Callable[[Rule, str], bool]) -> None:
        self._comparison = _comparison(snapshot)
        self._wanted = wanted
        self._chosen = cache(self._choose)
        self._met_at_waypoint = cache(partial(rules_met_at_waypoint, snapshot))
        self._spent: Counter[VirtualService] = Counter()

    def by(self, way_in: GatewayRule, to: Destination) -> Iterator[MeshRule | NotCompared]:
        """The wanted rules that requests through `way_in` would meet if they called `to.host`.

        The callers looked at are those of the Service's namespace, of the VirtualService's and of
        any other; what is exported to further namespaces only is meant for these. A VirtualService
        that is bound to both ways in is never put beside itself, nor is one that requests meet
        afterwards, at a waypoint to which gateways send. A rule that sends calls for the
        host somewhere else, where `way_in` takes the same host in, is the one that brings requests
        to an egress gateway: they have met it already.
        """
        root = way_in.root
        takes_host = any(host != "*" and covers(host, to.host) for host in root.hosts)
        pairs = {
            (inside, id(entry.routes), entry.index): entry
            for entry in way_in.entries
            for inside in self._comparison.inside(to, entry.port, root)
        }
        met: dict[VirtualService, set[Rule | None]] = defaultdict(set)
        given_up: dict[VirtualService, str] = {}
        for (inside, *_), entry in pairs.items():
            winner = inside.winner
            if winner is root or winner in given_up:
                continue
            if winner.namespace in self._met_at_waypoint(to.host):
                continue
            chosen = self._chosen(inside, to.host, takes_host)
            arriving = self._comparison.arriving(entry) if chosen else Conditions()
            try:
                for index in chosen:
                    route = inside.routes[index]
                    if route.rule in met[winner] or _apart(arriving.path, route.conditions.path):
                        continue
                    self._spend(winner, self.SEARCH + entry.index + index)
                    if self._comparison.meet(entry, inside, index):
                        met[winner].add(route.rule)
            except TooMany:
                spent = self._spent[winner] > self.EFFORT
                kind = "many" if spent else "intricate"
                given_up[winner] = f"their matches are too {kind} to be compared"
        if met and (unread := unread_rule(self._comparison.router.snapshot, to.host)):
            yield NotCompared(root, next(iter(met)), unread, unread=True)
            return
        for winner, rules in met.items():
            for rule in self._comparison.router.rules(winner):
                if rule in rules:
                    yield MeshRule(winner, rule)
        for winner, why in given_up.items():
            yield NotCompared(root, winner, why)

    def _choose(self, inside: _Inside, host: str, leading: bool) -> Sequence[int]:
        """The indexes of the routes whose rules are wanted; if `leading`, of those to the host."""
        return [
            index
            for index, route in enumerate(inside.routes)
            if route.rule
            and self._wanted(route.rule, host)
            and (not leading or any(to.host == host for to in route.rule.routes))
        ]

    def _spend(self, winner: VirtualService, effort: int) -> None:
        self._spent[winner] += effort
        if self._spent[winner] > self.EFFORT:
            raise TooMany


@dataclass(frozen=True, slots=True, eq=False)
class _Inside:
    """The routes of sidecars for a host, all of one VirtualService."""

    winner: VirtualService
    routes: _Routes


@once_per_snapshot
def _comparison(snapshot: Snapshot) -> _Comparison:
    return _Comparison(snapshot)


class _Comparison:
    """Puts routes of gateways and of sidecars side by side. It keeps what it finds out."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.router = router_of(snapshot)
        self._snapshot = snapshot
        self._search = Search(snapshot.config.path_normalization)
        self._callers = cache(_callers)
        self._alike: dict[_Identity, _Inside] = {}
        self._tables = cache(self._read_tables)
        self._lost = cache(_lost)
        self._met: dict[tuple[Entry, _Inside, int], bool] = {}

    def inside(self, to: Destination, gateway_port: int, root: VirtualService) -> Iterator[_Inside]:
        """What callers' sidecars have for the host, on the ports where requests may arrive."""
        services = self._snapshot.registry.providers(to.host)
        ports = {port.number for service in services for port in service.ports}
        if to.port:
            ports = {to.port}
        elif gateway_port and len(ports) > 1:
            ports = {gateway_port}
        for namespace in self._callers(self._snapshot, to.host, root.namespace):
            for port in sorted(ports) or (0,):
                yield from self._tables(to.host, namespace, port)

    def _read_tables(self, host: str, namespace: str | None, port: int) -> list[_Inside]:
        """What sidecars of a namespace, None for any other, have for a host; 0 is any port.

        Of a host that nothing in the snapshot provides the protocol is not known.
        """
        tables: list[_Routes] = []
        if self._snapshot.registry.providers(host):
            tables.append(self.router.sidecar(Proxy(namespace or ""), host, port).routes)
        elif winner := self._snapshot.virtual_services.mesh_winner(host, namespace):
            rules = self.router.rules(winner)
            for each in [port] if port else ports_of(self._snapshot, (host,), rules, MESH):
                way_in = WayIn(Proxy(namespace or ""), MESH, each)
                tables.append(routes_of(winner, rules, way_in, {}))
        return [
            self._alike.setdefault(_identity(routes), _Inside(routes[0].virtual_service, routes))
            for routes in tables
            if routes and routes[0].virtual_service
        ]

    def arriving(self, entry: Entry) -> Conditions:
        """What is known of a route's requests when they arrive at a host."""
        route = entry.routes[entry.index]
        assert route.rule
        return _less(route.conditions, self._lost(route.rule))

    def meet(self, entry: Entry, inside: _Inside, index: int) -> bool:
        """Whether requests that come in by a route would take one inside. Raises TooMany."""
        key = entry, inside, index
        if key not in self._met:
            self._met[key] = self._meet(entry, inside.routes, index)
        return self._met[key]

    def _meet(self, entry: Entry, inside: _Routes, index: int) -> bool:
        outside = entry.routes[entry.index]
        assert outside.rule
        lost = self._lost(outside.rule)
        both = [self.arriving(entry), inside[index].conditions]
        if not self._exists(both, ()):
            return False
        earlier = [
            route.conditions
            for route in entry.routes[: entry.index]
            if not _apart(route.conditions.path, outside.conditions.path)
        ]
        kept = [each for each in earlier if _less(each, lost) == each]
        if len(kept) < len(earlier) and not self._exists([outside.conditions], earlier):
            return False
        return self._exists(both, [*kept, *(route.conditions for route in inside[:index])])

    def _exists(self, met: Sequence[Conditions], unmet: Sequence[Conditions]) -> bool:
        self._search.sampled.clear()
        example = self._search.example(met, unmet, _ANY_HOST, 80)
        if example is None and self._search.sampled:
            raise TooMany
        return example is not None


def _apart(one: StringMatch | None, other: StringMatch | None) -> bool:
    """Whether the beginnings of two paths show that none meets both."""
    if one is None or other is None:
        return False
    short, long = sorted((_head(one), _head(other)), key=len)
    return not long.startswith(short)


@lru_cache(65536)
def _head(match: StringMatch) -> str:
    """What every string that is accepted begins with, in lower case."""
    if match.kind != "regex":
        return match.value.lower()
    head = re.match(r"[\w/~-]*(?![*?{\w/~-])", match.value)
    return head[0].lower() if head and "|" not in match.value else ""


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

    def chooses(rule: Rule, host: str) -> bool:
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
        for each in connection_rules(root):
            for to in _without_subset(each.routes):
                if rules_met_at_waypoint(snapshot, to.host):
                    continue
                gateways = tuple(name for name in serving if name in to.gateways)
                connections = tuple(dict.fromkeys(_connections_missed(snapshot, root, to)))
                if not gateways or not connections:
                    continue
                if unread := unread_rule(snapshot, to.host):
                    yield NotCompared(root, connections[0][0], unread, unread=True)
                    continue
                yield Bypass(root, gateways, to, connections)


def _without_subset(routes: tuple[Destination, ...]) -> Iterator[Destination]:
    chosen = {to.host for to in routes if to.subset}
    return (to for to in routes if to.host not in chosen)


def _connections_missed(
    snapshot: Snapshot, root: VirtualService, to: Destination
) -> Iterator[tuple[VirtualService, Destination]]:
    """The routes to subsets of `to.host` that its callers in the mesh meet, less those of `root`.

    Rules are told apart by port alone; one that takes all connections to the port is the last.
    """
    for namespace in _callers(snapshot, to.host, root.namespace):
        for vs, rule, match in _open_connection_matches(snapshot, to.host, namespace):
            port = match.port if match else 0
            if port and to.port and port != to.port:
                continue
            if vs is root:
                break
            for route in rule.routes:
                if route.subset and route.host == to.host:
                    yield vs, route
            narrowed = match and (match.subnets or match.server_names)
            if not narrowed and (to.port or not port):
                break


def _open_connection_matches(
    snapshot: Snapshot, host: str, namespace: str | None
) -> Iterator[tuple[VirtualService, Rule, Match | None]]:
    """What tcp and tls rules for the mesh demand of connections by any caller, in order."""
    for vs in snapshot.virtual_services.mesh_connections(host, namespace):
        for rule in connection_rules(vs):
            if rule.matches is None:
                yield vs, rule, None
            for match in rule.matches or ():
                for_mesh = not match.gateways or MESH in match.gateways
                if for_mesh and not match.source_labels and not match.source_namespace:
                    yield vs, rule, match


def _callers(snapshot: Snapshot, host: str, near: str) -> tuple[str | None, ...]:
    """The namespaces whose callers are looked at; None stands for any other.

    They are that of the Service and `near`; all callers are alike where all that bears on the host
    is public, and no Sidecar hides anything.
    """
    seen = [vs.export for vs in snapshot.virtual_services.on_mesh_for(host)]
    seen += [service.export for service in snapshot.registry.providers(host)]
    if all(export.everyone for export in seen) and not snapshot.of("Sidecar"):
        return (None,)
    return tuple(dict.fromkeys((None, service_namespace(snapshot, host), near)))


def service_namespace(snapshot: Snapshot, host: str) -> str | None:
    """The namespace of what provides a host, or the one that its name tells."""
    providers = snapshot.registry.providers(host)
    return providers[0].namespace if providers else namespace_of(host, snapshot.config.domain)


def unread_rule(snapshot: Snapshot, host: str) -> str | None:
    """Why it is not known what sidecars do with requests for a host; None where it is."""
    route = next(snapshot.unread.ruling(host), None)
    return f"{route} may rule {host} in the mesh, and {REASON}" if route else None


def rules_met_at_waypoint(snapshot: Snapshot, host: str) -> frozenset[str]:
    """The namespaces whose rules for a host requests from gateways meet at its waypoint."""
    found = (each.rules_of for each in snapshot.waypoints_of(host) if each.from_gateways)
    return frozenset().union(*found)


def absent_gateways(snapshot: Snapshot, root: VirtualService, gateways: Sequence[str]) -> list[str]:
    """A sentence for each Gateway of a VirtualService that is known by name only."""
    hosts = ", ".join(root.hosts[:3]) + (", ..." if root.hosts[3:] else "")
    return [
        f"Gateway {gateway} is not in the input: taken to admit {hosts}"
        for gateway in gateways
        if gateway not in snapshot.gateways.by_id
    ]


def _serving(snapshot: Snapshot, root: VirtualService, *, http: bool) -> dict[str, list[int]]:
    """The gateways that take http rules, or tcp and tls rules, of a VirtualService, in order.

    That is: they admit one of its hosts, and their proxies can see it. Each with the ports where
    they do; without any where it is known by name only. A server that redirects to https asks no
    http rule.
    """
    found: dict[str, list[int]] = {}
    for name in sorted(root.gateways - {MESH}):
        gateway = snapshot.gateways.by_id.get(name)
        if gateway is None:
            found[name] = []
            continue
        ports = {
            server.number
            for host in root.hosts
            for server in gateway.admitting(host, root.namespace)
            if server.takes_http_routes is http and not (http and server.redirects_to_https)
        }
        if ports and (
            root.export.everyone
            or any(
                root.export.reaches(namespace) or not certain
                for namespace, certain in gateway_namespaces(snapshot, name)
            )
        ):
            found[name] = sorted(ports)
    return found


def _lost(rule: Rule) -> frozenset[str]:
    """What is not known of requests that a gateway's rule has changed when they arrive at a host.

    That is names of headers, and _URI with its parameters. By which name and scheme they came in
    tells nothing inside.
    """
    lost = {":authority", "host", ":scheme"}
    rewrite = rule.data.get("rewrite") or {}
    if rewrite.get("uri") or rewrite.get("uriRegexRewrite"):
        lost.add(_URI)
    for place in (rule.data, *(rule.data.get("route") or ())):
        change = (place.get("headers") or {}).get("request") or {}
        for names in (change.get("set"), change.get("add"), change.get("remove")):
            lost |= {name.lower() for name in names or ()}
    return frozenset(lost)


def _less(conditions: Conditions, lost: frozenset[str]) -> Conditions:
    """The conditions without those on what is lost."""
    rewritten = _URI in lost
    return Conditions(
        path=None if rewritten else conditions.path,
        headers=tuple(each for each in conditions.headers if each[0] not in lost),
        without=tuple(each for each in conditions.without if each[0] not in lost),
        parameters=() if rewritten else conditions.parameters,
    )


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
    endpoints = [(str(pod), pod.labels, pod) for pod in pods_of(snapshot, host)]
    listed: list[tuple[str, Mapping[str, str], Workload | None]] = [*endpoints]
    for service in snapshot.registry.providers(host):
        where = f"an endpoint of {service.resource}"
        listed += [(where, labels, None) for labels in endpoint_labels(service)]
    if subset is None:
        versions = {_own_labels(labels) for _, labels, _ in listed}
        if len(versions) == 1 and not (namespace and snapshot.unknown_workloads(namespace)):
            return Selection(Share.ALL, None, 0, f"all pods of {host} are alike")
        return Selection(Share.UNKNOWN, None, 0, f"nothing that is known defines subset {name}")
    selected = [
        (where, pods, _all_have(labels, pods, subset.labels)) for where, labels, pods in listed
    ]
    outside = [(where, pods) for where, pods, chosen in selected if chosen is False]
    for where, pods in outside:
        if not (pods and pods.is_scaled_to_zero):
            return Selection(Share.SOME, subset, siblings, f"subset {name} leaves out {where}")
    reason = snapshot.unknown_workloads(namespace) if namespace else None
    if not reason and not listed:
        reason = f"no pod of {host} is known"
    if not reason and any(chosen is None for *_, chosen in selected):
        reason = f"{adders(subset.labels)}: which pods subset {name} selects is not known"
    if reason:
        return Selection(Share.UNKNOWN, subset, siblings, reason)
    if outside:
        why = f"subset {name} leaves out {outside[0][0]}, which is scaled to zero"
        return Selection(Share.ALL_NOW, subset, siblings, why)
    return Selection(Share.ALL, subset, siblings, f"subset {name} selects all pods of {host}")


def _all_have(
    labels: Mapping[str, str], pods: Workload | None, wanted: Mapping[str, str]
) -> bool | None:
    """Whether all pods of a workload, or a listed endpoint, have all labels that are wanted."""
    if pods is None or wanted.items() <= labels.items():
        return endpoint_has(labels, wanted)
    some = pods.bear(wanted)
    return some and pods.resource.spec.get("replicas") == 1


def _own_labels(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """A pod's labels without those that controllers give to each pod or revision."""
    return frozenset((key, value) for key, value in labels.items() if key not in ADDED)


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
