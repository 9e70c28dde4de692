"""Which filter chains proxies have for TCP, and for TLS that they do not end.

Models istiod's `buildSidecarOutboundListener` with `buildSidecarOutboundTLSFilterChainOpts` and
`buildSidecarOutboundTCPFilterChainOpts`, and `buildGatewayTCPBasedFilterChains`. A Service with an
address of its own has a listener of its own; all others of a port share the one of 0.0.0.0. That a
sidecar may be told to listen on ports that Services do not have is not modelled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, permutations, product
from typing import TYPE_CHECKING, Any, TypeVar

from kubectl_mesh.mesh.gateways import MESH, Gateway, Server, merged
from kubectl_mesh.mesh.hosts import is_wildcard, overlap, patterns_for
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS, SNIFFED
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.sidecars import Egress
from kubectl_mesh.mesh.texts import GO_TRUE
from kubectl_mesh.mesh.versions import (
    ADDRESSES_GIVEN,
    TLS_NOT_LOOKED_FOR,
    TLS_SUBNETS_STAY,
)
from kubectl_mesh.mesh.virtual_services import VirtualService, as_seen_from, is_idle
from kubectl_mesh.routing.chains import Address, Chain, Listener, Network, address_in, networks
from kubectl_mesh.routing.providers import with_port
from kubectl_mesh.routing.rules import Rule
from kubectl_mesh.routing.table import Target

if TYPE_CHECKING:
    from kubectl_mesh.routing.router import Router

T = TypeVar("T")
_Rank = Callable[[Service], tuple[Any, ...]]
_TLS = ("https", "tls")
_NO_ADDRESS = "networking.istio.io/enable-autoallocate-ip"
_ALONE = ("mongo", "mysql")
"""Protocols that share a port with no other."""
_FEW = 4
"""Of so many Services that istiod puts in any order all orders are looked at."""
_MOST_ORDERS = 24
"""So many orders at most are looked at of a port."""


class Listeners:
    """The listeners of every proxy of a mesh. What it finds out it keeps."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._shared: dict[tuple[str, frozenset[tuple[str, str]], int], Listener] = {}
        self._of_gateways: dict[tuple[object, str, int], Listener | None] = {}
        self._merged: dict[object, Mapping[int, Sequence[tuple[Gateway, Server]]]] = {}

    def sidecar(self, client: Proxy, host: str, port: int) -> Listener:
        """What takes the connections of a client to a port of a host, a name or an IP address."""
        egress = self._router.snapshot.sidecars.egress(client.namespace, client.labels, port)
        service = self._service(client, egress, host, port)
        if (
            service is None
            or not _has_listener(service, port)
            or not (_has_own(service, host) or self._is_given_address(service))
        ):
            return self._on_port(client, egress, port)
        rules = self._rules_for(service, client, egress)
        chains, crash = _unless_it_crashes(
            lambda: _chains_of_service(self._router, service, client, port, rules, "", shared=False)
        )
        return Listener(
            f"the sidecar's listener for port {port} of {service.resource}",
            tuple(chains),
            self._rest(client),
            address_in(host) or _address_of(service),
            unread=crash,
            last_for_all=True,
            detects_http=_protocol(service, port) == SNIFFED,
            looks_for_tls=self._looks_for_tls,
        )

    @property
    def _looks_for_tls(self) -> bool:
        return not self._router.snapshot.config.istio.has(TLS_NOT_LOOKED_FOR)

    def _rest(self, client: Proxy) -> Any:
        sidecars = self._router.snapshot.sidecars
        closed = sidecars.registry_only(client.namespace, client.labels)
        return "blackhole" if closed else "passthrough"

    def _service(self, client: Proxy, egress: Egress, host: str, port: int) -> Service | None:
        """What a client that connects to a host means, in the registry as it knows it."""
        router = self._router

        def known(name: str) -> Service | None:
            seen = router.providers.imported(client, egress, name)
            return with_port(seen, port) or next(iter(seen), None)

        found = [known(name) for name in router.called(host, client.namespace)]
        address = address_in(host)
        if address:
            found += [
                service
                for service in router.snapshot.registry.on_port(port)
                if service in router.providers.imported(client, egress, service.host)
                and (str(address) in addresses_of(service) or _is_of_pod(router, service, host))
            ]
        found += [
            service
            for name in router.called(host.partition(".")[2], client.namespace)
            if (service := known(name)) and service.is_headless
        ]
        found += map(known, patterns_for(host.removesuffix(".")))
        return next(filter(None, found), None)

    def _on_port(self, client: Proxy, egress: Egress, port: int) -> Listener:
        """The listener of all hosts of a port that have no address of their own."""
        key = (client.namespace, frozenset(client.labels.items()), port)
        if key not in self._shared:
            services = self._in_order(client, egress, port)
            orders = [services, *_other_orders(services, self._rank(client), port)]
            found, unread = _unless_it_crashes(
                lambda: [self._shared_chains(each, client, egress, port) for each in orders]
            )
            name = f"the sidecar's listener for port {port}"
            if not services:
                name = f"none of the sidecar's: it has none for port {port}"
            if len({(_signature(chains), http) for chains, http in found}) > 1:
                unread = _tied(services, self._rank(client), port)
            chains, detects_http = ((), False) if unread else found[0]
            self._shared[key] = Listener(
                name,
                tuple(chains),
                self._rest(client),
                unread=unread,
                for_any_host=True,
                last_for_all=True,
                detects_http=detects_http,
                looks_for_tls=self._looks_for_tls,
            )
        return self._shared[key]

    def _shared_chains(
        self, services: Iterable[Service], client: Proxy, egress: Egress, port: int
    ) -> tuple[Sequence[Chain], bool]:
        """Models how listeners of several Services are merged, and which of them are left out.

        Gives their chains, and whether one for HTTP is beside them.
        """
        chains: dict[object, Chain] = {}
        seen: set[object] = set()
        taken: str | None = None
        for service in services:
            protocol = _protocol(service, port)
            if protocol == "udp" or service.is_external_name:
                continue
            if protocol in HTTP_PROTOCOLS:
                if taken is None or (taken != SNIFFED and taken not in _ALONE):
                    taken = SNIFFED
                continue
            subnets = [] if self._is_given_address(service) else _subnets_of(service)
            if not subnets or (protocol == SNIFFED and taken == SNIFFED):
                continue
            if taken is not None and taken != protocol and {taken, protocol} & {*_ALONE}:
                continue
            rules = self._rules_for(service, client, egress)
            for subnet in subnets:
                of_rules = (protocol in _TLS, subnet, tuple(rules))
                if of_rules in seen:
                    continue  # all its chains are there: another Service with the same rules
                added = _chains_of_service(
                    self._router, service, client, port, rules, subnet, shared=True
                )
                if all(chain.path for chain in added):
                    seen.add(of_rules)
                for number, chain in enumerate(added):
                    # What istiod makes for the first Service is not compared with itself.
                    chains.setdefault(number if taken is None else chain.key, chain)
            if taken is None:
                chains = _by_key(chains.values())
                taken = protocol
            elif SNIFFED in (taken, protocol):
                taken = SNIFFED
        return list(chains.values()), taken == SNIFFED

    def _in_order(self, client: Proxy, egress: Egress, port: int) -> list[Service]:
        """The Services of a port that a client knows, as istiod orders them."""
        seen = [
            service
            for service in self._router.snapshot.registry.on_port(port)
            if service in self._router.providers.imported(client, egress, service.host)
        ]

        return sorted(seen, key=self._rank(client))

    def _is_given_address(self, service: Service) -> bool:
        """Whether istiod gives a ServiceEntry's host an address that sidecars listen at.

        Models `nodeUsesAutoallocatedIPs` and `ShouldV2AutoAllocateIP`, for the metadata that all
        proxies of the mesh have.
        """
        config = self._router.snapshot.config
        metadata = config.proxy_metadata or {}

        def is_on(name: str) -> bool:
            return metadata.get(f"ISTIO_META_DNS_{name}") in GO_TRUE

        spec = service.resource.spec
        return (
            is_on("CAPTURE")
            and (config.istio.has(ADDRESSES_GIVEN) or is_on("AUTO_ALLOCATE"))
            and not service.is_kubernetes
            and not spec.get("addresses")
            and spec.get("resolution") not in (None, "NONE")
            and not is_wildcard(service.host)
            and service.resource.labels.get(_NO_ADDRESS, "").lower() != "false"
        )

    def _rank(self, client: Proxy) -> _Rank:
        return lambda service: self._router.providers.rank(service, client.namespace)

    def _rules_for(self, service: Service, client: Proxy, egress: Egress) -> list[VirtualService]:
        """The VirtualServices of the mesh that speak of a host, as a client sees them."""
        found = self._router.snapshot.virtual_services.mesh_connections(
            service.host, client.namespace
        )
        return [vs for vs in found if egress.sees_virtual_service(vs.namespace, vs.hosts)]

    def merged(self, proxy: Proxy) -> Mapping[int, Sequence[tuple[Gateway, Server]]]:
        """The servers of a gateway's proxies, by port (see mesh/gateways.py)."""
        key = proxy.gateways
        if key not in self._merged:
            self._merged[key] = merged(proxy.gateways or (), self._router.snapshot.config.istio)
        return self._merged[key]

    def gateway(self, proxy: Proxy, port: int) -> Listener | None:
        """What takes the connections to a port of a gateway; None where nothing listens there."""
        key = (proxy.gateways, proxy.namespace, port)
        if key not in self._of_gateways:
            self._of_gateways[key] = self._gateway(proxy, port)
        return self._of_gateways[key]

    def _gateway(self, proxy: Proxy, port: int) -> Listener | None:
        servers = self.merged(proxy).get(port)
        if not servers:
            return None
        modes = [
            f"port {port} of Gateway {gateway.id} is {server.tls_mode}, which is not modelled"
            for gateway, server in servers
            if _is_opaque(server)
        ]
        chains, crash = _unless_it_crashes(lambda: self._gateway_chains(proxy, servers))
        named = dict.fromkeys(f"Gateway {each.id} ({server.protocol})" for each, server in servers)
        name = f"port {port} of {', '.join(named)}"
        unread = crash or next(iter(modes), None)
        return Listener(name, tuple(chains), "closed", unread=unread, for_any_host=True)

    def _gateway_chains(
        self, proxy: Proxy, servers: Iterable[tuple[Gateway, Server]]
    ) -> list[Chain]:
        """The chains for what is known of the servers of a port."""
        chains: list[Chain] = []
        taken: set[str] = set()
        for gateway, server in servers:
            names = tuple(sorted(set(server.bare_hosts))) if server.has_tls else ()
            if server.is_plain_http:
                if not any(chain.server and not chain.names for chain in chains):
                    chains.append(Chain(server=(gateway, server)))
            elif server.takes_http_routes:
                chains.append(Chain(names, server=(gateway, server)))
            elif not server.has_tls or server.ends_tls:
                chains += self._tcp_on_gateway(proxy, gateway, server, names)
            elif not _is_opaque(server):
                chains += self._tls_on_gateway(proxy, gateway, server, taken)
        return chains

    def _tcp_on_gateway(
        self, proxy: Proxy, gateway: Gateway, server: Server, names: tuple[str, ...]
    ) -> Iterator[Chain]:
        """Models `buildGatewayNetworkFiltersFromTCPRoutes`: the first rule has it all."""
        provider = partial(self._router.providers.for_gateway, namespace=proxy.namespace)
        for vs in self._on_gateway(proxy, gateway, server):
            for rule in self._router.connection_rules(vs, "tcp"):
                held = [
                    match
                    for match in rule.matches or ()
                    if match.holds_for(proxy, gateway.id, server.number)
                ]
                if held or rule.matches is None:
                    path = rule.path_of(held[0]) if held else rule.path
                    targets = _targets(rule, server.number, provider)
                    yield Chain(names, (), targets, vs, path)
                    return

    def _tls_on_gateway(
        self, proxy: Proxy, gateway: Gateway, server: Server, taken: set[str]
    ) -> Iterator[Chain]:
        """Models `buildGatewayNetworkFiltersFromTLSRoutes`.

        A match with a server name that another has taken on this port is left out as a whole.
        """
        provider = partial(self._router.providers.for_gateway, namespace=proxy.namespace)
        for vs in self._on_gateway(proxy, gateway, server):
            for rule in self._router.connection_rules(vs, "tls"):
                for match in rule.matches or ():
                    names = match.server_names
                    holds = match.holds_for(proxy, gateway.id, server.number)
                    if not holds or taken & {*names}:
                        continue
                    taken |= {*names}
                    targets = _targets(rule, server.number, provider)
                    yield Chain(names, (), targets, vs, rule.path_of(match))

    def _on_gateway(self, proxy: Proxy, gateway: Gateway, server: Server) -> list[VirtualService]:
        """The VirtualServices of a Gateway that share a host with a server, in order."""
        open_hosts: dict[str, list[str]] = {}
        found = []
        for vs in self._router.bound_to(gateway.id):
            if vs.namespace not in open_hosts:
                open_hosts[vs.namespace] = list(gateway.hosts_for(server, vs.namespace))
            hosts = open_hosts[vs.namespace]
            if any(overlap(pattern, host) for pattern in hosts for host in vs.hosts):
                found.append(vs)
        return as_seen_from(proxy.namespace, found)


def _ties(services: Iterable[Service], rank: _Rank, port: int) -> list[list[Service]]:
    """Services of a port in their order, together those that istiod puts in any order.

    That is ServiceEntries of one host that are equally old. It matters where they speak different
    protocols, as the first one decides what others may add.
    """
    alike: dict[object, list[Service]] = defaultdict(list)
    for service in services:
        alike[rank(service)].append(service)
    found: list[list[Service]] = []
    for group in alike.values():
        protocols = {served.protocol for each in group if (served := each.port(port))}
        found += [group] if len(protocols) > 1 else [[each] for each in group]
    return found


def _other_orders(services: Iterable[Service], rank: _Rank, port: int) -> Iterator[list[Service]]:
    """Other orders in which istiod may have the Services of a port; not all of very many."""
    ties = _ties(services, rank, port)
    if not any(each[1:] for each in ties):
        return
    for order in islice(product(*map(_arranged, ties)), 1, _MOST_ORDERS):
        yield [service for group in order for service in group]


def _arranged(group: Sequence[Service]) -> Iterable[Sequence[Service]]:
    """Orders of Services; of many, those with each of them first."""
    if len(group) <= _FEW:
        return permutations(group)
    return [[*group[number:], *group[:number]] for number in range(min(len(group), _MOST_ORDERS))]


def _signature(chains: Iterable[Chain]) -> object:
    """What a listener does, in whatever order its chains stand: the last one for all wins."""
    of_all = [each.targets for each in chains if not (each.names or each.key[1])]
    keys = ((each.key, each.targets, id(each.virtual_service), each.path) for each in chains)
    return frozenset(Counter(keys).items()), of_all[-1] if of_all else None


def _tied(services: Iterable[Service], rank: _Rank, port: int) -> str:
    one, other, *_ = next(each for each in _ties(services, rank, port) if each[1:])
    return (
        f"{one.resource} and {other.resource} define port {port} of {one.host} with different "
        "protocols and are equally old: Istio takes either of them first"
    )


def addresses_of(service: Service) -> list[str]:
    """The addresses and subnets at which a host is called; empty where none are known."""
    if not service.is_kubernetes:
        return [_written(each) for each in service.resource.spec.get("addresses") or ()]
    return [_written(service.cluster_ip)] if service.cluster_ip else []


def _written(text: str) -> str:
    """An address in the one way to write it, a subnet of one address as that, as istiod has it."""
    found = networks([text])
    return str(found[0].network_address) if found and found[0].num_addresses == 1 else text


def _is_of_pod(router: Router, service: Service, address: str) -> bool:
    """Whether an address is that of a pod behind a headless Service: each has a listener."""
    return service.is_headless and any(
        (pod.resource.data.get("status") or {}).get("podIP") == address
        for pod in router.snapshot.pods_of(service)
    )


def _by_key(chains: Iterable[Chain]) -> dict[object, Chain]:
    """Chains by what they are for; those that clash are all kept."""
    found: dict[object, Chain] = {}
    for number, chain in enumerate(chains):
        found[number if chain.key in found else chain.key] = chain
    return found


def _address_of(service: Service) -> Address | None:
    return next((found for each in addresses_of(service) if (found := address_in(each))), None)


def _subnets_of(service: Service) -> list[str]:
    """The subnets by which a ServiceEntry shares the listener of a port.

    One empty text where it has no address at all; none where all are single addresses.
    """
    if service.is_kubernetes:
        return []
    found = addresses_of(service)
    return [each for each in found if not address_in(each)] if found else [""]


def _has_own(service: Service, host: str) -> bool:
    """Whether connections to a host, or to an address of it, have a listener of their own."""
    if service.is_kubernetes:
        return True
    address = address_in(host)
    if address:
        return str(address) in addresses_of(service)
    return _address_of(service) is not None


def _protocol(service: Service, port: int) -> str:
    """That of a port; what a Service does not have is no more to a listener than UDP."""
    served = service.port(port)
    return served.protocol if served else "udp"


def _has_listener(service: Service, port: int) -> bool:
    """Whether connections to a port that are no HTTP find more than a way through."""
    return not service.is_external_name and _protocol(service, port) not in (*HTTP_PROTOCOLS, "udp")


def _chains_of_service(
    router: Router,
    service: Service,
    client: Proxy,
    port: int,
    rules: Iterable[VirtualService],
    subnet: str,
    *,
    shared: bool,
) -> list[Chain]:
    served = service.port(port)
    assert served
    own = networks([subnet] if subnet else [])
    number = service.ports[0].number if len(service.ports) == 1 else port
    target = (Target(service.host, number, None, 0),)
    if served.protocol in _TLS:
        chains = list(_tls_chains(router, client, port, rules, own))
        if not chains:
            chains.append(Chain((service.host,) if shared else (), own, target, service=service))
        return chains
    chains = list(_tcp_chains(router, client, port, rules, own))
    ended = any(chain.path and set(chain.subnets) == set(own) for chain in chains)
    if not ended:
        chains.append(Chain((), own, target, service=service))
    return chains


def _tls_chains(
    router: Router,
    client: Proxy,
    port: int,
    rules: Iterable[VirtualService],
    own: tuple[Network, ...],
) -> Iterator[Chain]:
    """Of the same server names and subnets the first match that holds for the client."""
    stay = router.snapshot.config.istio.has(TLS_SUBNETS_STAY)
    provider = partial(router.providers.for_sidecar, client, port=port)
    handled: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    last, lender = own, None
    for vs in rules:
        for rule in router.connection_rules(vs, "tls"):
            for match in rule.matches or ():
                if not match.holds_for(client, MESH, port):
                    continue
                path = rule.path_of(match)
                names, subnets = match.server_names, match.subnets
                if subnets and stay:
                    last, lender = networks(subnets), (vs, path)
                if (names, subnets) in handled:
                    continue
                handled.add((names, subnets))
                targets = _targets(rule, port, provider)
                if subnets:
                    yield Chain(names, networks(subnets), targets, vs, path)
                else:
                    yield Chain(names, last, targets, vs, path, lender=lender)


def _tcp_chains(
    router: Router,
    client: Proxy,
    port: int,
    rules: Iterable[VirtualService],
    own: tuple[Network, ...],
) -> Iterator[Chain]:
    """The rules that hold for the client, up to the first that asks for no subnet."""
    provider = partial(router.providers.for_sidecar, client, port=port)
    for vs in rules:
        for rule in router.connection_rules(vs, "tcp"):
            held = [each for each in rule.matches or () if each.holds_for(client, MESH, port)]
            for match in held:
                if not match.subnets:
                    targets = _targets(rule, port, provider)
                    yield Chain((), own, targets, vs, rule.path_of(match))
                    return
            if rule.matches is None:
                yield Chain((), own, _targets(rule, port, provider), vs, rule.path)
                return
            if held:
                subnets = [subnet for match in held for subnet in match.subnets]
                targets = _targets(rule, port, provider)
                yield Chain((), networks(subnets), targets, vs, rule.path_of(held[0]))


def _is_opaque(server: Server) -> bool:
    """Whether a server takes TLS in a way that is not modelled."""
    opened = server.is_plain_http or server.takes_http_routes or server.ends_tls
    return not opened and server.has_tls and server.tls_mode != "PASSTHROUGH"


class _Crash(Exception):
    """What istiod comes to, instead of a listener; the text says where."""


def _unless_it_crashes(make: Callable[[], list[T]]) -> tuple[list[T], str | None]:
    """What is made, and None; nothing and the reason where istiod crashes."""
    try:
        return make(), None
    except _Crash as crash:
        return [], str(crash)


def _targets(
    rule: Rule, port: int, provider: Callable[[str], Service | None]
) -> tuple[Target, ...]:
    """Where a rule sends connections: without a port, to the only one of the destination.

    Raises _Crash for a rule with none, as istiod takes the first of those that have a weight.
    """
    routes = rule.data.get("route") or ()
    found = []
    for route in routes:
        destination = route.get("destination") or {}
        if is_idle(route, routes):
            continue
        host = destination.get("host") or ""
        number = (destination.get("port") or {}).get("number")
        if not number:
            service = provider(host)
            single = service is not None and len(service.ports) == 1
            number = service.ports[0].number if service and single else port
        found.append(
            Target(host, number, destination.get("subset") or None, route.get("weight") or 0)
        )
    if not found:
        lacking = "destination with a weight" if routes else "destination"
        where = f"{rule.owner.resource} {dotted(rule.path)}"
        raise _Crash(f"istiod crashes at {where}, which has no {lacking}")
    return tuple(found)
