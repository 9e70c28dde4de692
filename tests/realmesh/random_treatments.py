"""Random VirtualServices whose rules do all that rules can do, and requests that show it.

Each configuration keeps to hosts and names of its own, numbered. Destinations and copies are three
Services that all share, UPSTREAMS: `one` has a pod of each of two versions, with a subset each and
one without pods, `two` has one port, `three` has two.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from .build import istio_release
from .manifests import Object, destination_rule, istio, subset
from .random_routes import GATEWAYS, Ask, Configuration, service

NAMESPACE = "a"
UPSTREAMS: dict[str, dict[str, int]] = {
    "one": {"http": 7000},
    "two": {"http": 7100},
    "three": {"http": 80, "http-other": 7000},
}
TARGET_PORTS = {"http": 9100, "http-other": 9200}
"""Where the pods of UPSTREAMS listen: it shows which of a Service's ports was meant."""
VERSIONS = {"one": ("v1", "v2"), "two": ("v1",), "three": ("v1",)}
SUBSETS = destination_rule(
    "one",
    "one",
    *(subset(version, version=version) for version in ("v1", "v2", "gone")),
    namespace=NAMESPACE,
)

HEADERS = ("x-one", "x-two", "x-three")
"""Those that rules change in requests and answers."""
ORIGINS = ("http://one.example.com", "http://two.example.com", "https://other.example.org")
SLOW = 1.2  # seconds
_BEFORE_1_31 = istio_release() == "1.22"

_PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/b", "/a/b/c")


def configuration(rng: random.Random, number: int) -> Configuration:
    """Two VirtualServices, each for a host of its own, sometimes with a delegate."""
    waves: list[list[Object]] = [[], [], []]
    delegates = []
    if rng.random() < 0.25:
        name = f"d{number}"
        rules = [_rule(rng, number, f"{name}-{i}") for i in range(rng.choice([1, 2]))]
        waves[0].append(istio("VirtualService", name, NAMESPACE, http=rules))
        delegates.append(name)
    for index, host in enumerate((f"s{number}", f"h{number}.example.com")):
        name = f"v{number}-{index}"
        rules = [
            _rule(rng, number, f"{name}-{i}", delegates) for i in range(rng.choice([2, 3, 4, 5]))
        ]
        bound = ["mesh", *(GATEWAYS if rng.random() < 0.8 else GATEWAYS[:1])]
        made = istio("VirtualService", name, NAMESPACE, hosts=[host], gateways=bound, http=rules)
        waves[2].append(made)
    return Configuration(number, [service(f"s{number}", {"http": 80, "http-other": 5000})], waves)


def mutated(rng: random.Random, whole: Configuration) -> Configuration:
    """The same objects after one change: of the rules' order, a match, or anything that they do."""
    while True:
        waves = copy.deepcopy(whole.waves)
        rules = rng.choice([item for wave in waves for item in wave])["spec"]["http"]
        rule = rng.choice(rules)
        change = rng.choice(["move", "remove", "match", "action", "destination", *_FIELDS])
        if change == "move":
            rules.remove(rule)
            rules.insert(rng.randrange(len(rules) + 1), rule)
        elif change == "remove" and len(rules) > 1:
            rules.remove(rule)
        elif change == "match":
            rule["match"] = [*(rule.get("match") or [])[1:], _match(rng)]
        elif change == "action" and "delegate" not in rule:
            drawn = _rule(rng, whole.number, rule["name"])
            for field in ("route", "redirect", "directResponse"):
                rule.pop(field, None)
                if field in drawn:
                    rule[field] = drawn[field]
        elif change == "destination" and "route" in rule:
            entry = rng.choice(rule["route"])
            drawn = _weighted(rng, whole.number, None)
            if len(rule["route"]) > 1 and rng.random() < 0.3:
                for each in rule["route"]:
                    each["weight"] = 0 if each.get("weight") else 100
            elif rng.random() < 0.5:
                entry["destination"] = drawn["destination"]
            else:
                entry.pop("headers", None)
                entry |= {key: drawn[key] for key in ("headers",) if key in drawn}
        elif change in _FIELDS and change in rule and rng.random() < 0.4:
            del rule[change]
        elif change in _FIELDS:
            rule[change] = _FIELDS[change][1](rng, whole.number)
        if waves != whole.waves:
            return Configuration(whole.number, whole.services, waves)


def requests(rng: random.Random, number: int, count: int) -> Iterator[Ask]:
    """Requests to the hosts of a configuration, some of which fail upstream, or take long."""
    for _ in range(count):
        headers: dict[str, str] = {}
        for name in HEADERS:
            if rng.random() < 0.3:
                headers[name] = "asked"
            if rng.random() < 0.3:
                headers[f"x-reply-{name}"] = "replied"
        method = rng.choice(["GET", "GET", "GET", "POST", "OPTIONS"])
        if rng.random() < (0.7 if method == "OPTIONS" else 0.25):
            headers["origin"] = rng.choice(ORIGINS)
            if rng.random() < 0.7:
                headers["access-control-request-method"] = "PUT"
        chance = rng.random()
        if chance < 0.2:
            headers["x-fail"] = rng.choice(["503", "503", "500", "409"])
        elif chance < 0.25:
            headers["x-reply-grpc-status"] = "14"
        elif chance < 0.29:
            headers["x-slow"] = str(SLOW)
        own = f"s{number}.{NAMESPACE}.svc.cluster.local"
        host, port = rng.choice([(f"h{number}.example.com", 80), (own, 80), (own, 5000)])
        yield Ask(
            method=method,
            host=host,
            port=port,
            path=rng.choice([*_PATHS, "/a/x"]) + rng.choice(["", "", "?q=1"]),
            headers=tuple(headers.items()),
        )


def _rule(rng: random.Random, number: int, name: str, delegates: list[str] | None = None) -> Object:
    rule: Object = {"name": name}
    if rng.random() < 0.8:
        rule["match"] = [_match(rng) for _ in range(rng.choice([1, 1, 2]))]
    kind = rng.random()
    if delegates and rng.random() < 0.6:
        rule["delegate"] = {"name": rng.choice(delegates)}
    elif kind < 0.15:
        rule["redirect"] = _redirect(rng)
    elif kind < 0.25:
        rule["directResponse"] = _direct_response(rng, name)
    if kind >= 0.25 or rng.random() < 0.2:
        rule["route"] = _route(rng, number)
    if "delegate" in rule:
        rule.pop("route", None)
    for field, (chance, make) in _FIELDS.items():
        if rng.random() < chance:
            rule[field] = make(rng, number)
    return rule


def _match(rng: random.Random) -> Object:
    kind = rng.choice(["exact", "prefix", "prefix", "regex", ""])
    text = rng.choice(["/a.*", "/[ab]", "/.*"]) if kind == "regex" else rng.choice(_PATHS)
    match: Object = {"uri": {kind: text}} if kind else {}
    if kind and kind != "regex" and rng.random() < 0.1:
        match["ignoreUriCase"] = True
    if not kind or rng.random() < 0.2:
        match["headers"] = {rng.choice(HEADERS): {"exact": "asked"}}
    return match


def _redirect(rng: random.Random) -> Object:
    found: Object = {}
    if rng.random() < 0.6:
        found["uri"] = rng.choice(["/new", "/new?r=2", "/", "new"])
    elif not _BEFORE_1_31 and rng.random() < 0.5:
        found["prefixRewrite"] = rng.choice(["/", "/new", "/new/"])
    if rng.random() < 0.4:
        found["authority"] = rng.choice(["new.example.com", "new.example.com:81"])
    if rng.random() < 0.4:
        found["scheme"] = rng.choice(["http", "https"])
    chance = rng.random()
    if chance < 0.3:
        found["port"] = rng.choice([80, 443, 8080])
    elif chance < 0.6:
        found["derivePort"] = rng.choice(["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])
    if rng.random() < 0.5:
        found["redirectCode"] = rng.choice([301, 302, 303, 307, 308])
    return found


def _direct_response(rng: random.Random, name: str) -> Object:
    found: Object = {"status": rng.choice([200, 202, 404, 503])}
    if rng.random() < 0.8:
        found["body"] = rng.choice([{"string": name}, {"bytes": "Ynl0ZXM="}])
    return found


def _route(rng: random.Random, number: int) -> list[Object]:
    """One destination, or two, of which one gets everything."""
    if rng.random() < 0.6:
        return [_weighted(rng, number, rng.choice([None, None, 0, 100]))]
    found = [_weighted(rng, number, 100), _weighted(rng, number, rng.choice([0, None]))]
    rng.shuffle(found)
    return found


def _weighted(rng: random.Random, number: int, weight: int | None) -> Object:
    found: Object = {"destination": _destination(rng, number)}
    if weight is not None:
        found["weight"] = weight
    if rng.random() < 0.4:
        found["headers"] = _headers(rng, number)
    return found


def _destination(rng: random.Random, number: int, *, single: bool = False) -> Object:
    """A destination, for the most part one that is there; a `single` one has one pod at most."""
    name = rng.choice(list(UPSTREAMS))
    found: Object = {"host": rng.choice([name, f"{name}.{NAMESPACE}.svc.cluster.local"])}
    chance = rng.random()
    if chance < 0.04:
        found["host"] = "missing"
    elif chance < 0.08:
        found["host"] = f"s{number}"
    elif name == "one" and (single or rng.random() < 0.7):
        found["subset"] = rng.choice(["v1", "v1", "v2", "v2", "gone", "undefined"])
    if rng.random() < 0.75:
        found["port"] = {"number": rng.choice(list(UPSTREAMS[name].values()))}
    return found


def _headers(rng: random.Random, number: int) -> Object:
    found: Object = {}
    for way, chance in (("request", 0.7), ("response", 0.6)):
        if rng.random() < chance:
            found[way] = _operations(rng)
    if rng.random() < 0.15:
        name = rng.choice(["Host", ":authority"])
        verb = rng.choice(["set", "set", "add"])
        operations = found.setdefault("request", {})
        operations.setdefault(verb, {})[name] = f"{rng.choice('xyz')}{number}.headers.example.com"
    return found


def _operations(rng: random.Random) -> Object:
    found: Object = {}
    for verb in ("set", "add"):
        if rng.random() < 0.5:
            names = rng.sample(HEADERS, rng.choice([1, 1, 2]))
            found[verb] = {_cased(rng, name): f"{verb}{rng.randrange(100)}" for name in names}
    if rng.random() < 0.3:
        found["remove"] = [_cased(rng, name) for name in rng.sample(HEADERS, rng.choice([1, 2]))]
    return found


def _cased(rng: random.Random, name: str) -> str:
    return name.title() if rng.random() < 0.2 else name


def _rewrite(rng: random.Random, number: int) -> Object:
    found: Object = {}
    chance = rng.random()
    if chance < 0.4:
        found["uri"] = rng.choice(["/", "/a", "/a/", "/new"])
    elif chance < 0.7:
        found["uriRegexRewrite"] = rng.choice(
            [
                {"match": "^/a/(.*)$", "rewrite": r"/\1/x"},
                {"match": "/b", "rewrite": "/c"},
                {"match": "b", "rewrite": ""},
            ]
        )
    if rng.random() < 0.5:
        found["authority"] = f"{rng.choice('xyz')}{number}.rewritten.example.com"
    return found


def _mirror(rng: random.Random, number: int) -> Object:
    return _destination(rng, number, single=True)


def _mirrors(rng: random.Random, number: int) -> list[Object]:
    found = []
    for _ in range(rng.choice([1, 1, 2])):
        policy: Object = {"destination": _mirror(rng, number)}
        if rng.random() < 0.5:
            policy["percentage"] = rng.choice([{"value": 100}, {"value": 100}, {"value": 0}, {}])
        found.append(policy)
    return found


def _percentage(rng: random.Random, number: int) -> Object:
    return {"value": rng.choice([100, 100, 0])}


def _percent(rng: random.Random, number: int) -> int:
    return rng.choice([100, 0])


def _timeout(rng: random.Random, number: int) -> str:
    return rng.choice(["0.4s", "400ms", "2s"])


def _retries(rng: random.Random, number: int) -> Object:
    found: Object = {}
    if rng.random() < 0.9:
        found["attempts"] = rng.choice([0, 1, 2, 3])
    if rng.random() < 0.8:
        found["retryOn"] = rng.choice(
            ["5xx", "gateway-error", "503", "503,500", "retriable-4xx", "reset, 500", "unavailable"]
        )
    if rng.random() < 0.2:
        found["perTryTimeout"] = "0.4s"
    if not _BEFORE_1_31 and rng.random() < 0.3:
        found["retryIgnorePreviousHosts"] = False
    return found


def _fault(rng: random.Random, number: int) -> Object:
    kinds: list[Object] = [{"httpStatus": 418}, {"httpStatus": 503}, {"grpcStatus": "UNAVAILABLE"}]
    abort = rng.choice([*kinds, {}])
    chance = rng.random()
    if chance < 0.75:
        abort["percentage"] = {"value": 100}
    elif chance < 0.85:
        abort["percentage"] = {"value": 0}
    return {"abort": abort}


def _cors(rng: random.Random, number: int) -> Object:
    found: Object = {}
    chance = rng.random()
    if chance < 0.1:
        found["allowOrigin"] = [ORIGINS[0]]
    elif chance < 0.9:
        wanted: list[Object] = [
            {"exact": ORIGINS[0]},
            {"prefix": "http://"},
            {"regex": "http://(one|two).*"},
            {"regex": "[*]"},
            {"exact": "*"},
        ]
        found["allowOrigins"] = rng.sample(wanted, rng.choice([1, 1, 2]))
    if rng.random() < 0.5:
        found["allowMethods"] = rng.choice([["GET"], ["GET", "PUT"]])
    if rng.random() < 0.4:
        found["allowHeaders"] = ["x-one", "x-two"]
    if rng.random() < 0.4:
        found["exposeHeaders"] = ["x-one"]
    if rng.random() < 0.4:
        found["maxAge"] = rng.choice(["24h", "60s", "1m30s"])
    if rng.random() < 0.4:
        found["allowCredentials"] = rng.choice([True, False])
    if not _BEFORE_1_31 and rng.random() < 0.4:
        found["unmatchedPreflights"] = rng.choice(["FORWARD", "IGNORE"])
    return found


_FIELDS: dict[str, tuple[float, Any]] = {
    "rewrite": (0.4, _rewrite),
    "headers": (0.4, _headers),
    "mirror": (0.2, _mirror),
    "mirrorPercentage": (0.05, _percentage),
    "mirrorPercent": (0.05, _percent),
    "mirrors": (0.2, _mirrors),
    "timeout": (0.3, _timeout),
    "retries": (0.35, _retries),
    "fault": (0.12, _fault),
    "corsPolicy": (0.25, _cors),
}
"""How often a rule has a field, and what makes its value."""
