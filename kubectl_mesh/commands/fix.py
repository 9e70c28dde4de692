"""`kubectl mesh fix`: repairs of what the doctor finds, previewed, written or applied."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from kubectl_mesh.changes import outlook
from kubectl_mesh.changes.change_set import ChangeSet, change_set
from kubectl_mesh.changes.files import FileChange
from kubectl_mesh.changes.proof import unproven
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.commands.changing import (
    add_change_flags,
    apply,
    check_flags,
    owned_steps,
    show,
    tell,
    texts_of,
    whole,
    write,
)
from kubectl_mesh.commands.doctor import add_rule_flags, choose, chosen_rules
from kubectl_mesh.commands.inputs import take_snapshot
from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import (
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
    comma_separated,
)
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.report import Layout
from kubectl_mesh.report.changes import FORMATS
from kubectl_mesh.report.comparison import render
from kubectl_mesh.report.table import failures, place, wrap
from kubectl_mesh.routing.compare import compare
from kubectl_mesh.routing.scope import KINDS as ROUTING_KINDS
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.rules.ignore import Ignores, Selectors
from kubectl_mesh.rules.repair import ACCEPT_MTLS_OFF, ALL_RULES, UNSAFE, Repair
from kubectl_mesh.rules.rule import Finding
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import Paint, safe, use_color, width

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")

_EPILOG = """\
examples:
  {prog} -f manifests/ -R                       what would be changed, as a diff
  {prog} -f manifests/ -R --write               changes the files, and nothing else in them
  {prog} -f . KM201=VirtualService/shop/front   of that object alone
  {prog} -f . KM201 --choose v1                 of several ways to repair, this one
  {prog} -n shop                                of a cluster, what would be changed
  {prog} -n shop --apply                        asks, and changes it; `undo` takes it back
  {prog} -n shop -o kubectl > repair.sh         as commands to read and run

It changes nothing unless --write or --apply says so. Every patch tests what it relies on: it fails,
and changes nothing, where somebody has changed the object since. Below the diff stands what could
not be repaired, with the ways there are where you have to choose, and which requests will be
treated differently.

exit status:
  0  there is nothing to change, or all of it is written or applied
  1  there is something to change, or more once this is done
  2  the command line is at fault, or you did not agree
  3  something could not be read, or cannot be changed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    parser.add_argument(
        "finding",
        nargs="*",
        metavar="CODE[=KIND/NAMESPACE/NAME]",
        help="only these findings: of a rule, or of a rule and an object",
    )
    add_input_flags(parser)
    add_rule_flags(parser)
    group = parser.add_argument_group("how to repair it")
    group.add_argument(
        "--choose",
        action="append",
        metavar="NAME",
        help="of several ways to repair a finding the one of this name; repeatable",
    )
    group.add_argument(
        "--unsafe",
        action="store_true",
        help="make repairs, too, that change more than what is broken; each says what",
    )
    group.add_argument(
        ALL_RULES,
        action="store_true",
        help="copy timeouts, retries, weights and the like, too, from the mesh's rules into "
        "those of gateways",
    )
    group.add_argument(
        ACCEPT_MTLS_OFF,
        action="store_true",
        help="let KM501 turn mTLS off for the whole mesh: pods talk in plain text from then on",
    )
    add_change_flags(group)
    add_output_flags(parser, ("diff", *FORMATS))
    add_cluster_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Previews repairs, or makes them.

    Raises UsageError for flags that contradict each other, NotEditable for a text that cannot be
    changed in place, Conflict for an object that is not what was looked at or belongs to somebody.
    """
    check_flags(args)
    for text in args.finding:
        code = text.partition("=")[0]
        if code.startswith("KM"):
            choose([code], ())
    rules = chosen_rules(args)
    kinds = {kind for rule in rules for kind in (*rule.needs, *rule.uses)} | set(ROUTING_KINDS)
    with collector_paused():
        snapshot, namespaces = take_snapshot(args, kinds)
        ignores = Ignores(comma_separated(args.ignore))
        report = examine(snapshot, rules, ignores, namespaces)
    accepted = {
        flag
        for flag, given in (
            (UNSAFE, args.unsafe),
            (ALL_RULES, args.all_rules),
            (ACCEPT_MTLS_OFF, args.accept_mtls_off),
        )
        if given
    }
    meant = Selectors(args.finding or ("*",), "")
    findings = [finding for finding in report.findings if meant.meant(finding)]
    names = comma_separated(args.choose)
    plan = _proved(snapshot, _plan(findings, names, accepted, snapshot.replaced.keys()))
    plan, changes, waiting, texts = _editable(args, snapshot, plan)
    paint = Paint(use_color(args.color, sys.stdout))
    show(args, changes, texts, paint)
    if args.write:
        write(changes, texts)
    told: list[str] = []
    if not args.no_headers:
        unread = any(skip.failed for skip in report.skipped)
        told += _told(args, snapshot, changes, plan, waiting, paint, unread=unread)
        if changes:
            then = examine(outlook.after(snapshot, changes), rules, ignores, namespaces)
            told.append(_revealed(report.findings, then.findings, paint))
    tell(args, changes, [*told, failures(report, width(), paint)])
    if changes and args.apply:
        apply(args, changes, snapshot)
    elif waiting or (changes and not args.write):
        return 1
    return 3 if any(skip.failed for skip in report.skipped) else 0


@dataclass(frozen=True)
class _Choice:
    """A finding, and the repair that is made."""

    finding: Finding
    repair: Repair


@dataclass(frozen=True)
class _Plan:
    """What is repaired; what could be, once the user chooses; what has to be done by hand."""

    chosen: Sequence[_Choice]
    open: Sequence[Finding]
    unsafe: Sequence[_Choice]
    manual: Sequence[Finding]


def _plan(
    findings: Sequence[Finding],
    names: Sequence[str],
    accepted: Collection[str],
    twice: Collection[ResourceId],
) -> _Plan:
    """What is done about findings; `accepted` are the flags for what is unsafe.

    Nothing is done about objects that stand `twice` in the input.

    Raises UsageError for a name that no repair has.
    """
    refused: list[_Choice] = []
    chosen: list[_Choice] = []
    still_open: list[Finding] = []
    manual: list[Finding] = []
    for finding in findings:
        named = [repair for repair in finding.repairs if repair.name in names]
        ways = named or finding.repairs
        edited = [edit.resource for repair in ways for edit in repair.edits]
        if any(_is_malformed(each) or each.id in twice for each in edited):
            manual.append(finding)
        elif len(ways) == 1:
            allowed = not ways[0].unsafe or ways[0].flag in accepted
            (chosen if allowed else refused).append(_Choice(finding, ways[0]))
        elif finding.repairs:
            still_open.append(finding)
        else:
            manual.append(finding)
    known = {repair.name for finding in findings for repair in finding.repairs}
    for name in names:
        if known and name not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"--choose {name}: no repair has that name; there are: {listed}")
    return _Plan(chosen, still_open, refused, manual)


def _proved(snapshot: Snapshot, plan: _Plan) -> _Plan:
    """The plan without repairs that would do more than they say."""
    doubtful = unproven(snapshot, [each.repair for each in plan.chosen if each.repair.proof])
    refused = [each.finding for each in plan.chosen if each.repair in doubtful]
    chosen = [each for each in plan.chosen if each.repair not in doubtful]
    return replace(plan, chosen=chosen, manual=[*plan.manual, *refused])


def _editable(
    args: argparse.Namespace, snapshot: Snapshot, plan: _Plan
) -> tuple[_Plan, ChangeSet, list[Repair], list[FileChange]]:
    """The plan without repairs of files that cannot be edited in place; says which those are.

    With it what change_set and texts_of make of it.
    """
    while True:
        changes, waiting = change_set([each.repair for each in plan.chosen], whole(args, snapshot))
        try:
            return plan, changes, waiting, texts_of(args, changes)
        except NotEditable as error:
            refused = [each for each in plan.chosen if _edits(each.repair, error.resource)]
            if not refused:
                raise
            print(f"Warning: {safe(str(error))}", file=sys.stderr)
            plan = replace(
                plan,
                chosen=[each for each in plan.chosen if each not in refused],
                manual=[*plan.manual, *(each.finding for each in refused)],
            )


def _edits(repair: Repair, resource: ResourceId | None) -> bool:
    return any(edit.resource.id == resource for edit in repair.edits)


def _is_malformed(resource: Resource) -> bool:
    """Whether the API server would refuse it as it is.

    Rules look at it without the fields of a wrong type, so the places that a repair names may not
    be those of the manifest.
    """
    names = (resource.name, resource.namespace or "cluster")
    return bool(resource.faults) or not all(map(_NAME.fullmatch, names))


def _told(
    args: argparse.Namespace,
    snapshot: Snapshot,
    changes: ChangeSet,
    plan: _Plan,
    waiting: Sequence[Repair],
    paint: Paint,
    *,
    unread: bool,
) -> Iterator[str]:
    room = width()
    done = "REPAIRED" if args.write else "TO BE REPAIRED"
    made = [each for each in plan.chosen if each.repair not in waiting]
    yield _listed(paint(done, "bold", "green"), _repaired(made), room)
    rolled = [f"until {step.target} is rolled out" for step in changes.steps if step.then]
    yield _listed(paint("WAITS", "bold"), rolled if args.apply else [], room)
    yield _listed(paint("CHOOSE", "bold", "yellow"), _ways(plan.open), room)
    for flag in dict.fromkeys(each.repair.flag for each in plan.unsafe):
        lines = _repaired([each for each in plan.unsafe if each.repair.flag == flag])
        yield _listed(paint(f"ONLY WITH {flag}", "bold", "yellow"), lines, room)
    manual = [f"{_name(each)}: {each.message}; {each.next}" for each in plan.manual]
    yield _listed(paint("BY HAND", "bold", "yellow"), manual, room)
    owned = [f"{step.target} belongs to {owner}" for step, owner in owned_steps(changes)]
    yield _listed(paint("WILL BE SET BACK, unless it is changed there", "bold", "red"), owned, room)
    later = [repair.title for repair in waiting]
    yield _listed(paint("LATER, when the others are made", "bold", "yellow"), later, room)
    if changes and {step.resource.kind for step in changes.steps} & set(ROUTING_KINDS):
        found = compare(snapshot, outlook.after(snapshot, changes))
        layout = Layout(room, paint.enabled)
        yield (
            paint("HOW REQUESTS WILL BE ROUTED", "bold") + "\n" + render(found, (), layout).rstrip()
        )
    if not (changes or plan.open or plan.unsafe or plan.manual or unread):
        named = "None of these findings is there: nothing" if args.finding else "Nothing"
        yield paint(f"{named} to repair.", "bold", "green")


def _revealed(before: Sequence[Finding], after: Sequence[Finding], paint: Paint) -> str:
    """What the doctor will find that it does not find now."""
    known = Counter((finding.rule.code, finding.resource.id) for finding in before)
    new = []
    for each in after:
        key = (each.rule.code, each.resource.id)
        known[key] -= 1
        if known[key] < 0:
            new.append(each)
    lines = [f"{each.rule.code} {each.resource}: {each.message}" for each in new]
    return _listed(paint("WILL BE FOUND THEN", "bold", "yellow"), lines, width())


def _listed(heading: str, lines: Sequence[str], room: int) -> str:
    told = "\n".join(wrap(safe(line), room, "  ", "    ") for line in lines)
    return f"{heading}\n{told}" if lines else ""


def _repaired(chosen: Sequence[_Choice]) -> list[str]:
    found = []
    for each in chosen:
        told = filter(None, (each.repair.unsafe, *each.repair.affects))
        also = "".join(f"; {line}" for line in told)
        found.append(f"{each.finding.rule.code} {each.finding.resource}: {each.repair.title}{also}")
    return list(dict.fromkeys(found))


def _ways(findings: Sequence[Finding]) -> list[str]:
    return [
        f"{_name(finding)}: {' '.join(_flags(repair))} to {repair.title}"
        for finding in findings
        for repair in finding.repairs
    ]


def _name(finding: Finding) -> str:
    """A finding by its code and object, and where it is written."""
    position = finding.resource.origin.locate(finding.path)
    where = f" ({place(position)})" if position else ""
    return f"{finding.rule.code} {finding.resource}{where}"


def _flags(repair: Repair) -> Iterator[str]:
    yield f"--choose {repair.name}"
    if repair.unsafe:
        yield repair.flag
