"""KM309: pods in the host's network, which get no sidecar, where one is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.injection import INJECT, REVISION, is_gateway, wants_sidecar
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import Finding, Rule, Severity


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for workload in snapshot.workloads.owners:
        if (
            not workload.pod_spec.get("hostNetwork")
            or snapshot.is_system(workload.namespace)
            or is_gateway(workload)
            or snapshot.has_sidecar(workload)
            or not wants_sidecar(workload, snapshot.namespace_labels(workload.namespace))
        ):
            continue
        labels = {*workload.labels, *workload.annotations}
        itself = not labels.isdisjoint((INJECT, REVISION))
        asking = "their own labels ask" if itself else "their namespace asks"
        yield RULE.finding(
            workload.resource,
            (*workload.template_path, "spec", "hostNetwork"),
            f"no sidecar is added to {workload.pods}, as they use the host's network, although "
            f"{asking} for one",
            traffic="requests that the pods send meet no routing rule and carry no mTLS; "
            "others reach them without mTLS or policies",
            next=f"drop hostNetwork, or say that it is meant so: label the pods {INJECT}=false",
            severity=Severity.WARNING
            if itself or _has_rules(snapshot, workload)
            else Severity.INFO,
        )


def _has_rules(snapshot: Snapshot, workload: Workload) -> bool:
    """Whether a VirtualService or DestinationRule is for a Service that selects the pods."""
    return any(
        service.host in snapshot.virtual_services.on_mesh_by_host
        or service.host in snapshot.virtual_services.by_destination_host
        or any(
            rule.host == service.host for rule in snapshot.destination_rules.covering(service.host)
        )
        for group in snapshot.groups_by_workload.get(workload, ())
        for service in group.services
    )


RULE = Rule(
    code="KM309",
    name="host-network",
    severity=Severity.WARNING,
    summary="Pods in the host's network, which get no sidecar, where one is asked for.",
    explanation="""\
Istio does not inject a sidecar into pods with `hostNetwork: true`: leading their traffic into it
would lead the traffic of the whole node into it. Whatever such pods send is not routed by the rules
of the mesh.

A warning where the pod's own labels ask for a sidecar, or a VirtualService or DestinationRule is
for a Service that selects the pods; else for information. Silent where nothing asks for a sidecar
or the Namespace is not in the input.""",
    fix='Drop `hostNetwork`, or label the pods `sidecar.istio.io/inject: "false"`.',
    reference="https://istio.io/latest/docs/ops/common-problems/injection/",
    needs=(),
    uses=(
        "Namespace",
        "Service",
        "ServiceEntry",
        "VirtualService",
        "DestinationRule",
        *WORKLOAD_KINDS,
    ),
    check=check,
    bad="""\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent, sidecar.istio.io/inject: "true"}}
    spec:
      hostNetwork: true
      containers: [{name: agent}]
""",
    good="""\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent, sidecar.istio.io/inject: "false"}}
    spec:
      hostNetwork: true
      containers: [{name: agent}]
""",
)
