"""`kubectl mesh version`: what it knows, and what it says where it cannot know."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh import __version__
from kubectl_mesh.cli import main
from tests.kube.fake import Answer, FakeApiServer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path))
        yield server


def istiod(image: str, revision: str = "") -> dict[str, Any]:
    labels = {"istio.io/rev": revision} if revision else {}
    containers = [{"name": "discovery", "image": image}]
    return {
        "metadata": {"name": "istiod", "namespace": "istio-system", "labels": labels},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["version", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("docker.io/istio/pilot:1.22.1", "1.22.1 (in istio-system, revision canary)"),
        ("localhost:5000/pilot:1.22.1-distroless@sha256:abc", "1.22.1-distroless (in"),
        ("localhost:5000/pilot", "without a tag (in"),
        ("pilot@sha256:abc", "without a tag (in"),
    ],
)
def test_versions_of_the_cluster(
    fake: FakeApiServer, capsys: pytest.CaptureFixture[str], image: str, said: str
) -> None:
    fake.answers["deployments"] = [Answer(body={"items": [istiod(image, "canary")]})]
    ours, kubernetes, istio = told(capsys).splitlines()
    assert ours.split() == ["kubectl", "mesh", __version__]
    assert kubernetes.split() == ["Kubernetes", "v1.30.1"]
    assert said in istio


def test_as_json(fake: FakeApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["deployments"] = [Answer(body={"items": [istiod("x:1.5", "a"), istiod("x:1.6")]})]
    assert json.loads(told(capsys, "-o", "json")) == {
        "apiVersion": "mesh.kubectl.dev/v1",
        "kind": "Version",
        "kubectlMesh": __version__,
        "kubernetes": "v1.30.1",
        "istio": [
            {"namespace": "istio-system", "revision": "a", "version": "1.5"},
            {"namespace": "istio-system", "revision": "", "version": "1.6"},
        ],
        "notReached": None,
    }


@pytest.mark.parametrize(
    "item",
    [
        None,
        {"metadata": "x"},
        {"metadata": {"labels": [1]}},
        {"spec": {"template": {"spec": {"containers": {"a": 1}}}}},
        {"spec": {"template": {"spec": {"containers": [None]}}}},
    ],
)
def test_answers_of_wrong_types(
    fake: FakeApiServer, capsys: pytest.CaptureFixture[str], item: object
) -> None:
    fake.answers["deployments"] = [Answer(body={"items": [item]})]
    assert "without a tag" in told(capsys)


def test_what_is_not_known_is_said(
    fake: FakeApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.forbidden.add(("deployments", ""))
    assert "Istio         not known: deployments is forbidden" in told(capsys)
    assert "forbidden" in json.loads(told(capsys, "-o", "json"))["notReached"]
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    assert "Kubernetes    not reached: no kubeconfig" in told(capsys)
    fake.requests.clear()
    assert told(capsys, "--client") == f"kubectl mesh  {__version__}\n"
    assert not fake.requests
