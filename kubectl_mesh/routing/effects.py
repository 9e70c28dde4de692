"""What becomes of a request or a connection, and why: by a route, by a filter chain, or by none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kubectl_mesh.mesh.gateways import Gateway, Server
from kubectl_mesh.mesh.hosts import patterns_for
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.routing.chains import Chain, Listener
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.paths import redirect_status
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.table import Action, Table, Target
from kubectl_mesh.routing.upstreams import Upstream, share

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
_MAX_NAMES = 10
_ALL = 100
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


def of_action(action: Action, upstream: Callable[[Target], Upstream]) -> Effect:
    """What a rule does with the requests that it takes."""
    data = action.data
    abort = action.abort
    if abort and abort.percent >= _ALL:
        why = "the rule's fault aborts every request"
        if abort.grpc:
            why += f" with grpc-status {abort.grpc}"
        return Effect("abort", abort.http, "FI", why)
    if data.get("redirect") is not None:
        return Effect("redirect", redirect_status(data["redirect"]), None, "")
    if data.get("directResponse") is not None:
        status = data["directResponse"].get("status")
        return Effect("direct-response", status, None, "the proxy answers by itself")
    effect = sent_to(tuple(map(upstream, action.targets)), 503)
    if effect.outcome != "upstream":
        return effect
    # Envoy copies a request when it has found somebody to send it to.
    mirrors = (Mirror(upstream(copies.target), copies.percent) for copies in action.copies)
    return replace(effect, mirrors=tuple(mirrors))


def sent_to(ups: tuple[Upstream, ...], status: int | None) -> Effect:
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


def without_chain(listener: Listener, connection: Connection, nothing: str = "") -> Effect:
    """What becomes of connections that no filter chain takes; `nothing` says why there is none."""
    if listener.rest == "closed":
        if not listener.chains:
            why = "no tcp or tls rule is bound to it, so nothing listens: the connection is refused"
            return Effect("refused", None, None, why)
        return Effect("refused", None, None, f"{_in_vain(listener, connection)}: closed")
    why = (
        _in_vain(listener, connection)
        if listener.server_names
        else nothing or "the sidecar has nothing for it"
    )
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
                why = f"{named_chain(chain)} for {name} is for {subnets} alone"
                if chain.lender:
                    vs, path = chain.lender
                    why += f", the destinationSubnets of {vs.resource} {dotted(path)} before it"
                return why
    return None


def named_chain(chain: Chain) -> str:
    """The rule that makes a chain, or what it is for where none does."""
    if chain.virtual_service:
        return f"{chain.virtual_service.resource} {dotted(chain.path)}"
    if chain.server:
        return f"Gateway {chain.server[0].id}"
    return str(chain.service.resource if chain.service else chain)


def without_route(table: Table) -> Effect:
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


def nothing_listens(proxy: Proxy, port: int) -> Effect:
    numbers = sorted({server.number for each in proxy.gateways or () for server in each.servers})
    listed = ", ".join(map(str, numbers)) or "none"
    why = f"nothing listens on port {port} of the gateway, whose ports are {listed}"
    return Effect("refused", None, None, f"{why}: the connection is refused")


def not_taken(proxy: Proxy, request: Request, servers: Sequence[tuple[Gateway, Server]]) -> Effect:
    """Why no server takes HTTP requests of this kind on a port."""
    if not servers:
        return nothing_listens(proxy, request.port)
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
