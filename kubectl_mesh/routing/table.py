"""The ordered routes that a proxy holds for a host, as istiod gives them to Envoy.

Models `BuildHTTPRoutesForVirtualService` and the sorting of a gateway's routes. Which
VirtualServices a proxy has for a host is decided in sidecar.py and gateway.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.virtual_services import VirtualService, is_idle
from kubectl_mesh.routing.matching import Conditions
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.rewriting import Rewriting, rewriting
from kubectl_mesh.routing.rules import Match, Rule


@dataclass(frozen=True)
class Target:
    """Where requests are sent, with its share: of 100 where the rule says so, else of the sum."""

    host: str
    port: int
    subset: str | None
    weight: int

    @property
    def cluster(self) -> str:
        """The name of Envoy's cluster."""
        return f"outbound|{self.port}|{self.subset or ''}|{self.host}"


def shares(targets: Sequence[Target]) -> list[Fraction]:
    """The part of the requests that each of some targets gets, of 1. A single one gets all."""
    total = sum(target.weight for target in targets)
    if len(targets) == 1 or not total:
        return [Fraction(1) for _ in targets]
    return [Fraction(target.weight, total) for target in targets]


@dataclass(frozen=True)
class Abort:
    """A fault by which the proxy itself answers some requests: `percent` in a hundred.

    `grpc` is the gRPC status, "" for none: then HTTP's is 200.
    """

    percent: float
    http: int
    grpc: str


@dataclass(frozen=True)
class Copies:
    """Where copies of requests are sent, and of how many in a hundred."""

    target: Target
    percent: float


@dataclass(frozen=True)
class Action:
    """What becomes of a request.

    `data` is the rule's own words on everything but destinations: rewrite, redirect,
    directResponse, fault, mirrors, headers, timeout, retries, corsPolicy.
    """

    targets: tuple[Target, ...]
    data: Mapping[str, Any]
    copies: tuple[Copies, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether the proxy answers by itself: then istiod leaves out all that is for upstreams."""
        return answers_itself(self.data)

    @property
    def abort(self) -> Abort | None:
        """The requests that the rule's fault answers; None where it answers none."""
        found = (self.data.get("fault") or {}).get("abort") or {}
        http, grpc = found.get("httpStatus") or 0, found.get("grpcStatus") or ""
        percent = percent_of(found, 0)
        return Abort(percent, http or 200, grpc) if percent > 0 and (http or grpc) else None


def answers_itself(data: Mapping[str, Any]) -> bool:
    """Whether a rule has the proxy answer. A `redirect: {}` does, too: to the same URL."""
    return any(data.get(field) is not None for field in ("redirect", "directResponse"))


@dataclass(frozen=True, eq=False)
class Route:
    """One entry of a proxy's table: a match of a rule, or a rule without match.

    `virtual_service` is the root; None for the route that a Service has by itself.
    """

    virtual_service: VirtualService | None
    rule: Rule | None
    match: Match | None
    conditions: Conditions
    action: Action

    @property
    def rewriting(self) -> Rewriting:
        """What it makes of the path that upstreams get, or that it redirects to."""
        data = self.action.data
        rewrite = data.get("rewrite")
        if self.action.answers:
            rewrite = {"uri": (data.get("redirect") or {}).get("prefixRewrite")}
        return rewriting(self.conditions.path, rewrite)

    @property
    def name(self) -> str:
        """Envoy's name of the route, which access logs show."""
        if self.rule is None:
            return "default"
        matched = self.match.name if self.match else ""
        return f"{self.rule.name}.{matched}" if matched else self.rule.name


@dataclass(frozen=True)
class Passed:
    """A route that was tried before the one that won, and what it demands in vain."""

    route: Route
    why: str


@dataclass(frozen=True)
class Table:
    """The routes for one host on one proxy, in the order in which Envoy tries them.

    `kind` says why they hold. "virtual-service": rules of VirtualServices, a request that meets
    none gets 404. "service": the registry's own route. "passthrough": the proxy does not know the
    host and lets requests out; "dynamic-dns": the same, to where its own DNS leads. "blackhole": it
    does not, and answers 502. "no-route": a gateway without rules for the host, which answers 404.
    "https-redirect": a gateway whose server sends plain requests to https before any rule is asked.
    """

    kind: Literal[
        "virtual-service",
        "service",
        "passthrough",
        "dynamic-dns",
        "blackhole",
        "no-route",
        "https-redirect",
    ]
    domain: str
    routes: tuple[Route, ...] = ()

    def find(self, request: Request) -> tuple[Route | None, list[Passed]]:
        """The route that a request takes, and those tried before it. Raises Undecidable."""
        passed: list[Passed] = []
        for route in self.routes:
            why = route.conditions.unmet(request)
            if why is None:
                return route, passed
            passed.append(Passed(route, why))
        return None, passed

    def first(self, request: Request) -> Route | None:
        """The route that a request takes. Raises Undecidable."""
        for route in self.routes:
            if route.conditions.met(request):
                return route
        return None


@dataclass(frozen=True)
class WayIn:
    """Where a proxy takes requests: the port of the table, and whose it is.

    `gateway` is the Gateway ("namespace/name") whose server it is; `mesh` for a sidecar.
    """

    proxy: Proxy
    gateway: str
    port: int

    def admits(self, match: Match) -> bool:
        """Whether a match can hold here. Models `sourceMatchHTTP`."""
        if match.port and match.port != self.port:
            return False
        if match.gateways:
            return self.gateway in match.gateways
        if not match.source_labels.items() <= self.proxy.labels.items():
            return False
        return match.source_namespace in ("", self.proxy.namespace)


def routes_of(
    root: VirtualService,
    rules: Iterable[Rule],
    way_in: WayIn,
    single_ports: Mapping[str, int],
) -> tuple[Route, ...]:
    """What a VirtualService adds to a proxy's table: all up to the first catch-all.

    `single_ports` gives the port of each destination that has only one, where a destination
    without a port means it.
    """
    return tuple(_up_to_catch_all(_routes(root, rules, way_in, single_ports)))


def _up_to_catch_all(routes: Iterable[Route]) -> Iterator[Route]:
    for route in routes:
        yield route
        if route.conditions.take_everything:
            return


def _routes(
    root: VirtualService,
    rules: Iterable[Rule],
    way_in: WayIn,
    single_ports: Mapping[str, int],
) -> Iterator[Route]:
    for rule in rules:
        action = action_of(rule, way_in.port, single_ports)
        if rule.matches is None:
            yield Route(root, rule, None, Conditions(), action)
        for match in rule.matches or ():
            if way_in.admits(match):
                yield Route(root, rule, match, match.conditions, action)


def action_of(rule: Rule, port: int, single_ports: Mapping[str, int]) -> Action:
    """What a rule does with requests that arrive at a port."""
    routes: list[Mapping[str, Any]] = rule.data.get("route") or []
    mirrors = list(_mirrored(rule.data))
    if answers_itself(rule.data):
        routes, mirrors = [], []
    targets = tuple(
        _target(route.get("destination"), route.get("weight"), port, single_ports)
        for route in routes
        if not is_idle(route, routes)
    )
    copies = tuple(
        Copies(_target(destination, 0, port, single_ports), percent)
        for destination, percent in mirrors
    )
    other = {
        key: value
        for key, value in rule.data.items()
        if key not in ("name", "route", "delegate") and value is not None
    }
    sent = [route.get("headers") for route in routes]
    if any(sent):
        other["destinationHeaders"] = sent
    return Action(targets, other, copies)


def _mirrored(data: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """The destinations of copies, with their percentage; none where that is 0."""
    older = data.get("mirrorPercent")
    found = [
        (data.get("mirror"), percent_of(data, 100 if older is None else older, "mirrorPercentage")),
        *(
            (policy.get("destination"), percent_of(policy, 100))
            for policy in data.get("mirrors") or ()
        ),
    ]
    for destination, percent in found:
        if destination and destination.get("host") and percent > 0:
            yield destination, percent


def percent_of(data: Mapping[str, Any], default: float, name: str = "percentage") -> float:
    """How many requests in a hundred something is for; `default` where that is not stated."""
    stated = data.get(name)
    return float(default if stated is None else stated.get("value") or 0)


def _target(
    destination: Mapping[str, Any] | None,
    weight: int | None,
    port: int,
    single_ports: Mapping[str, int],
) -> Target:
    destination = destination or {}
    host = destination.get("host") or ""
    stated = (destination.get("port") or {}).get("number")
    return Target(
        host,
        stated or single_ports.get(host, port),
        destination.get("subset") or None,
        weight or 0,
    )


def sorted_for_gateway(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes of several VirtualServices in a gateway's order: catch-alls come last."""
    return tuple(sorted(routes, key=lambda route: route.conditions.take_everything))
