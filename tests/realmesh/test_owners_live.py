"""Whose the fields of an object are after each of our commands, on a real API server.

Whoever applied a manifest applies the next one without a conflict, by our apply or by either of
kubectl's, and gets what it says: nothing stays that it no longer has.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.cluster import Cluster
from kubectl_mesh.changes.journal import Journal, Run, State
from kubectl_mesh.changes.patch import difference
from kubectl_mesh.changes.waiting import Waiting
from kubectl_mesh.cli import main
from kubectl_mesh.errors import MeshError
from kubectl_mesh.kube.http import Client
from kubectl_mesh.kube.managed_fields import FIELD_MANAGER
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.sources.cluster import ClusterOrigin
from kubectl_mesh.sources.session import ClusterOptions, Session

from .apiserver import ApiServer
from .test_apply_live import nowhere, quiet

Object = dict[str, Any]
FIRST = ("mesh", "server", "client", "create", "other")
"""Who made the objects: our apply, kubectl's two, kubectl create, a controller."""
APPLIERS = FIRST[:3]
"""Those who apply manifests, and by turns, each on an object of its own."""


def route(name: str, namespace: str) -> Object:
    """A VirtualService with a weight that KM605 takes away."""
    only = {"route": [{"destination": {"host": name}, "weight": 50}], "timeout": "1s"}
    tcp = [{"route": [{"destination": {"host": name, "port": {"number": 9}}}]}]
    return of("VirtualService", name, namespace, {"hosts": [name], "http": [only], "tcp": tcp})


def rule(name: str, namespace: str) -> Object:
    """A DestinationRule with two subsets that no route names."""
    subsets = [{"name": each, "labels": {"version": each}} for each in ("v1", "v2")]
    policy = {"tls": {"mode": "DISABLE"}}
    spec = {"host": name, "subsets": subsets, "trafficPolicy": policy}
    return of("DestinationRule", name, namespace, spec)


def service(name: str, namespace: str) -> Object:
    """A Service with two ports, of which the server knows more than is said here."""
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    spec = {"ports": ports, "selector": {"app": "shop"}}
    return {**of("Service", name, namespace, spec), "apiVersion": "v1"}


def pair(name: str, namespace: str) -> list[Object]:
    """Two VirtualServices to be merged, and what they need."""
    host = f"{name}.{namespace}.svc.cluster.local"
    http = [{"route": [{"destination": {"host": host}}]}]
    servers = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
    outside = {"hosts": [f"{name}.example.com"], "gateways": ["front"], "http": http}
    return [
        service(name, namespace),
        of("Gateway", "front", namespace, {"selector": {"istio": "x"}, "servers": servers}),
        of("VirtualService", "inside", namespace, {"hosts": [host], "http": http}),
        of("VirtualService", "outside", namespace, outside),
    ]


def of(kind: str, name: str, namespace: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "shop"}},
        "spec": spec,
    }


class Shop:
    """Objects in a namespace, and who writes them."""

    def __init__(
        self,
        server: ApiServer,
        namespace: str,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.server = server
        self.namespace = namespace
        self.folder = folder
        self.capsys = capsys

    def mesh(self, *arguments: str) -> tuple[int, str]:
        self.capsys.readouterr()
        flags = ("--yes", "--wait-for", "delay=1ms", "--journal", str(self.folder / "journal"))
        status = main([*arguments, *flags, "--kubeconfig", str(self.server.kubeconfig)])
        out, err = self.capsys.readouterr()
        return status, out + err

    def write(self, how: str, *objects: Mapping[str, Any]) -> str:
        """Returns what was said against it; empty where all is well."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        if how == "mesh":
            file = self.folder / "it.json"
            file.write_text(text)
            status, said = self.mesh("apply", "-f", str(file), "--allow-broken", "--allow-empty")
            return said if status else ""
        how, *flags = {
            "server": ("apply", "--server-side"),
            "client": ("apply",),
            "create": ("create",),
            "other": ("apply", "--server-side", "--field-manager=controller"),
        }[how]
        done = self.server.kubectl(how, *flags, "-f", "-", input=text, check=False)
        return done.stderr if done.returncode else ""

    def live(self, like: Mapping[str, Any]) -> Object:
        return self.server.request("GET", self.server.path(like))

    def managers(self, like: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Who has which fields."""
        return sorted(
            (each["manager"], each["operation"], json.dumps(each["fieldsV1"], sort_keys=True))
            for each in self.live(like)["metadata"]["managedFields"]
        )

    def cluster(self) -> Cluster:
        session = Session(ClusterOptions(kubeconfig=str(self.server.kubeconfig)))
        return Cluster(session.client, Waiting(nowhere))

    def journal(self) -> Journal:
        return Journal(self.folder / "journal")

    def patch(
        self,
        like: Mapping[str, Any],
        edit: Callable[[Object], object],
        told: Callable[[str], object] = quiet,
    ) -> Run:
        """One of our patches changes the spec of an object."""
        before = self.live(like)
        after = copy.deepcopy(before)
        edit(after["spec"])
        metadata = before["metadata"]
        key = ResourceId(before["kind"], metadata["namespace"], metadata["name"])
        resource = Resource(key, before["apiVersion"], before, before, ClusterOrigin("a context"))
        step = Step(resource, before, after, difference(before, after), (), ["why"])
        return self.cluster().apply(ChangeSet((step,)), self.journal(), told, command="fix --apply")

    def objects(self, kind: str) -> list[Object]:
        """One for each applier."""
        make = route if kind == "VirtualService" else rule
        return [make(name, self.namespace) for name in APPLIERS]

    def change(self, how: str) -> str:
        """One of our commands changes each object. Returns what it said."""
        if how == "fix":
            status, said = self.mesh("fix", "-n", self.namespace, "--rule", "KM605", "--apply")
        else:
            names = [f"--remove-subset={self.namespace}/{name}/v1" for name in APPLIERS]
            status, said = self.mesh("apply", *names)
        assert status == 0, said
        return said


@pytest.fixture
def shop(
    apiserver: ApiServer, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Shop:
    return Shop(apiserver, namespace, tmp_path, capsys)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize(
    ("change", "kind", "place"),
    [("fix", "VirtualService", "http"), ("remove-subset", "DestinationRule", "subsets")],
)
def test_who_applies_goes_on(shop: Shop, first: str, change: str, kind: str, place: str) -> None:
    """After a patch of ours: undone, and applied again with the list changed, and without it."""
    objects = shop.objects(kind)
    assert shop.write(first, *objects) == ""
    before = {each["metadata"]["name"]: (shop.live(each), shop.managers(each)) for each in objects}
    said = shop.change(change)
    assert ("Make the same change in the manifests of" in said) is (first != "create")
    for each in objects:
        live, managers = before[each["metadata"]["name"]]
        assert shop.live(each)["spec"] != live["spec"]
        assert shop.managers(each) == managers
    assert shop.mesh("undo")[0] == 0
    for each in objects:
        live, managers = before[each["metadata"]["name"]]
        now = shop.live(each)
        assert (now["spec"], shop.managers(each)) == (live["spec"], managers)
        assert now["metadata"].get("annotations") == live["metadata"].get("annotations")
    shop.change(change)
    for how, manifest in zip(APPLIERS, objects, strict=True):
        other = copy.deepcopy(manifest)
        other["spec"][place][0]["name"] = "other"
        said = shop.write(how, other)
        if first in APPLIERS or how == "client":
            assert said == "", (how, said)
            assert shop.live(manifest)["spec"] == other["spec"]
        else:
            name = "kubectl-create" if first == "create" else "controller"
            assert f'conflict with "{name}"' in said, "as before our change"
            assert said.count("conflict with") == 1
        if first in APPLIERS:
            del other["spec"][place]
            assert shop.write(how, other) == ""
            assert shop.live(manifest)["spec"] == other["spec"], how


@pytest.mark.parametrize("first", APPLIERS)
def test_what_was_merged_is_set_back_whole(shop: Shop, first: str) -> None:
    """Gateways, which nobody had, are theirs who have the hosts and the rules."""
    objects = pair("web", shop.namespace)
    assert shop.write(first, *objects) == ""
    *_, inside, outside = objects
    before = [shop.managers(each) for each in (inside, outside)]
    merge = ("merge-vs", "inside", "outside", "-n", shop.namespace, "--apply")
    for _ in range(2):
        status, said = shop.mesh(*merge)
        assert (status, shop.live(inside)["spec"]["gateways"]) == (0, ["mesh", "front"]), said
        assert shop.mesh("undo")[0] == 0
        assert [shop.managers(each) for each in (inside, outside)] == before
    assert shop.mesh(*merge)[0] == 0
    assert shop.write(first, inside, outside) == ""
    for each in (inside, outside):
        assert shop.live(each)["spec"] == each["spec"]


@pytest.mark.parametrize("first", [*APPLIERS, "create"])
def test_what_is_only_added_stays_until_a_manifest_has_it(shop: Shop, first: str) -> None:
    """A field that nobody had is nobody's: no conflict, not lost, not kept for ever."""
    objects = shop.objects("DestinationRule")
    assert shop.write(first, *objects) == ""
    pool = {"http": {"maxRetries": 5}}
    for how, manifest in zip(APPLIERS, objects, strict=True):
        shop.patch(manifest, lambda spec: spec["trafficPolicy"].update(connectionPool=pool))
        manifest["metadata"]["labels"]["more"] = "x"
        assert shop.write(how, manifest) == ""
        assert shop.live(manifest)["spec"]["trafficPolicy"]["connectionPool"] == pool, how
        other = copy.deepcopy(manifest)
        other["spec"]["trafficPolicy"]["connectionPool"] = {"http": {"maxRetries": 7}}
        assert shop.write(how, other) == ""
        assert shop.live(manifest)["spec"] == other["spec"]
        assert shop.write(how, manifest) == ""
        assert shop.live(manifest)["spec"] == manifest["spec"], how


@pytest.mark.parametrize("first", APPLIERS)
def test_a_port_is_renamed(shop: Shop, first: str) -> None:
    """An item of a list whose items have owners of their own, with defaults of the server."""
    objects = [service(name, shop.namespace) for name in APPLIERS]
    assert shop.write(first, *objects) == ""
    for how, manifest in zip(APPLIERS, objects, strict=True):
        shop.patch(manifest, lambda spec: spec["ports"][0].update(name="http", appProtocol="http"))
        manifest["spec"]["ports"][0]["name"] = "grpc"
        assert shop.write(how, manifest) == ""
        first_port, second = shop.live(manifest)["spec"]["ports"]
        assert (first_port["name"], second["name"]) == ("grpc", "b")
        if how == first or how != "client":
            assert "appProtocol" not in first_port, "it came with the name, and goes with it"


def test_client_side_kubectl_after_our_apply(shop: Shop) -> None:
    """It knows what we have applied, and takes away what its manifest does not have."""
    manifest = rule("web", shop.namespace)
    assert shop.write("client", manifest) == ""
    for tries in (1, 2):
        more = copy.deepcopy(manifest)
        more["spec"]["trafficPolicy"]["connectionPool"] = {"http": {"maxRetries": tries}}
        for how in ("mesh", "server", "mesh"):
            more["metadata"]["labels"]["by"] = how
            assert shop.write(how, more) == ""
        assert shop.write("client", manifest) == ""
        live = shop.live(manifest)
        assert (live["spec"], live["metadata"]["labels"]) == (manifest["spec"], {"app": "shop"})


def test_what_an_older_version_has_left_under_our_name(shop: Shop) -> None:
    """Or what was killed half-way: our apply takes it as ours."""
    manifest = rule("web", shop.namespace)
    query = f"?fieldManager={FIELD_MANAGER}"
    for all_is_ours in (False, True):
        path = shop.server.path(manifest)
        if all_is_ours:
            shop.server.request("POST", path.rpartition("/")[0] + query, manifest)
        else:
            assert shop.write("server", manifest) == ""
        shop.server.patch(path + query, [{"op": "replace", "path": "/spec/subsets", "value": []}])
        assert f'conflict with "{FIELD_MANAGER}"' in shop.write("server", manifest)
        assert shop.write("mesh", manifest) == ""
        assert shop.live(manifest)["spec"] == manifest["spec"]
        assert FIELD_MANAGER not in json.dumps(shop.managers(manifest))
        shop.server.delete(manifest)


def test_what_somebody_edits_at_night_is_not_overwritten(shop: Shop) -> None:
    """It is shown, and both ways out are ways out."""
    for number, first in enumerate(("mesh", "client")):
        manifest = route(f"web-{number}", shop.namespace)
        assert shop.write(first, manifest) == ""
        name = manifest["metadata"]["name"]
        where = (f"virtualservice/{name}", "-n", shop.namespace)
        shop.server.kubectl("label", *where, "at=night")
        shop.server.kubectl("annotate", *where, "by=hand")
        for tries, way_out in enumerate(("keep", "overwrite")):
            place = [{"op": "add", "path": "/spec/http/0/timeout", "value": f"{tries + 5}s"}]
            shop.server.kubectl("patch", *where, "--type=json", "-p", json.dumps(place))
            manifest["spec"]["http"][0]["name"] = f"{first}-{way_out}"
            said = shop.write("mesh", manifest)
            assert 'conflict with "kubectl-patch"' in said
            assert "to keep what is there, put it into the manifest; to overwrite it, use" in said
            if way_out == "keep":
                manifest["spec"]["http"] = shop.live(manifest)["spec"]["http"]
                manifest["metadata"]["labels"]["way"] = "keep"
                assert shop.write("mesh", manifest) == ""
            file = shop.folder / "it.json"
            file.write_text(json.dumps(manifest))
            flags = ("--allow-broken", "--force-conflicts")
            assert shop.mesh("apply", "-f", str(file), *flags)[0] == 0
            live = shop.live(manifest)
            assert live["spec"] == manifest["spec"]
            assert live["metadata"]["labels"]["at"] == "night"
            assert live["metadata"]["annotations"]["by"] == "hand"
            manifest["spec"]["http"][0]["name"] = "next"
            if way_out == "overwrite":
                assert shop.write("mesh", manifest) == ""


def test_a_manager_who_is_named_has_what_is_changed(shop: Shop) -> None:
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    fix = ("fix", "-n", shop.namespace, "--rule", "KM605", "--apply")
    assert shop.mesh(*fix, "--field-manager", "alice")[0] == 0
    assert ("alice", "Update", '{"f:spec": {"f:http": {}}}') in shop.managers(manifest)
    assert 'conflict with "alice"' in shop.write("server", manifest)


@pytest.mark.parametrize("later", ["apply", "merge-vs --apply"])
def test_the_refusal_of_undo_names_our_own_run(shop: Shop, later: str) -> None:
    *more, inside, outside = pair("web", shop.namespace)
    assert shop.write("server", *more, inside, outside) == ""
    changed = outside if later == "merge-vs --apply" else inside
    first = shop.patch(changed, lambda spec: spec["http"][0].update(timeout="1s"))
    before = shop.live(changed)["spec"]
    if later == "apply":
        other = copy.deepcopy(inside)
        other["spec"]["http"][0]["timeout"] = "2s"
        assert shop.write("mesh", other) == ""
    else:
        command, flag = later.split()
        assert shop.mesh(command, "inside", "outside", "-n", shop.namespace, flag)[0] == 0
    second = next(iter(shop.journal().runs()))
    assert isinstance(second, Run)
    status, said = shop.mesh("undo", first.id)
    assert status == 3
    what = "deleted" if changed is outside else "changed"
    name = changed["metadata"]["name"]
    assert (
        f"VirtualService {shop.namespace}/{name}: your own kubectl mesh {later} at "
        f"{second.started} has {what} it since: undo that first with kubectl mesh undo {second.id}"
    ) in said
    assert shop.mesh("undo", second.id)[0] == 0
    assert shop.live(changed)["spec"] == before
    assert shop.mesh("undo", first.id)[0] == 0
    assert shop.live(changed)["spec"] == changed["spec"]


def test_the_refusal_of_undo_names_somebody_else(shop: Shop) -> None:
    """Of those who have written since, and not of those who had fields before."""
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    first = shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="1s"))
    shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="2s"))
    shop.server.kubectl(
        *("patch", "virtualservice", "web", "-n", shop.namespace, "--type=merge"),
        *("-p", '{"spec": {"hosts": ["other"]}}'),
    )
    status, said = shop.mesh("undo", first.id)
    assert (status, "/web: kubectl-patch (at " in said) == (3, True), said
    shop.server.delete(manifest)
    status, said = shop.mesh("undo", first.id)
    assert (status, "/web is gone; somebody has deleted it" in said) == (3, True), said


def test_a_colleague_of_whom_no_journal_is_here_is_not_guessed(shop: Shop) -> None:
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    first = shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="1s"))
    second = shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="2s"))
    (shop.journal().folder / f"{second.id}.json").unlink()
    status, said = shop.mesh("undo", first.id)
    assert (status, "/web: somebody has changed it since" in said) == (3, True), said


def test_whose_fields_are_cannot_be_noted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is made, and that is said; undo gives them back all the same."""
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    before = shop.managers(manifest)
    patch = Client.patch

    def refused(self: Client, path: str, operations: Any, query: Any) -> Any:
        if operations[-1]["path"] == "/metadata/managedFields":
            raise MeshError("no")
        return patch(self, path, operations, query)

    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Client, "patch", refused)
        run = shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="9s"), said.append)
    assert any("is patched, but not whose its fields are: no" in each for each in said)
    assert [each.state for each in run.entries] == [State.DONE]
    assert shop.mesh("undo")[0] == 0
    assert (shop.live(manifest)["spec"], shop.managers(manifest)) == (manifest["spec"], before)


def test_killed_before_it_is_noted_whose_fields_are(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    before = shop.managers(manifest)

    def killed(*_: object) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Cluster, "_settled", killed)
        with pytest.raises(SystemExit):
            shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="9s"))
    assert shop.managers(manifest) != before
    assert shop.mesh("undo", "--finish")[0] == 0
    assert shop.managers(manifest) == before
    assert shop.live(manifest)["spec"]["http"][0]["timeout"] == "9s"


def test_somebody_who_writes_in_between_keeps_what_they_have(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = route("web", shop.namespace)
    assert shop.write("server", manifest) == ""
    settled = Cluster._settled

    def later(self: Cluster, entry: Any, found: Any, told: Any) -> Any:
        patch = [{"op": "add", "path": "/spec/exportTo", "value": ["."]}]
        shop.server.patch(f"{shop.server.path(manifest)}?fieldManager=bob", patch)
        return settled(self, entry, found, told)

    with monkeypatch.context() as patched:
        patched.setattr(Cluster, "_settled", later)
        shop.patch(manifest, lambda spec: spec["http"][0].update(timeout="9s"))
    (bob, kubectl) = shop.managers(manifest)
    assert bob == ("bob", "Update", '{"f:spec": {"f:exportTo": {}}}')
    assert '"f:http"' in kubectl[2]
    assert kubectl[:2] == ("kubectl", "Apply")
