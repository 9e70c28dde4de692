"""Whose fields are whose, where client-side kubectl has applied an object before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_mesh.kube.managed_fields import (
    FIELD_MANAGER,
    LAST_APPLIED,
    abandoned,
    aligned,
    as_last_applied,
    handed_over,
    is_handed_over,
    kept,
    without,
    writers,
)

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
    assert mine["fieldsV1"] == {**SPEC, "f:metadata": {"f:annotations": {}}}


def test_it_is_joined_with_what_is_ours_already() -> None:
    old = entry(CLIENT_SIDE, "Update", {"f:spec": {"f:hosts": {}}})
    mine = entry("kubectl", "Apply", {"f:spec": {"f:http": {}}})
    assert handed_over(document(mine, old), "kubectl") == [entry("kubectl", "Apply", SPEC)]
    assert handed_over(document(mine), "kubectl") is None
    whole = entry("kubectl", "Apply", {"f:spec": {"f:labels": {}}})
    part = entry(CLIENT_SIDE, "Update", {"f:spec": {"f:labels": {"f:app": {}}}})
    both = {"f:spec": {"f:labels": {".": {}, "f:app": {}}}}
    assert handed_over(document(whole, part), "kubectl") == [entry("kubectl", "Apply", both)]
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


def test_who_saved_a_manifest_in_the_annotation_is_client_side_kubectl_too() -> None:
    fields = {**SPEC, "f:metadata": {"f:annotations": ANNOTATION}}
    for manager, is_kubectl in (
        ("kubectl-create", True),
        ("before-first-apply", True),
        ("argocd-controller", False),
    ):
        found = handed_over(document(entry(manager, "Update", fields)), "kubectl")
        assert bool(found) is is_kubectl
    assert handed_over(document(entry("kubectl-create", "Update", SPEC)), "kubectl") is None


def test_what_we_have_left_is_nobodys_where_a_manifest_is_applied() -> None:
    mine = entry(FIELD_MANAGER, "Update", {"f:spec": {"f:http": {}}})
    kubectl = entry("kubectl", "Apply", {"f:spec": {"f:hosts": {}}})
    assert handed_over(document(mine, kubectl), "kubectl") == [kubectl]
    theirs = {**mine, "manager": "kubectl", "operation": "Apply"}
    assert handed_over(document(mine), "kubectl") == [theirs], "somebody has to have something"
    asked = entry(FIELD_MANAGER, "Apply", SPEC)
    assert handed_over(document(asked), "kubectl") is None


def test_conflicts_with_those_who_hand_over_alone() -> None:
    client, ours = (entry(each, "Update", SPEC) for each in (CLIENT_SIDE, FIELD_MANAGER))
    found = document(client, ours, entry("argocd", "Apply", SPEC))
    one = 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .spec'
    assert is_handed_over(found, one)
    assert is_handed_over(found, one + f'\nconflicts with "{FIELD_MANAGER}" using v1:\n- .spec.x')
    assert not is_handed_over(found, one + '\nconflicts with "argocd" using v1:\n- .spec.x')
    assert not is_handed_over(found, "something else")
    same_name = entry(FIELD_MANAGER, "Apply", SPEC)
    assert not is_handed_over(document(ours, same_name), f'conflict with "{FIELD_MANAGER}"')


HTTP: dict[str, Any] = {"f:spec": {"f:http": {}}}
HOSTS: dict[str, Any] = {"f:spec": {"f:hosts": {}}}


@pytest.mark.parametrize(
    ("manager", "operation"),
    [("kubectl", "Apply"), (CLIENT_SIDE, "Update"), ("helm", "Update"), ("kubectl-edit", "Update")],
)
def test_a_patch_leaves_fields_to_whoever_has_them(manager: str, operation: str) -> None:
    before = entry(manager, operation, SPEC, time="2026-01-01T00:00:00Z")
    mine = entry("us", "Update", HTTP)
    some = document({**before, "fieldsV1": HOSTS}, mine)
    assert kept(document(before), some, "us") == [before]
    whole = document(mine)
    assert kept(document({**before, "fieldsV1": HTTP}), whole, "us") == [
        {**before, "fieldsV1": HTTP}
    ], "though the server has forgotten an entry of which nothing was left"
    assert kept(document(before), document(before), "us") is None
    ours = entry("us", "Update", HTTP)
    assert kept(document(ours), document(entry("us", "Update", SPEC)), "us") == [ours]


def test_those_who_write_meanwhile_keep_what_they_have() -> None:
    status = entry("pilot", "Update", {"f:status": {}}, subresource="status")
    old = entry("pilot", "Update", {"f:status": {"f:x": {}}}, subresource="status")
    other = entry("other", "Update", {"f:spec": {"f:tls": {}}})
    kubectl = entry("kubectl", "Apply", SPEC)
    now = document({**kubectl, "fieldsV1": HOSTS}, entry("us", "Update", HTTP), other, status)
    assert kept(document(kubectl, old), now, "us") == [kubectl, other, status]
    taken = document({**kubectl, "fieldsV1": HOSTS}, {**other, "fieldsV1": HTTP})
    assert kept(document(kubectl), taken, "us") is None


def test_what_nobody_had_is_nobodys_unless_something_applied_changes_with_it() -> None:
    new = {"f:spec": {"f:gateways": {}}}
    both = {"f:spec": {"f:gateways": {}, "f:http": {}}}
    kubectl, edit = entry("kubectl", "Apply", SPEC), entry("kubectl-edit", "Update", SPEC)
    alone = document(kubectl, entry("us", "Update", new))
    assert kept(document(kubectl), alone, "us") == [kubectl]
    assert kept(document(), document(entry("us", "Update", new)), "us") == []
    with_http = document({**kubectl, "fieldsV1": HOSTS}, entry("us", "Update", both))
    (whole,) = kept(document(kubectl), with_http, "us") or []
    assert whole["fieldsV1"] == {"f:spec": {"f:gateways": {}, "f:hosts": {}, "f:http": {}}}
    edited = document({**edit, "fieldsV1": HOSTS}, entry("us", "Update", both))
    assert kept(document(edit), edited, "us") == [edit], "that one applies nothing"
    without_http = document({**kubectl, "fieldsV1": HOSTS}, entry("us", "Update", new))
    (moved,) = kept(document(kubectl), without_http, "us") or []
    assert moved["fieldsV1"] == {"f:spec": {"f:gateways": {}, "f:hosts": {}}}


def test_the_annotation_alone_makes_nobody_the_manager_of_the_rest() -> None:
    notes = {"f:metadata": {"f:annotations": {f"f:{LAST_APPLIED}": {}}}}
    keeper = entry("kubectl-last-applied", "Apply", notes)
    ours = entry("us", "Update", {**notes, "f:spec": {"f:gateways": {}}})
    assert kept(document(keeper), document(ours), "us") == [keeper]


def test_who_has_written_since() -> None:
    kubectl = entry("kubectl", "Apply", SPEC, time="1")
    less = {**kubectl, "fieldsV1": HOSTS}
    edit = entry("kubectl-edit", "Update", HTTP, time="1")
    assert writers(document(less, edit), document(kubectl)) == [edit]
    assert writers(document(kubectl, edit), document(less, edit)) == [kubectl]
    later = {**kubectl, "time": "2"}
    assert writers(document(later), document(kubectl)) == [later]
    assert writers(document(entry(FIELD_MANAGER, "Update", SPEC)), {}) == []


def annotated(spec: object, applied: object) -> dict[str, Any]:
    text = applied if isinstance(applied, str) else json.dumps({"spec": applied})
    return {"metadata": {"annotations": {LAST_APPLIED: text}}, "spec": spec}


@pytest.mark.parametrize(
    ("applied", "before", "after", "then"),
    [
        pytest.param(
            {"a": [1], "b": 1}, {"a": [1], "b": 1}, {"a": [2], "b": 1}, {"a": [2], "b": 1}
        ),
        pytest.param(
            {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 2}}, {"a": {"b": 2}}
        ),
        pytest.param({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"b": 1}, {"b": 1}, id="taken away"),
        pytest.param(
            {"a": 1}, {"a": 1}, {"a": 2, "new": 3}, {"a": 2, "new": 3}, id="added with it"
        ),
        pytest.param({"a": 1}, {"a": 1}, {"a": 1, "new": 3}, None, id="only added"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, None, id="somebody else's"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, None, id="not in the manifest"),
        pytest.param(
            {"ports": [{"name": "a", "port": 1}]},
            {"ports": [{"name": "a", "port": 1, "protocol": "TCP"}]},
            {"ports": [{"name": "http-a", "port": 1, "protocol": "TCP"}]},
            {"ports": [{"name": "http-a", "port": 1}]},
            id="with defaults of the server",
        ),
        pytest.param(
            {"ports": [{"name": "a"}, {"name": "b"}]},
            {"ports": [{"name": "b", "x": 1}, {"name": "a", "x": 1}]},
            {"ports": [{"name": "c", "x": 1}, {"name": "a", "x": 1}]},
            None,
            id="in another order",
        ),
        pytest.param("no JSON", {"a": 1}, {"a": 2}, None),
        pytest.param("[" * 100_000, {"a": 1}, {"a": 2}, None),
        pytest.param("[]", {"a": 1}, {"a": 2}, None),
    ],
)
def test_the_annotation_follows_a_patch(
    applied: object, before: object, after: object, then: object
) -> None:
    found = aligned(annotated(before, applied), annotated(after, applied))
    assert (found and json.loads(found)["spec"]) == then
    assert aligned({"metadata": {}, "spec": before}, {"metadata": {}, "spec": after}) is None


def test_the_annotation_is_written_as_kubectl_does() -> None:
    manifest = {"metadata": {"name": "ä", "annotations": {LAST_APPLIED: "old"}}, "kind": "X"}
    assert as_last_applied(manifest) == '{"kind":"X","metadata":{"annotations":{},"name":"ä"}}\n'
    assert manifest["metadata"] == {"name": "ä", "annotations": {LAST_APPLIED: "old"}}
