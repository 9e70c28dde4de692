"""Trouble 4: nginx speaks HTTP/1.0 to its upstreams, and Envoy refuses that (KM401, KM402).

A real nginx runs in the pod `frontend`, beside a sidecar, and proxies to the Service `backend`. The
name leads it where a test says: to its own sidecar, on loopback, or to a pod of the backend that
has a sidecar too, which takes the requests to the pod and passes them on to the application there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.cli import main

from . import build
from .client import PATIENCE
from .conftest import built
from .envoy import Proxy
from .mesh import Mesh
from .nginx import Nginx

pytestmark = pytest.mark.each_istio

EXAMPLES = Path(__file__).parents[2] / "examples"

SIDECAR_OF_THE_BACKEND = """
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: backend, namespace: web}
spec:
  workloadSelector: {labels: {app: backend-with-sidecar}}
  ingress:
  - port: {number: 8000, protocol: HTTP, name: http}
    defaultEndpoint: 127.0.0.1:8001
  egress:
  - hosts: [istio-system/*]
"""
"""Nothing redirects what comes to the pod to its sidecar, so it listens because this says so."""

SIDECAR_FOR_ALL_ADDRESSES = """
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: frontend, namespace: web}
spec:
  workloadSelector: {labels: {app: frontend}}
  egress:
  - port: {number: 8000, protocol: HTTP, name: http}
    bind: 0.0.0.0
    captureMode: NONE
    hosts: [web/*]
  outboundTrafficPolicy: {mode: %s}
"""
"""Has a sidecar listen as it does where traffic is redirected to it: for every address at once."""

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: backend, namespace: web}
spec:
  hosts: [backend]
  http:
  - name: the-rule
    directResponse: {status: 200, body: {string: the rule}}
"""

HTTP10 = "proxy_http_version 1.0;"
HTTP11 = "proxy_http_version 1.1;"
CLOSE = 'proxy_set_header Connection "close";'
NO_CONNECTION_HEADER = 'proxy_set_header Connection "";'


PASS = "proxy_pass http://backend:8000;"


def server(*directives: str) -> str:
    """What stands in conf.d: a server that proxies to the backend with these directives."""
    lines = "".join(f"    {directive}\n" for directive in (PASS, *directives))
    return f"server {{\n  listen 80;\n  location / {{\n{lines}  }}\n}}\n"


def kept_alive(*directives: str) -> str:
    """The same, with an upstream whose connections nginx is to use again."""
    upstream = "upstream kept {\n  server backend:8000;\n  keepalive 16;\n}\n"
    return upstream + server(*directives).replace(PASS, "proxy_pass http://kept;")


def example(folder: Path) -> str:
    """The nginx configuration in the example of this trouble."""
    text = (folder / "4-nginx-http10.yaml").read_text(encoding="utf-8")
    (config_map,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "ConfigMap")
    configuration: str = config_map["data"]["default.conf"]
    return configuration


@dataclass
class Web:
    mesh: Mesh
    frontend: Proxy  # nginx's own sidecar
    backend: Proxy  # the sidecar of a pod of the backend

    def nginx(self, program: Path, text: str, to: Proxy) -> Nginx:
        """An nginx on that text, for which the name of the backend leads to that sidecar."""
        address = "127.0.0.1" if to is self.frontend else to.identity.address
        host = self.frontend.host
        return Nginx(self.mesh.processes, host, program, text, names={"backend": address})

    def logged(self, proxy: Proxy, field: str, value: object) -> dict[str, Any]:
        """The line of Istio's access log of that proxy that has this; waits for it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in self.mesh.processes.log(proxy.host.name).read_text().splitlines():
                if line.startswith("{") and line.endswith("}"):
                    logged: dict[str, Any] = json.loads(line)
                    if logged[field] == value:
                        return logged
            time.sleep(0.01)
        raise TimeoutError(f"{proxy} has not logged {field} {value}")


def make_web(mesh: Mesh, *, port: str = "http", http10: str | None = None) -> Web:
    """The pod that the Service leads to, `v1`, has no sidecar; `v2`, apart from it, has one.

    `http10` is the sidecar that is told to accept HTTP/1.0: "frontend" or "backend".
    """
    mesh.service("backend", ports={port: 8000}, pods={"v1": 1}, namespace="web")
    frontend, backend = (
        mesh.sidecar("web", {"app": app}, metadata={"HTTP10": "1"} if http10 == name else {})
        for name, app in (("frontend", "frontend"), ("backend", "backend-with-sidecar"))
    )
    application = {"pod": "with-sidecar", "version": "v2", "address": "127.0.0.1", "port": 8001}
    mesh.listen(backend.host, [application])
    mesh.apply(SIDECAR_OF_THE_BACKEND)
    mesh.settled()
    return Web(mesh, frontend, backend)


@pytest.fixture
def web(mesh: Mesh) -> Web:
    return make_web(mesh)


@pytest.fixture
def new() -> Path:
    """An nginx that speaks HTTP/1.1 by itself."""
    return built(build.nginx)


@pytest.fixture
def old() -> Path:
    """An nginx that speaks HTTP/1.0 by itself: from 1.29.7 on it does not."""
    return built(build.old_nginx, required=Path("/etc/debian_version").exists())


def test_the_sidecar_of_the_upstream_answers_http10_with_426(web: Web, new: Path) -> None:
    """The pod of the upstream does not get the request: its Envoy refuses the version."""
    with web.nginx(new, server(HTTP10), web.backend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert (answer.status, answer.body) == (426, b"Upgrade Required")
    logged = web.logged(web.backend, "response_code", 426)
    assert logged["response_code_details"] == "low_version"
    assert logged["upstream_host"] is None

    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER), web.backend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert (answer.status, answer.pod) == (200, "with-sidecar")


def test_the_version_counts_and_not_the_connection_header(web: Web, new: Path) -> None:
    """`Connection: close` alone costs connections, and no request: KM402 is a warning."""
    for directives, status in (
        ((HTTP10, NO_CONNECTION_HEADER), 426),
        ((HTTP11, CLOSE), 200),
        ((HTTP11, NO_CONNECTION_HEADER), 200),
    ):
        with web.nginx(new, server(*directives), web.backend) as nginx:
            assert nginx.request("GET", "shop.example.com").status == status, directives


def test_a_sidecar_that_listens_for_one_address_answers_http10_with_426(
    web: Web, new: Path
) -> None:
    """So does nginx's own, where nothing redirects traffic to it: all that comes is HTTP to it.

    Where traffic is redirected, it listens for all addresses: see the next test.
    """
    with web.nginx(new, server(HTTP10), web.frontend) as nginx:
        assert nginx.request("GET", "shop.example.com").status == 426
    assert web.logged(web.frontend, "response_code", 426)["response_code_details"] == "low_version"

    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER), web.frontend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert (answer.status, answer.version) == (200, "v1")


@pytest.mark.parametrize(
    ("policy", "cluster"),
    [("ALLOW_ANY", "PassthroughCluster"), ("REGISTRY_ONLY", "BlackHoleCluster")],
)
def test_a_sidecar_that_listens_for_all_addresses_takes_http10_for_tcp(
    web: Web, new: Path, policy: str, cluster: str
) -> None:
    """As nginx's own does where traffic is redirected to it: it does not answer 426 by itself.

    It passes the connection on to where it was going, so that the upstream's sidecar answers 426.
    Here nothing is redirected: the connection was going to the sidecar itself, which cuts it, and
    nginx makes a 502 of that. With REGISTRY_ONLY it is cut wherever it was going.
    """
    web.mesh.apply(SIDECAR_FOR_ALL_ADDRESSES % policy)
    web.mesh.settled()
    with web.nginx(new, server(HTTP10), web.frontend) as nginx:
        assert nginx.request("GET", "shop.example.com").status == 502
    logged = web.logged(web.frontend, "upstream_cluster", cluster)
    assert (logged["method"], logged["response_code"]) == (None, 0)

    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER), web.frontend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert (answer.status, answer.version) == (200, "v1")


@pytest.mark.parametrize("port", ["tcp", "nameless-protocol"])
def test_http10_passes_a_port_that_is_not_declared_http(mesh: Mesh, new: Path, port: str) -> None:
    """It is TCP there: nobody answers 426, and no HTTP rule holds for it.

    Where the port's name gives no protocol, the sidecar looks at what comes, and takes HTTP/1.1 for
    HTTP and HTTP/1.0 for TCP.
    """
    web = make_web(mesh, port=port)
    mesh.apply(VIRTUAL_SERVICE)
    mesh.settled()
    with web.nginx(new, server(HTTP10), web.frontend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert (answer.status, answer.version) == (200, "v1")

    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER), web.frontend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    by_rule = answer.body == b"the rule"
    assert (answer.status, by_rule) == (200, port != "tcp")


def test_an_old_nginx_without_the_directive_gets_426(web: Web, old: Path) -> None:
    with web.nginx(old, server(), web.backend) as nginx:
        assert nginx.request("GET", "shop.example.com").status == 426


def test_a_new_nginx_without_the_directive_gets_200(web: Web, new: Path) -> None:
    """From 1.29.7 on."""
    with web.nginx(new, server(), web.backend) as nginx:
        assert nginx.request("GET", "shop.example.com").status == 200


def test_the_example_and_its_repair(web: Web, new: Path, old: Path) -> None:
    """Its image is nginx 1.25.5, an old one. Both kinds of nginx accept both texts."""
    bad, repaired = example(EXAMPLES), example(EXAMPLES / "repaired")
    for program in (old, new):
        for text in (bad, repaired):
            assert web.nginx(program, text, web.backend).problems() == ""
        broken = repaired.replace("1.1;", "1.1")
        assert "proxy_http_version" in web.nginx(program, broken, web.backend).problems()
    for sidecar in (web.frontend, web.backend):
        with web.nginx(old, bad, sidecar) as nginx:
            assert nginx.request("GET", "backend").status == 426
        with web.nginx(old, repaired, sidecar) as nginx:
            assert nginx.request("GET", "backend").status == 200


@pytest.mark.parametrize(
    "directives",
    [
        (),
        (HTTP10,),
        (CLOSE, "proxy_set_header Host $host;"),
        ("proxy_set_header X-A a; # b",),
        (HTTP10, CLOSE, "gzip on;"),
    ],
)
def test_the_repair_of_fix_is_one(
    web: Web, new: Path, old: Path, tmp_path: Path, directives: tuple[str, ...]
) -> None:
    """426 becomes 200, both kinds of nginx accept the text, and no header is lost."""
    text = (EXAMPLES / "4-nginx-http10.yaml").read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    (config_map,) = (each for each in documents if each["kind"] == "ConfigMap")
    config_map["data"]["default.conf"] = server(*directives)
    file = tmp_path / "4-nginx-http10.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    assert main(["fix", "-f", str(file), "--rule", "KM401", "--write"]) == 0
    repaired = example(tmp_path)
    for program in (old, new):
        assert web.nginx(program, repaired, web.backend).problems() == ""
    with web.nginx(old, server(*directives), web.backend) as nginx:
        assert nginx.request("GET", "shop.example.com").status == 426
    with web.nginx(old, repaired, web.backend) as nginx:
        answer = nginx.request("GET", "shop.example.com")
    assert answer.status == 200
    assert answer.said is not None
    headers = answer.said["headers"]
    assert (headers.get("x-a"), headers["host"]) == (
        "a" if "X-A" in repaired else None,
        "shop.example.com" if "$host" in repaired else "backend:8000",
    )


def test_the_client_s_host_leads_past_the_rules_of_the_upstream(web: Web, new: Path) -> None:
    """`proxy_set_header Host $host` names the client's host, by which a sidecar finds its rules.

    No Service is called `shop.example.com`, so the request goes to wherever it was going (nowhere,
    as nothing is redirected here). Without that line nginx names the upstream.
    """
    web.mesh.apply(VIRTUAL_SERVICE)
    web.mesh.settled()
    theirs = "proxy_set_header Host $host;"
    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER, theirs), web.frontend) as nginx:
        assert nginx.request("GET", "shop.example.com").body != b"the rule"
        assert nginx.request("GET", "backend").body == b"the rule"
    assert web.logged(web.frontend, "authority", "shop.example.com")["route_name"] == "allow_any"
    with web.nginx(new, server(HTTP11, NO_CONNECTION_HEADER), web.frontend) as nginx:
        assert nginx.request("GET", "shop.example.com").body == b"the rule"


def test_istiod_can_have_all_proxies_accept_http10(
    new_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch, new: Path
) -> None:
    """`PILOT_HTTP10=1` in its environment: then KM401 is silent."""
    monkeypatch.setenv("PILOT_HTTP10", "1")
    web = make_web(new_mesh())
    for sidecar, version in ((web.frontend, "v1"), (web.backend, "v2")):
        with web.nginx(new, server(HTTP10), sidecar) as nginx:
            answer = nginx.request("GET", "shop.example.com")
        assert (answer.status, answer.version) == (200, version)


@pytest.mark.parametrize(
    ("http10", "statuses"), [("frontend", (200, 426)), ("backend", (426, 200))]
)
def test_one_sidecar_can_accept_http10_alone(
    mesh: Mesh, new: Path, http10: str, statuses: tuple[int, int]
) -> None:
    """`ISTIO_META_HTTP10=1` holds for the sidecar that has it: nginx's is no help upstream."""
    web = make_web(mesh, http10=http10)
    for sidecar, status in zip((web.frontend, web.backend), statuses, strict=True):
        with web.nginx(new, server(HTTP10), sidecar) as nginx:
            assert nginx.request("GET", "shop.example.com").status == status


def connections(web: Web, program: Path, text: str, status: int = 200) -> int:
    """How many connections ten requests through nginx make to the upstream's sidecar."""

    def accepted() -> int:
        count: int = web.backend.stats(r"^http\.inbound_.*_8000\.downstream_cx_total$").popitem()[1]
        return count

    before = accepted()
    with web.nginx(program, text, web.backend) as nginx:
        for _ in range(10):
            assert nginx.request("GET", "shop.example.com").status == status
    return accepted() - before


def test_connections_of_an_old_nginx(web: Web, old: Path) -> None:
    """`keepalive` takes HTTP/1.1 and an empty Connection header; without it, it has no effect."""
    assert connections(web, old, kept_alive(), 426) == 10
    assert connections(web, old, kept_alive(HTTP11)) == 10
    assert connections(web, old, kept_alive(HTTP11, NO_CONNECTION_HEADER)) == 1
    assert connections(web, old, server(HTTP11, NO_CONNECTION_HEADER)) == 10


def test_connections_of_a_new_nginx(web: Web, new: Path) -> None:
    """From 1.29.7 on it sends no Connection header by itself, and keeps those of any `upstream`."""
    assert connections(web, new, kept_alive()) == 1
    assert connections(web, new, kept_alive(HTTP11)) == 1
    assert connections(web, new, kept_alive(CLOSE)) == 10
    assert connections(web, new, kept_alive(HTTP11, CLOSE)) == 10
    assert connections(web, new, kept_alive().replace("keepalive 16;", "")) == 1
    assert connections(web, new, server()) == 10
