"""Where one request or connection goes, and why: from the proxy that gets it to the pods behind it.

What a rule does besides (fault, redirect, rewrite) counts where it decides the answer. What a proxy
does not take for HTTP, TLS that it does not end above all, is followed by tcp and tls rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from kubectl_mesh.mesh.gateways import Gateway, Server
from kubectl_mesh.mesh.hosts import patterns_for
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS, SNIFFED
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.mesh.versions import ABSOLUTE_NAMES
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.routing.chains import Chain, Listener
from kubectl_mesh.routing.connection import Connection, connection_of
from kubectl_mesh.routing.cors import answers_preflight
from kubectl_mesh.routing.index import Index
from kubectl_mesh.routing.listeners import addresses_of
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.paths import (
    https_location,
    location,
    normalized,
    redirect_status,
    with_query,
)
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Client, GatewayProxy, Router
from kubectl_mesh.routing.table import Passed, Route, Table, Target, percent_of
from kubectl_mesh.routing.upstreams import Upstream, upstream

Outcome = Literal[
    "upstream",
    "redirect",
    "direct-response",
    "abort",
    "preflight",
    "no-route",
    "no-cluster",
    "no-endpoint",
    "blackhole",
    "passthrough",
    "http",
    "refused",
    "rejected",
    "undecided",
]
Proxy = Client | GatewayProxy
_MAX_NAMES = 10

_CONNECTION_SETTINGS = (
    "the MeshConfig's defaultConfig.connectionSettings may change its path or refuse it, and they "
    "are not followed"
)
_MOST = "DECODE_AND_MERGE_SLASHES"
_FLAGS: Mapping[str, Outcome] = {"NC": "no-cluster", "UH": "no-endpoint"}


@dataclass(frozen=True)
class Mirror:
    """A copy of requests that is sent elsewhere; its answer is thrown away."""

    upstream: Upstream
    percent: float


@dataclass(frozen=True)
class Effect:
    """What a route does with every request that takes it.

    `status` is what clients get where no upstream answers. `flag` is Envoy's response flag; for
    several destinations only what holds for all.
    """

    outcome: Outcome
    status: int | None
    flag: str | None
    why: str
    upstreams: tuple[Upstream, ...] = ()
    mirrors: tuple[Mirror, ...] = ()


@dataclass(frozen=True)
class Trace:
    """What becomes of a request or a connection.

    `request` is what the proxy compares with routes: its path is normalized. `listener` says what
    takes it. `passed` are the routes tried before, if they were asked for. `table` is None where
    no http routes are looked at; `route` is None where none of them is met, and where `undecided`
    says why that cannot be told: then it is the route that was in doubt. `location` is set for
    redirects. `connection` is set where it is not by http routes that it is sent, and `chain` then
    is the filter chain that takes it; None where none does.
    """

    request: Request | Connection
    proxy: Proxy
    listener: str
    table: Table | None
    route: Route | None
    effect: Effect
    passed: tuple[Passed, ...] = ()
    undecided: str | None = None
    location: str | None = None
    connection: Connection | None = None
    chain: Chain | None = None

    @property
    def protocol(self) -> Literal["http", "tls", "tcp"]:
        """By which kind of rules it is sent on."""
        if self.chain and self.chain.path:
            return "tls" if self.chain.path[1] == "tls" else "tcp"
        if self.connection is None:
            return "http"
        return "tcp" if self.connection.server_name is None else "tls"

    @cached_property
    def path(self) -> str | None:
        """The path with query that the upstream gets, where a rule rewrites it; else None.

        Where that is by an expression that we cannot read it is None, too.
        """
        if not self.route or not self.effect.upstreams:
            return None
        assert isinstance(self.request, Request)
        try:
            path = self.route.rewriting.of(self.request.path)
        except Undecidable:
            return None
        return None if path == self.request.path else with_query(path, self.request)


@dataclass(frozen=True)
class _Listening:
    """What a proxy has for a host and port. `ended` is set where no http routes are tried.

    `sent` is set where what comes is sent on as a connection. `unread` says why it is not known
    what the proxy does.
    """

    listener: str
    table: Table | None = None
    ended: Effect | None = None
    sent: Trace | None = None
    unread: str | None = None

    @cached_property
    def index(self) -> Index:
        assert self.table
        return Index(self.table)

    @cached_property
    def without_route(self) -> Effect:
        assert self.table
        return _without_route(self.table)


@dataclass
class Tracer:
    """Follows requests through a mesh. What it finds out it keeps, for thousands of requests."""

    router: Router
    _listening: dict[tuple[Proxy, str, int, str, str], _Listening] = field(default_factory=dict)
    _effects: dict[tuple[Route, Proxy], Effect] = field(default_factory=dict)
    _upstreams: dict[tuple[Target, Proxy], Upstream] = field(default_factory=dict)

    def trace(self, proxy: Proxy, request: Request, *, tried: bool = True) -> Trace:
        """What becomes of a request; `tried` asks for the routes tried before, which takes time."""
        config = self.router.snapshot.config
        if config.has_connection_settings and _is_borderline(request, config.path_normalization):
            return _unread(proxy, request, f"port {request.port}", _CONNECTION_SETTINGS)
        path = normalized(request.path, config.path_normalization)
        if path != request.path:
            request = replace(request, path=path)
        found = self._at(proxy, request)
        if found.unread:
            return _unread(proxy, request, found.listener, found.unread)
        if found.sent:
            return replace(found.sent, request=request, listener=found.listener)
        if found.ended:
            return Trace(request, proxy, found.listener, found.table, None, found.ended)
        if found.table and found.table.kind == "https-redirect":
            effect = Effect("redirect", 301, None, "the Gateway's server redirects to https")
            target = https_location(request)
            return Trace(request, proxy, found.listener, found.table, None, effect, location=target)
        assert found.table
        passed: list[Passed] = []
        try:
            if tried:
                route, passed = found.table.find(request)
            else:
                route = found.index.first(request)
            effect = self._effect(route, proxy, request) if route else found.without_route
        except Undecidable as error:
            return self._in_doubt(proxy, request, found, error, tried)
        where = None
        if route and effect.outcome == "redirect":
            path = route.rewriting.of(request.path)
            where = location(request, route.action.data["redirect"], request.port, path)
        return Trace(
            request, proxy, found.listener, found.table, route, effect, tuple(passed),
            location=where,
        )  # fmt: skip

    def _in_doubt(
        self, proxy: Proxy, request: Request, found: _Listening, error: Undecidable, tried: bool
    ) -> Trace:
        assert found.table
        passed: list[Passed] = []
        doubtful = None
        for route in found.table.routes:
            try:
                why = route.conditions.unmet(request)
            except Undecidable:
                doubtful = route
                break
            passed.append(Passed(route, why or ""))
        effect = Effect("undecided", None, None, str(error))
        return Trace(
            request, proxy, found.listener, found.table, doubtful, effect,
            tuple(passed) if tried else (), str(error),
        )  # fmt: skip

    def _at(self, proxy: Proxy, request: Request) -> _Listening:
        key = (proxy, request.host, request.port, request.scheme, request.dialled)
        found = self._listening.get(key)
        if found is None:
            unread = self._bearing(proxy, request) or self._by_address(proxy, request)
            if unread:
                found = _Listening(f"port {request.port}", unread=unread)
            elif isinstance(proxy, Client):
                found = self._sidecar(proxy, request)
            else:
                found = self._gateway(proxy, request)
            self._listening[key] = found
        return found

    def _bearing(self, proxy: Proxy, asked: Request | Connection) -> str | None:
        bearing = self.router.bearing
        if isinstance(proxy, Client):
            return bearing.on_sidecar(proxy, asked.host, asked.port)
        return bearing.on_gateway(proxy, asked.host, asked.port)

    def _by_address(self, proxy: Proxy, request: Request) -> str | None:
        """Why it is not known what a sidecar does with HTTP to an address; None where it is."""
        entries = self.router.entries_at.get(request.host, ())
        if not isinstance(proxy, Client) or request.scheme == "https" or not entries:
            return None
        if not self.router.shares_address(request.host):
            return None
        named = " and ".join(dict.fromkeys(f"{each.host} of {each.resource}" for each in entries))
        return (
            f"{request.host} is an address of {named}: where a host has several addresses, or "
            "several hosts have one, Istio takes any one of them for HTTP requests by address"
        )

    def follow(self, proxy: Proxy, asked: Request | Connection, *, tried: bool = True) -> Trace:
        """What becomes of a request, as `trace` says, or of a connection."""
        if isinstance(asked, Connection):
            return self.connect(proxy, asked)
        return self.trace(proxy, asked, tried=tried)

    def connect(self, proxy: Proxy, connection: Connection) -> Trace:
        """What becomes of a connection that the proxy does not take for HTTP."""
        unread = self._bearing(proxy, connection)
        if unread:
            return _unread(proxy, connection, f"port {connection.port}", unread)
        listeners = self.router.listeners
        if isinstance(proxy, Client):
            listener = listeners.sidecar(proxy, connection.host, connection.port)
        else:
            found = listeners.gateway(proxy, connection.port)
            if found is None:
                ended = _nothing_listens(proxy, connection.port)
                where = f"port {connection.port}"
                return Trace(connection, proxy, where, None, None, ended, connection=connection)
            listener = found
        chain = None
        undecided = None
        try:
            effect, chain = self._through(listener, connection, proxy)
        except Undecidable as error:
            undecided = str(error)
            effect = Effect("undecided", None, None, undecided)
        return Trace(
            connection, proxy, listener.name, None, None, effect,
            undecided=undecided, connection=connection, chain=chain,
        )  # fmt: skip

    def _through(
        self, listener: Listener, connection: Connection, proxy: Proxy
    ) -> tuple[Effect, Chain | None]:
        if listener.clash:
            one, other, what = listener.clash
            why = (
                f"Envoy refuses all that istiod sends for this listener, as {_named_chain(one)} "
                f"and {_named_chain(other)} both ask for {what}: it does what it did before"
            )
            return Effect("rejected", None, None, why), None
        chain = listener.find(connection)
        if chain is None:
            if listener.unread:
                raise Undecidable(listener.unread)
            reason = self._without_chain(connection, proxy) or "the sidecar has nothing for it"
            return _no_chain(listener, connection, reason), None
        if chain.server:
            if connection.server_name is None or chain.server[1].is_plain_http:
                what = "plain HTTP" if chain.server[1].is_plain_http else "TLS"
                why = f"the port takes {what}: anything else is closed"
                return Effect("refused", None, None, why), chain
            why = (
                f"Gateway {chain.server[0].id} ends TLS for this server name, and goes by http "
                "rules: ask for an https:// URL"
            )
            return Effect("http", None, None, why), chain
        ups = tuple(self._upstream(target, proxy) for target in chain.targets)
        return _sent_to(ups, None), chain

    def _without_chain(self, connection: Connection, proxy: Proxy) -> str | None:
        """Why a Service's port has no chain on a sidecar; None where it has, or is not known."""
        if not isinstance(proxy, Client):
            return None
        service = self.router.meant(proxy, connection.host, connection.port)
        if service is None:
            return None
        port = service.port(connection.port)
        if port is None:
            return _no_such_port(service, connection.port)
        if port.protocol in HTTP_PROTOCOLS:
            return f"port {port.number} of {service.resource} is {port.protocol}, nothing else"
        egress = self.router.snapshot.sidecars.egress(
            proxy.namespace, proxy.labels, connection.port
        )
        if not egress.sees_service(service.namespace, service.host):
            return _hidden(service)
        return None

    def _sidecar(self, client: Client, request: Request) -> _Listening:
        listener = f"the sidecar's listener for port {request.port}"
        dialled = request.dialled_host
        service = self.router.meant(client, dialled, request.port)
        port = service.port(request.port) if service else None
        if request.scheme == "https":
            sent = self.connect(client, connection_of(request))
            note = "TLS passes through it unopened, and http rules have no effect"
            return _Listening(f"{sent.listener}: {note}", sent=sent)
        if port and not self.router.takes_http(client, dialled, request.port):
            sent = self.connect(client, connection_of(request))
            note = f"the port is {port.protocol}, not HTTP, and http rules have no effect"
            return _Listening(f"{sent.listener}: {note}", sent=sent)
        host = dialled
        if request.dialled and not (service and port and _takes_any_host(service, port)):
            host = request.host
            service = self.router.meant(client, host, request.port)
            port = service.port(request.port) if service else None
        table = self.router.sidecar(client, host, request.port)
        if service and table.kind in ("passthrough", "dynamic-dns", "blackhole"):
            why = _hidden(service) if port else _no_such_port(service, request.port)
            istio = self.router.snapshot.config.istio
            if host.endswith(".") and not istio.has(ABSOLUTE_NAMES):
                why = "before Istio 1.27, sidecars know no host with a full stop at its end"
            if service.is_external_name:
                why = f"{service.resource} stands for {service.external_name}, which is not known"
            effect = _without_route(table)
            ended = replace(effect, why=f"{why}; {effect.why}")
            return _Listening(listener, table, ended=ended)
        return _Listening(listener, table)

    def _gateway(self, proxy: GatewayProxy, request: Request) -> _Listening:
        tls = request.scheme == "https"
        table = self.router.gateway(
            proxy, request.host, request.port, tls=tls, server_name=request.dialled_host
        )
        servers = self.router.listeners.merged(proxy).get(request.port, ())
        listener = _named(request.port, servers)
        if table is not None:
            return _Listening(listener, table)
        sent = self.connect(proxy, connection_of(request))
        if sent.chain and not sent.chain.server:
            note = "what comes goes on by tcp or tls rules, and http rules have no effect"
            return _Listening(f"{listener}: {note}", sent=sent)
        if sent.effect.outcome in ("undecided", "rejected"):
            return _Listening(listener, sent=sent)
        return _Listening(listener, ended=_not_taken(proxy, request, servers))

    def _effect(self, route: Route, proxy: Proxy, request: Request) -> Effect:
        """What a route does with a request. Raises Undecidable."""
        key = (route, proxy)
        if key not in self._effects:
            self._effects[key] = self._of(route, proxy)
        effect = self._effects[key]
        if effect.outcome == "abort" or not answers_preflight(route.action, request):
            return effect
        return Effect("preflight", 200, None, "the rule's corsPolicy answers preflight requests")

    def _of(self, route: Route, proxy: Proxy) -> Effect:
        data = route.action.data
        abort = (data.get("fault") or {}).get("abort") or {}
        if percent_of(abort, 0) >= 100 and (abort.get("httpStatus") or abort.get("grpcStatus")):
            why = "the rule's fault aborts every request"
            if abort.get("grpcStatus"):
                why += f" with grpc-status {abort['grpcStatus']}"
            return Effect("abort", abort.get("httpStatus") or 200, "FI", why)
        if data.get("redirect") is not None:
            return Effect("redirect", redirect_status(data["redirect"]), None, "")
        if data.get("directResponse") is not None:
            status = data["directResponse"].get("status")
            return Effect("direct-response", status, None, "the proxy answers by itself")
        ups = tuple(self._upstream(target, proxy) for target in route.action.targets)
        mirrors = tuple(
            Mirror(self._upstream(copies.target, proxy), copies.percent)
            for copies in route.action.copies
        )
        effect = _sent_to(ups, 503)
        # Envoy copies a request when it has found somebody to send it to.
        return replace(effect, mirrors=mirrors) if effect.outcome == "upstream" else effect

    def _upstream(self, target: Target, proxy: Proxy) -> Upstream:
        key = (target, proxy)
        if key not in self._upstreams:
            gateway = isinstance(proxy, GatewayProxy)
            found = upstream(self.router, target, proxy.namespace, proxy.labels, gateway=gateway)
            self._upstreams[key] = self._with_ready_pods(found)
        return self._upstreams[key]

    def _with_ready_pods(self, found: Upstream) -> Upstream:
        """In a cluster, what makes pods is none, and what is not ready is no endpoint."""
        if not found.pods:
            return found
        pods = found.pods
        if self.router.snapshot.coverage.live:
            pods = tuple(pod for pod in pods if pod.resource.kind == "Pod")
        if any(is_ready(pod) is not False for pod in pods):
            return replace(found, pods=pods)
        count = f"none of the {len(pods)} pods behind it is ready"
        why = count if len(pods) > 1 else "the one pod behind it is not ready"
        return replace(found, pods=pods, flag="UH", why=why if pods else "there is no pod")


def _is_borderline(request: Request, how: str) -> bool:
    """Whether connectionSettings may have another path made of a request, or have it refused."""
    paths = {normalized(request.path, each) for each in (how, "BASE", _MOST)}
    return len(paths) > 1 or any("_" in name for name in request.headers)


def _takes_any_host(service: Service, port: Port) -> bool:
    """Whether a port has a listener of its own, for HTTP with any Host header.

    So it is where its protocol is detected, and its host has an address.
    """
    return port.protocol == SNIFFED and bool(addresses_of(service))


def _no_such_port(service: Service, number: int) -> str:
    listed = ", ".join(str(each) for each in service.ports) or "none"
    return f"{service.resource} has no port {number}: it has {listed}"


def _hidden(service: Service) -> str:
    return f"{service.resource} is hidden from the client by its Sidecar resource"


def _sent_to(ups: tuple[Upstream, ...], status: int | None) -> Effect:
    """What becomes of what is sent to some upstreams.

    `status` is what requests get in vain; None for connections, which are closed.
    """
    if not ups:
        return Effect("no-cluster", status, "NC", "the rule has no destination with a weight")
    flags = {up.flag for up in ups}
    flag = flags.pop() if len(flags) == 1 else None
    if flag:
        why = "; ".join(dict.fromkeys(up.why for up in ups))
        return Effect(_FLAGS[flag], status, flag, why, ups)
    broken = [up for up in ups if up.flag]
    if len(broken) == len(ups):
        why = "; ".join(up.why for up in ups)
        return Effect("no-cluster", status, None, why, ups)
    fate = f"get {status}" if status else "are closed"
    told = [f"{share(up.target, ups)} of them {fate}: {up.why}" for up in broken]
    told += (up.why for up in ups if up.pods and not up.flag and up.why)
    return Effect("upstream", None, None, "; ".join(dict.fromkeys(told)), ups)


def _no_chain(listener: Listener, connection: Connection, reason: str) -> Effect:
    """What becomes of connections that no filter chain takes.

    `reason` is why, where no chain asks for a server name.
    """
    if listener.rest == "closed":
        if not listener.chains:
            why = "no tcp or tls rule is bound to it, so nothing listens: the connection is refused"
            return Effect("refused", None, None, why)
        return Effect("refused", None, None, f"{_in_vain(listener, connection)}: closed")
    why = _in_vain(listener, connection) if listener.server_names else reason
    if listener.rest == "blackhole":
        why = f"{why}, and its outboundTrafficPolicy is REGISTRY_ONLY: closed"
        return Effect("blackhole", None, None, why)
    return Effect("passthrough", None, None, f"{why}; it goes to the address that the client dials")


def _in_vain(listener: Listener, connection: Connection) -> str:
    """That a connection has none of the server names that are asked for where it goes."""
    elsewhere = _for_other_addresses(listener, connection)
    if elsewhere:
        return elsewhere
    asked = first_of(listener.server_names, _MAX_NAMES)
    name = connection.server_name
    bears = f"the server name {name}" if name else "no server name"
    return f"rules are for {asked}, and it bears {bears}"


def _for_other_addresses(listener: Listener, connection: Connection) -> str | None:
    """Which rule for its server name has other subnets than that of a connection; None if none."""
    if not connection.server_name:
        return None
    for name in patterns_for(connection.server_name.lower()):
        for chain in listener.chains:
            if name in chain.names and chain.subnets:
                subnets = ", ".join(map(str, chain.subnets))
                why = f"{_named_chain(chain)} for {name} is for {subnets} alone"
                if chain.lender:
                    vs, path = chain.lender
                    why += f", the destinationSubnets of {vs.resource} {dotted(path)} before it"
                return why
    return None


def _named_chain(chain: Chain) -> str:
    """The rule that makes a chain, or what it is for where none does."""
    if chain.virtual_service:
        return f"{chain.virtual_service.resource} {dotted(chain.path)}"
    if chain.server:
        return f"Gateway {chain.server[0].id}"
    return str(chain.service.resource if chain.service else chain)


def _without_route(table: Table) -> Effect:
    """What becomes of requests that meet none of the routes."""
    if table.kind == "passthrough":
        why = (
            "the sidecar knows no such host on this port, and lets it out as it is: to "
            "whatever address the client's DNS gave it"
        )
        return Effect("passthrough", None, None, why)
    if table.kind == "dynamic-dns":
        why = (
            "the sidecar knows no such host on this port, and its outboundTrafficPolicy is "
            "ALLOW_ANY_DYNAMIC_DNS: it resolves the name by itself, and sends the request there, "
            "not to the address that the client dials"
        )
        return Effect("passthrough", None, None, why)
    if table.kind == "blackhole":
        why = (
            "the sidecar knows no such host on this port, and its outboundTrafficPolicy is "
            "REGISTRY_ONLY"
        )
        return Effect("blackhole", 502, None, why)
    if table.kind == "no-route":
        why = "no VirtualService that is bound to the gateway serves this host on this port"
        return Effect("no-route", 404, "NR", why)
    roots = dict.fromkeys(route.virtual_service for route in table.routes)
    named = ", ".join(str(vs.resource) for vs in roots if vs)
    return Effect("no-route", 404, "NR", f"no rule of {named} matches the request")


def share(target: Target, ups: tuple[Upstream, ...]) -> str:
    """How much of the traffic a destination gets."""
    total = sum(up.target.weight for up in ups)
    if len(ups) == 1 or not total:
        return "100%"
    return f"{100 * target.weight / total:.4g}%"


def why_these_rules(up: Upstream, namespace: str, snapshot: Snapshot) -> str:
    """Why proxies of a namespace get the DestinationRules that they get for a destination.

    Names those for the same host, if there are some, that they do not get.
    """
    host = up.target.host
    others = [rule for rule in snapshot.destination_rules.covering(host) if rule not in up.rules]
    hidden = ""
    if others:
        listed = ", ".join(str(rule.resource) for rule in others)
        hidden = f"; not used: {listed}"
        hidden += "".join(f"; {lost.why}" for lost in up.lost)
    if not up.rules:
        if snapshot.missing("DestinationRule"):
            return "DestinationRules could not be read"
        chosen = [
            rule
            for rule in others
            if rule.namespace == namespace and rule.workload_selector is not None
        ]
        if chosen:
            named = " and ".join(str(rule.resource) for rule in chosen)
            return f"{named}, for other clients of {namespace}, hides all that is elsewhere{hidden}"
        seen = f"that proxies in {namespace} can see" if others else "at all"
        return f"there is none for {host} {seen}{hidden}"
    first = up.rules[0]
    places = {
        snapshot.config.root_namespace: "the root namespace, the last that is looked at",
        up.service.namespace if up.service else None: "the Service's namespace, as the client's "
        f"own, {namespace}, has none for this host",
        namespace: "the client's own namespace, the first that is looked at",
    }
    where = places.get(first.namespace, f"namespace {first.namespace}")
    joined = "; joined, the oldest first" if len(up.rules) > 1 else ""
    pattern = f"; {first.host} is the most specific host there" if first.host != host else ""
    return f"of {where}{joined}{pattern}{hidden}"


def is_ready(pod: Workload) -> bool | None:
    """Whether a live pod is ready; None for what is no live pod."""
    status = pod.resource.data.get("status")
    if pod.resource.kind != "Pod" or not status:
        return None
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _named(port: int, servers: Sequence[tuple[Gateway, Server]]) -> str:
    named = ", ".join(
        dict.fromkeys(f"Gateway {gateway.id} ({server.protocol})" for gateway, server in servers)
    )
    return f"port {port} of {named}" if named else f"port {port}"


def _unread(proxy: Proxy, asked: Request | Connection, listener: str, reason: str) -> Trace:
    connection = asked if isinstance(asked, Connection) else None
    effect = Effect("undecided", None, None, reason)
    return Trace(
        asked, proxy, listener, None, None, effect, undecided=reason, connection=connection
    )


def _nothing_listens(proxy: GatewayProxy, port: int) -> Effect:
    numbers = sorted({server.number for each in proxy.gateways for server in each.servers})
    listed = ", ".join(map(str, numbers)) or "none"
    why = f"nothing listens on port {port} of the gateway, whose ports are {listed}"
    return Effect("refused", None, None, f"{why}: the connection is refused")


def _not_taken(
    proxy: GatewayProxy, request: Request, servers: Sequence[tuple[Gateway, Server]]
) -> Effect:
    """Why no server takes HTTP requests of this kind on a port."""
    if not servers:
        return _nothing_listens(proxy, request.port)
    ends_tls = any(server.ends_tls for _, server in servers)
    if not any(server.takes_http_routes for _, server in servers):
        protocols = " and ".join(dict.fromkeys(server.protocol for _, server in servers))
        why = (
            f"port {request.port} is {protocols} that the gateway does not open: http rules have "
            "no effect, and no tcp or tls rule takes the connection"
        )
    elif request.scheme == "https" and ends_tls:
        why = (
            f"no server of port {request.port} takes TLS for the server name {request.dialled_host}"
        )
    elif request.scheme == "https":
        why = f"port {request.port} speaks plain HTTP, and the request comes by https"
    else:
        why = f"port {request.port} expects TLS, and the request comes by plain http"
    return Effect("refused", None, None, f"{why}: the connection is closed")
