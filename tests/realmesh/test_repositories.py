"""GitOps repositories, with a real kustomize: tests/repositories has three, each with one fault."""

from __future__ import annotations

import json
import os
import shutil
import stat
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.rules import BY_CODE
from tests.commands.test_fix import GUIDELINES

from . import build
from .apiserver import ApiServer
from .conftest import built

ISTIO = "networking.istio.io/v1beta1"
"""Istio 1.22 has no v1 yet."""
REPOSITORIES = Path(__file__).parent.parent / "repositories"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line where kubectl is all that is installed; status, output and errors."""
    kubectl = built(build.kubectl)
    monkeypatch.setenv("PATH", str(Path(kubectl).absolute().parent))
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")

    def run(*words: object) -> tuple[int, str, str]:
        status = main([*map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a repository, to change."""
    return lambda name: Path(shutil.copytree(REPOSITORIES / name, tmp_path / name))


def report(run: Run, *words: object) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(run("doctor", *words, "-o", "json")[1])
    return document


def places(document: Mapping[str, Any], folder: Path) -> list[tuple[str, str, int, list[str]]]:
    return [
        (
            each["code"],
            os.path.relpath(each["source"]["file"], folder),
            each["source"]["line"],
            [os.path.relpath(root, folder) for root in each["roots"]],
        )
        for each in document["findings"]
    ]


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("kustomize", ("KM101", "overlays/staging/canary.yaml", 11, ["overlays/staging"])),
        ("helm", ("KM101", "mesh/external.yaml", 27, [])),
        ("plain", ("KM103", "deploy/routing.json", 16, [])),
    ],
)
def test_one_command_finds_the_fault_and_nothing_else(
    run: Run, name: str, finding: tuple[object, ...]
) -> None:
    folder = REPOSITORIES / name
    status, out, err = run("doctor", "-f", folder, "-R", "-o", "json")
    document = json.loads(out)
    assert places(document, folder) == [finding]
    assert status == 1
    assert not [skip for skip in document["skipped"] if skip["failed"]]
    assert ("not Kubernetes manifests and were skipped" in err) is (name != "helm")


def test_a_chart_is_named_with_the_command_that_renders_it(run: Run) -> None:
    _, out, _ = run("doctor", "-f", REPOSITORIES / "helm", "-R")
    chart = REPOSITORIES / "helm" / "shop"
    assert f"helm template shop {chart} | kubectl mesh doctor -f -" in " ".join(out.split())


def test_mended_every_repository_is_clean(run: Run, copied: Callable[[str], Path]) -> None:
    folder = copied("kustomize")
    file = folder / "overlays/staging/canary.yaml"
    file.write_text(file.read_text().replace("v3", "v2"))
    status, out, _ = run("doctor", "-f", folder, "-R")
    assert (status, out.splitlines()[0]) == (0, "No problems found in 20 resources.")


def test_read_raw_a_patch_is_a_manifest_of_its_own(run: Run) -> None:
    folder = REPOSITORIES / "kustomize"
    found = report(run, "-f", folder, "-R", "--render=never")
    assert {each["code"] for each in found["findings"]} > {"KM902"}


def test_k_selects_one_root(run: Run) -> None:
    folder = REPOSITORIES / "kustomize" / "overlays"
    assert run("doctor", "-k", folder / "production")[0] == 0
    assert places(report(run, "-k", folder / "staging"), folder)[0][1:3] == (
        "staging/canary.yaml",
        11,
    )
    status, out, _ = run("doctor", "-k", folder)
    assert status == 3
    assert "holds no kustomization.yaml" in " ".join(out.split())


def test_a_fault_of_the_base_is_told_once_with_all_overlays(
    run: Run, copied: Callable[[str], Path]
) -> None:
    folder = copied("kustomize")
    file = folder / "base/routing.yaml"
    file.write_text(file.read_text().replace("subset: v1", "subset: v9"))
    roots = ["overlays/development", "overlays/production"]
    assert ("KM101", "base/routing.yaml", 32, roots) in places(
        report(run, "-f", folder, "-R"), folder
    )
    _, out, _ = run("doctor", "-f", folder, "-R")
    assert out.count("subset v9") == 1
    sarif = json.loads(run("doctor", "-f", folder, "-R", "-o", "sarif")[1])
    results = sarif["runs"][0]["results"]
    assert [len(each["properties"]["roots"]) for each in results] == [2, 1]


PATCHES = {
    "JSON Patch in a file": (
        "patches: [{path: p.yaml, target: {kind: VirtualService}}]\n",
        "- op: test\n  path: /spec/http/1/route/0/destination/host\n  value: reviews\n"
        "- op: replace\n  path: /spec/http/1/route/0/destination/subset\n  value: v9\n",
        ("p.yaml", 6),
    ),
    "JSON Patch that adds a rule": (
        "patchesJson6902:\n- path: p.yaml\n  target: {group: networking.istio.io, version: v1, "
        "kind: VirtualService, name: reviews}\n",
        "- op: add\n  path: /spec/http/0\n  value:\n    match: [{uri: {prefix: /x}}]\n"
        "    route:\n    - destination: {host: reviews, subset: v9}\n",
        ("p.yaml", 6),
    ),
    "in the text of the kustomization": (
        "patches:\n- target: {kind: VirtualService}\n  patch: |-\n    # a comment\n"
        "    - op: replace\n      path: /spec/http/1/route/0/destination/subset\n"
        "      value: v9\n",
        "",
        ("kustomization.yaml", 9),
    ),
    "in quoted text": (
        "patches:\n- target: {kind: VirtualService}\n"
        '  patch: \'[{"op": "replace", "path": "/spec/http/1/route/0/destination/subset", '
        '"value": "v9"}]\'\n',
        "",
        ("kustomization.yaml", 5),
    ),
    "strategic merge": (
        "patchesStrategicMerge: [p.yaml]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\n"
        "spec:\n  http:\n  - route:\n    - destination:\n        host: reviews\n"
        "        subset: v9\n",
        ("p.yaml", 9),
    ),
}


@pytest.mark.parametrize(("kustomization", "patch", "place"), PATCHES.values(), ids=PATCHES)
def test_a_finding_is_where_the_patch_has_it(
    run: Run,
    copied: Callable[[str], Path],
    kustomization: str,
    patch: str,
    place: tuple[str, int],
) -> None:
    folder = copied("kustomize")
    top = folder / "overlays" / "top"
    top.mkdir()
    text = f"namespace: top\nresources: [../../base]\n{kustomization}"
    (top / "kustomization.yaml").write_text(text)
    (top / "p.yaml").write_text(patch)
    document = report(run, "-k", top)
    assert [
        (Path(each["source"]["file"]).name, each["source"]["line"])
        for each in document["findings"]
        if each["code"] == "KM101"
    ] == [place]


def test_a_prefix_does_not_hide_where_an_object_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: a-\nresources: [all.yaml]\n")
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\n"
        "spec:\n  host: %s\n"
    )
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: ExternalName}\n"
    texts = [service, rule % ("shop", "gone"), rule % ("shop-next", "gone-too")]
    (tmp_path / "all.yaml").write_text("---\n".join(texts))
    found = places(report(run, "-f", tmp_path), tmp_path)
    assert sorted(each[:3] for each in found if each[0] == "KM104") == [
        ("KM104", "all.yaml", 10),
        ("KM104", "all.yaml", 16),
    ]


def test_what_another_root_holds_is_not_missing(run: Run, tmp_path: Path) -> None:
    """Two applications of one namespace: one routes to the Service of the other."""
    route = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n"
        "spec:\n  hosts: [a]\n  http: [{route: [{destination: {host: %s}}]}]\n"
    )
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\n"
        "spec: {ports: [{name: http, port: 80}]}\n"
    )
    for name, text in (("a", route % "b"), ("b", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kustomization.yaml").write_text(
            "namespace: shop\nresources: [x.yaml]\n"
        )
        (tmp_path / name / "x.yaml").write_text(f"{service % name}---\n{text}")
    document = report(run, "-f", tmp_path, "-R")
    assert document["findings"] == []
    assert any(
        "holds Service objects of the namespace shop" in each["reason"]
        for each in document["skipped"]
    )
    (tmp_path / "a" / "x.yaml").write_text(f"{service % 'a'}---\n{route % 'gone'}")
    shutil.rmtree(tmp_path / "b")
    assert places(report(run, "-f", tmp_path, "-R"), tmp_path)[0][:2] == ("KM103", "a/x.yaml")


def test_a_failure_quotes_kustomize_and_the_others_go_on(
    run: Run, copied: Callable[[str], Path]
) -> None:
    folder = copied("kustomize")
    with (folder / "overlays/development/kustomization.yaml").open("a") as file:
        file.write("- missing.yaml\n")
    status, out, _ = run("doctor", "-f", folder, "-R")
    told = " ".join(out.split())
    assert status == 1
    assert "overlays/development: not rendered: kustomize says: " in told
    assert "missing.yaml" in told
    assert "overlays/staging/canary.yaml:11" in told


def test_a_merge_of_rendered_objects_is_shown_and_not_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [it.yaml]\n")
    (tmp_path / "it.yaml").write_text(GUIDELINES)
    (tmp_path / "unused.yaml").write_text(GUIDELINES)
    words = ("merge-vs", "-k", tmp_path, "default/myapp", "default/helloworld")
    status, out, err = run(*words)
    assert status == 1
    assert "--- VirtualService default/helloworld (now)\n+++ /dev/null\n" in out
    assert "it is part of a kustomization: delete it there by hand" in err
    assert "To make these changes" not in out
    assert run(*words, "--write")[0] == 3
    assert (tmp_path / "it.yaml").read_text() == GUIDELINES
    status, out, err = run("compare", tmp_path, tmp_path)
    assert (status, out) == (0, "the same for every request\n")
    assert "unused.yaml" in err


def test_nothing_is_executed_and_nothing_outside_of_a_root_is_read(
    run: Run, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(trap.stat().st_mode | stat.S_IXUSR)
    plugin = (
        "apiVersion: v1\nkind: Trap\nmetadata:\n  name: x\n  annotations:\n"
        f"    config.kubernetes.io/function: |\n      exec: {{path: {trap}}}\n"
    )
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: secret}\n")
    for name, text in (
        ("exec", "generators: [plugin.yaml]\n"),
        ("outside", "resources: [../secret.yaml]\n"),
        ("text", "configMapGenerator: [{name: a, files: [../secret.yaml]}]\n"),
        ("helm", "helmCharts: [{name: x}]\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kustomization.yaml").write_text(text)
        (tmp_path / name / "plugin.yaml").write_text(plugin)
        status, out, _ = run("doctor", "-k", tmp_path / name)
        assert status == 3
        assert "not rendered" in " ".join(out.split())
    assert not (tmp_path / "sprung").exists()


def test_a_generated_config_map_is_where_its_text_is(run: Run, tmp_path: Path) -> None:
    config_map, *others = BY_CODE["KM401"].bad.split("---\n")
    text = textwrap.dedent(config_map.partition("|\n")[2])
    (tmp_path / "files").mkdir()
    (tmp_path / "files/default.conf").write_text(text)
    (tmp_path / "others.yaml").write_text("---\n".join(others))
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [others.yaml]\nnamespace: shop\nconfigMapGenerator:\n- name: web\n"
        "  files: [files/default.conf]\n"
    )
    assert ("KM401", "files/default.conf", 1, ["."]) in places(
        report(run, "-f", tmp_path), tmp_path
    )


@pytest.mark.parametrize(
    "words",
    [
        ("route", "http://reviews:9080/", "--from-namespace", "staging"),
        ("merge-vs",),
        ("apply", "--dry-run"),
    ],
)
def test_who_looks_at_one_mesh_asks_which(run: Run, words: tuple[str, ...]) -> None:
    status, _, err = run(*words, "-f", REPOSITORIES / "kustomize", "-R")
    assert status in (2, 3)
    if words[0] != "apply":  # which asks the cluster first
        assert status == 2
        assert "several meshes" in err
        assert "overlays/staging" in err
        assert "-k" in err


def test_route_and_compare_take_one_root(run: Run) -> None:
    overlays = REPOSITORIES / "kustomize" / "overlays"
    words = ("http://reviews:9080/", "--from-namespace", "production")
    status, out, _ = run("route", *words, "-k", overlays / "production")
    assert status == 0
    assert "subset v1" in out
    assert "base/routing.yaml:29:5" in out
    status, out, _ = run("compare", overlays / "production", overlays / "production")
    assert (status, out.splitlines()[0]) == (0, "the same for every request")


def test_apply_k_applies_what_kubectl_would(
    run: Run,
    copied: Callable[[str], Path],
    apiserver: ApiServer,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{os.defpath}")  # kubectl diff runs diff
    root = copied("kustomize") / "overlays" / "production"
    file = root / "kustomization.yaml"
    file.write_text(file.read_text().replace("namespace: production", f"namespace: {namespace}"))
    for each in root.parents[1].glob("*/**/*.yaml"):
        each.write_text(each.read_text().replace("networking.istio.io/v1\n", f"{ISTIO}\n"))
    words = ("apply", "-k", root, "--kubeconfig", apiserver.kubeconfig)
    rest = ("--yes", "--wait-for", "delay=0s", "--allow-empty", "--journal", tmp_path / "journal")
    status, out, err = run(*words, *rest)
    assert status == 0, out + err
    rendered = apiserver.kubectl("kustomize", str(root)).stdout
    for document in filter(None, rendered.split("---\n")):
        done = apiserver.kubectl("diff", "--server-side", "-f", "-", input=document, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    status, out, _ = run(*words, *rest)
    assert (status, out.splitlines()[0]) == (0, "Nothing to change.")


FAULTY = "    - destination: {host: helloworld}\n"
MENDED = "    - destination: {host: helloworld, subset: v1}\n"
PATCH = (
    "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: myapp}\n"
    "spec:\n  http:\n  - route:\n    # to all versions\n" + FAULTY
)
DELETE = (
    "patches:\n- patch: |-\n    $patch: delete\n    apiVersion: networking.istio.io/v1beta1\n"
    "    kind: VirtualService\n    metadata: {name: helloworld}\n"
)


@pytest.fixture
def overlaid(tmp_path: Path) -> Callable[..., Path]:
    """A base with a fault that can be repaired, and an overlay for each name and text."""

    def make(**overlays: str) -> Path:
        example = Path(__file__).parents[2] / "examples/2-rules-without-effect-on-ingress.yaml"
        text = example.read_text().replace(", namespace: greetings", "")
        text = text.replace("helloworld.greetings.svc.cluster.local", "helloworld")
        assert FAULTY in text
        overlays = {"base": "resources: [all.yaml]\n", **overlays}
        for name, kustomization in overlays.items():
            (tmp_path / name).mkdir()
            head = "" if name == "base" else f"namespace: {name}\nresources: [../base]\n"
            (tmp_path / name / "kustomization.yaml").write_text(head + kustomization)
            (tmp_path / name / "patch.yaml").write_text(PATCH)
        (tmp_path / "base/all.yaml").write_text(text)
        return tmp_path

    return make


def files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text() for file in sorted(folder.glob("*/*.yaml"))
    }


@pytest.mark.parametrize("namespaced", [True, False])
def test_fix_edits_the_base_once_for_all_overlays(
    run: Run, overlaid: Callable[..., Path], namespaced: bool
) -> None:
    folder = overlaid(dev="", prod="")
    for name in ("dev", "prod") if not namespaced else ():
        (folder / name / "kustomization.yaml").write_text("resources: [../base]\n")
    before = files(folder)
    assert run("doctor", "-f", folder, "-R")[0] == 1
    status, out, _ = run("fix", "-f", folder, "-R")
    assert status == 1
    assert out.count("+" + MENDED) == 1
    assert files(folder) == before
    status, out, _ = run("fix", "-f", folder, "-R", "--write")
    assert status == 0
    assert "base/all.yaml is part of" in " ".join(out.split())
    text = before["base/all.yaml"].replace(FAULTY, MENDED)
    assert files(folder) == {**before, "base/all.yaml": text}
    assert run("doctor", "-f", folder, "-R")[0] == 0


def test_fix_edits_the_patch_that_wrote_the_field(run: Run, overlaid: Callable[..., Path]) -> None:
    folder = overlaid(dev="patches: [{path: patch.yaml}]\n")
    before = files(folder)
    assert run("fix", "-k", folder / "dev", "--write")[0] == 0
    text = before["dev/patch.yaml"].replace(FAULTY, MENDED)
    assert files(folder) == {**before, "dev/patch.yaml": text}
    assert run("doctor", "-k", folder / "dev")[0] == 0


def test_fix_leaves_what_would_change_another_overlay_in_another_way(
    run: Run, overlaid: Callable[..., Path]
) -> None:
    folder = overlaid(dev="", prod=DELETE)
    before = files(folder)
    status, out, err = run("fix", "-f", folder, "-R", "--write")
    assert status == 0
    assert "prod includes the same file, and would change in another way" in " ".join(err.split())
    assert "BY HAND" in out
    assert files(folder) == before


def test_fix_leaves_the_text_of_a_kustomization(run: Run, overlaid: Callable[..., Path]) -> None:
    operation = (
        "{op: replace, path: /spec/http/0/route, value: [{destination: {host: helloworld}}]}"
    )
    inline = f"patches:\n- target: {{name: myapp}}\n  patch: |-\n    - {operation}\n"
    folder = overlaid(dev=inline)
    before = files(folder)
    _, out, err = run("fix", "-k", folder / "dev", "--write")
    assert "a patch in the text of" in " ".join(err.split())
    assert "BY HAND" in out
    assert files(folder) == before


def test_fix_edits_the_value_of_a_json_patch(run: Run, overlaid: Callable[..., Path]) -> None:
    folder = overlaid(dev="patches: [{path: operations.yaml, target: {name: myapp}}]\n")
    file = folder / "dev/operations.yaml"
    text = "# the route\n- op: replace\n  path: /spec/http/0/route\n  value:\n" + FAULTY
    file.write_text(text)
    assert run("fix", "-k", folder / "dev", "--write")[0] == 0
    assert file.read_text() == text.replace(FAULTY, MENDED)
    assert run("doctor", "-k", folder / "dev")[0] == 0
