"""What Flagger makes of a Canary: Services, DestinationRules and a VirtualService for its target.

Models the names that its router for Istio gives to them. Manifests seldom hold them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from kubectl_mesh.mesh.resource import Resource, ResourceId


class Canaries:
    """Every Canary of a mesh."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.all = tuple(resources)

    def making(self, kind: str, namespace: str, name: str) -> Resource | None:
        """The Canary of which Flagger makes such an object."""
        return self._by_made.get(ResourceId(kind, namespace, name))

    def of_target(self, workload: Resource) -> Resource | None:
        """The Canary that has a workload as its target, for which Flagger makes Services."""
        return self._by_target.get(workload.id)

    @cached_property
    def _by_made(self) -> Mapping[ResourceId, Resource]:
        return {made: canary for canary in self.all for made in _made(canary)}

    @cached_property
    def _by_target(self) -> Mapping[ResourceId, Resource]:
        return {_target(canary): canary for canary in self.all}


def _target(canary: Resource) -> ResourceId:
    target = canary.spec.get("targetRef") or {}
    return ResourceId(target.get("kind") or "", canary.namespace, target.get("name") or "")


def _made(canary: Resource) -> Iterator[ResourceId]:
    target = _target(canary)
    name = (canary.spec.get("service") or {}).get("name") or target.name
    for kind, names in (
        ("Service", (name, f"{name}-primary", f"{name}-canary")),
        ("DestinationRule", (f"{name}-primary", f"{name}-canary")),
        ("VirtualService", (name,)),
        (target.kind, (f"{target.name}-primary",)),
    ):
        for made in names:
            yield ResourceId(kind, canary.namespace, made)
