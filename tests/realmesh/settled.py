"""When does a mesh use what was applied to it? By evidence, and never by waiting for some time.

istiod has read everything when it knows what the API server holds; a proxy has taken everything
when it uses the newest clusters, listeners and routes, and has said so to istiod.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kubectl_mesh.mesh.injection import REVISION

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


def wait_until_taken(proxies: Iterable[Proxy], marker: str, rejected: Mapping[Proxy, int]) -> None:
    """Waits until all proxies use what their istiods sent together with the cluster `marker`.

    `rejected` is how often each had rejected something before. Raises NotSettled.
    """
    _wait(lambda: next(_untaken(proxies, marker, rejected), None))


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
    read = (None, istiod.revision)
    configuration = {
        (item["kind"], *_key(item)): item["metadata"]["resourceVersion"]
        for item in live
        if _is_istio(item) and item["metadata"].get("labels", {}).get(REVISION) in read
    }
    known_configuration = {
        (item["kind"], *_key(item)): item["metadata"]["resourceVersion"]
        for item in _ask(istiod, "configz")
        # Without resourceVersion istiod made it itself, of an Ingress.
        if _is_istio(item) and "resourceVersion" in item["metadata"]
    }
    services = {key: metadata["resourceVersion"] for key, metadata in by_kind["Service"].items()}
    known_services = {
        (item["Attributes"]["Namespace"], item["Attributes"]["Name"]): item["ResourceVersion"]
        for item in _ask(istiod, "registryz")
        if item["Attributes"]["ServiceRegistry"] == "Kubernetes"
    }
    endpoints = {
        endpoint: labels
        for item in live
        if item["kind"] == "EndpointSlice"
        for endpoint, labels in _endpoints(item, services.keys(), by_kind["Pod"])
    }
    known_endpoints = dict(_known_endpoints(_ask(istiod, "endpointz")))
    return (
        _difference("configuration", configuration, known_configuration)
        or _difference("Services", services, known_services)
        or _difference("endpoints", endpoints, known_endpoints)
    )


def _is_istio(item: Object) -> bool:
    """Whether it is of Istio's own kinds: not of the Gateway API, whose objects it changes, too."""
    group: str = item["apiVersion"].partition("/")[0]
    return group.endswith(".istio.io")


def _difference(what: str, live: Mapping[Any, Any], known: Mapping[Any, Any]) -> str | None:
    for key in live.keys() | known.keys():
        if live.get(key) != known.get(key):
            sides = f"{known.get(key)}, the API server {live.get(key)}"
            return f"istiod has other {what} than the API server: of {key} istiod has {sides}"
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
                for port in endpoint_slice.get("ports") or ():
                    labels = _own_labels(pod.get("labels") or {})
                    yield (namespace, service, address, port["port"]), labels


def _known_endpoints(shards: Mapping[str, Any]) -> Iterator[tuple[_Endpoint, Object]]:
    """The endpoints of Services, and their labels, in what istiod's /debug/endpointz answers."""
    for host, namespaces in shards.items():
        for namespace, known in namespaces.items():
            for shard, endpoints in known["Shards"].items():
                for endpoint in endpoints or () if shard.startswith("Kubernetes/") else ():
                    service = host.partition(".")[0]
                    labels = _own_labels(endpoint["Labels"] or {})
                    for address in endpoint.get("Addresses") or [endpoint["Address"]]:
                        yield (namespace, service, address, endpoint["EndpointPort"]), labels


def _own_labels(labels: Object) -> Object:
    """A pod's labels without those that istiod adds."""
    added = ("topology.istio.io/", "kubernetes.io/hostname")
    return {name: value for name, value in labels.items() if not name.startswith(added)}


def _untaken(proxies: Iterable[Proxy], marker: str, rejected: Mapping[Proxy, int]) -> Iterator[str]:
    acknowledged: dict[Istiod, Mapping[str, Any]] = {}
    for proxy in proxies:
        istiod = proxy.istiod
        if istiod not in acknowledged:
            acknowledged[istiod] = {each["proxy"]: each for each in _ask(istiod, "syncz")}
        yield from _behind(proxy, acknowledged[istiod], marker, rejected)


def _ask(istiod: Istiod, what: str) -> Any:
    try:
        return istiod.debug(what)
    except (OSError, http.client.HTTPException) as error:
        raise NotSettled(f"istiod does not answer: {error}; {istiod.state}") from error


def _behind(
    proxy: Proxy, acknowledged: Mapping[str, Any], marker: str, rejected: Mapping[Proxy, int]
) -> Iterator[str]:
    try:
        if proxy.rejected != rejected[proxy]:
            raise NotSettled(f"{proxy} rejects what istiod sends:\n{proxy.warnings}")
        version = proxy.cluster_version(marker)
        stats = proxy.stats(_VERSIONS)
    except (OSError, http.client.HTTPException) as error:
        yield f"{proxy} does not answer: {error}"
        return
    if version is None:
        yield f"{proxy} has not got the newest clusters"
        return
    for name, value in stats.items():
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
