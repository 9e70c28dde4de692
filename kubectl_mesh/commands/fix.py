"""`kubectl mesh fix`: repairs of what the doctor finds, previewed, written or applied."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kubectl_mesh.changes.change_set import Step
from kubectl_mesh.changes.files import FileChange
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.commands.changing import (
    ChangeOptions,
    add_change_flags,
    apply,
    how_to_make,
    owned_steps,
    show,
    tell,
    texts_of,
    whole,
    write,
)
from kubectl_mesh.commands.doctor import RULES_MEANT, RulesMeant, add_rule_flags
from kubectl_mesh.commands.inputs import name_limits, take_meshes
from kubectl_mesh.errors import UsageError
from kubectl_mesh.fixing.assumed_gateways import with_gateways
from kubectl_mesh.fixing.cure import Choice, Cure, Wishes
from kubectl_mesh.fixing.cures import Cures, cure_all
from kubectl_mesh.flags import (
    CLUSTER,
    INPUT,
    Given,
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
    comma_separated,
)
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.proof.scope import KINDS as ROUTING_KINDS
from kubectl_mesh.report import Layout
from kubectl_mesh.report.changes import FORMATS
from kubectl_mesh.report.comparison import render
from kubectl_mesh.report.table import failures, place, unexamined, wrap
from kubectl_mesh.rules.examine import Report, examine_all
from kubectl_mesh.rules.repair import ACCEPT_MTLS_OFF, ALL_RULES, Repair, Then
from kubectl_mesh.rules.rule import Finding, listed
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import Paint, safe, width

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


@dataclass(frozen=True)
class FixOptions:
    """Which findings are repaired, and how; `names` are those of repairs that are chosen."""

    findings: Sequence[str]
    names: Sequence[str]
    wishes: Wishes
    meant: RulesMeant
    changes: ChangeOptions

    @classmethod
    def of(cls, args: argparse.Namespace) -> FixOptions:
        """Raises UsageError for flags that contradict each other, and for what is no rule."""
        changes, meant = ChangeOptions.of(args), RulesMeant.of(args)
        names = comma_separated(args.choose)
        wishes = Wishes.of(
            args.finding,
            names,
            unsafe=args.unsafe,
            all_rules=args.all_rules,
            accept_mtls_off=args.accept_mtls_off,
        )
        return cls(args.finding, names, wishes, meant, changes)


def run(args: argparse.Namespace) -> int:
    """Previews repairs, or makes them.

    Raises UsageError for flags that contradict each other, NotEditable for a text that cannot be
    changed in place, Conflict for an object that is not what was looked at or belongs to somebody.
    """
    asked = FixOptions.of(args)
    how = asked.changes
    with collector_paused():
        meshes, namespaces = take_meshes(how.inputs, {*asked.meant.kinds, *ROUTING_KINDS})
        if sum(len(each) > 0 for each in meshes.values()) > 1 and how.output.format != "diff":
            raise UsageError("-o writes patches for one mesh: choose one with -k, or leave it out")
        cures, report = _cured(asked, meshes, namespaces)
    name_limits(*meshes.values())
    for name in asked.names:
        if cures.known and name not in cures.known:
            there = ", ".join(sorted(cures.known))
            raise UsageError(f"--choose {name}: no repair has that name; there are: {there}")
    changes = cures.changes
    show(how, changes, cures.texts)
    if how.write:
        write(changes, cures.texts)
    tell(how.output, changes, list(_report(asked, cures, report)))
    if changes and how.apply:
        apply(how, changes, meshes[""])
    is_made = how.write or how.apply
    if any(found.deferred for found in cures.all) or (changes and not is_made):
        return 1
    return 3 if any(skip.failed for skip in report.skipped) else 0


def _cured(
    asked: FixOptions, meshes: Mapping[str, Snapshot], namespaces: Collection[str] | None
) -> tuple[Cures, Report]:
    """What is repaired in each mesh, and what the doctor says of all of them then.

    What would change a file that cannot be edited in place is not repaired; it says which that is.
    """
    how, meant = asked.changes, asked.meant

    def look(root: str, state: Snapshot) -> Report:
        return examine_all({root: state}, meant.rules, meant.ignores, namespaces)

    def warn(error: NotEditable) -> None:
        print(f"Warning: {safe(str(error))}", file=sys.stderr)

    states = {root: (snapshot, look(root, snapshot)) for root, snapshot in meshes.items()}
    if len(states) == 1:
        ((_, report),) = states.values()
    else:
        report = examine_all(meshes, meant.rules, meant.ignores, namespaces)
    of_object = whole(how.inputs.session, meshes[""])
    cures = cure_all(states, look, asked.wishes, of_object, partial(texts_of, how), warn)
    return cures, cures.without_mended(report)


def _report(asked: FixOptions, cures: Cures, report: Report) -> Iterator[str]:
    """What is said below the diff, part by part."""
    how, paint = asked.changes, asked.changes.output.paint
    is_empty = not any(skip.failed for skip in report.skipped)
    if not how.output.no_headers:
        for root, found in cures.by_root.items():
            parts = list(filter(None, _told(how, found)))
            if root and parts:
                yield paint(safe(f"IN {root}"), "bold")
            yield from parts
            is_empty = is_empty and not parts
    yield failures(report, width(), paint)
    yield unexamined(report, width(), paint)
    if not how.output.no_headers:
        yield _shared(cures.texts, paint)
        if is_empty:
            named = "None of these findings is there: nothing" if asked.findings else "Nothing"
            yield paint(f"{named} to repair.", "bold", "green")
        if how.is_previewed:
            yield "\n".join(_next(how.given, cures.all))
            yield how_to_make(how, cures.changes)


def _shared(texts: Sequence[FileChange], paint: Paint) -> str:
    """The files that kustomizations share."""
    shared = [
        f"{each.file} is part of {', '.join(listed(each.roots))}; whatever else includes it "
        "changes, too"
        for each in texts
        if each.roots
    ]
    return _listed(paint("FILES OF KUSTOMIZATIONS", "bold"), shared, width())


def _next(given: Given, cures: Sequence[Cure]) -> Iterator[str]:
    """The commands for what a preview leaves: other repairs, or another look at it."""
    flags = {each.repair.flag: None for found in cures for each in found.unsafe}
    for flag in flags:
        line = given.again(given.command, last=flag)
        yield safe(f"To preview what takes {flag}, too: {line}")
    choices = [finding for found in cures for finding in found.open]
    for finding in choices[:1]:
        repair, target = finding.repairs[0], finding.resource.id
        parts = filter(None, (target.kind, target.namespace, target.name))
        words = (f"{finding.rule.code}={'/'.join(parts)}", *_words(repair))
        chosen = ("finding", "choose", repair.flag.strip("-").replace("-", "_"))
        line = given.again(given.command, *words, without=chosen)
        yield safe(f"To preview a choice, such as {repair.name}: {line}")
    if not (flags or choices) and any(found.manual for found in cures):
        line = given.again("doctor", only=(INPUT, RULES_MEANT, CLUSTER))
        yield safe(f"To look again after changes by hand: {line}")


def _told(asked: ChangeOptions, found: Cure) -> Iterator[str]:
    room, paint = width(), asked.output.paint
    changes = found.changes
    revealed = found.revealed
    done = "REPAIRED" if asked.write else "TO BE REPAIRED"
    yield _listed(paint(done, "bold", "green"), _repaired(found.made), room)
    waits = list(filter(None, map(_wait, changes.steps))) if asked.apply else []
    yield _listed(paint("WAITS", "bold"), waits, room)
    yield _listed(paint("CHOOSE", "bold", "yellow"), _ways(found), room)
    for flag in dict.fromkeys(each.repair.flag for each in found.unsafe):
        lines = _repaired([each for each in found.unsafe if each.repair.flag == flag])
        yield _listed(paint(f"ONLY WITH {flag}", "bold", "yellow"), lines, room)
    manual = [each for each in found.manual if each not in revealed]
    lines = [f"{_name(each)}: {each.message}; {each.next}" for each in map(found.as_read, manual)]
    yield _listed(paint("BY HAND", "bold", "yellow"), lines, room)
    owned = [f"{step.target} belongs to {owner}" for step, owner in owned_steps(changes)]
    heading = "WILL BE REVERTED BY ITS CONTROLLER, unless it is changed there"
    yield _listed(paint(heading, "bold", "red"), owned, room)
    later = [repair.title for repair in found.deferred]
    yield _listed(paint("DEFERRED: run fix again afterwards", "bold", "yellow"), later, room)
    if changes and {step.resource.kind for step in changes.steps} & set(ROUTING_KINDS):
        yield paint("HOW REQUESTS WILL BE ROUTED", "bold") + "\n" + _comparison(found, paint)
    left = {id(each) for each in (*found.open, *(each.finding for each in found.unsafe))}
    lines = [
        f"{each.rule.code} {each.resource}: {each.message}"
        for each in revealed
        if id(each) not in left
    ]
    yield _listed(paint("NEW FINDINGS AFTER THIS", "bold", "yellow"), lines, room)


def _comparison(found: Cure, paint: Paint) -> str:
    """Which requests will be treated differently, and what that rests on."""
    before, assumed = with_gateways(found.before[0])
    after, _ = with_gateways(found.after[0])
    changed = {step.resource.id for step in found.changes.steps}
    lines = [
        f"Gateway {name} is not in the input: taken to serve every host"
        for name in sorted(assumed)
        if any(
            vs.resource.id in changed and name in vs.gateways
            for vs in before.virtual_services.roots
        )
    ]
    lines.append(render(compare(before, after), (), Layout(width(), paint.enabled)).rstrip())
    return "\n".join(lines)


def _wait(step: Step) -> str:
    """What is waited for once a step is made; "" for nothing."""
    if step.then is Then.ROLLED_OUT:
        return f"until {step.target} is rolled out"
    return f"until all proxies have {step.target}" if step.then else ""


def _listed(heading: str, lines: Sequence[str], room: int) -> str:
    told = "\n".join(wrap(safe(line), room, "  ", "    ") for line in lines)
    return f"{heading}\n{told}" if lines else ""


def _repaired(chosen: Sequence[Choice]) -> list[str]:
    found = []
    for each in chosen:
        repair = each.repair
        told = filter(None, (repair.unsafe, *repair.affects, *repair.assumes))
        also = "".join(f"; {line}" for line in told)
        found.append(f"{each.finding.rule.code} {each.finding.resource}: {each.repair.title}{also}")
    return list(dict.fromkeys(found))


def _ways(found: Cure) -> list[str]:
    return [
        f"{_name(found.as_read(finding))}: {shlex.join(_words(repair))} to {repair.title}"
        for finding in found.open
        for repair in finding.repairs
    ]


def _name(finding: Finding) -> str:
    """A finding by its code and object, and where it is written."""
    position = finding.resource.origin.locate(finding.path)
    where = f" ({place(position)})" if position else ""
    return f"{finding.rule.code} {finding.resource}{where}"


def _words(repair: Repair) -> list[str]:
    """The words of a command line that choose a repair."""
    return ["--choose", repair.name, *([repair.flag] if repair.unsafe else [])]
