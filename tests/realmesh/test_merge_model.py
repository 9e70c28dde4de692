"""Does merging VirtualServices do what its proof says?

Random groups of VirtualServices, merged on the real mesh as `merge-vs` does it: what the proxies
answer differently must be in a class that was reported, and the example of each class that was
reported must be answered differently. `KUBECTL_MESH_GROUPS` says how many groups are merged,
`KUBECTL_MESH_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import Comparison, compare

from .mesh import Mesh
from .random_routes import GATEWAYS, Ask, Configuration, Object, configuration, requests
from .routes_tried import SEED, Tried, applied, tried
from .test_comparison_model import examples, is_reported

pytestmark = pytest.mark.each_istio

__all__ = ["tried"]

GROUPS = int(os.environ.get("KUBECTL_MESH_GROUPS", "40"))
MANY = 200
"""So many groups tell how many of them are refused."""
ASKED = 40
AT_ONCE = 40


def test_merging_agrees_with_istio(
    mesh: Mesh, tried: Tried, record_property: Callable[[str, object], None]
) -> None:
    print(f"KUBECTL_MESH_SEED={SEED} KUBECTL_MESH_GROUPS={GROUPS}")
    record_property("seed", SEED)
    rng = random.Random(SEED)
    results: Counter[str] = Counter()
    for first in range(0, GROUPS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, GROUPS))
        made = [group(rng, number) for number in numbers]
        asked = [ask for each in made for ask in requests(rng, each.number, ASKED)]
        results += _merge_on_the_mesh(mesh, tried, made, asked)
    record_property("results", dict(results))
    print(dict(results))
    refused = sum(count for result, count in results.items() if result.startswith("refused"))
    assert results.total() == GROUPS
    assert refused < GROUPS / (3 if GROUPS >= MANY else 2)
    assert results["the same"]
    assert results["alive"]


def group(rng: random.Random, number: int) -> Configuration:
    """Two or three VirtualServices as people would merge them.

    They are of one host, on the mesh or on gateways, or the one of a gateway and that of the mesh.
    """
    found = configuration(rng, number)
    while len(_roots(found)) < 2:
        found = configuration(rng, number)
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
    mesh: Mesh, tried: Tried, groups: list[Configuration], asked: list[Ask]
) -> Counter[str]:
    results: Counter[str] = Counter()
    with applied(mesh, groups):
        was = tried.snapshot()
        before = tried.answers(asked)
        merges = []
        for each in groups:
            made = _merged(was, each)
            if isinstance(made, Merge):
                merges.append(made)
            else:
                results[f"refused: {made}"] += 1
        changes, waiting = change_set([each.repair for each in merges], lambda it: it.raw)
        assert not waiting
        proof = compare(was, mesh_after(was, changes))
        assert not proof.undecided
        results += Counter(_results(merges, proof))
        shown = list(examples(tried, proof))
        shown_before = [tried.say(*example) for example in shown]
        for step in changes.steps:
            path = mesh.server.path(dict(step.before or {}))
            if step.after is None:
                mesh.server.request("DELETE", path)
            else:
                mesh.server.patch(path, step.operations)
        mesh.settled()
        now, after = tried.snapshot(), tried.answers(asked)
        shown_after = [tried.say(*example) for example in shown]
        mesh.apply(*(item for each in groups for item in each.objects))
        for example, one, other in zip(shown, shown_before, shown_after, strict=True):
            assert one != other, f"KUBECTL_MESH_SEED={SEED}: reported, answered alike: {example}"
        for (place, ask), one in before.items():
            if one != after[place, ask]:
                assert is_reported(tried, proof, was, now, place, ask), (
                    f"KUBECTL_MESH_SEED={SEED}: not reported: {place} {ask}: {one}, then "
                    f"{after[place, ask]}"
                )
    return results


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
