"""Objects of the Kubernetes Gateway API: they are there, and are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.unread import told
from kubectl_mesh.sources import files

TWO_GATEWAYS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: quay, namespace: pier}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: quay, namespace: pier}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""
ROUTES = """\
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: ferry, namespace: pier}}
spec: {{parentRefs: [{{name: quay}}]}}
---
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: boat, namespace: pier}}
spec: {{parentRefs: [{{name: quay}}]}}
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n---\n"


def write(folder: Path, text: str) -> str:
    path = folder / "manifests.yaml"
    path.write_text(text)
    return str(path)


def test_two_gateways_of_one_name_are_two_objects(tmp_path: Path) -> None:
    resources, unreadable = files.load([write(tmp_path, TWO_GATEWAYS)])
    snapshot = Snapshot(resources)
    assert not unreadable
    assert not snapshot.replaced
    assert [each.id for each in snapshot.gateways.all] == ["pier/quay"]
    (other,) = snapshot.of(KUBERNETES_GATEWAY)
    assert other.raw["kind"] == other.id.api_kind == "Gateway"
    assert str(other) == "Gateway.gateway.networking.k8s.io pier/quay"
    assert snapshot.get("Gateway", "pier", "quay") is not other
    assert snapshot.unread.all == (other,)


def test_two_gateways_of_one_name_are_no_doubles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "-f", write(tmp_path, TWO_GATEWAYS), "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "KM902" not in {finding["code"] for finding in report["findings"]}


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha2"])
@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"])
def test_routes_are_counted_and_named(
    kind: str, version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG_MAP + ROUTES.format(kind=kind, version=version)
    assert main(["doctor", "-f", write(tmp_path, text), "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not report["findings"]
    assert report["summary"]["resources"] == 1
    (skip,) = report["skipped"]
    assert (skip["unread"], skip["failed"]) == (True, False)
    assert skip["reason"].startswith(f"namespace pier: 2 {kind}s (boat, ferry): ")


@pytest.mark.parametrize("form", ["table", "wide", "yaml", "sarif", "junit"])
def test_every_format_names_them(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG_MAP + ROUTES.format(kind="HTTPRoute", version="v1")
    assert main(["doctor", "-f", write(tmp_path, text), "-o", form]) == 0
    assert "2 HTTPRoutes (boat, ferry)" in " ".join(capsys.readouterr().out.split())


def test_a_folder_of_nothing_else_is_not_called_examined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ROUTES.format(kind="HTTPRoute", version="v1")
    assert main(["doctor", "-f", write(tmp_path, text)]) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "COULD NOT BE EXAMINED namespace pier: 2 HTTPRoutes (boat, ferry)" in out
    assert "No problems found" not in out


def test_many_are_counted(tmp_path: Path) -> None:
    route = ROUTES.split("---")[0].format(kind="TLSRoute", version="v1")
    text = "---\n".join(route.replace("ferry", f"ferry-{number}") for number in range(50))
    resources, _ = files.load([write(tmp_path, text)])
    (line,) = told(resources)
    assert line.startswith("namespace pier: 50 TLSRoutes (ferry-0, ferry-1, ferry-10 and 47 more)")


def test_namespaces_that_are_not_asked_for_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routes = ROUTES.format(kind="HTTPRoute", version="v1")
    config = CONFIG_MAP.replace("other", "other, namespace: dock")
    text = f"{config}{routes}---\n{routes.replace('pier', 'dock')}"
    main(["doctor", "-f", write(tmp_path, text), "-n", "dock", "-o", "json"])
    (skip,) = json.loads(capsys.readouterr().out)["skipped"]
    assert skip["reason"].startswith("namespace dock: ")
