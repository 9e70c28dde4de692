"""Which Service or ServiceEntry a sidecar has for a host, where several provide it or none may.

What Envoy does is held to what the model says of the same objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Target
from kubectl_mesh.routing.upstreams import upstream

from . import manifests
from .build import istio_release
from .envoy import Proxy
from .given import Given, Younger, service
from .manifests import Object, istio, prefix, says, to, virtual_service
from .mesh import Mesh
from .routes_tried import snapshot_of

HOST = "web.home.svc.cluster.local"
LATE = "late.default.svc.cluster.local"
OLD = istio_release() == "1.22"
"""Whether the istiod of the tests is from before all that differs here."""

UNKNOWN = "not known"
NO_CLUSTER = "NC"
NO_ENDPOINT = "UH"

given = Given()


def entry(name: str, *hosts: str, namespace: str, ports: Mapping[str, int]) -> Object:
    """A ServiceEntry without endpoints, whose requests end as 503 UH."""
    listed = [
        {"number": number, "name": port, "protocol": "HTTP"} for port, number in ports.items()
    ]
    return istio(
        "ServiceEntry", name, namespace, hosts=list(hosts), ports=listed, resolution="STATIC"
    )


class Clients(NamedTuple):
    own: Proxy  # in a namespace that provides HOST, too
    other: Proxy  # in one that does not
    limited: Proxy  # in one with a Sidecar that imports everything
    excluding: Proxy  # in one with a Sidecar that takes hosts away
    empty: Proxy  # in one with a Sidecar that takes all away
    pruned: Proxy  # in one with a Sidecar that imports that namespace alone


@pytest.fixture(scope="module")
def clients(session_mesh: Mesh) -> Iterator[Clients]:
    with given.applied(session_mesh):
        made = Clients(*(session_mesh.sidecar(name) for name in Clients._fields))
        session_mesh.settled()
        yield made


@pytest.fixture(scope="module")
def router(session_mesh: Mesh, clients: Clients) -> Router:
    return Router(snapshot_of(session_mesh))


def fate(router: Router, proxy: Proxy, host: str, port: int) -> str:
    """What becomes of a request by Envoy, which is asserted to be what the model says."""
    line = proxy.explain("GET", f"{host}:{port}")
    found = str(line["response_code"])
    if line["upstream_cluster"] == "PassthroughCluster":
        found = UNKNOWN
    elif line["response_flags"] in (NO_CLUSTER, NO_ENDPOINT):
        found = line["response_flags"]
    told = told_by(router, proxy.identity.namespace, host, port)
    assert found == told
    return found


def told_by(router: Router, namespace: str, host: str, port: int) -> str:
    client = Place(namespace)
    table = router.sidecar(client, host, port)
    if table.kind == "passthrough":
        return UNKNOWN
    (route,) = table.routes
    if not route.action.targets:
        return "200"
    (target,) = route.action.targets
    to = upstream(router, target, Place(namespace))
    if to.flag:
        return to.flag
    assert to.service
    return "200" if to.service.is_kubernetes else NO_ENDPOINT


@given(
    service("web", namespace="home", ports={"http": 5000, "http-b": 5001}, pods={"v1": 1}),
    service("beside", ports={"http": 5000, "http-b": 5001}),
    entry("web", HOST, namespace="own", ports={"http": 5000}),
)
def test_a_sidecars_own_namespace_provides_a_host_before_others(
    router: Router, clients: Clients
) -> None:
    """Since 1.24; with it the ports that others give the host are gone."""
    assert fate(router, clients.other, HOST, 5000) == "200"
    assert fate(router, clients.other, HOST, 5001) == "200"
    assert fate(router, clients.own, HOST, 5000) == ("200" if OLD else NO_ENDPOINT)
    assert fate(router, clients.own, HOST, 5001) == ("200" if OLD else UNKNOWN)


@given(
    istio("Sidecar", "all", "limited", egress=[{"hosts": ["*/*"]}]),
    service("beside-late", ports={"http": 5002, "http-b": 5003}),
    entry("late", LATE, namespace="early", ports={"http": 5002}),
    Younger(manifests.service("late", {"name": "http", "port": 5003})),
)
def test_a_kubernetes_service_comes_before_older_entries(router: Router, clients: Clients) -> None:
    """Before 1.24 not with a Sidecar; and without one, listeners were made for both."""
    assert fate(router, clients.other, LATE, 5003) == NO_ENDPOINT
    assert fate(router, clients.other, LATE, 5002) == (NO_CLUSTER if OLD else UNKNOWN)
    known, unknown = (5002, 5003) if OLD else (5003, 5002)
    assert fate(router, clients.limited, LATE, known) == NO_ENDPOINT
    assert fate(router, clients.limited, LATE, unknown) == UNKNOWN


@given(
    entry("two", "two.test", namespace="z-early", ports={"http": 5002}),
    Younger(entry("two", "two.test", namespace="a-late", ports={"http": 5003})),
)
def test_of_two_namespaces_entries_the_older_counts(router: Router, clients: Clients) -> None:
    for proxy in (clients.other, clients.limited):
        assert fate(router, proxy, "two.test", 5002) == NO_ENDPOINT
    expected = NO_CLUSTER if OLD else UNKNOWN
    assert fate(router, clients.other, "two.test", 5003) == expected
    assert fate(router, clients.limited, "two.test", 5003) == UNKNOWN


AWAY = "away.home.svc.cluster.local"
BESIDE = "beside-away.home.svc.cluster.local"


@given(
    istio(
        "Sidecar",
        "away",
        "excluding",
        egress=[{"hosts": ["*/*", f"~home/{AWAY}", "~/gone.test", "~./own.test", f"~*/{BESIDE}"]}],
    ),
    istio("Sidecar", "nothing", "empty", egress=[{"hosts": ["~/*"]}]),
    service("away", namespace="home", pods={"v1": 1}),
    service("stays", namespace="home", pods={"v1": 1}),
    entry("gone", "gone.test", "stays.test", namespace="default", ports={"http": 5000}),
    entry("own", "own.test", namespace="excluding", ports={"http": 5000}),
    virtual_service("gone", "gone.test", says("gone"), exportTo=["*"]),
    service("beside-away", namespace="home"),
    virtual_service("both", f"{BESIDE} stays.test", says("both")),
)
def test_egress_hosts_that_begin_with_a_tilde_are_taken_away(
    router: Router, clients: Clients
) -> None:
    """Since 1.31. A VirtualService is imported if one of its hosts is not taken away.

    It is for its other hosts, too, as for any that are not in the registry.
    """
    assert fate(router, clients.excluding, "stays.home.svc.cluster.local", 5000) == "200"
    for host in ("stays.test", BESIDE):
        assert fate(router, clients.excluding, host, 5000) == "200"
    for host in (AWAY, "gone.test"):
        assert fate(router, clients.excluding, host, 5000) == ("200" if OLD else UNKNOWN)
    own = fate(router, clients.excluding, "own.test", 5000)
    assert own == (NO_ENDPOINT if OLD else UNKNOWN)
    for host in (AWAY, "stays.test", "gone.test"):
        assert fate(router, clients.other, host, 5000) == "200"
        assert told_by(router, "empty", host, 5000) == UNKNOWN


@given(
    istio("Sidecar", "own", "pruned", egress=[{"hosts": ["./*"]}]),
    service("far", namespace="home", pods={"v1": 1}),
    service("far-too", namespace="home", pods={"v1": 1}),
    service("here", namespace="pruned"),
    virtual_service(
        "here",
        "here",
        to(
            "far.home.svc.cluster.local",
            prefix("/", authority={"prefix": "here.pruned:"}),
            prefix("/x", sourceNamespace="default"),
        ),
        to("far-too.home.svc.cluster.local"),
        namespace="pruned",
    ),
)
def test_rules_that_name_another_source_make_no_cluster(router: Router, clients: Clients) -> None:
    """Since 1.24, for what the Sidecar does not import."""
    line = clients.pruned.explain("GET", "here.pruned:5000")
    expected = (200, "-") if OLD else (503, NO_CLUSTER)
    assert (line["response_code"], line["response_flags"]) == expected
    assert clients.pruned.explain("GET", "here:5000")["response_code"] == 200
    flags = [
        upstream(
            router, Target(f"{name}.home.svc.cluster.local", 5000, None, 0), Place("pruned")
        ).flag
        for name in ("far", "far-too")
    ]
    assert flags == [None if OLD else NO_CLUSTER, None]


def alias(name: str, external_name: str, port: int) -> Object:
    made = manifests.service(name, {"name": "http", "port": port})
    made["spec"] = {**made["spec"], "type": "ExternalName", "externalName": external_name}
    return made


@given(
    service("meant", namespace="home", pods={"v1": 1}, ports={"http": 5000, "http-b": 5001}),
    alias("one", "meant.home.svc.cluster.local", 5000),
    alias("another", "one.default.svc.cluster.local", 5000),
    alias("ruled", "meant.home.svc.cluster.local", 5000),
    alias("elsewhere", "example.test", 5000),
    virtual_service("ruled", "ruled", says("ruled")),
)
def test_an_external_name_is_another_name_of_a_service(router: Router, clients: Clients) -> None:
    """On all ports of that Service, and by all names of the alias; a chain of them, too."""
    for name in ("one", "another"):
        host = f"{name}.default.svc.cluster.local"
        ports = {port: fate(router, clients.other, host, port) for port in (5000, 5001)}
        assert ports == {5000: "200", 5001: "200"}
    answer = clients.other.request("GET", "ruled.default.svc.cluster.local:5000")
    assert answer.body == b"ruled"
    assert fate(router, clients.other, "ruled.default.svc.cluster.local", 5000) == "200"
    assert fate(router, clients.other, "elsewhere.default.svc.cluster.local", 5000) == UNKNOWN


WILD = "*.wild.test"


@given(
    entry("wild", WILD, namespace="default", ports={"http": 5000}),
    service("to-wild", ports={"http": 5000}),
    virtual_service("to-wild", "to-wild", to("x.wild.test")),
)
def test_a_wildcard_gives_a_destination_no_cluster(router: Router, clients: Clients) -> None:
    """It is one of its own name alone, to which requests for the names that it covers go."""
    to_wild = "to-wild.default.svc.cluster.local"
    assert fate(router, clients.other, to_wild, 5000) == NO_CLUSTER
    assert fate(router, clients.other, "x.wild.test", 5000) == NO_ENDPOINT
