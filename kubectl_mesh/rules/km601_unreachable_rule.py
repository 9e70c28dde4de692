"""KM601: no request can ever meet an http rule, as earlier rules take them all."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import ABSENT, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.dead_connections import covered_rules
from kubectl_mesh.proof.dead_rules import (
    Fate,
    RuleReach,
    alike,
    reaches,
    same_ends,
)
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.dead_rules import (
    because,
    evidence,
    excused,
    for_connections,
    is_dropped,
    is_foreign,
    left_out,
    lost_to,
    related,
    repair,
    winners,
)
from kubectl_mesh.rules.shared.example import EXAMPLE_SHOP


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    rules, skipped = reaches(snapshot)
    for reason in skipped:
        yield Skip(reason)
    for rule in rules:
        if rule.all_dead and not is_dropped(rule) and not excused(rule.dead, rule.owner):
            yield _finding(rule)
    for vs in snapshot.virtual_services.roots:
        for covered in covered_rules(vs):
            if covered.whole:
                same = all(one.route == by.route for one, by in covered.covered)
                yield for_connections(
                    RULE,
                    covered,
                    covered.path,
                    [by.path for _, by in covered.covered],
                    Severity.WARNING if same else Severity.ERROR,
                    same=same,
                )


def _finding(rule: RuleReach) -> Finding:
    fates = [fate for match in rule.dead for fate in match.fates]
    takers = winners(fates)
    where = dotted(rule.path)
    return RULE.finding(
        rule.owner.resource,
        rule.path,
        f"no request can meet {where}{because(takers, rule)}",
        traffic=lost_to(takers, fates),
        next=repair(fates, where, rule),
        severity=_severity(rule.owner, fates),
        evidence=evidence(rule.dead, rule),
        related=related(takers, rule),
        repairs=tuple(_repairs(rule, fates)),
    )


def _repairs(rule: RuleReach, fates: list[Fate]) -> Iterator[Repair]:
    """Before the rules of its list that take its requests, or away where they do the same."""
    takers = winners(fates)
    rules = [taker.rule for taker in takers if taker.rule and taker.rule.owner is rule.owner]
    resource, where = rule.owner.resource, dotted(rule.path)
    if not rules or len(rules) < len(takers):
        return
    if all(alike(fate.route, taker) for fate in fates for taker in fate.winners):
        yield Repair("remove", f"delete {where}", (Edit(resource, rule.path, ABSENT),), proof=True)
        return
    if left_out(takers, rule):
        return
    first = min((taker.path for taker in rules), key=lambda path: path[-1])
    yield Repair(
        "move",
        f"move {where} before {dotted(first)}",
        (Edit(resource, first, source=rule.path),),
        proof=True,
    )


def _severity(owner: VirtualService, fates: list[Fate]) -> Severity:
    takers = winners(fates)
    harmless = takers and all(
        same_ends(fate.route, taker) for fate in fates for taker in fate.winners
    )
    if harmless or any(is_foreign(taker, owner) for taker in takers):
        return Severity.WARNING
    return Severity.ERROR


_WIDE = """\
  - match:
    - uri: {prefix: /api}
    route:
    - destination: {host: shop}
"""
_NARROW = """\
  - match:
    - uri: {prefix: /api/cart}
    route:
    - destination: {host: cart}
"""

RULE = Rule(
    code="KM601",
    name="unreachable-rule",
    severity=Severity.ERROR,
    summary="No request can ever meet an http rule, as earlier rules take them all.",
    explanation="""\
Of the rules of a host the first that a request meets takes it. A rule all of whose matches are
covered by earlier ones is dead: `prefix: /api` takes what `prefix: /api/cart` is for, `prefix: /a`
what `regex: /a/[0-9]+` is for, and two rules for `GET` and for all but `GET` together take
everything. A prefix is plain text, so that `/api` takes `/apiary` too. Some matches hold for no
request at all: a path without `/` at its beginning, or with a query, which is no part of the path.

The proof is exact: a request that only this rule gets is searched for among all that clients can
send, and regular expressions are compared as the sets of texts that they mean. It is made for
each gateway, server port and host, and for the mesh, where the rule can hold; a rule that is alive
at one of them is no finding. On a gateway the VirtualServices of a host are joined, the oldest
first: a rule that another, older VirtualService covers is a warning, and no finding if that one
does the same. A warning, too, where the requests reach the same destinations anyway. A rewrite
replaces the prefix that matched, so that two rules with the same words may make other paths: the
finding shows one, and the cure is the other order. Rules after a catch-all are KM603, and the fight
of VirtualServices for a host in the mesh is KM604.

Of tcp and tls rules, those are found that an earlier match of the same VirtualService covers by
itself: port, gateways and clients are at least the same, and so are server names as a list.

Skipped where an expression is too intricate to be decided; claims of tokens, and texts that are
not ASCII, are only compared for being the same.""",
    fix="Put the more specific rule first; delete it only if the earlier ones do the same.",
    reference="https://istio.io/latest/docs/ops/best-practices/traffic-management/"
    "#split-virtual-services",
    needs=("VirtualService",),
    uses=("Gateway", "Service", "ServiceEntry", *WORKLOAD_KINDS),
    equivalents=("IST0130", "IST0131"),
    check=check,
    bad=EXAMPLE_SHOP + _WIDE + _NARROW,
    good=EXAMPLE_SHOP + _NARROW + _WIDE,
)
