"""The hosts that Istio knows: Kubernetes Services and ServiceEntries.

Models istiod's service registry: a Service is `name.namespace.svc.<domain>`, a ServiceEntry gives
each of its hosts, wildcards included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.hosts import HostMap
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS, SNIFFED, entry_protocol, protocol_of
from kubectl_mesh.mesh.resource import Path, Resource, ResourceId
from kubectl_mesh.mesh.visibility import Export, default_export, export_of

_OF_SERVICES: Mapping[str, Any] = {
    "publishNotReadyAddresses": False,
    "internalTrafficPolicy": "Cluster",
    "trafficDistribution": None,
}
"""The settings of a Service, with what the API server fills in."""
_OF_ENTRIES: Mapping[str, Any] = {"resolution": "NONE", "location": "MESH_EXTERNAL"}
"""What Istio takes a ServiceEntry for that does not say it."""
_APART = ("hosts", "addresses", "ports", "exportTo", "workloadSelector")


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a host: the protocol is one of ports.PROTOCOLS or ports.SNIFFED.

    `target` is the number, or the name, of the port of the pods that it leads to.
    """

    number: int
    name: str
    protocol: str
    path: Path
    target: int | str

    @property
    def takes_http_routes(self) -> bool:
        """Whether http rules have an effect on it."""
        return self.protocol in HTTP_PROTOCOLS or self.protocol == SNIFFED

    def __str__(self) -> str:
        return f"{self.number} ({self.name})" if self.name else str(self.number)


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A host of the registry, and the Service or ServiceEntry that provides it."""

    host: str
    resource: Resource
    ports: tuple[Port, ...]
    export: Export
    namespace: str = field(init=False)
    is_kubernetes: bool = field(init=False)
    is_external_name: bool = field(init=False)
    selector: Mapping[str, str] = field(init=False)
    """The labels of the pods behind it; empty where pods are not selected by label."""

    def __post_init__(self) -> None:
        spec = self.resource.spec
        is_kubernetes = self.resource.kind == "Service"
        is_external_name = is_kubernetes and spec.get("type") == "ExternalName"
        if is_kubernetes:
            selector = None if is_external_name else spec.get("selector")
        else:
            selector = (spec.get("workloadSelector") or {}).get("labels")
        for name, value in (
            ("namespace", self.resource.namespace),
            ("is_kubernetes", is_kubernetes),
            ("is_external_name", is_external_name),
            ("selector", selector or {}),
        ):
            object.__setattr__(self, name, value)

    @property
    def is_headless(self) -> bool:
        return self.is_kubernetes and self.resource.spec.get("clusterIP") == "None"

    @property
    def cluster_ip(self) -> str | None:
        """The address at which a Kubernetes Service is called; None where it has none."""
        found: str | None = self.resource.spec.get("clusterIP") if self.is_kubernetes else None
        return found if found and found != "None" else None

    @property
    def external_name(self) -> str | None:
        """The name that a Service of type ExternalName stands for."""
        return self.resource.spec.get("externalName") if self.is_external_name else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What counts of it besides its pods, addresses and ports; defaults are left out."""
        spec = self.resource.spec
        if self.is_kubernetes:
            defaults = _OF_SERVICES
            found = {key: spec.get(key) for key in defaults} | {"externalName": self.external_name}
        else:
            defaults = _OF_ENTRIES
            found = {key: value for key, value in spec.items() if key not in _APART}
        return {
            key: value for key, value in found.items() if value not in (None, [], defaults.get(key))
        }

    def port(self, number: int) -> Port | None:
        """The port of a number; None where proxies have none: they take no UDP."""
        found = (each for each in self.ports if each.number == number and each.protocol != "udp")
        return next(found, None)


class Registry:
    """Every host that is provided, by name."""

    def __init__(
        self,
        services: Iterable[Resource],
        entries: Iterable[Resource],
        config: MeshConfig,
    ) -> None:
        self.services = tuple(_from_service(resource, config) for resource in services)
        self.entries = tuple(
            service for resource in entries for service in _from_entry(resource, config)
        )

    @cached_property
    def _by_host(self) -> HostMap[Service]:
        return HostMap((service.host, service) for service in (*self.services, *self.entries))

    @cached_property
    def by_name(self) -> Mapping[str, tuple[Service, ...]]:
        """The Kubernetes Services of a short name, in any namespace."""
        grouped: dict[str, list[Service]] = defaultdict(list)
        for service in self.services:
            grouped[service.resource.name].append(service)
        return {name: tuple(members) for name, members in grouped.items()}

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[Service, ...]]:
        """The Kubernetes Services of each namespace."""
        grouped: dict[str, list[Service]] = defaultdict(list)
        for service in self.services:
            grouped[service.namespace].append(service)
        return {namespace: tuple(members) for namespace, members in grouped.items()}

    @cached_property
    def by_resource(self) -> Mapping[ResourceId, tuple[Service, ...]]:
        """What each Service or ServiceEntry provides."""
        grouped: dict[ResourceId, list[Service]] = defaultdict(list)
        for service in (*self.services, *self.entries):
            grouped[service.resource.id].append(service)
        return {key: tuple(members) for key, members in grouped.items()}

    def by_host(self, host: str) -> Sequence[Service]:
        """What provides this very host, a wildcard only if it is written as one."""
        return self._by_host.by_pattern.get(host, ())

    def stood_for(self, host: str) -> Iterator[str]:
        """The host that a Service of type ExternalName is another name of, if it is provided.

        Models `resolveServiceAliases`: that may be such a Service itself, and so on.
        """
        seen: set[str] = set()
        while host not in seen:
            seen.add(host)
            named = [each.external_name for each in self.by_host(host) if each.external_name]
            if not named:
                break
            host = named[0]
        if len(seen) > 1 and self.by_host(host) and not self.by_host(host)[0].is_external_name:
            yield host

    @cached_property
    def by_address(self) -> Mapping[str, Service]:
        """The Kubernetes Services by their ClusterIP."""
        return {address: service for service in self.services if (address := service.cluster_ip)}

    def on_port(self, number: int) -> Sequence[Service]:
        """What has a port of this number."""
        return self._by_port.get(number, ())

    @cached_property
    def _by_port(self) -> Mapping[int, list[Service]]:
        grouped: dict[int, list[Service]] = defaultdict(list)
        for service in (*self.services, *self.entries):
            for number in {port.number for port in service.ports}:
                grouped[number].append(service)
        return grouped

    def providers(self, host: str) -> tuple[Service, ...]:
        """What provides a fully qualified host, exactly or by a ServiceEntry's wildcard."""
        return tuple(self._by_host.most_specific(host))

    def wildcard_over(self, host: str) -> Service | None:
        """The ServiceEntry whose wildcard covers a host that nothing else provides."""
        found = next(iter(self.providers(host)), None)
        return found if found and found.host != host else None

    def covered_by(self, pattern: str) -> Iterator[Service]:
        """The Services and entries whose host a pattern means; all are looked at for a wildcard."""
        if not pattern.startswith("*"):
            yield from self.providers(pattern)
            return
        suffix = pattern[1:]
        for service in (*self.services, *self.entries):
            if service.host.endswith(suffix):
                yield service


def _from_service(resource: Resource, config: MeshConfig) -> Service:
    ports = tuple(
        Port(
            port.get("port") or 0,
            port.get("name") or "",
            protocol_of(port),
            ("spec", "ports", index),
            port.get("targetPort") or port.get("port") or 0,
        )
        for index, port in enumerate(resource.spec.get("ports") or ())
    )
    host = f"{resource.name}.{resource.namespace}.svc.{config.domain}"
    return Service(host, resource, ports, export_of(resource, default_export(resource, config)))


def _from_entry(resource: Resource, config: MeshConfig) -> Iterator[Service]:
    ports = tuple(
        Port(
            port.get("number") or 0,
            port.get("name") or "",
            entry_protocol(port),
            ("spec", "ports", index),
            port.get("targetPort") or port.get("number") or 0,
        )
        for index, port in enumerate(resource.spec.get("ports") or ())
    )
    export = export_of(resource, default_export(resource, config))
    for host in resource.spec.get("hosts") or ():
        yield Service(host, resource, ports, export)


def endpoint_labels(service: Service) -> Iterator[Mapping[str, str]]:
    """The labels of the endpoints that a ServiceEntry lists itself."""
    if not service.is_kubernetes:
        for endpoint in service.resource.spec.get("endpoints") or ():
            yield endpoint.get("labels") or {}
