"""The applications behind a mesh's Services: they answer with who they are.

    python backend.py CERTIFICATE KEY APPLICATIONS

APPLICATIONS is a JSON list of `{"pod", "version", "address", "port"}`. It listens at each address
and port as that pod, and speaks what it is spoken to:

- to an HTTP request it answers 200 and a JSON object: `pod`, `version` and `port`, as given;
  `method`, `path` and `headers` (names in lower case), as they arrived;
- to TLS, whatever the server name, with HTTP inside; `sni` is then the server name;
- to anything else, the name of the pod and the end of the connection.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

_TLS_HANDSHAKE = 0x16


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
        said = {
            "pod": self.server.pod["pod"],
            "version": self.server.pod["version"],
            "port": self.server.pod["port"],
            "method": self.command,
            "path": self.requestline.split(" ")[1],  # self.path has lost one of two slashes
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "sni": getattr(self.connection, "server_name", None),
        }
        body = json.dumps(said).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(certificate: str, key: str, applications: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.sni_callback = lambda connection, name, _: setattr(connection, "server_name", name)
    for pod in json.loads(applications):
        threading.Thread(target=_Application(pod, tls).serve_forever).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
