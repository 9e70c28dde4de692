"""How Istio routes TCP, and TLS that it does not terminate, shown on a running mesh.

Nothing here speaks HTTP to a proxy: who answered is told by the pod at the other end. All tests
share one mesh (see given.py), where each Service and each server of a Gateway that a test is about
has a port of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from kubectl_mesh.mesh.versions import TLS_SUBNETS_STAY

from . import manifests
from .envoy import Proxy
from .given import Given, service
from .istiod import istio
from .manifests import (
    INGRESS,
    Object,
    destination,
    destination_rule,
    server,
    subset,
    virtual_service,
)
from .mesh import ROOT_NAMESPACE, Mesh

pytestmark = pytest.mark.each_istio

TLS_PORTS = (443, 444, 445)
TCP_PORTS = (9000, 9001, 9002, 9003, 9004)
PORTS = {port: 8000 + port for port in TLS_PORTS} | {port: port for port in TCP_PORTS}
VERSIONS = ("v1", "v2", "v3")

given = Given()
free_ports = itertools.count(9100)


def to(version: str, *matches: Object) -> Object:
    """A rule of TCP or TLS, to a subset of the Service web."""
    return manifests.to("web", *matches, subset=version)


def for_names(*names: str, **more: Any) -> Object:
    return {"sniHosts": list(names), **more}


def tcp_pod(proxy: Proxy, host: str) -> str:
    """The pod at the other end of a TCP connection; nothing if it was closed."""
    with contextlib.closing(proxy.connect(host)) as connection:
        connection.connect()
        try:
            connection.sock.sendall(b"hello\n")
            with connection.sock.makefile("rb") as lines:
                return lines.readline().decode().strip()
        except (ConnectionResetError, BrokenPipeError):
            return ""


def tcp_version(proxy: Proxy, host: str) -> str:
    _, _, version = tcp_pod(proxy, host).removesuffix("-0").rpartition("-")
    return version


def tls_version(proxy: Proxy, name: str, port: int = 443) -> str | None:
    """The version of the pod at the other end of TLS for that server name; None if it was closed.

    The pod must have seen the server name: nobody in between has ended the TLS.
    """
    try:
        answer = proxy.request("GET", f"{name}:{port}", sni=name)
    except (ssl.SSLError, ConnectionResetError):
        return None
    assert answer.said is not None
    assert answer.said["sni"] == name
    return answer.version


class Proxies(NamedTuple):
    client: Proxy  # a sidecar, labelled app: client
    other: Proxy  # a sidecar, labelled app: other
    ingress: Proxy


@pytest.fixture(scope="module")
def proxies(session_mesh: Mesh) -> Iterator[Proxies]:
    mesh = session_mesh
    with given.applied(mesh):
        made = Proxies(
            mesh.sidecar("default", {"app": "client"}),
            mesh.sidecar("default", {"app": "other"}),
            mesh.gateway(INGRESS, PORTS),
        )
        mesh.settled()
        yield made


@pytest.fixture
def client(proxies: Proxies) -> Proxy:
    return proxies.client


@pytest.fixture
def ingress(proxies: Proxies) -> Proxy:
    return proxies.ingress


given(
    service("web", ports={"tcp": 7000}, pods=dict.fromkeys(VERSIONS, 1)),
    destination_rule(
        "web",
        "web",
        *(subset(version, version=version) for version in VERSIONS),
        subset("empty", version="v4"),
    ),
)


def ports_of(*names: str) -> dict[str, int]:
    """A port of its own for each Service of these names."""
    return {name: next(free_ports) for name in names}


def addresses(port_name: str, ports: dict[str, int]) -> list[Object]:
    """Services without pods."""
    return [
        manifests.service(name, {"name": port_name, "port": port}) for name, port in ports.items()
    ]


FOREIGN: Object = {"sourceLabels": {"app": "other"}}
NOBODY = next(free_ports)
LATER = ports_of("later-labels", "later-port", "later-http", "later-first")


@given(
    *addresses("tcp", LATER),
    service("nobody", ports={"tcp": NOBODY}, pods={"own": 1}),
    virtual_service("later-labels-a", "later-labels", tcp=[to("v1", FOREIGN)]),
    virtual_service("later-labels-b", "later-labels", tcp=[to("v2"), to("v3")]),
    virtual_service("later-port-a", "later-port", tcp=[to("v1", {"port": 1}, {"port": 2})]),
    virtual_service(
        "later-port-b", "later-port", tcp=[to("v2", {"port": 1}, {"port": LATER["later-port"]})]
    ),
    virtual_service("later-http-a", "later-http", {"directResponse": {"status": 200}}),
    virtual_service("later-http-b", "later-http", tcp=[to("v2")]),
    virtual_service("later-first-a", "later-first", tcp=[to("v1")]),
    virtual_service("later-first-b", "later-first", tcp=[to("v2")]),
    virtual_service("nobody", "nobody", tcp=[to("v1", FOREIGN)]),
)
def test_later_virtual_services_count_for_tcp_in_the_mesh(proxies: Proxies) -> None:
    """Section 3. Unlike for HTTP, rules of all VirtualServices are tried, oldest first, up to the
    first that matches; a VirtualService with rules for others, or of another protocol, hides
    nothing. Where none matches, the Service's own pods answer."""
    client, other = proxies.client, proxies.other
    assert tcp_version(other, f"later-labels:{LATER['later-labels']}") == "v1"
    assert {name: tcp_version(client, f"{name}:{port}") for name, port in LATER.items()} == {
        "later-labels": "v2",
        "later-port": "v2",
        "later-http": "v2",
        "later-first": "v1",
    }
    assert tcp_version(other, f"nobody:{NOBODY}") == "v1"
    assert tcp_version(client, f"nobody:{NOBODY}") == "own"


MATCHES: dict[str, tuple[Object, bool]] = {
    "labels": ({"sourceLabels": {"app": "client"}}, True),
    "other-labels": ({"sourceLabels": {"app": "other"}}, False),
    "namespace": ({"sourceNamespace": "default"}, True),
    "other-namespace": ({"sourceNamespace": "other"}, False),
    "mesh": ({"gateways": ["mesh"]}, True),
    "other-gateway": ({"gateways": ["other"]}, False),
    "mesh-and-labels": ({"gateways": ["mesh"], "sourceLabels": {"app": "other"}}, False),
    "mesh-and-namespace": ({"gateways": ["mesh"], "sourceNamespace": "other"}, False),
    "subnet": ({"destinationSubnets": ["127.0.0.0/8"]}, True),
    "other-subnet": ({"destinationSubnets": ["192.0.2.0/24"]}, False),
}
"""What a rule for TCP may look for, and whether the client of the test has it."""


MATCHING = ports_of(*MATCHES)
BOTH: Object = {"gateways": ["mesh", "other"]}


@given(
    *addresses("tcp", MATCHING),
    *(
        virtual_service(f"{name}-a", name, tcp=[to("v1", match)], **BOTH)
        for name, (match, _) in MATCHES.items()
    ),
    *(virtual_service(f"{name}-b", name, tcp=[to("v2")]) for name in MATCHES),
)
def test_all_of_a_tcp_match_must_hold(client: Proxy) -> None:
    """Sections 3 and 5. `gateways` does not switch off sourceLabels and sourceNamespace, as it does
    for HTTP. A rule for some destinationSubnets is not the end: later ones follow it."""
    assert {name: tcp_version(client, f"{name}:{port}") for name, port in MATCHING.items()} == {
        name: "v1" if matches else "v2" for name, (_, matches) in MATCHES.items()
    }


DESTINATIONS = ports_of("weights", "missing", "empty")


@given(
    *addresses("tcp", DESTINATIONS),
    virtual_service(
        "weights",
        "weights",
        tcp=[
            {
                "route": [
                    destination("web", subset=version, weight=weight)
                    for version, weight in {"v1": 50, "v2": 50, "v3": 0}.items()
                ]
            }
        ],
    ),
    virtual_service("missing", "missing", tcp=[to("v4")]),
    virtual_service("empty", "empty", tcp=[to("empty")]),
)
def test_tcp_destinations_in_the_mesh(client: Proxy) -> None:
    """Sections 7 and 10. Weights share connections out. A subset that nobody declares closes them,
    as does one without pods. A destination without a port is at its only one, here too."""
    weighted = f"weights:{DESTINATIONS['weights']}"
    assert {tcp_version(client, weighted) for _ in range(40)} == {"v1", "v2"}
    for name in ("missing", "empty"):
        assert tcp_pod(client, f"{name}:{DESTINATIONS[name]}") == ""


@given(
    virtual_service("web", "web", {"directResponse": {"status": 418}}),
    service("http", pods={"own": 1}),
    virtual_service("http", "http", tcp=[to("v1")]),
)
def test_http_rules_do_nothing_on_a_port_of_tcp(client: Proxy) -> None:
    """Sections 2 and 11. Nor do rules of TCP on a port of HTTP."""
    assert {client.request("GET", "web:7000").version for _ in range(30)} == set(VERSIONS)
    assert client.request("GET", "http:5000").version == "own"


SECURE = ports_of("secure", "foreign")


@given(
    *addresses("tls", {"secure": SECURE["secure"]}),
    service("foreign", ports={"tls": SECURE["foreign"]}, pods={"own": 1}),
    virtual_service(
        "secure-a",
        "secure",
        tls=[
            to("v1", for_names("a.secure.com")),
            to("v2", for_names("x.secure.com", **FOREIGN)),
        ],
    ),
    virtual_service(
        "secure-b",
        "secure",
        tls=[
            to("v2", for_names("a.secure.com"), for_names("b.secure.com")),
            to("v3", for_names("*.secure.com")),
        ],
    ),
    virtual_service("foreign", "foreign", tls=[to("v1", for_names("a.foreign.com", **FOREIGN))]),
)
def test_later_virtual_services_count_for_tls_in_the_mesh(client: Proxy) -> None:
    """Section 3. One list of server names is the oldest VirtualService's that has it; other lists
    of younger ones are added. Any other name is closed then, the Service's own too. Where no rule
    is for this client, any name gets through to the Service's own pods."""
    port = SECURE["secure"]
    assert tls_version(client, "a.secure.com", port) == "v1"
    assert tls_version(client, "b.secure.com", port) == "v2"
    assert tls_version(client, "x.secure.com", port) == "v3"
    assert tls_version(client, "secure.default.svc.cluster.local", port) is None
    assert tls_version(client, "a.foreign.com", SECURE["foreign"]) == "own"


SUBNETS = ports_of("stay", "narrow")


@given(
    *addresses("tls", SUBNETS),
    virtual_service(
        "stay-a",
        "stay",
        tls=[to("v1", for_names("a.stay.com", destinationSubnets=["192.0.2.0/24"]))],
    ),
    virtual_service("stay-b", "stay", tls=[to("v2", for_names("b.stay.com"))]),
    virtual_service(
        "narrow",
        "narrow",
        tls=[
            to("v1", for_names("a.narrow.com")),
            to("v2", for_names("a.narrow.com", destinationSubnets=["127.0.0.0/8"])),
        ],
    ),
)
def test_subnets_of_a_tls_match_count_for_later_ones_since_1_24(client: Proxy) -> None:
    """Where those name none. Of two matches for a server name the narrower subnet has it."""
    stayed = None if istio().has(TLS_SUBNETS_STAY) else "v2"
    assert tls_version(client, "b.stay.com", SUBNETS["stay"]) == stayed
    assert tls_version(client, "a.narrow.com", SUBNETS["narrow"]) == "v2"


def passthrough(*hosts: str, port: int, protocol: str = "TLS") -> Object:
    return server(*hosts, port=port, protocol=protocol, tls={"mode": "PASSTHROUGH"})


def gateway(name: str, *servers: Object) -> Object:
    return manifests.gateway(name, *servers, namespace=ROOT_NAMESPACE)


def bound(name: str, host: str, *gateways: str, **spec: Any) -> Object:
    """A VirtualService of Gateways."""
    full = [f"{ROOT_NAMESPACE}/{each}" for each in gateways]
    return virtual_service(name, host, gateways=full, **spec)


@given(
    gateway("tls", passthrough("*.example.com", "*.other.com", port=443)),
    bound(
        "tls-a",
        "a.example.com b.example.com",
        "tls",
        tls=[to("v1", for_names("a.example.com")), to("v2", for_names("b.example.com"))],
    ),
    bound(
        "tls-b",
        "*.example.com",
        "tls",
        tls=[
            to("v3", for_names("a.example.com"), for_names("c.example.com")),
            to("v1", for_names("*.example.com")),
            to("v3", for_names("b.example.com", "d.example.com")),
        ],
    ),
    bound("tls-c", "x.other.com", "tls", http=[to("v1")]),
)
def test_tls_passthrough_on_a_gateway(ingress: Proxy) -> None:
    """Section 4. By server name, the most specific first; the oldest VirtualService has it. A match
    with one name that is taken is skipped with all its names. What is not known is closed."""
    assert tls_version(ingress, "a.example.com") == "v1"
    assert tls_version(ingress, "b.example.com") == "v2"
    assert tls_version(ingress, "c.example.com") == "v3"
    assert tls_version(ingress, "d.example.com") == "v1"
    assert tls_version(ingress, "e.example.com") == "v1"
    assert tls_version(ingress, "x.other.com") is None
    assert tls_version(ingress, "example.org") is None


TLS_MATCHES: dict[str, tuple[Object, str | None]] = {
    "port": ({"port": 444}, "v1"),
    "target-port": ({"port": PORTS[444]}, None),
    "other-port": ({"port": 443}, None),
    "gateway": ({"gateways": [f"{ROOT_NAMESPACE}/matches"]}, "v1"),
    "other-gateway": ({"gateways": ["mesh"]}, None),
    "labels": ({"sourceLabels": {"app": "client"}}, "v1"),
    "namespace": ({"sourceNamespace": "other"}, "v1"),
}
"""What a rule for TLS may look for, and who answers where the gateway does."""


@given(
    gateway("matches", passthrough(port=444, protocol="HTTPS")),
    *(
        bound(
            f"match-{name}",
            f"{name}.match.com",
            "matches",
            tls=[to("v1", for_names(f"{name}.match.com", **match))],
        )
        for name, (match, _) in TLS_MATCHES.items()
    ),
)
def test_what_a_tls_match_on_a_gateway_looks_at(ingress: Proxy) -> None:
    """Section 4. The server's port and the gateways, nothing else: labels and namespaces of sources
    are ignored, unlike on sidecars and unlike HTTP on gateways."""
    assert {name: tls_version(ingress, f"{name}.match.com", 444) for name in TLS_MATCHES} == {
        name: version for name, (_, version) in TLS_MATCHES.items()
    }


@given(
    gateway("hosts-a", passthrough("a.com", "b.com", port=445)),
    gateway("hosts-b", passthrough("b.com", "c.com", port=445)),
    gateway("hosts-c", passthrough("d.com", port=445)),
    *(
        bound(
            f"hosts-{name}",
            f"{name}.com",
            *("hosts-a", "hosts-b", "hosts-c"),
            tls=[to("v1", for_names(f"{name}.com"))],
        )
        for name in "abcd"
    ),
)
def test_two_passthrough_servers_with_one_host(ingress: Proxy) -> None:
    """Section 4. The younger Gateway's server that shares a host is dropped, with all its hosts."""
    answers = [tls_version(ingress, f"{name}.com", 445) for name in "abcd"]
    assert answers == ["v1", "v1", None, "v1"]


@given(
    gateway("tcp", *(server(port=port, protocol="TCP") for port in (9000, 9001, 9002))),
    bound(
        "tcp-a",
        "a.example.com",
        "tcp",
        tcp=[
            to("v3", {"port": 9000, "gateways": ["other"]}),
            to("v1", {"port": 9000, "sourceLabels": {"app": "client"}}),
            to("v2", {"port": 9000}),
        ],
    ),
    bound("tcp-b", "b.example.com", "tcp", tcp=[to("v3", {"port": 9001}, {"port": 9000})]),
)
def test_tcp_on_a_gateway(ingress: Proxy) -> None:
    """Section 4. The first rule of the oldest VirtualService that looks for nothing else than this
    port and gateway has it all; its other conditions are ignored."""
    assert tcp_version(ingress, "a.example.com:9000") == "v1"
    assert tcp_version(ingress, "b.example.com:9000") == "v1"
    assert tcp_version(ingress, "b.example.com:9001") == "v3"
    with pytest.raises(ConnectionRefusedError):
        tcp_pod(ingress, "a.example.com:9002")


@given(
    gateway("weighted", server(port=9003, protocol="TCP")),
    bound(
        "weighted",
        "web",
        "weighted",
        tcp=[
            {"route": [destination("web", subset=version, weight=50) for version in ("v1", "v2")]}
        ],
    ),
)
def test_tcp_weights_on_a_gateway(ingress: Proxy) -> None:
    """Section 4. And a destination without a port is at its only one."""
    assert {tcp_version(ingress, "web:9003") for _ in range(40)} == {"v1", "v2"}


@given(
    gateway("tcp-older", server("a.example.com", port=9004, protocol="TCP")),
    gateway("tcp-younger", server("b.example.com", port=9004, protocol="TCP")),
    bound("tcp-one", "b.example.com", "tcp-younger", tcp=[to("v2")]),
    bound("tcp-two", "a.example.com", "tcp-older", tcp=[to("v1")]),
)
def test_of_two_tcp_servers_on_one_port_the_older_gateways_has_it(ingress: Proxy) -> None:
    """Section 4: whatever their hosts, which TCP does not know."""
    assert tcp_version(ingress, "b.example.com:9004") == "v1"
