"""What changes of headers come to: those of a rule, and those of its destination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_HOST = ("host", ":authority")
_WAYS = ("request", "response")
_VERBS = ("set", "add", "remove")

Headers = Mapping[str, Any]
"""`headers` of a rule or of a destination, as Istio has it."""


def come_to(rule: Headers, destination: Headers, *, single: bool) -> dict[str, Any]:
    """The same for changes that leave the same headers, whatever was there before.

    istiod joins those of a `single` destination with those of the rule; of several ones Envoy makes
    the destination's first. The Host is apart: see `authority`. What nobody knows here counts as it
    is written.
    """
    found: dict[str, Any] = {}
    for way in _WAYS:
        both = [headers.get(way) or {} for headers in (rule, destination)]
        net = _net([both] if single else [[each] for each in reversed(both)])
        if way == "request":
            net = {name: value for name, value in net.items() if name not in _HOST}
        if net:
            found[way] = net
    unknown = [list(_unknown(headers)) for headers in (rule, destination)]
    return {**found, "unknown": unknown} if any(unknown) else found


def authority(rewrite: Mapping[str, Any], rule: Headers, destination: Headers) -> str:
    """The Host that requests get; "" for their own. The first that names one counts."""
    named: str = rewrite.get("authority") or ""
    for headers in (rule, destination):
        request = headers.get("request") or {}
        for verb in ("set", "add"):
            for name, value in (request.get(verb) or {}).items():
                if name.lower() in _HOST:
                    named = named or value
    return named


def _net(groups: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, tuple[bool, list[str]]]:
    """By header whether what was there stays, and what comes to it.

    Envoy makes one group after the other, and in each removes first, then sets, then adds.
    """
    found: dict[str, tuple[bool, list[str]]] = {}
    for group in groups:
        for changes in group:
            for name in changes.get("remove") or ():
                found[name.lower()] = (False, [])
        for changes in group:
            for name, value in (changes.get("set") or {}).items():
                found[name.lower()] = (False, [value])
        for changes in group:
            for name, value in (changes.get("add") or {}).items():
                stays, values = found.get(name.lower(), (True, []))
                found[name.lower()] = (stays, [*values, value])
    return found


def _unknown(headers: Headers) -> Iterable[Any]:
    for way, changes in headers.items():
        if way not in _WAYS:
            yield way, changes
        else:
            yield from ((way, verb, each) for verb, each in changes.items() if verb not in _VERBS)
