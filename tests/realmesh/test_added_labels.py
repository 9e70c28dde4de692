"""Which labels istiod adds to endpoints, so that subsets may select by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from kubectl_mesh.mesh.added_labels import endpoint_has

from .manifests import destination_rule, exact, subset, to, virtual_service
from .mesh import Mesh

NODE = {
    "kubernetes.io/os": "linux",
    "topology.kubernetes.io/region": "eu",
    "topology.kubernetes.io/zone": "eu-1",
    "topology.istio.io/subzone": "rack-7",
    "failure-domain.beta.kubernetes.io/zone": "eu-1",
}
SUBSETS: Mapping[str, Mapping[str, str]] = {
    "cluster": {"topology.istio.io/cluster": "Kubernetes"},
    "region": {"topology.kubernetes.io/region": "eu"},
    "zone": {"topology.kubernetes.io/zone": "eu-1", "app": "web"},
    "subzone": {"topology.istio.io/subzone": "rack-7"},
    "node": {"kubernetes.io/hostname": "node"},
    "legacy-zone": {"failure-domain.beta.kubernetes.io/zone": "eu-1"},
    "system": {"kubernetes.io/os": "linux"},
    "zone-of-others": {"topology.kubernetes.io/zone": "eu-1", "app": "other"},
}


@pytest.fixture
def node(mesh: Mesh) -> Iterator[None]:
    """The Node on which all pods are said to be."""
    found = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "labels": NODE}}
    mesh.server.apply(found)
    yield
    mesh.server.delete(found)


@pytest.mark.usefixtures("node")
def test_subsets_by_labels_of_the_node_and_the_cluster(mesh: Mesh) -> None:
    mesh.service("web", ports={"http": 5000}, pods={"v1": 1})
    subsets = [subset(name, **labels) for name, labels in SUBSETS.items()]
    rules = [to("web", exact(f"/{name}"), subset=name) for name in SUBSETS]
    mesh.apply(destination_rule("web", "web", *subsets), virtual_service("web", "web", *rules))
    client = mesh.sidecar()
    mesh.settled()
    statuses = {name: client.request("GET", "web:5000", f"/{name}").status for name in SUBSETS}
    pod = {"app": "web", "version": "v1"}
    assert statuses == {
        name: 503 if endpoint_has(pod, labels) is False else 200 for name, labels in SUBSETS.items()
    }
    assert sorted(statuses.values()) == [200] * 5 + [503] * 3
