"""KM302: a port's name and its appProtocol name different protocols."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.ports import family, parse
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.ports import NAME_IS_REFERRED_TO, http_rules_for, renamed

REFINEMENTS = frozenset((("http", "http2"), ("tcp", "tls")))
"""Families of name and appProtocol where the second only says more exactly what the first says."""


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for service in snapshot.registry.services:
        for port in service.ports:
            data = service.resource.spec["ports"][port.path[-1]]
            named, stated = parse(port.name), parse(data.get("appProtocol") or "")
            if not named or not stated or port.protocol != stated:
                continue
            families = (family(named), family(stated))
            if families[0] != families[1] and families not in REFINEMENTS:
                yield _finding(snapshot, service, port, named, stated)


def _finding(snapshot: Snapshot, service: Service, port: Port, named: str, stated: str) -> Finding:
    rules = [] if port.takes_http_routes else http_rules_for(snapshot, service.host)
    if not port.takes_http_routes:
        traffic = f"connections are passed on as {stated}: no http rule applies to them"
        if rules:
            traffic += f", those of {', '.join(str(vs.resource) for vs in rules)} neither"
    elif family(named) == "http2":
        traffic = "proxies send HTTP/1.1 to the pods, which gRPC does not survive"
    else:
        traffic = f"proxies expect {stated} of clients; connections that speak {named} fail"
    name = renamed(service, port, stated)
    return RULE.finding(
        service.resource,
        (*port.path, "appProtocol"),
        f"port {port} of Service {service.namespace}/{service.resource.name} is {named} by its "
        f"name and {stated} by its appProtocol; appProtocol counts",
        traffic=traffic,
        next=f"if it speaks {named}, set appProtocol: {named}; if {stated}, rename the port",
        related=tuple(vs.resource.id for vs in rules),
        repairs=(
            Repair(
                named,
                f"declare port {port} of {service.resource} to be {named}, as its name says",
                (Edit(service.resource, (*port.path, "appProtocol"), named),),
                unsafe=f"what is {stated} and not {named} no longer gets through",
            ),
            Repair(
                stated,
                f"rename port {port} of {service.resource} to {name}",
                (Edit(service.resource, (*port.path, "name"), name),),
                unsafe=NAME_IS_REFERRED_TO,
            ),
        ),
    )


RULE = Rule(
    code="KM302",
    name="port-name-and-app-protocol-disagree",
    severity=Severity.WARNING,
    summary="A port's name and its appProtocol name different protocols.",
    explanation="""\
Where a port has an `appProtocol`, Istio does not look at its name. A port `http-api` with
`appProtocol: tcp` is TCP: http rules, retries, timeouts and subsets of a VirtualService have no
effect on it, although its name says that they should. A port `grpc` with `appProtocol: http` gets
HTTP/1.1.

Silent where `appProtocol` says the same more exactly: `http` with `kubernetes.io/h2c` or `grpc`,
`tcp` with `mysql` or `tls`. An `appProtocol` that Istio does not know is KM301.""",
    fix="Let both say what the application speaks.",
    reference="https://istio.io/latest/docs/ops/configuration/traffic-management/"
    "protocol-selection/#explicit-protocol-selection",
    needs=("Service",),
    uses=("ServiceEntry", "VirtualService"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, appProtocol: tcp, port: 9080}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, appProtocol: http, port: 9080}]
""",
)
