"""KM204: a match names a gateway that its VirtualService is not bound to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubectl_mesh.mesh.gateways import MESH, resolve_gateway
from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for vs in snapshot.virtual_services.all:
        roots = snapshot.virtual_services.roots_of(vs)
        bound = frozenset(gateway for root in roots for gateway in root.gateways)
        if not bound:
            continue
        for path, match in _matches(vs):
            gateways = vs.resolve_gateways(match["gateways"])
            for index, name in enumerate(match["gateways"]):
                if resolve_gateway(name, vs.namespace) not in bound:
                    field = (*path, "gateways", index)
                    yield _finding(vs, roots, field, name, bound, bool(gateways & bound))


def _matches(vs: VirtualService) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The matches that name gateways, each with its path."""
    for protocol in ("http", "tcp", "tls"):
        for number, rule in enumerate(vs.resource.spec.get(protocol) or ()):
            for index, match in enumerate(rule.get("match") or ()):
                if match.get("gateways"):
                    yield ("spec", protocol, number, "match", index), match


def _finding(
    vs: VirtualService,
    roots: tuple[VirtualService, ...],
    path: Path,
    name: str,
    bound: frozenset[str],
    holds_elsewhere: bool,
) -> Finding:
    root = roots[0]
    whose = "" if root is vs else f" of {root.resource}, which delegates to it"
    implied = "" if root.resource.spec.get("gateways") else ", as no gateways are listed"
    traffic = "this match never holds: its rule is dead weight unless another of its matches does"
    if holds_elsewhere:
        way_in = "from inside the mesh" if name == MESH else f"through {name}"
        traffic = f"no request {way_in} meets this match, which holds for the others it names"
    return RULE.finding(
        vs.resource,
        path,
        f"{dotted(path)} names gateway {name}, which is not in spec.gateways{whose}",
        traffic=traffic,
        next=f"add {name} to spec.gateways, or take it out of the match",
        evidence=(f"{root.resource} is bound to {', '.join(sorted(bound))}{implied}",),
        related=tuple(found.resource.id for found in roots if found is not vs),
    )


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [hello.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello.example.com]
  http:
  - match:
    - gateways: [public]
      uri: {prefix: /hello}
    route:
    - destination: {host: hello}
"""

RULE = Rule(
    code="KM204",
    name="match-gateway-not-in-spec",
    severity=Severity.ERROR,
    summary="A match names a gateway that the VirtualService is not bound to.",
    explanation="""\
`gateways` in a match narrows the list in `spec.gateways`; it adds nothing to it. A gateway that
`spec.gateways` lacks has none of the VirtualService's rules, so the match cannot hold there. An
absent or empty `spec.gateways` means `mesh` alone; where any gateway is listed, `mesh` must be
listed too.

Names are compared as Istio resolves them: `gw`, `./gw`, `ns/gw` and the old `gw.ns` can be one
gateway. Matches of http, tcp and tls rules are read; those of a delegate are compared with the
gateways of the VirtualServices that delegate to it.""",
    fix="Add the gateway (or `mesh`) to `spec.gateways`, or correct the name in the match.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#HTTPMatchRequest",
    needs=("VirtualService",),
    check=check,
    bad=_SHARED,
    good=_SHARED.replace(
        "  hosts: [hello.example.com]\n  http:",
        "  hosts: [hello.example.com]\n  gateways: [public]\n  http:",
    ),
)
