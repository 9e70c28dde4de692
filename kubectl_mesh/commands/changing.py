"""What every command does that changes something: flags, preview, files, cluster."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kubectl_mesh.changes import files
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.journal import RESUME, Entry, Journal, Run, default_folder
from kubectl_mesh.changes.owners import is_applied, owner_of
from kubectl_mesh.changes.patch import Conflict, same
from kubectl_mesh.changes.wait_for import DELAY, For
from kubectl_mesh.commands.inputs import (
    cluster_options,
    filenames_of,
    is_on_disk,
    take_snapshot,
)
from kubectl_mesh.errors import Forbidden, UsageError
from kubectl_mesh.flags import CLUSTER, again, duration
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.scope import KINDS as ROUTING_KINDS
from kubectl_mesh.report.changes import FORMATS, live_diff, paint_diff
from kubectl_mesh.sources.files import STDIN
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import Paint, emit, safe

_FOR_UNDO = (CLUSTER, "journal", "wait_for", "istiod_url", "istio_namespace", "timeout")

if TYPE_CHECKING:
    from kubectl_mesh.changes.cluster import Cluster


def add_change_flags(group: argparse._ArgumentGroup) -> None:
    """--write for the files of -f, --apply for the cluster, and how."""
    group.add_argument("--write", action="store_true", help="change the files of -f")
    group.add_argument("--apply", action="store_true", help="change the cluster, if you agree")
    add_apply_flags(group)
    add_force_live_flag(group)
    group.add_argument(
        "--dry-run",
        choices=("none", "client", "server"),
        default="none",
        help="with --apply; server: have the API server try it and change nothing; client: do not "
        "even ask it",
    )


def add_apply_flags(group: argparse._ArgumentGroup) -> None:
    """The flags of everything that changes a cluster."""
    group.add_argument("--yes", action="store_true", help="do not ask")
    group.add_argument(
        "--timeout",
        metavar="DURATION",
        type=duration,
        default=300.0,
        help="how long to wait for what must hold before the next step (default 5m, 0: for ever)",
    )
    group.add_argument(
        "--wait-for",
        metavar="proxies|delay[=5s]",
        type=wait_for,
        default=WaitFor(For.EITHER),
        help="between steps: until istiod says that all proxies have it, or for some seconds "
        "without proof; default: the proxies, and the delay where istiod is out of reach",
    )
    group.add_argument(
        "--istiod-url",
        metavar="URL",
        help="where istiod's debug pages are; default: its pods, through kubectl port-forward",
    )
    group.add_argument(
        "--istio-namespace", metavar="NAMESPACE", default="istio-system", help="where istiod runs"
    )
    group.add_argument(
        "--field-manager",
        metavar="NAME",
        default="",
        help="make NAME the manager of the fields that change; default: kubectl for manifests, and "
        "whoever managed a field before for all other changes",
    )
    group.add_argument("--journal", metavar="DIR", help="where to note what is done, for undo")


def add_force_live_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--force-live",
        action="store_true",
        help="change objects, too, that a controller (Argo CD, Flux, Helm...) will set back",
    )


def check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags of add_change_flags that contradict each other."""
    on_disk = is_on_disk(args)
    if args.write and not on_disk:
        raise UsageError("--write changes the files of -f: name them")
    if args.apply and on_disk:
        raise UsageError("--apply changes the cluster, not the files of -f: those are for --write")
    if not args.apply and (args.dry_run != "none" or args.force_live or args.yes):
        raise UsageError("--yes, --dry-run and --force-live are for --apply")
    if args.apply and args.output != "diff":
        raise UsageError("--apply shows a diff: leave out -o")
    if args.with_cluster:
        raise UsageError("--with-cluster is for the doctor: here it is -f, or the cluster")


def whole(args: argparse.Namespace, snapshot: Snapshot) -> Callable[[Resource], Mapping[str, Any]]:
    """What gives an object with all its fields, of a cluster as it is now.

    It raises Conflict for an object that is not what was looked at: what is done about it, and what
    was copied from it, is for what it was.
    """
    if not snapshot.coverage.live:
        return lambda resource: resource.raw
    from kubectl_mesh.sources.cluster import as_listed, whole

    of_cluster = whole(cluster_options(args))

    def now(resource: Resource) -> Mapping[str, Any]:
        found = of_cluster(resource)
        if not same(as_listed(resource, found).data, resource.data):
            raise Conflict(
                f"{resource} was changed while the cluster was looked at; nothing is changed: run "
                "it again"
            )
        return found

    return now


def texts_of(args: argparse.Namespace, changes: ChangeSet) -> list[files.FileChange]:
    """What a change set makes of the files of -f, if that is what is shown; else nothing.

    Raises NotEditable and InputError as files.file_changes does.
    """
    return files.file_changes(changes) if is_on_disk(args) and args.output == "diff" else []


def show(
    args: argparse.Namespace,
    changes: ChangeSet,
    texts: Sequence[files.FileChange] | None,
    paint: Paint,
) -> None:
    """Prints a change set as --output says.

    `texts` is what `texts_of` makes of it; None where the files cannot be edited, so that the
    objects are shown.
    """
    if args.output != "diff":
        emit(FORMATS[args.output](changes))
    else:
        is_text = is_on_disk(args) and texts is not None
        lines = files.unified_diff(texts or ()) if is_text else live_diff(changes)
        emit(paint_diff(lines, paint))


def write(changes: ChangeSet, texts: Sequence[files.FileChange]) -> None:
    """Changes the files that the objects stand in; `texts` is what `texts_of` made of them."""
    files.write(texts or files.file_changes(changes))


def tell(args: argparse.Namespace, changes: ChangeSet, parts: list[str]) -> None:
    """Prints what is said of a change set: below its diff, or beside what a program reads.

    Below commands it is comments.
    """
    text = "\n\n".join(filter(None, parts))
    if args.output == "diff" and not args.no_headers:
        emit(text + "\n")
    elif args.output == "kubectl" and changes:
        emit("".join(f"# {line}".rstrip() + "\n" for line in text.splitlines()))
    elif text:
        print(text, file=sys.stderr)


def is_previewed(args: argparse.Namespace) -> bool:
    """Whether people see a preview of what a command line can make: not of standard input."""
    for_people = args.output == "diff" and not args.no_headers
    return for_people and not (args.write or args.apply or STDIN in filenames_of(args))


def how_to_make(args: argparse.Namespace, changes: ChangeSet) -> str:
    """The command that makes what a preview shows; "" for nothing, and for no preview."""
    if not changes or not is_previewed(args):
        return ""
    flag = "--write" if is_on_disk(args) else "--apply"
    return safe(f"To make these changes: {again(args, args.command, last=flag)}")


def apply(args: argparse.Namespace, changes: ChangeSet, snapshot: Snapshot) -> None:
    """Makes a change set to a mesh, once the server has tried it and the user agrees."""
    if not args.force_live:
        refuse_owned(changes)
    if args.dry_run == "client":
        print("Nothing is changed: the API server was not asked, either.")
        print(how_to_apply(args))
        return
    with connected(args) as cluster:
        cluster.rehearse(changes)
        if args.dry_run == "server":
            print("The API server would accept every step; nothing is changed.")
            print(how_to_apply(args))
            return
        count = len(changes.steps)
        agree(args, f"Make {count} changes?" if count > 1 else "Make the change?")
        cures = cures_of(snapshot, changes)
        command = f"{args.command} --apply"
        run = cluster.apply(changes, journal_of(args), say, cures=cures, command=command)
    print(how_to_undo(args, run))
    remind(changes, say)


def remind(changes: ChangeSet, told: Callable[[str], None]) -> None:
    """Tells of manifests that would take changes back which were not made by applying them."""
    found = [
        str(step.target)
        for step in changes.steps
        if step.applied is None and is_applied(step.before or {})
    ]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        told(
            f"Make the same change in the manifests of {found[0]}{more}: "
            "applying them as they are may take it back."
        )


def how_to_apply(args: argparse.Namespace) -> str:
    """The command that applies what --dry-run has shown."""
    return safe(f"To apply it: {again(args, args.command, without=('dry_run',))}")


def how_to_undo(args: argparse.Namespace, run: Run) -> str:
    """The command that takes a run back."""
    return safe(f"To undo: {again(args, 'undo', run.id, only=_FOR_UNDO)}")


def cures_of(snapshot: Snapshot, changes: ChangeSet) -> Sequence[str]:
    """What fails before a change set and not after it: to undo that is to have it fail again."""
    from kubectl_mesh.rollout.consequences import cures

    if not {step.resource.kind for step in changes.steps} & set(ROUTING_KINDS):
        return ()
    with collector_paused():
        return cures(snapshot, changes)


def refuse_owned(changes: ChangeSet) -> None:
    """Raises Conflict where a controller would set an object back."""
    owned = owned_steps(changes)
    if owned:
        listed = "; ".join(f"{step.target} belongs to {owner}" for step, owner in owned)
        raise Conflict(
            f"{listed}, which will set it back; nothing is changed: change it where it is kept; or "
            "change it here all the same with --force-live"
        )


def owned_steps(changes: ChangeSet) -> list[tuple[Step, str]]:
    """The steps whose objects a controller would set back, and which."""
    return [(step, owner) for step in changes.steps if (owner := owner_of(step.before or {}))]


def say(text: str) -> None:
    print(safe(text), flush=True)


class WaitFor(NamedTuple):
    """What to wait for between steps, and the seconds of the delay."""

    what: For
    delay: float = DELAY

    def __str__(self) -> str:
        return f"delay={self.delay:g}s" if self.what is For.DELAY else self.what.value


def wait_for(text: str) -> WaitFor:
    """What --wait-for says, and the seconds of the delay. Raises argparse.ArgumentTypeError."""
    word, separator, length = text.partition("=")
    if word == For.DELAY.value:
        return WaitFor(For.DELAY, (duration(length) or 0.0) if separator else DELAY)
    if text == For.PROXIES.value:
        return WaitFor(For.PROXIES)
    raise argparse.ArgumentTypeError(f"{text!r}: expected proxies, delay or delay=5s")


@contextlib.contextmanager
def connected(args: argparse.Namespace, *, force_conflicts: bool = False) -> Iterator[Cluster]:
    """The cluster that the flags name, to be changed as Cluster has it. Raises ClusterError."""
    from kubectl_mesh.changes.cluster import Cluster
    from kubectl_mesh.changes.waiting import Waiting
    from kubectl_mesh.sources.cluster import client_of, istiods

    options = cluster_options(args)
    client = client_of(options)
    what, delay = args.wait_for
    reach = partial(istiods, client, options, args.istio_namespace, args.istiod_url)
    with Waiting(reach, what, delay, args.timeout) as waiting:
        yield Cluster(client, waiting, args.field_manager, force_conflicts=force_conflicts)


def going_on(args: argparse.Namespace, cluster: Cluster, name: str) -> tuple[Journal, Run]:
    """The run of a name, or the last of apply that is not over, with the journal of it.

    Raises UsageError where there is none of this cluster, JournalError where it cannot be read.
    """
    journal = journal_of(args)
    found = journal.run(name) if name else journal.last(_is_left_by_apply)
    if found is None:
        raise UsageError("there is nothing to go on with: see undo --list")
    check_cluster(cluster, found)
    if not found.left:
        raise UsageError(f"there is nothing left to do of {found.id}")
    if found.is_going_back:
        raise UsageError(
            f"{found.id} was taken back in part: kubectl mesh undo {found.id} goes on with that"
        )
    return journal, found


def _is_left_by_apply(run: Run) -> bool:
    return run.is_half_done and run.goes_on == RESUME


def check_cluster(cluster: Cluster, found: Run) -> None:
    """Raises OtherCluster for a run of another cluster; says so where that is not certain."""
    doubt = cluster.recognise(found)
    if doubt:
        said = f"{doubt}: only the uids of its objects can show that it is this one"
        print(f"Warning: {safe(said)}", file=sys.stderr)


def whole_mesh(args: argparse.Namespace) -> Snapshot:
    """The live mesh, with all that decides on routes. Raises Forbidden if nothing can be listed."""
    flags = {**vars(args), "filename": None, "kustomize": None, "all_namespaces": True}
    flags |= {"recursive": False, "render": None, "strict": False, "mesh_config": None}
    flags |= {"with_cluster": False, "namespace": None}
    flags.setdefault("istio_version", None)
    try:
        found, _ = take_snapshot(argparse.Namespace(**flags), {*ROUTING_KINDS, "Pod"})
    except Forbidden as error:
        raise Forbidden(
            f"{error.message}, and all routes have to be seen, and what "
            "they lead to: `list` on what doctor -A reads"
        ) from error
    return found


def check_consequences(args: argparse.Namespace, found: Run, *, back: bool) -> None:
    """Raises Conflict where the rest of a run, or its undoing, would break what works now.

    And where that cannot be seen, Forbidden if nothing can. With --allow-broken it only says so.
    """
    from kubectl_mesh.rollout import breakage, consequences

    if not consequences.concerns_routes(found):
        return
    done, again = ("undone", "undo it") if back else ("finished", "go on")
    try:
        with collector_paused():
            live = whole_mesh(args)
            unseen = breakage.unseen(live)
            if unseen:
                raise Conflict(f"{unseen}: what would fail is not known")
            for doubt in breakage.doubts(live):
                print(f"Warning: {safe(doubt)}", file=sys.stderr)
            phases = consequences.back(found, live) if back else consequences.ahead(found)
            broken = consequences.broken_by(live, phases, (found.cures or ()) if back else ())
            if broken:
                before = back and found.cures is None
                raise Conflict(
                    f"{'; '.join(broken)}: with what is there now this would fail once {found.id} "
                    f"is {done}"
                    + ("; its journal does not say what failed before it" if before else "")
                )
    except (Conflict, Forbidden) as error:
        if args.allow_broken:
            print(f"Warning: {safe(str(error))}", file=sys.stderr)
            return
        instead = "" if back else f"; kubectl mesh undo {found.id} goes back"
        raise type(error)(
            f"{error}; nothing is changed{instead}; {again} all the same with --allow-broken"
        ) from error


def journal_of(args: argparse.Namespace) -> Journal:
    return Journal(Path(args.journal) if args.journal else default_folder())


def agree_to(args: argparse.Namespace, entries: Iterable[Entry], question: str) -> None:
    """Shows steps of a journal, and asks. Raises UsageError as `agree` does."""
    for entry in entries:
        print(safe(f"{entry.target}: {'; '.join(entry.reasons)}"))
    agree(args, question)


def agree(args: argparse.Namespace, question: str) -> None:
    """Asks the user. Raises UsageError where there is nobody to ask, and for a no."""
    if args.yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: say --yes")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing is changed")
