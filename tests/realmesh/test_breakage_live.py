"""What apply refuses really fails in the real mesh, and what it lets pass does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main

from .debug_pages import debug_pages
from .envoy import Proxy
from .manifests import (
    INGRESS,
    Object,
    destination_rule,
    gateway,
    istio,
    server,
    service,
    subset,
    to,
    virtual_service,
)
from .mesh import Mesh

Apply = Callable[[list[Object]], int]
HTTP = {"name": "http", "port": 5000}
SUBSETS = (subset("v1", version="v1"), subset("v2", version="v2"))
BETA = {"uri": {"prefix": "/beta"}}
FRONT = gateway("front", server("web.example.com"))
PEER = "web.default.svc.cluster.local"


def bound(*rules: Object, **spec: Any) -> Object:
    """The VirtualService of web, inside and on the gateway."""
    hosts = "web web.example.com"
    return virtual_service("web", hosts, *rules, gateways=["mesh", "front"], **spec)


def inside(*rules: Object, **spec: Any) -> Object:
    return virtual_service("web", "web", *rules, **spec)


def rule(*subsets: Object, **spec: Any) -> Object:
    return destination_rule("web", "web", *subsets, **spec)


def split(one: int, other: int) -> Object:
    shares = ((one, "v1"), (other, "v9"))
    return {
        "route": [
            {"destination": {"host": "web", "subset": name}, "weight": weight}
            for weight, name in shares
        ]
    }


def outside(name: str, *hosts: str, **spec: Any) -> Object:
    """A ServiceEntry of the pods of web, for other names."""
    ports = [{"number": 5000, "name": "http", "protocol": "HTTP"}]
    found = {
        "hosts": list(hosts),
        "ports": ports,
        "resolution": "STATIC",
        "location": "MESH_INTERNAL",
        "workloadSelector": {"labels": {"app": "web"}},
        **spec,
    }
    return istio("ServiceEntry", name, **found)


def elsewhere(*rules: Object) -> Object:
    """Rules for web that stand in another namespace."""
    return virtual_service("web", f"{PEER} web.example.com", *rules, namespace="team",
        gateways=["mesh", "default/front"])  # fmt: skip


DELEGATE = virtual_service("inner", "", to("web"))
HANDED = bound({"delegate": {"name": "inner"}})
GONE: Mapping[str, tuple[list[Object], list[Object], str]] = {
    "subset": ([rule(*SUBSETS), bound(to("web", subset="v1"))], [rule(SUBSETS[1])], ""),
    "more-to-a-missing-subset": (
        [rule(*SUBSETS), bound(to("web", BETA, subset="v9"), to("web", subset="v1"))],
        [bound(to("web", BETA, subset="v1"), to("web", subset="v9"))],
        "",
    ),
    "more-weight-on-a-missing-subset": (
        [rule(*SUBSETS), bound(split(100, 0))],
        [bound(split(0, 100))],
        "",
    ),
    "host": ([bound(to("web"))], [bound(to("nothing"))], ""),
    "port": ([bound(to("web", port=5000))], [bound(to("web", port=7777))], ""),
    "delegate": (
        [DELEGATE, HANDED],
        [{**DELEGATE, "spec": {"exportTo": ["team"], **DELEGATE["spec"]}}],
        "",
    ),
    "exported-no-more": (
        [outside("ext", "a.ext"), elsewhere(to("a.ext"))],
        [outside("ext", "a.ext", exportTo=["."])],
        "",
    ),
    "wildcard-in-its-place": (
        [outside("ext", "a.ext"), bound(to("a.ext"))],
        [outside("ext", "*.ext", resolution="NONE", workloadSelector=None)],
        "",
    ),
    "host-of-the-gateway": ([bound(to("web"))], [gateway("front", server("x.com"))], "gateway"),
    "gateway-for-nobody": (
        [bound(to("web"))],
        [gateway("front", server("web.example.com"), selector={"istio": "nobody"})],
        "gateway",
    ),
    "hidden-from-the-gateway": (
        [bound(to("web"))],
        [bound(to("web"), exportTo=["."])],
        "gateway",
    ),
}
KEPT: Mapping[str, tuple[list[Object], list[Object]]] = {
    "other-subset": ([rule(*SUBSETS), bound(to("web", subset="v1"))], [rule(SUBSETS[0])]),
    "broken-side-rule": (
        [rule(*SUBSETS), bound(to("web", BETA, subset="v9"), to("web", subset="v1"))],
        [rule(*SUBSETS, subset("v3", version="v2"))],
    ),
    "subset-without-weight": (
        [rule(SUBSETS[0], subset("v9", version="v2")), bound(split(100, 0))],
        [rule(SUBSETS[0])],
    ),
    "one-more-port": (
        [bound(to("web", port=5000))],
        [service("web", HTTP, {"name": "more", "port": 5001, "targetPort": 5000})],
    ),
    "entry-in-two": (
        [outside("ext", "a.ext", "b.ext"), bound(to("b.ext"))],
        [outside("ext", "a.ext"), outside("more", "b.ext")],
    ),
    "other-host-of-the-gateway": (
        [gateway("front", server("web.example.com", "x.com")), bound(to("web"))],
        [FRONT],
    ),
    "exported-to-all-who-call": (
        [bound(to("web"))],
        [bound(to("web"), exportTo=[".", "istio-system"])],
    ),
}


class Shop:
    """web, whoever calls it, and what is applied to it."""

    def __init__(self, mesh: Mesh, folder: Path, url: str) -> None:
        self.mesh = mesh
        self._folder = folder
        self._url = url
        mesh.service("web", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
        mesh.server.kubectl("create", "namespace", "team", check=False)
        self._clients: list[tuple[str, Proxy, str]] = [
            ("sidecar", mesh.sidecar("default"), "web:5000"),
            ("gateway", mesh.gateway(INGRESS, {80: 8080}), "web.example.com"),
        ]

    def settle(self, objects: list[Object]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.mesh.server.kubectl("apply", "-f", "-", input=text)
        self.mesh.settled()

    def plan(self, objects: list[Object]) -> int:
        """The exit status of a dry run: 3 for what is refused, 1 for what would be done."""
        file = self._folder / "it.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        flags = ("--kubeconfig", str(self.mesh.server.kubeconfig), "--istiod-url", self._url)
        return main(["apply", "-f", str(file), "--dry-run", "--force-conflicts", *flags])

    def statuses(self) -> dict[str, set[int]]:
        """What ten requests of each client get; 0 stands for no answer."""
        found: dict[str, set[int]] = {}
        for name, proxy, host in self._clients:
            for _ in range(10):
                try:
                    status = proxy.request("GET", host).status
                except OSError:
                    status = 0
                found.setdefault(name, set()).add(status)
        return found


@pytest.fixture
def shop(mesh: Mesh, tmp_path: Path) -> Iterator[Shop]:
    with debug_pages(mesh.istiod) as url:
        found = Shop(mesh, tmp_path, url)
        found.settle([FRONT])
        yield found


@pytest.mark.parametrize("case", GONE)
def test_what_is_refused_fails(shop: Shop, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, only = GONE[case]
    shop.settle(before)
    assert shop.statuses() == {"sidecar": {200}, "gateway": {200}}
    assert shop.plan(after) == 3, capsys.readouterr().out
    assert "REFUSED" in capsys.readouterr().out
    shop.settle(after)
    failing = {name for name, seen in shop.statuses().items() if 200 not in seen}
    assert failing, shop.statuses()
    assert not only or failing == {only}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_let_pass_does_not(
    shop: Shop, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = KEPT[case]
    shop.settle(before)
    assert shop.statuses() == {"sidecar": {200}, "gateway": {200}}
    assert shop.plan(after) == 1, capsys.readouterr().out
    shop.settle(after)
    assert shop.statuses() == {"sidecar": {200}, "gateway": {200}}
