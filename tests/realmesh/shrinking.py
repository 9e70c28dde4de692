"""The smallest configuration that still shows what a random one showed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from .random_routes import Configuration


def shrunk(whole: Configuration, still: Callable[[Configuration], bool]) -> Configuration:
    """The smallest that is found by taking away one thing after another while `still` holds."""
    for candidate in _smaller(whole):
        if still(candidate):
            return shrunk(candidate, still)
    return whole


def _smaller(whole: Configuration) -> Iterator[Configuration]:
    """The configuration less one object, one rule, one match, or one field of a match.

    Not less what the API server demands: of `tls` a match, and of that its sniHosts.
    """
    for wave, items in enumerate(whole.waves):
        for index, item in enumerate(items):
            yield _without(whole, wave, items[:index] + items[index + 1 :])
            for path in _paths(item["spec"]):
                cut = copy.deepcopy(item)
                _remove(cut["spec"], path)
                yield _without(whole, wave, [*items[:index], cut, *items[index + 1 :]])


def _without(whole: Configuration, wave: int, items: list[dict[str, Any]]) -> Configuration:
    waves = [items if number == wave else each for number, each in enumerate(whole.waves)]
    return Configuration(whole.number, whole.services, waves)


def _paths(spec: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    protocols = [each for each in ("http", "tcp", "tls") if each in spec]
    for protocol in protocols:
        if len(protocols) > 1:
            yield (protocol,)
        for index, rule in enumerate(spec[protocol]):
            if len(spec[protocol]) > 1:
                yield (protocol, index)
            path = (protocol, index, "match")
            matches = rule.get("match") or []
            for number, match in enumerate(matches):
                if len(matches) > 1:
                    yield (*path, number)
                elif protocol != "tls":
                    yield path
                for field in match if len(match) > 1 else ():
                    if field != "sniHosts":
                        yield (*path, number, field)
    for field in ("exportTo", "gateways"):
        if field in spec:
            yield (field,)


def _remove(spec: Any, path: tuple[str | int, ...]) -> None:
    for step in path[:-1]:
        spec = spec[step]
    del spec[path[-1]]
