"""Which DestinationRule a client's proxy gets for a host, and which subsets it defines.

Models `PushContext.destinationRule`: one bucket only, that of the client's namespace, else the
one of the Service's namespace, else the one of the root namespace; within it the most specific
host only. A client in the root namespace (an ingress gateway, often) starts at the Service's
namespace, unless a rule of its own is private.

The rules of one host in one namespace are joined into entries (`mergeDestinationRule`), the older
keeping a name that both define, and a client gets one entry. Since 1.24 rules whose exportTo is
written differently are entries apart (`EXPORTS_APART`), so that a client may get one rule and lose
another that is exported to it. A rule with a workloadSelector is for those clients of its
namespace; from the others it hides what other namespaces have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.hosts import HostMap, fqdn
from kubectl_mesh.mesh.resource import Path, Resource
from kubectl_mesh.mesh.versions import EXPORTS_APART, OLDEST_EXPORTS, Istio
from kubectl_mesh.mesh.visibility import Export, default_export, export_of


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    name: str
    labels: Mapping[str, str]
    rule: DestinationRule
    path: Path
    has_policy: bool


class DestinationRule:
    """A DestinationRule with its host fully qualified.

    `stated` is its exportTo as written, empty where it has none, by which rules are joined;
    `export` is what that means. A rule with a workloadSelector has `.`, whatever it states.
    """

    def __init__(self, resource: Resource, config: MeshConfig) -> None:
        self.resource = resource
        self.namespace = resource.namespace
        self.host = fqdn(resource.spec.get("host") or "", resource.namespace, config.domain)
        self.stated = frozenset(resource.spec.get("exportTo") or ())
        self.export = export_of(resource, default_export(resource, config))
        if self.workload_selector is not None:
            self.stated = frozenset((".",))
            self.export = Export(False, frozenset((self.namespace,)))
        self.is_private = self.stated in ({"."}, {self.namespace}) or not (
            self.stated or self.export.everyone
        )
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
    def workload_selector(self) -> Mapping[str, str] | None:
        """The labels of the client pods that it is for; None for all clients."""
        selector = self.resource.spec.get("workloadSelector")
        return None if selector is None else selector.get("matchLabels") or {}

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether it is for pods with some labels of its namespace."""
        return (self.workload_selector or {}).items() <= labels.items()

    @property
    def is_local(self) -> bool:
        """Whether clients of its own namespace have it first of all."""
        return not self.stated or not self.stated.isdisjoint(("*", ".", self.namespace))


@dataclass(frozen=True)
class Lost:
    """A rule that is exported to a client, which does not get it because of another one.

    They are `joined`, and the other one is not for the client; or they are not, and the client gets
    the other one.
    """

    rule: DestinationRule
    to: DestinationRule
    joined: bool

    @property
    def why(self) -> str:
        rule, to = self.rule.resource, self.to.resource
        if self.joined and self.to.workload_selector is not None:
            return f"{rule} counts only for the pods that the workloadSelector of {to} selects"
        if self.joined:
            return f"{rule} is joined with {to}, whose exportTo holds for both"
        if self.to.workload_selector is not None:
            return f"{to}, which selects the pod, takes the place of {rule}"
        return f"{to} takes the place of {rule}, since Istio 1.24: their exportTo differ"

    @property
    def cure(self) -> str:
        rule, to = self.rule.resource, self.to.resource
        if self.to.workload_selector is not None:
            return f"define the subset in {to}, too, and remove exportTo from {rule}"
        return f"give {rule} and {to} the same exportTo, or make one DestinationRule of them"

    def defines(self, subset: str) -> bool:
        return any(each.name == subset for each in self.rule.subsets)


@dataclass(frozen=True)
class Lookup:
    """What a client namespace gets for a host: the rules that are joined, and all their subsets.

    `lost` are rules for the same host, in a namespace that is looked at, that the client would have
    but for the exportTo or the workloadSelector of others.
    """

    rules: tuple[DestinationRule, ...]
    lost: tuple[Lost, ...] = ()

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


class _Entry:
    """Rules of one host that are joined; the exportTo of `by` holds for all of them."""

    def __init__(self, rule: DestinationRule) -> None:
        self.rules = [rule]
        self.by = rule
        self.selector = rule.workload_selector

    def join(self, rule: DestinationRule, istio: Istio) -> None:
        self.rules.append(rule)
        if not self.by.stated and not istio.has(OLDEST_EXPORTS):
            self.by = rule


def _entries(rules: Sequence[DestinationRule], istio: Istio) -> list[_Entry]:
    """The entries that istiod makes of the rules of one host.

    It takes those with a workloadSelector first, then the oldest, and holds each to all entries
    that it has made so far: the last of them decides whether the rule is an entry of its own too.
    """
    found: list[_Entry] = []
    for rule in sorted(rules, key=lambda rule: rule.workload_selector is None):
        apart = True
        for entry in found:
            if istio.has(EXPORTS_APART):
                stated = entry.by.stated
                apart = rule.stated != stated
                if apart and not (stated and stated <= rule.stated):
                    continue
            if rule.workload_selector == entry.selector:
                apart = False
            elif rule.workload_selector is not None and entry.selector is not None:
                apart = apart or istio.has(OLDEST_EXPORTS)
                continue
            entry.join(rule, istio)
        if apart:
            found.append(_Entry(rule))
    return found


class _Bucket:
    """The rules of one namespace, joined by host."""

    def __init__(self, rules: Iterable[DestinationRule], istio: Istio) -> None:
        self.rules = HostMap((rule.host, rule) for rule in rules)
        self._istio = istio
        self._made: dict[str, list[_Entry]] = {}

    def _entries(self, rules: Sequence[DestinationRule]) -> list[_Entry]:
        host = rules[0].host
        if host not in self._made:
            self._made[host] = _entries(rules, self._istio)
        return self._made[host]

    def get(self, host: str, labels: Mapping[str, str] | None) -> Lookup | None:
        """What clients of the namespace get, by their labels; None where it has no rule for them.

        Without labels clients that no rule selects; they may be all that there are, so that rules
        for others alone do not count.
        """
        found = self.rules.most_specific(host)
        if not found or (labels is None and all(r.workload_selector is not None for r in found)):
            return None
        return _chosen(self._entries(found), None, labels)

    def get_exported(self, host: str, client: str) -> Lookup:
        """What clients of another namespace get.

        A more specific host that is not exported to them hides a wildcard one that is.
        """
        found = self.rules.most_specific(host)
        return _chosen(self._entries(found), client, None) if found else Lookup(())


def _chosen(
    entries: Sequence[_Entry], client: str | None, labels: Mapping[str, str] | None
) -> Lookup:
    """The entry that selects a client, else the last one for all; and what it lacks of the others.

    `client` is the client's namespace where it is another one than that of the rules.
    """

    def reaches(rule: DestinationRule) -> bool:
        return client is None or not rule.stated or bool({"*", client} & rule.stated)

    chosen: _Entry | None = None
    for entry in entries:
        if entry.selector is None:
            chosen = entry if reaches(entry.by) else chosen
        elif labels is not None and entry.by.selects(labels):
            chosen = entry
            break
    lost: dict[DestinationRule, Lost] = {}
    for entry in entries:
        for rule in entry.rules:
            selected = rule.workload_selector is None or (
                labels is not None and rule.selects(labels)
            )
            if reaches(rule) and selected and (chosen is None or rule not in chosen.rules):
                lost.setdefault(rule, Lost(rule, (chosen or entry).by, chosen is None))
    return Lookup(tuple(chosen.rules) if chosen else (), tuple(lost.values()))


class DestinationRules:
    """Every DestinationRule of a mesh."""

    def __init__(self, resources: Iterable[Resource], config: MeshConfig) -> None:
        self.config = config
        self.all = tuple(
            DestinationRule(resource, config)
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
    def selecting(self) -> Mapping[str, list[DestinationRule]]:
        """By namespace, the rules with a workloadSelector."""
        found: dict[str, list[DestinationRule]] = defaultdict(list)
        for rule in self.all:
            if rule.workload_selector is not None:
                found[rule.namespace].append(rule)
        return found

    @cached_property
    def _local(self) -> Mapping[str, _Bucket]:
        """By namespace, what its own clients get; in the root namespace, private rules alone."""
        root = self.config.root_namespace
        return {
            namespace: _Bucket(
                (r for r in rules if (r.is_private if namespace == root else r.is_local)),
                self.config.istio,
            )
            for namespace, rules in self.by_namespace.items()
        }

    @cached_property
    def _exported(self) -> Mapping[str, _Bucket]:
        """By namespace, what it offers to clients of others."""
        return {
            namespace: _Bucket((r for r in rules if not r.is_private), self.config.istio)
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
        local = self._local.get(client_namespace)
        own = local.get(host, labels) if local else None
        if own is not None:
            return own
        lost: tuple[Lost, ...] = ()
        for namespace in dict.fromkeys((service_namespace, self.config.root_namespace)):
            exported = self._exported.get(namespace) if namespace else None
            if exported is not None:
                found = exported.get_exported(host, client_namespace)
                lost += found.lost
                if found.rules:
                    return Lookup(found.rules, lost)
        return Lookup((), lost)
