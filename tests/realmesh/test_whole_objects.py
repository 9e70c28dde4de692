"""Commands that change a cluster, on random objects with every field of Istio's kinds.

What a command does not mean to change is there afterwards, at its place, and after `undo` all is as
it was. `KUBECTL_MESH_OBJECTS` says how many objects are tried, `KUBECTL_MESH_SEED` repeats a run.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_mesh.changes.patch import content
from kubectl_mesh.cli import main
from kubectl_mesh.kube.workers import in_parallel

from .apiserver import ApiServer
from .crd_values import filled, listed
from .manifests import Object, istio
from .routes_tried import SEED
from .whole_objects import (
    KINDS,
    SHARES,
    Case,
    Named,
    doubled_hosts,
    drawn,
    made,
    merges,
    missing_subsets,
    named,
    schemas,
    settings_apart,
)

COUNT = int(os.environ.get("KUBECTL_MESH_OBJECTS", "200"))
AT_ONCE = 100
SEEDS = range(SEED, SEED + max(1, COUNT // AT_ONCE))
each_seed = pytest.mark.parametrize("seed", SEEDS)


def some(kind: str) -> int:
    """How many objects of a kind are tried at once."""
    return round(AT_ONCE * SHARES[kind])


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

    def does(self, case: Case, *flags: str) -> None:
        """What a case is meant to change is changed, and nothing else; `undo` takes it back."""
        for each in case.objects:  # the age decides on the order of rules
            self.server.create([each])
        before = self._now(case.objects)
        for each in case.objects:
            if each["kind"] in KINDS:
                assert before[named(each)]["spec"] == each["spec"], "the server takes every field"
        self(*case.command, *flags)
        assert self._now(case.objects) == case.after(before)
        self("undo")
        assert self._now(case.objects) == before
        in_parallel([functools.partial(self.server.delete, each) for each in case.objects], 8)

    def _now(self, items: Sequence[Object]) -> dict[Named, Object]:
        """What people write of those of some objects that are there, as they are now."""
        found = in_parallel([functools.partial(self._get, item) for item in items], 8)
        return {named(item): content(item) for item in found if item is not None}

    def _get(self, item: Object) -> Object | None:
        folder, _, name = self.server.path(item).rpartition("/")
        found = self.server.request("GET", f"{folder}?fieldSelector=metadata.name={name}")["items"]
        kind = {"apiVersion": item["apiVersion"], "kind": item["kind"]}
        return {**kind, **found[0]} if found else None


@pytest.fixture
def run(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Commands:
    return Commands(apiserver, namespace, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_is_left_out(kind: str) -> None:
    """Of the generator: else the others would show nothing."""
    found = {path for spec in drawn(kind, SEED) for path in filled(spec, schemas()[kind])}
    assert found == set(listed(schemas()[kind]))


@each_seed
def test_merge(run: Commands, seed: int) -> None:
    for case in merges(run.namespace, seed, some("VirtualService")):
        run.does(case, "--apply")


@each_seed
def test_fix_of_virtual_services(run: Commands, seed: int) -> None:
    run.does(doubled_hosts(run.namespace, seed, some("VirtualService")), "--apply")


@each_seed
def test_fix_of_destination_rules(run: Commands, seed: int) -> None:
    run.does(missing_subsets(run.namespace, seed, some("DestinationRule")), "--apply")


@each_seed
def test_a_repair_that_copies(run: Commands, seed: int) -> None:
    run.does(settings_apart(run.namespace, seed, 10), "--apply")


@pytest.mark.parametrize("kind", SHARES)
@each_seed
def test_apply(run: Commands, kind: str, seed: int, tmp_path: Path) -> None:
    """What a manifest changes is changed, and what somebody else has set stays."""
    objects, manifests, specs = [], [], {}
    for number, spec in enumerate(drawn(kind, seed, some(kind))):
        spec, after = _with_more(kind, spec, number)
        item = made(kind, f"it-{number}", run.namespace, spec)
        objects.append(item)
        manifests.append(istio(kind, f"it-{number}", run.namespace, **after))
        specs[named(item)] = after
    file = tmp_path / "manifests.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    command = ("apply", "-f", str(file), "--allow-broken", "--force-conflicts")
    run.does(Case(objects, command, specs))


def _with_more(kind: str, spec: Object, number: int) -> tuple[Object, Object]:
    """A spec, and the same with something new in one of its fields."""
    if kind == "Gateway":
        return spec, {**spec, "selector": {**spec["selector"], "new": "one"}}
    if kind == "VirtualService":
        hosts = [f"shop-{number}", f"new-{number}"]
        return {**spec, "hosts": hosts[:1]}, {**spec, "hosts": hosts}
    spec = {**spec, "host": f"shop-{number}"}
    return spec, {**spec, "exportTo": [*spec["exportTo"], "new"]}


@each_seed
def test_apply_that_removes_subsets(run: Commands, seed: int) -> None:
    objects, specs = [], {}
    for number, spec in enumerate(drawn("DestinationRule", seed, some("DestinationRule"))):
        subsets = [{**each, "name": f"v{index}"} for index, each in enumerate(spec["subsets"])]
        spec = {**spec, "host": f"shop-{number}", "subsets": subsets}
        item = made("DestinationRule", f"it-{number}", run.namespace, spec)
        objects.append(item)
        specs[named(item)] = {**spec, "subsets": subsets[1:]}
    flags = [word for _, name in specs for word in ("--remove-subset", f"{name}/v0")]
    run.does(Case(objects, ("apply", *flags), specs))
