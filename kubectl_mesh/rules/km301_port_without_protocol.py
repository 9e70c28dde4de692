"""KM301: a Service's port names no protocol, so that proxies have to guess it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from kubectl_mesh.mesh.ports import PROTOCOLS, SNIFFED, parse
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.snapshot import PodGroup, Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.ports import declared, http_rules_for

GATEWAY_STATUS_PORT = 15021
MANAGED_GATEWAY = "gateway.istio.io/managed"


def check(snapshot: Snapshot) -> Iterator[Finding]:
    @cache
    def has_sidecars(group: PodGroup) -> bool:
        return not group.workloads or any(
            snapshot.has_sidecar(pod) is not False for pod in group.applications
        )

    for service in snapshot.registry.services:
        if (
            service.is_external_name
            or snapshot.is_system(service.namespace)
            or MANAGED_GATEWAY in service.resource.labels
            or snapshot.gateways.configure(service.selector)
        ):
            continue
        sniffed = [
            port
            for port in service.ports
            if port.protocol == SNIFFED and port.number != GATEWAY_STATUS_PORT
        ]
        if not sniffed:
            continue
        group = snapshot.group_of(service)
        if _is_named(snapshot, service.host) or group is None or has_sidecars(group):
            rules = http_rules_for(snapshot, service.host)
            for port in sniffed:
                yield _finding(service, port, rules)


def _is_named(snapshot: Snapshot, host: str) -> bool:
    """Whether a VirtualService or a DestinationRule is for a host, and no wildcard."""
    return (
        host in snapshot.virtual_services.on_mesh_by_host
        or host in snapshot.virtual_services.by_destination_host
        or any(rule.host == host for rule in snapshot.destination_rules.covering(host))
    )


def _finding(service: Service, port: Port, rules: list[VirtualService]) -> Finding:
    data: Mapping[str, Any] = service.resource.spec["ports"][port.path[-1]]
    app_protocol = data.get("appProtocol")
    evidence = []
    path: Path = port.path
    if app_protocol is not None:
        path = (*path, "appProtocol")
        what = f"appProtocol {app_protocol!r} is no protocol that Istio knows"
        named = parse(port.name)
        cure = meant(app_protocol) or named or "http"
        if named:
            evidence.append(f"the name {port.name} says {named}, but appProtocol counts alone")
        cure = f"set appProtocol: {cure.partition('-')[0] if cure != 'grpc-web' else cure}"
    elif port.name:
        path = (*path, "name")
        what = f"the name {port.name!r} does not begin with a protocol"
        meaning = meant(port.name)
        if meaning:
            what += f" (did you mean {meaning}?)"
        cure = f"rename the port {meaning or f'http-{port.name}'}"
    else:
        what = "it has neither a name nor an appProtocol"
        cure = "name the port http"
    if rules:
        evidence.append(f"{', '.join(str(vs.resource) for vs in rules)} has http rules for it")
    return RULE.finding(
        service.resource,
        path,
        f"port {port.number} of Service {service.namespace}/{service.resource.name} "
        f"names no protocol: {what}",
        traffic="sidecars guess from the first bytes of each connection: http rules apply where "
        "they are plain HTTP; where the server speaks first the connection hangs; gateways send "
        "HTTP/1.1, which gRPC does not survive",
        next=f"{cure} if it speaks HTTP, else use the prefix of what it speaks (grpc, tls, tcp)",
        severity=Severity.WARNING if rules else Severity.INFO,
        evidence=tuple(evidence),
        related=tuple(vs.resource.id for vs in rules),
        repairs=tuple(
            declared(service, port, each, sure=bool(rules)) for each in _likely(data, port, rules)
        ),
    )


def _likely(data: Mapping[str, Any], port: Port, rules: list[VirtualService]) -> list[str]:
    """The protocols that a port may speak: the one that its name or its rules point to, else all.

    A misspelt appProtocol means more than the name, and rules for http mean HTTP.
    """
    for text in (data.get("appProtocol"), port.name):
        protocol = parse(text or "") or parse(meant(text or "") or "")
        if protocol:
            return [protocol]
    return ["http"] if rules else ["http", "http2", "grpc", "tls", "tcp"]


@lru_cache(1024)
def meant(text: str) -> str | None:
    """The port name that a misspelt one was probably meant to be (htpp: http, web-http: http-web).

    None where nothing is close. `text` names no protocol.
    """
    lowered = text.lower()
    words = [word for word in re.split(r"[^a-z0-9]+", lowered) if word]
    for index, word in enumerate(words):
        if word in PROTOCOLS:
            return "-".join((word, *words[:index], *words[index + 1 :]))
    for protocol in sorted(PROTOCOLS, key=len, reverse=True):
        if lowered.startswith(protocol):
            return f"{protocol}-{lowered[len(protocol) :].strip('-_.')}"
    close = difflib.get_close_matches(words[0], PROTOCOLS, n=1, cutoff=0.75) if words else []
    return "-".join((*close, *words[1:])) if close else None


RULE = Rule(
    code="KM301",
    name="port-without-protocol",
    severity=Severity.INFO,
    summary="A Service's port names no protocol, so that proxies have to guess it.",
    explanation="""\
Istio takes a port's protocol from `appProtocol`; if that is absent, from the port's name up to the
first `-` (`http`, `http2`, `https`, `grpc`, `grpc-web`, `tcp`, `tls`, `mongo`, `mysql`, `redis`). A
name such as `web` or `api-http` says nothing, and neither does an `appProtocol` that Istio does not
know, whatever the name says.

For such a port sidecars look at the first bytes of each connection. Plain HTTP is recognised, and
http rules apply to it. But a protocol in which the **server speaks first** hangs, as the proxy
waits for the client; HTTP inside TLS of the application's own is not recognised; and gateways,
which do not guess, send HTTP/1.1, which gRPC does not survive. The finding is a **warning** where a
VirtualService has http rules for the Service, as they depend on the guess.

Silent for ports 25, 53, 3306 and 27017, which are never guessed but taken for TCP (KM303 has
those); for UDP; for ExternalName Services; for namespaces of Kubernetes and of Istio; for gateways'
own Services; and where it is known that no pod behind the Service has a sidecar and no rule names
it.""",
    fix="""\
Name the port `<protocol>[-<suffix>]`, or set `appProtocol`. Pods and clients that use the port's
number notice nothing; a reference to the port by name (Ingress, ServiceMonitor) has to follow.""",
    reference="https://istio.io/latest/docs/ops/configuration/traffic-management/"
    "protocol-selection/",
    needs=("Service",),
    uses=(
        "ServiceEntry",
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "Namespace",
        *WORKLOAD_KINDS,
    ),
    equivalents=("IST0118", "KIA0601", "KIA0602"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: web, port: 9080}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http-web, port: 9080}]
""",
)
