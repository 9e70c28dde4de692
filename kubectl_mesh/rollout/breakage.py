"""Which requests fail in one state of a mesh and do not in another.

What is compared are facts: for which host, way in, match and client a rule leads nowhere, and how
many of the requests; which hosts gateways serve. So what is broken already stays the same however
the objects around it change, and counts as new where more requests come to it. Which of several
rules a request meets is not looked at: a rule that is dead counts, too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.clients import Clients, clients_of, gateway_namespaces
from kubectl_mesh.mesh.gateways import MESH, OF_GATEWAY_API, Gateway
from kubectl_mesh.mesh.hosts import is_wildcard, namespace_of
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import dotted, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination, VirtualService
from kubectl_mesh.proof.missed_rules import service_namespace
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.table import Target
from kubectl_mesh.routing.upstreams import Upstream, upstream
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.rule import Finding, Skip
from kubectl_mesh.rules.shared.destinations import ports_taken

_RULES = ("KM606", "KM610")
"""Delegates that are left out, and listeners that Envoy refuses."""
_ALL = 100
SEEN = ("VirtualService", "DestinationRule")
"""Kinds of which all objects have to be seen."""
_Match = frozenset[tuple[str, str]]
"""The conditions of a match, by the field that they are for."""
_Way = tuple[str, str | None, str, str]
"""The host that is asked for, the Gateway through which (None: in the mesh), protocol and role."""


@dataclass(frozen=True)
class _Cluster:
    """Where a destination sends."""

    host: str
    subset: str | None
    port: int | None


@dataclass(frozen=True)
class _WayIn:
    """A Gateway, or the mesh, from which a destination without port leads to one."""

    gateway: str
    port: int


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a destination, and for whom: "" for all."""

    what: str
    whom: str = ""


@dataclass(frozen=True)
class Failure:
    """Requests that lead nowhere: `share` of 100 of those that a match takes.

    `whose` is the client, or the way in. `told` is what an operator is told, with `whom` behind it
    where others may fare better.
    """

    way: _Way
    match: _Match
    whose: Clients | _WayIn
    share: int
    told: str
    whom: str
    clusters: tuple[_Cluster, ...]

    @property
    def what(self) -> tuple[object, ...]:
        """Which requests these are, of whatever client, and where they cannot be sent."""
        clusters = [(each.host, each.subset, each.port) for each in self.clusters]
        return self.way, sorted(self.match), self.share, clusters


def unseen(live: Snapshot) -> str:
    """Why it is not known which routes there are; "" if it is."""
    missing = live.coverage.missing.items()
    return next((reason for (kind, _), reason in missing if kind in SEEN), "")


def doubts(live: Snapshot) -> Iterator[str]:
    """Why it is not known whether all routes lead to something."""
    for reason in live.gaps:
        yield f"{reason}: whether all routes lead to what is there is not known"


class Failures:
    """What fails in one state of a mesh."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def failing(self) -> Sequence[Failure]:
        """Requests that no proxy can send on."""
        found: list[Failure] = []
        for vs in self._snapshot.virtual_services.all:
            rules: dict[object, list[Destination]] = defaultdict(list)
            for destination in vs.destinations:
                rules[destination.rule, destination.role].append(destination)
            for destinations in rules.values():
                found += self._of_rule(vs, destinations)
        return found

    def fail(self, failure: Failure) -> bool:
        """Whether the same requests, or more of them, fail in this state, for the same client."""
        same_way = self._by_way.get(failure.way, ())
        wider = [
            each for each in same_way if each.match <= failure.match and each.share >= failure.share
        ]
        client = failure.whose
        if any(each.whose == client for each in wider):
            return True
        return (
            bool(wider)
            and isinstance(client, Clients)
            and all(self._problem(cluster, client) for cluster in failure.clusters)
        )

    @cached_property
    def _by_way(self) -> Mapping[_Way, Sequence[Failure]]:
        found: dict[_Way, list[Failure]] = defaultdict(list)
        for failure in self.failing:
            found[failure.way].append(failure)
        return found

    @cached_property
    def findings(self) -> Mapping[Hashable, str]:
        """What _RULES find, by the requests that it is about."""
        return {
            (code, finding.resource.id, *subject): f"{finding.resource}: {finding.message}"
            for code in _RULES
            for finding in BY_CODE[code].check(self._snapshot)
            if isinstance(finding, Finding)
            for subject in _subjects(finding)
        }

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
                    if not any(
                        self._gateways[name].admits(host, vs.namespace) for name in vs.gateways
                    ):
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
    def served(self) -> frozenset[Served]:
        """What gateways serve."""
        return frozenset(
            Served(name, tuple(sorted(gateway.selector.items())), server.number, host, namespace)
            for vs in self._snapshot.virtual_services.roots
            for name in vs.gateways
            if (gateway := self._gateways.get(name))
            for namespace in self._proxies(vs, gateway)
            for host in vs.hosts
            for server in gateway.admitting(host, vs.namespace)
        )

    @property
    def _gateways(self) -> Mapping[str, Gateway]:
        return self._snapshot.gateways.by_id

    def _is_hidden(self, gateway: str) -> bool:
        """Whether a Gateway may be there, unseen; one of the Kubernetes Gateway API always may."""
        namespace = gateway.partition("/")[0]
        unknown = self._snapshot.unknown(namespace, "Gateway")
        return OF_GATEWAY_API in gateway or bool(unknown)

    def _proxies(self, vs: VirtualService, gateway: Gateway) -> list[str]:
        """The namespaces of a Gateway's pods that see a VirtualService; "" where none is known."""
        namespaces = gateway_namespaces(self._snapshot, gateway.id)
        if not any(certain for _, certain in namespaces):
            return [""]
        return [name for name, _ in namespaces if vs.export.reaches(name)]

    def _of_rule(
        self, vs: VirtualService, destinations: Sequence[Destination]
    ) -> Iterator[Failure]:
        """What fails of the requests that one rule takes, or of their copies."""
        failing: dict[Clients | _WayIn, list[tuple[Destination, _Problem]]] = defaultdict(list)
        for destination in destinations:
            host = destination.host
            if destination.idle or is_wildcard(host) or self._is_unknown(host):
                continue
            cluster = _cluster(destination)
            for client in self._clients(destination):
                if problem := self._problem(cluster, client):
                    failing[client].append((destination, problem))
            for way, problem in self._ports_taken(destination):
                failing[way].append((destination, problem))
        total = sum(each.weight or 0 for each in destinations)
        for whose, those in failing.items():
            share = _ALL
            if total and len(destinations) > 1:
                share = _ALL * sum(each.weight or 0 for each, _ in those) // total
            first, problem = those[0]
            told = f"{vs.resource}: {dotted(first.path)} sends to {problem.what}"
            clusters = tuple(_cluster(each) for each, _ in those)
            for asked, match in self._taken(vs, first, whose.gateway or MESH):
                how = (asked, whose.gateway, first.protocol, first.role)
                yield Failure(how, match, whose, share, told, problem.whom, clusters)

    def _clients(self, destination: Destination) -> Iterable[Clients]:
        """Those that may differ in what they have of a destination."""
        return dict.fromkeys(self._all_clients(destination))

    def _all_clients(self, destination: Destination) -> Iterator[Clients]:
        host = destination.host
        yield from clients_of(self._snapshot, destination, service_namespace(self._snapshot, host))
        hidden = any(not each.export.everyone for each in self._snapshot.registry.by_host(host))
        for root in self._snapshot.virtual_services.roots_of(destination.virtual_service):
            if hidden and root.on_mesh:
                for namespace in self._snapshot.sure_sidecar_namespaces:
                    if root.export.reaches(namespace):
                        yield Clients(namespace)

    def _taken(
        self, vs: VirtualService, destination: Destination, gateway: str
    ) -> Iterator[tuple[str, _Match]]:
        """The hosts, and the matches, of the requests that come to a destination by one way in."""
        rule = field_at(vs.resource.data, destination.rule)
        own = _matches(rule)
        for root in self._snapshot.virtual_services.roots_of(vs):
            if gateway not in root.gateways:
                continue
            outer: list[_Match] = [frozenset()]
            if root is not vs:
                key = (vs.namespace, vs.resource.name)
                outer = [
                    match
                    for each in self._snapshot.virtual_services.delegating[key]
                    if each.owner is root
                    for match in _matches(each.data, "of the root: ")
                ]
            for host in root.hosts:
                yield from ((host, one | other) for one in own for other in outer)

    def _is_unknown(self, host: str) -> bool:
        """Whether something may provide a host, unseen."""
        if self._snapshot.registry.by_host(host):
            return False
        home = namespace_of(host, self._snapshot.config.domain)
        unknown = self._snapshot.unknown(home, "Service") if home else None
        unknown = unknown or self._snapshot.provided_elsewhere(host)
        return bool(unknown or self._snapshot.missing("ServiceEntry"))

    def _problem(self, cluster: _Cluster, client: Clients) -> _Problem | None:
        """Why a client has no cluster for a destination; None if it has."""
        host = cluster.host
        providers = self._snapshot.registry.by_host(host)
        if not providers:
            return _Problem(f"{host}, which no Service and no ServiceEntry provides")
        found = self._upstream(cluster, client)
        if found.missing == "host":
            hidden = not any(each.export.reaches(client.namespace) for each in providers)
            how = "is not exported to" if hidden else "is hidden by a Sidecar from"
            return _Problem(f"{host}, which {how}", str(client))
        if found.missing == "port" and cluster.port is not None:
            ports = _ports([found.service] if found.service else ())
            what = f"port {cluster.port} of {host}, which it does not have ({ports})"
            return _Problem(what)
        if found.missing == "subset" and not self._may_have(host, found.target.subset, client):
            what = f"subset {found.target.subset} of {host}, which is not defined for"
            return _Problem(what, str(client))
        return None

    def _upstream(self, cluster: _Cluster, client: Clients) -> Upstream:
        """What a client has of a destination; without a port, by some port that it has."""
        ports = [cluster.port] if cluster.port is not None else self._numbers(cluster.host)
        proxy = Proxy(client.namespace, {}, () if client.gateway else None)
        router = router_of(self._snapshot)
        found = (
            upstream(router, Target(cluster.host, port, cluster.subset, 0), proxy) for port in ports
        )
        first = next(found)
        return first if first.missing != "port" else next(found, first)

    def _numbers(self, host: str) -> list[int]:
        providers = self._snapshot.registry.by_host(host)
        return [port.number for each in providers for port in each.ports] or [0]

    def _ports_taken(self, destination: Destination) -> Iterator[tuple[_WayIn, _Problem]]:
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
                what = (
                    f"no port of {host}, and so, from {way}, to port {number}, which it does not "
                    f"have ({_ports(providers)})"
                )
                yield _WayIn(found.gateway, number), _Problem(what)

    def _may_have(self, host: str, subset: str | None, client: Clients) -> bool:
        """Whether a DestinationRule that was not read, or is for some pods, may define a subset."""
        home = service_namespace(self._snapshot, host)
        if any(
            self._snapshot.missing("DestinationRule", name) for name in (client.namespace, home)
        ):
            return True
        defining = self._snapshot.destination_rules.defining(host, subset or "")
        return any(found.rule.workload_selector is not None for found in defining)


@dataclass(frozen=True)
class Served:
    """A host that a Gateway has served on a port of its pods, which `selector` tells.

    `namespace` is theirs; "" where none is known.
    """

    gateway: str
    selector: tuple[tuple[str, str], ...]
    port: int
    host: str
    namespace: str


@dataclass(frozen=True)
class Breakage:
    """Something that fails in one state and does not in another. `key` tells it from all others.

    `whom` are the clients, "" for all of them: they are not in the key.
    """

    key: str
    told: str
    whom: str = ""


def breaks(
    before: Failures, meanwhile: Failures, after: Failures, excused: Collection[str] = ()
) -> Iterator[str]:
    """What fails meanwhile, on the way from one state to another, and did not before.

    A host that was not served before, and will be in the end, need not be served yet. What has one
    of the `excused` keys may fail.
    """
    new: dict[str, dict[str, None]] = defaultdict(dict)
    for each in broken(before, meanwhile, after):
        if each.key not in excused:
            new[each.told].update({each.whom: None} if each.whom else {})
    for told, whom in new.items():
        yield " ".join([told, _few(whom)]) if whom else told


def broken(before: Failures, meanwhile: Failures, after: Failures) -> Iterator[Breakage]:
    """What `breaks` tells of, piece by piece."""
    for each in meanwhile.failing:
        if not before.fail(each):
            yield Breakage(_key("requests", *each.what), each.told, each.whom)
    for finding in meanwhile.findings.keys() - before.findings.keys():
        yield Breakage(_key("finding", finding), meanwhile.findings[finding])
    if meanwhile is not after:
        ways, left, kept = (
            {(each.selector, each.port, each.host, each.namespace): each for each in state.served}
            for state in (before, meanwhile, after)
        )
        for way in ways.keys() & kept.keys() - left.keys():
            lost = ways[way]
            what = f"{lost.host} on port {lost.port}"
            told = f"Gateway {lost.gateway} would not serve {what} meanwhile"
            yield Breakage(_key("lost", lost.gateway, lost.port, lost.host), told)
        return
    for name in after.unserved.keys() - before.unserved.keys():
        yield Breakage(_key("unserved", name), after.unserved[name])
    yield from _lost(before, after)


def _key(*parts: object) -> str:
    return json.dumps(parts, default=str)


def _lost(before: Failures, after: Failures) -> Iterator[Breakage]:
    """Hosts that are still meant to be served by gateways, and are not."""
    told = set()
    for lost in before.served - after.served:
        vs = after.bound.get((lost.gateway, lost.host))
        if vs:
            told.add(lost.host)
            yield Breakage(
                _key("lost", lost.gateway, lost.port, lost.host),
                f"{vs} is for {lost.host} on Gateway {lost.gateway}, which would serve it no "
                f"longer on port {lost.port}",
            )
    wanted = {host: vs for (_, host), vs in after.bound.items()}
    seen, left = (
        {each.host for each in state.served if each.namespace} for state in (before, after)
    )
    for host in (seen - left - told) & wanted.keys():
        yield Breakage(
            _key("lost", host),
            f"{wanted[host]} is for {host}, which no pod of a gateway would serve any longer",
        )


def _few(names: Iterable[str]) -> str:
    first, *more = names
    if len(more) > 1:
        return f"{first} and {len(more)} others"
    return " and ".join([first, *more])


def _cluster(destination: Destination) -> _Cluster:
    return _Cluster(destination.host, destination.subset, destination.port)


def _subjects(finding: Finding) -> Iterator[tuple[Hashable, ...]]:
    """For each match of the rule that a finding is about, what tells its requests from others.

    Where in its list the rule is does not count.
    """
    rule = field_at(finding.resource.data, finding.path[:3])
    named = (rule.get("delegate"), rule.get("hosts")) if isinstance(rule, dict) else ()
    for match in _matches(rule):
        about = json.dumps(named, sort_keys=True, default=str)
        yield finding.path[1:2], tuple(sorted(match)), about


def _matches(rule: Any, prefix: str = "") -> list[_Match]:
    """The matches of a rule; an empty one where it has none."""
    found: Sequence[Mapping[str, Any]] = (rule.get("match") if isinstance(rule, dict) else ()) or ()
    return [frozenset(_conditions(each, prefix)) for each in found or ({},)]


def _conditions(match: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in match.items():
        if field == "name":
            continue
        if isinstance(value, dict):
            yield from _conditions(value, f"{prefix}{field}.")
            if not value:
                yield prefix + field, ""
        else:
            yield prefix + field, json.dumps(value)


def _are_known(providers: Iterable[Service]) -> bool:
    """Whether the ports of a host are known: those of an ExternalName Service are not."""
    return all(each.ports and not each.is_external_name for each in providers)


def _ports(providers: Iterable[Service]) -> str:
    numbers = sorted({port.number for each in providers for port in each.ports})
    return f"it has {', '.join(map(str, numbers))}"
