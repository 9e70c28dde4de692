"""Trouble 3: route rules have no effect on an application: protocols, ports and subsets' labels.

The doctor runs on the same mesh: what its findings say of the traffic is what the traffic does.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest

from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.routing.request import request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Target
from kubectl_mesh.routing.trace import Tracer
from kubectl_mesh.routing.upstreams import upstream

from .client import PATIENCE
from .envoy import Proxy
from .manifests import (
    INGRESS,
    destination_rule,
    gateway,
    prefix,
    says,
    server,
    service,
    subset,
    to,
    virtual_service,
)
from .mesh import Mesh
from .routes_tried import snapshot_of
from .test_doctor_live import doctor

RULED = says("ruled")
"""A rule that Envoy itself answers for: who gets this answer has met it."""

ENDPOINT_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def findings(mesh: Mesh, code: str) -> list[dict[str, Any]]:
    """What a rule of the doctor finds in the cluster."""
    return [found for found in doctor(mesh.server, "-A").findings if found["code"] == code]


def exchange(proxy: Proxy, address: str, port: int, sent: bytes, until: bytes = b"") -> bytes:
    """What comes back for these bytes, up to those of `until` or the end of the connection."""
    with contextlib.closing(proxy.host.connect(address, port)) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(4096):
                received += part
                if until and until in received:
                    break
        except ConnectionResetError:
            pass
        return received


def not_http(proxy: Proxy, port: int) -> bytes:
    """What a client of this proxy gets that does not speak HTTP: a backend answers who it is."""
    return exchange(proxy, "127.0.0.1", port, b"ping\n")


def outcome(proxy: Proxy, host: str, path: str = "/") -> tuple[int, str]:
    """Status and response flags of a request."""
    line = proxy.explain("GET", host, path)
    return line["response_code"], line["response_flags"]


def answers(proxy: Proxy, host: str) -> str | None:
    """Who answers a request: a pod, or Envoy for the rules that it was given."""
    answer = proxy.request("GET", host)
    assert answer.status == 200
    return answer.pod or answer.body.decode()


# What a port speaks ------------------------------------------------------------------------------


def test_http_rules_have_no_effect_on_a_port_named_for_another_protocol(mesh: Mesh) -> None:
    """What stands before the first `-` of a port's name is its protocol."""
    names = ["http", "http-web", "http2", "grpc-web", "tcp", "tcp-web", "mysql", "https"]
    ports = {name: 5000 + index for index, name in enumerate(names)}
    mesh.service("web", ports=ports, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(virtual_service("web", "web", RULED))
    mesh.settled()

    assert {name: answers(client, f"web:{port}") for name, port in ports.items()} == {
        **dict.fromkeys(["http", "http-web", "http2", "grpc-web"], "ruled"),
        **dict.fromkeys(["tcp", "tcp-web", "mysql", "https"], "web-v1-0"),
    }
    assert not_http(client, ports["http"]).startswith(b"HTTP/1.1 400 Bad Request")
    assert not_http(client, ports["tcp-web"]) == b"web-v1-0\n"


def test_naming_the_port_http_cures_it(mesh: Mesh) -> None:
    """KM303 before; nothing after."""
    mesh.service("web", ports={"tcp-web": 5000}, pods={"v1": 1, "v2": 1})
    client = mesh.sidecar()
    mesh.apply(
        destination_rule("web", "web", subset("v1", version="v1")),
        virtual_service("web", "web", to("web", subset="v1")),
    )
    mesh.settled()
    assert versions(client, "web:5000") == {"v1", "v2"}
    (found,) = findings(mesh, "KM303")
    assert found["traffic"].startswith(
        "sidecars pass connections to it on as they are, to any pod: no match, weight, subset"
    )

    mesh.apply(service("web", {"name": "http-web", "port": 5000}))
    # which a controller would tell the EndpointSlice
    renamed = {"ports": [{"name": "http-web", "port": 5000}]}
    merge = "application/merge-patch+json"
    mesh.server.request("PATCH", f"{ENDPOINT_SLICES}/web-0", renamed, content_type=merge)
    mesh.settled()
    assert versions(client, "web:5000") == {"v1"}
    assert findings(mesh, "KM303") == []


def versions(proxy: Proxy, host: str) -> set[str | None]:
    """Who answers 30 requests; None stands for Envoy itself."""
    return {proxy.request("GET", host).version for _ in range(30)}


def test_a_port_without_protocol_takes_both(mesh: Mesh) -> None:
    """KM301: the sidecar looks at the first bytes; http rules have effect on what is HTTP.

    So it is without redirection, too, where the listener knows the Service from its port.
    """
    mesh.service("bare", ports={"": 5000}, pods={"v1": 1})
    mesh.service("web", ports={"web": 5001, "httpweb": 5002}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(virtual_service("bare", "bare", RULED), virtual_service("web", "web", RULED))
    mesh.settled()

    assert {answers(client, host) for host in ("bare:5000", "web:5001", "web:5002")} == {"ruled"}
    assert not_http(client, 5000) == b"bare-v1-0\n"
    assert not_http(client, 5001) == b"web-v1-0\n"
    found = findings(mesh, "KM301")
    assert len(found) == 3
    assert all("http rules apply where they are plain HTTP" in each["traffic"] for each in found)


def test_a_port_without_protocol_takes_any_host(mesh: Mesh) -> None:
    """It has a listener of its own; those for HTTP share one, which asks the Host header."""
    mesh.service("bare", ports={"": 5000}, pods={"v1": 1})
    mesh.service("web", ports={"http": 5001}, pods={"v1": 1})
    mesh.service("other", ports={"http": 5001}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.settled()
    snapshot = snapshot_of(mesh)
    tracer = Tracer(Router(snapshot))
    for dialled, host, reached in (
        ("bare:5000", "any.test", "bare-v1-0"),
        ("bare:5000", "other:5001", "bare-v1-0"),
        ("web:5001", "other:5001", "other-v1-0"),
        ("web:5001", "any.test", None),
    ):
        with contextlib.closing(client.connect(dialled)) as connection:
            assert connection.ask("GET", host, "/").pod == reached
        request = request_for(f"http://{dialled}/", headers={"Host": host})
        told = tracer.follow(Place("default"), request).effect
        assert [pod.resource.name for up in told.upstreams for pod in up.pods or ()] == (
            [reached] if reached else []
        )


def test_app_protocol_beats_the_ports_name(mesh: Mesh) -> None:
    """In both directions; with one that Istio does not know it sniffs."""
    names = {"tcp-a": "http", "http-b": "tcp", "tcp-c": "kubernetes.io/h2c", "tcp-d": "no-such"}
    ports = {name: 5000 + index for index, name in enumerate(names)}
    mesh.service("web", ports=ports, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(
        service(
            "web",
            *(
                {"name": name, "port": ports[name], "appProtocol": protocol}
                for name, protocol in names.items()
            ),
        ),
        virtual_service("web", "web", RULED),
    )
    mesh.settled()
    assert {name: answers(client, f"web:{port}") for name, port in ports.items()} == {
        "tcp-a": "ruled",
        "http-b": "web-v1-0",
        "tcp-c": "ruled",
        "tcp-d": "ruled",
    }


# One port of a pod, two protocols ----------------------------------------------------------------

PROXY_PROTOCOL = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
BY_PROXY_PROTOCOL = f"""
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: by-proxy-protocol, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: reviews}}}}
  configPatches:
  - applyTo: LISTENER_FILTER
    match: {{context: SIDECAR_INBOUND, listener: {{name: virtualInbound}}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: envoy.filters.listener.proxy_protocol
        typed_config: {{"@type": type.googleapis.com/{PROXY_PROTOCOL}}}
"""
"""Lets a client tell the sidecar what iptables would: where the connection was to go."""

REVIEWS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1, sidecar.istio.io/inject: "true"}}
    spec:
      containers: [{name: reviews, image: none, ports: [{containerPort: 9080}]}]
"""
"""For the doctor's eyes: what the pod with the sidecar would be of."""


class Reviews:
    """A pod on port 9080 behind a sidecar that takes what comes in, as iptables would send it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        mesh.apply(BY_PROXY_PROTOCOL, REVIEWS)
        labels = {"app": "reviews", "version": "v1"}
        redirected = {"INTERCEPTION_MODE": "REDIRECT"}
        self.sidecar = mesh.sidecar("default", labels, metadata=redirected)
        self.address = self.sidecar.identity.address
        pod = {"pod": "reviews", "version": "v1", "address": self.address, "port": 9080}
        mesh.listen(self.sidecar.host, [pod])

    def serve(self, **protocols: str) -> None:
        """Makes, in this order, or changes Services that lead to the pod's port."""
        for name, protocol in protocols.items():
            port = {"name": protocol, "port": 9080, "targetPort": 9080}
            self.mesh.apply(service(name, port, app="reviews"))

    def created(self, name: str) -> str:
        made = self.mesh.server.request("GET", f"/api/v1/namespaces/default/services/{name}")
        created: str = made["metadata"]["creationTimestamp"]
        return created

    def effect(self) -> str:
        """What the doctor says of the traffic."""
        (found,) = findings(self.mesh, "KM304")
        traffic: str = found["traffic"]
        return traffic

    def not_http(self) -> bytes:
        return self._inbound(b"ping\n")

    def http(self, path: str = "/") -> bytes:
        request = f"GET {path} HTTP/1.1\r\nHost: reviews:9080\r\nConnection: close\r\n\r\n"
        return self._inbound(request.encode())

    def http2(self) -> bytes:
        fields = b"\x82\x86\x84\x41\x07reviews"  # GET, http, /, and the authority
        sent = b"".join(
            struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload
            for kind, flags, stream, payload in ((4, 0, 0, b""), (1, 5, 1, fields))
        )
        answered = b'"pod": "reviews"'  # then the connection stays open
        return self._inbound(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + sent, answered)

    def _inbound(self, sent: bytes, until: bytes = b"") -> bytes:
        header = f"PROXY TCP4 10.1.250.250 {self.address} 40000 9080\r\n".encode()
        return exchange(self.sidecar, self.address, 15006, header + sent, until)


@pytest.fixture
def reviews(mesh: Mesh) -> Reviews:
    return Reviews(mesh)


def test_of_services_of_one_age_the_first_by_name_decides(reviews: Reviews) -> None:
    """KM304, and what it says of each pair of protocols."""
    reviews.serve(b="tcp", a="http")
    while reviews.created("a") != reviews.created("b"):  # a second began in between
        reviews.mesh.server.delete(service("a"), service("b"))
        reviews.serve(b="tcp", a="http")

    reviews.mesh.settled()
    assert reviews.effect().endswith(
        "connections that are not HTTP are refused by the pods' own proxies"
    )
    assert reviews.not_http().startswith(b"HTTP/1.1 400 Bad Request")
    assert b"\r\nserver: istio-envoy\r\n" in reviews.http()

    reviews.serve(a="tcp", b="http")
    reviews.mesh.settled()
    assert "requests reach the pods as plain TCP" in reviews.effect()
    assert reviews.not_http() == b"reviews\n"
    assert b"istio-envoy" not in reviews.http()

    reviews.serve(a="http", b="grpc")
    reviews.mesh.settled()
    assert "the application gets HTTP/1.1 in any case" in reviews.effect()
    assert reviews.http().startswith(b"HTTP/1.1 200 ")
    assert b'"pod": "reviews"' in reviews.http2()  # which speaks HTTP/1.1 alone

    reviews.serve(a="grpc", b="http")
    reviews.mesh.settled()
    assert "gets HTTP/2 in any case; if it speaks HTTP/1.1, requests fail" in reviews.effect()
    assert reviews.http().startswith(b"HTTP/1.1 502 ")


def test_of_services_of_different_age_the_oldest_decides(reviews: Reviews) -> None:
    reviews.serve(b="tcp")
    reviews.mesh.next_second()
    reviews.serve(a="http")
    reviews.mesh.settled()
    assert "that of port 9080 (tcp) of Service default/b" in reviews.effect()
    assert reviews.not_http() == b"reviews\n"


@pytest.mark.parametrize(("action", "path"), [("DENY", "/secret"), ("ALLOW", "/")])
def test_a_policy_for_paths_refuses_everything_where_tcp_was_taken(
    reviews: Reviews, action: str, path: str
) -> None:
    """KM304: an AuthorizationPolicy for HTTP does apply to what is taken for TCP.

    There is no path then: a rule to deny is widened to all, a rule to allow allows nothing.
    """
    policy = {
        "apiVersion": "security.istio.io/v1beta1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {"action": action, "rules": [{"to": [{"operation": {"paths": [path]}}]}]},
    }
    reviews.mesh.apply(policy)
    reviews.serve(a="http", b="tcp")
    reviews.mesh.settled()
    assert reviews.http("/").startswith(b"HTTP/1.1 200 ")
    assert reviews.http("/secret").startswith(b"HTTP/1.1 403 ")

    reviews.serve(a="tcp", b="http")
    reviews.mesh.settled()
    assert reviews.http("/") == b""


# Subsets -----------------------------------------------------------------------------------------


def test_subsets_without_pods_and_subsets_that_nobody_defined(mesh: Mesh) -> None:
    """503 with UH (no healthy upstream), and 503 with NC (no cluster)."""
    mesh.service("web", ports={"http": 5000}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(
        destination_rule("web", "web", subset("v2", version="v2")),
        virtual_service(
            "web", "web", *(to("web", prefix(f"/{name}"), subset=name) for name in ("v2", "v3"))
        ),
    )
    mesh.settled()

    assert outcome(client, "web:5000", "/v2") == (503, "UH")
    assert outcome(client, "web:5000", "/v3") == (503, "NC")
    (without_pods,), (undefined,) = findings(mesh, "KM102"), findings(mesh, "KM101")
    assert "UH" in without_pods["traffic"]
    assert "NC" in undefined["traffic"]


def test_a_pod_without_the_subsets_label_is_in_no_subset(mesh: Mesh) -> None:
    """KM306: routes to subsets pass it by; a route to the whole host does not."""
    released = {"app": "web", "release": "r1"}
    mesh.service("web-a", ports={"http": 5000}, pods={"v1": 1}, labels=released)
    mesh.service("web-b", ports={"http": 5000}, pods={"v1": 1}, labels={"app": "web"})
    both = [
        mesh.server.request("GET", f"{ENDPOINT_SLICES}/{name}-0") for name in ("web-a", "web-b")
    ]
    metadata = {"name": "web-0", "labels": {"kubernetes.io/service-name": "web"}}
    endpoints = [endpoint for each in both for endpoint in each["endpoints"]]
    mesh.apply(
        service("web", {"name": "http", "port": 5000}),
        {**both[0], "metadata": metadata, "endpoints": endpoints},
    )
    client = mesh.sidecar()
    mesh.apply(
        destination_rule("web", "web", subset("r1", release="r1")),
        virtual_service("web", "web", to("web", subset="r1")),
    )
    mesh.settled()
    assert pods(client) == {"web-a-v1-0"}
    (found,) = findings(mesh, "KM306")
    assert (found["severity"], found["resource"]["name"]) == ("warning", "web-b-v1-0")
    assert found["traffic"] == "they get none of what VirtualService default/web sends to subsets"

    mesh.apply(virtual_service("web", "web", to("web")))
    mesh.settled()
    assert pods(client) == {"web-a-v1-0", "web-b-v1-0"}
    (found,) = findings(mesh, "KM306")
    assert found["severity"] == "info"
    assert found["traffic"].startswith("none is lost yet")


def pods(proxy: Proxy) -> set[str | None]:
    """Who answers 30 requests; None stands for Envoy itself."""
    return {proxy.request("GET", "web:5000").pod for _ in range(30)}


# Ports of destinations ---------------------------------------------------------------------------


def test_without_port_a_sidecar_takes_the_port_that_was_called(mesh: Mesh) -> None:
    """KM312: even where the destination has just one port, which is another."""
    mesh.service("front", ports={"http": 8000, "http-b": 9080}, pods={"v1": 1})
    mesh.service("single", ports={"http": 9080}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(virtual_service("front", "front", to("single")))
    mesh.settled()
    assert outcome(client, "front:8000") == (503, "NC")
    assert answers(client, "front:9080") == "single-v1-0"
    (found,) = findings(mesh, "KM312")
    assert found["severity"] == "warning"
    assert found["traffic"] == "requests to port 8000 get 503 (response flag NC: no cluster)"

    mesh.apply(virtual_service("front", "front", to("single", port=9080)))
    mesh.settled()
    assert {answers(client, host) for host in ("front:8000", "front:9080")} == {"single-v1-0"}
    assert findings(mesh, "KM312") == []


def test_without_port_a_rule_for_the_host_itself_needs_none_in_a_sidecar(mesh: Mesh) -> None:
    mesh.service("web", ports={"http": 8000, "http-b": 9080}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(virtual_service("web", "web", to("web")))
    mesh.settled()
    assert [said_port(client, host) for host in ("web:8000", "web:9080")] == [8000, 9080]
    assert findings(mesh, "KM312") == []


def test_without_port_a_gateway_takes_the_only_one_or_its_own(mesh: Mesh) -> None:
    """KM312: with several ports, the Gateway's number, whether the host has it or not."""
    mesh.service("single", ports={"http": 9080}, pods={"v1": 1})
    mesh.service("several", ports={"http": 9081, "http-b": 9091}, pods={"v1": 1})
    mesh.service("with80", ports={"http": 80, "http-b": 9092}, pods={"v1": 1})
    ingress = mesh.gateway(INGRESS, {80: 8080})
    mesh.apply(gateway("public", server("*.com")))
    for name in ("single", "several", "with80"):
        rule = to(f"{name}.default.svc.cluster.local")
        mesh.apply(virtual_service(name, f"{name}.com", rule, gateways=["public"]))
    mesh.settled()
    assert said_port(ingress, "single.com") == 9080
    assert said_port(ingress, "with80.com") == 80
    assert outcome(ingress, "several.com") == (503, "NC")
    (found,) = findings(mesh, "KM312")
    assert (found["severity"], found["resource"]["name"]) == ("error", "several")
    assert found["traffic"] == "requests to port 80 get 503 (response flag NC: no cluster)"


def test_without_port_a_tcp_rule_takes_the_only_one_or_the_one_called(mesh: Mesh) -> None:
    """KM312: tcp rules in a sidecar are as http rules on a gateway."""
    mesh.service("one", ports={"tcp": 7001}, pods={"v1": 1})
    mesh.service("two", ports={"tcp": 7002}, pods={"v1": 1})
    mesh.service("single", ports={"tcp": 7003}, pods={"v1": 1})
    mesh.service("several", ports={"tcp": 7004, "tcp-b": 7005}, pods={"v1": 1})
    client = mesh.sidecar()
    mesh.apply(
        virtual_service("one", "one", tcp=[to("single")]),
        virtual_service("two", "two", tcp=[to("several")]),
    )
    mesh.settled()
    assert not_http(client, 7001) == b"single-v1-0\n"
    assert not_http(client, 7002) == b""
    (found,) = findings(mesh, "KM312")
    assert found["resource"]["name"] == "two"
    assert found["traffic"] == "connections to port 7002 are closed at once"


def test_proxies_take_no_udp(mesh: Mesh) -> None:
    """A port for both is found by the one for TCP, though the other one comes first."""
    mesh.service("dns", ports={"http": 5353}, pods={"v1": 1})
    client = mesh.sidecar()
    path = "/api/v1/namespaces/default/services/dns"
    ports = mesh.server.request("GET", path)["spec"]["ports"]
    udp = [{"name": f"udp-{each}", "port": each, "protocol": "UDP"} for each in (5353, 5399)]
    change = {"spec": {"ports": [*udp, *ports]}}
    mesh.server.request("PATCH", path, change, content_type="application/merge-patch+json")
    rules = to("dns", prefix("/gone"), port=5399), to("dns")
    mesh.apply(virtual_service("dns", "dns", *rules))
    mesh.settled()
    assert answers(client, "dns:5353") == "dns-v1-0"
    assert outcome(client, "dns:5353", "/gone") == (503, "NC")
    (found,) = findings(mesh, "KM313")
    assert "is a UDP port of dns.default.svc.cluster.local" in found["message"]


def test_a_port_that_the_host_does_not_have(mesh: Mesh) -> None:
    """KM313: the targetPort is none of a Service's ports; tcp rules and mirrors count, too."""
    mesh.service("web", ports={"http": 80}, target_ports={"http": 9080}, pods={"v1": 1})
    mesh.service("shop", ports={"http": 80}, pods={"v1": 1})
    mesh.service("data", ports={"tcp": 7001}, pods={"v1": 1})
    client = mesh.sidecar()
    mirrored = to("shop", port=80, mirror={"host": "web", "port": {"number": 9080}})
    mesh.apply(
        virtual_service("web", "web", to("web", port=9080)),
        virtual_service("shop", "shop", mirrored),
        virtual_service("data", "data", tcp=[to("data", port=7002)]),
    )
    mesh.settled()
    assert outcome(client, "web") == (503, "NC")
    assert answers(client, "shop") == "shop-v1-0"
    assert not_http(client, 7001) == b""
    traffic = {each["resource"]["name"]: each["traffic"] for each in findings(mesh, "KM313")}
    assert traffic == {
        "web": "requests that meet this rule get 503 (response flag NC: no cluster)",
        "shop": "requests that meet this rule are answered, but their copies are lost",
        "data": "connections that meet this rule are closed at once",
    }

    mesh.apply(virtual_service("web", "web", to("web", port=80)))
    mesh.settled()
    assert said_port(client, "web") == 9080


def test_a_sidecar_does_not_heed_the_target_port_of_a_headless_service(mesh: Mesh) -> None:
    """It connects to what the client dials, which nothing redirects here; a gateway to the pods."""
    mesh.service("db", ports={"http": 5000}, target_ports={"http": 6000}, pods={"v1": 1})
    port = {"name": "http", "port": 5000, "targetPort": 6000}
    headless = service("db", port)
    headless["spec"]["clusterIP"] = "None"
    mesh.server.delete(headless)
    client, ingress = mesh.sidecar(), mesh.gateway(INGRESS, {80: 8080})
    mesh.apply(
        headless,
        gateway("public", server("db.com")),
        virtual_service("db", "db.com", to("db"), gateways=["public"]),
    )
    mesh.settled()
    name = "outbound|5000||db.default.svc.cluster.local"
    assert cluster_type(client, name) == "ORIGINAL_DST"
    assert said_port(ingress, "db.com") == 6000

    router = Router(snapshot_of(mesh))
    ups = [
        upstream(router, Target(name.rpartition("|")[2], 5000, None, 0), proxy)
        for proxy in (Place("default"), Place("default", {}, ()))
    ]
    assert [len(up.pods or ()) for up in ups] == [1, 1]
    assert [up.why.rpartition(": ")[2] for up in ups] == [
        "to port 5000, not to targetPort 6000",
        "",
    ]


def cluster_type(proxy: Proxy, name: str) -> str:
    """How a proxy finds the endpoints of a cluster."""
    dump = proxy.admin("/config_dump?resource=dynamic_active_clusters")
    (found,) = [each["cluster"] for each in dump["configs"] if each["cluster"]["name"] == name]
    kind: str = found["type"]
    return kind


def said_port(proxy: Proxy, host: str) -> Any:
    """The port of the pod that a request reached."""
    said = proxy.request("GET", host).said
    return said and said["port"]
