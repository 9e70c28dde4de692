"""Whether moving rules within VirtualServices does what was meant, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.resource import ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Decision, compare
from kubectl_mesh.proof.dead_rules import reaches
from kubectl_mesh.rules.repair import Repair

_Match = tuple[ResourceId, str, int | None]
"""An object, a rule of it as text, and the number of a match of the rule."""


def unproven(snapshot: Snapshot, repairs: Sequence[Repair]) -> list[Repair]:
    """Those repairs that would change more than that rules get the requests they are for.

    That is proved by comparing all requests before and after: each that is treated differently met
    a rule of the same object before, and meets one then that no request could meet; none fails then
    that did not. Each object has fewer matches then that none can meet, and none that could be met
    before. What cannot be compared, as a Gateway is not in the snapshot, is not proved. The proof
    is that of all repairs that are not refused, together.
    """
    left = [each for each in repairs if _is_comparable(snapshot, each)]
    while left:
        wrong = _wrong(snapshot, left)
        refused = [each for each in left if _objects(each) & wrong]
        if not refused:
            break
        left = [each for each in left if each not in refused]
    return [each for each in repairs if each not in left]


def _wrong(snapshot: Snapshot, repairs: Sequence[Repair]) -> set[ResourceId]:
    """The objects of repairs for which the proof fails."""
    changes, _ = change_set(repairs, lambda resource: resource.raw)
    then = mesh_after(snapshot, changes)
    changed: set[ResourceId] = set().union(*map(_objects, repairs))
    dead, still_dead = Counter(_dead(snapshot)), Counter(_dead(then))
    comparison = compare(snapshot, then)
    if (
        comparison.undecided
        or comparison.sampled
        or any(each[0] not in changed for each in still_dead - dead)
    ):
        return changed
    wrong = {each[0] for each in still_dead - dead}
    wrong |= changed - {each[0] for each in dead - still_dead}
    for difference in comparison.differences:
        before, after = _match(difference.before), _match(difference.after)
        fails = difference.after.treatment.fails and not difference.before.treatment.fails
        moved = before and after and before[0] == after[0] and after in dead
        if fails or not moved:
            wrong |= {each[0] for each in (before, after) if each}
    return wrong if wrong & changed or not wrong else changed


def _objects(repair: Repair) -> set[ResourceId]:
    return {edit.resource.id for edit in repair.edits}


def gateways_not_seen(snapshot: Snapshot, vs: VirtualService) -> set[str]:
    """The Gateways that a VirtualService is bound to and that are not in the snapshot."""
    return {name for name in vs.gateways if name != MESH and name not in snapshot.gateways.by_id}


def _is_comparable(snapshot: Snapshot, repair: Repair) -> bool:
    """Whether all ways in are known on which requests meet the rules that a repair changes."""
    services = snapshot.virtual_services
    for resource in _objects(repair):
        vs = services.by_name[resource.namespace, resource.name]
        above = services.delegating.get((vs.namespace, vs.resource.name), ())
        roots = [rule.owner for rule in above] if vs.is_delegate else [vs]
        if any(gateways_not_seen(snapshot, root) for root in roots):
            return False
    return True


def _dead(snapshot: Snapshot) -> Iterator[_Match]:
    """The matches that no request can meet."""
    for rule in reaches(snapshot)[0]:
        text = _text(rule.owner.resource.spec["http"][rule.path[-1]])
        for match in rule.dead:
            yield rule.owner.resource.id, text, match.index


def _match(decision: Decision) -> _Match | None:
    route = decision.route
    if route is None or route.rule is None:
        return None
    owner = route.rule.owner.resource
    written = owner.spec["http"][route.rule.index]
    index = route.match.index if route.match and written.get("match") else None
    return owner.id, _text(written), index


def _text(rule: object) -> str:
    return json.dumps(rule, sort_keys=True, default=str)
