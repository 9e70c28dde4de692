"""Which VirtualServices could be merged, and what that would change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.changes.owners import owner_of
from kubectl_mesh.errors import UsageError
from kubectl_mesh.fixing.moved_rules import gateways_not_seen
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.gateways import MESH
from kubectl_mesh.mesh.hosts import hosts_called, overlap
from kubectl_mesh.mesh.resource import ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Comparison, Difference, compare
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.rule import Finding

MAX_ROUNDS = 3
"""So many comparisons of the whole mesh are made: merges of different hosts share one."""
_WAYS_IN = ("KM201", "KM202", "KM203")


@dataclass
class Candidate:
    """VirtualServices that could be merged, the oldest first.

    `why` says what they share; `changes` what would be treated differently; `obstacles` what stands
    in the way. With `has_routes_to_share` routes of gateways miss the mesh's subsets.
    """

    members: Sequence[VirtualService]
    why: str
    has_routes_to_share: bool = False
    changes: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)


def named(
    snapshot: Snapshot, names: Collection[str], namespace: str | None
) -> tuple[list[VirtualService], list[str]]:
    """The VirtualServices of some names, the oldest first where that is known.

    A name is [NAMESPACE/]NAME, without one of `namespace`, or of any if that is None. Besides it
    gives why the others are not there, if just one of several is: they may be merged into it
    already. Raises UsageError where others are not there, and for a name that several have.
    """
    known = snapshot.virtual_services.by_name
    found: list[VirtualService] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        where, _, short = name.rpartition("/")
        where = where or namespace or ""
        matching = [
            vs for (place, each), vs in known.items() if each == short and where in ("", place)
        ]
        if not matching:
            place = f"in namespace {where}" if where else "in the manifests"
            missing.append(f"there is no VirtualService {short} {place}")
        if matching[1:]:
            listed = ", ".join(str(vs.resource.id) for vs in matching)
            raise UsageError(f"{name} may be {listed}: say NAMESPACE/NAME")
        found += matching
    if missing and not (len(found) == 1 and len(names) > 1):
        raise UsageError("; ".join(missing))
    if all(vs.resource.metadata.get("creationTimestamp") for vs in found):
        found.sort(key=lambda vs: vs.resource.age_key)
    return found, missing


def concerning(snapshot: Snapshot, host: str, namespace: str | None) -> list[VirtualService]:
    """The VirtualServices of a host, and those that route requests of gateways to one of the mesh.

    The oldest first. `host` is written as clients of `namespace` do, or without one of any:
    reviews.shop stands for the Service. Raises UsageError where that may be several.
    """
    services = snapshot.virtual_services
    namespaces = [namespace] if namespace else {vs.namespace for vs in services.roots}
    names = set(hosts_called(host, namespaces, snapshot.config.domain))
    meant = sorted(names.intersection(name for vs in services.roots for name in vs.hosts))
    if meant[1:]:
        raise UsageError(f"{host} may be {', '.join(meant)}: say which, or its namespace with -n")
    found = [vs for vs in services.roots if names & set(vs.hosts)]
    on_mesh = {name for vs in found if vs.on_mesh for name in names & set(vs.hosts)}
    return [
        vs
        for vs in services.roots
        if vs in found or (not vs.on_mesh and any(to.host in on_mesh for to in vs.destinations))
    ]


def candidates(snapshot: Snapshot, namespaces: Collection[str] | None) -> list[Candidate]:
    """What could be merged; of `namespaces`, if given, at least one is in one of them."""
    groups = {
        frozenset(vs.resource.id for vs in each.members): each
        for each in (*_of_one_host(snapshot), *_of_two_ways_in(snapshot))
    }
    found = [
        each
        for each in groups.values()
        if namespaces is None or any(vs.namespace in namespaces for vs in each.members)
    ]
    waiting: list[tuple[Candidate, Merge]] = []
    for each in found:
        made = merge(snapshot, each.members, share_routes=each.has_routes_to_share)
        if not isinstance(made, Merge) and each.has_routes_to_share:
            each.has_routes_to_share = False
            made = merge(snapshot, each.members)
        if isinstance(made, Merge):
            each.obstacles += _owned(made)
            unseen = sorted(set().union(*(gateways_not_seen(snapshot, vs) for vs in made.members)))
            each.obstacles += [f"Gateway {name} is not in the input" for name in unseen]
            waiting.append((each, made))
        else:
            each.obstacles += map(str, made)
    for _ in range(MAX_ROUNDS):
        waiting = _round(snapshot, waiting)
    for each, _ in waiting:
        each.changes.append("not compared, as others are merged with the same: name them alone")
    return found


def _owned(made: Merge) -> Iterator[str]:
    for vs in made.members:
        owner = owner_of(vs.resource.raw)
        if owner:
            yield f"{vs.resource} belongs to {owner}, which will set it back"


def _round(
    snapshot: Snapshot, waiting: Iterable[tuple[Candidate, Merge]]
) -> list[tuple[Candidate, Merge]]:
    """Compares merges that have no object and no host in common; returns those that are left."""
    taken: set[ResourceId | str] = set()
    chosen: list[tuple[Candidate, Merge]] = []
    left: list[tuple[Candidate, Merge]] = []
    for candidate, made in waiting:
        concerned: set[ResourceId | str] = {vs.resource.id for vs in made.members}
        concerned.update(host for vs in made.members for host in vs.hosts)
        if concerned & taken:
            left.append((candidate, made))
        else:
            taken |= concerned
            chosen.append((candidate, made))
    if chosen:
        changes, _ = change_set([made.repair for _, made in chosen], lambda each: each.raw)
        comparison = compare(snapshot, mesh_after(snapshot, changes))
        if comparison.undecided and len(chosen) > 1:
            for each in chosen:  # what is not known of one of them says nothing of the others
                left += _round(snapshot, [each])
            return left
        for candidate, differences in _shared_out(chosen, comparison):
            doubts = (*comparison.undecided, *snapshot.gaps)
            if doubts:
                candidate.obstacles.append(f"not compared: {doubts[0]}")
            elif not differences:
                candidate.changes.append("the same for every request")
            _tell(candidate, differences)
    return left


_Judged = list[tuple[Judgement, Difference]]


def _shared_out(
    chosen: Sequence[tuple[Candidate, Merge]], comparison: Comparison
) -> Iterator[tuple[Candidate, _Judged]]:
    """The differences of each merge: its members decide, or have the host."""
    by_member: dict[ResourceId, int] = {}
    by_host: dict[str, list[int]] = defaultdict(list)
    for number, (_, made) in enumerate(chosen):
        for vs in made.members:
            by_member[vs.resource.id] = number
            for host in vs.hosts:
                by_host[host].append(number)
    found: dict[int, _Judged] = defaultdict(list)
    for difference in comparison.differences:
        numbers: set[int] = set()
        for decision in (difference.before, difference.after):
            decider = decision.virtual_service
            if decider and decider.resource.id in by_member:
                numbers.add(by_member[decider.resource.id])
        if not numbers:
            numbers = {
                number
                for place in difference.places
                for host, those in by_host.items()
                if overlap(host, place.host)
                for number in those
            }
        for number in numbers:
            found[number].append((judge(chosen[number][1], difference), difference))
    for number, (candidate, _) in enumerate(chosen):
        yield candidate, found[number]


def _tell(candidate: Candidate, judged: _Judged) -> None:
    for judgement in Judgement:
        classes = [difference for each, difference in judged if each is judgement]
        if classes:
            more = f" and {len(classes) - 1} more" if classes[1:] else ""
            failing = [each for each in classes if each.after.treatment.fails]
            first = (failing or classes)[0]
            text = f"{judgement.text}: {first.example}{more}"
            if failing:
                text += f", which fails then: {first.after.treatment.summary}"
            if judgement is Judgement.OTHER:
                candidate.obstacles.append(f"requests would change that should not: {text}")
            else:
                candidate.changes.append(text)


def _of_one_host(snapshot: Snapshot) -> Iterator[Candidate]:
    """VirtualServices that have a host in common, on the mesh or on a gateway."""
    shared: dict[tuple[str, str], list[VirtualService]] = defaultdict(list)
    for vs in snapshot.virtual_services.roots:
        for way in vs.gateways:
            for host in dict.fromkeys(vs.hosts):
                shared[way, host].append(vs)
    together: dict[VirtualService, set[VirtualService]] = {}
    why: dict[VirtualService, list[tuple[str, str]]] = defaultdict(list)
    for key, members in shared.items():
        if len(members) < 2:
            continue
        joined = set(members).union(*(together.get(vs, ()) for vs in members))
        for vs in joined:
            together[vs] = joined
        why[members[0]].append(key)
    for group in {id(each): each for each in together.values()}.values():
        members = _by_age(group)
        keys = [key for vs in members for key in why[vs]]
        yield Candidate(members, _why(keys))


def _by_age(members: Iterable[VirtualService]) -> list[VirtualService]:
    return sorted(members, key=lambda vs: vs.resource.age_key)


def _why(keys: Sequence[tuple[str, str]]) -> str:
    """What VirtualServices of one host come to today."""
    parts = []
    on_mesh = dict.fromkeys(host for way, host in keys if way == MESH)
    if on_mesh:
        parts.append(
            f"for {', '.join(on_mesh)} in the mesh only the oldest has effect, for clients and "
            "ports for which it has rules"
        )
    others = dict.fromkeys(f"{host} on Gateway {way}" for way, host in keys if way != MESH)
    if others:
        parts.append(f"their rules for {', '.join(others)} are joined, the oldest first")
    return "; ".join(parts)


def _of_two_ways_in(snapshot: Snapshot) -> Iterator[Candidate]:
    """VirtualServices of gateways, and those of the mesh whose rules their requests miss."""
    by_id = {vs.resource.id: vs for vs in snapshot.virtual_services.roots}
    missed: dict[ResourceId, set[ResourceId]] = defaultdict(set)
    for finding in bypassing(snapshot):
        related = (each for each in finding.related if each in by_id)
        missed[finding.resource.id].update(related)
    for gateway, others in missed.items():
        ids = {gateway, *others}
        if gateway in by_id and others:
            members = _by_age(by_id[key] for key in ids)
            named = ", ".join(sorted(map(str, others)))
            yield Candidate(
                members,
                f"requests that come in through the gateways of {gateway} miss rules of {named}",
                has_routes_to_share=True,
            )


def bypassing(snapshot: Snapshot) -> Iterator[Finding]:
    """What the doctor says of rules that requests of one way in miss."""
    for code in _WAYS_IN:
        for finding in BY_CODE[code].check(snapshot):
            if isinstance(finding, Finding):
                yield finding
