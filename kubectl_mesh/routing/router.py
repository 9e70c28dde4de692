"""Which routes a proxy has for a host: the way from a snapshot to tables.

A sidecar holds the rules of one VirtualService for a host and port, a gateway those of all.
Models istiod's `SelectVirtualServices`, `BuildSidecarOutboundVirtualHosts` and
`buildGatewayHTTPRouteConfig`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from kubectl_mesh.mesh.gateways import MESH, Gateway, Server
from kubectl_mesh.mesh.hosts import covers, hosts_called, is_wildcard, overlap, patterns_for
from kubectl_mesh.mesh.ports import SNIFFED
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.snapshot import Snapshot, once_per_snapshot
from kubectl_mesh.mesh.versions import ABSOLUTE_NAMES, EMPTY_RULES_SKIPPED
from kubectl_mesh.mesh.virtual_services import Destination, Protocol, VirtualService, as_seen_from
from kubectl_mesh.routing.chains import Listener, address_in
from kubectl_mesh.routing.connection import Connection, connection_of
from kubectl_mesh.routing.listeners import Listeners, addresses_of
from kubectl_mesh.routing.matching import Conditions
from kubectl_mesh.routing.not_followed import Bearing
from kubectl_mesh.routing.providers import Providers, with_port
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.rules import Rule, merged_rules, own_rules
from kubectl_mesh.routing.table import (
    Action,
    Route,
    Table,
    Target,
    WayIn,
    routes_of,
    sorted_for_gateway,
)

_HTTP_PORT = 80


class Router:
    """The tables of every proxy of a mesh. What it finds out about the snapshot it keeps."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.providers = Providers(snapshot)
        self.listeners = Listeners(self)
        self.bearing = Bearing(self)
        self._rules: dict[VirtualService, tuple[Rule, ...]] = {}
        self._connection_rules: dict[tuple[VirtualService, Protocol], tuple[Rule, ...]] = {}

    def rules(self, vs: VirtualService) -> tuple[Rule, ...]:
        """The http rules of a root, delegates merged."""
        if vs not in self._rules:
            self._rules[vs] = merged_rules(self.snapshot.virtual_services, vs)
        return self._rules[vs]

    def connection_rules(self, vs: VirtualService, protocol: Protocol) -> tuple[Rule, ...]:
        """The tcp or tls rules of a VirtualService that istiod looks at."""
        key = (vs, protocol)
        if key not in self._connection_rules:
            skipped = self.snapshot.config.istio.has(EMPTY_RULES_SKIPPED)
            rules = own_rules(vs, protocol)
            kept = (rule for rule in rules if rule.data.get("route") or not skipped)
            self._connection_rules[key] = tuple(kept)
        return self._connection_rules[key]

    def destinations(self, vs: VirtualService) -> Iterator[Destination]:
        """Every destination of a root's rules, mirrors and those of its delegates included."""
        for owner in {vs: None, **{rule.owner: None for rule in self.rules(vs)}}:
            yield from owner.destinations

    def sidecar(self, client: Proxy, host: str, port: int) -> Table:
        """What a sidecar does with HTTP requests to `host`, a Host header's name, on a port."""
        listener = _Listener(self, client, port)
        for domain in patterns_for(host):
            table = listener.table(domain)
            if table is not None:
                return table
        sidecars = self.snapshot.sidecars
        if sidecars.registry_only(client.namespace, client.labels):
            return Table("blackhole", "*")
        resolves = sidecars.resolves_unknown(client.namespace, client.labels)
        return Table("dynamic-dns" if resolves else "passthrough", "*")

    def gateway(
        self, proxy: Proxy, host: str, port: int, *, tls: bool, server_name: str = ""
    ) -> Table | None:
        """What a gateway does with HTTP requests to `host` on a server's port.

        None where no server takes such requests there. With `tls` they come by TLS that the
        gateway ends, for `server_name`, or for the name of the host: it is the server for that name
        that routes them.
        """
        servers: Sequence[tuple[Gateway, Server]]
        if tls:
            listener = self.listeners.gateway(proxy, port)
            name = server_name or host
            chain = listener.find(Connection(name, port, name)) if listener else None
            servers = [chain.server] if chain and chain.server else []
        else:
            servers = self.listeners.merged(proxy).get(port, ())
        servers = [
            (gateway, server)
            for gateway, server in servers
            if server.takes_http_routes and server.ends_tls is tls
        ]
        if not servers:
            return None
        for domain in patterns_for(host):
            table = self._gateway_table(proxy, servers, domain)
            if table is not None:
                return table
        return Table("no-route", "*")

    def _gateway_table(
        self, proxy: Proxy, servers: list[tuple[Gateway, Server]], domain: str
    ) -> Table | None:
        """The table of a virtual host; None where no rule and server share this very host."""
        found = redirects = False
        routes: list[Route] = []
        for gateway, server in servers:
            way_in = WayIn(proxy, gateway.id, server.number)
            to_https = server.redirects_to_https
            redirects = redirects or (to_https and domain in server.bare_hosts)
            for vs in self._on_gateway(gateway.id, domain, proxy.namespace):
                if domain in shared_hosts(gateway, server, vs):
                    added = routes_of(vs, self.rules(vs), way_in, self._single_ports(vs, proxy))
                    found = found or bool(added)
                    redirects = redirects or (to_https and bool(added))
                    routes += added
        if redirects:
            return Table("https-redirect", domain)
        if found:
            return Table("virtual-service", domain, sorted_for_gateway(routes))
        return None

    def _on_gateway(self, gateway: str, domain: str, namespace: str) -> Iterator[VirtualService]:
        """The VirtualServices of a gateway that may share a host, as its proxies order them."""
        by_host = self._by_gateway.get(gateway, {})
        candidates = chain.from_iterable(by_host.get(each, ()) for each in patterns_for(domain))
        ordered = sorted(set(candidates), key=lambda vs: vs.resource.age_key)
        return iter(as_seen_from(namespace, ordered))

    def at(self, proxy: Proxy, asked: Request | Connection) -> Table | Listener | None:
        """What takes a request or a connection at a proxy: http routes, else filter chains.

        A request meets filter chains where the proxy takes it for no HTTP: it comes by TLS that the
        proxy does not end, or the port is of another protocol. None where nothing listens.
        """
        if isinstance(asked, Connection):
            return self.listener(proxy, asked)
        tls = asked.scheme == "https"
        if proxy.is_gateway:
            table = self.gateway(
                proxy, asked.host, asked.port, tls=tls, server_name=asked.dialled_host
            )
            return self.listener(proxy, connection_of(asked)) if table is None else table
        if tls or not self.takes_http(proxy, asked.dialled_host, asked.port):
            return self.listener(proxy, connection_of(asked))
        return self.sidecar(proxy, self.host_of(proxy, asked), asked.port)

    def listener(self, proxy: Proxy, connection: Connection) -> Listener | None:
        """What takes the connections to a port at a proxy; None where nothing listens there."""
        if proxy.is_gateway:
            return self.listeners.gateway(proxy, connection.port)
        return self.listeners.sidecar(proxy, connection.host, connection.port)

    def host_of(self, client: Proxy, request: Request) -> str:
        """The host whose routes a sidecar has for a request: that of its Host header.

        A port whose protocol is detected has a listener of its own, for HTTP with any Host: there
        it is the host that is dialled.
        """
        service = self.meant(client, request.dialled_host, request.port)
        port = service.port(request.port) if service else None
        if service and port and port.protocol == SNIFFED and addresses_of(service):
            return request.dialled_host
        return request.host

    def bound_to(self, gateway: str) -> Sequence[VirtualService]:
        """The roots that are bound to a Gateway ("namespace/name"), the oldest first."""
        return self._bound.get(gateway, ())

    @cached_property
    def _bound(self) -> Mapping[str, list[VirtualService]]:
        grouped: dict[str, list[VirtualService]] = {}
        for vs in self.snapshot.virtual_services.roots:
            for gateway in vs.gateways:
                grouped.setdefault(gateway, []).append(vs)
        return grouped

    @cached_property
    def _by_gateway(self) -> Mapping[str, Mapping[str, list[VirtualService]]]:
        """The roots by gateway and host."""
        grouped: dict[str, dict[str, list[VirtualService]]] = {}
        for gateway, roots in self._bound.items():
            by_host = grouped.setdefault(gateway, {})
            for vs in roots:
                for host in vs.hosts:
                    by_host.setdefault(host, []).append(vs)
        return grouped

    def _single_ports(self, vs: VirtualService, proxy: Proxy) -> Mapping[str, int]:
        """The port of each destination that has just one, as a gateway's proxies see it."""
        found: dict[str, int] = {}
        for host in {to.host for to in self.destinations(vs)}:
            service = self.providers.for_gateway(host, proxy.namespace, prefer=vs.namespace)
            if service and len(service.ports) == 1:
                found[host] = service.ports[0].number
        return found

    def meant(self, client: Proxy, name: str, port: int) -> Service | None:
        """What a host name means to a client in the registry, whatever its Sidecar imports."""
        names = (*self.called(name, client.namespace), *patterns_for(name.removesuffix(".")))
        egress = self.snapshot.sidecars.egress(client.namespace, client.labels, port)
        for host in names:
            found = with_port(self.providers.imported(client, egress, host), port)
            if found:
                return found
        others = (self.providers.for_sidecar(client, host, port) for host in names)
        return next(filter(None, others), None)

    def takes_http(self, client: Proxy, name: str, port: int) -> bool:
        """Whether a sidecar looks for http routes on a port of a host, as far as it knows it."""
        service = self.meant(client, name, port)
        found = service.port(port) if service else None
        if service is None or found is None or found.takes_http_routes:
            return True
        egress = self.snapshot.sidecars.egress(client.namespace, client.labels, port)
        return not egress.sees_service(service.namespace, service.host)

    def called(self, name: str, namespace: str) -> Iterator[str]:
        """The hosts of the registry that clients of a namespace may mean by a name.

        As `hosts_called`, by its absolute name, and by its one address. A Service of type
        ExternalName is another name of what it stands for, which comes first.
        """
        absolute = (name[:-1],) if name.endswith(".") else ()
        for host in (*hosts_called(name, (namespace,), self.snapshot.config.domain), *absolute):
            yield from self.snapshot.registry.stood_for(host)
            yield host
        address = self.snapshot.registry.by_address.get(name)
        if address:
            yield address.host
        if name in self.entries_at and not self.shares_address(name):
            yield self.entries_at[name][0].host

    @cached_property
    def entries_at(self) -> Mapping[str, Sequence[Service]]:
        """The hosts of ServiceEntries by each of their single addresses."""
        found: dict[str, list[Service]] = {}
        for service in self.snapshot.registry.entries:
            for address in addresses_of(service):
                if address_in(address):
                    found.setdefault(address, []).append(service)
        return found

    def shares_address(self, address: str) -> bool:
        """Whether an address has several hosts, or its host several addresses.

        Then it is not sure that HTTP requests to it, by its number, find the host: of several
        addresses istiod takes one for that, and not always the same.
        """
        hosts = {service.host for service in self.entries_at[address]}
        every = {each for host in hosts for each in self._addresses(host)}
        return len(hosts) > 1 or len(every) > 1

    def _addresses(self, host: str) -> Iterator[str]:
        for service in self.snapshot.registry.by_host(host):
            yield from addresses_of(service)


@once_per_snapshot
def router_of(snapshot: Snapshot) -> Router:
    """The router of a snapshot."""
    return Router(snapshot)


class _Listener:
    """The virtual hosts of a sidecar's listener for HTTP on one port."""

    def __init__(self, router: Router, client: Proxy, port: int) -> None:
        self._router = router
        self._client = client
        self._port = port
        self._egress = router.snapshot.sidecars.egress(client.namespace, client.labels, port)
        self._way_in = WayIn(client, MESH, port)

    def table(self, domain: str) -> Table | None:
        """The table of the virtual host that has this very domain; None where there is none."""
        services = list(self._services(domain))
        claimants: set[VirtualService] = set()
        if not any(service.host == domain for service in services):
            claimants.update(self._virtual_services(domain))
        for service in services:
            claimants.update(self._governing(service))
        for vs in self._in_order(claimants):
            if self._claims(vs, domain, services):
                routes = routes_of(vs, self._router.rules(vs), self._way_in, {})
                if routes:
                    return Table("virtual-service", domain, routes)
        for service in services:
            if self._takes_http(service) and not service.is_external_name:
                return Table("service", domain, (self._own_route(service),))
        return None

    def _services(self, domain: str) -> Iterator[Service]:
        """The Services on this port that answer to a domain, in the client's eyes."""
        bare = domain[2:] if domain.startswith("*.") else domain
        istio = self._router.snapshot.config.istio
        if bare.endswith(".") and not istio.has(ABSOLUTE_NAMES):
            return
        for host in dict.fromkeys(self._router.called(bare, self._client.namespace)):
            service = self._service(host)
            if service and (bare == domain or service.is_headless):
                yield service
        if bare != domain:
            service = self._service(domain.removesuffix("."))
            if service:
                yield service

    def _service(self, host: str) -> Service | None:
        known = self._router.providers.imported(self._client, self._egress, host)
        return with_port(known, self._port)

    def _takes_http(self, service: Service) -> bool:
        port = service.port(self._port)
        return port is not None and port.takes_http_routes

    def _virtual_services(self, host: str) -> Iterable[VirtualService]:
        """Those that list a host as it is written here, and that the client's proxy is told of."""
        found = self._router.snapshot.virtual_services.on_mesh_by_host.get(host, ())
        return [
            vs
            for vs in found
            if vs.export.reaches(self._client.namespace)
            and self._egress.sees_virtual_service(vs.namespace, vs.hosts)
        ]

    def _governing(self, service: Service) -> Iterable[VirtualService]:
        """The VirtualServices that stand for a Service: those that name it, else one wildcard's.

        Models `computeWildcardHostVirtualServiceIndex`.
        """
        named = self._virtual_services(service.host)
        if named:
            return named
        for pattern in patterns_for(service.host):
            found = self._in_order(self._virtual_services(pattern))
            if found:
                return found[:1]
        return ()

    def _in_order(self, found: Iterable[VirtualService]) -> list[VirtualService]:
        oldest_first = sorted(found, key=lambda vs: vs.resource.age_key)
        return as_seen_from(self._client.namespace, oldest_first)

    def _claims(self, vs: VirtualService, domain: str, services: Iterable[Service]) -> bool:
        """Whether a VirtualService makes a virtual host of this domain on this port.

        For a host that is no Service of the port it does so beside a Service of its own there, or
        on port 80. A wildcard that means some Service of the port is for Services only.
        """
        for service in services:
            if vs in self._governing(service) and self._takes_http(service):
                return True
        if domain not in vs.hosts or any(service.host == domain for service in services):
            return False
        if is_wildcard(domain) and any(self._matching(domain)):
            return False
        if self._port == _HTTP_PORT:
            return True
        return any(
            self._takes_http(service) and vs in self._governing(service)
            for host in vs.hosts
            for service in self._matching(host)
        )

    def _matching(self, host: str) -> Iterator[Service]:
        """The Services of this port, in the client's eyes, that a VirtualService's host means."""
        registry = self._router.snapshot.registry
        hosts: Iterable[str]
        if is_wildcard(host):
            hosts = (service.host for service in registry.on_port(self._port))
        else:
            hosts = (host,)
        for candidate in hosts:
            if overlap(host, candidate):
                service = self._service(candidate)
                if service:
                    yield service

    def _own_route(self, service: Service) -> Route:
        target = Target(service.host, self._port, None, 0)
        return Route(None, None, None, Conditions(), Action((target,), {}))


def shared_hosts(gateway: Gateway, server: Server, vs: VirtualService) -> set[str]:
    """The hosts of a VirtualService's virtual hosts on a server: of each pair the narrower one."""
    found: set[str] = set()
    for pattern in gateway.hosts_for(server, vs.namespace):
        for host in vs.hosts:
            if covers(host, pattern):
                found.add(pattern)
            elif covers(pattern, host):
                found.add(host)
    return found
