"""`compare` against the engine itself, on random pairs of configurations.

What random requests show to be treated differently must be in a class that is reported, and each
example that is reported must be treated differently. What `compare` says of a request is what
`route` says of it.
"""

from __future__ import annotations

import os
import random

import pytest

from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.proof.compare import Comparing, Comparison, Decision, Place, compare
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.trace import Trace, Tracer
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
FOUND = (477, 5115, 9146)
"""Pairs that once showed a fault: a Service's short name that another VirtualService lists, and an
example for another port than that of its place."""
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
    tracers = [Tracer(router_of(state)) for state in states]
    gateway = Proxy.of_gateway(states[0], "istio-system", {"istio": "gw"})
    for _ in range(REQUESTS):
        port = choose.choice([80, 8080, 8080, 9090])
        asked = request(choose, port)
        client = Proxy(choose.choice(NAMESPACES), choose.choice(LABELS))
        proxy = choose.choice([client, gateway])
        place = Place(proxy, port, asked.host)
        try:
            one, other = (comparing.at(side, place, asked) for side in (0, 1))
        except Undecidable:
            continue
        for decision, tracer in zip((one, other), tracers, strict=True):
            agrees(decision, tracer.trace(proxy.in_state(tracer.router.snapshot), asked))
        nowhere = all(not each.route and each.treatment.fails for each in (one, other))
        if proxy is gateway and nowhere:
            continue  # that a port is closed, or answers 404, is told of its Gateways' hosts alone
        same = one.treatment.is_as(other.treatment, asked.path)
        if not same and not found.undecided and not found.sampled:
            key = (one.identity, other.identity, one.treatment.key, other.treatment.key)
            assert key in reported, (asked, client, one, other, found.verdict)


FAILING = ("no-route", "no-cluster", "no-endpoint", "blackhole", "refused", "rejected")


def agrees(decision: Decision, trace: Trace) -> None:
    """What `compare` takes for the answer to a request is what `route` tells of it."""
    one, other = decision.route, trace.route
    assert (one and (one.rule, one.match)) == (other and (other.rule, other.match)), trace
    assert (decision.chain and decision.chain.path) == (trace.chain and trace.chain.path), trace
    effect = trace.effect
    refused = effect.outcome in ("abort", "direct-response") and (effect.status or 0) >= 400
    if effect.outcome in FAILING or refused or any(up.missing for up in effect.upstreams):
        assert decision.treatment.fails, trace
    copies = decision.treatment.aspects.get("mirrors") or ()
    if effect.outcome == "upstream":
        assert {(each["host"], each["port"]) for each in copies if "host" in each} == {
            (each.upstream.target.host, each.upstream.target.port)
            for each in effect.mirrors
            if each.upstream.flag != "NC"
        }
    elif effect.outcome not in ("abort", "preflight"):
        assert not copies
