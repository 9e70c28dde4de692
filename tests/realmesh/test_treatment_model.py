"""Does a request fare as our model says, in all that can be seen of it, on random configurations?

test_routing_model.py asks which rule takes a request: here it is what the rule does with it. All
that is seen is compared, in the answer, at the upstream and where copies go.
`KUBECTL_MESH_TREATMENTS` says how many configurations are tried, of which each gets 20 requests
from three sidecars and two gateways; `KUBECTL_MESH_SEED` repeats a run. Where the two disagree, the
test prints the seed and the smallest configuration that it finds which still shows it.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Trace, Tracer

from .client import Answer
from .envoy import Proxy
from .manifests import Object
from .mesh import Mesh
from .random_routes import Ask, Configuration
from .random_treatments import (
    HEADERS,
    NAMESPACE,
    SUBSETS,
    TARGET_PORTS,
    UPSTREAMS,
    VERSIONS,
    configuration,
    requests,
)
from .routes_tried import SEED, Place, Tried, applied, request_of, tried
from .shrinking import Path, report
from .treatments_told import CORS, TIMED_OUT, arrival, may_get, told

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

CONFIGURATIONS = int(os.environ.get("KUBECTL_MESH_TREATMENTS", "40"))
ASKED = 20
AT_ONCE = 40
PATIENCE = 3.0  # seconds, for copies
QUIET = 0.2  # seconds, in which nobody gets what the model does not tell

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Asked:
    """A request of a configuration, and its answer. Applications kept it by its `mark`."""

    number: int
    ask: Ask
    proxy: Proxy
    place: Place
    mark: str
    answer: Answer


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
        self._mesh = mesh
        self._tried = tried
        self.shown: Counter[str] = Counter()

    def disagreements(self, requests: Mapping[int, list[Ask]]) -> dict[int, list[Disagreement]]:
        """What the mesh does otherwise than the model says, by the number of the configuration."""
        snapshot = self._tried.snapshot()
        tracer = Tracer(Router(snapshot))
        places = list(self._tried.places(snapshot))
        asked = in_parallel(
            [functools.partial(self._ask, proxy, place, requests) for proxy, place in places],
            len(places),
        )
        everything = [each for several in asked for each in several]
        traces = [
            tracer.trace(each.place, request_of(each.ask, each.place), tried=False)
            for each in everything
        ]
        expected = [told(trace) for trace in traces]
        got = self._got(sum(tells["got"].total() for tells in expected))
        wrong = defaultdict(list)
        for each, trace, tells in zip(everything, traces, expected, strict=True):
            self._count(trace, tells)
            sees = _seen(each.answer, got[each.mark], trace)
            words = "; ".join(
                f"{name}: the model says {tells[name]}, the mesh {sees[name]}"
                for name in tells
                if tells[name] != sees[name]
            )
            if words:
                wrong[each.number].append(Disagreement(each.proxy, each.ask, words))
        return wrong

    def _ask(self, proxy: Proxy, place: Place, requests: Mapping[int, list[Ask]]) -> list[Asked]:
        """Asks a proxy for everything."""
        found = []
        for number, asks in requests.items():
            for ask in asks:
                mark = str(next(_numbers))
                marked = replace(ask, headers=(*ask.headers, ("x-ask", mark)))
                answer = self._tried.ask(proxy, marked)
                found.append(Asked(number, ask, proxy, place, mark, answer))
        return found

    def _got(self, expected: int) -> Mapping[str, list[Object]]:
        """What applications got, by the mark of the request: copies come after the answer."""
        found: defaultdict[str, list[Object]] = defaultdict(list)
        count, deadline = 0, time.monotonic() + PATIENCE
        while True:
            kept = self._mesh.got()
            for each in kept:
                found[each["headers"]["x-ask"]].append(each)
            count += len(kept)
            if not kept and (count >= expected or time.monotonic() > deadline):
                return found
            time.sleep(QUIET)

    def _count(self, trace: Trace, tells: Object) -> None:
        copies = sum(not mirror.upstream.flag for mirror in trace.effect.mirrors)
        self.shown[trace.effect.outcome] += 1
        self.shown["copied"] += copies > 0
        self.shown["retried"] += tells["got"].total() > 1 + copies
        self.shown["timed out"] += tells["status"] == TIMED_OUT


def _seen(answer: Answer, got: list[Object], trace: Trace) -> Object:
    """What is seen of a request, in the words of `told`."""
    headers = answer.headers
    return {
        "status": answer.status,
        "location": headers.get("location"),
        "body": None if answer.said else answer.body.decode(),
        "headers": {
            name: value
            for name, value in headers.items()
            if name in HEADERS or name.startswith(CORS)
        },
        "got": Counter(
            arrival(
                may_get(trace, [each["pod"]]),
                port=each["port"],
                path=each["path"],
                host=each["headers"]["host"],
                headers=each["headers"],
            )
            for each in got
        ),
    }


@pytest.fixture
def treatments(mesh: Mesh, tried: Tried) -> Treatments:
    for name, ports in UPSTREAMS.items():
        targets = {port: TARGET_PORTS[port] for port in ports}
        pods = dict.fromkeys(VERSIONS[name], 1)
        mesh.service(name, ports=ports, pods=pods, namespace=NAMESPACE, target_ports=targets)
    mesh.apply(SUBSETS)
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
    return report(mesh, batch[number], everything, left, more=_fields)


def _fields(spec: dict[str, Any]) -> Iterator[Path]:
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
