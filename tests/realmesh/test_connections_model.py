"""Do our model of TCP and TLS, and `compare`, agree with Istio, on random rules?

`KUBECTL_MESH_CONNECTIONS` says how many configurations are tried, of which each gets 20 connections
from three sidecars and two gateways, `KUBECTL_MESH_PAIRS` how many changes are compared;
`KUBECTL_MESH_SEED` repeats a run. Where the two disagree, the
test prints the seed and the smallest configuration that it finds which still shows it.

One of the sidecars listens at 0.0.0.0, by a Sidecar resource: for Services without an address of
their own that is what sidecars of real pods do, where iptables brings them the traffic.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import Comparison, Decision, Difference, compare
from kubectl_mesh.proof.treatment import fixed
from kubectl_mesh.routing.chains import Listener
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.matching import Conditions
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Trace, Tracer
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.session import ClusterOptions, Session
from tests.proof.random_meshes import resource

from . import istiod
from .envoy import Proxy
from .manifests import Object, destination_rule, istio, subset
from .mesh import MESH_CONFIG, Mesh
from .random_connections import (
    AT_ONCE,
    GATEWAY_PORTS,
    GATEWAYS,
    OWN,
    SUBSETS,
    Ask,
    configuration,
    connections,
    mutated,
    ports_of,
)
from .random_routes import Configuration
from .routes_tried import SEED, applied
from .settled import NotSettled
from .shrinking import report
from .test_tcp_tls import tcp_pod

pytestmark = pytest.mark.each_istio

CONFIGURATIONS = int(os.environ.get("KUBECTL_MESH_CONNECTIONS", "40"))
PAIRS = int(os.environ.get("KUBECTL_MESH_PAIRS", "20"))
ASKED = 20

_KINDS = (
    *("VirtualService", "Gateway", "Service", "ServiceEntry", "Sidecar", "Pod"),
    *("DestinationRule", "ConfigMap"),
)
_CLIENTS = (Place("a", {"app": "x"}), Place("b", {"app": "y"}), Place("c"))
_AT_EVERY_ADDRESS = istio(
    "Sidecar",
    "c",
    "c",
    egress=[{"bind": "0.0.0.0", "captureMode": "NONE", "hosts": ["*/*"]}],
)
_WEB = destination_rule(
    "web",
    "web.a.svc.cluster.local",
    *(subset(name, version=name) for name in SUBSETS if name != "undefined"),
    namespace="a",
)
_REGISTRY_ONLY = f"{MESH_CONFIG}outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}\n"


class Tried:
    """Three sidecars and two gateways, each with what the model takes it for."""

    def __init__(self, mesh: Mesh) -> None:
        mesh.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "istio", "namespace": "istio-system"},
                "data": {"mesh": _REGISTRY_ONLY},
            },
            _AT_EVERY_ADDRESS,
            _WEB,
        )
        pods = dict.fromkeys((name for name in SUBSETS if name.startswith("v")), 1)
        mesh.service("web", namespace="a", ports={"tcp": 7000}, pods=pods)
        mesh.service("own", namespace="a", ports={"tcp": 7000}, pods={"v0": 1})
        own = mesh.server.request("GET", f"/api/v1/namespaces/a/pods/{OWN}")
        self.own: str = own["status"]["podIP"]
        self._mesh = mesh
        self._sidecars = [(mesh.sidecar(each.namespace, each.labels), each) for each in _CLIENTS]
        self._gateways = [
            mesh.gateway({"istio": name}, GATEWAY_PORTS, name=name) for name in GATEWAYS
        ]
        self.answers: Counter[str] = Counter()

    def snapshot(self) -> Snapshot:
        """The mesh as it is."""
        session = Session(ClusterOptions(kubeconfig=str(self._mesh.server.kubeconfig)))
        state = cluster.load(session, set(_KINDS), None)
        assert not state.unreadable
        config = replace(state.config, istio=istiod.istio())
        return Snapshot(state.resources, config, state.coverage)

    def places(self, snapshot: Snapshot) -> list[tuple[Proxy, Place]]:
        """The proxies, and what each is to the model."""
        places: list[tuple[Proxy, Place]] = [*self._sidecars]
        for proxy in self._gateways:
            labels = proxy.identity.labels
            gateways = snapshot.gateways.of_pod(labels)
            places.append((proxy, Place("istio-system", labels, gateways)))
        return places

    def say(self, asked: Iterable[Ask]) -> dict[tuple[str, Ask], str]:
        """What each proxy that can be asked does with connections, by its name."""
        places = self.places(self.snapshot())
        fitting = [(proxy, ask) for ask in asked for proxy, place in places if _fits(ask, place)]
        found = {(str(proxy), ask): _said(proxy, ask) for proxy, ask in fitting}
        self.answers.update(found.values())
        return found

    def disagreements(self, asked: Collection[Ask]) -> Iterator[str]:
        """What the mesh does otherwise than the model says."""
        snapshot = self.snapshot()
        tracer = Tracer(Router(snapshot))
        places = {str(proxy): place for proxy, place in self.places(snapshot)}
        for (proxy, ask), said in self.say(asked).items():
            trace = tracer.connect(places[proxy], _connection(ask, places[proxy]))
            told = _told(trace)
            if said != told:
                yield f"{proxy}: {ask}: the model says {told}, Envoy {said}: {trace}"


def _fits(ask: Ask, place: Place) -> bool:
    """Whether a proxy can be asked.

    That there is no iptables makes ServiceEntries without addresses be told apart otherwise by
    sidecars that do not listen at 0.0.0.0, as of their own they have none.
    """
    if place.is_gateway:
        return not ask.host
    return bool(ask.host) and (place.namespace == "c" or ask.host.endswith(".local"))


def _connection(ask: Ask, place: Place) -> Connection:
    address = None if place.is_gateway else "127.0.0.1"
    return Connection(ask.host, ask.port, ask.server_name, address)


def _told(trace: Trace) -> str:
    """What the model says, in the words of `_said`."""
    if trace.effect.outcome not in (
        "upstream",
        "blackhole",
        "refused",
        "no-cluster",
        "no-endpoint",
    ):
        return trace.effect.outcome
    reached = [up for up in trace.effect.upstreams if not up.flag]
    if not reached:
        return "closed"
    return reached[0].target.subset or "v0"


def _said(proxy: Proxy, ask: Ask) -> str:
    """The version of the pod at the other end, or "closed"."""
    host = f"{ask.host}:{ask.port}"
    try:
        if ask.server_name is None:
            return tcp_pod(proxy, host).removesuffix("-0").rpartition("-")[2] or "closed"
        answer = proxy.request("GET", host, sni=ask.server_name)
    except (ssl.SSLError, OSError, http.client.HTTPException):
        return "closed"
    return answer.version or str(answer.status)


def _states(whole: Configuration) -> Iterator[Snapshot]:
    """The configuration as it is after each wave, without a mesh."""
    given: list[Object] = [_WEB, _AT_EVERY_ADDRESS]
    given += [each for each in whole.services if each["kind"] != "EndpointSlice"]
    config = MeshConfig(registry_only=True, istio=istiod.istio())
    for second, wave in enumerate(whole.waves):
        for item in wave:
            stamp = f"2024-01-01T00:00:0{second}Z"
            given.append({**item, "metadata": {**item["metadata"], "creationTimestamp": stamp}})
        yield Snapshot([resource(each) for each in given], config)


def _listeners(
    snapshot: Snapshot, number: int, clients: Iterable[Place] = _CLIENTS
) -> Iterator[Listener]:
    """The listeners of these clients, and of the gateways."""
    router = Router(snapshot)
    ports = ports_of(number)
    for client in clients:
        for host, port in (
            (f"t{number}.a.svc.cluster.local", ports.tcp),
            (f"l{number}.a.svc.cluster.local", ports.tls),
            (f"x{number}.a.svc.cluster.local", ports.sniffed),
            ("other.org", ports.shared),
        ):
            yield router.listeners.sidecar(client, host, port)
    for name in GATEWAYS:
        proxy = Place("istio-system", {}, snapshot.gateways.of_pod({"istio": name}))
        for port in (ports.gateway_tcp, ports.gateway_tls):
            listener = router.listeners.gateway(proxy, port)
            if listener:
                yield listener


def _is_refused(snapshot: Snapshot, number: int) -> bool:
    """Whether the model says that Envoy refuses a listener of a gateway, or as pods have it."""
    return any(each.clash for each in _listeners(snapshot, number, _CLIENTS[2:]))


def _is_decided(snapshot: Snapshot, number: int) -> bool:
    """Whether Envoy takes all listeners, and nothing in them is left to chance."""
    return not any(each.clash or each.unread for each in _listeners(snapshot, number))


def _accepted(rng: random.Random, number: int, own: str) -> Configuration:
    """A configuration that the model decides at every step, and that Envoy takes."""
    while True:
        found = configuration(rng, number, own)
        if all(_is_decided(state, number) for state in _states(found)):
            return found


@pytest.fixture
def tried(mesh: Mesh) -> Tried:
    return Tried(mesh)


def test_the_model_agrees_with_istio(
    mesh: Mesh, tried: Tried, record_property: Callable[[str, object], None]
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_CONNECTIONS={CONFIGURATIONS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    for first in range(0, CONFIGURATIONS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, CONFIGURATIONS))
        batch = [_accepted(rng, number, tried.own) for number in numbers]
        asked = {each.number: list(connections(rng, each.number, ASKED)) for each in batch}
        with applied(mesh, batch):
            wrong = {number: list(tried.disagreements(asks)) for number, asks in asked.items()}
        for each in batch:
            if wrong[each.number]:
                pytest.fail(_report(mesh, tried, each, asked[each.number], wrong[each.number]))
    record_property("answers", dict(tried.answers))
    reached = tried.answers.total() - tried.answers["closed"]
    assert reached >= CONFIGURATIONS * 5  # else nothing is tried


def _report(
    mesh: Mesh, tried: Tried, whole: Configuration, asked: list[Ask], wrong: list[str]
) -> str:
    def decided(candidate: Configuration) -> bool:
        return all(_is_decided(state, candidate.number) for state in _states(candidate))

    return report(mesh, whole, wrong, lambda: tried.disagreements(asked), fits=decided)


def test_envoy_refuses_what_the_model_says(mesh: Mesh, tried: Tried) -> None:
    """Two chains for one server name, or one subnet, and nothing of the listener is taken."""
    print(f"KUBECTL_MESH_SEED={SEED}")
    rng = random.Random(SEED)
    mesh.settled()
    for number in range(3):
        refused = configuration(rng, number, tried.own)
        while not _is_refused(list(_states(refused))[-1], number):
            refused = configuration(rng, number, tried.own)
        with contextlib.ExitStack() as exits:
            with pytest.raises(NotSettled, match=r"(overlapping|same) matching rules"):
                exits.enter_context(applied(mesh, [refused]))
            mesh.server.delete(*refused.services, *refused.objects)
        mesh.settled()


def test_compare_agrees_with_istio(
    mesh: Mesh, tried: Tried, record_property: Callable[[str, object], None]
) -> None:
    """What is answered differently is in a class that `compare` reports, and the other way round.

    Save where a connection is closed both before and after, for another reason.
    """
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_PAIRS={PAIRS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    classes = seen = 0
    for first in range(0, PAIRS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, PAIRS))
        pairs = [_pair(rng, number, tried.own) for number in numbers]
        before, after = ([pair[side] for pair in pairs] for side in (0, 1))
        asked = [ask for each in before for ask in connections(rng, each.number, 2 * ASKED)]
        with applied(mesh, before):
            was, answered = tried.snapshot(), tried.say(asked)
            mesh.apply(*(item for each in after for item in each.objects))
            mesh.settled()
            now, answers = tried.snapshot(), tried.say(asked)
            reported = compare(was, now)
            examples = list(_examples(tried, was, reported))
            said_after = [_said(proxy, ask) for _, proxy, ask in examples]
            mesh.apply(*(item for each in before for item in each.objects))
            mesh.settled()
            said_before = [_said(proxy, ask) for _, proxy, ask in examples]
        assert not reported.undecided
        for (difference, proxy, ask), one, other in zip(
            examples, said_before, said_after, strict=True
        ):
            if _dials_otherwise(tried, (was, now), str(proxy), ask):
                continue
            assert one != other or one == "closed", f"{ask} is answered alike: {difference}"
        classes += len(examples)
        found = [key for key, one in answered.items() if one != answers[key]]
        seen += len(found)
        for proxy, ask in found:
            if _dials_otherwise(tried, (was, now), proxy, ask):
                continue
            decided = [_decided(tried, each, proxy, ask) for each in (was, now)]
            assert any(
                [each.before.identity, each.after.identity] == decided
                for each in reported.differences
            ), f"not reported: {proxy} {ask}: {answered[proxy, ask]}, then {answers[proxy, ask]}"
    record_property("classes", classes)
    record_property("connections answered differently", seen)
    assert classes  # a test that compares nothing proves nothing
    assert seen


def _pair(rng: random.Random, number: int, own: str) -> tuple[Configuration, Configuration]:
    """A configuration before and after a change, both as `_accepted` has them.

    Most random changes concern no connection, so every other pair is drawn until one does.
    """
    while True:
        before = _accepted(rng, number, own)
        after = mutated(rng, before)
        states = list(_states(after))
        if not all(_is_decided(state, number) for state in states):
            continue
        if number % 2 or compare(list(_states(before))[-1], states[-1]).differences:
            return before, after


def _examples(
    tried: Tried, snapshot: Snapshot, reported: Comparison
) -> Iterator[tuple[Difference, Proxy, Ask]]:
    """The example of each class, and a proxy that can be asked."""
    for difference in reported.differences:
        example, place = difference.example, difference.places[0]
        assert isinstance(example, Connection)
        for proxy, known in tried.places(snapshot):
            identity = proxy.identity
            ask = Ask(
                "" if place.proxy.is_gateway else example.host, example.port, example.server_name
            )
            if (
                known.is_gateway is place.proxy.is_gateway
                and identity.namespace == place.proxy.namespace
                and place.proxy.labels.items() <= identity.labels.items()
                and _fits(ask, known)
                and example.address in (None, "127.0.0.1")
            ):
                yield difference, proxy, ask
                break


def _dials_otherwise(tried: Tried, states: Iterable[Snapshot], proxy: str, ask: Ask) -> bool:
    """Whether a client that calls a Service meets other chains than these tests do.

    It dials the Service's own address, and they 127.0.0.1.
    """
    return ask.host.endswith(".local") and any(
        _decided(tried, each, proxy, ask) != _decided(tried, each, proxy, ask, dialled=False)
        for each in states
    )


def _decided(
    tried: Tried, snapshot: Snapshot, proxy: str, ask: Ask, *, dialled: bool = True
) -> tuple[object, ...]:
    """The identity of what decides on a connection, as `compare` has it.

    That is to 127.0.0.1, which the tests dial, or to the host's own address.
    """
    router = Router(snapshot)
    place = next(place for each, place in tried.places(snapshot) if str(each) == proxy)
    connection = _connection(ask, place)
    if not dialled:
        connection = replace(connection, address=None)
    trace = Tracer(router).connect(place, connection)
    rest = "closed" if place.is_gateway else "blackhole"
    kind = "chain" if trace.chain else rest
    return Decision(Conditions(), fixed("", ""), None, kind, trace.chain).identity
