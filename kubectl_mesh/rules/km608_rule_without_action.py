"""KM608: a rule leads nowhere: for an http rule Envoy rejects all routes of the port."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import EMPTY_RULES_SKIPPED
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.routing.rules import Rule as HeldRule
from kubectl_mesh.routing.rules import merged_rules
from kubectl_mesh.routing.table import answers_itself
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.refused import FROZEN, REFUSED


def check(snapshot: Snapshot) -> Iterator[Finding]:
    every = snapshot.virtual_services
    held: dict[tuple[VirtualService, Path], HeldRule] = {}
    for root in every.roots:
        for rule in merged_rules(every, root):
            if not (rule.data.get("route") or answers_itself(rule.data)):
                held.setdefault((rule.owner, rule.path), rule)
    for (owner, path), rule in held.items():
        yield _finding(owner, path, rule)
    skipped = snapshot.config.istio.has(EMPTY_RULES_SKIPPED)
    for root in every.roots:
        for protocol in ("tcp", "tls"):
            for index, data in enumerate(root.resource.spec.get(protocol) or ()):
                if not data.get("route"):
                    yield _for_connections(root, ("spec", protocol, index), skipped=skipped)


def _for_connections(owner: VirtualService, path: Path, *, skipped: bool) -> Finding:
    what = "Istio skips the rule, and connections take a later one"
    if not skipped:
        what = "istiod crashes when it comes to this rule, again and again"
    return RULE.finding(
        owner.resource,
        path,
        f"{dotted(path)} has no route",
        traffic=f"{REFUSED}; where it does not check, {what}",
        next=f"give {dotted(path)} a route, or delete it",
        severity=Severity.WARNING if skipped else Severity.ERROR,
    )


def _finding(owner: VirtualService, path: Path, rule: HeldRule) -> Finding:
    message = f"{dotted(path)} has no route, redirect or directResponse"
    fix = f"give {dotted(path)} a route"
    if rule.data.get("delegate") is not None:
        path = (*path, "delegate")
        message = f"{dotted(path)} is in a VirtualService that is a delegate itself"
        fix = "delegate to it from the VirtualService with hosts: only one level is allowed"
    return RULE.finding(owner.resource, path, message, traffic=FROZEN, next=fix)


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart}
spec:
  hosts: [cart]
  http:
  - match:
    - uri: {prefix: /cart}
"""

RULE = Rule(
    code="KM608",
    name="rule-without-action",
    severity=Severity.ERROR,
    summary="A rule leads nowhere; for an http rule Envoy rejects all routes of the port.",
    explanation="""\
An http rule needs a `route`, a `redirect` or a `directResponse`, its own or, for a delegate's rule,
a `directResponse` of the rule that delegates. A delegate's rule that delegates in turn has none:
only one level is resolved. Istio's admission refuses both.

Where it is not asked, istiod sends a route without a cluster. Envoy then rejects the whole route
configuration, which is that of a port: for every host on that port, no change arrives any more,
however right it is, until the object is repaired. Requests go on by the old routes, so that nothing
shows it; a proxy that starts then has none, and answers 404.

A tcp or tls rule needs a `route`, and admission refuses one without. Where it is not asked, istiod
skips such a rule since 1.31, which is a warning; up to 1.30 it crashes at it.""",
    fix="Give the rule a route, or delete it. Delegate from the VirtualService with hosts only.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute",
    needs=("VirtualService",),
    check=check,
    bad=_SHARED,
    good=_SHARED + "    route:\n    - destination: {host: cart}\n",
)
