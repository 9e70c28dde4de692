"""Repairs applied to a real API server, taken back, and what is left when something goes wrong.

In every case the journal says what is so, and `undo` brings back the very specs that were there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step, change_set
from kubectl_mesh.changes.cluster import Cluster, Stopped
from kubectl_mesh.changes.journal import Journal, JournalError, Run, State
from kubectl_mesh.changes.patch import Conflict, content, difference
from kubectl_mesh.changes.waiting import Waiting
from kubectl_mesh.cli import main
from kubectl_mesh.errors import MeshError
from kubectl_mesh.kube.istiod import Istiod
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.rules.repair import Then
from kubectl_mesh.sources.cluster import ClusterOrigin, load, whole
from kubectl_mesh.sources.session import ClusterOptions, Session

from .apiserver import ApiServer
from .rollouts import rolled_out

ROOT = Path(__file__).parents[2]
NAMES = ("one", "three", "two")
"""In the order in which they are repaired."""


def manifest(name: str, namespace: str, **metadata: Any) -> dict[str, Any]:
    """A VirtualService with the weight of a single destination, which KM605 takes away."""
    route = [{"destination": {"host": name}, "weight": 50}]
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"hosts": [name], "http": [{"name": "only", "route": route, "timeout": "1s"}]},
    }


class Shop:
    """Three VirtualServices to be repaired, in a namespace of a cluster."""

    def __init__(self, server: ApiServer, namespace: str, journal: Path) -> None:
        self.server = server
        self.namespace = namespace
        self.session = Session(ClusterOptions(kubeconfig=str(server.kubeconfig)))
        self.journal = Journal(journal)
        server.create(manifest(name, namespace) for name in NAMES)
        self.before = self.specs()

    def path(self, name: str) -> str:
        return self.server.path(manifest(name, self.namespace))

    def specs(self) -> dict[str, str]:
        return {
            name: json.dumps(self.server.request("GET", self.path(name))["spec"]) for name in NAMES
        }

    def changes(self) -> ChangeSet:
        rule = BY_CODE["KM605"]
        state = load(self.session, rule.needs, {self.namespace})
        report = examine(Snapshot(state.resources, state.config, state.coverage), [rule])
        repairs = [finding.repairs[0] for finding in report.findings]
        found, _ = change_set(repairs, whole(self.session.client))
        assert len(found.steps) == len(NAMES)
        return found

    def cluster(self, timeout: float | None = None, session: Session | None = None) -> Cluster:
        """Without an istiod, as no step waits for the proxies."""
        return Cluster((session or self.session).client, Waiting(nowhere, timeout=timeout))

    def patched(self) -> list[str]:
        """The names of those that are not as they were."""
        return [name for name, spec in self.specs().items() if spec != self.before[name]]

    def edit(self, name: str) -> None:
        """Somebody else changes an object."""
        patch = json.dumps([{"op": "add", "path": "/spec/http/0/timeout", "value": "9s"}])
        self.server.kubectl(
            *("patch", "virtualservice", name, "-n", self.namespace, "--type=json", "-p", patch)
        )

    def run(self) -> Run:
        (found,) = self.journal.runs()
        return found

    def states(self) -> list[State]:
        return [each.state for each in self.run().entries]


@pytest.fixture
def shop(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Shop:
    return Shop(apiserver, namespace, tmp_path / "journal")


@contextlib.contextmanager
def nowhere() -> Iterator[Sequence[Istiod]]:
    yield []


def quiet(_: str) -> None:
    pass


def test_what_is_applied_can_be_taken_back(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        cluster = ("--kubeconfig", str(shop.server.kubeconfig))
        status = main([*arguments, *cluster, "--journal", str(shop.journal.folder), "--yes"])
        out, err = capsys.readouterr()
        return status, out + err

    fix = ("fix", "-n", shop.namespace, "--rule", "KM605", "--apply")
    status, said = command(*fix, "--dry-run", "server")
    assert (status, shop.patched()) == (0, [])
    *_, tried, following = said.splitlines()
    assert tried == "The API server would accept every step; nothing is changed."
    assert following.startswith(f"To apply it: kubectl mesh fix -n {shop.namespace} ")
    status, said = command(*fix, "--dry-run", "client")
    assert (status, shop.patched(), shop.journal.folder.exists()) == (0, [], False)
    status, said = command(*fix)
    assert (status, shop.patched()) == (0, list(NAMES))
    run = shop.run()
    assert f"To undo: kubectl mesh undo {run.id}" in said
    assert shop.states() == [State.DONE] * 3
    assert "weight" not in json.dumps(shop.specs())
    assert command(*fix) == (0, "Nothing to repair.\n")
    assert command("undo", "--list") == (
        0,
        f"{run.id}  {run.started}  {run.context}  3 done  "
        + ", ".join(f"VirtualService {shop.namespace}/{name}" for name in NAMES)
        + "\n",
    )
    assert oct(shop.journal.folder.stat().st_mode & 0o777) == "0o700"
    status, said = command("undo")
    assert (status, shop.specs()) == (0, shop.before)
    assert shop.states() == [State.UNDONE] * 3
    assert command("undo")[0] == 2, "there is nothing left to take back"


def test_an_object_that_is_edited_in_between(shop: Shop) -> None:
    changes = shop.changes()
    shop.edit("three")
    before = shop.specs()
    with pytest.raises(Conflict, match=r"/three: kubectl-patch \(at .*\) has changed it since"):
        shop.cluster().rehearse(changes)
    assert shop.specs() == before
    with pytest.raises(Stopped, match=r"/three: kubectl-patch .*; 1 of 3 steps are made"):
        shop.cluster().apply(changes, shop.journal, quiet)
    assert shop.states() == [State.DONE, State.PLANNED, State.PLANNED]
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == before


def test_an_object_that_is_deleted_in_between(shop: Shop) -> None:
    changes = shop.changes()
    shop.server.delete(manifest("two", shop.namespace))
    with pytest.raises(Conflict, match="/two: it is gone; somebody has deleted it"):
        shop.cluster().rehearse(changes)
    with pytest.raises(Stopped, match=r"/two: it is gone.*; 2 of 3 steps are made"):
        shop.cluster().apply(changes, shop.journal, quiet)
    shop.server.create([manifest("two", shop.namespace)])
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


@pytest.mark.parametrize("finish", [False, True])
def test_an_api_server_that_stops_after_the_first_step(
    new_apiserver: Callable[..., ApiServer], tmp_path: Path, finish: bool
) -> None:
    server = new_apiserver()
    server.kubectl("create", "namespace", "shop")
    shop = Shop(server, "shop", tmp_path / "journal")
    changes = shop.changes()
    with pytest.raises(Stopped, match=r"; 1 of 3 steps are made.*undo --finish"):
        shop.cluster().apply(changes, shop.journal, lambda _: server.stop())
    assert shop.states() == [State.DONE, State.PLANNED, State.PLANNED], "nothing more was sent"
    server.start()
    assert shop.patched() == ["one"]
    if finish:
        shop.cluster().go_on(shop.run(), shop.journal, quiet)
        assert (shop.patched(), shop.states()) == (list(NAMES), [State.DONE] * 3)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


_KILLED = """
import os, signal, sys
from pathlib import Path
from kubectl_mesh.changes import journal
from kubectl_mesh.cli import main
when, calls = int(sys.argv[1]), 0
write = journal.Journal.write
def dying(self, run):
    global calls
    write(self, run)
    calls += 1
    if calls == when:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.write = dying
main(sys.argv[2:])
"""


@pytest.mark.parametrize("when", range(1, 8))
@pytest.mark.parametrize("finish", [False, True])
def test_a_tool_that_is_killed(shop: Shop, when: int, finish: bool) -> None:
    """After each time that the journal is written: before the first step, in it, behind it..."""
    arguments = [
        *("fix", "-n", shop.namespace, "--rule", "KM605", "--apply", "--yes"),
        *("--kubeconfig", str(shop.server.kubeconfig), "--journal", str(shop.journal.folder)),
    ]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(when), *arguments], cwd=ROOT, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    run = shop.run()
    for entry, name in zip(run.entries, NAMES, strict=True):
        made = name in shop.patched()
        assert made == (entry.state is State.DONE) or entry.state is State.STARTED
    assert run.is_half_done is (1 < when < 7)
    if finish:
        shop.cluster().go_on(run, shop.journal, quiet)
        assert (shop.patched(), shop.states()) == (list(NAMES), [State.DONE] * 3)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before
    assert not [name for name in os.listdir(shop.journal.folder) if name.startswith(".")]


def test_two_who_apply_the_same_at_once(shop: Shop, tmp_path: Path) -> None:
    changes = shop.changes()
    other = Journal(tmp_path / "other")
    shop.cluster().apply(changes, shop.journal, quiet)
    after = shop.specs()
    with pytest.raises(Stopped, match="has changed it since it was read; nothing is changed"):
        shop.cluster().apply(changes, other, quiet)
    (second,) = other.runs()
    assert (second.made, shop.specs()) == ([], after)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


_POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
    - apiGroups: [networking.istio.io]
      apiVersions: ["*"]
      operations: [UPDATE]
      resources: [virtualservices]
  validations:
  - expression: "object.metadata.namespace != '{name}' || object.metadata.name != 'three'"
    message: three is frozen
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"""


def test_admission_that_refuses_the_second_step(shop: Shop) -> None:
    """It is met in the rehearsal; if it comes into force only later, the first step is made."""
    changes = shop.changes()
    policy = _POLICY.format(name=shop.namespace)
    try:
        shop.server.kubectl("apply", "-f", "-", input=policy)
        _until_refused(shop)
        with pytest.raises(MeshError, match="three is frozen"):
            shop.cluster().rehearse(changes)
        assert shop.patched() == []
        with pytest.raises(
            Stopped, match=r"three is frozen.*; 1 of 3 steps are made: kubectl mesh"
        ):
            shop.cluster().apply(changes, shop.journal, quiet)
        assert shop.states() == [State.DONE, State.PLANNED, State.PLANNED]
        assert shop.patched() == ["one"]
    finally:
        shop.server.kubectl("delete", "-f", "-", input=policy)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


def _until_refused(shop: Shop) -> None:
    """The API server takes a moment to heed a new policy."""
    for _ in range(200):
        done = shop.server.kubectl(
            *("annotate", "virtualservice", "three", "-n", shop.namespace, "--dry-run=server"),
            *("--overwrite", "a=b"),
            check=False,
        )
        if "frozen" in done.stderr:
            return
    raise AssertionError(done.stderr)


def test_what_somebody_has_changed_since_is_taken_back_only_by_force(shop: Shop) -> None:
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    shop.edit("one")
    edited = shop.specs()["one"]
    with pytest.raises(Conflict, match=r"/one: kubectl-patch .* has changed it since.*--force"):
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert (shop.specs()["one"], shop.patched()) == (edited, list(NAMES)), "nothing is taken back"
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=True)
    assert shop.specs() == shop.before


def test_what_somebody_has_deleted_since_stays_so(shop: Shop) -> None:
    shop.cluster().apply(shop.changes(), shop.journal, quiet)
    shop.server.delete(manifest("two", shop.namespace))
    with pytest.raises(Conflict, match=r"/two is gone; somebody has deleted it; nothing is taken"):
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.states() == [State.DONE] * 3
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=True)
    assert shop.states() == [State.UNDONE] * 3
    shop.server.create([manifest("two", shop.namespace)])
    assert shop.specs() == shop.before


class Pair:
    """A change set that changes one, makes two, and takes three away."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        one, three = (shop.server.request("GET", shop.path(name)) for name in ("one", "three"))
        shop.server.delete(manifest("two", shop.namespace))
        two = manifest("two", shop.namespace, labels={"made": "new"})
        after = json.loads(json.dumps(one))
        after["spec"]["http"][0]["timeout"] = "2s"
        self.changes = ChangeSet(
            tuple(
                Step(resource(before or then), before, then, operations, (), ["why"])
                for before, then, operations in (
                    (one, after, difference(one, after)),
                    (None, two, []),
                    (three, None, []),
                )
            )
        )
        self.before = self.now()

    def now(self) -> dict[str, Any]:
        listed = self.shop.server.request("GET", self.shop.path("one").rpartition("/")[0])["items"]
        return {each["metadata"]["name"]: content(each) for each in listed}

    def apply(self) -> Run:
        return self.shop.cluster().apply(self.changes, self.shop.journal, quiet)

    def undo(self, *, force: bool = False) -> None:
        self.shop.cluster().undo(self.shop.run(), self.shop.journal, quiet, force=force)


def resource(document: dict[str, Any]) -> Resource:
    metadata = document["metadata"]
    key = ResourceId("VirtualService", metadata["namespace"], metadata["name"])
    return Resource(key, document["apiVersion"], document, document, ClusterOrigin("a context"))


@pytest.fixture
def pair(shop: Shop) -> Pair:
    return Pair(shop)


def test_objects_are_made_and_deleted_and_that_is_taken_back(pair: Pair) -> None:
    pair.shop.cluster().rehearse(pair.changes)
    assert pair.now() == pair.before, "the server has only tried it"
    pair.apply()
    after = pair.now()
    assert sorted(after) == ["one", "two"]
    assert after["one"]["spec"]["http"][0]["timeout"] == "2s"
    assert after["two"]["metadata"]["labels"] == {"made": "new"}
    pair.undo()
    assert pair.now() == pair.before
    assert pair.shop.states() == [State.UNDONE] * 3


def test_what_exists_already_is_not_made(pair: Pair) -> None:
    pair.shop.server.create([manifest("two", pair.shop.namespace)])
    before = pair.now()
    with pytest.raises(Conflict, match="/two: it is there already"):
        pair.shop.cluster().rehearse(pair.changes)
    with pytest.raises(Stopped, match=r"it is there already; 1 of 3 steps are made: .*undo"):
        pair.apply()
    pair.undo()
    assert pair.now() == before


def test_what_somebody_has_changed_is_not_deleted(pair: Pair) -> None:
    pair.shop.edit("three")
    for attempt in (lambda: pair.shop.cluster().rehearse(pair.changes), pair.apply):
        with pytest.raises(MeshError, match=r"/three: kubectl-patch .* has changed it since"):
            attempt()
    assert pair.shop.states() == [State.DONE, State.DONE, State.PLANNED]
    pair.undo()
    assert sorted(pair.now()) == ["one", "three"]
    assert pair.now()["three"]["spec"]["http"][0]["timeout"] == "9s"


def test_what_has_a_status_written_meanwhile_is_deleted_all_the_same(pair: Pair) -> None:
    pair.shop.server.request(
        "PATCH",
        f"{pair.shop.path('three')}/status",
        {"status": {"observedGeneration": 1}},
        content_type="application/merge-patch+json",
    )
    pair.apply()
    assert sorted(pair.now()) == ["one", "two"]


def test_what_was_deleted_and_made_again_by_somebody_is_left_to_them(pair: Pair) -> None:
    pair.apply()
    pair.shop.server.create([manifest("three", pair.shop.namespace, labels={"whose": "theirs"})])
    after = pair.now()
    with pytest.raises(Conflict, match=r"/three: .* has changed it since; nothing is taken back"):
        pair.undo()
    assert pair.now() == after
    pair.undo(force=True)
    assert pair.now() == pair.before


@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_nothing_goes_that_somebody_has_taken_the_place_of_away(pair: Pair, how: str) -> None:
    """What was changed first stands in for what goes: it has to be so still."""
    pair.apply()
    pair.undo()
    run = pair.shop.run()
    cluster, journal = pair.shop.cluster(), pair.shop.journal
    for entry in run.entries[:2]:
        entry.after = cluster._make(entry)
        entry.state = State.DONE
    run.entries[2].state = State.PLANNED
    journal.write(run)
    if how == "edited":
        pair.shop.edit("one")
    else:
        pair.shop.server.delete(manifest("one", pair.shop.namespace))
    with pytest.raises(Stopped, match=r"/one.*; 2 of 3 steps are made: .*undo"):
        cluster.go_on(journal.run(run.id), journal, quiet)
    assert "three" in pair.now()


def test_what_is_made_anew_comes_in_the_order_of_age(shop: Shop) -> None:
    """And in different seconds, by which istiod tells the older one."""
    found = {name: shop.server.request("GET", shop.path(name)) for name in NAMES}
    for name, day in (("one", 3), ("two", 1), ("three", 2)):
        found[name]["metadata"]["creationTimestamp"] = f"2026-01-0{day}T00:00:00Z"
    changes = ChangeSet(
        tuple(
            Step(resource(each), each, None, (), (), ["why"])
            for each in (found["one"], found["three"], found["two"])
        )
    )
    said: list[str] = []
    shop.cluster().apply(changes, shop.journal, quiet)
    shop.cluster().undo(shop.run(), shop.journal, said.append, force=False)
    times = {
        name: shop.server.request("GET", shop.path(name))["metadata"]["creationTimestamp"]
        for name in NAMES
    }
    assert times["two"] < times["three"] < times["one"]
    assert sum("is made anew, and so the youngest" in line for line in said) == 3


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("how", ["undo", "finish"])
def test_a_creation_or_deletion_of_which_nobody_knows(
    pair: Pair, step: int, sent: bool, how: str
) -> None:
    """Killed about the time of its request, whether that was sent or not."""
    pair.apply()
    wanted = pair.now()
    pair.undo()
    run = pair.shop.run()
    run.entries[0].state = State.DONE
    run.entries[1].state = State.DONE if step == 2 else State.STARTED
    run.entries[2].state = State.STARTED if step == 2 else State.PLANNED
    cluster, journal = pair.shop.cluster(), pair.shop.journal
    for entry in run.entries[: step + sent]:
        if entry.after is None:
            pair.shop.server.delete(manifest(entry.target.name, pair.shop.namespace))
        else:
            entry.after = cluster._make(entry)
    journal.write(run)
    if how == "undo":
        pair.undo()
        assert pair.now() == pair.before
        return
    cluster.go_on(journal.run(run.id), journal, quiet)
    assert pair.now() == wanted
    assert pair.shop.states() == [State.DONE] * 3


def deployment(name: str, namespace: str) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "registry.example.com/it:1"}]},
            },
        },
    }


def restart(shop: Shop) -> ChangeSet:
    """A Deployment gets new pods; once it has them, a VirtualService is changed."""
    made = deployment("web", shop.namespace)
    shop.server.create([made])
    before = shop.server.request("GET", shop.server.path(made))
    after = json.loads(json.dumps(before))
    after["spec"]["template"]["metadata"]["annotations"] = {"restarted": "now"}
    key = ResourceId("Deployment", shop.namespace, "web")
    web = Resource(key, "apps/v1", before, before, ClusterOrigin("a context"))
    first = Step(web, before, after, difference(before, after), (), ["why"], Then.ROLLED_OUT)
    return ChangeSet((first, shop.changes().steps[0]))


def test_the_next_step_waits_until_a_workload_is_rolled_out(shop: Shop) -> None:
    changes = restart(shop)
    said: list[str] = []
    with rolled_out(shop.server):
        shop.cluster().apply(changes, shop.journal, said.append)
        where = f"Deployment {shop.namespace}/web"
        assert said[0] == f"{where} patched"
        assert said[-1] == f"VirtualService {shop.namespace}/one patched"
        assert all(line.startswith(f"waiting for {where}: ") for line in said[1:-1])
        shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.states() == [State.UNDONE] * 2


def test_a_workload_that_is_not_rolled_out_in_time(shop: Shop) -> None:
    changes = restart(shop)
    cluster = shop.cluster(timeout=0.5)
    with pytest.raises(Stopped, match=r"/web is not rolled out within 0.5 s: .*; 1 of 2 steps"):
        cluster.apply(changes, shop.journal, quiet)
    assert (shop.states(), shop.patched()) == ([State.DONE, State.PLANNED], [])
    with pytest.raises(Stopped, match=r"/web is not rolled out within 0.5 s"):
        cluster.go_on(shop.run(), shop.journal, quiet)
    with rolled_out(shop.server):
        shop.cluster().go_on(shop.run(), shop.journal, quiet)
    assert (shop.states(), shop.patched()) == ([State.DONE] * 2, ["one"])


@pytest.mark.parametrize("place", ["elsewhere", "there"])
def test_a_step_of_which_nobody_knows_while_somebody_else_edits(shop: Shop, place: str) -> None:
    """Killed before its request was sent: what somebody else has changed is not taken for it."""
    changes = shop.changes()
    shop.cluster().apply(changes, shop.journal, quiet)
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    run = shop.run()
    run.entries[0].state, run.entries[1].state, run.entries[2].state = (
        State.STARTED,
        State.PLANNED,
        State.PLANNED,
    )
    shop.journal.write(run)
    if place == "there":
        shop.edit("one")
        with pytest.raises(Conflict, match="cannot be told whether the step was made"):
            shop.cluster().go_on(shop.run(), shop.journal, quiet)
        assert shop.states() == [State.STARTED, State.PLANNED, State.PLANNED]
        return
    shop.server.kubectl("label", "virtualservice", "one", "-n", shop.namespace, "team=x")
    shop.cluster().go_on(shop.run(), shop.journal, quiet)
    assert (shop.patched(), shop.states()) == (list(NAMES), [State.DONE] * 3)


def test_a_journal_that_can_no_longer_be_written(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal.write
    calls = 0

    def full(self: Journal, run: Run) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise JournalError("the journal cannot be written: No space left on device")
        write(self, run)

    changes = shop.changes()
    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(Stopped, match=r"/one is patched, but .* No space .*kubectl mesh undo"):
        shop.cluster().apply(changes, shop.journal, quiet)
    monkeypatch.undo()
    assert shop.states() == [State.STARTED, State.PLANNED, State.PLANNED]
    assert shop.patched() == ["one"]
    shop.cluster().undo(shop.run(), shop.journal, quiet, force=False)
    assert shop.specs() == shop.before


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, "Argo CD"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "shop"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}, "Flux"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        (
            {
                "ownerReferences": [
                    {"apiVersion": "flagger.app/v1", "kind": "Canary", "name": "c", "uid": "1"}
                ]
            },
            "Flagger",
        ),
    ],
)
def test_what_a_controller_owns_is_left_to_it(
    apiserver: ApiServer,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    metadata: dict[str, Any],
    owner: str,
) -> None:
    apiserver.create([manifest("one", namespace, **metadata)])
    fix = [
        *("fix", "-n", namespace, "--rule", "KM605", "--apply", "--yes"),
        *("--kubeconfig", str(apiserver.kubeconfig), "--journal", str(tmp_path)),
    ]
    assert main(fix) == 3
    assert f"VirtualService {namespace}/one belongs to {owner}" in capsys.readouterr().err
    assert main([*fix, "--force-live"]) == 0


def test_a_user_who_may_not_patch(shop: Shop) -> None:
    shop.server.kubectl(
        *("create", "role", "reader", "-n", shop.namespace, "--verb=get,list"),
        "--resource=virtualservices.networking.istio.io",
    )
    shop.server.kubectl(
        *("create", "rolebinding", "bob", "-n", shop.namespace, "--role=reader", "--user=bob")
    )
    changes = shop.changes()
    bob = shop.cluster(session=Session(ClusterOptions(kubeconfig=str(shop.server.user("bob")))))
    with pytest.raises(MeshError, match='User "bob" cannot patch resource'):
        bob.rehearse(changes)
    with pytest.raises(Stopped, match="nothing is changed"):
        bob.apply(changes, shop.journal, quiet)
    assert shop.patched() == []
