"""VirtualServices: to which gateways and hosts they are bound, and where they send requests.

Models istiod's `virtualservice_controller` and the index of `initVirtualServices`: names are
resolved in the VirtualService's own namespace, one without hosts is a delegate, the order is that
of age. Which rule a request meets is not decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.gateways import MESH, resolve_gateway
from kubectl_mesh.mesh.hosts import covers, fqdn, is_wildcard, patterns_for
from kubectl_mesh.mesh.resource import Path, Resource
from kubectl_mesh.mesh.visibility import Export, default_export, export_of

Protocol = Literal["http", "tcp", "tls"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A place to which a rule sends requests, or copies of them.

    `path` leads to the destination in the resource, `rule` to the http, tcp or tls rule. `host`
    is fully qualified. `gateways` are those on which a match of the rule can hold, resolved; a
    delegate's are its roots'. An `idle` one is of several and has no weight: Istio leaves it out,
    and whether it exists does not matter.
    """

    virtual_service: VirtualService
    protocol: Protocol
    role: Literal["route", "mirror"]
    rule: Path
    gateways: frozenset[str]
    path: Path
    host: str
    subset: str | None
    port: int | None
    weight: int | None
    idle: bool


@dataclass(frozen=True, eq=False)
class HttpRule:
    """An http rule as a root VirtualService has it: its own, or a delegate's in its place.

    `gateways` are those on which a match of the rule can hold, resolved. `under` is the root's
    rule that hands over to this one; None for a root's own.
    """

    owner: VirtualService
    path: Path
    data: Mapping[str, Any]
    gateways: frozenset[str]
    under: HttpRule | None = None

    @property
    def matches(self) -> list[Mapping[str, Any]]:
        matches: list[Mapping[str, Any]] = self.data.get("match") or []
        return matches

    def matches_on(self, gateway: str) -> list[Mapping[str, Any]]:
        """The matches that can hold on a gateway; empty for a rule without match, too."""
        return [
            match
            for match in self.matches
            if not match.get("gateways")
            or gateway in self.owner.resolve_gateways(match["gateways"])
        ]

    def open_matches_on(self, gateway: str) -> list[Mapping[str, Any]]:
        """As `matches_on`, less those that hold for chosen clients only."""
        return [match for match in self.matches_on(gateway) if not names_clients(match)]

    def is_open_on(self, gateway: str) -> bool:
        """Whether the rule can hold on a gateway for any client, and not for chosen ones only."""
        return (
            gateway in self.gateways
            and (not self.data.get("match") or bool(self.open_matches_on(gateway)))
            and (self.under is None or self.under.is_open_on(gateway))
        )


def names_clients(match: Mapping[str, Any]) -> bool:
    """Whether an http match is for chosen clients; `gateways` switches its source fields off."""
    return not match.get("gateways") and bool(
        match.get("sourceLabels") or match.get("sourceNamespace")
    )


class VirtualService:
    """A VirtualService with its names resolved."""

    def __init__(self, resource: Resource, config: MeshConfig) -> None:
        self.resource = resource
        self.namespace = resource.namespace
        self.domain = config.domain
        self.hosts = tuple(
            fqdn(host, resource.namespace, config.domain)
            for host in resource.spec.get("hosts") or ()
        )
        self.gateways = self.resolve_gateways(resource.spec.get("gateways") or ()) or frozenset(
            (MESH,)
        )
        self.export: Export = export_of(resource, default_export(resource, config))

    @property
    def is_delegate(self) -> bool:
        return not self.hosts

    @property
    def on_mesh(self) -> bool:
        return MESH in self.gateways

    def resolve_gateways(self, names: Iterable[str]) -> frozenset[str]:
        return frozenset(resolve_gateway(name, self.namespace) for name in names)

    def resolve_host(self, host: str) -> str:
        return fqdn(host, self.namespace, self.domain)

    @cached_property
    def own_http_rules(self) -> tuple[HttpRule, ...]:
        """The http rules as they stand in the object, delegating ones included."""
        return tuple(
            HttpRule(self, ("spec", "http", index), rule, self._gateways_of(rule))
            for index, rule in enumerate(self.resource.spec.get("http") or ())
        )

    def _gateways_of(self, rule: Mapping[str, Any]) -> frozenset[str]:
        matches = rule.get("match") or ()
        if self.is_delegate or not matches or not all(match.get("gateways") for match in matches):
            return self.gateways
        named = self.resolve_gateways(name for match in matches for name in match["gateways"])
        return named & self.gateways

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """Every destination of every rule, mirrors included, in order."""
        return tuple(self._destinations())

    def routes_of(self, rule: Path) -> tuple[Destination, ...]:
        """Where the rule at a path sends requests; copies and idle destinations are left out."""
        return self._routes_by_rule.get(rule, ())

    @cached_property
    def _routes_by_rule(self) -> Mapping[Path, tuple[Destination, ...]]:
        grouped: dict[Path, list[Destination]] = defaultdict(list)
        for destination in self.destinations:
            if destination.role == "route":
                grouped[destination.rule].append(destination)
        return {rule: tuple(to for to in routes if not to.idle) for rule, routes in grouped.items()}

    def _destinations(self) -> Iterator[Destination]:
        spec = self.resource.spec
        for protocol in ("http", "tcp", "tls"):
            for index, rule in enumerate(spec.get(protocol) or ()):
                path: Path = ("spec", protocol, index)
                gateways = self._gateways_of(rule)
                routes = rule.get("route") or ()
                for number, route in enumerate(routes):
                    yield from self._destination(
                        protocol,
                        "route",
                        path,
                        gateways,
                        (*path, "route", number, "destination"),
                        route.get("destination"),
                        route.get("weight"),
                        idle=is_idle(route, routes),
                    )
                if protocol != "http":
                    continue
                yield from self._destination(
                    "http", "mirror", path, gateways, (*path, "mirror"), rule.get("mirror"), None
                )
                for number, mirror in enumerate(rule.get("mirrors") or ()):
                    yield from self._destination(
                        "http",
                        "mirror",
                        path,
                        gateways,
                        (*path, "mirrors", number, "destination"),
                        mirror.get("destination"),
                        None,
                    )

    def _destination(
        self,
        protocol: Protocol,
        role: Literal["route", "mirror"],
        rule: Path,
        gateways: frozenset[str],
        path: Path,
        destination: Mapping[str, Any] | None,
        weight: int | None,
        *,
        idle: bool = False,
    ) -> Iterator[Destination]:
        if destination and destination.get("host"):
            yield Destination(
                self,
                protocol,
                role,
                rule,
                gateways,
                path,
                self.resolve_host(destination["host"]),
                destination.get("subset") or None,
                (destination.get("port") or {}).get("number") or None,
                weight,
                idle,
            )


def is_idle(entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an entry of a rule's `route` gets nothing: one of several, without a weight."""
    return len(entries) > 1 and not entry.get("weight")


class VirtualServices:
    """Every VirtualService of a mesh, the oldest first."""

    def __init__(self, resources: Iterable[Resource], config: MeshConfig) -> None:
        self.all = tuple(
            VirtualService(resource, config)
            for resource in sorted(resources, key=lambda resource: resource.age_key)
        )

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str], VirtualService]:
        return {(vs.namespace, vs.resource.name): vs for vs in self.all}

    @cached_property
    def roots(self) -> tuple[VirtualService, ...]:
        return tuple(vs for vs in self.all if not vs.is_delegate)

    @cached_property
    def on_mesh_by_host(self) -> Mapping[str, tuple[VirtualService, ...]]:
        """Those that are bound to the mesh, by host as written in full."""
        grouped: dict[str, list[VirtualService]] = defaultdict(list)
        for vs in self.roots:
            for host in dict.fromkeys(vs.hosts) if vs.on_mesh else ():
                grouped[host].append(vs)
        return {host: tuple(members) for host, members in grouped.items()}

    @cached_property
    def by_destination_host(self) -> Mapping[str, tuple[Destination, ...]]:
        grouped: dict[str, list[Destination]] = defaultdict(list)
        for vs in self.all:
            for destination in vs.destinations:
                grouped[destination.host].append(destination)
        return {host: tuple(members) for host, members in grouped.items()}

    @cached_property
    def delegating(self) -> Mapping[tuple[str, str], tuple[HttpRule, ...]]:
        """By a delegate's namespace and name, the rules of roots that hand over to it."""
        grouped: dict[tuple[str, str], list[HttpRule]] = defaultdict(list)
        for vs in self.roots:
            for rule in vs.own_http_rules:
                key = delegate_of(rule)
                if key:
                    grouped[key].append(rule)
        return {key: tuple(rules) for key, rules in grouped.items()}

    def http_rules(self, vs: VirtualService) -> Iterator[HttpRule]:
        """A root's http rules, a delegating rule replaced by those of its delegate.

        A delegate that does not exist, is no delegate or is not exported to the root's namespace
        gives none, as in istiod. A delegate's match is not cut down to the root's.
        """
        for rule in vs.own_http_rules:
            key = delegate_of(rule)
            if key is None:
                yield rule
                continue
            delegate = self.by_name.get(key)
            if delegate and delegate.is_delegate and delegate.export.reaches(vs.namespace):
                for inner in delegate.own_http_rules:
                    yield HttpRule(delegate, inner.path, inner.data, rule.gateways, rule)

    def on_mesh_for(self, host: str) -> Iterator[VirtualService]:
        """The VirtualServices on the mesh for a host, whoever sees them, the most specific first.

        One that lists several patterns for the host comes once for each.
        """
        for pattern in patterns_for(host):
            yield from self.on_mesh_by_host.get(pattern, ())

    def mesh_winner(self, host: str, namespace: str | None) -> VirtualService | None:
        """The VirtualService whose http rules calls to a host meet in sidecars of a namespace.

        None as namespace stands for one that nothing is exported to by name. The most specific
        host wins, then what is private to the namespace before what is exported to it before what
        is public, then the oldest; the others are dead there. One without any rule that holds for
        all clients is passed over, as are Sidecar resources: clients chosen by labels, ports and
        egress hosts may get another.
        """

        for pattern in patterns_for(host):
            found = self.on_mesh_by_host.get(pattern, ())
            for vs in as_seen_from(namespace, found):
                if vs in self._winning:
                    return vs
        return None

    @cached_property
    def _winning(self) -> frozenset[VirtualService]:
        """Those on the mesh with an http rule that holds for all clients."""
        return frozenset(
            vs
            for vs in self.roots
            if vs.on_mesh and any(rule.is_open_on(MESH) for rule in self.http_rules(vs))
        )

    def mesh_connections(self, host: str, namespace: str | None) -> Iterator[VirtualService]:
        """The VirtualServices whose tcp and tls rules connections to a host meet in sidecars.

        `namespace` is as in `mesh_winner`. All of them count, one rule after the other, however
        specific their hosts; for a wildcard those for hosts that it means, too.
        """
        found = {*self.on_mesh_for(host), *self.mesh_below(host)}
        return iter(as_seen_from(namespace, sorted(found, key=lambda vs: vs.resource.age_key)))

    def mesh_below(self, host: str) -> Iterator[VirtualService]:
        """The VirtualServices on the mesh for hosts that a wildcard means; none for other hosts."""
        if is_wildcard(host):
            for name, members in self.on_mesh_by_host.items():
                if name != host and covers(host, name):
                    yield from members

    def roots_of(self, vs: VirtualService) -> tuple[VirtualService, ...]:
        """The VirtualServices through which `vs` takes part in routing: itself, or its roots."""
        if not vs.is_delegate:
            return (vs,)
        rules = self.delegating.get((vs.namespace, vs.resource.name), ())
        return tuple(
            dict.fromkeys(rule.owner for rule in rules if vs.export.reaches(rule.owner.namespace))
        )


def as_seen_from(namespace: str | None, found: Iterable[VirtualService]) -> list[VirtualService]:
    """Those that a namespace can see: its private ones, those exported to it, the public ones."""

    def closeness(vs: VirtualService) -> int:
        return 2 if vs.export.everyone else int(vs.namespace != namespace)

    visible = [
        vs
        for vs in found
        if vs.export.everyone or (namespace is not None and vs.export.reaches(namespace))
    ]
    return sorted(visible, key=closeness) if len(visible) > 1 else visible


def delegate_of(rule: HttpRule) -> tuple[str, str] | None:
    """Namespace and name of the VirtualService that an http rule hands over to."""
    delegate = rule.data.get("delegate")
    if not delegate or not delegate.get("name"):
        return None
    return (delegate.get("namespace") or rule.owner.namespace, delegate["name"])
