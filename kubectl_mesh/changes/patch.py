"""JSON Patches (RFC 6902) from edits, with `test` operations for all that they rely on.

An edit inside a list item relies on that item being the one that was looked at: the whole item is
tested, so that a patch fails where somebody has changed, moved or removed it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonpatch
import jsonpointer

from kubectl_mesh.changes.deletion import OF_COLLECTOR
from kubectl_mesh.errors import MeshError
from kubectl_mesh.kube.managed_fields import LAST_APPLIED
from kubectl_mesh.mesh.resource import ABSENT, Path, field_at, pointer
from kubectl_mesh.rules.repair import Edit

Operation = Mapping[str, Any]
NOTES = frozenset((LAST_APPLIED, "deployment.kubernetes.io/revision"))
"""Annotations that kubectl and controllers write for themselves."""
_SERVERS_OWN = frozenset(
    (
        "managedFields",
        "resourceVersion",
        "generation",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    )
)
_ALWAYS_CHANGING: tuple[Path, ...] = ((), ("metadata",))
"""What nobody can rely on: the API server itself writes into it."""


class Conflict(MeshError):
    """An object is not what a patch relies on."""


def operations_of(document: Mapping[str, Any], edits: Iterable[Edit]) -> list[Operation]:
    """The operations that make some edits to one object, which is as `document`.

    Each edit is made to what those before it leave. All tests come first, so that they speak of the
    object as it is. Raises Conflict where an edit does not fit.
    """
    edits = list(edits)
    tests: dict[Path, Any] = {}
    for number, edit in enumerate(edits):
        place = _relied_on(document, edit, edits[:number])
        if place not in _ALWAYS_CHANGING:
            tests[place] = field_at(document, place)
    operations: list[Operation] = [
        {"op": "test", "path": pointer(path), "value": value}
        for path, value in tests.items()
        if value is not ABSENT
    ]
    after: Any = copy.deepcopy(dict(document))
    for edit in edits:
        for operation in _changes(after, edit):
            operations.append(operation)
            after = _applied(after, [operation])
    return operations


def _relied_on(document: Mapping[str, Any], edit: Edit, earlier: Sequence[Edit]) -> Path:
    """The field that is tested: the list item that an edit is in, else the field itself.

    Of a field that is not there it is the object around it, which shows that it is not; of one that
    an `earlier` edit makes, what is around that.
    """
    for length, step in enumerate(edit.path, 1):
        if isinstance(step, int):
            inside = length < len(edit.path)
            item = inside or not (edit.insert or edit.source)
            return written_at(edit.path[: length if item else length - 1], earlier)
    path = written_at(edit.path, earlier)
    while path and field_at(document, path) is ABSENT:
        path = path[:-1]
    return path


def written_at(path: Path, edits: Sequence[Edit]) -> Path:
    """Where a field stands in an object that is at `path` once some edits are made to it.

    Of what they add it is the innermost thing around it that they do not.
    """
    while path:
        found: Path | None = path
        for edit in reversed(edits):
            found = _before(found, edit) if found else None
        if found:
            return found
        path = path[:-1]
    return path


def _before(path: Path, edit: Edit) -> Path | None:
    """Where a field stands before an edit; None for one that the edit adds."""
    *around, last = edit.path or ("",)
    length = len(around)
    place = path[length] if path[:length] == tuple(around) and len(path) > length else None
    if not (isinstance(place, int) and isinstance(last, int)):
        return None if len(path) > len(edit.path) and path[: len(edit.path)] == edit.path else path
    if edit.source:
        start = edit.source[-1]
        assert isinstance(start, int)
        number = start if place == last else place - (place > last)
        number += place != last and number >= start
    elif edit.insert:
        if place == last:
            return None
        number = place - (place > last)
    elif edit.value is ABSENT:
        number = place + (place >= last)
    elif place == last and len(path) > length + 1:
        return None
    else:
        number = place
    return (*around, number, *path[length + 1 :])


def after_each_other(first: Iterable[Edit], second: Iterable[Edit]) -> tuple[Edit, ...]:
    """Edits of one object, and then others of it, without those that a later one overrules."""
    made = list(first)
    for edit in second:
        for number in reversed(range(len(made))):
            earlier = made[number]
            if _sets(earlier) and _sets(edit) and earlier.path == edit.path:
                edit = replace(edit, then=edit.then or earlier.then)
                del made[number]
                break
            if displaces(earlier, edit):
                break
        made.append(edit)
    return tuple(made)


def _sets(edit: Edit) -> bool:
    return not (edit.insert or edit.source or edit.value is ABSENT)


def displaces(one: Edit, other: Edit) -> bool:
    """Whether an edit makes the place of another mean something else, or is for the same one.

    Items that go from one list do not, in the order of `goes_first`.
    """
    if _goes(one) and _goes(other) and one.path[:-1] == other.path[:-1]:
        return one.path == other.path
    return (
        _is_within(one.path, other.path)
        or _is_within(other.path, one.path)
        or (_shifts(other) and _is_within(one.path, other.path[:-1]))
        or (_shifts(one) and _is_within(other.path, one.path[:-1]))
    )


def _shifts(edit: Edit) -> bool:
    return edit.insert or bool(edit.source) or _goes(edit)


def _goes(edit: Edit) -> bool:
    """Whether it takes an item out of a list."""
    found = edit.value is ABSENT and not edit.source
    return found and bool(edit.path) and isinstance(edit.path[-1], int)


def goes_first(one: Edit, other: Edit) -> bool:
    """Whether one of two items that go from a list has to, for both are where they are now."""
    last, others = one.path[-1:], other.path[-1:]
    return _goes(one) and _goes(other) and one.path[:-1] == other.path[:-1] and last > others


def _is_within(path: Path, around: Path) -> bool:
    return path[: len(around)] == around


def _changes(document: Mapping[str, Any], edit: Edit) -> Iterator[Operation]:
    """The operations of one edit; the objects around a new field are made."""
    if edit.source:
        yield {"op": "move", "from": pointer(edit.source), "path": pointer(edit.path)}
        return
    if edit.insert:
        yield {"op": "add", "path": pointer(edit.path), "value": edit.value}
        return
    found = field_at(document, edit.path)
    if edit.value is ABSENT:
        if found is ABSENT:
            raise Conflict(f"there is nothing at {pointer(edit.path)}")
        yield {"op": "remove", "path": pointer(edit.path)}
        return
    for length in range(1, len(edit.path)):
        if field_at(document, edit.path[:length]) in (ABSENT, None):
            inner: Any = edit.value
            for step in reversed(edit.path[length:]):
                inner = {step: inner}
            yield {"op": "add", "path": pointer(edit.path[:length]), "value": inner}
            return
    kind = "add" if found is ABSENT else "replace"
    yield {"op": kind, "path": pointer(edit.path), "value": edit.value}


def patched(document: Mapping[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """The object after a patch; `document` stays as it is.

    Raises Conflict where a test fails or an operation does not fit: then nothing is changed.
    """
    found = _applied(document, operations)
    assert isinstance(found, dict)
    return found


def _applied(document: Any, operations: Sequence[Operation]) -> Any:
    try:
        return jsonpatch.JsonPatch([dict(each) for each in operations]).apply(document)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise Conflict(_said(error, operations)) from error


def _said(error: Exception, operations: Sequence[Operation]) -> str:
    tested = next((each for each in operations if each["op"] == "test"), None)
    where = f", of {tested['path'] or 'the object'} for one" if tested else ""
    return f"it is not what it was{where}: {' '.join(str(error).split())[:200]}"


def difference(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Operation]:
    """The patch that makes one object of another: patched(document, it) is `wanted`.

    It takes another patch back, where `wanted` is the object that it was made to.
    """
    return list(jsonpatch.make_patch(document, wanted).patch)


def content(document: Mapping[str, Any]) -> dict[str, Any]:
    """What people write of an object: without status, and what the API server keeps."""
    found = {key: value for key, value in document.items() if key != "status"}
    metadata = found.get("metadata") or {}
    found["metadata"] = {key: each for key, each in metadata.items() if key not in _SERVERS_OWN}
    finalizers = metadata.get("finalizers") or ()
    if not OF_COLLECTOR.isdisjoint(finalizers):
        del found["metadata"]["finalizers"]
        if left := [each for each in finalizers if each not in OF_COLLECTOR]:
            found["metadata"]["finalizers"] = left
    return found


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two objects have the same content, whatever programs note in their annotations."""
    return without_notes(content(one)) == without_notes(content(other))


def without_notes(document: Mapping[str, Any]) -> dict[str, Any]:
    """An object without annotations that kubectl and controllers write for themselves."""
    metadata = dict(document.get("metadata") or {})
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and not NOTES.isdisjoint(annotations):
        left = {key: value for key, value in annotations.items() if key not in NOTES}
        if left:
            metadata["annotations"] = left
        else:
            del metadata["annotations"]
    return {**document, "metadata": metadata}


@dataclass(frozen=True)
class Target:
    """The object that a patch is for. `namespace` is "" for cluster-scoped kinds."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def is_same_object(self, other: Target) -> bool:
        """Whether both are one object, maybe in two versions of its group."""
        return self._identity == other._identity

    @property
    def _identity(self) -> tuple[str, ...]:
        group = self.api_version.rpartition("/")[0]
        return (group, self.kind, self.namespace, self.name)

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind} {self.name}"
        )
