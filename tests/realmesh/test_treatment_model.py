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
from dataclasses import replace
from typing import Any

import pytest

from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Trace, Tracer

from .client import Answer
from .envoy import Proxy
from .manifests import Object
from .mesh import Mesh
from .random_routes import Ask
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


class Treatments:
    """What becomes of requests on the mesh, beside what the model tells. `shown` counts it."""

    def __init__(self, mesh: Mesh, tried: Tried) -> None:
        self._mesh = mesh
        self._tried = tried
        self.shown: Counter[str] = Counter()

    def disagreements(self, asked: Mapping[int, list[Ask]]) -> dict[int, list[str]]:
        """What the mesh does otherwise than the model says, by the number of the configuration."""
        snapshot = self._tried.snapshot()
        tracer = Tracer(Router(snapshot))
        places = list(self._tried.places(snapshot))
        answered = in_parallel(
            [functools.partial(self._answers, proxy, place, asked) for proxy, place in places],
            len(places),
        )
        everything = [each for several in answered for each in several]
        traces = [
            tracer.trace(place, request_of(ask, place), tried=False)
            for _, place, _, ask, _ in everything
        ]
        expected = [told(trace) for trace in traces]
        got = self._got(sum(tells["got"].total() for tells in expected))
        wrong = defaultdict(list)
        for each, trace, tells in zip(everything, traces, expected, strict=True):
            proxy, _, number, ask, answer = each
            self._count(trace, tells)
            sees = _seen(answer, got[_mark(ask)], trace)
            apart = [name for name in tells if tells[name] != sees[name]]
            if apart:
                words = "; ".join(
                    f"{name}: the model says {tells[name]}, the mesh {sees[name]}" for name in apart
                )
                wrong[number].append(f"{proxy}: {ask}: {words}")
        return wrong

    def _answers(
        self, proxy: Proxy, place: Place, asked: Mapping[int, list[Ask]]
    ) -> list[tuple[Proxy, Place, int, Ask, Answer]]:
        """What a proxy answers; each request has a mark, by which applications keep it."""
        found = []
        for number, asks in asked.items():
            for ask in asks:
                mark = ("x-ask", str(next(_numbers)))
                marked = replace(ask, headers=(*ask.headers, mark))
                found.append((proxy, place, number, marked, self._tried.ask(proxy, marked)))
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
        outcome, copies = (
            trace.effect.outcome,
            sum(not it.upstream.flag for it in trace.effect.mirrors),
        )
        self.shown[outcome] += 1
        self.shown["copied"] += copies > 0
        self.shown["retried"] += tells["got"].total() > 1 + copies
        self.shown["timed out"] += tells["status"] == TIMED_OUT


def _mark(ask: Ask) -> str:
    return dict(ask.headers)["x-ask"]


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
        for number, found in wrong.items():
            asks = {number: asked[number]}
            pytest.fail(
                report(
                    mesh,
                    batch[number],
                    [*found, *(each for n in wrong if n != number for each in wrong[n])],
                    lambda asks=asks, number=number: treatments.disagreements(asks)[number],
                    more=_fields,
                )
            )
    print(dict(treatments.shown))
    record_property("shown", dict(treatments.shown))
    for shown in ("upstream", "redirect", "direct-response", "abort", "copied", "retried"):
        assert treatments.shown[shown] >= CONFIGURATIONS / 2, shown  # else little is tried


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
