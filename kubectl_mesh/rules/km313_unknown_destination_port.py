"""KM313: a destination names a port that its host does not have."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.destinations import lost, providers


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for vs in snapshot.virtual_services.all:
        for destination in vs.destinations:
            if destination.port is None or destination.idle:
                continue
            services = providers(snapshot, destination)
            ports = [port for service in services for port in service.ports]
            usable = [port for port in ports if port.protocol != "udp"]
            if not ports or any(port.number == destination.port for port in usable):
                continue
            udp = any(port.number == destination.port for port in ports)
            hint = next(
                (
                    f"; it is the targetPort of port {port}: write {port.number}"
                    for port in usable
                    if port.target == destination.port
                ),
                "",
            )
            path = (*destination.path, "port", "number")
            yield RULE.finding(
                vs.resource,
                path,
                f"{dotted(path)} is {destination.port}, which "
                f"{'is a UDP port' if udp else 'is no port'} of {destination.host} "
                f"(it has {', '.join(map(str, ports))}){hint}",
                traffic=f"{'requests' if destination.protocol == 'http' else 'connections'} that "
                f"meet this rule {lost(destination)}",
                next=f"name a port of {services[0].resource}, or add this one to it first",
                related=tuple(service.resource.id for service in services),
            )


RULE = Rule(
    code="KM313",
    name="unknown-destination-port",
    severity=Severity.ERROR,
    summary="A destination names a port that its host does not have.",
    explanation="""\
A destination's port is a port of the **Service** (or ServiceEntry), not of its pods: for a Service
with `port: 80, targetPort: 8080` it is 80. For another number there is no cluster, and requests get
**503** with the response flag `NC`; copies for a mirror are lost. UDP ports cannot be routed to.

Silent where nothing provides the host (KM103), and for ExternalName Services.""",
    fix="Write the Service's port.",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#Destination",
    needs=("VirtualService",),
    uses=("Service", "ServiceEntry"),
    equivalents=("IST0101",),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, port: {number: 9080}}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, port: {number: 80}}
""",
)
