"""On which requests an object that is not followed may have a bearing (see mesh/unread.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubectl_mesh.mesh.hosts import covers, namespace_of, overlap
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.unread import REASON, Gateway, Ruled

if TYPE_CHECKING:
    from kubectl_mesh.routing.router import Router

_HTTP = ("HTTPRoute", "GRPCRoute")


class Bearing:
    """What the objects that are not followed may decide, by proxy, host and port."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._snapshot = router.snapshot
        self._at_proxies: dict[Proxy, Sequence[Ruled]] = {}

    def on(self, proxy: Proxy, host: str, port: int) -> str | None:
        """Why it is not known what a proxy does with requests to a host; None where it is.

        At a gateway `host` may be a wildcard.
        """
        unread = self._snapshot.unread
        if not unread:
            return None
        if proxy.is_gateway:
            for each in self._of(proxy):
                if each.port in (0, port) and overlap(each.host, host):
                    return _reason(each.resource)
            return None
        for name in (host, *self._router.called(host, proxy.namespace)):
            for resource in unread.in_mesh(name, proxy.namespace, port):
                return _reason(resource)
        return None

    def on_connections(self, proxy: Proxy, port: int) -> str | None:
        """As `on`, for connections to a gateway that no http rules are for, whatever their host."""
        for each in self._of(proxy):
            if each.port in (0, port) and each.resource.kind not in _HTTP:
                return _reason(each.resource)
        return None

    def ways_in(self, host: str) -> Iterator[ResourceId]:
        """The routes that take requests for a host at Kubernetes Gateways, and name it."""
        unread = self._snapshot.unread
        ruled = [each for gateway in unread.gateways for each in unread.at(gateway)]
        ruled += [each for _, each in unread.homeless]
        yield from dict.fromkeys(
            each.resource.id for each in ruled if each.host != "*" and covers(each.host, host)
        )

    def _of(self, proxy: Proxy) -> Sequence[Ruled]:
        if proxy not in self._at_proxies:
            self._at_proxies[proxy] = tuple(self._at(proxy))
        return self._at_proxies[proxy]

    def _at(self, proxy: Proxy) -> Iterator[Ruled]:
        unread = self._snapshot.unread
        for gateway in unread.gateways:
            if self._configures(gateway, proxy):
                yield from unread.at(gateway)
        for parent, ruled in unread.homeless:
            if self._snapshot.unknown(parent.namespace, parent.kind):
                yield ruled

    def _configures(self, gateway: Gateway, proxy: Proxy) -> bool:
        """Whether a Kubernetes Gateway configures pods of a gateway, or may.

        Where no such pods are known, all that is known of them is what selects them.
        """
        known = self._snapshot.workloads.select(proxy.namespace, proxy.labels)
        if not known and gateway.makes(gateway.resource.namespace, proxy.labels):
            return True
        if any(gateway.makes(pod.namespace, pod.labels) for pod in known):
            return True
        for host in gateway.services:
            services = self._snapshot.registry.by_host(host)
            home = namespace_of(host, self._snapshot.config.domain) or ""
            if not services and self._snapshot.unknown(home, "Service"):
                return True
            for service in services:
                if known:
                    selected = self._snapshot.pods_of(service)
                    if any(pod in selected for pod in known):
                        return True
                elif all(proxy.labels.get(key, it) == it for key, it in service.selector.items()):
                    return True
        return False


def leading_nowhere(snapshot: Snapshot) -> Iterator[str]:
    """What routes that are not followed send to Services, or ports of them, that are not there."""
    for route in snapshot.unread.routes:
        for to in route.backends:
            if not to.is_service or snapshot.unknown(to.namespace, "Service"):
                continue
            service = snapshot.get("Service", to.namespace, to.name)
            if service is None:
                yield f"{route.resource} sends requests to {to.id}, which is not there"
            elif to.port and to.port not in {
                port.get("port") for port in service.spec.get("ports") or ()
            }:
                yield f"{route.resource} sends requests to {to.id}, which has no port {to.port}"


def _reason(resource: Resource) -> str:
    return f"{resource} may decide on it, and {REASON}"
