"""KM203: a gateway's route chooses a subset, while calls from inside the mesh have none."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination, VirtualService
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.proof.missed_rules import (
    GatewayRule,
    Share,
    absent_gateways,
    gateway_rules,
    pods_of,
    rules_met_at_waypoint,
    select,
    service_namespace,
    unread_rule,
)
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.rules import Rule as HttpRule
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    seen: set[tuple[VirtualService, str]] = set()
    on_mesh_for = snapshot.virtual_services.on_mesh_for
    for way_in in gateway_rules(snapshot):
        for to in way_in.rule.routes:
            if not to.subset or (way_in.root, to.host) in seen:
                continue
            seen.add((way_in.root, to.host))
            if any(_decides(snapshot, vs, to.host) for vs in on_mesh_for(to.host)):
                continue
            if rules_met_at_waypoint(snapshot, to.host):
                continue
            selection = select(snapshot, to.host, to.subset, way_in.root.namespace)
            if selection.share is Share.UNKNOWN and selection.siblings:
                namespace = service_namespace(snapshot, to.host)
                reason = snapshot.unknown_workloads(namespace) if namespace else None
                if reason:
                    yield Skip(reason)
            caller = _caller(snapshot, to.host)
            if selection.share is Share.SOME and caller:
                if why := unread_rule(snapshot, to.host):
                    yield Skip(why, beyond=True)
                    continue
                yield _finding(snapshot, way_in, to, selection.why, caller)


def _decides(snapshot: Snapshot, vs: VirtualService, host: str) -> bool:
    """Whether any rule for the mesh of a VirtualService says which version of a host is called."""
    return any(
        _holds_inside(rule)
        and (not rule.routes or any(to.subset or to.host != host for to in rule.routes))
        for rule in router_of(snapshot).rules(vs)
    )


def _holds_inside(rule: HttpRule) -> bool:
    """Whether a rule of a VirtualService on the mesh can hold there."""
    return rule.matches is None or any(
        not match.gateways or MESH in match.gateways for match in rule.matches
    )


def _caller(snapshot: Snapshot, host: str) -> Workload | None:
    """A workload whose sidecar would apply rules to calls for a host; None if there is none."""
    own = frozenset(pods_of(snapshot, host))
    return next(
        (
            workload
            for workload in snapshot.workloads.all
            if workload not in own and snapshot.is_client(workload) is not False
        ),
        None,
    )


def _finding(
    snapshot: Snapshot, way_in: GatewayRule, to: Destination, why: str, caller: Workload
) -> Finding:
    gateways = ", ".join(way_in.gateways)
    return RULE.finding(
        to.virtual_service.resource,
        (*to.path, "subset"),
        f"{dotted(to.path)} chooses subset {to.subset} of {to.host} for requests from Gateway "
        f"{gateways}, and no VirtualService on the mesh chooses one",
        traffic=f"calls to {to.host} from inside the mesh, if there are any, are balanced over all "
        "its versions",
        next="nothing, if only requests from outside are to be steered; else add a VirtualService "
        f"for {to.host} on mesh with the same subsets",
        evidence=(
            why,
            f"{caller} could call it",
            *absent_gateways(snapshot, way_in.root, way_in.gateways),
        ),
    )


_SHARED = """\
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v1}
spec:
  selector: {matchLabels: {app: hello, version: v1}}
  template:
    metadata: {labels: {app: hello, version: v1}}
    spec:
      containers: [{name: hello, image: hello:1, ports: [{containerPort: 8080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v2}
spec:
  selector: {matchLabels: {app: hello, version: v2}}
  template:
    metadata: {labels: {app: hello, version: v2}}
    spec:
      containers: [{name: hello, image: hello:2, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop, version: v1}}
    spec:
      containers: [{name: shop, image: shop:1, ports: [{containerPort: 8080}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hello}
spec:
  host: hello
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
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
metadata: {name: hello-public}
spec:
  hosts: [hello.example.com]
  gateways: [public]
  http:
  - route:
    - destination: {host: hello, subset: v1}
"""

RULE = Rule(
    code="KM203",
    name="mesh-route-without-subset",
    severity=Severity.INFO,
    summary="A gateway's route chooses a subset, and no rule for the mesh does.",
    explanation="""\
The reverse of KM201: the VirtualService bound to a gateway keeps requests from outside on one
version, and calls from inside the mesh to the same service, which never meet its rules, are
balanced over all versions. That is right where only outside users take part in a trial, and a
surprise where a version was to be kept back altogether.

Told once for a VirtualService and host, and only where pods outside of the subset are known, some
other workload could be a caller (it has a sidecar, or may have one), and no VirtualService on the
mesh for the host chooses a subset, another host, or an answer of its own. Read for http rules.""",
    fix="""\
Add a VirtualService for the host on the mesh with the same subsets, or bind one VirtualService,
with the hosts of both, to `mesh` and to the gateway.""",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#route-rules-have-no-effect-on-ingress-gateway-requests",
    needs=("VirtualService", "DestinationRule"),
    uses=(
        "Gateway",
        "Service",
        "ServiceEntry",
        "Namespace",
        *unread.KINDS,
        *WORKLOAD_KINDS,
    ),
    check=check,
    bad=_SHARED,
    good=_SHARED
    + """\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello]
  http:
  - route:
    - destination: {host: hello, subset: v1}
""",
)
