"""A connection that is no HTTP to the proxy, as far as rules can tell one from another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from kubectl_mesh.errors import UsageError
from kubectl_mesh.routing.request import (
    DNS_NAME,
    BadServerName,
    Request,
    ascii_host,
    refuse_server_name,
    refuse_unsendable,
)


@dataclass(frozen=True)
class Connection:
    """A connection to a port of a host, which is a name or an IP address.

    `server_name` is that of TLS; None for TLS that names none, and for all that is no TLS.
    `address` is where the client connects, if it is known beyond what the host says.
    """

    host: str
    port: int
    server_name: str | None = None
    address: str | None = None

    @property
    def scheme(self) -> str:
        return "tcp" if self.server_name is None else "tls"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        named = "" if self.server_name in (None, self.host) else f" for {self.server_name}"
        at = f" at {self.address}" if self.address else ""
        return f"{self.url}{named}{at}"


def is_connection(url: str) -> bool:
    """Whether a URL is for `connection_for`."""
    return url.lower().startswith(("tcp:", "tls:"))


def connection_for(url: str, server_name: str | None = None) -> Connection:
    """The connection that `tcp://HOST:PORT` or `tls://HOST:PORT` stands for.

    TLS is for the host's name, or for `server_name`. Raises UsageError for anything else.
    """
    refuse_unsendable(url)
    wanted = f"{url!r} names no connection: write tcp://HOST:PORT or tls://HOST:PORT"
    try:
        parts = urlsplit(url)
        host_and_port = parts.netloc
    except ValueError:
        raise UsageError(wanted) from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.hostname and not port:
        said = "has no port" if port is None else "has a port that is none of 1 to 65535"
        raise UsageError(f"{url!r} {said}: write tcp://HOST:PORT or tls://HOST:PORT")
    if "[" in host_and_port and not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]:\d+", host_and_port):
        raise UsageError(wanted)
    if not parts.hostname or not port or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(wanted)
    if "@" in parts.netloc:
        raise UsageError(wanted)
    host = ascii_host(parts.hostname.removesuffix("."))
    _check_host(host, wanted)
    if parts.scheme == "tcp":
        if server_name is not None:
            raise BadServerName("a server name is for tls, not for tcp")
        return Connection(host, port)
    named = ascii_host(server_name if server_name is not None else host).lower().removesuffix(".")
    refuse_server_name(named, server_name)
    return Connection(host, port, named)


def _check_host(host: str, wanted: str) -> None:
    """Raises UsageError for what is neither a name nor an IP address."""
    if not DNS_NAME.fullmatch(host):
        try:
            ip_address(host)
        except ValueError:
            raise UsageError(wanted) from None


def connection_of(request: Request) -> Connection:
    """The connection by which a request comes: TLS is for the name of the host that is dialled."""
    named = request.dialled_host if request.scheme == "https" else None
    return Connection(request.dialled_host, request.port, named)
