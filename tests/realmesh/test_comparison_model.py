"""Does `compare` find all that Istio treats differently, and nothing else?

Random configurations, each before and after one random change, on the real mesh: what the proxies
answer differently must be in a class that is reported, and what is reported must be answered
differently. Once it is looked which rule answers, and once at all that can be seen of a request.
`KUBECTL_MESH_PAIRS` says how many pairs are tried, `KUBECTL_MESH_SEED` repeats a run. Where they
disagree, the test prints the seed and the smallest pair that it finds which still shows it.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubectl_mesh.proof.compare import compare

from .build import istio_release
from .differences_shown import MANY, Between, ByRule, ByTreatment, Looking, Outcome
from .mesh import Mesh
from .random_routes import Ask, Configuration
from .routes_tried import SEED, Tried, applied, tried
from .shrinking import Path, fields_of_rules, parts, smallest

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

PAIRS = int(os.environ.get("KUBECTL_MESH_PAIRS", "40"))
AT_ONCE = 40
THEN = "then"
"""The field in which an object of a pair has the spec that it gets."""


_OPEN = pytest.mark.xfail(
    istio_release() == "1.22",
    reason="open: with KUBECTL_MESH_SEED=486584676, a match by header is reported at a gateway "
    "where two VirtualServices of different namespaces share a host, and Envoy does not meet it",
    raises=pytest.fail.Exception,
    strict=False,
)


@pytest.mark.parametrize("way", [pytest.param(ByRule, marks=_OPEN), ByTreatment])
def test_compare_agrees_with_istio(
    mesh: Mesh,
    tried: Tried,
    way: Callable[[Mesh, Tried], Looking],
    record_property: Callable[[str, object], None],
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_PAIRS={PAIRS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    looking = way(mesh, tried)
    everything = Outcome()
    for first in range(0, PAIRS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, PAIRS))
        pairs = {number: _pair(rng, looking, number) for number in numbers}
        asked = {number: list(looking.requests(rng, number, looking.asked)) for number in numbers}
        found = _compared(mesh, tried, looking, pairs, asked)
        if found.wrong:
            pytest.fail(_report(mesh, tried, looking, pairs, asked, found))
        everything.add(found)
    print(everything)
    record_property("found", str(everything))
    assert everything.classes >= PAIRS / 4  # a test that compares nothing proves nothing
    assert everything.seen >= PAIRS / 4
    assert everything.unseen.total() <= everything.classes / 4
    assert PAIRS < MANY or set(looking.shown) <= set(everything.aspects)


def _pair(rng: random.Random, looking: Looking, number: int) -> Configuration:
    """A configuration before a change, and in THEN after it."""
    before = looking.configuration(rng, number)
    after = looking.mutated(rng, before)
    waves = copy.deepcopy(before.waves)
    for wave, changed in zip(waves, after.waves, strict=True):
        for item, then in zip(wave, changed, strict=True):
            item["spec"][THEN] = then["spec"]
    return replace(before, waves=waves)


def _side(pair: Configuration, *, after: bool) -> Configuration:
    def as_then(item: Mapping[str, Any]) -> dict[str, Any]:
        before = {key: value for key, value in item["spec"].items() if key != THEN}
        return {**item, "spec": item["spec"][THEN] if after else before}

    return replace(pair, waves=[[as_then(item) for item in wave] for wave in pair.waves])


def _compared(
    mesh: Mesh,
    tried: Tried,
    looking: Looking,
    pairs: Mapping[int, Configuration],
    asked: Mapping[int, list[Ask]],
) -> Outcome:
    before, after = ([_side(pair, after=side) for pair in pairs.values()] for side in (False, True))
    between = Between(tried, looking, [ask for several in asked.values() for ask in several])
    with applied(mesh, before):
        was = between.ask()
        _change(mesh, after)
        now = between.ask()
        reported = compare(was[0], now[0])
        shown = between.shown(reported, was[0], now[0])
        shown_after = between.look(shown)
        _change(mesh, before)
        looks = between.look(shown), shown_after
    return between.outcome(reported, was, now, shown, looks)


def _change(mesh: Mesh, to: list[Configuration]) -> None:
    mesh.apply(*(item for each in to for item in each.objects))
    mesh.settled()


def _report(
    mesh: Mesh,
    tried: Tried,
    looking: Looking,
    pairs: Mapping[int, Configuration],
    asked: Mapping[int, list[Ask]],
    found: Outcome,
) -> str:
    number = next(iter(found.wrong))

    def wrong(pair: Configuration) -> list[str]:
        found = _compared(mesh, tried, looking, {number: pair}, {number: asked[number]})
        return found.wrong[number]

    everything = [words for several in found.wrong.values() for words in several]
    return smallest(pairs[number], everything, wrong, more=_parts)


def _parts(spec: dict[str, Any]) -> Iterator[Path]:
    """What may be taken away from either side."""
    yield from fields_of_rules(spec)
    for path in (*parts(spec[THEN]), *fields_of_rules(spec[THEN])):
        yield (THEN, *path)
