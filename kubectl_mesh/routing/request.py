"""A request, as far as routes can tell one from another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from kubectl_mesh.errors import UsageError

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Request:
    """An HTTP request as a proxy gets it.

    `authority` is the Host header as sent. `port` is the one that the client connects to. `path`
    is without the query, `query` without the question mark. Names of `headers` are in lower case.
    `dialled` is the host whose address the client connects to, and which it names in TLS; "" for
    the Host header's.
    """

    authority: str
    port: int
    path: str = "/"
    query: str = ""
    method: str = "GET"
    scheme: str = "http"
    headers: Mapping[str, str] = field(default_factory=dict)
    dialled: str = ""

    @property
    def host(self) -> str:
        """The host name alone, in lower case: proxies do not look at the port beside it."""
        name, colon, port = self.authority.lower().rpartition(":")
        return name if colon and port.isdigit() else self.authority.lower()

    @property
    def dialled_host(self) -> str:
        """The host whose address the client connects to, and which it names in TLS."""
        return self.dialled or self.host

    @property
    def parameters(self) -> Mapping[str, str]:
        """The query's parameters, as they are written; of a name that comes twice, the first."""
        found: dict[str, str] = {}
        for part in self.query.split("&") if self.query else ():
            name, _, value = part.partition("=")
            found.setdefault(name, value)
        return found

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        to = f" to {self.dialled}" if self.dialled else ""
        return f"{self.method} {self.scheme}://{self.authority}{self.path}{query}{to}"


DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
"""A DNS name in ASCII and lower case, without the dot of the root."""
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def ascii_host(host: str) -> str:
    """A host name as clients send it: other letters in punycode. Raises UsageError."""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise UsageError(f"no client can ask for the host {host!r}") from None


def refuse_unsendable(url: str) -> None:
    """Raises UsageError for a URL that no client can take."""
    if _UNSENDABLE.search(url):
        raise UsageError(f"{url!r} is no URL: spaces and control characters are written as %20")


class BadServerName(UsageError):
    """A server name that no client can name in TLS, or that is given without TLS."""


def refuse_server_name(name: str, given: str | None) -> None:
    """Raises BadServerName for what no client can name; `given` is how it was written."""
    if not DNS_NAME.fullmatch(name):
        raise BadServerName(f"no client can ask for the server name {given!r} by TLS")


def request_for(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    server_name: str | None = None,
) -> Request:
    """The request that a client sends for a URL.

    It connects to the URL's host and names that, or `server_name`, in TLS. A Host header takes the
    place of the URL's host in the request.

    Raises UsageError unless it is an http or https URL with a host, and what a client can send.
    """
    refuse_unsendable(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"{url!r} is no URL: its host or port cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        raise UsageError(
            f"{url!r} is no URL of http or https: write http://HOST[:PORT]/PATH, or for a "
            "connection tcp://HOST:PORT or tls://HOST:PORT"
        )
    if "@" in parts.netloc:
        raise UsageError(f"{url!r} has credentials: give them as -H 'authorization: ...'")
    given = {name.lower(): value for name, value in (headers or {}).items()}
    for name, value in given.items():
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise UsageError(f"no client can send the header {name!r} with the value {value!r}")
    if not _TOKEN.fullmatch(method):
        raise UsageError(f"{method!r} is no method")
    if server_name is not None and parts.scheme != "https":
        raise BadServerName("a server name is for https and tls")
    dialled = ascii_host(server_name if server_name is not None else parts.hostname).lower()
    if server_name is not None:
        refuse_server_name(dialled, server_name)
    host = given.pop("host", None) or ascii_host(parts.netloc.removesuffix(":"))
    found = Request(
        authority=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        path=parts.path or "/",
        query=parts.query,
        method=method,
        scheme=parts.scheme,
        headers=given,
    )
    return found if dialled == found.host.strip("[]") else replace(found, dialled=dialled)
