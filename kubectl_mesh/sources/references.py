"""What the objects of some namespaces have to do with in the rest of a mesh.

A namespace cannot be judged by its own objects: a VirtualService sends to Services elsewhere, a
DestinationRule of another namespace may replace the one here, a VirtualService elsewhere may bind
a host that is provided here. This follows names, as Istio resolves them, one step from what is
asked for and, through delegates, to their end. It does not go on from there, or it would end with
all of the mesh.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import covers, hosts_called, is_wildcard, namespace_of, overlap
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService, delegate_of

CONFIG_KINDS = ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", *unread.KINDS)
"""The kinds whose objects bear on namespaces other than their own."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

Selector = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class References:
    """What is to be read, and which objects of CONFIG_KINDS matter of those that were.

    `namespaces` are to be read in full, `config_namespaces` for CONFIG_KINDS only. `gateways` are
    the labels of the pods that the Gateways configure; `gateway_namespaces` where those Gateways
    are. `related` are the objects of CONFIG_KINDS that matter.
    """

    namespaces: frozenset[str]
    config_namespaces: frozenset[str]
    gateways: frozenset[Selector]
    gateway_namespaces: frozenset[str]
    related: frozenset[ResourceId]


def references(
    resources: Iterable[Resource],
    asked: Collection[str],
    config: MeshConfig,
    called: Collection[str] = (),
) -> References:
    """What the namespaces `asked` have to do with, as far as `resources` tell.

    `called` are hosts as clients in those namespaces write them: short names, too. More may be
    found once that has been read: ask again until nothing is new.
    """
    mesh = Snapshot(resources, config)
    domain = config.domain
    asked_hosts = [f"*.{namespace}.svc.{domain}" for namespace in asked]
    called_hosts = {found for host in called for found in hosts_called(host, asked, domain)}

    def is_asked(host: str) -> bool:
        return (
            host in called_hosts
            or any(overlap(pattern, host) for pattern in asked_hosts)
            or (is_wildcard(host) and any(covers(host, one) for one in called_hosts))
        )

    virtual_services = _virtual_services(mesh, asked, is_asked)
    sent = {host for vs in virtual_services for host in _destinations(vs)}
    hosts = sent | {host for vs in virtual_services for host in vs.hosts}

    def matters(host: str) -> bool:
        if is_wildcard(host):
            return is_asked(host) or any(covers(host, one) for one in hosts)
        return host in hosts or is_asked(host)

    rules = [
        rule for rule in mesh.destination_rules.all if rule.namespace in asked or matters(rule.host)
    ]
    entries = [
        entry for entry in mesh.registry.entries if entry.namespace in asked or matters(entry.host)
    ]
    namespaces = {*asked, config.root_namespace, *(rule.namespace for rule in rules)}
    namespaces |= {entry.namespace for entry in entries if entry.selector}
    provided = hosts | called_hosts | {rule.host for rule in rules if rule.namespace in asked}
    namespaces |= {found for host in provided if (found := namespace_of(host, domain))}

    named = {name for vs in virtual_services for name in vs.gateways if name != MESH}
    gateways = [
        gateway
        for gateway in mesh.gateways.all
        if gateway.id in named or gateway.resource.namespace in asked
    ]
    related = {vs.resource.id for vs in virtual_services}
    related |= {rule.resource.id for rule in rules}
    related |= {entry.resource.id for entry in entries}
    related |= {gateway.resource.id for gateway in gateways}
    related |= set(mesh.unread.concerning(asked, hosts | called_hosts))
    config_namespaces = {name.partition("/")[0] for name in named}
    for vs in virtual_services:
        config_namespaces |= {key[0] for rule in vs.own_http_rules if (key := delegate_of(rule))}
    return References(
        frozenset(filter(is_namespace, namespaces)),
        frozenset(filter(is_namespace, config_namespaces)),
        frozenset(tuple(sorted(gateway.selector.items())) for gateway in gateways)
        - frozenset([()]),
        frozenset(filter(is_namespace, (gateway.resource.namespace for gateway in gateways))),
        frozenset(related),
    )


def is_namespace(name: str) -> bool:
    """Whether a namespace can have that name. No other becomes a part of a request's path."""
    return len(name) <= 63 and _LABEL.fullmatch(name) is not None


def _virtual_services(
    mesh: Snapshot, asked: Collection[str], is_asked: Callable[[str], bool]
) -> list[VirtualService]:
    """Those of the namespaces asked for, those that meet them, and the delegates of both."""
    own = [vs for vs in mesh.virtual_services.all if vs.namespace in asked]
    bound = {(gateway, host) for vs in own for gateway in vs.gateways for host in vs.hosts}
    bound_hosts = {host for _, host in bound}
    sent = {host for vs in own for host in _destinations(vs)}

    def meets(vs: VirtualService) -> bool:
        for host in vs.hosts:
            if any((gateway, host) in bound for gateway in vs.gateways):
                return True
            if not is_wildcard(host):
                if host in sent or is_asked(host):
                    return True
            elif vs.on_mesh and (is_asked(host) or any(covers(host, one) for one in sent)):
                return True
        return (
            any(host in bound_hosts or is_asked(host) for host in _destinations(vs))
            or any(gateway.partition("/")[0] in asked for gateway in vs.gateways)
            or any((key := delegate_of(rule)) and key[0] in asked for rule in vs.own_http_rules)
        )

    found = {
        vs.resource.id: vs for vs in mesh.virtual_services.all if vs.namespace in asked or meets(vs)
    }
    pending = list(found.values())
    while pending:
        for rule in pending.pop().own_http_rules:
            key = delegate_of(rule)
            delegate = mesh.virtual_services.by_name.get(key) if key else None
            if delegate is not None and delegate.resource.id not in found:
                found[delegate.resource.id] = delegate
                pending.append(delegate)
    return list(found.values())


def _destinations(vs: VirtualService) -> set[str]:
    return {destination.host for destination in vs.destinations}
