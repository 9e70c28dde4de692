"""The journal of what was done to a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.journal import (
    Entry,
    Journal,
    JournalError,
    Run,
    State,
    default_folder,
    new_run,
    told_runs,
)
from kubectl_mesh.changes.owners import owner_of
from kubectl_mesh.changes.patch import Target

TARGET = Target("networking.istio.io/v1", "VirtualService", "shop", "web")


OBJECT: dict[str, Any] = {"metadata": {}}
NOTHING = {"op": "test", "path": "", "value": {}}


def run_of(*states: State) -> Run:
    entries = [
        Entry(TARGET, "/path", ["why"], [NOTHING], OBJECT, OBJECT, None, state) for state in states
    ]
    return new_run("a context", "https://server", entries)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "b")
    run = run_of(State.DONE, State.STARTED)
    journal.write(run)
    assert journal.run(run.id) == run
    assert list(journal.runs()) == [run]
    run.entries[1].state = State.DONE
    journal.write(run)
    assert journal.run(run.id).entries[1].state is State.DONE
    assert os.listdir(journal.folder) == [f"{run.id}.json"]
    assert (journal.folder / f"{run.id}.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((State.DONE, State.DONE), "2 done"),
        ((State.DONE, State.PLANNED), "half done: 1 planned, 1 done"),
        ((State.STARTED,), "half done: 1 started"),
        ((State.UNDONE,), "1 undone"),
        ((State.UNDONE, State.PLANNED), "1 planned, 1 undone"),
        ((State.UNDONE, State.DONE), "half done: 1 done, 1 undone"),
        ((State.DELETING,), "half done: 1 deleting"),
        ((State.UNDOING, State.PLANNED), "half done: 1 planned, 1 undoing"),
    ],
)
def test_how_far_a_run_has_come(states: tuple[State, ...], said: str) -> None:
    run = run_of(*states)
    assert list(told_runs(iter([run]))) == [
        (run.id, run.started, "a context", said, "VirtualService shop/web")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 200_000,
        '{"apiVersion": "mesh.kubectl.dev/v1", "kind": "Journal"}',
        '{"apiVersion": "mesh.kubectl.dev/v2", "kind": "Journal", "steps": []}',
    ],
)
def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(JournalError, match=r"it\.json cannot be read"):
        Journal(tmp_path).run("it")


def test_a_step_of_an_unknown_state_is_not_guessed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.DONE)
    journal.write(run)
    file = tmp_path / f"{run.id}.json"
    value = json.loads(file.read_text())
    value["steps"][0]["state"] = "maybe"
    file.write_text(json.dumps(value))
    with pytest.raises(JournalError, match="'maybe' is not a valid State"):
        journal.run(run.id)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("id",), 5),
        (("id",), "../evil"),
        (("started",), None),
        (("context",), {}),
        (("steps",), {}),
        (("steps", 0), []),
        (("steps", 0, "reasons"), 5),
        (("steps", 0, "reasons"), [1]),
        (("steps", 0, "path"), 3),
        (("steps", 0, "operations"), [[]]),
        (("steps", 0, "before"), "x"),
        (("steps", 0, "target"), {"kind": "VirtualService"}),
    ],
)
def test_a_journal_that_somebody_has_edited(
    tmp_path: Path, keys: tuple[Any, ...], value: object
) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.DONE)
    journal.write(run)
    file = tmp_path / f"{run.id}.json"
    written = json.loads(file.read_text())
    holder = written
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    file.write_text(json.dumps(written))
    with pytest.raises(JournalError, match=rf"{run.id}\.json cannot be read: "):
        journal.run(run.id)
    (found,) = journal.runs()
    assert isinstance(found, JournalError)


def test_runs_of_one_second_are_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    made = [run_of(State.DONE) for _ in range(20)]
    for run in made:
        journal.write(run)
    assert list(journal.runs()) == made[::-1]


@pytest.mark.parametrize("name", ["nothing", "../etc/passwd", "a/b", "", "a" * 5000])
def test_a_run_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(JournalError, match="there is no run"):
        Journal(tmp_path).run(name)


def test_a_journal_that_cannot_be_written_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot be written: .*--journal"):
        Journal(tmp_path / "file" / "below").write(run_of(State.PLANNED))


def test_where_journals_are_kept() -> None:
    assert default_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/kubectl-mesh/journal")
    expected = Path.home() / ".local/state/kubectl-mesh/journal"
    assert default_folder({}) == default_folder({"XDG_STATE_HOME": "relative"}) == expected


def test_who_owns_an_object() -> None:
    assert owner_of({}) is None
    assert owner_of({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}) is None
    owner = {"kind": "Rollout", "name": "r"}
    assert owner_of({"metadata": {"ownerReferences": [owner]}}) == "Argo Rollouts (Rollout r)"


@pytest.mark.parametrize("metadata", [[1], "x", None])
def test_an_object_of_an_unknown_shape_is_not_read(tmp_path: Path, metadata: object) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.DONE)
    run.entries[0].before = {"metadata": metadata}
    journal.write(run)
    with pytest.raises(JournalError, match="metadata is not as it was written"):
        journal.run(run.id)


def test_a_pointer_that_is_none_is_not_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.STARTED)
    run.entries[0].operations = [{"op": "replace", "path": "nopointer", "value": 1}]
    journal.write(run)
    with pytest.raises(JournalError, match="cannot be read"):
        journal.run(run.id)


def test_a_journal_of_before_there_was_an_identity(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.DONE)
    run.cluster = "a uid"
    journal.write(run)
    file = tmp_path / f"{run.id}.json"
    value = json.loads(file.read_text())
    assert value.pop("cluster") == "a uid"
    del value["steps"][0]["recreated"]
    file.write_text(json.dumps(value))
    found = journal.run(run.id)
    assert (found.cluster, found.entries[0].recreated) == ("", "")


def test_what_is_made_and_left_of_a_run() -> None:
    run = run_of(*State)
    made, left = ([each.state.value for each in those] for those in (run.made, run.left))
    assert made == ["started", "deleting", "done", "undoing"]
    assert left == ["planned", "started", "deleting"]
    assert not run_of(State.DELETING, State.DONE).is_going_back
    assert run_of(State.UNDOING, State.DONE).is_going_back


def test_what_undo_has_created_in_place_of_what(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    run = run_of(State.UNDONE, State.UNDONE)
    run.entries[0].before, run.entries[0].recreated = {"metadata": {"uid": "1"}}, "2"
    journal.write(run)
    (tmp_path / "broken.json").write_text("{")
    assert journal.recreated() == {"1": "2"}
