"""Does merging VirtualServices do what its proof says?

Random groups of VirtualServices, merged on the real mesh as `merge-vs` does it: what the proxies
answer differently must be in a class that was reported, and the example of each class that was
reported must be answered differently. Once it is looked which rule answers, and once at all
that can be seen of a request. `KUBECTL_MESH_GROUPS` says how many groups are merged,
`KUBECTL_MESH_SEED` repeats a run. Where they disagree, the test prints the seed and the smallest
group that it finds which still shows it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import Comparison, compare

from .differences_shown import MANY, Between, ByRule, ByTreatment, Looking, Outcome
from .mesh import Mesh
from .random_routes import GATEWAYS, Ask, Configuration, Object
from .routes_tried import SEED, Tried, applied, tried
from .shrinking import fields_of_rules, smallest

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

GROUPS = int(os.environ.get("KUBECTL_MESH_GROUPS", "40"))
AT_ONCE = 40


@pytest.mark.parametrize("way", [ByRule, ByTreatment])
def test_merging_agrees_with_istio(
    mesh: Mesh,
    tried: Tried,
    way: Callable[[Mesh, Tried], Looking],
    record_property: Callable[[str, object], None],
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_GROUPS={GROUPS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    looking = way(mesh, tried)
    results: Counter[str] = Counter()
    everything = Outcome()
    for first in range(0, GROUPS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, GROUPS))
        made = {number: group(rng, looking, number) for number in numbers}
        asked = {number: list(looking.requests(rng, number, looking.asked)) for number in numbers}
        found, counted = _merge_on_the_mesh(mesh, tried, looking, made, asked)
        if found.wrong:
            pytest.fail(_report(mesh, tried, looking, made, asked, found))
        everything.add(found)
        results += counted
    record_property("results", dict(results))
    record_property("found", str(everything))
    print(dict(results), everything)
    refused = sum(count for result, count in results.items() if result.startswith("refused"))
    assert results.total() == GROUPS
    assert refused < GROUPS / (3 if GROUPS >= MANY else 2)
    assert results["the same"]
    assert results["alive"]
    assert everything.unseen.total() <= everything.classes / 4
    assert GROUPS < MANY or set(looking.shown) <= set(everything.aspects)


def group(rng: random.Random, looking: Looking, number: int) -> Configuration:
    """Two or three VirtualServices as people would merge them.

    They are of one host, on the mesh or on gateways, or the one of a gateway and that of the mesh.
    """
    found = looking.configuration(rng, number)
    while len(_roots(found)) < 2:
        found = looking.configuration(rng, number)
    first, *others = _roots(found)
    way_in = rng.choice(["mesh", "gateway", "both"])
    for index, each in enumerate([first, *others]):
        spec = each["spec"]
        spec.pop("exportTo", None)
        each["metadata"]["namespace"] = "a"
        wanted = {
            "mesh": ["mesh"],
            "gateway": [GATEWAYS[0]],
            "both": ["mesh"] if index % 2 else [GATEWAYS[0]],
        }
        spec["gateways"] = wanted[way_in]
        name = f"s{number}" if rng.random() < 0.5 else f"h{number}.example.com"
        spec["hosts"] = [name] if way_in == "both" or not index else first["spec"]["hosts"]
        if rng.random() < 0.02:
            spec["exportTo"] = ["."]
    return found


def _roots(found: Configuration) -> list[Object]:
    return [each for each in found.objects if "hosts" in each["spec"]]


def _merge_on_the_mesh(
    mesh: Mesh,
    tried: Tried,
    looking: Looking,
    groups: Mapping[int, Configuration],
    asked: Mapping[int, list[Ask]],
) -> tuple[Outcome, Counter[str]]:
    results: Counter[str] = Counter()
    between = Between(tried, looking, [ask for several in asked.values() for ask in several])
    with applied(mesh, list(groups.values())):
        was = between.ask()
        merges = []
        for each in groups.values():
            made = _merged(was[0], each)
            if isinstance(made, Merge):
                merges.append(made)
            else:
                results[f"refused: {made}"] += 1
        changes, waiting = change_set([each.repair for each in merges], lambda it: it.raw)
        assert not waiting
        merged = mesh_after(was[0], changes)
        proof = compare(was[0], merged)
        results += Counter(_results(merges, proof))
        shown = between.shown(proof, was[0], merged)
        shown_before = between.look(shown)
        for step in changes.steps:
            path = mesh.server.path(dict(step.before or {}))
            if step.after is None:
                mesh.server.request("DELETE", path)
            else:
                mesh.server.patch(path, step.operations)
        mesh.settled()
        now = between.ask()
        looks = shown_before, between.look(shown)
        mesh.apply(*(item for each in groups.values() for item in each.objects))
    return between.outcome(proof, was, now, shown, looks), results


def _report(
    mesh: Mesh,
    tried: Tried,
    looking: Looking,
    groups: Mapping[int, Configuration],
    asked: Mapping[int, list[Ask]],
    found: Outcome,
) -> str:
    number = next(iter(found.wrong))

    def wrong(candidate: Configuration) -> list[str]:
        if len(_roots(candidate)) < 2:
            return []
        of_one = {number: candidate}, {number: asked[number]}
        return _merge_on_the_mesh(mesh, tried, looking, *of_one)[0].wrong[number]

    everything = [words for several in found.wrong.values() for words in several]
    return smallest(groups[number], everything, wrong, more=fields_of_rules)


def _merged(was: Snapshot, group: Configuration) -> Merge | str:
    names = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in _roots(group)}
    members = [vs for vs in was.virtual_services.roots if (vs.namespace, vs.resource.name) in names]
    found = merge(was, members)
    return found if isinstance(found, Merge) else found[0].way_out


def _results(merges: list[Merge], proof: Comparison) -> Iterator[str]:
    """What each merge comes to; one that changes what it should not is refused."""
    for made in merges:
        mine = {vs.resource.id for vs in made.members}
        worst = max(
            (
                judge(made, each)
                for each in proof.differences
                for decision in (each.before, each.after)
                if decision.route
                and decision.route.virtual_service
                and decision.route.virtual_service.resource.id in mine
            ),
            default=None,
        )
        if worst is Judgement.OTHER:
            yield "refused: " + ("unbound sources" if made.unbound else "other requests change")
        else:
            yield worst.name.lower() if worst else "the same"
