"""KM603: rules stand after a rule of the same VirtualService that takes every request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.dead_rules import RuleReach, alike, path_of, reaches, same_ends
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, listed
from kubectl_mesh.rules.shared.dead_rules import excused, is_dropped
from kubectl_mesh.rules.shared.example import EXAMPLE_SHOP

_LIST = ("spec", "http")


def check(snapshot: Snapshot) -> Iterator[Finding]:
    rules, _ = reaches(snapshot)
    dropped: dict[tuple[VirtualService, Path], list[RuleReach]] = defaultdict(list)
    for rule in rules:
        if is_dropped(rule) and not excused(rule.dead, rule.owner):
            catch_all = rule.dead[0].fates[0].dropped_by
            assert catch_all
            assert catch_all.rule
            dropped[catch_all.rule.owner, path_of(catch_all)].append(rule)
    for (owner, path), members in dropped.items():
        yield _finding(owner, path, members)


def _finding(owner: VirtualService, path: Path, dropped: list[RuleReach]) -> Finding:
    fates = [fate for rule in dropped for match in rule.dead for fate in match.fates]
    pairs = [(fate.route, each) for fate in fates for each in fate.winners]
    severity, effect = Severity.ERROR, "requests take the catch-all"
    same = all(alike(*pair) for pair in pairs)
    if same:
        severity, effect = Severity.WARNING, "the catch-all does the same anyway"
    elif all(same_ends(*pair) for pair in pairs):
        severity, effect = Severity.WARNING, "the catch-all leads to the same destinations"
    names = [
        dotted(rule.path) + (f" of {rule.owner.resource}" if rule.owner is not owner else "")
        for rule in dropped
    ]
    places = ", ".join(listed(dict.fromkeys(fate.place for fate in fates)))
    one = len(names) == 1
    them = "it" if one else "them"
    return RULE.finding(
        owner.resource,
        path,
        f"{dotted(path)} takes every request ({places}), so Istio drops what stands after it: "
        + ", ".join(listed(names)),
        traffic=f"no proxy has {'that rule' if one else 'those rules'}: {effect}",
        next=f"delete {them}" if same else f"move {them} before {dotted(path)}",
        severity=severity,
        related=tuple(
            dict.fromkeys(rule.owner.resource.id for rule in dropped if rule.owner is not owner)
        ),
        repairs=tuple(_repairs(owner, path, dropped)),
    )


def _repairs(owner: VirtualService, path: Path, dropped: list[RuleReach]) -> Iterator[Repair]:
    """The catch-all behind all others, where it is a rule by itself and hides its own list's."""
    rules = owner.resource.spec["http"]
    rule = path[: len(_LIST) + 1]
    if len(rules[rule[-1]].get("match") or ()) < 2 and all(one.owner is owner for one in dropped):
        yield Repair(
            "move",
            f"move {dotted(rule)} to the end",
            (Edit(owner.resource, (*_LIST, len(rules) - 1), source=rule),),
            proof=True,
        )


_ALL = """\
  - route:
    - destination: {host: shop}
"""
_CART = """\
  - match:
    - uri: {prefix: /cart}
    route:
    - destination: {host: cart}
"""

RULE = Rule(
    code="KM603",
    name="rules-after-catch-all",
    severity=Severity.ERROR,
    summary="Rules stand after a rule of the same VirtualService that takes every request.",
    explanation="""\
istiod stops at the first catch-all of a VirtualService: a rule without match, or a match with
nothing, or nothing but `uri: {prefix: /}` or `uri: {regex: ".*"}`. What stands after it reaches no
proxy: not in the mesh, and not on a gateway either, although the rules of other VirtualServices of
the host are put before the catch-all there.

A match that holds for some gateways, ports or clients only is a catch-all for just them. Rules
that still hold elsewhere are no finding, nor is a catch-all that was meant for chosen clients
(KM207). A warning where it leads to the same destinations as all the rules that it hides.""",
    fix="Move the catch-all to the end of the VirtualService.",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#route-rules-dont-seem-to-affect-traffic-flow",
    needs=("VirtualService",),
    uses=("Gateway", "Service", "ServiceEntry", *WORKLOAD_KINDS),
    equivalents=("IST0130",),
    check=check,
    bad=EXAMPLE_SHOP + _ALL + _CART,
    good=EXAMPLE_SHOP + _CART + _ALL,
)
