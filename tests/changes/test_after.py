"""The mesh as it will be: the same after a change set as under manifests that say so."""

from __future__ import annotations

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.sources.overlay import lay_over
from tests.sources.test_overlay import deployment, owned, resource


def test_pods_that_are_replaced_are_gone_in_both() -> None:
    """The doctor looks at manifests over a cluster; fix, at what its change set makes."""
    pod = {"labels": {"app": "web"}, **owned("ReplicaSet", "web-1")}
    live = [
        deployment(app="web"),
        resource("ReplicaSet", "web-1", owned("Deployment", "web")),
        resource("Pod", "web-1-0", pod, spec={"containers": []}),
        resource("Pod", "alone", {"labels": {"app": "web"}}, spec={"containers": []}),
    ]
    changed = deployment(app="web", version="v1")
    step = Step(live[0], live[0].raw, changed.raw, (), (), ())
    after = mesh_after(Snapshot(live), ChangeSet((step,)))
    laid = lay_over(live, [changed])
    names = [("Deployment", "web"), ("Pod", "alone")]
    assert sorted((each.kind, each.name) for each in after.everything()) == names
    assert sorted((each.kind, each.name) for each in laid) == names
