"""`compare` and `merge-vs` in a cluster whose pods show no sidecar: as with manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.sources.files import load
from tests.commands.test_compare import RULES, SERVICE
from tests.commands.test_fix import Run, run
from tests.commands.test_merge_vs import EXAMPLE
from tests.kube.fake import FakeApiServer

__all__ = ["run"]


SHOP = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n{SERVICE}---\n{RULES}"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    with FakeApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path))
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.chdir(tmp_path)
        yield server


def test_a_change_that_no_seen_pod_meets_is_a_difference(run: Run, cluster: FakeApiServer) -> None:
    cluster.objects += yaml.safe_load_all(SHOP)
    Path("change.yaml").write_text(RULES.replace("/a", "/b"))
    status, out, _ = run("compare", "-f", "change.yaml", "-n", "shop")
    assert status == 1
    assert out.endswith(
        "Compared: sidecars in every namespace (assumed: no pod with a sidecar is seen)\n\n"
        "differs (2 classes)\n"
    )
    status, out, _ = run("compare", "-f", "change.yaml", "-n", "shop", "-o", "json")
    assert json.loads(out)["compared"] == [
        {"kind": "sidecar", "gateways": [], "namespace": "default", "labels": {}, "assumed": True}
    ]


def test_pods_that_are_seen_are_told_from_those_assumed(run: Run, cluster: FakeApiServer) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "client", "labels": {"app": "client"}},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
    }
    cluster.objects += [*yaml.safe_load_all(SHOP), pod]
    Path("change.yaml").write_text(RULES.replace("/a", "/b"))
    _, out, _ = run("compare", "-f", "change.yaml", "-n", "shop")
    assert "Compared: sidecars in every namespace (pods seen in shop, others assumed)\n" in out


@pytest.mark.parametrize("live", [True, False], ids=["live", "manifests"])
def test_a_merge_is_proved_for_the_mesh_too(live: bool) -> None:
    """Of a cluster whose pods show no sidecar, as of manifests that say that they have one."""
    resources = load([str(EXAMPLE)])[0]
    if live:
        resources = [each for each in resources if each.kind != "Namespace"]
    snapshot = Snapshot(resources, coverage=Coverage(live=live))
    found = merge(snapshot, snapshot.virtual_services.roots)
    assert isinstance(found, Merge)
    changes, _ = change_set([found.repair], lambda resource: resource.raw)
    result = compare(snapshot, mesh_after(snapshot, changes))
    assert [
        (each.places[0].proxy.is_gateway, each.after.treatment.fails, each.before.treatment.fails)
        for each in result.differences
    ] == [(False, True, False), (False, False, False)]
