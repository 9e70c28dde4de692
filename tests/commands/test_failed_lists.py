"""Every command with an API server whose lists fail, one kind at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.kube import http
from kubectl_mesh.mesh.schema import KINDS
from tests.kube.fake import PATH, Answer, FakeApiServer, Request

FAILURES = {
    "forbidden": Answer(403, {"kind": "Status", "message": 'User "bob" cannot list it'}),
    "conflict": Answer(409, {"kind": "Status", "message": "it was changed"}),
    "expired": Answer(410, {"kind": "Status", "message": "it is too old", "reason": "Expired"}),
    "busy": Answer(429, {"kind": "Status", "message": "too many requests"}),
    "broken": Answer(500, {"kind": "Status", "message": "etcd is gone"}),
    "away": Answer(503, {"kind": "Status", "message": "the webhook is gone"}),
    "cut": Answer(200, {"kind": "List", "items": []}, cut=True),
}
CHANGE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"host": "web", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]},
}
COMMANDS = {
    "doctor -A": ["doctor", "-A"],
    "doctor -n": ["doctor", "-n", "shop"],
    "fix -A": ["fix", "-A"],
    "fix -n": ["fix", "-n", "shop"],
    "merge-vs": ["merge-vs"],
    "merge-vs NAME": ["merge-vs", "web", "edge", "-n", "shop"],
    "merge-vs --host": ["merge-vs", "--host", "other.example"],
    "compare -A": ["compare", "-A", "-f", "CHANGE"],
    "compare -n": ["compare", "-n", "shop", "-f", "CHANGE"],
    "apply": ["apply", "--dry-run", "--allow-empty", "-f", "CHANGE"],
    "apply --delete": ["apply", "--dry-run", "--delete", "-f", "CHANGE"],
    "route": ["route", "http://web:80/", "-n", "shop"],
    "doctor --with-cluster": ["doctor", "--with-cluster", "-f", "CHANGE"],
}
CLAIMS = (
    "There is nothing to merge",
    "No VirtualServices share a host",
    "the same for every request",
    "Nothing to repair",
)


def objects() -> Iterator[dict[str, Any]]:
    def thing(kind: str, name: str, namespace: str = "shop", **rest: Any) -> dict[str, Any]:
        where = {"namespace": namespace} if namespace else {}
        metadata = {"name": name, **where, **rest.pop("metadata", {})}
        return {"apiVersion": versions[kind], "kind": kind, "metadata": metadata, **rest}

    versions = {
        name: f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
        for name, kind in KINDS.items()
    }
    for name in ("shop", "istio-system"):
        yield thing("Namespace", name, "", metadata={"labels": {"istio-injection": "enabled"}})
    yield thing("ConfigMap", "istio", "istio-system", data={"mesh": "{}"})
    labels = {"app": "web", "version": "v1"}
    port = {"name": "http", "port": 80}
    yield thing("Service", "web", spec={"selector": {"app": "web"}, "ports": [port]})
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    yield thing("Deployment", "web", spec=spec)
    rule = {"route": [{"destination": {"host": "web"}}]}
    yield thing("VirtualService", "web", spec={"hosts": ["web"], "http": [rule]})
    hosts = {"hosts": ["web.example"], "gateways": ["edge"]}
    yield thing("VirtualService", "edge", spec={**hosts, "http": [rule]})
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    yield thing("Gateway", "edge", spec={"selector": {"istio": "in"}, "servers": [server]})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    monkeypatch.setattr(http, "_pause", lambda tries, retry_after="": 0)
    with FakeApiServer(objects()) as server:
        server.versions = {
            group: sorted({version for kind in KINDS.values() if kind.group == group
                           for version in kind.versions[:1]})
            for group in {kind.group for kind in KINDS.values()} - {""}
        }  # fmt: skip
        yield server


def kind_listed(request: Request) -> tuple[str, str] | None:
    """Group and plural of what a request lists."""
    match = PATH.match(request.path)
    if not match or match["name"]:
        return None
    return match["group"] or "", match["plural"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_list_that_fails_is_named_and_nothing_is_claimed(
    command: str, fake: FakeApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = tmp_path / "change.json"
    change.write_text(json.dumps(CHANGE))
    words = [str(change) if word == "CHANGE" else word for word in COMMANDS[command]]
    flags = ["--kubeconfig", fake.kubeconfig(tmp_path, token="t")]
    truth = fake.answer
    status = main([*words, *flags])
    assert status in (0, 1), capsys.readouterr()
    assert "not read" not in capsys.readouterr().err
    listed = sorted(set(filter(None, map(kind_listed, fake.requests))))
    assert ("networking.istio.io", "virtualservices") in listed
    kinds = list(FAILURES) * len(listed)
    step = list(COMMANDS).index(command)
    for (group, plural), failure in zip(listed, itertools.islice(kinds, step, None), strict=False):

        def answer(request: Request, group: str = group, plural: str = plural) -> Answer:
            named = kind_listed(request) == (group, plural)
            return FAILURES[failure] if named else truth(request)  # noqa: B023

        fake.answer = answer  # type: ignore[method-assign]
        status = main([*words, *flags])
        out, err = capsys.readouterr()
        told = " ".join((out + err).split())
        if command == "route" and plural == "deployments":
            assert (status, "Istio's version is not known" in told) == (0, True)
        else:
            assert status in (1, 3), (plural, failure, told)
        assert plural in told, (failure, told)
        assert not [claim for claim in CLAIMS if claim in told], (plural, failure, told)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("command", ["merge-vs", "merge-vs NAME", "compare -A", "route"])
def test_every_failure_of_the_kind_that_decides(
    command: str,
    failure: str,
    fake: FakeApiServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change = tmp_path / "change.json"
    change.write_text(json.dumps(CHANGE))
    words = [str(change) if word == "CHANGE" else word for word in COMMANDS[command]]
    truth = fake.answer
    fake.answer = lambda request: (  # type: ignore[method-assign]
        FAILURES[failure] if request.path.endswith("/virtualservices") else truth(request)
    )
    status = main([*words, "--kubeconfig", fake.kubeconfig(tmp_path, token="t")])
    out, err = capsys.readouterr()
    told = " ".join((out + err).split())
    assert status in (1, 2, 3)
    assert "virtualservices" in told
    assert not [claim for claim in CLAIMS if claim in told]
