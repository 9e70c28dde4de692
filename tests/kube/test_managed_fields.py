"""Whose fields are whose, where client-side kubectl has applied an object before."""

from __future__ import annotations

from typing import Any

from kubectl_mesh.kube.managed_fields import abandoned, handed_over, is_client_sides, without

CLIENT_SIDE = "kubectl-client-side-apply"
SPEC: dict[str, Any] = {"f:spec": {"f:hosts": {}, "f:http": {}}}
ANNOTATION = {"f:kubectl.kubernetes.io/last-applied-configuration": {}, ".": {}}


def entry(manager: str, operation: str, fields: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def document(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}, "spec": {"hosts": [], "http": []}}


def test_what_client_side_kubectl_has_becomes_ours() -> None:
    old = entry(CLIENT_SIDE, "Update", {**SPEC, "f:metadata": {"f:annotations": ANNOTATION}})
    status = entry(CLIENT_SIDE, "Update", {"f:status": {}}, subresource="status")
    other = entry("pilot", "Update", {"f:spec": {"f:x": {}}})
    (left, kept, mine) = handed_over(document(other, old, status), "kubectl") or []
    assert (left, kept) == (other, status)
    assert (mine["manager"], mine["operation"]) == ("kubectl", "Apply")
    assert mine["fieldsV1"] == {**SPEC, "f:metadata": {"f:annotations": {".": {}}}}


def test_it_is_joined_with_what_is_ours_already() -> None:
    old = entry(CLIENT_SIDE, "Update", {"f:spec": {"f:hosts": {}}})
    mine = entry("kubectl", "Apply", {"f:spec": {"f:http": {}}})
    assert handed_over(document(mine, old), "kubectl") == [entry("kubectl", "Apply", SPEC)]
    assert handed_over(document(mine), "kubectl") is None
    assert handed_over({"metadata": {}}, "kubectl") is None


def test_fields_that_are_no_longer_applied() -> None:
    fields = {"f:spec": {"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}, "f:ports": {'k:{"port":1}': {}}}}
    found = document(
        entry(CLIENT_SIDE, "Update", {**fields, "f:metadata": {"f:annotations": ANNOTATION}}),
        entry("other", "Update", {"f:spec": {"f:d": {}}}),
    )
    applied = {"spec": {"a": {"b": 1}}}
    item = ("spec", "ports", 'k:{"port":1}')
    assert list(abandoned(found, applied)) == [("spec", "a", "c"), item]
    assert list(abandoned(found, {"spec": {"a": {"b": 1}, "ports": [{"port": 2}]}}))[1:] == [item]
    assert list(abandoned(document(), applied)) == []


def test_a_field_is_taken_off() -> None:
    found = {"spec": {"a": {"b": 1, "c": 2}}, "x": 1}
    assert without(found, ("spec", "a", "c")) == {"spec": {"a": {"b": 1}}, "x": 1}
    assert without(found, ("spec", "no", "c")) == found
    assert found["spec"] == {"a": {"b": 1, "c": 2}}


def test_items_of_lists_are_told_by_their_keys() -> None:
    """A manifest need not name those that the server knows, such as protocol TCP."""
    key = 'k:{"port":1,"protocol":"TCP"}'
    found = document(entry(CLIENT_SIDE, "Update", {"f:spec": {"f:ports": {".": {}, key: {}}}}))
    for ports, is_there in (
        ([{"port": 1}], True),
        ([{"port": 1, "protocol": "UDP"}], False),
        ([{"name": "x"}, "y"], False),
    ):
        assert bool(list(abandoned(found, {"spec": {"ports": ports}}))) != is_there
    both = {"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}]}}
    (left,) = without(both, ("spec", "ports", key))["spec"]["ports"]
    assert left["protocol"] == "UDP"
    other = entry("other", "Update", {"f:spec": {"f:ports": {key: {"f:name": {}}}}})
    theirs = document(other, found["metadata"]["managedFields"][0])
    assert list(abandoned(theirs, {"spec": {}})) == [], "somebody else has it, too"


def test_items_within_items() -> None:
    """A variable of a container that stays."""
    name = 'k:{"name":"app"}'
    env = {"f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}}, 'k:{"name":"B"}': {".": {}}}}
    fields = {"f:spec": {"f:containers": {name: {".": {}, "f:image": {}, **env}}}}
    found = document(entry(CLIENT_SIDE, "Update", fields))
    applied = {"spec": {"containers": [{"name": "app", "image": "x", "env": [{"name": "A"}]}]}}
    path = ("spec", "containers", name, "env", 'k:{"name":"B"}')
    assert list(abandoned(found, applied)) == [path]
    live = {"spec": {"containers": [{"name": "app", "env": [{"name": "A"}, {"name": "B"}]}, {}]}}
    assert without(live, path)["spec"]["containers"] == [
        {"name": "app", "env": [{"name": "A"}]},
        {},
    ]


def test_conflicts_with_client_side_kubectl_alone() -> None:
    one = 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .spec'
    assert is_client_sides(one)
    assert not is_client_sides(one + '\nconflicts with "argocd" using v1:\n- .spec.x')
    assert not is_client_sides("something else")
