"""KM602: no request can ever meet one match of a rule, while it can meet others."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.dead_connections import covered_rules
from kubectl_mesh.proof.dead_rules import MatchReach, RuleReach, alike, reaches
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.dead_rules import (
    because,
    evidence,
    excused,
    for_connections,
    lost_to,
    related,
    repair,
    winners,
)
from kubectl_mesh.rules.shared.example import EXAMPLE_SHOP


def check(snapshot: Snapshot) -> Iterator[Finding]:
    rules, _ = reaches(snapshot)
    for rule in rules:
        if not rule.all_dead:
            for match in rule.dead:
                if not excused([match], rule.owner):
                    yield _finding(rule, match)
    for vs in snapshot.virtual_services.roots:
        for covered in covered_rules(vs):
            for lost, by in () if covered.whole else covered.covered:
                same = lost.route == by.route
                severity = Severity.INFO if same else Severity.WARNING
                yield for_connections(RULE, covered, lost.path, [by.path], severity, same=same)


def _finding(rule: RuleReach, match: MatchReach) -> Finding:
    takers = winners(match.fates)
    path = rule.path_of(match)
    same = takers and all(alike(fate.route, each) for fate in match.fates for each in fate.winners)
    return RULE.finding(
        rule.owner.resource,
        path,
        f"no request can meet {dotted(path)}{because(takers, rule)}",
        traffic=lost_to(takers, match.fates),
        next=repair(match.fates, dotted(path), rule),
        severity=Severity.INFO if same else Severity.WARNING,
        evidence=evidence([match], rule),
        related=related(takers, rule),
    )


_RULES = """\
  - match:
    - uri: {prefix: /api}
    route:
    - destination: {host: shop}
  - match:
    - uri: {prefix: %s}
    - uri: {prefix: /cart}
    route:
    - destination: {host: cart}
"""

RULE = Rule(
    code="KM602",
    name="unreachable-match",
    severity=Severity.WARNING,
    summary="No request can ever meet one match of a rule, while it can meet others.",
    explanation="""\
The matches of a rule are alternatives. One that earlier rules cover, or an earlier match of the
same rule, is dead, while the others still work, so that nobody notices: part of the requests that
the rule is for go elsewhere. What counts, and how it is proved, is told under KM601.

Just worth knowing where the requests get the same treatment anyway, as under an earlier match of
the same rule. A match after a catch-all counts too, as istiod drops it (KM603).""",
    fix="Put the match before the one that covers it; delete it only if that one does the same.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute",
    needs=("VirtualService",),
    uses=("Gateway", "Service", "ServiceEntry", *WORKLOAD_KINDS),
    equivalents=("IST0131",),
    check=check,
    bad=EXAMPLE_SHOP + _RULES % "/api/cart",
    good=EXAMPLE_SHOP + _RULES % "/basket",
)
