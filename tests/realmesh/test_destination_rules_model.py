"""Does our look-up of DestinationRules agree with Istio on random rules, cluster by cluster?

`KUBECTL_MESH_DESTINATION_RULES` says for how many Services there are some; `KUBECTL_MESH_SEED`
repeats a run. Each rule defines a subset and a policy that can be told from those of all others, so
that the clusters of a proxy tell which rules it goes by.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
import yaml

from kubectl_mesh.mesh.destination_rules import DestinationRules
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.session import ClusterOptions, Session

from .envoy import Proxy
from .istiod import istio
from .manifests import Object, destination_rule
from .mesh import ROOT_NAMESPACE, Mesh
from .routes_tried import SEED

pytestmark = pytest.mark.each_istio

HOSTS = int(os.environ.get("KUBECTL_MESH_DESTINATION_RULES", "100"))
AT_ONCE = 200
PORT = 5000

_EXPORTS = (
    *(None, None),
    *(["*"], ["."], ["~"], ["shop"], ["front"], ["other"]),
    *([".", "front"], ["front", "other"], ["front", "other", "wide"], ["*", "front"]),
)
_SELECTORS = (None, None, None, None, {"v": "v1"}, {"v": "v2"}, {"app": "x"}, {})
_NAMESPACES = ("shop", "shop", "shop", "shop", "front", ROOT_NAMESPACE)
_PLACES = (
    *(("shop", "v1"), ("shop", "v2"), ("front", "v1"), ("front", "v2")),
    *(("other", "v1"), (ROOT_NAMESPACE, "v1")),
)

Clusters = dict[str, int | None]
"""For each subset of a host, and "" for none, the connections that are allowed."""


def name_of(number: int) -> str:
    return f"s-{number}"


def service(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name_of(number), "namespace": "shop"},
        "spec": {"selector": {"app": name_of(number)}, "ports": [{"name": "http", "port": PORT}]},
    }


def rules(rng: random.Random, number: int) -> Iterator[Object]:
    """Two to four rules of a Service, some of them for a wildcard that covers it alone."""
    for index in range(rng.choice((2, 3, 3, 4))):
        first = rng.choice(("s", "s", "s", "s", "*"))
        spec: Object = {}
        export, selector = rng.choice(_EXPORTS), rng.choice(_SELECTORS)
        if selector is not None:
            spec["workloadSelector"] = {"matchLabels": selector}
            export = rng.choice((None, None, ["."], export))  # another one is refused at admission
        if export is not None:
            spec["exportTo"] = export
        if rng.random() < 0.7:
            spec["trafficPolicy"] = _allowing(100 + index)
        subsets = [{"name": f"u{index}"}]
        if rng.random() < 0.3:
            subsets.append({"name": "common", "trafficPolicy": _allowing(200 + index)})
        yield destination_rule(
            f"r{number}-{rng.choice('abc')}{index}",
            f"{first}-{number}.shop.svc.cluster.local",
            *subsets,
            namespace=rng.choice(_NAMESPACES),
            **spec,
        )


def _allowing(connections: int) -> Object:
    return {"connectionPool": {"tcp": {"maxConnections": connections}}}


def said(proxy: Proxy) -> dict[str, Clusters]:
    """The clusters of a proxy, by the number of the Service."""
    pattern = quote(rf"outbound\|{PORT}\|.*")
    dump = proxy.admin(f"/config_dump?resource=dynamic_active_clusters&name_regex={pattern}")
    found: dict[str, Clusters] = defaultdict(dict)
    for each in dump["configs"]:
        _, _, subset, host = each["cluster"]["name"].split("|")
        if number := re.fullmatch(r"s-(\d+)\.shop\.svc\.cluster\.local", host):
            (threshold,) = each["cluster"]["circuit_breakers"]["thresholds"]
            allowed = threshold["max_connections"]
            found[number[1]][subset] = allowed if allowed < 1000 else None
    return found


def told(found: DestinationRules, number: int, namespace: str, version: str) -> Clusters:
    """What the model says of them."""
    host = f"{name_of(number)}.shop.svc.cluster.local"
    lookup = found.lookup(host, namespace, "shop", {"app": "x", "v": version})
    return {
        name: lookup.policy(subset, PORT)
        .get("connectionPool", {})
        .get("tcp", {})
        .get("maxConnections")
        for name, subset in {"": None, **lookup.subsets}.items()
    }


@contextlib.contextmanager
def applied(mesh: Mesh, services: list[Object], waves: list[list[Object]]) -> Iterator[None]:
    """While entered, the rules are in the mesh, each wave younger than the one before."""
    mesh.apply(*services)
    for wave in waves:
        mesh.apply(*wave)
        mesh.next_second()
    mesh.settled()
    try:
        yield
    finally:
        mesh.server.delete(*services, *(item for wave in waves for item in wave))


def test_the_model_agrees_with_istio(
    mesh: Mesh, record_property: Callable[[str, object], None]
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_DESTINATION_RULES={HOSTS}")
    record_property("seed", SEED)
    proxies = [
        (namespace, version, mesh.sidecar(namespace, {"app": "x", "v": version}))
        for namespace, version in _PLACES
    ]
    rng = random.Random(SEED)
    for first in range(0, HOSTS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, HOSTS))
        made = {number: list(rules(rng, number)) for number in numbers}
        waves: list[list[Object]] = [[], [], []]
        for item in (item for each in made.values() for item in each):
            rng.choice(waves).append(item)
        with applied(mesh, [service(number) for number in numbers], waves):
            session = Session(ClusterOptions(kubeconfig=str(mesh.server.kubeconfig)))
            state = cluster.load(session, {"DestinationRule"}, None)
            assert not state.unreadable
            live = [each for each in state.resources if each.kind == "DestinationRule"]
            found = DestinationRules(live, replace(state.config, istio=istio()))
            for namespace, version, proxy in proxies:
                clusters = said(proxy)
                for number in numbers:
                    ours = told(found, number, namespace, version)
                    if ours != clusters[str(number)]:
                        pytest.fail(
                            f"KUBECTL_MESH_SEED={SEED}: {namespace} ({version}) has "
                            f"{clusters[str(number)]} of {name_of(number)}, and the model says "
                            f"{ours}:\n{_aged(made[number], waves)}"
                        )


def _aged(items: list[Object], waves: list[list[Object]]) -> str:
    """Rules, the oldest first."""
    ordered = [item for wave in waves for item in wave if item in items]
    return yaml.safe_dump_all(ordered, sort_keys=False)
