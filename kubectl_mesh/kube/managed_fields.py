"""Which fields of an object are whose, as the API server notes it in metadata.managedFields.

`kubectl apply` without --server-side writes fields as the manager kubectl-client-side-apply. Where
the manifest is applied on the server afterwards, fields that it no longer has would stay, as that
manager still has them: so kubectl hands its fields over first, and so do we.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which client-side `kubectl apply` keeps a manifest."""

_CLIENT_SIDE = "kubectl-client-side-apply"
_LAST_APPLIED_FIELD = ("f:metadata", "f:annotations", f"f:{LAST_APPLIED}")

_ITEM = "k:"
_WITH = re.compile(r'conflicts? with "([^"]+)"')

Fields = Mapping[str, Any]
Path = tuple[str, ...]


def handed_over(document: Mapping[str, Any], manager: str) -> list[dict[str, Any]] | None:
    """The managedFields once `manager` has what client-side kubectl has; None if that has nothing.

    Models `csaupgrade.UpgradeManagedFields` of client-go.
    """
    entries = _entries(document)
    old = [each for each in entries if _is_client_side(each)]
    if not old:
        return None
    left = [copy.deepcopy(dict(each)) for each in entries if not _is_client_side(each)]
    mine = next((each for each in left if _is_of(each, manager, "Apply")), None)
    if mine is None:
        mine = {**copy.deepcopy(old[0]), "manager": manager, "operation": "Apply"}
        left.append(mine)
    for each in old:
        mine["fieldsV1"] = _joined(mine.get("fieldsV1") or {}, each.get("fieldsV1") or {})
    _remove(mine["fieldsV1"], _LAST_APPLIED_FIELD)
    return left


def given_back(
    current: Mapping[str, Any], before: Mapping[str, Any]
) -> list[Mapping[str, Any]] | None:
    """The managedFields with which an object's fields are theirs again whose they were before.

    Those of subresources, such as the status, stay as they are now. None where nothing differs, or
    where it is not known whose they were.
    """
    own = [each for each in _entries(before) if not each.get("subresource")]
    now = _entries(current)
    fields = [*own, *(each for each in now if each.get("subresource"))]
    if not own or [*map(_owned, fields)] == [*map(_owned, now)]:
        return None
    return fields


def _owned(entry: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(entry.get(key) for key in ("manager", "operation", "subresource", "fieldsV1"))


def abandoned(document: Mapping[str, Any], applied: Mapping[str, Any]) -> Iterator[Path]:
    """The fields that client-side kubectl has alone and that are no longer applied.

    Fields of objects, and whole items of lists that are merged by a key (see is_item).
    """
    entries = _entries(document)
    others = [each.get("fieldsV1") or {} for each in entries if not _is_client_side(each)]
    for each in entries:
        if _is_client_side(each):
            for path in _paths(each.get("fieldsV1") or {}):
                kept = LAST_APPLIED in path or _has(applied, path)
                if not kept and not any(_has_field(fields, path) for fields in others):
                    yield path


def is_client_sides(reason: str) -> bool:
    """Whether a conflict that the server tells of is with client-side kubectl alone."""
    return set(_WITH.findall(reason)) == {_CLIENT_SIDE}


def is_item(path: Path) -> bool:
    """Whether a path leads to an item of a list, which its keys tell: `k:{"port":80}`."""
    return path[-1].startswith(_ITEM)


def without(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A document without a field or an item."""
    first, *rest = path
    found = dict(document)
    inner = found.get(first)
    if not rest:
        found.pop(first, None)
    elif isinstance(inner, dict):
        found[first] = without(inner, tuple(rest))
    elif isinstance(inner, list):
        key, *rest = rest
        found[first] = [
            without(each, tuple(rest)) if rest and _is_item(each, key) else each
            for each in inner
            if rest or not _is_item(each, key)
        ]
    return found


def _entries(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = (document.get("metadata") or {}).get("managedFields")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _is_client_side(entry: Mapping[str, Any]) -> bool:
    return _is_of(entry, _CLIENT_SIDE, "Update")


def _is_of(entry: Mapping[str, Any], manager: str, operation: str) -> bool:
    found = (entry.get("manager"), entry.get("operation"))
    return found == (manager, operation) and not entry.get("subresource")


def _joined(one: Fields, other: Fields) -> dict[str, Any]:
    found = dict(one)
    for key, value in other.items():
        found[key] = _joined(found.get(key) or {}, value or {})
    return found


def _remove(fields: dict[str, Any], path: Path) -> None:
    """Takes a field away, and what is empty without it."""
    first, *rest = path
    if first in fields:
        if rest:
            _remove(fields[first], tuple(rest))
        if not rest or not fields[first]:
            del fields[first]


def _paths(fields: Fields, here: Path = ()) -> Iterator[Path]:
    """The innermost fields, as far as names lead, and items."""
    names = {key[2:]: value for key, value in fields.items() if key.startswith("f:")}
    items = [key for key in fields if key.startswith(_ITEM)]
    if not names and not items and here and not is_item(here):
        yield here
    for name, value in names.items():
        yield from _paths(value or {}, (*here, name))
    for key in items:
        yield (*here, key)
        yield from _paths(fields[key] or {}, (*here, key))


def _has(document: Any, path: Path) -> bool:
    for name in path:
        if isinstance(document, list):
            found = [each for each in document if _is_item(each, name)]
            if not found:
                return False
            document = found[0]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            return False
    return True


def _is_item(item: Any, key: str) -> bool:
    """Whether it is the item with these keys; those that it does not name are the server's own."""
    wanted = json.loads(key.removeprefix(_ITEM))
    if not isinstance(item, dict) or wanted.keys().isdisjoint(item):
        return False
    return all(item.get(name, value) == value for name, value in wanted.items())


def _has_field(fields: Any, path: Path) -> bool:
    return _has(fields, tuple(name if is_item((name,)) else f"f:{name}" for name in path))
