"""What proxies make of paths before they look for a route, as the MeshConfig says."""

from __future__ import annotations

import pytest

from kubectl_mesh.routing.paths import normalized

from .manifests import INGRESS, exact, gateway, says, server, virtual_service
from .mesh import MESH_CONFIG, ROOT_NAMESPACE, Mesh

PATHS = (
    *(
        "/a/../b",
        "/a/./b",
        "/a//b",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a%5cb",
        "/%41%7e",
        "/a/%2e%2e/b",
    ),
    *("//a", "/a/..//b", "/a%2F%2Fb", "/a/..%2Fb", "/a|b", "/a%zz", "/", "/a/b/", "/a%2F..%2Fb//c"),
)


@pytest.mark.parametrize(
    "how", ["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]
)
def test_paths_are_normalized_as_the_mesh_config_says(mesh: Mesh, how: str) -> None:
    """A rule for just the path that the model gives takes the request."""
    mesh.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": ROOT_NAMESPACE},
            "data": {"mesh": f"{MESH_CONFIG}pathNormalization: {{normalization: {how}}}\n"},
        },
        gateway("gateway", server()),
    )
    expected = {path: normalized(path, "BASE" if how == "DEFAULT" else how) for path in PATHS}
    rules = [says(path, exact(path)) for path in dict.fromkeys(expected.values())]
    mesh.apply(virtual_service("paths", "*", *rules, gateways=["gateway"]))
    ingress = mesh.gateway(INGRESS, {80: 8080})
    mesh.settled()
    found = {path: ingress.request("GET", "any", path).body.decode() for path in PATHS}
    assert found == expected
