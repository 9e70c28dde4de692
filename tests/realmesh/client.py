"""HTTP as a client in a network namespace speaks it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .backend import joined
from .network import Host

PATIENCE = 30.0  # seconds


@dataclass(frozen=True)
class Answer:
    """An answer to a request.

    `headers` have names in lower case; several of a name are joined by commas. `said` is what the
    backend that answered says it got (see backend.py): None where nobody did, as where Envoy itself
    answers.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any] | None:
        if self.headers.get("content-type") != "application/json":
            return None
        said: dict[str, Any] = json.loads(self.body)
        return said

    @property
    def version(self) -> str | None:
        """The version of the pod that answered."""
        return self.said["version"] if self.said else None

    @property
    def pod(self) -> str | None:
        """The name of the pod that answered."""
        return self.said["pod"] if self.said else None


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection(http.client.HTTPConnection):
    """A connection from `host` to an address there; with `sni`, by TLS for that server name.

    It connects anew when the other side has closed it.
    """

    def __init__(self, host: Host, address: str, port: int, *, sni: str | None = None) -> None:
        super().__init__(address, port)
        self._from = host
        self._sni = sni

    def connect(self) -> None:
        plain = self._from.connect(self.host, self.port)
        plain.settimeout(PATIENCE)
        self.sock = (
            _unverified().wrap_socket(plain, server_hostname=self._sni) if self._sni else plain
        )

    def ask(
        self, method: str, authority: str, path: str, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Sends a request and reads the answer. Raises OSError, http.client.HTTPException."""
        self.request(method, path, headers={"Host": authority, **(headers or {})})
        response = self.getresponse()
        body = response.read()
        return Answer(response.status, joined(response.getheaders()), body)


def get(host: Host, port: int, path: str) -> bytes:
    """The body that a server on the host's loopback answers. Raises OSError, HTTPException."""
    connection = Connection(host, "127.0.0.1", port)
    try:
        answer = connection.ask("GET", "localhost", path)
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{path}: {answer.status} {answer.body.decode()}")
    return answer.body
