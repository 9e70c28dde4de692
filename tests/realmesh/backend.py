"""The applications behind a mesh's Services: they answer with who they are.

    python backend.py CERTIFICATE KEY APPLICATIONS

APPLICATIONS is a JSON list of `{"pod", "version", "address", "port"}`. It listens at each address
and port as that pod, and speaks what it is spoken to:

- to an HTTP request it answers 200 and a JSON object: `pod`, `version` and `port`, as given;
  `method`, `path` and `headers` (names in lower case, several of a name joined by commas), as they
  arrived;
- to TLS, whatever the server name, with HTTP inside; `sni` is then the server name;
- to anything else, the name of the pod and the end of the connection.

Some headers of a request ask for more: `x-fail` for another status than 200, `x-slow` to answer so
many seconds later, `x-reply-NAME` for a header NAME of the answer. Requests with a header `x-ask`
are kept, in the order in which they arrive: `/.got` gives them, as a JSON list of what they were or
would have been answered, and forgets them.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any

_TLS_HANDSHAKE = 0x16

GOT = "/.got"
"""The path at which an application gives the requests that were kept."""

_REPLY = "x-reply-"
_kept: list[dict[str, Any]] = []
_lock = threading.Lock()


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case; several of a name are joined by commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


class _Application(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, pod: dict[str, Any], tls: ssl.SSLContext) -> None:
        super().__init__((pod["address"], pod["port"]), _Http)
        self.pod = pod
        self._tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        first = request.recv(8, socket.MSG_PEEK)
        if first[:1] == bytes([_TLS_HANDSHAKE]):
            with self._tls.wrap_socket(request, server_side=True) as inside:
                _Http(inside, client_address, self)
        elif first.split(b" ")[0].isupper():
            _Http(request, client_address, self)
        else:
            request.sendall(self.pod["pod"].encode() + b"\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that is gone


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Application

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # whatever the method
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == GOT:
            self._send(200, _taken(), {})
            return
        headers = joined(self.headers.items())
        said = {
            "pod": self.server.pod["pod"],
            "version": self.server.pod["version"],
            "port": self.server.pod["port"],
            "method": self.command,
            "path": self.requestline.split(" ")[1],  # self.path has lost one of two slashes
            "headers": headers,
            "sni": getattr(self.connection, "server_name", None),
        }
        if "x-ask" in headers:
            with _lock:
                _kept.append(said)
        time.sleep(float(headers.get("x-slow", 0)))
        wanted = {
            name.removeprefix(_REPLY): value
            for name, value in headers.items()
            if name.startswith(_REPLY)
        }
        self._send(int(headers.get("x-fail", 200)), said, wanted)

    def _send(self, status: int, said: Any, headers: dict[str, str]) -> None:
        body = json.dumps(said).encode() + b"\n"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _taken() -> list[dict[str, Any]]:
    """The requests that were kept, which are so no longer."""
    with _lock:
        taken = _kept[:]
        _kept.clear()
    return taken


def main(certificate: str, key: str, applications: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.sni_callback = lambda connection, name, _: setattr(connection, "server_name", name)
    for pod in json.loads(applications):
        threading.Thread(target=_Application(pod, tls).serve_forever).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
