"""The smallest configuration that still shows what a random one showed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import yaml

from .mesh import Mesh
from .random_routes import Configuration
from .routes_tried import SEED, applied

Path = tuple[str | int, ...]
Paths = Callable[[dict[str, Any]], Iterable[Path]]
"""Gives the paths in a spec of what may be taken away."""


def report(
    mesh: Mesh,
    whole: Configuration,
    wrong: list[str],
    disagreements: Callable[[], Iterable[str]],
    *,
    fits: Callable[[Configuration], bool] = lambda _: True,
    more: Paths = lambda _: (),
) -> str:
    """What is `wrong`, and the smallest configuration found that still shows a disagreement.

    `disagreements` gives those that there are on the mesh as it is. Only what `fits` is tried;
    `more` says what may be taken away besides matches and rules.
    """

    def still(candidate: Configuration) -> bool:
        if not fits(candidate):
            return False
        with applied(mesh, [candidate]):
            return any(disagreements())

    print(*wrong[:5], sep="\n")
    smallest = shrunk(whole, still, more)
    with applied(mesh, [smallest]):
        left = list(disagreements())
    manifest = yaml.safe_dump_all([*smallest.services, *smallest.objects], sort_keys=False)
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
            for path in (*_paths(item["spec"]), *more(item["spec"])):
                cut = copy.deepcopy(item)
                _remove(cut["spec"], path)
                yield _without(whole, wave, [*items[:index], cut, *items[index + 1 :]])


def _without(whole: Configuration, wave: int, items: list[dict[str, Any]]) -> Configuration:
    waves = [items if number == wave else each for number, each in enumerate(whole.waves)]
    return Configuration(whole.number, whole.services, waves)


def _paths(spec: dict[str, Any]) -> Iterator[Path]:
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
