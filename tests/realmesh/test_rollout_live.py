"""`kubectl mesh apply` on the real mesh, under load from two sidecars and a gateway.

No request fails. `KUBECTL_MESH_RECONFIGURATIONS` says how many random ones are made, and
`KUBECTL_MESH_SEED` repeats them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.waiting import Waiting
from kubectl_mesh.cli import main

from .debug_pages import debug_pages
from .envoy import Proxy
from .finalizers import HOLD, hold, let_go_soon
from .load import Load
from .manifests import (
    INGRESS,
    destination_rule,
    gateway,
    server,
    service,
    subset,
    to,
    virtual_service,
)
from .mesh import Mesh
from .rollouts import namespaces_emptied
from .routes_tried import SEED

COUNT = int(os.environ.get("KUBECTL_MESH_RECONFIGURATIONS", "4"))
SERVICES = ("web", "api")
VERSIONS = ("v1", "v2")
Subsets = Mapping[str, str]
"""The version that each selects, by name."""


class Shop:
    """Two Services with two versions each, and those who ask for them."""

    def __init__(self, mesh: Mesh, folder: Path, url: str) -> None:
        self.mesh = mesh
        self._folder = folder
        self._url = url
        for name in SERVICES:
            mesh.service(name, ports={"http": 5000}, pods=dict.fromkeys(VERSIONS, 1))
        self.bystander = mesh.sidecar("bystanders")
        self.clients: list[tuple[Proxy, str]] = [
            (mesh.sidecar("default"), "web:5000"),
            (mesh.sidecar("elsewhere"), "api.default:5000"),
            (mesh.gateway(INGRESS, {80: 8080}), "web.example.com"),
        ]
        self.kubectl([gateway("front", server("*.example.com"))])

    def kubectl(self, objects: list[dict[str, Any]]) -> None:
        """Applies objects as everybody does."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.mesh.server.kubectl("apply", "-f", "-", input=text)

    def settled(self, objects: list[dict[str, Any]]) -> None:
        self.kubectl(objects)
        self.mesh.settled()

    def file(self, objects: list[dict[str, Any]]) -> str:
        file = self._folder / "it.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return str(file)

    def arguments(self, *arguments: str) -> list[str]:
        return [
            *(*arguments, "--yes", "--kubeconfig", str(self.mesh.server.kubeconfig)),
            *("--istiod-url", self._url, "--journal", str(self._folder / "journal")),
        ]

    def run(self, *arguments: str) -> int:
        return main(self.arguments(*arguments))

    def apply(self, objects: list[dict[str, Any]], *arguments: str) -> int:
        return self.run("apply", "-f", self.file(objects), *arguments)

    def spec(self, kind: str, name: str = "web") -> dict[str, Any]:
        live = self.mesh.server.kubectl("get", kind, name, "-o", "json").stdout
        found: dict[str, Any] = json.loads(live)["spec"]
        return found

    def routed_to(self) -> str:
        """The first subset that the route of web names."""
        route = self.spec("virtualservice")["http"][0]["route"][0]
        return str(route["destination"]["subset"])

    @contextlib.contextmanager
    def load(self) -> Iterator[list[Load]]:
        with contextlib.ExitStack() as exits:
            loads = [
                exits.enter_context(self.mesh.load(proxy, host, rate=100))
                for proxy, host in self.clients
            ]
            for load in loads:
                load.more(10)
            yield loads
            for load in loads:
                load.more(10)


def release(name: str, subsets: Subsets, *used: str) -> list[dict[str, Any]]:
    """The two objects of a Service: routes to some of its subsets, in equal shares."""
    each = 100 // len(used)
    weights = [*[each] * (len(used) - 1), 100 - each * (len(used) - 1)]
    routes = [
        {"destination": {"host": name, "subset": one}, "weight": weight}
        for one, weight in zip(used, weights, strict=True)
    ]
    return [
        virtual_service(
            name,
            f"{name} {name}.example.com",
            {"route": routes},
            gateways=["mesh", "front"],
        ),
        destination_rule(
            name, name, *(subset(one, version=version) for one, version in subsets.items())
        ),
    ]


FIRST = [*release("web", {"s1": "v1"}, "s1"), *release("api", {"s1": "v1"}, "s1")]
SECOND = release("web", {"s2": "v2"}, "s2")


def failed(loads: list[Load]) -> Counter[tuple[int, str | None]]:
    """The answers that are none of the Services."""
    found: Counter[tuple[int, str | None]] = Counter()
    for load in loads:
        found += Counter({key: count for key, count in load.counts.items() if key[0] != 200})
    return found


@pytest.fixture
def shop(mesh: Mesh, tmp_path: Path) -> Iterator[Shop]:
    with debug_pages(mesh.istiod) as url:
        found = Shop(mesh, tmp_path, url)
        found.settled(FIRST)
        yield found


@pytest.fixture
def own_shop(new_mesh: Callable[..., Mesh], tmp_path: Path) -> Iterator[Shop]:
    """In a mesh that may be broken."""
    mesh = new_mesh()
    with debug_pages(mesh.istiod) as url:
        found = Shop(mesh, tmp_path, url)
        found.settled(FIRST)
        yield found


def test_a_release_and_the_way_back(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    before = shop.spec("destinationrule"), shop.spec("virtualservice")
    with shop.load() as loads:
        assert shop.apply(SECOND, "--dry-run") == 1
        assert (shop.spec("destinationrule"), shop.spec("virtualservice")) == before
        assert shop.apply(SECOND) == 0
        assert shop.spec("destinationrule")["subsets"] == [subset("s2", version="v2")]
        assert {version for _, version in loads[0].fresh(50)} == {"v2"}
        capsys.readouterr()
        assert shop.apply(SECOND) == 0
        assert capsys.readouterr().out == "Nothing to change.\n"
        assert shop.run("undo") == 0
        assert (shop.spec("destinationrule"), shop.spec("virtualservice")) == before
    assert not failed(loads)


def reconfigured(rng: random.Random) -> list[dict[str, Any]]:
    """New subsets and routes for some Services, in any order: added, removed, renamed, swapped."""
    found = []
    for name in rng.sample(SERVICES, rng.choice([1, 2])):
        names = rng.sample(["s1", "s2", "s3", "s4", "s5"], rng.choice([1, 2, 3]))
        subsets = {each: rng.choice(VERSIONS) for each in names}
        found += release(name, subsets, *rng.sample(names, rng.randint(1, len(names))))
    rng.shuffle(found)
    return found


def test_random_reconfigurations(
    shop: Shop, record_property: Callable[[str, object], None]
) -> None:
    """Beside it, what plain kubectl apply of the same files makes of the same requests."""
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_RECONFIGURATIONS={COUNT}")
    rng = random.Random(SEED)
    files = [reconfigured(rng) for _ in range(COUNT)]
    with shop.load() as loads:
        for each in files:
            assert shop.apply(each) == 0, f"KUBECTL_MESH_SEED={SEED}"
        total = sum(load.total for load in loads)
    assert not failed(loads), f"KUBECTL_MESH_SEED={SEED}: {failed(loads)} of {total}"
    shop.settled(FIRST)
    with shop.load() as plain:
        for each in files:
            shop.kubectl(each)
            shop.mesh.settled()
    print(f"kubectl mesh apply: {total} requests, none failed; kubectl apply: {failed(plain)}")
    record_property("requests", total)
    record_property("failed with kubectl apply", dict(failed(plain)))


def on_gateway(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return virtual_service(name, "web.example.com", *rules, gateways=["front"])


def under(prefix: str, action: Mapping[str, Any]) -> dict[str, Any]:
    return {"match": [{"uri": {"prefix": prefix}}], **action}


S1 = to("web", subset="s1")
WEB_RULE = destination_rule("web", "web", subset("s1", version="v1"))
TOGETHER: Mapping[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "path-of-one-host": (
        [
            WEB_RULE,
            on_gateway("one", under("/x", S1), under("/y", S1)),
            on_gateway("two", under("/z", S1)),
        ],
        [on_gateway("one", under("/y", S1)), on_gateway("two", under("/z", S1), under("/x", S1))],
    ),
    "root-and-delegate": (
        [
            WEB_RULE,
            on_gateway("root", under("/x", {"delegate": {"name": "part"}})),
            virtual_service("part", "", under("/x/y", S1)),
        ],
        [
            virtual_service("part", "", under("/", S1)),
            on_gateway("root", under("/", {"delegate": {"name": "part"}})),
        ],
    ),
    "destination-rule": (
        [WEB_RULE, on_gateway("one", S1)],
        [
            destination_rule("web", "api", subset("s1", version="v1")),
            destination_rule("z", "web", subset("s1", version="v1")),
        ],
    ),
}


def test_objects_that_decide_on_the_same_requests(
    new_mesh: Callable[..., Mesh], tmp_path: Path
) -> None:
    """An istiod that sends each change by itself, and files with the wrong one first."""
    mesh = new_mesh(debounce="5ms")
    with debug_pages(mesh.istiod) as url:
        shop = Shop(mesh, tmp_path, url)
        proxy, host = shop.clients[-1]
        for case, (before, after) in TOGETHER.items():
            shop.settled(before)
            with mesh.load(proxy, host, "/x/y", rate=200) as load:
                load.more(10)
                assert shop.apply(after) == 0, case
                mesh.settled()
                assert shop.run("undo") == 0, case
                load.more(10)
            assert not failed([load]), case
            mesh.server.delete(*before)


def test_a_slow_proxy_is_waited_for(shop: Shop) -> None:
    def slow() -> None:
        with shop.bystander.frozen():
            time.sleep(5)

    thread = threading.Thread(target=slow)
    with shop.load() as loads:
        thread.start()
        start = time.monotonic()
        assert shop.apply(SECOND) == 0
        took = time.monotonic() - start
    thread.join()
    assert took > 5
    assert not failed(loads)


@pytest.mark.parametrize("slow", ["proxy", "istiod"])
def test_configuration_that_comes_late(
    shop: Shop, slow: str, record_property: Callable[[str, object], None]
) -> None:
    """It is waited for, by evidence. Beside it, how many requests a delay of a second loses."""
    found = {}
    for wait in ("proxies", "delay=1s"):
        shop.settled(FIRST)
        entered = threading.Event()

        def hold_back(entered: threading.Event = entered) -> None:
            late = shop.mesh.istiod.frozen()
            with shop.mesh.held_back(shop.clients[0][0]) if slow == "proxy" else late:
                entered.set()
                time.sleep(5)

        thread = threading.Thread(target=hold_back)
        with shop.load() as loads:
            thread.start()
            assert entered.wait(10)
            assert shop.apply(SECOND, "--wait-for", wait) == 0
            assert wait != "proxies" or not thread.is_alive()
            thread.join()
            shop.mesh.settled()
        found[wait] = failed(loads)
    print(f"a slow {slow}: {found}")
    record_property(
        "failed with a slow " + slow, {key: dict(those) for key, those in found.items()}
    )
    assert not found["proxies"]


def test_a_proxy_that_acknowledges_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.load() as loads:
        with shop.bystander.frozen():
            assert shop.apply(SECOND, "--timeout", "3s") == 3
            assert f"not {shop.bystander.identity.name}.bystanders" in capsys.readouterr().err
            assert (
                shop.spec("virtualservice")["http"][0]["route"][0]["destination"]["subset"] == "s1"
            )
        assert shop.run("apply", "--resume") == 0
    assert not failed(loads)
    assert shop.spec("destinationrule")["subsets"] == [subset("s2", version="v2")]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has something happen when some steps are made, before the first or another wait begins."""

    def set_up(action: Callable[[], object], wait: int = 1) -> None:
        original = Waiting.proxies
        waits = itertools.count(1)

        def proxies(self: Waiting, *arguments: Any) -> None:
            if next(waits) == wait:
                action()
            original(self, *arguments)

        monkeypatch.setattr(Waiting, "proxies", proxies)

    return set_up


Meanwhile = Callable[..., None]


def test_istiod_stops_in_mid_plan(own_shop: Shop, meanwhile: Meanwhile) -> None:
    meanwhile(own_shop.mesh.istiod.kill)
    with own_shop.load() as loads:
        assert own_shop.apply(SECOND, "--timeout", "5s") == 3
        own_shop.mesh.istiod.start()
        own_shop.mesh.settled()
        assert own_shop.run("apply", "--resume") == 0
    assert not failed(loads)
    assert own_shop.spec("destinationrule")["subsets"] == [subset("s2", version="v2")]


def test_the_api_server_stops_in_mid_plan(own_shop: Shop, meanwhile: Meanwhile) -> None:
    meanwhile(own_shop.mesh.server.kill)
    before = own_shop.spec("destinationrule")
    with own_shop.load() as loads:
        assert own_shop.apply(SECOND, "--timeout", "5s") == 3
        own_shop.mesh.server.start()
        assert own_shop.run("undo") == 0
    assert not failed(loads)
    assert own_shop.spec("destinationrule") == before


@pytest.mark.parametrize("way", ["apply --resume", "undo"])
def test_the_program_is_killed_in_mid_plan(shop: Shop, way: str) -> None:
    command = [
        sys.executable,
        "-m",
        "kubectl_mesh",
        *shop.arguments("apply", "-f", shop.file(SECOND)),
    ]
    before = shop.spec("destinationrule")
    with shop.load() as loads:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while shop.spec("destinationrule") == before:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert shop.routed_to() == "s1"
        assert shop.run(*way.split()) == 0
    assert not failed(loads)
    after = {"undo": before["subsets"], "apply --resume": [subset("s2", version="v2")]}
    assert shop.spec("destinationrule")["subsets"] == after[way]


def test_a_second_person_edits_in_mid_plan(
    shop: Shop, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = json.dumps([{"op": "add", "path": "/spec/http/0/timeout", "value": "9s"}])

    def edit() -> None:
        shop.mesh.server.kubectl("patch", "virtualservice", "web", "--type=json", "-p", patch)

    meanwhile(edit)
    before = shop.spec("destinationrule")
    with shop.load() as loads:
        assert shop.apply(SECOND) == 3
        assert "VirtualService default/web: kubectl-patch (at " in capsys.readouterr().err
        assert shop.run("undo") == 0
    assert not failed(loads)
    assert shop.spec("destinationrule") == before
    assert shop.spec("virtualservice")["http"][0]["timeout"] == "9s"


def test_routes_that_are_set_back_keep_their_subset(shop: Shop, meanwhile: Meanwhile) -> None:
    """During the last wait, before the old subset goes."""
    meanwhile(lambda: shop.kubectl(FIRST[:1]), wait=2)
    with shop.load() as loads:
        assert shop.apply(SECOND) == 3
        shop.mesh.settled()
    assert not failed(loads)
    names = [each["name"] for each in shop.spec("destinationrule")["subsets"]]
    assert (shop.routed_to(), sorted(names)) == ("s1", ["s1", "s2"])


def test_what_was_taken_back_in_part_is_not_gone_on_with(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = ("--timeout", "2s")
    with shop.bystander.frozen():
        assert shop.apply(SECOND, *stopped) == 3
    assert shop.run("apply", "--resume", "--dry-run") == 2
    assert shop.run("apply", "--resume") == 0
    with shop.bystander.frozen():
        assert shop.run("undo", *stopped) == 3
    assert shop.run("apply", "--resume") == 2
    assert shop.run("undo") == 0
    assert shop.routed_to() == "s1"


def test_a_host_goes_from_one_virtual_service_to_another(shop: Shop) -> None:
    inside = release("web", {"s1": "v1"}, "s1")[0]
    outside = release("web", {"s1": "v1"}, "s1")[0]
    inside["spec"] |= {"hosts": ["web"], "gateways": ["mesh"]}
    outside["spec"] |= {"hosts": ["web.example.com"], "gateways": ["front"]}
    outside["metadata"]["name"] = "outside"
    with shop.load() as loads:
        assert shop.apply([inside, outside]) == 0
        shop.mesh.settled()
        assert shop.run("undo") == 0
        shop.mesh.settled()
    assert not failed(loads)


def test_hosts_that_two_exchange_take_two_runs(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    def hosts(one: str, other: str, third: str = "x.example.com") -> list[dict[str, Any]]:
        rules = to("web", subset="s1")
        named = {"web": f"web {one}", "second": other, "third": third}
        gateways = ["mesh", "front"]
        return [virtual_service(*each, rules, gateways=gateways) for each in named.items()]

    shop.settled(hosts("web.example.com", "b.example.com"))
    with shop.load() as loads:
        assert shop.apply(hosts("b.example.com", "web.example.com")) == 3
        assert "apply it in two runs" in capsys.readouterr().err
        moved = hosts("c.example.com", "web.example.com", "b.example.com")
        assert shop.apply(moved) == 0
        steps = [line for line in capsys.readouterr().out.splitlines() if line.endswith("patched")]
        assert [line.split()[1] for line in steps] == [
            "default/third",
            "default/second",
            "default/web",
        ]
        shop.mesh.settled()
        assert shop.run("undo") == 0
        shop.mesh.settled()
    assert not failed(loads)


def test_what_is_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """A subset that is used; one without a pod; fields of somebody else; broken manifests."""
    before = shop.spec("destinationrule"), shop.spec("virtualservice")
    cases = [
        (release("web", {"s2": "v2"}, "s2")[1:], "sends to subset s1 of web.default"),
        (release("web", {"s1": "v1", "s9": "v9"}, "s9"), "no pod is ready for subset s9 of web"),
        ([{**release("web", {"s2": "v2"}, "s2")[0], "kind": "Nothing"}], "knows no Nothing of"),
    ]
    for objects, said in cases:
        assert shop.apply(objects) == 3
        assert said in capsys.readouterr().err
    assert shop.run("apply", "--remove-subset", "web/s1") == 3
    assert shop.run("apply", "--remove-subset", "web/s7") == 2
    theirs = destination_rule("theirs", "other", trafficPolicy={"tls": {"mode": "DISABLE"}})
    shop.mesh.apply(theirs)
    theirs["spec"]["trafficPolicy"]["tls"]["mode"] = "SIMPLE"
    capsys.readouterr()
    assert shop.apply([theirs]) == 3
    assert 'conflict with "realmesh"' in capsys.readouterr().err
    assert (shop.spec("destinationrule"), shop.spec("virtualservice")) == before
    assert shop.apply([theirs], "--force-conflicts") == 0
    assert shop.spec("destinationrule", "theirs")["trafficPolicy"]["tls"] == {"mode": "SIMPLE"}


HOSTS = ("web.example.com", "other.example.com")


def routed(host: str, port: int, *hosts: str) -> list[dict[str, Any]]:
    """All requests for web to one port of a Service, and a Gateway for these hosts."""
    bound = virtual_service(
        "web", " ".join(("web", *hosts)), to(host, port=port), gateways=["mesh", "front"]
    )
    return [gateway("front", server(*hosts)), bound]


def test_what_takes_something_away_waits_for_the_routes(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Service that loses a port, a Gateway that loses a host; and back."""
    names = {"http": 5000, "http-90": 90}
    shop.mesh.service("two", ports=names, target_ports={"http-90": 5000}, pods={"v1": 1})
    ports = [{**port, "protocol": "TCP"} for port in shop.spec("service", "two")["ports"]]
    shop.mesh.server.kubectl("delete", "service", "two")  # so that kubectl has all its fields
    one = service("two", {"name": "http", "port": 5000})
    shop.settled([service("two", *ports), *routed("two", 90, *HOSTS)])
    with shop.load() as loads:
        assert shop.apply([one, *routed("two", 5000, HOSTS[0])]) == 0
        shop.mesh.settled()
        said = capsys.readouterr().out.splitlines()
        steps = [line.partition(" default")[0] for line in said if line.endswith(" patched")]
        assert steps == ["VirtualService", "Service", "Gateway"]
        assert [each["port"] for each in shop.spec("service", "two")["ports"]] == [5000]
        assert shop.run("undo") == 0
        shop.mesh.settled()
    assert not failed(loads)
    assert (
        len(shop.spec("service", "two")["ports"])
        == len(shop.spec("gateways.networking.istio.io", "front")["servers"][0]["hosts"])
        == 2
    )


@pytest.mark.parametrize("first", ["kubectl", "kubectl mesh"])
def test_what_was_taken_back_can_be_applied_again(
    shop: Shop, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All fields are theirs again whose they were: those that go, those that change."""
    policy = {"connectionPool": {"http": {"maxRetries": 3}}, "tls": {"mode": "DISABLE"}}
    ports = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    more = [
        destination_rule("more", "other", trafficPolicy=policy),
        {**service("more", *ports), "spec": {"ports": ports, "sessionAffinity": "ClientIP"}},
    ]
    less = [
        destination_rule("more", "other", trafficPolicy={"tls": {"mode": "SIMPLE"}}),
        {**service("more"), "spec": {"ports": ports[:1], "sessionAffinity": "None"}},
    ]
    if first == "kubectl":
        shop.kubectl(more)
    else:
        assert shop.apply(more) == 0
    at_once = ("--wait-for", "delay=1ms")
    for _ in range(2):
        capsys.readouterr()
        assert shop.apply(less, *at_once) == 0, capsys.readouterr().err
        assert len(shop.spec("service", "more")["ports"]) == 1
        assert shop.spec("destinationrule", "more")["trafficPolicy"] == {"tls": {"mode": "SIMPLE"}}
        assert shop.run("undo", *at_once) == 0
        assert len(shop.spec("service", "more")["ports"]) == 2
        assert shop.spec("destinationrule", "more")["trafficPolicy"] == policy
    assert shop.apply(more, *at_once) == 0
    assert capsys.readouterr().out.endswith("Nothing to change.\n")


def test_interrupted_it_says_how_to_go_on(
    shop: Shop, meanwhile: Meanwhile, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    meanwhile(interrupt)
    with shop.load() as loads:
        assert shop.apply(SECOND) == 130
        said = capsys.readouterr().err
        assert "error: interrupted; 1 of 3 steps are made: kubectl mesh apply --resume" in said
        assert shop.run("apply", "--resume") == 0
    assert not failed(loads)


def test_what_somebody_needs_since_is_not_taken_away(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the stop of a plan and its resumption."""
    with shop.bystander.frozen():
        assert shop.apply(SECOND, "--timeout", "2s") == 3
    shop.settled(
        [virtual_service("late", "late.example.com", to("web", subset="s1"), gateways=["front"])]
    )
    capsys.readouterr()
    with shop.load() as loads:
        assert shop.run("apply", "--resume") == 3
        assert "VirtualService default/late: spec.http[0]" in capsys.readouterr().err
        assert shop.run("undo") == 0
    assert not failed(loads)
    assert shop.routed_to() == "s1"


@pytest.mark.parametrize("way", ["all", "part", "object"])
def test_undo_does_not_take_away_what_somebody_needs_since(
    shop: Shop, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """A subset; the same of a run that was stopped; a whole DestinationRule."""
    if way == "object":
        shop.mesh.server.delete(*FIRST[:2])
    if way == "part":
        with shop.bystander.frozen():
            assert shop.apply(SECOND, "--timeout", "2s") == 3
    else:
        assert shop.apply(SECOND) == 0
    late = virtual_service("late", "late.example.com", to("web", subset="s2"), gateways=["front"])
    shop.settled([late])
    before = shop.spec("destinationrule")
    with shop.mesh.load(shop.clients[-1][0], "late.example.com", rate=100) as load:
        load.more(10)
        capsys.readouterr()
        assert shop.run("undo") == 3
        said = capsys.readouterr().err
        assert "VirtualService default/late: spec.http[0]" in said
        assert "sends to subset s2 of web.default.svc.cluster.local, which is not defined" in said
        assert "undo it all the same with --allow-broken" in said
        assert shop.spec("destinationrule") == before
        load.more(50)
    assert not failed([load])
    shop.mesh.server.delete(late)
    assert shop.run("undo") == 0


def test_what_undo_breaks_is_done_if_it_is_allowed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    made = service("more", {"name": "http", "port": 5000}, app="web")
    assert shop.apply([made]) == 0
    shop.settled([virtual_service("late", "late.example.com", to("more"), gateways=["front"])])
    capsys.readouterr()
    assert shop.run("undo") == 3
    assert "sends to more.default.svc.cluster.local, which no Service" in capsys.readouterr().err
    assert shop.run("undo", "--allow-broken") == 0
    assert "Warning: VirtualService default/late: " in capsys.readouterr().err


def test_what_failed_before_a_run_may_fail_once_it_is_undone(shop: Shop) -> None:
    """For that is what undoing it means; unless somebody else has come to use it."""
    shop.settled(release("web", {"s1": "v1"}, "s9")[:1])
    both = destination_rule("web", "web", subset("s1", version="v1"), subset("s9", version="v2"))
    assert shop.apply([both]) == 0
    late = virtual_service("late", "late.example.com", to("web", subset="s9"), gateways=["front"])
    shop.settled([late])
    assert shop.run("undo") == 3
    shop.mesh.server.delete(late)
    assert shop.run("undo") == 0


def test_what_is_wrong_in_a_namespace_that_is_to_come(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can try it before: it stops, and what was made can be taken back."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "to-come"}}
    wrong = {**service("web", {"name": "x", "port": 70000})}
    wrong["metadata"] = {"name": "web", "namespace": "to-come"}
    assert shop.apply([space, wrong]) == 3
    said = capsys.readouterr().err
    assert "1 of 2 steps are made: kubectl mesh apply --resume" in said
    assert shop.run("undo", "--timeout", "1s") == 3
    said = capsys.readouterr().err
    assert "Namespace to-come is not gone: finalizer kubernetes" in said
    assert shop.apply([space]) == 3
    assert "Namespace to-come is being deleted (since " in capsys.readouterr().err
    with namespaces_emptied(shop.mesh.server):
        assert shop.run("undo") == 0
    wrong["spec"] = {"ports": 5}
    assert shop.apply([space, wrong]) == 3
    assert "spec.ports: expected a list" in capsys.readouterr().err


def test_a_change_that_only_client_side_kubectl_can_make(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.kubectl([service("more", {"name": "http", "port": 5500})])
    assert shop.apply([service("more", {"name": "http", "port": 81})]) == 3
    assert "make this change with kubectl apply" in capsys.readouterr().err


def test_what_is_in_use_is_not_deleted(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.load() as loads:
        for objects, said in (
            ([service("web")], "which no Service and no ServiceEntry provides"),
            ([gateway("front", server("*.example.com"))], "names Gateway default/front, which"),
        ):
            assert shop.apply(objects, "--delete") == 3
            assert said in capsys.readouterr().err
    assert not failed(loads)
    assert shop.apply([service("web"), *FIRST[:2]], "--delete") == 0


def test_pruned_deleted_and_taken_back(shop: Shop) -> None:
    labelled = [
        {**each, "metadata": {**each["metadata"], "labels": {"app": "shop"}}} for each in FIRST
    ]
    assert shop.apply(labelled) == 0
    with shop.load() as loads:
        assert shop.apply(labelled[:2], "--prune", "-l", "app=shop") == 0
        assert shop.run("undo") == 0
        assert not Counter({key: count for key, count in failed(loads).items() if key[0] == 503})
    other = {**labelled[0], "apiVersion": "networking.istio.io/v1alpha3"}
    prune = ("--prune", "-l", "app=shop")
    assert shop.apply([other, *labelled[1:]], *prune) == 0, "another version is the same object"
    assert shop.routed_to() == "s1"
    with shop.load() as loads:
        assert shop.apply(labelled, "--delete") == 0
        shop.mesh.settled()
        assert shop.run("undo") == 0
        shop.mesh.settled()
    assert 503 not in {status for status, _ in failed(loads)}
    assert shop.routed_to() == "s1"
    assert shop.apply(labelled, "--delete") == 0
    listed = shop.mesh.server.kubectl(
        "get", "virtualservices,destinationrules", "-o", "name"
    ).stdout
    assert listed == ""


def test_a_virtual_service_that_its_finalizer_keeps(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """It routes until it is gone, and so long its DestinationRule stays."""
    path = shop.mesh.server.path(FIRST[0])
    hold(shop.mesh.server, path)
    kept = f"VirtualService default/web is not gone: finalizer {HOLD}"
    briefly = ("--timeout", "1s")
    with shop.load() as loads:
        assert shop.apply(FIRST[:2], "--delete", *briefly) == 3
        said = capsys.readouterr().err
        assert kept in said
        assert "the deletion of VirtualService default/web was asked for and is not" in said
        for way in (("apply", "--resume"), ("undo",)):
            assert shop.run(*way, *briefly) == 3
            assert kept in capsys.readouterr().err
        assert shop.apply(FIRST[:1], *briefly) == 3
        assert "default/web is being deleted (since " in capsys.readouterr().err
        assert shop.spec("destinationrule")["subsets"] == [subset("s1", version="v1")]
        with let_go_soon(shop.mesh.server, path):
            assert shop.run("undo") == 0
        assert shop.routed_to() == "s1"
        shop.mesh.settled()
        with let_go_soon(shop.mesh.server, path, after=2):
            assert shop.apply(FIRST[:2], "--delete") == 0
        shop.mesh.settled()
    assert 503 not in {status for status, _ in failed(loads)}
    listed = shop.mesh.server.kubectl("get", "virtualservices,destinationrules", "-o", "name")
    assert "/web" not in listed.stdout


def test_what_undo_deletes_is_gone_before_its_destination_rule(shop: Shop) -> None:
    path = shop.mesh.server.path(FIRST[0])
    shop.mesh.server.delete(*FIRST[:2])
    kept = [{**each, "metadata": {**each["metadata"]}} for each in FIRST[:2]]
    kept[0]["metadata"]["finalizers"] = [HOLD]
    assert shop.apply(kept) == 0
    with shop.load() as loads:
        assert shop.run("undo", "--timeout", "1s") == 3
        assert shop.spec("destinationrule")["subsets"] == [subset("s1", version="v1")]
        with let_go_soon(shop.mesh.server, path):
            assert shop.run("undo") == 0
        shop.mesh.settled()
    assert 503 not in {status for status, _ in failed(loads)}
