"""Manifests laid over a live cluster: the mesh as it will be once they are applied.

An object that exists is changed in place: it keeps its creationTimestamp, by which Istio orders,
its owners and its status. One that does not exist is younger than all that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.workloads import replaced_pods

_SERVER_METADATA = ("creationTimestamp", "ownerReferences")


def lay_over(live: Iterable[Resource], manifests: Sequence[Resource]) -> list[Resource]:
    """The resources after `manifests` are applied to `live`; where an id is twice, the last counts.

    Pods that a changed template replaces are left out (see workloads.replaced_pods).
    """
    if not manifests:
        return list(live)
    before = {resource.id: resource for resource in live}
    after = dict(before)
    for manifest in manifests:
        after[manifest.id] = _applied(manifest, before.get(manifest.id))
    for key in replaced_pods(before, after):
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
