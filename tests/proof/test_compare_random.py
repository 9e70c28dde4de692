"""`compare` against the engine itself, on random pairs of configurations.

What random requests show to be treated differently must be in a class that is reported, and each
example that is reported must be treated differently.
"""

from __future__ import annotations

import os
import random

import pytest

from kubectl_mesh.proof.compare import Comparing, Comparison, Decision, compare, decision_of
from kubectl_mesh.proof.proxies_compared import ComparedGateway
from kubectl_mesh.proof.treatment import Caller
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Client, Router
from tests.proof.random_meshes import (
    LABELS,
    NAMESPACES,
    Manifest,
    mesh,
    mutated,
    request,
    snapshot,
)

SEEDS = range(int(os.environ.get("COMPARE_SEED", "0")), 10**9)
PAIRS = int(os.environ.get("COMPARE_PAIRS", "60"))
FOUND = (477, 5115)
"""Pairs that once showed a fault: a Service's short name that another VirtualService lists."""
REQUESTS = int(os.environ.get("COMPARE_REQUESTS", "300"))


def classes(found: Comparison) -> set[tuple[object, ...]]:
    return {
        (
            each.before.identity,
            each.after.identity,
            each.before.treatment.key,
            each.after.treatment.key,
        )
        for each in found.differences
        if isinstance(each.before, Decision) and isinstance(each.after, Decision)
    }


@pytest.mark.parametrize("seed", [*SEEDS[:PAIRS], *FOUND])
def test_every_difference_that_requests_show_is_in_a_class(seed: int) -> None:
    choose = random.Random(seed)
    before = mesh(choose)
    check(choose, before, mutated(choose, before))


def check(choose: random.Random, before: list[Manifest], after: list[Manifest]) -> None:
    states = snapshot(before), snapshot(after)
    routers = [Router(state) for state in states]
    found = compare(*states)
    assert not [doubt for doubt in found.undecided if "was taken for an example" in doubt]
    reported = classes(found)
    comparing = Comparing(*states)
    for each in found.differences:
        for side, decision in enumerate((each.before, each.after)):
            asked = comparing.at(side, each.places[0], each.example)
            assert asked.treatment.key == decision.treatment.key
        assert each.places
        assert isinstance(each.before, Decision)
        assert isinstance(each.after, Decision)
        assert each.example is not None
        path = each.example.path if isinstance(each.example, Request) else ""
        assert not each.before.treatment.is_as(each.after.treatment, path)
    proxy = ComparedGateway("istio-system", (("istio", "gw"),))
    proxies = [proxy.proxy(state) for state in states]
    for _ in range(REQUESTS):
        port = choose.choice([80, 8080, 8080, 9090])
        asked = request(choose, port)
        client = Client(choose.choice(NAMESPACES), choose.choice(LABELS))
        caller = Caller(client.namespace, frozenset(client.labels.items()))
        try:
            if choose.random() < 0.5:
                decisions = [
                    decision_of(router, router.sidecar(client, asked.host, port), caller, asked)
                    for router in routers
                ]
            else:
                decisions = [
                    decision_of(
                        router,
                        router.gateway(proxies[number], asked.host, port, tls=False),
                        Caller(proxy.namespace, frozenset(proxy.labels), is_gateway=True),
                        asked,
                    )
                    for number, router in enumerate(routers)
                ]
        except Undecidable:
            continue
        one, other = decisions
        same = one.treatment.is_as(other.treatment, asked.path)
        if not same and not found.undecided and not found.sampled:
            key = (one.identity, other.identity, one.treatment.key, other.treatment.key)
            assert key in reported, (asked, client, one, other, found.verdict)
