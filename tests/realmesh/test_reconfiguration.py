"""Trouble 1: requests fail with 503 while routes are reconfigured, and the order that avoids it.

A route may only name a subset whose cluster Envoy already uses. istiod does not see to that: it
tells each proxy what changed, clusters (CDS) and then routes (RDS), and waits for nothing between
them. Where the route comes first, or both come at once, requests fail until Envoy has the cluster
and its endpoints (EDS): 503 with the flag NC, "no cluster".

In all tests helloworld is asked for by two sidecars, in different namespaces, and a gateway, at 200
requests a second each, while its DestinationRule and its VirtualService change. All tests share one
mesh, and find them as they were at the start.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from .client import PATIENCE
from .envoy import Proxy
from .load import Load
from .manifests import INGRESS
from .mesh import Mesh

pytestmark = pytest.mark.each_istio

GATEWAY = """
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: ingress, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [hello.example.com]}
"""

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {{name: helloworld, namespace: default}}
spec:
  hosts: [helloworld, hello.example.com]
  gateways: [mesh, ingress]
  http:
  - route:
    - destination: {{host: helloworld, subset: {subset}}}
"""

DESTINATION_RULE = """
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {{name: helloworld, namespace: default}}
spec:
  host: helloworld
  subsets: [{subsets}]
"""

CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings-{number}, namespace: default}}
data: {{release: {release}}}
"""

Record = Callable[[str, object], None]
Answers = Counter[tuple[int, str | None]]


def _virtual_service(subset: str) -> str:
    return VIRTUAL_SERVICE.format(subset=subset)


def _destination_rule(subsets: Mapping[str, str], policy: str = "{}") -> str:
    """`subsets` gives the version that each selects, `policy` the trafficPolicy of each."""
    listed = (
        f"{{name: {name}, labels: {{version: {version}}}, trafficPolicy: {policy}}}"
        for name, version in subsets.items()
    )
    return DESTINATION_RULE.format(subsets=", ".join(listed))


class Clients:
    """Who asks for helloworld: a sidecar beside it, one in another namespace, and a gateway."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.all: list[tuple[Proxy, str]] = [
            (mesh.sidecar("default"), "helloworld:5000"),
            (mesh.sidecar("elsewhere"), "helloworld.default:5000"),
            (mesh.gateway(INGRESS, {80: 8080}), "hello.example.com"),
        ]

    @contextlib.contextmanager
    def asking(self) -> Iterator[list[Load]]:
        """While entered, all of them ask; each has had some answers at the start."""
        with contextlib.ExitStack() as exits:
            loads = [
                exits.enter_context(self._mesh.load(proxy, host, rate=200))
                for proxy, host in self.all
            ]
            for load in loads:
                load.more(10)
            yield loads

    def flags(self) -> set[tuple[int, str]]:
        """The statuses and flags that Istio's access logs give for one request of each."""
        lines = [proxy.explain("GET", host) for proxy, host in self.all]
        return {(line["response_code"], line["response_flags"]) for line in lines}


@pytest.fixture(scope="module")
def mesh(session_mesh: Mesh) -> Iterator[Mesh]:
    try:
        yield session_mesh
    finally:
        session_mesh.reset()


@pytest.fixture(scope="module")
def all_clients(mesh: Mesh) -> Clients:
    mesh.service("helloworld", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
    mesh.apply(GATEWAY)
    return Clients(mesh)


@pytest.fixture
def clients(mesh: Mesh, all_clients: Clients) -> Clients:
    """helloworld, of which v1 is routed to as the subset `stable`; v2 runs, too."""
    mesh.apply(_destination_rule({"stable": "v1"}), _virtual_service("stable"))
    mesh.settled()
    return all_clients


def _so_far(loads: list[Load]) -> Answers:
    return sum((load.counts for load in loads), Counter())


def _from_now(loads: list[Load]) -> Answers:
    return sum((load.fresh() for load in loads), Counter())


def _failed(loads: list[Load]) -> list[int]:
    """How many requests of each were not answered by helloworld."""
    return [load.total - load.status(200) for load in loads]


def _assert_all_switched(loads: list[Load], *, before: str, after: str) -> None:
    """Each client got answers of both versions, now gets those of one, and never got a failure."""
    assert set(_from_now(loads)) == {(200, after)}
    for load in loads:
        assert set(load.counts) == {(200, before), (200, after)}


def test_a_route_to_a_subset_that_is_not_there_yet_fails_until_it_is(
    mesh: Mesh, clients: Clients
) -> None:
    """VirtualService first: 503 NC for every request, until the DestinationRule has arrived."""
    with clients.asking() as loads:
        assert set(_from_now(loads)) == {(200, "v1")}
        mesh.apply(_virtual_service("canary"))
        mesh.settled()
        assert set(_from_now(loads)) == {(503, None)}
        assert clients.flags() == {(503, "NC")}
        mesh.apply(_destination_rule({"stable": "v1", "canary": "v2"}))
        mesh.settled()
        assert set(_from_now(loads)) == {(200, "v2")}
        assert all(failed >= 20 for failed in _failed(loads))


def test_destination_rule_then_settled_then_virtual_service_fails_nothing(
    mesh: Mesh, clients: Clients
) -> None:
    subsets = {"stable": "v1"}
    for number in range(3):
        before, after = ("v1", "v2") if number % 2 == 0 else ("v2", "v1")
        subsets[f"release-{number}"] = after
        with clients.asking() as loads:
            mesh.apply(_destination_rule(subsets))
            mesh.settled()
            mesh.apply(_virtual_service(f"release-{number}"))
            mesh.settled()
            _assert_all_switched(loads, before=before, after=after)


class File:
    """An application's manifests in one file, with which kubectl brings out one release by one.

    Each release routes to a subset that is new. Whatever else the application has stands between
    the VirtualService and the DestinationRule: `others` ConfigMaps, which every release changes.
    """

    def __init__(self, mesh: Mesh, path: Path, *, virtual_service_first: bool, others: int) -> None:
        self._mesh = mesh
        self._path = path
        self._virtual_service_first = virtual_service_first
        self._others = others
        self._subsets: dict[str, str] = {"stable": "v1"}

    def release(self, subset: str, version: str) -> None:
        """Applies the file and waits until the mesh has settled."""
        self._subsets[subset] = version
        others = [CONFIG_MAP.format(number=n, release=subset) for n in range(self._others)]
        manifests = [_virtual_service(subset), *others, _destination_rule(self._subsets)]
        if not self._virtual_service_first:
            manifests.reverse()
        self._path.write_text("---".join(manifests))
        self._mesh.server.kubectl("apply", "-f", str(self._path))
        self._mesh.settled()


def _release(file: File, clients: Clients, rounds: int, what: str, record: Record) -> list[int]:
    """How many requests failed in each of so many releases; prints and records it.

    If none did in any, there are further releases, up to 20, until some do: where one in two fails
    some requests, not one of a million such series would fail none. Asserts what is certain
    whatever the order: there is no other failure than 503, and none once the mesh has settled.
    """
    file.release("base", "v1")  # makes what later releases change, as `kubectl apply` wants it
    failed: list[int] = []
    while len(failed) < rounds or (not any(failed) and len(failed) < 20):
        version = "v2" if len(failed) % 2 == 0 else "v1"
        with clients.asking() as loads:
            file.release(f"release-{len(failed)}", version)
            assert set(_from_now(loads)) == {(200, version)}
        assert {status for status, _ in _so_far(loads)} <= {200, 503}
        failed.append(sum(_failed(loads)))
        counts = f"{_failed(loads)} of {[load.total for load in loads]} requests failed"
        record(f"{what}, round {len(failed)}", counts)
        print(f"{what}, round {len(failed)}: {counts}")
    return failed


def test_one_kubectl_apply_with_the_virtual_service_first_fails_requests(
    mesh: Mesh, clients: Clients, tmp_path: Path, record_property: Record
) -> None:
    """VirtualService and DestinationRule next to each other: a few requests, most of the times.

    istiod waits for 100 ms without a change before it tells the proxies, and kubectl mostly needs
    less than that from the one to the other; so both come in one push, and requests fail for the
    milliseconds that Envoy takes to get the endpoints of the new cluster. Now and then it needs
    more, and they fail for as long as it took. No single round is certain to show either.
    """
    file = File(mesh, tmp_path / "application.yaml", virtual_service_first=True, others=0)
    assert any(_release(file, clients, 1, "VirtualService, DestinationRule", record_property))


def test_a_whole_application_in_one_kubectl_apply_fails_requests_every_time(
    mesh: Mesh, clients: Clients, tmp_path: Path, record_property: Record
) -> None:
    """VirtualService first, DestinationRule last in a file: they fail as long as kubectl is busy.

    From one to the other kubectl takes longer than istiod waits for more changes (100 ms), so the
    proxies get the route alone, and the cluster in a later push.
    """
    file = File(mesh, tmp_path / "application.yaml", virtual_service_first=True, others=6)
    assert all(_release(file, clients, 2, "VirtualService ... DestinationRule", record_property))


def test_one_kubectl_apply_with_the_destination_rule_first_is_no_cure(
    mesh: Mesh, clients: Clients, tmp_path: Path, record_property: Record
) -> None:
    """The right order in one file still fails a few requests, most of the times.

    Both come in one push, clusters before routes, but Envoy uses the route at once and the cluster
    only when it has asked for its endpoints and got them. A round without failure is one where no
    request came just then, or where kubectl took so long that istiod pushed twice.
    """
    file = File(mesh, tmp_path / "application.yaml", virtual_service_first=False, others=0)
    assert any(_release(file, clients, 1, "DestinationRule, VirtualService", record_property))


def test_removing_a_subset_that_is_routed_to_fails_requests(mesh: Mesh, clients: Clients) -> None:
    """DestinationRule first: 503 NC for every request, until no route names the subset any more."""
    mesh.apply(_destination_rule({"stable": "v1", "canary": "v2"}))
    mesh.settled()
    with clients.asking() as loads:
        mesh.apply(_destination_rule({"canary": "v2"}))
        mesh.settled()
        assert set(_from_now(loads)) == {(503, None)}
        assert clients.flags() == {(503, "NC")}
        mesh.apply(_virtual_service("canary"))
        mesh.settled()
        assert set(_from_now(loads)) == {(200, "v2")}


def test_virtual_service_then_settled_then_removing_the_subset_fails_nothing(
    mesh: Mesh, clients: Clients
) -> None:
    routed, version = "stable", "v1"
    for number in range(3):
        subset, other = f"release-{number}", "v2" if version == "v1" else "v1"
        mesh.apply(_destination_rule({routed: version, subset: other}))
        mesh.settled()
        with clients.asking() as loads:
            mesh.apply(_virtual_service(subset))
            mesh.settled()
            mesh.apply(_destination_rule({subset: other}))
            mesh.settled()
            _assert_all_switched(loads, before=version, after=other)
        routed, version = subset, other


def test_a_request_under_way_outlives_its_subset(mesh: Mesh, clients: Clients) -> None:
    """Envoy removes a cluster only for requests to come: those under way are answered from it."""
    mesh.apply(_destination_rule({"stable": "v1", "canary": "v2"}))
    mesh.settled()
    with contextlib.ExitStack() as exits:
        connections = []
        for proxy, host in clients.all:
            connection = exits.enter_context(contextlib.closing(proxy.connect(host)))
            connection.putrequest("POST", "/", skip_host=True)
            connection.putheader("Host", host)
            connection.putheader("Content-Length", "4")
            connection.endheaders()
            _wait_for_active_request(proxy, "stable")
            connections.append(connection)
        mesh.apply(_virtual_service("canary"))
        mesh.settled()
        mesh.apply(_destination_rule({"canary": "v2"}))
        mesh.settled()
        for (proxy, host), connection in zip(clients.all, connections, strict=True):
            assert proxy.request("GET", host).version == "v2"
            connection.send(b"done")
            with connection.getresponse() as response:
                assert (response.status, json.load(response)["version"]) == (200, "v1")


def _wait_for_active_request(proxy: Proxy, subset: str) -> None:
    """Waits until a pod of the subset works on a request of the proxy."""
    deadline = time.monotonic() + PATIENCE
    while not any(proxy.stats(rf"\|{subset}\|.*\.upstream_rq_active$").values()):
        assert time.monotonic() < deadline, f"{proxy} has not passed the request on"
        time.sleep(0.01)


def test_a_subset_without_a_ready_pod_fails_requests_only_once_it_is_routed_to(
    mesh: Mesh, clients: Clients
) -> None:
    """503 UH, "no healthy upstream": the order that avoids NC does not avoid this."""
    with clients.asking() as loads:
        mesh.apply(_destination_rule({"stable": "v1", "canary": "v3"}))
        mesh.settled()
        assert set(_from_now(loads)) == {(200, "v1")}
        assert _failed(loads) == [0, 0, 0]
        mesh.apply(_virtual_service("canary"))
        mesh.settled()
        assert set(_from_now(loads)) == {(503, None)}
        assert clients.flags() == {(503, "UH")}
        mesh.apply(_virtual_service("stable"))
        mesh.settled()
        assert set(_from_now(loads)) == {(200, "v1")}


def test_a_subset_that_gets_other_labels_changes_its_pods_without_a_failure(
    mesh: Mesh, clients: Clients
) -> None:
    """The cluster stays: only its endpoints (EDS) change, and Envoy swaps them at one stroke."""
    before, after = "v1", "v2"
    for _ in range(3):
        with clients.asking() as loads:
            mesh.apply(_destination_rule({"stable": after}))
            mesh.settled()
            _assert_all_switched(loads, before=before, after=after)
        before, after = after, before


def test_a_subset_that_gets_another_traffic_policy_fails_nothing(
    mesh: Mesh, clients: Clients
) -> None:
    """The cluster is replaced, and the old one serves until the new one has its endpoints."""
    pattern = r"cluster_manager\.cluster_modified$"
    for number in range(2):
        modified = [sum(proxy.stats(pattern).values()) for proxy, _ in clients.all]
        policy = f"{{connectionPool: {{tcp: {{maxConnections: {100 + number}}}}}}}"
        with clients.asking() as loads:
            mesh.apply(_destination_rule({"stable": "v1"}, policy))
            mesh.settled()
            assert set(_from_now(loads)) == {(200, "v1")}
        assert set(_so_far(loads)) == {(200, "v1")}
        for (proxy, _), times in zip(clients.all, modified, strict=True):
            assert sum(proxy.stats(pattern).values()) > times
