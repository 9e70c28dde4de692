"""Matches of tcp and tls rules that earlier ones of their VirtualService leave nothing to.

All that such a match demands of a connection, save for its server name and destination, is known
when istiod builds a listener: the first that holds for a proxy counts. Models
`buildSidecarOutboundTCPFilterChainOpts`, `buildSidecarOutboundTLSFilterChainOpts` and the gateway's
`l4MultiMatch`. Server names are compared as whole lists, as istiod does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.virtual_services import Protocol, VirtualService
from kubectl_mesh.routing.rules import Match, Rule, own_rules


@dataclass(frozen=True, eq=False)
class Connections:
    """One match of a tcp or tls rule, and the gateways on which it can hold; None for no match."""

    rule: Rule
    match: Match | None
    gateways: frozenset[str]

    @property
    def path(self) -> Path:
        return self.rule.path_of(self.match) if self.match else self.rule.path

    @property
    def server_names(self) -> frozenset[str]:
        return frozenset(self.match.server_names if self.match else ())

    @property
    def port(self) -> int:
        """The port that it asks for; 0 for any."""
        return self.match.port if self.match else 0

    @property
    def route(self) -> Sequence[Mapping[str, Any]]:
        """Where the rule sends connections, hosts written out."""
        return self.rule.data.get("route") or ()

    def covers(self, other: Connections) -> bool:
        """Whether it holds for all clients, ports and gateways for which `other` does."""
        return (
            other.gateways <= self.gateways
            and self.port in (0, other.port)
            and _covers_clients(self.match, other.match)
            and bool(self.route)
            and self._covers_subnets_of(other)
        )

    def _covers_subnets_of(self, other: Connections) -> bool:
        """Whether it leaves no subnet to `other`: a sidecar hands both tls matches to Envoy.

        There the one with the narrower subnet has it, whichever comes first.
        """
        mine, its = (each.match.subnets if each.match else () for each in (self, other))
        return mine == its or (not mine and (self.path[1] == "tcp" or MESH not in other.gateways))


def _covers_clients(one: Match | None, other: Match | None) -> bool:
    """Whether a match holds for all clients for which another does."""
    if one is None:
        return True
    labels = other.source_labels if other else {}
    namespace = other.source_namespace if other else ""
    return one.source_namespace in ("", namespace) and one.source_labels.items() <= labels.items()


@dataclass(frozen=True, eq=False)
class CoveredRule:
    """A rule of which some matches are covered: those, each with the earlier one that covers it."""

    vs: VirtualService
    path: Path
    covered: tuple[tuple[Connections, Connections], ...]
    whole: bool


def covered_rules(vs: VirtualService) -> Iterator[CoveredRule]:
    """The tcp and tls rules of a VirtualService with a match that an earlier one covers."""
    protocols: tuple[Protocol, ...] = ("tcp", "tls")
    for protocol in protocols:
        earlier: dict[tuple[object, ...], list[Connections]] = defaultdict(list)
        for rule in own_rules(vs, protocol):
            covered = []
            matches = list(_matches(vs, rule))
            for match in matches:
                names, port = match.server_names, match.port
                before = [*earlier[names, 0], *(earlier[names, port] if port else ())]
                first = next((each for each in before if each.covers(match)), None)
                if first:
                    covered.append((match, first))
                else:
                    earlier[names, port].append(match)
            if covered:
                whole = len(covered) == len(matches)
                yield CoveredRule(vs, rule.path, tuple(covered), whole)


def _matches(vs: VirtualService, rule: Rule) -> Iterator[Connections]:
    if rule.matches is None:
        yield Connections(rule, None, vs.gateways)
    for match in rule.matches or ():
        gateways = match.gateways & vs.gateways if match.gateways else vs.gateways
        if gateways:
            yield Connections(rule, match, gateways)
