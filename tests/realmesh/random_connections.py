"""Random rules of tcp and tls, and connections that are drawn near the constants in them.

Each configuration has Services, a Gateway and ServiceEntries of its own, at ports of its own, and
who answers is told by the pod at the other end: the rules send connections to subsets of a Service
`web`, v1 and so on. What the harness cannot show is left out: TLS that a gateway ends, and
ServiceEntries with addresses, which istiod looks at only where traffic is redirected.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .random_routes import Configuration

Object = dict[str, Any]

GATEWAYS = ("gw1", "gw2")
OWN = "own-v0-0"
"""The pod that is behind each Service and ServiceEntry by itself."""
SUBSETS = ("v1", "v2", "v3", "v4", "empty", "undefined")
AT_ONCE = 20
"""So many configurations fit into one mesh: each has two of a gateway's ports."""

_SUBNETS = ("127.0.0.0/8", "127.0.0.1/32", "127.0.0.1", "192.0.2.0/24", "0.0.0.0/0", "127.0.0.0/16")


@dataclass(frozen=True)
class Ports:
    """The ports of a configuration: of Services, of ServiceEntries, and of its Gateway."""

    tcp: int
    tls: int
    sniffed: int
    shared: int
    gateway_tcp: int
    gateway_tls: int


def ports_of(number: int) -> Ports:
    first, slot = 10_000 + 4 * number, number % AT_ONCE
    return Ports(first, first + 1, first + 2, first + 3, 20_000 + slot, 21_000 + slot)


GATEWAY_PORTS = {port: port for slot in range(AT_ONCE) for port in (20_000 + slot, 21_000 + slot)}


@dataclass(frozen=True)
class Ask:
    """A connection: to a port of a host in the mesh; of a gateway where `host` is empty."""

    host: str
    port: int
    server_name: str | None


def configuration(rng: random.Random, number: int, own: str) -> Configuration:
    """`own` is the address of the pod OWN."""
    ports = ports_of(number)
    services = [
        *_service(f"t{number}", "tcp", ports.tcp, own),
        *_service(f"l{number}", rng.choice(["tls", "https"]), ports.tls, own),
        *_service(f"x{number}", "other", ports.sniffed, own),
        *(_entry(rng, number, index, ports.shared, own) for index in range(rng.choice([1, 2, 3]))),
    ]
    waves: list[list[Object]] = [[], [], []]
    for index in range(rng.choice([1, 1, 2])):
        waves[rng.choice([0, 1])].append(_gateway(rng, number, index, ports))
    for index in range(rng.choice([1, 2, 2, 3, 4])):
        waves[rng.choice([0, 1, 2])].append(_virtual_service(rng, number, index, ports))
    return Configuration(number, services, waves)


def connections(rng: random.Random, number: int, count: int) -> Iterator[Ask]:
    """Connections to what a configuration has, and to some beside."""
    ports = ports_of(number)
    for _ in range(count):
        name = rng.choice([None, *_asked_names(number)])
        kind = rng.choice(
            ["tcp", "tls", "tls", "sniffed", "shared", "shared", "gateway", "gateway"]
        )
        if kind == "gateway":
            port = rng.choice([ports.gateway_tcp, ports.gateway_tls, ports.gateway_tls])
            yield Ask("", port, name)
        elif kind == "shared":
            yield Ask(name or f"a.{number}.com", ports.shared, name)
        else:
            host = {"tcp": "t", "tls": "l", "sniffed": "x"}[kind]
            yield Ask(f"{host}{number}.a.svc.cluster.local", getattr(ports, kind), name)


def mutated(rng: random.Random, whole: Configuration) -> Configuration:
    """The same objects after one change to a VirtualService or a Gateway."""
    waves = copy.deepcopy(whole.waves)
    item = rng.choice([item for wave in waves for item in wave])
    ports = ports_of(whole.number)
    if item["kind"] == "Gateway":
        another = _gateway(rng, whole.number, 0, ports)["spec"]
        item["spec"] = {**another, "selector": item["spec"]["selector"]}
        return Configuration(whole.number, whole.services, waves)
    spec = item["spec"]
    another = _virtual_service(rng, whole.number, 0, ports)["spec"]
    protocol = rng.choice([each for each in ("tcp", "tls") if each in spec])
    change = rng.choice(["hosts", "gateways", "rule", "rule", "route", "route", "order"])
    if change in ("hosts", "gateways"):
        spec[change] = another.get(change) or ["mesh"]
    elif change == "order":
        rng.shuffle(spec[protocol])
    else:
        rule = rng.choice(spec[protocol])
        rule["route"] = _rule(rng, [])["route"]
        if change == "rule" and another.get(protocol):
            rule["match"] = another[protocol][0].get("match") or rule.get("match") or []
    return Configuration(whole.number, whole.services, waves)


def _names(number: int) -> list[str]:
    return [f"{each}{number}.com" for each in ("a.", "b.", "*.", "*.b.", "x.b.")]


def _asked_names(number: int) -> list[str]:
    below = [f"{each}{number}.com" for each in ("a.", "b.", "c.", "x.b.", "y.b.", "z.y.b.", "")]
    return [*below, "other.org"]


def _service(name: str, port_name: str, port: int, own: str) -> Iterator[Object]:
    listed = [{"name": port_name, "port": port, "targetPort": 7000}]
    spec = {"ports": listed, "selector": {"app": "own"}}
    yield {**_object("Service", "a", name, {}), "apiVersion": "v1", "spec": spec}
    made = _object("EndpointSlice", "a", f"{name}-0", {})
    del made["spec"]
    made["apiVersion"] = "discovery.k8s.io/v1"
    made["metadata"]["labels"] = {"kubernetes.io/service-name": name}
    yield {
        **made,
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": 7000}],
        "endpoints": [
            {
                "addresses": [own],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "namespace": "a", "name": OWN},
            }
        ],
    }


def _entry(rng: random.Random, number: int, index: int, port: int, own: str) -> Object:
    protocol = rng.choice(["TLS", "TLS", "TLS", "TCP", "HTTP"])
    spec = {
        "hosts": [rng.choice(_names(number))],
        "ports": [{"number": port, "name": "some", "protocol": protocol}],
        "resolution": "STATIC",
        "location": "MESH_EXTERNAL",
        "endpoints": [{"address": own, "ports": {"some": 7000}}],
    }
    return _object("ServiceEntry", "a", f"e{number}-{index}", spec)


def _gateway(rng: random.Random, number: int, index: int, ports: Ports) -> Object:
    hosts = ["*", f"*.{number}.com", f"a.{number}.com", f"a/*.{number}.com", f"./b.{number}.com"]
    servers = []
    for _ in range(rng.choice([1, 2, 2, 3])):
        chosen = rng.sample(hosts, rng.choice([1, 1, 2]))
        if rng.random() < 0.4:
            server: Object = _server(ports.gateway_tcp, "TCP", len(servers), chosen)
        else:
            protocol = rng.choice(["TLS", "TLS", "HTTPS"])
            server = _server(ports.gateway_tls, protocol, len(servers), chosen)
            server["tls"] = {"mode": "PASSTHROUGH"}
            if rng.random() < 0.1:
                del server["tls"]
                server["port"]["protocol"] = "TCP"
        servers.append(server)
    spec = {"selector": {"istio": rng.choice(GATEWAYS)}, "servers": servers}
    return _object("Gateway", "istio-system", f"g{number}-{index}", spec)


def _server(port: int, protocol: str, index: int, hosts: list[str]) -> Object:
    return {
        "port": {"number": port, "name": f"some-{index}", "protocol": protocol},
        "hosts": hosts,
    }


def _virtual_service(rng: random.Random, number: int, index: int, ports: Ports) -> Object:
    namespace = rng.choice(["a", "a", "a", "b"])
    hosts = [
        f"t{number}.a.svc.cluster.local",
        f"l{number}.a.svc.cluster.local",
        f"x{number}.a.svc.cluster.local",
        *_names(number),
    ]
    gateways = [f"istio-system/g{number}-{each}" for each in range(2)]
    spec: Object = {"hosts": rng.sample(hosts, rng.choice([1, 2, 3, 4]))}
    bound = rng.choice([None, None, ["mesh"], gateways, ["mesh", *gateways], gateways[:1]])
    if bound:
        spec["gateways"] = bound
    if rng.random() < 0.2:
        spec["exportTo"] = [rng.choice([".", "a", "b", "*", "istio-system"])]
    if rng.random() < 0.7:
        spec["tls"] = [
            _rule(
                rng, [_tls_match(rng, number, ports, gateways) for _ in range(rng.choice([1, 2]))]
            )
            for _ in range(rng.choice([1, 2, 3]))
        ]
    if "tls" not in spec or rng.random() < 0.6:
        spec["tcp"] = [
            _rule(rng, [_match(rng, ports, gateways) for _ in range(rng.choice([0, 1, 1, 2]))])
            for _ in range(rng.choice([1, 2, 3]))
        ]
    return _object("VirtualService", namespace, f"v{number}-{rng.choice('abc')}{index}", spec)


def _rule(rng: random.Random, matches: list[Object]) -> Object:
    rule: Object = {"match": matches} if matches else {}
    chosen = rng.sample(SUBSETS, 2)
    host = "web.a.svc.cluster.local"
    routes: list[Object] = [{"destination": {"host": host, "subset": each}} for each in chosen]
    if rng.random() < 0.2:
        routes[0]["weight"], routes[1]["weight"] = 0, 100
        rule["route"] = routes
    else:
        rule["route"] = routes[:1]
    return rule


def _tls_match(rng: random.Random, number: int, ports: Ports, gateways: list[str]) -> Object:
    names = [*_names(number), "*"] if rng.random() < 0.2 else _names(number)
    return {"sniHosts": rng.sample(names, rng.choice([1, 1, 1, 2])), **_match(rng, ports, gateways)}


def _match(rng: random.Random, ports: Ports, gateways: list[str]) -> Object:
    match: Object = {}

    def sometimes(chance: float, field: str, value: Any) -> None:
        if rng.random() < chance:
            match[field] = value

    sometimes(0.2, "port", rng.choice([*vars(ports).values()]))
    sometimes(0.2, "sourceLabels", {"app": rng.choice(["x", "y"])})
    sometimes(0.15, "sourceNamespace", rng.choice(["a", "b", "c"]))
    sometimes(0.2, "gateways", rng.sample(["mesh", *gateways], rng.choice([1, 1, 2])))
    sometimes(0.2, "destinationSubnets", rng.sample(_SUBNETS, rng.choice([1, 1, 2])))
    return match


def _object(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
