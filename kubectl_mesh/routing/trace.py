"""Where one request or connection goes, and why: from the proxy that gets it to the pods behind it.

What a rule does besides (fault, redirect, rewrite) counts where it decides the answer. What a proxy
does not take for HTTP, TLS that it does not end above all, is followed by tcp and tls rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal

from kubectl_mesh.mesh.gateways import Gateway, Server
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.versions import ABSOLUTE_NAMES
from kubectl_mesh.routing.chains import Chain, Listener
from kubectl_mesh.routing.connection import Connection, connection_of
from kubectl_mesh.routing.cors import answers_preflight
from kubectl_mesh.routing.effects import (
    Effect,
    named_chain,
    not_taken,
    nothing_listens,
    of_action,
    sent_to,
    without_chain,
    without_route,
)
from kubectl_mesh.routing.index import Index
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.paths import (
    https_location,
    location,
    normalized,
    with_query,
)
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Passed, Route, Table, Target
from kubectl_mesh.routing.upstreams import Upstream, is_ready, no_such_port, upstream

_CONNECTION_SETTINGS = (
    "the MeshConfig's defaultConfig.connectionSettings may change its path or refuse it, and they "
    "are not followed"
)
_MOST = "DECODE_AND_MERGE_SLASHES"


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
        return without_route(self.table)


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
            else:
                found = self._listen(proxy, request)
            self._listening[key] = found
        return found

    def _bearing(self, proxy: Proxy, request: Request) -> str | None:
        hosts = dict.fromkeys((request.host, request.dialled_host))
        found = (self.router.bearing.on(proxy, host, request.port) for host in hosts)
        return next(filter(None, found), None)

    def _by_address(self, proxy: Proxy, request: Request) -> str | None:
        """Why it is not known what a sidecar does with HTTP to an address; None where it is."""
        entries = self.router.entries_at.get(request.host, ())
        if proxy.is_gateway or request.scheme == "https" or not entries:
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
        unread = self.router.bearing.on(proxy, connection.host, connection.port)
        if unread:
            return _unread(proxy, connection, f"port {connection.port}", unread)
        return self._connect(proxy, connection, self.router.listener(proxy, connection))

    def _connect(self, proxy: Proxy, connection: Connection, listener: Listener | None) -> Trace:
        if listener is None:
            ended = nothing_listens(proxy, connection.port)
            where = f"port {connection.port}"
            return Trace(connection, proxy, where, None, None, ended, connection=connection)
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
                f"Envoy refuses all that istiod sends for this listener, as {named_chain(one)} "
                f"and {named_chain(other)} both ask for {what}: it does what it did before"
            )
            return Effect("rejected", None, None, why), None
        chain = listener.find(connection)
        if chain is None:
            if listener.unread:
                raise Undecidable(listener.unread)
            nothing = self._without_chain(connection, proxy) or ""
            return without_chain(listener, connection, nothing), None
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
        return sent_to(ups, None), chain

    def _without_chain(self, connection: Connection, proxy: Proxy) -> str | None:
        """Why a Service's port has no chain on a sidecar; None where it has, or is not known."""
        if proxy.is_gateway:
            return None
        service = self.router.meant(proxy, connection.host, connection.port)
        if service is None:
            return None
        port = service.port(connection.port)
        if port is None:
            return no_such_port(service, connection.port)
        if port.protocol in HTTP_PROTOCOLS:
            return f"port {port.number} of {service.resource} is {port.protocol}, nothing else"
        egress = self.router.snapshot.sidecars.egress(
            proxy.namespace, proxy.labels, connection.port
        )
        if not egress.sees_service(service.namespace, service.host):
            return _hidden(service)
        return None

    def _listen(self, proxy: Proxy, request: Request) -> _Listening:
        """What takes the request, a table of routes or filter chains, in words."""
        taken = self.router.at(proxy, request)
        if proxy.is_gateway:
            return self._gateway(proxy, request, taken)
        return self._sidecar(proxy, request, taken)

    def _sidecar(
        self, client: Proxy, request: Request, taken: Table | Listener | None
    ) -> _Listening:
        host = request.dialled_host
        if not isinstance(taken, Table):
            sent = self._connect(client, connection_of(request), taken)
            note = "TLS passes through it unopened"
            if request.scheme != "https":
                service = self.router.meant(client, host, request.port)
                port = service.port(request.port) if service else None
                note = f"the port is {port.protocol if port else 'another'}, not HTTP"
            return _Listening(f"{sent.listener}: {note}, and http rules have no effect", sent=sent)
        listener = f"the sidecar's listener for port {request.port}"
        host = self.router.host_of(client, request)
        service = self.router.meant(client, host, request.port)
        if service is None or taken.kind not in ("passthrough", "dynamic-dns", "blackhole"):
            return _Listening(listener, taken)
        istio = self.router.snapshot.config.istio
        why = no_such_port(service, request.port)
        if service.is_external_name:
            why = f"{service.resource} stands for {service.external_name}, which is not known"
        elif host.endswith(".") and not istio.has(ABSOLUTE_NAMES):
            why = "before Istio 1.27, sidecars know no host with a full stop at its end"
        elif service.port(request.port):
            why = _hidden(service)
        effect = without_route(taken)
        return _Listening(listener, taken, ended=replace(effect, why=f"{why}; {effect.why}"))

    def _gateway(
        self, proxy: Proxy, request: Request, taken: Table | Listener | None
    ) -> _Listening:
        servers = self.router.listeners.merged(proxy).get(request.port, ())
        listener = _named(request.port, servers)
        if isinstance(taken, Table):
            return _Listening(listener, taken)
        sent = self._connect(proxy, connection_of(request), taken)
        if sent.chain and not sent.chain.server:
            note = "what comes goes on by tcp or tls rules, and http rules have no effect"
            return _Listening(f"{listener}: {note}", sent=sent)
        if sent.effect.outcome in ("undecided", "rejected"):
            return _Listening(listener, sent=sent)
        return _Listening(listener, ended=not_taken(proxy, request, servers))

    def _effect(self, route: Route, proxy: Proxy, request: Request) -> Effect:
        """What a route does with a request. Raises Undecidable."""
        key = (route, proxy)
        if key not in self._effects:
            self._effects[key] = of_action(route.action, partial(self._upstream, proxy=proxy))
        effect = self._effects[key]
        if effect.outcome == "abort" or not answers_preflight(route.action, request):
            return effect
        return Effect("preflight", 200, None, "the rule's corsPolicy answers preflight requests")

    def _upstream(self, target: Target, proxy: Proxy) -> Upstream:
        key = (target, proxy)
        if key not in self._upstreams:
            self._upstreams[key] = self._with_ready_pods(upstream(self.router, target, proxy))
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
        return replace(found, pods=pods, missing="pods", why=why if pods else "there is no pod")


def _is_borderline(request: Request, how: str) -> bool:
    """Whether connectionSettings may have another path made of a request, or have it refused."""
    paths = {normalized(request.path, each) for each in (how, "BASE", _MOST)}
    return len(paths) > 1 or any("_" in name for name in request.headers)


def _hidden(service: Service) -> str:
    return f"{service.resource} is hidden from the client by its Sidecar resource"


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
