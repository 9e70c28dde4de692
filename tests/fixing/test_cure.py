"""Repairs until nothing is left to repair: one change set, in an order that breaks nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_mesh.changes.after import resource_of
from kubectl_mesh.changes.change_set import ChangeSet, change_set, joined
from kubectl_mesh.changes.patch import (
    Conflict,
    after_each_other,
    operations_of,
    patched,
    written_at,
)
from kubectl_mesh.fixing import cure as module
from kubectl_mesh.fixing.cure import Cure, Wishes, cure
from kubectl_mesh.mesh.resource import ABSENT, Path, Resource, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.rules.repair import Edit, Repair, Then
from kubectl_mesh.rules.rule import Finding, Rule
from tests.routing.given import service, snapshot, thing

WEB = service("web")


def resources(*objects: Mapping[str, Any]) -> list[Resource]:
    return list(snapshot(*objects).everything())


# One patch of several


def random_edit(
    draw: Callable[[Any], Any], document: Mapping[str, Any], resource: Resource
) -> Edit:
    items = document["items"]
    kind = draw(st.sampled_from(["set", "inside", "insert", "remove", "move", "key", "replace"]))
    index = draw(st.integers(0, max(len(items) - 1, 0)))
    value = draw(st.integers(100, 999))
    if kind == "insert" or not items:
        return Edit(resource, ("items", draw(st.integers(0, len(items)))), {"n": value}, True)
    if kind == "inside":
        return Edit(resource, ("items", index, "n"), value)
    if kind == "remove":
        return Edit(resource, ("items", index), ABSENT)
    if kind == "move":
        to = draw(st.integers(0, len(items) - 1))
        return Edit(resource, ("items", to), source=("items", index))
    if kind == "replace":
        return Edit(resource, ("items", index), {"n": value})
    if kind == "key":
        return Edit(resource, ("data", draw(st.sampled_from("abc"))), str(value))
    return Edit(resource, ("one", "two", draw(st.sampled_from("abc"))), value)


@given(st.data())
def test_one_patch_does_what_edits_after_each_other_do(data: st.DataObject) -> None:
    """And it fails where an item has changed in which one of them was made."""
    (resource,) = resources(WEB)
    document: dict[str, Any] = {
        "data": {"a": "1", "b": "2"},
        "items": [{"n": number} for number in range(data.draw(st.integers(0, 5)))],
    }
    now = copy.deepcopy(document)
    edits: tuple[Edit, ...] = ()
    touched: list[Path] = []
    for _ in range(data.draw(st.integers(1, 7))):
        edit = random_edit(data.draw, now, resource)
        if not edit.insert and not edit.source:
            touched.append(written_at(edit.path, edits))
        now = patched(now, operations_of(now, [edit]))
        edits = after_each_other(edits, [edit])
    operations = operations_of(document, edits)
    assert patched(document, operations) == now
    for path in touched:
        if len(path) > 1 and path[0] == "items":
            other = copy.deepcopy(document)
            other["items"][path[1]] = {"n": -1}
            with pytest.raises(Conflict):
                patched(other, operations)


@given(st.data())
def test_a_place_is_found_as_it_was(data: st.DataObject) -> None:
    (resource,) = resources(WEB)
    document: dict[str, Any] = {"data": {}, "items": [{"n": number} for number in range(5)]}
    now, edits = copy.deepcopy(document), []
    for _ in range(data.draw(st.integers(0, 6))):
        edit = random_edit(data.draw, now, resource)
        now = patched(now, operations_of(now, [edit]))
        edits.append(edit)
    for index, item in enumerate(now["items"]):
        if item["n"] < 100:
            found = written_at(("items", index), edits)
            assert field_at(document, found) == item


@given(st.lists(st.integers(0, 7), unique=True), st.integers(0, 7))
def test_items_that_go_from_one_list_need_no_second_round(gone: list[int], kept: int) -> None:
    """What is inside another item of the list does."""
    (resource,) = resources(NGINX)
    document: dict[str, Any] = {**NGINX, "items": [{"n": number} for number in range(8)]}
    repairs = [
        Repair("go", f"delete {number}", (Edit(resource, ("items", number), ABSENT),))
        for number in gone
    ]
    inside = Repair("set", "set it", (Edit(resource, ("items", kept, "n"), -1),))
    changes, waiting = change_set([*repairs, inside], lambda resource: document)
    assert waiting == ([inside] if gone else [])
    (step,) = changes.steps
    assert step.after is not None
    if gone:
        left = [number for number in range(8) if number not in gone]
        assert [each["n"] for each in step.after["items"]] == left
    tests = [each for each in step.operations if each["op"] == "test"]
    assert {each["value"]["n"] for each in tests} == set(gone or [kept])


# The order of steps

RULE = thing("networking.istio.io/v1", "DestinationRule", "web", {"host": "web"})
FRONT = thing("networking.istio.io/v1", "VirtualService", "front", {"hosts": ["front"]})
NGINX = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "nginx", "namespace": "a"},
    "data": {"a.conf": "1"},
}


def made(*edits: tuple[Resource, Path, Any]) -> ChangeSet:
    repairs = [
        Repair("it", f"set {path[-1]}", (Edit(resource, path, value),))
        for resource, path, value in edits
    ]
    changes, waiting = change_set(repairs, lambda resource: resource.raw)
    assert not waiting
    return changes


def test_a_route_to_a_new_subset_comes_when_all_proxies_have_it() -> None:
    rule, front = resources(RULE, FRONT)
    first = made((front, ("spec", "a"), 1), (rule, ("spec", "subsets"), []))
    front = resource_of(front, first.steps[0].after or {})
    steps = joined(first, made((front, ("spec", "b"), 2))).steps
    assert [(step.resource.kind, step.then) for step in steps] == [
        ("VirtualService", None),
        ("DestinationRule", Then.PROXIES),
        ("VirtualService", None),
    ]
    assert steps[2].before == steps[0].after


def test_an_object_has_one_step_where_nothing_comes_in_between() -> None:
    front, config, other = resources(FRONT, NGINX, {**FRONT, "metadata": {"name": "b"}})
    first = made((front, ("spec", "a"), 1), (other, ("spec", "a"), 1))
    front = resource_of(front, first.steps[0].after or {})
    steps = joined(first, made((front, ("spec", "a"), 2), (config, ("data", "a.conf"), "2"))).steps
    assert [step.resource.id for step in steps] == [front.id, other.id, config.id]
    assert all(step.then is None for step in steps)
    assert steps[0].before == FRONT
    assert [each["op"] for each in steps[0].operations] == ["test", "add"]
    assert steps[0].after is not None
    assert steps[0].after["spec"]["a"] == 2


def test_what_comes_to_nothing_is_no_step() -> None:
    (config,) = resources(NGINX)
    first = made((config, ("data", "a.conf"), "2"))
    again = resource_of(config, first.steps[0].after or {})
    assert not joined(first, made((again, ("data", "a.conf"), "1")))


# Rounds

KM609 = BY_CODE["KM609"]


def ruled(check: Callable[[Snapshot], Iterator[Finding]]) -> tuple[Rule, ...]:
    fields = {name: getattr(KM609, name) for name in KM609.__dataclass_fields__}
    return (Rule(**{**fields, "needs": ("ConfigMap",), "uses": (), "check": check}),)


def cured(check: Callable[[Snapshot], Iterator[Finding]], **wishes: Any) -> Cure:
    state = snapshot(NGINX)
    rules = ruled(check)
    return cure(
        state,
        examine(state, rules),
        lambda then: examine(then, rules),
        Wishes(lambda finding: True, **wishes),
        lambda resource: resource.raw,
    )


def turn(config: Resource, to: str) -> Finding:
    edit = Edit(config, ("data", "a.conf"), to)
    return KM609.finding(
        config,
        ("data", "a.conf"),
        f"not {to}",
        traffic="",
        next="",
        repairs=(Repair(f"to-{to}", f"make it {to}", (edit,)),),
    )


def test_what_is_found_behind_a_repair_is_repaired_with_it() -> None:
    def check(state: Snapshot) -> Iterator[Finding]:
        for config in state.of("ConfigMap"):
            number = int(config.data["data"]["a.conf"])
            if number < 5:
                yield turn(config, str(number + 1))

    found = cured(check)
    assert [each.repair.name for each in found.made] == ["to-2", "to-3", "to-4", "to-5"]
    (step,) = found.changes.steps
    assert step.operations == [
        {"op": "test", "path": "/data/a.conf", "value": "1"},
        {"op": "replace", "path": "/data/a.conf", "value": "5"},
    ]
    assert (found.deferred, found.revealed, found.manual) == ([], [], [])
    found = cured(check, untouchable=[step.resource.id])
    assert (bool(found.changes), len(found.manual)) == (False, 1)


def test_repairs_that_undo_each_other_end() -> None:
    def check(state: Snapshot) -> Iterator[Finding]:
        for config in state.of("ConfigMap"):
            yield turn(config, {"1": "2", "2": "3", "3": "1"}[config.data["data"]["a.conf"]])

    found = cured(check)
    assert [each.repair.name for each in found.made] == ["to-2", "to-3"]
    assert [each.repairs[0].name for each in found.manual] == ["to-1"]


def test_a_repair_that_changes_nothing_is_left_to_people() -> None:
    def check(state: Snapshot) -> Iterator[Finding]:
        for config in state.of("ConfigMap"):
            yield turn(config, config.data["data"]["a.conf"])

    found = cured(check)
    assert (bool(found.changes), found.made, len(found.manual)) == (False, [], 1)


def test_what_never_ends_is_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUNDS", 3)

    def check(state: Snapshot) -> Iterator[Finding]:
        for config in state.of("ConfigMap"):
            yield turn(config, config.data["data"]["a.conf"] + "1")

    found = cured(check)
    assert [each.repair.name for each in found.made] == ["to-11", "to-111", "to-1111"]
    assert [each.name for each in found.deferred] == ["to-11111"]
