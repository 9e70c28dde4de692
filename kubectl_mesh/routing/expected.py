"""Requests and connections in JSON Lines with what is expected of them: unit tests of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.errors import InputError, UsageError
from kubectl_mesh.routing.connection import Connection, connection_for, is_connection
from kubectl_mesh.routing.request import BadServerName, Request, request_for

_FIELDS: Mapping[str, type] = {
    "name": str,
    "from": str,
    "sourceNamespace": str,
    "sourceLabels": dict,
    "method": str,
    "url": str,
    "headers": dict,
    "serverName": str,
    "expect": dict,
}
_TYPES: Mapping[type, str] = {str: "a string", dict: "an object"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GATEWAY = re.compile(r"gateway/([^/]+/[^/]+)")


@dataclass(frozen=True)
class Source:
    """Where a request comes from. `gateway` is "namespace/name"; None for a pod of the mesh.

    `namespace` is None where none is named.
    """

    gateway: str | None
    namespace: str | None = None
    labels: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Case:
    """One line. `source` is None where it does not say whence; `expect` where nothing is."""

    line: int
    name: str
    source: Source | None
    request: Request | Connection
    expect: Mapping[str, Any] | None


def read_cases(text: str, file: str, answers: Collection[str]) -> Iterator[Case | InputError]:
    """The requests of a text, and what is wrong with the lines that hold none.

    Empty lines are passed over. `answers` are the fields that `expect` may name.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _case(line, number, answers)
            except _Bad as bad:
                yield InputError(bad.message, file, number, bad.column)


class _Bad(Exception):
    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.column = column


def _case(line: str, number: int, answers: Collection[str]) -> Case:
    data = _object(line)
    try:
        _check_types(data)
        _check_fields(data, answers)
        request = _request(data)
        source = _source(data)
    except _BadField as bad:
        raise _Bad(bad.message, line.find(json.dumps(bad.field)) + 1 or 1) from None
    return Case(number, data.get("name") or str(request), source, request, data.get("expect"))


class _BadField(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def _object(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise _Bad(f"no JSON: {error.msg}", error.colno) from None
    except (RecursionError, ValueError) as error:
        raise _Bad(f"no JSON: {error}", 1) from None
    if not isinstance(data, dict):
        raise _Bad("a request must be an object", 1)
    return data


def _check_types(data: Mapping[str, Any]) -> None:
    """Raises _BadField for a field that is not known, and for a value of another type."""
    for field, value in data.items():
        wanted = _FIELDS.get(field)
        if wanted is None:
            raise _BadField(field, f"unknown field {field!r}; known are {', '.join(_FIELDS)}")
        if value is not None and not isinstance(value, wanted):
            raise _BadField(field, f"{field} must be {_TYPES[wanted]}")
    for field in ("headers", "sourceLabels"):
        for name, value in (data.get(field) or {}).items():
            if not isinstance(value, str):
                raise _BadField(field, f"{field}: the value of {name!r} must be a string")


def _check_fields(data: Mapping[str, Any], answers: Collection[str]) -> None:
    """Raises _Bad and _BadField for what makes no request or expectation, types aside."""
    if not data.get("url"):
        raise _Bad("url is missing", 1)
    if is_connection(data["url"]):
        for field in ("method", "headers"):
            if data.get(field):
                raise _BadField(field, f"a connection has no {field}: leave it out")
    if not _TOKEN.fullmatch(data.get("method") or "GET"):
        raise _BadField("method", f"{data['method']!r} is no method")
    for name in data.get("expect") or ():
        if name not in answers:
            known = ", ".join(answers)
            raise _BadField(name, f"expect: no answer has a field {name!r}; known are {known}")


def _request(data: Mapping[str, Any]) -> Request | Connection:
    url, name = data["url"], data.get("serverName")
    try:
        if is_connection(url):
            return connection_for(url, name)
        return request_for(url, data.get("method") or "GET", data.get("headers"), name)
    except UsageError as error:
        about = "serverName" if isinstance(error, BadServerName) else "url"
        raise _BadField(about, str(error)) from None


def _source(data: Mapping[str, Any]) -> Source | None:
    origin = data.get("from")
    namespace = data.get("sourceNamespace")
    labels = frozenset((data.get("sourceLabels") or {}).items())
    if origin is None and not namespace and not labels:
        return None
    if origin in (None, "mesh"):
        return Source(None, namespace, labels)
    named = _GATEWAY.fullmatch(origin)
    if not named:
        raise _BadField("from", f"from must be mesh or gateway/NAMESPACE/NAME, not {origin!r}")
    if namespace or labels:
        raise _BadField("from", "sourceNamespace and sourceLabels are for requests from the mesh")
    return Source(named[1])


def mismatches(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """How an answer differs from what is expected, a line each.

    Of an object only the fields that are expected count; lists are as long as expected.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            place = f"{where}.{key}" if where else key
            if key not in found:
                yield f"{place} is not there"
            else:
                yield from mismatches(value, found[key], place)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from mismatches(one, other, f"{where}[{number}]")
    elif expected != found or isinstance(expected, bool) is not isinstance(found, bool):
        yield f"{where} is {_json(found)}, expected {_json(expected)}"


def _json(value: Any) -> str:
    return json.dumps(value)
