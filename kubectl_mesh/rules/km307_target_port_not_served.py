"""KM307: a Service leads to a port that the containers of its pods do not declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

from kubectl_mesh.mesh.injection import PROXY
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for group in snapshot.pod_groups:
        pods = [pod for pod in group.applications if pod.pod_spec.get("containers")]
        lacking = cache(partial(_lacking, pods))
        for service in group.services if pods else ():
            if service.is_kubernetes and not snapshot.is_system(service.namespace):
                for port in service.ports:
                    yield from _check(snapshot, service, port, pods, lacking)


def _lacking(pods: list[Workload], target: int | str, layer4: str) -> list[Workload]:
    """The pods without a port of that name; for a number, all of them if none may serve it."""
    if isinstance(target, str):
        return [pod for pod in pods if pod.target_port(target, layer4) is None]
    return [] if any(_may_serve(pod, target, layer4) for pod in pods) else pods


def _check(
    snapshot: Snapshot,
    service: Service,
    port: Port,
    pods: list[Workload],
    lacking: Callable[[int | str, str], list[Workload]],
) -> Iterator[Finding]:
    layer4 = service.resource.spec["ports"][port.path[-1]].get("protocol") or "TCP"
    target = port.target
    without = lacking(target, layer4)
    if isinstance(target, str):
        if without:
            nowhere = len(without) == len(pods) and not snapshot.elsewhere
            yield _named(service, port, target, without, nowhere=nowhere)
    elif without:
        yield _numbered(service, port, layer4, pods)


def _may_serve(pod: Workload, number: int, layer4: str) -> bool:
    """Whether a pod declares the port, or declares none, which says nothing."""
    declared = [
        (entry.get("containerPort"), entry.get("protocol") or "TCP")
        for _, container in pod.containers
        if container.get("name") != PROXY
        for entry in container.get("ports") or ()
    ]
    return not declared or (number, layer4) in declared


def _declared(pods: list[Workload]) -> str:
    found = dict.fromkeys(
        _with_protocol(number, layer4) + (f" ({name})" if name else "")
        for pod in pods
        for name, number, layer4 in pod.declared_ports
    )
    return ", ".join(found) or "none"


def _with_protocol(number: int | str, layer4: str) -> str:
    return str(number) if layer4 == "TCP" else f"{number}/{layer4}"


def _named(
    service: Service, port: Port, target: str, without: list[Workload], *, nowhere: bool
) -> Finding:
    who = f"no container of {without[0]}" + (
        f" {'or' if nowhere else 'and'} {len(without) - 1} more" if without[1:] else ""
    )
    if nowhere:
        traffic = "the port has no endpoint: requests get 503 (response flag UH)"
    else:
        traffic = "those pods are no endpoints of the port; the others take all of it"
    cure = f"name the container port {target}, or set targetPort to its number"
    if target.isdecimal():
        cure = f"write targetPort: {target} without quotes: as a string it is a port's name"
    return RULE.finding(
        service.resource,
        (*port.path, "targetPort"),
        f"port {port} of {service.resource} leads to the port named {target!r}, which {who} "
        f"declares (declared: {_declared(without)})",
        traffic=traffic,
        next=cure,
        severity=Severity.ERROR if nowhere else Severity.WARNING,
        related=tuple(pod.resource.id for pod in without[:LISTED]),
    )


def _numbered(service: Service, port: Port, layer4: str, pods: list[Workload]) -> Finding:
    explicit = port.target != port.number  # the API server writes it out where they are equal
    return RULE.finding(
        service.resource,
        (*port.path, "targetPort") if explicit else port.path,
        f"port {port} of {service.resource} leads to port {_with_protocol(port.target, layer4)} "
        f"of its pods, and no container of {pods[0]} declares it (declared: {_declared(pods)})",
        traffic="if nothing listens there, requests get 503 (response flag UF: connection "
        "refused); a container may serve a port that it does not declare",
        next=f"see what the application listens on: kubectl -n {service.namespace} exec "
        f"{pods[0].resource.kind.lower()}/{pods[0].resource.name} -- netstat -ltn; "
        "then correct targetPort or declare the port",
        severity=Severity.INFO,
        related=tuple(pod.resource.id for pod in pods[:LISTED]),
    )


RULE = Rule(
    code="KM307",
    name="target-port-not-served",
    severity=Severity.ERROR,
    summary="A Service leads to a port that the containers of its pods do not declare.",
    explanation="""\
A `targetPort` that is a **name** is looked up among the declared ports of each pod. A pod that
declares no such port is no endpoint of the Service's port; if none does, the port has no endpoints
at all, and every request gets **503** (`UH`). If some do, the others get no traffic (a warning).

A `targetPort` that is a **number**, or absent and so the same as `port`, is used as it is;
`containerPort` is only informational. So a number that no container declares, though they declare
others, is for information: it is a typing mistake, or an application that says too little.

Silent where the pods are not in the input or declare no ports, and for gateways.""",
    fix="Let `targetPort` name or number a port on which the application listens.",
    reference="https://kubernetes.io/docs/concepts/services-networking/service/#field-spec-ports",
    needs=("Service",),
    uses=(
        "ServiceEntry",
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "Namespace",
        *WORKLOAD_KINDS,
        KUBERNETES_GATEWAY,
    ),
    equivalents=("KIA0701",),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{name: http, containerPort: 9080}]}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{name: http, containerPort: 9080}]}]
""",
)
