"""Proxies of a real mesh that are asked the same as the model of routing."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.routing.paths import with_query
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Table
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.session import ClusterOptions, Session

from .client import Answer, Connection
from .envoy import Proxy
from .istiod import istio
from .mesh import MESH_CONFIG, Mesh
from .random_routes import ECHO_PORT, RULE, Ask, Configuration

SEED = int(os.environ.get("KUBECTL_MESH_SEED", random.SystemRandom().randrange(10**9)))

_KINDS = (
    *("VirtualService", "Gateway", "Service", "ServiceEntry", "Sidecar", "Pod", "DestinationRule"),
    "ConfigMap",
)

# Else a sidecar answers alike for hosts that it does not know and for Services without pods.
_UNKNOWN_HOSTS_GET_502 = f"{MESH_CONFIG}outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}\n"

_GATEWAY = """
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: %(name)s, namespace: istio-system}
spec:
  selector: {istio: %(name)s}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
"""


class Tried:
    """Three sidecars and two gateways, each with what the model takes it for."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        clients = [Place("a", {"app": "x"}), Place("b", {"app": "y"}), Place("b")]
        self._sidecars = [(mesh.sidecar(each.namespace, each.labels), each) for each in clients]
        self._gateways = [
            mesh.gateway({"istio": name}, {80: 8080}, name=name) for name in ("gw1", "gw2")
        ]
        self._connections: dict[tuple[Proxy, int], Connection] = {}

    def snapshot(self) -> Snapshot:
        """The mesh as it is."""
        return snapshot_of(self._mesh)

    def places(self, snapshot: Snapshot) -> Iterator[tuple[Proxy, Place]]:
        """The proxies, and what each is to the model."""
        yield from self._sidecars
        for proxy in self._gateways:
            gateway = snapshot.gateways.by_id[f"istio-system/{proxy.identity.name}"]
            yield proxy, Place("istio-system", proxy.identity.labels, (gateway,))

    @property
    def proxies(self) -> list[Proxy]:
        return [*(proxy for proxy, _ in self._sidecars), *self._gateways]

    def say(self, proxy: Proxy, ask: Ask, authority: str | None = None) -> str:
        """Which rule Envoy answers by, and the path that ECHO gets; else the status.

        That is "404" or "502"; "service" stands for the Service's own route.

        `authority` is the Host header where it is not what clients make of host and port.
        """
        return _named(self.ask(proxy, ask, authority))

    def ask(self, proxy: Proxy, ask: Ask, authority: str | None = None) -> Answer:
        """What a proxy answers; see `say`."""
        port = 80 if proxy in self._gateways else ask.port
        host = authority or (ask.host if port == 80 else f"{ask.host}:{port}")
        connection = self._connections.setdefault(
            (proxy, port), proxy.connect(f"{ask.host}:{port}")
        )
        try:
            return connection.ask(ask.method, host, ask.path, dict(ask.headers))
        except (OSError, http.client.HTTPException):  # Envoy replaced the listener
            connection.close()
            return connection.ask(ask.method, host, ask.path, dict(ask.headers))

    def answers(self, asked: Iterable[Ask]) -> dict[tuple[str, Ask], str]:
        """What each proxy answers, by its name."""
        return {(str(proxy), ask): self.say(proxy, ask) for ask in asked for proxy in self.proxies}

    def disagreements(self, asked: Iterable[Ask]) -> Iterator[str]:
        """What the mesh does otherwise than the model says."""
        snapshot = self.snapshot()
        router = Router(snapshot)
        places = list(self.places(snapshot))
        for ask in asked:
            for proxy, place in places:
                said, told = self.say(proxy, ask), _told(router, place, ask)
                if said != told:
                    yield f"{proxy}: {ask}: the model says {told}, Envoy {said}"


def snapshot_of(mesh: Mesh) -> Snapshot:
    """A mesh as it is, with the Istio that the tests run."""
    session = Session(ClusterOptions(kubeconfig=str(mesh.server.kubeconfig)))
    state = cluster.load(session, set(_KINDS), None)
    assert not state.unreadable
    config = replace(state.config, istio=istio())
    return Snapshot(state.resources, config, state.coverage)


def table_for(router: Router, place: Place, request: Request) -> Table:
    """The model's table for a request at a place."""
    if not place.is_gateway:
        return router.sidecar(place, request.host, request.port)
    table = router.gateway(place, request.host, 80, tls=False)
    assert table is not None
    return table


def request_of(ask: Ask, place: Place) -> Request:
    """The model's request for one that is asked of a proxy."""
    port = "" if place.is_gateway or ask.port == 80 else f":{ask.port}"
    return request_for(f"http://{ask.host}{port}{ask.path}", ask.method, dict(ask.headers))


def _told(router: Router, place: Place, ask: Ask) -> str:
    """What the model says, in the words of `Tried.say`."""
    request = request_of(ask, place)
    table = table_for(router, place, request)
    route = table.first(request)
    if route is None:
        return "502" if table.kind == "blackhole" else "404"
    if route.rule is None:
        return "service"
    if route.action.targets:
        rule = route.action.data["headers"]["request"]["set"][RULE]
        return f"{rule} {with_query(route.rewriting.of(request.path), request)}"
    said: str = route.action.data["directResponse"]["body"]["string"]
    return said


def _named(answer: Answer) -> str:
    if answer.said:
        return f"{answer.said['headers'][RULE]} {answer.said['path']}"
    if answer.status == 200:
        return answer.body.decode()
    return "service" if answer.body.startswith(b"no healthy upstream") else str(answer.status)


@pytest.fixture
def tried(mesh: Mesh) -> Tried:
    mesh.service("echo", ports={"http": ECHO_PORT}, pods={"v1": 1}, namespace="a")
    mesh.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": _UNKNOWN_HOSTS_GET_502},
        },
        *(_GATEWAY % {"name": name} for name in ("gw1", "gw2")),
    )
    return Tried(mesh)


@contextlib.contextmanager
def applied(mesh: Mesh, batch: list[Configuration]) -> Iterator[None]:
    """While entered, the configurations are in the mesh, each wave younger than the one before."""
    mesh.apply(*(item for each in batch for item in each.services))
    for wave in range(3):
        mesh.apply(*(item for each in batch for item in each.waves[wave]))
        mesh.next_second()
    mesh.settled()
    try:
        yield
    finally:
        mesh.server.delete(*(item for each in batch for item in (*each.services, *each.objects)))
