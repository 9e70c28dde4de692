"""Change sets: what is done to which objects, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.changes.patch import Conflict, Operation, Target, operations_of, patched
from kubectl_mesh.mesh.resource import ABSENT, Path, Resource, ResourceId
from kubectl_mesh.rules.repair import Edit, Repair


@dataclass(frozen=True)
class Step:
    """One patch of one object.

    `before` is the whole object as it was looked at; `reasons` say what the patch is for, a line
    each. `edits` are what it was made of.
    """

    resource: Resource
    before: Mapping[str, Any]
    operations: Sequence[Operation]
    edits: Sequence[Edit]
    reasons: Sequence[str]

    @property
    def target(self) -> Target:
        """The object, as the API server names it."""
        found = self.resource.id
        return Target(self.resource.api_version, found.kind, found.namespace, found.name)

    @cached_property
    def after(self) -> Mapping[str, Any]:
        """The whole object as it is then."""
        return patched(self.before, self.operations)


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
    for repair in repairs:
        known = [edit for edit in repair.edits if edit in edits.get(edit.resource.id, ())]
        if len(known) == len(repair.edits):
            continue
        if any(_moved(edit, edits.get(edit.resource.id, ())) for edit in repair.edits):
            waiting.append(repair)
            continue
        for edit in repair.edits:
            edits.setdefault(edit.resource.id, []).append(edit)
            told = reasons.setdefault(edit.resource.id, [])
            if repair.title not in told:
                told.append(repair.title)
    steps = []
    for key, made in edits.items():
        resource = made[0].resource
        before = whole(resource)
        try:
            operations = operations_of(before, made)
        except Conflict as error:
            raise Conflict(f"{resource}: {error}") from error
        step = Step(resource, before, operations, made, reasons[key])
        if step.after != before:
            steps.append(step)
    return ChangeSet(tuple(steps)), waiting


def _moved(edit: Edit, others: Iterable[Edit]) -> bool:
    """Whether another edit makes a place mean something else, or is for the same one."""
    return any(
        edit.path[: len(other.path)] == other.path
        or other.path[: len(edit.path)] == edit.path
        or (_shifts(other) and _in_list(edit.path, other.path[:-1]))
        or (_shifts(edit) and _in_list(other.path, edit.path[:-1]))
        for other in others
    )


def _shifts(edit: Edit) -> bool:
    return edit.insert or (edit.value is ABSENT and isinstance(edit.path[-1], int))


def _in_list(path: Path, items: Path) -> bool:
    return path[: len(items)] == items
