"""The versions of what runs in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.mesh.schema import conform
from kubectl_mesh.sources.cluster import client_of
from kubectl_mesh.sources.context import ClusterOptions

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_CONTROL_PLANES = {"labelSelector": "app in (istiod,pilot)"}
_REVISION = "istio.io/rev"
_CONTAINERS = [{"image": str}]
_SHAPE = {
    "metadata": {"namespace": str, "labels": {"*": str}},
    "spec": {"template": {"spec": {"containers": _CONTAINERS}}},
}


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
    found = client.get("/version").get("gitVersion")
    kubernetes = found if isinstance(found, str) and found else "of no known version"
    try:
        return Versions(kubernetes, client.items(_DEPLOYMENTS, _control_plane, _CONTROL_PLANES))
    except ClusterError as error:
        return Versions(kubernetes, (), str(error))


def _control_plane(deployment: Any) -> ControlPlane:
    data = conform(deployment, _SHAPE)[0] if isinstance(deployment, dict) else {}
    metadata = data.get("metadata") or {}
    template = (data.get("spec") or {}).get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    image = (containers[0].get("image") or "").partition("@")[0]
    return ControlPlane(
        metadata.get("namespace") or "",
        (metadata.get("labels") or {}).get(_REVISION) or "",
        image.rpartition("/")[2].partition(":")[2],
    )
