"""Folders of a repository: which files are manifests, and which belong to something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.errors import UsageError
from kubectl_mesh.sources import repository, sandbox
from kubectl_mesh.sources.repository import Input

SERVICE = "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports: []\n"
KUSTOMIZATION = "resources:\n- service.yaml\n"


def read(*names: object, **options: Any) -> Input:
    return repository.read(map(str, names), **{"recursive": True, **options})


def names(found: Input) -> list[str]:
    return [resource.name for mesh in found.meshes for resource in mesh.resources]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_yaml", ".yaml").replace("_json", ".json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_folder_gives_its_manifests_and_those_below_only_if_asked(tmp_path: Path) -> None:
    write(tmp_path, b_yaml=SERVICE.format(name="b"), below__d_yaml=SERVICE.format(name="d"))
    write(tmp_path, c_json='{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}')
    (tmp_path / "a.yml").write_text(SERVICE.format(name="a"))
    (tmp_path / "notes.txt").write_text("no manifest")
    assert names(read(tmp_path, recursive=False)) == ["a", "b", "c"]
    assert names(read(tmp_path)) == ["a", "b", "c", "d"]
    assert names(read(tmp_path / "b.yaml", tmp_path, tmp_path / "a.yml")) == ["b", "a", "c", "d"]


def test_a_folder_without_manifests_is_named(tmp_path: Path) -> None:
    (unreadable,) = read(tmp_path, recursive=False).unreadable
    assert "the folder holds no .yaml, .yml, .json (use -R" in unreadable.reason
    write(tmp_path, values_yaml="replicas: 3\n")
    (unreadable,) = read(tmp_path).unreadable
    assert unreadable.reason == "the folder holds no manifest"


NO_MANIFESTS = {
    "empty": "",
    "comments": "# nothing\n---\n",
    "values": "image:\n  tag: v1\nmetadata: {}\n",
    "workflow": "name: ci\non: [push]\njobs: {}\n",
    "compose": "services:\n  web: {image: nginx}\n",
    "openapi": "openapi: 3.0.0\ninfo: {title: a, version: '1'}\npaths: {}\n",
    "a list": "- op: add\n  path: /metadata\n  value: x\n",
    "text": "hello\n",
    "broken, and nothing like a manifest": "a: [\n",
    "a key twice": "a: 1\na: 2\n",
    "a tag": "x: !Ref Bucket\n",
    "a template": "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Values.name }}\n",
    "a template's branches": "{{- if .x }}\napiVersion: v1\nkind: Pod\n{{- end }}\nspec: [\n",
    "a template that is YAML": "apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ .x }}'}\n",
    "a chart": "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
    "no name": "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {}\n",
    "binary": "\x7fELF" + "\0" * 100,
}


@pytest.mark.parametrize("text", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_what_is_no_manifest_is_passed_over(tmp_path: Path, text: str) -> None:
    write(tmp_path, a_yaml=text, b_yaml=SERVICE.format(name="b"))
    found = read(tmp_path)
    assert names(found) == ["b"]
    assert found.unreadable == []
    assert [Path(each.where).name for each in found.passed_over] == ["a.yaml"]
    assert found.passed_over[0].reason
    strict = read(tmp_path, strict=True)
    assert [Path(each.where).name for each in strict.unreadable] == ["a.yaml"]
    assert strict.unreadable[0].failed


BROKEN = {
    "YAML": "apiVersion: v1\nkind: Service\nmetadata: {name: [}\n",
    "YAML with braces": "apiVersion: v1\nkind: Service\nmetadata:\n  name: [\n# {{ x }}\n",
    "JSON": '{"apiVersion": "v1", "kind": "Service",, "metadata": {}}',
    "without a kind": "apiVersion: v1\nmetadata: {name: a}\nspec: {}\n",
    "without a version": "kind: Service\nmetadata: {name: a}\n",
    "misspelt": "apiversion: v1\nKind: Service\nmetadata: {name: a}\n",
    "a number for a kind": "apiVersion: v1\nkind: 5\nmetadata: {name: a}\n",
    "one of several documents": SERVICE.format(name="x") + "---\na: [\n",
    "one item of a list": "apiVersion: v1\nkind: List\nitems:\n- 5\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, a_yaml=text)
    found = read(tmp_path)
    assert found.passed_over == []
    assert [each.failed for each in found.unreadable] == [True]
    assert found.unreadable[0].position is not None


def test_a_manifest_in_utf_16_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(SERVICE.format(name="a").encode("utf-16"))
    (tmp_path / "b.yaml").write_bytes("key: value\n".encode("utf-16"))
    found = read(tmp_path)
    assert [Path(each.where).name for each in found.unreadable] == ["a.yaml"]
    assert [Path(each.where).name for each in found.passed_over] == ["b.yaml"]


def test_folders_of_other_programs_are_left_out_and_hidden_ones_are_read(tmp_path: Path) -> None:
    for folder in (".git", "node_modules", ".github", ".deploy"):
        write(tmp_path / folder, a_yaml=SERVICE.format(name=folder.strip(".")))
    found = read(tmp_path)
    assert names(found) == ["deploy", "github"]
    assert names(read(tmp_path / "node_modules")) == ["node_modules"]


def test_links_in_circles_links_to_nothing_and_pipes(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=SERVICE.format(name="a"))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.yaml").symlink_to(tmp_path / "self.yaml")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe.yaml")
    found = read(tmp_path)
    assert names(found) == ["a"]
    assert found.unreadable == []
    assert sorted(Path(each.where).name for each in found.passed_over) == [
        "gone.yaml",
        "loop",
        "self.yaml",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_forbidden_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert any("Permission denied" in each.reason for each in read(tmp_path).unreadable)


CHART = "apiVersion: v2\nname: {name}\nversion: 1.0.0\n"


def test_a_chart_is_named_with_what_renders_it_and_is_not_read(tmp_path: Path) -> None:
    chart = tmp_path / "shop chart"
    write(
        chart,
        Chart_yaml=CHART.format(name="shop") + "dependencies:\n"
        "- {name: common, version: 1.0.0, repository: 'file://../common'}\n",
        values_yaml="a: 1\n",
        templates__vs_yaml=SERVICE.format(name="static"),
        templates__broken_yaml="apiVersion: v1\nkind: Service\nspec: {{ .Values.x }}\n",
        charts__sub__Chart_yaml=CHART.format(name="sub"),
        crds__crd_yaml=SERVICE.format(name="crd"),
    )
    write(tmp_path / "common", Chart_yaml=CHART.format(name="common"))
    write(tmp_path / "library", Chart_yaml=CHART.format(name="library") + "type: library\n")
    write(tmp_path / "plain", a_yaml=SERVICE.format(name="a"))
    found = read(tmp_path)
    assert names(found) == ["a"]
    assert found.passed_over == []
    (named,) = found.unreadable
    assert not named.failed
    assert f"helm template shop '{chart}' | kubectl mesh doctor -f -" in named.reason
    assert "static" in names(read(tmp_path, render=["never"]))


@pytest.mark.parametrize("command", ["doctor", "fix"])
def test_a_run_that_examines_nothing_fails(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "shop", Chart_yaml=CHART.format(name="shop"), values_yaml="a: 1\n")
    assert main([command, "-f", str(tmp_path), "-R"]) == 3
    assert "not rendered: a Helm chart" in " ".join(capsys.readouterr().out.split())
    write(tmp_path / "plain", a_yaml=SERVICE.format(name="a"))
    assert main([command, "-f", str(tmp_path), "-R"]) == 0


def test_a_kustomization_file_by_itself_is_an_error_that_names_k(tmp_path: Path) -> None:
    write(tmp_path, kustomization_yaml=KUSTOMIZATION, service_yaml=SERVICE.format(name="a"))
    (unreadable,) = read(tmp_path / "kustomization.yaml").unreadable
    assert f"-k {tmp_path}" in unreadable.reason


def test_never_rendered_the_files_are_read_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, kustomization_yaml=KUSTOMIZATION, service_yaml=SERVICE.format(name="a"))
    found = read(tmp_path, render=["never"])
    assert names(found) == ["a"]
    assert found.roots == []
    assert found.unreadable == []


def test_without_kustomize_roots_are_named_and_nothing_of_them_is_read_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:relative")
    write(tmp_path, kustomization_yaml=KUSTOMIZATION, service_yaml=SERVICE.format(name="a"))
    write(tmp_path, left_yaml=SERVICE.format(name="left"))
    found = read(tmp_path)
    assert names(found) == []
    left, root = found.unreadable
    assert "leaves it out: left.yaml" in left.reason
    assert not left.failed
    assert "neither kubectl nor kustomize is installed" in root.reason
    assert root.failed


def test_fluxs_kustomization_is_a_plain_manifest(tmp_path: Path) -> None:
    flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\n"
    write(tmp_path, kustomization_yaml=flux, service_yaml=SERVICE.format(name="a"))
    found = read(tmp_path)
    assert names(found) == ["x", "a"]
    assert found.roots == []


@pytest.mark.parametrize(
    "entry",
    [
        "https://example.com/a.yaml",
        "HTTPS://example.com/a.yaml",
        "http://127.0.0.1:1/a.yaml",
        "github.com/org/repo//base?ref=v1",
        "git@github.com:org/repo.git",
        "ssh://git@host/repo",
        "git::https://host/repo",
        "file:///etc",
        "gitlab.example.com/org/repo",
        "example.org/repo?ref=main",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "resources: [{}]\n",
        "bases: [{}]\n",
        "components: [{}]\n",
        "crds: [{}]\n",
        "transformers: [{}]\n",
        "patchesStrategicMerge: [{}]\n",
        "patches: [{{path: {}}}]\n",
        "openapi: {{path: {}}}\n",
        "configMapGenerator: [{{name: a, files: [{}]}}]\n",
        "secretGenerator: [{{name: a, envs: [{}]}}]\n",
    ],
)
def test_a_root_that_takes_something_remote_is_not_run(
    tmp_path: Path, text: str, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr("subprocess.Popen", never)
    write(tmp_path / "base", kustomization_yaml=text.format(f'"{entry}"'))
    write(tmp_path / "top", kustomization_yaml="resources: [../base]\n")
    (unreadable,) = read(tmp_path).unreadable
    assert entry in unreadable.reason
    assert "--render=remote" in unreadable.reason
    assert unreadable.position is not None
    assert unreadable.position.file.endswith("base/kustomization.yaml")


def test_who_looks_at_one_mesh_is_told_of_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, kustomization_yaml=KUSTOMIZATION)
    with pytest.raises(UsageError, match="-k"):
        read(tmp_path).only()


def test_charts_are_rendered_if_asked_by_the_helm_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that prints what Helm 3.14 does."""
    template = (
        "{{- if .Values.subset }}\n"
        + SERVICE.format(name="first")
        + "---\n{{- end }}\napiVersion: v1\nkind: Service\nmetadata:\n"
        "  name: {{ .Release.Name }}-web\nspec:\n  type: ExternalName\n"
    )
    write(
        tmp_path / "shop",
        Chart_yaml=CHART.format(name="shop"),
        charts__sub__Chart_yaml=CHART.format(name="sub"),
        charts__sub__templates__web_yaml=template,
    )
    helm = tmp_path / "bin" / "helm"
    helm.parent.mkdir()
    helm.write_text(
        "#!/bin/sh\n[ \"$1 $2\" = 'template shop' ] || exit 1\n"
        "printf '%s\\n' --- '# Source: shop/charts/sub/templates/web.yaml' "
        "'apiVersion: v1' 'kind: Service' 'metadata:' '  name: shop-web' "
        "'spec:' '  type: ExternalName'\n"
    )
    helm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helm.parent}")
    found = read(tmp_path / "shop", render=["helm"])
    assert found.unreadable == []
    (resource,) = found.meshes[1].resources
    assert found.roots == [str(tmp_path / "shop")]
    file = str(tmp_path / "shop/charts/sub/templates/web.yaml")
    places = [resource.origin.locate(path) for path in (("spec", "type"), ("kind",), ())]
    assert [(place.file, place.line) for place in places if place] == [
        (file, 15),
        (file, 1),
        (file, 1),
    ]
    helm.write_text("#!/bin/sh\necho 'Error: found in Chart.yaml, but missing' >&2\nexit 1\n")
    (unreadable,) = read(tmp_path / "shop", render=["helm"]).unreadable
    assert unreadable.reason == "not rendered: helm says: found in Chart.yaml, but missing"
    monkeypatch.setenv("PATH", "")
    (unreadable,) = read(tmp_path / "shop", render=["helm"]).unreadable
    assert "helm is not installed" in unreadable.reason
    assert unreadable.failed


@pytest.mark.parametrize("limit", ["SECONDS", "MAX_BYTES"])
def test_what_takes_too_long_or_prints_too_much_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sandbox, limit, 0.2 if limit == "SECONDS" else 100)
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    endless = "while :; do :; done" if limit == "SECONDS" else "printf '%1000s' x"
    kubectl.write_text(f"#!/bin/sh\n{endless}\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}")
    write(tmp_path / "a", kustomization_yaml=KUSTOMIZATION, service_yaml=SERVICE.format(name="a"))
    (unreadable,) = read(tmp_path / "a").unreadable
    assert ("it takes longer" if limit == "SECONDS" else "it prints more") in unreadable.reason


def test_a_component_that_nothing_includes_is_named(tmp_path: Path) -> None:
    write(tmp_path, kustomization_yaml=f"kind: Component\n{KUSTOMIZATION}", service_yaml="a: 1\n")
    found = read(tmp_path)
    (unreadable,) = found.unreadable
    assert "a component that no kustomization" in unreadable.reason
    assert not unreadable.failed
    assert found.roots == []
