"""A connection that is no HTTP to the proxy, as far as rules can tell one from another."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from kubectl_mesh.errors import UsageError
from kubectl_mesh.routing.request import Request, ascii_host, refuse_unsendable


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

    def __str__(self) -> str:
        named = "" if self.server_name in (None, self.host) else f" for {self.server_name}"
        at = f" at {self.address}" if self.address else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{named}{at}"


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
        port = parts.port
    except ValueError:
        raise UsageError(wanted) from None
    if not parts.hostname or not port or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(wanted)
    if "@" in parts.netloc:
        raise UsageError(wanted)
    host = ascii_host(parts.hostname)
    if parts.scheme == "tcp":
        if server_name is not None:
            raise UsageError("a server name is for tls, not for tcp")
        return Connection(host, port)
    return Connection(host, port, ascii_host(server_name or host).lower())


def connection_of(request: Request) -> Connection:
    """The connection by which a request comes: TLS is for the host's name."""
    named = request.host if request.scheme == "https" else None
    return Connection(request.host, request.port, named)
