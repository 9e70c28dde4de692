"""kubectl mesh as a library, as its users call it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kubectl_mesh
from kubectl_mesh.cli import main
from kubectl_mesh.errors import MeshError, UsageError
from tests.kube.fake import FakeApiServer
from tests.sources.test_cluster import Cluster, thing

EXAMPLES = Path(__file__).parent.parent / "examples"
INGRESS = str(EXAMPLES / "2-rules-without-effect-on-ingress.yaml")


def test_the_example_of_its_docstring_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "it.yaml").write_text(Path(INGRESS).read_text())
    monkeypatch.chdir(tmp_path)
    assert kubectl_mesh.__doc__
    example = re.search(r"(?m)(^    .*\n|^\n)+", kubectl_mesh.__doc__.partition(":\n\n")[2])
    assert example
    exec(re.sub("(?m)^    ", "", example[0]), {})
    said = capsys.readouterr().out
    assert said.startswith("KM201 VirtualService ")
    assert "Difference" in said


def test_the_example_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(example, {})
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("KM201 VirtualService ")
    assert last == "upstream"


def test_all_that_it_promises_is_there() -> None:
    for name in kubectl_mesh.__all__:
        assert getattr(kubectl_mesh, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kubectl_mesh.nothing


def test_a_command_imports_none_of_it() -> None:
    shown = "import sys, kubectl_mesh.cli; print('kubectl_mesh.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_doctor_says_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "-f", str(EXAMPLES), "-o", "json"])
    told = json.loads(capsys.readouterr().out)["findings"]
    found = kubectl_mesh.doctor(kubectl_mesh.load(str(EXAMPLES))).findings
    assert [each.message for each in found] == [each["message"] for each in told]
    some = kubectl_mesh.doctor(kubectl_mesh.load(INGRESS), skip_rules=["KM2"])
    assert "KM201" not in {each.rule.code for each in some.findings}
    with pytest.raises(UsageError, match="no rule is called KM7777"):
        kubectl_mesh.doctor(kubectl_mesh.load(INGRESS), rules=["KM7777"])


def test_a_route_is_the_one_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = kubectl_mesh.load(INGRESS)
    (gateway,) = mesh.gateways.all
    host = next(host for vs in mesh.virtual_services.roots for host in vs.hosts if "." in host)
    url = f"http://{host}/"
    main(["route", url, "--gateway", gateway.id, "-f", INGRESS, "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    assert json.loads(json.dumps(kubectl_mesh.route(mesh, url, gateway=gateway.id))) == told
    with pytest.raises(UsageError, match="no Gateway none in namespace default"):
        kubectl_mesh.route(mesh, url, gateway="none")
    assert kubectl_mesh.route(mesh, "tcp://elsewhere:5432")["outcome"]


def test_a_repair_is_compared_and_nothing_is_written() -> None:
    text = Path(INGRESS).read_bytes()
    mesh = kubectl_mesh.load(INGRESS)
    found = kubectl_mesh.fix(mesh, "KM201", all_rules=True)
    assert found.changes.steps
    repaired, left = found.after
    assert "KM201" not in {each.rule.code for each in left.findings}
    assert kubectl_mesh.compare(mesh, repaired).differences
    assert not kubectl_mesh.compare(mesh, mesh).differences
    assert Path(INGRESS).read_bytes() == text


@pytest.mark.parametrize(
    ("path", "said"), [("nowhere.yaml", "nowhere.yaml"), ("a: [", "expected")], ids=["none", "bad"]
)
def test_what_cannot_be_read_is_named(path: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.yaml"
    if path.startswith("a"):
        file.write_text(path)
    (gap,) = kubectl_mesh.load(str(file)).gaps
    assert said in gap


def test_settings_are_given_as_to_the_commands(tmp_path: Path) -> None:
    settings = tmp_path / "mesh.yaml"
    settings.write_text("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n")
    mesh = kubectl_mesh.load(INGRESS, mesh_config=str(settings), istio_version="1.27")
    assert (mesh.config.registry_only, mesh.config.istio.release) == (True, (1, 27))
    with pytest.raises(UsageError, match="no version of Istio"):
        kubectl_mesh.load(INGRESS, istio_version="latest")
    with pytest.raises(MeshError, match=re.escape("none.yaml")):
        kubectl_mesh.load(INGRESS, mesh_config=str(tmp_path / "none.yaml"))


def test_a_cluster_is_looked_at_and_not_repaired(tmp_path: Path) -> None:
    with FakeApiServer() as fake:
        live = Cluster(fake, tmp_path)
        live.add(thing("Service", "web", "shop"), thing("Service", "db", "data"))
        kubeconfig = str(live.options.kubeconfig)
        mesh = kubectl_mesh.load_cluster("shop", kubeconfig=kubeconfig)
        assert {each.name for each in mesh.of("Service")} == {"web"}
        mesh = kubectl_mesh.load_cluster(kubeconfig=kubeconfig)
        assert {each.name for each in mesh.of("Service")} == {"web", "db"}
    with pytest.raises(UsageError, match="read from a cluster"):
        kubectl_mesh.fix(mesh)
