"""The filter chains of a listener: which connections take which.

Models Envoy's look-up (`FilterChainManagerImpl::findFilterChain`): the narrowest subnet first, then
the most specific server name of that subnet's chains, and no way back from there. Models istiod's
`isMatchAll` and `conflictsWith`, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from kubectl_mesh.mesh.gateways import Gateway, Server
from kubectl_mesh.mesh.hosts import is_wildcard, patterns_for
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.table import Target

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_EVERYWHERE = IPv4Address(0)
_ELSEWHERE = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""Addresses that are there for examples."""
_ANY_HOST = "any.test"


@dataclass(frozen=True, eq=False)
class Chain:
    """What becomes of the connections for some server names and subnets; empty stands for any.

    `path` is that of the match in `virtual_service`, or of the rule where it has none; both are
    None and empty for the route that `service` has by itself. `server` is set where a gateway looks
    for http rules then. `lender` is the earlier match that it has its subnets of, where its own
    names none.
    """

    server_names: tuple[str, ...] = ()
    subnets: tuple[Network, ...] = ()
    targets: tuple[Target, ...] = ()
    virtual_service: VirtualService | None = None
    path: Path = ()
    service: Service | None = None
    server: tuple[Gateway, Server] | None = None
    lender: tuple[VirtualService, Path] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The server names that count: beside `*` no other does."""
        return () if "*" in self.server_names else self.server_names

    @property
    def key(self) -> tuple[frozenset[str], frozenset[Network]]:
        """The same for chains of which istiod leaves out the second."""
        return frozenset(self.server_names) - {"*"}, frozenset(_that_count(self.subnets))

    @property
    def is_for_all(self) -> bool:
        """Whether istiod takes it for the chain of everything (`isMatchAll`)."""
        return not self.names and not self.subnets

    @property
    def rule_index(self) -> int | None:
        return self._step(2)

    @property
    def match_index(self) -> int | None:
        return self._step(4)

    def _step(self, number: int) -> int | None:
        step = self.path[number] if len(self.path) > number else None
        return step if isinstance(step, int) else None

    def __str__(self) -> str:
        parts = [*self.names, *(str(each) for each in self.subnets)]
        return ", ".join(parts) or "every connection"


Rest = Literal["passthrough", "blackhole", "closed"]


@dataclass(frozen=True, eq=False)
class Listener:
    """The chains for the connections to one host of a port, or with `for_any_host` to any.

    `address` is where they are for, if that is one and known. `rest` says what becomes of those
    that no chain takes. `unread` is why chains are missing; None if all are here.
    """

    name: str
    chains: tuple[Chain, ...]
    rest: Rest
    address: Address | None = None
    unread: str | None = None
    for_any_host: bool = False
    last_for_all: bool = False
    """Whether a chain for everything comes last, as sidecars have it, and the last such wins."""
    detects_http: bool = False
    """Whether a chain for HTTP in plain text stands beside, as on ports of no protocol."""
    looks_for_tls: bool = True
    """Whether TLS is told from other bytes also where no chain asks for server names."""
    _found: dict[tuple[str | None, Address | None], Chain | None] = field(default_factory=dict)

    def find(self, connection: Connection) -> Chain | None:
        """The chain that a connection takes. Raises Undecidable where its address is not known."""
        address = address_in(connection.address) or self.address or address_in(connection.host)
        key = (connection.server_name, address)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, server_name: str | None, address: Address | None) -> Chain | None:
        if address is None and self.subnets:
            found = {self._find(server_name, each) for each in _addresses(self.subnets)}
            if len(found) == 1:
                return found.pop()
            listed = ", ".join(str(each) for each in self.subnets)
            raise Undecidable(f"the address of the host is not known, and rules ask for {listed}")
        subnet = self._narrowest(address)
        by_name = self._by_subnet.get(subnet, {})
        names = patterns_for(server_name.lower()) if server_name else ()
        for name in names:
            if name in by_name:
                return by_name[name][0]
        if "" in by_name and not (subnet is None and self._hides(server_name)):
            return by_name[""][0]
        return self._for_all

    def _hides(self, server_name: str | None) -> bool:
        """Whether the chain for HTTP hides those for any name and address from a connection.

        Envoy chooses by what it takes the bytes for before it asks whether they are HTTP, and does
        not come back to chains that do not ask what they are.
        """
        is_tls = server_name is not None and (self.looks_for_tls or bool(self.server_names))
        return self.detects_http and not is_tls

    def _narrowest(self, address: Address | None) -> Network | None:
        return self._subnets.narrowest(address) if address else None

    @cached_property
    def _subnets(self) -> _Subnets:
        return _Subnets(self.subnets)

    @cached_property
    def _for_all(self) -> Chain | None:
        """The chain for what no other takes."""
        found = [chain for chain in self.chains if chain.is_for_all]
        return found[-1] if found and self.last_for_all else None

    @cached_property
    def _by_subnet(self) -> Mapping[Network | None, Mapping[str, Sequence[Chain]]]:
        """The chains by subnet and server name; None and "" stand for any."""
        found: dict[Network | None, dict[str, list[Chain]]] = {}
        for chain in self.chains:
            if self.last_for_all and chain.is_for_all:
                continue
            for subnet in _that_count(chain.subnets) or (None,):
                for name in chain.names or ("",):
                    found.setdefault(subnet, {}).setdefault(name, []).append(chain)
        return found

    @cached_property
    def subnets(self) -> tuple[Network, ...]:
        """All that chains ask for."""
        return tuple(subnet for subnet in self._by_subnet if subnet)

    @cached_property
    def server_names(self) -> tuple[str, ...]:
        """All that chains ask for."""
        return tuple(dict.fromkeys(name for chain in self.chains for name in chain.names))

    @property
    def tells_tls_apart(self) -> bool:
        """Whether TLS goes another way than other bytes, whatever server name it bears."""
        return "" in self._by_subnet.get(None, {}) and self._hides(None) != self._hides("")

    @cached_property
    def clash(self) -> tuple[Chain, Chain, str] | None:
        """Two chains for the same, for which Envoy refuses the whole listener; and for what.

        They may be one that names something twice.
        """
        for subnet, by_name in self._by_subnet.items():
            for name, chains in by_name.items():
                if len(chains) > 1:
                    what = " and ".join(filter(None, (name, str(subnet) if subnet else "")))
                    return chains[0], chains[1], what or "every connection"
        return None


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Subnets, and single addresses, as networks; what is neither is left out, as istiod does."""
    return tuple(found for text in texts if (found := _network(text)) is not None)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _that_count(subnets: Iterable[Network]) -> tuple[Network, ...]:
    """Those that Envoy is told of: istiod leaves out what begins at 0.0.0.0."""
    return tuple(each for each in subnets if each.network_address != _EVERYWHERE)


def address_in(text: str | None) -> Address | None:
    """The address that a text is; None if it is none."""
    try:
        return ip_address(text or "")
    except ValueError:
        return None


def kinds_of_connections(
    host: str, port: int, listeners: Sequence[Listener]
) -> Iterator[Connection]:
    """A connection of each kind that some listeners can tell apart.

    It is to `host`, or where that is empty to what TLS names. An address is chosen where neither
    listener has one of its own.
    """
    patterns = {name for each in listeners for name in each.server_names}
    names: list[str | None] = [None]
    names += sorted({_named(pattern, patterns) for pattern in patterns})
    if patterns or any(each.tells_tls_apart for each in listeners):
        names.append(_unlisted(patterns))
    known = [each.address is not None for each in listeners]
    subnets = list(dict.fromkeys(subnet for each in listeners for subnet in each.subnets))
    addresses: list[str | None] = [None]
    if subnets and not any(known):
        addresses = [str(each) for each in _addresses(subnets)]
    for name in names:
        for address in addresses:
            yield Connection(host or name or _ANY_HOST, port, name, address)


def _named(pattern: str, patterns: Collection[str]) -> str:
    """A server name for which a pattern is the most specific of all."""
    if not is_wildcard(pattern):
        return pattern.lower()
    names = (f"any{number or ''}{pattern[1:]}" for number in itertools.count())
    return next(name for name in names if name not in patterns)


def _unlisted(patterns: Collection[str]) -> str:
    """A server name that no pattern means."""
    names = (f"any.test{number or ''}" for number in itertools.count())
    return next(name for name in names if not any(each in patterns for each in patterns_for(name)))


class _Subnets:
    """Subnets, of which the narrowest around an address is found by its length."""

    def __init__(self, subnets: Iterable[Network]) -> None:
        self.all = frozenset(subnets)
        self._lengths = sorted({(each.version, each.prefixlen) for each in self.all}, reverse=True)

    def narrowest(self, address: Address) -> Network | None:
        for version, length in self._lengths:
            if version == address.version:
                found = ip_network((address, length), strict=False)
                if found in self.all:
                    return found
        return None


def _addresses(subnets: Sequence[Network]) -> list[Address]:
    """An address in each subnet that is in no narrower one, if there is one; and some in none.

    The narrowest subnet changes only where one begins, and behind its end.
    """
    index = _Subnets(subnets)
    found: dict[Network | None, Address] = {}
    for subnet in subnets:
        found.setdefault(index.narrowest(subnet.network_address), subnet.network_address)
        for number in (int(subnet.network_address) - 1, int(subnet.broadcast_address) + 1):
            if 0 < number < 2**subnet.max_prefixlen - 1:
                edge = type(subnet.network_address)(number)
                found.setdefault(index.narrowest(edge), edge)
    beside = [each for each in _ELSEWHERE if index.narrowest(each) is None]
    outside = found.pop(None, None)
    if outside is not None:
        beside = [outside, *(each for each in beside if each.version != outside.version)]
    return [*found.values(), *beside]
