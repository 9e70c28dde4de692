"""Requests to an API server: JSON, page by page, and every failure as a ClusterError."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout

from kubectl_mesh.errors import ClusterError, Forbidden, NotInstalled
from kubectl_mesh.kube.config import Connection

T = TypeVar("T")

PAGE = 500
MAX_TRIES = 4
"""Times that one request is sent where the server is busy, fails or hangs up."""
MAX_WAIT = 10.0
"""Seconds between two tries, whatever Retry-After says."""
MAX_BODY = 256 * 1024 * 1024
"""Bytes of one answer, decoded."""

_ESCAPED = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})
_CHUNK = 64 * 1024
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


def written(value: object) -> bytes:
    """JSON as the API server writes it.

    It compares texts with those of a patch's `test` operations byte by byte, as they are written.
    """
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED).encode()


class ApiError(ClusterError):
    """The API server answered with an error; `status` is its HTTP status, `reason` what it says."""

    def __init__(self, message: str, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def retried(self) -> bool:
        """Whether this is what the server still said at the last of MAX_TRIES."""
        return _is_passing(self.status)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class _Body:
    content: bytes
    content_type: str


class Client:
    """Sends requests over a connection. Threads may share it.

    `warnings` holds the texts of the server's Warning headers, each once. Every method raises
    ClusterError where the server cannot be reached or does not accept the credentials, Forbidden
    for 403, NotInstalled for 404 and ApiError for any other error that the server answers with.
    """

    def __init__(
        self, connection: Connection, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.connection = connection
        self.warnings: dict[str, None] = {}
        self._sleep = sleep
        self._lock = threading.Lock()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The object at a path such as /api/v1/namespaces/default."""
        return self._object(path, self._request(path, query or {}))

    def patch(
        self, path: str, operations: Sequence[Mapping[str, Any]], query: Mapping[str, str]
    ) -> dict[str, Any]:
        """Applies a JSON Patch to the object at a path, and returns the object as it is then.

        It is sent once, unless the server says that it was too busy to look at it: where the
        connection is lost nobody knows whether it was made.
        """
        return self._write("PATCH", path, list(operations), "application/json-patch+json", query)

    def apply(
        self, path: str, value: Mapping[str, Any], query: Mapping[str, str]
    ) -> dict[str, Any]:
        """Has the server apply a configuration to the object at a path, as `kubectl apply
        --server-side` does, and returns the object as it is then. See `patch`.
        """
        return self._write("PATCH", path, value, "application/apply-patch+yaml", query)

    def create(
        self, path: str, value: Mapping[str, Any], query: Mapping[str, str]
    ) -> dict[str, Any]:
        """Adds an object to the list at a path, and returns it as it is then. See `patch`."""
        return self._write("POST", path, value, "application/json", query)

    def _write(
        self, method: str, path: str, value: object, content_type: str, query: Mapping[str, str]
    ) -> dict[str, Any]:
        body = _Body(written(value), content_type)
        return self._object(path, self._request(path, query, method, body))

    def delete(self, path: str, version: Mapping[str, str], *, dry: bool = False) -> None:
        """Deletes the object at a path, if its uid and resourceVersion are these. See `patch`.

        What belongs to it goes afterwards, as with `kubectl delete`. If `dry`, the server only
        tries it. That stands in the body: where there is one, it does not look for it in the query.
        """
        options = {
            "preconditions": dict(version),
            "propagationPolicy": "Background",
            **({"dryRun": ["All"]} if dry else {}),
        }
        self._request(path, {}, "DELETE", _Body(written(options), "application/json"))

    def _object(self, path: str, response: _Answer) -> dict[str, Any]:
        try:
            value = json.loads(response.data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            kind = response.headers.get("Content-Type", "no type").partition(";")[0]
            raise ClusterError(
                f"{self._server} answered {path} with {kind} that is no JSON object: is that the "
                "address of an API server, or a proxy's log-in page?"
            )
        return value

    def items(
        self,
        path: str,
        keep: Callable[[dict[str, Any]], T],
        query: Mapping[str, str] | None = None,
        progress: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """What `keep` makes of every item of a list, page by page; the pages are not held.

        `progress` is told of the number of items so far. Where the list expires while it is being
        read (410, after some minutes), it is read once more from its beginning.
        """
        try:
            return self._pages(path, keep, query or {}, progress)
        except ApiError as error:
            if error.status != 410:
                raise
        try:
            return self._pages(path, keep, query or {}, progress)
        except ApiError as error:
            if error.status != 410:
                raise
            raise ApiError(
                f"the list {path} expired twice while it was being read: the API server is too "
                "slow or too busy; try again",
                410,
            ) from None

    def _pages(
        self,
        path: str,
        keep: Callable[[dict[str, Any]], T],
        query: Mapping[str, str],
        progress: Callable[[int], object],
    ) -> list[T]:
        kept: list[T] = []
        token = ""
        seen: set[str] = set()
        while True:
            page = self.get(path, {**query, "limit": str(PAGE), "continue": token})
            metadata = page.get("metadata") or {}
            items = page.get("items") or []
            if not isinstance(items, list) or not isinstance(metadata, dict):
                raise ClusterError(f"{self._server} answered {path} with something that is no list")
            kept += [keep(item) for item in items]
            progress(len(kept))
            token = metadata.get("continue") or ""
            if not token:
                return kept
            if not isinstance(token, str) or token in seen:
                raise ClusterError(
                    f"{self._server} answered {path} with a list that does not end: its "
                    f"metadata.continue is {'repeated' if isinstance(token, str) else 'no string'}"
                )
            seen.add(token)

    @property
    def _server(self) -> str:
        return f"the API server {self.connection.server}"

    def _request(
        self,
        path: str,
        query: Mapping[str, str],
        method: str = "GET",
        body: _Body | None = None,
    ) -> _Answer:
        query = {key: value for key, value in query.items() if value}
        url = self.connection.server + path + (f"?{urlencode(query)}" if query else "")
        renewed = False
        tries = 0
        while True:
            tries += 1
            headers = self.connection.headers()
            try:
                response = self._send(method, url, path, headers, body)
            except ProtocolError as error:
                if tries < MAX_TRIES and body is None:
                    self._sleep(_pause(tries))
                    continue
                raise self._unreachable(path, error) from error
            except (HTTPError, OSError) as error:
                raise self._unreachable(path, error) from error
            except ValueError:  # which shows the header: not to be repeated
                raise ClusterError(
                    "the token, or a name to impersonate, holds characters that HTTP does not allow"
                ) from None
            self._note_warnings(response)
            if response.status in (200, 201, 202):
                return response
            if response.status == 401 and not renewed and self.connection.renew(headers):
                renewed = True
                continue
            passing = response.status == 429 if body else _is_passing(response.status)
            if tries < MAX_TRIES and passing:
                self._sleep(_pause(tries, response.headers.get("Retry-After", "")))
                continue
            raise self._refusal(path, response)

    def _send(
        self,
        method: str,
        url: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        body: _Body | None,
    ) -> _Answer:
        """The answer, read to its end within the timeout. Raises what urllib3 raises."""
        timeout = self.connection.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        sent = urllib3.HTTPHeaderDict(headers)
        if body:
            sent["Content-Type"] = body.content_type
        response = self.connection.pool.request(
            method,
            url,
            body=body.content if body else None,
            headers=sent,
            timeout=self.connection.timeouts,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        try:
            data = bytearray()
            for piece in _decoded(response, _pieces(response, deadline)):
                data += piece
                if len(data) > MAX_BODY:
                    raise ClusterError(
                        f"{self._server} answered {path} with more than {MAX_BODY >> 20} MiB: is "
                        "that the address of an API server?"
                    )
        except zlib.error as error:
            response.close()
            raise ClusterError(
                f"{self._server} answered {path} with what cannot be read: {error}: is there a "
                "proxy in between that damages it?"
            ) from None
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return _Answer(response.status, response.headers, bytes(data))

    def _note_warnings(self, response: _Answer) -> None:
        for text in _WARNING.findall(response.headers.get("Warning", "")):
            with self._lock:
                self.warnings[re.sub(r"\\(.)", r"\1", text)] = None

    def _refusal(self, path: str, response: _Answer) -> ClusterError:
        message = _message(response)
        if response.status == 401:
            target = self.connection.target
            who = f" of user {target.user_name!r}" if target.user_name else ""
            return ClusterError(
                f"{self._server} does not accept the credentials{who} (context {target.context}): "
                "they may have expired; log in again, or choose another --context"
            )
        if response.status == 403 and "cannot impersonate" in message:
            return ClusterError(f"{self._server} does not allow --as: {message}")
        if response.status == 403:
            return Forbidden(message)
        if response.status == 404:
            return NotInstalled(message)
        if 300 <= response.status < 400:
            return ClusterError(
                f"{self._server} redirects {path} to {response.headers.get('Location')}: is that "
                "the address of an API server, or a proxy's log-in page?"
            )
        return ApiError(
            f"{self._server} answered {path} with {response.status}: {message}",
            response.status,
            message,
        )

    def _unreachable(self, path: str, error: Exception) -> ClusterError:
        server = f"{self._server} (context {self.connection.context})"
        cause = _root(error)
        if isinstance(error, SSLError):
            return ClusterError(f"{server}: {_tls_problem(cause)}")
        if isinstance(error, ProxyError):
            return ClusterError(
                f"{server} cannot be reached through the proxy: {cause}: check proxy-url in the "
                "kubeconfig, HTTPS_PROXY and NO_PROXY"
            )
        if isinstance(cause, socket.gaierror):
            return ClusterError(
                f"{server} cannot be reached: its name cannot be resolved ({cause.strerror}): "
                "check the server address in the kubeconfig, DNS and VPN"
            )
        timed_out = isinstance(error, HTTPTimeout) and not isinstance(error, NewConnectionError)
        if timed_out and isinstance(error, ConnectTimeoutError):
            return ClusterError(
                f"{server} cannot be reached: no connection within "
                f"{self.connection.timeouts.connect_timeout:g} s: check network, VPN and firewall"
            )
        if timed_out:
            return ClusterError(
                f"{server} did not answer {path} within {self.connection.timeout or 0:g} s: it is "
                "overloaded or out of reach; a longer --request-timeout may help"
            )
        if isinstance(error, ProtocolError):
            return ClusterError(
                f"{server} closed the connection in the middle of its answer to {path}, "
                f"{MAX_TRIES} times: {cause}"
            )
        return ClusterError(
            f"{server} cannot be reached: {getattr(cause, 'strerror', None) or cause}: "
            "is it running, and is the server address in the kubeconfig right?"
        )


def _pieces(response: urllib3.BaseHTTPResponse, deadline: float | None) -> Iterator[bytes]:
    """The body as it comes in. Raises ReadTimeoutError at the deadline, by time.monotonic()."""
    while True:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ReadTimeoutError(None, None, "too slow")  # type: ignore[arg-type]
            sock = getattr(response.connection, "sock", None)
            if sock is not None:
                sock.settimeout(left)
        piece = response.read1(_CHUNK, decode_content=False)
        if not piece:
            return
        yield piece


def _decoded(response: urllib3.BaseHTTPResponse, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The body without its Content-Encoding, in small pieces. Raises zlib.error."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip"):
        raise zlib.error(f"its Content-Encoding is {encoding!r}, not gzip")
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for piece in pieces:
        while piece and not unzip.eof:
            yield unzip.decompress(piece, 1024 * 1024)
            piece = unzip.unconsumed_tail
    yield unzip.flush()
    if not unzip.eof:
        raise zlib.error("its gzip ends too early")


def _is_passing(status: int) -> bool:
    """Whether a later try may meet another status."""
    return status == 429 or status >= 500


def _pause(tries: int, retry_after: str = "") -> float:
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), MAX_WAIT)
    return float(min(0.25 * 2**tries, MAX_WAIT))


def _message(response: _Answer) -> str:
    """The message of a Status object, else the beginning of the text."""
    try:
        status = json.loads(response.data)
    except (ValueError, RecursionError):
        status = None
    message = status.get("message") if isinstance(status, dict) else None
    text = message if isinstance(message, str) else response.data[:200].decode("utf-8", "replace")
    return " ".join(text.split()) or "no message"


def _root(error: BaseException) -> BaseException:
    """The system's error below urllib3's."""
    inner = error.__cause__ or error.__context__
    for argument in error.args:
        if isinstance(argument, BaseException):
            inner = argument
    return _root(inner) if inner is not None and not isinstance(error, OSError) else error


def _tls_problem(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        problem = f"its certificate is not accepted: {cause.verify_message}"
        if "match" in cause.verify_message:
            return f"{problem}: check the server address, or name the host with --tls-server-name"
        return f"{problem}: check certificate-authority in the kubeconfig"
    reason = getattr(cause, "reason", None) or cause
    if "WRONG_VERSION" in str(reason) or "RECORD_LAYER" in str(reason):
        return "it does not speak TLS: should its address begin with http://, or is it a proxy?"
    return f"TLS failed: {reason}: check client-certificate and client-key in the kubeconfig"
