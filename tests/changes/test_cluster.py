"""What others do to objects between two requests of a change set, or of its way back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.cluster import Cluster, Stopped
from kubectl_mesh.changes.journal import Journal, JournalError, Run, State
from kubectl_mesh.changes.patch import Conflict, operations_of, patched
from kubectl_mesh.changes.waiting import TimedOut
from kubectl_mesh.errors import ClusterError, Forbidden
from kubectl_mesh.kube.managed_fields import KEEPS_LAST_APPLIED, LAST_APPLIED
from kubectl_mesh.rules.repair import Edit, Then
from tests.changes.stand_in import Object, StandIn, Waits, resource_of, where
from tests.routing.given import destination_rule, to, virtual_service

ROUTE = virtual_service("web", ["web"], to("web"))
ROUTE["metadata"]["managedFields"] = [
    {
        "manager": "kubectl",
        "operation": "Apply",
        "apiVersion": "networking.istio.io/v1",
        "time": "then",
        "fieldsV1": {"f:spec": {"f:hosts": {}, "f:http": {}}},
    }
]
RULE = destination_rule("web", "web")
WEB = where(ROUTE)
SUBSET = ("spec", "subsets")
TIMEOUT = ("spec", "http", 0, "timeout")
THEIRS = {"exportTo": ["."]}


class Tried:
    """A cluster with some objects, and what is done to it."""

    def __init__(self, folder: Path, *objects: Object) -> None:
        self.server = StandIn(*objects)
        self.waits = Waits()
        self.cluster = Cluster(self.server, self.waits)
        self.journal = Journal(folder)
        self.said: list[str] = []

    def patch(self, document: Object, path: tuple[Any, ...], value: Any, **more: Any) -> Step:
        before = self.server.get(where(document))
        edits = [Edit(resource_of(before), path, value)]
        operations = operations_of(before, edits)
        after = patched(copy.deepcopy(before), operations)
        return Step(resource_of(before), before, after, operations, edits, ["why"], **more)

    def deletion(self, document: Object) -> Step:
        before = self.server.get(where(document))
        return Step(resource_of(before), before, None, (), (), ["why"])

    def apply(self, *steps: Step) -> Run:
        return self.cluster.apply(ChangeSet(steps), self.journal, self.said.append)

    def cut_off(self, *steps: Step) -> Run:
        """A run whose connection is lost with the answer to its first write."""

        def lose(verb: str, path: str, body: Any) -> None:
            if verb != "get":
                raise ClusterError("the connection was lost")

        self.server.then = lose
        with pytest.raises(Stopped):
            self.apply(*steps)
        self.quiet()
        (run,) = self.journal.runs()
        assert isinstance(run, Run)
        assert [each.state for each in run.entries] == [State.STARTED]
        return run

    def finish(self, run: Run) -> None:
        self.cluster.go_on(self.journal.run(run.id), self.journal, self.said.append)

    def undo(self, run: Run, *, force: bool = False) -> None:
        found = self.journal.run(run.id)
        self.cluster.undo(found, self.journal, self.said.append, force=force)

    def once(self, verb: str, others: Callable[[str, Any], object]) -> None:
        """Has others do something after the next request of a kind."""

        def then(done: str, path: str, body: Any) -> None:
            if done == verb:
                self.quiet()
                others(path, body)

        self.server.then = then

    def quiet(self) -> None:
        self.server.then = lambda *_: None

    def spec(self, document: Object) -> Any:
        return self.server.objects[where(document)]["spec"]


Try = Callable[..., Tried]


@pytest.fixture
def tried(tmp_path: Path) -> Try:
    return lambda *objects: Tried(tmp_path, *objects)


def two_steps(it: Tried) -> tuple[Step, Step]:
    """A subset, and once the proxies have it a route there."""
    return (
        it.patch(RULE, SUBSET, [{"name": "v1"}], then=Then.PROXIES),
        it.patch(ROUTE, ("spec", "http", 0, "route", 0, "destination", "subset"), "v1"),
    )


def test_a_second_undo_waits_for_what_the_first_one_did(tried: Try) -> None:
    it = tried(ROUTE, RULE)
    run = it.apply(*two_steps(it))

    def late() -> None:
        it.waits.then = lambda: None
        raise TimedOut("a proxy does not have it")

    it.waits.then = late
    it.waits.waited.clear()
    with pytest.raises(Stopped, match="1 of 2 steps are taken back"):
        it.undo(run)
    it.undo(run)
    assert it.waits.waited == [["web"], ["web"]]
    assert it.spec(RULE) == RULE["spec"]


@pytest.mark.parametrize("force", [False, True])
def test_undo_looks_again_after_it_has_waited(tried: Try, force: bool) -> None:
    it = tried(ROUTE, RULE)
    run = it.apply(*two_steps(it))
    it.waits.then = lambda: it.server.change(where(RULE), **THEIRS)
    if force:
        it.undo(run, force=True)
    else:
        with pytest.raises(Stopped, match="DestinationRule a/web: somebody has changed it since"):
            it.undo(run)
    left = {"subsets": [{"name": "v1"}], **THEIRS}
    assert it.spec(RULE) == {**RULE["spec"], **({} if force else left)}


def test_steps_of_one_object_are_taken_back_through_its_deletion(tried: Try) -> None:
    """It has another uid then, which is undo's own doing."""
    it = tried(ROUTE)
    patch = it.patch(ROUTE, TIMEOUT, "5s")
    run = it.apply(patch, replace(it.deletion(ROUTE), before=patch.after))
    assert WEB not in it.server.objects
    it.undo(run)
    assert it.spec(ROUTE) == ROUTE["spec"]


def test_what_others_write_before_the_owners_are_set_is_theirs(tried: Try) -> None:
    it = tried(ROUTE)
    it.once("patch", lambda path, _: it.server.change(path, **THEIRS))
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    with pytest.raises(Conflict, match=r"VirtualService a/web: .* has changed it since"):
        it.undo(run)
    assert it.spec(ROUTE)["exportTo"] == ["."]


def test_what_others_delete_before_the_owners_are_set_stays_deleted(tried: Try) -> None:
    it = tried(ROUTE)
    it.once("patch", lambda path, _: it.server.objects.pop(path))
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    with pytest.raises(Conflict, match="is gone; somebody has deleted it"):
        it.undo(run)
    assert WEB not in it.server.objects


def test_what_changes_beside_a_patch_after_the_preview_stays(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")
    it.server.change(WEB, **THEIRS)
    it.undo(it.apply(step))
    assert it.spec(ROUTE) == {**ROUTE["spec"], **THEIRS}


def test_it_stays_where_the_answer_to_the_patch_is_lost(tried: Try) -> None:
    """The journal had it before the patch was sent."""
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")
    it.server.change(WEB, **THEIRS)
    it.undo(it.cut_off(step))
    assert it.spec(ROUTE) == {**ROUTE["spec"], **THEIRS}


def test_a_note_creates_nothing_that_somebody_has_deleted(tried: Try) -> None:
    noted = copy.deepcopy(ROUTE)
    noted["metadata"]["annotations"] = {LAST_APPLIED: "{}"}
    it = tried(noted)
    manifest = virtual_service("web", ["web"], to("web", subset="v1"))
    live = it.server.get(WEB)
    after = {**live, "spec": manifest["spec"]}
    it.once("apply", lambda path, _: it.server.objects.pop(path))
    it.apply(Step(resource_of(manifest), live, after, (), (), ["why"], applied=manifest))
    assert WEB not in it.server.objects
    assert "but not whose its fields are: uid mismatch" in it.said[0]
    assert KEEPS_LAST_APPLIED not in str(it.server.objects)


def test_what_others_add_to_a_step_of_unknown_outcome_is_theirs(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(it.patch(ROUTE, TIMEOUT, "5s"))
    it.server.change(WEB, **THEIRS)
    it.finish(run)
    with pytest.raises(Conflict, match="has changed it since"):
        it.undo(run)
    assert it.spec(ROUTE)["exportTo"] == ["."]


def test_a_step_that_is_found_made_is_taken_back(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(it.patch(ROUTE, TIMEOUT, "5s"))
    it.finish(run)
    it.undo(run)
    assert it.spec(ROUTE) == ROUTE["spec"]


def creation() -> Step:
    made = copy.deepcopy(ROUTE)
    del made["metadata"]["managedFields"]
    return Step(resource_of(made), None, made, (), (), ["why"])


def test_what_the_server_adds_to_a_creation_of_unknown_outcome_is_ours(tried: Try) -> None:
    it = tried()
    run = it.cut_off(creation())
    it.server.change(WEB, default="the server's")
    it.finish(run)
    it.undo(run)
    assert WEB not in it.server.objects


def test_an_object_that_somebody_else_has_created_is_not_ours(tried: Try) -> None:
    it = tried()
    run = it.cut_off(creation())
    del it.server.objects[WEB]
    theirs = copy.deepcopy(ROUTE)
    theirs["spec"]["hosts"] = ["other"]
    it.server.put(theirs)
    with pytest.raises(Conflict, match="cannot be told whether the step was made"):
        it.finish(run)
    with pytest.raises(Conflict, match=r"kubectl \(at then\) has changed it since"):
        it.undo(run)
    assert it.spec(ROUTE)["hosts"] == ["other"]


def test_what_comes_in_place_of_a_deleted_object_is_not_ours(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(it.deletion(ROUTE))
    it.once("get", lambda *_: it.server.put(ROUTE))
    it.finish(run)
    assert it.journal.run(run.id).entries[0].after is None
    with pytest.raises(Conflict, match="it was deleted and created anew"):
        it.undo(run)


def test_an_answer_without_a_uid_is_none(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.deletion(ROUTE)
    del it.server.objects[WEB]["metadata"]["uid"]
    with pytest.raises(Stopped, match="the API server answered with something else"):
        it.apply(step)
    assert WEB in it.server.objects


def unwritable_when(monkeypatch: pytest.MonkeyPatch, it: Tried, state: State) -> None:
    """Has the journal fail once a step has come to a state."""
    write = it.journal.write

    def failing(run: Run) -> None:
        if any(each.state is state for each in run.entries):
            raise JournalError("the journal cannot be written")
        write(run)

    monkeypatch.setattr(it.journal, "write", failing)


def test_a_step_back_that_cannot_be_noted(tried: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    it = tried(ROUTE)
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    unwritable_when(monkeypatch, it, State.UNDONE)
    with pytest.raises(Stopped) as error:
        it.undo(run)
    said = str(error.value)
    assert "says that it is undoing: once it can be written, kubectl mesh undo" in said
    assert said.endswith(f"kubectl mesh undo {run.id} goes on")
    assert "--finish" not in said


def test_a_deletion_that_cannot_be_noted(tried: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    it = tried(ROUTE)
    step = it.deletion(ROUTE)

    def slowly(path: str, version: Any, *, dry: bool = False) -> None:
        it.server.objects[path]["metadata"]["deletionTimestamp"] = "now"

    monkeypatch.setattr(it.server, "delete", slowly)
    unwritable_when(monkeypatch, it, State.DONE)
    with pytest.raises(Stopped, match="says that it is deleting: once it can be written"):
        it.apply(step)


def test_the_journal_keeps_what_undo_has_created_in_whose_place(tried: Try) -> None:
    it = tried(ROUTE)
    old = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    uids = [it.server.objects[WEB]["metadata"]["uid"]]
    runs = []
    for _ in range(2):
        runs.append(it.apply(it.deletion(ROUTE)))
        it.undo(runs[-1])
        uids.append(it.server.objects[WEB]["metadata"]["uid"])
    first, second, third = uids
    assert it.journal.recreated() == {first: second, second: third}
    for run in runs:  # as it was once left where the owners could not be set
        found = it.journal.run(run.id)
        found.entries[0].state = State.DONE
        it.journal.write(found)
        it.undo(run)
        assert it.journal.recreated() == {first: third, second: third}
    it.undo(old)
    assert it.spec(ROUTE) == ROUTE["spec"]


def test_undo_goes_on_where_it_may_not_say_whose_the_fields_are(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.apply(it.deletion(ROUTE))

    def refuse(verb: str, path: str, body: Any) -> None:
        if verb == "patch":
            raise Forbidden("a webhook says no")

    it.server.then = refuse
    it.undo(run)
    assert it.journal.run(run.id).entries[0].state is State.UNDONE
    assert "as it was, but not whose its fields are: a webhook says no" in " ".join(it.said)
