"""What a change can touch: the hosts and proxies for which two states have to be compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.hosts import covers, fqdn, is_wildcard, overlap, patterns_for
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import Path, Resource, ResourceId, dotted
from kubectl_mesh.mesh.schema import KINDS as SCHEMA
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.unread import KINDS as UNREAD
from kubectl_mesh.mesh.unread import REASON, content, not_of_revision
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS

_READ = {"VirtualService", "DestinationRule", "Service", "ServiceEntry", "Gateway", "Sidecar"}
KINDS = (*sorted(_READ), "Namespace", *WORKLOAD_KINDS)
"""The kinds that have a bearing on routes; Namespaces only on who has a sidecar."""
_GATEWAY = SCHEMA["Gateway"].shape["spec"]
(_SERVER,) = _GATEWAY["servers"]
_KNOWN: Mapping[str, Any] = {
    "Gateway": {**_GATEWAY, "servers": [{**_SERVER, "tls": {"httpsRedirect": bool}}]},
    "Sidecar": SCHEMA["Sidecar"].shape["spec"],
}
"""The fields that are compared; a server's tls.mode only in so far as it ends TLS or passes it."""
_MODE = ("tls", "mode")
_PASSED_ON = "PASSTHROUGH"
_HTTP_PORT = 80
_PORTS = 65536


def changed(before: Snapshot, after: Snapshot, kinds: Collection[str] = KINDS) -> list[ResourceId]:
    """The objects that are not the same to routing in two states."""
    one, other = ({each.id: each for each in snapshot.read()} for snapshot in (before, after))
    return [
        key
        for key in _written_anew(one, other)
        if key.kind in kinds and _content(before, one.get(key)) != _content(after, other.get(key))
    ]


def _written_anew(
    one: Mapping[ResourceId, Resource], other: Mapping[ResourceId, Resource]
) -> list[ResourceId]:
    """The objects that only one of two states has, or that say something else there."""
    return [
        key
        for key in dict.fromkeys((*one, *other))
        if key not in one or key not in other or one[key].data != other[key].data
    ]


def _content(snapshot: Snapshot, resource: Resource | None) -> Any:
    if resource is None or resource.kind == "Namespace":
        return None
    if resource.kind in UNREAD:
        return content(resource)
    if resource.kind in WORKLOAD_KINDS:
        found = [each for each in snapshot.workloads.all if each.resource is resource]
        return [(each.labels, each.is_scaled_to_zero) for each in found]
    if resource.kind == "Service":
        return [
            (
                *(each.ports, each.selector, each.export, each.settings),
                *(each.cluster_ip, each.is_headless),
            )
            for each in snapshot.registry.by_resource[resource.id]
        ]
    return resource.spec, resource.age_key


@dataclass
class Scope:
    """What has to be compared: `hosts` are names and wildcards, of tables that may have changed.

    `all_gateways` and `all_mesh` where that is not only those. `upstreams` are the hosts that
    requests may be sent to in another way, `whole_upstreams` those where that is not only so for
    requests to a subset.
    """

    snapshots: Sequence[Snapshot]
    hosts: set[str] = field(default_factory=set)
    upstreams: set[str] = field(default_factory=set)
    whole_upstreams: set[str] = field(default_factory=set)
    all_gateways: bool = False
    all_mesh: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.hosts or self.all_gateways or self.all_mesh)

    @cached_property
    def mesh_names(self) -> frozenset[str]:
        """Every name and wildcard that a sidecar may have a table of its own for."""
        return frozenset(self._mesh_names())

    def _mesh_names(self) -> Iterator[str]:
        for snapshot in self.snapshots:
            yield from snapshot.virtual_services.on_mesh_by_host
            for service in (*snapshot.registry.services, *snapshot.registry.entries):
                yield service.host
                if service.is_headless:
                    yield f"*.{service.host}"

    @property
    def mesh_domains(self) -> list[str]:
        """The hosts whose tables may differ on sidecars."""
        names = self.mesh_names
        if self.all_mesh:
            return sorted({*names, "*"})
        wildcards = [host for host in self.hosts if is_wildcard(host)]
        found = {name for name in names if any(covers(host, name) for host in wildcards)}
        found |= {host for host in self.hosts if host in names or host == "*"}
        return sorted(found | {name for name in self._short_names if name in names})

    @property
    def _short_names(self) -> Iterator[str]:
        """What clients call the Services among `hosts`, too: a VirtualService may list that."""
        for host in self.hosts:
            for suffix in {f".{snapshot.config.domain}" for snapshot in self.snapshots}:
                yield host.removesuffix(suffix)
                yield host.removesuffix(f".svc{suffix}")

    def ports(self, domain: str) -> list[int]:
        """The ports on which sidecars may have rules for a host, or know it."""
        found = {_HTTP_PORT}
        for snapshot in self.snapshots:
            names = {domain, domain.removeprefix("*."), *_full_names(domain, snapshot)}
            hosts = {domain}
            for name in names:
                found |= _ports(snapshot.registry.by_host(name))
                for pattern in patterns_for(name):
                    for vs in snapshot.virtual_services.on_mesh_by_host.get(pattern, ()):
                        hosts |= set(vs.hosts) if domain in vs.hosts else set()
                    found |= _ports(snapshot.registry.by_host(pattern))
            for host in hosts:
                found |= _ports(snapshot.registry.covered_by(host))
        return sorted(port for port in found if 0 < port < _PORTS)

    def of_gateway(self, proxies: Sequence[Proxy]) -> tuple[frozenset[str], list[str]]:
        """The names and wildcards that a gateway's proxies have, and those that may differ."""
        names: set[str] = set()
        for snapshot, proxy in zip(self.snapshots, proxies, strict=True):
            ids = {gateway.id for gateway in proxy.gateways or ()}
            for gateway in proxy.gateways or ():
                for server in gateway.servers:
                    names |= {host.rpartition("/")[2] for host in server.hosts}
            for vs in snapshot.virtual_services.roots:
                if vs.gateways & ids:
                    names |= set(vs.hosts)
        names.discard("")
        if self.all_gateways:
            return frozenset(names), sorted(names)
        exact = {host for host in self.hosts if not is_wildcard(host)}
        wildcards = [host for host in self.hosts if is_wildcard(host)]
        touched = {
            name
            for name in names
            if name in exact
            or any(overlap(host, name) for host in wildcards)
            or (is_wildcard(name) and any(covers(name, host) for host in exact))
        }
        return frozenset(names), sorted(touched | (exact & names))


def unread(scope: Scope) -> Iterator[str]:
    """What changes, or leads to what changes, and is not followed."""
    before, after = scope.snapshots
    for key in changed(before, after, UNREAD):
        yield f"{key} is not the same in both states, and {REASON}"
    one, other = ({each.id: each for each in state.of_other_revisions} for state in scope.snapshots)
    for key in _written_anew(one, other):
        why = not_of_revision(after.config.revision)
        yield f"{key} is not the same in both states, and is {why}"
    touched = scope.whole_upstreams
    wildcards = [host for host in touched if is_wildcard(host)]
    for resource, host in dict.fromkeys(
        each for snapshot in scope.snapshots for each in snapshot.unread.destinations
    ):
        if host in touched or any(covers(pattern, host) for pattern in wildcards):
            yield f"{resource} sends requests to {host}, and {REASON}"


def not_compared(scope: Scope) -> Iterator[str]:
    """What differs in Istio's objects, and is compared by nothing."""
    before, after = scope.snapshots
    for kind in ("Gateway", "Sidecar"):
        for key in dict.fromkeys(each.id for state in scope.snapshots for each in state.of(kind)):
            one, other = (state.get(key.kind, key.namespace, key.name) for state in (before, after))
            if kind == "Gateway" and not (one and other):
                continue  # what it serves at all is compared
            fields = [_left_out(each.spec, _KNOWN[kind]) if each else {} for each in (one, other)]
            for path in sorted({*fields[0], *fields[1]}, key=str):
                values = [each.get(path) for each in fields]
                if values[0] != values[1] and not (path[-2:] == _MODE and _PASSED_ON in values):
                    told = dotted(("spec", *path))
                    yield f"{key}: {told} is not the same in both states, and is not compared"
    for key in dict.fromkeys(
        each.id for state in scope.snapshots for each in state.read() if each.faults
    ):
        states = [state.get(key.kind, key.namespace, key.name) for state in scope.snapshots]
        for found in states:
            if (
                found
                and found.faults
                and any(not each or each.faults != found.faults for each in states)
            ):
                fault = found.faults[0]
                yield (
                    f"{key}: {dotted(fault.path)} is {fault.found}, expected {fault.expected}: the "
                    "API server refuses the object"
                )


def _left_out(value: Any, known: Any, path: Path = ()) -> dict[Path, Any]:
    """The fields of an object that are not known, by their paths."""
    if isinstance(value, dict) and isinstance(known, dict) and "*" not in known:
        found: dict[Path, Any] = {}
        for name, each in value.items():
            found |= _left_out(each, known.get(name), (*path, name))
        return found
    if isinstance(value, list) and isinstance(known, list):
        found = {}
        for index, each in enumerate(value):
            found |= _left_out(each, known[0], (*path, index))
        return found
    return {} if known is not None else {path: value}


def _full_names(domain: str, snapshot: Snapshot) -> Iterator[str]:
    parts = domain.removeprefix("*.").removesuffix(".svc").split(".")
    if len(parts) == 2:
        yield fqdn(parts[0], parts[1], snapshot.config.domain)


def _ports(services: Iterable[Service]) -> set[int]:
    return {port.number for service in services for port in service.ports}


def scope_of(before: Snapshot, after: Snapshot) -> Scope:
    """What the changes between two states can touch."""
    scope = Scope((before, after))
    if before.config != after.config:
        scope.all_gateways = scope.all_mesh = True
        return scope
    for key in changed(before, after):
        add = _BY_KIND.get(key.kind, _add_workload)
        for snapshot in (before, after):
            resource = snapshot.get(key.kind, key.namespace, key.name)
            if resource is not None:
                add(scope, snapshot, resource)
    if scope.upstreams:
        for snapshot in (before, after):
            _add_users(scope, snapshot)
    return scope


def _add_virtual_service(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    vs = snapshot.virtual_services.by_name[resource.namespace, resource.name]
    if vs.is_delegate:
        for each in scope.snapshots:
            for rule in each.virtual_services.delegating.get((vs.namespace, resource.name), ()):
                scope.hosts |= set(rule.owner.hosts)
    _add_hosts(scope, vs)


def _add_hosts(scope: Scope, vs: VirtualService) -> None:
    scope.hosts |= set(vs.hosts)


def _add_destination_rule(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    host = fqdn(resource.spec.get("host") or "", resource.namespace, snapshot.config.domain)
    scope.upstreams.add(host)
    states = (
        each.get(resource.kind, resource.namespace, resource.name) for each in scope.snapshots
    )
    one, other = ({**each.spec, "subsets": None} if each else None for each in states)
    if one != other:
        scope.whole_upstreams.add(host)


def _add_service(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    registry = snapshot.registry
    for service in registry.by_resource.get(resource.id, ()):
        scope.upstreams.add(service.host)
        scope.whole_upstreams.add(service.host)
        scope.hosts.add(service.host)
        if service.is_headless:
            scope.hosts.add(f"*.{service.host}")
        for each in scope.snapshots:
            for pattern in patterns_for(service.host):
                for vs in each.virtual_services.on_mesh_by_host.get(pattern, ()):
                    _add_hosts(scope, vs)


def _add_gateway(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    scope.all_gateways = True


def _add_sidecar(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    scope.all_mesh = True


def _add_workload(scope: Scope, snapshot: Snapshot, resource: Resource) -> None:
    for workload in snapshot.workloads.all:
        if workload.resource is resource:
            for group in snapshot.groups_by_workload.get(workload, ()):
                hosts = {service.host for service in group.services}
                scope.upstreams |= hosts
                scope.whole_upstreams |= hosts
            if snapshot.gateways.configure(workload.labels):
                scope.all_gateways = True


_BY_KIND: Mapping[str, Callable[[Scope, Snapshot, Resource], None]] = {
    "VirtualService": _add_virtual_service,
    "DestinationRule": _add_destination_rule,
    "Service": _add_service,
    "ServiceEntry": _add_service,
    "Gateway": _add_gateway,
    "Sidecar": _add_sidecar,
}


def _add_users(scope: Scope, snapshot: Snapshot) -> None:
    """The hosts of all that sends requests to `upstreams`, and those hosts themselves."""
    exact = {host for host in scope.upstreams if not is_wildcard(host)}
    wildcards = [host for host in scope.upstreams if is_wildcard(host)]

    def touched(host: str) -> bool:
        return host in exact or any(covers(pattern, host) for pattern in wildcards)

    for host, destinations in snapshot.virtual_services.by_destination_host.items():
        if touched(host):
            for destination in destinations:
                for root in snapshot.virtual_services.roots_of(destination.virtual_service):
                    _add_hosts(scope, root)
    scope.hosts |= scope.upstreams
