"""Istio's documented way out through an egress gateway, on the real mesh: what KM101 says of it."""

from __future__ import annotations

import pytest

from .envoy import Proxy
from .manifests import (
    Object,
    destination,
    destination_rule,
    gateway,
    istio,
    server,
    subset,
    virtual_service,
)
from .mesh import ROOT_NAMESPACE, Mesh
from .test_protocols import findings, outcome

EGRESS = {"istio": "egressgateway"}
GATEWAY = f"istio-egressgateway.{ROOT_NAMESPACE}.svc.cluster.local"
OUTSIDE = "labs.example"


def way_out(namespace: str) -> list[Object]:
    """Rules of one namespace: its clients go to the gateway's subset, the gateway goes on."""
    to_gateway = destination(GATEWAY, subset="labs", port=80, weight=100)
    onwards = destination(OUTSIDE, port=80, weight=100)
    http = [
        {"match": [{"gateways": ["mesh"], "port": 80}], "route": [to_gateway]},
        {"match": [{"gateways": ["istio-egressgateway"], "port": 80}], "route": [onwards]},
    ]
    ways_in = ["istio-egressgateway", "mesh"]
    return [
        gateway("istio-egressgateway", server(OUTSIDE), namespace=namespace, selector=EGRESS),
        destination_rule("egressgateway-for-labs", GATEWAY, {"name": "labs"}, namespace=namespace),
        virtual_service("labs", OUTSIDE, namespace=namespace, gateways=ways_in, http=http),
    ]


@pytest.fixture
def nurse(mesh: Mesh) -> Proxy:
    """A client beside the rules; the gateway, and what is outside."""
    mesh.service("labs", ports={"http": 5000}, pods={"v1": 1})
    pod = mesh.server.request("GET", "/api/v1/namespaces/default/pods/labs-v1-0")
    outside = istio(
        "ServiceEntry",
        "labs",
        "clinic",
        hosts=[OUTSIDE],
        ports=[{"number": 80, "name": "http-port", "protocol": "HTTP", "targetPort": 5000}],
        resolution="STATIC",
        endpoints=[{"address": pod["status"]["podIP"]}],
    )
    mesh.gateway(EGRESS, {80: 8080}, name="istio-egressgateway")
    mesh.apply(outside, *way_out("clinic"))
    client = mesh.sidecar("clinic", {"app": "nurse"})
    mesh.settled()
    return client


def test_the_documented_way_out_is_no_fault(mesh: Mesh, nurse: Proxy) -> None:
    """The gateway's pods have no such subset, and need none: their rule leads outside."""
    line = nurse.explain("GET", OUTSIDE)
    assert line["upstream_cluster"].startswith(f"outbound|80|labs|{GATEWAY}")
    assert line["response_code"] == 200
    assert nurse.request("GET", OUTSIDE).version == "v1"
    assert findings(mesh, "KM101") == []


def test_all_clients_whose_requests_fail_are_named(mesh: Mesh, nurse: Proxy) -> None:
    """They see the rule for the way out, and not the DestinationRule that it relies on."""
    others = [mesh.sidecar(name, {"app": "other"}) for name in ("ward", "desk")]
    mesh.settled()
    assert [outcome(each, OUTSIDE) for each in (nurse, *others)] == [
        (200, "-"),
        (503, "NC"),
        (503, "NC"),
    ]
    (found,) = findings(mesh, "KM101")
    assert "for clients in namespaces desk and ward: " in found["message"]
    mesh.apply(
        destination_rule("in-root", GATEWAY, subset("labs", **EGRESS), namespace=ROOT_NAMESPACE)
    )
    mesh.settled()
    assert [outcome(each, OUTSIDE)[0] for each in (nurse, *others)] == [200, 200, 200]
    assert findings(mesh, "KM101") == []
