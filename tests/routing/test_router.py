"""Which routes a proxy has for a host."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.routing.request import request_for

from .given import (
    Object,
    asked,
    entry,
    exact,
    gateway,
    istio,
    prefix,
    proxy,
    router,
    says,
    server,
    service,
    to,
    virtual_service,
)

HOST = "web.a.svc.cluster.local"
WEB = service("web")
HTTP_AND_MORE = ({"name": "http", "port": 80}, {"name": "http-more", "port": 81})


def sidecar_egress(*hosts: str, namespace: str = "a", **spec: Any) -> Object:
    return istio("Sidecar", "default", {"egress": [{"hosts": list(hosts)}], **spec}, namespace)


# Sidecars


def test_the_first_rule_that_matches_wins() -> None:
    found = router(
        WEB, virtual_service("v", ["web"], says("one", prefix("/a")), says("two", prefix("/a/b")))
    )
    assert asked(found, "http://web/a/b") == "one"
    assert asked(found, "http://web/b") == "404"


def test_a_service_without_rules_has_a_route_of_its_own() -> None:
    assert asked(router(WEB), "http://web/") == f"service {HOST}"


@pytest.mark.parametrize("name", ["web", "web.a", "web.a.svc", HOST, "WEB.a", "10.1.2.3"])
def test_a_service_answers_to_all_its_names(name: str) -> None:
    found = router(
        service("web", clusterIP="10.1.2.3"), virtual_service("v", ["web"], says("rule"))
    )
    assert asked(found, f"http://{name}/") == "rule"


def test_the_absolute_name_is_the_same_host_since_1_27() -> None:
    """The whole name, that is; on sidecars, and for what the registry knows."""
    objects = (
        service("web", clusterIP="None"),
        entry("wild", ["*.wild.com", "x.com"]),
        virtual_service("v", ["web"], says("rule")),
        virtual_service("outside", ["out.com"], says("outside")),
    )
    found = router(*objects)
    assert asked(found, f"http://{HOST}./") == "rule"
    assert asked(found, f"http://pod.{HOST}./") == "rule"
    assert asked(found, "http://a.wild.com./") == "service *.wild.com"
    assert asked(found, "http://x.com./") == "service x.com"
    for name in ("web.", "web.a.", "web.a.svc.", "out.com."):
        assert asked(found, f"http://{name}/") == "passthrough"
    switched_off = {"PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN": "false"}
    for istio_before in (Istio((1, 26)), Istio((1, 27), settings=switched_off)):
        found = router(*objects, config=MeshConfig(istio=istio_before))
        for name in (HOST, f"pod.{HOST}", "a.wild.com", "x.com"):
            assert asked(found, f"http://{name}./") == "passthrough"


def test_the_short_name_is_of_the_clients_own_namespace() -> None:
    found = router(WEB, service("web", "b"))
    assert asked(found, "http://web/", Proxy("b")) == "service web.b.svc.cluster.local"
    assert asked(found, "http://web/", Proxy("c")) == "passthrough"
    assert asked(found, "http://web.a/", Proxy("c")) == f"service {HOST}"


def test_the_oldest_of_a_host_wins_and_the_others_are_dead() -> None:
    found = router(
        WEB,
        virtual_service("young", ["web"], says("young"), age=1),
        virtual_service("old", [HOST], says("old", prefix("/old")), age=2),
    )
    assert asked(found, "http://web/old") == "old"
    assert asked(found, "http://web/other") == "404"


def test_one_that_has_no_route_for_the_client_leaves_the_host_to_the_next() -> None:
    found = router(
        WEB,
        virtual_service("old", ["web"], says("x", {"sourceLabels": {"app": "x"}}), age=2),
        virtual_service("young", ["web"], says("all"), age=1),
    )
    assert asked(found, "http://web/", Proxy("a", {"app": "x", "more": "y"})) == "x"
    assert asked(found, "http://web/", Proxy("a", {"app": "y"})) == "all"


@pytest.mark.parametrize(
    ("match", "client", "answer"),
    [
        ({"sourceLabels": {"app": "x"}}, Proxy("a", {"app": "x"}), "rule"),
        ({"sourceLabels": {"app": "x"}}, Proxy("a"), f"service {HOST}"),
        ({"sourceNamespace": "b"}, Proxy("b"), "rule"),
        ({"sourceNamespace": "b"}, Proxy("a"), f"service {HOST}"),
        ({"port": 80}, Proxy("a"), "rule"),
        ({"port": 81}, Proxy("a"), f"service {HOST}"),
        ({"gateways": ["mesh"]}, Proxy("a"), "rule"),
        ({"gateways": ["gw"]}, Proxy("a"), f"service {HOST}"),
        ({"gateways": ["mesh"], "sourceLabels": {"app": "x"}}, Proxy("a"), "rule"),
        ({"gateways": ["mesh"], "sourceNamespace": "b"}, Proxy("a"), "rule"),
    ],
)
def test_what_a_match_demands_of_the_client(
    match: dict[str, Any], client: Proxy, answer: str
) -> None:
    vs = virtual_service("v", ["web"], says("rule", match), gateways=["mesh", "gw"])
    assert asked(router(WEB, vs), "http://web.a/", client) == answer


def test_rules_after_a_catch_all_are_left_out() -> None:
    found = router(WEB, virtual_service("v", ["web"], says("all"), says("dead", exact("/x"))))
    assert asked(found, "http://web/x") == "all"
    assert len(found.sidecar(Proxy("a"), "web", 80).routes) == 1


def test_a_virtual_service_for_gateways_alone_means_nothing_to_sidecars() -> None:
    vs = virtual_service("v", ["web"], says("rule"), gateways=["gw"])
    assert asked(router(WEB, vs), "http://web/") == f"service {HOST}"


@pytest.mark.parametrize(
    ("export", "namespace", "answer"),
    [
        (["."], "a", "rule"),
        (["."], "b", f"service {HOST}"),
        (["b"], "b", "rule"),
        (["b"], "a", f"service {HOST}"),
        (["*"], "b", "rule"),
        (["~"], "a", f"service {HOST}"),
    ],
)
def test_export_to(export: list[str], namespace: str, answer: str) -> None:
    found = router(WEB, virtual_service("v", ["web"], says("rule"), exportTo=export))
    assert asked(found, "http://web.a/", Proxy(namespace)) == answer


def test_what_is_private_to_the_client_comes_before_what_is_older_and_public() -> None:
    found = router(
        WEB,
        virtual_service("public", ["web"], says("public"), age=3),
        virtual_service("named", [HOST], says("named"), namespace="c", exportTo=["b"], age=2),
        virtual_service("own", [HOST], says("own"), namespace="b", exportTo=["."], age=1),
    )
    assert asked(found, "http://web.a/", Proxy("a")) == "public"
    assert asked(found, "http://web.a/", Proxy("b")) == "own"


@pytest.mark.parametrize(
    ("hosts", "answer"),
    [
        (["a/*"], "rule"),
        (["./*"], "rule"),
        (["*/*"], "rule"),
        ([f"a/{HOST}"], "rule"),
        (["b/*"], "passthrough"),
        (["a/other.a.svc.cluster.local"], "passthrough"),
    ],
)
def test_egress_of_a_sidecar_limits_what_the_client_is_told_of(
    hosts: list[str], answer: str
) -> None:
    found = router(WEB, virtual_service("v", ["web"], says("rule")), sidecar_egress(*hosts))
    assert asked(found, "http://web/") == answer
    assert asked(found, "http://web.a/", Proxy("b")) == "rule"


def test_the_sidecar_of_a_workload_comes_before_the_namespaces_and_the_roots() -> None:
    chosen = sidecar_egress("b/*", workloadSelector={"labels": {"app": "x"}})
    chosen["metadata"]["name"] = "chosen"
    found = router(
        WEB, chosen, sidecar_egress("a/*"), sidecar_egress("c/*", namespace="istio-system")
    )
    assert asked(found, "http://web/", Proxy("a", {"app": "x"})) == "passthrough"
    assert asked(found, "http://web/", Proxy("a")) == f"service {HOST}"
    assert asked(found, "http://web.a/", Proxy("d")) == "passthrough"


def test_an_exact_host_comes_before_a_wildcard_and_nothing_falls_through() -> None:
    found = router(
        WEB,
        virtual_service("wild", ["*.svc.cluster.local"], says("wild"), age=3),
        virtual_service("narrower", ["*.a.svc.cluster.local"], says("narrower"), age=2),
        virtual_service("own", ["web"], says("own", prefix("/own")), age=1),
        service("other"),
        service("third", "b"),
    )
    assert asked(found, "http://web/own") == "own"
    assert asked(found, "http://web/else") == "404"
    assert asked(found, "http://other/") == "narrower"
    assert asked(found, "http://third.b/") == "wild"


def test_hosts_outside_the_registry_have_rules_on_port_80_and_beside_services() -> None:
    found = router(
        service("web", "a", *HTTP_AND_MORE),
        virtual_service("v", ["out.example.com"], says("alone")),
        virtual_service("w", ["beside.example.com", "web"], says("beside")),
    )
    assert asked(found, "http://out.example.com/") == "alone"
    assert asked(found, "http://out.example.com:81/") == "passthrough"
    assert asked(found, "http://beside.example.com:81/") == "beside"


@pytest.mark.parametrize(("only", "answer"), [(False, "passthrough"), (True, "blackhole")])
def test_unknown_hosts(only: bool, answer: str) -> None:
    found = router(WEB, config=MeshConfig(registry_only=only))
    assert asked(found, "http://unknown.example.com/") == answer


def test_service_entries_are_called_by_their_hosts_wildcards_included() -> None:
    found = router(entry("e", ["api.example.com", "*.wild.example.com"]))
    assert asked(found, "http://api.example.com/") == "service api.example.com"
    assert asked(found, "http://x.wild.example.com/") == "service *.wild.example.com"
    assert asked(found, "http://wild.example.com/") == "passthrough"


def test_rules_have_no_effect_on_a_tcp_port() -> None:
    found = router(
        service("web", "a", {"name": "tcp-web", "port": 80}),
        virtual_service("v", ["web"], says("rule"), gateways=["gw"]),
    )
    assert asked(found, "http://web/") == "passthrough"


@pytest.mark.parametrize(
    ("ports", "cluster"),
    [
        ([{"name": "http", "port": 80}], f"outbound|80||{HOST}"),
        ([{"name": "http", "port": 8080}], f"outbound|80||{HOST}"),
    ],
)
def test_a_destination_without_port_means_the_port_called(
    ports: list[Object], cluster: str
) -> None:
    found = router(
        service("front"), service("web", "a", *ports), virtual_service("v", ["front"], to("web"))
    )
    assert asked(found, "http://front/") == cluster


def test_weights_of_nought_are_left_out_unless_there_is_one_destination() -> None:
    def route(*weights: int) -> Object:
        hosts = [f"w{number}.example.com" for number in range(len(weights))]
        return {
            "route": [
                {"destination": {"host": host}, "weight": weight}
                for host, weight in zip(hosts, weights, strict=True)
            ]
        }

    several = router(WEB, virtual_service("v", ["web"], route(0, 30, 70)))
    assert asked(several, "http://web/") == (
        "outbound|80||w1.example.com outbound|80||w2.example.com"
    )
    single = router(WEB, virtual_service("v", ["web"], route(0)))
    assert asked(single, "http://web/") == "outbound|80||w0.example.com"


# Gateways


def served(found: Any, url: str, **options: Any) -> str:
    return asked(found, url, proxy(found), **options)


def test_a_gateway_joins_all_rules_of_a_host_and_puts_catch_alls_last() -> None:
    found = router(
        gateway("gw", server()),
        virtual_service(
            "old", ["x.com"], says("old-api", prefix("/api")), says("old"), gateways=["gw"], age=2
        ),
        virtual_service(
            "young", ["x.com"], says("v2", prefix("/api/v2")), says("new", prefix("/new")),
            says("young"), gateways=["gw"], age=1,
        ),
    )  # fmt: skip
    assert served(found, "http://x.com/api/v2") == "old-api"
    assert served(found, "http://x.com/new") == "new"
    assert served(found, "http://x.com/else") == "old"
    assert served(found, "http://y.com/") == "no-route"


def test_a_gateways_narrower_host_does_not_fall_through_to_the_wider() -> None:
    found = router(
        gateway("gw", server()),
        virtual_service("wide", ["*.x.com"], says("wide"), gateways=["gw"]),
        virtual_service("exact", ["a.x.com"], says("a", prefix("/a")), gateways=["gw"]),
    )
    assert served(found, "http://a.x.com/a") == "a"
    assert served(found, "http://a.x.com/b") == "404"
    assert served(found, "http://b.x.com/b") == "wide"


@pytest.mark.parametrize(
    ("server_host", "hosts", "url", "answer"),
    [
        ("*", ["x.com"], "http://x.com/", "rule"),
        ("x.com", ["*"], "http://x.com/", "rule"),
        ("x.com", ["*"], "http://y.com/", "no-route"),
        ("*.x.com", ["a.x.com", "y.com"], "http://a.x.com/", "rule"),
        ("*.x.com", ["a.x.com", "y.com"], "http://y.com/", "no-route"),
        ("a/x.com", ["x.com"], "http://x.com/", "rule"),
        ("./x.com", ["x.com"], "http://x.com/", "rule"),
        ("b/x.com", ["x.com"], "http://x.com/", "no-route"),
        ("*/x.com", ["x.com"], "http://x.com/", "rule"),
    ],
)
def test_hosts_are_those_of_server_and_rules_alike(
    server_host: str, hosts: list[str], url: str, answer: str
) -> None:
    vs = virtual_service("v", hosts, says("rule"), gateways=["gw"])
    assert served(router(gateway("gw", server(server_host)), vs), url) == answer


@pytest.mark.parametrize(
    ("match", "answer"),
    [
        ({"gateways": ["gw"]}, "rule"),
        ({"gateways": ["other"]}, "no-route"),
        ({"gateways": ["gw"], "sourceLabels": {"app": "x"}}, "rule"),
        ({"sourceLabels": {"app": "x"}}, "no-route"),
        ({"sourceLabels": {"istio": "ingress"}}, "rule"),
        ({"sourceNamespace": "istio-system"}, "rule"),
        ({"sourceNamespace": "a"}, "no-route"),
        ({"port": 80}, "rule"),
        ({"port": 5000}, "no-route"),
    ],
)
def test_what_a_match_demands_of_a_gateway(match: dict[str, Any], answer: str) -> None:
    vs = virtual_service("v", ["x.com"], says("rule", match), gateways=["gw", "other"])
    assert served(router(gateway("gw", server()), vs), "http://x.com/") == answer


def test_servers_of_other_ports_and_protocols_take_nothing() -> None:
    found = router(
        gateway(
            "gw",
            server(number=80),
            server(number=443, protocol="HTTPS", tls={"mode": "SIMPLE"}),
            server(number=8443, protocol="TLS", tls={"mode": "PASSTHROUGH"}),
        ),
        virtual_service("v", ["x.com"], says("rule"), gateways=["gw"]),
    )
    assert served(found, "http://x.com/") == "rule"
    assert served(found, "https://x.com/") == "rule"
    for url in (
        "http://x.com:443/",
        "https://x.com:80/",
        "https://x.com:8443/",
        "http://x.com:81/",
    ):
        request = request_for(url)
        tls = request.scheme == "https"
        assert found.gateway(proxy(found), "x.com", request.port, tls=tls) is None


def test_tls_goes_to_the_server_whose_host_is_most_specific() -> None:
    tls = {"protocol": "HTTPS", "number": 443, "tls": {"mode": "SIMPLE"}}
    found = router(
        gateway("wide", server("*.x.com", **tls)),
        gateway("exact", server("a.x.com", **tls)),
        virtual_service("v", ["a.x.com"], says("wide"), gateways=["wide"]),
        virtual_service("w", ["a.x.com"], says("exact"), gateways=["exact"]),
    )
    assert served(found, "https://a.x.com/") == "exact"
    assert served(found, "https://b.x.com/") == "no-route"


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        (({"name": "http", "port": 8080},), 8080),
        (HTTP_AND_MORE, 80),
    ],
)
@pytest.mark.parametrize(
    "rules",
    [
        [virtual_service("v", ["x.com"], to("web"), gateways=["gw"])],
        [
            virtual_service("v", ["x.com"], {"delegate": {"name": "d"}}, gateways=["gw"]),
            virtual_service("d", [], to("web")),
        ],
    ],
    ids=["its own", "a delegate's"],
)
def test_a_gateways_destination_without_port_means_its_only_port(
    ports: tuple[Object, ...], port: int, rules: list[Object]
) -> None:
    found = router(gateway("gw", server()), service("web", "a", *ports), *rules)
    assert served(found, "http://x.com/") == f"outbound|{port}||{HOST}"


def test_a_gateway_sees_what_is_exported_to_the_namespace_of_its_pods() -> None:
    def at(*export: str) -> str:
        vs = virtual_service("v", ["x.com"], says("rule"), gateways=["gw"], exportTo=list(export))
        return served(router(gateway("gw", server()), vs), "http://x.com/")

    assert at("istio-system") == "rule"
    assert at(".") == "no-route"
