"""The versions of what runs in a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.sources.cluster import client_of
from kubectl_mesh.sources.context import ClusterOptions

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_CONTROL_PLANES = {"labelSelector": "app in (istiod,pilot)"}
_REVISION = "istio.io/rev"


@dataclass(frozen=True)
class ControlPlane:
    """An istiod, or a pilot: `version` is its image's tag, "" where it has none."""

    namespace: str
    revision: str
    version: str


@dataclass(frozen=True)
class Versions:
    """`kubernetes` is the API server's; `unknown` says why Istio's is not known."""

    kubernetes: str
    istio: Sequence[ControlPlane]
    unknown: str = ""


def versions(options: ClusterOptions) -> Versions:
    """Asks the cluster. Raises ClusterError where it cannot be reached."""
    client = client_of(options)
    kubernetes = str(client.get("/version").get("gitVersion") or "")
    try:
        return Versions(kubernetes, client.items(_DEPLOYMENTS, _control_plane, _CONTROL_PLANES))
    except ClusterError as error:
        return Versions(kubernetes, (), str(error))


def _control_plane(deployment: Mapping[str, Any]) -> ControlPlane:
    metadata = deployment.get("metadata") or {}
    template = (deployment.get("spec") or {}).get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    image = str(containers[0].get("image") or "").partition("@")[0]
    return ControlPlane(
        str(metadata.get("namespace") or ""),
        str((metadata.get("labels") or {}).get(_REVISION) or ""),
        image.rpartition("/")[2].partition(":")[2],
    )
