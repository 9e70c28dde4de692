"""A mesh as it will be once a change set is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.deletion import is_terminating
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import kind_of
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import replaced_pods

_RELIED_ON = (
    "Namespace",
    "Service",
    "ServiceEntry",
    "Gateway",
    "VirtualService",
    "DestinationRule",
    "Sidecar",
)


def without_terminating(snapshot: Snapshot) -> tuple[Snapshot, list[str]]:
    """The snapshot once what is being deleted is gone, and the names of that; pods come and go."""
    going = [each for kind in _RELIED_ON for each in snapshot.of(kind) if is_terminating(each.data)]
    if not going:
        return snapshot, []
    steps = [Step(each, each.data, None, (), (), ()) for each in going]
    return mesh_after(snapshot, ChangeSet(tuple(steps))), [str(each) for each in going]


def mesh_after(snapshot: Snapshot, changes: ChangeSet) -> Snapshot:
    """The snapshot with the objects of a change set as they are then. The MeshConfig stays.

    Objects of kinds that are not looked at are left out, whatever they are called; with a Namespace
    goes what is in it, with the old labels of a workload's template its pods (see
    workloads.replaced_pods). What stands twice in the input still does.
    """
    before = {each.id: each for each in snapshot.everything()}
    resources = dict(before)
    gone = set()
    for step in changes.steps:
        resource = step.resource
        if not kind_looked_at(resource):
            continue
        if step.after is not None:
            resources[resource.id] = resource_of(resource, step.after)
            continue
        resources.pop(resource.id, None)
        if resource.kind == "Namespace":
            gone.add(resource.name)
    for key in replaced_pods(before, resources):
        del resources[key]
    if gone:
        resources = {key: each for key, each in resources.items() if key.namespace not in gone}
    twice = [each for key in resources for each in snapshot.replaced.get(key, ())]
    return Snapshot(
        (*twice, *resources.values()), snapshot.config, snapshot.coverage, snapshot.unreadable
    )


def kind_looked_at(resource: Resource) -> str:
    """Its kind; "" for one that is not looked at, such as one of that name in another API group."""
    return resource.kind if kind_of(resource.api_version, resource.kind) else ""


def resource_of(old: Resource, document: Mapping[str, Any]) -> Resource:
    """An object with another content."""
    return as_resource(document, old.origin, old.namespace)
