"""What the controller manager does, which does not run beside the API server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from .apiserver import ApiServer

_PAUSE = 0.1
_DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}


@contextlib.contextmanager
def rolled_out(server: ApiServer) -> Iterator[None]:
    """While entered, all Deployments are soon said to have all their pods, new and ready."""
    with _repeated(lambda: _roll_out(server)):
        yield


@contextlib.contextmanager
def namespaces_emptied(server: ApiServer) -> Iterator[None]:
    """While entered, Namespaces that are being deleted are soon gone, with nothing of theirs."""
    with _repeated(lambda: _finalize(server)):
        yield


@contextlib.contextmanager
def _repeated(action: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(_PAUSE):
                action()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed


def _roll_out(server: ApiServer) -> None:
    for each in server.request("GET", "/apis/apps/v1/deployments")["items"]:
        metadata, wanted = each["metadata"], each["spec"]["replicas"]
        status = {
            "observedGeneration": metadata["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted,
            "availableReplicas": wanted,
        }
        if {key: each["status"].get(key, 0) for key in status} != status:
            path = f"{server.path({**_DEPLOYMENT, 'metadata': metadata})}/status"
            try:
                server.request(
                    "PATCH", path, {"status": status}, content_type="application/merge-patch+json"
                )
            except RuntimeError as error:
                if ": 404 " not in str(error):  # a test has deleted it meanwhile
                    raise


def _finalize(server: ApiServer) -> None:
    for each in server.request("GET", "/api/v1/namespaces")["items"]:
        if "deletionTimestamp" in each["metadata"]:
            each |= {"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": []}}
            server.request("PUT", f"{server.path(each)}/finalize", each)
