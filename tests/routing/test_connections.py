"""Where connections go that are no HTTP to the proxy: TCP, and TLS that it does not end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.gateways import merged
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.routing.chains import Chain, Listener, kinds_of_connections, networks
from kubectl_mesh.routing.connection import Connection, connection_for
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.request import request_for
from kubectl_mesh.routing.trace import Trace, Tracer

from .given import (
    Object,
    entry,
    gateway,
    istio,
    pod,
    proxy,
    router,
    says,
    server,
    service,
    snapshot,
    to,
    virtual_service,
)

WEB = service("web", "a", {"name": "tcp", "port": 7000})
PASSTHROUGH = {"mode": "PASSTHROUGH"}
SIMPLE = {"mode": "SIMPLE"}


def on(*release: int) -> MeshConfig:
    """The settings of a mesh that runs a release of Istio."""
    major, minor = release
    return MeshConfig(istio=Istio((major, minor)))


def tls_server(*hosts: str, number: int = 443, protocol: str = "TLS", **tls: Any) -> Object:
    return server(*hosts, number=number, protocol=protocol, tls=tls or PASSTHROUGH)


def for_names(*names: str, **more: Any) -> Object:
    return {"sniHosts": list(names), **more}


def went(trace: Trace) -> str:
    """The clusters that it reaches, else the outcome."""
    reached = [up.target.cluster for up in trace.effect.upstreams]
    return " ".join(reached) or trace.effect.outcome


def sent(
    url: str,
    *objects: Object,
    client: Proxy | None = None,
    through: str = "mesh",
    name: str | None = None,
    address: str | None = None,
    **options: Any,
) -> str:
    """Where a connection goes from a sidecar in namespace a, or through all Gateways."""
    found = router(WEB, *objects, **options)
    source = (client or Proxy("a")) if through == "mesh" else proxy(found)
    asked = connection_for(url, name)
    connection = Connection(asked.host, asked.port, asked.server_name, address)
    return went(Tracer(found).connect(source, connection))


# What a connection is


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://db:5432", "tcp://db:5432"),
        ("TLS://A.Example.com:443/", "tls://a.example.com:443"),
        ("tcp://[::1]:80", "tcp://[::1]:80"),
        ("tls://bücher.example:443", "tls://xn--bcher-kva.example:443"),
    ],
)
def test_a_connection_has_a_host_and_a_port(url: str, said: str) -> None:
    assert str(connection_for(url)) == said


@pytest.mark.parametrize(
    "url",
    [
        *("tcp://db", "tcp://:80", "tls://a:0", "tls://a:99999", "tcp://a:1/path", "tcp://u@a:1"),
        *("tcp:", "tls://a:1?q", "tcp://a b:1", "tcp://[a:1", "tcp://[::1]x:443", "tcp://*:443"),
        *("tls://a..b:443", "tls://[v1.foo]:443", "tls://.:1", "tls://1.2.3.4:1/x"),
    ],
)
def test_what_is_no_connection(url: str) -> None:
    with pytest.raises(UsageError, match=r"no connection|no URL|port"):
        connection_for(url)


def test_a_server_name_is_for_tls() -> None:
    assert str(connection_for("tls://a:1", "B.com")) == "tls://a:1 for b.com"
    with pytest.raises(UsageError, match="not for tcp"):
        connection_for("tcp://a:1", "b.com")
    assert str(connection_for("tls://a.com.:1")) == "tls://a.com:1"
    for name in ("", "*.b.com", "a b", "\x1b[31m", "a" * 64):
        with pytest.raises(UsageError, match="no client can ask for the server name"):
            connection_for("tls://a:1", name)


# Filter chains


def listener(*chains: Chain, **more: Any) -> Listener:
    return Listener("a test", chains, "closed", **more)


def test_the_most_specific_name_has_it_and_case_does_not_count() -> None:
    exact, narrow, wide = Chain(("a.b.com",)), Chain(("*.b.com",)), Chain(("*.com",))
    found = listener(wide, narrow, exact)
    names = {"A.b.com": exact, "x.b.com": narrow, "y.x.b.com": narrow, "b.com": wide, "b.org": None}
    assert {name: found.find(Connection("", 1, name)) for name in names} == names
    assert found.find(Connection("", 1)) is None


def test_there_is_no_way_back_from_the_narrowest_subnet() -> None:
    here = Chain(("a.com",), networks(["10.0.0.0/8"]))
    narrower = Chain(("b.com",), networks(["10.1.0.0/16"]))
    anywhere = Chain(("a.com",))
    found = listener(here, narrower, anywhere)

    def at(address: str) -> Chain | None:
        return found.find(Connection("", 1, "a.com", address))

    assert [at("10.2.0.1"), at("10.1.0.1"), at("11.0.0.1")] == [here, None, anywhere]
    with pytest.raises(Undecidable, match=r"address of the host is not known.*10\.0\.0\.0/8"):
        found.find(Connection("", 1, "a.com"))
    known = listener(here, narrower, anywhere, address=ip_address("10.9.9.9"))
    assert known.find(Connection("", 1, "a.com")) is here


def test_of_several_chains_for_everything_a_sidecar_uses_the_last() -> None:
    one, other, named = Chain(("*",)), Chain(("a.com", "*")), Chain(("a.com",))
    found = listener(one, other, named, last_for_all=True)
    assert found.find(Connection("", 1, "b.com")) is other
    assert found.find(Connection("", 1, "a.com")) is named
    assert found.clash is None


def test_subnets_that_begin_at_nothing_do_not_count() -> None:
    everywhere, rest = Chain((), networks(["0.0.0.0/0"])), Chain()
    found = listener(everywhere, rest, last_for_all=True)
    assert found.find(Connection("", 1)) is everywhere


@pytest.mark.parametrize(
    ("looks_for_tls", "name", "plain", "tls"),
    [(True, None, "rest", "all"), (False, None, "rest", "rest"), (False, "b.com", "rest", "all")],
)
def test_a_chain_for_http_hides_those_for_any_bytes(
    looks_for_tls: bool, name: str | None, plain: str, tls: str
) -> None:
    """Save those that a subnet or a server name finds before, and the last for all."""
    chains = {
        "all": Chain((), networks(["0.0.0.0/0"])),
        "ten": Chain((), networks(["10.0.0.0/8"])),
        "rest": Chain(),
        **({name: Chain((name,))} if name else {}),
    }
    found = listener(
        *chains.values(), last_for_all=True, detects_http=True, looks_for_tls=looks_for_tls
    )

    def taken(server_name: str | None, address: str) -> str | None:
        chain = found.find(Connection("", 1, server_name, address))
        return next(key for key, each in chains.items() if each is chain)

    assert (taken(None, "192.0.2.1"), taken("a.com", "192.0.2.1")) == (plain, tls)
    assert (taken(None, "10.1.1.1"), taken("a.com", "10.1.1.1")) == ("ten", "ten")
    assert found.tells_tls_apart is (plain != tls)
    asked = {each.server_name is None for each in kinds_of_connections("db", 1, [found])}
    assert asked == ({True, False} if plain != tls else {True})


@pytest.mark.parametrize(
    ("name", "release", "ways"),
    [
        ("any", (1, 24), ("db:9000", "web:7000")),
        ("any", (1, 25), ("db:9000", "db:9000")),
        ("tcp-any", (1, 25), ("web:7000", "web:7000")),
    ],
)
def test_a_rule_for_every_subnet_on_a_port_of_no_protocol(
    name: str, release: tuple[int, int], ways: tuple[str, str]
) -> None:
    db = service("db", "a", {"name": name, "port": 9000})
    rule = virtual_service("db", ["db"], tcp=[to("web", {"destinationSubnets": ["0.0.0.0/0"]})])

    def way(url: str) -> str:
        _, port, _, host = sent(url, db, rule, config=on(*release)).split("|")
        return f"{host.partition('.')[0]}:{port}"

    assert (way("tcp://db:9000"), way("tls://db:9000")) == ways


@pytest.mark.parametrize(
    ("chains", "what"),
    [
        ([Chain(("a.com", "b.com")), Chain(("b.com",))], "b.com"),
        ([Chain(("a.com", "a.com"))], "a.com"),
        ([Chain((), networks(["10.1.0.0/8"])), Chain((), networks(["10.0.0.0/8"]))], "10.0.0.0/8"),
        ([Chain(), Chain()], "every connection"),
        ([Chain(("a.com",)), Chain(("*.com",)), Chain(("a.com",), networks(["10.0.0.0/8"]))], None),
    ],
)
def test_chains_for_the_same(chains: list[Chain], what: str | None) -> None:
    clash = listener(*chains).clash
    assert (clash and clash[2]) == what


def test_a_connection_of_each_kind() -> None:
    found = listener(
        Chain(("a.com", "*.com", "*.any.com"), networks(["10.0.0.0/8", "10.1.0.0/16"])),
        Chain(("any.com",)),
    )
    kinds = list(kinds_of_connections("db", 1, [found]))
    assert {each.server_name for each in kinds} == {
        *(None, "a.com", "any1.com", "any.any.com", "any.com", "any.test")
    }
    by_subnet = {
        frozenset(str(each) for each in found.subnets if ip_address(address) in each)
        for address in {each.address for each in kinds}
        if address
    }
    assert by_subnet == {
        frozenset(["10.0.0.0/8"]),
        frozenset(["10.0.0.0/8", "10.1.0.0/16"]),
        frozenset(),
    }
    assert {each.host for each in kinds} == {"db"}
    assert [str(each) for each in kinds_of_connections("db", 1, [listener(Chain())])] == [
        "tcp://db:1"
    ]


def test_a_subnet_that_narrower_ones_fill_has_no_connection_of_its_own() -> None:
    halves = networks(["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"])
    kinds = list(kinds_of_connections("db", 1, [listener(Chain((), halves), Chain())]))
    inside = [each for each in kinds if ip_address(each.address or "") in ip_network("10.0.0.0/8")]
    assert len(inside) == 2


# Sidecars


def db(*tcp: Object, name: str = "v", **more: Any) -> Object:
    return virtual_service(name, ["db"], tcp=list(tcp), **more)


DB = service("db", "a", {"name": "tcp", "port": 5432}, {"name": "tls", "port": 5433})
OWN = "outbound|5432||db.a.svc.cluster.local"
TO_WEB = "outbound|7000||web.a.svc.cluster.local"


def test_a_service_has_its_own_route_and_a_rule_comes_before_it() -> None:
    assert sent("tcp://db:5432", DB) == OWN
    assert sent("tcp://db.a:5432", DB, db(to("web"))) == TO_WEB
    assert sent("tcp://db:5432", DB, db(to("web", {"sourceLabels": {"app": "x"}}))) == OWN


def test_where_a_service_is_not_known_its_connections_are_let_out_or_not() -> None:
    assert sent("tcp://db:5432", DB, client=Proxy("b")) == "passthrough"
    assert sent("tcp://db.a:9", DB, config=MeshConfig(registry_only=True)) == "blackhole"


def test_a_service_is_called_by_its_address_too() -> None:
    database = service("db", "a", {"name": "tcp", "port": 5432}, clusterIP="10.96.0.9")
    assert sent("tcp://10.96.0.9:5432", database) == OWN
    outside = entry(
        "e",
        ["db.com"],
        addresses=["192.0.2.1"],
        ports=[{"number": 5432, "name": "tcp", "protocol": "TCP"}],
    )
    assert sent("tcp://192.0.2.1:5432", outside) == "outbound|5432||db.com"
    assert sent("tcp://192.0.2.2:5432", outside) == "passthrough"


def test_rules_for_subnets_ask_for_the_services_address() -> None:
    rule = db(to("web", {"destinationSubnets": ["10.96.0.0/16"]}))
    inside = service("db", "a", {"name": "tcp", "port": 5432}, clusterIP="10.96.0.9")
    assert sent("tcp://db:5432", inside, rule) == TO_WEB
    outside = service("db", "a", {"name": "tcp", "port": 5432}, clusterIP="10.1.0.9")
    assert sent("tcp://db:5432", outside, rule) == OWN
    assert sent("tcp://db:5432", DB, rule) == "undecided"
    assert sent("tcp://db:5432", DB, rule, address="10.96.7.7") == TO_WEB


def test_server_names_that_no_rule_has_are_let_out_once_there_is_a_rule() -> None:
    rule = virtual_service("v", ["db"], tls=[to("web", for_names("x.com"))])
    assert sent("tls://db:5433", DB) == "outbound|5433||db.a.svc.cluster.local"
    assert sent("tls://db:5433", DB, rule, name="x.com") == TO_WEB
    assert sent("tls://db:5433", DB, rule) == "passthrough"


SUBNET = {"destinationSubnets": ["10.0.0.0/8"]}


@pytest.mark.parametrize(
    ("older", "younger", "before", "since"),
    [
        ([to("web", for_names("a.com", **SUBNET)), to("db", for_names("b.com"))], [], "db", "-"),
        ([to("web", for_names("a.com", **SUBNET))], [to("db", for_names("b.com"))], "db", "-"),
        (
            [to("web", for_names("a.com", **SUBNET), for_names("c.com"))],
            [to("db", for_names("b.com"))],
            *("db", "-"),
        ),
        (
            [to("web", for_names("a.com", port=1, **SUBNET))],
            [to("db", for_names("b.com"))],
            "db",
            "db",
        ),
        ([to("db", for_names("b.com")), to("web", for_names("a.com", **SUBNET))], [], "db", "db"),
        ([{"match": [for_names("a.com", **SUBNET)]}], [to("db", for_names("b.com"))], "?", "db"),
    ],
)
def test_since_1_24_subnets_of_a_tls_match_are_those_of_later_ones(
    older: list[Object], younger: list[Object], before: str, since: str
) -> None:
    """Where a later one has none of its own, in whichever rule or younger VirtualService."""
    service_at = service("db", "a", {"name": "tls", "port": 5433}, clusterIP="192.0.2.1")
    objects = (
        service_at,
        virtual_service("older", ["db"], tls=older, age=1),
        virtual_service("younger", ["db"], tls=younger),
    )
    found = {
        release: sent("tls://db:5433", *objects, name="b.com", config=on(*release))
        for release in ((1, 23), (1, 24), (1, 31))
    }
    meant = {"db": "outbound|5433||db.a.svc.cluster.local", "-": "passthrough", "?": "undecided"}
    assert found[1, 23] == meant[before]
    assert found[1, 31] == meant[since]
    if before != "?":
        assert found[1, 24] == meant[since]


def test_why_a_rule_for_the_server_name_does_not_take_a_connection() -> None:
    """The name is right, and the subnets of another match are in the way."""
    rules = [to("web", for_names("a.com", **SUBNET)), to("db", for_names("*.com"))]
    found = router(WEB, DB, virtual_service("v", ["db"], tls=rules))
    trace = Tracer(found).connect(Proxy("a"), Connection("db", 5433, "b.com", "192.0.2.1"))
    assert trace.effect.why == (
        "VirtualService a/v spec.tls[1].match[0] for *.com is for 10.0.0.0/8 alone, the "
        "destinationSubnets of VirtualService a/v spec.tls[0].match[0] before it; it goes to the "
        "address that the client dials"
    )
    trace = Tracer(found).connect(Proxy("a"), Connection("db", 5433, "b.org", "192.0.2.1"))
    assert "rules are for a.com, *.com, and it bears the server name b.org" in trace.effect.why


def test_subnets_that_stay_make_two_matches_clash_or_not() -> None:
    def clash(release: tuple[int, int], *rules: Object) -> str | None:
        found = router(WEB, DB, virtual_service("v", ["db"], tls=list(rules)), config=on(*release))
        clash = found.listeners.sidecar(Proxy("a"), "db", 5433).clash
        return clash and clash[2]

    again = (to("web", for_names("a.com", **SUBNET)), to("db", for_names("a.com")))
    assert clash((1, 23), *again) is None
    assert clash((1, 24), *again) == "a.com and 10.0.0.0/8"
    apart = (
        to("web", for_names("a.com", "b.com")),
        *(to("web", for_names("c.com", **SUBNET)), to("db", for_names("a.com"))),
    )
    assert clash((1, 23), *apart) == "a.com"
    assert clash((1, 24), *apart) is None


def test_a_rule_without_a_destination_is_skipped_since_1_31() -> None:
    """Istiod crashed at it before, and does so still at several without a weight."""

    def said(release: tuple[int, int], **spec: Any) -> str:
        found = router(WEB, DB, virtual_service("v", ["db"], **spec), config=on(*release))
        url = "tls://db:5433" if "tls" in spec else "tcp://db:5432"
        trace = Tracer(found).connect(Proxy("a"), connection_for(url))
        return trace.undecided or went(trace)

    crash = "istiod crashes at VirtualService a/v spec.{}[0], which has no destination"
    assert said((1, 31), tcp=[{}, to("web")]) == TO_WEB
    assert said((1, 30), tcp=[{}, to("web")]) == crash.format("tcp")
    assert said((1, 30), tcp=[{"match": [{"port": 1}]}, to("web")]) == TO_WEB
    assert said((1, 31), tls=[{"match": [for_names("db")]}]).endswith(
        "|5433||db.a.svc.cluster.local"
    )
    assert said((1, 30), tls=[{"match": [for_names("db")]}]) == crash.format("tls")
    several = [{"route": [*to("web")["route"], *to("db")["route"]]}]
    assert said((1, 31), tcp=several) == f"{crash.format('tcp')} with a weight"
    gateways = [gateway("gw", server(number=5432, protocol="TCP")), bound("a.com", tcp=[{}])]
    through = {
        release: sent("tcp://any:5432", *gateways, through="gateway", config=on(*release))
        for release in ((1, 30), (1, 31))
    }
    assert through == {(1, 30): "undecided", (1, 31): "refused"}


WIKIPEDIA = entry(
    "w", ["*.wikipedia.org"], ports=[{"number": 443, "name": "tls", "protocol": "TLS"}]
)


def test_a_rule_for_one_of_a_wildcards_hosts_counts() -> None:
    rule = virtual_service(
        "v", ["en.wikipedia.org"], tls=[to("web", for_names("en.wikipedia.org"))]
    )
    assert sent("tls://en.wikipedia.org:443", WIKIPEDIA) == "outbound|443||*.wikipedia.org"
    assert sent("tls://en.wikipedia.org:443", WIKIPEDIA, rule) == TO_WEB
    assert sent("tls://de.wikipedia.org:443", WIKIPEDIA, rule) == "passthrough"


def test_hosts_without_an_address_share_a_listener() -> None:
    """So it is the server name that counts, whatever host the client means; the older has it."""
    tcp = [{"number": 443, "name": "tcp", "protocol": "TCP"}]
    young = istio("ServiceEntry", "y", {"hosts": ["y.com"], "ports": tcp}, age=0)
    old = istio("ServiceEntry", "o", {"hosts": ["o.com"], "ports": tcp}, age=1)
    assert sent("tls://a.wikipedia.org:443", WIKIPEDIA, young) == "outbound|443||*.wikipedia.org"
    assert sent("tls://elsewhere.org:443", WIKIPEDIA, young) == "outbound|443||y.com"
    assert sent("tcp://y.com:443", young, old) == "outbound|443||o.com"


def test_hosts_have_listeners_of_their_own_where_sidecars_capture_dns() -> None:
    """Since 1.25 istiod gives them addresses; before, where that is asked for, too."""
    tls = [{"number": 443, "name": "tls", "protocol": "TLS"}]
    spec = {"hosts": ["x.com", "y.com"], "ports": tls, "resolution": "DNS"}
    found = istio("ServiceEntry", "e", spec)
    asked = {"ISTIO_META_DNS_CAPTURE": "true"}
    more = {**asked, "ISTIO_META_DNS_AUTO_ALLOCATE": "true"}
    off = {"ISTIO_META_DNS_CAPTURE": "false"}

    def said(release: tuple[int, int], metadata: dict[str, str], entry: Object = found) -> str:
        config = replace(on(*release), proxy_metadata=metadata)
        return sent("tls://x.com:443", entry, name="other.com", config=config)

    own = "outbound|443||x.com"
    assert [said((1, 31), each) for each in (asked, more, off)] == [own, own, "passthrough"]
    assert [said((1, 24), each) for each in (asked, more)] == ["passthrough", own]
    open_ended = istio("ServiceEntry", "e", {**spec, "resolution": "NONE"})
    refused = istio("ServiceEntry", "e", spec)
    refused["metadata"]["labels"] = {"networking.istio.io/enable-autoallocate-ip": "false"}
    for without in (open_ended, refused):
        assert said((1, 31), asked, without) == "passthrough"


def test_in_which_order_hosts_share_a_listener() -> None:
    """All but the names as of one second, and the export, are alike; the first has it."""
    ports = [{"number": 443, "name": "tcp", "protocol": "TCP"}]

    def first(release: tuple[int, int], *objects: Object) -> str:
        return sent("tcp://x.co:443", *objects, config=on(*release))

    tie = [
        istio("ServiceEntry", host, {"hosts": [host], "ports": ports})
        for host in ("x.co", "x.co-m")
    ]
    assert first((1, 22), *tie) == "outbound|443||x.co-m"
    assert first((1, 23), *tie) == "outbound|443||x.co"
    private = istio("ServiceEntry", "p", {"hosts": ["p.com"], "ports": ports, "exportTo": ["."]})
    named = {"hosts": ["n.com"], "ports": ports, "exportTo": ["a"]}
    older = istio("ServiceEntry", "n", named, namespace="b", age=1)
    assert first((1, 30), private, older) == "outbound|443||p.com"
    assert first((1, 31), private, older) == "outbound|443||n.com"


def test_entries_of_one_host_and_age_that_istio_takes_in_any_order() -> None:
    """Seen with the real istiod: the same objects, applied again, came in another order.

    That is said only where the order matters.
    """

    def of(name: str, protocol: str, age: int = 0, **spec: Any) -> Object:
        ports = [{"number": 443, "name": "some", "protocol": protocol}]
        spec = {"hosts": ["o.com"], "ports": ports, **spec}
        return istio("ServiceEntry", name, spec, age=age)

    def undecided(*objects: Object) -> str | None:
        asked = connection_for("tls://o.com:443")
        return Tracer(router(*objects)).connect(Proxy("a"), asked).undecided

    rules = virtual_service("v", ["o.com"], tls=[to("web", for_names("*"))])
    assert undecided(WEB, rules, of("one", "TCP"), of("two", "TLS")) == (
        "ServiceEntry a/one and ServiceEntry a/two define port 443 of o.com with different "
        "protocols and are equally old: Istio takes either of them first"
    )
    for other in (of("two", "TLS", age=1), of("two", "TLS", exportTo=["."]), of("two", "TCP")):
        assert undecided(WEB, rules, of("one", "TCP"), other) is None
    for protocol in ("TLS", "HTTP", "UDP", "MYSQL"):
        assert undecided(of("one", "TCP"), of("two", protocol)) is None
    many = [of(f"{name}{number}", name) for number in range(20) for name in ("TCP", "TLS")]
    assert undecided(WEB, rules, *many)


def test_an_http_port_lets_everything_else_out() -> None:
    found = router(service("web"), virtual_service("v", ["web"], says("x")))
    trace = Tracer(found).connect(Proxy("a"), connection_for("tls://web:80"))
    assert went(trace) == "passthrough"
    assert trace.effect.why == (
        "port 80 of Service a/web is http, nothing else; it goes to the address that the client "
        "dials"
    )


def test_two_rules_for_one_server_name_are_refused_by_envoy() -> None:
    found = router(
        WEB,
        DB,
        virtual_service("v1", ["db"], tls=[to("web", for_names("a.com"))], age=1),
        virtual_service("v2", ["db"], tls=[to("db", for_names("a.com", "b.com"))]),
    )
    trace = Tracer(found).connect(Proxy("a"), connection_for("tls://db:5433", "b.com"))
    assert trace.effect.outcome == "rejected"
    assert (
        "VirtualService a/v1 spec.tls[0].match[0] and VirtualService a/v2 spec.tls[0].match[0] "
        "both ask for a.com" in trace.effect.why
    )


def test_an_https_request_goes_by_tls_rules_on_a_sidecar() -> None:
    rule = virtual_service("v", ["db"], says("x"), tls=[to("web", for_names("db"))])
    found = router(WEB, DB, rule)
    trace = Tracer(found).trace(Proxy("a"), request_for("https://db:5433/path"))
    assert (went(trace), trace.protocol) == (TO_WEB, "tls")
    assert trace.chain
    assert (trace.chain.rule_index, trace.chain.match_index) == (0, 0)


# Gateways


def bound(*hosts: str, age: int = 0, name: str = "v", **spec: Any) -> Object:
    return virtual_service(name, hosts, gateways=["gw"], age=age, **spec)


def test_a_gateway_passes_tls_on_by_server_name() -> None:
    objects = (
        gateway("gw", tls_server("*.x.com")),
        bound("a.x.com", tls=[to("web", for_names("a.x.com"))]),
    )
    assert sent("tls://a.x.com:443", *objects, through="gateway") == TO_WEB
    assert sent("tls://b.x.com:443", *objects, through="gateway") == "refused"
    assert sent("tcp://a.x.com:443", *objects, through="gateway") == "refused"
    assert sent("tcp://a.x.com:444", *objects, through="gateway") == "refused"


def test_a_match_with_a_name_that_is_taken_is_left_out_whole() -> None:
    objects = (
        gateway("gw", tls_server("*.x.com")),
        bound("a.x.com", tls=[to("web", for_names("a.x.com"))], age=1),
        bound("*.x.com", tls=[to("db", for_names("a.x.com", "b.x.com"))], name="w"),
    )
    assert sent("tls://a.x.com:443", *objects, through="gateway") == TO_WEB
    assert sent("tls://b.x.com:443", *objects, through="gateway") == "refused"


def test_tls_that_a_gateway_ends_goes_by_http_rules_unless_a_name_is_passed_on() -> None:
    objects = (
        gateway("gw", tls_server("*.x.com", protocol="HTTPS", **SIMPLE), tls_server("a.x.com")),
        bound("*.x.com", http=[says("opened")], tls=[to("web", for_names("a.x.com"))]),
    )
    assert sent("tls://b.x.com:443", *objects, through="gateway") == "http"
    assert sent("tls://a.x.com:443", *objects, through="gateway") == TO_WEB
    found = router(WEB, *objects)
    opened = Tracer(found).trace(proxy(found), request_for("https://b.x.com/"))
    passed = Tracer(found).trace(proxy(found), request_for("https://a.x.com/"))
    assert [went(opened), went(passed)] == ["direct-response", TO_WEB]
    assert "goes on by tcp or tls rules, and http rules have no effect" in passed.listener


def test_tcp_behind_tls_that_a_gateway_ends() -> None:
    objects = (gateway("gw", tls_server("a.x.com", **SIMPLE)), bound("a.x.com", tcp=[to("web")]))
    assert sent("tls://a.x.com:443", *objects, through="gateway") == TO_WEB
    assert sent("tls://b.x.com:443", *objects, through="gateway") == "refused"


def test_a_tcp_port_of_a_gateway_has_the_first_rule_for_it() -> None:
    objects = (
        gateway("gw", server(number=5432, protocol="TCP")),
        bound("a.com", tcp=[to("db", {"port": 1}), to("web", {"port": 1}, {"port": 5432})]),
    )
    assert sent("tcp://any:5432", *objects, through="gateway") == TO_WEB
    assert sent("tls://any:5432", *objects, through="gateway") == TO_WEB


def test_what_cannot_be_told_is_said() -> None:
    auto = gateway("gw", tls_server(number=15443, mode="AUTO_PASSTHROUGH"))
    assert sent("tls://x:15443", auto, through="gateway") == "undecided"


@pytest.mark.parametrize(
    ("servers", "kept"),
    [
        ([server("a.com"), server("b.com")], {80: [0, 1]}),
        ([server(protocol="TCP"), server()], {80: [0]}),
        ([server(), server(protocol="TCP")], {80: [0]}),
        ([tls_server("a.com"), tls_server("b.com"), tls_server("./a.com")], {443: [0, 1, 2]}),
        ([tls_server("./a.com"), tls_server("a/a.com", "b.com")], {443: [0]}),
        ([tls_server("*/a.com"), tls_server("a.com")], {443: [0]}),
        ([tls_server("a.com"), server(number=443), server(number=443)], {443: [0, 1, 2]}),
        ([tls_server("a.com"), server(number=443), tls_server("c.com")], {443: [0, 1]}),
        (
            [tls_server("a.com"), server(number=443, protocol="TCP"), server(number=443)],
            {443: [0, 1]},
        ),
        ([tls_server("a.com"), tls_server("b.com"), server(number=443)], {443: [0, 1, 2]}),
        ([server(tls={"httpsRedirect": True}), server(tls={"httpsRedirect": True})], {80: [0]}),
        (
            [
                tls_server("a.com", protocol="HTTPS", **SIMPLE),
                tls_server("b.com", protocol="HTTPS", **SIMPLE),
            ],
            {443: [0]},
        ),
    ],
)
def test_which_servers_share_a_port(servers: list[Object], kept: dict[int, list[int]]) -> None:
    """The last: two HTTPS servers of one Gateway need port names of their own."""
    assert shared(servers, Istio()) == kept


def shared(servers: list[Object], istio: Istio) -> dict[int, list[object]]:
    found = merged(snapshot(gateway("gw", *servers)).gateways.all, istio)
    return {port: [server.path[2] for _, server in members] for port, members in found.items()}


def test_plain_http_beside_tls_up_to_1_27() -> None:
    """One is taken, behind one of TLS, and TLS goes on. Since then TLS behind it is lost."""
    servers = [
        *(tls_server("a.com"), server("b.com", number=443)),
        *(tls_server("c.com"), server("d.com", number=443)),
    ]
    assert shared(servers, Istio((1, 27))) == {443: [0, 1, 2]}
    assert shared(servers, Istio((1, 28))) == {443: [0, 1, 3]}
    later = [tls_server("a.com"), tls_server("b.com"), server(number=443)]
    assert shared(later, Istio((1, 27))) == {443: [0, 1]}


# What was wrong once


def subnets(*networks: str) -> Object:
    return {"destinationSubnets": list(networks)}


def test_a_subnet_of_ipv6_takes_nothing_of_ipv4() -> None:
    rules = db(to("web", subnets("::/0")), to("gone"))
    assert sent("tcp://db:5432", DB, rules, address="192.0.2.9") == (
        "outbound|5432||gone.a.svc.cluster.local"
    )
    assert sent("tcp://db:5432", DB, rules) == "undecided"
    kinds = list(kinds_of_connections("db", 1, [listener(Chain((), networks(["::/0"])), Chain())]))
    assert {ip_address(each.address or "").version for each in kinds} == {4, 6}


def test_an_address_in_the_url_is_known() -> None:
    outside = entry("e", ["x.com"], ports=[{"number": 9000, "name": "tcp", "protocol": "TCP"}])
    rule = virtual_service("v", ["x.com"], tcp=[to("web", subnets("10.0.0.0/8"))])
    assert sent("tcp://10.1.1.1:9000", outside, rule) == TO_WEB
    assert sent("tcp://11.1.1.1:9000", outside, rule) == "outbound|9000||x.com"


@pytest.mark.parametrize(
    ("addresses", "asked", "goes"),
    [
        (["240.1.1.1/32"], "db.com", "outbound|5432||db.com"),
        (["240.1.1.1/32"], "240.1.1.1", "outbound|5432||db.com"),
        (["240.1.1.1/32", "240.2.2.2"], "240.1.1.1", "outbound|5432||db.com"),
        (["240.1.1.1/32", "240.2.2.2"], "240.2.2.2", "outbound|5432||db.com"),
        (["240.1.0.0/16"], "240.1.9.9", "outbound|5432||db.com"),
        (["240.1.0.0/16"], "8.8.8.8", "passthrough"),
        (["240.1.0.0/16", "8.8.8.8"], "240.1.9.9", "outbound|5432||db.com"),
        (["FD00:0::1"], "[fd00::1]", "outbound|5432||db.com"),
        (["rubbish"], "8.8.8.8", "outbound|5432||db.com"),
    ],
)
def test_the_addresses_of_a_service_entry(addresses: list[str], asked: str, goes: str) -> None:
    ports = [{"number": 5432, "name": "tcp", "protocol": "TCP"}]
    assert sent(
        f"tcp://{asked}:5432", entry("e", ["db.com"], addresses=addresses, ports=ports)
    ) == (goes)


def test_each_pod_of_a_headless_service_has_a_listener() -> None:
    headless = service("db", "a", {"name": "tcp", "port": 5432}, clusterIP="None")
    of_it = pod("db-0", ready=True, app="db")
    of_it["status"]["podIP"] = "10.1.2.3"
    for host in ("db", "db-0.db", "db-0.db.a.svc.cluster.local", "10.1.2.3"):
        assert sent(f"tcp://{host}:5432", headless, of_it) == OWN
    assert sent("tcp://10.1.2.4:5432", headless, of_it) == "passthrough"


def test_many_service_entries_with_the_same_rules_are_asked_for_them_once() -> None:
    """Twice as many take about twice as long; it was four times as long, and more."""
    hosts = [f"h{number}.x.com" for number in range(400)]
    matches = [for_names(host) for host in hosts]
    rule = virtual_service("v", hosts, tls=[to("web", match) for match in matches])
    ports = [{"number": 443, "name": "tls", "protocol": "TLS"}]
    entries = [entry(f"e{number}", [host], ports=ports) for number, host in enumerate(hosts)]
    found = router(WEB, rule, *entries)
    shared = found.listeners.sidecar(Proxy("a"), "h1.x.com", 443)
    assert len(shared.chains) == len(hosts)
    assert found.listeners.sidecar(Proxy("a"), "h2.x.com", 443) is shared


def test_subnets_are_found_by_their_length() -> None:
    nested = networks(
        [
            *(f"10.{n}.0.0/16" for n in range(256)),
            *(f"10.{n}.1.0/24" for n in range(256)),
            "10.0.0.0/8",
        ]
    )
    found = listener(*(Chain((), (each,)) for each in nested))
    chosen = found.find(Connection("", 1, None, "10.7.1.9"))
    assert chosen
    assert str(chosen.subnets[0]) == "10.7.1.0/24"
    # All but 10.0.0.0/8, which those of 16 bits fill, and an address in none of each version.
    assert len(list(kinds_of_connections("db", 1, [found]))) == 512 + 2
