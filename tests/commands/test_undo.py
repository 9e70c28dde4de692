"""`kubectl mesh undo`, where no cluster is needed; the rest is in tests/realmesh."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_mesh.changes.journal import Entry, Journal, State, new_run
from kubectl_mesh.changes.patch import Target
from kubectl_mesh.cli import main
from kubectl_mesh.commands import changing
from kubectl_mesh.errors import UsageError
from tests.changes.test_journal import run_of
from tests.kube.fake import FakeApiServer
from tests.routing.given import destination_rule, service, thing, to, virtual_service

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
    if agreed:
        changing.agree("Sure?", yes=False)
    else:
        with pytest.raises(UsageError, match="nothing is changed"):
            changing.agree("Sure?", yes=False)
    assert capsys.readouterr().out == "Sure? [y/N] "


def test_where_nobody_can_be_asked_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="say --yes"):
        changing.agree("Sure?", yes=False)
    changing.agree("Sure?", yes=True)


def undone(
    tmp_path: Path,
    *arguments: str,
    forbidden: str = "",
    cluster: str = "1",
    cures: Sequence[str] | None = (),
) -> int:
    """The status of undoing the creation of a DestinationRule that somebody's route needs."""
    made = destination_rule("web", "web", "v1")
    system = thing("v1", "Namespace", "kube-system", {}, "")
    system["metadata"]["uid"] = "1"
    late = virtual_service("late", ["late"], to("web", subset="v1"))
    with FakeApiServer([system, made, service("web"), late]) as server:
        server.forbidden = {(plural, "") for plural in forbidden.split()}
        if "namespaces" in forbidden:
            server.forbidden.add(("namespaces", "kube-system"))
        target = Target(made["apiVersion"], "DestinationRule", "a", "web")
        entry = Entry(target, "/apis/x/web", ["why"], (), None, made, state=State.DONE)
        run = new_run("here", server.url, [entry], cluster=cluster, cures=cures)
        Journal(tmp_path / "journal").write(run)
        config = ("--kubeconfig", server.kubeconfig(tmp_path))
        folder = ("--journal", str(tmp_path / "journal"))
        return main(["undo", "--yes", "--wait-for", "delay=0s", *config, *folder, *arguments])


def test_what_somebody_needs_is_not_taken_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert undone(tmp_path) == 3
    said = capsys.readouterr().err
    assert "VirtualService a/late: spec.http[0]" in said
    assert "subset v1 of web.a.svc.cluster.local, which is not defined for clients in" in said
    assert "nothing is changed; undo it all the same with --allow-broken" in said
    assert "does not say what failed before" not in said
    assert undone(tmp_path, "--allow-broken") == 0
    assert "Warning: VirtualService a/late" in capsys.readouterr().err
    assert undone(tmp_path, cures=None) == 3
    assert "its journal does not say what failed before it" in capsys.readouterr().err


def test_what_cannot_be_seen_is_not_taken_to_be_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert undone(tmp_path, forbidden="virtualservices") == 3
    said = capsys.readouterr().err
    assert "cannot list virtualservices in all namespaces: forbidden" in said
    assert "what would fail is not known; nothing is changed; undo it all the same" in said
    assert undone(tmp_path, "--allow-broken", forbidden="virtualservices") == 0
    assert "Warning: cannot list virtualservices" in capsys.readouterr().err
    assert undone(tmp_path, forbidden="services") == 0
    assert "Warning: cannot list services" in capsys.readouterr().err


def test_a_cluster_is_told_by_its_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert undone(tmp_path, "--allow-broken", cluster="2") == 2
    said = capsys.readouterr().err
    assert "was applied to another cluster that had the address http://127.0.0.1" in said
    assert undone(tmp_path, "--allow-broken", cluster="") == 0
    assert "does not name its cluster: only the uids of its objects" in capsys.readouterr().err
    assert undone(tmp_path, "--allow-broken", forbidden="namespaces") == 0
    assert "you may not get Namespace kube-system" in capsys.readouterr().err
