"""Which Service provides a host for a proxy, where several do."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Target
from kubectl_mesh.routing.upstreams import upstream

from .given import (
    Object,
    asked,
    entry,
    istio,
    prefix,
    proxy,
    router,
    says,
    service,
    to,
    virtual_service,
)

NEW = MeshConfig(istio=Istio((1, 31)))
OLD = MeshConfig(istio=Istio((1, 23)))
HOST = "web.b.svc.cluster.local"
SERVICE = service("web", "b", {"name": "http", "port": 80}, {"name": "http-b", "port": 81})


def at(number: int) -> dict[str, Any]:
    return {"ports": [{"number": number, "name": "http", "protocol": "HTTP"}]}


def older(made: Object) -> Object:
    """The same object, older than all others."""
    return {**made, "metadata": {**made["metadata"], "creationTimestamp": "2023-01-01T00:00:00Z"}}


def behind(found: Router, host: str, port: int, namespace: str, *, gateway: bool = False) -> str:
    """The namespace and kind of what a cluster is made of; its flag where there is no cluster."""
    to = upstream(found, Target(host, port, None, 0), Proxy(namespace, {}, () if gateway else None))
    if to.flag == "NC":
        return "NC"
    assert to.service
    return f"{to.service.namespace} {to.service.resource.kind}"


@pytest.mark.parametrize(
    ("config", "own"), [(NEW, "a ServiceEntry"), (OLD, "b Service")], ids=["new", "old"]
)
def test_what_a_clients_own_namespace_provides_comes_first_since_1_24(
    config: MeshConfig, own: str
) -> None:
    found = router(SERVICE, entry("squat", [HOST], "a"), config=config)
    assert behind(found, HOST, 80, "a") == own
    assert behind(found, HOST, 80, "c") == "b Service"
    assert behind(found, HOST, 80, "a", gateway=True) == "b Service"


def test_the_switch_brings_the_older_choice_back() -> None:
    config = MeshConfig(istio=Istio(settings={"PILOT_UNIFIED_SIDECAR_SCOPE": "false"}))
    found = router(SERVICE, entry("squat", [HOST], "a"), config=config)
    assert behind(found, HOST, 80, "a") == "b Service"


@pytest.mark.parametrize(
    ("config", "answer"), [(NEW, "passthrough"), (OLD, f"service {HOST}")], ids=["new", "old"]
)
def test_ports_of_other_namespaces_are_not_known_since_1_24(
    config: MeshConfig, answer: str
) -> None:
    found = router(SERVICE, entry("squat", [HOST], "a"), config=config)
    assert asked(found, f"http://{HOST}:81/", Proxy("a")) == answer
    assert asked(found, f"http://{HOST}:81/", Proxy("c")) == f"service {HOST}"


@pytest.mark.parametrize(
    ("config", "other"), [(NEW, "b Service"), (OLD, "z ServiceEntry")], ids=["new", "old"]
)
def test_with_a_sidecar_the_oldest_came_before_a_kubernetes_service(
    config: MeshConfig, other: str
) -> None:
    sidecar = istio("Sidecar", "default", {"egress": [{"hosts": ["*/*"]}]}, "istio-system")
    found = router(
        SERVICE,
        older(entry("squat", [HOST], "z")),
        entry("late", [HOST], "a"),
        sidecar,
        config=config,
    )
    assert behind(found, HOST, 80, "c") == other
    assert behind(found, HOST, 80, "a") == "a ServiceEntry"


def test_of_two_entries_the_older_one_provides_the_host() -> None:
    """Whatever the names of their namespaces; one that is not imported does not count."""
    one, other = entry("one", ["x.com"], "z", **at(80)), entry("two", ["x.com"], "b", **at(81))
    found = router(older(one), other)
    assert behind(found, "x.com", 80, "c") == "z ServiceEntry"
    assert behind(found, "x.com", 81, "c") == "NC"
    assert asked(found, "http://x.com:81/", Proxy("c")) == "passthrough"
    limited = istio("Sidecar", "default", {"egress": [{"hosts": ["b/*"]}]}, "c")
    found = router(older(one), other, limited)
    assert asked(found, "http://x.com:81/", Proxy("c")) == "service x.com"
    assert asked(found, "http://x.com:80/", Proxy("c")) == "passthrough"


def test_entries_of_one_namespace_are_joined_where_they_are_alike() -> None:
    one = older(entry("one", ["x.com"], "b", **at(80)))
    found = router(one, entry("two", ["x.com"], "b", **at(81)))
    assert behind(found, "x.com", 81, "c") == "b ServiceEntry"
    found = router(one, entry("two", ["x.com"], "b", resolution="DNS", **at(81)))
    assert asked(found, "http://x.com:81/", Proxy("c")) == "service x.com"
    assert behind(found, "x.com", 81, "c") == "NC"


@pytest.mark.parametrize(
    ("release", "expected"), [((1, 30), "z Service"), ((1, 29), "b ServiceEntry")]
)
def test_what_provides_a_destination_that_no_egress_host_imports(
    release: tuple[int, int], expected: str
) -> None:
    host = "web.z.svc.cluster.local"
    found = router(
        service("web", "z"),
        entry("squat", [host], "b"),
        virtual_service("v", ["v.com"], to(host), namespace="c"),
        istio("Sidecar", "default", {"egress": [{"hosts": ["./*"]}]}, "c"),
        config=MeshConfig(istio=Istio(release)),
    )
    assert behind(found, host, 80, "c") == expected


def test_a_gateways_destination_is_of_the_namespace_of_its_rule() -> None:
    """For its only port, that is; the cluster is that of the Kubernetes Service."""
    found = router(
        service("web", "b"),
        entry("squat", [HOST], "a", **at(9000)),
        istio("Gateway", "gw", {"selector": {"istio": "ingress"}, "servers": [
            {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}),
        virtual_service("v", ["v.com"], to(HOST), gateways=["gw"]),
    )  # fmt: skip
    assert asked(found, "http://v.com/", proxy(found)) == f"outbound|9000||{HOST}"
    assert behind(found, HOST, 9000, "istio-system", gateway=True) == "NC"


EXCLUDING = {"egress": [{"hosts": ["*/*", "~b/*", "~/x.com", "~./own.com"]}]}


def test_egress_hosts_that_begin_with_a_tilde_are_taken_away_since_1_31() -> None:
    objects = (
        service("web", "b"),
        entry("x", ["x.com", "y.com"], "d"),
        entry("own", ["own.com"], "c"),
        istio("Sidecar", "default", EXCLUDING, "c"),
    )
    found = router(*objects, config=NEW)
    names = (HOST, "x.com", "y.com", "own.com")
    assert {name: asked(found, f"http://{name}/", Proxy("c")) for name in names} == {
        HOST: "passthrough",
        "x.com": "passthrough",
        "y.com": "service y.com",
        "own.com": "passthrough",
    }
    before = router(*objects, config=MeshConfig(istio=Istio((1, 30))))
    for name in names:
        assert asked(before, f"http://{name}/", Proxy("c")) == f"service {name}"


def test_a_virtual_service_is_imported_for_any_host_that_is_not_taken_away() -> None:
    both = virtual_service("v", ["x.com", "y.com"], says("rule"), namespace="d")
    sidecar = istio("Sidecar", "default", {"egress": [{"hosts": ["d/*", "~d/x.com"]}]}, "c")
    found = router(both, sidecar)
    assert asked(found, "http://x.com/", Proxy("c")) == "rule"
    alone = virtual_service("v", ["x.com"], says("rule"), namespace="d")
    found = router(alone, sidecar)
    assert asked(found, "http://x.com/", Proxy("c")) == "passthrough"


def test_nothing_is_imported_where_all_is_taken_away() -> None:
    sidecar = istio("Sidecar", "default", {"egress": [{"hosts": ["~/*"]}]}, "c")
    for config in (NEW, OLD):
        found = router(SERVICE, sidecar, config=config)
        assert asked(found, f"http://{HOST}/", Proxy("c")) == "passthrough"


@pytest.mark.parametrize(("config", "port"), [(NEW, 9000), (OLD, 7000)], ids=["new", "old"])
def test_a_connections_destination_without_port_means_the_only_one_that_the_client_knows(
    config: MeshConfig, port: int
) -> None:
    bytes_port = {"name": "tcp", "port": 7000}
    rule = {"route": [{"destination": {"host": HOST}}]}
    found = router(
        service("in", "c", bytes_port),
        istio("VirtualService", "v", {"hosts": ["in.c.svc.cluster.local"], "tcp": [rule]}, "c"),
        service("web", "b", {"name": "tcp", "port": 7000}, {"name": "tcp-b", "port": 7001}),
        entry("squat", [HOST], "a", **at(9000)),
        config=config,
    )
    connection = Connection("in.c.svc.cluster.local", 7000)
    chain = found.listeners.sidecar(Proxy("a"), connection.host, 7000).find(connection)
    assert chain
    assert [target.port for target in chain.targets] == [port]


@pytest.mark.parametrize(
    ("matches", "new"),
    [
        ([prefix("/"), prefix("/x", sourceNamespace="z")], "NC"),
        ([prefix("/", gateways=["mesh"], sourceNamespace="z")], "NC"),
        ([prefix("/", sourceNamespace="c"), prefix("/x", sourceNamespace="z")], "b Service"),
        ([prefix("/")], "b Service"),
        ([], "b Service"),
    ],
)
def test_rules_that_name_another_source_make_no_cluster_since_1_24(
    matches: list[Object], new: str
) -> None:
    """For what the Sidecar does not import, although their route is there."""
    objects = (SERVICE, virtual_service("v", ["v.com"], to(HOST, *matches), namespace="c"))
    limited = istio("Sidecar", "default", {"egress": [{"hosts": ["./*"]}]}, "c")
    for config, expected in ((NEW, new), (OLD, "b Service")):
        found = router(*objects, limited, config=config)
        assert asked(found, "http://v.com/", Proxy("c")) == f"outbound|80||{HOST}"
        assert behind(found, HOST, 80, "c") == expected
    assert behind(router(*objects), HOST, 80, "c") == "b Service"
    beside = virtual_service("w", ["w.com"], to(HOST), namespace="c")
    assert behind(router(*objects, limited, beside), HOST, 80, "c") == "b Service"
