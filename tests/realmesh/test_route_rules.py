"""What KM601 to KM610 say of routes, on the real mesh: who gets requests, and which never do.

The manifests are those of tests/rules. Each match gets a rule of its own there, in which Envoy
answers with the name of the object and the path of the match; namespaces and hosts are numbered,
so that all manifests are in one mesh at once. Istio's admission is not there.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.dead_rules import reaches
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.rule import Finding
from kubectl_mesh.sources.files import load
from tests.rules.stored import MANIFESTS

from .client import PATIENCE
from .envoy import Proxy
from .manifests import (
    INGRESS,
    Object,
    destination,
    destination_rule,
    gateway,
    istio,
    prefix,
    says,
    server,
    service,
    subset,
    to,
    virtual_service,
)
from .mesh import Mesh
from .settled import NotSettled
from .test_protocols import not_http

APART = ("good-claims-and-odd-texts", "bad-left-out-whole-under-one-root-rule")
"""What admission is needed for, and what depends on the matches of one rule being together."""
JUDGED = [
    file
    for file in MANIFESTS
    if file.parent.name in ("KM601", "KM602", "KM603") and file.stem not in APART
]
FOUGHT_OVER = [
    file
    for file in MANIFESTS
    if file.parent.name == "KM604" and file.stem.startswith("bad") and "waypoint" not in file.stem
]

PATHS = (
    *(
        "/",
        "/a",
        "/a/x",
        "/a/b",
        "/b",
        "/nothing",
        "/cart",
        "/cart/",
        "/cart/items",
        "/cart/items/1",
    ),
    *("/cart?full=1", "/api", "/api/cart", "/apiary", "/blog/new", "/BLOG", "/items/7", "/items/x"),
    *("/API/CART", "/a/aaa", "/x", "/x/7", "/y"),
)
HEADERS: tuple[dict[str, str], ...] = ({}, {"x-beta": "1"}, {"x-none": "a"})


def numbered(file: Path, number: int) -> str:
    text = file.read_text(encoding="utf-8").replace(
        "networking.istio.io/v1\n", "networking.istio.io/v1beta1\n"
    )
    return text.replace("shops", f"s{number}").replace("example.com", f"e{number}.com")


def answering(item: Object) -> Object:
    """A VirtualService, each match of which answers by itself; delegating rules stay."""
    if item["kind"] != "VirtualService":
        return item
    rules: list[Object] = []
    for number, rule in enumerate(item["spec"].get("http", [])):
        for index, match in enumerate(rule.get("match") or [None]):
            path = f"spec.http[{number}]" + ("" if match is None else f".match[{index}]")
            matches = [] if match is None else [match]
            if "delegate" in rule:
                rules.append(
                    {**({"match": matches} if matches else {}), "delegate": rule["delegate"]}
                )
            else:
                rules.append(says(f"{item['metadata']['name']} {path}", *matches))
    return {**item, "spec": {**item["spec"], "http": rules}}


def apply(mesh: Mesh, texts: list[str]) -> None:
    """All of them, the older ones a second before the younger."""
    waves: dict[str, list[Object]] = defaultdict(list)
    for item in (item for text in texts for item in yaml.safe_load_all(text)):
        born = item["metadata"].pop("creationTimestamp", "")
        if item["kind"] == "Service":
            ports = {port["name"]: port["port"] for port in item["spec"]["ports"]}
            where = item["metadata"]
            mesh.service(where["name"], ports=ports, pods={}, namespace=where["namespace"])
        else:
            waves[born].append(answering(item))
    for number, born in enumerate(sorted(waves)):
        if number > 1:
            mesh.next_second()
        mesh.apply(*waves[born])


def snapshot(text: str, folder: Path) -> Snapshot:
    file = folder / "manifest.yaml"
    file.write_text(text)
    resources, unreadable = load([str(file)])
    assert not unreadable
    return Snapshot(resources)


def check(code: str, found: Snapshot) -> list[Finding]:
    return [each for each in BY_CODE[code].check(found) if isinstance(each, Finding)]


def test_what_can_never_match_never_does_and_everything_else_does(
    mesh: Mesh, tmp_path: Path
) -> None:
    """KM601, KM602, KM603: of the manifests of these rules, good ones too, Envoy answers by each
    match but those that are called dead, over all ways in."""
    texts = [numbered(file, number) for number, file in enumerate(JUDGED)]
    apply(mesh, texts)
    clients = [mesh.sidecar("default", {"app": "client"}), mesh.sidecar("web", {"app": "web"})]
    ingress = mesh.gateway(INGRESS, {80: 8080})
    mesh.settled()
    dead: dict[str, set[str]] = {}
    alive: dict[str, set[str]] = {}
    met: dict[str, set[str]] = {}
    for number, (file, text) in enumerate(zip(JUDGED, texts, strict=True)):
        rules, skipped = reaches(snapshot(text, tmp_path))
        assert not skipped
        dead[file.stem] = {
            f"{rule.owner.resource.name} {dotted(rule.path_of(match))}"
            for rule in rules
            for match in rule.dead
        }
        alive[file.stem] = set(_all_answers(text)) - dead[file.stem]
        met[file.stem] = {
            answer
            for proxy in (*clients, ingress)
            for host in hosts(number, text, outside=proxy is ingress)
            for answer in answers(proxy, host)
        }
    none: dict[str, set[str]] = {name: set() for name in met}
    assert {name: met[name] & dead[name] for name in met} == none
    assert {name: alive[name] - met[name] for name in met} == none
    assert sum(map(len, dead.values())) >= 20


def _all_answers(text: str) -> Iterator[str]:
    for item in map(answering, yaml.safe_load_all(text)):
        for rule in item["spec"].get("http", ()):
            if "delegate" not in rule:
                yield rule["directResponse"]["body"]["string"]


def hosts(number: int, text: str, *, outside: bool) -> list[str]:
    """The names, with ports, by which the host of a manifest is called."""
    if outside:
        return [f"shop.e{number}.com", f"www.e{number}.com"]
    ports = (8080, 9090) if "9090" in text else (8080,)
    return [f"shop.s{number}.svc.cluster.local:{port}" for port in ports]


def answers(proxy: Proxy, host: str) -> Iterator[str]:
    """Who answers the requests that are tried."""
    with contextlib.closing(proxy.connect(host)) as connection:
        for method, path, headers in product(("GET", "POST"), PATHS, HEADERS):
            answer = connection.ask(method, host, path, headers)
            if answer.status == 200:
                yield answer.body.decode()


TOLD = re.compile(
    r"(?P<method>\w+) http://(?P<host>[^/]+)(?P<path>/\S*)(?P<headers>(?: with [^,]+)*), "
    r"which (?P<rule>\S+) is for, (?:gets (?P<status>404)|takes (?P<taken>\S+) of "
    r"VirtualService [^/]+/(?P<winner>\S+))"
)


def test_of_virtual_services_that_claim_a_host_one_wins(mesh: Mesh, tmp_path: Path) -> None:
    """KM604: each request that a finding names gets the answer that it tells, 404 or the other's
    rule. For other clients than it names, the rules that lose hold."""
    texts = [numbered(file, number) for number, file in enumerate(FOUGHT_OVER)]
    apply(mesh, texts)
    client = mesh.sidecar("web", {"app": "web"})
    other = mesh.sidecar("default", {"app": "client"})
    mesh.settled()
    lost = 0
    for file, text in zip(FOUGHT_OVER, texts, strict=True):
        (found,) = check("KM604", snapshot(text, tmp_path))
        everybody = "for any client" in found.message
        assert found.evidence
        for line in found.evidence:
            told = TOLD.match(line)
            assert told, line
            asked = (told["method"], f"{told['host']}:8080", told["path"])
            answer = client.request(*asked)
            if told["status"]:
                lost += 1
                assert answer.status == 404, (file, line)
            else:
                assert answer.body.decode() == f"{told['winner']} {told['taken']}", (file, line)
            if not everybody:
                own = f"{found.resource.name} {told['rule']}"
                assert other.request(*asked).body.decode() == own, (file, line)
    assert lost >= 2


def test_a_connection_never_takes_a_covered_tcp_rule(mesh: Mesh, tmp_path: Path) -> None:
    """KM601: the first rule that holds for a proxy counts; one for some clients covers no other."""
    mesh.service("db", ports={"tcp": 5432}, pods={"v1": 1, "v2": 1})
    mesh.service("db-b", ports={"tcp": 5433}, pods={"v1": 1, "v2": 1})
    client = mesh.sidecar("default", {"app": "client"})

    def rules(host: str, *matches: Object) -> Object:
        ways = [to(host, match, subset=f"v{i}") for i, match in enumerate(matches, 1)]
        return istio("VirtualService", host, hosts=[host], tcp=ways)

    whole = rules("db", {}, {"sourceLabels": {"app": "client"}})
    part = rules("db-b", {"sourceLabels": {"app": "other"}}, {"port": 5433})
    versions = [subset(name, version=name) for name in ("v1", "v2")]
    mesh.apply(whole, part, *(destination_rule(name, name, *versions) for name in ("db", "db-b")))
    mesh.settled()
    assert [each.path for each in findings("KM601", tmp_path, whole)] == [("spec", "tcp", 1)]
    assert findings("KM601", tmp_path, part) == []
    assert {b"v1" in not_http(client, 5432) for _ in range(20)} == {True}
    assert {b"v2" in not_http(client, 5433) for _ in range(20)} == {True}


@pytest.fixture
def ingress(mesh: Mesh) -> Proxy:
    """A gateway for all hosts; a Service with two versions."""
    mesh.service("web", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
    proxy = mesh.gateway(INGRESS, {80: 8080})
    mesh.apply(
        gateway("front", server()),
        destination_rule("web", "web", subset("v1", version="v1"), subset("v2", version="v2")),
    )
    return proxy


def web(version: str, **more: Any) -> Object:
    return destination("web", subset=version, **more)


def shared(name: str, *routes: Object) -> Object:
    """A VirtualService of a host of its name that shares requests out."""
    return virtual_service(name, f"{name}.com", {"route": list(routes)}, gateways=["front"])


def findings(code: str, folder: Path, *items: Object) -> list[Finding]:
    return check(code, snapshot(yaml.safe_dump_all(items), folder))


def test_shares_of_weights(mesh: Mesh, ingress: Proxy, tmp_path: Path) -> None:
    """KM605: no weight beside others is none, a single one gets all, the sum is the whole."""
    items = {
        "without": shared("without", web("v1", weight=80), web("v2")),
        "single": shared("single", web("v2", weight=0)),
        "sum": shared("sum", web("v1", weight=60), web("v2", weight=60)),
        "negative-single": shared("negative-single", web("v1", weight=-1)),
    }
    mesh.apply(*items.values())
    mesh.settled()
    told = {name: findings("KM605", tmp_path, item) for name, item in items.items()}
    assert [len(found) for found in told.values()] == [1, 1, 1, 1]
    versions = {
        name: {ingress.request("GET", f"{name}.com").version for _ in range(60)} for name in items
    }
    assert "this destination gets no requests" in told["without"][0].traffic
    assert versions["without"] == {"v1"}
    assert "a single destination gets all requests" in told["single"][0].traffic
    assert versions["single"] == {"v2"}
    assert told["sum"][0].traffic.endswith("50 %, 50 %")
    assert versions["sum"] == {"v1", "v2"}
    assert "rejects" not in told["negative-single"][0].traffic
    assert versions["negative-single"] == {"v1"}


def test_a_delegate_beside_another_action(mesh: Mesh, ingress: Proxy, tmp_path: Path) -> None:
    """KM607: a directResponse beats the delegate's route; a route is lost."""
    leaf = virtual_service("leaf", "", to("web", prefix("/leaf"), subset="v1"))
    roots = [
        virtual_service(
            name, f"{name}.com", {"delegate": {"name": "leaf"}, **action}, gateways=["front"]
        )
        for name, action in (
            ("answer", {"directResponse": {"status": 418}}),
            ("lost", {"route": [web("v2")]}),
            ("moved", {"redirect": {"uri": "/"}}),
        )
    ]
    mesh.apply(leaf, *roots)
    mesh.settled()
    found = findings("KM607", tmp_path, leaf, *roots)
    assert [each.path[-1] for each in found] == ["directResponse", "route", "redirect"]
    assert "answered with it" in found[0].traffic
    assert ingress.request("GET", "answer.com", "/leaf").status == 418
    assert "the route is lost" in found[1].traffic
    assert ingress.request("GET", "lost.com", "/leaf").version == "v1"
    assert ingress.request("GET", "lost.com", "/").status == 404
    assert ingress.request("GET", "moved.com", "/").status == 404


def test_a_dropped_delegates_requests_take_a_later_rule(
    mesh: Mesh, ingress: Proxy, tmp_path: Path
) -> None:
    """KM606: for each way to lose a delegate, or a rule of it."""
    leaves: dict[str, list[Object]] = {
        "missing": [],
        "has-hosts": [virtual_service("has-hosts", "other.com", says("delegate"))],
        "empty": [virtual_service("empty", "")],
        "private": [virtual_service("private", "", says("delegate"), exportTo=["~"])],
        "regex": [virtual_service("regex", "", says("delegate", {"uri": {"regex": "/a/.*"}}))],
        "works": [virtual_service("works", "", says("delegate", prefix("/a/b")))],
    }
    for name, items in leaves.items():
        rules = ({"match": [prefix("/a")], "delegate": {"name": name}}, says("later"))
        items.append(virtual_service(f"{name}-root", f"{name}.com", *rules, gateways=["front"]))
    mesh.apply(*(item for items in leaves.values() for item in items))
    mesh.settled()
    found = {name: findings("KM606", tmp_path, *items) for name, items in leaves.items()}
    said = {name: ingress.request("GET", f"{name}.com", "/a/b").body.decode() for name in leaves}
    assert {name for name in leaves if found[name]} == set(leaves) - {"works"}
    assert said == {name: "later" if found[name] else "delegate" for name in leaves}


def test_a_match_of_its_own_rule_drops_no_others(
    mesh: Mesh, ingress: Proxy, tmp_path: Path
) -> None:
    """KM602: under one of two rules that delegate, one match drops the rule with the other one."""
    delegate: Object = {"delegate": {"name": "leaf"}}
    root = virtual_service(
        "root", "root.com", {"match": [prefix("/a")], **delegate}, delegate, gateways=["front"]
    )
    rest = says("rest")
    leaf = virtual_service("leaf", "", says("own", prefix("/a/b"), prefix("/c")), rest)
    mesh.apply(root, leaf)
    mesh.settled()
    (found,) = findings("KM602", tmp_path, root, leaf)
    assert (found.resource.name, found.path[2:]) == ("leaf", (0, "match", 0))
    assert found.next.startswith("give spec.http[0].match[1] a rule of its own")
    assert answered(ingress, "/a/b", "/c", "/a") == ["rest", "own", "rest"]
    leaf["spec"]["http"] = [says("own", prefix("/a/b")), says("own", prefix("/c")), rest]
    mesh.apply(leaf)
    mesh.settled()
    assert findings("KM602", tmp_path, root, leaf) == []
    assert answered(ingress, "/a/b", "/c", "/a") == ["own", "own", "rest"]


def answered(proxy: Proxy, *paths: str) -> list[str]:
    return [proxy.request("GET", "root.com", path).body.decode() for path in paths]


FREEZING = {
    "KM605 no weights": [shared("bad", web("v1"), web("v2"))],
    "KM605 negative": [shared("bad", web("v1", weight=100), web("v2", weight=-1))],
    "KM608 no action": [virtual_service("bad", "bad.com", {"timeout": "3s"}, gateways=["front"])],
    "KM608 two levels": [
        virtual_service("bad", "bad.com", {"delegate": {"name": "middle"}}, gateways=["front"]),
        virtual_service("middle", "", {"delegate": {"name": "leaf"}}),
        virtual_service("leaf", "", says("leaf")),
    ],
}


def test_what_freezes_the_routes_of_a_port(mesh: Mesh, ingress: Proxy, tmp_path: Path) -> None:
    """KM605, KM608: the routes of other hosts on the port stay as they are until it is repaired."""
    other = virtual_service("other", "other.com", says("0"), gateways=["front"])
    mesh.apply(other)
    mesh.settled()
    for number, (name, items) in enumerate(FREEZING.items(), 1):
        (found,) = findings(name.split()[0], tmp_path, *items)
        assert "rejects all routes of that port, of other hosts too" in found.traffic
        before = rejections(ingress)
        mesh.apply(*items)
        other["spec"]["http"] = [says(str(number))]
        mesh.apply(other)
        deadline = time.monotonic() + PATIENCE
        while rejections(ingress) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rejections(ingress) > before, name
        assert ingress.request("GET", "other.com").body.decode() == str(number - 1), name
        mesh.server.delete(*items)
        mesh.settled()
        assert ingress.request("GET", "other.com").body.decode() == str(number), name


SECURE = service("secure", {"name": "tls", "port": 443})


def rejections(proxy: Proxy) -> int:
    """How many times the proxy has rejected routes."""
    return sum(proxy.stats(r"\.rds\..*\.update_rejected$").values())


def test_what_freezes_the_connections_of_a_port(mesh: Mesh, tmp_path: Path) -> None:
    """KM610: a proxy keeps what it had, and one that starts anew has nothing there."""
    mesh.service("secure", ports={"tls": 443}, pods={"v1": 1, "v2": 1})
    rules = destination_rule(
        "secure", "secure", subset("v1", version="v1"), subset("v2", version="v2")
    )
    client = mesh.sidecar()

    def by_name(*rules: tuple[str, list[str]]) -> Object:
        tls = [to("secure", {"sniHosts": names}, subset=version) for version, names in rules]
        return virtual_service("secure", "secure", tls=tls)

    good, bad = by_name(("v1", ["a.com"])), by_name(("v2", ["a.com"]), ("v1", ["a.com", "b.com"]))
    mesh.apply(rules, good)
    mesh.settled()
    assert findings("KM610", tmp_path, rules, good) == []
    assert client.request("GET", "a.com", sni="a.com").version == "v1"
    (found,) = findings("KM610", tmp_path, rules, SECURE, bad)
    assert found.path == ("spec", "tls", 1, "match", 0)
    mesh.apply(bad)
    with pytest.raises(NotSettled, match="overlapping matching rules are defined"):
        mesh.settled()
    assert client.request("GET", "a.com", sni="a.com").version == "v1"
    newcomer = mesh.sidecar()
    with pytest.raises(ConnectionRefusedError):
        newcomer.request("GET", "a.com", sni="a.com")
