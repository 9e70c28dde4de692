"""KM205: a VirtualService is bound to a Gateway that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from kubectl_mesh.mesh.gateways import MESH, OF_GATEWAY_API, resolve_gateway
from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for vs in snapshot.virtual_services.roots:
        for index, name in enumerate(vs.resource.spec.get("gateways") or ()):
            gateway = resolve_gateway(name, vs.namespace)
            if gateway == MESH or gateway in snapshot.gateways.by_id or OF_GATEWAY_API in gateway:
                continue
            yield _unknown(snapshot, vs, ("spec", "gateways", index), gateway)


def _unknown(snapshot: Snapshot, vs: VirtualService, path: Path, gateway: str) -> Finding | Skip:
    namespace, _, name = gateway.partition("/")
    reason = snapshot.unknown(namespace, "Gateway")
    ids = snapshot.gateways.by_id
    elsewhere = sorted(found.id for found in ids.values() if found.resource.name == name)
    if reason and (snapshot.coverage.live or not ids):
        return Skip(reason)
    close = elsewhere or difflib.get_close_matches(gateway, ids, n=1)
    where = "does not exist" if snapshot.coverage.live else "is not in the input"
    hint = f" (did you mean {close[0]}?)" if close else ""
    on_mesh = "; its rules hold for calls inside the mesh only" if vs.on_mesh else ""
    return RULE.finding(
        vs.resource,
        path,
        f"{dotted(path)} names Gateway {gateway}, which {where}{hint}",
        traffic="no gateway has these rules under that name: requests that should come in there "
        f"for {', '.join(vs.hosts[:5])} get 404{on_mesh}",
        next="correct the name, as namespace/name where the Gateway is in another namespace, or "
        "create the Gateway",
        severity=Severity.WARNING if reason and not elsewhere else Severity.ERROR,
        evidence=(
            f"Gateways there are: {', '.join(sorted(ids)[:10]) or 'none'}",
            *((f"{reason}: it may be somewhere else",) if reason else ()),
        ),
        repairs=tuple(_renamed(vs, path, found) for found in close if found not in vs.gateways),
    )


def _renamed(vs: VirtualService, path: Path, gateway: str) -> Repair:
    """Bound to a Gateway that there is, by the shortest name for it."""
    namespace, _, name = gateway.partition("/")
    written = name if namespace == vs.namespace else gateway
    return Repair(
        gateway,
        f"bind it to Gateway {gateway}",
        (Edit(vs.resource, path, written),),
        affects=(f"requests for its hosts meet its rules on Gateway {gateway} from then on",),
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
metadata: {name: public, namespace: ingress}
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
  - route:
    - destination: {host: hello}
"""

RULE = Rule(
    code="KM205",
    name="unknown-gateway",
    severity=Severity.ERROR,
    summary="A VirtualService is bound to a Gateway that does not exist.",
    explanation="""\
A VirtualService's rules go to the proxies of the Gateways that `spec.gateways` names. A name
without a namespace means a Gateway in the **VirtualService's own namespace**: the usual mistake
where Gateways are kept in one of their own. Istio accepts a name that means nothing, and the rules
are nowhere.

On manifests the rule looks only where the input holds a Gateway. If it holds none of the namespace
that is meant, nor one of that name elsewhere, the finding is a warning, as the Gateway may be kept
in another place. Gateways of the Kubernetes Gateway API are not looked for.""",
    fix="Correct the name (`namespace/name` for a Gateway of another namespace), or create it.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#VirtualService",
    needs=("VirtualService", "Gateway"),
    equivalents=("IST0101", "KIA1102"),
    check=check,
    bad=_SHARED + "  gateways: [public]\n",
    good=_SHARED + "  gateways: [ingress/public]\n",
)
