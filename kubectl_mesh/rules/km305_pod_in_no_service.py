"""KM305: pods with a sidecar that no Service selects."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.injection import PROXY, is_gateway
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip

BATCH = frozenset(("Job", "CronJob"))


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    selected = {snapshot.workloads.maker(workload) for workload in snapshot.groups_by_workload}
    for workload in snapshot.workloads.owners:
        if (
            workload.resource.kind in BATCH
            or workload in selected
            or snapshot.canaries.of_target(workload.resource)
            or snapshot.is_system(workload.namespace)
            or is_gateway(workload)
            or not snapshot.has_sidecar(workload)
        ):
            continue
        reason = snapshot.unknown(workload.namespace, "Service")
        if reason and (
            snapshot.coverage.live or snapshot.namespace_labels(workload.namespace) is None
        ):
            yield Skip(f"whether a Service selects {workload}: {reason}")
            continue
        labels = ",".join(f"{key}={value}" for key, value in sorted(workload.labels.items()))
        serves = any(name != PROXY for name in _serving(workload))
        yield RULE.finding(
            workload.resource,
            (*workload.template_path, "metadata", "labels"),
            f"no Service of namespace {workload.namespace} selects {workload.pods} "
            f"(labels: {labels or 'none'})",
            traffic="requests that they send are routed by the rules; but no route leads to them, "
            "and what is sent to a pod's own address is passed on without any HTTP rule or policy",
            next="create a Service for them, headless if nothing calls them, or correct the labels",
            severity=Severity.WARNING if serves else Severity.INFO,
        )


def _serving(workload: Workload) -> Iterator[str]:
    """The containers that declare a port."""
    for _, container in workload.containers:
        if container.get("ports"):
            yield container.get("name") or ""


RULE = Rule(
    code="KM305",
    name="pod-in-no-service",
    severity=Severity.WARNING,
    summary="Pods with a sidecar that no Service selects.",
    explanation="""\
Istio knows the ports of a pod, and their protocols, from the Services that select it. Pods that no
Service selects can call others by the rules of the mesh, but no route leads to them, no subset
contains them, and their proxy treats what reaches them as unknown. Often a label was misspelt. A
**warning** where a container declares a port; a pure client, which declares none, is for
information only.

Said of pods that certainly have or get a sidecar, where the Services of their namespace are known:
with manifests alone, where the input holds one of them, or the Namespace itself. Jobs, CronJobs,
gateways and namespaces of Kubernetes and of Istio do not count; a ServiceEntry with a
workloadSelector counts as a Service, and so does what Flagger makes for the target of a Canary.""",
    fix="Create a Service whose selector the pods' labels meet.",
    reference="https://istio.io/latest/docs/ops/deployment/application-requirements/",
    needs=("Service",),
    uses=("ServiceEntry", "Namespace", "Canary", *WORKLOAD_KINDS),
    equivalents=("IST0117",),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec:
  selector: {app: ratings}
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Pod
metadata: {name: ratings, labels: {app: ratings}}
spec:
  containers: [{name: ratings, ports: [{containerPort: 9080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, sidecar.istio.io/inject: "true"}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, sidecar.istio.io/inject: "true"}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
)
