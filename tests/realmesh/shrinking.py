"""The smallest configuration that still shows what a random one showed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import yaml

from .mesh import Mesh
from .random_routes import Configuration
from .routes_tried import SEED, applied

Path = tuple[str | int, ...]
Paths = Callable[[dict[str, Any]], Iterable[Path]]
"""Gives the paths in a spec of what may be taken away."""
PATIENCE = 300.0  # seconds, for something smaller


def report(
    mesh: Mesh,
    whole: Configuration,
    wrong: list[str],
    disagreements: Callable[[], Iterable[str]],
    *,
    fits: Callable[[Configuration], bool] = lambda _: True,
    more: Paths = lambda _: (),
) -> str:
    """As `smallest`, where `disagreements` gives those that there are on the mesh as it is.

    Only what `fits` is tried.
    """

    def of(candidate: Configuration) -> list[str]:
        if not fits(candidate):
            return []
        with applied(mesh, [candidate]):
            return list(disagreements())

    return smallest(whole, wrong, of, more=more)


def smallest(
    whole: Configuration,
    wrong: list[str],
    disagreements: Callable[[Configuration], list[str]],
    *,
    more: Paths,
) -> str:
    """What is `wrong`, and the smallest configuration found that still shows a disagreement.

    `more` says what may be taken away besides matches and rules.
    """
    print(*wrong[:5], sep="\n")
    ends = time.monotonic() + PATIENCE
    left = wrong

    def still(candidate: Configuration) -> bool:
        nonlocal left
        found = disagreements(candidate) if time.monotonic() < ends else []
        left = found or left
        return bool(found)

    found = shrunk(whole, still, more)
    manifest = yaml.safe_dump_all([*found.services, *found.objects], sort_keys=False)
    return "\n".join(
        [
            f"KUBECTL_MESH_SEED={SEED}: {len(wrong)} disagreements, the first ones:",
            *wrong[:5],
            "The smallest configuration found, and where they disagree there:",
            manifest,
            *left[:5],
        ]
    )


def shrunk(
    whole: Configuration, still: Callable[[Configuration], bool], more: Paths = lambda _: ()
) -> Configuration:
    """The smallest that is found by taking away one thing after another while `still` holds."""
    for candidate in _smaller(whole, more):
        if still(candidate):
            return shrunk(candidate, still, more)
    return whole


def _smaller(whole: Configuration, more: Paths) -> Iterator[Configuration]:
    """The configuration less one object, one rule, one match, one field of a match, or `more`.

    Not less what the API server demands: of `tls` a match, and of that its sniHosts.
    """
    for wave, items in enumerate(whole.waves):
        for index, item in enumerate(items):
            yield _without(whole, wave, items[:index] + items[index + 1 :])
            for path in (*parts(item["spec"]), *more(item["spec"])):
                cut = copy.deepcopy(item)
                _remove(cut["spec"], path)
                yield _without(whole, wave, [*items[:index], cut, *items[index + 1 :]])


def _without(whole: Configuration, wave: int, items: list[dict[str, Any]]) -> Configuration:
    waves = [items if number == wave else each for number, each in enumerate(whole.waves)]
    return Configuration(whole.number, whole.services, waves)


def parts(spec: dict[str, Any]) -> Iterator[Path]:
    """Rules, their matches, fields of these, and some fields of the whole."""
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


def _remove(spec: Any, path: Path) -> None:
    for step in path[:-1]:
        spec = spec[step]
    del spec[path[-1]]


def fields_of_rules(spec: dict[str, Any]) -> Iterator[Path]:
    """What rules say besides matches, names and where they send requests: whole, and in parts."""
    for index, rule in enumerate(spec.get("http") or ()):
        for field, value in rule.items():
            if field in ("name", "match", "delegate"):
                continue
            if field not in ("route", "redirect", "directResponse"):
                yield ("http", index, field)
            if isinstance(value, dict):
                for part in value:
                    if part not in ("host", "status"):
                        yield ("http", index, field, part)
        for number, entry in enumerate(rule.get("route") or ()):
            if len(rule["route"]) > 1 and "weight" in entry and not entry["weight"]:
                yield ("http", index, "route", number)
            if "headers" in entry:
                yield ("http", index, "route", number, "headers")
