"""What becomes of connections by tcp and tls rules, in the words in which two states are compared.

Models `buildSidecarOutboundTCPTLSFilterChainOpts` and its like for gateways as far as rules are
told apart: the first rule of each server name and subnet counts, and tcp rules up to the first that
takes all. Which of several subnets a connection is for is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import overlap
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS
from kubectl_mesh.mesh.virtual_services import VirtualService, as_seen_from
from kubectl_mesh.routing.router import Client, GatewayProxy, Router
from kubectl_mesh.routing.table import Target
from kubectl_mesh.routing.treatment import Treatment, treatment_of_connection

_TCP = "tcp"


def flows_of_sidecar(
    router: Router, client: Client, host: str, port: int
) -> Mapping[str, Treatment]:
    """What a sidecar does with connections to a host on a port, by the words for which they are."""
    service = router.visible(host, client.namespace) or router.covering(host, client.namespace)
    served = service.port(port) if service else None
    if service is None or served is None or served.protocol in HTTP_PROTOCOLS:
        return {}
    found: dict[str, Treatment] = {}
    egress = router.snapshot.sidecars.egress(client.namespace, client.labels, port)
    for vs in router.snapshot.virtual_services.mesh_connections(host, client.namespace):
        if egress.sees_virtual_service(vs.namespace, vs.hosts):
            _add(found, router, vs, client.namespace, client.labels, MESH, port)
    own = treatment_of_connection(router, [Target(service.host, port, None, 0)], client.namespace)
    found.setdefault(_TCP, own)
    return _up_to_terminal(found)


def flows_of_gateway(router: Router, proxy: GatewayProxy) -> Mapping[int, Mapping[str, Treatment]]:
    """What a gateway does with connections that no http rule is asked for, by port."""
    found: dict[int, dict[str, Treatment]] = {}
    for gateway in proxy.gateways:
        for server in gateway.servers:
            if server.takes_http_routes:
                continue
            of_port = found.setdefault(server.number, {})
            roots = [
                vs
                for vs in router.snapshot.virtual_services.roots
                if gateway.id in vs.gateways
                and any(
                    overlap(pattern, host)
                    for pattern in gateway.hosts_for(server, vs.namespace)
                    for host in vs.hosts
                )
            ]
            for vs in as_seen_from(proxy.namespace, roots):
                _add(of_port, router, vs, proxy.namespace, None, gateway.id, server.number)
    return {port: _up_to_terminal(of_port) for port, of_port in found.items()}


def _up_to_terminal(found: dict[str, Treatment]) -> Mapping[str, Treatment]:
    """The tcp rules after one that takes all are dead."""
    kept: dict[str, Treatment] = {}
    ended = False
    for which, treatment in found.items():
        if which.startswith(_TCP):
            if ended:
                continue
            ended = which == _TCP
        kept[which] = treatment
    return kept


def _add(
    found: dict[str, Treatment],
    router: Router,
    vs: VirtualService,
    namespace: str,
    labels: Mapping[str, str] | None,
    gateway: str,
    port: int,
) -> None:
    for protocol in ("tls", "tcp"):
        for rule in vs.resource.spec.get(protocol) or ():
            for match in rule.get("match") or ([{}] if protocol == "tcp" else ()):
                if not _holds(vs, match, namespace, labels, gateway, port):
                    continue
                for which in _words(protocol, match):
                    if which not in found:
                        targets = list(_targets(vs, rule, port))
                        found[which] = treatment_of_connection(router, targets, namespace)


def _holds(
    vs: VirtualService,
    match: Mapping[str, Any],
    namespace: str,
    labels: Mapping[str, str] | None,
    gateway: str,
    port: int,
) -> bool:
    """Whether a match holds on a proxy; gateways, for which `labels` is None, ask for no source."""
    if (match.get("port") or port) != port:
        return False
    if match.get("gateways") and gateway not in vs.resolve_gateways(match["gateways"]):
        return False
    if labels is None:
        return True
    source: Mapping[str, str] = match.get("sourceLabels") or {}
    return source.items() <= labels.items() and match.get("sourceNamespace") in (
        None,
        "",
        namespace,
    )


def _words(protocol: str, match: Mapping[str, Any]) -> Iterator[str]:
    subnets = ", ".join(sorted(match.get("destinationSubnets") or ()))
    to = f" to {subnets}" if subnets else ""
    if protocol == "tcp":
        yield f"{_TCP}{to}"
    for name in match.get("sniHosts") or ():
        yield f"tls for {name}{to}"


def _targets(vs: VirtualService, rule: Mapping[str, Any], port: int) -> Iterable[Target]:
    routes = rule.get("route") or ()
    for route in routes:
        destination = route.get("destination") or {}
        weight = route.get("weight") or 0
        if len(routes) == 1 or weight:
            yield Target(
                vs.resolve_host(destination.get("host") or ""),
                (destination.get("port") or {}).get("number") or port,
                destination.get("subset") or None,
                weight,
            )
