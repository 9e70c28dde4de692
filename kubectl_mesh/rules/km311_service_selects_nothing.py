"""KM311: a Service's selector selects no pod."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, undecided


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for service in snapshot.registry.services:
        selector = service.selector
        if not selector or snapshot.is_system(service.namespace) or snapshot.pods_of(service):
            continue
        if any(snapshot.workload_entries(service.namespace, selector)):
            continue
        unknown = snapshot.unknown_workloads(service.namespace)
        yield undecided(snapshot, "whether Services select pods", unknown) or _finding(
            snapshot, service
        )


def _finding(snapshot: Snapshot, service: Service) -> Finding:
    selector = service.selector
    wanted = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    routes = snapshot.virtual_services.by_destination_host.get(service.host, ())
    users = list(dict.fromkeys(found.virtual_service.resource for found in routes))
    return RULE.finding(
        service.resource,
        ("spec", "selector"),
        f"{service.resource} selects {wanted}, which no pod of namespace {service.namespace} has"
        f"{_hint(snapshot, service)}",
        traffic=_traffic(service, routes),
        next="correct the selector or the labels of the pod template, or delete the Service",
        severity=Severity.ERROR if users else Severity.WARNING,
        evidence=tuple(f"{user} routes to it" for user in users),
        related=tuple(user.id for user in users),
    )


def _traffic(service: Service, routes: tuple[Destination, ...]) -> str:
    traffic = "requests to it get 503 (response flag UH: no healthy upstream)"
    if not any(port.takes_http_routes for port in service.ports):
        traffic = "connections to it are closed at once"
    if routes and all(route.role == "mirror" for route in routes):
        return f"{traffic}; the copies that are mirrored to it are lost"
    return traffic


def _hint(snapshot: Snapshot, service: Service) -> str:
    """A workload that has all labels of the selector but one, if there are two or more."""
    selector = service.selector
    for key, value in sorted(selector.items()) if len(selector) > 1 else ():
        rest = {other: wanted for other, wanted in selector.items() if other != key}
        for workload in snapshot.workloads.select(service.namespace, rest)[:1]:
            if workload.gets(key):
                continue
            found = workload.labels.get(key)
            return (
                f" ({workload} has {f'{key}={found}' if found else f'no {key}'} for {key}={value})"
            )
    return ""


RULE = Rule(
    code="KM311",
    name="service-selects-nothing",
    severity=Severity.WARNING,
    summary="A Service's selector selects no pod.",
    explanation="""\
A Service without endpoints answers nobody: a sidecar or gateway that routes to it returns **503**
with the response flag `UH`. An **error** where a VirtualService routes to the Service.

A selector is compared with the pods and the pod templates of every kind of workload in the
Service's namespace, so a workload that is scaled to zero or still rolling out counts. With
manifests alone the rule speaks only where the input holds at least one workload of the namespace,
and in a mesh of several clusters it cannot decide: the pods may be in another one.
Silent for Services without selector, whose endpoints somebody else writes, for ExternalName
Services, and for namespaces of Kubernetes and of Istio.""",
    fix="Let the selector and the labels of the pod template agree.",
    reference="https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/"
    "#does-the-service-have-any-endpointslices",
    needs=("Service",),
    uses=(
        "VirtualService",
        "DestinationRule",
        "ServiceEntry",
        "WorkloadEntry",
        "Gateway",
        "Namespace",
        *WORKLOAD_KINDS,
        KUBERNETES_GATEWAY,
    ),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: review}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
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
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
)
