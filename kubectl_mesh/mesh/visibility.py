"""Who can see a VirtualService, a DestinationRule or a Service.

Models exportTo as istiod reads it: `.` is the resource's own namespace, `*` is everyone and wins
over other entries, `~` is nobody, an absent or empty list is the mesh's default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.versions import EXPORT_DEFAULTS

EXPORT_TO_ANNOTATION = "networking.istio.io/exportTo"


@dataclass(frozen=True, slots=True)
class Export:
    """The namespaces that can see something; `everyone` or those in `namespaces`."""

    everyone: bool
    namespaces: frozenset[str]

    def reaches(self, namespace: str) -> bool:
        return self.everyone or namespace in self.namespaces

    def meets(self, other: Export) -> bool:
        """Whether some namespace can see both."""
        if self.everyone:
            return other.everyone or bool(other.namespaces)
        if other.everyone:
            return bool(self.namespaces)
        return not self.namespaces.isdisjoint(other.namespaces)


def export_of(resource: Resource, default: Sequence[str]) -> Export:
    """Who can see `resource`, `default` being the mesh's exportTo for its kind."""
    stated = resource.spec.get("exportTo")
    if resource.kind == "Service":
        text = resource.annotations.get(EXPORT_TO_ANNOTATION, "")
        stated = [part.strip() for part in text.split(",") if part.strip()]
    entries = set(stated or default)
    if "*" in entries:
        return Export(True, frozenset())
    if "~" in entries:
        return Export(False, frozenset())
    return Export(
        False, frozenset(resource.namespace if entry == "." else entry for entry in entries)
    )


def default_export(resource: Resource, config: MeshConfig) -> Sequence[str]:
    """The mesh's exportTo for `resource`, as istiod heeds it where the resource has none.

    For DestinationRules it heeds `.` alone.
    """
    if resource.kind == "DestinationRule":
        return (".",) if "." in config.destination_rule_export else ("*",)
    routes = resource.kind == "VirtualService"
    listed = config.virtual_service_export if routes else config.service_export
    is_delegate = routes and not resource.spec.get("hosts")
    if is_delegate or config.istio.has(EXPORT_DEFAULTS):
        return listed
    return next(((each,) for each in (".", "*") if each in listed), ("~",))
