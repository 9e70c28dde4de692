"""`kubectl mesh apply`: the command line, and what is read before the cluster is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.commands.apply import _told
from kubectl_mesh.rollout.plan import Plan
from kubectl_mesh.term import Paint
from tests.commands.test_undo import KUBECONFIG

RULE = (
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n"
    "spec: {hosts: [a], http: [{directResponse: {status: 200}}]}\n"
)


def run(tmp_path: Path, *arguments: str) -> int:
    (tmp_path / "config").write_text(KUBECONFIG)
    cluster = ("--kubeconfig", str(tmp_path / "config"), "--journal", str(tmp_path / "journal"))
    return main(["apply", *arguments, *cluster])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name manifests with -f, or a --remove-subset"),
        (["--resume", "x", "-f", "a"], "--resume goes on with what was planned"),
        (["--delete", "-f", "a", "--prune", "-l", "x=y"], "--delete deletes the objects"),
        (["--prune", "-f", "a"], "--prune needs -f, and -l"),
        (["-f", "a", "-l", "x=y"], "-l is for --prune"),
        (["--wait-for", "luck", "-f", "a"], "expected proxies, delay or delay=5s"),
        (["-f", ""], "-f names no file"),
        (["--resume"], "there is nothing to go on with"),
    ],
)
def test_command_lines_that_make_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    try:
        status = run(tmp_path, *arguments)
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (f"{RULE}---\na: [\n", 3, "it.yaml:7:1: "),
        (f"{RULE}---\nkind: Service\n", 3, "it.yaml:6:1: not a Kubernetes object: apiVersion"),
        (f"{RULE}---\n{RULE}", 2, "VirtualService default/a stands twice in the manifests"),
        (RULE.replace("name: a", "labels: {}"), 3, "it.yaml:3:1: VirtualService without a name"),
        (
            f"{RULE}---\napiVersion: x.io/v1\nkind: Widget\nmetadata: {{labels: {{}}}}\n",
            3,
            "it.yaml:8:1: Widget without a name",
        ),
        (RULE.replace("name: a", "name: ../a"), 3, "VirtualService '../a': no valid name"),
        (RULE.replace("hosts: [a]", "hosts: a"), 3, "it.yaml:4:8: VirtualService default/a: "),
        ("", 3, "it.yaml"),
    ],
)
def test_manifests_that_cannot_be_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, said: str
) -> None:
    """Nothing is asked of the cluster then: nobody answers at its address."""
    file = tmp_path / "it.yaml"
    file.write_text(text)
    assert run(tmp_path, "-f", str(file)) == status
    assert said in capsys.readouterr().err


def test_what_is_refused_is_not_nothing_to_change() -> None:
    assert list(_told(Plan((), (), ()), Paint(False))) == ["Nothing to change."]
    assert list(_told(Plan((), ("it is being deleted",), ()), Paint(False))) == [
        "REFUSED\n  it is being deleted"
    ]
