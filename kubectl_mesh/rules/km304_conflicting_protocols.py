"""KM304: Services give one port of the same pods different protocols."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import islice

from kubectl_mesh.mesh.ports import family
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.snapshot import PodGroup, Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity

Use = tuple[Service, Port]
UNJUDGED = frozenset(("udp", "sniffed"))


def check(snapshot: Snapshot) -> Iterator[Finding]:
    uses_of = cache(_uses)
    alike: dict[tuple[object, ...], list[Workload]] = defaultdict(list)
    for workload in snapshot.workloads.owners:
        groups = snapshot.groups_by_workload.get(workload, ())
        if uses_of(groups) and snapshot.is_client(workload) is not False:
            alike[groups, tuple(workload.declared_ports)].append(workload)
    clashes: dict[tuple[Use, Use], list[tuple[list[Workload], int]]] = defaultdict(list)
    for workloads in alike.values():
        counting: dict[int, Use] = {}
        for service, port in uses_of(snapshot.groups_by_workload[workloads[0]]):
            target = workloads[0].target_port(port.target)
            if target is None:
                continue
            first = counting.setdefault(target, (service, port))
            if _kind(first[1]) != _kind(port):
                clashes[first, (service, port)].append((workloads, target))
    for (first, second), places in clashes.items():
        yield _finding(first, second, places)


def _uses(groups: tuple[PodGroup, ...]) -> list[Use]:
    """What may clash in pods that are in all of `groups`, the ports of the oldest Service first."""
    services = [service for group in groups for service in group.services]
    uses = [
        (service, port)
        for service in sorted(services, key=_age)
        for port in service.ports
        if _kind(port) not in UNJUDGED
    ]
    return uses if len({_kind(port) for _, port in uses}) > 1 else []


def _age(service: Service) -> tuple[str, str]:
    """Sorts as `SetServiceTargets` of istiod: the oldest first, then by host."""
    return (str(service.resource.metadata.get("creationTimestamp") or "~"), service.host)


def _kind(port: Port) -> str:
    """What a pod's own proxy tells apart: to it, TLS that is passed on is TCP."""
    found = family(port.protocol)
    return "tcp" if found == "tls" else found


def _finding(first: Use, second: Use, places: list[tuple[list[Workload], int]]) -> Finding:
    (service, port), (other, losing) = first, second
    (workload, *_), target = places[0]
    count = sum(len(workloads) for workloads, _ in places)
    others = f" and {count - 1} more" if count > 1 else ""
    shown = islice((found.resource.id for workloads, _ in places for found in workloads), LISTED)
    there = "the same Service" if other is service else str(service.resource)
    born = [each.resource.metadata.get("creationTimestamp") for each in (service, other)]
    which = "if it is created first, or with the other"
    if other is service:
        which = "which stands first"
    elif born[0]:
        which = "which comes first by name" if born[0] == born[1] else "which is the older"
    kinds = (_kind(port), _kind(losing))
    if kinds[0] == "tcp":
        effect = (
            "requests reach the pods as plain TCP, without HTTP telemetry, and any "
            "AuthorizationPolicy for paths, methods or headers refuses all of them"
        )
    elif kinds[1] == "tcp":
        effect = "connections that are not HTTP are refused by the pods' own proxies"
    else:
        version, lost = ("HTTP/1.1", "gRPC") if kinds[0] == "http" else ("HTTP/2", "HTTP/1.1")
        effect = f"the application gets {version} in any case; if it speaks {lost}, requests fail"
    return RULE.finding(
        other.resource,
        losing.path,
        f"port {losing} of {other.resource} leads to port {target} of {workload.pods}{others} as "
        f"{losing.protocol}, port {port} of {there} as {port.protocol}",
        traffic="a pod's proxy takes a port for one protocol only, "
        f"that of port {port} of {there}, {which}: {effect}",
        next="give the port the same protocol in both, by name or appProtocol",
        related=tuple(dict.fromkeys((service.resource.id, *shown))),
    )


RULE = Rule(
    code="KM304",
    name="conflicting-protocols",
    severity=Severity.WARNING,
    summary="Services give one port of the same pods different protocols.",
    explanation="""\
The proxy beside an application listens once for each port of the pod. Where several Services select
the pod and lead to the same port with different protocols, the oldest Service counts, and at equal
age the first by name. Which that is, nobody thinks of, and it changes when a Service is created
anew: then requests arrive as plain TCP, without telemetry and refused by each AuthorizationPolicy
for paths, methods or headers; or connections that are not HTTP are refused; or gRPC arrives as
HTTP/1.1.

Pods are found through any kind of workload, and named target ports are resolved on each. Silent
where both protocols are alike to a proxy (`tcp` and `mysql`, `http` twice in a headless and a
normal Service), for ports without a protocol (KM301) and for pods without a sidecar.""",
    fix="Give the port the same protocol in all Services that lead to it.",
    reference="https://istio.io/latest/docs/ops/deployment/application-requirements/",
    needs=("Service",),
    uses=("ServiceEntry", "Namespace", *WORKLOAD_KINDS),
    equivalents=("IST0116",),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews-metrics}
spec:
  selector: {app: reviews}
  ports: [{name: tcp-metrics, port: 9100, targetPort: 9080}]
---
apiVersion: apps/v1
kind: StatefulSet
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
apiVersion: v1
kind: Service
metadata: {name: reviews-metrics}
spec:
  selector: {app: reviews}
  ports: [{name: http-metrics, port: 9100, targetPort: 9080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
)
