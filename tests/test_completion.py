"""What kubectl is offered for each word of a command line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_mesh import completion
from kubectl_mesh.cli import COMMANDS, main
from tests.kube.fake import Answer, FakeApiServer
from tests.routing.given import deployment, destination_rule, gateway, pod, virtual_service

OBJECTS = [
    {"kind": "Namespace", "metadata": {"name": "shop"}},
    {"kind": "Namespace", "metadata": {"name": "stage\x1b[0m"}},
    {"kind": "Namespace", "metadata": {"name": "staging"}},
    {"kind": "Namespace", "metadata": {"name": "$(touch${IFS}x)"}},
    {"kind": "Namespace", "metadata": {"name": "-A"}},
    {"kind": "Namespace", "metadata": {"name": ""}},
    virtual_service("web", ["web"], namespace="shop"),
    virtual_service("other", ["other"], namespace="staging"),
    gateway("front", namespace="shop"),
    destination_rule("rules", "web", namespace="shop"),
    pod("web-1", namespace="shop"),
    deployment("web", namespace="shop"),
]


Offered = Callable[[str], tuple[list[str], int]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer(OBJECTS) as server:
        monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        yield server


@pytest.fixture
def offered(fake: FakeApiServer, capsys: pytest.CaptureFixture[str]) -> Offered:
    def ask(line: str) -> tuple[list[str], int]:
        """For a line whose last word may be empty: the candidates, and the directive."""
        assert main(["__complete", *line.split(" ")]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        *candidates, directive = captured.out.splitlines()
        return [each.partition("\t")[0] for each in candidates], int(directive.removeprefix(":"))

    return ask


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("", [*COMMANDS]),
        ("ver", ["version"]),
        ("--v", ["--version"]),
        ("doctor --name", ["--namespace"]),
        ("doctor --namespace x --name", []),
        ("doctor -f x --fi", ["--filename"]),
        ("doctor -o j", ["json", "junit"]),
        ("doctor --output=sa", ["sarif"]),
        ("doctor --color never -o w", ["wide"]),
        ("explain KM50", ["KM501"]),
        ("explain km50", ["KM501"]),
        ("explain KM501 ", []),
        ("doctor --ignore KM50", ["KM501"]),
        ("fix KM501 KM40", ["KM401", "KM402"]),
        ("doctor -n s", ["shop", "staging"]),
        ("doctor --namespace=sh", ["shop"]),
        ("doctor --context ", ["here", "elsewhere"]),
        ("doctor --cluster f", ["fake"]),
        ("merge-vs ", ["web"]),
        ("merge-vs web ", ["web"]),
        ("merge-vs -n staging ", ["other"]),
        ("merge-vs -A ", ["shop/web", "staging/other"]),
        ("merge-vs staging/", ["staging/other"]),
        ("--nonsense merge-vs ", ["web"]),
        ("route http://x --gateway f", ["front"]),
        ("route http://x --from ", ["web-1"]),
        ("route http://x --from deploy/", ["deploy/web"]),
        ("apply --wait-for d", ["delay=5s"]),
        ("apply --resume --del", ["--delete"]),
        ("apply --dry-run ", ["none", "server"]),
        ("undo ", []),
        ("nonsense ", []),
        ("doctor --nonsense=", []),
        ("doctor --rule", ["--rule"]),
        ("merge-vs -nstaging ", ["other"]),
        ("merge-vs -Aojson ", ["shop/web", "staging/other"]),
        ("merge-vs -- ", ["web"]),
        ("merge-vs -- -", []),
        ("doctor -Ao j", ["json", "junit"]),
    ],
)
def test_candidates(offered: Offered, line: str, candidates: list[str]) -> None:
    assert offered(line) == (candidates, 4)


@pytest.mark.parametrize(
    "line", ["doctor -Rf ", "doctor -f ", "fix --filename=a", "compare ", "compare x "]
)
def test_files_are_left_to_the_shell(offered: Offered, line: str) -> None:
    assert offered(line) == ([], 0)


def test_a_subset_is_typed_after_its_rule(offered: Offered) -> None:
    assert offered("apply --remove-subset r") == (["rules/"], 6)


def test_the_flags_say_which_cluster_is_asked(
    offered: Offered, fake: FakeApiServer, tmp_path: Path
) -> None:
    assert offered("doctor --context elsewhere --kubeconfig missing -n ") == ([], 4)
    (tmp_path / "own").mkdir()
    own = fake.kubeconfig(tmp_path / "own")
    assert offered(f"doctor --kubeconfig {own} --as jane --context elsewhere -n sh")[0] == ["shop"]
    asked = fake.requests[-1]
    assert asked.header("Impersonate-User") == ["jane"]
    assert "PartialObjectMetadataList" in asked.header("Accept")[0]


def test_whatever_goes_wrong_nothing_is_said(offered: Offered, fake: FakeApiServer) -> None:
    fake.forbidden.add(("namespaces", ""))
    assert offered("doctor -n ") == ([], 4)
    fake.answers["virtualservices"] = [Answer(body=b"{"), Answer(400), Answer(200, {"items": 3})]
    for _ in range(3):
        assert offered("merge-vs ") == ([], 4)


def test_a_slow_cluster_is_not_waited_for(
    offered: Offered, fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "PATIENCE", 0.05)
    never = threading.Event()
    fake.answers["namespaces"] = [Answer(wait_for=never)]
    assert offered("doctor -n ") == ([], 4)
    never.set()


def test_a_plugin_for_credentials_neither_asks_nor_stays(tmp_path: Path) -> None:
    script = "echo noise >&2; read word; sleep 2; touch marker"
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
    }
    user = {"exec": {**plugin, "interactiveMode": "IfAvailable"}}
    with FakeApiServer(OBJECTS) as server:
        environment = {**os.environ, "KUBECONFIG": server.kubeconfig(tmp_path, **user)}
        command = [sys.executable, "-m", "kubectl_mesh", "__complete", "doctor", "-n", ""]
        done = subprocess.run(
            command,
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            cwd=tmp_path,
            input="typed\n",
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, ":4\n", "")
        time.sleep(2)
    assert not (tmp_path / "marker").exists()


def test_the_printed_script_asks_the_plugin(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["completion"]) == 0
    script = tmp_path / "kubectl_complete-mesh"
    script.write_text(capsys.readouterr().out)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -m kubectl_mesh "$@"\n')
    kubectl.chmod(0o755)
    command = ["sh", str(script), "doctor", "--namesp"]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.stdout.startswith("--namespace\t")
    assert done.stdout.endswith("\n:4\n")
