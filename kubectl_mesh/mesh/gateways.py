"""Gateways: their names, the hosts that their servers admit, the pods that they configure.

Models `resolveGatewayName` and the intersection of server hosts with a VirtualService's hosts of
istiod's gateway route builder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from kubectl_mesh.mesh.hosts import HostMap, is_wildcard, overlap
from kubectl_mesh.mesh.ports import entry_protocol
from kubectl_mesh.mesh.resource import Path, Resource

MESH = "mesh"


def resolve_gateway(name: str, namespace: str) -> str:
    """`mesh`, or "namespace/name" of the Gateway that a VirtualService of `namespace` means.

    Forms: `gw` and `./gw` (own namespace), `ns/gw`, and the old `gw.ns` and `gw.ns.svc...`.
    """
    if name == MESH:
        return MESH
    if "/" in name:
        where, _, short = name.partition("/")
        return f"{namespace if where == '.' else where}/{short}"
    if "." in name:
        short, where = name.split(".")[:2]
        return f"{where}/{short}"
    return f"{namespace}/{name}"


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A server of a Gateway. `protocol` is upper-case, as Istio writes it (HTTP, HTTPS, TLS...).

    `has_tls` says whether it has TLS settings at all, be it only to redirect to https.
    """

    path: Path
    number: int
    protocol: str
    hosts: tuple[str, ...]
    tls_mode: str
    redirects_to_https: bool = False
    has_tls: bool = False
    port_name: str = ""

    @property
    def bare_hosts(self) -> list[str]:
        """The hosts without the namespaces that they are open to."""
        return [host.rpartition("/")[2] for host in self.hosts]

    @property
    def ends_tls(self) -> bool:
        """Whether clients speak TLS with the gateway itself."""
        return self.tls_mode not in ("", "PASSTHROUGH", "AUTO_PASSTHROUGH")

    @property
    def is_plain_http(self) -> bool:
        return self.protocol in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY")

    @property
    def takes_http_routes(self) -> bool:
        """Whether http rules apply: TLS that is not ended here leaves nothing to route by."""
        return self.ends_tls if self.protocol == "HTTPS" else self.is_plain_http


class Gateway:
    """A Gateway with its servers."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    @property
    def id(self) -> str:
        """As VirtualServices resolve it: "namespace/name"."""
        return f"{self.resource.namespace}/{self.resource.name}"

    @property
    def selector(self) -> Mapping[str, str]:
        selector: Mapping[str, str] = self.resource.spec.get("selector") or {}
        return selector

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        return tuple(
            _server(index, server)
            for index, server in enumerate(self.resource.spec.get("servers") or ())
        )

    @cached_property
    def _by_pattern(self) -> HostMap[tuple[str, Server]]:
        """The namespaces and servers by host: a server's host is `[namespace/]host`."""
        entries: list[tuple[str, tuple[str, Server]]] = []
        for server in self.servers:
            for entry in server.hosts:
                where, slash, pattern = entry.rpartition("/")
                entries.append((pattern, (where if slash else "*", server)))
        return HostMap(entries)

    def hosts_for(self, server: Server, vs_namespace: str) -> Iterator[str]:
        """The hosts of a server that are open to VirtualServices of a namespace."""
        for entry in server.hosts:
            where, slash, pattern = entry.rpartition("/")
            if (
                not slash
                or where in ("*", vs_namespace)
                or (where == "." and vs_namespace == self.resource.namespace)
            ):
                yield pattern

    def admitting(self, host: str, vs_namespace: str) -> Iterator[Server]:
        """The servers on which a VirtualService of `vs_namespace` may serve `host`.

        The namespace of a server's host is that of the VirtualService, `*` (any, and the default)
        or `.` (the Gateway's own). One server may come twice. For a wildcard host all are looked
        at.
        """
        by_pattern = self._by_pattern
        candidates = by_pattern.covering(host)
        if is_wildcard(host):
            candidates = (
                found for pattern, found in by_pattern.by_pattern.items() if overlap(pattern, host)
            )
        for where, server in chain.from_iterable(candidates):
            if where in ("*", vs_namespace) or (
                where == "." and vs_namespace == self.resource.namespace
            ):
                yield server

    def admits(self, host: str, vs_namespace: str) -> bool:
        return any(self.admitting(host, vs_namespace))


def _server(index: int, server: Mapping[str, Any]) -> Server:
    port: Mapping[str, Any] = server.get("port") or {}
    return Server(
        ("spec", "servers", index),
        port.get("number") or 0,
        entry_protocol(port).upper(),
        tuple(server.get("hosts") or ()),
        _tls_mode(server),
        bool((server.get("tls") or {}).get("httpsRedirect")),
        server.get("tls") is not None,
        port.get("name") or "",
    )


def _tls_mode(server: Mapping[str, Any]) -> str:
    """The mode of a server's TLS; PASSTHROUGH is Istio's default where `tls` names none."""
    tls = server.get("tls")
    if tls is None or (tls.get("httpsRedirect") and not tls.get("mode")):
        return ""
    return str(tls.get("mode") or "PASSTHROUGH")


def merged(gateways: Iterable[Gateway]) -> Mapping[int, Sequence[tuple[Gateway, Server]]]:
    """The servers for which a proxy listens, by port, of the Gateways that configure it in order.

    Models `MergeGateways`: plain HTTP joins plain HTTP, TLS joins TLS, and else the first server of
    a port has it alone; of two with TLS settings that share a host the second is left out. That
    servers may listen at addresses of their own (`bind`) is not looked at.
    """
    found: dict[int, list[tuple[Gateway, Server]]] = defaultdict(list)
    plain: dict[int, Server] = {}
    joined: set[int] = set()
    hosts: dict[int, set[str]] = defaultdict(set)
    names: set[tuple[object, ...]] = set()
    for gateway in gateways:
        for server in gateway.servers:
            number = server.number
            if server.has_tls:
                admitted = set(_admitted(server, gateway.resource.namespace))
                if admitted & hosts[number]:
                    continue
                hosts[number] |= admitted
            if number not in found:
                if server.is_plain_http or not server.has_tls:
                    plain[number] = server
            elif number in plain:
                if not (plain[number].is_plain_http and server.is_plain_http):
                    continue
            else:
                if server.takes_http_routes and _route_name(gateway, server) in names:
                    continue
                if not server.has_tls and number in joined:
                    continue
                joined.add(number)
            if server.takes_http_routes:
                names.add(_route_name(gateway, server))
            found[number].append((gateway, server))
    return found


def _admitted(server: Server, namespace: str) -> Iterator[str]:
    """The hosts of a server with the namespaces that they are open to, written one way."""
    for entry in server.hosts:
        where, slash, host = entry.rpartition("/")
        if not slash or where == "*":
            yield host
        else:
            yield f"{namespace if where == '.' else where}/{host}"


def _route_name(gateway: Gateway, server: Server) -> tuple[object, ...]:
    """What tells the tables of routes apart that a proxy has on a port."""
    if server.is_plain_http:
        return (server.number,)
    return (server.number, server.port_name, gateway.id)


_Label = tuple[str, str]


class Gateways:
    """Every Gateway of a mesh."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.all = tuple(Gateway(resource) for resource in resources)
        self.by_id: Mapping[str, Gateway] = {gateway.id: gateway for gateway in self.all}

    @cached_property
    def _by_selector(self) -> Mapping[_Label | None, Mapping[frozenset[_Label], list[Gateway]]]:
        """The Gateways by selector, each under one of its labels; None for those without any."""
        grouped: dict[_Label | None, dict[frozenset[_Label], list[Gateway]]] = defaultdict(dict)
        for gateway in self.all:
            selector = frozenset(gateway.selector.items())
            grouped[min(selector, default=None)].setdefault(selector, []).append(gateway)
        return grouped

    def of_pod(self, labels: Mapping[str, str]) -> tuple[Gateway, ...]:
        """The Gateways that configure a pod with these labels, the oldest first."""
        items = labels.items()
        selecting = [
            gateway
            for label in (None, *items)
            for selector, gateways in self._by_selector.get(label, {}).items()
            if selector <= items
            for gateway in gateways
        ]
        return tuple(sorted(selecting, key=lambda each: each.resource.age_key))

    def configure(self, labels: Mapping[str, str]) -> bool:
        """Whether the selector of some Gateway selects pods that have these labels."""
        items = labels.items()
        return any(
            selector <= items for item in items for selector in self._by_selector.get(item, ())
        )
