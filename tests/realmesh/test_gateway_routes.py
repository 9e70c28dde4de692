"""How Istio routes HTTP on gateways, shown on a running mesh: one fact a test.

All tests share one mesh: see given.py. Nearly all rules answer by themselves, with words that say
which rule won. Where order matters and age is not the point, names and order of applying agree:
"older" is applied before "younger", and comes before it in the alphabet, too. Tests whose Gateways
would be in the way of others have ports of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from . import manifests
from .build import istio_release
from .envoy import Proxy
from .given import AtOnce, Given, Younger, service
from .manifests import INGRESS, Object, prefix, regex, says, server, to
from .mesh import ROOT_NAMESPACE, Mesh

pytestmark = pytest.mark.each_istio

PORTS = {port: 8000 + port for port in range(80, 94)}
EGRESS = {"istio": "egressgateway"}

given = Given()


def gateway(name: str, *servers: Object, namespace: str = ROOT_NAMESPACE, **more: Any) -> Object:
    return manifests.gateway(name, *servers, namespace=namespace, **more)


def virtual_service(
    name: str,
    hosts: str,
    *rules: Object,
    gateways: Iterable[str] = (f"{ROOT_NAMESPACE}/gateway",),
    namespace: str = ROOT_NAMESPACE,
    **more: Any,
) -> Object:
    return manifests.virtual_service(
        name, hosts, *rules, gateways=list(gateways), namespace=namespace, **more
    )


def who(
    proxy: Proxy, host: str, path: str = "/", headers: Mapping[str, str] | None = None
) -> str | int:
    """The words of the rule that answered, or the status where none did."""
    answer = proxy.request("GET", host, path, headers)
    return answer.body.decode() if answer.status == 200 else answer.status


class Proxies(NamedTuple):
    ingress: Proxy
    egress: Proxy
    beside: Proxy  # labelled as the ingress is, in the namespace default
    client: Proxy  # a sidecar


@pytest.fixture(scope="module")
def proxies(session_mesh: Mesh) -> Iterator[Proxies]:
    mesh = session_mesh
    with given.applied(mesh):
        made = Proxies(
            mesh.gateway(INGRESS, PORTS),
            mesh.gateway(EGRESS, PORTS),
            mesh.gateway(INGRESS, PORTS, namespace="default"),
            mesh.sidecar("default", {"app": "client"}),
        )
        mesh.settled()
        yield made


@pytest.fixture
def ingress(proxies: Proxies) -> Proxy:
    """The gateway's workload, in istio-system."""
    return proxies.ingress


given(gateway("gateway", server(), server(port=81)))


OLDER = [says("older /api", prefix("/api")), says("older /")]
YOUNGER = [
    says("younger /api/v2", prefix("/api/v2")),
    says("younger /y", prefix("/y")),
    says("younger /"),
]


@given(
    virtual_service("z-joined", "joined.com", *OLDER),
    Younger(virtual_service("a-joined", "joined.com", *YOUNGER, namespace="default")),
    virtual_service("z-reversed", "reversed.com", namespace="default"),
    Younger(virtual_service("z-reversed", "reversed.com", *YOUNGER, namespace="default")),
    Younger(virtual_service("a-reversed", "reversed.com", *OLDER)),
)
def test_virtual_services_of_one_host_are_joined_oldest_first(ingress: Proxy) -> None:
    """Section 4. By age, whatever their names and namespaces, which an update does not change;
    catch-alls of all go last. Unlike on sidecars, where the oldest alone counts.
    """
    assert who(ingress, "joined.com", "/api/v2") == "older /api"
    assert who(ingress, "joined.com", "/y") == "younger /y"
    assert who(ingress, "joined.com", "/other") == "older /"
    assert who(ingress, "reversed.com", "/api/v2") == "younger /api/v2"
    assert who(ingress, "reversed.com", "/api/v1") == "older /api"
    assert who(ingress, "reversed.com", "/other") == "younger /"


@given(
    AtOnce(
        tuple(
            virtual_service(name, "tied.com", says(f"{namespace}/{name}"), namespace=namespace)
            for name, namespace in (
                ("tied-b", "default"),
                ("tied-a", ROOT_NAMESPACE),
                ("tied-a", "default"),
            )
        )
    )
)
def test_of_one_age_the_name_decides_and_then_the_namespace(ingress: Proxy) -> None:
    """Section 1: ties are usual, as creationTimestamp has seconds."""
    assert who(ingress, "tied.com") == "default/tied-a"


CATCH_ALLS: dict[str, Object] = {
    "none": {},
    "prefix": prefix("/"),
    "case": prefix("/", ignoreUriCase=True),
    "port": prefix("/", port=80),
    "gateways": prefix("/", gateways=["gateway"]),
    "labels": prefix("/", sourceLabels=INGRESS),
}
NO_CATCH_ALLS: dict[str, Object] = {
    "slash-regex": regex("/.*"),
    "headers": prefix("/", headers={"x-user": {"exact": "jo"}}),
    "without-headers": prefix("/", withoutHeaders={"x-other": {"exact": "jo"}}),
    "without-empty": prefix("/", withoutHeaders={"x-other": {"regex": "j?o?"}}),
    "query": prefix("/", queryParams={"q": {"exact": "1"}}),
    "method": prefix("/", method={"exact": "GET"}),
    "scheme": prefix("/", scheme={"exact": "http"}),
    "authority": prefix("/", authority={"prefix": "authority"}),
}
(NO_CATCH_ALLS if istio_release() == "1.22" else CATCH_ALLS)["regex"] = regex(".*")


@given(
    *(
        virtual_service(
            f"catch-{name}-older", f"{name}.catch.com", says("older", *([match] if match else []))
        )
        for name, match in {**CATCH_ALLS, **NO_CATCH_ALLS}.items()
    ),
    *(
        virtual_service(f"catch-{name}-younger", f"{name}.catch.com", says("younger", prefix("/y")))
        for name in (*CATCH_ALLS, *NO_CATCH_ALLS)
    ),
)
def test_what_counts_as_a_catch_all(ingress: Proxy) -> None:
    """Section 4. A catch-all lets a younger VirtualService's /y through; anything else hides it.

    A request without a header meets `withoutHeaders` as one with an empty header does. Before 1.21
    `regex: .*` was no catch-all, and before 1.22 a request without the header did not.
    """
    winners = {
        name: who(ingress, f"{name}.catch.com", "/y?q=1", {"x-user": "jo", "x-other": "x"})
        for name in (*CATCH_ALLS, *NO_CATCH_ALLS)
    }
    assert winners == {
        **dict.fromkeys(CATCH_ALLS, "younger"),
        **dict.fromkeys(NO_CATCH_ALLS, "older"),
    }
    assert {who(ingress, f"{name}.catch.com") for name in CATCH_ALLS} == {"older"}
    assert who(ingress, "headers.catch.com", "/y") == "younger"
    assert who(ingress, "without-headers.catch.com", "/y", {"x-other": "jo"}) == "younger"
    absent = "younger" if istio_release() == "1.22" else "older"
    assert who(ingress, "without-headers.catch.com", "/y") == absent
    assert who(ingress, "without-empty.catch.com", "/y") == "younger"


LATE = says("late", prefix("/late"))


@given(
    virtual_service("dropped-one", "one.drop.com", says("/"), LATE),
    virtual_service("dropped-match", "match.drop.com", says("/", prefix("/"), prefix("/x")), LATE),
    virtual_service("dropped-two-a", "two.drop.com", says("/")),
    virtual_service("dropped-two-b", "two.drop.com", LATE),
    virtual_service(
        "dropped-elsewhere",
        "elsewhere.drop.com",
        says("/", prefix("/", port=81), prefix("/", gateways=["no-such"])),
        LATE,
    ),
)
def test_inside_one_virtual_service_rules_after_a_catch_all_are_dropped(ingress: Proxy) -> None:
    """Section 4. Therefore joining the rules of two VirtualServices by hand loses some.

    What is a catch-all on another port or gateway only, drops nothing here.
    """
    assert who(ingress, "one.drop.com", "/late") == "/"
    assert who(ingress, "match.drop.com", "/late") == "/"
    assert who(ingress, "two.drop.com", "/late") == "late"
    assert who(ingress, "elsewhere.drop.com", "/late") == "late"
    assert who(ingress, "elsewhere.drop.com:81", "/late") == "/"


@given(
    gateway("wild", server(port=82)),
    virtual_service("wild-all", "*", says("*"), gateways=["wild"]),
    virtual_service("wild-com", "*.com", says("*.com"), gateways=["wild"]),
    virtual_service("wild-example", "*.example.com", says("*.example.com"), gateways=["wild"]),
    virtual_service("wild-x", "x.example.com", says("x /api", prefix("/api")), gateways=["wild"]),
)
def test_a_name_and_a_wildcard_over_it_are_different_virtual_hosts(ingress: Proxy) -> None:
    """Section 4. The most specific one answers, and nothing falls through to the wildcard."""
    assert who(ingress, "x.example.com:82", "/api") == "x /api"
    assert who(ingress, "x.example.com:82", "/other") == 404
    assert who(ingress, "y.example.com:82", "/other") == "*.example.com"
    assert who(ingress, "a.y.example.com:82", "/other") == "*.example.com"
    assert who(ingress, "example.com:82") == "*.com"
    assert who(ingress, "example.org:82") == "*"


HOSTS = "wide.shop.com narrow.net default.com own.com any.com out.com"
NARROW: Object = {"gateways": [f"{ROOT_NAMESPACE}/narrow"]}


@given(
    gateway(
        "narrow",
        server(
            "*.shop.com",
            "one.narrow.net",
            "default/default.com",
            "./own.com",
            "*/any.com",
            port=83,
        ),
    ),
    virtual_service("narrow-a", HOSTS, says("default"), namespace="default", **NARROW),
    virtual_service("narrow-b", HOSTS, says("root"), **NARROW),
    virtual_service("narrow-c", "*.net", says("*.net"), **NARROW),
    virtual_service("narrow-d", "*.com", says("*.com"), **NARROW),
)
def test_hosts_are_those_of_the_server_and_of_the_virtual_service(ingress: Proxy) -> None:
    """Section 4. The narrower of two that overlap; a server's ns/host admits that namespace only,
    `./host` that of its Gateway."""
    assert who(ingress, "wide.shop.com:83") == "default"
    assert who(ingress, "other.shop.com:83") == "*.com"
    assert who(ingress, "narrow.net:83") == 404
    assert who(ingress, "one.narrow.net:83") == "*.net"
    assert who(ingress, "two.narrow.net:83") == 404
    assert who(ingress, "default.com:83") == "default"
    assert who(ingress, "own.com:83") == "root"
    assert who(ingress, "any.com:83") == "default"
    assert who(ingress, "out.com:83") == 404


@given(
    virtual_service("port", "www.port.com", says("www")),
    virtual_service("with-port", "never.port.com:80", says("never")),
)
def test_the_port_and_the_case_of_the_host_header_are_ignored(ingress: Proxy) -> None:
    """Section 4. And a host of a VirtualService that has a port in it is never met."""
    for host in ("www.port.com", "www.port.com:80", "WWW.port.COM:80"):
        assert who(ingress, host) == "www"
    assert who(ingress, "never.port.com:80") == 404
    assert who(ingress, "www.port.com", headers={"Host": "www.port.com:12345"}) == "www"


NAMES_OF_A_GATEWAY = {
    f"{ROOT_NAMESPACE}/gateway": (True, True),
    f"gateway.{ROOT_NAMESPACE}": (True, True),
    f"gateway.{ROOT_NAMESPACE}.svc.cluster.local": (True, True),
    "gateway": (True, False),
    "./gateway": (True, False),
    "default/gateway": (False, False),
    "mesh": (False, False),
}
"""How a VirtualService may name the Gateway istio-system/gateway: whether it is it, from inside
that namespace and from another."""


def named_in_every_way() -> Iterator[tuple[Object, str, str | int]]:
    """VirtualServices that name the Gateway, their hosts, and who is to answer there for /m."""
    for number, (name, found) in enumerate(NAMES_OF_A_GATEWAY.items()):
        for namespace, is_it in zip((ROOT_NAMESPACE, "default"), found, strict=True):
            rules = [says("match", prefix("/m", gateways=[name])), says("no match")]
            for gateways, host, said in (
                ([name], f"bound-{number}.{namespace}.com", "match" if is_it else 404),
                (
                    [name, f"{ROOT_NAMESPACE}/gateway"],
                    f"match-{number}.{namespace}.com",
                    "match" if is_it else "no match",
                ),
            ):
                named = host.partition(".")[0]
                yield (
                    virtual_service(named, host, *rules, namespace=namespace, gateways=gateways),
                    host,
                    said,
                )


@given(*(item for item, _, _ in named_in_every_way()))
def test_names_of_a_gateway(ingress: Proxy) -> None:
    """Section 5. A short name is of the VirtualService's own namespace; the legacy form has the
    namespace behind the dot. `match.gateways` is read in the same way."""
    wanted = {host: said for _, host, said in named_in_every_way()}
    assert {host: who(ingress, host, "/m") for host in wanted} == wanted


@given(
    virtual_service(
        "ports",
        "www.ports.com",
        *(says(f"port {port}", {"port": port}) for port in (8080, 8081, 80)),
        says("none"),
    ),
    virtual_service("ports-80", "only.ports.com", says("port 80", {"port": 80})),
)
def test_match_port_is_the_port_of_the_gateways_server(ingress: Proxy) -> None:
    """Section 5. Not the port that the gateway's pod listens on."""
    assert PORTS[80] == 8080
    assert who(ingress, "www.ports.com") == "port 80"
    assert who(ingress, "www.ports.com:81") == "none"
    assert who(ingress, "only.ports.com") == "port 80"
    assert who(ingress, "only.ports.com:81") == 404


@given(
    gateway("other", server("*.unbound.com")),
    virtual_service(
        "unbound",
        "www.unbound.com",
        says("other", prefix("/", gateways=["other"])),
        says("mesh", prefix("/", gateways=["mesh"])),
        says("one of them", prefix("/both", gateways=["other", "gateway"])),
        says("none"),
    ),
)
def test_a_match_on_a_gateway_that_the_virtual_service_is_not_bound_to(ingress: Proxy) -> None:
    """Section 5: never matches, though that Gateway exists and is of the same workload."""
    assert who(ingress, "www.unbound.com") == "none"
    assert who(ingress, "www.unbound.com", "/both") == "one of them"


SOURCES: dict[str, tuple[Object, bool]] = {
    "labels": ({"sourceLabels": INGRESS}, True),
    "other-labels": ({"sourceLabels": {"app": "client"}}, False),
    "namespace": ({"sourceNamespace": ROOT_NAMESPACE}, True),
    "other-namespace": ({"sourceNamespace": "default"}, False),
    "one-of-both": ({"sourceLabels": INGRESS, "sourceNamespace": "default"}, False),
    "gateways": ({"sourceLabels": {"app": "client"}, "gateways": ["gateway"]}, True),
    "gateways-too": ({"sourceNamespace": "default", "gateways": ["gateway"]}, True),
}


@given(
    *(
        virtual_service(f"{name}-source", f"{name}.source.com", says("match", match), says("none"))
        for name, (match, _) in SOURCES.items()
    )
)
def test_source_labels_and_namespace_are_those_of_the_gateways_pod(ingress: Proxy) -> None:
    """Section 5. And a match with `gateways` looks at neither of them."""
    assert {name: who(ingress, f"{name}.source.com") for name in SOURCES} == {
        name: "match" if matches else "none" for name, (_, matches) in SOURCES.items()
    }


@given(
    virtual_service(
        "left-a", "a.left.com b.left.com", says("others", {"sourceNamespace": "default"})
    ),
    virtual_service("left-b", "b.left.com", says("b /b", prefix("/b"))),
    virtual_service("left-c", "*.left.com", says("*")),
)
def test_a_virtual_service_without_a_rule_for_the_gateway_leaves_the_host_to_others(
    ingress: Proxy,
) -> None:
    """Sections 2 and 4: alone, it makes no virtual host, so a wildcard's answers instead."""
    assert who(ingress, "a.left.com") == "*"
    assert who(ingress, "b.left.com", "/b") == "b /b"
    assert who(ingress, "b.left.com") == 404


@given(
    gateway("egress", server(), selector=EGRESS),
    virtual_service("workloads-a", "www.workloads.com", says("in /")),
    virtual_service(
        "workloads-b", "www.workloads.com", says("out /x", prefix("/x")), gateways=["egress"]
    ),
    virtual_service(
        "workloads-both",
        "both.workloads.com",
        says("egress", prefix("/", gateways=["egress"])),
        says("any"),
        gateways=["egress", "gateway"],
    ),
)
def test_two_gateways_of_two_workloads_share_nothing(proxies: Proxies) -> None:
    """Section 4."""
    assert who(proxies.ingress, "www.workloads.com", "/x") == "in /"
    assert who(proxies.egress, "www.workloads.com", "/x") == "out /x"
    assert who(proxies.egress, "www.workloads.com") == 404
    assert who(proxies.ingress, "both.workloads.com") == "any"
    assert who(proxies.egress, "both.workloads.com") == "egress"


@given(
    gateway("two-ports", server("*.two.com", port=84), server("b.two.com", port=85)),
    virtual_service("two-ports-a", "a.two.com b.two.com", says("a"), gateways=["two-ports"]),
    virtual_service("two-ports-b", "b.two.com", says("b /x", prefix("/x")), gateways=["two-ports"]),
)
def test_two_ports_of_one_gateway(ingress: Proxy) -> None:
    """Section 4. A VirtualService is served on each server that admits its host, and on no
    other."""
    assert [who(ingress, f"{host}.two.com:84") for host in "ab"] == ["a", "a"]
    assert [who(ingress, f"{host}.two.com:85") for host in "ab"] == [404, "a"]
    assert [who(ingress, f"b.two.com:{port}", "/x") for port in (84, 85)] == ["b /x"] * 2


@given(
    virtual_service("pair-a", "www.pair.com", says("second /x", prefix("/x")), gateways=["pair-z"]),
    gateway("pair-a", server("*.pair.com", port=86)),
    gateway("pair-z", server("www.pair.com", "only.pair.org", port=86)),
    virtual_service("pair-b", "www.pair.com only.pair.org", says("first /"), gateways=["pair-a"]),
    virtual_service("pair-c", "www.pair.com", says("first /x", prefix("/x")), gateways=["pair-a"]),
    virtual_service("pair-d", "www.pair.com", says("second /y", prefix("/y")), gateways=["pair-z"]),
    virtual_service("pair-e", "only.pair.org two.pair.com", says("second /"), gateways=["pair-z"]),
    virtual_service("pair-f", "both.pair.com", says("both"), gateways=["pair-a", "pair-z"]),
)
def test_two_gateways_of_one_workload_and_port_are_one(ingress: Proxy) -> None:
    """Section 4. The VirtualServices of both are joined for each host: first all those of the older
    Gateway, then those of the other, whatever the age of the VirtualServices."""
    assert who(ingress, "www.pair.com:86", "/x") == "first /x"
    assert who(ingress, "www.pair.com:86", "/y") == "second /y"
    assert who(ingress, "www.pair.com:86") == "first /"
    assert who(ingress, "only.pair.org:86") == "second /"
    assert who(ingress, "two.pair.com:86") == 404
    assert who(ingress, "both.pair.com:86") == "both"


@given(
    gateway("protocol-a", server(port=87)),
    gateway("protocol-b", server(port=87, protocol="TCP"), server(port=88)),
    virtual_service("protocol-a", "www.protocol.com", says("a"), gateways=["protocol-a"]),
    virtual_service(
        "protocol-b", "www.protocol.com b.protocol.com", says("b"), gateways=["protocol-b"]
    ),
)
def test_of_two_gateways_with_two_protocols_on_one_port_the_older_has_it(ingress: Proxy) -> None:
    """Section 4: the younger one's server is dropped, and its VirtualService with it."""
    assert who(ingress, "www.protocol.com:87") == "a"
    assert who(ingress, "b.protocol.com:87") == 404
    assert who(ingress, "b.protocol.com:88") == "b"


def merged(name: str, gateway: str) -> Object:
    """The rules of the mesh for the Service of that name, and a gateway's for its public name."""
    return virtual_service(
        name,
        f"{name}.default.svc.cluster.local www.{name}.com",
        says("internal", prefix("/", gateways=["mesh"])),
        says("public", prefix("/", gateways=[gateway])),
        gateways=["mesh", gateway],
    )


@given(
    *(service(name, ports={"http": 80}) for name in ("separate", "merged", "guarded")),
    virtual_service(
        "separate", "separate.default.svc.cluster.local", says("internal"), gateways=["mesh"]
    ),
    virtual_service("separate-public", "www.separate.com", says("public")),
    merged("merged", "gateway"),
    gateway("guard", server("*.guarded.com", port=89)),
    merged("guarded", "guard"),
)
def test_merging_mesh_and_gateway_rules_opens_hosts_on_both(proxies: Proxies) -> None:
    """Section 6. Even with the right `gateways` at each match, one VirtualService for both serves
    the internal name to the world, and takes the public name away from the sidecars' way out.

    A Gateway that does not admit the internal name keeps it inside.
    """
    client, ingress = proxies.client, proxies.ingress
    names = ("separate", "merged", "guarded")
    internal = {name: f"{name}.default.svc.cluster.local" for name in names}
    assert {who(client, host) for host in internal.values()} == {"internal"}
    outside = client.explain("GET", "www.separate.com")
    assert outside["upstream_cluster"] == "PassthroughCluster"
    assert who(client, "www.merged.com") == who(client, "www.guarded.com") == "internal"

    public = ("www.separate.com", "www.merged.com", "www.guarded.com:89")
    assert {who(ingress, host) for host in public} == {"public"}
    assert who(ingress, internal["separate"]) == 404
    assert who(ingress, internal["merged"]) == "public"
    assert who(ingress, f"{internal['guarded']}:89") == 404


@given(
    service("one", pods={"v1": 1}),
    service("two", ports={"http": 5000, "http-more": 5001}, pods={"v1": 1}),
    service("lucky", ports={"http": 81, "http-more": 5001}, pods={"v1": 1}),
    *(
        virtual_service(f"to-{name}", f"{name}.to.com", rule, namespace="default")
        for name, rule in {
            "one": to("one"),
            "two": to("two"),
            "two-with-port": to("two", port=5001),
            "lucky": to("lucky"),
        }.items()
    ),
)
def test_a_destination_without_a_port_on_a_gateway(ingress: Proxy) -> None:
    """Section 7. The only port of the destination; else the number of the gateway's own port, which
    is right by accident or is a cluster that does not exist."""

    def port(host: str) -> int | None:
        said = ingress.request("GET", host).said
        return said["port"] if said else None

    assert port("one.to.com") == port("one.to.com:81") == 5000
    assert port("two-with-port.to.com") == 5001
    assert flags(ingress.explain("GET", "two.to.com")) == (503, "NC")
    assert (port("lucky.to.com"), port("lucky.to.com:81")) == (None, 81)


EXPORTS: dict[str, tuple[list[str], list[str | int]]] = {
    "everyone": ([], ["yes", "yes"]),
    "star": (["*"], ["yes", "yes"]),
    "own": (["."], [404, "yes"]),
    "root": ([ROOT_NAMESPACE], ["yes", 404]),
    "other": (["other"], [404, 404]),
    "both": ([".", ROOT_NAMESPACE], ["yes", "yes"]),
    "star-and-own": ([".", "*"], ["yes", "yes"]),
    "nobody": (["~"], [404, 404]),
}
"""What a VirtualService of the namespace default is exported to, and what it answers in the
gateways of the root namespace and of its own."""


@given(
    *(
        virtual_service(
            f"{name}-export", f"{name}.export.com", says("yes"), namespace="default", exportTo=to
        )
        for name, (to, _) in EXPORTS.items()
    )
)
def test_export_to_names_namespaces_of_the_gateways_pod(proxies: Proxies) -> None:
    """Section 1. Not of the Gateway object; `.` is the VirtualService's own namespace."""
    assert {
        name: [who(proxy, f"{name}.export.com") for proxy in (proxies.ingress, proxies.beside)]
        for name in EXPORTS
    } == {name: seen for name, (_, seen) in EXPORTS.items()}


def says_at(words: str, *paths: str) -> list[Object]:
    return [says(f"{words} {path}", prefix(path)) for path in paths]


@given(
    virtual_service(
        "rank-a", "rank.com", *says_at("public", "/a", "/b", "/c"), namespace="default"
    ),
    virtual_service(
        "rank-b",
        "rank.com",
        *says_at("exported", "/a", "/b"),
        namespace="default",
        exportTo=[ROOT_NAMESPACE],
    ),
    virtual_service("rank-c", "rank.com", *says_at("private", "/a"), exportTo=["."]),
)
def test_private_before_exported_before_public_virtual_services(ingress: Proxy) -> None:
    """Section 1: whatever their age."""
    answers = [who(ingress, "rank.com", path) for path in ("/a", "/b", "/c")]
    assert answers == ["private /a", "exported /b", "public /c"]


@given(
    gateway("nobody", server(port=90), selector={**INGRESS, "zone": "a"}),
    gateway("default", server(), namespace="default"),
    virtual_service("nobody", "www.nobody.com", says("nobody"), gateways=["nobody"]),
    virtual_service("a", "a.com", says("a"), gateways=["default"], namespace="default"),
)
def test_gateways_select_pods_of_all_namespaces(ingress: Proxy) -> None:
    """Section 4. One whose selector, of which each label counts, matches no pod has no effect; its
    VirtualServices have none either."""
    assert who(ingress, "a.com") == "a"
    assert who(ingress, "www.nobody.com") == 404
    with pytest.raises(ConnectionRefusedError):
        who(ingress, "www.nobody.com:90")


@given(
    gateway(
        "redirect",
        server("a.com", "*.b.com", port=91, tls={"httpsRedirect": True}),
        server("c.com", "a.com", port=91),
    ),
    virtual_service("redirect", "a.com x.b.com c.com", says("no"), gateways=["redirect"]),
    virtual_service("elsewhere", "d.com", says("not of this gateway")),
)
def test_https_redirect_of_a_server(ingress: Proxy) -> None:
    """Section 4. All of the server's hosts, with a VirtualService or without, whose rules do not
    count then; through another server's host of the same name, too."""

    def location(host: str) -> tuple[int, str | None]:
        answer = ingress.request("GET", f"{host}:91", "/path", {"Host": host})
        return answer.status, answer.headers.get("location")

    assert location("a.com") == (301, "https://a.com/path")
    assert location("x.b.com") == (301, "https://x.b.com/path")
    assert location("y.b.com") == (301, "https://y.b.com/path")
    assert location("c.com") == (200, None)
    assert location("d.com") == (404, None)


def flags(logged: Mapping[str, Any]) -> tuple[int, str]:
    return logged["response_code"], logged["response_flags"]


@given(gateway("empty", server(port=92)), virtual_service("known", "known.com", says("known")))
def test_an_unknown_host(ingress: Proxy) -> None:
    """Section 4: 404 NR, be there VirtualServices for other hosts or none at all."""
    assert who(ingress, "known.com") == "known"
    assert flags(ingress.explain("GET", "unknown.com")) == (404, "NR")
    assert flags(ingress.explain("GET", "unknown.com:92")) == (404, "NR")


@given(virtual_service("closed", "closed.com", says("open"), gateways=["closed"]))
def test_without_a_gateway_nobody_listens(session_mesh: Mesh, ingress: Proxy) -> None:
    """Section 4: a VirtualService alone opens no port, whatever it names."""
    with pytest.raises(ConnectionRefusedError):
        who(ingress, "closed.com:93")
    session_mesh.apply(gateway("closed", server(port=93)))
    session_mesh.settled()
    assert who(ingress, "closed.com:93") == "open"
