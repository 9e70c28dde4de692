"""The rules of a VirtualService as istiod works with them: names resolved, delegates merged.

Models `resolveVirtualServiceShortnames` and `mergeVirtualServicesIfNeeded` of istiod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.virtual_services import (
    Destination,
    Protocol,
    VirtualService,
    VirtualServices,
)
from kubectl_mesh.routing.matching import Conditions, conditions

_INHERITED = (
    "rewrite",
    "directResponse",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrorPercent",
    "mirrorPercentage",
    "corsPolicy",
    "mirrors",
    "headers",
)
"""The fields that a delegate's rule takes from the root's, whole, where it has none."""


@dataclass(frozen=True)
class Match:
    """One match of a rule. `gateways` are resolved; empty stands for those of the VirtualService.

    `index` is its place in the rule's list, of the object that wrote it.
    """

    data: Mapping[str, Any]
    gateways: frozenset[str]
    index: int

    @cached_property
    def conditions(self) -> Conditions:
        return conditions(self.data)

    @property
    def name(self) -> str:
        return self.data.get("name") or ""

    @property
    def port(self) -> int:
        return self.data.get("port") or 0

    @property
    def source_labels(self) -> Mapping[str, str]:
        return self.data.get("sourceLabels") or {}

    @property
    def source_namespace(self) -> str:
        return self.data.get("sourceNamespace") or ""

    @property
    def server_names(self) -> tuple[str, ...]:
        """Those that a tls match asks for."""
        return tuple(self.data.get("sniHosts") or ())

    @property
    def subnets(self) -> tuple[str, ...]:
        """The destination's addresses that a tcp or tls match asks for; none for any."""
        return tuple(self.data.get("destinationSubnets") or ())

    def holds_for(self, proxy: Proxy, gateway: str, port: int) -> bool:
        """Whether a tcp or tls match holds for what a proxy takes on a port, of a Gateway or MESH.

        Models `matchTLS` and `matchTCP`, where naming gateways does not switch the source off, and
        `l4SingleMatch`, which does not ask for a source.
        """
        if (self.port or port) != port or (self.gateways and gateway not in self.gateways):
            return False
        return proxy.is_gateway or (
            self.source_labels.items() <= proxy.labels.items()
            and self.source_namespace in ("", proxy.namespace)
        )


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule. `owner` is the object that it stands in, at `path`: the root, or a delegate.

    `data` is the rule with host names written out; `matches` is None where it has no match at all.
    """

    owner: VirtualService
    path: Path
    data: Mapping[str, Any]
    matches: tuple[Match, ...] | None

    @property
    def name(self) -> str:
        return self.data.get("name") or ""

    @property
    def routes(self) -> tuple[Destination, ...]:
        """Where requests are sent, copies and what has no weight left out."""
        return self.owner.routes_of(self.path)

    def path_of(self, match: Match) -> Path:
        """Where a match of the rule stands in its owner."""
        return (*self.path, "match", match.index)

    @property
    def index(self) -> int:
        """Its place in its owner's list."""
        index = self.path[-1]
        assert isinstance(index, int)
        return index


def own_rules(vs: VirtualService, protocol: Protocol = "http") -> tuple[Rule, ...]:
    """The rules as they stand in the object, delegating ones included, names resolved."""
    rules = []
    for index, data in enumerate(vs.resource.spec.get(protocol) or ()):
        written = data.get("match")
        matches = tuple(
            Match(match, vs.resolve_gateways(match.get("gateways") or ()), number)
            for number, match in enumerate(written or ())
        )
        resolved = _with_hosts(data, vs)
        rules.append(Rule(vs, ("spec", protocol, index), resolved, matches if written else None))
    return tuple(rules)


def connection_rules(vs: VirtualService) -> tuple[Rule, ...]:
    """The tcp rules of a VirtualService, and then its tls rules."""
    return (*own_rules(vs, "tcp"), *own_rules(vs, "tls"))


def _with_hosts(rule: Mapping[str, Any], vs: VirtualService) -> dict[str, Any]:
    def resolve(destination: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if not destination or not destination.get("host"):
            return destination or {}
        return {**destination, "host": vs.resolve_host(destination["host"])}

    found = {key: value for key, value in rule.items() if key != "match"}
    if rule.get("route"):
        found["route"] = [
            {**route, "destination": resolve(route.get("destination"))} for route in rule["route"]
        ]
    if rule.get("mirror"):
        found["mirror"] = resolve(rule["mirror"])
    if rule.get("mirrors"):
        found["mirrors"] = [
            {**mirror, "destination": resolve(mirror.get("destination"))}
            for mirror in rule["mirrors"]
        ]
    return found


def merged_rules(virtual_services: VirtualServices, root: VirtualService) -> tuple[Rule, ...]:
    """A root's rules, each delegating one replaced by its delegate's rules, cut down to its match.

    A delegate that does not exist, is no delegate or is not exported to the root's namespace
    gives no rule; nor does a rule of it whose match is not within the root's.
    """
    return tuple(
        rule for own in own_rules(root) for rule in handed_over(virtual_services, root, own)
    )


def handed_over(
    virtual_services: VirtualServices, root: VirtualService, rule: Rule
) -> Iterator[Rule]:
    """What a rule of a root comes to: itself, or the rules of its delegate. See merged_rules."""
    named = rule.data.get("delegate")
    if named is None:
        yield rule
        return
    key = (named.get("namespace") or root.namespace, named.get("name") or "")
    delegate = virtual_services.by_name.get(key)
    if delegate and delegate.is_delegate and delegate.export.reaches(root.namespace):
        for inner in own_rules(delegate):
            if (joined := merge(rule, inner)) is not None:
                yield joined


def merge(root: Rule, delegate: Rule) -> Rule | None:
    """A delegate's rule under a root's rule; None where it is dropped, as one match is outside."""
    matches: tuple[Match, ...] | None
    if outside(root, delegate):
        return None
    if root.matches is None or delegate.matches is None:
        matches = delegate.matches if root.matches is None else root.matches
    else:
        matches = tuple(
            _merge_match(outer, inner)
            for inner in delegate.matches
            for outer in root.matches
            if not conflict(outer, inner)
        )
    data = {key: root.data[key] for key in _INHERITED if root.data.get(key) is not None}
    data |= {key: value for key, value in delegate.data.items() if value is not None}
    data["name"] = "-".join(filter(None, (root.name, delegate.name)))
    return replace(delegate, data=data, matches=matches)


def outside(root: Rule, delegate: Rule) -> Match | None:
    """The first match of a delegate's rule that is within no match of a root's; None if all are."""
    if root.matches is None:
        return None
    for inner in delegate.matches or ():
        if all(conflict(outer, inner) for outer in root.matches):
            return inner
    return None


def _merge_match(root: Match, delegate: Match) -> Match:
    outer, inner = root.data, delegate.data
    merged = {**inner}
    for field in ("uri", "scheme", "method", "authority", "port", "sourceNamespace"):
        if not inner.get(field) and outer.get(field):
            merged[field] = outer[field]
    for field in ("headers", "withoutHeaders", "queryParams", "sourceLabels"):
        merged[field] = {**(outer.get(field) or {}), **(inner.get(field) or {})}
    merged["name"] = "-".join(filter(None, (root.name, delegate.name)))
    return Match(merged, delegate.gateways or root.gateways, delegate.index)


def conflict(root: Match, delegate: Match) -> bool:
    """Models `hasConflict`: whether a delegate's match is not within a root's."""
    outer, inner = root.data, delegate.data
    pairs = [
        (outer.get(field), inner.get(field)) for field in ("uri", "scheme", "method", "authority")
    ]
    for field in ("headers", "withoutHeaders", "queryParams"):
        pairs += [
            ((outer.get(field) or {}).get(name), wanted or {})
            for name, wanted in (inner.get(field) or {}).items()
        ]
    if any(_strings_conflict(one, other) for one, other in pairs):
        return True
    if bool(outer.get("ignoreUriCase")) != bool(inner.get("ignoreUriCase")):
        return True
    if root.port and delegate.port and root.port != delegate.port:
        return True
    if root.source_namespace and delegate.source_namespace != root.source_namespace:
        return True
    if any(
        root.source_labels.get(name, value) != value
        for name, value in delegate.source_labels.items()
    ):
        return True
    both = root.gateways and delegate.gateways
    return bool(both and not delegate.gateways <= root.gateways)


def _strings_conflict(root: Mapping[str, Any] | None, leaf: Mapping[str, Any] | None) -> bool:
    """Models `stringMatchConflict`. An absent match is None; `{}` is one that demands nothing."""
    if root is None or leaf is None:
        return False
    if leaf.get("regex") or root.get("regex"):
        return True
    if root.get("exact"):
        return bool(leaf.get("prefix")) or (leaf.get("exact") or "") != root["exact"]
    if root.get("prefix"):
        for kind in ("prefix", "exact"):
            if leaf.get(kind):
                return not leaf[kind].startswith(root["prefix"])
    return True
