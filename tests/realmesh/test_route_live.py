"""`kubectl mesh route` and `compare` against a cluster, beside what its proxies do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main

from .manifests import service, virtual_service
from .mesh import Mesh
from .test_ingress import INSIDE, MYAPP_WITH_SUBSET, WaysIn, helloworld

__all__ = ["helloworld"]


class Run:
    """Runs a command against a mesh, with JSON for its output."""

    def __init__(self, mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
        self._flags = ("-o", "json", "--kubeconfig", str(mesh.server.kubeconfig))
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, Any]:
        self._capsys.readouterr()
        status = main([*arguments, *self._flags])
        out, err = self._capsys.readouterr()
        assert err == ""
        return status, json.loads(out)


@pytest.fixture
def run(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(mesh, capsys)


def subsets(answer: Any) -> list[str | None]:
    return [each["subset"] for each in answer["destinations"]]


def test_route_says_what_the_proxies_do(helloworld: WaysIn, run: Run) -> None:
    inside = ("route", f"http://{INSIDE}/hello", "--from-namespace", "default")
    outside = ("route", "http://myapp.com/hello", "--gateway", "myapp-gateway")
    status, answer = run(*outside)
    assert (status, subsets(answer), answer["unknown"]) == (0, [None], [])
    pods = answer["endpoints"][0]["workloads"]
    assert {each["name"] for each in pods} == {"helloworld-v1-0", "helloworld-v2-0"}
    assert {each["ready"] for each in pods} == {True}
    assert helloworld.from_outside("myapp.com") == {"v1", "v2"}
    status, answer = run(*inside)
    assert (status, subsets(answer)) == (0, ["v1"])
    assert helloworld.from_inside(INSIDE) == {"v1"}
    helloworld.mesh.apply(MYAPP_WITH_SUBSET)
    helloworld.mesh.settled()
    assert subsets(run(*outside)[1]) == ["v1"]
    assert helloworld.from_outside("myapp.com") == {"v1"}


def test_compare_with_the_cluster(helloworld: WaysIn, run: Run, tmp_path: Path) -> None:
    """What it says of a change before it is applied is what the proxies do before and after."""
    change = tmp_path / "change.yaml"
    change.write_text(MYAPP_WITH_SUBSET)
    status, found = run("compare", "-f", str(change))
    (difference,) = found["classes"]
    assert (status, found["verdict"]) == (1, "differs (1 class)")
    assert difference["request"]["url"] == "http://myapp.com/hello"
    assert difference["from"]["kind"] == "gateway"
    assert helloworld.from_outside("myapp.com") == {"v1", "v2"}
    helloworld.mesh.apply(MYAPP_WITH_SUBSET)
    helloworld.mesh.settled()
    assert run("compare", "-f", str(change)) == (
        0,
        {**found, "verdict": "the same for every request", "classes": [], "compared": []},
    )
    assert helloworld.from_outside("myapp.com") == {"v1"}


def test_a_connection_by_tcp(mesh: Mesh, run: Run, tmp_path: Path) -> None:
    mesh.service("web", ports={"tcp": 7000}, pods={"v1": 1})
    client = mesh.sidecar("default", {"app": "client"})
    mesh.apply(service("db", {"name": "tcp", "port": 9000}))
    rule = virtual_service("db", "db", tcp=[{"route": [{"destination": {"host": "web"}}]}])
    mesh.settled()
    ask = ("route", "tcp://db:9000", "--from-namespace", "default")
    assert run(*ask)[1]["outcome"] == "no-endpoint"
    change = tmp_path / "change.json"
    change.write_text(json.dumps(rule))
    status, found = run("compare", "-f", str(change))
    assert (status, found["classes"][0]["protocol"]) == (1, "tcp")
    mesh.apply(rule)
    mesh.settled()
    answer = run(*ask)[1]
    assert answer["virtualService"] == "default/db"
    assert [each["cluster"] for each in answer["destinations"]] == [
        "outbound|7000||web.default.svc.cluster.local"
    ]
    assert client.request("GET", "web:9000").version == "v1"
