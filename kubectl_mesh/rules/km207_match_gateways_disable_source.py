"""KM207: an http match that names gateways has source fields, which Istio then ignores."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for vs in snapshot.virtual_services.all:
        bound = frozenset(
            gateway for root in snapshot.virtual_services.roots_of(vs) for gateway in root.gateways
        )
        for rule in vs.own_http_rules:
            for index, match in enumerate(rule.matches):
                fields = [name for name in ("sourceLabels", "sourceNamespace") if match.get(name)]
                holds_on = vs.resolve_gateways(match.get("gateways") or ()) & bound
                if not fields or not holds_on:
                    continue
                path = (*rule.path, "match", index, fields[0])
                on_mesh = MESH in holds_on
                ignored = " and ".join(fields)
                traffic = (
                    "requests of every client that meet the rest of the match are routed by it"
                )
                if not on_mesh:
                    traffic = "nothing changes for callers in the mesh, whom this match never meets"
                yield RULE.finding(
                    vs.resource,
                    path,
                    f"{dotted(path[:-1])} has gateways and {ignored}: "
                    f"Istio compares gateways and ignores {ignored}",
                    traffic=traffic,
                    next="take gateways out of this match, and put rules for chosen clients into a "
                    "VirtualService that is bound to mesh alone",
                    severity=Severity.ERROR if on_mesh else Severity.WARNING,
                    evidence=(f"the match holds on {', '.join(sorted(holds_on))}",),
                )


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: hello-next}
spec:
  selector: {app: hello-next}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello]
  http:
  - match:
    - sourceLabels: {app: tester}
      gateways: [mesh]
    route:
    - destination: {host: hello-next}
  - route:
    - destination: {host: hello}
"""

RULE = Rule(
    code="KM207",
    name="match-gateways-disable-source",
    severity=Severity.ERROR,
    summary="An http match has gateways, and so its sourceLabels or sourceNamespace are ignored.",
    explanation="""\
When istiod asks whether an http match is for a proxy, it compares **either** `gateways` **or**
`sourceLabels` and `sourceNamespace`: as soon as the match names gateways, the source fields count
for nothing. A rule meant for the pods of one team holds for everyone. This is against the text of
the API, and nothing warns of it. Matches of tcp and tls rules are not affected: there all fields
count.

Where the match is for gateways only and not for `mesh`, the source fields would mean the gateway's
own pods; they are dead weight, and the finding is a warning.""",
    fix="""\
Take `gateways` out of the match. If the VirtualService is bound to gateways as well, and the rule
must not hold there, give it a VirtualService of its own that is bound to `mesh` alone.""",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#HTTPMatchRequest",
    needs=("VirtualService",),
    check=check,
    bad=_SHARED,
    good=_SHARED.replace("      gateways: [mesh]\n", ""),
)
