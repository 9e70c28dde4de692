"""What istiod crashes at: objects that the admission of a real cluster refuses, and one that not.

The model says nothing of what proxies do then, and KM208, KM605 and KM608 report the objects.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .build import istio_release
from .manifests import INGRESS, Object, destination, gateway, server, to, virtual_service
from .mesh import Mesh
from .settled import NotSettled

pytestmark = pytest.mark.each_istio

PASSTHROUGH = server("*", port=443, protocol="TLS", tls={"mode": "PASSTHROUGH"})
NAMED: Object = {"match": [{"sniHosts": ["web"]}]}
SEVERAL: Object = {"route": [destination("web", subset="v1"), destination("web", subset="v2")]}
TO_GATEWAY = {"gateways": ["tls"]}

ALWAYS: dict[str, list[Object]] = {
    "tcp without weights": [virtual_service("v", "web", tcp=[SEVERAL])],
    "tls without weights": [virtual_service("v", "web", tls=[{**NAMED, **SEVERAL}])],
}
UP_TO_1_30: dict[str, list[Object]] = {
    "tcp without a destination": [virtual_service("v", "web", tcp=[{}])],
    "tls without a destination": [virtual_service("v", "web", tls=[NAMED])],
    "tls without a destination, on a gateway": [
        gateway("tls", PASSTHROUGH),
        virtual_service("v", "web", tls=[NAMED], **TO_GATEWAY),
    ],
}
SINCE_1_28: dict[str, list[Object]] = {
    "a Gateway's host behind */*": [
        gateway("hosts", server("*/*", "./a.com")),
        virtual_service("v", "a.com", to("web"), gateways=["hosts"]),
    ],
}
CASES = ALWAYS | UP_TO_1_30 | SINCE_1_28


def test_what_istiod_crashes_at(new_mesh: Callable[..., Mesh]) -> None:
    mesh = new_mesh()
    mesh.service("web", ports={"tcp": 7000, "tls": 7001}, pods={"v1": 1})
    mesh.sidecar()
    mesh.gateway(INGRESS, {80: 8080, 443: 8443})
    mesh.settled()
    found = {}
    for name, objects in CASES.items():
        mesh.apply(*objects)
        found[name] = _is_down(mesh)
        mesh.server.delete(*objects)
        if found[name]:
            mesh.istiod.start()
        mesh.settled()
    is_new = istio_release() != "1.22"
    assert found == (
        dict.fromkeys(ALWAYS, True)
        | dict.fromkeys(UP_TO_1_30, not is_new)
        | dict.fromkeys(SINCE_1_28, is_new)
    )


def _is_down(mesh: Mesh) -> bool:
    """Whether istiod ends before the proxies have what was applied."""
    try:
        mesh.settled()
    except NotSettled:
        if not mesh.istiod.has_ended():
            raise
        return True
    return False
