"""Random VirtualServices, and requests that are drawn near the constants in their rules.

Each configuration keeps to hosts and names of its own, numbered, so that many of them fit into one
mesh. In each rule Envoy itself answers, with the name of the object and the rule: `v7-a0/1`; or the
Service ECHO does, which is told that by a header, and tells the path that it got.

The older istiod of the tests is from before 1.21.0. What it does otherwise than every Istio that
the model answers for is steered around there: those that delegate are made last, on the mesh no
wildcard is a host, no path is to match `.*`, and `withoutHeaders` asks for presence alone.
test_delegates.py, test_mesh_routes.py and test_gateway_routes.py show these differences.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .build import istio_release

Object = dict[str, Any]

ECHO = "echo.a.svc.cluster.local"
ECHO_PORT = 7000
RULE = "x-rule"
"""The header that tells ECHO the rule."""
GATEWAYS = ("istio-system/gw1", "istio-system/gw2")
_BEFORE_1_21 = istio_release() == "1.22"
_PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/A", "/b", "/c/d", "/a/b/c")
_PATH_EXPRESSIONS = (
    *("/a.*", "/a/b", "/[ab]", "/.*", "(?i)/A.*", "/a/?", "/(a|b)(/.*)?"),
    *(() if _BEFORE_1_21 else (".*", ".*")),
)
_REWRITES: tuple[Object, ...] = (
    *({"uri": text} for text in ("/", "/a", "/a/", "/b/", "/new")),
    {"uriRegexRewrite": {"match": "^/a/(.*)$", "rewrite": r"/\1"}},
    {"uriRegexRewrite": {"match": "/b", "rewrite": ""}},
)
_VALUES = ("1", "12", "2")
_VALUE_EXPRESSIONS = ("1.*", "[0-9]+", "[0-9]*", ".*", "*")
_HEADERS = ("x-a", "x-b", "X-C")
_PARAMETERS = ("q", "r")


@dataclass(frozen=True)
class Ask:
    """One request: `port` is a Service's; gateways are asked on their own."""

    method: str
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Configuration:
    """Objects in the order of their age: what is in a later wave is younger."""

    number: int
    services: list[Object]
    waves: list[list[Object]]

    @property
    def objects(self) -> list[Object]:
        return [item for wave in self.waves for item in wave]


def configuration(rng: random.Random, number: int) -> Configuration:
    """Up to three VirtualServices that share hosts, with delegates, one or two Services beside."""
    services = [service(f"s{number}", {"http": 80, "http-other": 5000})]
    if rng.random() < 0.5:
        services.append(service(f"u{number}", {"http": 5000}))
    waves: list[list[Object]] = [[], [], []]
    delegates = _delegates(rng, number) if rng.random() < 0.3 else []
    waves[0] += delegates
    names = [each["metadata"]["name"] for each in delegates]
    if names and rng.random() < 0.2:
        names.append("missing")
    for index in range(rng.choice([1, 1, 2, 2, 3])):
        made = _virtual_service(rng, number, index, names)
        last = _BEFORE_1_21 and any("delegate" in rule for rule in made["spec"]["http"])
        waves[2 if last else rng.choice([0, 1])].append(made)
    return Configuration(number, services, waves)


def requests(rng: random.Random, number: int, count: int) -> Iterator[Ask]:
    """Requests to the hosts of a configuration, and to some beside them."""
    own = (
        *(f"s{number}{rest}" for rest in ("", ".a", ".a.svc", ".a.svc.cluster.local", ".b")),
        *(f"s{number}.a.{rest}" for rest in ("svc.cluster.local.", "")),
        *(f"u{number}{rest}" for rest in ("", ".a.svc.cluster.local")),
        *(f"{first}h{number}.example.com" for first in ("", "x.", "y.", "z.x.")),
        f"x.h{number}.example.com.",
    )
    for _ in range(count):
        headers = tuple(
            (name.lower(), rng.choice([*_VALUES, "z"])) for name in _HEADERS if rng.random() < 0.3
        )
        yield Ask(
            method=rng.choice(["GET", "GET", "POST", "PUT"]),
            host=rng.choice(own),
            port=rng.choice([80, 80, 5000]),
            path=rng.choice([*_PATHS, "/a/x", "/bb"])
            + rng.choice(["", "", "?q=1", "?q=12&r=1", "?r", "?q=&q=1"]),
            headers=headers,
        )


def _delegates(rng: random.Random, number: int) -> list[Object]:
    made = []
    for index in range(2):
        name = f"d{number}-{index}"
        spec: Object = {"http": [_rule(rng, number, name, i) for i in range(rng.choice([1, 2, 3]))]}
        if rng.random() < 0.2:
            spec["exportTo"] = [rng.choice([".", "b", "*"])]
        made.append(_object("VirtualService", "a", name, spec))
    return made


def _virtual_service(rng: random.Random, number: int, index: int, delegates: list[str]) -> Object:
    namespace = rng.choice(["a", "a", "a", "b"])
    name = f"v{number}-{rng.choice('abcdef')}{index}"
    hosts = _hosts(rng, number)
    rules = [
        _rule(rng, number, name, i, delegates if namespace == "a" else [])
        for i in range(rng.choice([1, 2, 3, 4]))
    ]
    spec: Object = {"hosts": hosts, "http": rules}
    one, other = GATEWAYS
    bound = [None, ["mesh"], [one], ["mesh", one], [one, other], ["mesh", one, other]]
    if _is_for_gateways(hosts):
        bound = [[one], [one, other]]
    gateways = rng.choice(bound)
    if gateways:
        spec["gateways"] = gateways
    if rng.random() < 0.2:
        spec["exportTo"] = [rng.choice([".", "a", "b", "*"])]
    return _object("VirtualService", namespace, name, spec)


def _hosts(rng: random.Random, number: int) -> list[str]:
    wildcard, below = f"*.h{number}.example.com", f"x.h{number}.example.com"
    all_hosts = [
        f"s{number}",
        f"s{number}.a.svc.cluster.local",
        f"h{number}.example.com",
        below,
        wildcard,
        f"u{number}",
    ]
    hosts = rng.sample(all_hosts, rng.choice([1, 1, 2]))
    one_twice = {f"s{number}", f"s{number}.a.svc.cluster.local"} <= set(hosts)
    return hosts[:1] if one_twice or {wildcard, below} <= set(hosts) else hosts


def _rule(
    rng: random.Random, number: int, name: str, index: int, delegates: list[str] | None = None
) -> Object:
    rule: Object = {"name": f"r{index}"}
    count = rng.choice([0, 1, 1, 1, 2, 3])
    if count:
        rule["match"] = [_match(rng, number) for _ in range(count)]
    if delegates and rng.random() < 0.35:
        rule["delegate"] = {"name": rng.choice(delegates)}
        if rng.random() < 0.3:
            rule["rewrite"] = rng.choice(_REWRITES)
    elif rng.random() < 0.4:
        rule["route"] = [{"destination": {"host": ECHO, "port": {"number": ECHO_PORT}}}]
        rule["headers"] = {"request": {"set": {RULE: f"{name}/{index}"}}}
        if rng.random() < 0.8:
            rule["rewrite"] = rng.choice(_REWRITES)
    else:
        rule["directResponse"] = {"status": 200, "body": {"string": f"{name}/{index}"}}
    return rule


def _match(rng: random.Random, number: int) -> Object:
    match: Object = {}

    def sometimes(chance: float, field: str, value: Any) -> None:
        if rng.random() < chance:
            match[field] = value

    values = _string(rng, _VALUES, _VALUE_EXPRESSIONS)
    authorities = (f"s{number}", f"h{number}.example.com", f"s{number}.a")
    sometimes(0.75, "uri", _string(rng, _PATHS, _PATH_EXPRESSIONS))
    sometimes(0.15, "ignoreUriCase", True)
    sometimes(0.2, "method", _string(rng, ("GET", "POST"), ("GET|PUT", "P.*")))
    sometimes(0.25, "headers", {rng.choice(_HEADERS): rng.choice([values, {}])})
    unwanted: list[Object] = [{}, {"regex": "*"}]
    if not _BEFORE_1_21:
        unwanted += [values, values, {"exact": ""}]
    sometimes(0.15, "withoutHeaders", {rng.choice(_HEADERS): rng.choice(unwanted)})
    sometimes(0.2, "queryParams", {rng.choice(_PARAMETERS): rng.choice([values, {}])})
    sometimes(0.1, "authority", _string(rng, authorities, (".*example.*", "s.*")))
    sometimes(0.05, "scheme", {"exact": rng.choice(["http", "https"])})
    sometimes(0.15, "port", rng.choice([80, 5000]))
    sometimes(0.15, "sourceLabels", {"app": rng.choice(["x", "y"])})
    sometimes(0.12, "sourceNamespace", rng.choice(["a", "b"]))
    some = rng.sample(["mesh", *GATEWAYS], rng.choice([1, 1, 2]))
    sometimes(0.25, "gateways", some)
    return match


def _string(rng: random.Random, values: tuple[str, ...], expressions: tuple[str, ...]) -> Object:
    kind = rng.choice(["exact", "exact", "prefix", "prefix", "regex"])
    return {kind: rng.choice(expressions if kind == "regex" else values)}


def service(name: str, ports: dict[str, int]) -> Object:
    listed = [{"name": port, "port": number} for port, number in ports.items()]
    spec = {"ports": listed, "selector": {"app": name}}
    return {**_object("Service", "a", name, spec), "apiVersion": "v1"}


def _object(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def _is_for_gateways(hosts: list[str]) -> bool:
    """Whether hosts are kept from the mesh."""
    return _BEFORE_1_21 and any(host.startswith("*") for host in hosts)


def mutated(rng: random.Random, whole: Configuration) -> Configuration:
    """The same objects after one change: a rule moved or removed, a match or a binding changed."""
    waves = copy.deepcopy(whole.waves)
    item = rng.choice([item for wave in waves for item in wave])
    spec, rules = item["spec"], item["spec"]["http"]
    rule = rng.choice(rules)
    fixed = _BEFORE_1_21 and any("delegate" in each for each in rules)
    change = rng.choice(["move", "remove", "match", "match", "bind"])
    if change == "move" and len(rules) > 1:
        rules.remove(rule)
        rules.insert(rng.randrange(len(rules) + 1), rule)
    elif change == "remove" and len(rules) > 1 and not fixed:
        rules.remove(rule)
    elif change == "bind" and "hosts" in spec and not _is_for_gateways(spec["hosts"]):
        spec["gateways"] = rng.sample(["mesh", *GATEWAYS], rng.choice([1, 2, 3]))
    else:
        rule["match"] = [*(rule.get("match") or [])[1:], _match(rng, whole.number)]
    return Configuration(whole.number, whole.services, waves)
