"""istiod's debug pages, and the way to them through kubectl."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from kubectl_mesh.kube.http import Client
from kubectl_mesh.kube.istiod import Istiod, Proxy, Unreachable, forwarded
from kubectl_mesh.kube.kubeconfig import ClusterOptions

SYNC = {"proxy": "web-1.shop", "cluster_sent": "a", "cluster_acked": "a", "route_sent": "b"}


class Pages:
    """Answers each path with what it is told to."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = pages.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_what_it_says(pages: Pages) -> None:
    synced = {**SYNC, "route_acked": "b", "endpoint_sent": "c", "endpoint_acked": "c"}
    pages.answers["/debug/syncz"] = (200, json.dumps([SYNC, {**synced, "proxy": "y"}]).encode())
    istiod = Istiod(pages.url + "/")
    assert istiod.proxies() == {
        "web-1.shop": Proxy(("a", "", "b"), False),
        "y": Proxy(("a", "", "b"), True),
    }
    metadata = {"name": "web", "namespace": "shop", "resourceVersion": "5"}
    found = [{"kind": "VirtualService", "metadata": metadata}, {"kind": "X", "metadata": {}}]
    pages.answers["/debug/configz"] = (200, json.dumps(found).encode())
    assert istiod.versions()["VirtualService", "shop", "web"] == "5"
    pages.answers["/debug/syncz"] = (200, b"null")
    assert istiod.proxies() == {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"who"), "answers with 401"),
        ((200, b"<html>"), "does not answer: "),
        ((200, b"{}"), "something else than a list"),
        ((200, b"[1]"), "something else than a list"),
        ((200, b'[{"foo": 1}]'), "tells of proxies in a way that is not known"),
        ((200, b"[" * 100000), "does not answer: "),
    ],
)
def test_what_cannot_be_read(pages: Pages, answer: tuple[int, bytes], said: str) -> None:
    pages.answers["/debug/syncz"] = answer
    with pytest.raises(Unreachable, match=said):
        Istiod(pages.url).proxies()


def test_objects_without_metadata(pages: Pages) -> None:
    pages.answers["/debug/configz"] = (200, b'[{"kind": "VirtualService", "metadata": "x"}]')
    with pytest.raises(Unreachable, match="tells of objects without metadata"):
        Istiod(pages.url).versions()


def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        Istiod("http://127.0.0.1:1").proxies()


class Cluster:
    """An API server's list of pods."""

    def __init__(self, *phases: str) -> None:
        self.pods = [
            {"metadata": {"name": f"istiod-{number}"}, "status": {"phase": phase}}
            for number, phase in enumerate(phases)
        ]

    def items(self, path: str, keep: Any, query: Any) -> list[Any]:
        assert (path, query) == ("/api/v1/namespaces/mesh/pods", {"labelSelector": "app=istiod"})
        return [keep(pod) for pod in self.pods]


def client(*phases: str) -> Client:
    return cast(Client, Cluster(*phases))


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that says what it was asked for, and forwards nothing."""
    program = tmp_path / "kubectl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'echo "Forwarding from 127.0.0.1:4$$ -> 15014"\nexec sleep 60\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_all_that_run_are_reached_through_kubectl(kubectl: Path, tmp_path: Path) -> None:
    options = ClusterOptions(context="prod", as_groups=("a", "b"), insecure_skip_tls_verify=True)
    with forwarded(client("Running", "Pending", "Running"), options, "mesh") as found:
        urls = [each.url for each in found]
    pids = [int(url.rpartition(":4")[2]) for url in urls]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    asked = (tmp_path / "asked").read_text().splitlines()
    flags = "--context=prod --as-group=a --as-group=b --insecure-skip-tls-verify"
    assert asked == [
        f"port-forward pod/istiod-{number} :15014 -n mesh --address 127.0.0.1 {flags}"
        for number in (0, 2)
    ]


def test_where_it_cannot_be_reached(kubectl: Path) -> None:
    with (
        pytest.raises(Unreachable, match="no pod of istiod"),
        forwarded(client("Pending"), ClusterOptions(), "mesh"),
    ):
        pass
    kubectl.write_text("#!/bin/sh\necho 'error: pods is forbidden' >&2\nexit 1\n")
    with (
        pytest.raises(Unreachable, match="istiod-0 failed: error: pods is forbidden"),
        forwarded(client("Running"), ClusterOptions(), "mesh"),
    ):
        pass
    kubectl.chmod(0o644)
    os.environ["PATH"] = str(kubectl.parent)
    with (
        pytest.raises(Unreachable, match="kubectl cannot be run"),
        forwarded(client("Running"), ClusterOptions(), "mesh"),
    ):
        pass
