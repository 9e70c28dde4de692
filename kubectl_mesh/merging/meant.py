"""What a merge of VirtualServices changes for requests: what it is for, and what is not."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from kubectl_mesh.merging.merge import Merge, Source
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import overlap
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Decision, Difference, Place


class Judgement(enum.IntEnum):
    """How a class of requests that are treated differently is meant, the worst last."""

    ALIVE = 1
    SHARED = 2
    EXPOSED = 3
    OTHER = 4

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Judgement.ALIVE: "intended: a rule comes alive that another VirtualService hid",
    Judgement.SHARED: "intended: the gateway's route takes the subset of the mesh's rules",
    Judgement.EXPOSED: "side effect: the host was not served there by any of them (exposed)",
    Judgement.OTHER: "NOT INTENDED",
}


def judge(merge: Merge, difference: Difference) -> Judgement:
    """How a difference between before and after a merge is meant, at the worst of its places."""
    return max(_at(merge, difference, place) for place in difference.places)


def _at(merge: Merge, difference: Difference, place: Place) -> Judgement:
    serving = [vs for vs in merge.members if _serves(vs, place)]
    before, after = difference.before.virtual_service, difference.after.virtual_service
    if before is not None and before not in merge.members:
        return Judgement.OTHER
    if after is not None and after.resource.id != merge.survivor.resource.id:
        return Judgement.OTHER
    if not serving:
        return Judgement.EXPOSED
    sources = list(_sources(merge, difference.after)) if after else []
    if not sources or not all(source.virtual_service in serving for source in sources):
        return Judgement.OTHER
    shared = all(source.shared and source.virtual_service is before for source in sources)
    at_gateway = place.proxy.is_gateway
    if shared and at_gateway and _rule(difference.before) in [each.index for each in sources]:
        return Judgement.SHARED
    hidden = all(source.virtual_service is not before for source in sources)
    if hidden and not at_gateway and _is_no_rule(difference.before):
        return Judgement.ALIVE
    return Judgement.OTHER


def _serves(vs: VirtualService, place: Place) -> bool:
    """Whether a VirtualService has the host at a way in."""
    ways = set(place.gateways) if place.proxy.is_gateway else {MESH}
    return bool(ways & vs.gateways) and any(overlap(host, place.host) for host in vs.hosts)


def _rule(decision: Decision) -> int | None:
    """The number of the http rule, of a VirtualService with hosts, that decides."""
    route = decision.route
    if route is None or route.rule is None or route.rule.owner.is_delegate:
        return None
    return route.rule.index


def _is_no_rule(decision: Decision) -> bool:
    """Whether a decision is that of no rule, or of a rule for all requests."""
    return decision.route is None or decision.route.conditions.take_everything


def _sources(merge: Merge, decision: Decision) -> Iterator[Source]:
    """The rules that the rule was, by which a decision is made after the merge.

    Several where it is a delegate's, to which more than one hands over.
    """
    route = decision.route
    if route is None or route.rule is None:
        return
    owner = route.rule.owner
    if not owner.is_delegate:
        yield merge.sources[route.rule.index]
        return
    for source in merge.sources:
        rule = source.virtual_service.resource.spec["http"][source.index]
        named = rule.get("delegate") or {}
        namespace = named.get("namespace") or source.virtual_service.namespace
        if (namespace, named.get("name")) == (owner.namespace, owner.resource.name):
            yield source
