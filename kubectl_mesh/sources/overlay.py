"""Manifests laid over a live cluster: the mesh as it will be once they are applied.

An object that exists is changed in place: it keeps its creationTimestamp, by which Istio orders,
its owners and its status. One that does not exist is younger than all that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS

_SERVER_METADATA = ("creationTimestamp", "ownerReferences")


def lay_over(live: Iterable[Resource], manifests: Sequence[Resource]) -> list[Resource]:
    """The resources after `manifests` are applied to `live`; where an id is twice, the last counts.

    Pods and ReplicaSets of a workload whose pods will bear other labels are left out: they will be
    replaced, and the workload's template stands for their successors.
    """
    if not manifests:
        return list(live)
    before = {resource.id: resource for resource in live}
    after = dict(before)
    for manifest in manifests:
        after[manifest.id] = _applied(manifest, before.get(manifest.id))
    replaced = {
        key
        for key, resource in after.items()
        if key in before and _pod_labels(before[key]) != _pod_labels(resource)
    }
    for kind in ("ReplicaSet", "Pod"):  # a Deployment's pods belong to its ReplicaSets
        leaving = {
            key
            for key, resource in after.items()
            if key.kind == kind and resource is before.get(key) and _owners(resource) & replaced
        }
        replaced |= leaving
        for key in leaving:
            del after[key]
    return list(after.values())


def _applied(manifest: Resource, live: Resource | None) -> Resource:
    """The manifest with what the API server adds; what a manifest says of that counts for nothing.

    A Service keeps its clusterIP where the manifest names none.
    """
    metadata = {
        key: value for key, value in manifest.metadata.items() if key not in _SERVER_METADATA
    }
    data = {key: value for key, value in manifest.data.items() if key != "status"}
    if live is not None:
        metadata |= {key: live.metadata[key] for key in _SERVER_METADATA if key in live.metadata}
        if "status" in live.data:
            data["status"] = live.data["status"]
        if manifest.kind == "Service" and "clusterIP" in live.spec:
            data["spec"] = {"clusterIP": live.spec["clusterIP"], **manifest.spec}
    return replace(manifest, data={**data, "metadata": metadata})


def _pod_labels(resource: Resource) -> Mapping[str, Any] | None:
    """The labels of a workload's pods; None for what makes no pods that are replaced."""
    if resource.kind not in WORKLOAD_KINDS or resource.kind in ("Pod", "Job", "CronJob"):
        return None
    template: Mapping[str, Any] = resource.spec.get("template") or {}
    labels: Mapping[str, Any] = (template.get("metadata") or {}).get("labels") or {}
    return labels


def _owners(resource: Resource) -> set[ResourceId]:
    return {
        ResourceId(owner["kind"], resource.namespace, owner["name"])
        for owner in resource.metadata.get("ownerReferences") or ()
        if owner.get("kind") and owner.get("name")
    }
