"""What manifests want of a cluster, as the cluster itself is asked."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import Ready
from kubectl_mesh.changes.cluster import Cluster
from kubectl_mesh.changes.patch import content
from kubectl_mesh.errors import ClusterError, UsageError
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rollout.desired import Desired
from tests.changes.stand_in import Object, StandIn, Waits, resource_of, where
from tests.routing.given import destination_rule, pod, thing, to, virtual_service

ROUTE = virtual_service("web", ["web"], to("web"))
ISTIO = ROUTE["apiVersion"]
LABELLED = {"labels": {"app": "shop"}}


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def asked(*objects: Object) -> tuple[StandIn, Desired]:
    """A cluster with some objects, and what asks it."""
    server = StandIn(*objects)
    server.serve("v1", namespaced=False, namespaces="Namespace")
    server.serve(ISTIO, virtualservices="VirtualService", destinationrules="DestinationRule")
    return server, Desired(Cluster(server, Waits()))


def test_an_object_that_is_new_is_as_the_server_would_have_it() -> None:
    server, desired = asked(namespace("a"))
    (found,) = desired.wanted([resource_of(ROUTE)])
    assert (found.live, found.path, found.applied) == (None, where(ROUTE), content(ROUTE))
    assert found.after["spec"] == ROUTE["spec"]
    assert where(ROUTE) not in server.objects


def test_an_object_that_is_there_keeps_what_the_manifest_does_not_name() -> None:
    theirs = copy.deepcopy(ROUTE)
    theirs["status"] = {"kept": True}
    server, desired = asked(namespace("a"), theirs)
    manifest = virtual_service("web", ["web"], to("web", subset="v1"))
    (found,) = desired.wanted([resource_of(manifest)])
    assert found.live == server.objects[where(ROUTE)]
    assert (found.after["spec"], found.after["status"]) == (manifest["spec"], {"kept": True})


def test_what_client_side_kubectl_no_longer_applies_is_taken_off() -> None:
    live = copy.deepcopy(ROUTE)
    live["gone"] = 1
    live["metadata"]["managedFields"] = [
        {
            "manager": "kubectl-client-side-apply",
            "operation": "Update",
            "apiVersion": ISTIO,
            "fieldsV1": {"f:gone": {}},
        }
    ]
    _, desired = asked(namespace("a"), live)
    (found,) = desired.wanted([resource_of(ROUTE)])
    assert "gone" not in found.after


def test_in_a_namespace_that_comes_with_it_the_server_cannot_try_an_object() -> None:
    _, desired = asked()
    new = desired.wanted([resource_of(namespace("a")), resource_of(ROUTE)])[1]
    assert new.after is new.applied


def test_what_is_being_deleted_is_not_tried() -> None:
    going = copy.deepcopy(ROUTE)
    going["metadata"]["deletionTimestamp"] = "now"
    server, desired = asked(namespace("a"), going)
    server.refusals["apply"] = ClusterError("it is being deleted")
    (found,) = desired.wanted([resource_of(ROUTE)])
    assert found.after == found.applied


def test_a_configuration_with_more_than_is_meant_can_be_tried() -> None:
    _, desired = asked(namespace("a"), ROUTE)
    (found,) = desired.wanted([resource_of(ROUTE)])
    more = {**content(ROUTE), "spec": {**ROUTE["spec"], "exportTo": ["."]}}
    assert desired.would_be(found, more)["spec"]["exportTo"] == ["."]


def test_an_object_that_stands_twice_in_two_versions() -> None:
    server, desired = asked()
    twice = {**ROUTE, "apiVersion": "networking.istio.io/v1beta1"}
    server.serve(twice["apiVersion"], virtualservices="VirtualService")
    with pytest.raises(UsageError, match="VirtualService web stands twice in the manifests"):
        desired.wanted([resource_of(ROUTE), resource_of(twice)])


def test_a_kind_that_the_server_does_not_know() -> None:
    _, desired = asked()
    with pytest.raises(ClusterError, match=r"knows no Gateway of networking\.istio\.io/v1"):
        desired.wanted([resource_of(thing(ISTIO, "Gateway", "front", {}))])


def test_a_kind_in_no_namespace_is_placed_in_none() -> None:
    _, desired = asked()
    named = resource_of({**namespace("a"), "metadata": {"name": "a", "namespace": "shop"}})
    (found,) = desired.wanted([named])
    assert (found.path, found.resource.namespace) == ("/api/v1/namespaces/a", "")


def test_of_what_is_unwanted_only_what_is_there_goes() -> None:
    _, desired = asked(ROUTE)
    gone = virtual_service("gone", ["web"], to("web"))
    found = list(desired.unwanted([resource_of(ROUTE), resource_of(gone)]))
    assert [each.path for each in found] == [where(ROUTE)]


def labelled(name: str, *, applied: bool = True, **metadata: Any) -> Object:
    found = virtual_service(name, [name], to(name))
    fields = [{"manager": "m", "operation": "Apply" if applied else "Update"}]
    found["metadata"] |= {**LABELLED, "managedFields": fields, **metadata}
    return found


def test_pruned_is_what_was_applied_and_is_nobodys_and_none_of_the_manifests() -> None:
    owner = [{"kind": "Canary", "name": "web"}]
    server, desired = asked(
        labelled("web"),
        labelled("old"),
        labelled("made-by-hand", applied=False),
        labelled("owned", ownerReferences=owner),
        labelled("other-label", labels={"app": "other"}),
        labelled("other-namespace", namespace="b"),
    )
    (found,) = desired.pruned([resource_of(labelled("web"))], "app=shop")
    assert (found.path, found.resource.kind) == (where(labelled("old")), "VirtualService")
    assert found.live == {**server.objects[found.path], "apiVersion": ISTIO}


RULE = destination_rule("rule", "web", "v1", "v2")
ELSEWHERE = destination_rule("far", "far", "v1", namespace="b")


def without(desired: Desired, *names: str) -> list[tuple[str, list[str]]]:
    mesh = Snapshot([resource_of(RULE), resource_of(ELSEWHERE)])
    found = desired.without_subsets(mesh, names, "a")
    return [
        (each.resource.name, [subset["name"] for subset in each.after["spec"]["subsets"]])
        for each in found
    ]


def test_subsets_that_go() -> None:
    """By the DestinationRule's name or its host's, in the namespace that is named or meant."""
    _, desired = asked(RULE, ELSEWHERE)
    assert without(desired, "rule/v1") == [("rule", ["v2"])]
    assert without(desired, "web/v1", "a/rule/v2") == [("rule", [])]
    assert without(desired, "b/far/v1", "web/v2") == [("far", []), ("rule", ["v1"])]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v1", r"expected \[NAMESPACE/\]NAME/SUBSET"),
        ("rule/", r"expected \[NAMESPACE/\]NAME/SUBSET"),
        ("a/b/rule/v1", r"expected \[NAMESPACE/\]NAME/SUBSET"),
        ("rule/v3", "no DestinationRule of namespace a has that subset$"),
        ("far/v1", "namespace a has that subset; there is DestinationRule b/far$"),
    ],
)
def test_subsets_that_are_not_there(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        without(asked(RULE, ELSEWHERE)[1], name)


@pytest.mark.parametrize("ready", [True, False])
def test_whether_a_pod_is_ready(ready: bool) -> None:
    _, desired = asked(pod("web", ready=ready, version="v1"))
    assert desired.is_there(Ready("a", {"version": "v1"}, "subset v1")) is ready
