"""Trouble 2: route rules have no effect on requests that come in through an ingress gateway.

The pair of VirtualServices is that of Istio's own text on the trouble: `myapp` takes the gateway's
requests to helloworld, and `helloworld` sends calls of it to v1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .envoy import Proxy
from .manifests import INGRESS
from .mesh import Mesh
from .test_doctor_live import doctor

pytestmark = pytest.mark.each_istio

ROOT = Path(__file__).parents[2]
EXAMPLE = "2-rules-without-effect-on-ingress.yaml"

GATEWAY_AND_SUBSETS = """
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: myapp-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [myapp.com]
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: helloworld, namespace: default}
spec:
  host: helloworld.default.svc.cluster.local
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""

MYAPP = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: myapp, namespace: default}
spec:
  hosts: [myapp.com]
  gateways: [myapp-gateway]
  http:
  - match:
    - uri: {prefix: /hello}
    route:
    - destination: {host: helloworld.default.svc.cluster.local}
"""

MYAPP_WITH_SUBSET = MYAPP.replace("cluster.local}", "cluster.local, subset: v1}")

HELLOWORLD = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: helloworld, namespace: default}
spec:
  hosts: [helloworld.default.svc.cluster.local]
  http:
  - match:
    - uri: {prefix: /hello}
    route:
    - destination: {host: helloworld.default.svc.cluster.local, subset: v1}
"""

MERGED = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: myapp, namespace: default}
spec:
  hosts: [myapp.com, helloworld.default.svc.cluster.local]
  gateways: [mesh, myapp-gateway]
  http:
  - match:
    - uri: {prefix: /hello}
      gateways: [myapp-gateway]
    - uri: {prefix: /hello}
      gateways: [mesh]
    route:
    - destination: {host: helloworld.default.svc.cluster.local, subset: v1}
"""


@dataclass
class WaysIn:
    """A Service's two ways in: a sidecar of a caller, and the ingress gateway."""

    mesh: Mesh
    client: Proxy
    ingress: Proxy

    @classmethod
    def to(cls, mesh: Mesh, service: str, port: int, *, namespace: str = "default") -> WaysIn:
        """Makes both, and the Service with a pod of v1 and a pod of v2."""
        mesh.service(service, ports={"http": port}, pods={"v1": 1, "v2": 1}, namespace=namespace)
        client = mesh.sidecar(namespace, {"app": "client"})
        ingress = mesh.gateway(INGRESS, {80: 8080})
        return cls(mesh, client, ingress)

    def from_inside(self, host: str) -> set[str | None]:
        return versions(self.client, host)

    def from_outside(self, host: str) -> set[str | None]:
        return versions(self.ingress, host)

    def findings(self) -> list[dict[str, Any]]:
        """What the doctor finds in the cluster, save what is so in all meshes of these tests.

        The pods of Services have no sidecar (KM310), and callers are in no Service (KM305).
        """
        found = doctor(self.mesh.server, "-A").findings
        return [each for each in found if each["code"] not in ("KM305", "KM310")]


def versions(proxy: Proxy, host: str) -> set[str | None]:
    """Who answers 30 requests; None stands for Envoy itself."""
    return {proxy.request("GET", host, "/hello").version for _ in range(30)}


@pytest.fixture
def helloworld(mesh: Mesh) -> WaysIn:
    ways_in = WaysIn.to(mesh, "helloworld", 5000)
    mesh.apply(GATEWAY_AND_SUBSETS, MYAPP, HELLOWORLD)
    mesh.settled()
    return ways_in


INSIDE = "helloworld.default.svc.cluster.local:5000"


def test_rules_for_the_mesh_have_no_effect_on_ingress(helloworld: WaysIn) -> None:
    """The gateway's route goes to all of the host; the doctor says where, and where it must not."""
    assert helloworld.from_inside(INSIDE) == {"v1"}
    assert helloworld.from_outside("myapp.com") == {"v1", "v2"}

    (found,) = helloworld.findings()
    assert (found["code"], found["severity"]) == ("KM201", "error")
    assert found["resource"]["name"] == "myapp"
    assert found["path"] == "/spec/http/0/route/0/destination"
    assert found["traffic"].endswith(
        "never meet those rules: they are balanced over all pods of "
        "helloworld.default.svc.cluster.local, whatever their version"
    )


def test_the_subset_in_the_gateways_virtual_service_cures_it(helloworld: WaysIn) -> None:
    helloworld.mesh.apply(MYAPP_WITH_SUBSET)
    helloworld.mesh.settled()

    assert helloworld.from_inside(INSIDE) == {"v1"}
    assert helloworld.from_outside("myapp.com") == {"v1"}
    assert helloworld.findings() == []


def test_one_virtual_service_for_both_ways_in_cures_it(helloworld: WaysIn) -> None:
    """And it brings the outer name to the mesh; the Gateway's hosts keep the inner name inside."""
    left = helloworld.client.explain("GET", "myapp.com:5000", "/hello")
    assert left["upstream_cluster"] == "PassthroughCluster"  # which leads out of the mesh
    helloworld.mesh.apply(MERGED)
    helloworld.mesh.server.delete(HELLOWORLD)
    helloworld.mesh.settled()

    assert helloworld.from_inside(INSIDE) == {"v1"}
    assert helloworld.from_outside("myapp.com") == {"v1"}
    assert helloworld.findings() == []

    assert helloworld.from_inside("myapp.com:5000") == {"v1"}
    inner_name = INSIDE.removesuffix(":5000")
    assert helloworld.ingress.request("GET", inner_name, "/hello").status == 404


@pytest.mark.parametrize(
    ("folder", "outside", "codes"),
    [("", {"v1", "v2"}, ["KM201"]), ("repaired", {"v1"}, [])],
    ids=["broken", "repaired"],
)
def test_the_example(mesh: Mesh, folder: str, outside: set[str], codes: list[str]) -> None:
    """examples/ as they are: their Deployments' pods are those of the harness."""
    ways_in = WaysIn.to(mesh, "helloworld", 5000, namespace="greetings")
    mesh.apply((ROOT / "examples" / folder / EXAMPLE).read_text(encoding="utf-8"))
    mesh.settled()

    assert ways_in.from_inside("helloworld.greetings.svc.cluster.local:5000") == {"v1"}
    assert ways_in.from_outside("myapp.com") == outside
    assert [found["code"] for found in ways_in.findings()] == codes


def rule_file(code: str, name: str) -> str:
    """A manifest of tests/rules, in the version of Istio's kinds that is served here."""
    text = (ROOT / "tests" / "rules" / code / f"{name}.yaml").read_text(encoding="utf-8")
    return text.replace("networking.istio.io/v1\n", "networking.istio.io/v1beta1\n")


def test_settings_of_the_meshs_rules_are_not_inherited_on_ingress(mesh: Mesh) -> None:
    """KM202: mirror and headers hold for calls from inside; nothing of them at the gateway."""
    mesh.service("shadow", ports={"http": 8080}, pods={"v1": 1})
    shop = WaysIn.to(mesh, "shop", 8080)
    mesh.apply(rule_file("KM202", "bad-mirror-headers-fault"))
    mesh.settled()

    (found,) = shop.findings()
    assert (found["code"], found["resource"]["name"]) == ("KM202", "shop-public")
    assert "never meet those rules" in found["traffic"]
    assert "nothing is inherited" in found["traffic"]

    def mirrored(proxy: Proxy) -> int:
        sent = proxy.stats(r"^cluster\.outbound\|8080\|\|shadow\..*\.upstream_rq_total$")
        return sum(sent.values())

    def headers(proxy: Proxy, host: str) -> set[Any]:
        answers = [proxy.request("GET", host, "/hello").said for _ in range(10)]
        return {said and said["headers"].get("x-from") for said in answers}

    assert headers(shop.client, "shop:8080") == {"mesh"}
    assert mirrored(shop.client) == 10
    assert headers(shop.ingress, "shop.example.com") == {None}
    assert mirrored(shop.ingress) == 0


def test_weights_of_the_gateways_rule_are_not_inherited_in_the_mesh(mesh: Mesh) -> None:
    """KM203: calls from inside are balanced over all versions, whatever the gateway's rule says."""
    shop = WaysIn.to(mesh, "shop", 8080)
    mesh.service("cart", ports={"http": 8080}, pods={"v1": 1})
    mesh.apply(rule_file("KM203", "bad-rules-for-the-mesh-without-subset"))
    mesh.settled()

    (found,) = shop.findings()
    assert found["code"] == "KM203"
    assert "from inside the mesh" in found["traffic"]
    assert found["traffic"].endswith("are balanced over all its versions")

    def share_of_v1(proxy: Proxy, host: str) -> float:
        answers = Counter(proxy.request("GET", host, "/hello").version for _ in range(300))
        assert answers.keys() == {"v1", "v2"}
        return answers["v1"] / answers.total()

    assert share_of_v1(shop.ingress, "shop.example.com") > 0.68  # of 80 %: five deviations
    assert share_of_v1(shop.client, "shop:8080") < 0.68  # of 50 %: six deviations
