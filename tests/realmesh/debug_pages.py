"""istiod's debug pages on this host's loopback, where kubectl port-forward would bring them."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .istiod import Istiod

_FOLDER = "/debug/"


@contextlib.contextmanager
def debug_pages(istiod: Istiod) -> Iterator[str]:
    """Where they are, while it is entered. 502 where istiod does not answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                body = json.dumps(istiod.debug(self.path.removeprefix(_FOLDER))).encode()
                self.send_response(200)
            except (OSError, http.client.HTTPException, ValueError):
                body = b""
                self.send_response(502)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
