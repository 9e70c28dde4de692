"""Random configurations of a small mesh, changes to them, and requests near their constants."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.routing.request import Request

Manifest = dict[str, Any]

PATHS = ["/", "/a", "/a/b", "/ab", "/A", "/b", "/v1/x", "/v12", "/a/"]
PREFIXES = ["/", "/a", "/a/", "/v", "/b", "/A", ""]
EXPRESSIONS = ["/a.*", "/[ab]+", "/v[0-9]+(/.*)?", "^/a$", ".*", "(?i)/A/B", "/(a|b)/[^/]*"]
REPLACED = [
    {"match": "^/a/(.*)$", "rewrite": "/\\1"},
    {"match": "/b", "rewrite": "/"},
    {"match": "^/a", "rewrite": ""},
]
VALUES = ["x", "xy", "y", "1", ""]
VALUE_EXPRESSIONS = ["x.*", "[0-9]+", ".*y", "x|y", "*", "\\bx\\b.*"]
HEADERS = ["x-user", "x-kind", "cookie"]
PARAMETERS = ["q", "page"]
HOSTS = ["web", "api.example.org", "*.example.org", "*", "a.b.example.org", "web.shop", "*.org"]
NAMES = [
    "web.shop.svc.cluster.local",
    "web.shop",
    "api.example.org",
    "API.example.org:8080",
    "other.example.org",
    "a.b.example.org",
    "example.org",
    "x.org",
    "unrelated.test",
    "pay.shop.svc.cluster.local",
]
NAMESPACES = ["shop", "team", "far"]
LABELS: list[Mapping[str, str]] = [{}, {"app": "a"}, {"app": "b"}, {"app": "a", "tier": "1"}]
METHODS = ["GET", "POST", "PUT"]


class _Origin:
    name = "random"

    def locate(self, path: object) -> None:
        return None


def resource(manifest: Manifest) -> Resource:
    return as_resource(manifest, _Origin())


def snapshot(manifests: Sequence[Manifest]) -> Snapshot:
    return Snapshot([resource(copy.deepcopy(each)) for each in manifests])


def istio(kind: str, namespace: str, name: str, age: int, spec: Manifest) -> Manifest:
    stamp = f"2024-01-01T00:00:{age:02}Z"
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": stamp},
        "spec": spec,
    }


def mesh(choose: random.Random) -> list[Manifest]:
    """Two Services, a DestinationRule, a Gateway and up to five VirtualServices."""
    found: list[Manifest] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "shop", "name": name},
            "spec": {
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80}, {"name": "http-more", "port": 8080}],
            },
        }
        for name in ("web", "pay")
    ]
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    rule: Manifest = {"host": "web.shop.svc.cluster.local", "subsets": subsets}
    if choose.random() < 0.3:
        rule["exportTo"] = [choose.choice([".", "*", "team"])]
    found.append(istio("DestinationRule", "shop", "web", 0, rule))
    if choose.random() < 0.4:
        chosen: Manifest = {**rule, "workloadSelector": {"matchLabels": choose.choice(LABELS)}}
        chosen["subsets"] = [{"name": "v1", "labels": {"version": "v9"}}]
        where = choose.choice(NAMESPACES)
        found.append(istio("DestinationRule", where, "chosen", choose.choice([0, 1]), chosen))
    found.append(gateway(choose, "gw"))
    found += [
        virtual_service(choose, f"vs{number}", number) for number in range(choose.randint(1, 4))
    ]
    if choose.random() < 0.4:
        found.append(
            istio("VirtualService", "shop", "leaf", 9, {"http": rules(choose, delegate=False)})
        )
    return found


def gateway(choose: random.Random, name: str) -> Manifest:
    servers = []
    for port in choose.sample([80, 8080], choose.randint(1, 2)):
        hosts = choose.sample(
            ["*", "*.example.org", "api.example.org", "shop/*.org", "./*"], choose.randint(1, 2)
        )
        server: Manifest = {
            "port": {"number": port, "name": f"http-{port}", "protocol": "HTTP"},
            "hosts": hosts,
        }
        if choose.random() < 0.15:
            server["tls"] = {"httpsRedirect": True}
        servers.append(server)
    return istio("Gateway", "shop", name, 0, {"selector": {"istio": "gw"}, "servers": servers})


def virtual_service(choose: random.Random, name: str, age: int) -> Manifest:
    spec: Manifest = {"hosts": choose.sample(HOSTS, choose.randint(1, 2))}
    if choose.random() < 0.6:
        spec["gateways"] = choose.sample(["mesh", "shop/gw", "shop/new"], choose.randint(1, 2))
    if choose.random() < 0.3:
        spec["exportTo"] = [choose.choice([".", "*", "team"])]
    spec["http"] = rules(choose)
    return istio("VirtualService", choose.choice(["shop", "shop", "team"]), name, age, spec)


def rules(choose: random.Random, *, delegate: bool = True) -> list[Manifest]:
    return [rule(choose, delegate=delegate) for _ in range(choose.randint(1, 4))]


def rule(choose: random.Random, *, delegate: bool) -> Manifest:
    found: Manifest = {}
    if choose.random() < 0.8:
        found["match"] = [match(choose) for _ in range(choose.randint(1, 3))]
    kind = choose.random()
    if delegate and kind < 0.15:
        found["delegate"] = {"namespace": "shop", "name": "leaf"}
    elif kind < 0.5:
        found["directResponse"] = {"status": choose.randint(200, 206)}
    else:
        host = "web.shop.svc.cluster.local"
        subset = choose.choice(["v1", "v2", "v3"])
        found["route"] = [
            {"destination": {"host": host, "subset": subset, "port": {"number": 80}}, "weight": 30},
            {"destination": {"host": "pay.shop.svc.cluster.local"}, "weight": 70},
        ][: choose.randint(1, 2)]
    if "route" in found and choose.random() < 0.5:
        found["rewrite"] = rewrite(choose)
    if choose.random() < 0.2:
        found["timeout"] = choose.choice(["1s", "1000ms", "0s", "2s"])
    return found


def rewrite(choose: random.Random) -> Manifest:
    """Often one that makes the same of a path by another match, by what the prefixes share."""
    if choose.random() < 0.15:
        return {"uriRegexRewrite": choose.choice(REPLACED)}
    return {"uri": choose.choice(["/", "/a", "/a/", "/ab", "/v"])}


def string(
    choose: random.Random, exact: list[str], prefix: list[str], regex: list[str]
) -> Manifest:
    kind = choose.choice(["exact", "prefix", "regex"])
    return {kind: choose.choice({"exact": exact, "prefix": prefix, "regex": regex}[kind])}


def match(choose: random.Random) -> Manifest:
    found: Manifest = {}
    if choose.random() < 0.7:
        found["uri"] = string(choose, PATHS, PREFIXES, EXPRESSIONS)
        if choose.random() < 0.2:
            found["ignoreUriCase"] = True

    def value() -> Manifest:
        return string(choose, VALUES, VALUES, VALUE_EXPRESSIONS)

    for field, chance in (("headers", 0.4), ("withoutHeaders", 0.2)):
        if choose.random() < chance:
            names = choose.sample(HEADERS, choose.randint(1, 2))
            found[field] = {name: choose.choice([value(), {}]) for name in names}
    if choose.random() < 0.15:
        found["queryParams"] = {choose.choice(PARAMETERS): value()}
    if choose.random() < 0.2:
        found["method"] = string(choose, METHODS, ["P", "PU", "G"], ["GET|POST", "P.*"])
    if choose.random() < 0.1:
        found["scheme"] = {"exact": choose.choice(["http", "https"])}
    if choose.random() < 0.12:
        found["authority"] = string(choose, NAMES, ["api", "web", "a"], [".*:8080", "[a-z.]+"])
    if choose.random() < 0.12:
        found["port"] = choose.choice([80, 8080])
    if choose.random() < 0.15:
        found["sourceLabels"] = dict(choose.choice(LABELS[1:]))
    if choose.random() < 0.12:
        found["sourceNamespace"] = choose.choice(NAMESPACES)
    if choose.random() < 0.15:
        found["gateways"] = [choose.choice(["mesh", "shop/gw"])]
    return found


def mutated(choose: random.Random, manifests: Sequence[Manifest]) -> list[Manifest]:
    """A copy with one to three changes."""
    found = copy.deepcopy(list(manifests))
    for _ in range(choose.randint(1, 3)):
        _mutate(choose, found)
    return found


def _mutate(choose: random.Random, found: list[Manifest]) -> None:
    services = [each for each in found if each["kind"] == "VirtualService"]
    if not services:
        return
    chosen = choose.choice(services)
    http = chosen["spec"]["http"]
    number = choose.randrange(len(http)) if http else 0
    change = choose.randrange(11)
    if change == 0 and http:
        http.insert(choose.randint(0, len(http)), http.pop(number))
    elif change == 1 and len(http) > 1:
        del http[number]
    elif change == 2:
        http.insert(choose.randint(0, len(http)), rule(choose, delegate=False))
    elif change == 3 and http:
        http[number]["match"] = [match(choose)]
    elif change == 4 and http and http[number].get("match"):
        choose.choice(http[number]["match"])["uri"] = string(choose, PATHS, PREFIXES, EXPRESSIONS)
    elif change == 5:
        found.append(gateway(choose, "new"))
    elif change == 6 and len(services) > 1:
        found.remove(chosen)
    elif change == 7 and "hosts" in chosen["spec"]:
        chosen["spec"]["hosts"] = choose.sample(HOSTS, choose.randint(1, 2))
    elif change == 8:
        chosen["spec"]["exportTo"] = [choose.choice([".", "*", "team", "far"])]
    elif change == 9:
        for each in found:
            if each["kind"] == "DestinationRule":
                each["spec"]["subsets"] = each["spec"]["subsets"][choose.randint(0, 1) :]
    else:
        stamp = f"2024-01-01T00:00:{choose.randint(0, 9):02}Z"
        chosen["metadata"]["creationTimestamp"] = stamp


def near(choose: random.Random, constant: str) -> str:
    kind = choose.random()
    if kind < 0.5:
        return constant
    if kind < 0.7:
        return constant + choose.choice(["x", "/", "y1", "b"])
    return constant.swapcase() if kind < 0.85 else constant[:-1]


def request(choose: random.Random, port: int) -> Request:
    path = near(choose, choose.choice(PATHS + PREFIXES))
    headers = {
        name: near(choose, choose.choice(VALUES)) for name in HEADERS if choose.random() < 0.35
    }
    query = "&".join(
        f"{name}={near(choose, choose.choice(VALUES))}".replace("/", "")
        for name in PARAMETERS
        if choose.random() < 0.3
    )
    return Request(
        authority=choose.choice(NAMES),
        port=port,
        path=path if path.startswith("/") else "/" + path,
        query=query,
        method=choose.choice([*METHODS, "DELETE"]),
        headers={name: value.strip() for name, value in headers.items()},
    )
