"""The versions of what runs in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.mesh.control_planes import ControlPlane
from kubectl_mesh.sources.istiods import read_control_planes
from kubectl_mesh.sources.session import Session


@dataclass(frozen=True)
class Versions:
    """`kubernetes` is the API server's; `unknown` says why Istio's is not known."""

    kubernetes: str
    istio: Sequence[ControlPlane]
    unknown: str = ""


def versions(session: Session) -> Versions:
    """Asks the cluster. Raises ClusterError where it cannot be reached."""
    client = session.client
    found = client.get("/version").get("gitVersion")
    kubernetes = found if isinstance(found, str) and found else "of no known version"
    try:
        return Versions(kubernetes, read_control_planes(client).planes)
    except ClusterError as error:
        return Versions(kubernetes, (), str(error))
