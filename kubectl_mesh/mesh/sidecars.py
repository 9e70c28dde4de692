"""Sidecar resources: which hosts the proxies of a workload are told of.

Models the choice of a Sidecar for a workload (`getSidecarScope`) and
`convertIstioListenerToWrapper` of istiod. Only egress and outboundTrafficPolicy are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.hosts import covers, overlap
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.versions import ANY_DYNAMIC_DNS, EGRESS_EXCLUSIONS


@dataclass(frozen=True)
class Egress:
    """What one egress listener imports: host patterns by the namespace that provides them.

    `excluded` are taken away from that. The namespace `*` stands for all. `port` is None for the
    listener of all other ports.
    """

    port: int | None
    hosts: Mapping[str, tuple[str, ...]]
    excluded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sees_virtual_service(self, namespace: str, hosts: Iterable[str]) -> bool:
        """Whether a VirtualService is imported: one of its hosts and an entry share a name."""
        patterns = _of(self.hosts, namespace)
        return any(
            any(overlap(pattern, host) for pattern in patterns)
            and not self._excludes(namespace, host)
            for host in hosts
        )

    def sees_service(self, namespace: str, host: str) -> bool:
        found = any(covers(pattern, host) for pattern in _of(self.hosts, namespace))
        return found and not self._excludes(namespace, host)

    def _excludes(self, namespace: str, host: str) -> bool:
        return any(covers(pattern, host) for pattern in _of(self.excluded, namespace))


def _of(patterns: Mapping[str, tuple[str, ...]], namespace: str) -> tuple[str, ...]:
    """Those of a namespace, and those of all."""
    return patterns.get(namespace, ()) + patterns.get("*", ())


EVERYTHING = Egress(None, {"*": ("*",)})


class Sidecars:
    """Every Sidecar of a mesh."""

    def __init__(self, resources: Iterable[Resource], config: MeshConfig) -> None:
        self._root = config.root_namespace
        self._mesh_registry_only = config.registry_only
        self._exclusions = config.istio.has(EGRESS_EXCLUSIONS)
        self._mesh_resolves_unknown = config.resolves_unknown and config.istio.has(ANY_DYNAMIC_DNS)
        self._resources = sorted(resources, key=lambda resource: resource.age_key)

    @cached_property
    def _by_namespace(self) -> Mapping[str, Sequence[Resource]]:
        grouped: dict[str, list[Resource]] = defaultdict(list)
        for resource in self._resources:
            grouped[resource.namespace].append(resource)
        return grouped

    def for_client(self, namespace: str, labels: Mapping[str, str]) -> Resource | None:
        """The Sidecar that holds for a workload: its own, its namespace's, the mesh's."""
        own: Sequence[Resource] = self._by_namespace.get(namespace, ())
        for resource in own:
            selector = selector_of(resource)
            if selector and selector.items() <= labels.items():
                return resource
        for resource in (*own, *self._by_namespace.get(self._root, ())):
            if not selector_of(resource):
                return resource
        return None

    def egress(self, namespace: str, labels: Mapping[str, str], port: int) -> Egress:
        """What a workload's proxy imports for a port."""
        found = self.listeners(namespace, labels)
        return next((each for each in found if each.port in (None, port)), Egress(None, {}))

    def listeners(self, namespace: str, labels: Mapping[str, str]) -> list[Egress]:
        """What each egress listener of a workload's proxy imports, in order."""
        sidecar = self.for_client(namespace, labels)
        listeners = (sidecar.spec.get("egress") or ()) if sidecar else ()
        return [self._egress(each, namespace) for each in listeners] or [EVERYTHING]

    def _egress(self, listener: Mapping[str, Any], namespace: str) -> Egress:
        hosts: dict[str, list[str]] = defaultdict(list)
        excluded: dict[str, list[str]] = defaultdict(list)
        for entry in listener.get("hosts") or ():
            where, slash, host = entry.partition("/")
            found = hosts
            if self._exclusions and where.startswith("~"):
                where, found = where[1:] or "*", excluded
            if slash:
                found[namespace if where == "." else where].append(host)
        port = (listener.get("port") or {}).get("number")
        return Egress(port, _fixed(hosts), _fixed(excluded))

    def registry_only(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a workload's proxy lets nothing out to hosts that the registry does not know.

        The Sidecar's outboundTrafficPolicy replaces the mesh's; without a mode it is REGISTRY_ONLY.
        """
        sidecar = self.for_client(namespace, labels)
        policy = sidecar.spec.get("outboundTrafficPolicy") if sidecar else None
        if policy is None:
            return self._mesh_registry_only
        return bool(policy.get("mode", "REGISTRY_ONLY") == "REGISTRY_ONLY")

    def resolves_unknown(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a workload's proxy resolves the hosts of HTTP that the registry does not know.

        That is a mode of the mesh's outboundTrafficPolicy, which a Sidecar's replaces.
        """
        sidecar = self.for_client(namespace, labels)
        policy = sidecar.spec.get("outboundTrafficPolicy") if sidecar else None
        return policy is None and self._mesh_resolves_unknown

    @cached_property
    def depends_on_namespace(self) -> bool:
        """Whether the mesh's default Sidecar imports other hosts into each namespace."""
        return any(
            entry.startswith(("./", "~./"))
            for resource in self._by_namespace.get(self._root, ())
            if not selector_of(resource)
            for listener in resource.spec.get("egress") or ()
            for entry in listener.get("hosts") or ()
        )


def selector_of(sidecar: Resource) -> Mapping[str, str]:
    """The labels of the workloads that a Sidecar is for; empty for all of its namespace."""
    labels: Mapping[str, str] = (sidecar.spec.get("workloadSelector") or {}).get("labels") or {}
    return {name: value or "" for name, value in labels.items()}


def _fixed(grouped: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {where: tuple(hosts) for where, hosts in grouped.items()}
