"""When does a mesh use what was applied to it? By evidence, and never by waiting for some time.

istiod has read everything when it knows what the API server holds; a proxy has taken everything
when it uses the newest clusters, listeners and routes, and has said so to istiod.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .envoy import Proxy
from .istiod import Istiod

_PATIENCE = 60.0  # seconds; many times what it takes on a busy machine
_VERSIONS = "|".join(
    [
        r"^cluster_manager\.(cds\.version_text|warming_clusters)$",
        r"^listener_manager\.(lds\.version_text|total_listeners_warming)$",
        r"^http\..*\.rds\..*\.version_text$",
    ]
)
"""The versions of what an Envoy has taken, and the numbers of what it does not use yet."""

Object = Mapping[str, Any]
_Endpoint = tuple[str, str, str, int]  # namespace and name of the Service, address, port


class NotSettled(Exception):
    """Some proxy does not take what istiod sends; the message says which and what."""


def wait_until_read(istiod: Istiod, live: Callable[[], Iterable[Object]]) -> None:
    """Waits until istiod knows all of Istio's objects, Services and endpoints among `live()`.

    Raises NotSettled.
    """
    _wait(lambda: _unread(istiod, list(live())))


def wait_until_taken(
    istiod: Istiod, proxies: Iterable[Proxy], marker: str, rejected: Mapping[Proxy, int]
) -> None:
    """Waits until all proxies use what istiod sent together with the cluster `marker`.

    `rejected` is how often each had rejected something before. Raises NotSettled.
    """
    _wait(lambda: next(_untaken(istiod, proxies, marker, rejected), None))


def _wait(problem: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while found := problem():
        if time.monotonic() > deadline:
            raise NotSettled(f"after {_PATIENCE:.0f} s: {found}")
        time.sleep(0.01)


def _unread(istiod: Istiod, live: list[Object]) -> str | None:
    by_kind = {
        kind: {_key(item): item["metadata"] for item in live if item["kind"] == kind}
        for kind in ("Pod", "Service")
    }
    configuration = {
        (item["kind"], *_key(item)): item["metadata"]["resourceVersion"]
        for item in live
        if item["apiVersion"].partition("/")[0].endswith(".istio.io")
    }
    known_configuration = {
        (item["kind"], *_key(item)): item["metadata"]["resourceVersion"]
        for item in istiod.debug("configz")
    }
    services = {key: metadata["resourceVersion"] for key, metadata in by_kind["Service"].items()}
    known_services = {
        (item["Attributes"]["Namespace"], item["Attributes"]["Name"]): item["ResourceVersion"]
        for item in istiod.debug("registryz")
        if item["Attributes"]["ServiceRegistry"] == "Kubernetes"
    }
    endpoints = {
        endpoint: labels
        for item in live
        if item["kind"] == "EndpointSlice"
        for endpoint, labels in _endpoints(item, services.keys(), by_kind["Pod"])
    }
    known_endpoints = dict(_known_endpoints(istiod.debug("endpointz")))
    return (
        _difference("configuration", configuration, known_configuration)
        or _difference("Services", services, known_services)
        or _difference("endpoints", endpoints, known_endpoints)
    )


def _difference(what: str, live: Mapping[Any, Any], known: Mapping[Any, Any]) -> str | None:
    for key in live.keys() | known.keys():
        if live.get(key) != known.get(key):
            return f"istiod has other {what} than the API server: {key}"
    return None


def _endpoints(
    endpoint_slice: Object,
    services: Iterable[tuple[str, str]],
    pods: Mapping[tuple[str, str], Object],
) -> Iterator[tuple[_Endpoint, Object]]:
    """The ready endpoints of a slice, and the labels of their pods, as istiod should know them."""
    namespace, _ = _key(endpoint_slice)
    service = endpoint_slice["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
    if (namespace, service) not in services:
        return
    for endpoint in endpoint_slice["endpoints"] or ():
        pod = pods.get((namespace, endpoint.get("targetRef", {}).get("name", "")), {})
        if endpoint.get("conditions", {}).get("ready", True):
            for address in endpoint["addresses"]:
                for port in endpoint_slice["ports"]:
                    yield (namespace, service, address, port["port"]), pod.get("labels", {})


def _known_endpoints(shards: Mapping[str, Any]) -> Iterator[tuple[_Endpoint, Object]]:
    """The endpoints of Services, and their labels, in what istiod's /debug/endpointz answers."""
    for host, namespaces in shards.items():
        for namespace, known in namespaces.items():
            for shard, endpoints in known["Shards"].items():
                for endpoint in endpoints or () if shard.startswith("Kubernetes/") else ():
                    own = {
                        name: value
                        for name, value in (endpoint["Labels"] or {}).items()
                        if not name.startswith(("topology.istio.io/", "kubernetes.io/hostname"))
                    }
                    service = host.partition(".")[0]
                    yield (namespace, service, endpoint["Address"], endpoint["EndpointPort"]), own


def _untaken(
    istiod: Istiod, proxies: Iterable[Proxy], marker: str, rejected: Mapping[Proxy, int]
) -> Iterator[str]:
    acknowledged = {each["proxy"]: each for each in istiod.debug("syncz")}
    for proxy in proxies:
        if proxy.rejected != rejected[proxy]:
            raise NotSettled(f"{proxy} rejects what istiod sends:\n{proxy.warnings}")
        version = proxy.cluster_version(marker)
        if version is None:
            yield f"{proxy} has not got the newest clusters"
            return
        for name, value in proxy.stats(_VERSIONS).items():
            if name.endswith("version_text") and _rank(value) < _rank(version):
                yield f"{proxy} has {name} {value!r}, not yet {version!r}"
            if not name.endswith("version_text") and value:
                yield f"{proxy} has {name} {value}"
        state = acknowledged.get(f"{proxy.identity.name}.{proxy.identity.namespace}")
        if state is None:
            yield f"{proxy} is not connected to istiod"
            return
        for kind in ("cluster", "listener", "route", "endpoint"):
            if state.get(f"{kind}_sent") != state.get(f"{kind}_acked"):
                yield f"{proxy} has not acknowledged the newest {kind}s"


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _rank(version: str) -> tuple[str, int]:
    """Orders istiod's versions, a time and a count: 2026-01-31T12:00:00Z/17."""
    moment, _, count = version.partition("/")
    return moment, int(count or 0)
