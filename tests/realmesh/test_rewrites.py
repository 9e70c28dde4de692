"""What backends get, the path that a route makes and copies of requests: as the model says."""

from __future__ import annotations

import time
from itertools import product

import pytest

from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Tracer
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.session import ClusterOptions, Session

from .client import PATIENCE
from .envoy import Proxy
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


def copies(proxy: Proxy, wanted: dict[str, int]) -> dict[str, int]:
    """How many requests backends of clusters have answered, once that is what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        stats = proxy.stats(r"^cluster\..*\.upstream_rq_200$")
        found = {name: stats.get(f"cluster.{name}.upstream_rq_200", 0) for name in wanted}
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.01)
