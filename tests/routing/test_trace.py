"""Where a request goes, down to the pods, and what clients get where it goes nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.routing.index import Index
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.proxies import gateways_serving, of_gateway, of_workload
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Trace, Tracer
from kubectl_mesh.routing.upstreams import share, why_these_rules

from .given import (
    Object,
    deployment,
    destination_rule,
    exact,
    gateway,
    istio,
    pod,
    prefix,
    proxy,
    router,
    says,
    server,
    service,
    snapshot,
    thing,
    to,
    virtual_service,
)

WEB = service("web")
HOST = "web.a.svc.cluster.local"
PODS = (deployment("web", version="v1"), deployment("web", version="v2"))
RULES = destination_rule("web", "web", "v1", "v2")


BEFORE_1_24 = MeshConfig(istio=Istio((1, 23)))


def trace(url: str, *objects: Object, through: str = "mesh", **options: Any) -> Trace:
    """A request from namespace a, or through all Gateways."""
    headers, method = options.pop("headers", None), options.pop("method", "GET")
    found = router(*objects, **options)
    source = Proxy("a") if through == "mesh" else proxy(found)
    return Tracer(found).trace(source, request_for(url, method, headers))


def on_mesh(*http: Object) -> tuple[Object, ...]:
    return (WEB, RULES, *PODS, virtual_service("v", ["web"], *http))


def outcome(found: Trace) -> tuple[str, int | None, str | None]:
    return found.effect.outcome, found.effect.status, found.effect.flag


# Outcomes


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (on_mesh(to("web", subset="v1")), ("upstream", None, None)),
        (on_mesh(to("web", subset="v3")), ("no-cluster", 503, "NC")),
        (on_mesh(to("web", port={})), ("upstream", None, None)),
        (on_mesh(to("gone")), ("no-cluster", 503, "NC")),
        (on_mesh(says("x", exact("/x"))), ("no-route", 404, "NR")),
        (on_mesh(says("x")), ("direct-response", 200, None)),
        (on_mesh({"redirect": {"uri": "/new"}}), ("redirect", 301, None)),
        (on_mesh({"redirect": {"redirectCode": 308}}), ("redirect", 308, None)),
        (on_mesh({"redirect": {}}), ("redirect", 301, None)),
        (on_mesh(to("web", redirect={})), ("redirect", 301, None)),
        ((WEB, *PODS), ("upstream", None, None)),
        ((WEB, deployment("web", replicas=0)), ("no-endpoint", 503, "UH")),
        ((service("web", "a", {"name": "http", "port": 81}),), ("passthrough", None, None)),
        ((), ("passthrough", None, None)),
    ],
)
def test_what_becomes_of_a_request(
    objects: tuple[Object, ...], expected: tuple[str, int | None, str | None]
) -> None:
    assert outcome(trace("http://web/", *objects)) == expected


def subset_of(**labels: str) -> Object:
    names = {name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()}
    subsets = [{"name": "s", "labels": names}]
    return istio("DestinationRule", "web", {"host": "web", "subsets": subsets})


def stateful_set(replicas: int) -> Object:
    return {**deployment("web", replicas=replicas), "kind": "StatefulSet"}


@pytest.mark.parametrize(
    ("labels", "pods", "flag", "known"),
    [
        ({"topology.kubernetes.io__zone": "a"}, deployment("web"), None, False),
        ({"app": "other", "topology.kubernetes.io__zone": "a"}, deployment("web"), "UH", True),
        ({"pod_template_hash": "1"}, deployment("web"), None, False),
        ({"rollouts_pod_template_hash": "1"}, deployment("web"), "UH", True),
        ({"statefulset.kubernetes.io__pod_name": "web-1"}, stateful_set(2), None, True),
        ({"statefulset.kubernetes.io__pod_name": "web-2"}, stateful_set(2), "UH", True),
    ],
)
def test_labels_that_no_template_decides(labels, pods, flag, known) -> None:
    rule = subset_of(**labels)
    found = trace(
        "http://web/", WEB, pods, rule, virtual_service("v", ["web"], to("web", subset="s"))
    )
    assert found.effect.flag == flag
    [upstream] = found.effect.upstreams
    assert (upstream.pods is not None) is known


NETWORK = thing("v1", "Namespace", "a", {}, labels={"topology.istio.io/network": "n"})


@pytest.mark.parametrize("rule", [to("web", subset="v3"), to("elsewhere")])
def test_what_another_cluster_may_have_does_not_fail(rule) -> None:
    rules = destination_rule("web", "web", "v1", "v3")
    mesh = (WEB, rules, *PODS, virtual_service("v", ["web"], rule))
    assert trace("http://web/", *mesh).effect.flag in ("UH", "NC")
    assert trace("http://web/", *mesh, NETWORK).effect.flag is None


def test_proxies_take_no_udp() -> None:
    """A port for both is found by the one for TCP, though the other one comes first."""
    ports = [{"name": f"udp-{each}", "port": each, "protocol": "UDP"} for each in (53, 99)]
    dns = service("dns", "a", *ports, {"name": "http", "port": 53})
    gone = {"destination": {"host": "dns", "port": {"number": 99}}}
    rules = {"match": [prefix("/99")], "route": [gone]}, to("dns")
    objects = (dns, deployment("dns"), virtual_service("v", ["dns"], *rules))
    assert outcome(trace("http://dns:53/", *objects)) == ("upstream", None, None)
    found = trace("http://dns:53/99", *objects)
    assert outcome(found) == ("no-cluster", 503, "NC")
    assert found.effect.why == (
        "Service a/dns has port 99 for UDP, which proxies do not take: it has 53 (http)"
    )


def test_an_unknown_host_where_nothing_unknown_is_let_out() -> None:
    config = MeshConfig(registry_only=True)
    assert outcome(trace("http://x.com/", WEB, config=config)) == ("blackhole", 502, None)


def test_an_unknown_host_whose_name_the_sidecar_resolves_by_itself() -> None:
    """Since 1.31. A Sidecar's own policy takes the place of the mesh's."""
    mode = {"outboundTrafficPolicy": {"mode": "ALLOW_ANY_DYNAMIC_DNS"}}
    config = MeshConfig.from_mapping(mode)
    found = trace("http://x.com/", WEB, config=config)
    assert outcome(found) == ("passthrough", None, None)
    assert "ALLOW_ANY_DYNAMIC_DNS: it resolves the name by itself" in found.effect.why
    own = istio("Sidecar", "s", {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}})
    before = replace(config, istio=Istio((1, 30)))
    for objects, settings in (((WEB, own), config), ((WEB,), before)):
        other = trace("http://x.com/", *objects, config=settings)
        assert "to whatever address the client's DNS gave it" in other.effect.why


def test_connection_settings_of_the_mesh_make_some_requests_undecided() -> None:
    """Since 1.31: those with a path, or a header, that they may change or refuse."""
    config = MeshConfig.from_mapping({"defaultConfig": {"connectionSettings": {"profile": "EDGE"}}})
    older = replace(config, istio=Istio((1, 30)))
    rules = (*PODS, virtual_service("v", ["web"], says("x")))
    for url, headers in (
        ("http://web/a//b", {}),
        ("http://web/a%2Fb", {}),
        ("http://web/", {"x_y": "1"}),
    ):
        asked = [
            trace(url, WEB, *rules, config=each, headers=headers)
            for each in (config, older, MeshConfig())
        ]
        assert [each.effect.outcome for each in asked] == [
            *("undecided", "direct-response", "direct-response")
        ]
        assert "defaultConfig.connectionSettings may change its path" in asked[0].effect.why
    assert trace("http://web/a/b", WEB, *rules, config=config).effect.outcome == "direct-response"


@pytest.mark.parametrize(
    ("target", "through", "told"),
    [
        (8080, "mesh", "to port 80, not to targetPort 8080"),
        ("web", "mesh", "to port 80, not to targetPort web"),
        ("same", "mesh", ""),
        ("none", "mesh", ""),
        (80, "mesh", ""),
        (8080, "gateways", ""),
    ],
)
def test_the_target_port_of_a_headless_service(target: int | str, through: str, told: str) -> None:
    ports = [{"name": "web", "containerPort": 8080}, {"name": "same", "containerPort": 80}]
    headless = service(
        "db", "a", {"name": "http", "port": 80, "targetPort": target}, clusterIP="None"
    )
    pods = deployment("db")
    pods["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    found = trace(
        "http://db/" if through == "mesh" else "http://x.com/",
        headless,
        pods,
        gateway("g", server()),
        virtual_service("v", ["x.com"], to("db"), gateways=["g"]),
        through=through,
    )
    assert outcome(found) == ("upstream", None, None)
    assert found.effect.why.endswith(told)
    assert bool(found.effect.why) == bool(told)


def test_a_share_of_requests_that_gets_nowhere_is_told() -> None:
    rule = {
        "route": [
            {"destination": {"host": "web", "subset": "v1"}, "weight": 25},
            {"destination": {"host": "web", "subset": "v3"}, "weight": 75},
        ]
    }
    found = trace("http://web/", *on_mesh(rule))
    assert outcome(found) == ("upstream", None, None)
    assert found.effect.why.startswith("75% of them get 503: subset v3 is not defined")
    assert [share(up.target, found.effect.upstreams) for up in found.effect.upstreams] == [
        "25%", "75%",
    ]  # fmt: skip


def test_the_pods_of_a_gateway_that_is_scaled_to_zero() -> None:
    """They tell where its pods will be, and so whose rules they have."""
    made = deployment("istio", "edge", replicas=0)
    made["spec"]["template"]["metadata"]["labels"] = {"istio": "ingress"}
    found = snapshot(gateway("gw", server("*")), made)
    named = of_gateway(found, found.gateways.all[0])
    assert named.proxy.namespace == "edge"
    assert named.notes == (
        "Deployment edge/istio is scaled to zero: nothing answers until it has a pod",
    )


def test_pods_are_those_of_the_subset() -> None:
    found = trace("http://web/", *on_mesh(to("web", subset="v2")))
    (up,) = found.effect.upstreams
    assert up.pods
    assert [str(each) for each in up.pods] == ["Deployment a/web-v2"]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((True, False), "upstream"),
        ((False, False), "no-endpoint"),
        ((), "no-endpoint"),
        ((None,), "upstream"),
    ],
)
def test_of_live_pods_one_must_be_ready(states: tuple[bool | None, ...], expected: str) -> None:
    pods = [pod(f"p{number}", ready=ready, app="web") for number, ready in enumerate(states)]
    found = trace("http://web/", WEB, deployment("web"), *pods, live=True)
    assert found.effect.outcome == expected


@pytest.mark.parametrize(
    ("abort", "expected"),
    [
        ({"httpStatus": 418, "percentage": {"value": 100}}, ("abort", 418, "FI")),
        ({"grpcStatus": "UNAVAILABLE", "percentage": {"value": 100}}, ("abort", 200, "FI")),
        ({"httpStatus": 418, "percentage": {"value": 50}}, ("upstream", None, None)),
        ({"httpStatus": 418}, ("upstream", None, None)),
    ],
)
def test_a_fault_answers_when_it_hits_every_request(
    abort: Object, expected: tuple[str, int | None, str | None]
) -> None:
    found = trace("http://web/", *on_mesh(to("web", fault={"abort": abort})))
    assert outcome(found) == expected


def test_a_rule_for_chosen_clients_is_for_them_and_hides_others_from_the_rest() -> None:
    """As tests/realmesh/test_destination_rules.py shows."""
    chosen = destination_rule(
        "c", HOST, "v2", namespace="b", workloadSelector={"matchLabels": {"app": "x"}}
    )
    found = router(*on_mesh(to("web", subset="v1")), chosen)

    def flag(*clients: Proxy) -> list[str | None]:
        request = request_for("http://web.a/")
        return [Tracer(found).trace(client, request).effect.flag for client in clients]

    assert flag(Proxy("b", {"app": "x"}), Proxy("b"), Proxy("c", {"app": "x"})) == [
        *("NC", "NC", None)
    ]
    for_all = destination_rule("z", HOST, "v1", namespace="b")
    found = router(*on_mesh(to("web", subset="v1")), chosen, for_all)
    assert flag(Proxy("b", {"app": "x"}), Proxy("b")) == ["NC", None]
    found = router(*on_mesh(to("web", subset="v1")), chosen, for_all, config=BEFORE_1_24)
    assert flag(Proxy("b", {"app": "x"}), Proxy("b")) == [None, None]


@pytest.mark.parametrize("vain", [to("web", subset="gone"), to("idle")])
def test_what_is_sent_to_nobody_is_not_copied(vain: Object) -> None:
    idle = (service("idle"), deployment("idle", replicas=0), destination_rule("idle", "idle"))
    found = trace("http://web/", *idle, *on_mesh({**vain, "mirror": {"host": "web"}}))
    assert found.effect.status == 503
    assert not found.effect.mirrors


PREFLIGHT = {"origin": "http://one.example", "access-control-request-method": "PUT"}
ALLOWED = {"allowOrigins": [{"exact": "http://one.example"}]}
ABORTED = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}


@pytest.mark.parametrize(
    ("rule", "headers", "expected"),
    [
        (to("web", corsPolicy=ALLOWED), {}, "preflight"),
        (to("web", corsPolicy={"allowOrigins": [{"exact": "*"}]}), {}, "preflight"),
        (to("web", corsPolicy={"allowOrigins": [{"prefix": "http:"}]}), {}, "preflight"),
        (to("web", corsPolicy={"allowOrigins": [{"regex": "http:.*"}]}), {}, "preflight"),
        (to("web", corsPolicy={"allowOrigins": [{"regex": "http:"}]}), {}, "upstream"),
        (to("web", corsPolicy={"allowOrigins": [{"regex": "[*]"}]}), {}, "preflight"),
        (to("web", corsPolicy={"allowOrigins": [{"regex": "(?=x)"}]}), {}, "undecided"),
        (to("web", corsPolicy={"allowOrigin": ["http://one.example"]}), {}, "preflight"),
        (to("web", corsPolicy={}), {}, "upstream"),
        (to("web", corsPolicy=ALLOWED), {"origin": "http://two.example"}, "upstream"),
        (
            to("web", corsPolicy={**ALLOWED, "unmatchedPreflights": "IGNORE"}),
            {"origin": "http://two.example"},
            "preflight",
        ),
        (to("web", corsPolicy=ALLOWED), {"access-control-request-method": ""}, "upstream"),
        (to("gone", corsPolicy=ALLOWED), {}, "preflight"),
        (to("web", corsPolicy=ALLOWED, fault=ABORTED), {}, "abort"),
        (says("x", corsPolicy=ALLOWED), {}, "direct-response"),
        ({"redirect": {"uri": "/x"}, "corsPolicy": ALLOWED}, {}, "redirect"),
    ],
)
def test_a_cors_policy_answers_preflights(
    rule: Object, headers: dict[str, str], expected: str
) -> None:
    """Where the request would go to an upstream, if it came to that."""
    given = {**PREFLIGHT, **headers}
    found = trace("http://web/", *on_mesh(rule), method="OPTIONS", headers=given)
    assert found.effect.outcome == expected
    if expected == "preflight":
        assert found.effect.status == 200
        assert not found.effect.upstreams
    assert trace("http://web/", *on_mesh(rule), headers=given).effect.outcome != "preflight"


def test_mirrors_are_followed_and_those_of_no_percent_left_out() -> None:
    rule = to(
        "web",
        mirrors=[
            {"destination": {"host": "web", "subset": "v2"}, "percentage": {"value": 5}},
            {"destination": {"host": "web", "subset": "v1"}, "percentage": {"value": 0}},
            {"destination": {"host": "gone"}},
        ],
    )
    mirrors = trace("http://web/", *on_mesh(rule)).effect.mirrors
    assert [(each.upstream.target.cluster, each.percent) for each in mirrors] == [
        (f"outbound|80|v2|{HOST}", 5),
        ("outbound|80||gone.a.svc.cluster.local", 100),
    ]
    assert [each.upstream.flag for each in mirrors] == [None, "NC"]


# What is not HTTP


def test_tls_passes_the_sidecar() -> None:
    found = trace("https://web/", *on_mesh(says("x")))
    assert found.effect.outcome == "passthrough"
    assert found.effect.why.startswith("Service a/web has no port 443: it has 80 (http)")
    assert "TLS passes through it unopened" in found.listener


def test_a_tcp_port_goes_to_the_service_whatever_the_http_rules_say() -> None:
    tcp = service("web", "a", {"name": "tcp", "port": 80})
    found = trace("http://web/", tcp, *PODS, virtual_service("v", ["web"], says("x")))
    assert found.effect.outcome == "upstream"
    assert "the port is tcp, not HTTP, and http rules have no effect" in found.listener
    assert [up.target.cluster for up in found.effect.upstreams] == [f"outbound|80||{HOST}"]


@pytest.mark.parametrize(
    ("url", "expected", "why"),
    [
        ("http://x.com/", "direct-response", ""),
        ("https://x.com/", "direct-response", ""),
        ("http://x.com:81/", "refused", "nothing listens on port 81 of the gateway, whose ports"),
        ("https://x.com:80/", "refused", "speaks plain HTTP"),
        ("http://x.com:443/", "refused", "expects TLS"),
        ("https://y.com/", "refused", "server name y.com"),
        ("https://x.com:8443/", "refused", "TLS that the gateway does not open"),
        ("http://y.com/", "no-route", "no VirtualService"),
    ],
)
def test_what_a_gateway_listens_to(url: str, expected: str, why: str) -> None:
    found = trace(
        url,
        gateway(
            "gw",
            server(number=80),
            server("x.com", number=443, protocol="HTTPS", tls={"mode": "SIMPLE"}),
            server(number=8443, protocol="TLS", tls={"mode": "PASSTHROUGH"}),
        ),
        virtual_service("v", ["x.com"], says("x"), gateways=["gw"]),
        through="gateway",
    )
    assert found.effect.outcome == expected
    assert why in found.effect.why


# Redirects and rewrites


@pytest.mark.parametrize(
    ("redirect", "url", "location"),
    [
        ({"uri": "/n"}, "http://web/x?q=1", "http://web/n?q=1"),
        ({"uri": "/n?x=1"}, "http://web/x?q=1", "http://web/n?x=1"),
        ({"uri": "n"}, "http://web/x", "http://web/n"),
        ({"authority": "h"}, "http://web/x?q=1", "http://h/x?q=1"),
        ({"scheme": "https"}, "http://web:80/x", "https://web/x"),
        ({"uri": "/n"}, "http://web:80/x", "http://web:80/n"),
        ({"port": 8080}, "http://web:80/x", "http://web:8080/x"),
        ({"port": 80}, "http://web/x", "http://web/x"),
        ({"port": 443, "scheme": "https"}, "http://web/x", "https://web/x"),
        ({"port": 8080, "authority": "h:99"}, "http://web/x", "http://h:99:8080/x"),
        ({"derivePort": "FROM_REQUEST_PORT", "scheme": "https"}, "http://web/", "https://web:80/"),
        ({"derivePort": "FROM_PROTOCOL_DEFAULT"}, "http://web/", "http://web/"),
        ({"uri": "/n"}, "http://web/a/../b", "http://web/n"),
        ({"scheme": "https"}, "http://web/a/../b", "https://web/b"),
    ],
)
def test_redirects_as_envoy_makes_them(redirect: Object, url: str, location: str) -> None:
    found = trace(url, *on_mesh({"redirect": redirect}))
    assert found.location == location


@pytest.mark.parametrize(
    ("match", "url", "location"),
    [
        (prefix("/a"), "http://web/a/b?q=1", "http://web/new/b?q=1"),
        (prefix("/a/"), "http://web/a/b", "http://web/newb"),
        (prefix("/A", ignoreUriCase=True), "http://web/a", "http://web/new"),
        ({}, "http://web/a", "http://web/newa"),
    ],
)
def test_redirects_that_replace_the_prefix_that_matched(
    match: Object, url: str, location: str
) -> None:
    rule = {"match": [match], "redirect": {"prefixRewrite": "/new"}}
    assert trace(url, *on_mesh(rule)).location == location


@pytest.mark.parametrize(
    ("match", "rewrite", "url", "path"),
    [
        (prefix("/a"), {"uri": "/b"}, "http://web/a/c?q=1", "/b/c?q=1"),
        (prefix("/a/"), {"uri": "/"}, "http://web/a/c", "/c"),
        (prefix("/A", ignoreUriCase=True), {"uri": "/b"}, "http://web/a/c", "/b/c"),
        (exact("/a"), {"uri": "/b"}, "http://web/a", "/b"),
        ({"uri": {"regex": "/a.*"}}, {"uri": "/b"}, "http://web/a/c", "/b"),
        ({}, {"uri": "/v2"}, "http://web/hello", "/v2hello"),
        ({}, {"authority": "h"}, "http://web/hello", None),
        (
            {},
            {"uriRegexRewrite": {"match": "^/([^/]+)/(.*)", "rewrite": r"/\2/\1"}},
            "http://web/a/b?q=1",
            "/b/a?q=1",
        ),
        ({}, {"uriRegexRewrite": {"match": "(?=a)", "rewrite": ""}}, "http://web/a", None),
    ],
)
def test_what_a_rewrite_makes_of_the_path(
    match: Object, rewrite: Object, url: str, path: str | None
) -> None:
    assert trace(url, *on_mesh(to("web", match, rewrite=rewrite))).path == path


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("x.com", "https://x.com/p?q=1"),
        ("y.com", "https://y.com/p?q=1"),
        ("plain.com", None),
        ("none.com", None),
    ],
)
def test_a_server_that_redirects_to_https(host: str, location: str | None) -> None:
    found = trace(
        f"http://{host}/p?q=1",
        gateway(
            "gw",
            server("x.com", "y.com", tls={"httpsRedirect": True}),
            server("plain.com"),
        ),
        virtual_service("v", ["x.com", "plain.com"], says("x"), gateways=["gw"]),
        through="gateway",
    )
    assert found.location == location
    assert (found.effect.outcome == "redirect") is (location is not None)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a//b", "/a//b"),
        ("/%41%2d%7E", "/A-~"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a/%2e%2e/b", "/b"),
        ("/a\\b", "/a/b"),
        ('/a|"<>{}^`', "/a%7C%22%3C%3E%7B%7D%5E%60"),
        ("/a%zz%", "/a%zz%"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/../", "/a/"),
        ("/a;b='(c)'[d]", "/a;b='(c)'[d]"),
        ("/a/", "/a/"),
        ("/a.b/.c/d..", "/a.b/.c/d.."),
    ],
)
def test_paths_are_normalized_as_envoy_does_it(path: str, normal: str) -> None:
    """As measured on Envoy with normalize_path, which istiod turns on."""
    tracer = Tracer(Router(snapshot()))
    found = tracer.trace(Proxy("a"), Request("web", 80, path))
    assert found.request.path == normal


@pytest.mark.parametrize(
    ("how", "path", "normal"),
    [
        ("NONE", "/a/../%41//b", "/a/../%41//b"),
        ("MERGE_SLASHES", "/a/..//b///%2F", "/b/%2F"),
        ("DECODE_AND_MERGE_SLASHES", "/a%2f..%5C/b", "/b"),
        ("BASE", "//a//b", "//a//b"),
    ],
)
def test_paths_are_normalized_as_the_mesh_wants(how: str, path: str, normal: str) -> None:
    """As tests/realmesh/test_paths.py shows."""
    config = MeshConfig.from_mapping({"pathNormalization": {"normalization": how}})
    tracer = Tracer(Router(snapshot(config=config)))
    assert tracer.trace(Proxy("a"), Request("web", 80, path)).request.path == normal


# Why


def test_the_routes_tried_before_are_told_with_what_they_demand() -> None:
    found = trace("http://web/b", *on_mesh(says("a", exact("/a")), says("b", prefix("/b"))))
    assert [(each.route.rule and each.route.rule.index, each.why) for each in found.passed] == [
        (0, "the path is not '/a'")
    ]


def test_what_cannot_be_decided_names_the_rule() -> None:
    claims = {"headers": {"@request.auth.claims.sub": {"exact": "x"}}}
    rules = (says("a", exact("/a")), says("b", claims), says("c"))
    vs = virtual_service("v", ["x.com"], *rules, gateways=["gw"])
    found = trace("http://x.com/", gateway("gw", server()), vs, through="gateway")
    assert outcome(found) == ("undecided", None, None)
    assert found.undecided
    assert "claims.sub" in found.undecided
    assert found.route
    assert found.route.rule
    assert found.route.rule.index == 1
    assert len(found.passed) == 1


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([destination_rule("r", HOST, "v1")], "of the client's own namespace, the first"),
        ([destination_rule("r", HOST, "v1", namespace="b")], "none for {} that proxies in c"),
        ([], "there is none for {} at all"),
        (
            [destination_rule("r", HOST, "v1"), destination_rule("s", HOST, namespace="c")],
            "own namespace, the first that is looked at; not used: DestinationRule a/r",
        ),
        (
            [
                destination_rule("old", HOST, "v1", age=1),
                destination_rule("young", HOST, "v2", exportTo=["*"]),
            ],
            "not used: DestinationRule a/old; DestinationRule a/young takes the place of "
            "DestinationRule a/old, since Istio 1.24: their exportTo differ",
        ),
        (
            [
                destination_rule("old", HOST, "v1", age=1, exportTo=["b"]),
                destination_rule("young", HOST, "v2", exportTo=["b", "c"]),
            ],
            "; DestinationRule a/young is joined with DestinationRule a/old, whose exportTo holds "
            "for both",
        ),
        (
            [destination_rule("r", "*.a.svc.cluster.local", "v1")],
            "*.a.svc.cluster.local is the most specific",
        ),
        (
            [destination_rule("r", HOST, "v1", namespace="istio-system")],
            "of the root namespace, the last",
        ),
    ],
)
def test_the_look_up_is_explained(rules: list[Object], why: str) -> None:
    found = router(WEB, *PODS, *rules)
    namespace = "a" if "own" in why and len(rules) == 1 else "c"
    traced = Tracer(found).trace(Proxy(namespace), request_for("http://web.a/"))
    (up,) = traced.effect.upstreams
    assert why.format(HOST) in why_these_rules(up, namespace, found.snapshot)


# Proxies


def test_the_pods_of_a_gateway_are_its_proxy_with_all_gateways_that_select_them() -> None:
    found = snapshot(
        gateway("one", server(), app="in"),
        gateway("two", server(), istio="ingress", age=1),
        gateway("three", server(), app="other"),
        deployment("in", namespace="edge", istio="ingress"),
    )
    vantage = of_gateway(found, found.gateways.by_id["a/one"])
    assert vantage.proxy.namespace == "edge"
    assert vantage.proxy.labels == {"app": "in", "istio": "ingress"}
    assert [each.id for each in vantage.proxy.gateways] == ["a/two", "a/one"]  # type: ignore[union-attr]
    assert not vantage.notes


def test_a_gateway_without_pods_is_taken_to_be_in_the_root_namespace() -> None:
    found = snapshot(gateway("one", server()))
    vantage = of_gateway(found, found.gateways.all[0])
    assert vantage.proxy.namespace == "istio-system"
    assert "taken to run in istio-system" in vantage.notes[0]


def test_a_pod_without_sidecar_is_told_of() -> None:
    bare = pod("bare", ready=True, app="x")
    found = snapshot(bare)
    vantage = of_workload(found, found.workloads.all[0])
    assert vantage.name == "Pod a/bare"
    assert "no sidecar" in vantage.notes[0]


TLS = {"number": 443, "protocol": "HTTPS", "tls": {"mode": "SIMPLE"}}
TWO_CERTIFICATES = (
    gateway("front", server("a.com", **TLS)),
    gateway("beside", server("b.com", **TLS)),
    virtual_service("a", ["a.com"], says("a"), gateways=["front"]),
    virtual_service("b", ["b.com"], says("b"), gateways=["beside"]),
)


@pytest.mark.parametrize(
    ("url", "host", "server_name", "answer"),
    [
        ("https://a.com/", None, None, ("direct-response", "a")),
        ("https://a.com/", "b.com", None, ("no-route", None)),
        ("https://b.com/", None, "a.com", ("no-route", None)),
        ("https://a.com/", "b.com", "b.com", ("direct-response", "b")),
        ("https://b.com/", None, "c.com", ("refused", None)),
    ],
)
def test_the_server_for_the_name_in_tls_routes_whatever_the_host_header_says(
    url: str, host: str | None, server_name: str | None, answer: tuple[str, str | None]
) -> None:
    """As a browser meets it that uses one connection for two hosts of a certificate."""
    mesh = Router(snapshot(*TWO_CERTIFICATES))
    front = of_gateway(mesh.snapshot, mesh.snapshot.gateways.by_id["a/front"])
    request = request_for(url, headers={"Host": host} if host else {}, server_name=server_name)
    found = Tracer(mesh).follow(front.proxy, request)
    body = found.route.action.data["directResponse"]["body"]["string"] if found.route else None
    assert (found.effect.outcome, body) == answer


@pytest.mark.parametrize(
    ("port", "host", "reached"),
    [
        ({"name": "web", "port": 9000}, "anything", "outbound|9000||web.a.svc.cluster.local"),
        ({"name": "web", "port": 9000}, "other", "outbound|9000||web.a.svc.cluster.local"),
        ({"name": "http", "port": 9000}, "other", "outbound|9000||other.a.svc.cluster.local"),
        ({"name": "http", "port": 9000}, "anything", None),
        ({"name": "tcp", "port": 9000}, "other", "outbound|9000||web.a.svc.cluster.local"),
    ],
)
def test_what_a_host_header_other_than_the_host_that_is_dialled_does(
    port: Object, host: str, reached: str | None
) -> None:
    """A port whose protocol is detected has a listener of its own, for any Host header."""
    objects = (
        service("web", "a", port, clusterIP="10.0.0.7"),
        service("other", "a", {"name": "http", "port": 9000}, clusterIP="10.0.0.8"),
    )
    request = request_for("http://web:9000/", headers={"Host": host})
    found = Tracer(Router(snapshot(*objects))).follow(Proxy("a"), request)
    assert [up.target.cluster for up in found.effect.upstreams] == ([reached] if reached else [])


def test_a_service_that_the_sidecar_hides_is_named_whatever_its_port() -> None:
    hiding = istio("Sidecar", "s", {"egress": [{"hosts": ["./*"]}]})
    for name in ("web", "http"):
        hidden = service("web", "b", {"name": name, "port": 9000}, clusterIP="10.0.0.7")
        assert "Service b/web" in trace("http://web.b:9000/", hidden, hiding).effect.why


def test_the_gateways_that_serve_a_host() -> None:
    found = router(
        gateway("one", server()),
        gateway("two", server(number=443, protocol="HTTPS", tls={"mode": "SIMPLE"})),
        gateway("three", server()),
        virtual_service("v", ["x.com"], says("x"), gateways=["one", "two"]),
    )
    serving = gateways_serving(found, request_for("http://x.com/"))
    assert [each.id for each in serving] == ["a/one", "a/two"]
    assert gateways_serving(found, request_for("http://y.com/")) == []


# The index


PATHS = ("/", "/a", "/a/b", "/A/b", "/ab", "/b", "/b/c", "/a.b")
MATCHES: tuple[Object, ...] = (
    *(exact(path) for path in PATHS),
    *(prefix(path) for path in PATHS[1:]),
    exact("/A", ignoreUriCase=True),
    prefix("/A/", ignoreUriCase=True),
    *(
        {"uri": {"regex": expression}}
        for expression in ("/a.*", "/ab?", "/ab*", "/a|/b", "/(a|b)", r"/a\.b", "/.*", "/ab{0,1}",
                           "(?i)/A", "/a+b")
    ),
    {"headers": {"x": {"exact": "1"}}},
    {"headers": {"x": {"prefix": "1"}}},
    {"headers": {"x": {}}},
    {"method": {"exact": "GET"}},
    {"method": {"exact": "PUT"}},
    {"authority": {"exact": "web"}},
    {"withoutHeaders": {"x": {}}},
    prefix("/a", headers={"x": {"exact": "1"}}),
    {"headers": {"@request.auth.claims.sub": {"exact": "x"}, "x": {"exact": "1"}}},
    prefix("/b", headers={"@request.auth.claims.sub": {"exact": "x"}}),
    {"uri": {"regex": "(?=/b)"}},
)  # fmt: skip


@pytest.mark.parametrize("turn", range(len(MATCHES)))
def test_the_index_answers_as_the_table_does(turn: int) -> None:
    """Each match comes first once."""
    ordered = [*MATCHES[turn:], *MATCHES[:turn]]
    rules = [says(str(number), match) for number, match in enumerate(ordered)]
    found = router(WEB, virtual_service("v", ["web"], *rules))
    table = found.sidecar(Proxy("a"), "web", 80)
    assert len(table.routes) == len(MATCHES)
    index = Index(table)
    for path in (*PATHS, "/a/b/c", "/B", "/aab", "/", "/axb"):
        for headers in ({}, {"x": "1"}, {"x": "12"}):
            request = request_for(f"http://web{path}", "GET", headers)
            try:
                expected = table.first(request)
            except Undecidable:
                with pytest.raises(Undecidable):
                    index.first(request)
            else:
                assert index.first(request) is expected


# What stands for another host


def alias(name: str, external_name: str, *ports: int) -> Object:
    listed = [{"name": f"http-{port}", "port": port} for port in ports]
    return service(name, "a", *listed, type="ExternalName", externalName=external_name)


def test_a_service_of_type_external_name_is_another_name_of_its_host() -> None:
    """On all ports of that host, whatever its own ports are; a chain of them is followed."""
    named = alias("named", HOST)
    again = alias("again", "named.a.svc.cluster.local")
    rules = virtual_service("v", ["web"], says("rule"))
    for host in ("named", "named.a.svc.cluster.local", "again"):
        found = trace(f"http://{host}/", WEB, *PODS, named, again)
        assert [up.target.cluster for up in found.effect.upstreams] == [f"outbound|80||{HOST}"]
        ruled = trace(f"http://{host}/", WEB, named, again, rules)
        assert outcome(ruled) == ("direct-response", 200, None)
    own = virtual_service("own", ["named"], says("own"))
    assert trace("http://named/", WEB, alias("named", HOST, 80), own).table.domain == "named"


def test_an_external_name_that_the_registry_does_not_know_is_let_out() -> None:
    found = trace("http://named/", WEB, alias("named", "example.com", 80))
    assert outcome(found) == ("passthrough", None, None)
    assert found.effect.why.startswith("Service a/named stands for example.com, which is not known")
    loop = alias("one", "two.a.svc.cluster.local"), alias("two", "one.a.svc.cluster.local")
    assert outcome(trace("http://one/", *loop)) == ("passthrough", None, None)


def test_what_an_external_name_as_a_destination_does_is_not_claimed() -> None:
    named = alias("named", HOST, 80)
    found = trace("http://web/", WEB, named, virtual_service("v", ["web"], to("named", subset="v")))
    assert [(up.flag, up.pods) for up in found.effect.upstreams] == [(None, None)]
    assert "a sidecar answers 503 instead" in found.effect.upstreams[0].why


@pytest.mark.parametrize(
    ("spec", "release", "subset", "flag", "said"),
    [
        ({"resolution": "DYNAMIC_DNS"}, (1, 30), None, None, "the name that the client asks for"),
        ({"resolution": "DYNAMIC_DNS"}, (1, 30), "v1", "NC", "has no subsets, as its resolution"),
        ({"resolution": "DYNAMIC_DNS"}, (1, 29), "v1", None, "is not known here"),
        ({"resolution": "NONE"}, (1, 31), None, None, "the client dials, at port 8080"),
        ({}, (1, 31), None, None, "the client dials, at port 8080"),
    ],
)
def test_where_requests_for_hosts_outside_go(
    spec: Object, release: tuple[int, int], subset: str | None, flag: str | None, said: str
) -> None:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}]
    outside = istio("ServiceEntry", "e", {"hosts": ["*.w.com"], "ports": ports, **spec})
    rules = destination_rule("w", "*.w.com", "v1")
    route = virtual_service(
        "v", ["*.w.com"], to("*.w.com", **({"subset": subset} if subset else {}))
    )
    config = MeshConfig(istio=Istio(release))
    found = trace("http://en.w.com/", outside, rules, route, config=config)
    (up,) = found.effect.upstreams
    assert up.flag == flag
    assert said in up.why


def at(*addresses: str, name: str = "e") -> Object:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec = {"hosts": [f"{name}.com"], "addresses": list(addresses), "ports": ports}
    return istio("ServiceEntry", name, spec)


def test_http_by_the_address_of_a_service_entry() -> None:
    """Of several addresses istiod gives any one to the proxies, so that nothing is sure."""
    found = trace("http://240.1.1.1/", at("240.1.1.1/32"))
    assert [up.target.host for up in found.effect.upstreams] == ["e.com"]
    assert outcome(trace("http://240.1.1.2/", at("240.1.1.1"))) == ("passthrough", None, None)
    for objects in (
        (at("240.1.1.1", "240.1.1.2"),),
        (at("240.1.1.1", "240.2.0.0/16"),),
        (at("240.1.1.1"), at("240.1.1.1", name="f")),
    ):
        found = trace("http://240.1.1.1/", *objects)
        assert found.effect.outcome == "undecided"
        assert "240.1.1.1 is an address of e.com of ServiceEntry a/e" in found.effect.why
        assert trace("http://e.com/", *objects).effect.outcome == "upstream"
