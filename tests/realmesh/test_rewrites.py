"""What backends get, the path that a route makes and copies of requests: as the model says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Tracer
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.rule import Finding
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.session import ClusterOptions, Session

from .client import PATIENCE
from .envoy import Proxy
from .istiod import istio
from .manifests import (
    INGRESS,
    Object,
    destination,
    exact,
    gateway,
    prefix,
    regex,
    server,
    to,
    virtual_service,
)
from .mesh import Mesh

pytestmark = pytest.mark.each_istio

KINDS = ("VirtualService", "Gateway", "Service", "Pod", "DestinationRule", "ConfigMap")
FOLD = {"ignoreUriCase": True}

MATCHES: tuple[Object, ...] = (
    prefix("/x"),
    prefix("/x/"),
    prefix("/X/y", **FOLD),
    prefix("/"),
    prefix(""),
    exact("/x/y"),
    exact("/X", **FOLD),
    regex("/x/.*"),
    {},
)
REWRITES: tuple[Object, ...] = (
    {"uri": "/"},
    {"uri": "/new"},
    {"uri": "/new/"},
    {"uriRegexRewrite": {"match": "^/x/(.*)$", "rewrite": r"/\1/x"}},
    {"uriRegexRewrite": {"match": "/", "rewrite": "//"}},
)
PATHS = ("/", "/x", "/X", "/x/", "/x/y", "/X/Y", "/X/y/z", "/xy", "/x//y", "/x/y?q=/x")


def seen(mesh: Mesh) -> Snapshot:
    session = Session(ClusterOptions(kubeconfig=str(mesh.server.kubeconfig)))
    state = cluster.load(session, set(KINDS), None)
    return Snapshot(state.resources, state.config, state.coverage)


def got(proxy: Proxy, path: str, host: str = "shop:5000", **headers: str) -> str:
    """The path that the backend got."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    said = proxy.request("GET", host, path, named).said
    assert said
    found: str = said["path"]
    return found


def test_backends_get_the_path_that_the_model_says(mesh: Mesh) -> None:
    """For each kind of match and each kind of rewrite, wherever the rule takes the request."""
    mesh.service("shop", ports={"http": 5000}, pods={"v1": 1})
    client = mesh.sidecar()
    rules = [
        to("shop", {**match, "headers": {"x-rule": {"exact": str(n)}}}, rewrite=rewrite)
        for n, (match, rewrite) in enumerate(product(MATCHES, REWRITES))
    ]
    mesh.apply(virtual_service("shop", "shop", *rules, to("shop")))
    mesh.settled()
    tracer = Tracer(Router(seen(mesh)))
    model = Place("default")
    told, found = {}, {}
    for n, path in product(range(len(rules)), PATHS):
        request = request_for(f"http://shop:5000{path}", "GET", {"x-rule": str(n)})
        trace = tracer.trace(model, request, tried=False)
        told[n, path] = trace.path or path
        found[n, path] = got(client, path, x_rule=str(n))
    assert found == told
    changed = {n for (n, path), made in found.items() if made != path}
    assert len(changed) == len(rules) - 3  # `/` in place of `/`, twice; an expression for /x, of /X


def test_the_order_of_two_prefixes_decides_on_the_path(mesh: Mesh) -> None:
    """`compare` shows a request, and backends get the two paths that it tells of it."""
    mesh.service("shop", ports={"http": 5000}, pods={"v1": 1})
    client = mesh.sidecar()
    rewrite = {"uri": "/"}
    one, other = (to("shop", *order, rewrite=rewrite) for order in (MATCHES[:2], MATCHES[1::-1]))
    mesh.apply(virtual_service("shop", "shop", one, to("shop")))
    mesh.settled()
    before, paths = seen(mesh), [got(client, "/x/7")]
    mesh.apply(virtual_service("shop", "shop", other, to("shop")))
    mesh.settled()
    after = seen(mesh)
    paths.append(got(client, "/x/7"))
    assert paths == ["//7", "/7"]
    (difference,) = compare(before, after).differences
    assert isinstance(difference.example, Request)
    told = [
        each.treatment.rewriting.of(difference.example.path)
        for each in (difference.before, difference.after)
    ]
    assert told[1] == got(client, difference.example.path)
    mesh.apply(virtual_service("shop", "shop", one, to("shop")))
    mesh.settled()
    assert told[0] == got(client, difference.example.path)


@pytest.mark.parametrize("code", ["KM601", "KM602"])
def test_a_longer_prefix_that_comes_too_late_is_put_first(mesh: Mesh, code: str) -> None:
    """No request meets it, and yet it is not the same: its requests would get another path."""
    mesh.service("shop", ports={"http": 5000}, pods={"v1": 1})
    client = mesh.sidecar()
    short, long = MATCHES[:2]
    groups = ([short], [long]) if code == "KM601" else ([short, long],)

    def rules(groups: Iterable[Sequence[Object]]) -> Object:
        found = [to("shop", *matches, rewrite={"uri": "/"}) for matches in groups]
        return virtual_service("shop", "shop", *found, to("shop"))

    mesh.apply(rules(groups))
    mesh.settled()
    (found,) = findings(code, seen(mesh))
    assert found.next.startswith("put it before ")
    assert "makes // of the path /x/" in found.evidence[-1]
    assert got(client, "/x/7") == "//7"
    mesh.apply(rules([each[::-1] for each in groups][::-1]))
    mesh.settled()
    assert findings(code, seen(mesh)) == []
    assert got(client, "/x/7") == "/7"


def findings(code: str, snapshot: Snapshot) -> list[Finding]:
    return [each for each in BY_CODE[code].check(snapshot) if isinstance(each, Finding)]


def test_a_merge_that_moves_a_longer_prefix_to_the_front_differs(
    mesh: Mesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three VirtualServices on a gateway the oldest and the youngest become one."""
    mesh.service("shop", ports={"http": 80}, pods={"v1": 1}, target_ports={"http": 5000})
    ingress = mesh.gateway(INGRESS, {80: 8080})
    mesh.apply(gateway("gateway", server("shop.com")))
    for name, match in (("old", prefix("/old")), ("middle", MATCHES[0]), ("young", MATCHES[1])):
        mesh.next_second()
        rule = to("shop", match, rewrite={"uri": "/"})
        mesh.apply(virtual_service(name, "shop.com", rule, gateways=["gateway"]))
    mesh.settled()
    flags = ("--kubeconfig", str(mesh.server.kubeconfig), "--istio-version", istio().text)
    assert main(["merge-vs", "old", "young", *flags]) == 3
    assert "differs rewrite" in capsys.readouterr().out
    assert got(ingress, "/x/7", "shop.com") == "//7"
    how = ("--apply", "--yes", "--wait-for", "delay=1ms", "--journal", str(tmp_path))
    assert main(["merge-vs", "old", "young", "--allow-differences", *how, *flags]) == 0
    mesh.settled()
    assert got(ingress, "/x/7", "shop.com") == "/7"


def test_copies_go_to_the_port_that_the_model_says(mesh: Mesh) -> None:
    """Without a port: in the mesh the one that was called, on a gateway the only one there is."""
    names = {"single": {"http": 8080}, "several": {"http": 80, "http-more": 8080}}
    for name, ports in {"shop": {"http": 80}, "sure": {"http": 9000}, **names}.items():
        mesh.service(name, ports=ports, pods={"v1": 1}, target_ports=dict.fromkeys(ports, 9000))
    client, ingress = mesh.sidecar(), mesh.gateway(INGRESS, {80: 8080})
    mirrors = [destination(name) for name in names]
    rule = to("shop", port=80, mirrors=[destination("sure", port=9000), *mirrors])
    on = ["mesh", "gateway"]
    mesh.apply(
        gateway("gateway", server("shop.example.com")),
        virtual_service("shop", "shop shop.example.com", rule, gateways=on),
    )
    mesh.settled()
    snapshot = seen(mesh)
    gateways = (snapshot.gateways.by_id["default/gateway"],)
    tracer = Tracer(Router(snapshot))
    for proxy, model, host in (
        (client, Place("default"), "shop"),
        (ingress, Place("istio-system", INGRESS, gateways), "shop.example.com"),
    ):
        told = {
            each.upstream.target.cluster: 0 if each.upstream.flag else 3
            for each in tracer.trace(model, request_for(f"http://{host}/")).effect.mirrors
        }
        for _ in range(3):
            assert proxy.request("GET", host).status == 200
        assert copies(proxy, told) == told
    single = "outbound|8080||single.default.svc.cluster.local"
    assert copies(ingress, {single: 3}) == {single: 3}
    assert copies(client, {single: 0}) == {single: 0}


def test_a_mirror_that_moves_differs(mesh: Mesh) -> None:
    """To another port of the same Service: `compare` names it, and copies go there."""
    ports = {"http": 5000, "http-b": 5001}
    mesh.service("shop", ports={"http": 5000}, pods={"v1": 1})
    mesh.service("audit", ports=ports, pods={"v1": 1})
    client = mesh.sidecar()
    names = {port: f"outbound|{port}||audit.default.svc.cluster.local" for port in (5000, 5001)}
    states = []
    for number, port in enumerate(names):
        rule = to("shop", mirror={"host": "audit", "port": {"number": port}})
        mesh.apply(virtual_service("shop", "shop", rule))
        mesh.settled()
        states.append(seen(mesh))
        assert client.request("GET", "shop:5000").status == 200
        wanted = {name: int(index <= number) for index, name in enumerate(names.values())}
        assert copies(client, wanted) == wanted
    (difference,) = compare(*states).differences
    before, after = (
        each.treatment.aspects["mirrors"] for each in (difference.before, difference.after)
    )
    assert before != after
    assert isinstance(difference.example, Request)
    tracers = [Tracer(Router(state)) for state in states]
    told = [
        [each.upstream.target.cluster for each in found.effect.mirrors]
        for found in (tracer.trace(Place("default"), difference.example) for tracer in tracers)
    ]
    assert told == [[name] for name in names.values()]


def copies(proxy: Proxy, wanted: dict[str, int]) -> dict[str, int]:
    """How many requests backends of clusters have answered, once that is what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        stats = proxy.stats(r"^cluster\..*\.upstream_rq_200$")
        found = {name: stats.get(f"cluster.{name}.upstream_rq_200", 0) for name in wanted}
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.01)
