"""Trouble 5: an old istio-citadel, and headless TCP Services that lose their connections (KM501).

The restart itself, every 15 minutes, cannot be shown here: it is of Istio 1.4 and earlier, whose
sidecars mounted their certificates. The istiod that runs here hands them out without a restart, and
its proxies have no certificates at all. So what is shown is that the doctor finds the trouble in a
cluster that has the objects of that time and a Service that serves; and that beside istiod there is
none. The doctor knows istiod by its Deployment, which is no part of a mesh of these tests.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from .apiserver import objects
from .client import PATIENCE
from .envoy import Proxy
from .mesh import MESH_CONFIG, Mesh
from .test_doctor_live import doctor, places

EXAMPLES = Path(__file__).parents[2] / "examples"
FOUND = [("KM501", "Service data/cassandra", "/spec/ports/0")]

ISTIOD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod}}
spec:
  selector: {matchLabels: {app: istiod}}
  template:
    metadata: {labels: {app: istiod}}
    spec:
      containers: [{name: discovery, image: "docker.io/istio/pilot:1.22.0"}]
"""


def example(folder: Path) -> dict[str, dict[str, Any]]:
    """The objects of the example of this trouble, by kind and name."""
    text = (folder / "5-headless-tcp-and-citadel.yaml").read_text(encoding="utf-8")
    return {f"{item['kind']} {item['metadata']['name']}": dict(item) for item in objects(text)}


@pytest.fixture
def cassandra(mesh: Mesh) -> Proxy:
    """Two pods of the headless Service of the example; returns a client of it."""
    mesh.service(
        "cassandra-nodes",  # of the same pods, with an address of its own
        ports={"tcp-cql": 9043},
        target_ports={"tcp-cql": 9042},
        pods={"v1": 2},
        namespace="data",
        labels={"app": "cassandra"},
    )
    mesh.apply(example(EXAMPLES)["Service cassandra"])
    slices = "/apis/discovery.k8s.io/v1/namespaces/data/endpointslices"
    nodes = mesh.server.request("GET", f"{slices}/cassandra-nodes-0")
    labels = {"kubernetes.io/service-name": "cassandra"}
    metadata = {"name": "cassandra-0", "namespace": "data", "labels": labels}
    mesh.apply({**nodes, "metadata": metadata})
    return mesh.sidecar("data", {"app": "client"})


def answers(client: Proxy, address: str, port: int) -> str:
    """Which pod answers what is no HTTP, there."""
    with client.host.connect(address, port) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(b"hello\n")
        return connection.recv(100).decode().strip()


def test_the_doctor_finds_citadel_beside_a_headless_service_that_serves(
    mesh: Mesh, cassandra: Proxy
) -> None:
    objects_of = example(EXAMPLES)
    mesh.apply(objects_of["Deployment istio-citadel"], objects_of["ConfigMap istio"])
    result = doctor(mesh.server, "-A", "--rule", "KM501")
    assert (result.status, places(result)) == (1, FOUND)
    related = {(each["kind"], each["name"]) for each in result.findings[0]["related"]}
    assert related == {("Deployment", "istio-citadel"), ("ConfigMap", "istio")}
    assert places(doctor(mesh.server, "-n", "data", "--rule", "KM501")) == FOUND

    slices = mesh.server.request("GET", "/apis/discovery.k8s.io/v1/namespaces/data/endpointslices")
    (serving,) = (each for each in slices["items"] if each["metadata"]["name"] == "cassandra-0")
    found = {answers(cassandra, each["addresses"][0], 9042) for each in serving["endpoints"]}
    assert found == {"cassandra-nodes-v1-0", "cassandra-nodes-v1-1"}


@pytest.mark.usefixtures("cassandra")
def test_nothing_is_found_without_citadel_or_with_the_repair(mesh: Mesh) -> None:
    assert doctor(mesh.server, "-A", "--rule", "KM501").status == 0
    objects_of = example(EXAMPLES)
    mesh.apply(objects_of["Deployment istio-citadel"], objects_of["ConfigMap istio"])
    assert doctor(mesh.server, "-A", "--rule", "KM501").status == 1
    mesh.apply(*example(EXAMPLES / "repaired").values())
    assert doctor(mesh.server, "-A", "--rule", "KM501").status == 0


@pytest.mark.usefixtures("cassandra")
def test_citadel_beside_istiod_is_no_trouble(mesh: Mesh) -> None:
    """istiod hands out certificates without a restart; a citadel that was left does nothing."""
    objects_of = example(EXAMPLES)
    mesh.apply(objects_of["Deployment istio-citadel"], objects_of["ConfigMap istio"])
    assert doctor(mesh.server, "-A", "--rule", "KM501").status == 1
    mesh.apply(ISTIOD)
    result = doctor(mesh.server, "-A", "--rule", "KM501")
    assert (result.status, result.findings, result.report["skipped"]) == (0, [], [])


def test_istiod_takes_no_notice_of_auth_policy(mesh: Mesh, cassandra: Proxy) -> None:
    """It reads the MeshConfig that holds the old field, ignores it, and turns no mTLS on."""
    mesh.settled()
    before = mesh.istiod.debug("mesh")
    config = f"{MESH_CONFIG}connectTimeout: 7s\nauthPolicy: MUTUAL_TLS\n"
    mesh.apply({**example(EXAMPLES)["ConfigMap istio"], "data": {"mesh": config}})
    deadline = time.monotonic() + PATIENCE
    while (after := mesh.istiod.debug("mesh")) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert after == {**before, "connectTimeout": "7s"}
    mesh.settled()
    found = {answers(cassandra, "127.0.0.1", 9043) for _ in range(30)}
    assert found == {"cassandra-nodes-v1-0", "cassandra-nodes-v1-1"}
