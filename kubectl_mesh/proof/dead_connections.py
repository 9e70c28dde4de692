"""Matches of tcp and tls rules that earlier ones of their VirtualService leave nothing to.

All that such a match demands of a connection, save for its server name and destination, is known
when istiod builds a listener: the first that holds for a proxy counts. Models
`buildSidecarOutboundTCPFilterChainOpts`, `buildSidecarOutboundTLSFilterChainOpts` and the gateway's
`l4MultiMatch`. Server names are compared as whole lists, as istiod does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.virtual_services import VirtualService


@dataclass(frozen=True, eq=False)
class Connections:
    """One match of a tcp or tls rule; `path` is the rule's where it has none."""

    path: Path
    rule: Mapping[str, Any]
    match: Mapping[str, Any]
    gateways: frozenset[str]

    def covers(self, other: Connections) -> bool:
        """Whether it holds for all clients, ports and gateways for which `other` does."""
        one, two = self.match, other.match
        labels: Mapping[str, str] = one.get("sourceLabels") or {}
        return (
            other.gateways <= self.gateways
            and one.get("port") in (None, 0, two.get("port"))
            and (one.get("sourceNamespace") or "") in ("", two.get("sourceNamespace"))
            and labels.items() <= (two.get("sourceLabels") or {}).items()
            and bool(self.rule.get("route"))
            and self._covers_subnets_of(other)
        )

    def _covers_subnets_of(self, other: Connections) -> bool:
        """Whether it leaves no subnet to `other`: a sidecar hands both tls matches to Envoy.

        There the one with the narrower subnet has it, whichever comes first.
        """
        mine = self.match.get("destinationSubnets") or []
        if mine == (other.match.get("destinationSubnets") or []):
            return True
        return not mine and (self.path[1] == "tcp" or MESH not in other.gateways)


@dataclass(frozen=True, eq=False)
class CoveredRule:
    """A rule of which some matches are covered: those, each with the earlier one that covers it."""

    vs: VirtualService
    path: Path
    covered: tuple[tuple[Connections, Connections], ...]
    whole: bool


def covered_rules(vs: VirtualService) -> Iterator[CoveredRule]:
    """The tcp and tls rules of a VirtualService with a match that an earlier one covers."""
    for protocol in ("tcp", "tls"):
        earlier: dict[tuple[object, ...], list[Connections]] = defaultdict(list)
        for index, rule in enumerate(vs.resource.spec.get(protocol) or ()):
            path: Path = ("spec", protocol, index)
            covered = []
            matches = list(_matches(vs, path, rule))
            for match in matches:
                names = frozenset(match.match.get("sniHosts") or ())
                port = match.match.get("port") or 0
                before = [*earlier[names, 0], *(earlier[names, port] if port else ())]
                first = next((each for each in before if each.covers(match)), None)
                if first:
                    covered.append((match, first))
                else:
                    earlier[names, port].append(match)
            if covered:
                yield CoveredRule(vs, path, tuple(covered), len(covered) == len(matches))


def _matches(vs: VirtualService, path: Path, rule: Mapping[str, Any]) -> Iterator[Connections]:
    matches = rule.get("match") or ()
    if not matches:
        yield Connections(path, rule, {}, vs.gateways)
    for index, match in enumerate(matches):
        named = vs.resolve_gateways(match.get("gateways") or ())
        gateways = named & vs.gateways if named else vs.gateways
        if gateways:
            yield Connections((*path, "match", index), rule, match, gateways)
