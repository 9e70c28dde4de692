"""`kubectl mesh apply`: manifests brought into a cluster in the order in which no request fails."""

from __future__ import annotations

import argparse
import json
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
from kubectl_mesh.mesh.resource import Resource
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


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    _add_flags_of_what(parser.add_argument_group("what to apply"))
    _add_flags_of_how(parser.add_argument_group("how to apply it"))
    add_cluster_flags(parser)


def _add_flags_of_what(group: argparse._ArgumentGroup) -> None:
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


def _add_flags_of_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dry-run",
        nargs="?",
        const="server",
        choices=("none", "server"),
        default="none",
        help="show the plan, and have the API server try it",
    )
    group.add_argument(
        "-o",
        "--output",
        choices=("plan", "diff", "json"),
        default="plan",
        help="how to show the plan; diff: with the objects as they are and will be",
    )
    group.add_argument(
        "--allow-empty",
        action="store_true",
        help="new subsets may be without a ready pod: requests to them get 503",
    )
    group.add_argument(
        "--allow-broken",
        action="store_true",
        help="routes may lead to what is not there, as far as this cluster knows: requests fail",
    )
    group.add_argument(
        "--force-conflicts", action="store_true", help="take over fields that others have set"
    )
    add_force_live_flag(group)
    add_apply_flags(group)
    group.add_argument("--color", choices=COLOR_CHOICES, default="auto")
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list the files that are skipped; print tracebacks of errors",
    )


@dataclass(frozen=True)
class RolloutOptions:
    """What is to become of a cluster: manifests applied or deleted, or a run gone on with.

    `prune` are the labels of what is deleted besides, "" for none; `resume` is the run, "" for the
    last one and None for none.
    """

    files: Files
    session: Session
    namespace: str | None
    remove_subsets: Sequence[str]
    delete: bool
    prune: str
    resume: str | None
    dry_run: bool
    allow_empty: bool
    allow_broken: bool
    force_live: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> RolloutOptions:
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
            namespace=args.namespace,
            remove_subsets=args.remove_subset or (),
            delete=args.delete,
            prune=args.selector if args.prune else "",
            resume=args.resume,
            dry_run=dry_run,
            allow_empty=args.allow_empty,
            allow_broken=args.allow_broken,
            force_live=args.force_live,
        )

    @property
    def own_namespace(self) -> str:
        return self.namespace or self.session.namespace_on_disk


def run(args: argparse.Namespace) -> int:
    """Plans, and goes through with it.

    Raises UsageError for flags that contradict each other, InputError for manifests that cannot be
    read, Conflict for what is refused, Stopped where a step fails.
    """
    asked, options = RolloutOptions.of(args), ApplyOptions.of(args)
    output, given = Output.of(args), Given.of(args)
    with connected(asked.session, options, force_conflicts=args.force_conflicts) as cluster:
        if asked.resume is not None:
            return _resume(asked, options, cluster, asked.resume)
        live, plan = _plan(asked, cluster)
        emit(_shown(output, plan))
        if plan.refusals:
            first, *more = plan.refusals
            others = f", and {len(more)} more, all listed in the plan" if more else ""
            raise Conflict(f"{first}{others}; nothing is changed")
        changes = plan.changes
        done = 3 if plan.gaps else 0
        if not changes:
            return done
        if not asked.force_live:
            refuse_owned(changes)
        cluster.rehearse(changes)
        if asked.dry_run:
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


def _resume(asked: RolloutOptions, options: ApplyOptions, cluster: Cluster, name: str) -> int:
    journal = options.journal
    found = going_on(journal, cluster, name)
    if found.goes_on != RESUME:
        raise UsageError(f"kubectl mesh {found.goes_on} {found.id} goes on with that one")
    check_consequences(asked.session, found, back=False, allow_broken=asked.allow_broken)
    agree_to(found.left, "Go on with it?", yes=options.yes)
    cluster.go_on(found, journal, say)
    return 0


def _plan(asked: RolloutOptions, cluster: Cluster) -> tuple[Snapshot, Plan]:
    """The mesh as it is, and what is done to it. Raises Forbidden where nothing can be seen."""
    from kubectl_mesh.rollout.desired import planned

    resources = _manifests(asked)
    with collector_paused():
        live = whole_mesh(asked.session)
        name_limits(live)
        return live, planned(
            cluster,
            live,
            resources,
            delete=asked.delete,
            prune=asked.prune,
            remove_subsets=asked.remove_subsets,
            namespace=asked.own_namespace,
            allow_empty=asked.allow_empty,
            allow_broken=asked.allow_broken,
        )


def _manifests(asked: RolloutOptions) -> list[Resource]:
    """The objects of the files. Raises InputError for what cannot be read, or has no kind."""
    from kubectl_mesh.rollout.desired import check_manifests

    if not asked.files.names:
        return []
    found = read_manifests(asked.files, asked.own_namespace, nameless=True)
    resources = found.only()
    for each in found.unreadable:
        where = place(each.position) if each.position else each.where
        raise InputError(f"{each.reason}; nothing is changed", where)
    check_manifests(resources, deleted=asked.delete)
    return resources


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
