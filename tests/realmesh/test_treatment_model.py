"""Does a request fare as our model says, in all that can be seen of it, on random configurations?

test_routing_model.py asks which rule takes a request: here it is what the rule does with it. All
that is seen is compared, in the answer, at the upstream and where copies go.
`KUBECTL_MESH_TREATMENTS` says how many configurations are tried, of which each gets 20 requests
from three sidecars and two gateways; `KUBECTL_MESH_SEED` repeats a run. Where the two disagree, the
test prints the seed and the smallest configuration that it finds which still shows it.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from kubectl_mesh.routing.trace import Trace

from .envoy import Proxy
from .manifests import Object
from .mesh import Mesh
from .random_routes import Ask, Configuration
from .random_treatments import configuration, requests
from .routes_tried import SEED, Tried, applied, tried
from .shrinking import fields_of_rules, report
from .treatments_seen import Watching, upstreams
from .treatments_told import TIMED_OUT

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

CONFIGURATIONS = int(os.environ.get("KUBECTL_MESH_TREATMENTS", "40"))
ASKED = 20
AT_ONCE = 40


@dataclass(frozen=True)
class Disagreement:
    """What is seen of a request that is not as the model says, in words."""

    proxy: Proxy
    ask: Ask
    words: str

    def __str__(self) -> str:
        return f"{self.proxy}: {self.ask}: {self.words}"


class Treatments:
    """What becomes of requests on the mesh, beside what the model tells. `shown` counts it."""

    def __init__(self, mesh: Mesh, tried: Tried) -> None:
        self._watching = Watching(mesh, tried)
        self._tried = tried
        self.shown: Counter[str] = Counter()

    def disagreements(self, requests: Mapping[int, list[Ask]]) -> dict[int, list[Disagreement]]:
        """What the mesh does otherwise than the model says, by the number of the configuration."""
        asked = [
            (number, proxy, ask)
            for number, asks in requests.items()
            for ask in asks
            for proxy in self._tried.proxies
        ]
        seen = self._watching.seen((proxy, ask) for _, proxy, ask in asked)
        wrong = defaultdict(list)
        for (number, _, _), each in zip(asked, seen, strict=True):
            self._count(each.trace, each.tells)
            words = "; ".join(
                f"{name}: the model says {tells}, the mesh {each.sees[name]}"
                for name, tells in each.tells.items()
                if tells != each.sees[name]
            )
            if words:
                wrong[number].append(Disagreement(each.proxy, each.ask, words))
        return wrong

    def _count(self, trace: Trace, tells: Object) -> None:
        copies = sum(not mirror.upstream.flag for mirror in trace.effect.mirrors)
        self.shown[trace.effect.outcome] += 1
        self.shown["copied"] += copies > 0
        self.shown["retried"] += tells["got"].total() > 1 + copies
        self.shown["timed out"] += tells["status"] == TIMED_OUT


@pytest.fixture
def treatments(mesh: Mesh, tried: Tried) -> Treatments:
    upstreams(mesh)
    return Treatments(mesh, tried)


def test_requests_fare_as_the_model_says(
    mesh: Mesh, treatments: Treatments, record_property: Callable[[str, object], None]
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_TREATMENTS={CONFIGURATIONS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    for first in range(0, CONFIGURATIONS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, CONFIGURATIONS))
        batch = {number: configuration(rng, number) for number in numbers}
        asked = {number: list(requests(rng, number, ASKED)) for number in numbers}
        with applied(mesh, list(batch.values())):
            wrong = treatments.disagreements(asked)
        if wrong:
            pytest.fail(_report(mesh, treatments, batch, wrong))
    print(dict(treatments.shown))
    record_property("shown", dict(treatments.shown))
    for shown in ("upstream", "redirect", "direct-response", "abort", "copied", "retried"):
        assert treatments.shown[shown] >= CONFIGURATIONS / 2, shown  # else little is tried


def _report(
    mesh: Mesh,
    treatments: Treatments,
    batch: Mapping[int, Configuration],
    wrong: Mapping[int, list[Disagreement]],
) -> str:
    """The disagreements, and the smallest configuration found that shows one of the first's."""
    number = next(iter(wrong))
    asks = {number: list(dict.fromkeys(each.ask for each in wrong[number]))}

    def left() -> list[str]:
        return [str(each) for each in treatments.disagreements(asks)[number]]

    everything = [str(each) for several in wrong.values() for each in several]
    return report(mesh, batch[number], everything, left, more=fields_of_rules)
