"""What is claimed of requests on which objects that are not followed may decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubectl_mesh.cli import main

SERVICES = """\
apiVersion: v1
kind: Service
metadata: {name: buoy, namespace: pier}
spec: {selector: {app: buoy}, ports: [{name: http, port: 80}, {name: more, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: lamp, namespace: pier}
spec: {selector: {app: lamp}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: doors}
spec: {selector: {istio: in}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress, namespace: doors}
spec:
  selector: {matchLabels: {istio: in}}
  template: {metadata: {labels: {istio: in, app: door}}, spec: {containers: [{name: istio-proxy}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: sea, namespace: pier}
spec: {hosts: [sea.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: quay, namespace: pier}
spec:
  selector: {app: door}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: pier}
spec:
  hosts: [buoy.example, lamp.example]
  gateways: [quay]
  http: [{route: [{destination: {host: lamp}}]}]
"""
MESH_RULE = """\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s, namespace: pier}
spec: {hosts: [%s], http: [{timeout: %s, route: [{destination: {host: %s}}]}]}
"""
ROUTE = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: %s
metadata: {name: route, namespace: %s}
spec: {hostnames: %s, parentRefs: [%s], rules: [{backendRefs: [{name: lamp, port: 80}]}]}
"""
GATEWAY = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: doors}
spec: {gatewayClassName: %s, addresses: %s, listeners: [{name: a, port: 80, protocol: HTTP}]}
"""
ON_BUOY = '{group: "", kind: Service, name: buoy, namespace: pier}'
BY_ADDRESS = "[{type: Hostname, value: ingress.doors.svc.cluster.local}]"


def written(folder: Path, name: str, *parts: str) -> str:
    path = folder / name
    path.write_text("".join((SERVICES, *parts)))
    return str(path)


def outcome(capsys: pytest.CaptureFixture[str], file: str, url: str, *flags: str) -> str:
    main(["route", url, "-f", file, "-o", "json", *flags])
    return str(json.loads(capsys.readouterr().out)["outcome"])


@pytest.mark.parametrize(
    ("kind", "namespace", "parent", "url", "client", "known"),
    [
        ("HTTPRoute", "pier", ON_BUOY, "http://buoy.pier", "pier", False),
        ("HTTPRoute", "pier", ON_BUOY, "http://buoy.pier", "far", False),
        ("GRPCRoute", "pier", ON_BUOY, "http://buoy.pier:81", "far", False),
        ("TCPRoute", "pier", ON_BUOY, "tcp://buoy.pier:80", "far", False),
        ("HTTPRoute", "pier", ON_BUOY, "http://lamp.pier", "pier", True),
        ("HTTPRoute", "far", ON_BUOY, "http://buoy.pier", "far", False),
        ("HTTPRoute", "far", ON_BUOY, "http://buoy.pier", "pier", True),
        ("HTTPRoute", "pier", ON_BUOY[:-1] + ", port: 80}", "http://buoy.pier:81", "pier", True),
        ("HTTPRoute", "pier", ON_BUOY[:-1] + ", port: 80}", "http://buoy.pier:80", "pier", False),
        (
            "HTTPRoute",
            "pier",
            "{group: networking.istio.io, kind: ServiceEntry, name: sea}",
            "http://sea.example",
            "far",
            False,
        ),
    ],
)
def test_a_route_on_a_service_rules_what_sidecars_send_there(
    kind: str,
    namespace: str,
    parent: str,
    url: str,
    client: str,
    known: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = written(tmp_path, "a.yaml", ROUTE % (kind, namespace, "[]", parent))
    found = outcome(capsys, file, url, "--from-namespace", client)
    assert (found != "undecided") is known


FRONT = "{name: front, namespace: doors}"


@pytest.mark.parametrize(
    ("class_name", "addresses", "hostnames", "parent", "known"),
    [
        ("istio", BY_ADDRESS, "[buoy.example]", FRONT, False),
        ("istio", BY_ADDRESS, "['*.example']", FRONT, False),
        ("istio", BY_ADDRESS, "[]", FRONT, False),
        ("istio", BY_ADDRESS, "[lamp.example]", FRONT, True),
        ("istio", BY_ADDRESS, "[buoy.example]", "{name: front, namespace: pier}", False),
        ("istio", BY_ADDRESS, "[buoy.example]", FRONT[:-1] + ", port: 81}", True),
        ("istio", "[]", "[buoy.example]", FRONT, True),
        ("other", BY_ADDRESS, "[buoy.example]", FRONT, True),
    ],
)
def test_a_route_rules_at_the_pods_of_its_gateway(
    class_name: str,
    addresses: str,
    hostnames: str,
    parent: str,
    known: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: other.example/controller}
"""
    route = ROUTE % ("HTTPRoute", "pier", hostnames, parent)
    file = written(tmp_path, "a.yaml", GATEWAY % (class_name, addresses), route, other)
    found = outcome(capsys, file, "http://buoy.example/", "--gateway", "pier/quay")
    assert (found != "undecided") is known


def test_a_kubernetes_gateway_is_named_where_it_is_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "a.yaml", GATEWAY % ("istio", "[]"))
    status = main(["route", "http://x.example", "-f", file, "--gateway", "doors/front"])
    assert status == 3
    assert "Gateway.gateway.networking.k8s.io doors/front" in capsys.readouterr().err


def compared(
    capsys: pytest.CaptureFixture[str], before: str, after: str
) -> tuple[int, str, list[str]]:
    status = main(["compare", before, after, "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    return status, found["verdict"], found["undecided"]


def test_only_hosts_that_a_route_rules_are_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    route = ROUTE % ("HTTPRoute", "pier", "[]", ON_BUOY)
    for host, seconds, status in (("buoy", "2s", 3), ("lamp", "2s", 1), ("lamp", "1s", 0)):
        before = written(tmp_path, "a.yaml", MESH_RULE % ("x", host, "1s", host), route)
        after = written(tmp_path, "b.yaml", MESH_RULE % ("x", host, seconds, host), route)
        found, _, undecided = compared(capsys, before, after)
        assert found == status
        assert bool(undecided) is (status == 3)
        if undecided:
            assert all("HTTPRoute pier/route may decide" in each for each in undecided)


@pytest.mark.parametrize("change", ["backendRefs", "hostnames", "gone", "matches"])
def test_a_route_that_changes_is_undecided(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    route = ROUTE % ("HTTPRoute", "pier", "[a.example]", FRONT)
    other = {
        "backendRefs": route.replace("name: lamp", "name: buoy"),
        "hostnames": route.replace("a.example", "b.example"),
        "gone": "",
        "matches": route.replace(
            "[{backendRefs", "[{matches: [{path: {type: Exact, value: /a}}], backendRefs"
        ),
    }[change]
    before, after = written(tmp_path, "a.yaml", route), written(tmp_path, "b.yaml", other)
    status, verdict, undecided = compared(capsys, before, after)
    assert status == 3
    assert verdict.startswith("undecided: HTTPRoute pier/route is not the same in both states")
    assert len(undecided) == 1


def test_what_the_api_server_adds_is_no_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    route = ROUTE % ("HTTPRoute", "pier", "[a.example]", FRONT)
    full = route.replace(
        "name: front", "group: gateway.networking.k8s.io, kind: Gateway, name: front"
    )
    full = full.replace(
        "[{backendRefs: [{",
        "[{matches: [{path: {type: PathPrefix, value: /}}], "
        'backendRefs: [{group: "", kind: Service, weight: 1, ',
    )
    before, after = written(tmp_path, "a.yaml", route), written(tmp_path, "b.yaml", full)
    assert compared(capsys, before, after) == (0, "the same for every request", [])


def test_a_policy_of_what_routes_lead_to_is_undecided_but_for_subsets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    route = ROUTE % ("HTTPRoute", "pier", "[a.example]", FRONT)
    rule = """\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lamp, namespace: pier}
spec: {host: lamp%s}
"""
    before = written(tmp_path, "a.yaml", route, rule % "")
    subsets = written(tmp_path, "b.yaml", route, rule % ", subsets: [{name: v1}]")
    assert compared(capsys, before, subsets)[2] == []
    policy = written(tmp_path, "b.yaml", route, rule % ", trafficPolicy: {tls: {mode: DISABLE}}")
    status, _, undecided = compared(capsys, before, policy)
    assert status in (1, 3)
    assert any("HTTPRoute pier/route sends requests to lamp.pier" in each for each in undecided)


def test_a_merge_is_refused_where_a_route_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = MESH_RULE % ("buoy", "buoy", "1s", "buoy"), MESH_RULE % ("lamp", "lamp", "1s", "lamp")
    gateway = MESH_RULE % ("door", "door.example, gateways: [quay", "1s", "%s")
    gateway = gateway.replace("[door.example, gateways: [quay]", "[door.example], gateways: [quay]")
    route = ROUTE % ("HTTPRoute", "pier", "[]", ON_BUOY)
    for host, refused in (("buoy", True), ("lamp", False)):
        file = written(tmp_path, "a.yaml", *rules, gateway % host, route)
        status = main(["merge-vs", host, "door", "-f", file])
        out, err = capsys.readouterr()
        assert (status == 3) is refused, err
        assert ("HTTPRoute pier/route may decide" in " ".join(out.split())) is refused
        assert "not read: 1 HTTPRoute (pier/route)" in err
