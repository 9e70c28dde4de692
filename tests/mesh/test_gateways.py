"""Gateways: which servers admit a host, and which pods a selector means."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.gateways import Gateways
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.sources.files import load

MANIFEST = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: ingress}
spec:
  selector: {istio: ingressgateway, tier: edge}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*.example.com"]
  - port: {number: 81, name: http-b, protocol: HTTP}
    hosts: [shop/web.example.com, "./own.example.org"]
  - port: {number: 82, name: http-c, protocol: HTTP}
    hosts: ["*/any.example.net"]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: everything, namespace: ingress}
spec:
  servers: []
"""


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    file = tmp_path / "gateway.yaml"
    file.write_text(MANIFEST)
    resources, _ = load([str(file)])
    return Snapshot(resources).gateways


@pytest.mark.parametrize(
    ("host", "namespace", "ports"),
    [
        ("web.example.com", "shop", [80, 81]),
        ("web.example.com", "other", [80]),
        ("example.com", "shop", []),
        ("own.example.org", "ingress", [81]),
        ("own.example.org", "shop", []),
        ("any.example.net", "shop", [82]),
        ("*.com", "other", [80]),
        ("*", "shop", [80, 81, 82]),
    ],
)
def test_admitting(gateways: Gateways, host: str, namespace: str, ports: list[int]) -> None:
    front = gateways.by_id["ingress/front"]
    assert sorted({server.number for server in front.admitting(host, namespace)}) == ports
    assert front.admits(host, namespace) is bool(ports)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"istio": "ingressgateway", "tier": "edge", "app": "x"}, True),
        ({"istio": "ingressgateway"}, False),
        ({}, False),
    ],
)
def test_configure(gateways: Gateways, labels: dict[str, str], expected: bool) -> None:
    assert gateways.configure(labels) is expected
