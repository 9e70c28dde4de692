"""Change sets: what is done to which objects, in order."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubectl_mesh.changes.patch import (
    Conflict,
    Operation,
    Target,
    after_each_other,
    displaces,
    goes_first,
    operations_of,
    patched,
)
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.rules.repair import Edit, Repair, Then
from kubectl_mesh.sources.origins import root_of


class Action(enum.Enum):
    """What a step does to its object."""

    PATCH = "patch"
    CREATE = "create"
    DELETE = "delete"

    @property
    def done(self) -> str:
        """The word for what was done: patched, created, deleted."""
        return "patched" if self is Action.PATCH else f"{self.value}d"


@dataclass(frozen=True)
class Ready:
    """Pods, by their labels, of which one at least has to be ready. `what` names them to people."""

    namespace: str
    labels: Mapping[str, str]
    what: str


@dataclass(frozen=True)
class Step:
    """What is done to one object.

    `before` and `after` are the whole object, as it was looked at and as it is then; None stands
    for an object that is not there. `operations` is the patch that makes one of the other.
    `reasons` say what it is for, a line each; `edits` are what it was made of. `then` is what must
    hold before the next step. Of one that is applied on the server, `applied` is the configuration,
    in place of operations. `path` is where the API server has the object, if it is of a kind that
    is not read. `ready` has to hold before it is made.
    """

    resource: Resource
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    operations: Sequence[Operation]
    edits: Sequence[Edit]
    reasons: Sequence[str]
    then: Then | None = None
    applied: Mapping[str, Any] | None = None
    path: str = ""
    ready: Sequence[Ready] = ()

    @property
    def target(self) -> Target:
        """The object, as the API server names it."""
        found = self.resource.id
        return Target(self.resource.api_version, found.api_kind, found.namespace, found.name)

    @property
    def action(self) -> Action:
        return action_of(self.before, self.after)


def action_of(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Action:
    """What makes one object of another; None stands for one that is not there."""
    if before is None:
        return Action.CREATE
    return Action.DELETE if after is None else Action.PATCH


@dataclass(frozen=True)
class ChangeSet:
    """Steps in the order in which they are made."""

    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)


def change_set(
    repairs: Iterable[Repair], whole: Callable[[Resource], Mapping[str, Any]]
) -> tuple[ChangeSet, list[Repair]]:
    """A step for each object that some repairs edit, and the repairs that have to wait.

    `whole` gives an object with all its fields. A repair waits for another one that adds to a list,
    or takes away from it, in which it has a place: that is not where it was. Raises Conflict where
    an edit does not fit its object.
    """
    edits: dict[ResourceId, list[Edit]] = {}
    reasons: dict[ResourceId, list[str]] = {}
    waiting: list[Repair] = []

    def is_displaced(edit: Edit) -> bool:
        return any(displaces(edit, other) for other in edits.get(edit.resource.id, ()))

    for repair in repairs:
        known = [edit for edit in repair.edits if edit in edits.get(edit.resource.id, ())]
        if len(known) == len(repair.edits):
            continue
        if any(map(is_displaced, repair.edits)):
            waiting.append(repair)
            continue
        for edit in repair.edits:
            made = edits.setdefault(edit.resource.id, [])
            behind = (n for n, each in enumerate(made) if goes_first(edit, each))
            made.insert(next(behind, len(made)) if len(repair.edits) == 1 else len(made), edit)
            told = reasons.setdefault(edit.resource.id, [])
            if repair.title not in told:
                told.append(repair.title)
    steps = [_step(made, whole, reasons[key]) for key, made in edits.items()]
    return ChangeSet(tuple(step for step in steps if step.after != step.before)), waiting


def joined(first: ChangeSet, second: ChangeSet) -> ChangeSet:
    """One change set that does what two do, where the second is made to what the first leaves.

    An object gets one step, unless its second one would come before a wait then, or before a step
    for another kind, which it may rely on. What istiod reads of the second comes only once all
    proxies have what it reads of another kind of the first: a new subset before the route to it.
    """
    steps = list(first.steps)
    read = {step.resource.kind for step in steps if _is_read_by_istiod(step)}
    relying = {step.resource.kind for step in second.steps if _is_read_by_istiod(step)}
    if any(read - {kind} for kind in relying):
        steps[-1] = replace(steps[-1], then=steps[-1].then or Then.PROXIES)
    for step in second.steps:
        before = _last_for(step.resource.id, steps)
        if before is None or any(
            each.then or each.resource.kind != step.resource.kind for each in steps[before:]
        ):
            steps.append(step)
        else:
            steps[before] = _both(steps[before], step)
    return ChangeSet(tuple(step for step in steps if step.after != step.before))


def at_once(changes: ChangeSet) -> ChangeSet:
    """What a change set comes to where all of it is made at once: one step for each object."""
    steps: dict[tuple[str, ResourceId], Step] = {}
    for step in changes.steps:
        key = (root_of(step.resource), step.resource.id)
        steps[key] = _both(steps[key], step) if key in steps else step
    return ChangeSet(tuple(steps.values()))


def _is_read_by_istiod(step: Step) -> bool:
    """Whether it configures proxies: Istio's own kinds do, and Services."""
    group = step.resource.api_version.partition("/")[0]
    return group.endswith(".istio.io") or step.resource.kind == "Service"


def _last_for(resource: ResourceId, steps: Sequence[Step]) -> int | None:
    found = [number for number, step in enumerate(steps) if step.resource.id == resource]
    return found[-1] if found else None


def _both(first: Step, second: Step) -> Step:
    """One step in place of two for one object."""
    assert first.before is not None
    edits = after_each_other(first.edits, second.edits)
    operations = [] if second.after is None else operations_of(first.before, edits)
    return replace(
        first,
        after=second.after,
        operations=operations,
        edits=edits,
        reasons=tuple(dict.fromkeys((*first.reasons, *second.reasons))),
        then=second.then,
    )


def _step(
    edits: Sequence[Edit],
    whole: Callable[[Resource], Mapping[str, Any]],
    reasons: Sequence[str],
) -> Step:
    resource = edits[0].resource
    before = whole(resource)
    then = next((edit.then for edit in edits if edit.then), None)
    if edits[0].is_deletion:
        return Step(resource, before, None, (), edits, reasons, then)
    try:
        operations = operations_of(before, edits)
        after = patched(before, operations)
    except Conflict as error:
        raise Conflict(f"{resource}: {error}") from error
    return Step(resource, before, after, operations, edits, reasons, then)
