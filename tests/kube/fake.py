"""An API server on loopback that fails on demand, for the faults that a real one does not give."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonpatch

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?$"
)


@dataclass
class Answer:
    """What to say to one request instead of the truth; `cut` hangs up in the middle of it."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    wait_for: threading.Event | None = None


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: list[tuple[str, str]]

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class FakeApiServer:
    """Serves `objects`, one by one and as lists, with paging and selectors.

    `answers` go first: by plural name, what to say to the next requests for it. `forbidden` holds
    (plural, namespace) pairs, the namespace "" for a list of all, `absent` plurals that are not
    served, `versions` what is served of each group. `requests` is what was asked, writes left out.
    """

    def __init__(self, objects: Iterable[dict[str, Any]] = ()) -> None:
        self.objects = list(objects)
        self._versions = itertools.count(1000)
        self._writing = threading.Lock()
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.forbidden: set[tuple[str, str]] = set()
        self.absent: set[str] = set()
        self.versions = {
            "networking.istio.io": ["v1alpha3", "v1beta1"],
            "apps": ["v1"],
            "batch": ["v1"],
        }
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> FakeApiServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, folder: Path, **user: Any) -> str:
        """A kubeconfig with the contexts `here` (namespace `shop`) and `elsewhere`."""
        clusters = [{"name": "fake", "cluster": {"server": self.url}}]
        context = {"cluster": "fake", "user": "bob"}
        config = {
            "current-context": "here",
            "clusters": clusters,
            "users": [{"name": "bob", "user": user}],
            "contexts": [
                {"name": "here", "context": {**context, "namespace": "shop"}},
                {"name": "elsewhere", "context": context},
            ],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)

    def asked(self, plural: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(f"/{plural}")]

    def answer(self, request: Request) -> Answer:
        """The truth, as far as this server knows it."""
        group = request.path.removeprefix("/apis/")
        if group in self.versions:
            versions = [{"version": version} for version in self.versions[group]]
            return Answer(body={"kind": "APIGroup", "versions": versions})
        resources = self._resources(request.path)
        if resources:
            return Answer(body={"kind": "APIResourceList", "resources": resources})
        if request.path == "/version":
            return Answer(body={"gitVersion": "v1.30.1"})
        match = PATH.match(request.path)
        if not match:
            return Answer(404, b"404 page not found")
        if self.answers[match["plural"]]:
            return self.answers[match["plural"]].pop(0)
        served = self.versions.get(match["group"] or "", []) if match["group"] else ["v1"]
        if match["plural"] in self.absent or match["version"] not in served:
            return Answer(404, b"404 page not found")
        namespace = match["namespace"] or ""
        if (match["plural"], match["name"] or namespace) in self.forbidden:
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            return _status(
                403,
                f'{match["plural"]} is forbidden: User "bob" cannot list resource '
                f'"{match["plural"]}" in API group "{match["group"] or ""}" {where}',
            )
        kind = _kind(match["group"] or "", match["plural"])
        if match["name"]:
            found = self._find(kind, namespace, {})
            named = [item for item in found if item["metadata"]["name"] == match["name"]]
            return Answer(body=named[0]) if named else _status(404, "not found")
        return self._list(self._find(kind, namespace, request.query), request)

    def write(self, method: str, request: Request, body: Any) -> Answer:
        """Makes a change, if it is no dry run; what is applied takes the place of whole fields."""
        with self._writing:
            folder, _, name = request.path.rpartition("/")
            if method == "POST":
                folder, name = request.path, body["metadata"]["name"]
            match = PATH.match(f"{folder}/{name}")
            assert match
            kind = _kind(match["group"] or "", match["plural"])
            namespace = match["namespace"] or ""
            there = self._find(kind, namespace, {"fieldSelector": f"metadata.name={name}"})
            found = there[0] if there else {}
            if method == "DELETE":
                self.objects = [each for each in self.objects if each is not found]
                return _status(200, "deleted") if found else _status(404, "not found")
            if isinstance(body, list):
                try:
                    after = jsonpatch.apply_patch(found, body)
                except jsonpatch.JsonPatchException as error:
                    return _status(422, str(error))
            else:
                after = {**found, **body}
                metadata = {"uid": f"uid-{name}", **found.get("metadata", {}), **body["metadata"]}
                after["metadata"] = metadata
            after["metadata"]["resourceVersion"] = str(next(self._versions))
            if "dryRun" not in request.query:
                self.objects = [each for each in self.objects if each is not found] + [after]
            return Answer(body=after)

    def _resources(self, path: str) -> list[dict[str, Any]]:
        """What is served of a group's version."""
        from kubectl_mesh.mesh.schema import KINDS

        group, _, version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")
        served = self.versions.get(group, []) if group else ["v1"]
        return [
            {
                "name": kind.plural,
                "kind": kind.api_kind,
                "namespaced": kind.namespaced,
            }
            for kind in KINDS.values()
            if kind.group == group and version in served
        ]

    def _find(self, kind: str, namespace: str, query: dict[str, str]) -> list[dict[str, Any]]:
        selected = _selecting(query.get("labelSelector", ""))
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        return [
            item
            for item in self.objects
            if _named(item) == kind
            and namespace in ("", item["metadata"].get("namespace"))
            and name in ("", item["metadata"]["name"])
            and selected(item["metadata"].get("labels", {}))
        ]

    def _list(self, items: list[dict[str, Any]], request: Request) -> Answer:
        start = int(request.query.get("continue", 0))
        end = start + int(request.query.get("limit", 500))
        metadata = {"continue": str(end)} if end < len(items) else {}
        return Answer(body={"kind": "List", "metadata": metadata, "items": items[start:end]})

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # whoever asked hung up
                    super().handle()

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                request = Request(
                    parts.path, dict(parse_qsl(parts.query)), list(self.headers.items())
                )
                fake.requests.append(request)
                answer = fake.answer(request)
                if answer.wait_for:
                    answer.wait_for.wait()
                with contextlib.suppress(OSError):  # whoever asked may have gone
                    self._say(request, answer)

            def _write(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                parts = urlsplit(self.path)
                request = Request(
                    parts.path, dict(parse_qsl(parts.query)), list(self.headers.items())
                )
                self._say(request, fake.write(self.command, request, body))

            do_PATCH = do_POST = do_DELETE = _write

            def _say(self, request: Request, answer: Answer) -> None:
                body = answer.body
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                if request.header("Accept-Encoding") == ["gzip"]:
                    body = gzip.compress(body)
                    answer.headers["Content-Encoding"] = "gzip"
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if answer.cut:
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _status(code: int, message: str) -> Answer:
    return Answer(code, {"kind": "Status", "status": "Failure", "code": code, "message": message})


def _kind(group: str, plural: str) -> str:
    from kubectl_mesh.mesh.schema import KINDS

    return next(
        kind.name for kind in KINDS.values() if (kind.group, kind.plural) == (group, plural)
    )


def _selecting(text: str) -> Callable[[Mapping[str, str]], bool]:
    """What a label selector says of an object's labels: `a=b,c=d`, one `a in (b,c)`, or `a`."""
    key, is_set, values = text.partition(" in ")
    if is_set:
        among = values.strip("()").split(",")
        return lambda labels: labels.get(key) in among
    if text and "=" not in text:
        return lambda labels: text in labels
    wanted = dict(part.split("=") for part in text.split(",") if part)
    return lambda labels: wanted.items() <= labels.items()


def _named(item: dict[str, Any]) -> str:
    from kubectl_mesh.mesh.schema import identity

    return identity(item.get("apiVersion", ""), item["kind"], "", "").kind
