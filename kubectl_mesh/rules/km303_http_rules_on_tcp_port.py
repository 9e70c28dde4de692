"""KM303: http rules for a host, or on a gateway, whose ports are not HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.gateways import MESH, Gateway, Server
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import Path, Resource, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import HttpRule, VirtualService
from kubectl_mesh.routing.rules import connection_rules
from kubectl_mesh.rules.repair import Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.ports import corrected

Use = tuple[Service, Port]


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for vs in snapshot.virtual_services.roots:
        rules = list(snapshot.virtual_services.http_rules(vs))
        if rules:
            yield from _check(snapshot, vs, rules)


def _check(snapshot: Snapshot, vs: VirtualService, rules: list[HttpRule]) -> Iterator[Finding]:
    gateways = frozenset(gateway for rule in rules for gateway in rule.gateways)
    hosts: dict[int, list[Service]] = {}
    without_effect: dict[str, list[Server]] = {}
    elsewhere = False
    if MESH in gateways:
        for index, host in enumerate(vs.hosts):
            services = _services(snapshot, vs, host)
            if services and not any(_takes_http(service) for service in services):
                hosts[index] = services
    for name in sorted(gateways - {MESH}):
        gateway = snapshot.gateways.by_id.get(name)
        servers = _servers(gateway, vs) if gateway else []
        if servers and not any(server.takes_http_routes for server in servers):
            without_effect[name] = servers
        else:
            elsewhere = True
    if MESH in gateways and len(hosts) < len(vs.hosts):
        elsewhere = True
        yield from _ports(snapshot, vs, rules)
    for index, services in hosts.items():
        dead_weight = bool(gateways - {MESH} - without_effect.keys()) or _has_l4_rule(vs, MESH)
        yield _host_finding(vs, index, services, dead_weight)
    for name, servers in without_effect.items():
        has_l4_rule = _has_l4_rule(vs, name)
        if not (has_l4_rule and elsewhere):
            yield _gateway_finding(snapshot.gateways.by_id[name], vs, servers, has_l4_rule)


def _services(snapshot: Snapshot, vs: VirtualService, host: str) -> list[Service]:
    """What provides a host, if all of it can be judged; else nothing."""
    found = [
        service
        for service in snapshot.registry.providers(host)
        if service.export.reaches(vs.namespace)
    ]
    if any(service.is_external_name or not service.ports for service in found):
        return []
    if any(not service.is_kubernetes for service in found) and _originates_tls(snapshot, host):
        return []
    if found and host.startswith("*") and not any(_takes_http(service) for service in found):
        return list(snapshot.registry.covered_by(host))
    return found


def _takes_http(service: Service) -> bool:
    return any(port.takes_http_routes for port in service.ports)


def _originates_tls(snapshot: Snapshot, host: str) -> bool:
    """Whether a DestinationRule has proxies speak TLS to a host, so that clients speak HTTP."""
    for rule in snapshot.destination_rules.covering(host):
        policy = rule.resource.spec.get("trafficPolicy") or {}
        levels = policy.get("portLevelSettings")
        for settings in (policy, *(levels if isinstance(levels, list) else ())):
            tls = settings.get("tls") if isinstance(settings, dict) else None
            if isinstance(tls, dict) and tls.get("mode") in ("SIMPLE", "MUTUAL"):
                return True
    return False


def _servers(gateway: Gateway, vs: VirtualService) -> list[Server]:
    """The servers that admit a host of a VirtualService."""
    return list(
        dict.fromkeys(
            server for host in vs.hosts for server in gateway.admitting(host, vs.namespace)
        )
    )


def _has_l4_rule(vs: VirtualService, gateway: str) -> bool:
    """Whether a tcp or tls rule can hold on a gateway."""
    return any(
        rule.matches is None
        or any(not match.gateways or gateway in match.gateways for match in rule.matches)
        for rule in connection_rules(vs)
    )


def _ports(snapshot: Snapshot, vs: VirtualService, rules: list[HttpRule]) -> Iterator[Finding]:
    """Matches by a port that is not HTTP, of a host that has HTTP ports besides."""
    for rule in rules:
        for index, match in enumerate(rule.matches):
            number = match.get("port")
            if not number:
                continue
            names = match.get("gateways")
            gateways = rule.owner.resolve_gateways(names) if names else rule.gateways
            if MESH not in gateways or any(
                _serves_http(snapshot, gateway, number) for gateway in gateways - {MESH}
            ):
                continue
            found = [_services(snapshot, vs, host) for host in vs.hosts]
            uses = [
                (service, port)
                for services in found
                for service in services
                for port in service.ports
                if port.number == number
            ]
            if all(found) and uses and not any(port.takes_http_routes for _, port in uses):
                path = (*rule.path, "match", index, "port")
                yield _finding(
                    rule.owner.resource,
                    path,
                    uses,
                    f"{dotted(path)} of {rule.owner.resource} is {number}, which is "
                    f"{uses[0][1].protocol} on {', '.join(vs.hosts)}: the match never holds",
                    Severity.ERROR,
                )


def _serves_http(snapshot: Snapshot, gateway: str, number: int) -> bool:
    """Whether a Gateway takes HTTP on a port; so it is assumed of one that is not known."""
    found = snapshot.gateways.by_id.get(gateway)
    return found is None or any(
        server.takes_http_routes for server in found.servers if server.number == number
    )


def _host_finding(
    vs: VirtualService, index: int, services: list[Service], dead_weight: bool
) -> Finding:
    uses = [(service, port) for service in services for port in service.ports]
    ports = ", ".join(f"{port} is {port.protocol}" for _, port in uses)
    return _finding(
        vs.resource,
        ("spec", "hosts", index),
        uses,
        f"the http rules of {vs.resource} have no effect for {vs.hosts[index]} in the mesh, as it "
        f"has no HTTP port (port {ports})",
        Severity.WARNING if dead_weight else Severity.ERROR,
    )


def _finding(
    rules: Resource, path: Path, uses: list[Use], message: str, severity: Severity
) -> Finding:
    """Reported at the port, if that is just said to be TCP: it is the more likely mistake.

    A port that is said to be TLS, MySQL and the like is so; then the rules are what is wrong.
    """
    service, port = uses[0]
    resource = rules
    repairs: tuple[Repair, ...] = ()
    if len(uses) == 1 and port.protocol == "tcp":
        resource, path = service.resource, _deciding(service, port)
        repairs = (corrected(service, port, "http"),)
    involved = dict.fromkeys((rules.id, *(found.resource.id for found, _ in uses)))
    field = "appProtocol: http" if service.is_kubernetes else "protocol: HTTP"
    return RULE.finding(
        resource,
        path,
        message,
        traffic="sidecars pass connections to it on as they are, to any pod: no match, weight, "
        "subset, rewrite, timeout, retry or fault of the rules applies",
        next=f"if the application speaks plain HTTP on port {port.number}, name the port http or "
        f"set {field} in {service.resource}; if not, write tcp rules (tls rules for TLS) instead",
        severity=severity,
        related=tuple(id for id in involved if id != resource.id),
        repairs=repairs,
    )


def _deciding(service: Service, port: Port) -> Path:
    """The field that makes a port TCP; the whole port where it has no name."""
    if not service.is_kubernetes:
        return (*port.path, "protocol")
    if service.resource.spec["ports"][port.path[-1]].get("appProtocol") is not None:
        return (*port.path, "appProtocol")
    return (*port.path, "name") if port.name else port.path


def _gateway_finding(
    gateway: Gateway, vs: VirtualService, servers: list[Server], has_l4_rule: bool
) -> Finding:
    names: list[str] = vs.resource.spec["gateways"]
    index = next(
        index for index, name in enumerate(names) if gateway.id in vs.resolve_gateways((name,))
    )
    described = ", ".join(
        f"{dotted(server.path)} is {server.protocol} on port {server.number}"
        + (f" with tls.mode {server.tls_mode}" if server.tls_mode else "")
        for server in servers
    )
    traffic = "the gateway sees no HTTP there: no http rule applies"
    if not has_l4_rule:
        traffic += ", and without a tcp or tls rule connections are closed"
    return RULE.finding(
        vs.resource,
        ("spec", "gateways", index),
        f"the http rules have no effect on Gateway {gateway.id}: no server that admits their hosts "
        f"takes HTTP ({described})",
        traffic=traffic,
        next="end TLS at the gateway (tls.mode SIMPLE or MUTUAL with protocol HTTPS), or route "
        "by tls rules with sniHosts (tcp rules for TCP)",
        severity=Severity.WARNING if has_l4_rule else Severity.ERROR,
        related=(gateway.resource.id,),
    )


RULE = Rule(
    code="KM303",
    name="http-rules-on-tcp-port",
    severity=Severity.ERROR,
    summary="http rules for a host, or on a gateway, whose ports are not HTTP: they do nothing.",
    explanation="""\
The usual cause of "my route rules have no effect". A sidecar applies `http` rules only to requests
to ports that Istio takes for HTTP: `http`, `http2`, `grpc`, `grpc-web`, or no known protocol, which
is guessed. A port named `tcp-...`, `mysql`, `https` or `tls`, and an unnamed port 25, 53, 3306 or
27017, is passed on byte by byte; matches, weights, subsets, timeouts, retries and faults of http
rules do nothing there, and nothing reports it. The protocol is that of the VirtualService's
**hosts**, not of the destination.

On a gateway the **server** decides: HTTP, and HTTPS that is terminated there, take http rules; TCP
and TLS do not, nor does TLS that is passed through.

Reported at the Service port if that is plain `tcp` (mostly just a bad name), otherwise at the
VirtualService. A **warning** where the rules do have effect elsewhere, or tcp or tls rules do the
work. Silent for ExternalName Services, and for ServiceEntries to which a DestinationRule originates
TLS, as their clients speak plain HTTP.""",
    fix="""\
If the application speaks plain HTTP, name the port `http[-...]` or set `appProtocol: http`. If it
does not, use `tcp` or `tls` rules. To route TLS by path or header, it must be terminated first.""",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#route-rules-dont-seem-to-affect-traffic-flow",
    needs=("VirtualService",),
    uses=("Service", "ServiceEntry", "Gateway", "DestinationRule"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: tcp-web, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - timeout: 3s
    route:
    - destination: {host: reviews}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http-web, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - timeout: 3s
    route:
    - destination: {host: reviews}
""",
)
