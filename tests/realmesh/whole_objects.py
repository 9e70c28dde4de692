"""Commands on random objects with every field of Istio's kinds, and what the objects are then.

A case has objects, the words of a command, and what it is meant to change. Of the objects of a case
some have every field between them, others have some; `seed` decides on their values.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .conftest import built
from .crd_values import Filling, Path, Schema, specs
from .manifests import Object, istio, service

KINDS = ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar", "WorkloadEntry")
Named = tuple[str, str]
"""The kind and the name of an object."""
SHARES: Mapping[str, float] = {"VirtualService": 0.45, "DestinationRule": 0.3, "Gateway": 0.25}
"""How many of the objects are of which kind."""

_RULE = ("http", "[]")
_APART = {
    _RULE: ("route", "redirect", "directResponse", "delegate"),
    ("servers", "[]", "tls"): ("credentialName", "credentialNames", "tlsCertificates"),
}
_GIVEN: Mapping[str, Mapping[Path, Any]] = {
    "VirtualService": {
        ("hosts",): ["shop"],
        ("exportTo",): ["*"],
        (*_RULE, "delegate", "namespace"): "istio-system",  # which is always read
    },
    "DestinationRule": {
        ("host",): "shop",
        ("exportTo",): ["*"],
        ("subsets", "[]", "labels"): {"version": "v1"},
    },
}
"""The fields on which it depends whether there is something to merge or to repair."""
_MATCHES = [(protocol, "[]", "match", "[]", "gateways") for protocol in ("http", "tls", "tcp")]
_NEEDED: Mapping[str, tuple[Path, ...]] = {
    "VirtualService": (("hosts",), ("exportTo",), ("gateways",), *_MATCHES),
    "DestinationRule": (("host",), ("exportTo",), ("subsets", "[]", "labels")),
    "Gateway": (("selector",),),
}
_SETTINGS = ("timeout", "retries", "fault", "headers", "corsPolicy", "mirrors")
_FRONT: Object = {
    "selector": {"istio": "ingressgateway"},
    "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
}


@dataclass(frozen=True)
class Case:
    """Objects, and the words of a command.

    `specs` are those that it changes, by kind and name; None for an object that it deletes.
    """

    objects: list[Object]
    command: tuple[str, ...]
    specs: Mapping[Named, Object | None]

    def after(self, before: Mapping[Named, Object]) -> dict[Named, Object]:
        """All objects after the command."""
        return {
            name: {**item, "spec": spec} if name in self.specs else item
            for name, item in before.items()
            if (spec := self.specs.get(name, {})) is not None
        }


def named(item: Object) -> Named:
    return item["kind"], item["metadata"]["name"]


@functools.cache
def schemas() -> Mapping[str, Schema]:
    return built(specs)


def drawn(kind: str, seed: int, count: int = 0, way_in: str = "mesh") -> list[Object]:
    """Values of `spec`: some that have every field between them, and more up to a count."""
    chance = random.Random(f"{kind}{seed}")
    given = dict(_GIVEN.get(kind, {}))
    if kind == "VirtualService":
        given |= {path: [way_in] for path in (("gateways",), *_MATCHES)}
    filling = Filling(chance, given, _APART, _NEEDED.get(kind, ()))
    found = filling.values(schemas()[kind])
    while len(found) < count:
        found.append(filling.some(schemas()[kind], chance.choice((0.1, 0.2, 0.4, 0.8))))
    return found


def made(kind: str, name: str, namespace: str, spec: Object) -> Object:
    """An object of Istio's, with labels and annotations."""
    found = istio(kind, name, namespace, **spec)
    found["metadata"] |= {"labels": {"l": name}, "annotations": {"a": name}}
    return found


def merges(namespace: str, seed: int, count: int) -> Iterator[Case]:
    """merge-vs of two or three VirtualServices: what they have is what one has.

    Each match of an http rule asks for a path: rules for every request would come last.
    """
    chance = random.Random(seed)
    drawn_ones = {way: drawn("VirtualService", seed, count, way) for way in ("mesh", "front")}
    numbers = list(range(count))
    while numbers:
        size = 2 if len(numbers) in (2, 4) else 3
        group, numbers = numbers[:size], numbers[size:]
        ways_in = ["mesh", *(chance.choice(("mesh", "front")) for _ in group[1:])]
        some = [
            made("VirtualService", f"vs-{number:02}", namespace, drawn_ones[way][number])
            for number, way in zip(group, ways_in, strict=True)
        ]
        for item in some:
            for index, rule in enumerate(item["spec"].get("http") or ()):
                rule["name"] = f"{item['metadata']['name']}-{index}"  # else it gets another one
                for match in rule["match"]:
                    if not any((match.get("uri") or {}).values()):
                        match["uri"] = {"prefix": "/a"}
        first, *others = some
        rules = {
            key: [rule for each in some for rule in each["spec"].get(key) or ()]
            for key in ("http", "tls", "tcp")
            if any(key in each["spec"] for each in some)
        }
        merged = {**first["spec"], **rules, "gateways": list(dict.fromkeys(ways_in))}
        names = [item["metadata"]["name"] for item in some]
        yield Case(
            [made("Gateway", "front", namespace, _FRONT), *some],
            ("merge-vs", *names, "--allow-differences"),
            {named(first): merged} | {named(each): None for each in others},
        )


def doubled_hosts(namespace: str, seed: int, count: int) -> Case:
    """fix KM609 takes one of two hosts away."""
    objects = []
    after: dict[Named, Object | None] = {}
    for number, spec in enumerate(drawn("VirtualService", seed, count)):
        host = f"shop-{number}"
        item = made("VirtualService", f"vs-{number:02}", namespace, {**spec, "hosts": [host, host]})
        objects.append(item)
        after[named(item)] = {**spec, "hosts": [host]}
    return Case(objects, ("fix", "KM609"), after)


def missing_subsets(namespace: str, seed: int, count: int) -> Case:
    """fix KM101 defines a subset that pods would have: one more item in a list."""
    objects: list[Object] = []
    after: dict[Named, Object | None] = {}
    for number, spec in enumerate(drawn("DestinationRule", seed, count)):
        name = f"shop-{number}"
        to = {"destination": {"host": name, "subset": "v9"}}
        rules: Object = {"hosts": [name], "http": [{"route": [to]}]}
        spec = {**spec, "host": name}
        rule = made("DestinationRule", f"dr-{number}", namespace, spec)
        objects += [*_shop(name, namespace), made("VirtualService", name, namespace, rules), rule]
        subsets = [*spec["subsets"], {"name": "v9", "labels": {"version": "v9"}}]
        after[named(rule)] = {**spec, "subsets": subsets}
    return Case(objects, ("fix", "KM101", "--choose", "define-v9"), after)


def settings_apart(namespace: str, seed: int, count: int) -> Case:
    """fix KM202 copies the settings of the mesh's rule, whole, beside what the gateway's has."""
    chance = random.Random(seed)
    objects = [made("Gateway", "front", namespace, _FRONT)]
    after: dict[Named, Object | None] = {}
    for number in range(count):
        (spec,) = drawn("VirtualService", seed + number)
        rule = next(rule for rule in spec["http"] if "route" in rule)
        chosen = chance.sample(_SETTINGS, chance.randint(1, len(_SETTINGS)))
        settings = {key: rule[key] for key in chosen}
        name = f"shop-{number}"
        route = [{"destination": {"host": name}}]
        inside = {"hosts": [name], "http": [{"route": route, **settings}]}
        own = {"hosts": [f"{name}.example.com"], "gateways": ["front"], "http": [{"route": route}]}
        outside = made("VirtualService", f"outside-{number}", namespace, own)
        objects += [*_shop(name, namespace), made("VirtualService", name, namespace, inside)]
        objects.append(outside)
        if "mirrors" in settings:
            settings["mirrors"] = [_in_full(each, namespace) for each in settings["mirrors"]]
        after[named(outside)] = {**own, "http": [{"route": route, **settings}]}
    return Case(objects, ("fix", "KM202", "--all-rules"), after)


def _in_full(mirror: Object, namespace: str) -> Object:
    """A mirror with the full name of its host."""
    to = mirror["destination"]
    return {**mirror, "destination": {**to, "host": f"{to['host']}.{namespace}.svc.cluster.local"}}


def _shop(name: str, namespace: str) -> list[Object]:
    """A Service, and a Deployment that will have pods of version v9."""
    labels = {"app": name, "version": "v9"}
    containers = [{"name": "shop", "image": "shop"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": name, "namespace": namespace}
    return [
        {**service(name, {"name": "http", "port": 80}), "metadata": metadata},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
    ]
