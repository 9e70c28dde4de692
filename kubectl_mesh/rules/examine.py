"""Runs rules over a snapshot and gathers what they yield."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.resource import Path, Position, Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import km900_unreadable_input, km999_rule_crashed
from kubectl_mesh.rules.ignore import Ignores
from kubectl_mesh.rules.rule import Finding, Rule, Severity


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not examined.

    `code` is the rule's, or KM900 for a part of the input. `failed` tells that it was asked
    for and could not be had (unreadable, forbidden); otherwise the input, or all of the cluster,
    does not tell.
    `unread`: objects of kinds that are not followed; `failed` if the input holds no others.
    """

    code: str
    reason: str
    failed: bool
    position: Position | None = None
    unread: bool = False

    @property
    def is_input(self) -> bool:
        """Whether a part of the input was not examined, by any rule."""
        return self.code == km900_unreadable_input.RULE.code


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, the worst first, and what was not examined.

    `crashes` holds the traceback of every rule that crashed.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    resources: int
    crashes: tuple[str, ...] = ()

    def count(self, severity: Severity) -> int:
        return sum(1 for finding in self.findings if finding.severity == severity)


def examine(
    snapshot: Snapshot,
    rules: Sequence[Rule],
    ignores: Ignores | None = None,
    namespaces: Collection[str] | None = None,
) -> Report:
    """Checks a snapshot against rules.

    Findings on objects outside `namespaces` (None: all) are left out, objects without a namespace
    stay. A rule whose kinds could not be read is skipped with the reason; one that crashes becomes
    a finding of KM999.
    """
    return examine_all({"": snapshot}, rules, ignores, namespaces)


def examine_all(
    meshes: Mapping[str, Snapshot],
    rules: Sequence[Rule],
    ignores: Ignores | None = None,
    namespaces: Collection[str] | None = None,
) -> Report:
    """Checks several meshes, each by itself, as `examine` does.

    They have the folders of their kustomizations as keys. What is found of one place in several of
    them is one finding.
    """
    ignores = ignores or Ignores()
    crashes: list[str] = []
    skipped: dict[tuple[str, str], Skipped] = {}
    found: dict[tuple[object, ...], list[Finding]] = {}
    in_scope: list[Resource] = []
    not_read: list[Resource] = []
    code = km900_unreadable_input.RULE.code
    for root, snapshot in meshes.items():
        findings = _findings(snapshot, rules, skipped, crashes)
        kept: dict[tuple[str, ResourceId, Path, str], Finding] = {}
        for finding in findings:
            if _within(finding.resource, namespaces) and not ignores.silence(finding):
                kept.setdefault(_identity(finding), finding)
        places: Counter[tuple[object, ...]] = Counter()
        for finding in kept.values():
            place = _place(finding, root)
            places[place] += 1
            found.setdefault((*place, places[place]), []).append(
                replace(finding, roots=(root,) if root else ())
            )
        in_scope += [each for each in snapshot.everything() if _within(each, namespaces)]
        others = [each for each in snapshot.of_other_revisions if _within(each, namespaces)]
        not_read += others
        for reason in unread.told(others, unread.not_of_revision(snapshot.config.revision)):
            skipped[code, reason] = Skipped(code, reason, False, unread=True)
    not_followed = [each for each in in_scope if each.kind in unread.KINDS]
    examined = len(in_scope) - len(not_followed) - len(not_read)
    for reason in unread.told(not_followed):
        skipped[code, reason] = Skipped(code, reason, False, unread=True)
    if not examined:
        skipped = {
            key: replace(each, failed=True) if each.code == code else each
            for key, each in skipped.items()
        }
    ordered = sorted(map(_joined, found.values()), key=_order)
    if namespaces is not None and not any(each.coverage.live for each in meshes.values()):
        for namespace in sorted({*namespaces} - {each.namespace for each in in_scope}):
            reason = f"the input holds nothing of the namespace {namespace}"
            skipped[code, reason] = Skipped(code, reason, True)
    return Report(tuple(ordered), tuple(skipped.values()), examined, tuple(crashes))


def _findings(
    snapshot: Snapshot,
    rules: Sequence[Rule],
    skipped: dict[tuple[str, str], Skipped],
    crashes: list[str],
) -> list[Finding]:
    """What the rules find in one mesh; adds to what was `skipped`, and to the `crashes`."""
    findings: list[Finding] = []
    code = km900_unreadable_input.RULE.code
    for unreadable in snapshot.unreadable:
        reason = unreadable.reason
        if unreadable.position is None:
            reason = f"{unreadable.where}: {reason}"
        skipped[code, f"{unreadable.position}{reason}"] = Skipped(
            code, reason, unreadable.failed, unreadable.position
        )
    if snapshot.config.fault:
        skipped[code, snapshot.config.fault] = Skipped(code, snapshot.config.fault, True)
    for note in snapshot.config.notes:
        skipped[code, note] = Skipped(code, note, False)
    needed = {kind for rule in rules for kind in (*rule.needs, *rule.uses)}
    for (kind, namespace), why in snapshot.coverage.missing.items():
        if namespace is None and kind not in needed:
            skipped[code, why] = Skipped(code, why, True)
    for rule in rules:
        for why in _missing(snapshot, (*rule.needs, *rule.uses)):
            skipped[rule.code, why] = Skipped(rule.code, why, True)
        if _missing(snapshot, rule.needs):
            continue
        try:
            for found in rule.check(snapshot):
                if isinstance(found, Finding):
                    findings.append(found)
                else:
                    skipped.setdefault(
                        (rule.code, found.reason),
                        Skipped(
                            rule.code, found.reason, snapshot.coverage.live and not found.beyond
                        ),
                    )
        except Exception as error:
            crashes.append(traceback.format_exc())
            findings.append(km999_rule_crashed.finding(rule, error))
    return findings


def _place(finding: Finding, root: str) -> tuple[object, ...]:
    """What is the same for one fault in several roots: the rule, and where the field is written.

    Names and namespaces may differ, as kustomize changes them.
    """
    code, resource = finding.rule.code, finding.resource
    position = resource.origin.locate(finding.path) if root else None
    return (code, finding.severity, position or _identity(finding), resource.kind)


def _joined(findings: Sequence[Finding]) -> Finding:
    """The first of them, as found in the roots of all."""
    roots = dict.fromkeys(root for each in findings for root in each.roots)
    return replace(findings[0], roots=tuple(roots))


def _within(resource: Resource, namespaces: Collection[str] | None) -> bool:
    return namespaces is None or not resource.namespace or resource.namespace in namespaces


def _missing(snapshot: Snapshot, kinds: Iterable[str]) -> list[str]:
    reasons = (snapshot.missing(kind) for kind in kinds)
    return [reason for reason in reasons if reason]


def _identity(finding: Finding) -> tuple[str, ResourceId, Path, str]:
    return (finding.rule.code, finding.resource.id, finding.path, finding.message)


def _order(finding: Finding) -> tuple[object, ...]:
    resource: Resource = finding.resource
    return (
        -finding.severity,
        resource.namespace,
        resource.kind,
        resource.name,
        finding.rule.code,
        [(0, step, "") if isinstance(step, int) else (1, 0, step) for step in finding.path],
        finding.message,
    )
