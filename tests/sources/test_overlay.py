"""Manifests laid over live objects."""

from __future__ import annotations

from typing import Any

from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.sources.cluster import ClusterOrigin
from kubectl_mesh.sources.overlay import lay_over

BORN = "2024-01-01T00:00:00Z"


def resource(kind: str, name: str, metadata: dict[str, Any] | None = None, **rest: Any) -> Resource:
    named = {"metadata": {"name": name, "namespace": "shop", **(metadata or {})}, **rest}
    found = KINDS[kind]
    api_version = "/".join(filter(None, (found.group, found.versions[0])))
    raw = {"apiVersion": api_version, "kind": kind, **named}
    return as_resource(raw, ClusterOrigin("c"))


def owned(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


def deployment(**labels: str) -> Resource:
    template = {"metadata": {"labels": labels}, "spec": {"containers": []}}
    return resource("Deployment", "web", spec={"template": template})


def test_an_existing_object_keeps_what_the_server_gave_it() -> None:
    owners = owned("Rollout", "web")
    live = resource(
        "VirtualService",
        "web",
        {"creationTimestamp": BORN, "labels": {"old": "yes"}, **owners},
        spec={"hosts": ["web"], "exportTo": ["."]},
        status={"observed": 1},
    )
    manifest = resource(
        "VirtualService",
        "web",
        {"creationTimestamp": "2030-01-01T00:00:00Z", "labels": {"new": "yes"}},
        spec={"hosts": ["web", "web.example"]},
        status={"observed": 0},
    )
    (after,) = lay_over([live], [manifest])
    assert after.spec == {"hosts": ["web", "web.example"]}
    assert after.metadata == {
        "name": "web",
        "namespace": "shop",
        "labels": {"new": "yes"},
        "creationTimestamp": BORN,
        **owners,
    }
    assert after.data["status"] == {"observed": 1}
    assert after.raw is manifest.raw
    assert live.metadata["labels"] == {"old": "yes"}


def test_a_new_object_is_the_youngest() -> None:
    live = resource("VirtualService", "zzz", {"creationTimestamp": "2999-01-01T00:00:00Z"})
    copied = {"creationTimestamp": BORN, **owned("Rollout", "web")}
    manifest = resource("VirtualService", "aaa", copied, status={"observed": 1})
    after = sorted(lay_over([live], [manifest]), key=lambda found: found.age_key)
    assert [found.name for found in after] == ["zzz", "aaa"]
    assert after[1].metadata == {"name": "aaa", "namespace": "shop"}
    assert "status" not in after[1].data


def test_the_rest_stays() -> None:
    live = [resource("Service", "a"), resource("Service", "b")]
    after = lay_over(live, [resource("Service", "b"), resource("Service", "c")])
    assert [found.name for found in after] == ["a", "b", "c"]
    assert after[0] is live[0]


def test_a_service_keeps_its_address() -> None:
    live = resource("Service", "web", spec={"clusterIP": "10.0.0.1", "selector": {"old": "yes"}})
    manifest = resource("Service", "web", spec={"selector": {"app": "web"}})
    (after,) = lay_over([live], [manifest])
    assert after.spec == {"clusterIP": "10.0.0.1", "selector": {"app": "web"}}
    headless = resource("Service", "web", spec={"clusterIP": "None"})
    (after,) = lay_over([live], [headless])
    assert after.spec == {"clusterIP": "None"}


PODS = [
    resource("ReplicaSet", "web-1", owned("Deployment", "web")),
    resource("Pod", "web-1-x", owned("ReplicaSet", "web-1")),
    resource("ReplicaSet", "other-1", owned("Deployment", "other")),
    resource("Pod", "other-1-x", owned("ReplicaSet", "other-1")),
]


def test_pods_that_will_be_replaced_are_gone() -> None:
    after = lay_over([deployment(version="v1"), *PODS], [deployment(version="v2")])
    assert [found.name for found in after] == ["web", "other-1", "other-1-x"]


def test_pods_stay_where_their_labels_do() -> None:
    after = lay_over([deployment(version="v1"), *PODS], [deployment(version="v1")])
    assert len(after) == 5
