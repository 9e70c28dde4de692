"""KM607: a rule names a delegate, and does something itself."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import HttpRule
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.refused import REFUSED


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for root in snapshot.virtual_services.roots:
        for rule in root.own_http_rules:
            if rule.data.get("delegate") is None:
                continue
            for field in ("route", "redirect", "directResponse"):
                if rule.data.get(field) not in (None, []):
                    yield _finding(rule, field)


def _finding(rule: HttpRule, field: str) -> Finding:
    traffic = (
        f"{REFUSED}; where it does not check, the {field} is lost: requests that no rule of the "
        "delegate is for take a later rule, or get 404"
    )
    if field == "directResponse":
        traffic = (
            "the delegate's rules inherit it, and it comes before their routes: their requests "
            "are answered with it, unless the delegate's rule answers or redirects itself"
        )
    return RULE.finding(
        rule.owner.resource,
        (*rule.path, field),
        f"{dotted(rule.path)} names a delegate and has a {field} too",
        traffic=traffic,
        next=f"move the {field} to a rule of its own after this one, or to the delegate",
    )


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
metadata: {name: cart-delegate}
spec:
  http:
  - match:
    - uri: {prefix: /items}
    route:
    - destination: {host: cart}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart}
spec:
  hosts: [cart]
  http:
  - delegate: {name: cart-delegate}
"""

RULE = Rule(
    code="KM607",
    name="delegate-beside-action",
    severity=Severity.ERROR,
    summary="A rule names a delegate, and has a route, redirect or directResponse too.",
    explanation="""\
A rule with `delegate` is replaced by the delegate's rules. Its own `route` or `redirect` is not
what happens to the requests that the delegate leaves over: it is lost, and Istio's admission
refuses the object. A `directResponse` is let through, and does the opposite: each rule of the
delegate inherits it, and it comes before the rule's `route`, so that the delegate's destinations
get nothing.""",
    fix="Give what the delegate leaves over a rule of its own, after the one that delegates.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate",
    needs=("VirtualService",),
    check=check,
    bad=_SHARED + "    directResponse: {status: 404}\n",
    good=_SHARED + "  - directResponse: {status: 404}\n",
)
