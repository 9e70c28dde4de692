"""What a namespace has to do with in the rest of a mesh."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.sources.cluster import ClusterOrigin
from kubectl_mesh.sources.references import References, references

ISTIO = "networking.istio.io/v1"


def resource(kind: str, namespace: str, name: str, **spec: Any) -> Resource:
    data = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    group = KINDS[kind].group
    return Resource(
        ResourceId(kind, namespace, name), f"{group}/v1", data, data, ClusterOrigin("c")
    )


def vs(namespace: str, name: str, host: str, *to: str, **spec: Any) -> Resource:
    routes = [{"destination": {"host": destination}} for destination in to]
    return resource(
        "VirtualService", namespace, name, hosts=[host], http=[{"route": routes}], **spec
    )


def found(*resources: Resource) -> References:
    return references(resources, {"shop"}, MeshConfig())


def test_the_root_namespace_always() -> None:
    assert found().namespaces == {"shop", "istio-system"}


def test_where_requests_are_sent() -> None:
    reached = found(vs("shop", "web", "web", "api.back.svc.cluster.local", "www.example.com"))
    assert reached.namespaces == {"shop", "istio-system", "back"}


@pytest.mark.parametrize(
    "other",
    [
        vs("team", "binds", "web.shop.svc.cluster.local", "x.deep.svc.cluster.local"),
        vs("team", "sends", "x.example", "web.shop.svc.cluster.local", gateways=["gw"]),
        vs("team", "same", "web.example", "x.deep.svc.cluster.local", gateways=["shop/gw"]),
        vs("team", "wild", "*.shop.svc.cluster.local", "x.deep.svc.cluster.local"),
        vs("team", "sent-to", "api.back.svc.cluster.local", "x.deep.svc.cluster.local"),
        resource(
            "VirtualService",
            "team",
            "root",
            hosts=["r.example"],
            http=[{"delegate": {"name": "web", "namespace": "shop"}}],
        ),
    ],
    ids=lambda other: other.name,
)
def test_virtual_services_elsewhere_that_meet_ours(other: Resource) -> None:
    ours = vs("shop", "web", "web.example", "api.back.svc.cluster.local", gateways=["gw"])
    reached = found(ours, other)
    assert other.id in reached.related
    assert ("deep" in reached.namespaces) == ("deep" in str(other.spec))


@pytest.mark.parametrize(
    "other",
    [
        vs("team", "own", "web", "api"),
        vs("team", "other-gateway", "web.example", "api.team.svc.cluster.local", gateways=["gw"]),
        vs("team", "any-host", "*", "api.team.svc.cluster.local", gateways=["gw"]),
        vs("team", "same-target", "x.example", "api.back.svc.cluster.local", gateways=["gw"]),
    ],
    ids=lambda other: other.name,
)
def test_virtual_services_elsewhere_that_do_not(other: Resource) -> None:
    ours = vs("shop", "web", "web.example", "api.back.svc.cluster.local", gateways=["gw"])
    reached = found(ours, other)
    assert other.id not in reached.related
    assert "team" not in reached.namespaces


def test_delegates_to_their_end() -> None:
    ours = resource(
        "VirtualService",
        "shop",
        "root",
        hosts=["web"],
        http=[{"delegate": {"name": "part", "namespace": "team"}}],
    )
    assert found(ours).config_namespaces == {"team"}
    part = resource(
        "VirtualService",
        "team",
        "part",
        http=[{"route": [{"destination": {"host": "api.back.svc.cluster.local"}}]}],
    )
    reached = found(ours, part)
    assert part.id in reached.related
    assert "back" in reached.namespaces


def test_destination_rules() -> None:
    ours = resource("DestinationRule", "shop", "ours", host="api.back.svc.cluster.local")
    client = resource("DestinationRule", "client", "c", host="web.shop.svc.cluster.local")
    wild = resource("DestinationRule", "wild", "w", host="*.local")
    other = resource("DestinationRule", "other", "o", host="api.other.svc.cluster.local")
    reached = found(ours, client, wild, other)
    assert reached.related == {ours.id, client.id, wild.id}
    assert reached.namespaces == {"shop", "istio-system", "back", "client", "wild"}


def test_gateways_and_their_pods() -> None:
    ours = vs("shop", "web", "web.example", "web", gateways=["edge/gw", "mesh"])
    assert found(ours).config_namespaces == {"edge"}
    gateway = resource("Gateway", "edge", "gw", selector={"istio": "ingress", "app": "gw"})
    other = resource("Gateway", "edge", "other", selector={"istio": "other"})
    reached = found(ours, gateway, other)
    assert reached.related == {ours.id, gateway.id}
    assert reached.gateways == {(("app", "gw"), ("istio", "ingress"))}
    assert "edge" not in reached.namespaces


def test_service_entries() -> None:
    ours = vs("shop", "web", "web", "api.example.com")
    selector = {"labels": {"app": "vm"}}
    entry = resource("ServiceEntry", "vms", "e", hosts=["*.example.com"], workloadSelector=selector)
    other = resource("ServiceEntry", "vms2", "o", hosts=["b.example.org"])
    reached = found(ours, entry, other)
    assert entry.id in reached.related
    assert other.id not in reached.related
    assert reached.namespaces == {"shop", "istio-system", "vms"}


@pytest.mark.parametrize("host", ["api.back", "api.back.svc", "api.back.svc.cluster.local"])
def test_a_service_that_clients_there_call_counts_as_referred_to(host: str) -> None:
    rule = vs("team", "rule", "api.back.svc.cluster.local")
    other = vs("team", "other", "other.back.svc.cluster.local")
    reached = references([rule, other], {"shop"}, MeshConfig(), [host])
    assert reached.related == {rule.id}
    assert reached.namespaces == {"shop", "istio-system", "back"}


def test_any_host_that_clients_there_call_counts_as_referred_to() -> None:
    exact = vs("team", "exact", "api.example.com")
    wild = vs("team", "wild", "*.example.com")
    other = vs("team", "other", "other.example.com")
    reached = references([exact, wild, other], {"shop"}, MeshConfig(), ["api.example.com"])
    assert reached.related == {exact.id, wild.id}


def test_a_short_name_that_clients_call_is_of_their_own_namespace() -> None:
    rule = vs("team", "here", "api.shop.svc.cluster.local", "x")
    assert rule.id in references([rule], {"shop"}, MeshConfig(), ["api"]).related
