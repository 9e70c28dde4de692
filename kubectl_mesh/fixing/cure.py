"""Repairs of findings, and of what is found once they are made, until nothing is left to repair."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import ChangeSet, change_set, joined
from kubectl_mesh.changes.patch import written_at
from kubectl_mesh.fixing.moved_rules import unproven
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.examine import Report
from kubectl_mesh.rules.ignore import Selectors
from kubectl_mesh.rules.repair import ACCEPT_MTLS_OFF, ALL_RULES, UNSAFE, Edit, Repair
from kubectl_mesh.rules.rule import Finding

MAX_ROUNDS = 100
"""So often the mesh is examined again at most; what is left then is deferred."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True)
class Wishes:
    """Which findings are to be repaired, and how.

    `names` are the repairs that the user has chosen, `flags` those that allow unsafe ones. No
    object of `untouchable` is changed.
    """

    meant: Callable[[Finding], bool]
    names: Collection[str] = ()
    flags: Collection[str] = ()
    untouchable: Collection[ResourceId] = ()

    @classmethod
    def of(
        cls,
        findings: Sequence[str],
        names: Collection[str],
        *,
        unsafe: bool,
        all_rules: bool,
        accept_mtls_off: bool,
    ) -> Wishes:
        """What the arguments and flags of `kubectl mesh fix` say; without findings all are meant.

        Raises UsageError for a finding of no rule.
        """
        flags = {UNSAFE: unsafe, ALL_RULES: all_rules, ACCEPT_MTLS_OFF: accept_mtls_off}
        accepted = {flag for flag, given in flags.items() if given}
        return cls(Selectors(findings or ("*",), "").meant, names, accepted)


@dataclass(frozen=True)
class Choice:
    """A finding, and the repair that is made."""

    finding: Finding
    repair: Repair


@dataclass
class Cure:
    """What is repaired, and what is left.

    `made` are the repairs in order, `changes` what they come to. Of the findings that are left,
    `open` are those for whose repair the user has to choose, `unsafe` those that take a flag,
    `manual` the others; `deferred` is not done, as it would take too many rounds. `known` are the
    names of all repairs. `before` and `after` are the mesh, each with its report.
    """

    before: tuple[Snapshot, Report]
    after: tuple[Snapshot, Report]
    changes: ChangeSet = field(default_factory=lambda: ChangeSet(()))
    made: list[Choice] = field(default_factory=list)
    open: list[Finding] = field(default_factory=list)
    unsafe: list[Choice] = field(default_factory=list)
    manual: list[Finding] = field(default_factory=list)
    deferred: list[Repair] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    @property
    def revealed(self) -> list[Finding]:
        """What is found afterwards, and was not before."""
        known = Counter(map(_kind_of, self.before[1].findings))
        found = []
        for finding in self.after[1].findings:
            known[_kind_of(finding)] -= 1
            if known[_kind_of(finding)] < 0:
                found.append(finding)
        return found

    def as_read(self, finding: Finding) -> Finding:
        """A finding that is left, as it was found in what was read: repairs may have moved it.

        One that is new is only given the place where it stood.
        """
        edits: list[Edit] = []
        for step in self.changes.steps:
            if step.resource.id == finding.resource.id:
                edits += step.edits
        path = written_at(finding.path, edits)
        for each in self.before[1].findings:
            if _kind_of(each) == _kind_of(finding) and each.path == path:
                return each
        return replace(finding, path=path)


def cure(
    snapshot: Snapshot,
    report: Report,
    examine: Callable[[Snapshot], Report],
    wishes: Wishes,
    whole: Callable[[Resource], Mapping[str, Any]],
) -> Cure:
    """Makes repairs, examines what comes of them and repairs that, until there is nothing more.

    `report` is what `examine` gives for the snapshot. `whole` gives an object with all its fields.
    A repair that would make an object what it was before is not made: it and another one would take
    turns for ever.
    """
    found = Cure((snapshot, report), (snapshot, report))
    contents: dict[ResourceId, list[Mapping[str, Any] | None]] = defaultdict(list)
    turning: set[tuple[object, ...]] = set()

    def now(resource: Resource) -> Mapping[str, Any]:
        made = contents.get(resource.id)
        return (made[-1] if made else None) or whole(resource)

    for number in range(MAX_ROUNDS + 1):
        chosen = _decide(found, wishes, snapshot.replaced.keys(), turning)
        changes, waiting = change_set([each.repair for each in chosen], now)
        if number == MAX_ROUNDS:
            found.deferred = [each.repair for each in chosen]
            break
        if not changes:
            found.manual += [each.finding for each in chosen]
            break
        back = {
            step.resource.id for step in changes.steps if step.after in contents[step.resource.id]
        }
        if back:
            turning |= {_key(each) for each in chosen if _edits(each.repair) & back}
            continue
        for step in changes.steps:
            contents[step.resource.id] = contents[step.resource.id] or [step.before]
            contents[step.resource.id].append(step.after)
        found.made += [each for each in chosen if each.repair not in waiting]
        found.changes = joined(found.changes, changes)
        then = mesh_after(found.after[0], changes)
        found.after = then, examine(then)
    return found


def _decide(
    found: Cure,
    wishes: Wishes,
    twice: Collection[ResourceId],
    turning: Collection[tuple[object, ...]],
) -> list[Choice]:
    """What is repaired of the findings that there are; sorts the others into `found`.

    Nothing is done about objects that stand `twice` in the input, nor by repairs that are `turning`
    in a circle, nor by those that cannot be proved to do what they say and nothing else.
    """
    snapshot, report = found.after
    found.open, found.unsafe, found.manual = [], [], []
    chosen: list[Choice] = []
    for finding in filter(wishes.meant, report.findings):
        found.known |= {repair.name for repair in finding.repairs}
        ways = [each for each in finding.repairs if each.name in wishes.names] or finding.repairs
        edited = [edit.resource for repair in ways for edit in repair.edits]
        if any(
            _is_malformed(each) or each.id in twice or each.id in wishes.untouchable
            for each in edited
        ):
            found.manual.append(finding)
        elif len(ways) == 1:
            choice = Choice(finding, ways[0])
            if ways[0].unsafe and ways[0].flag not in wishes.flags:
                found.unsafe.append(choice)
            elif _key(choice) in turning:
                found.manual.append(finding)
            else:
                chosen.append(choice)
        elif ways:
            found.open.append(finding)
        else:
            found.manual.append(finding)
    doubtful = unproven(snapshot, [each.repair for each in chosen if each.repair.proof])
    found.manual += [each.finding for each in chosen if each.repair in doubtful]
    return [each for each in chosen if each.repair not in doubtful]


def _key(choice: Choice) -> tuple[object, ...]:
    return (*_kind_of(choice.finding), choice.repair.title)


def _kind_of(finding: Finding) -> tuple[str, ResourceId]:
    return finding.rule.code, finding.resource.id


def _edits(repair: Repair) -> set[ResourceId]:
    return {edit.resource.id for edit in repair.edits}


def _is_malformed(resource: Resource) -> bool:
    """Whether the API server would refuse it as it is.

    Rules look at it without the fields of a wrong type, so the places that a repair names may not
    be those of the manifest.
    """
    names = (resource.name, resource.namespace or "cluster")
    return bool(resource.faults) or not all(map(_NAME.fullmatch, names))
