"""`kubectl mesh undo`: takes back what was applied to a cluster."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_mesh.changes.journal import FINISH, Journal, JournalError, Run, told_runs
from kubectl_mesh.commands.changing import (
    ApplyOptions,
    add_apply_flags,
    agree_to,
    check_cluster,
    check_consequences,
    connected,
    say,
)
from kubectl_mesh.commands.inputs import session_of
from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import add_cluster_flags
from kubectl_mesh.sources.session import Session
from kubectl_mesh.term import emit, safe

if TYPE_CHECKING:
    from kubectl_mesh.changes.cluster import Cluster

_EPILOG = """\
examples:
  {prog} --list                      what was applied, and what of it is half done
  {prog}                             takes the last of it back, if you agree
  {prog} 20261125-012733-482913-ab12        takes that back
  {prog} 20261125-012733-482913-ab12 --finish   makes the steps that are not made yet

Where somebody has changed or deleted one of the objects since, nothing is taken back, unless
--force says otherwise. Where somebody's requests need by now what would go, neither, unless
--allow-broken does.

exit status:
  0  done
  2  the command line is at fault, or you did not agree
  3  something could not be taken back
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    parser.add_argument("id", nargs="?", metavar="ID", help="default: the last that is not undone")
    group = parser.add_argument_group("what to do")
    group.add_argument("--list", action="store_true", help="list what was applied")
    group.add_argument("--finish", action="store_true", help="go on instead of going back")
    group.add_argument(
        "--force", action="store_true", help="take back what somebody has changed since, too"
    )
    group.add_argument(
        "--allow-broken",
        action="store_true",
        help="go on even if requests will fail that work now, or if that cannot be seen",
    )
    add_apply_flags(group)
    group.add_argument("-v", "--verbose", action="store_true", help="tracebacks of errors")
    add_cluster_flags(parser)


@dataclass(frozen=True)
class UndoOptions:
    """Which way a run goes, and over what."""

    session: Session
    options: ApplyOptions
    finish: bool
    force: bool
    allow_broken: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> UndoOptions:
        return cls(
            session_of(vars(args)),
            ApplyOptions.of(args),
            finish=args.finish,
            force=args.force,
            allow_broken=args.allow_broken,
        )


def run(args: argparse.Namespace) -> int:
    """Raises Conflict, Stopped, ClusterError and JournalError as the parts that it calls do."""
    asked = UndoOptions.of(args)
    journal = asked.options.journal
    if args.list:
        if args.id or asked.finish:
            raise UsageError("--list lists everything")
        return _list(journal)
    found = journal.run(args.id) if args.id else journal.last(lambda each: each.made)
    if found is None:
        raise UsageError("there is nothing to take back: see --list")
    with connected(asked.session, asked.options) as cluster:
        check_cluster(cluster, found)
        _go(asked, cluster, found, journal)
    return 0


def _list(journal: Journal) -> int:
    listed = list(journal.runs())
    rows = told_runs(each for each in listed if isinstance(each, Run))
    text = "".join(safe("  ".join(row)) + "\n" for row in rows)
    errors = [each for each in listed if isinstance(each, JournalError)]
    for error in errors:
        print(f"error: {safe(str(error))}", file=sys.stderr)
    if text or not errors:
        emit(text or f"Nothing was applied, as far as {journal.folder} knows.\n")
    return JournalError.exit_status if errors else 0


def _go(asked: UndoOptions, cluster: Cluster, found: Run, journal: Journal) -> None:
    concerned = found.left if asked.finish else found.made
    if asked.finish and found.is_going_back:
        raise UsageError(f"{found.id} was taken back: run fix again instead")
    if asked.finish and found.goes_on != FINISH:
        raise UsageError(f"kubectl mesh {found.goes_on} {found.id} goes on with that one")
    if not concerned:
        raise UsageError(f"there is nothing left to do of {found.id}")
    if not asked.finish:
        cluster.check_undo(found, journal, force=asked.force)
    check_consequences(asked.session, found, back=not asked.finish, allow_broken=asked.allow_broken)
    question = "Go on with it?" if asked.finish else "Take it back?"
    agree_to(concerned, question, yes=asked.options.yes)
    if asked.finish:
        cluster.go_on(found, journal, say)
    else:
        cluster.undo(found, journal, say, force=asked.force)
