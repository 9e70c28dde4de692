"""Gateways that VirtualServices of manifests name, and that are in other manifests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.gateways import MESH, OF_GATEWAY_API
from kubectl_mesh.mesh.resource import Path, Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.dead_rules import ports_of
from kubectl_mesh.routing.router import router_of

_HTTP = 80


@dataclass(frozen=True)
class _Assumed:
    """Where an object was read that was not."""

    name: str = "an assumption"

    def locate(self, path: Path) -> None:
        return None


def with_gateways(snapshot: Snapshot) -> tuple[Snapshot, frozenset[str]]:
    """The snapshot with the Gateways that VirtualServices name and manifests do not hold.

    And the names of those. Each is taken to serve every host, in plain HTTP on the ports that rules
    name or else on port 80, by pods of its own: so no request is left out that may come in. In a
    cluster nothing is assumed, nor in a namespace whose Gateways are in the input.
    """
    users: dict[str, list[VirtualService]] = defaultdict(list)
    if not snapshot.coverage.live:
        for vs in snapshot.virtual_services.roots:
            for name in sorted(vs.gateways - {MESH}):
                if name not in snapshot.gateways.by_id and OF_GATEWAY_API not in name:
                    users[name].append(vs)
    apart = {f"{each.namespace}/{each.name}" for each in snapshot.of_other_revisions}
    assumed = [
        _gateway(snapshot, name, members)
        for name, members in users.items()
        if snapshot.unknown(name.partition("/")[0], "Gateway") and name not in apart
    ]
    if not assumed:
        return snapshot, frozenset()
    every = [each for found in snapshot.replaced.values() for each in found]
    then = Snapshot(
        (*every, *snapshot.everything(), *assumed),
        snapshot.config,
        snapshot.coverage,
        snapshot.unreadable,
    )
    return then, frozenset(f"{each.namespace}/{each.name}" for each in assumed)


def _gateway(snapshot: Snapshot, name: str, members: Collection[VirtualService]) -> Resource:
    router = router_of(snapshot)
    ports = {
        port or _HTTP
        for vs in members
        for port in ports_of(snapshot, vs.hosts, router.rules(vs), name)
    }
    namespace, _, short = name.partition("/")
    api_version = "networking.istio.io/v1"
    document: dict[str, Any] = {
        "apiVersion": api_version,
        "kind": "Gateway",
        "metadata": {"name": short, "namespace": namespace},
        "spec": {
            "selector": {"gateway": name},
            "servers": [
                {
                    "port": {"number": port, "name": f"http-{port}", "protocol": "HTTP"},
                    "hosts": ["*"],
                }
                for port in sorted(ports)
            ],
        },
    }
    identity = ResourceId("Gateway", namespace, short)
    return Resource(identity, api_version, document, document, _Assumed())
