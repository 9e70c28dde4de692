"""What two states of a mesh treat differently, over all proxies and all requests.

For each proxy, port and host the routes of both states are walked in the order in which Envoy tries
them: the requests that the i-th takes here and the j-th there are a region, and where the two treat
requests differently examples.py says whether it is empty, with an example if it is not. What no
changed object can touch is left out. Of connections that no http rule is for, one of each kind is
compared that the filter chains of either state can tell apart (chains.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.sidecars import selector_of
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import ABSOLUTE_NAMES
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.examples import (
    Hosts,
    Search,
    TooMany,
    hosts_of,
    reads_authority,
    unreadable,
)
from kubectl_mesh.proof.proxies_compared import (
    clients,
    distinctions,
    gateways_compared,
)
from kubectl_mesh.proof.rewriting import telling_apart
from kubectl_mesh.proof.scope import Scope, not_compared, scope_of, unread
from kubectl_mesh.proof.treatment import (
    Treatment,
    differing,
    fixed,
    treatment_of,
    treatment_of_connection,
)
from kubectl_mesh.routing.chains import Chain, Listener, kinds_of_connections
from kubectl_mesh.routing.connection import Connection, connection_of
from kubectl_mesh.routing.matching import Conditions, StringMatch, Undecidable
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Router, router_of
from kubectl_mesh.routing.table import Route, Table

STEPS_A_ROUTE = 5_000
"""So many more steps may be taken for each route of either state."""
MAX_NODES = 200_000
"""So many examples are tried in one comparison."""

_PORTS = 65536
_EVERYTHING = (None, StringMatch("prefix", "/"), StringMatch("prefix", "/", fold=True))
_UNROUTED: Mapping[str, Treatment] = {
    "virtual-service": fixed("404", "404: no rule matches", fails=True),
    "service": fixed("404", "404: no rule matches", fails=True),
    "passthrough": fixed("passthrough", "let out of the mesh, to where DNS leads"),
    "dynamic-dns": fixed("dynamic-dns", "let out of the mesh, to where the sidecar's DNS leads"),
    "blackhole": fixed("blackhole", "502: the registry does not know the host", fails=True),
    "no-route": fixed("404", "404: the gateway has no rule for the host", fails=True),
    "closed": fixed("closed", "no server of the gateway takes it", fails=True),
    "https-redirect": fixed("https-redirect", "301 to https, by the Gateway's server"),
}
_UNCHAINED: Mapping[str, Treatment] = {
    "passthrough": _UNROUTED["passthrough"],
    "blackhole": fixed("closed", "closed: the registry does not know the host", fails=True),
    "closed": fixed("closed", "closed: no rule takes it", fails=True),
    "rejected": fixed(
        "rejected", "Envoy refuses two rules for the same, and keeps what it had", fails=True
    ),
}


@dataclass(frozen=True, eq=False)
class Decision:
    """What one state does with requests, and the route that makes it; None where none does.

    For connections it is `chain`, the filter chain, that makes it.
    """

    conditions: Conditions
    treatment: Treatment
    route: Route | None
    kind: str
    chain: Chain | None = None

    @property
    def virtual_service(self) -> VirtualService | None:
        """The one with hosts by which it is made, whatever delegate has the rule; None for none."""
        found = self.chain or self.route
        return found.virtual_service if found else None

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """The same for the same match of the same rule."""
        if self.chain:
            vs = self.chain.virtual_service
            return (vs and str(vs.resource), self.chain.path)
        route = self.route
        if route is None or route.rule is None:
            return (self.kind, route.action.targets[0].host if route else "")
        match = route.match.index if route.match else None
        root = route.virtual_service and str(route.virtual_service.resource)
        return (str(route.rule.owner.resource), route.rule.path, match, root)


@dataclass(frozen=True)
class Place:
    """Where requests are decided: the proxies, the port and the hosts.

    `proxy` is as it is before. `gateways` are the Gateways that configure it in either state.
    """

    proxy: Proxy
    port: int
    host: str
    gateways: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The proxies, as people are told."""
        if not self.proxy.is_gateway:
            return str(self.proxy)
        kind = "Gateway" if len(self.gateways) == 1 else "Gateways"
        named = ", ".join(self.gateways)
        return f"the proxies of {kind} {named} in namespace {self.proxy.namespace}"


@dataclass
class Difference:
    """A class of requests or connections: those that one decision takes before and another after.

    `protocol` is "http", "tls" or "tcp". `example` is one of them, from the first of `places`.
    """

    protocol: str
    before: Decision
    after: Decision
    aspects: list[str]
    example: Request | Connection
    places: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """A proxy that was asked, and the Gateways that configure it in either state.

    Sidecars stand for all others that no rule tells apart from them, in whatever namespace.
    """

    proxy: Proxy
    gateways: tuple[str, ...] = ()


@dataclass
class Comparison:
    """What differs; why something could not be decided; the expressions that were sampled only.

    `compared` are the proxies that were asked. `notes` say what was assumed of the settings of the
    mesh.
    """

    differences: list[Difference] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    sampled: set[str] = field(default_factory=set)
    compared: dict[Compared, None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def add(self, compared: Compared) -> None:
        self.compared[compared] = None

    @property
    def verdict(self) -> str:
        if self.differences:
            count = len(self.differences)
            return f"differs ({count} {'class' if count == 1 else 'classes'})"
        if self.undecided:
            more = len(self.undecided) - 1
            also = f" (and {more} more)" if more else ""
            return f"undecided: {self.undecided[0]}{also}"
        if self.sampled:
            return f"the same for all requests sampled (regex in {', '.join(sorted(self.sampled))})"
        return "the same for every request"


def compare(before: Snapshot, after: Snapshot, *, assume: bool = True) -> Comparison:
    """Everything that two states of a mesh treat differently.

    With `assume` sidecars count that no pod was seen of: one may start at any time.
    """
    return Comparing(before, after, assume=assume).run()


def decision_of(
    router: Router,
    table: Table | None,
    proxy: Proxy,
    request: Request,
) -> Decision:
    """What becomes of one request by a table that a router gives. Raises Undecidable."""
    if table is None:
        return _unrouted("closed")
    route = table.first(request)
    if route is None:
        return _unrouted(table.kind)
    return Decision(route.conditions, treatment_of(router, route, proxy), route, table.kind)


class _Exhausted(Exception):
    """The comparison takes more steps than are allowed."""


_Again = Callable[[int, Request], "Table | None"]
"""The table of a side, 0 or 1, that the model gives for a request."""


class Comparing:
    """Two states of a mesh, to be compared, or asked for what they do."""

    def __init__(self, before: Snapshot, after: Snapshot, *, assume: bool = True) -> None:
        self._assume = assume
        self._routers = (router_of(before), router_of(after))
        self._snapshots = (before, after)
        notes = dict.fromkeys(note for each in (before, after) for note in each.config.notes)
        self._result = Comparison(notes=tuple(notes))
        self._search = Search(after.config.path_normalization)
        self._classes: dict[tuple[object, ...], Difference] = {}
        self._treatments: tuple[dict[object, Treatment], ...] = ({}, {})
        self._tables: dict[tuple[object, ...], list[tuple[int, int, Request]]] = {}
        self._clients: dict[object, tuple[list[Proxy], bool]] = {}
        self._doubts: dict[str, None] = {}
        self._compared: set[tuple[object, ...]] = set()
        self._selecting = {
            name
            for each in self._snapshots
            for labels in (
                *(rule.workload_selector or {} for rule in each.destination_rules.all),
                *(selector_of(sidecar) for sidecar in each.of("Sidecar")),
            )
            for name in labels
        }

    def run(self) -> Comparison:
        scope = scope_of(*self._snapshots)
        self._doubts |= dict.fromkeys((*unread(scope), *not_compared(scope)))
        if scope.is_empty:
            self._result.undecided = list(self._doubts)
            return self._result
        for each in self._snapshots:
            if each.coverage.live:
                self._doubts |= dict.fromkeys(each.gaps)
        if len({each.config.path_normalization for each in self._snapshots}) > 1:
            self._doubts["pathNormalization differs: paths are taken as they are after"] = None
        one, other = (set(each.config.unread) for each in self._snapshots)
        for name in sorted({name for name, _ in one ^ other}):
            self._doubts[f"{name} of the MeshConfig differs, and is not compared"] = None
        try:
            self._sidecars(scope)
            self._gateways(scope)
        except _Exhausted:
            self._doubts[
                f"more than {MAX_NODES:,} examples were tried: compare fewer changes at a time"
            ] = None
        self._result.differences = list(self._classes.values())
        self._result.undecided = list(self._doubts)
        return self._result

    def at(self, side: int, place: Place, asked: Request | Connection) -> Decision:
        """What state 0 or 1 does with what a proxy is asked. Raises Undecidable."""
        router = self._routers[side]
        proxy = place.proxy.in_state(self._snapshots[side])
        if reason := router.bearing.on(proxy, asked.host, asked.port):
            raise Undecidable(reason)
        taken = router.at(proxy, asked)
        if isinstance(taken, Table) and isinstance(asked, Request):
            return decision_of(router, taken, self._selected(proxy), asked)
        if not isinstance(taken, Listener):
            return _unrouted("closed")
        if taken.unread:
            raise Undecidable(taken.unread)
        connection = connection_of(asked) if isinstance(asked, Request) else asked
        return self._connection(side, taken, connection, place)

    def _sidecars(self, scope: Scope) -> None:
        for domain in scope.mesh_domains:
            hosts = hosts_of(domain, scope.mesh_names)
            if hosts is None:
                self._doubts[f"no name was found that only {domain} means"] = None
                continue
            told_apart = distinctions(self._routers, domain)
            key = told_apart.key
            if key not in self._clients:
                found = clients(self._routers, told_apart, assume=self._assume)
                self._clients[key] = found, told_apart.complete
            found, told_apart.complete = self._clients[key]
            if not told_apart.complete:
                self._doubts[f"clients of {domain} differ by too many combinations of labels"] = (
                    None
                )
            for client in found:
                self._result.add(Compared(client))
                for port in scope.ports(domain):
                    self._on_sidecar(client, port, hosts)

    def _on_sidecar(self, client: Proxy, port: int, hosts: Hosts) -> None:
        place = Place(client, port, hosts.pattern)
        if self._is_unread(place, hosts.example):
            return
        sides = self._sidecar_host(client, hosts, place)
        if _read_authority(sides):
            for name in self._other_names(client, hosts.pattern):
                self._sidecar_host(client, Hosts(name, name), replace(place, host=name))
        listeners = [each.listeners.sidecar(client, hosts.example, port) for each in self._routers]
        self._connections(place, hosts.example, listeners)

    def _sidecar_host(self, client: Proxy, hosts: Hosts, place: Place) -> Sequence[list[Decision]]:
        """Compares the requests to a host, and returns the decisions of both sides."""
        asked = Request(f"{hosts.example}:{place.port}", place.port)
        found = [router.at(client, asked) for router in self._routers]
        tables = [each if isinstance(each, Table) else None for each in found]
        if not any(tables):
            return [[], []]

        def again(number: int, request: Request) -> Table | None:
            if request.host == hosts.example:
                return tables[number]
            return self._routers[number].sidecar(client, request.host, place.port)

        sides = []
        for number, each in enumerate(found):
            if isinstance(each, Listener):
                connection = connection_of(asked)
                try:
                    sides.append([self._connection(number, each, connection, place)])
                except Undecidable as reason:
                    self._doubts[f"{connection}: {reason}"] = None
                    return [[], []]
            else:
                sides.append(self._decisions(number, each, place))
        self._decide(sides, hosts, place, "http", again)
        return sides

    def _other_names(self, client: Proxy, host: str) -> Sequence[str]:
        """By what else a Service is called: only a match of the authority tells the names apart."""
        found: dict[str, None] = {}
        for snapshot in self._snapshots:
            for service in snapshot.registry.by_host(host):
                if snapshot.config.istio.has(ABSOLUTE_NAMES) and not is_wildcard(host):
                    found[f"{host}."] = None
                if service.is_kubernetes:
                    name = service.resource.name
                    if service.namespace == client.namespace:
                        found[name] = None
                    found[f"{name}.{service.namespace}"] = None
                    found[f"{name}.{service.namespace}.svc"] = None
                    if service.cluster_ip:
                        found[service.cluster_ip] = None
        return list(found)

    def _gateways(self, scope: Scope) -> None:
        for gateway in gateways_compared(self._snapshots):
            proxies = [gateway.in_state(snapshot) for snapshot in self._snapshots]
            names, domains = scope.of_gateway(proxies)
            ports = sorted(
                {
                    server.number
                    for proxy in proxies
                    for each in proxy.gateways or ()
                    for server in each.servers
                    if server.takes_http_routes
                }
            )
            for domain in domains:
                hosts = hosts_of(domain, names)
                if hosts is None:
                    self._doubts[f"no name was found that only {domain} means"] = None
                    continue
                for port in ports:
                    for tls in (False, True):
                        self._on_gateway(proxies, port, hosts, tls)
            if domains:
                self._result.add(Compared(gateway, gateways_of(proxies)))
                self._gateway_connections(proxies)

    def _on_gateway(
        self,
        proxies: Sequence[Proxy],
        port: int,
        hosts: Hosts,
        tls: bool,
    ) -> None:
        place = Place(proxies[0], port, hosts.pattern, gateways_of(proxies))
        if self._is_unread(place, hosts.example):
            return
        scheme = "https" if tls else "http"

        def table(number: int, host: str) -> Table | None:
            return self._routers[number].gateway(proxies[number], host, port, tls=tls)

        tables = [table(number, hosts.example) for number in range(len(proxies))]

        def again(number: int, request: Request) -> Table | None:
            known = request.host == hosts.example
            return tables[number] if known else table(number, request.host)

        sides = [self._decisions(number, found, place) for number, found in enumerate(tables)]
        if tls and tables.count(None) == 1:
            number = tables.index(None)
            listener = self._routers[number].listeners.gateway(proxies[number], port)
            if listener:
                connection = Connection(hosts.example, port, hosts.example)
                sides[number] = [self._connection(number, listener, connection, place)]
        if is_wildcard(hosts.pattern) and not _alike(*sides):
            self._is_unread(place, hosts.pattern)
        self._decide(sides, hosts, place, scheme, again)

    def _gateway_connections(self, proxies: Sequence[Proxy]) -> None:
        sides = list(zip(self._routers, proxies, strict=True))
        ports = {port for router, proxy in sides for port in router.listeners.merged(proxy)}
        nothing = Listener("nothing", (), "closed", for_any_host=True)
        for port in sorted(ports):
            listeners = [
                router.listeners.gateway(proxy, port) or nothing for router, proxy in sides
            ]
            place = Place(proxies[0], port, "*", gateways_of(proxies))
            if 0 < port < _PORTS and not self._is_unread(place, None):
                self._connections(place, "", listeners)

    def _is_unread(self, place: Place, host: str | None) -> bool:
        """Whether an object that is not followed may decide; notes that this was not compared.

        Without a host it is about connections to a gateway.
        """
        reason = None
        for router in self._routers:
            proxy = place.proxy.in_state(router.snapshot)
            if host is None:
                found = router.bearing.on_connections(proxy, place.port)
            else:
                found = router.bearing.on(proxy, host, place.port)
            reason = reason or found
        if reason:
            where = f"at {place.name}" if place.proxy.is_gateway else "in the mesh"
            self._doubts[f"{place.host} {where}: {reason}"] = None
        return bool(reason)

    def _connections(self, place: Place, host: str, listeners: Sequence[Listener]) -> None:
        """Compares a connection of each kind that two listeners tell apart."""
        key = (place.proxy, *listeners)
        if key in self._compared:
            return
        self._compared.add(key)
        for listener in listeners:
            if listener.unread:
                self._doubts[listener.unread] = None
        if any(listener.unread for listener in listeners):
            return
        for connection in kinds_of_connections(host, place.port, listeners):
            try:
                one, other = (
                    self._connection(number, listener, connection, place)
                    for number, listener in enumerate(listeners)
                )
            except Undecidable as reason:
                self._doubts[f"{connection}: {reason}"] = None
                continue
            if "http" in (one.kind, other.kind) or one.treatment.key == other.treatment.key:
                continue  # what http rules decide is compared as requests
            known = (connection.scheme, one.identity, other.identity)
            keys = (one.treatment.key, other.treatment.key, place.proxy.is_gateway)
            found = self._classes.get((*known, *keys))
            if found is None:
                found = self._classes[(*known, *keys)] = Difference(
                    connection.scheme,
                    one,
                    other,
                    differing(one.treatment, other.treatment),
                    connection,
                )
            found.places.append(place)

    def _connection(
        self, side: int, listener: Listener, connection: Connection, place: Place
    ) -> Decision:
        """What one state does with a connection. Raises Undecidable."""
        if listener.clash:
            return Decision(Conditions(), _UNCHAINED["rejected"], None, "rejected")
        chain = listener.find(connection)
        if chain is None:
            return Decision(Conditions(), _UNCHAINED[listener.rest], None, listener.rest)
        if chain.server:
            return Decision(Conditions(), _UNCHAINED["closed"], None, "http", chain)
        proxy = self._selected(place.proxy)
        key = (chain.targets, proxy)
        treatments = self._treatments[side]
        if key not in treatments:
            treatments[key] = treatment_of_connection(self._routers[side], chain.targets, proxy)
        return Decision(Conditions(), treatments[key], None, "chain", chain)

    def _selected(self, proxy: Proxy) -> Proxy:
        """A proxy with just the labels by which DestinationRules and Sidecars are chosen."""
        labels = {name: it for name, it in proxy.labels.items() if name in self._selecting}
        return Proxy(proxy.namespace, labels, () if proxy.is_gateway else None)

    def _decisions(self, side: int, table: Table | None, place: Place) -> list[Decision]:
        """The routes of a table with what they do, and at the end what has no route."""
        if table is None:
            return [_unrouted("closed")]
        router = self._routers[side]
        treatments = self._treatments[side]
        proxy = self._selected(place.proxy)
        found = []
        for route in table.routes:
            what = route.rule or route.action.targets
            key = (what, route.rewriting, place.port, proxy)
            if key not in treatments:
                treatments[key] = treatment_of(router, route, proxy)
            found.append(Decision(route.conditions, treatments[key], route, table.kind))
            if _takes_all(route.conditions):
                return found
        return [*found, _unrouted(table.kind)]

    def _decide(
        self,
        sides: Sequence[list[Decision]],
        hosts: Hosts,
        place: Place,
        scheme: str,
        again: _Again,
    ) -> None:
        before, after = sides
        if _alike(before, after):
            return
        authority = _read_authority(sides)
        key = (
            tuple((each.conditions, each.treatment.key) for each in before),
            tuple((each.conditions, each.treatment.key) for each in after),
            scheme,
            (hosts.pattern, place.port) if authority else None,
        )
        if key not in self._tables:
            self._search.budget.left += STEPS_A_ROUTE * (len(before) + len(after))
            self._tables[key] = list(self._pairs(before, after, hosts, place.port, scheme))
        for i, j, template in self._tables[key]:
            one, other = before[i], after[j]
            identity = (one.identity, other.identity, one.treatment.key, other.treatment.key)
            known = self._classes.get((*identity, place.proxy.is_gateway))
            if known is not None:
                known.places.append(place)
                continue
            request = template
            if not authority:
                request = replace(template, authority=hosts.example, port=place.port)
            if self._verified(sides, (one, other), request, again):
                self._classes[(*identity, place.proxy.is_gateway)] = Difference(
                    "http",
                    one,
                    other,
                    differing(one.treatment, other.treatment),
                    request,
                    [place],
                )

    def _pairs(
        self,
        before: list[Decision],
        after: list[Decision],
        hosts: Hosts,
        port: int,
        scheme: str,
    ) -> Iterator[tuple[int, int, Request]]:
        """The decisions that share requests and treat them differently, with one request each.

        A pair shares none if what takes all requests of one stands before the other one.
        """
        ends = _ends(before, after), _ends(after, before)
        dead = [
            {number for number, end in enumerate(_ends(side, side)) if end < number}
            for side in (before, after)
        ]
        for i, one in enumerate(before):
            if i in dead[0]:
                continue
            for j in range(min(ends[0][i] + 1, len(after))):
                other = after[j]
                if i > ends[1][j] or j in dead[1] or one.treatment.key == other.treatment.key:
                    continue
                if _disjoint(one.conditions, other.conditions):
                    continue
                request = self._example(before, i, after, j, hosts, port, scheme)
                if request is not None:
                    yield i, j, request

    def _example(
        self,
        before: list[Decision],
        i: int,
        after: list[Decision],
        j: int,
        hosts: Hosts,
        port: int,
        scheme: str,
    ) -> Request | None:
        if self._search.nodes > MAX_NODES:
            raise _Exhausted
        earlier = dict.fromkeys(
            each.conditions
            for each in (*before[:i], *after[:j])
            if not _disjoint(each.conditions, before[i].conditions)
            and not _disjoint(each.conditions, after[j].conditions)
        )
        self._search.sampled.clear()
        met = list(dict.fromkeys((before[i].conditions, after[j].conditions)))
        one, other = before[i].treatment, after[j].treatment

        def find(met: Sequence[Conditions], unmet: Sequence[Conditions]) -> Request | None:
            return self._search.example(met, unmet, hosts, port, scheme, http1=True)

        try:
            if one.apart == other.apart:
                request = telling_apart(one.rewriting, other.rewriting, met, list(earlier), find)
            else:
                request = find(met, list(earlier))
        except (TooMany, Undecidable) as error:
            names = f"{_name(before[i])} before and {_name(after[j])} after"
            why = "too intricate" if isinstance(error, TooMany) else error
            self._doubts[f"which requests to {hosts.pattern} meet {names}: {why}"] = None
            return None
        if request is None:
            self._result.sampled |= self._search.sampled
        return request

    def _verified(
        self,
        sides: Sequence[list[Decision]],
        chosen: tuple[Decision, Decision],
        request: Request,
        again: _Again,
    ) -> bool:
        """Whether the model itself, asked anew, decides on an example as was found out here."""
        for number, (side, decision) in enumerate(zip(sides, chosen, strict=True)):
            try:
                first = next(each for each in side if each.conditions.met(request))
                table = again(number, request)
                route = table.first(request) if table else None
            except Undecidable as reason:
                self._doubts[f"{request}: {reason}"] = None
                return False
            same = (
                (route.conditions, route.rule) == (decision.conditions, decision.route.rule)
                if route and decision.route
                else route is decision.route
            )
            if first is not decision or not same:
                readable = not any(unreadable(each.conditions) for each in side)
                why = "was taken for an example and is none" if readable else "cannot be decided"
                self._doubts[f"{request} {why}"] = None
                return False
        return True


def gateways_of(proxies: Iterable[Proxy]) -> tuple[str, ...]:
    """The names of the Gateways that configure some proxies."""
    return tuple(dict.fromkeys(gateway.id for proxy in proxies for gateway in proxy.gateways or ()))


def _unrouted(kind: str) -> Decision:
    return Decision(Conditions(), _UNROUTED[kind], None, kind)


def _read_authority(sides: Sequence[list[Decision]]) -> bool:
    return any(reads_authority(each.conditions) for side in sides for each in side)


def _alike(before: list[Decision], after: list[Decision]) -> bool:
    return len(before) == len(after) and all(
        one.treatment.key == other.treatment.key and one.conditions == other.conditions
        for one, other in zip(before, after, strict=True)
    )


def _takes_all(conditions: Conditions) -> bool:
    return conditions.path in _EVERYTHING and not (
        conditions.headers or conditions.without or conditions.parameters
    )


def _ends(one: list[Decision], other: list[Decision]) -> list[int]:
    """For each decision the first of the other list that takes all of its requests.

    It asks for the same, for nothing, or for a path that begins as that of the decision does.
    """
    places: dict[Conditions, int] = {}
    prefixes: dict[str, int] = {}
    catch_all = len(other)
    for number, each in enumerate(other):
        places.setdefault(each.conditions, number)
        path = each.conditions.path
        if _takes_all(each.conditions):
            catch_all = min(catch_all, number)
        elif path and each.conditions == Conditions(path) and (path.kind, path.fold) == _PREFIX:
            prefixes.setdefault(path.value, number)
    begin = _first_prefixes(prefixes, filter(None, map(_beginning, one)))
    return [
        min(
            places.get(each.conditions, catch_all),
            begin.get(_beginning(each) or "", catch_all),
            catch_all,
        )
        for each in one
    ]


_PREFIX = ("prefix", False)


def _beginning(decision: Decision) -> str | None:
    """How the path of all requests begins that meet a decision's conditions; None if not alike."""
    path = decision.conditions.path
    if path and path.kind in ("exact", "prefix") and not path.fold:
        return path.value
    return None


def _first_prefixes(prefixes: Mapping[str, int], texts: Iterable[str]) -> Mapping[str, int]:
    """For each text that has some prefix the least of the prefixes' numbers.

    In the order of the alphabet what begins with a text comes right behind it.
    """
    found: dict[str, int] = {}
    open_ones: list[tuple[str, int]] = []
    for text in sorted({*prefixes, *texts}):
        while open_ones and not text.startswith(open_ones[-1][0]):
            open_ones.pop()
        numbers = [number for _, number in open_ones[-1:]]
        if text in prefixes:
            numbers.append(prefixes[text])
            open_ones.append((text, min(numbers)))
        if numbers:
            found[text] = min(numbers)
    return found


def _disjoint(one: Conditions, other: Conditions) -> bool:
    """Whether the constants of two paths or of two headers show at once that none meets both."""
    if one.path and other.path and _apart(one.path, other.path):
        return True
    if one.headers and other.headers:
        wanted = dict(one.headers)
        return any(name in wanted and _apart(wanted[name], match) for name, match in other.headers)
    return False


def _apart(one: StringMatch, other: StringMatch) -> bool:
    if one.fold or other.fold:
        return False
    if one.kind == "exact" and other.kind == "exact":
        return one.value != other.value
    if one.kind == "exact" and other.kind == "prefix":
        return not one.value.startswith(other.value)
    if one.kind == "prefix" and other.kind == "exact":
        return not other.value.startswith(one.value)
    if one.kind == "prefix" and other.kind == "prefix":
        return not (one.value.startswith(other.value) or other.value.startswith(one.value))
    return False


def _name(decision: Decision) -> str:
    route = decision.route
    if route is None or route.rule is None:
        return "no rule"
    return f"{route.rule.owner.resource} http[{route.rule.index}]"
