"""KM501: istio-citadel makes Envoys restart, and headless TCP Services lose connections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import ABSENT, Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.repair import ACCEPT_MTLS_OFF, Edit, Repair, Then
from kubectl_mesh.rules.rule import Finding, Rule, Severity

_CITADEL = "istio-citadel"
_NODE_AGENT = "istio-nodeagent"
_AUTH_POLICY = re.compile(r"^( *authPolicy: *)[\"']?MUTUAL_TLS[\"']?", re.MULTILINE)
_ANNOTATIONS = ("spec", "template", "metadata", "annotations")
_NOT_TCP = HTTP_PROTOCOLS | {"udp"}


def check(snapshot: Snapshot) -> Iterator[Finding]:
    citadel = _running_citadel(snapshot)
    if citadel is None or _has_istiod(snapshot) or _has_sds(snapshot):
        return
    mutual_tls = _mutual_tls(snapshot)
    for service in snapshot.registry.services:
        ports = [port for port in service.ports if port.protocol not in _NOT_TCP]
        if service.is_headless and ports:
            yield _finding(snapshot, citadel, service, ports, mutual_tls)


def _running_citadel(snapshot: Snapshot) -> Resource | None:
    for deployment in snapshot.of("Deployment"):
        is_citadel = deployment.name == _CITADEL or _is_labelled(deployment, "citadel")
        if is_citadel and deployment.spec.get("replicas") != 0:
            return deployment
    return None


def _is_labelled(resource: Resource, component: str) -> bool:
    return component in (resource.labels.get("istio"), resource.labels.get("app"))


def _has_istiod(snapshot: Snapshot) -> bool:
    return any(
        resource.name == "istiod" or resource.labels.get("app") == "istiod"
        for kind in ("Deployment", "Pod")
        for resource in snapshot.of(kind)
    )


def _has_sds(snapshot: Snapshot) -> bool:
    """Whether Envoy gets its certificates by the secret discovery service, without a restart."""
    return bool(snapshot.config.sds_uds_path) or any(
        daemon_set.name == _NODE_AGENT or _is_labelled(daemon_set, "nodeagent")
        for daemon_set in snapshot.of("DaemonSet")
    )


def _mutual_tls(snapshot: Snapshot) -> tuple[tuple[str, ResourceId | None], ...] | None:
    """What turns mTLS on for the whole mesh, as texts with their objects; None if unknown."""
    config_map = next(
        (
            resource
            for resource in snapshot.of("ConfigMap")
            if resource.name == "istio" and resource.namespace == snapshot.config.root_namespace
        ),
        None,
    )
    found: list[tuple[str, ResourceId | None]] = []
    policy = snapshot.get("MeshPolicy", "", "default")
    if policy and any("mtls" in peer for peer in policy.spec.get("peers") or ()):
        found.append((f"{policy} has an mtls peer", policy.id))
    if snapshot.config.auth_policy == "MUTUAL_TLS":
        where = str(config_map) if config_map else "the MeshConfig"
        found.append((f"{where} has authPolicy: MUTUAL_TLS", config_map.id if config_map else None))
    if not found and config_map is None and not snapshot.config.auth_policy:
        return None
    return tuple(found)


def _repairs(
    snapshot: Snapshot,
    citadel: Resource,
    mutual_tls: tuple[tuple[str, ResourceId | None], ...] | None,
) -> Iterator[Repair]:
    """mTLS off, pilot restarted, citadel scaled to 0, where all that has a part in it is seen."""
    stopped = Edit(citadel, ("spec", "replicas"), 0)
    if mutual_tls == ():
        yield Repair("scale-citadel", f"scale {citadel} to 0", (stopped,))
        return
    pilot = _pilot(snapshot, citadel)
    turned_off = list(_turned_off(snapshot, mutual_tls or ()))
    if not turned_off or None in turned_off or (pilot is None and snapshot.coverage.live):
        return
    edits = [edit for edit in turned_off if edit]
    off = f"turn mTLS off in {' and '.join(str(edit.resource) for edit in edits)}"
    affects: tuple[str, ...] = ()
    if pilot:
        restarted = (*_ANNOTATIONS, "mesh.kubectl.dev/mtls")
        edits.append(Edit(pilot, restarted, "off", then=Then.ROLLED_OUT))
        off += ", restart istio-pilot"
    else:
        affects = (
            f"istio-pilot is not in the input: restart it before {citadel} is scaled to 0, with "
            f"kubectl -n {citadel.namespace} rollout restart deployment/istio-pilot",
        )
    yield Repair(
        "mtls-off",
        f"{off}, scale {citadel} to 0",
        (*edits, stopped),
        unsafe="all pods of the mesh talk to each other in plain text: whoever can listen on "
        "the network reads it, and AuthorizationPolicies for principals no longer hold",
        flag=ACCEPT_MTLS_OFF,
        affects=affects,
    )


def _pilot(snapshot: Snapshot, citadel: Resource) -> Resource | None:
    return snapshot.get("Deployment", citadel.namespace, "istio-pilot")


def _turned_off(
    snapshot: Snapshot, mutual_tls: Iterable[tuple[str, ResourceId | None]]
) -> Iterator[Edit | None]:
    """What takes away each thing that turns mTLS on; None for what cannot be edited."""
    for _, related in mutual_tls:
        found = snapshot.get(related.kind, related.namespace, related.name) if related else None
        if found is None:
            yield None
        elif found.kind == "MeshPolicy":
            yield None if _clients_demand_mtls(snapshot) else Edit(found, (), ABSENT)
        else:
            text = str((found.data.get("data") or {}).get("mesh") or "")
            off, count = _AUTH_POLICY.subn(r"\g<1>NONE", text)
            yield Edit(found, ("data", "mesh"), off) if count == 1 else None


def _clients_demand_mtls(snapshot: Snapshot) -> bool:
    """Whether a DestinationRule has clients speak mTLS, to servers that would no longer."""
    return any("ISTIO_MUTUAL" in str(rule.spec) for rule in snapshot.of("DestinationRule"))


def _finding(
    snapshot: Snapshot,
    citadel: Resource,
    service: Service,
    ports: list[Port],
    mutual_tls: tuple[tuple[str, ResourceId | None], ...] | None,
) -> Finding:
    named = ", ".join(f"{port.number} ({port.name or 'unnamed'})" for port in ports)
    namespace = citadel.namespace
    end = f"kubectl -n {namespace} scale deployment/{citadel.name} --replicas=0"
    off = f"set authPolicy: NONE in the key `mesh` of ConfigMap {namespace}/istio"
    evidence = [f"{citadel} runs (replicas: {citadel.spec.get('replicas') or 1})"]
    evidence += [text for text, _ in mutual_tls or ()]
    if mutual_tls is None:
        evidence.append(
            "the ConfigMap istio is not in the input: whether Envoys get certificates over SDS, "
            "without a restart, and whether mTLS is on cannot be seen"
        )
    elif any(related and related.kind == "MeshPolicy" for _, related in mutual_tls):
        off += " and delete MeshPolicy default"
        if _clients_demand_mtls(snapshot):
            off += ", and the tls mode ISTIO_MUTUAL of all DestinationRules before it"
    restart = f"kubectl -n {namespace} rollout restart deployment/istio-pilot"
    if snapshot.coverage.live and _pilot(snapshot, citadel) is None:
        restart = (
            f"restart pilot (there is no Deployment {namespace}/istio-pilot, so `fix` leaves all "
            "of this to you)"
        )
    cure = (
        f"{off}, then {restart}, then {end}, in this order; from then on pods talk to each other "
        "in plain text"
    )
    if mutual_tls == ():
        evidence.append("mTLS is off for the mesh")
        cure = end
    return RULE.finding(
        service.resource,
        ports[0].path,
        f"headless Service {service.resource.namespace}/{service.resource.name} has TCP "
        f"{'ports' if len(ports) > 1 else 'port'} {named} in a mesh where {citadel} hands out "
        "certificates",
        traffic=("unless they use SDS, " if mutual_tls is None else "")
        + "Envoys restart to load each new certificate, every 15 minutes, and long connections to "
        "the pods of this Service are cut",
        next=f"{cure}. Istio 1.5 and later do not need this",
        severity=Severity.WARNING if mutual_tls is None else RULE.severity,
        evidence=tuple(evidence),
        related=(citadel.id, *(related for _, related in mutual_tls or () if related)),
        repairs=tuple(_repairs(snapshot, citadel, mutual_tls)),
    )


RULE = Rule(
    code="KM501",
    name="citadel-restarts-envoys",
    severity=Severity.ERROR,
    summary="istio-citadel makes Envoys restart, and a headless TCP Service loses its connections.",
    explanation="""\
Up to Istio 1.4 the Deployment `istio-citadel` writes certificates into Secrets that are mounted
into the pods. A sidecar can load a new one only by restarting Envoy, which happens every 15
minutes; the old Envoy ends soon after, with every connection that it still holds. HTTP clients
do not notice; the long TCP connections to a **headless Service** (databases, queues, clusters
that find their members by DNS) are cut.

The rule looks at headless Services (`clusterIP: None`) with a port that Istio takes for TCP:
declared `tcp`, `tls`, `https`, `mongo`, `mysql` or `redis`, or without a protocol in its name.
Envoys restart whether mTLS is on or off, as long as citadel runs; mTLS decides how to get rid of
it. It is on for the whole mesh by `authPolicy: MUTUAL_TLS` in the key `mesh` of the ConfigMap
`istio`, or by a MeshPolicy `default` with an `mtls` peer. The finding is a warning where the input
does not hold that ConfigMap, since Envoys may get their certificates in another way.

The rule does not apply, and stays silent, where

* an `istiod` runs (Istio 1.5 and later): it gives certificates to Envoy over SDS, without a
  restart, and an `istio-citadel` left beside it does nothing to them;
* Envoy gets them over SDS from the node agent (`istio-nodeagent`, or `sdsUdsPath` in the
  MeshConfig);
* `istio-citadel` is not there or is scaled to 0.""",
    fix="""\
The lasting cure is Istio 1.5 or later. Until then, in this order:

1. Turn mTLS off: `authPolicy: NONE` in the key `mesh` of the ConfigMap `istio`, and no
   MeshPolicy `default` with an `mtls` peer. DestinationRules with `tls.mode: ISTIO_MUTUAL` must
   go with it, or their clients fail.
2. Restart pilot, so that it reads this: `kubectl -n istio-system rollout restart
   deployment/istio-pilot`.
3. End citadel: `kubectl -n istio-system scale deployment/istio-citadel --replicas=0`.

In another order sidecars go on demanding mTLS with certificates that nobody renews. **Pods then
talk to each other in plain text, and a policy that asks who calls (ServiceRole,
source.principal) finds nobody**: do this only where the network itself is trusted.""",
    reference="https://istio.io/v1.1/help/ops/traffic-management/troubleshooting/"
    "#headless-tcp-services-losing-connection",
    needs=("Deployment", "Service"),
    uses=("ServiceEntry", "ConfigMap", "MeshPolicy", "DaemonSet", "Pod", "DestinationRule"),
    check=check,
    bad="""\
apiVersion: apps/v1
kind: Deployment
metadata: {name: istio-citadel, namespace: istio-system, labels: {app: citadel, istio: citadel}}
spec:
  replicas: 1
  selector: {matchLabels: {app: citadel}}
  template:
    metadata:
      labels: {app: citadel, version: "1.0"}
      annotations: {sidecar.istio.io/inject: "false"}
    spec:
      containers: [{name: citadel, image: "istio/citadel:1.0.9"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    authPolicy: MUTUAL_TLS
---
apiVersion: v1
kind: Service
metadata: {name: mysql, namespace: shop}
spec:
  clusterIP: None
  selector: {app: mysql}
  ports: [{name: tcp-mysql, port: 3306}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: mysql, namespace: shop}
spec:
  selector: {matchLabels: {app: mysql}}
  template:
    metadata: {labels: {app: mysql, version: v1}}
    spec:
      containers: [{name: mysql, image: "mysql:5.7", ports: [{containerPort: 3306}]}]
""",
    good="""\
apiVersion: apps/v1
kind: Deployment
metadata: {name: istio-citadel, namespace: istio-system, labels: {app: citadel, istio: citadel}}
spec:
  replicas: 0
  selector: {matchLabels: {app: citadel}}
  template:
    metadata:
      labels: {app: citadel, version: "1.0"}
      annotations: {sidecar.istio.io/inject: "false"}
    spec:
      containers: [{name: citadel, image: "istio/citadel:1.0.9"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    authPolicy: NONE
---
apiVersion: v1
kind: Service
metadata: {name: mysql, namespace: shop}
spec:
  clusterIP: None
  selector: {app: mysql}
  ports: [{name: tcp-mysql, port: 3306}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: mysql, namespace: shop}
spec:
  selector: {matchLabels: {app: mysql}}
  template:
    metadata: {labels: {app: mysql, version: v1}}
    spec:
      containers: [{name: mysql, image: "mysql:5.7", ports: [{containerPort: 3306}]}]
""",
)
