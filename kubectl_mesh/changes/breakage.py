"""Which requests fail in one state of a mesh and do not in another.

What is compared are facts: whom a rule's destination fails for, which hosts gateways serve. So what
is broken already stays the same however the objects around it change, and counts as new where more
requests come to it. Which rule a request meets is not looked at: a rule that is dead counts, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_mesh.mesh.clients import Client, clients_of, gateway_namespaces
from kubectl_mesh.mesh.gateways import MESH, Gateway
from kubectl_mesh.mesh.hosts import is_wildcard, namespace_of
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import dotted, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination, VirtualService
from kubectl_mesh.routing.ways_in import service_namespace
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.km312_destination_port_needed import ports_taken
from kubectl_mesh.rules.rule import Finding, Skip

_RULES = ("KM606", "KM610")
"""Delegates that are left out, and listeners that Envoy refuses."""
_INDEX = re.compile(r"\[\d+\]")

_Cluster = tuple[str, str | None, int | None]
"""The host, subset and port to which a destination sends."""
_Served = tuple[tuple[tuple[str, str], ...], int, str]
"""The labels of a gateway's proxies, a port of theirs, and a host that they serve there."""


@dataclass(frozen=True)
class Failure:
    """Requests that lead nowhere.

    `requests` tells them from others, wherever the rule stands that they meet; `client` is whose
    they are, or the way in; `told` is what an operator is told.
    """

    requests: tuple[Hashable, ...]
    client: Client | str
    told: str
    cluster: _Cluster | None = None


class Failures:
    """What fails in one state of a mesh."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def failing(self) -> Mapping[Hashable, Failure]:
        """Requests that no proxy can send on, by whose they are."""
        found: dict[Hashable, Failure] = {}
        for vs in self._snapshot.virtual_services.all:
            for failure in self._destinations(vs):
                found[failure.requests, failure.client] = failure
        for code in _RULES:
            for finding in BY_CODE[code].check(self._snapshot):
                if isinstance(finding, Finding):
                    told = f"{finding.resource}: {finding.message}"
                    found[code, _INDEX.sub("[]", told)] = Failure((), code, told)
        return found

    def fail(self, failure: Failure) -> bool:
        """Whether the same requests fail in this state, too, for the same client."""
        if (failure.requests, failure.client) in self.failing:
            return True
        if failure.cluster is None or not isinstance(failure.client, Client):
            return False
        return failure.requests in self._requests and bool(
            self._problem(*failure.cluster, failure.client)
        )

    @cached_property
    def _requests(self) -> Collection[Hashable]:
        return {failure.requests for failure in self.failing.values()}

    @cached_property
    def unserved(self) -> Mapping[Hashable, str]:
        """Hosts of VirtualServices that no gateway serves, and Gateways that are not there."""
        found: dict[Hashable, str] = {}
        for vs in self._snapshot.virtual_services.roots:
            for name in vs.gateways - {MESH}:
                if name not in self._gateways and not self._is_hidden(name):
                    told = f"{vs.resource} names Gateway {name}, which does not exist"
                    found[vs.namespace, name] = told
            if not vs.on_mesh and vs.gateways <= self._gateways.keys():
                for host in vs.hosts:
                    if not any((name, host) in self.admitted for name in vs.gateways):
                        told = f"{vs.resource} is for {host}, which none of its Gateways admits"
                        found[vs.namespace, host] = told
        return found

    @cached_property
    def bound(self) -> Mapping[tuple[str, str], str]:
        """The VirtualService, by Gateway and host for which it is bound to that Gateway."""
        return {
            (name, host): str(vs.resource)
            for vs in self._snapshot.virtual_services.roots
            for name in vs.gateways - {MESH}
            for host in vs.hosts
        }

    @cached_property
    def admitted(self) -> Mapping[tuple[str, str], bool]:
        """The Gateways and hosts for which some VirtualService is served.

        True where a pod of the Gateway is known.
        """
        found: dict[tuple[str, str], bool] = {}
        for vs, name, gateway in self._bindings():
            if proxies := self._proxies(vs, gateway):
                for host in vs.hosts:
                    if gateway.admits(host, vs.namespace):
                        found[name, host] = found.get((name, host), False) or proxies == "known"
        return found

    @cached_property
    def served(self) -> Mapping[_Served, str]:
        """What gateways serve, on whatever Gateway it is; by which."""
        return {
            (tuple(sorted(gateway.selector.items())), server.number, host): name
            for vs, name, gateway in self._bindings()
            if self._proxies(vs, gateway)
            for host in vs.hosts
            for server in gateway.admitting(host, vs.namespace)
        }

    @property
    def _gateways(self) -> Mapping[str, Gateway]:
        return self._snapshot.gateways.by_id

    def _is_hidden(self, gateway: str) -> bool:
        """Whether a Gateway may be there, unseen; one of the Kubernetes Gateway API always may."""
        namespace = gateway.partition("/")[0]
        made = "istio-autogenerated-k8s-gateway" in gateway
        return made or bool(self._snapshot.unknown(namespace, "Gateway"))

    def _bindings(self) -> Iterator[tuple[VirtualService, str, Gateway]]:
        for vs in self._snapshot.virtual_services.roots:
            for name in vs.gateways:
                if name in self._gateways:
                    yield vs, name, self._gateways[name]

    def _proxies(self, vs: VirtualService, gateway: Gateway) -> str:
        """Of a Gateway that see a VirtualService: known, only taken to be there, or none ("")."""
        namespaces = gateway_namespaces(self._snapshot, gateway.id)
        if not any(certain for _, certain in namespaces):
            return "assumed"
        return "known" if any(vs.export.reaches(name) for name, _ in namespaces) else ""

    def _destinations(self, vs: VirtualService) -> Iterator[Failure]:
        clients: dict[tuple[str, frozenset[str]], list[Client]] = {}
        for destination in vs.destinations:
            host = destination.host
            if is_wildcard(host) or self._is_unknown(host):
                continue
            key = (host, destination.gateways)
            if key not in clients:
                namespace = service_namespace(self._snapshot, host)
                clients[key] = list(clients_of(self._snapshot, destination, namespace))
            cluster = (host, destination.subset, destination.port)
            requests = (*_requests(destination), *cluster)
            where = f"{vs.resource}: {dotted(destination.path)} sends to"
            for client in clients[key]:
                if problem := self._problem(*cluster, client):
                    yield Failure(requests, client, f"{where} {problem}", cluster)
            for way, problem in self._ports_taken(destination):
                yield Failure(requests, way, f"{where} {problem}")

    def _is_unknown(self, host: str) -> bool:
        """Whether something may provide a host, unseen."""
        if self._snapshot.registry.by_host(host):
            return False
        home = namespace_of(host, self._snapshot.config.domain)
        unknown = self._snapshot.unknown(home, "Service") if home else None
        return bool(unknown or self._snapshot.missing("ServiceEntry"))

    def _problem(self, host: str, subset: str | None, port: int | None, client: Client) -> str:
        """Why a client has no cluster for a destination; "" if it has."""
        providers = self._snapshot.registry.by_host(host)
        seen = [each for each in providers if each.export.reaches(client.namespace)]
        if not seen:
            hidden = f" to {client}: it is not exported to them" if providers else ""
            return f"{host}, which no Service and no ServiceEntry provides{hidden}"
        if port is not None and not _has_port(seen, port):
            return f"port {port} of {host}, which it does not have ({_ports(seen)})"
        if subset and self._lacks(host, subset, client):
            return f"subset {subset} of {host}, which is not defined for {client}"
        return ""

    def _ports_taken(self, destination: Destination) -> Iterator[tuple[str, str]]:
        """The ways in from which a destination without port leads to one that is not there."""
        host = destination.host
        providers = self._snapshot.registry.by_host(host)
        if destination.port is not None or not providers or not _are_known(providers):
            return
        for found in ports_taken(self._snapshot, destination, providers):
            if isinstance(found, Skip):
                continue
            way = "the mesh" if found.gateway == MESH else f"Gateway {found.gateway}"
            for number in sorted(found.missing):
                yield (
                    f"{found.gateway} {number}",
                    f"no port of {host}, and so, from {way}, to port {number}, which it does not "
                    f"have ({_ports(providers)})",
                )

    def _lacks(self, host: str, subset: str, client: Client) -> bool:
        rules = self._snapshot.destination_rules
        home = service_namespace(self._snapshot, host)
        if subset in rules.lookup(host, client.namespace, home).subsets:
            return False
        if any(
            self._snapshot.missing("DestinationRule", name) for name in (client.namespace, home)
        ):
            return False
        return all(found.rule.workload_selector is None for found in rules.defining(host, subset))


def _requests(destination: Destination) -> tuple[Hashable, ...]:
    """Which requests come to a destination, wherever its rule stands."""
    rule = field_at(destination.virtual_service.resource.data, destination.rule)
    match = json.dumps(rule.get("match"), sort_keys=True) if isinstance(rule, dict) else ""
    namespace = destination.virtual_service.namespace
    return namespace, destination.protocol, destination.role, match, destination.weight


def _are_known(providers: Iterable[Service]) -> bool:
    """Whether the ports of a host are known: those of an ExternalName Service are not."""
    return all(each.ports and not each.is_external_name for each in providers)


def _has_port(providers: Iterable[Service], number: int) -> bool:
    found = (port for each in providers for port in each.ports if port.protocol != "udp")
    return not _are_known(providers) or any(port.number == number for port in found)


def _ports(providers: Iterable[Service]) -> str:
    numbers = sorted({port.number for each in providers for port in each.ports})
    return f"it has {', '.join(map(str, numbers))}"


def breaks(before: Failures, meanwhile: Failures, after: Failures) -> Iterator[str]:
    """What fails meanwhile, on the way from one state to another, and did not before.

    A host that was not served before, and will be in the end, need not be served yet.
    """
    new = (each.told for each in meanwhile.failing.values() if not before.fail(each))
    yield from dict.fromkeys(new)
    if meanwhile is after:
        for key in after.unserved.keys() - before.unserved.keys():
            yield after.unserved[key]
        for (gateway, host), known in before.admitted.items():
            vs = after.bound.get((gateway, host))
            if vs and known > after.admitted.get((gateway, host), -1):
                yield f"{vs} is for {host} on Gateway {gateway}, which would serve it no longer"
    else:
        for key in before.served.keys() & after.served.keys() - meanwhile.served.keys():
            _, port, host = key
            yield f"Gateway {before.served[key]} would not serve {host} on port {port} meanwhile"
