"""Each step of a run as the API server is asked for it: tried, made, waited for, taken back."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.cluster import Cluster, Interrupted, OtherCluster, Stopped
from kubectl_mesh.changes.journal import State
from kubectl_mesh.changes.patch import Conflict, content
from kubectl_mesh.errors import ClusterError, Forbidden, NotInstalled
from kubectl_mesh.kube.http import ApiError
from kubectl_mesh.rules.repair import Then
from tests.changes.stand_in import Object, StandIn, Waits, resource_of, where
from tests.changes.test_cluster import (
    ROUTE,
    RULE,
    THEIRS,
    TIMEOUT,
    WEB,
    Tried,
    Try,
    creation,
    tried,
    two_steps,
)
from tests.routing.given import deployment, thing, to, virtual_service

__all__ = ["tried"]

NAMESPACE: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}
MANIFEST = virtual_service("web", ["web"], to("web", subset="v1"))


def refused(status: int, reason: str) -> ApiError:
    return ApiError(f"the API server answered with {status}: {reason}", status, reason)


def applying(it: Tried, manifest: Object = MANIFEST) -> Step:
    """A step that applies a manifest to what is there."""
    live = it.server.get(where(manifest))
    after = {**live, "spec": manifest["spec"]}
    return Step(resource_of(manifest), live, after, (), (), ["why"], applied=manifest)


def new(document: Object) -> Step:
    return Step(resource_of(document), None, document, (), (), ["why"])


# Tried before anything is made


def test_a_rehearsal_tries_each_step_and_makes_none(tried: Try) -> None:
    it = tried(ROUTE, RULE)
    it.cluster.rehearse(ChangeSet((it.patch(ROUTE, TIMEOUT, "5s"), it.deletion(RULE))))
    assert it.spec(ROUTE) == ROUTE["spec"]
    assert where(RULE) in it.server.objects


@pytest.mark.parametrize("verb", ["create", "patch", "delete"])
def test_a_rehearsal_tells_of_a_step_that_is_refused(tried: Try, verb: str) -> None:
    it = tried(*(() if verb == "create" else (ROUTE,)))
    step = {
        "create": creation,
        "patch": lambda: it.patch(ROUTE, TIMEOUT, "5s"),
        "delete": lambda: it.deletion(ROUTE),
    }[verb]()
    it.server.refusals[verb] = Forbidden("you may not")
    with pytest.raises(Forbidden, match="you may not"):
        it.cluster.rehearse(ChangeSet((step,)))


def test_a_rehearsal_leaves_out_what_another_step_has_to_come_before(tried: Try) -> None:
    """In a Namespace that is yet to be made, and of an object that an earlier step changes."""
    it = tried(RULE)
    del it.server.objects[where(RULE)]  # so that to try its second step fails
    late = it.server.put(RULE)
    first = it.patch(RULE, ("spec", "host"), "other")
    second = replace(first, before=first.after, after={**late, "spec": {}})
    it.cluster.rehearse(ChangeSet((first, second)))
    it.server.refusals["create"] = ClusterError("tried")
    with pytest.raises(ClusterError, match="tried"):
        it.cluster.rehearse(ChangeSet((new(NAMESPACE), creation())))
    it.cluster.rehearse(ChangeSet((new(NAMESPACE), creation())))


def test_what_is_there_already_is_not_created(tried: Try) -> None:
    it = tried(ROUTE)
    with pytest.raises(Conflict, match="VirtualService a/web: it is there already"):
        it.cluster.rehearse(ChangeSet((creation(),)))
    it.server.refusals["create"] = refused(500, "etcd is slow")
    with pytest.raises(ApiError, match="etcd is slow"):
        it.cluster.rehearse(ChangeSet((creation(),)))


# Refused


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (refused(400, "a webhook says no"), State.PLANNED),
        (refused(500, "failed to create typed patch object (x)"), State.PLANNED),
        (refused(500, "etcd is slow"), State.STARTED),
        (Forbidden("you may not"), State.PLANNED),
        (NotInstalled("the kind is gone"), State.PLANNED),
        (ClusterError("the connection was lost"), State.STARTED),
    ],
)
def test_a_step_that_the_server_refuses_is_known_not_to_be_made(
    tried: Try, error: ClusterError, state: State
) -> None:
    it = tried(ROUTE)
    step = applying(it)
    it.server.refusals["apply"] = error
    with pytest.raises(Stopped, match=str(error)[:20]) as stopped:
        it.apply(step)
    (run,) = it.journal.runs()
    assert [each.state for each in run.entries] == [state]  # type: ignore[union-attr]
    unsure = "whether this step was made is not known" in str(stopped.value)
    assert unsure is (state is State.STARTED)


def test_a_patch_that_is_refused_for_what_it_makes(tried: Try) -> None:
    """Not for a test that failed: then nobody has changed the object."""
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "soon")
    it.server.refusals["patch"] = refused(422, "no duration")
    with pytest.raises(Stopped, match="no duration"):
        it.apply(step)
    assert it.spec(ROUTE) == ROUTE["spec"]


def test_a_patch_of_what_cannot_be_read_again(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")

    def gone(verb: str, path: str, body: Any) -> None:
        it.server.refusals["patch"] = refused(409, "somebody writes")
        it.server.objects.pop(WEB)
        it.quiet()

    it.server.then = gone
    with pytest.raises(Stopped, match="somebody writes"):
        it.apply(step)


def test_a_patch_of_what_somebody_has_deleted(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")
    del it.server.objects[WEB]
    with pytest.raises(Stopped, match="it is gone; somebody has deleted it; nothing is changed"):
        it.apply(step)


def test_a_deletion_while_somebody_writes(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.deletion(ROUTE)
    it.server.refusals["delete"] = refused(409, "the resourceVersion is another one")
    with pytest.raises(Stopped, match="somebody is changing it: run it again"):
        it.apply(step)
    it.server.refusals["delete"] = refused(500, "etcd is slow")
    with pytest.raises(Stopped, match="etcd is slow"):
        it.apply(it.deletion(ROUTE))


def test_what_is_gone_already_is_deleted(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.deletion(ROUTE)
    it.server.refusals["delete"] = NotInstalled("gone")
    it.once("get", lambda path, _: it.server.objects.pop(path))
    it.apply(step)
    assert it.said == ["VirtualService a/web deleted"]


@pytest.mark.parametrize("how", ["changed", "deleted", "created anew", "being deleted"])
def test_what_is_applied_to_another_object_than_was_looked_at(tried: Try, how: str) -> None:
    it = tried(ROUTE)
    step = applying(it)
    if how == "changed":
        it.server.change(WEB, **THEIRS)
    elif how == "being deleted":
        it.server.objects[WEB]["metadata"]["deletionTimestamp"] = "now"
    else:
        del it.server.objects[WEB]
    if how == "created anew":
        it.server.put(copy.deepcopy(ROUTE))
    said = {
        "changed": "has changed it since it was read",
        "deleted": "it is gone; somebody has deleted it",
        "created anew": "it was deleted and created anew",
        "being deleted": "is being deleted .*what is written to it would vanish with it",
    }[how]
    with pytest.raises(Stopped, match=said):
        it.apply(step)


def test_what_is_applied_anew_and_is_there_meanwhile(tried: Try) -> None:
    it = tried(ROUTE)
    step = replace(new(MANIFEST), applied=MANIFEST)
    with pytest.raises(Stopped, match="VirtualService a/web: it is there already"):
        it.apply(step)


# Fields that others have


def theirs(manager: str, operation: str = "Update") -> Object:
    document = copy.deepcopy(ROUTE)
    document["metadata"]["managedFields"] = [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": ROUTE["apiVersion"],
            "fieldsV1": {"f:spec": {"f:http": {}}},
        }
    ]
    return document


CONFLICT = (
    'Apply failed with 1 conflict: conflict with "%s" using networking.istio.io/v1: .spec.http'
)


def would_be(it: Tried) -> Any:
    live = it.server.get(WEB)
    return it.cluster.would_be(it.deletion(ROUTE).target, WEB, MANIFEST, live, live)


def test_fields_that_somebody_else_has_are_a_conflict(tried: Try) -> None:
    it = tried(theirs("flagger"))
    it.server.refusals["apply"] = refused(409, CONFLICT % "flagger")
    with pytest.raises(Conflict, match="to overwrite it, use --force-conflicts"):
        would_be(it)
    it.server.refusals["apply"] = refused(500, "etcd is slow")
    with pytest.raises(ApiError, match="etcd is slow"):
        would_be(it)


def test_fields_that_client_side_kubectl_has_will_be_handed_over(tried: Try) -> None:
    """That is not tried: the server is asked again, as if it were done."""
    it = tried(theirs("kubectl-client-side-apply"))
    it.server.refusals["apply"] = refused(409, CONFLICT % "kubectl-client-side-apply")
    assert would_be(it)["spec"] == MANIFEST["spec"]
    it.server.refusals["apply"] = refused(422, "two ports of one name")
    with pytest.raises(Conflict, match="make this change with kubectl apply"):
        would_be(it)
    it.apply(applying(it))
    managers = it.server.objects[WEB]["metadata"]["managedFields"]
    assert [(each["manager"], each["operation"]) for each in managers] == [("kubectl", "Apply")]


def test_a_manager_who_is_named_keeps_what_it_changes(tried: Try) -> None:
    it = tried(ROUTE)
    it.cluster = Cluster(it.server, it.waits, "somebody")
    it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    managers = it.server.objects[WEB]["metadata"]["managedFields"]
    assert [each["manager"] for each in managers] == ["kubectl", "somebody"]


def test_owners_that_cannot_be_set_as_somebody_keeps_writing(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")

    def write(verb: str, path: str, body: Any) -> None:
        if verb != "get":
            it.server.put(copy.deepcopy(it.server.objects[WEB]))
        it.server.refusals["patch"] = refused(409, "somebody writes")

    it.once("patch", lambda *_: setattr(it.server, "then", write))
    it.apply(step)
    it.quiet()
    it.server.refusals.clear()
    assert it.spec(ROUTE)["http"][0]["timeout"] == "5s"


# Steps that wait, and what comes in between


def test_a_workload_is_waited_for_before_the_next_step(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = deployment("web")
    it = tried(web, ROUTE)
    waited: list[str] = []
    monkeypatch.setattr(it.waits, "rolled_out", lambda *found: waited.append(str(found[1])))
    it.apply(
        it.patch(web, ("spec", "replicas"), 2, then=Then.ROLLED_OUT),
        it.patch(ROUTE, TIMEOUT, "5s"),
    )
    assert waited == ["Deployment a/web"]


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_what_was_made_has_to_be_so_before_what_relies_on_it(tried: Try, how: str) -> None:
    it = tried(ROUTE, RULE)

    def others() -> None:
        if how == "changed":
            it.server.change(where(RULE), host="other")
        else:
            del it.server.objects[where(RULE)]

    it.waits.then = others
    said = {"changed": "has changed it since", "deleted": "is gone; somebody has deleted it"}[how]
    with pytest.raises(Stopped, match=f"DestinationRule a/web.*{said}; 1 of 2 steps are made"):
        it.apply(*two_steps(it))
    assert it.spec(ROUTE) == ROUTE["spec"]


def test_a_run_is_not_gone_on_with_where_somebody_has_deleted_what_it_made(tried: Try) -> None:
    it = tried(ROUTE, RULE)
    steps = two_steps(it)
    it.waits.then = lambda: (_ for _ in ()).throw(ClusterError("istiod is away"))
    with pytest.raises(Stopped, match="istiod is away; 1 of 2 steps are made"):
        it.apply(*steps)
    (run,) = it.journal.runs()
    del it.server.objects[where(RULE)]
    with pytest.raises(Stopped, match="DestinationRule a/web is gone; somebody has deleted it"):
        it.finish(run)  # type: ignore[arg-type]
    it.server.put(RULE)
    with pytest.raises(Stopped, match="it was deleted and created anew"):
        it.finish(run)  # type: ignore[arg-type]


def test_an_interrupted_run_says_how_to_go_on(tried: Try) -> None:
    it = tried(ROUTE, RULE)

    def interrupt() -> None:
        raise KeyboardInterrupt

    it.waits.then = interrupt
    with pytest.raises(Interrupted, match="interrupted; 1 of 2 steps are made: kubectl mesh"):
        it.apply(*two_steps(it))
    (run,) = it.journal.runs()
    it.waits.then = lambda: None
    it.finish(run)  # type: ignore[arg-type]
    it.waits.then = interrupt
    with pytest.raises(Interrupted, match="interrupted; 1 of 2 steps are taken back"):
        it.undo(run)  # type: ignore[arg-type]


def test_a_deletion_that_was_asked_for_is_only_waited_for(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = tried(ROUTE)
    step = it.deletion(ROUTE)

    def slowly(path: str, version: Any, *, dry: bool = False) -> None:
        it.server.objects[path]["metadata"]["deletionTimestamp"] = "now"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(it.server, "delete", slowly)
        patched.setattr(it.waits, "gone", interrupt)
        with pytest.raises(Interrupted, match="was asked for and is not finished"):
            it.apply(step)
    (run,) = it.journal.runs()
    it.server.refusals["delete"] = ClusterError("asked for twice")
    it.finish(run)  # type: ignore[arg-type]
    assert it.journal.run(run.id).entries[0].state is State.DONE  # type: ignore[union-attr]


# Steps of which the outcome is not known


def test_a_step_that_somebody_has_changed_since_cannot_be_told(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(it.patch(ROUTE, TIMEOUT, "5s"))
    it.server.objects[WEB]["spec"]["http"][0]["timeout"] = "7s"
    with pytest.raises(Conflict, match="cannot be told whether the step was made"):
        it.finish(run)


def test_a_step_whose_object_is_gone_cannot_be_told(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(it.patch(ROUTE, TIMEOUT, "5s"))
    run = it.journal.run(run.id)
    run.entries[0].state = State.STARTED
    del it.server.objects[WEB]
    with pytest.raises((Conflict, Stopped), match="is gone; somebody has deleted it"):
        it.finish(run)


def test_a_creation_that_was_not_made_is_made(tried: Try) -> None:
    it = tried()
    run = it.cut_off(creation())
    del it.server.objects[WEB]
    it.finish(run)
    assert it.spec(ROUTE) == ROUTE["spec"]


def test_what_was_applied_is_found_made(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.cut_off(applying(it))
    it.server.refusals["apply"] = ClusterError("applied twice")
    it.finish(run)
    assert it.spec(ROUTE) == MANIFEST["spec"]


# Taken back


def test_undo_deletes_what_was_made_and_waits_until_it_is_gone(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = tried()
    run = it.apply(creation())
    waited: list[str] = []
    monkeypatch.setattr(it.waits, "gone", lambda *found: waited.append(str(found[1])))
    it.undo(run)
    assert WEB not in it.server.objects
    assert waited == ["VirtualService a/web"]
    assert it.said[-1] == "VirtualService a/web is gone"


def test_undo_leaves_deleted_what_somebody_has_deleted(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    del it.server.objects[WEB]
    it.undo(run, force=True)
    assert it.said[-1] == "VirtualService a/web stays deleted"
    assert WEB not in it.server.objects


def test_undo_waits_until_what_it_creates_again_is_gone(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can cancel a deletion that a finalizer holds up."""
    it = tried(ROUTE)
    step = it.deletion(ROUTE)

    def slowly(path: str, version: Any, *, dry: bool = False) -> None:
        it.server.objects[path]["metadata"] |= {"deletionTimestamp": "now", "finalizers": ["x/y"]}

    with monkeypatch.context() as patched:
        patched.setattr(it.server, "delete", slowly)
        run = it.apply(step)
    monkeypatch.setattr(it.waits, "gone", lambda *_: it.server.objects.pop(WEB, None))
    it.undo(run)
    assert "is being deleted (since now; finalizer x/y), which cannot be cancelled" in it.said[1]
    assert it.spec(ROUTE) == ROUTE["spec"]
    assert "deletionTimestamp" not in it.server.objects[WEB]["metadata"]


def test_what_is_made_anew_of_one_kind_comes_a_second_apart(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the older one is so again."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    documents = []
    for number, name in enumerate(("young", "old")):
        document = copy.deepcopy(virtual_service(name, [name], to(name)))
        document["metadata"]["creationTimestamp"] = f"2024-01-0{2 - number}T00:00:00Z"
        documents.append(document)
    it = tried(*documents)
    run = it.apply(*map(it.deletion, documents))
    it.undo(run)
    assert len(slept) == 1
    made = [text for text in it.said if text.endswith("is as it was")]
    assert made == [f"VirtualService a/{name} is as it was" for name in ("old", "young")]


def test_a_way_back_that_is_refused_is_not_noted_as_begun(tried: Try) -> None:
    it = tried(ROUTE)
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    it.server.refusals["patch"] = Forbidden("you may not")
    with pytest.raises(Stopped, match="you may not; 0 of 1 steps are taken back"):
        it.undo(run)
    assert it.journal.run(run.id).entries[0].state is State.DONE


OWNER = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "web", "uid": "its"}


@pytest.mark.parametrize(
    ("owner", "is_created"),
    [
        ("there", True),
        ("another", False),
        ("going", False),
        ("gone", False),
        ("hidden", True),
    ],
)
def test_what_belongs_to_an_owner_that_is_gone_is_not_created_again(
    tried: Try, monkeypatch: pytest.MonkeyPatch, owner: str, is_created: bool
) -> None:
    """Kubernetes would delete it again."""
    owned = copy.deepcopy(ROUTE)
    owned["metadata"]["ownerReferences"] = [OWNER]
    it = tried(owned)
    it.server.serve(OWNER["apiVersion"], canaries="Canary")
    canary = thing(OWNER["apiVersion"], "Canary", "web", {}, uid="its")
    path = "/apis/flagger.app/v1beta1/namespaces/a/canaries/web"
    it.server.put(canary, path)
    run = it.apply(it.deletion(owned))
    if owner == "another":
        it.server.objects[path]["metadata"]["uid"] = "other"
    elif owner == "going":
        it.server.objects[path]["metadata"]["deletionTimestamp"] = "now"
    elif owner == "gone":
        del it.server.objects[path]
    elif owner == "hidden":
        get = it.server.get

        def hidden(where: str, query: Any = None) -> Object:
            if where == path:
                raise Forbidden("you may not get canaries")
            return get(where, query)

        monkeypatch.setattr(it.server, "get", hidden)
    if is_created:
        it.undo(run)
    else:
        with pytest.raises(Stopped, match="belongs to Canary web, which is gone"):
            it.undo(run)
    assert (WEB in it.server.objects) is is_created


def test_a_later_run_of_ours_is_named(tried: Try) -> None:
    it = tried(ROUTE)
    first = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    second = it.apply(it.patch(ROUTE, TIMEOUT, "6s"))
    with pytest.raises(Conflict, match=rf"your own .* undo that first with .* undo {second.id}"):
        it.undo(first)
    it.undo(second)
    third = it.apply(it.deletion(ROUTE))
    with pytest.raises(Conflict, match=rf"has deleted it since.* undo {third.id}"):
        it.undo(first)


# Which cluster it is


def test_a_run_of_another_cluster(tmp_path: Path) -> None:
    it = Tried(tmp_path, ROUTE)
    run = it.apply(it.patch(ROUTE, TIMEOUT, "5s"))
    assert it.cluster.recognise(run) == ""
    with pytest.raises(OtherCluster, match="and this is https://server: name it with --context"):
        it.cluster.recognise(replace(run, server="https://other"))
    with pytest.raises(OtherCluster, match="another cluster that had the address"):
        it.cluster.recognise(replace(run, cluster="other"))
    doubt = it.cluster.recognise(replace(run, cluster=""))
    assert doubt == f"the journal of {run.id} does not name its cluster"
    blind = StandIn(ROUTE)
    del blind.objects["/api/v1/namespaces/kube-system"]
    doubt = Cluster(blind, Waits()).recognise(run)
    assert doubt.startswith("you may not get Namespace kube-system")


def test_an_answer_that_is_another_object(tried: Try) -> None:
    it = tried(ROUTE)
    step = it.patch(ROUTE, TIMEOUT, "5s")
    it.server.objects[WEB] = {**content(ROUTE), "kind": "Status"}
    with pytest.raises(Stopped, match="the API server answered with something else"):
        it.apply(step)
