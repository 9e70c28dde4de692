"""`compare` and the proof of `fix` on a real API server, which completes what is written.

Objects have every field of Istio's resource definitions, and what the server adds to the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kubectl_mesh.cli import main

from .apiserver import ApiServer
from .manifests import Object, destination_rule, istio, service, subset, to, virtual_service
from .whole_objects import drawn

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(apiserver: ApiServer, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main([*arguments, "--kubeconfig", str(apiserver.kubeconfig)])
        out, err = capsys.readouterr()
        assert err == ""
        return status, out

    return run


def placed(namespace: str, *items: Object) -> list[Object]:
    for each in items:
        each["metadata"]["namespace"] = namespace
    return list(items)


def shop(namespace: str) -> list[Object]:
    """A Service with a version of its pods that no route names, and that one Deployment lacks."""

    def deployment(name: str, **labels: str) -> Object:
        labelled = {"app": "shop", **labels}
        container = {"name": "shop", "image": "shop", "ports": [{"containerPort": 80}]}
        template = {"metadata": {"labels": labelled}, "spec": {"containers": [container]}}
        spec = {"selector": {"matchLabels": labelled}, "template": template}
        metadata = {"name": name}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    return placed(
        namespace,
        service("shop", {"name": "http", "port": 80}),
        deployment("shop-v1", version="v1"),
        deployment("shop"),
        destination_rule("shop", "shop", subset("v1", version="v1")),
        virtual_service("shop", "shop", to("shop")),
        istio(
            "ServiceEntry",
            "outside",
            hosts=["outside.test"],
            ports=[{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}],
            resolution="STATIC",
            endpoints=[{"address": "10.2.0.1", "ports": {"http": 8081}}],
        ),
        istio("Sidecar", "sidecar", egress=[{"hosts": ["./*"]}]),
    )


def written(folder: Path, *items: Object) -> str:
    file = folder / "it.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return str(file)


def labelled(item: Object) -> Object:
    metadata = {**item["metadata"], "labels": {"added": "by-the-manifest"}}
    return {**item, "metadata": metadata}


@pytest.mark.parametrize("kind", ["VirtualService", "DestinationRule", "Gateway"])
def test_a_manifest_equal_to_the_live_object_is_the_same_for_every_request(
    apiserver: ApiServer, namespace: str, run: Run, tmp_path: Path, kind: str
) -> None:
    items = [
        istio(kind, f"it-{number}", namespace, **spec) for number, spec in enumerate(drawn(kind, 0))
    ]
    apiserver.create(items)
    for manifests in (items, map(labelled, items)):
        status, out = run("compare", "-f", written(tmp_path, *manifests), "-n", namespace)
        assert (status, "the same for every request" in out) == (0, True), out


def test_manifests_of_what_the_api_server_completes_are_the_same_for_every_request(
    apiserver: ApiServer, namespace: str, run: Run, tmp_path: Path
) -> None:
    """A Service gets addresses, a Deployment a strategy and more."""
    items = shop(namespace)
    apiserver.create(items)
    for manifests in (items, map(labelled, items)):
        status, out = run("compare", "-f", written(tmp_path, *manifests), "-n", namespace)
        assert (status, "the same for every request" in out) == (0, True), out


def test_a_repair_that_only_adds_a_label_is_the_same_for_every_request(
    apiserver: ApiServer, namespace: str, run: Run
) -> None:
    apiserver.create(shop(namespace))
    status, out = run("fix", "KM306", "--unsafe", "-n", namespace)
    assert status == 1, out
    assert "+        version: v1" in out
    assert "the same for every request" in out
