"""KM310: no sidecar where the routing rules, or the labels, need one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kubectl_mesh.mesh.injection import (
    PROXY,
    is_ambient,
    is_gateway,
    namespace_wants_sidecars,
    wants_sidecar,
)
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, undecided


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    yield from _pods_without(snapshot)
    yield from _namespaces_without(snapshot)


def _pods_without(snapshot: Snapshot) -> Iterator[Finding]:
    """Running pods that were made before a sidecar was asked for, by what made them."""
    found: dict[Workload, list[Workload]] = defaultdict(list)
    for pod in snapshot.workloads.all:
        if (
            pod.resource.kind == "Pod"
            and pod.resource.data.get("status")
            and not pod.pod_spec.get("hostNetwork")
            and not snapshot.is_system(pod.namespace)
            and snapshot.has_sidecar(pod) is False
            and wants_sidecar(pod, snapshot.namespace_labels(pod.namespace))
        ):
            found[snapshot.workloads.maker(pod)].append(pod)
    for maker, pods in found.items():
        resource = maker.resource
        names = ", ".join(pod.resource.name for pod in pods[:5]) + (" ..." if pods[5:] else "")
        who = f"{len(pods)} of the running pods of {maker}"
        cure = (
            f"kubectl -n {maker.namespace} rollout restart {resource.kind.lower()}/{resource.name}"
        )
        if maker is pods[0]:
            who, cure = f"{maker}", "delete the pod and create it anew"
        yield RULE.finding(
            resource,
            (),
            f"no {PROXY} container in {who}, although labels ask for one",
            traffic="requests that they send meet no routing rule and carry no mTLS",
            next=f"{cure}: a sidecar is added when a pod is created",
            evidence=(f"without sidecar: {names}",),
        )


def _namespaces_without(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    """Namespaces with mesh rules that no proxy applies, if all namespaces were looked at."""
    if snapshot.coverage.namespaces is not None or any(
        snapshot.is_client(workload) is not False for workload in snapshot.workloads.all
    ):
        return
    bound: dict[str, list[str]] = defaultdict(list)
    for vs in snapshot.virtual_services.roots:
        if vs.on_mesh:
            bound[vs.namespace].append(vs.resource.name)
    for namespace in snapshot.of("Namespace"):
        names = bound.get(namespace.name)
        applications = [
            workload
            for workload in snapshot.workloads.by_namespace.get(namespace.name, ())
            if not is_gateway(workload)
        ]
        if not names or not applications or snapshot.unknown_workloads(namespace.name):
            continue
        if namespace_wants_sidecars(namespace.labels) or any(
            is_ambient(workload, namespace.labels) for workload in applications
        ):
            continue
        if skip := undecided(snapshot, "whether any client has a sidecar", None):
            yield skip
            continue
        shown = ", ".join(names[:3]) + (" ..." if names[3:] else "")
        yield RULE.finding(
            namespace,
            ("metadata", "labels"),
            f"no workload of namespace {namespace.name}, nor any other that is known, has a "
            f"sidecar, but VirtualService {shown} has rules for requests inside the mesh",
            traffic="the client's sidecar applies the rules: without one they have no effect",
            next=f"kubectl label namespace {namespace.name} istio-injection=enabled, "
            "then restart the workloads",
        )


RULE = Rule(
    code="KM310",
    name="sidecar-missing",
    severity=Severity.WARNING,
    summary="No sidecar where the routing rules, or the labels, need one.",
    explanation="""\
Routing rules of the mesh are applied by the sidecar of the **client**. Two ways to have none:

A sidecar is added when a pod is **created**. Pods that were running when the namespace or the
workload was labelled have none until they are restarted. Only pods that were read from a cluster
are judged, each with its own labels, and reported once for the workload that made them.

A namespace that is not labelled for injection has VirtualServices for the mesh, and no workload
that is known, in any namespace, has or may get a sidecar: nobody applies the rules. Said only where
the Namespace itself is in the input. Namespaces in ambient mode do not count.""",
    fix="""\
Label the namespace (`istio-injection=enabled`, or `istio.io/rev=<revision>`), and restart its
workloads: `kubectl rollout restart deployment -n <namespace>`.""",
    reference="https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/",
    needs=("Namespace",),
    uses=(
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "Service",
        *WORKLOAD_KINDS,
        KUBERNETES_GATEWAY,
    ),
    equivalents=("IST0102", "IST0103"),
    check=check,
    bad="""\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - timeout: 3s
    route:
    - destination: {host: reviews}
""",
    good="""\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - timeout: 3s
    route:
    - destination: {host: reviews}
""",
)
