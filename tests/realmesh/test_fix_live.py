"""`kubectl mesh fix` against a cluster: what it shows, and what becomes of it on the real mesh."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.changes.patch import patched
from kubectl_mesh.cli import main

from .apiserver import ApiServer
from .debug_pages import debug_pages
from .manifests import destination, prefix, says, to, virtual_service
from .mesh import Mesh
from .test_ingress import (
    GATEWAY_AND_SUBSETS,
    HELLOWORLD,
    INSIDE,
    MYAPP,
    MYAPP_WITH_SUBSET,
    WaysIn,
    helloworld,
)

ROOT = Path(__file__).parents[2]

__all__ = ["helloworld"]


class Fix:
    """Runs `fix` against a mesh."""

    def __init__(self, mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
        self._mesh = mesh
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._capsys.readouterr()
        kubeconfig = str(self._mesh.server.kubeconfig)
        status = main(["fix", "-n", "default", "--kubeconfig", kubeconfig, *arguments])
        out = self._capsys.readouterr().out
        if arguments[-1] == "kubectl":
            lines = out.splitlines(keepends=True)
            out = "".join(line for line in lines if not line.startswith("#"))
        return status, out

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Runs a line of `-o kubectl` by the real kubectl."""
        words = shlex.split(line)
        assert words[0] == "kubectl"
        return self._mesh.server.kubectl(*words[1:], check=False)


@pytest.fixture
def fix(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> Fix:
    return Fix(mesh, capsys)


def spec_of(mesh: Mesh, kind: str, name: str) -> Any:
    return json.loads(mesh.server.kubectl("get", kind, name, "-o", "json").stdout)["spec"]


def test_the_subset_in_the_gateways_rule(helloworld: WaysIn, fix: Fix) -> None:
    """KM201: the diff proves the cure, kubectl makes it, requests arrive at v1."""
    mesh = helloworld.mesh
    status, out = fix("--rule", "KM201")
    assert status == 1
    assert "--- VirtualService default/myapp (now)\n" in out
    assert "+        subset: v1\n" in out
    assert "after   helloworld.default.svc.cluster.local:5000 subset v1 by" in out
    assert helloworld.from_outside("myapp.com") == {"v1", "v2"}, "a preview changes nothing"
    (line,) = fix("--rule", "KM201", "-o", "kubectl")[1].splitlines()
    (patch,) = json.loads(fix("--rule", "KM201", "-o", "jsonpatch")[1])
    wanted = yaml.safe_load(fix("--rule", "KM201", "-o", "yaml")[1])["spec"]
    before = {"spec": spec_of(mesh, "virtualservice", "myapp")}
    assert fix.shell(line).returncode == 0
    after = spec_of(mesh, "virtualservice", "myapp")
    assert after == wanted == patched(before, patch["patch"])["spec"]
    mesh.settled()
    assert helloworld.from_outside("myapp.com") == {"v1"}
    assert helloworld.from_inside(INSIDE) == {"v1"}
    assert fix("--rule", "KM201") == (0, "Nothing to repair.\n")
    again = fix.shell(line)
    assert again.returncode != 0, "the same patch a second time"
    assert spec_of(mesh, "virtualservice", "myapp") == after


def test_a_route_to_a_new_subset_comes_once_the_proxies_have_it(
    helloworld: WaysIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run repairs KM609, KM101 and the KM201 behind it, under load, and one undo is all."""
    mesh = helloworld.mesh
    mesh.apply(
        GATEWAY_AND_SUBSETS.replace("  - {name: v1, labels: {version: v1}}\n", ""),
        MYAPP.replace("hosts: [myapp.com]", "hosts: [myapp.com, myapp.com]"),
    )
    mesh.settled()
    names = (("virtualservice", "myapp"), ("destinationrule", "helloworld"))
    before = [spec_of(mesh, *name) for name in names]
    assert helloworld.from_inside(INSIDE) == {None}
    with (
        debug_pages(mesh.istiod) as url,
        mesh.load(helloworld.ingress, "myapp.com", "/hello") as outside,
    ):

        def run(*arguments: str) -> str:
            how = ("--yes", "--journal", str(tmp_path), "--istiod-url", url)
            cluster = ("--kubeconfig", str(mesh.server.kubeconfig))
            assert main([*arguments, *how, *cluster]) == 0
            return capsys.readouterr().out

        said = run("fix", "KM609", "KM101", "KM201", "-n", "default", "--apply").splitlines()
        made = [line for line in said if line.endswith((" patched", "proxies have it"))]
        assert made == [
            "DestinationRule default/helloworld patched",
            "VirtualService default/myapp patched",
            "all 2 proxies have it",
            "VirtualService default/myapp patched",
        ]
        mesh.settled()
        assert {version for _, version in outside.fresh(200)} == {"v1"}
        assert helloworld.from_inside(INSIDE) == {"v1"}
        run("undo")
        assert [spec_of(mesh, *name) for name in names] == before
    assert outside.counts.keys() == {(200, "v1"), (200, "v2")}


def test_a_patch_for_an_object_that_somebody_has_changed_fails_whole(
    helloworld: WaysIn, fix: Fix
) -> None:
    mesh = helloworld.mesh
    (line,) = fix("--rule", "KM201", "-o", "kubectl")[1].splitlines()
    other = [{"op": "add", "path": "/spec/http/0/timeout", "value": "5s"}]
    mesh.server.kubectl(
        *("patch", "virtualservice", "myapp", "--type=json", "-p", json.dumps(other))
    )
    before = spec_of(mesh, "virtualservice", "myapp")
    refused = fix.shell(line)
    assert refused.returncode != 0
    assert "the server rejected our request" in refused.stderr
    assert spec_of(mesh, "virtualservice", "myapp") == before


def test_settings_of_the_meshs_rule(mesh: Mesh, fix: Fix) -> None:
    """KM202: the gateway's requests get the fault that the mesh's rule injects."""
    ways_in = WaysIn.to(mesh, "helloworld", 5000)
    fault = "    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}\n"
    mesh.apply(GATEWAY_AND_SUBSETS, MYAPP_WITH_SUBSET, HELLOWORLD + fault)
    mesh.settled()
    assert ways_in.ingress.request("GET", "myapp.com", "/hello").status == 200
    assert ways_in.client.request("GET", INSIDE, "/hello").status == 418
    assert fix("KM202", "-o", "kubectl") == (0, "")
    (line,) = fix("KM202", "--all-rules", "-o", "kubectl")[1].splitlines()
    assert fix.shell(line).returncode == 0
    mesh.settled()
    assert ways_in.ingress.request("GET", "myapp.com", "/hello").status == 418
    assert fix("--rule", "KM202", "--all-rules") == (0, "Nothing to repair.\n")


def test_weights_of_the_meshs_rule(mesh: Mesh, fix: Fix) -> None:
    """KM201: of 500 requests from outside, v2 gets 50, as inside; the interval has four sigmas."""
    ways_in = WaysIn.to(mesh, "helloworld", 5000)
    host = "helloworld.default.svc.cluster.local"
    shares = [destination(host, subset="v1", weight=90), destination(host, subset="v2", weight=10)]
    mesh.apply(GATEWAY_AND_SUBSETS, MYAPP, virtual_service("helloworld", host, {"route": shares}))
    mesh.settled()
    before = share_of_v2(ways_in)
    (line,) = fix("KM201", "--all-rules", "-o", "kubectl")[1].splitlines()
    assert fix.shell(line).returncode == 0
    mesh.settled()
    after = share_of_v2(ways_in)
    assert before > 0.4
    assert 0.1 - 4 * 0.0135 < after < 0.1 + 4 * 0.0135
    assert fix("--rule", "KM201", "--all-rules") == (0, "Nothing to repair.\n")


def share_of_v2(ways_in: WaysIn) -> float:
    answers = [ways_in.ingress.request("GET", "myapp.com", "/hello").version for _ in range(500)]
    return answers.count("v2") / len(answers)


def test_a_declared_protocol(mesh: Mesh, fix: Fix) -> None:
    """KM301: made by kubectl, and requests go by the http rules."""
    mesh.service("web", ports={"htpp": 8000}, pods={"v1": 1})
    client = mesh.sidecar("default", {"app": "client"})
    mesh.apply(virtual_service("web", "web", to("web", port=8000)))
    mesh.settled()
    lines = fix("--rule", "KM301", "-o", "kubectl")[1].splitlines()
    assert [shlex.split(line)[2:4] for line in lines] == [["services", "web"]]
    assert [fix.shell(line).returncode for line in lines] == [0]
    mesh.settled()
    assert spec_of(mesh, "service", "web")["ports"][0]["appProtocol"] == "http"
    assert client.request("GET", "web:8000").version == "v1"


def test_rules_behind_a_catch_all(mesh: Mesh, fix: Fix) -> None:
    """KM603: kubectl moves the catch-all to the end, and the proxies have the other rules."""
    mesh.service("web", ports={"http": 8000}, pods={})
    client = mesh.sidecar("default", {"app": "client"})
    rules = (says("all"), says("a", prefix("/a")), says("b", prefix("/b")))
    mesh.apply(virtual_service("web", "web", *rules))
    mesh.settled()
    (line,) = fix("KM603", "-o", "kubectl")[1].splitlines()
    before = {path: client.request("GET", "web:8000", path).body for path in ("/", "/a", "/b")}
    assert fix.shell(line).returncode == 0
    mesh.settled()
    after = {path: client.request("GET", "web:8000", path).body for path in before}
    assert (set(before.values()), list(after.values())) == ({b"all"}, [b"all", b"a", b"b"])
    assert fix("--rule", "KM603") == (0, "Nothing to repair.\n")


@pytest.mark.parametrize("trouble", ["2-rules-without-effect-on-ingress", "citadel"])
def test_kustomize_makes_the_objects_that_we_show(
    apiserver: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    """The kustomize that is in kubectl, of patches and of a deletion."""
    file = ROOT / "examples" / f"{trouble}.yaml"
    if trouble == "citadel":
        file = ROOT / "tests" / "rules" / "KM501" / "bad-mesh-policy.yaml"
    shutil.copy(file, tmp_path / "it.yaml")
    arguments = ["fix", "-f", str(file), "--accept-mtls-off", "-o"]

    def shown(output: str) -> str:
        assert main([*arguments, output]) == 1
        return capsys.readouterr().out

    (tmp_path / "kustomization.yaml").write_text("resources: [it.yaml]\n" + shown("kustomize"))
    built = list(yaml.safe_load_all(apiserver.kubectl("kustomize", str(tmp_path)).stdout))
    kinds = [each["kind"] for each in built]
    assert ("MeshPolicy" in kinds) is False
    for wanted in yaml.safe_load_all(shown("yaml")):
        assert wanted is None or wanted in built
    assert len(built) == file.read_text().count("\n---") + 1 - (trouble == "citadel")
