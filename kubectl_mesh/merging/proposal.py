"""A merge that could be made: its changes, the proof of what they do, and what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import ChangeSet, change_set
from kubectl_mesh.errors import MeshError
from kubectl_mesh.fixing.moved_rules import gateways_not_seen
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Comparison, compare


class Unmergeable(MeshError):
    """VirtualServices that are not merged, and why."""

    exit_status = 3


@dataclass(frozen=True)
class Proposal:
    """A merge, the changes that make it, and what is treated differently after them.

    `obstacles` say why it is not to be made unless somebody wants it all the same.
    """

    merge: Merge
    changes: ChangeSet
    comparison: Comparison
    obstacles: Sequence[str]


def propose(
    snapshot: Snapshot,
    members: Sequence[VirtualService],
    whole: Callable[[Resource], Mapping[str, Any]],
    *,
    share_routes: bool = False,
) -> Proposal:
    """One VirtualService in place of some; `share_routes` is as for merge.merge.

    `whole` gives an object with all its fields. Raises Unmergeable where nothing makes one of them.
    """
    found = merge(snapshot, members, share_routes=share_routes)
    if not isinstance(found, Merge):
        names = " and ".join(str(vs.resource) for vs in members)
        raise Unmergeable(f"{names} cannot be merged: " + "; ".join(map(str, found)))
    changes, _ = change_set([found.repair], whole)
    comparison = compare(snapshot, mesh_after(snapshot, changes))
    return Proposal(found, changes, comparison, tuple(_obstacles(snapshot, found, comparison)))


def _obstacles(snapshot: Snapshot, found: Merge, comparison: Comparison) -> Iterator[str]:
    other = sum(judge(found, each) is Judgement.OTHER for each in comparison.differences)
    if other:
        what = "a class of requests is" if other == 1 else f"{other} classes of requests are"
        yield f"{what} treated differently, which is not intended"
    if comparison.undecided or snapshot.gaps:
        yield "not all requests could be compared"
    unseen = sorted(set().union(*(gateways_not_seen(snapshot, vs) for vs in found.members)))
    if unseen:
        named = ", ".join(unseen)
        yield f"Gateway {named} is not in the input, so that requests cannot be compared"
    if other:
        yield from found.unbound
