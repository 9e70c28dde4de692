"""`compare` on small meshes of which one can say what must come out."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.proof import compare as module
from kubectl_mesh.proof.compare import Comparison, Decision, Difference, compare
from kubectl_mesh.proof.scope import changed
from kubectl_mesh.proof.treatment import differing
from kubectl_mesh.routing.request import Request
from tests.proof.random_meshes import Manifest, istio, resource, snapshot

SAME = "the same for every request"
WEB = "web.shop.svc.cluster.local"


def service(name: str = "web", **port: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, **port}],
        },
    }


def web(*rules: Manifest, **spec: Any) -> Manifest:
    return istio("VirtualService", "shop", "web", 1, {"hosts": ["web"], "http": [*rules], **spec})


def answer(status: int, *matches: Manifest, **fields: Any) -> Manifest:
    return {"match": [*matches], "directResponse": {"status": status}, **fields}


ABORTED = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}


def to(subset: str | None = None, **fields: Any) -> Manifest:
    destination = {"host": WEB, "subset": subset} if subset else {"host": WEB}
    return {"route": [{"destination": destination}], **fields}


def subsets(**labels: str) -> Manifest:
    listed = [{"name": name, "labels": {"version": value}} for name, value in labels.items()]
    return istio("DestinationRule", "shop", "web", 1, {"host": "web", "subsets": listed})


def workload(name: str, namespace: str = "shop", **labels: str) -> Manifest:
    template = {
        "metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "true"}},
        "spec": {"containers": [{"name": "app"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"template": template},
    }


def of(before: list[Manifest], after: list[Manifest]) -> Comparison:
    return compare(snapshot(before), snapshot(after))


def compared(before: list[Manifest], after: list[Manifest], *, live: bool) -> Comparison:
    return compare(
        *(
            Snapshot([resource(each) for each in side], coverage=Coverage(live=live))
            for side in (before, after)
        )
    )


def summaries(found: Comparison) -> list[tuple[str, str]]:
    return [summary for _, summary in with_summaries(found)]


def with_summaries(found: Comparison) -> list[tuple[Difference, tuple[str, str]]]:
    return [
        (each, (each.before.treatment.summary, each.after.treatment.summary))
        for each in found.differences
    ]


PREFIX = {"uri": {"prefix": "/a"}}
EXACT = {"uri": {"exact": "/ab"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([service(), web(to())], [service(), web(to(name="other"))]),
        ([service(), web(to(timeout="1s"))], [service(), web(to(timeout="1000ms"))]),
        ([service(), web(to(timeout="0s"))], [service(), web(to())]),
        ([service(), web(to(headers={"request": {}}))], [service(), web(to())]),
        (
            [service(), web(to("v1")), subsets(v1="1")],
            [service(), web(to("blue")), subsets(blue="1")],
        ),
        # two rules that no request meets both change places
        (
            [service(), web(answer(201, PREFIX), answer(202, {"uri": {"exact": "/b"}}), to())],
            [service(), web(answer(202, {"uri": {"exact": "/b"}}), answer(201, PREFIX), to())],
        ),
        # a rule that an earlier one hides is removed
        (
            [service(), web(answer(201, PREFIX), answer(202, EXACT), to())],
            [service(), web(answer(201, PREFIX), to())],
        ),
        # two matches say what one expression says
        (
            [service(), web(answer(201, {"uri": {"regex": "/(x|y)"}}), to())],
            [service(), web(answer(201, *({"uri": {"exact": p}} for p in ("/x", "/y"))), to())],
        ),
        # an expression that is beyond comparison, in a rule that stays as it is
        (
            [service(), web(answer(201, {"uri": {"regex": r"/\pL"}}), answer(202, EXACT), to())],
            [
                service(),
                web(answer(201, {"uri": {"regex": r"/\pL"}}), answer(202, EXACT, EXACT), to()),
            ],
        ),
        # a subset without users changes
        ([service(), web(to()), subsets(v1="1")], [service(), web(to()), subsets(v1="2")]),
    ],
)
def test_what_no_request_shows_is_the_same(before: list[Manifest], after: list[Manifest]) -> None:
    found = of(before, after)
    assert found.verdict == SAME, summaries(found)


def test_objects_that_only_look_different_are_not_compared() -> None:
    one = web(to())
    other = copy.deepcopy(one)
    other["metadata"]["labels"] = {"team": "a"}
    other["status"] = {"x": 1}
    assert changed(snapshot([one]), snapshot([other])) == []
    assert of([one], [other]).verdict == SAME


def test_a_moved_rule_shows_in_the_requests_that_both_rules_take() -> None:
    found = of(
        [service(), web(answer(201, EXACT), answer(202, PREFIX), to())],
        [service(), web(answer(202, PREFIX), answer(201, EXACT), to())],
    )
    assert found.verdict == "differs (1 class)"
    (difference,) = found.differences
    assert difference.example is not None
    assert (difference.example.path, difference.example.host) == ("/ab", WEB)
    assert isinstance(difference.before, Decision)
    assert isinstance(difference.after, Decision)
    assert [each.identity[:3] for each in (difference.before, difference.after)] == [
        ("VirtualService shop/web", ("spec", "http", 0), 0)
    ] * 2
    assert difference.aspects == ["directResponse"]


def test_a_subset_that_leads_elsewhere_differs() -> None:
    found = of(
        [service(), web(to("v1")), subsets(v1="1")], [service(), web(to("v1")), subsets(v1="2")]
    )
    assert found.verdict == "differs (1 class)"
    found = of([service(), web(to("v1")), subsets(v1="1")], [service(), web(to("v1"))])
    assert summaries(found) == [(f"{WEB}:80 subset v1", f"{WEB}:80 subset v1 (503 NC)")]


def test_a_new_host_and_its_loss() -> None:
    found = of([service()], [service(), web(answer(201, PREFIX))])
    assert sorted(summaries(found)) == [
        (f"{WEB}:80", "404: no rule matches"),
        (f"{WEB}:80", 'direct response {"status": 201}'),
    ]


def test_only_chosen_clients_see_a_change() -> None:
    match = {"sourceLabels": {"app": "a"}, "sourceNamespace": "team"}
    found = of([service(), web(to())], [service(), web(answer(201, match), to())])
    assert len(found.differences) == 1
    assert {
        (place.proxy.namespace, tuple(place.proxy.labels.items()))
        for place in found.differences[0].places
    } == {("team", (("app", "a"),))}


@pytest.mark.parametrize("live", [True, False], ids=["live", "manifests"])
def test_clients_are_compared_that_no_pod_was_seen_of(live: bool) -> None:
    match = {"sourceLabels": {"app": "a"}}
    pods = [workload("b", "shop", app="b"), workload("c", "team", app="c")]
    sides = [[service(), web(to()), *pods], [service(), web(answer(201, match), to()), *pods]]
    (found,) = compared(*sides, live=live).differences
    assert all(place.proxy.labels == {"app": "a"} for place in found.places)
    for side in sides:
        side.append(workload("a", "team", app="a"))
    result = compared(*sides, live=live)
    (found,) = result.differences
    assert found.places[0].proxy.namespace == "team"
    assert {each.proxy for each in result.compared} == {
        Proxy("shop", {"app": "b"}),
        Proxy("team", {"app": "a"}),
    }
    assert not any(each.proxy.assumed for each in result.compared)


def test_a_cluster_without_sidecars_is_compared_as_manifests_are() -> None:
    """Istio's pods may not show that they have one."""
    sides = [service(), web(to())], [service(), web(answer(201, PREFIX), to())]
    found = compared(*sides, live=True)
    assert found.verdict == compared(*sides, live=False).verdict == "differs (1 class)"
    assert [each.proxy.assumed for each in found.compared] == [True]


def test_only_pods_that_are_seen_count_if_asked() -> None:
    match = {"sourceLabels": {"app": "a"}}
    sides = [
        snapshot([service(), web(*rules), workload("b", "shop", app="b")])
        for rules in ([to()], [answer(201, match), to()])
    ]
    assert compare(*sides, assume=False).verdict == SAME
    assert compare(*sides).verdict == "differs (1 class)"


def test_selectors_of_one_namespace_make_no_combinations_with_those_of_others() -> None:
    sidecars = [
        istio("Sidecar", f"ns{n}", "own", 0, {"workloadSelector": {"labels": {f"l{n}": "x"}}})
        for n in range(20)
    ]
    sides = [service(), web(to()), *sidecars], [service(), web(answer(201)), *sidecars]
    found = compared(*sides, live=True)
    assert not found.undecided
    assert len(found.compared) == 41  # with the labels and without, and all other namespaces


def namespaces(found: Comparison) -> set[str]:
    """Whose proxies treat something differently."""
    return {place.proxy.namespace for each in found.differences for place in each.places}


def test_an_export_that_is_taken_back() -> None:
    found = of([service(), web(answer(201))], [service(), web(answer(201), exportTo=["."])])
    assert namespaces(found) == {"default"}


def gateway(*servers: Manifest, name: str = "gw") -> Manifest:
    listed = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, **s} for s in servers]
    return istio("Gateway", "shop", name, 0, {"selector": {"istio": "gw"}, "servers": listed})


def test_a_gateway_that_is_added_opens_its_hosts() -> None:
    outside = web(answer(201), hosts=["*.example.org"], gateways=["gw"])
    found = of([outside], [outside, gateway({"hosts": ["api.example.org"]})])
    assert {
        (difference.example.host, *pair)
        for difference, pair in zip(found.differences, summaries(found), strict=True)
        if difference.example
    } == {
        (
            "api.example.org",
            "no server of the gateway takes it",
            'direct response {"status": 201}',
        ),
        (
            "any.example.org",
            "no server of the gateway takes it",
            "404: the gateway has no rule for the host",
        ),
    }


def test_a_redirect_to_https_stands_before_all_rules() -> None:
    outside = web(answer(201), hosts=["api.example.org"], gateways=["gw"])
    redirecting = gateway({"hosts": ["*"], "tls": {"httpsRedirect": True}})
    found = of([outside, gateway({"hosts": ["*"]})], [outside, redirecting])
    assert (
        'direct response {"status": 201}',
        "301 to https, by the Gateway's server",
    ) in summaries(found)


def test_a_delegate_is_compared_through_its_root() -> None:
    root = web({"delegate": {"name": "leaf"}})
    leaves = [
        istio("VirtualService", "shop", "leaf", 2, {"http": [answer(status)]})
        for status in (201, 202)
    ]
    found = of([service(), root, leaves[0]], [service(), root, leaves[1]])
    assert found.verdict == "differs (1 class)"
    assert isinstance(found.differences[0].after, Decision)
    assert found.differences[0].after.identity[0] == "VirtualService shop/leaf"


def test_the_authority_counts_beside_the_host() -> None:
    port = {"authority": {"exact": f"{WEB}:80"}}
    found = of([service(), web(to())], [service(), web(answer(201, port), to())])
    assert [each.example and each.example.authority for each in found.differences] == [f"{WEB}:80"]


def test_what_cannot_be_read_is_undecided() -> None:
    letters = {"uri": {"regex": r"/\pL"}}
    found = of([service(), web(to())], [service(), web(answer(201, letters), to())])
    assert found.verdict.startswith("undecided: ")
    assert r"'/\\pL'" in found.verdict


def test_what_cannot_be_decided_is_sampled() -> None:
    boundary = {"headers": {"x": {"regex": r"a\bb"}}}
    found = of([service(), web(to())], [service(), web(answer(201, boundary), to())])
    assert found.verdict == r"the same for all requests sampled (regex in a\bb)"


def test_a_bound_is_named_when_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NODES", 5)
    rules = [answer(201 + n, {"headers": {f"x-{n}": {}}}) for n in range(20)]
    found = of([service(), web(*rules)], [service(), web(*reversed(rules))])
    assert any("more than 5 examples were tried" in doubt for doubt in found.undecided)
    assert len(found.differences) <= 5


def test_another_mesh_config_changes_everything() -> None:
    resources = [resource(service())]
    found = compare(Snapshot(resources), Snapshot(resources, MeshConfig(registry_only=True)))
    assert summaries(found) == [
        (
            "let out of the mesh, to where DNS leads",
            "502: the registry does not know the host",
        ),
        (
            "let out of the mesh, to where DNS leads",
            "closed: the registry does not know the host",
        ),
    ]


def test_a_setting_of_the_mesh_that_is_not_modelled_is_named() -> None:
    resources = [resource(service())]
    before, logged, retried = (
        Snapshot(resources, MeshConfig.from_mapping(each))
        for each in (
            {"enableAutoMtls": True},
            {"enableAutoMtls": True, "accessLogFile": "/dev/stdout"},
            {"enableAutoMtls": True, "defaultHttpRetryPolicy": {"attempts": 0}},
        )
    )
    assert compare(before, logged).verdict == SAME
    assert compare(before, retried).undecided == [
        "defaultHttpRetryPolicy of the MeshConfig differs, and is not compared"
    ]


def test_a_path_that_proxies_never_compare_makes_no_difference() -> None:
    before, after = (
        [service(), web(to())],
        [service(), web(answer(201, {"uri": {"exact": "/a/../b"}}), to())],
    )
    assert of(before, after).verdict == SAME
    none = MeshConfig(path_normalization="NONE")
    states = [Snapshot([resource(each) for each in state], none) for state in (before, after)]
    assert len(compare(*states).differences) == 1
    assert compare(Snapshot([resource(service())]), states[0]).undecided == [
        "pathNormalization differs: paths are taken as they are after"
    ]


def test_tcp_rules_are_compared_in_order() -> None:
    database = service("db")
    database["spec"]["ports"] = [{"name": "tcp", "port": 5432}]

    def rules(*hosts: str) -> Manifest:
        routes = [{"route": [{"destination": {"host": host}}]} for host in hosts]
        return istio("VirtualService", "shop", "db", 1, {"hosts": ["db"], "tcp": routes})

    found = of([database, rules("a", "b")], [database, rules("a", "c")])
    assert found.verdict == SAME, "the second rule is dead"
    found = of([database, rules("a")], [database, rules("b")])
    assert [(each.protocol, str(each.example)) for each in found.differences] == [
        ("tcp", "tcp://db.shop.svc.cluster.local:5432")
    ]


def tls_service() -> Manifest:
    found = service("secure")
    found["spec"]["ports"] = [{"name": "tls", "port": 443}]
    return found


def by_name(*names: str, to: str = "web", **more: object) -> Manifest:
    rule = {"match": [{"sniHosts": [*names], **more}], "route": [{"destination": {"host": to}}]}
    return istio("VirtualService", "shop", "secure", 1, {"hosts": ["secure"], "tls": [rule]})


def test_tls_is_compared_by_server_name() -> None:
    found = of(
        [service(), tls_service(), by_name("a.com")],
        [service(), tls_service(), by_name("*.com")],
    )
    secure = "secure.shop.svc.cluster.local"
    assert [(str(each.example), *summary) for each, summary in with_summaries(found)] == [
        (
            f"tls://{secure}:443 for any.com",
            "let out of the mesh, to where DNS leads",
            "web.shop.svc.cluster.local:80",
        )
    ]


def test_rules_for_subnets_are_compared_where_the_address_is_not_known() -> None:
    rules = [
        by_name("a.com", destinationSubnets=[subnet]) for subnet in ("10.0.0.0/8", "10.1.0.0/16")
    ]
    found = of([service(), tls_service(), rules[0]], [service(), tls_service(), rules[1]])
    addresses = [getattr(each.example, "address", None) for each in found.differences]
    assert addresses == ["10.0.0.0"]
    assert not found.undecided


def test_tls_that_is_opened_from_now_on_is_compared_as_requests() -> None:
    def port(mode: str) -> Manifest:
        server = {
            "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
            "hosts": ["a.com"],
            "tls": {"mode": mode},
        }
        spec = {"selector": {"istio": "gw"}, "servers": [server]}
        return istio("Gateway", "shop", "gw", 1, spec)

    both = by_name("a.com")
    both["spec"] |= {"hosts": ["a.com"], "gateways": ["gw"], "http": [answer(201)]}
    found = of([service(), both, port("PASSTHROUGH")], [service(), both, port("SIMPLE")])
    assert [(each.protocol, *summary) for each, summary in with_summaries(found)] == [
        (
            "http",
            "web.shop.svc.cluster.local:80",
            'direct response {"status": 201}',
        )
    ]
    assert str(found.differences[0].example).startswith("GET https://a.com/")


def test_two_rules_for_one_server_name_leave_all_as_it_was() -> None:
    twice = by_name("a.com", "a.com")
    found = of([service(), tls_service(), by_name("a.com")], [service(), tls_service(), twice])
    assert {after for _, (_, after) in with_summaries(found)} == {
        "Envoy refuses two rules for the same, and keeps what it had"
    }


def test_a_service_whose_address_is_known_on_one_side_only_is_undecided() -> None:
    def state(**spec: object) -> list[Manifest]:
        found = tls_service()
        found["spec"] |= spec
        return [service(), found, by_name("a.com", destinationSubnets=["10.0.0.0/8"])]

    assert "address of the host is not known" in of(state(), state(clusterIP="10.1.1.1")).verdict
    found = of(state(clusterIP="10.1.1.1"), state(clusterIP="11.1.1.1"))
    assert [str(each.example) for each in found.differences] == [
        "tls://secure.shop.svc.cluster.local:443 for a.com"
    ]


def test_http_to_a_port_that_was_tcp_went_as_tcp() -> None:
    def state(name: str) -> list[Manifest]:
        found = service("db")
        found["spec"]["ports"] = [{"name": name, "port": 9000}]
        rule = {"route": [{"destination": {"host": "web"}}]}
        bound = {"hosts": ["db"], "tcp": [rule], "http": [answer(201)]}
        return [service(), found, istio("VirtualService", "shop", "db", 1, bound)]

    found = of(state("tcp"), state("http"))
    assert [(each.protocol, *summary) for each, summary in with_summaries(found)] == [
        ("http", "web.shop.svc.cluster.local:80", 'direct response {"status": 201}'),
        (
            "tcp",
            "web.shop.svc.cluster.local:80",
            "let out of the mesh, to where DNS leads",
        ),
    ]
    assert of(state("tcp"), state("mongo")).verdict == SAME


def test_an_example_is_to_a_host_that_shares_the_listener() -> None:
    def entry(name: str, *hosts: str, **spec: object) -> Manifest:
        ports = [{"number": 443, "name": "tls", "protocol": "TLS"}]
        return istio("ServiceEntry", "shop", name, 1, {"hosts": [*hosts], "ports": ports, **spec})

    def state(to: str) -> list[Manifest]:
        own = entry("own", "x.com", addresses=["10.0.0.1"])
        rule = {"match": [{"sniHosts": ["x.com"]}], "route": [{"destination": {"host": to}}]}
        bound = istio("VirtualService", "shop", "foo", 1, {"hosts": ["foo.org"], "tls": [rule]})
        return [own, entry("shared", "foo.org", "bar.org"), bound]

    found = of(state("foo.org"), state("bar.org"))
    assert [str(each.example) for each in found.differences] == ["tls://foo.org:443 for x.com"]


def test_what_is_not_modelled_is_undecided() -> None:
    def auto(*hosts: str) -> Manifest:
        server = {
            "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
            "hosts": [*hosts],
            "tls": {"mode": "AUTO_PASSTHROUGH"},
        }
        spec = {"selector": {"istio": "gw"}, "servers": [server]}
        return istio("Gateway", "shop", "gw", 1, spec)

    found = of([auto("*.local")], [auto("*.global")])
    assert found.verdict == (
        "undecided: port 15443 of Gateway shop/gw is AUTO_PASSTHROUGH, which is not modelled"
    )


def test_a_hundred_rules_in_another_order_take_no_forever() -> None:
    rules = [answer(201 + n, {"headers": {f"x-{n}": {}}, **PREFIX}) for n in range(30)]
    found = of([service(), web(*rules)], [service(), web(*reversed(rules))])
    assert len(found.differences) == 30 * 29 // 2
    assert not found.undecided


def test_labels_without_a_value_tell_nobody_apart() -> None:
    sidecars = [
        istio("Sidecar", "shop", name, 1, {"workloadSelector": {"labels": {name: value}}})
        for name, value in (("app", None), ("tier", "x"))
    ]
    assert of([service(), web(answer(200))], [service(), web(answer(200)), *sidecars]).verdict


def test_plain_requests_never_have_the_scheme_https() -> None:
    """Found on random configurations: the example was answered by no other rule than before."""
    found = of(
        [service(), web(answer(201, {"scheme": {"exact": "https"}}), answer(200))],
        [service(), web(answer(202, {"scheme": {"exact": "https"}}), answer(200))],
    )
    assert found.verdict == SAME


def test_only_methods_that_envoy_takes_are_told_apart() -> None:
    """Found on random configurations: to the method of the example Envoy itself answered 400."""
    found = of(
        [service(), web(answer(201, {"method": {"exact": "GET"}}), answer(200))],
        [service(), web(answer(201, {"method": {"prefix": "GET"}}), answer(200))],
    )
    assert found.verdict == SAME


def test_an_expression_too_large_to_be_read_is_undecided() -> None:
    large = {"uri": {"regex": "/((a{1,100}){1,100}){1,100}"}}
    found = of(
        [service(), web(answer(201, large), answer(200))],
        [service(), web(answer(202, large), answer(200))],
    )
    assert found.verdict.startswith("undecided: ")


# What becomes of the path


def rewriting(uri: str, *matches: Manifest) -> Manifest:
    return to(match=[*matches], rewrite={"uri": uri})


def prefix(path: str, **more: Any) -> Manifest:
    return {"uri": {"prefix": path}, **more}


def exact(path: str, **more: Any) -> Manifest:
    return {"uri": {"exact": path}, **more}


def replacing(match: str, rewrite: str, *matches: Manifest) -> Manifest:
    expression = {"match": match, "rewrite": rewrite}
    return to(match=[*matches], rewrite={"uriRegexRewrite": expression})


FOLD = {"ignoreUriCase": True}


@pytest.mark.parametrize(
    ("before", "after", "path", "paths"),
    [
        (
            [rewriting("/", prefix("/x"), prefix("/x/"))],
            [rewriting("/", prefix("/x/"), prefix("/x"))],
            "/x/",
            ("//", "/"),
        ),
        (
            [rewriting("/", prefix("/x")), rewriting("/", prefix("/x/"))],
            [rewriting("/", prefix("/x/")), rewriting("/", prefix("/x"))],
            "/x/",
            ("//", "/"),
        ),
        # the end stays where a prefix matched, and goes where all of the path did
        ([rewriting("/y", prefix("/x"))], [rewriting("/y", {"uri": {"regex": "/x.*"}})],
         "/xx", ("/yx", "/y")),
        # without uri the prefix is /
        ([rewriting("/y", {})], [rewriting("/y", prefix("/x"), {})], "/x", ("/yx", "/y")),
        ([rewriting("/y/", {})], [rewriting("/y", prefix(""))], "/", ("/y/", "/y/")),
        # only in capitals is it another path
        ([rewriting("/x", prefix("/x", **FOLD))], [to(match=[prefix("/x", **FOLD)])],
         "/X", ("/x", "/X")),
        # the expression takes away what the prefix leaves
        ([rewriting("/b", prefix("/a"))], [replacing("^/a/+", "/b/", prefix("/a"))],
         "/a//", ("/b//", "/b/")),
        ([replacing("x", "y", {})], [replacing("x+", "y", {})], "/xx", ("/yy", "/y")),
    ],
)  # fmt: skip
def test_what_becomes_of_the_path_counts(
    before: list[Manifest], after: list[Manifest], path: str, paths: tuple[str, str]
) -> None:
    if paths[0] == paths[1]:
        assert of([service(), web(*before)], [service(), web(*after)]).verdict == SAME
        return
    found = of([service(), web(*before, to())], [service(), web(*after, to())])
    assert not found.undecided
    (difference,) = found.differences
    assert isinstance(difference.example, Request)
    sides = [each.treatment.rewriting for each in (difference.before, difference.after)]
    assert difference.aspects == ["rewrite"]
    assert tuple(each.of(path) for each in sides) == paths
    one, other = (each.of(difference.example.path) for each in sides)
    assert one != other


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([rewriting("/", exact("/x"))], [rewriting("/", exact("/x"), exact("/x"))]),
        # a prefix that only the path itself comes to
        (
            [answer(201, {"uri": {"regex": "/x.+"}}), rewriting("/y", exact("/x"))],
            [answer(201, {"uri": {"regex": "/x.+"}}), rewriting("/y", prefix("/x"))],
        ),
        ([rewriting("/", exact("/x"))], [rewriting("/", {"uri": {"regex": "/x"}})]),
        # the longer prefix puts back what it takes away
        (
            [rewriting("/y", prefix("/x"), prefix("/x/"))],
            [rewriting("/y/", prefix("/x/")), rewriting("/y", prefix("/x"))],
        ),
        ([rewriting("/x", prefix("/x"))], [to(match=[prefix("/x")])]),
        (
            [rewriting("/x", exact("/X", **FOLD))],
            [rewriting("/x", {"uri": {"regex": "/[xX]"}})],
        ),
        # an expression that never finds anything in the paths that come to it
        ([replacing("^/b/", "/", prefix("/a"))], [to(match=[prefix("/a")])]),
        ([replacing("^/a/", "/a/", exact("/a/"))], [to(match=[exact("/a/")])]),
        # what answers by itself rewrites nothing
        (
            [answer(201, prefix("/x"), rewrite={"uri": "/"}, timeout="1s")],
            [answer(201, prefix("/x"))],
        ),
    ],
)  # fmt: skip
def test_what_makes_the_same_of_every_path_is_the_same(
    before: list[Manifest], after: list[Manifest]
) -> None:
    found = of([service(), web(*before, to())], [service(), web(*after, to())])
    assert found.verdict == SAME, found.differences


def test_expressions_that_seem_to_do_the_same_are_not_decided() -> None:
    found = of(
        [service(), web(replacing("^/a", "/b", prefix("/a")))],
        [service(), web(replacing("/a", "/b", exact("/a"), prefix("/a")))],
    )
    assert found.verdict.startswith(("differs", "undecided"))
    found = of(
        [service(), web(replacing("^/a/", "/b/", prefix("/a")))],
        [service(), web(rewriting("/b/", prefix("/a/")), to(match=[prefix("/a")]))],
    )
    assert found.verdict.startswith("undecided: ")
    assert "an expression for rewriting" in found.undecided[0]


def test_the_prefix_may_be_the_roots_or_the_delegates() -> None:
    def root(*order: str) -> Manifest:
        return web(*({"match": [prefix("/x")], "delegate": {"name": name}} for name in order))

    leaves = [
        istio("VirtualService", "shop", "short", 2, {"http": [to(rewrite={"uri": "/"})]}),
        istio("VirtualService", "shop", "long", 2, {"http": [rewriting("/", prefix("/x/"))]}),
    ]
    found = of(
        [service(), root("short", "long"), *leaves], [service(), root("long", "short"), *leaves]
    )
    (difference,) = found.differences
    assert isinstance(difference.example, Request)
    assert [
        each.treatment.rewriting.of(difference.example.path)
        for each in (difference.before, difference.after)
    ] == ["//", "/"]


# Fields that change what becomes of requests


def entry(**spec: Any) -> Manifest:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    whole = {"hosts": ["web.example.org"], "ports": ports, "resolution": "DNS", **spec}
    return istio("ServiceEntry", "shop", "web", 1, whole)


@pytest.mark.parametrize(
    ("before", "after", "aspect"),
    [
        ({}, {"mirror": {"host": "other"}}, "mirrors"),
        ({"mirror": {"host": "other"}}, {"mirror": {"host": "web"}}, "mirrors"),
        ({"mirror": {"host": "other"}}, {"mirror": {"host": "other", "subset": "v1"}}, "mirrors"),
        (
            {"mirror": {"host": "other"}},
            {"mirror": {"host": "other", "port": {"number": 8080}}},
            "mirrors",
        ),
        (
            {"mirror": {"host": "other"}},
            {"mirror": {"host": "other"}, "mirrorPercent": 5},
            "mirrors",
        ),
        (
            {"mirror": {"host": "other"}, "mirrorPercentage": {"value": 5}},
            {"mirror": {"host": "other"}, "mirrorPercentage": {"value": 5.5}},
            "mirrors",
        ),
        (
            {"mirrors": [{"destination": {"host": "other"}, "percentage": {"value": 5}}]},
            {"mirrors": [{"destination": {"host": "other"}}]},
            "mirrors",
        ),
        (
            {"mirrors": [{"destination": {"host": "other"}}]},
            {"mirrors": [{"destination": {"host": "other"}, "brandNew": 1}]},
            "mirrors",
        ),
        ({"retries": {"attempts": 2}}, {"retries": {"attempts": 2, "backoff": "1s"}}, "retries"),
        (
            {"retries": {"attempts": 2}},
            {"retries": {"attempts": 2, "retryIgnorePreviousHosts": False}},
            "retries",
        ),
        ({}, {"retries": {}}, "retries"),  # without the field there are some
        ({}, {"brandNew": {"a": 1}}, "brandNew"),
        ({"rewrite": {"authority": "a"}}, {"rewrite": {"authority": "b"}}, "rewrite"),
        ({}, {"rewrite": {"brandNew": "b"}}, "rewrite"),
        (
            {},
            {"fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 1}}}},
            "fault",
        ),
        (
            {"fault": {"delay": {"fixedDelay": "1s", "percent": 50}}},
            {"fault": {"delay": {"fixedDelay": "1s", "percent": 50, "percentage": {}}}},
            "fault",
        ),
        ({}, {"corsPolicy": {"allowOrigins": [{"exact": "a"}]}}, "corsPolicy"),
        ({}, {"headers": {"request": {"set": {"a": "b"}}}}, "headers"),
        (
            {"fault": ABORTED},
            {"fault": ABORTED, "headers": {"response": {"add": {"a": "b"}}}},
            "headers",
        ),
        ({}, {"timeout": "1s"}, "timeout"),
    ],
)  # fmt: skip
def test_a_field_of_a_rule_counts(before: Manifest, after: Manifest, aspect: str) -> None:
    other = service("other")
    other["spec"]["ports"].append({"name": "http-more", "port": 8080})
    found = of([service(), other, web(to(**before))], [service(), other, web(to(**after))])
    assert [each.aspects for each in found.differences] == [[aspect]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"match": [{}]}, {"match": [{"statPrefix": "x", "name": "y"}]}),
        (
            {"mirror": {"host": "other"}},
            {"mirrors": [{"destination": {"host": "other"}, "percentage": {"value": 100}}]},
        ),
        ({}, {"mirror": {"host": "other"}, "mirrorPercent": 0}),
        ({}, {"mirror": {"host": "other"}, "mirrorPercentage": {}}),
        ({}, {"fault": {"abort": {"httpStatus": 500}}}),
        ({"retries": {}}, {"retries": {"attempts": 0, "retryOn": "5xx"}}),
        (
            {"fault": {"delay": {"fixedDelay": "1s", "percent": 50}}},
            {"fault": {"delay": {"fixedDelay": "1000ms", "percentage": {"value": 50}}}},
        ),
        # a sidecar sends copies to the port that was called
        ({"mirror": {"host": "other"}}, {"mirror": {"host": "other", "port": {"number": 80}}}),
        ({}, {"mirror": {"host": "gone"}}),
        ({}, {"retries": {"attempts": 2, "retryOn": ""}}),
        ({}, {"fault": {"abort": {"percentage": {"value": 100}}}}),
        ({}, {"fault": {"delay": {"exponentialDelay": "1s", "percentage": {"value": 100}}}}),
        ({}, {"corsPolicy": {"allowOrigins": [], "allowMethods": ["GET"]}}),
        (
            {"corsPolicy": {"allowOrigin": ["a"], "allowCredentials": False}},
            {"corsPolicy": {"allowOrigins": [{"exact": "a"}], "unmatchedPreflights": "FORWARD"}},
        ),
        (
            {"headers": {"request": {"remove": ["a"], "set": {"A": "1"}, "add": {"b": "2"}}}},
            {"headers": {"request": {"set": {"a": "1"}, "add": {"B": "2"}}, "response": {}}},
        ),
        (
            {"rewrite": {"authority": "a"}},
            {"headers": {"request": {"set": {"Host": "a"}}}},
        ),
    ],
)
def test_fields_of_a_rule_that_mean_the_same(before: Manifest, after: Manifest) -> None:
    sides = [[service(), service("other"), web(to(**fields))] for fields in (before, after)]
    assert of(*sides).verdict == SAME


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ({"redirect": {"uri": "/x"}}, {"corsPolicy": {"allowOrigins": [{"exact": "a"}]}}),
        (answer(200), {"corsPolicy": {"allowOrigins": [{"exact": "a"}]}}),
        (to("gone"), {"mirror": {"host": "other"}}),
        ({"route": [{"destination": {"host": "nowhere"}}]}, {"mirror": {"host": "other"}}),
        (to("gone"), {"timeout": "1s", "headers": {"request": {"set": {"a": "1"}}}}),
        ({"redirect": {"uri": "/x"}}, {"headers": {"request": {"set": {"a": "1"}}}}),
        (to(fault=ABORTED), {"retries": {"attempts": 5}, "mirror": {"host": "other"}}),
        (to(fault=ABORTED), {"rewrite": {"uri": "/x"}, "corsPolicy": {"allowOrigin": ["a"]}}),
        (to(fault=ABORTED), {"route": [{"destination": {"host": "other"}}]}),
        (answer(200, fault=ABORTED), {"redirect": {"uri": "/x"}, "directResponse": None}),
    ],
)
def test_what_comes_too_late_makes_no_difference(rule: Manifest, more: Manifest) -> None:
    """Where the proxy answers by itself, where it has no cluster, where a fault comes first."""
    sides = [[service(), service("other"), web({**rule, **fields})] for fields in ({}, more)]
    assert of(*sides).verdict == SAME


def test_an_empty_redirect_is_one() -> None:
    (found,) = of([service(), web(to())], [service(), web({**to(), "redirect": {}})]).differences
    assert "redirect" in found.after.treatment.aspects


def test_a_mirror_that_moves_is_named() -> None:
    """In words, too, and whether copies arrive."""
    sides = [
        [service(), service("other"), web(to(mirror=mirror, mirrorPercentage={"value": 5}))]
        for mirror in ({"host": "web"}, {"host": "other", "port": {"number": 8080}})
    ]
    assert summaries(of(*sides)) == [
        (
            f"{WEB}:80, 5% copied to {WEB}:80",
            f"{WEB}:80, 5% copied to other.shop.svc.cluster.local:8080 in vain (NC)",
        )
    ]


def test_a_field_beside_a_destination_counts() -> None:
    one, other = to(), to()
    other["route"][0]["brandNew"] = 1
    assert of([service(), web(one)], [service(), web(other)]).verdict == "differs (1 class)"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"redirectCode": 301}, {}),
        ({"scheme": "https", "port": 443}, {"scheme": "https"}),
        ({"derivePort": "FROM_PROTOCOL_DEFAULT"}, {}),
    ],
)
def test_redirects_that_mean_the_same(before: Manifest, after: Manifest) -> None:
    sides = [
        [service(), web({"redirect": {"authority": "a.example", **more}})]
        for more in (before, after)
    ]
    assert of(*sides).verdict == SAME
    assert of(sides[0], [service(), web({"redirect": {"uri": "/"}})]).differences


def test_redirects_that_replace_other_prefixes_differ() -> None:
    def redirecting(path: str, to: str) -> list[Manifest]:
        rule = {"match": [{"uri": {"prefix": path}}], "redirect": {"prefixRewrite": to}}
        return [service(), web(rule)]

    (found,) = of(redirecting("/a", "/b"), redirecting("/a", "/c")).differences
    assert "prefixRewrite" in found.before.treatment.summary
    assert differing(found.before.treatment, found.after.treatment) == ["redirect"]
    narrower = of(redirecting("/a", "/b"), redirecting("/a/", "/b/"))
    assert [each.example.path for each in narrower.differences if each.example] == ["/a"]
    assert of(redirecting("/a", "/b"), redirecting("/a", "/b")).verdict == SAME


def policy(top: Manifest | None, own: Manifest | None = None) -> Manifest:
    subset: Manifest = {"name": "v1", "labels": {"version": "1"}}
    spec: Manifest = {"host": "web", "subsets": [subset]}
    if own:
        subset["trafficPolicy"] = own
    if top:
        spec["trafficPolicy"] = top
    return istio("DestinationRule", "shop", "web", 1, spec)


def at_port(number: int, **settings: Any) -> Manifest:
    return {"portLevelSettings": [{"port": {"number": number}, **settings}]}


ROBIN, RANDOM = {"loadBalancer": {"simple": "ROUND_ROBIN"}}, {"loadBalancer": {"simple": "RANDOM"}}
TLS = {"tls": {"mode": "SIMPLE"}}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (policy(ROBIN), policy(RANDOM), False),
        (
            policy(at_port(80, **TLS), at_port(81, **ROBIN)),
            policy(None, at_port(81, **ROBIN)),
            False,
        ),
        (policy(at_port(80, **TLS)), policy(at_port(80, **ROBIN)), False),
        (policy({"brandNew": 1}), policy({"brandNew": 2}), False),
        (policy(at_port(80, brandNew=1)), policy(at_port(80, brandNew=2)), False),
        (policy(ROBIN, TLS), policy(None, TLS), False),
        (policy(ROBIN), policy({**ROBIN, **at_port(81, **TLS)}), True),
        (policy({**ROBIN, **at_port(80, **TLS)}), policy({**RANDOM, **at_port(80, **TLS)}), True),
        (policy(ROBIN, RANDOM), policy(TLS, {**RANDOM, **TLS}), False),
        (policy(ROBIN, RANDOM), policy(None, RANDOM), True),
        (policy(ROBIN, at_port(80, **TLS)), policy(None, at_port(80, **TLS)), True),
        (policy(ROBIN), policy(None, ROBIN), True),
    ],
)  # fmt: skip
def test_the_policy_counts_that_holds_for_the_port(
    before: Manifest, after: Manifest, *, same: bool
) -> None:
    found = of([service(), web(to("v1")), before], [service(), web(to("v1")), after])
    assert found.verdict == (SAME if same else "differs (1 class)")


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (entry(), entry(subjectAltNames=["a"]), False),
        (entry(), entry(brandNew=1), False),
        (entry(), entry(location="MESH_INTERNAL"), False),
        (entry(), entry(location="MESH_EXTERNAL", endpoints=[]), True),
        (entry(endpoints=[{"address": "a", "weight": 1}]),
         entry(endpoints=[{"address": "a", "weight": 2}]), False),
        (entry(), entry(hosts=["web.example.org", "more.example.org"]), True),
    ],
)  # fmt: skip
def test_fields_of_a_service_entry(before: Manifest, after: Manifest, *, same: bool) -> None:
    found = of([before], [after])
    hosts = {each.example.host for each in found.differences}
    assert ("web.example.org" not in hosts) is same


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("internalTrafficPolicy", "Local", False),
        ("internalTrafficPolicy", "Cluster", True),
        ("publishNotReadyAddresses", True, False),
        ("type", "ClusterIP", True),
        ("type", "NodePort", True),
        ("externalName", "web.example.org", True),
        ("sessionAffinity", "ClientIP", True),
    ],
)
def test_fields_of_a_service(field: str, value: Any, *, same: bool) -> None:
    other = service()
    other["spec"][field] = value
    assert (of([service()], [other]).verdict == SAME) is same


# What fails


@pytest.mark.parametrize(
    ("rule", "fails"),
    [
        (answer(200, directResponse={"status": 200, "body": {"string": "get (503 NC) or (closed"}}),
         False),
        (answer(503), True),
        ({"redirect": {"uri": "/(503"}}, False),
        (to(fault={"abort": {"httpStatus": 500, "percentage": {"value": 1}}}), True),
        (to(fault={"abort": {"httpStatus": 500}}), False),
        (to(fault={"abort": {"httpStatus": 200, "percentage": {"value": 1}}}), False),
        (to(fault={"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 1}}}), True),
        (to("v9"), True),
        (to(mirror={"host": "nowhere"}), False),
        ({"route": [{"destination": {"host": "web"}, "weight": 0}] * 2}, True),
    ],
)  # fmt: skip
def test_whether_requests_fail_is_no_matter_of_words(rule: Manifest, *, fails: bool) -> None:
    found = of([service(), web(to())], [service(), web({**rule, "brandNew": 1})])
    assert [each.after.treatment.fails for each in found.differences] == [fails]


def sidecar(namespace: str, **spec: Any) -> Manifest:
    return istio("Sidecar", namespace, "default", 1, spec)


ALL = [{"hosts": ["*/*"]}]


@pytest.mark.parametrize(
    ("one", "other", "mesh", "same"),
    [
        ("REGISTRY_ONLY", "ALLOW_ANY", MeshConfig(), False),
        (None, "REGISTRY_ONLY", MeshConfig(), False),
        (None, "ALLOW_ANY", MeshConfig(), True),
        (None, "ALLOW_ANY", MeshConfig(registry_only=True), False),
        (None, "REGISTRY_ONLY", MeshConfig(registry_only=True), True),
        (None, "", MeshConfig(), False),
    ],
)
def test_the_sidecars_policy_for_hosts_outside_the_registry(
    one: str | None, other: str, mesh: MeshConfig, *, same: bool
) -> None:
    def state(mode: str | None) -> Snapshot:
        policy = {} if mode is None else {"outboundTrafficPolicy": {"mode": mode} if mode else {}}
        manifests = [service(), workload("web"), sidecar("shop", egress=ALL, **policy)]
        return Snapshot(map(resource, manifests), mesh)

    found = compare(state(one), state(other))
    assert (found.verdict == SAME) is same
    assert all(each.places[0].proxy.namespace == "shop" for each in found.differences)


def test_the_default_sidecar_of_the_mesh_holds_where_no_pod_was_seen() -> None:
    before = [service(), workload("web", app="web")]
    after = [*before, sidecar("istio-system", egress=[{"hosts": ["./*"]}])]
    found = compare(snapshot(before), snapshot(after))
    assert "default" in namespaces(found)
    assert "shop" not in namespaces(found)


def https(**server: Any) -> Manifest:
    port = {"number": 443, "name": "https", "protocol": "HTTPS"}
    return gateway({"hosts": ["*"], "port": port, **server})


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        (
            https(tls={"mode": "SIMPLE", "credentialName": "a"}),
            https(tls={"mode": "MUTUAL", "credentialName": "a"}),
            "Gateway shop/gw: spec.servers[0].tls.mode",
        ),
        (
            https(tls={"mode": "SIMPLE", "credentialName": "a"}),
            https(tls={"mode": "SIMPLE", "credentialName": "b"}),
            "Gateway shop/gw: spec.servers[0].tls.credentialName",
        ),
        (https(), https(bind="192.0.2.1"), "Gateway shop/gw: spec.servers[0].bind"),
        (
            sidecar("shop", egress=ALL),
            sidecar("shop", egress=ALL, ingress=[{"defaultEndpoint": "127.0.0.1:9"}]),
            "Sidecar shop/default: spec.ingress",
        ),
    ],
)
def test_a_field_that_nothing_compares_is_named(
    before: Manifest, after: Manifest, field: str
) -> None:
    found = compare(snapshot([service(), before]), snapshot([service(), after]))
    assert f"{field} is not the same in both states, and is not compared" in found.undecided
    assert compare(snapshot([service(), after]), snapshot([service(), after])).verdict == SAME


def test_whether_a_gateway_ends_tls_is_compared() -> None:
    ends, passes = (
        https(tls={"mode": "SIMPLE", "credentialName": "a"}),
        https(tls={"mode": "PASSTHROUGH", "credentialName": "a"}),
    )
    found = compare(snapshot([service(), ends]), snapshot([service(), passes]))
    assert not [each for each in found.undecided if "tls.mode" in each]


def test_an_object_that_the_api_server_refuses_is_not_the_same() -> None:
    found = compare(snapshot([service(), web(to())]), snapshot([service(), web(to(timeout=5))]))
    assert found.undecided == [
        "VirtualService shop/web: spec.http[0].timeout is the number 5, expected a string: the API "
        "server refuses the object"
    ]
