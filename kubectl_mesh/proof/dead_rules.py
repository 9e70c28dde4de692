"""Which matches of which rules no request can ever meet, and what takes their requests.

A match is judged at every place where a proxy has it: the mesh, and each port and virtual host of
each gateway, beside what other VirtualServices add there. Exact as far as examples.py is: a request
that only this match gets is looked for, and what takes each that is found is ruled out in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import NamedTuple

from kubectl_mesh.mesh.clients import gateway_namespaces
from kubectl_mesh.mesh.gateways import MESH, Gateway, Server
from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot, once_per_snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.examples import Hosts, Search, TooMany, unreadable
from kubectl_mesh.proof.rewriting import telling_apart
from kubectl_mesh.routing.index import Index
from kubectl_mesh.routing.matching import Conditions, StringMatch, Undecidable
from kubectl_mesh.routing.paths import normalized
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.rewriting import Rewriting
from kubectl_mesh.routing.router import router_of, shared_hosts
from kubectl_mesh.routing.rules import Match, Rule
from kubectl_mesh.routing.table import Action, Route, Table, WayIn, action_of, routes_of

MAX_TAKERS = 20
"""So many routes that take requests of one match are ruled out, one by one."""
_FEW = 8
"""Of so few routes the first is found fastest by trying all."""
MAX_PLACES = 24
"""At so many places one VirtualService is judged."""


@dataclass(frozen=True, eq=False)
class Fate:
    """What becomes of a match at one place.

    `dropped_by` is the catch-all after which istiod leaves it out; `takers` are the earlier routes
    that take all its requests. Both empty: no request meets it by itself.
    """

    place: str
    route: Route
    dropped_by: Route | None = None
    takers: tuple[Route, ...] = ()

    @property
    def winners(self) -> tuple[Route, ...]:
        """The routes that its requests take instead."""
        return (self.dropped_by,) if self.dropped_by else self.takers

    @property
    def by_mistake(self) -> bool:
        """Whether one of those holds for more clients than it says, as it names gateways too."""
        matches = (winner.match for winner in self.winners)
        return any(
            match.gateways and (match.source_labels or match.source_namespace)
            for match in matches
            if match
        )


def path_of(route: Route) -> Path:
    """Where a route's match, or its rule without any, stands in the object of its rule."""
    assert route.rule
    index = _written_index(route.rule, route.match)
    return route.rule.path if index is None else (*route.rule.path, "match", index)


def _written_index(rule: Rule, match: Match | None) -> int | None:
    """The place of a match in its rule; None where the rule has none, and a root's rule gave it."""
    written = rule.owner.resource.spec["http"][rule.index].get("match")
    return match.index if match and written else None


def alike(one: Route, other: Route) -> bool:
    """Whether two routes do the same with all requests that both match."""
    first, second = _without_paths(one), _without_paths(other)
    kept = not (one.rewriting.changes or other.rewriting.changes)
    return first == second and (kept or _paths(one, other).same)


def parting_path(one: Route, other: Route) -> str | None:
    """A path that both match and of which they make different ones; None where none is known."""
    return _paths(one, other).example


def _without_paths(route: Route) -> Action:
    """What a route does, less what it makes of the path."""
    assert route.rule
    action = action_of(route.rule, 0, {})
    rewrite = {**(action.data.get("rewrite") or {}), "uri": None, "uriRegexRewrite": None}
    return replace(action, data={**action.data, "rewrite": rewrite})


@dataclass(frozen=True)
class _Paths:
    """Whether two routes certainly make the same of all paths; if not, an example if there is."""

    same: bool
    example: str | None = None


def _paths(one: Route, other: Route) -> _Paths:
    return _compared(one.rewriting, other.rewriting, one.conditions.path, other.conditions.path)


@lru_cache(1024)
def _compared(
    one: Rewriting, other: Rewriting, path: StringMatch | None, other_path: StringMatch | None
) -> _Paths:
    search = Search()

    def find(met: Sequence[Conditions], unmet: Sequence[Conditions]) -> Request | None:
        return search.example(met, unmet, Hosts("*", "any.example.org"), 80)

    met = [Conditions(path=each) for each in dict.fromkeys((path, other_path))]
    try:
        request = telling_apart(one, other, met, (), find)
    except (TooMany, Undecidable):
        return _Paths(same=False)
    if request:
        return _Paths(same=False, example=request.path)
    return _Paths(same=not search.sampled)


def same_ends(one: Route, other: Route) -> bool:
    """Whether two routes send requests to the same places, whatever else they do with them."""
    assert one.rule
    assert other.rule
    first, second = action_of(one.rule, 0, {}), action_of(other.rule, 0, {})
    return first.targets == second.targets and all(
        first.data.get(field) == second.data.get(field) for field in ("redirect", "directResponse")
    )


@dataclass(eq=False)
class MatchReach:
    """One match as it stands in its object; `index` is None for a rule without match."""

    index: int | None
    alive: bool = False
    fates: list[Fate] = field(default_factory=list)

    @property
    def dead(self) -> bool:
        return bool(self.fates) and not self.alive


@dataclass(eq=False)
class RuleReach:
    """One http rule as it stands in its object, a root or a delegate."""

    owner: VirtualService
    path: Path
    matches: dict[int | None, MatchReach] = field(default_factory=dict)

    @property
    def dead(self) -> list[MatchReach]:
        return [match for match in self.matches.values() if match.dead]

    @property
    def all_dead(self) -> bool:
        return bool(self.matches) and len(self.dead) == len(self.matches)

    def path_of(self, match: MatchReach) -> Path:
        return self.path if match.index is None else (*self.path, "match", match.index)


@once_per_snapshot
def reaches(snapshot: Snapshot) -> tuple[tuple[RuleReach, ...], tuple[str, ...]]:
    """The http rules with a match that no request can meet, and why some could not be judged."""
    found = _Reaches(snapshot)
    for vs in snapshot.virtual_services.roots:
        found.judge(vs)
    dead = (rule for rule in found.rules.values() if rule.dead)
    return tuple(dead), tuple(found.skipped)


class _Tried:
    """A table whose routes are judged one by one."""

    def __init__(self, table: Table, hosts: Hosts, port: int, normalization: str) -> None:
        self._table = table
        self._hosts = hosts
        self._port = port
        self._normalization = normalization

    @cached_property
    def _search(self) -> Search:
        return Search(self._normalization)

    @cached_property
    def _index(self) -> Table | Index:
        """What finds the first route of a request, of those whose demands can be read."""
        routes = self._table.routes
        readable = tuple(route for route in routes if not unreadable(route.conditions))
        table = Table(self._table.kind, self._table.domain, readable)
        return table if len(readable) <= _FEW else Index(table)

    @cached_property
    def _same(self) -> Mapping[Conditions, Route]:
        """The first route of each demand."""
        found: dict[Conditions, Route] = {}
        for route in self._table.routes:
            found.setdefault(route.conditions, route)
        return found

    @cached_property
    def routes(self) -> Mapping[VirtualService | None, Sequence[Route]]:
        """The routes of each VirtualService, in order."""
        grouped: dict[VirtualService | None, list[Route]] = defaultdict(list)
        for route in self._table.routes:
            grouped[route.virtual_service].append(route)
        return grouped

    def takers(self, route: Route) -> tuple[Route, ...] | None:
        """What takes all requests of a route; None where it gets some itself.

        Raises TooMany where that cannot be decided.
        """
        same = self._same[route.conditions]
        if same is not route:
            return (same,)
        if not _is_plain(route.conditions):
            return None
        guess = self._guess(route.conditions)
        if guess and self._index.first(guess) is route:
            return None
        takers: list[Route] = []
        while len(takers) <= MAX_TAKERS:
            others = [taker.conditions for taker in takers]
            self._search.sampled.clear()
            example = self._search.example([route.conditions], others, self._hosts, self._port)
            if example is None:
                if self._search.sampled:
                    raise TooMany
                return tuple(takers)
            first = self._index.first(example)
            if first is None or first is route or first in takers:
                return None
            takers.append(first)
        raise TooMany

    def _guess(self, conditions: Conditions) -> Request | None:
        """A request that likely meets just these demands; None where it is not worth a try."""
        path = conditions.path
        value = path.value if path and path.kind in ("exact", "prefix") else "/"
        if not value.startswith("/") or "?" in value or "#" in value:
            return None
        if conditions.parameters or (path and path.kind == "regex"):
            return None
        headers = {name: wanted.value for name, wanted in conditions.headers}
        if any(
            name.startswith(":") or not wanted.value.isalnum() or wanted.kind == "regex"
            for name, wanted in conditions.headers
        ):
            return None
        if not path or path.kind == "prefix":
            value += "~other"
        if normalized(value, self._normalization) != value:
            return None
        return Request(self._hosts.example, self._port, value, headers=headers)


def _is_plain(conditions: Conditions) -> bool:
    """Whether all that is demanded is readable and of the characters that requests are made of."""
    demands = [match for _, match in (*conditions.headers, *conditions.parameters)]
    if conditions.path:
        demands.append(conditions.path)
    return not unreadable(conditions) and all(match.value.isascii() for match in demands)


class _Place(NamedTuple):
    """A proxy that has a VirtualService.

    `clients` are those for which just its matches are judged there; None for all that it admits.
    `tables` are those of its virtual hosts; None for one that is not known.
    """

    name: str
    way_in: WayIn
    clients: _Source | None
    tables: list[_Tried | None]


_Source = tuple[str, frozenset[tuple[str, str]]]
_ANYBODY: _Source = ("", frozenset())


def _source(match: Match | None) -> _Source:
    """The clients that a match is for; naming gateways switches that off."""
    if match is None or match.gateways:
        return _ANYBODY
    return (match.source_namespace, frozenset(match.source_labels.items()))


def _each_match(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Match | None]]:
    for rule in rules:
        if rule.matches is None:
            yield rule, None
        for match in rule.matches or ():
            yield rule, match


def ports_of(
    snapshot: Snapshot, hosts: Iterable[str], rules: Iterable[Rule], gateway: str
) -> list[int]:
    """The ports of hosts that rules can tell apart; 0 stands for all that no match names."""
    named = {match.port for _, match in _each_match(rules) if match and match.port}
    ports: set[int] = set()
    for host in hosts if named and gateway == MESH else ():
        services = () if is_wildcard(host) else snapshot.registry.providers(host)
        if not services:
            ports = set()
            break
        for service in services:
            ports |= {port.number for port in service.ports if port.takes_http_routes}
    return sorted({port if port in named else 0 for port in ports}) or [0, *sorted(named)]


class _Reaches:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._router = router_of(snapshot)
        self._tried: dict[tuple[Proxy, int, bool, str], _Tried | None] = {}
        self.rules: dict[tuple[VirtualService, Path], RuleReach] = {}
        self.skipped: dict[str, None] = {}

    def judge(self, vs: VirtualService) -> None:
        """Adds what becomes of each match of a root."""
        rules = self._router.rules(vs)
        places = list(islice(self._places(vs, rules), MAX_PLACES + 1)) if rules else []
        if len(places) > MAX_PLACES:
            self._skip(f"{vs.resource} is served at more than {MAX_PLACES} places")
            for rule, match in _each_match(rules):
                self._entry(rule, match).alive = True
            return
        for place in places:
            admitted = [
                (rule, match)
                for rule, match in _each_match(rules)
                if (match is None or place.way_in.admits(match))
                and place.clients in (None, _source(match))
            ]
            for tried in place.tables:
                self._judge_at(place.name, admitted, tried, vs)

    def _judge_at(
        self,
        place: str,
        admitted: Iterable[tuple[Rule, Match | None]],
        tried: _Tried | None,
        vs: VirtualService,
    ) -> None:
        routes = tried.routes.get(vs, ()) if tried else ()
        there = {(id(route.rule), id(route.match)): route for route in routes}
        catch_all = next((route for route in routes if route.conditions.take_everything), None)
        for rule, match in admitted:
            entry = self._entry(rule, match)
            if entry.alive:
                continue
            route = there.get((id(rule), id(match)))
            if tried is None or (route is None and catch_all is None):
                entry.alive = True
            elif route is None:
                demanded = match.conditions if match else Conditions()
                dropped = Route(vs, rule, match, demanded, action_of(rule, 0, {}))
                entry.fates.append(Fate(place, dropped, dropped_by=catch_all))
            else:
                self._try(entry, place, route, tried)

    def _try(self, entry: MatchReach, place: str, route: Route, tried: _Tried) -> None:
        try:
            takers = tried.takers(route)
        except TooMany:
            entry.alive = True
            assert route.rule
            where = dotted(route.rule.path)
            self._skip(f"whether {where} of {route.rule.owner.resource} can be met: too intricate")
            return
        if takers is None:
            entry.alive = True
        else:
            entry.fates.append(Fate(place, route, takers=takers))

    def _skip(self, reason: str) -> None:
        self.skipped[reason] = None

    def _entry(self, rule: Rule, match: Match | None) -> MatchReach:
        """Where the fates of a match are noted: of the one that stands in the rule's object."""
        key = (rule.owner, rule.path)
        if key not in self.rules:
            self.rules[key] = RuleReach(rule.owner, rule.path)
        index = _written_index(rule, match)
        return self.rules[key].matches.setdefault(index, MatchReach(index))

    def _places(self, vs: VirtualService, rules: Sequence[Rule]) -> Iterator[_Place]:
        for gateway in sorted(vs.gateways):
            known = self._snapshot.gateways.by_id.get(gateway)
            if known:
                yield from self._at_gateway(vs, known)
            else:
                yield from self._by_itself(vs, rules, gateway)

    def _by_itself(
        self, vs: VirtualService, rules: Sequence[Rule], gateway: str
    ) -> Iterator[_Place]:
        """In the mesh, or on a Gateway that is not there: without other VirtualServices."""
        text = "in the mesh" if gateway == MESH else f"on Gateway {gateway}"
        sources: list[_Source | None] = [None]
        if gateway == MESH:
            found = {_source(match) for _, match in _each_match(rules)}
            sources = [*sorted(found, key=lambda each: (each[0], sorted(each[1])))]
        host = next((host for host in vs.hosts if not is_wildcard(host)), "any.example.org")
        for port in ports_of(self._snapshot, vs.hosts, rules, gateway):
            for source in sources:
                namespace, labels = source or _ANYBODY
                way_in = WayIn(Proxy(namespace, dict(labels)), gateway, port)
                table = Table("virtual-service", "*", routes_of(vs, rules, way_in, {}))
                name = f"{text}, port {port}" if port else text
                tried = self._tried_at(table, Hosts("*", host), port or 80)
                yield _Place(name, way_in, source, [tried])

    def _at_gateway(self, vs: VirtualService, gateway: Gateway) -> Iterator[_Place]:
        namespace = gateway_namespaces(self._snapshot, gateway.id)[0][0]
        proxy = Proxy(namespace, gateway.selector, (gateway,))
        for server in gateway.servers:
            if server.takes_http_routes:
                way_in = WayIn(proxy, gateway.id, server.number)
                tables = [
                    self._on_gateway(proxy, host, server)
                    for host in sorted(shared_hosts(gateway, server, vs))
                ]
                name = f"on Gateway {gateway.id}, port {server.number}"
                yield _Place(name, way_in, None, tables)

    def _on_gateway(self, proxy: Proxy, host: str, server: Server) -> _Tried | None:
        port, tls = server.number, server.ends_tls
        key = (proxy, port, tls, host)
        if key not in self._tried:
            table = self._router.gateway(proxy, host, port, tls=tls)
            found = None
            if table and table.domain == host:
                example = "any.example.org" if host == "*" else host.replace("*", "any", 1)
                found = self._tried_at(table, Hosts(host, example), port)
            self._tried[key] = found
        return self._tried[key]

    def _tried_at(self, table: Table, hosts: Hosts, port: int) -> _Tried:
        return _Tried(table, hosts, port, self._snapshot.config.path_normalization)
