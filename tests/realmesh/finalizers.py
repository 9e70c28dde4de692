"""A finalizer that keeps an object after its deletion was asked for, until it is let go."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from kubectl_mesh.changes.deletion import is_terminating

from .apiserver import ApiServer

HOLD = "example.com/hold"
_PAUSE = 0.05


def hold(server: ApiServer, path: str) -> None:
    server.request(
        "PATCH",
        path,
        {"metadata": {"finalizers": [HOLD]}},
        content_type="application/merge-patch+json",
    )


def let_go(server: ApiServer, path: str) -> None:
    server.patch(path, [{"op": "remove", "path": "/metadata/finalizers"}])


@contextlib.contextmanager
def let_go_soon(server: ApiServer, path: str, after: float = 0.0) -> Iterator[None]:
    """While entered, an object is let go some seconds after its deletion was asked for."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(_PAUSE):
            if is_terminating(server.request("GET", path)):
                over.wait(after)
                let_go(server, path)
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
