"""`kubectl mesh undo`, where no cluster is needed; the rest is in tests/realmesh."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from kubectl_mesh.changes.journal import Journal, State
from kubectl_mesh.cli import main
from kubectl_mesh.commands import changing
from kubectl_mesh.errors import UsageError
from tests.changes.test_journal import run_of

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: me, user: {token: x}}]
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is nothing to take back: see --list"),
        (["nothing"], "there is no run 'nothing'"),
        (["--list", "nothing"], "--list lists everything"),
        (["--list", "--finish"], "--list lists everything"),
    ],
)
def test_command_lines_that_make_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["undo", *arguments, "--journal", str(tmp_path)]) in (2, 3)
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True)


def test_another_cluster_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(State.DONE)
    Journal(tmp_path / "journal").write(run)
    (tmp_path / "config").write_text(KUBECONFIG)
    cluster = ("--kubeconfig", str(tmp_path / "config"))
    assert main(["undo", "--yes", "--journal", str(tmp_path / "journal"), *cluster]) == 2
    assert (
        f"{run.id} was applied to https://server (context a context), and this is "
        "https://127.0.0.1:1" in capsys.readouterr().err
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "agreed"),
    [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)],
)
def test_the_user_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    agreed: bool,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    args = argparse.Namespace(yes=False)
    if agreed:
        changing.agree(args, "Sure?")
    else:
        with pytest.raises(UsageError, match="nothing is changed"):
            changing.agree(args, "Sure?")
    assert capsys.readouterr().out == "Sure? [y/N] "


def test_where_nobody_can_be_asked_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="say --yes"):
        changing.agree(argparse.Namespace(yes=False), "Sure?")
    changing.agree(argparse.Namespace(yes=True), "Sure?")
