"""`kubectl mesh apply`: manifests brought into a cluster in the order in which no request fails."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubectl_mesh.changes.change_set import Step
from kubectl_mesh.changes.journal import RESUME
from kubectl_mesh.changes.patch import Conflict
from kubectl_mesh.commands.changing import (
    ApplyOptions,
    add_apply_flags,
    add_force_live_flag,
    agree,
    agree_to,
    check_consequences,
    connected,
    cures_of,
    going_on,
    how_to_apply,
    how_to_undo,
    refuse_owned,
    remind,
    say,
    whole_mesh,
)
from kubectl_mesh.commands.inputs import Files, name_limits, read_manifests, session_of
from kubectl_mesh.commands.output import Output
from kubectl_mesh.errors import InputError, UsageError
from kubectl_mesh.flags import Given, add_cluster_flags, add_folder_flags
from kubectl_mesh.mesh.resource import Resource, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.report.changes import live_diff, paint_diff, target_of
from kubectl_mesh.report.table import place, wrap
from kubectl_mesh.rollout.plan import Plan
from kubectl_mesh.sources.session import Session
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import COLOR_CHOICES, Paint, emit, safe, width

if TYPE_CHECKING:
    from kubectl_mesh.changes.cluster import Cluster


_EPILOG = """\
examples:
  {prog} -f manifests/ -R               shows the plan, asks, and goes through with it
  {prog} -f manifests/ -R --dry-run     shows the plan
  {prog} -f manifests/ -R --prune -l app=shop    deletes, too, what has that label and is in no file
  {prog} --remove-subset reviews/v1     takes a subset away that no route names any more
  {prog} --delete -f manifests/ -R      deletes, routes before what they lead to
  {prog} --resume                       goes on with what was stopped

Services and all else that receives requests come first; then DestinationRules, with all subsets of
now and then; once all proxies have those, VirtualServices; and once all proxies have these, the
subsets and objects that nothing routes to any more go. Objects are applied on the server, as
`kubectl apply --server-side` does it. `kubectl mesh undo` takes it back, in the safe order, too.

exit status:
  0  done, or there is nothing to do
  1  with --dry-run: there is something to do
  2  the command line is at fault, or you did not agree
  3  it was refused, stopped, or something could not be read
"""


_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    group = parser.add_argument_group("what to apply")
    group.add_argument(
        "-f",
        "--filename",
        action="append",
        metavar="FILE",
        help="manifests: a file, a folder, or - for standard input; repeatable",
    )
    add_folder_flags(group)
    group.add_argument(
        "-n", "--namespace", help="of what names none; default: the context's namespace"
    )
    group.add_argument(
        "--remove-subset",
        action="append",
        metavar="[NAMESPACE/]NAME/SUBSET",
        help="take a subset from the DestinationRules of that name or host, of the context's "
        "namespace if none is named, once no proxy routes to it; repeatable",
    )
    group.add_argument("--delete", action="store_true", help="delete the objects of the manifests")
    group.add_argument(
        "--prune",
        action="store_true",
        help="delete what has the labels of -l, is of a kind and namespace of the manifests, and "
        "is none of them",
    )
    group.add_argument("-l", "--selector", metavar="LABELS", help="for --prune: app=shop")
    group.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="ID",
        help="go on with a run that was stopped; default: the last one",
    )
    how = parser.add_argument_group("how to apply it")
    how.add_argument(
        "--dry-run",
        nargs="?",
        const="server",
        choices=("none", "server"),
        default="none",
        help="show the plan, and have the API server try it",
    )
    how.add_argument(
        "-o",
        "--output",
        choices=("plan", "diff", "json"),
        default="plan",
        help="how to show the plan; diff: with the objects as they are and will be",
    )
    how.add_argument(
        "--allow-empty",
        action="store_true",
        help="new subsets may be without a ready pod: requests to them get 503",
    )
    how.add_argument(
        "--allow-broken",
        action="store_true",
        help="routes may lead to what is not there, as far as this cluster knows: requests fail",
    )
    how.add_argument(
        "--force-conflicts", action="store_true", help="take over fields that others have set"
    )
    add_force_live_flag(how)
    add_apply_flags(how)
    how.add_argument("--color", choices=COLOR_CHOICES, default="auto")
    how.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list the files that are skipped; print tracebacks of errors",
    )
    add_cluster_flags(parser)


@dataclass(frozen=True)
class _Wanted:
    """What is to become of a cluster: manifests applied or deleted, or a run gone on with.

    `prune` are the labels of what is deleted besides, `resume` is the run; None for none.
    """

    files: Files
    session: Session
    namespace: str | None
    remove_subsets: Sequence[str]
    delete: bool
    prune: str | None
    resume: str | None
    dry_run: bool
    allow_empty: bool
    allow_broken: bool
    force_live: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Wanted:
        """Raises UsageError for flags that contradict each other."""
        files = Files.of(args)
        wanted = bool(files.names or args.remove_subset)
        dry_run = args.dry_run != "none"
        if args.resume is not None and (wanted or dry_run):
            raise UsageError("--resume goes on with what was planned: leave out the rest")
        if args.resume is None and not wanted:
            raise UsageError("name manifests with -f, or a --remove-subset")
        if args.delete and (args.prune or args.remove_subset):
            raise UsageError("--delete deletes the objects of the manifests: leave out the rest")
        if args.prune and not ((args.selector or "").strip() and files.names):
            raise UsageError("--prune needs -f, and -l to say which objects are concerned")
        if args.selector and not args.prune:
            raise UsageError("-l is for --prune")
        return cls(
            files,
            session_of(vars(args)),
            args.namespace,
            args.remove_subset or (),
            args.delete,
            args.selector if args.prune else None,
            args.resume,
            dry_run,
            args.allow_empty,
            args.allow_broken,
            args.force_live,
        )

    @property
    def own_namespace(self) -> str:
        return self.namespace or self.session.namespace_on_disk


def run(args: argparse.Namespace) -> int:
    """Plans, and goes through with it.

    Raises UsageError for flags that contradict each other, InputError for manifests that cannot be
    read, Conflict for what is refused, Stopped where a step fails.
    """
    wanted, options = _Wanted.of(args), ApplyOptions.of(args)
    output, given = Output.of(args), Given.of(args)
    with connected(wanted.session, options, force_conflicts=args.force_conflicts) as cluster:
        if wanted.resume is not None:
            return _resume(wanted, options, cluster, wanted.resume)
        live, plan = _plan(wanted, cluster)
        emit(_shown(output, plan))
        if plan.refusals:
            first, *more = plan.refusals
            others = f", and {len(more)} more, all listed in the plan" if more else ""
            raise Conflict(f"{first}{others}; nothing is changed")
        changes = plan.changes
        done = 3 if plan.gaps else 0
        if not changes:
            return done
        if not wanted.force_live:
            refuse_owned(changes)
        cluster.rehearse(changes)
        if wanted.dry_run:
            if output.format != "json":
                say(how_to_apply(given))
            return 1
        agree(f"Make {len(changes.steps)} changes?", yes=options.yes)
        told = say if output.format != "json" else _say_aside
        cures = cures_of(live, changes)
        found = cluster.apply(changes, options.journal, told, RESUME, cures, given.command)
    told(how_to_undo(given, found))
    remind(changes, told)
    return done


def _say_aside(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)


def _resume(wanted: _Wanted, options: ApplyOptions, cluster: Cluster, name: str) -> int:
    journal = options.journal
    found = going_on(journal, cluster, name)
    if found.goes_on != RESUME:
        raise UsageError(f"kubectl mesh {found.goes_on} {found.id} goes on with that one")
    check_consequences(wanted.session, found, back=False, allow_broken=wanted.allow_broken)
    agree_to(found.left, "Go on with it?", yes=options.yes)
    cluster.go_on(found, journal, say)
    return 0


def _plan(wanted: _Wanted, cluster: Cluster) -> tuple[Snapshot, Plan]:
    from kubectl_mesh.rollout.desired import Desired
    from kubectl_mesh.rollout.plan import plan

    resources = _manifests(wanted)
    desired = Desired(cluster)
    with collector_paused():
        live = _live(wanted.session)
        if wanted.delete:
            staying, going = [], list(desired.unwanted(resources))
        else:
            staying = desired.wanted(resources)
            going = [] if wanted.prune is None else list(desired.pruned(resources, wanted.prune))
            namespace = wanted.own_namespace
            lost = desired.without_subsets(live, wanted.remove_subsets, namespace)
            known = {each.path for each in staying}
            for each in lost:
                if each.path in known:
                    raise UsageError(f"{each.resource} stands in the manifests: change it there")
            staying += lost
        return live, plan(
            live,
            staying,
            going,
            desired,
            allow_empty=wanted.allow_empty,
            allow_broken=wanted.allow_broken,
        )


def _live(session: Session) -> Snapshot:
    """The whole mesh as it is. Raises Forbidden and Conflict where not all routes can be seen."""
    from kubectl_mesh.rollout.breakage import unseen

    live = whole_mesh(session)
    name_limits(live)
    if reason := unseen(live):
        raise Conflict(f"{reason}: it is not known which subsets are in use; nothing is changed")
    return live


def _manifests(wanted: _Wanted) -> list[Resource]:
    """The objects of the files. Raises InputError for what cannot be read, or has no kind."""
    if not wanted.files.names:
        return []
    found = read_manifests(wanted.files, wanted.own_namespace, nameless=True)
    resources = found.only()
    for each in found.unreadable:
        where = place(each.position) if each.position else each.where
        raise InputError(f"{each.reason}; nothing is changed", where)
    seen: set[object] = set()
    for resource in resources:
        key = (resource.api_version.rpartition("/")[0], resource.id)
        if key in seen:
            raise UsageError(f"{resource} stands twice in the manifests: leave one of them")
        seen.add(key)
        metadata = resource.raw.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise InputError(f"{resource.kind} without a name", _where(resource, "metadata"))
        for field in ("name", "namespace"):
            text = metadata.get(field)
            if text is not None and not (isinstance(text, str) and _NAME.fullmatch(text)):
                where = _where(resource, "metadata", field)
                raise InputError(f"{resource.kind} {text!r}: no valid {field}", where)
        if resource.faults and not wanted.delete:
            fault = resource.faults[0]
            told = (
                f"{resource}: {dotted(fault.path)}: expected {fault.expected}, found {fault.found}"
            )
            raise InputError(told, _where(resource, *fault.path))
    if not resources:
        raise UsageError("there is nothing in the manifests")
    return resources


def _where(resource: Resource, *path: str | int) -> str:
    position = resource.origin.locate(path)
    return place(position) if position else resource.origin.name


def _shown(output: Output, plan: Plan) -> str:
    if output.format == "json":
        return json.dumps(_document(plan), indent=2) + "\n"
    text = "\n\n".join(_told(plan, output.paint)) + "\n"
    if output.format == "diff":
        text = paint_diff(live_diff(plan.changes), output.paint) + "\n" + text
    return text


def _document(plan: Plan) -> Mapping[str, Any]:
    return {
        "phases": [
            {
                "title": phase.title,
                "why": phase.why,
                "steps": [_step(step) for step in phase.steps],
                "waitsFor": phase.waits_for or None,
            }
            for phase in plan.phases
        ],
        "refusals": list(plan.refusals),
        "risks": list(plan.risks),
    }


def _step(step: Step) -> Mapping[str, Any]:
    return {
        "action": step.action.value,
        "target": target_of(step),
        "reasons": list(step.reasons),
        "waitsForPods": [need.what for need in step.ready],
    }


def _told(plan: Plan, paint: Paint) -> Iterator[str]:
    room = width()
    if not plan.phases and not plan.refusals:
        yield paint("Nothing to change.", "bold", "green")
    for number, phase in enumerate(plan.phases, 1):
        lines = [wrap(safe(f"{number}. {phase.title}: {phase.why}"), room, "", "   ")]
        for step in phase.steps:
            text = f"{step.action.value} {step.target}: {'; '.join(step.reasons)}"
            pods = ", ".join(need.what for need in step.ready)
            if pods:
                text += f"; before it, a pod has to be ready for {pods}"
            lines.append(wrap(safe(text), room, "   ", "     "))
        if phase.waits_for:
            lines.append(wrap(f"then waits until {phase.waits_for}", room, "   ", "     "))
        yield "\n".join(lines)
    for heading, style, texts in (
        ("REFUSED", "red", plan.refusals),
        ("MAY GO WRONG", "yellow", plan.risks),
    ):
        if texts:
            told = "\n".join(wrap(safe(text), room, "  ", "    ") for text in texts)
            yield paint(heading, "bold", style) + "\n" + told
