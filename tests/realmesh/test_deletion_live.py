"""Objects that stay for a while once their deletion was asked for, or are others by now.

On a real API server, where a finalizer keeps an object, and each object has a uid.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.cluster import Stopped
from kubectl_mesh.changes.deletion import is_terminating, uid_of
from kubectl_mesh.changes.journal import State
from kubectl_mesh.changes.patch import Conflict, content
from kubectl_mesh.cli import main
from kubectl_mesh.errors import MeshError

from . import finalizers
from .apiserver import ApiServer
from .conftest import built
from .finalizers import HOLD
from .test_apply_live import Pair, Shop, manifest, quiet, resource


@pytest.fixture
def shop(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Shop:
    return Shop(apiserver, namespace, tmp_path / "journal")


@pytest.fixture
def pair(shop: Shop) -> Pair:
    return Pair(shop)


@pytest.fixture
def held(shop: Shop) -> Pair:
    """`three`, which goes, has a finalizer."""
    hold(shop, "three")
    return Pair(shop)


def live(shop: Shop, name: str) -> dict[str, Any]:
    return shop.server.request("GET", shop.path(name))


def hold(shop: Shop, name: str) -> None:
    finalizers.hold(shop.server, shop.path(name))


def let_go(shop: Shop, name: str) -> None:
    finalizers.let_go(shop.server, shop.path(name))


def let_go_soon(shop: Shop, name: str) -> contextlib.AbstractContextManager[None]:
    return finalizers.let_go_soon(shop.server, shop.path(name))


def stopped(held: Pair) -> str:
    """Has the run stop while `three` is not gone; returns what is said of it."""
    with pytest.raises(Stopped) as error:
        held.shop.cluster(timeout=0.3).apply(held.changes, held.shop.journal, quiet)
    assert held.shop.states() == [State.DONE, State.DONE, State.DELETING]
    return str(error.value)


def test_a_deletion_is_finished_once_the_object_is_gone(held: Pair) -> None:
    said = stopped(held)
    assert f"three is not gone: finalizer {HOLD}" in said
    assert "2 of 3 steps are made; the deletion of VirtualService" in said
    assert "was asked for and is not finished: kubectl mesh undo --finish" in said
    with pytest.raises(Stopped, match="three is not gone"):
        held.shop.cluster(timeout=0.3).go_on(held.shop.run(), held.shop.journal, quiet)
    told: list[str] = []
    with let_go_soon(held.shop, "three"):
        held.shop.cluster(timeout=20).go_on(held.shop.run(), held.shop.journal, told.append)
    assert told[-1].endswith("/three deleted")
    assert held.shop.states() == [State.DONE] * 3
    assert "three" not in held.now()
    held.undo()
    assert held.now() == held.before, "with its finalizer"
    let_go(held.shop, "three")


def test_a_deletion_that_is_not_finished_is_undone_once_it_is(held: Pair) -> None:
    """What is to stay has to be another object: Kubernetes cancels no deletion."""
    stopped(held)
    uid = uid_of(live(held.shop, "three"))
    with pytest.raises(Stopped, match=r"three is not gone: .*; 0 of 3 steps are taken back"):
        held.shop.cluster(timeout=0.3).undo(held.shop.run(), held.shop.journal, quiet, force=False)
    assert held.shop.states() == [State.DONE, State.DONE, State.DELETING]
    told: list[str] = []

    def hear(text: str) -> None:
        told.append(text)
        if "which cannot be cancelled" in text:
            let_go(held.shop, "three")

    held.shop.cluster(timeout=20).undo(held.shop.run(), held.shop.journal, hear, force=False)
    assert "three is being deleted (since " in told[0]
    three = live(held.shop, "three")
    assert (is_terminating(three), uid_of(three) == uid) == (False, False)
    assert held.now() == held.before
    assert held.shop.states() == [State.UNDONE] * 3
    let_go(held.shop, "three")


@pytest.mark.parametrize("how", ["undo", "finish"])
def test_killed_once_the_deletion_was_asked_for(held: Pair, how: str) -> None:
    stopped(held)
    run, journal = held.shop.run(), held.shop.journal
    run.entries[2].state = State.STARTED
    journal.write(run)
    with let_go_soon(held.shop, "three"):
        cluster = held.shop.cluster(timeout=20)
        if how == "undo":
            cluster.undo(held.shop.run(), journal, quiet, force=False)
        else:
            cluster.go_on(held.shop.run(), journal, quiet)
    assert ("three" in held.now()) is (how == "undo")


def test_what_undo_deletes_is_gone_in_the_end(held: Pair) -> None:
    with let_go_soon(held.shop, "three"):
        held.shop.cluster(timeout=20).apply(held.changes, held.shop.journal, quiet)
    hold(held.shop, "two")
    with pytest.raises(MeshError, match=r"two: .* has changed it since"):
        held.undo()
    with pytest.raises(Stopped, match="two is not gone"):
        held.shop.cluster(timeout=0.3).undo(held.shop.run(), held.shop.journal, quiet, force=True)
    assert held.shop.states() == [State.DONE, State.UNDOING, State.UNDONE]
    assert held.shop.run().is_going_back
    with let_go_soon(held.shop, "two"):
        held.shop.cluster(timeout=20).undo(held.shop.run(), held.shop.journal, quiet, force=False)
    assert held.now() == held.before
    let_go(held.shop, "three")


def test_somebody_deletes_what_was_to_be_deleted(held: Pair) -> None:
    """Before the run: it waits, and asks for nothing. Undo does not make theirs undone."""
    held.shop.server.delete(manifest("three", held.shop.namespace))
    three = live(held.shop, "three")
    step = Step(resource(three), three, None, (), (), ["why"])
    changes = ChangeSet((*held.changes.steps[:2], step))
    held.shop.cluster().rehearse(changes)
    with let_go_soon(held.shop, "three"):
        held.shop.cluster(timeout=20).apply(changes, held.shop.journal, quiet)
    told: list[str] = []
    held.shop.cluster().undo(held.shop.run(), held.shop.journal, told.append, force=False)
    assert told[0].endswith("/three stays deleted")
    assert sorted(held.now()) == ["one"]


def test_an_object_that_is_being_deleted_is_not_changed(shop: Shop) -> None:
    changes = shop.changes()
    hold(shop, "one")
    before = live(shop, "one")
    shop.server.delete(before)
    for attempt in (
        lambda: shop.cluster().rehearse(changes),
        lambda: shop.cluster().apply(changes, shop.journal, quiet),
    ):
        with pytest.raises(MeshError, match=rf"one is being deleted \(since .*finalizer {HOLD}\)"):
            attempt()
    assert shop.patched() == []
    let_go(shop, "one")


def test_what_somebody_deletes_meanwhile_is_not_taken_back(shop: Shop) -> None:
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    hold(shop, "two")
    two = live(shop, "two")
    shop.server.delete(two)
    with pytest.raises(Conflict, match=r"two is being deleted .*; nothing is taken back"):
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=True)
    assert content(live(shop, "two")) == content(two)
    assert shop.patched() == ["two"]
    let_go(shop, "two")


def test_the_garbage_collector_is_waited_for(pair: Pair) -> None:
    """A deletion in the foreground: the API server puts a finalizer, which undo does not."""
    path = pair.shop.path("three")
    pair.shop.server.request("DELETE", f"{path}?propagationPolicy=Foreground")
    with pytest.raises(Stopped, match="three is not gone: finalizer foregroundDeletion"):
        pair.shop.cluster(timeout=0.3).apply(pair.changes, pair.shop.journal, quiet)
    with let_go_soon(pair.shop, "three"):
        pair.shop.cluster(timeout=20).undo(pair.shop.run(), pair.shop.journal, quiet, force=False)
    assert pair.now() == pair.before


def test_what_its_owner_would_take_along_is_not_created(pair: Pair) -> None:
    """The garbage collector deletes what belongs to an object that is gone."""
    one = live(pair.shop, "one")
    owner = {"apiVersion": one["apiVersion"], "kind": one["kind"], "name": "one"}
    pair.shop.server.patch(
        pair.shop.path("three"),
        [
            {
                "op": "add",
                "path": "/metadata/ownerReferences",
                "value": [{**owner, "uid": uid_of(one)}],
            }
        ],
    )
    three = live(pair.shop, "three")
    changes = ChangeSet((Step(resource(three), three, None, (), (), ["why"]),))
    pair.shop.cluster().apply(changes, pair.shop.journal, quiet)
    pair.shop.server.delete(one)
    with pytest.raises(Stopped, match="three belongs to VirtualService one, which is gone"):
        pair.shop.cluster().undo(pair.shop.run(), pair.shop.journal, quiet, force=False)
    assert pair.shop.states() == [State.DONE]
    pair.shop.server.create([content(one)])
    with pytest.raises(Stopped, match="which is gone"):
        pair.shop.cluster().undo(pair.shop.run(), pair.shop.journal, quiet, force=False)
    assert "three" not in pair.now()


def test_what_belongs_to_an_object_goes_with_it(shop: Shop) -> None:
    """As kubectl has it, and not orphaned, as the API server does of itself with this kind."""
    labels = {"job-name": "it"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "it", "namespace": shop.namespace},
        "spec": {
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "registry.example.com/it:1"}],
                },
            }
        },
    }
    shop.server.create([job])
    file = shop.journal.folder.parent / "job.json"
    file.write_text(json.dumps(job))
    assert command(shop, "apply", "--delete", "-f", str(file), "--timeout", "1s") == 0


def command(shop: Shop, *arguments: str) -> int:
    journal = ("--journal", str(shop.journal.folder))
    return main([*arguments, "--yes", "--kubeconfig", str(shop.server.kubeconfig), *journal])


# Objects of the same name


def test_what_is_created_anew_by_somebody_is_theirs(shop: Shop) -> None:
    """Though it has the same content: neither undone nor gone on with."""
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    two = live(shop, "two")
    shop.server.delete(two)
    shop.server.create([content(two)])
    said = r"two: it was deleted and created anew: .* has changed it since"
    with pytest.raises(Conflict, match=rf"{said}; nothing is taken back"):
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    run = shop.run()
    run.entries[0].state = State.PLANNED
    shop.journal.write(run)
    with pytest.raises(Stopped, match=said):
        shop.cluster().go_on(shop.run(), shop.journal, quiet)
    assert shop.specs()["two"] == json.dumps(two["spec"])


def test_what_undo_has_created_anew_is_ours(shop: Shop) -> None:
    """An earlier run can be undone, and gone on with, as if its object had never been deleted."""
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    first = shop.run()
    for _ in range(2):
        two = live(shop, "two")
        changes = ChangeSet((Step(resource(two), two, None, (), (), ["why"]),))
        second = shop.cluster().apply(changes, shop.journal, quiet)
        shop.cluster().undo(shop.journal.run(second.id), shop.journal, quiet, force=False)
        assert uid_of(live(shop, "two")) != uid_of(two)
    first.entries[0].state = State.PLANNED
    shop.journal.write(first)
    shop.server.patch(
        shop.path(first.entries[0].target.name),
        [{"op": "replace", "path": "/spec", "value": (first.entries[0].before or {})["spec"]}],
    )
    shop.cluster().go_on(shop.journal.run(first.id), shop.journal, quiet)
    shop.cluster().undo(shop.journal.run(first.id), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


def test_undo_that_is_killed_once_it_has_created_an_object(pair: Pair) -> None:
    pair.apply()
    before = pair.shop.run()
    pair.undo()
    run = pair.shop.run()
    run.entries[2].state, run.entries[2].recreated = State.UNDOING, ""
    pair.shop.journal.write(run)
    pair.undo()
    assert pair.now() == pair.before
    uid = uid_of(live(pair.shop, "three"))
    assert uid != uid_of(before.entries[2].before)
    assert pair.shop.journal.recreated() == {uid_of(before.entries[2].before): uid}


# Clusters of the same address


@pytest.fixture(scope="module")
def other() -> Iterator[ApiServer]:
    """Another API server."""
    with built(ApiServer) as server:
        yield server


@pytest.mark.parametrize("way", [("undo",), ("undo", "--finish"), ("apply", "--resume")])
@pytest.mark.parametrize("named", [True, False])
def test_another_cluster_at_the_same_address(
    shop: Shop,
    other: ApiServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    way: tuple[str, ...],
    named: bool,
) -> None:
    """Its objects have the same names and contents. A journal of before names no cluster."""
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    other.kubectl("create", "namespace", shop.namespace)
    theirs = Shop(other, shop.namespace, tmp_path / "theirs")
    theirs.cluster().apply(theirs.changes(), theirs.journal, quiet)
    after = theirs.specs()
    run = shop.run()
    assert run.cluster == uid_of(shop.server.request("GET", "/api/v1/namespaces/kube-system"))
    run.server = other.url
    run.goes_on = " ".join(way) if way[0] == "apply" else "undo --finish"
    if way != ("undo",):
        run.entries[2].state = State.PLANNED
    if not named:
        run.cluster = ""
    shop.journal.write(run)
    capsys.readouterr()
    folder = ("--journal", str(shop.journal.folder))
    status = main([*way, run.id, "--yes", "--kubeconfig", str(other.kubeconfig), *folder])
    said = capsys.readouterr().err
    if named:
        assert (status, "was applied to another cluster that had the address" in said) == (2, True)
    else:
        assert (status, "does not name its cluster: only the uids" in said) == (3, True)
        assert "/one: it was deleted and created anew" in said
    assert theirs.specs() == after


def test_who_may_not_get_the_identity_goes_by_uids(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    shop.server.kubectl(
        *("create", "role", "writer", "-n", shop.namespace, "--verb=get,list,patch"),
        "--resource=virtualservices.networking.istio.io",
    )
    shop.server.kubectl(
        *("create", "rolebinding", "bob", "-n", shop.namespace, "--role=writer", "--user=bob")
    )
    shop.server.kubectl("wait", "--for=create", "rolebinding/bob", "-n", shop.namespace)
    bob = ("--kubeconfig", str(shop.server.user("bob")), "--journal", str(shop.journal.folder))
    main(["undo", "--yes", *bob])
    assert "you may not get Namespace kube-system" in capsys.readouterr().err


def test_a_journal_that_goes_in_circles(shop: Shop) -> None:
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    two = live(shop, "two")
    shop.server.delete(two)
    shop.server.create([content(two)])
    run = shop.run()
    for entry in run.entries:
        entry.recreated = uid_of(entry.before)
    shop.journal.write(run)
    with pytest.raises(Conflict, match="two: it was deleted and created anew"):
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
