"""What every command does that changes something: flags, preview, files, cluster."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kubectl_mesh.changes import files
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.journal import RESUME, Entry, Journal, Run, default_folder
from kubectl_mesh.changes.owners import is_applied, owner_of
from kubectl_mesh.changes.patch import Conflict, same
from kubectl_mesh.changes.wait_for import DELAY, For
from kubectl_mesh.commands.inputs import Inputs, take_snapshot
from kubectl_mesh.commands.output import Output
from kubectl_mesh.errors import Forbidden, UsageError
from kubectl_mesh.flags import CLUSTER, Given, duration
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.scope import KINDS as ROUTING_KINDS
from kubectl_mesh.report.changes import FORMATS, live_diff, paint_diff
from kubectl_mesh.sources.session import Session
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import emit, safe

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


@dataclass(frozen=True)
class ApplyOptions:
    """How a cluster is changed, as add_apply_flags have it. `timeout` is None for no limit."""

    yes: bool
    timeout: float | None
    wait_for: WaitFor
    istiod_url: str | None
    istio_namespace: str
    field_manager: str
    journal_folder: str | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> ApplyOptions:
        return cls(
            yes=args.yes,
            timeout=args.timeout,
            wait_for=args.wait_for,
            istiod_url=args.istiod_url,
            istio_namespace=args.istio_namespace,
            field_manager=args.field_manager,
            journal_folder=args.journal,
        )

    @property
    def journal(self) -> Journal:
        return Journal(Path(self.journal_folder) if self.journal_folder else default_folder())


@dataclass(frozen=True)
class ChangeOptions:
    """What becomes of the changes that a command finds in `inputs`, as add_change_flags have it.

    `given` is the command line: it is named with another flag.
    """

    inputs: Inputs
    output: Output
    given: Given
    options: ApplyOptions
    write: bool
    apply: bool
    dry_run: str
    force_live: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> ChangeOptions:
        """Raises UsageError for flags that contradict each other."""
        found = cls(
            Inputs.of(args),
            Output.of(args),
            Given.of(args),
            ApplyOptions.of(args),
            write=args.write,
            apply=args.apply,
            dry_run=args.dry_run,
            force_live=args.force_live,
        )
        found._check()
        return found

    def _check(self) -> None:
        on_disk = self.inputs.has_files
        if self.write and not on_disk:
            raise UsageError("--write changes the files of -f: name them")
        if self.apply and on_disk:
            raise UsageError(
                "--apply changes the cluster, not the files of -f: those are for --write"
            )
        if not self.apply and (self.dry_run != "none" or self.force_live or self.options.yes):
            raise UsageError("--yes, --dry-run and --force-live are for --apply")
        if self.apply and self.output.format != "diff":
            raise UsageError("--apply shows a diff: leave out -o")
        if self.inputs.with_cluster:
            raise UsageError("--with-cluster is for the doctor: here it is -f, or the cluster")

    @property
    def is_previewed(self) -> bool:
        """Whether people see a preview of what a command line can make: not of standard input."""
        for_people = self.output.format == "diff" and not self.output.no_headers
        return for_people and not (self.write or self.apply or self.inputs.files.hold_stdin)


def whole(session: Session, snapshot: Snapshot) -> Callable[[Resource], Mapping[str, Any]]:
    """What gives an object with all its fields, of a cluster as it is now, and asks once for each.

    It raises Conflict for an object that is not what was looked at: what is done about it, and what
    was copied from it, is for what it was.
    """
    if not snapshot.coverage.live:
        return lambda resource: resource.raw
    from kubectl_mesh.sources.cluster import as_listed, whole

    of_cluster = whole(session.client)

    def now(resource: Resource) -> Mapping[str, Any]:
        found = of_cluster(resource)
        if not same(as_listed(resource, found).data, resource.data):
            raise Conflict(
                f"{resource} was changed while the cluster was looked at; nothing is changed: run "
                "it again"
            )
        return found

    return now


def texts_of(asked: ChangeOptions, changes: ChangeSet) -> list[files.FileChange]:
    """What a change set makes of the files of -f, if that is what is shown; else nothing.

    Raises NotEditable and InputError as files.file_changes does.
    """
    is_text = asked.inputs.has_files and asked.output.format == "diff"
    return files.file_changes(changes) if is_text else []


def show(
    asked: ChangeOptions, changes: ChangeSet, texts: Sequence[files.FileChange] | None
) -> None:
    """Prints a change set as --output says.

    `texts` is what `texts_of` makes of it; None where the files cannot be edited, so that the
    objects are shown.
    """
    if asked.output.format != "diff":
        emit(FORMATS[asked.output.format](changes))
    else:
        is_text = asked.inputs.has_files and texts is not None
        lines = files.unified_diff(texts or ()) if is_text else live_diff(changes)
        emit(paint_diff(lines, asked.output.paint))


def write(changes: ChangeSet, texts: Sequence[files.FileChange]) -> None:
    """Changes the files that the objects stand in; `texts` is what `texts_of` made of them."""
    files.write(texts or files.file_changes(changes))


def tell(output: Output, changes: ChangeSet, parts: list[str]) -> None:
    """Prints what is said of a change set: below its diff, or beside what a program reads.

    Below commands it is comments.
    """
    text = "\n\n".join(filter(None, parts))
    if output.format == "diff" and not output.no_headers:
        emit(text + "\n")
    elif output.format == "kubectl" and changes:
        emit("".join(f"# {line}".rstrip() + "\n" for line in text.splitlines()))
    elif text:
        print(text, file=sys.stderr)


def how_to_make(asked: ChangeOptions, changes: ChangeSet) -> str:
    """The command that makes what a preview shows; "" for nothing, and for no preview."""
    if not changes or not asked.is_previewed:
        return ""
    flag = "--write" if asked.inputs.has_files else "--apply"
    return safe(f"To make these changes: {asked.given.again(asked.given.command, last=flag)}")


def apply(asked: ChangeOptions, changes: ChangeSet, snapshot: Snapshot) -> None:
    """Makes a change set to a mesh, once the server has tried it and the user agrees."""
    if not asked.force_live:
        refuse_owned(changes)
    if asked.dry_run == "client":
        print("Nothing is changed: the API server was not asked, either.")
        print(how_to_apply(asked.given))
        return
    with connected(asked.inputs.session, asked.options) as cluster:
        cluster.rehearse(changes)
        if asked.dry_run == "server":
            print("The API server would accept every step; nothing is changed.")
            print(how_to_apply(asked.given))
            return
        count = len(changes.steps)
        question = f"Make {count} changes?" if count > 1 else "Make the change?"
        agree(question, yes=asked.options.yes)
        cures = cures_of(snapshot, changes)
        command = f"{asked.given.command} --apply"
        run = cluster.apply(changes, asked.options.journal, say, cures=cures, command=command)
    print(how_to_undo(asked.given, run))
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


def how_to_apply(given: Given) -> str:
    """The command that applies what --dry-run has shown."""
    return safe(f"To apply it: {given.again(given.command, without=('dry_run',))}")


def how_to_undo(given: Given, run: Run) -> str:
    """The command that takes a run back."""
    return safe(f"To undo: {given.again('undo', run.id, only=_FOR_UNDO)}")


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


@contextlib.contextmanager
def connected(
    session: Session, options: ApplyOptions, *, force_conflicts: bool = False
) -> Iterator[Cluster]:
    """The cluster of a session, to be changed as Cluster has it. Raises ClusterError."""
    from kubectl_mesh.changes.cluster import Cluster
    from kubectl_mesh.changes.waiting import Waiting
    from kubectl_mesh.sources.cluster import istiods

    client = session.client
    what, delay = options.wait_for
    reach = partial(istiods, session, options.istio_namespace, options.istiod_url)
    with Waiting(reach, what, delay, options.timeout) as waiting:
        yield Cluster(client, waiting, options.field_manager, force_conflicts=force_conflicts)


def going_on(journal: Journal, cluster: Cluster, name: str) -> Run:
    """The run of a name, or the last of apply that is not over.

    Raises UsageError where there is none of this cluster, JournalError where it cannot be read.
    """
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
    return found


def _is_left_by_apply(run: Run) -> bool:
    return run.is_half_done and run.goes_on == RESUME


def check_cluster(cluster: Cluster, found: Run) -> None:
    """Raises OtherCluster for a run of another cluster; says so where that is not certain."""
    doubt = cluster.recognise(found)
    if doubt:
        said = f"{doubt}: only the uids of its objects can show that it is this one"
        print(f"Warning: {safe(said)}", file=sys.stderr)


def whole_mesh(session: Session) -> Snapshot:
    """The live mesh, with all that decides on routes. Raises Forbidden if nothing can be listed."""
    try:
        found, _ = take_snapshot(Inputs(session, all_namespaces=True), {*ROUTING_KINDS, "Pod"})
    except Forbidden as error:
        raise Forbidden(
            f"{error.message}, and all routes have to be seen, and what "
            "they lead to: `list` on what doctor -A reads"
        ) from error
    return found


def check_consequences(session: Session, found: Run, *, back: bool, allow_broken: bool) -> None:
    """Raises Conflict where the rest of a run, or its undoing, would break what works now.

    And where that cannot be seen, Forbidden if nothing can. If `allow_broken` it only says so.
    """
    from kubectl_mesh.rollout import breakage, consequences

    if not consequences.concerns_routes(found):
        return
    done, again = ("undone", "undo it") if back else ("finished", "go on")
    try:
        with collector_paused():
            live = whole_mesh(session)
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
        if allow_broken:
            print(f"Warning: {safe(str(error))}", file=sys.stderr)
            return
        instead = "" if back else f"; kubectl mesh undo {found.id} goes back"
        raise type(error)(
            f"{error}; nothing is changed{instead}; {again} all the same with --allow-broken"
        ) from error


def agree_to(entries: Iterable[Entry], question: str, *, yes: bool) -> None:
    """Shows steps of a journal, and asks. Raises UsageError as `agree` does."""
    for entry in entries:
        print(safe(f"{entry.target}: {'; '.join(entry.reasons)}"))
    agree(question, yes=yes)


def agree(question: str, *, yes: bool) -> None:
    """Asks the user, unless `yes`. Raises UsageError where there is nobody to ask, and for a no."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: say --yes")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing is changed")
