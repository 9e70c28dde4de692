"""KM609: one VirtualService lists a host twice, or beside a wildcard that means it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_mesh.mesh.hosts import is_wildcard, patterns_for
from kubectl_mesh.mesh.resource import ABSENT
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.refused import REFUSED


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for vs in snapshot.virtual_services.roots:
        hosts: Sequence[str] = vs.resource.spec["hosts"]
        first: dict[str, int] = {}
        for index, host in enumerate(hosts):
            first.setdefault(host, index)
        for index, host in enumerate(hosts):
            covering = [pattern for pattern in patterns_for(host) if pattern in first]
            if first[host] == index:
                covering = covering[1:]
            if covering:
                yield _finding(vs, index, host, first[covering[0]])


def _finding(vs: VirtualService, index: int, host: str, other: int) -> Finding:
    pattern = vs.resource.spec["hosts"][other]
    same = pattern == host
    what = f"the same as spec.hosts[{other}]"
    if not same:
        what = f"meant by spec.hosts[{other}] ({pattern}) as well"
    wider = is_wildcard(pattern) and not same
    return RULE.finding(
        vs.resource,
        ("spec", "hosts", index),
        f"spec.hosts[{index}] ({host}) is {what}",
        traffic=f"{REFUSED}: no change of it comes into force",
        next=f"delete spec.hosts[{index}]"
        + (", or give it a VirtualService of its own" if wider else ""),
        repairs=(
            Repair(
                "delete",
                f"delete spec.hosts[{index}] ({host}), which spec.hosts[{other}] means as well",
                (Edit(vs.resource, ("spec", "hosts", index), ABSENT),),
            ),
        ),
    )


_BAD = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["*.example.com", shop.example.com]
  gateways: [front]
  http:
  - route:
    - destination: {host: shop}
"""

RULE = Rule(
    code="KM609",
    name="duplicate-hosts",
    severity=Severity.ERROR,
    summary="One VirtualService lists a host twice, or beside a wildcard that means it.",
    explanation="""\
Istio's admission refuses a VirtualService of which one host means another: the same name twice, or
a wildcard beside a name, or a narrower wildcard, that it covers. `kubectl apply` fails, and in a
pipeline everything after it. Where admission is not asked, routes work as if the host were listed
once.

Names are compared as they are written, as Istio does here: `reviews` beside its full name is let
through.""",
    fix="Delete the host that the other one means.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#VirtualService",
    needs=("VirtualService",),
    check=check,
    bad=_BAD,
    good=_BAD.replace('["*.example.com", shop.example.com]', '["*.example.com"]'),
)
