"""Whether moving rules within a VirtualService does what was meant, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from kubectl_mesh.changes import outlook
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.mesh.resource import ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.routing.compare import Decision, compare
from kubectl_mesh.routing.reach import reaches
from kubectl_mesh.rules.repair import Repair

_Match = tuple[ResourceId, str, int | None]
"""An object, a rule of it as text, and the number of a match of the rule."""


def unproven(snapshot: Snapshot, repairs: Sequence[Repair]) -> list[Repair]:
    """Those repairs that would change more than that rules get the requests they are for.

    That is proved by comparing all requests before and after: each that is treated differently met
    a rule of the same object before, and meets one then that no request could meet. And no other
    rule may have become one that none can meet.
    """
    if not repairs:
        return []
    changes, _ = change_set(repairs, lambda resource: resource.raw)
    then = outlook.after(snapshot, changes)
    freed = set(_dead(snapshot))
    changed = {step.resource.id for step in changes.steps}
    wrong = {each[0] for each in set(_dead(then)) - freed} & changed
    comparison = compare(snapshot, then)
    if comparison.undecided:
        return list(repairs)
    for difference in comparison.differences:
        before, after = _match(difference.before), _match(difference.after)
        if before is None or after is None or before[0] != after[0] or after not in freed:
            wrong |= {each[0] for each in (before, after) if each}
    return [repair for repair in repairs if _objects(repair) & wrong]


def _objects(repair: Repair) -> set[ResourceId]:
    return {edit.resource.id for edit in repair.edits}


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
