"""JSON Patches from edits: what they test, what they do, and how they are taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_mesh.changes.patch import Conflict, content, difference, operations_of, patched
from kubectl_mesh.mesh.resource import ABSENT, Path, field_at
from kubectl_mesh.rules.repair import Edit
from tests.routing.given import service, snapshot

RESOURCE = next(iter(snapshot(service("web")).everything()))
RULE = {"match": [{"uri": {"prefix": "/"}}], "route": [{"destination": {"host": "web"}}]}
DOCUMENT: dict[str, Any] = {
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"hosts": ["a", "b"], "http": [copy.deepcopy(RULE), {"timeout": "1s"}]},
}


def edit(path: Path, value: Any, *, insert: bool = False) -> Edit:
    return Edit(RESOURCE, path, value, insert)


SUBSET = edit(("spec", "http", 0, "route", 0, "destination", "subset"), "v1")


def test_a_patch_tests_the_whole_item_that_it_is_in() -> None:
    assert operations_of(DOCUMENT, [SUBSET]) == [
        {"op": "test", "path": "/spec/http/0", "value": RULE},
        {"op": "add", "path": "/spec/http/0/route/0/destination/subset", "value": "v1"},
    ]


@pytest.mark.parametrize(
    ("change", "operations"),
    [
        (
            edit(("spec", "hosts", 1), ABSENT),
            [("test", "/spec/hosts/1", "b"), ("remove", "/spec/hosts/1", None)],
        ),
        (
            edit(("spec", "hosts", 0), "c", insert=True),
            [("test", "/spec/hosts", ["a", "b"]), ("add", "/spec/hosts/0", "c")],
        ),
        (
            edit(("metadata", "labels", "app"), "x/y~"),
            [("test", "/metadata/labels/app", "web"), ("replace", "/metadata/labels/app", "x/y~")],
        ),
        (
            edit(("metadata", "annotations", "a/b~c"), "1"),
            [("add", "/metadata/annotations", {"a/b~c": "1"})],
        ),
        (
            edit(("metadata", "labels", "a/b~c"), "1"),
            [
                ("test", "/metadata/labels", {"app": "web"}),
                ("add", "/metadata/labels/a~1b~0c", "1"),
            ],
        ),
    ],
)
def test_the_operations_of_an_edit(change: Edit, operations: list[tuple[str, str, object]]) -> None:
    found = operations_of(DOCUMENT, [change])
    assert [(each["op"], each["path"], each.get("value")) for each in found] == operations


def test_what_is_not_as_it_was_looked_at_is_left_alone() -> None:
    operations = operations_of(DOCUMENT, [SUBSET])
    for change in (
        {"http": [{"timeout": "1s"}, RULE]},
        {"http": []},
        {"http": [{**RULE, "timeout": "2s"}]},
        {},
    ):
        other = {"spec": change}
        before = copy.deepcopy(other)
        with pytest.raises(Conflict, match="it is not what it was, of /spec/http/0 for one"):
            patched(other, operations)
        assert other == before


def test_what_is_not_there_cannot_be_taken_away() -> None:
    with pytest.raises(Conflict, match="there is nothing at /spec/gateways"):
        operations_of(DOCUMENT, [edit(("spec", "gateways"), ABSENT)])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet="ab/~", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
_OBJECTS = st.dictionaries(st.text(alphabet="ab/~", max_size=3), _VALUES, min_size=1, max_size=4)


def _paths(value: Any, here: Path = ()) -> list[Path]:
    found = [here] if here else []
    steps: list[Any] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        found += _paths(value[step], (*here, step))
    return found


@given(_OBJECTS, st.data())
def test_a_patch_does_what_its_edits_say_and_its_inverse_takes_that_back(
    document: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(_paths(document)))
    kind = data.draw(st.sampled_from(["replace", "remove", "add", "insert", "move"]))
    value = data.draw(_VALUES)
    expected = copy.deepcopy(document)
    parent = expected
    for step in path[:-1]:
        parent = parent[step]
    change = edit(path, value)
    if kind == "remove":
        change = edit(path, ABSENT)
        del parent[path[-1]]
    elif kind == "insert" and isinstance(path[-1], int):
        change = edit(path, value, insert=True)
        parent.insert(path[-1], value)
    elif kind == "move" and isinstance(path[-1], int):
        to = data.draw(st.integers(0, len(parent) - 1))
        change = Edit(RESOURCE, (*path[:-1], to), source=path)
        parent.insert(to, parent.pop(path[-1]))
    elif kind == "add" and isinstance(field_at(document, path), dict):
        change = edit((*path, "fresh"), value)
        parent[path[-1]]["fresh"] = value
    else:
        parent[path[-1]] = value
    before = copy.deepcopy(document)
    operations = operations_of(document, [change])
    after = patched(document, operations)
    assert after == expected
    assert patched(after, difference(after, document)) == document == before


def test_what_the_server_notes_of_a_deletion_is_no_content() -> None:
    finalizers = ["x/y", "foregroundDeletion"]
    going = {"deletionTimestamp": "now", "deletionGracePeriodSeconds": 0, "finalizers": finalizers}
    assert content({"metadata": {"name": "x", **going}}) == {
        "metadata": {"name": "x", "finalizers": ["x/y"]}
    }
    assert content({"metadata": {"finalizers": ["orphan"]}}) == {"metadata": {}}
