"""Which DestinationRule a client's proxy gets for a host, and which subsets it defines.

Models `PushContext.destinationRule`: one bucket only, that of the client's namespace, else the
one of the Service's namespace, else the one of the root namespace; within it the most specific
host only; rules of one host in one namespace are joined, the older keeping a name that both define.
A client in the root namespace (an ingress gateway, often) starts at the Service's namespace, unless
a rule of its own is private. A rule with a workloadSelector is for those clients of its namespace,
with the rules for all joined behind it; from the others it hides what other namespaces have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.hosts import HostMap, fqdn
from kubectl_mesh.mesh.resource import Path, Resource
from kubectl_mesh.mesh.visibility import Export, export_of


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    name: str
    labels: Mapping[str, str]
    rule: DestinationRule
    path: Path
    has_policy: bool


class DestinationRule:
    """A DestinationRule with its host fully qualified."""

    def __init__(self, resource: Resource, host: str, export: Export) -> None:
        self.resource = resource
        self.namespace = resource.namespace
        self.host = host
        self.export = export
        self.subsets = tuple(self._subsets())

    def _subsets(self) -> Iterator[Subset]:
        for index, subset in enumerate(self.resource.spec.get("subsets") or ()):
            if subset.get("name"):
                yield Subset(
                    subset["name"],
                    subset.get("labels") or {},
                    self,
                    ("spec", "subsets", index),
                    bool(subset.get("trafficPolicy")),
                )

    @property
    def is_private(self) -> bool:
        """Whether no namespace but its own can see it."""
        return not self.export.everyone and self.export.namespaces <= {self.namespace}

    @property
    def workload_selector(self) -> Mapping[str, str] | None:
        """The labels of the client pods that it is for; None for all clients."""
        selector = self.resource.spec.get("workloadSelector")
        return None if selector is None else selector.get("matchLabels") or {}


@dataclass(frozen=True)
class Lookup:
    """What a client namespace gets for a host: the rules that are joined, and all their subsets."""

    rules: tuple[DestinationRule, ...]

    @cached_property
    def subsets(self) -> Mapping[str, Subset]:
        found: dict[str, Subset] = {}
        for rule in self.rules:
            for subset in rule.subsets:
                found.setdefault(subset.name, subset)
        return found

    def policy(self, subset: Subset | None, port: int) -> Mapping[str, Any]:
        """What holds for connections to a port, of a subset or of all pods.

        Models `MergeSubsetTrafficPolicy`: the settings of a port inherit nothing that could be set
        for it; of a subset's policy each field that is stated takes the place of the top one's.
        """
        stated = (rule.resource.spec.get("trafficPolicy") for rule in self.rules)
        found = _at_port(next((each for each in stated if each is not None), {}), port)
        if subset is None:
            return found
        own = subset.rule.resource.spec["subsets"][subset.path[-1]].get("trafficPolicy") or {}
        if _port_settings(own, port) is not None:
            found = {key: value for key, value in found.items() if key not in _BY_PORT}
        return {**found, **_at_port(own, port)}


_BY_PORT = ("connectionPool", "loadBalancer", "outlierDetection", "tls")
"""What can be set for a port."""


def _port_settings(policy: Mapping[str, Any], port: int) -> Mapping[str, Any] | None:
    listed = policy.get("portLevelSettings")
    for each in listed if isinstance(listed, list) else ():
        named = each.get("port") if isinstance(each, dict) else None
        if isinstance(named, dict) and named.get("number") == port:
            found: Mapping[str, Any] = each
            return found
    return None


def _at_port(policy: Mapping[str, Any], port: int) -> dict[str, Any]:
    settings = _port_settings(policy, port)
    found = {key: value for key, value in policy.items() if key != "portLevelSettings"}
    if settings is not None:
        found = {key: value for key, value in found.items() if key not in _BY_PORT}
        found |= {key: value for key, value in settings.items() if key != "port"}
    return found


class _Bucket:
    """The rules of one namespace, joined by host, as one group of clients gets them."""

    def __init__(self, rules: Iterable[DestinationRule]) -> None:
        self.by_host = HostMap((rule.host, rule) for rule in rules)

    def get(self, host: str) -> tuple[DestinationRule, ...]:
        return tuple(self.by_host.most_specific(host))

    def get_for(self, host: str, labels: Mapping[str, str]) -> tuple[DestinationRule, ...] | None:
        """As `get`, as clients with some labels have it; None where there is none for anybody."""
        found = self.get(host)
        if not found:
            return None
        for_all = tuple(rule for rule in found if rule.workload_selector is None)
        for rule in found:
            selector = rule.workload_selector
            if selector is not None and selector.items() <= labels.items():
                alike = (each for each in found if each.workload_selector == selector)
                return (*alike, *for_all)
        return for_all

    def get_exported(self, host: str, client: str) -> tuple[DestinationRule, ...]:
        """The rules for a host if they are exported to `client`.

        The oldest exportTo that is stated holds for all that are joined, and a more specific host
        that is not exported hides a wildcard one that is.
        """
        rules = self.get(host)
        stated = next((rule for rule in rules if rule.resource.spec.get("exportTo")), None)
        return rules if stated is None or stated.export.reaches(client) else ()


class DestinationRules:
    """Every DestinationRule of a mesh."""

    def __init__(self, resources: Iterable[Resource], config: MeshConfig) -> None:
        self.config = config
        self.all = tuple(
            DestinationRule(
                resource,
                fqdn(resource.spec.get("host") or "", resource.namespace, config.domain),
                export_of(resource, config.destination_rule_export),
            )
            for resource in sorted(resources, key=lambda resource: resource.age_key)
        )

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[DestinationRule, ...]]:
        grouped: dict[str, list[DestinationRule]] = defaultdict(list)
        for rule in self.all:
            grouped[rule.namespace].append(rule)
        return {namespace: tuple(rules) for namespace, rules in grouped.items()}

    @cached_property
    def _by_host(self) -> HostMap[DestinationRule]:
        return HostMap((rule.host, rule) for rule in self.all)

    @cached_property
    def _local(self) -> Mapping[str, _Bucket]:
        """By namespace, what its own clients get; in the root namespace, private rules alone."""
        return {
            namespace: _Bucket(rule for rule in rules if rule.workload_selector is None)
            for namespace, rules in self._own.items()
        }

    @cached_property
    def _chosen(self) -> Mapping[str, _Bucket]:
        """As `_local`, with the rules for chosen client pods."""
        return {namespace: _Bucket(rules) for namespace, rules in self._own.items()}

    @cached_property
    def _own(self) -> Mapping[str, list[DestinationRule]]:
        root = self.config.root_namespace
        return {
            namespace: [
                rule
                for rule in rules
                if rule.workload_selector is not None
                or (rule.export.reaches(namespace) and (namespace != root or rule.is_private))
            ]
            for namespace, rules in self.by_namespace.items()
        }

    @cached_property
    def _exported(self) -> Mapping[str, _Bucket]:
        """By namespace, what it offers to clients of others."""
        return {
            namespace: _Bucket(
                rule for rule in rules if rule.workload_selector is None and not rule.is_private
            )
            for namespace, rules in self.by_namespace.items()
        }

    @cached_property
    def _subsets_by_name(self) -> Mapping[str, HostMap[Subset]]:
        grouped: dict[str, list[tuple[str, Subset]]] = defaultdict(list)
        for rule in self.all:
            for subset in rule.subsets:
                grouped[subset.name].append((rule.host, subset))
        return {name: HostMap(subsets) for name, subsets in grouped.items()}

    def defining(self, host: str, name: str) -> Iterator[Subset]:
        """Every subset of a name, in any namespace, of a rule whose host means `host`."""
        subsets = self._subsets_by_name.get(name)
        for found in subsets.covering(host) if subsets else ():
            yield from found

    def covering(self, host: str) -> Iterator[DestinationRule]:
        """Every rule, in any namespace, whose host means `host`."""
        for rules in self._by_host.covering(host):
            yield from rules

    def lookup(
        self,
        host: str,
        client_namespace: str,
        service_namespace: str | None,
        labels: Mapping[str, str] | None = None,
    ) -> Lookup:
        """What proxies of `client_namespace` get for a fully qualified host.

        `service_namespace` is that of the Service or ServiceEntry; None where nothing provides
        the host. `labels` are those of the proxies' pods; without them rules for chosen client pods
        (workloadSelector) are left out.
        """
        rules: tuple[DestinationRule, ...] = ()
        if labels is None:
            local = self._local.get(client_namespace)
            rules = local.get(host) if local else ()
        elif client_namespace in self._chosen:
            chosen = self._chosen[client_namespace].get_for(host, labels)
            if chosen is not None:
                return Lookup(chosen)
        for namespace in (service_namespace, self.config.root_namespace):
            if rules:
                break
            exported = self._exported.get(namespace) if namespace else None
            rules = exported.get_exported(host, client_namespace) if exported else ()
        return Lookup(rules)
