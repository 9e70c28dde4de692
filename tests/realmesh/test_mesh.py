"""The mesh itself: does the harness do what it says?"""

from __future__ import annotations

from collections.abc import Callable

from kubectl_mesh.changes.deletion import is_terminating

from .finalizers import hold
from .manifests import istio
from .mesh import Mesh

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: helloworld, namespace: default}
spec:
  hosts: [helloworld]
  http:
  - route:
    - destination: {host: helloworld, subset: v1}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: helloworld, namespace: default}
spec:
  host: helloworld
  subsets:
  - {name: v1, labels: {version: v1}}
"""


def test_what_is_applied_holds_once_the_mesh_has_settled(mesh: Mesh) -> None:
    mesh.service("helloworld", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
    client = mesh.sidecar("default", {"app": "client"})
    mesh.settled()
    assert {client.request("GET", "helloworld:5000").version for _ in range(30)} == {"v1", "v2"}
    mesh.apply(VIRTUAL_SERVICE)
    mesh.settled()
    assert {client.request("GET", "helloworld:5000").version for _ in range(30)} == {"v1"}
    mesh.server.delete(VIRTUAL_SERVICE)
    mesh.settled()
    assert {client.request("GET", "helloworld:5000").version for _ in range(30)} == {"v1", "v2"}


def test_nothing_of_the_test_before_is_left(mesh: Mesh) -> None:
    client = mesh.sidecar()
    mesh.settled()
    assert client.stats("helloworld") == {}
    assert mesh.server.request("GET", "/api/v1/namespaces/default/services")["items"][1:] == []


def test_names_can_be_used_again(mesh: Mesh) -> None:
    for version in ("v1", "v2"):
        mesh.service("helloworld", ports={"http": 5000}, pods={version: 1}, namespace="n" * 63)
        client = mesh.sidecar("n" * 63, name="c" * 63)
        mesh.settled()
        assert client.request("GET", "helloworld:5000").version == version
        mesh.reset()


def test_what_a_finalizer_keeps_goes_with_the_test(mesh: Mesh) -> None:
    rules = [istio("DestinationRule", name, host=name) for name in ("held", "terminating")]
    mesh.apply(*rules)
    for rule in rules:
        hold(mesh.server, mesh.server.path(rule))
    mesh.server.delete(rules[1])
    assert is_terminating(mesh.server.request("GET", mesh.server.path(rules[1])))
    mesh.reset()
    assert mesh.server.kubectl("get", "destinationrules", "-A", "-o", "name").stdout == ""


def test_two_at_once(mesh: Mesh, new_mesh: Callable[..., Mesh]) -> None:
    other = new_mesh()
    for each in (mesh, other):
        each.service("helloworld", ports={"http": 5000}, pods={"v1": 1})
        client = each.sidecar()
        each.settled()
        assert client.request("GET", "helloworld:5000").pod == "helloworld-v1-0"
