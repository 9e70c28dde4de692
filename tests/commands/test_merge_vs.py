"""`kubectl mesh merge-vs` on manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.changes import files
from tests.commands.test_fix import GUIDELINES, ROOT, Run, run

__all__ = ["run"]

EXAMPLE = ROOT / "examples" / "2-rules-without-effect-on-ingress.yaml"
HEAD = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n"
SPLIT = (
    HEAD % "api"
    + """\
  hosts: [shop]
  http:
  # the api, of team A
  - match:
    - uri: {prefix: /api}  # all of it
    route:
    - destination: {host: shop}
---
# the front, of team B
"""
    + HEAD % "front"
    + """\
  hosts: [shop]
  http:
    # all else
    -   route:
        -   destination: {host: front}   # team B's
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: front}, ports: [{name: http, port: 80}]}
"""
)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    file = tmp_path / "it.yaml"
    file.write_text(SPLIT)
    return file


def test_what_could_be_merged(run: Run, split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(split.parent)
    status, out, err = run("merge-vs", "-f", split.name)
    assert (status, err) == (0, "")
    assert out == (
        "default/api, default/front\n"
        "  for shop.default.svc.cluster.local in the mesh only the oldest has effect, for\n"
        "    clients and ports for which it has rules\n"
        "  intended: a rule comes alive that another VirtualService hid: GET\n"
        "    http://shop.default.svc.cluster.local/\n"
        "  next: kubectl mesh merge-vs default/api default/front -f it.yaml\n"
    )
    split.write_text(SPLIT.replace("{name: api}", "{name: api, namespace: shop}"))
    status, out, _ = run("merge-vs", "-f", str(split))
    assert (status, out[:29]) == (0, "No VirtualServices share a ho")
    _, out, _ = run("merge-vs", "-f", str(EXAMPLE))
    assert "--share-routes -f" in " ".join(out.split())
    assert "which fails then: helloworld.greetings.svc" in " ".join(out.split())


def test_two_namespaces_with_the_same_host_are_told_apart(run: Run, tmp_path: Path) -> None:
    """What either merge would do alone is said of it, and a short name is not taken for both."""
    one = EXAMPLE.read_text()
    file = tmp_path / "two.yaml"
    file.write_text(f"{one}---\n{one.replace('greetings', 'elsewhere')}")
    _, out, _ = run("merge-vs", "-f", str(file))
    assert out.count("side effect: the host was not served there by any of them (exposed)") == 2
    assert run("merge-vs", "--host", "helloworld", "-f", str(file)) == (
        2,
        "",
        "error: helloworld may be helloworld.elsewhere.svc.cluster.local, "
        "helloworld.greetings.svc.cluster.local: say which, or its namespace with -n\n",
    )
    of_one = run("merge-vs", "--host", "helloworld", "-n", "elsewhere", "-f", str(file))[1]
    assert "  merge myapp into VirtualService elsewhere/helloworld\n" in of_one
    other = run("merge-vs", "--host", "helloworld.elsewhere", "-f", str(file))[1]
    assert of_one.partition("To make ")[0] == other.partition("To make ")[0]
    of_both = run("merge-vs", "--host", "myapp.com", "-f", str(file))[1]
    assert "  merge greetings/myapp into VirtualService elsewhere/myapp\n" in of_both


def test_a_name_from_the_manifests_controls_no_terminal(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(HEAD % '"a\\e[31m"' + "  hosts: [shop]\n")
    _, out, _ = run("merge-vs", "--host", "shop", "-f", str(file))
    assert out.startswith(r"There is nothing to merge: VirtualService default/a\x1b[31m concerns")
    _, out, _ = run("merge-vs", "--host", "\x1b[31m", "-f", str(file))
    assert r"concerns \x1b[31m" in out


def test_split_rules_are_joined_with_their_comments(run: Run, split: Path) -> None:
    status, out, _ = run("merge-vs", "api", "front", "-f", str(split))
    assert status == 1
    assert "   why     intended: a rule comes alive that another VirtualService hid\n" in out
    assert split.read_text() == SPLIT, "a preview changes nothing"
    status, out, _ = run("merge-vs", "api", "front", "-f", str(split), "--write")
    assert (status, "MERGED\n  merge front into VirtualService default/api\n" in out) == (0, True)
    assert split.read_text() == (
        SPLIT.partition("---\n")[0]
        + "  # all else\n  -   route:\n      -   destination: {host: front}   # team B's\n"
        + "---\n"
        + SPLIT[SPLIT.index("apiVersion: v1\nkind: Service") :]
    )
    again = run("merge-vs", "api", "front", "-f", str(split), "--write")
    assert again[:2] == (
        0,
        "There is nothing to merge: there is no VirtualService front in the manifests, and "
        "VirtualService default/api stands alone.\n",
    )
    status, out, _ = run("merge-vs", "--host", "shop", "-f", str(split))
    assert (status, out) == (
        0,
        "There is nothing to merge: VirtualService default/api concerns shop alone.\n",
    )
    assert run("merge-vs", "-f", str(split))[1].startswith("No VirtualServices share a host")


def test_every_format(run: Run, split: Path) -> None:
    def shown(output: str) -> str:
        return run("merge-vs", "api", "front", "-f", str(split), "-o", output)[1]

    patch, gone = json.loads(shown("jsonpatch"))
    assert [each["op"] for each in patch["patch"]] == ["test", "add"]
    assert gone["delete"] is True
    assert "kubectl delete virtualservices.v1.networking.istio.io front" in shown("kubectl")
    assert [len(each["spec"]["http"]) for each in yaml.safe_load_all(shown("yaml")) if each] == [2]
    assert len(yaml.safe_load(shown("kustomize"))["patches"]) == 2


def test_the_mesh_and_a_gateway(run: Run, tmp_path: Path) -> None:
    file = Path(shutil.copy(EXAMPLE, tmp_path))
    merge = ("merge-vs", "myapp", "helloworld", "-f", str(file))
    _, out, _ = run(*merge)
    assert "sidecars route myapp.com by these rules then, and answer 404" in " ".join(out.split())
    assert "   why     side effect: the host was not served there by any of them (exposed)\n" in out
    assert "REQUESTS THAT WILL FAIL\n  GET http://myapp.com/ from pods of namespace" in out
    assert "(KM201), and the doctor takes that to be meant" in " ".join(out.split())
    assert "intended" not in out
    _, out, _ = run(*merge, "--share-routes")
    assert "   why     intended: the gateway's route takes the subset of the mesh's rules\n" in out
    assert run(*merge, "--share-routes", "--write")[0] == 0
    assert run.findings(file) == []


def test_other_requests_may_not_change(run: Run, split: Path) -> None:
    """Here the other host gets the rules of the first one, too."""
    text = SPLIT.replace("hosts: [shop]\n  http:\n    # all", "hosts: [front]\n  http:\n    # all")
    split.write_text(text)
    merge = ("merge-vs", "api", "front", "-f", str(split), "--write")
    status, out, err = run(*merge)
    assert (status, split.read_text()) == (3, text)
    assert "   why     NOT INTENDED\n" in out
    assert "treated differently, which is not intended; nothing is changed: leave them" in err
    assert run(*merge, "--allow-differences")[0] == 0
    assert split.read_text() != text


def test_a_gateway_that_is_not_seen(run: Run, split: Path) -> None:
    """It is taken to serve every host; not if others of its namespace are in the input."""
    text = SPLIT.replace("hosts: [shop]", "hosts: [shop.com]\n  gateways: [front]")
    other = (
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\n"
        "metadata: {name: other}\nspec: {selector: {a: b}}\n"
    )
    split.write_text(text + other)
    status, _, err = run("merge-vs", "api", "front", "-f", str(split), "--write")
    assert (status, split.read_text()) == (3, text + other)
    assert "Gateway default/front is not in the input, so that requests cannot be compared" in err
    split.write_text(text)
    status, out, err = run("merge-vs", "api", "front", "-f", str(split), "--write")
    assert (status, err) == (0, "")
    assert "Gateway default/front is not in the input: taken to serve every host\n" in out


def test_two_virtual_services_alone_become_one(run: Run, tmp_path: Path) -> None:
    """Those of Istio's guidelines: hosts of both, and each rule where it held."""
    file = tmp_path / "it.yaml"
    file.write_text(GUIDELINES)
    for which in (["myapp", "helloworld"], ["--host", "helloworld"]):
        merge = ["merge-vs", *which, "--share-routes", "-f", str(file)]
        status, out, err = run(*merge, "-o", "yaml", "--no-headers")
        (merged,) = [each for each in yaml.safe_load_all(out) if each]
        destination = {"host": "helloworld.default.svc.cluster.local", "subset": "v1"}
        assert sorted(merged["spec"]["hosts"]) == [destination["host"], "myapp.com"]
        assert merged["spec"]["gateways"] == ["mesh", "myapp-gateway"]
        assert merged["spec"]["http"] == [
            {
                "match": [{"uri": {"prefix": "/hello"}, "gateways": ["myapp-gateway"]}],
                "route": [{"destination": destination}],
            },
            {"match": [{"gateways": ["mesh"]}], "route": [{"destination": destination}]},
        ]
        for assumed in (
            "Gateway default/myapp-gateway is not in the input: taken to serve every host",
            "no DestinationRule for helloworld.default.svc.cluster.local is in the input",
        ):
            assert assumed in " ".join(err.split())
        assert status == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["api", "--host", "shop"], "name VirtualServices, or a --host: not both"),
        (["--write"], "name the VirtualServices to be merged, or a --host"),
        (["-o", "yaml"], "name the VirtualServices to be merged, or a --host"),
        (["nothing"], "there is no VirtualService nothing in the manifests"),
        (["api", "front", "x/front"], "there is no VirtualService front in namespace x"),
        (["api", "front", "y", "-n", "x"], "there is no VirtualService y in namespace x"),
    ],
)
def test_command_lines_that_make_no_sense(
    run: Run, split: Path, arguments: list[str], said: str
) -> None:
    status, _, err = run("merge-vs", *arguments, "-f", str(split))
    assert (status, said in err) == (2, True), err


def test_one_that_stands_twice_is_not_merged(run: Run, split: Path) -> None:
    split.write_text(SPLIT + "---\n" + SPLIT.partition("---\n")[0])
    status, _, err = run("merge-vs", "api", "front", "-f", str(split), "--write")
    assert (status, "VirtualService default/api stands twice in the input" in err) == (3, True)


def test_files_are_all_written_or_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, rest = SPLIT.partition("---\n")
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text(rest)

    def refused(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(files, "replace_file", replacing := Replacing())
    status, _, err = run("merge-vs", "api", "front", "-f", str(tmp_path), "--write")
    assert (status, "b.yaml cannot be written: " in err) == (3, True), err
    assert "nothing is changed" in err
    assert replacing.count == 3
    assert (tmp_path / "a.yaml").read_text() == first


class Replacing:
    """Replaces files, but not the second one."""

    def __init__(self) -> None:
        self.count = 0
        self._replace = files.replace_file

    def __call__(self, path: Path, content: bytes, mode: int) -> None:
        self.count += 1
        if self.count == 2:
            raise PermissionError(1, "Operation not permitted")
        self._replace(path, content, mode)
