"""Which fields of an object are whose, as the API server notes it in metadata.managedFields.

What we patch stays with whoever had it: nobody has to take it over from us (see kept). What a
manifest no longer has goes only if its manager is known to have applied it: so where we apply a
manifest, we take over first what client-side kubectl has, as kubectl does (see handed_over).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which client-side `kubectl apply` keeps a manifest."""

FIELD_MANAGER = "kubectl-mesh"
"""Our own name: whoever has fields under it has left them there half-way."""

KUBECTL = "kubectl"
"""The name of `kubectl apply --server-side`, and so that of our apply."""

KEEPS_LAST_APPLIED = "kubectl-last-applied"
"""The name under which `kubectl apply --server-side` keeps that annotation as it should be."""

_CLIENT_SIDE = "kubectl-client-side-apply"
_BEFORE_FIRST_APPLY = "before-first-apply"
"""The API server's name for whoever wrote an object before it noted that."""
_LAST_APPLIED_FIELD = ("f:metadata", "f:annotations", f"f:{LAST_APPLIED}")

_APPLY, _UPDATE = "Apply", "Update"
_ITEM = "k:"
_ITSELF = "."
_WITH = re.compile(r'conflicts? with "([^"]+)"')

Fields = Mapping[str, Any]
Path = tuple[str, ...]
Entry = Mapping[str, Any]


def kept(before: Mapping[str, Any], current: Mapping[str, Any], writer: str) -> list[Entry] | None:
    """The managedFields with which what `writer` wrote is theirs whose it was `before`.

    What nobody had is nobody's: whoever wants it takes it without a conflict, and no manifest that
    does not have it takes it away. But where the same patch changed fields that somebody applies,
    it is theirs, too: a manifest that sets back one sets back the other. None where `writer` has
    nothing.
    """
    mine = [each for each in _entries(current) if _is_of(each, writer, _UPDATE)]
    if not mine:
        return None
    written = {path for each in mine for path in _members(each)}
    owners = [each for each in _entries(before) if not each.get("subresource")]
    had = {_key(each): _members(each) for each in owners}
    new = written.difference(*had.values())
    found = {_key(each): each for each in _entries(current) if each not in mine}
    for each in owners:
        key = _key(each)
        now = _members(found.get(key, {}))
        lost = had[key] - now - {_LAST_APPLIED_FIELD}
        fields = now | (had[key] & written) | (new if lost and _is_applier(each) else set())
        if fields:
            found[key] = {**each, "fieldsV1": _fields(fields)}
    return list(found.values())


def aligned(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The annotation of client-side kubectl, once a patch makes `after` of an object.

    The manifest in it is one that was never applied, but would have been had it had the change: so
    `kubectl apply --server-side`, which goes by it, has no conflict. None where the annotation has
    nothing to do with the change, or none is there.
    """
    try:
        last = json.loads(last_applied(before) or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(last, dict) or _followed(last, before, after, adds=False) == last:
        return None
    return as_last_applied(_followed(last, before, after, adds=True))


def last_applied(document: Mapping[str, Any]) -> str | None:
    """The annotation of client-side kubectl, if an object has one."""
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    found = annotations.get(LAST_APPLIED)
    return found if isinstance(found, str) else None


def as_last_applied(manifest: Mapping[str, Any]) -> str:
    """A manifest as kubectl writes it into the annotation."""
    metadata = dict(manifest.get("metadata") or {})
    metadata["annotations"] = dict(metadata.get("annotations") or {})
    metadata["annotations"].pop(LAST_APPLIED, None)
    found = {**manifest, "metadata": metadata}
    return json.dumps(found, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"


_ABSENT = object()


def _followed(last: Any, before: Any, after: Any, *, adds: bool) -> Any:
    """What `last` becomes, where it is as `before`, once that becomes `after`."""
    if isinstance(last, dict) and isinstance(before, dict) and isinstance(after, dict):
        found = dict(last)
        for key in before.keys() | after.keys():
            one, other = before.get(key, _ABSENT), after.get(key, _ABSENT)
            if one == other or (key not in last and not (adds and one is _ABSENT)):
                continue
            value = _followed(last.get(key, _ABSENT), one, other, adds=adds)
            if value is _ABSENT:
                del found[key]
            else:
                found[key] = value
        return found
    if last == before:
        return after
    lists = [each for each in (last, before, after) if isinstance(each, list)]
    if len(lists) == 3 and len(last) == len(before) == len(after):
        pairs = zip(last, before, after, strict=True)
        if all(_is_part(one, other) for one, other in zip(last, before, strict=True)):
            return [_followed(*each, adds=adds) for each in pairs]
    return last


def _is_part(manifest: Any, item: Any) -> bool:
    """Whether an item of a list is what the server made of one of a manifest."""
    if not isinstance(manifest, dict) or not isinstance(item, dict):
        return bool(manifest == item)
    return all(item.get(key) == value for key, value in manifest.items())


def handed_over(document: Mapping[str, Any], manager: str) -> list[Entry] | None:
    """The managedFields once `manager` has what client-side kubectl has; None if that has nothing.

    As `csaupgrade.UpgradeManagedFields` of client-go. What is left of us is nobody's then.
    """
    entries = _entries(document)
    old = [each for each in entries if _is_client_side(each)]
    left = [each for each in entries if not _goes(each)]
    if len(left) == len(entries):
        return None
    if not left:  # else the server would make all of it before-first-apply's
        old = list(entries)
    if old:
        mine = next((each for each in left if _is_of(each, manager, _APPLY)), None)
        fields = set[Path]().union(*map(_members, [*old, *([mine] if mine else [])]))
        base = mine or {**old[0], "manager": manager, "operation": _APPLY}
        left = [each for each in left if each is not mine]
        left.append({**base, "fieldsV1": _fields(fields - {_LAST_APPLIED_FIELD})})
    return copy.deepcopy(left)


def given_back(current: Mapping[str, Any], before: Mapping[str, Any]) -> list[Entry] | None:
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


def _owned(entry: Entry) -> tuple[object, ...]:
    return (*_key(entry), entry.get("fieldsV1"))


def _key(entry: Entry) -> tuple[object, ...]:
    return tuple(entry.get(key) for key in ("manager", "operation", "apiVersion", "subresource"))


def managers(document: Mapping[str, Any]) -> set[str]:
    """Who has fields of an object, subresources aside."""
    return {str(each.get("manager")) for each in _entries(document) if not each.get("subresource")}


def writers(current: Mapping[str, Any], known: Mapping[str, Any]) -> list[Entry]:
    """The entries of others who have written to an object since it was as it is `known`.

    Whoever has only lost fields has not.
    """
    old = {_key(each): each for each in _entries(known)}
    return [
        each
        for each in _entries(current)
        if each.get("manager") != FIELD_MANAGER
        and (
            each.get("time") != old.get(_key(each), {}).get("time")
            or not _members(each) <= _members(old.get(_key(each), {}))
        )
    ]


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


def is_handed_over(document: Mapping[str, Any], reason: str) -> bool:
    """Whether a conflict that the server tells of is only with whom `handed_over` takes away."""
    names = set(_WITH.findall(reason))
    entries = [each for each in _entries(document) if not each.get("subresource")]
    going = {each.get("manager") for each in entries if _goes(each)}
    others = {each.get("manager") for each in entries if not _goes(each)}
    return bool(names) and names <= going - others


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


def _entries(document: Mapping[str, Any]) -> Sequence[Entry]:
    found = (document.get("metadata") or {}).get("managedFields")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _goes(entry: Entry) -> bool:
    return _is_client_side(entry) or _is_left_by_us(entry)


def _is_left_by_us(entry: Entry) -> bool:
    return _is_of(entry, FIELD_MANAGER, _UPDATE)


def _is_client_side(entry: Entry) -> bool:
    """Whether it is of `kubectl apply`, or of `kubectl create --save-config` and the like."""
    manager = str(entry.get("manager"))
    if not _is_of(entry, manager, _UPDATE):
        return False
    is_kubectls = manager.startswith("kubectl-") or manager == _BEFORE_FIRST_APPLY
    return manager == _CLIENT_SIDE or (is_kubectls and _LAST_APPLIED_FIELD in _members(entry))


def _is_applier(entry: Entry) -> bool:
    """Whether it is of one who takes away what its next manifest does not have."""
    return entry.get("operation") == _APPLY or _is_client_side(entry)


def _is_of(entry: Entry, manager: str, operation: str) -> bool:
    found = (entry.get("manager"), entry.get("operation"))
    return found == (manager, operation) and not entry.get("subresource")


def _members(entry: Entry) -> set[Path]:
    """The fields of an entry, one by one."""
    fields = entry.get("fieldsV1")
    return set(_walked(fields if isinstance(fields, dict) else {}, ()))


def _walked(fields: Fields, here: Path) -> Iterator[Path]:
    if not fields and here:
        yield here
    for key, inner in fields.items():
        if key == _ITSELF:
            yield here
        else:
            yield from _walked(inner if isinstance(inner, dict) else {}, (*here, key))


def _fields(members: Iterable[Path]) -> dict[str, Any]:
    """What the server writes of some fields: `_members` the other way round."""
    found: dict[str, Any] = {}
    inner = []
    for path in sorted(members):
        here = found
        for key in path:
            here = here.setdefault(key, {})
        inner.append(here)
    for each in inner:
        if each:
            each[_ITSELF] = {}
    return found


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
