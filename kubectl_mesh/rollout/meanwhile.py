"""What requests meet between two steps, as proxies may hear of each by itself.

`order.py` knows what objects offer each other; here the model of routing is asked what becomes of
requests, where objects that change together decide on the same ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kubectl_mesh.changes.after import kind_looked_at, mesh_after, resource_of
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.mesh.hosts import fqdn, is_wildcard, patterns_for
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService, delegate_of
from kubectl_mesh.proof.compare import Comparing, Difference, compare
from kubectl_mesh.proof.treatment import Treatment, differing
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.request import Request

_MOST_STATES = 24
"""So many states are looked at of objects that change together, and four more for each of them."""
_DECIDING = ("VirtualService", "DestinationRule")
_Concern = tuple[str, str]
"""What kind of name, and the name."""
_WHERE = {"destinations", "answer"}


def in_step(
    live: Snapshot, done: Sequence[Step], steps: Sequence[Step]
) -> tuple[list[Step], list[str]]:
    """The steps after those that are done, in an order that leads no request astray meanwhile.

    With it what an operator is told where there is no such order. Requests may be treated as before
    or as after all steps. Of DestinationRules it is asked only that no request fails: what they say
    comes together bit by bit.
    """
    found = list(steps)
    told = []
    groups = list(_together(live, steps))
    start = mesh_after(live, ChangeSet(tuple(done))) if groups else live
    for places in groups:
        order, wrong = _ordered(start, [steps[place] for place in places])
        for place, step in zip(places, order, strict=True):
            found[place] = step
        told += wrong
    return found, told


def _ordered(start: Snapshot, group: Sequence[Step]) -> tuple[Sequence[Step], list[str]]:
    """The steps in an order that leads no request astray; as they are, and why, if none is found.

    A state is looked at once: it does not depend on the order in which its objects were changed.
    """
    end = mesh_after(start, ChangeSet(tuple(group)))
    seen: set[frozenset[int]] = set()
    wrong: list[str] = []
    waiting: list[tuple[int, ...]] = [()]
    while waiting and len(seen) < _MOST_STATES + 4 * len(group):
        made = waiting.pop()
        if len(made) == len(group):
            return [group[number] for number in made], []
        if frozenset(made) in seen:
            continue
        seen.add(frozenset(made))
        left = [number for number in range(len(group)) if number not in made]
        text = _first_astray(start, [group[number] for number in made], end) if made else None
        if text is None:
            first, *others = left  # then the last: the reverse of an order is often right
            waiting += [(*made, number) for number in (*others, first)]
        else:
            changed, unchanged = group[made[-1]].target, group[left[0]].target
            wrong.append(f"while {changed} is changed and {unchanged} is not, {text}")
    return group, wrong[:1]


def astray(before: Snapshot, meanwhile: Snapshot, after: Snapshot) -> Iterator[str]:
    """Requests that fail meanwhile, and neither before nor after."""
    yield from _astray(before, meanwhile, after, _fails)


def _first_astray(start: Snapshot, made: Sequence[Step], end: Snapshot) -> str | None:
    is_rule = kind_looked_at(made[0].resource) == "DestinationRule"
    state = mesh_after(start, ChangeSet(tuple(made)))
    return next(_astray(start, state, end, _fails if is_rule else _fails_or_strays), None)


def _fails(was: Treatment, now: Treatment, then: Treatment) -> bool:
    return now.fails


def _fails_or_strays(was: Treatment, now: Treatment, then: Treatment) -> bool:
    return now.fails or all(_WHERE & {*differing(each, now)} for each in (was, then))


def _astray(
    before: Snapshot,
    meanwhile: Snapshot,
    after: Snapshot,
    is_wrong: Callable[[Treatment, Treatment, Treatment], bool],
) -> Iterator[str]:
    """Of the requests of pods that are seen: one that starts later meets what is then there."""
    assume = not meanwhile.sidecar_namespaces
    for one, other in ((before, after), (after, before)):
        comparing = Comparing(meanwhile, other)
        for each in compare(one, meanwhile, assume=assume).differences:
            was, now = each.before.treatment, each.after.treatment
            then = _treatment(comparing, each)
            if then is None or was.fails or then.fails or _same(then, now, each.example):
                continue
            if is_wrong(was, now, then):
                yield f"{each.example} from {each.places[0].name} would get: {now.summary}"


def _same(one: Treatment, other: Treatment, example: Request | Connection) -> bool:
    try:
        return one.is_as(other, example.path if isinstance(example, Request) else "")
    except Undecidable:
        return False


def _treatment(comparing: Comparing, difference: Difference) -> Treatment | None:
    """What becomes of the example in the second state; None where that is not known."""
    try:
        return comparing.at(1, difference.places[0], difference.example).treatment
    except Undecidable:
        return None


def _together(live: Snapshot, steps: Sequence[Step]) -> Iterator[list[int]]:
    """The places of VirtualServices, and of DestinationRules, that concern the same hosts.

    Where all of them take the same requests as before, it does not matter which is first.
    """
    named = [frozenset(_concerns(live, step)) for step in steps]
    wildcards = {(kind, name) for names in named for kind, name in names if is_wildcard(name)}
    concerns = [names | {*_covering(names, wildcards)} for names in named]
    places: dict[_Concern, list[int]] = defaultdict(list)
    for place, keys in enumerate(concerns):
        for key in keys:
            places[key].append(place)
    seen: set[int] = set()
    for first in range(len(steps)):
        group: list[int] = []
        waiting = [first]
        while waiting:
            place = waiting.pop()
            if place not in seen:
                seen.add(place)
                group.append(place)
                waiting += [other for key in concerns[place] for other in places.pop(key, ())]
        group.sort()
        if group[1:] and any(
            _taken(steps[place].before) != _taken(steps[place].after) for place in group
        ):
            yield group


def _covering(names: Iterable[_Concern], wildcards: Collection[_Concern]) -> Iterator[_Concern]:
    for kind, name in names:
        for pattern in patterns_for(name):
            if (kind, pattern) in wildcards:
                yield kind, pattern


def _taken(document: Mapping[str, Any] | None) -> object:
    """What an object says of the requests that are its own, and of the names that it gives."""
    spec = (document or {}).get("spec") or {}
    return (
        document is None,
        [spec.get(field) for field in ("hosts", "host", "gateways", "exportTo")],
        [
            (rule.get("match"), rule.get("delegate"))
            for protocol in ("http", "tls", "tcp")
            for rule in spec.get(protocol) or ()
        ],
        [(subset.get("name"), subset.get("labels")) for subset in spec.get("subsets") or ()],
    )


def _concerns(live: Snapshot, step: Step) -> Iterator[_Concern]:
    for document in (step.before, step.after):
        if document is None or kind_looked_at(step.resource) not in _DECIDING:
            continue
        resource = resource_of(step.resource, document)
        if resource.kind == "DestinationRule":
            host = str(resource.spec.get("host") or "")
            yield "rule for", fqdn(host, resource.namespace, live.config.domain)
            continue
        vs = VirtualService(resource, live.config)
        if vs.is_delegate:
            yield "delegate", f"{vs.namespace}/{resource.name}"
        for host in vs.hosts:
            yield "host", host
        for rule in vs.own_http_rules:
            if key := delegate_of(rule):
                yield "delegate", "/".join(key)
