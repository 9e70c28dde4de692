"""Does our model of routing agree with Istio, request by request, on random configurations?

`KUBECTL_MESH_ROUTES` says how many configurations are tried, of which each gets 20 requests from
three sidecars and two gateways; `KUBECTL_MESH_SEED` repeats a run. Where the two disagree, the test
prints the seed and the smallest configuration that it finds which still shows it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from .mesh import Mesh
from .random_routes import Ask, Configuration, configuration, requests
from .routes_tried import SEED, Tried, applied, tried
from .shrinking import report

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

CONFIGURATIONS = int(os.environ.get("KUBECTL_MESH_ROUTES", "100"))
ASKED = 20
AT_ONCE = 100


def test_the_model_agrees_with_istio(
    mesh: Mesh, tried: Tried, record_property: Callable[[str, object], None]
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_ROUTES={CONFIGURATIONS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    for first in range(0, CONFIGURATIONS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, CONFIGURATIONS))
        batch = [configuration(rng, number) for number in numbers]
        asked = {each.number: list(requests(rng, each.number, ASKED)) for each in batch}
        with applied(mesh, batch):
            everything = [ask for each in asked.values() for ask in each]
            wrong = list(tried.disagreements(everything))
        if wrong:
            pytest.fail(_report(mesh, tried, batch, asked, wrong))


def _report(
    mesh: Mesh,
    tried: Tried,
    batch: list[Configuration],
    asked: dict[int, list[Ask]],
    wrong: list[str],
) -> str:
    """The disagreements, and the smallest configuration found that shows one of them."""
    whole = next(
        (
            each
            for each in batch
            if f"'s{each.number}" in wrong[0] or f"h{each.number}." in wrong[0]
        ),
        batch[0],
    )
    requests = asked[whole.number]
    return report(mesh, whole, wrong, lambda: tried.disagreements(requests))
