"""Commands that write, on objects with every field of Istio's resource definitions.

What a command does not mean to change is there afterwards, at its place. `KUBECTL_MESH_OBJECTS`
says for how many sets of random values besides a fixed one, `KUBECTL_MESH_SEED` repeats a run.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.changes.patch import content
from kubectl_mesh.cli import main

from .apiserver import ApiServer
from .conftest import built
from .crd_values import Filling, Schema, filled, listed, specs
from .manifests import istio, service
from .routes_tried import SEED

Object = dict[str, Any]

COUNT = int(os.environ.get("KUBECTL_MESH_OBJECTS", 1))
SEEDS = [0, *range(SEED, SEED + COUNT)]
RULE = ("http", "[]")
ACTIONS = ("route", "redirect", "directResponse", "delegate")
CERTIFICATES = ("credentialName", "credentialNames", "tlsCertificates")
APART = {RULE: ACTIONS, ("servers", "[]", "tls"): CERTIFICATES}
KINDS = ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar", "WorkloadEntry")
GIVEN: Mapping[str, Mapping[tuple[str, ...], Any]] = {
    "VirtualService": {
        ("hosts",): ["shop"],
        ("exportTo",): ["*"],
        (*RULE, "delegate", "namespace"): "istio-system",  # which is always read
    },
    "DestinationRule": {
        ("host",): "shop",
        ("exportTo",): ["*"],
        ("subsets", "[]", "labels"): {"version": "v1"},
    },
}
"""The fields on which it depends whether there is something to merge or to repair."""
HTTP_GATEWAY: Object = {
    "selector": {"istio": "ingressgateway"},
    "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
}


@functools.cache
def schemas() -> Mapping[str, Schema]:
    return built(specs)


def every_field(kind: str, seed: int, way_in: str = "mesh") -> list[Object]:
    """Values of `spec` that have every field between them."""
    given = dict(GIVEN.get(kind, {}))
    if kind == "VirtualService":
        matches = [(protocol, "[]", "match", "[]") for protocol in ("http", "tls", "tcp")]
        given |= {(*path, "gateways"): [way_in] for path in ((), *matches)}
    filling = Filling(random.Random(f"{kind}{seed}"), given, APART)
    return filling.values(schemas()[kind])


class Commands:
    """A namespace of a cluster, and our commands on it."""

    def __init__(self, server: ApiServer, namespace: str, folder: Path) -> None:
        self.server = server
        self.namespace = namespace
        self._folder = folder

    def __call__(self, *arguments: str) -> None:
        """Runs a command that changes the cluster."""
        how = ("--yes", "--wait-for", "delay=1ms", "--journal", str(self._folder / "journal"))
        where = ("-n", self.namespace) if arguments[0] != "undo" else ()
        kubeconfig = ("--kubeconfig", str(self.server.kubeconfig))
        assert main([*arguments, *where, *how, *kubeconfig]) == 0

    def manifest(self, *items: Object) -> str:
        file = self._folder / "it.yaml"
        file.write_text(yaml.safe_dump_all(items))
        return str(file)

    def create(self, kind: str, name: str, spec: Object) -> Object:
        """Creates an object of Istio's, with labels and annotations; returns it as it is then."""
        made = istio(kind, name, self.namespace, **spec)
        made["metadata"] |= {"labels": {"l": name}, "annotations": {"a": name}}
        self.server.create([made])
        found = self.now(kind, name)
        assert found["spec"] == spec, "the API server takes every field as it is written"
        return found

    def create_shop(self) -> None:
        """A Service, and a Deployment that will have pods of version v9."""
        labels = {"app": "shop", "version": "v9"}
        containers = [{"name": "shop", "image": "shop"}]
        template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        named = {"name": "shop", "namespace": self.namespace}
        port = {"name": "http", "port": 80}
        self.server.create(
            [
                {**service("shop", port), "metadata": named},
                {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": spec},
            ]
        )

    def now(self, kind: str, name: str) -> Object:
        """What people write of an object, as it is now."""
        path = self.server.path(istio(kind, name, self.namespace))
        return content(self.server.request("GET", path))

    def names(self, kind: str) -> list[str]:
        folder = self.server.path(istio(kind, "x", self.namespace)).rpartition("/")[0]
        return [each["metadata"]["name"] for each in self.server.request("GET", folder)["items"]]


@pytest.fixture
def run(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Commands:
    return Commands(apiserver, namespace, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_is_left_out(kind: str) -> None:
    """Of the generator: else the others would show nothing."""
    made = {path for spec in every_field(kind, 0) for path in filled(spec, schemas()[kind])}
    assert made == set(listed(schemas()[kind]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way_in", ["mesh", "front"])
def test_merge(run: Commands, seed: int, way_in: str) -> None:
    run.create("Gateway", "front", HTTP_GATEWAY)
    (old,) = every_field("VirtualService", 2 * seed)
    (young,) = every_field("VirtualService", 2 * seed + 1, way_in)
    before = [run.create("VirtualService", "a", old), run.create("VirtualService", "b", young)]
    run("merge-vs", "a", "b", "--apply", "--allow-differences")
    assert run.names("VirtualService") == ["a"]
    rules = {key: [*old[key], *young[key]] for key in ("http", "tls", "tcp")}
    ways_in = list(dict.fromkeys(("mesh", way_in)))
    merged = {**before[0], "spec": {**old, **rules, "gateways": ways_in}}
    assert run.now("VirtualService", "a") == merged
    run("undo")
    assert [run.now("VirtualService", name) for name in ("a", "b")] == before


@pytest.mark.parametrize("seed", SEEDS)
def test_fix_of_a_virtual_service(run: Commands, seed: int) -> None:
    (spec,) = every_field("VirtualService", seed)
    before = run.create("VirtualService", "it", {**spec, "hosts": ["shop", "shop"]})
    run("fix", "KM609", "--apply")
    assert run.now("VirtualService", "it") == {**before, "spec": spec}
    run("undo")
    assert run.now("VirtualService", "it") == before


@pytest.mark.parametrize("seed", SEEDS)
def test_fix_of_a_destination_rule(run: Commands, seed: int) -> None:
    """KM101 defines a subset that pods would have: one more item in a list."""
    run.create_shop()
    to = {"destination": {"host": "shop", "subset": "v9"}}
    run.create("VirtualService", "it", {"hosts": ["shop"], "http": [{"route": [to]}]})
    for number, spec in enumerate(every_field("DestinationRule", seed)):
        before = run.create("DestinationRule", f"it-{number}", spec)
        run("fix", "KM101", "--apply", "--choose", "define-v9")
        subsets = [*spec["subsets"], {"name": "v9", "labels": {"version": "v9"}}]
        found = run.now("DestinationRule", f"it-{number}")
        assert found == {**before, "spec": {**spec, "subsets": subsets}}
        run("undo")
        assert run.now("DestinationRule", f"it-{number}") == before
        run.server.delete(before)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_repair_that_copies(run: Commands, seed: int) -> None:
    """KM202 copies the settings of the mesh's rule, whole, beside what the gateway's rule has."""
    (spec,) = every_field("VirtualService", seed)
    rule = next(each for each in spec["http"] if "route" in each)
    settings = {
        key: rule[key]
        for key in ("timeout", "retries", "fault", "headers", "corsPolicy", "mirrors")
    }
    route = [{"destination": {"host": "shop"}}]
    inside = {"hosts": ["shop"], "http": [{"route": route, **settings}]}
    run.create_shop()
    run.create("VirtualService", "inside", inside)
    run.create("Gateway", "front", HTTP_GATEWAY)
    own = {"hosts": ["shop.example.com"], "gateways": ["front"]}
    before = run.create("VirtualService", "outside", {**own, "http": [{"route": route}]})
    run("fix", "KM202", "--apply", "--all-rules")
    found = run.now("VirtualService", "outside")["spec"]["http"][0]
    for mirror in found["mirrors"]:
        mirror["destination"]["host"] = mirror["destination"]["host"].partition(".")[0]
    assert found == {"route": route, **settings}
    run("undo")
    assert run.now("VirtualService", "outside") == before


@pytest.mark.parametrize("kind", ["VirtualService", "DestinationRule", "Gateway"])
@pytest.mark.parametrize("seed", SEEDS)
def test_apply(run: Commands, kind: str, seed: int) -> None:
    """What a manifest changes is changed, and what somebody else has set stays."""
    change = {"VirtualService": "hosts", "DestinationRule": "exportTo", "Gateway": "selector"}[kind]
    for number, spec in enumerate(every_field(kind, seed)):
        before = run.create(kind, f"it-{number}", spec)
        more = {"new": "one"} if kind == "Gateway" else ["new"]
        old = spec[change]
        changed = {**spec, change: {**old, **more} if kind == "Gateway" else [*old, *more]}
        manifest = istio(kind, f"it-{number}", run.namespace, **changed)
        run("apply", "-f", run.manifest(manifest), "--allow-broken", "--force-conflicts")
        assert run.now(kind, f"it-{number}") == {**before, "spec": changed}
        run("undo")
        assert run.now(kind, f"it-{number}") == before


@pytest.mark.parametrize("seed", SEEDS)
def test_apply_that_removes_a_subset(run: Commands, seed: int) -> None:
    for number, spec in enumerate(every_field("DestinationRule", seed)):
        named = [{**each, "name": f"v{index}"} for index, each in enumerate(spec["subsets"])]
        spec = {**spec, "subsets": named}
        before = run.create("DestinationRule", f"it-{number}", spec)
        first, *others = named
        run("apply", "--remove-subset", f"it-{number}/{first['name']}")
        left = {**before, "spec": {**spec, "subsets": others}}
        assert run.now("DestinationRule", f"it-{number}") == left
        run("undo")
        assert run.now("DestinationRule", f"it-{number}") == before
