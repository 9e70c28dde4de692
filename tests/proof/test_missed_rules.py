"""Which rules of the mesh requests through a gateway miss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.missed_rules import MeshRule, RulesMissed, gateway_rules
from kubectl_mesh.sources.files import load

GATEWAY_RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: outside}}
spec:
  hosts: [a.example.com]
  gateways: [entrance]
  http:
  - match: [{match}]
    {extra}
    route: [{{destination: {{host: a}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: inside}}
spec:
  hosts: [a]
  http:
"""
MESH_RULE = """\
  - match: [{match}]
    route: [{{destination: {{host: a}}}}]
"""
VIRTUAL_SERVICE = """\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2024-01-0{day}T00:00:00Z"}}
spec:
  hosts: ["{host}"]
  exportTo: ["{export}"]
  http:
  - match: [{match}]
    route: [{{destination: {{host: a.default.svc.cluster.local}}}}]
"""


def snapshot(tmp_path: Path, text: str) -> Snapshot:
    file = tmp_path / "mesh.yaml"
    file.write_text(text)
    resources, unreadable = load([str(file)])
    assert not unreadable
    return Snapshot(resources)


@pytest.mark.parametrize(
    ("outside", "extra", "inside", "met"),
    [
        ("{}", "", ["{}"], [0]),
        ("uri: {prefix: /a}", "", ["uri: {prefix: /b}"], []),
        ("uri: {prefix: /a}", "", ["uri: {prefix: /a/b}"], [0]),
        ("uri: {prefix: /a/b}", "", ["uri: {prefix: /a}", "{}"], [0]),
        ("uri: {prefix: /a}", "", ["uri: {prefix: /a/b}", "{}"], [0, 1]),
        ("uri: {exact: /a}", "", ["uri: {prefix: /a}", "{}"], [0]),
        ("uri: {exact: /a}", "", ["uri: {exact: /b}", "{}"], [1]),
        ("uri: {regex: /a}", "", ["uri: {exact: /b}", "uri: {regex: /a}", "{}"], [1]),
        ("uri: {exact: /a}", "", ["uri: {exact: /A}"], []),
        ("uri: {exact: /a}", "", ["uri: {exact: /A}, ignoreUriCase: true", "{}"], [0]),
        ("uri: {prefix: /a}", "rewrite: {uri: /}", ["uri: {prefix: /b}", "{}"], [0, 1]),
        ("method: {exact: GET}", "", ["method: {exact: POST}", "{}"], [1]),
        ("headers: {X-Who: {exact: me}}", "", ["headers: {x-who: {exact: you}}", "{}"], [1]),
        ("headers: {x-who: {exact: me}}", "", ["headers: {x-who: {}}", "{}"], [0]),
        ("withoutHeaders: {x: {exact: a}}", "", ["withoutHeaders: {x: {exact: b}}"], [0]),
        (
            "headers: {x-who: {exact: me}}",
            "headers: {request: {set: {x-who: you}}}",
            ["headers: {x-who: {exact: you}}", "{}"],
            [0, 1],
        ),
        ("authority: {exact: a.example.com}", "", ["authority: {exact: a}", "{}"], [0, 1]),
        ("port: 80", "", ["port: 8080", "{}"], [0, 1]),
        ("{}", "", ["sourceLabels: {app: b}", "sourceNamespace: b", "{}"], [2]),
        ("{}", "", ["{sourceLabels: {app: b}, gateways: [mesh]}", "{}"], [0]),
        ("{}", "", ["gateways: [other]", "{}"], [1]),
        ("uri: {regex: '/[ab]'}", "", ["uri: {regex: '/[bc]'}", "uri: {exact: /a}", "{}"], [0, 1]),
        ("uri: {prefix: /a}", "", ["uri: {regex: '/b.*'}", "{}"], [1]),
        ("uri: {exact: /a}", "", ["uri: {regex: '/ab*'}", "{}"], [0]),
        ("uri: {exact: /b}", "", ["uri: {regex: '/a|/b'}", "{}"], [0]),
        ("uri: {exact: /b}", "", ["uri: {regex: '(?i)/B'}", "{}"], [0]),
        ("{}", "", ["withoutHeaders: {x: {}}", "headers: {x: {}}", "{}"], [0, 1]),
        (
            "headers: {x: {exact: me}, y: {exact: me}}",
            "headers: {request: {set: {x: you}}}",
            ["headers: {y: {exact: you}}", "headers: {x: {exact: you}}"],
            [1],
        ),
        ('headers: {"@request.auth.claims.group": {exact: staff}}', "", ["{}"], [0]),
    ],
)
def test_rules_that_could_meet_the_same_request(
    tmp_path: Path, outside: str, extra: str, inside: list[str], met: list[int]
) -> None:
    text = GATEWAY_RULE.format(match=_flow(outside), extra=extra)
    text += "".join(MESH_RULE.format(match=_flow(match)) for match in inside)
    mesh = snapshot(tmp_path, text)
    (way_in,) = gateway_rules(mesh)
    (to,) = way_in.rule.routes
    missed = RulesMissed(mesh, lambda *_: True).by(way_in, to)
    assert [rule.rule.path[2] for rule in missed] == met


def missed(mesh: Snapshot, number: int = 0) -> list[Any]:
    """The indexes of the mesh's rules that requests miss which meet a gateway's rule."""
    way_in = gateway_rules(mesh)[number]
    found = RulesMissed(mesh, lambda *_: True).by(way_in, way_in.rule.routes[0])
    return [rule.rule.path[2] if isinstance(rule, MeshRule) else str(rule) for rule in found]


@pytest.mark.parametrize(
    ("first", "second", "met"),
    [
        ("uri: {prefix: /a}", "{}", [1]),
        ("uri: {prefix: /a/b}", "{}", [0, 1]),
        ("uri: {prefix: /a}, authority: {exact: a.example.com}", "{}", [0, 1]),
        ("authority: {exact: a}", "uri: {prefix: /a}, authority: {exact: a}", []),
        ("headers: {x: {}}", "uri: {prefix: /a}", [0]),
    ],
)
def test_what_an_earlier_rule_of_the_gateway_takes(
    tmp_path: Path, first: str, second: str, met: list[int]
) -> None:
    outside = GATEWAY_RULE.replace(
        "[{match}]", "[{first}]\n    route: [{{destination: {{host: b}}}}]\n  - match: [{second}]"
    )
    text = outside.format(first=_flow(first), second=_flow(second), extra="")
    text += "".join(MESH_RULE.format(match=_flow(match)) for match in ("uri: {prefix: /a}", "{}"))
    assert missed(snapshot(tmp_path, text), 1) == met


SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  ports: [{name: http, port: 80}, {name: http-admin, port: 90}, {name: tcp-old, port: 100}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entrance}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: PORT, name: http, protocol: HTTP}
    hosts: ["*"]
    tls: {httpsRedirect: REDIRECT}
"""


@pytest.mark.parametrize(("port", "met"), [(80, [1]), (90, [0, 1]), (100, []), (110, [])])
def test_without_a_port_requests_arrive_on_the_port_of_the_gateway(
    tmp_path: Path, port: int, met: list[int]
) -> None:
    text = GATEWAY_RULE.format(match="{}", extra="")
    text += MESH_RULE.format(match="{port: 90, uri: {prefix: /a}}") + MESH_RULE.format(match="{}")
    text += SERVICE.replace("PORT", str(port)).replace("REDIRECT", "false")
    assert missed(snapshot(tmp_path, text)) == met


def test_a_server_that_redirects_to_https_asks_no_rule(tmp_path: Path) -> None:
    text = GATEWAY_RULE.format(match="{}", extra="") + MESH_RULE.format(match="{}")
    text += SERVICE.replace("PORT", "80")
    assert missed(snapshot(tmp_path, text.replace("REDIRECT", "false"))) == [0]
    assert gateway_rules(snapshot(tmp_path, text.replace("REDIRECT", "true"))) == ()


def test_what_a_sidecar_hides_is_not_missed(tmp_path: Path) -> None:
    text = GATEWAY_RULE.format(match="{}", extra="") + MESH_RULE.format(match="{}")
    text += SERVICE.replace("PORT", "80").replace("REDIRECT", "false")
    text += """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: NAME, namespace: NAMESPACE}
spec: {egress: [{hosts: ["other/*"]}]}
"""
    everywhere = text.replace("NAMESPACE", "istio-system")
    assert missed(snapshot(tmp_path, everywhere.replace("NAME", "all"))) == []
    assert missed(snapshot(tmp_path, text.replace("NAMESPACE", "tests").replace("NAME", "x"))) == [
        0
    ]


def test_expressions_that_are_too_intricate_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_mesh.proof.examples.MAX_NODES", 0)
    text = GATEWAY_RULE.format(match="{}", extra="") + MESH_RULE.format(match="{}")
    (given_up,) = missed(snapshot(tmp_path, text))
    assert "too intricate" in given_up


def test_too_many_matches_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RulesMissed, "EFFORT", 1)
    text = GATEWAY_RULE.format(match="{}", extra="")
    text += "".join(MESH_RULE.format(match=_flow(match)) for match in ("uri: {prefix: /a}", "{}"))
    mesh = snapshot(tmp_path, text)
    (way_in,) = gateway_rules(mesh)
    (to,) = way_in.rule.routes
    (given_up,) = RulesMissed(mesh, lambda *_: True).by(way_in, to)
    assert "VirtualService default/outside" in str(given_up)
    assert "VirtualService default/inside" in str(given_up)


def _flow(match: str) -> str:
    return match if match.startswith("{") else f"{{{match}}}"


def virtual_service(
    name: str,
    day: int,
    namespace: str = "default",
    host: str = "a.default.svc.cluster.local",
    export: str = "*",
    match: str = "{}",
) -> str:
    return VIRTUAL_SERVICE.format(
        name=name, day=day, namespace=namespace, host=host, export=export, match=match
    )


@pytest.mark.parametrize(
    ("virtual_services", "winner"),
    [
        ([virtual_service("young", 2), virtual_service("old", 1)], "old"),
        (
            [virtual_service("old", 1), virtual_service("private", 2, "tests", export=".")],
            "private",
        ),
        ([virtual_service("old", 1), virtual_service("given", 2, export="tests")], "given"),
        ([virtual_service("old", 1), virtual_service("hidden", 0, export=".")], "old"),
        ([virtual_service("any", 1, host="*.svc.cluster.local"), virtual_service("own", 2)], "own"),
        ([virtual_service("any", 1, host="*.svc.cluster.local")], "any"),
        (
            [
                virtual_service("old", 1, match="{sourceLabels: {app: b}}"),
                virtual_service("new", 2),
            ],
            "new",
        ),
        ([virtual_service("old", 1, match="{gateways: [b]}")], None),
    ],
)
def test_one_virtual_service_wins_on_the_mesh(
    tmp_path: Path, virtual_services: list[str], winner: str | None
) -> None:
    mesh = snapshot(tmp_path, "".join(virtual_services))
    found = mesh.virtual_services.mesh_winner("a.default.svc.cluster.local", "tests")
    assert (found and found.resource.name) == winner
