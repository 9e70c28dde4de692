"""Requests, and every way in which they fail."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.errors import ClusterError, Forbidden, NotInstalled
from kubectl_mesh.kube import http
from kubectl_mesh.kube.http import MAX_TRIES, MAX_WAIT, PAGE, ApiError, Client
from kubectl_mesh.sources.session import ClusterOptions, Session
from tests.kube.fake import Answer, FakeApiServer

PODS = "/api/v1/pods"


class Setup:
    def __init__(self, fake: FakeApiServer, tmp_path: Path) -> None:
        self.fake = fake
        self.file = fake.kubeconfig(tmp_path, token="t")
        self.waits: list[float] = []
        self.client = self.new()

    def new(self, **options: Any) -> Client:
        chosen = ClusterOptions(kubeconfig=self.file, **options)
        return Client(Session(chosen).client.connection, sleep=self.waits.append)

    def pods(self) -> list[str]:
        return self.client.items(PODS, lambda item: item["metadata"]["name"])


@pytest.fixture
def setup(fake: FakeApiServer, tmp_path: Path) -> Setup:
    return Setup(fake, tmp_path)


def pods(count: int) -> list[dict[str, Any]]:
    return [{"kind": "Pod", "metadata": {"name": f"p{number}"}} for number in range(count)]


def test_pages(setup: Setup) -> None:
    setup.fake.objects = pods(2 * PAGE + 1)
    counts: list[int] = []
    names = setup.client.items(PODS, lambda item: item["metadata"]["name"], progress=counts.append)
    assert names == [f"p{number}" for number in range(2 * PAGE + 1)]
    assert counts == [PAGE, 2 * PAGE, 2 * PAGE + 1]
    assert [request.query.get("continue") for request in setup.fake.requests] == [
        None,
        str(PAGE),
        str(2 * PAGE),
    ]


def test_json_is_written_as_the_api_server_writes_it() -> None:
    found = http.written({"regex": "(?<a>é)&\u2028\x7f\t"})
    assert found == '{"regex": "(?\\u003ca\\u003eé)\\u0026\\u2028\x7f\\t"}'.encode()


def test_an_empty_list_may_have_null_items(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(body={"kind": "PodList", "metadata": {}, "items": None})]
    assert setup.pods() == []


def expired() -> Answer:
    return Answer(410, {"kind": "Status", "message": "The provided continue parameter is too old"})


def test_a_list_that_expires_is_read_from_its_beginning(setup: Setup) -> None:
    setup.fake.objects = pods(PAGE + 1)
    page = setup.fake.answer
    answers = iter([None, expired()])
    setup.fake.answer = lambda request: next(answers, None) or page(request)  # type: ignore[method-assign]
    assert setup.pods() == [f"p{number}" for number in range(PAGE + 1)]
    assert [request.query.get("continue") for request in setup.fake.requests] == [
        None,
        str(PAGE),
        None,
        str(PAGE),
    ]


def test_a_list_that_expires_twice(setup: Setup) -> None:
    setup.fake.answers["pods"] = [expired(), expired()]
    with pytest.raises(ApiError, match="expired twice while it was being read"):
        setup.pods()


def test_a_busy_server_is_asked_again_when_it_says(setup: Setup) -> None:
    setup.fake.answers["pods"] = [
        Answer(429, headers={"Retry-After": "3"}),
        Answer(429, headers={"Retry-After": "86400"}),
    ]
    setup.fake.objects = pods(1)
    assert setup.pods() == ["p0"]
    assert setup.waits == [3, MAX_WAIT]


def test_a_server_that_stays_busy(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(429, {"message": "too many requests"})] * MAX_TRIES
    with pytest.raises(ApiError, match="with 429: too many requests"):
        setup.pods()
    assert len(setup.waits) == MAX_TRIES - 1


def test_a_passing_failure(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(503), Answer(500)]
    setup.fake.objects = pods(1)
    assert setup.pods() == ["p0"]


def test_a_lasting_failure(setup: Setup) -> None:
    broken = Answer(500, {"kind": "Status", "message": "conversion webhook\nfailed"})
    setup.fake.answers["pods"] = [broken] * MAX_TRIES
    with pytest.raises(ApiError, match=r"with 500: conversion webhook failed$") as caught:
        setup.pods()
    assert caught.value.status == 500


def test_a_connection_cut_in_mid_body_is_made_again(setup: Setup) -> None:
    setup.fake.objects = pods(3)
    setup.fake.answers["pods"] = [Answer(body={"items": pods(3)}, cut=True)]
    assert setup.pods() == ["p0", "p1", "p2"]


def test_a_connection_that_is_always_cut(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(body={"items": pods(3)}, cut=True)] * MAX_TRIES
    with pytest.raises(ClusterError, match=f"in the middle .* to {PODS}, {MAX_TRIES} times"):
        setup.pods()


def test_warnings_are_kept_once(setup: Setup) -> None:
    warned = Answer(
        body={"items": []},
        headers={"Warning": '299 - "v1alpha3 is \\"old\\"", 299 - "and slow"'},
    )
    setup.fake.answers["pods"] = [warned, warned]
    setup.pods()
    setup.pods()
    assert list(setup.client.warnings) == ['v1alpha3 is "old"', "and slow"]


def test_expired_token(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(401, {"kind": "Status", "message": "Unauthorized"})]
    with pytest.raises(ClusterError) as caught:
        setup.pods()
    assert str(caught.value) == (
        f"the API server {setup.fake.url} does not accept the credentials of user 'bob' "
        "(context here): they may have expired; log in again, or choose another --context"
    )


def test_forbidden_and_not_there(setup: Setup) -> None:
    setup.fake.forbidden = {("pods", "")}
    setup.fake.absent = {"services"}
    with pytest.raises(Forbidden, match='User "bob" cannot list resource "pods"'):
        setup.pods()
    with pytest.raises(NotInstalled, match="404 page not found"):
        setup.client.get("/api/v1/services")


def test_impersonation_that_is_not_allowed_is_not_about_the_list(setup: Setup) -> None:
    message = 'users "eve" is forbidden: User "bob" cannot impersonate resource "users"'
    setup.fake.answers["pods"] = [Answer(403, {"kind": "Status", "message": message})]
    with pytest.raises(ClusterError, match='does not allow --as: users "eve" is forb') as caught:
        setup.pods()
    assert not isinstance(caught.value, Forbidden)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(body=b'{"items": ['), "with application/json that is no JSON object"),
        (Answer(body=b"[]"), "that is no JSON object"),
        (Answer(body=b"[" * 100_000), "that is no JSON object"),
        (Answer(body=b"\xff\xfe"), "that is no JSON object"),
        (
            Answer(body=b"<html>log in", headers={"Content-Type": "text/html; charset=utf-8"}),
            "with text/html that is no JSON object: is that the address of an API server, or",
        ),
        (Answer(302, b"", {"Location": "https://sso.example"}), "redirects .*https://sso.example"),
        (Answer(400, b"Client sent an HTTP request to an HTTPS server.\n"), "an HTTPS server.$"),
        (Answer(body={"items": {"a": 1}}), "something that is no list"),
        (Answer(body={"items": [], "metadata": [1]}), "something that is no list"),
    ],
)
def test_nonsense(setup: Setup, answer: Answer, message: str) -> None:
    setup.fake.answers["pods"] = [answer]
    with pytest.raises(ClusterError, match=message):
        setup.pods()


def test_slow_answer(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(wait_for=setup.fake.released)]
    client = setup.new(request_timeout=0.05)
    with pytest.raises(ClusterError, match=f"did not answer {PODS} within 0.05 s: .*--request-tim"):
        client.get(PODS)


class _Endless:
    """A loopback server that says `head` and then `piece` until whoever asked hangs up."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._said = head, piece
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> _Endless:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        head, piece = self._said
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            while True:
                time.sleep(0.01)
                connection.sendall(piece)


def test_an_answer_that_trickles_in_is_bounded_as_a_whole(setup: Setup) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    with _Endless(head, b" ") as server:
        client = setup.new(server=server.url, request_timeout=0.3)
        with pytest.raises(ClusterError, match=f"did not answer {PODS} within 0.3 s"):
            client.get(PODS)


@pytest.mark.parametrize("zipped", [False, True])
def test_an_answer_that_is_too_large(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1024 * 1024)
    body = b" " * (64 * 1024 * 1024)
    headers = {"Content-Encoding": "gzip"} if zipped else {}
    setup.fake.answers["pods"] = [Answer(body=gzip.compress(body) if zipped else body)]
    setup.fake.answers["pods"][0].headers = headers
    with pytest.raises(ClusterError, match=f"answered {PODS} with more than 1 MiB"):
        setup.pods()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"no gzip", "gzip"),
        (gzip.compress(b'{"items": []}')[:-4], "gzip"),
        (gzip.compress(b'{"items": []}')[:-12], "gzip"),
        (b"{}", "br"),
    ],
)
def test_an_answer_whose_encoding_is_wrong(setup: Setup, body: bytes, encoding: str) -> None:
    setup.fake.answers["pods"] = [Answer(body=body, headers={"Content-Encoding": encoding})]
    with pytest.raises(ClusterError, match=f"answered {PODS} with what cannot be read: "):
        setup.pods()


@pytest.mark.parametrize("token", ["the same", 5, ["a"]])
def test_a_list_that_does_not_end(setup: Setup, token: object) -> None:
    page = Answer(body={"metadata": {"continue": token}, "items": []})
    setup.fake.answers["pods"] = [page] * 3
    with pytest.raises(ClusterError, match=f"answered {PODS} with a list that does not end"):
        setup.pods()


def test_a_retry_after_that_only_looks_like_a_number(setup: Setup) -> None:
    setup.fake.answers["pods"] = [Answer(429, headers={"Retry-After": "\xb2"})]
    setup.fake.objects = pods(1)
    assert setup.pods() == ["p0"]


def test_connections_are_used_again(setup: Setup) -> None:
    setup.fake.objects = pods(3)
    for _ in range(3):
        setup.pods()
    pools = setup.client.connection.pool.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118


def test_nobody_listens(tmp_path: Path, fake: FakeApiServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        options = ClusterOptions(kubeconfig=fake.kubeconfig(tmp_path), server=url)
        with pytest.raises(ClusterError) as caught:
            Session(options).client.get(PODS)
    assert str(caught.value) == (
        f"the API server {url} (context here) cannot be reached: Connection refused: is it "
        "running, and is the server address in the kubeconfig right?"
    )


def test_unknown_name(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client = setup.new(server="https://gone.example")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ClusterError, match=r"resolved \(Name or service not known\): check the"):
        client.get(PODS)


def test_plain_http_where_tls_is_meant(setup: Setup) -> None:
    client = setup.new(server=setup.fake.url.replace("http", "https"))
    with pytest.raises(ClusterError, match="does not speak TLS: should its address begin with htt"):
        client.get(PODS)


def test_gzip(setup: Setup) -> None:
    setup.fake.objects = pods(1)
    setup.client.connection._headers = {"Accept-Encoding": "gzip"}
    assert setup.pods() == ["p0"]


def test_ctrl_c_waits_for_no_answer(setup: Setup) -> None:
    asked = threading.Event()
    told = setup.fake.answer

    def answer(request: Any) -> Answer:
        asked.set()
        return Answer(wait_for=setup.fake.released) if "pods" in request.path else told(request)

    setup.fake.answer = answer  # type: ignore[method-assign]
    code = (
        "import sys\n"
        "from kubectl_mesh.sources.session import ClusterOptions, Session\n"
        "from kubectl_mesh.sources.cluster import load\n"
        "try: load(Session(ClusterOptions(kubeconfig=sys.argv[1])), ['Pod'], None)\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, setup.file], cwd=os.getcwd())
    assert asked.wait(60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not setup.fake.released.is_set()
