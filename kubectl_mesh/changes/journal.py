"""The journal: what was done to a cluster, written down before it is done.

A run has a file of its own. It is replaced as a whole, and is on the disk before the next request
is sent: whatever ends the program, it says how far things had come.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonpointer import JsonPointer, JsonPointerException

from kubectl_mesh.changes.atomic import replace_file
from kubectl_mesh.changes.change_set import Action, Ready, action_of
from kubectl_mesh.changes.deletion import uid_of
from kubectl_mesh.changes.patch import Operation, Target
from kubectl_mesh.errors import MeshError
from kubectl_mesh.rules.repair import Then

_NONE = type(None)
_NAME = re.compile(r"[\w-]{1,64}")
_KIND = {"apiVersion": "mesh.kubectl.dev/v1", "kind": "Journal"}


class JournalError(MeshError):
    """A journal that cannot be read or written."""


class State(enum.Enum):
    """How far a step has come.

    STARTED: the request may have been sent, and nobody knows more. DELETING: the deletion was asked
    for, and the object is still there. UNDOING: as STARTED, for the way back.
    """

    PLANNED = "planned"
    STARTED = "started"
    DELETING = "deleting"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"


_MADE = (State.STARTED, State.DELETING, State.DONE, State.UNDOING)
_LEFT = (State.PLANNED, State.STARTED, State.DELETING)
_UNFINISHED = (State.STARTED, State.DELETING, State.UNDOING)


@dataclass
class Entry:
    """A step of a run, as in ChangeSet. Once it is made, `after` is what the server said.

    `path` is where the API server has the object. `recreated` is the uid of the object that undo
    has created in place of the one that the step deleted.
    """

    target: Target
    path: str
    reasons: Sequence[str]
    operations: Sequence[Operation]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    then: Then | None = None
    state: State = State.PLANNED
    applied: Mapping[str, Any] | None = None
    ready: Sequence[Ready] = ()
    recreated: str = ""

    @property
    def action(self) -> Action:
        return action_of(self.before, self.after)


FINISH, RESUME = "undo --finish", "apply --resume"


@dataclass
class Run:
    """What one command did. `server` is the API server's address.

    `cluster` is the uid of its Namespace kube-system, which no other cluster has; "" if it is not
    known. `goes_on` are the words of `kubectl mesh` that make the steps that are left, `command`
    those that it was; "" if an older version has not noted it. `cures` are the keys (see
    breakage.Breakage) of what failed before it; None where that is not known.
    """

    id: str
    started: str
    context: str
    server: str
    entries: list[Entry] = field(default_factory=list)
    goes_on: str = FINISH
    cluster: str = ""
    cures: Sequence[str] | None = None
    command: str = ""

    @property
    def made(self) -> list[Entry]:
        """The steps that are made, or may be, and are not undone."""
        return [each for each in self.entries if each.state in _MADE]

    @property
    def left(self) -> list[Entry]:
        """The steps that are not made yet, or may not be."""
        return [each for each in self.entries if each.state in _LEFT]

    @property
    def is_going_back(self) -> bool:
        """Whether some steps are undone, or may be."""
        return any(each.state in (State.UNDOING, State.UNDONE) for each in self.entries)

    @property
    def is_half_done(self) -> bool:
        """Whether some steps are made and others are not, or nobody knows."""
        states = {each.state for each in self.entries}
        return not states.isdisjoint(_UNFINISHED) or (State.DONE in states and len(states) > 1)


def new_run(
    context: str,
    server: str,
    entries: Iterable[Entry],
    goes_on: str = FINISH,
    cluster: str = "",
    cures: Sequence[str] | None = None,
    command: str = "",
) -> Run:
    now = datetime.datetime.now(datetime.timezone.utc)
    name = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    started = now.isoformat(timespec="seconds")
    return Run(name, started, context, server, list(entries), goes_on, cluster, cures, command)


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where journals are kept unless --journal says otherwise: in the user's state directory."""
    state = environ.get("XDG_STATE_HOME") or ""
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "kubectl-mesh" / "journal"


class Journal:
    """A folder of runs, which nobody else may read: they hold whole objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, run: Run) -> None:
        """Replaces what is known of a run. Raises JournalError."""
        text = _text(run)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._file(run.id), text.encode(), 0o600)
            self._sync()
        except OSError as error:
            raise JournalError(
                f"the journal {self.folder} cannot be written: {error.strerror}: name another "
                "folder with --journal"
            ) from error

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def runs(self) -> Iterator[Run | JournalError]:
        """All runs, the newest first; an error stands for each that cannot be read."""
        names = sorted(self.folder.glob("*.json"), reverse=True) if self.folder.is_dir() else []
        for file in names:
            yield self._read_or_error(file)

    def recreated(self) -> dict[str, str]:
        """The uid of each object that undo has created, by that of the one in whose place it is."""
        return {
            uid_of(entry.before): entry.recreated
            for run in self.runs()
            if isinstance(run, Run)
            for entry in run.entries
            if entry.recreated
        }

    def last(self, is_meant: Callable[[Run], object]) -> Run | None:
        """The newest run that is meant, if any. Raises JournalError for a newer one that cannot be
        read, as that may be the one.
        """
        for each in self.runs():
            if isinstance(each, JournalError):
                raise each
            if is_meant(each):
                return each
        return None

    def _read_or_error(self, file: Path) -> Run | JournalError:
        try:
            return self._read(file)
        except JournalError as error:
            return error

    def run(self, name: str) -> Run:
        """The run of that name. Raises JournalError where there is none."""
        if not _NAME.fullmatch(name) or not self._file(name).is_file():
            raise JournalError(f"there is no run {name!r} in {self.folder}: see undo --list")
        return self._read(self._file(name))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, file: Path) -> Run:
        try:
            found = _parsed(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise JournalError(f"{file} cannot be read: {error}") from error
        if found.id != file.stem:
            raise JournalError(f"{file} cannot be read: it is the journal of {found.id!r}")
        return found


def _text(run: Run) -> str:
    """A run as JSON, each step on a line: with indentation, Python takes ten times as long."""
    head = {
        **_KIND,
        "id": run.id,
        "started": run.started,
        "context": run.context,
        "server": run.server,
        "cluster": run.cluster,
        "goesOn": run.goes_on,
        "cures": None if run.cures is None else list(run.cures),
        "command": run.command,
    }
    steps = ",\n".join(json.dumps(_written(each)) for each in run.entries)
    return f'{json.dumps(head)[:-1]}, "steps": [\n{steps}\n]}}\n'


def _written(entry: Entry) -> Mapping[str, Any]:
    return {
        "target": vars(entry.target),
        "path": entry.path,
        "reasons": list(entry.reasons),
        "operations": list(entry.operations),
        "before": entry.before,
        "after": entry.after,
        "then": entry.then.value if entry.then else None,
        "applied": entry.applied,
        "ready": [vars(need) for need in entry.ready],
        "recreated": entry.recreated,
        "state": entry.state.value,
    }


def _parsed(value: Any) -> Run:
    """Raises ValueError for what `_text` has not made."""
    if {key: _part(value, key, str) for key in _KIND} != _KIND:
        raise ValueError("it is no journal of this version")
    name, started, context, server = (
        _part(value, key, str) for key in ("id", "started", "context", "server")
    )
    entries = [_parsed_entry(step) for step in _part(value, "steps", list)]
    goes_on = RESUME if value.get("goesOn") == RESUME else FINISH
    cluster = _part({"cluster": "", **value}, "cluster", str)
    cures = _part({"cures": None, **value}, "cures", (list, _NONE))
    command = _part({"command": "", **value}, "command", str)
    return Run(name, started, context, server, entries, goes_on, cluster, cures, command)


def _parsed_entry(step: Any) -> Entry:
    target = _part(step, "target", dict)
    operations = _part(step, "operations", list)
    reasons = _part(step, "reasons", list)
    if not all(isinstance(each, str) for each in reasons):
        raise ValueError("reasons is not as it was written")
    for each in operations:
        for key in ("op", "path"):
            _part(each, key, str)
        try:
            JsonPointer(each["path"])
        except JsonPointerException as error:
            raise ValueError(str(error)) from error
    before, after = (_part(step, key, (dict, _NONE)) for key in ("before", "after"))
    for document in (before, after):
        if document is not None:
            _part(document, "metadata", dict)
    if before is None and after is None:
        raise ValueError("before and after are not as they were written")
    then = _part(step, "then", (str, _NONE))
    return Entry(
        Target(*(_part(target, field.name, str) for field in dataclasses.fields(Target))),
        _part(step, "path", str),
        reasons,
        operations,
        before,
        after,
        Then(then) if then else None,
        State(_part(step, "state", str)),
        _part(step, "applied", (dict, _NONE)),
        tuple(_parsed_need(need) for need in _part(step, "ready", list)),
        _part({"recreated": "", **step}, "recreated", str),
    )


def _parsed_need(need: Any) -> Ready:
    labels = _part(need, "labels", dict)
    for key in labels:
        _part(labels, key, str)
    return Ready(_part(need, "namespace", str), labels, _part(need, "what", str))


def _part(value: Any, key: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    if not isinstance(value, dict) or key not in value or not isinstance(value[key], kind):
        raise ValueError(f"{key} is not as it was written")
    return value[key]


def told_runs(runs: Iterable[Run]) -> Iterator[tuple[str, ...]]:
    """A row for each run: its name, when, where, how far it has come, and what it is for."""
    for run in runs:
        counts = {state: sum(each.state is state for each in run.entries) for state in State}
        parts = [f"{count} {state.value}" for state, count in counts.items() if count]
        how_far = ("half done: " if run.is_half_done else "") + ", ".join(parts)
        what = ", ".join(dict.fromkeys(str(each.target) for each in run.entries))
        yield run.id, run.started, run.context, how_far, what
