"""KM312: a destination without port, where the port that Istio takes instead does not exist."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.destinations import lost, ports_taken, providers


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for vs in snapshot.virtual_services.all:
        for destination in vs.destinations:
            if destination.port is None and not destination.idle:
                services = providers(snapshot, destination)
                if services:
                    yield from _check(snapshot, destination, services)


def _check(
    snapshot: Snapshot, destination: Destination, services: list[Service]
) -> Iterator[Finding | Skip]:
    for found in ports_taken(snapshot, destination, services):
        if isinstance(found, Skip):
            yield found
        elif found.missing:
            on_mesh = found.gateway == MESH
            where = "the port that was called" if on_mesh else f"that of Gateway {found.gateway}"
            severity = Severity.WARNING if found.some_work else Severity.ERROR
            yield _finding(destination, services, where, sorted(found.missing), severity)


def _finding(
    destination: Destination,
    services: list[Service],
    where: str,
    missing: list[int],
    severity: Severity,
) -> Finding:
    numbers = ", ".join(map(str, missing))
    ports = ", ".join(str(port) for service in services for port in service.ports)
    return RULE.finding(
        destination.virtual_service.resource,
        destination.path,
        f"{dotted(destination.path)} names no port of {destination.host}, so Istio takes {where}: "
        f"{numbers}, which the host does not have (it has {ports})",
        traffic=f"{'requests' if destination.protocol == 'http' else 'connections'} to port "
        f"{numbers} " + lost(destination),
        next=f"set {dotted((*destination.path, 'port', 'number'))} to the port that is meant",
        severity=severity,
        related=tuple(service.resource.id for service in services),
        repairs=tuple(
            _to_port(destination, port, some_work=severity is Severity.WARNING)
            for port in _meant(destination, services)
        ),
    )


def _meant(destination: Destination, services: list[Service]) -> list[Port]:
    """The ports of a destination that take what its rule is for, each number once."""
    http = destination.protocol == "http"
    found = {
        port.number: port
        for service in services
        for port in service.ports
        if port.protocol != "udp" and port.takes_http_routes == http
    }
    return list(found.values())


def _to_port(destination: Destination, port: Port, *, some_work: bool) -> Repair:
    path = (*destination.path, "port", "number")
    return Repair(
        str(port.number),
        f"send to port {port} of {destination.host}",
        (Edit(destination.virtual_service.resource, path, port.number),),
        unsafe=f"what reaches other ports of {destination.host} by this rule goes to this one"
        if some_work
        else "",
    )


RULE = Rule(
    code="KM312",
    name="destination-port-needed",
    severity=Severity.ERROR,
    summary="A destination without port, where the port that Istio takes instead does not exist.",
    explanation="""\
A destination may leave out its port. Istio then takes

- on a **gateway**: the host's port if it has just one, else the number of the Gateway's server;
- in a **sidecar**: for http rules always the port that the client addressed, even where the
  destination has just one; for tcp and tls rules as on a gateway.

If the host has no port of that number there is no cluster, and requests get **503** with `NC`. So a
host with ports 8080 and 9090 behind a Gateway on port 80 needs an explicit port, and so does a rule
of the mesh that sends requests for one Service to another with other ports.

A host with several ports is no fault where the port that is taken exists: a mesh rule for a host
that leads to the same host never needs one. A warning where only some of the ports that clients may
address are missing.""",
    fix="Set `destination.port.number`.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#Destination",
    needs=("VirtualService",),
    uses=("Service", "ServiceEntry", "Gateway"),
    equivalents=("IST0112",),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}, {name: http-admin, port: 9090}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [reviews.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.example.com]
  gateways: [front]
  http:
  - route:
    - destination: {host: reviews}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}, {name: http-admin, port: 9090}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [reviews.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.example.com]
  gateways: [front]
  http:
  - route:
    - destination: {host: reviews, port: {number: 9080}}
""",
)
