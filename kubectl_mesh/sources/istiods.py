"""The istiods of a cluster."""

from __future__ import annotations

from kubectl_mesh.kube.http import Client
from kubectl_mesh.mesh.control_planes import APP, NAMES, ControlPlane, control_plane

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_SELECTED = {"labelSelector": f"{APP} in ({','.join(NAMES)})"}


def read_control_planes(client: Client) -> list[ControlPlane]:
    """Those of all namespaces. Raises ClusterError."""
    return client.items(_DEPLOYMENTS, control_plane, _SELECTED)
