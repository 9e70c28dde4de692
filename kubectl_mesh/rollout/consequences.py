"""What the rest of a run, or the way back from it, would break in the mesh as it is now.

Between two commands anybody may change routes: what a run was planned with does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kubectl_mesh.changes.after import kind_looked_at, mesh_after, without_terminating
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.cluster import is_missed, way_back
from kubectl_mesh.changes.deletion import is_terminating
from kubectl_mesh.changes.journal import Entry, Run
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.scope import KINDS
from kubectl_mesh.rollout.breakage import Failures, breaks, broken
from kubectl_mesh.sources.cluster import ClusterOrigin

Phases = Sequence[Sequence[Step]]
"""Steps, parted by waits for the proxies."""


def concerns_routes(run: Run) -> bool:
    """Whether a run has to do with what routing reads."""
    steps = (_step(run, each, back=False) for each in run.entries)
    return any(kind_looked_at(step.resource) in KINDS for step in steps)


def ahead(run: Run) -> Phases:
    """The steps of a run that are left."""
    phases: list[list[Step]] = [[]]
    for entry in run.left:
        phases[-1].append(_step(run, entry, back=False))
        if entry.then is not None:
            phases.append([])
    return [each for each in phases if each]


def back(run: Run, live: Snapshot) -> Phases:
    """The steps that undo those of a run. What somebody has deleted, or is deleting, stays so."""
    phases: list[list[Step]] = [[]]
    for entry, waits in way_back(run):
        if waits:
            phases.append([])
        step = _step(run, entry, back=True)
        key = step.resource.id
        there = live.get(key.kind, key.namespace, key.name)
        stays = there is not None and not is_terminating(there.data)
        if entry.before is None or is_missed(entry) or stays:
            phases[-1].append(step)
    return [each for each in phases if each]


def broken_by(live: Snapshot, phases: Phases, excused: Collection[str] = ()) -> list[str]:
    """What fails after any phase and does not now, as an operator is told.

    So it does, too, once objects are gone that are being deleted.
    """
    found = dict.fromkeys(_broken_by(live, phases, excused))
    staying, going = without_terminating(live)
    if going:
        for text in _broken_by(staying, phases, excused):
            if text not in found:
                found[f"{text}, once {', '.join(going)} is gone"] = None
    return list(found)


def cures(live: Snapshot, changes: ChangeSet) -> list[str]:
    """The keys of what fails now and will not after a change set: so it does, undone."""
    now, then = Failures(live), Failures(mesh_after(live, changes))
    return [each.key for each in broken(then, now, now)]


def _broken_by(live: Snapshot, phases: Phases, excused: Collection[str]) -> Iterator[str]:
    steps: list[Step] = []
    states = []
    for phase in phases:
        steps += phase
        states.append(Failures(mesh_after(live, ChangeSet(tuple(steps)))))
    now = Failures(live)
    for state in reversed(states):
        yield from breaks(now, state, states[-1], excused)


def _step(run: Run, entry: Entry, *, back: bool) -> Step:
    target = entry.target
    named = {"apiVersion": target.api_version, "kind": target.kind}
    document = {**(entry.after or entry.before or {}), **named}
    resource = as_resource(document, ClusterOrigin(run.context), target.namespace)
    before, after = (entry.after, entry.before) if back else (entry.before, entry.after)
    return Step(resource, before, after, (), (), [])
