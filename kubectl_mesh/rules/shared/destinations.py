"""Destinations that are not there: what is known of them, and what requests to them meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.destination_rules import DestinationRule
from kubectl_mesh.mesh.gateways import MESH, Gateway
from kubectl_mesh.mesh.hosts import is_wildcard, namespace_of
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination, VirtualService
from kubectl_mesh.mesh.visibility import Export
from kubectl_mesh.routing.upstreams import only_by_wildcard
from kubectl_mesh.rules.rule import Skip, undecided


def traffic_without_cluster(destination: Destination, only: str = "") -> str:
    """What happens to requests of a rule, of all clients or of some, that lead to no cluster."""
    whose = f" of {only}" if only else ""
    if destination.role == "mirror":
        return f"the copies of requests{whose} are lost; the requests themselves are answered"
    share = ""
    if destination.weight is not None and 0 < destination.weight < 100:
        share = f"{destination.weight} % of "
    if destination.protocol != "http":
        return f"{share}connections{whose} that meet this rule are closed at once"
    return f"{share}requests{whose} that meet this rule get 503 (response flag NC: no cluster)"


def absent(snapshot: Snapshot, host: str, export: Export) -> str | Skip | None:
    """What is known of a host that nothing provides, as a hint; None for one that is provided.

    A host counts as provided to a resource that is visible to `export` if some client can see
    both; a wildcard provides none of the names that it covers. A Skip stands where
    the input cannot tell.
    """
    providers = snapshot.registry.by_host(host)
    if is_wildcard(host) or any(provider.export.meets(export) for provider in providers):
        return None
    if reason := snapshot.missing("ServiceEntry"):
        return Skip(reason)
    if providers:
        return f" to its clients: {providers[0].resource} is not exported to them"
    domain = snapshot.config.domain
    labels = host.split(".")
    home = namespace_of(host, domain)
    if home is not None:
        if host == f"kubernetes.default.svc.{domain}":
            return None
        if snapshot.canaries.making("Service", home, labels[0]):
            return None
        reason = snapshot.unknown(home, "Service")
        if not reason and not snapshot.coverage.live and snapshot.is_system(home):
            reason = f"the input may hold only a part of the system namespace {home}"
        if skip := undecided(snapshot, f"whether {host} exists", reason):
            return skip
        others = snapshot.registry.by_name.get(labels[0], ())
        if others:
            return f"; there is one in namespace {others[0].namespace}: write {others[0].host}"
        return ""
    if wildcard := snapshot.registry.wildcard_over(host):
        return f": {only_by_wildcard(wildcard, host)}"
    if len(labels) > 1:
        full = f"{labels[0]}.{labels[1]}.svc.{domain}"
        if full.startswith(f"{host}.") and snapshot.registry.providers(full):
            return f"; a name with a dot is taken as it stands: write {full}"
    if snapshot.coverage.live or snapshot.of("ServiceEntry"):
        return ""
    return Skip(f"whether {host} exists: the input holds no ServiceEntry")


def definition(snapshot: Snapshot, host: str, subset: str) -> DestinationRule | None:
    """A DestinationRule, in any namespace, that defines a subset of a fully qualified host."""
    found = next(snapshot.destination_rules.defining(host, subset), None)
    return found.rule if found else None


def providers(snapshot: Snapshot, destination: Destination) -> list[Service]:
    """What provides a destination's host, if the ports of all of it are known; else nothing."""
    found = [
        service
        for service in snapshot.registry.providers(destination.host)
        if service.export.reaches(destination.virtual_service.namespace)
    ]
    if any(service.is_external_name or not service.ports for service in found):
        return []
    return found


def lost(destination: Destination) -> str:
    """What becomes of what is sent to a port of a host that does not exist."""
    if destination.role == "mirror":
        return "are answered, but their copies are lost"
    if destination.protocol == "http":
        return "get 503 (response flag NC: no cluster)"
    return "are closed at once"


@dataclass(frozen=True)
class PortsTaken:
    """For a destination without port, the ports that are taken instead and do not exist.

    `gateway` is the way in. Where `some_work`, other ports that are taken do exist.
    """

    gateway: str
    missing: frozenset[int]
    some_work: bool


def ports_taken(
    snapshot: Snapshot, destination: Destination, services: Sequence[Service]
) -> Iterator[PortsTaken | Skip]:
    """What istiod takes for the port that a destination does not name, for each way in."""
    vs = destination.virtual_service
    has = {port.number for service in services for port in service.ports if port.protocol != "udp"}
    single = len({port.number for service in services for port in service.ports}) == 1
    for root in snapshot.virtual_services.roots_of(vs):
        for name in sorted(destination.gateways if root is vs else root.gateways):
            matches = _matches(destination, name)
            on_mesh = name == MESH
            if not matches or (single and not (on_mesh and destination.protocol == "http")):
                continue
            if on_mesh:
                ports = _addressed(snapshot, root, destination)
            elif name in snapshot.gateways.by_id:
                ports = _server_ports(snapshot.gateways.by_id[name], root, destination)
            else:
                if reason := snapshot.unknown(name.partition("/")[0], "Gateway"):
                    yield Skip(f"which ports Gateway {name} has: {reason}")
                continue
            if all(match.get("port") for match in matches):
                ports &= {match["port"] for match in matches}
            missing = frozenset(ports - has)
            yield PortsTaken(name, missing, on_mesh and missing != ports)


def _matches(destination: Destination, gateway: str) -> list[Mapping[str, Any]]:
    """The matches of the rule that can hold on a gateway; an empty one for a rule without any."""
    vs = destination.virtual_service
    rule = vs.resource.spec[destination.protocol][destination.rule[2]]
    matches: list[Mapping[str, Any]] = rule.get("match") or [{}]
    return [
        match
        for match in matches
        if not match.get("gateways") or gateway in vs.resolve_gateways(match["gateways"])
    ]


def _server_ports(gateway: Gateway, root: VirtualService, destination: Destination) -> set[int]:
    """The ports on which a Gateway takes what the destination's rule is for."""
    return {
        server.number
        for host in root.hosts
        for server in gateway.admitting(host, root.namespace)
        if server.takes_http_routes == (destination.protocol == "http")
    }


def _addressed(snapshot: Snapshot, root: VirtualService, destination: Destination) -> set[int]:
    """The ports of a VirtualService's hosts, other than the destination, that clients may call."""
    return {
        port.number
        for host in root.hosts
        if host != destination.host
        for service in snapshot.registry.providers(host)
        if not service.is_external_name
        for port in service.ports
        if port.protocol != "udp" and port.takes_http_routes == (destination.protocol == "http")
    }
