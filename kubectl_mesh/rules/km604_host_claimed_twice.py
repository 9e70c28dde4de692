"""KM604: several VirtualServices have http rules for one host of the mesh, and one of them wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService, as_seen_from
from kubectl_mesh.mesh.waypoints import Waypoint
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.dead_rules import alike, path_of, ports_of
from kubectl_mesh.proof.examples import Hosts, Search, TooMany
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Router, router_of
from kubectl_mesh.routing.table import Route, Table, WayIn, routes_of
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity, Skip, listed
from kubectl_mesh.rules.shared.dead_rules import name_of
from kubectl_mesh.rules.shared.example import EXAMPLE_SHOP

MAX_CLAIMANTS = 50
"""So many VirtualServices of one host are compared."""
MAX_CLIENTS = 100
"""So many kinds of clients are told apart for one host."""


@dataclass(frozen=True, eq=False)
class _Clients:
    """Those whom rules can tell apart. The namespace "" stands for any that nothing names, port 0
    for any that no match names."""

    namespace: str
    labels: Mapping[str, str]
    port: int

    @property
    def way_in(self) -> WayIn:
        return WayIn(Proxy(self.namespace, self.labels), MESH, self.port)


@dataclass(frozen=True, eq=False)
class _Defeat:
    """That some clients get the rules of `winner`, and not `routes` of another.

    `rivals` are all that have rules for them, in order, with their routes; the first one wins.
    """

    clients: _Clients
    rivals: Sequence[tuple[VirtualService, tuple[Route, ...]]]
    place: int

    @property
    def winner(self) -> VirtualService:
        return self.rivals[0][0]

    @property
    def winning(self) -> tuple[Route, ...]:
        return self.rivals[0][1]

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.rivals[self.place][1]

    @property
    def earlier(self) -> tuple[Route, ...]:
        """The routes of all that come before, which a waypoint has before `routes`."""
        return tuple(route for _, those in self.rivals[: self.place] for route in those)


@dataclass(frozen=True)
class _Outcome:
    """A request that a route is for, and which other route it takes; None for a 404."""

    route: Route
    request: Request
    taken: Route | None


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    router = router_of(snapshot)
    how = snapshot.config.path_normalization
    for host, bound in snapshot.virtual_services.on_mesh_by_host.items():
        claimants = [vs for vs in bound if router.rules(vs)] if len(bound) > 1 else []
        if len(claimants) > MAX_CLAIMANTS:
            yield Skip(f"only the first {MAX_CLAIMANTS} VirtualServices of {host} are compared")
            claimants = claimants[:MAX_CLAIMANTS]
        if len(claimants) < 2:
            continue
        clients = list(islice(_clients(router, host, claimants), MAX_CLIENTS + 1))
        if len(clients) > MAX_CLIENTS:
            yield Skip(f"who gets which rules for {host}: they tell too many clients apart")
            continue
        waypoint = _only_way(snapshot, host)
        for loser, defeats in _defeats(router, host, claimants, clients).items():
            if waypoint and {loser.namespace, defeats[0].winner.namespace} <= waypoint.rules_of:
                yield from _joined(Search(how), host, waypoint, loser, defeats)
                continue
            outcomes = _outcomes(Search(how), host, defeats[0])
            everybody = len(defeats) == len(clients)
            yield _finding(host, loser, defeats, outcomes, everybody=everybody)


def _only_way(snapshot: Snapshot, host: str) -> Waypoint | None:
    """The waypoint whose rules for a host all callers meet, as none is known to have a sidecar."""
    waypoint = next(snapshot.waypoints_of(host), None)
    if waypoint and any(snapshot.is_client(workload) for workload in snapshot.workloads.all):
        return None
    return waypoint


def _clients(router: Router, host: str, claimants: Sequence[VirtualService]) -> Iterator[_Clients]:
    rules = [rule for vs in claimants for rule in router.rules(vs)]
    matches = [match for rule in rules for match in rule.matches or ()]
    namespaces = {"", *(match.source_namespace for match in matches)}
    for vs in claimants:
        if not vs.export.everyone:
            namespaces |= {vs.namespace, *vs.export.namespaces}
    labels: set[frozenset[tuple[str, str]]] = {frozenset()}
    labels |= {frozenset(match.source_labels.items()) for match in matches}
    for port in ports_of(router.snapshot, [host], rules, MESH):
        for namespace in sorted(namespaces):
            for wanted in sorted(labels, key=sorted):
                yield _Clients(namespace, dict(wanted), port)


def _defeats(
    router: Router,
    host: str,
    claimants: Sequence[VirtualService],
    clients: Sequence[_Clients],
) -> Mapping[VirtualService, list[_Defeat]]:
    """By VirtualService, the clients that would get its rules if it were not for another's."""
    found: dict[VirtualService, list[_Defeat]] = defaultdict(list)
    for each in clients:
        egress = router.snapshot.sidecars.egress(each.namespace, each.labels, each.port)
        told = [
            (vs, routes_of(vs, router.rules(vs), each.way_in, {}))
            for vs in as_seen_from(each.namespace or None, claimants)
            if egress.sees_virtual_service(vs.namespace, vs.hosts)
        ]
        if is_wildcard(host) and told and not told[0][1]:
            continue
        rivals = [(vs, routes) for vs, routes in told if routes]
        for place in range(1, len(rivals)):
            found[rivals[place][0]].append(_Defeat(each, rivals, place))
    return found


def _joined(
    search: Search,
    host: str,
    waypoint: Waypoint,
    loser: VirtualService,
    defeats: Sequence[_Defeat],
) -> Iterator[Finding]:
    """A finding if a waypoint joins the rules behind others that leave some nothing."""
    first = defeats[0]
    taken = [
        outcome
        for outcome in _outcomes(search, host, first)
        if _always_taken(search, host, first, outcome.route)
    ]
    if not taken:
        return
    index = loser.hosts.index(host)
    takers = dict.fromkeys(
        route.virtual_service
        for each in taken
        if (route := Table("virtual-service", host, first.earlier).first(each.request))
        and route.virtual_service
    )
    names = " and ".join(listed(str(taker.resource) for taker in takers))
    yield RULE.finding(
        loser.resource,
        ("spec", "hosts", index),
        f"spec.hosts[{index}] claims {host}, as does {names}: waypoint {waypoint} joins the rules, "
        "the older first, and those take all that "
        f"{', '.join(dotted(path_of(each.route)) for each in taken)} is for",
        traffic=f"requests take the other's rules: {_asked(taken[0].request)}, for one",
        next=f"put these rules into {names}, before the rule that takes their requests",
        related=tuple(taker.resource.id for taker in takers),
    )


def _always_taken(search: Search, host: str, defeat: _Defeat, route: Route) -> bool:
    """Whether earlier rules take every request that a route, by itself, would get."""
    number = defeat.routes.index(route)
    before = [each.conditions for each in (*defeat.earlier, *defeat.routes[:number])]
    hosts = Hosts("*", host.replace("*", "any", 1))
    try:
        return search.example([route.conditions], before, hosts, defeat.clients.port or 80) is None
    except (TooMany, Undecidable):
        return False


def _finding(
    host: str,
    loser: VirtualService,
    defeats: Sequence[_Defeat],
    outcomes: Sequence[_Outcome],
    *,
    everybody: bool,
) -> Finding:
    first = defeats[0]
    winners = list(dict.fromkeys(defeat.winner for defeat in defeats))
    lost = [each for each in outcomes if each.taken is None]
    alike_all = bool(outcomes) and all(
        each.taken and alike(each.route, each.taken) for each in outcomes
    )
    nearer = _is_nearer(first)
    severity = Severity.ERROR
    if alike_all or nearer:
        severity = Severity.INFO if nearer and not lost else Severity.WARNING
    whom = "any client" if everybody else _named([defeat.clients for defeat in defeats])
    index = loser.hosts.index(host)
    return RULE.finding(
        loser.resource,
        ("spec", "hosts", index),
        f"spec.hosts[{index}] claims {host} in the mesh, as does {winners[0].resource}, which is "
        f"{_why_first(first)}: for {whom} its http rules hold, and none of those here",
        traffic=_traffic(outcomes, lost, alike_all=alike_all),
        next=f"merge the rules into {winners[0].resource}, those for more specific requests first, "
        f"and take {host} out of this one",
        severity=severity,
        evidence=listed(_told(each, loser) for each in outcomes),
        related=tuple(winner.resource.id for winner in winners),
    )


def _outcomes(search: Search, host: str, defeat: _Defeat) -> list[_Outcome]:
    """For the first routes that lost, a request each, and what becomes of it."""
    winning = Table("virtual-service", host, defeat.winning)
    example = host.replace("*", "any", 1)
    found = []
    for number, route in enumerate(defeat.routes[:LISTED]):
        before = [each.conditions for each in defeat.routes[:number]]
        hosts = Hosts("*", example)
        try:
            request = search.example([route.conditions], before, hosts, defeat.clients.port or 80)
            if request is not None:
                found.append(_Outcome(route, request, winning.first(request)))
        except (TooMany, Undecidable):
            continue
    return found


def _is_nearer(defeat: _Defeat) -> bool:
    """Whether the winner comes first for its exportTo, whatever the age."""
    [loser] = {route.virtual_service for route in defeat.routes}
    assert loser
    winner, namespace = defeat.winner, defeat.clients.namespace
    if winner.export.everyone or loser.export.everyone:
        return winner.export.everyone is not loser.export.everyone
    return (winner.namespace == namespace) is not (loser.namespace == namespace)


def _why_first(defeat: _Defeat) -> str:
    [loser] = {route.virtual_service for route in defeat.routes}
    assert loser
    if _is_nearer(defeat):
        return "exported to fewer namespaces"
    ages = [vs.resource.metadata.get("creationTimestamp") for vs in (defeat.winner, loser)]
    if ages[0] and ages[0] != ages[1]:
        return "the older one"
    if ages[0]:
        return "of the same age, and the first by name"
    return "the first by name, and wins unless this one is created before it"


def _named(clients: Sequence[_Clients]) -> str:
    """Clients in words, the first of them."""
    texts = []
    for each in clients:
        text = f"clients in namespace {each.namespace}" if each.namespace else "clients elsewhere"
        if each.labels:
            text += " with labels " + ",".join(f"{k}={v}" for k, v in sorted(each.labels.items()))
        if each.port:
            text += f" that call port {each.port}"
        texts.append(text)
    return ", ".join(listed(dict.fromkeys(texts)))


def _traffic(outcomes: Sequence[_Outcome], lost: Sequence[_Outcome], *, alike_all: bool) -> str:
    if alike_all:
        return "the rules that win do the same with requests, for now: these here are dead weight"
    if lost:
        return (
            "requests that only these rules are for get 404, not the Service's own route: "
            + ", ".join(_asked(each.request) for each in lost[:3])
        )
    if outcomes:
        return f"requests take the other's rules: {_asked(outcomes[0].request)}, for one"
    return "requests that these rules are for take the other's rules, or get 404"


def _asked(request: Request) -> str:
    headers = "".join(f" with {name}: {value}" for name, value in request.headers.items())
    return f"{request}{headers}"


def _told(outcome: _Outcome, loser: VirtualService) -> str:
    instead = "gets 404"
    if outcome.taken:
        instead = f"takes {name_of(outcome.taken, loser)}"
    return f"{_asked(outcome.request)}, which {dotted(path_of(outcome.route))} is for, {instead}"


_SECOND = """\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop-cart}
spec:
  hosts: [shop]
  http:
"""
_ALL = """\
  - match:
    - uri: {prefix: /}
    route:
    - destination: {host: shop}
"""
_CART = """\
  - match:
    - uri: {prefix: /cart}
    route:
    - destination: {host: cart}
"""

RULE = Rule(
    code="KM604",
    name="host-claimed-twice",
    severity=Severity.ERROR,
    summary="Several VirtualServices have http rules for one host of the mesh, and one wins.",
    explanation="""\
Sidecars do not merge VirtualServices: for each client and port, one has the host, and the others
are dead there with all their rules. What the winner has no rule for gets **404**, not the own route
of the Service. First come those that are private to the client's namespace, then those that are
exported to it by name, then the public ones; among them the oldest, and at equal age the first by
name. (On a gateway they are joined instead; what is covered there is KM601.)

One that has no rule for a client or port, as its matches name other ports, sources or gateways, is
passed over: VirtualServices that share a host by client or port are no finding. Nor are those of
which one has the more specific host, nor tcp and tls rules, of which all count. For each of the
first rules that lose, a request that it is for is traced through the rules that win.

A waypoint joins the VirtualServices of the Service's namespace and of its own, the older first (in
Istio since 2026). Where no client is known to have a sidecar, only those rules of theirs are
reported that earlier ones leave nothing.

A warning where the winner does the same with those requests, or where it wins by being exported to
fewer namespaces, as a namespace's own rules are meant to; then just worth knowing if no request
gets 404.""",
    fix="Keep all http rules of a host for the mesh in one VirtualService, or have it delegate.",
    reference="https://istio.io/latest/docs/ops/best-practices/traffic-management/"
    "#split-virtual-services",
    needs=("VirtualService",),
    uses=(
        "Service",
        "ServiceEntry",
        "Sidecar",
        "Namespace",
        KUBERNETES_GATEWAY,
        *WORKLOAD_KINDS,
    ),
    equivalents=("IST0109", "KIA1106"),
    check=check,
    bad=EXAMPLE_SHOP + _ALL + _SECOND + _CART,
    good=EXAMPLE_SHOP + _CART + _ALL,
)
