"""The istiods of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.kube.http import Client
from kubectl_mesh.mesh.control_planes import (
    APP,
    NAMES,
    TAG,
    ControlPlanes,
    control_plane,
    revision_tags,
)
from kubectl_mesh.mesh.schema import conform

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_SELECTED = {"labelSelector": f"{APP} in ({','.join(NAMES)})"}
_TAGS = (
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/api/v1/services",
)
"""What makes revision tags: each has a webhook, and a Service if it was made by 1.28 or later."""
_LABELS = {"metadata": {"labels": {"*": str}}}


def read_control_planes(client: Client) -> ControlPlanes:
    """Those of all namespaces, without the revision tags. Raises ClusterError."""
    return ControlPlanes(client.items(_DEPLOYMENTS, control_plane, _SELECTED))


def with_tags(planes: ControlPlanes, client: Client) -> ControlPlanes:
    """The same istiods with the revision tags, as far as these may be read."""
    labels = (each for path in _TAGS for each in _labels_of_tags(client, path))
    return replace(planes, tags=revision_tags(labels))


def _labels_of_tags(client: Client, path: str) -> Sequence[Mapping[str, str]]:
    try:
        return client.items(path, _labels, {"labelSelector": TAG})
    except ClusterError:
        return ()


def _labels(item: Any) -> Mapping[str, str]:
    data = conform(item, _LABELS)[0] if isinstance(item, dict) else {}
    return (data.get("metadata") or {}).get("labels") or {}
