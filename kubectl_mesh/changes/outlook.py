"""A mesh as it will be once a change set is made."""

from __future__ import annotations

from kubectl_mesh.changes.change_set import ChangeSet
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import conform, kind_of
from kubectl_mesh.mesh.snapshot import Snapshot


def after(snapshot: Snapshot, changes: ChangeSet) -> Snapshot:
    """The snapshot with the objects of a change set as they are then. The MeshConfig stays."""
    resources = {each.id: each for each in snapshot.everything()}
    for step in changes.steps:
        if step.after is None:
            resources.pop(step.resource.id, None)
        else:
            resources[step.resource.id] = _resource(step.resource, dict(step.after))
    return Snapshot(resources.values(), snapshot.config, snapshot.coverage, snapshot.unreadable)


def _resource(old: Resource, value: dict[str, object]) -> Resource:
    kind = kind_of(old.api_version, old.kind)
    data, faults = conform(value, kind.shape) if kind else (value, ())
    return Resource(old.id, old.api_version, value, data, old.origin, faults)
