"""KM605: the weights of a rule's destinations do not mean what they seem to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.resource import ABSENT, Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.routing.table import answers_itself
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.example import EXAMPLE_SHOP
from kubectl_mesh.rules.shared.refused import FROZEN, REFUSED

_NEARLY = range(80, 121)
"""Sums that look like a slip in percentages."""


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for vs in snapshot.virtual_services.all:
        for protocol in ("http", "tcp", "tls"):
            for index, rule in enumerate(vs.resource.spec.get(protocol) or ()):
                routes = rule.get("route") or ()
                if routes and not answers_itself(rule):
                    yield from _check(vs, ("spec", protocol, index, "route"), routes)


def _check(
    vs: VirtualService, path: Path, routes: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    weights = [route.get("weight") or 0 for route in routes]
    negative = [index for index, weight in enumerate(weights) if weight < 0]
    if negative:
        yield _negative(vs, (*path, negative[0], "weight"), weights)
    elif len(routes) == 1:
        yield from _single(vs, path, routes[0])
    elif not sum(weights):
        yield _nothing(vs, path)
    else:
        yield from _shares(vs, path, routes, weights)


def _negative(vs: VirtualService, path: Path, weights: Sequence[int]) -> Finding:
    frozen = path[1] == "http" and len(weights) > 1
    return RULE.finding(
        vs.resource,
        path,
        f"{dotted(path)} is negative",
        traffic=FROZEN if frozen else f"{REFUSED}, so that none of its rules come into force",
        next="give it a weight from 0 to 100",
        severity=Severity.ERROR,
    )


def _nothing(vs: VirtualService, path: Path) -> Finding:
    return RULE.finding(
        vs.resource,
        path,
        f"none of the destinations of {dotted(path)} has a weight above 0",
        traffic=FROZEN
        if path[1] == "http"
        else f"{REFUSED}; where it does not check, "
        "istiod (up to 1.31 at least) crashes when it comes to this rule, again and again",
        next="give the destinations weights that add up to 100",
        severity=Severity.ERROR,
    )


def _single(vs: VirtualService, path: Path, route: Mapping[str, Any]) -> Iterator[Finding]:
    weight = route.get("weight")
    if weight is None or weight == 100:
        return
    where = (*path, 0, "weight")
    yield RULE.finding(
        vs.resource,
        where,
        f"{dotted(where)} is {weight}, of the only destination of its rule",
        traffic="a single destination gets all requests, whatever its weight",
        next=f"delete {dotted(where)}, or add the destination that the rest is meant for",
        severity=Severity.INFO if weight else Severity.WARNING,
        repairs=(
            Repair(
                "delete",
                f"delete {dotted(where)}, which is not looked at",
                (Edit(vs.resource, where, ABSENT),),
            ),
        ),
    )


def _shares(
    vs: VirtualService,
    path: Path,
    routes: Sequence[Mapping[str, Any]],
    weights: Sequence[int],
) -> Iterator[Finding]:
    total = sum(weights)
    for index, route in enumerate(routes):
        if route.get("weight") is None:
            where = (*path, index)
            yield RULE.finding(
                vs.resource,
                where,
                f"{dotted(where)} has no weight, while other destinations of its rule have one",
                traffic="it counts as 0: this destination gets no requests",
                next=f"set {dotted((*where, 'weight'))}",
            )
    seen: dict[tuple[object, ...], int] = {}
    for index, route in enumerate(routes):
        first = seen.setdefault(_destination(vs, route), index)
        if first != index:
            where = (*path, index, "destination")
            yield RULE.finding(
                vs.resource,
                where,
                f"{dotted(where)} is the same as {dotted((*path, first, 'destination'))}",
                traffic="their shares add up: "
                f"{_percent(weights[first] + weights[index], total)} of the requests go there",
                next="correct one of them, or join them to one destination",
            )
    complete = all(route.get("weight") is not None for route in routes)
    if complete and total != 100 and total in _NEARLY:
        shares = ", ".join(_percent(weight, total) for weight in weights)
        yield RULE.finding(
            vs.resource,
            path,
            f"the weights of {dotted(path)} add up to {total}, not 100",
            traffic=f"shares are parts of the sum: {shares}",
            next="correct the weights so that they add up to 100",
            severity=Severity.INFO,
        )


def _destination(vs: VirtualService, route: Mapping[str, Any]) -> tuple[object, ...]:
    destination = route.get("destination") or {}
    return (
        vs.resolve_host(destination.get("host") or ""),
        destination.get("subset") or "",
        (destination.get("port") or {}).get("number") or 0,
        repr(route.get("headers")),
    )


def _percent(weight: int, total: int) -> str:
    return f"{100 * weight / total:.3g} %"


_SHARED = (
    EXAMPLE_SHOP
    + """\
  - route:
    - destination: {host: shop}
      weight: 90
    - destination: {host: cart}
"""
)

RULE = Rule(
    code="KM605",
    name="weights",
    severity=Severity.WARNING,
    summary="The weights of a rule's destinations do not mean what they seem to.",
    explanation="""\
Of several destinations each gets its weight's part of the sum. Therefore:

- **none above 0**, which is also what several destinations without any weight have, or a
  **negative** one: Istio's admission refuses the object. Where it is not asked (another webhook's
  failure, a restored backup), Envoy cannot take such an http route, and rejects with it all routes
  of the same port: that port is frozen for all hosts until the object is repaired. A tcp or tls
  rule without any weight crashes istiod, up to 1.31 at least. An error;
- **no weight beside destinations that have one**: it counts as 0, and the destination gets nothing.
  An explicit `weight: 0` is taken for meant, as in a canary's first step;
- **the same destination twice**: the shares add up; mostly the second was meant for another subset;
- **one destination with a weight**: it gets everything; a warning if the weight is 0, which seems
  to say nothing, else just worth knowing;
- **a sum near 100, and not 100**: just worth knowing. Small numbers like 3 to 1 are left alone.""",
    fix="Give every destination of a rule a weight, adding up to 100.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#HTTPRouteDestination",
    needs=("VirtualService",),
    equivalents=("KIA1104", "KIA1105"),
    check=check,
    bad=_SHARED,
    good=_SHARED + "      weight: 10\n",
)
