"""Repairs in all meshes of an input, which may share files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from kubectl_mesh.changes.change_set import ChangeSet
from kubectl_mesh.changes.files import FileChange
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.fixing.cure import Cure, Wishes, cure
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.examine import Report


@dataclass(frozen=True)
class Cures:
    """What is repaired in each mesh, by its root, and `texts`, what that makes of the files."""

    by_root: Mapping[str, Cure]
    texts: Sequence[FileChange]

    @property
    def all(self) -> Sequence[Cure]:
        return tuple(self.by_root.values())

    @cached_property
    def changes(self) -> ChangeSet:
        """The changes of all meshes."""
        return _changes(self.by_root)

    @property
    def known(self) -> set[str]:
        """The names of all repairs."""
        return {name for found in self.all for name in found.known}

    def without_mended(self, report: Report) -> Report:
        """Leaves out what could not be examined before the changes, and can be after them."""
        before, after = (
            {(each.code, each.reason) for _, found in states for each in found.skipped}
            for states in zip(*((each.before, each.after) for each in self.all), strict=True)
        )
        mended = before - after
        skipped = tuple(each for each in report.skipped if (each.code, each.reason) not in mended)
        return replace(report, skipped=skipped)


def cure_all(
    states: Mapping[str, tuple[Snapshot, Report]],
    examine: Callable[[str, Snapshot], Report],
    wishes: Wishes,
    whole: Callable[[Resource], Mapping[str, Any]],
    edited: Callable[[ChangeSet], Sequence[FileChange]],
    told: Callable[[NotEditable], object],
) -> Cures:
    """Repairs each mesh, as cure.cure does, but for what is in a file that cannot be edited.

    `states` are the meshes by root, each with what `examine` gives for it. `edited` gives what
    changes make of the files; of what it raises NotEditable for, `told` hears once.
    """
    untouchable: set[ResourceId] = set()
    while True:
        allowed = replace(wishes, untouchable=untouchable)
        found = {
            root: cure(snapshot, report, partial(examine, root), allowed, whole)
            for root, (snapshot, report) in states.items()
        }
        try:
            return Cures(found, edited(_changes(found)))
        except NotEditable as error:
            if error.resource is None or error.resource in untouchable:
                raise
            told(error)
            untouchable.add(error.resource)


def _changes(cures: Mapping[str, Cure]) -> ChangeSet:
    return ChangeSet(tuple(step for found in cures.values() for step in found.changes.steps))
