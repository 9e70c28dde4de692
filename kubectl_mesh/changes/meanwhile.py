"""What requests meet between two steps, as proxies may hear of each by itself.

`turns.py` knows what objects offer each other; here the model of routing is asked what becomes of
requests, where objects that change together decide on the same ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from kubectl_mesh.changes import outlook
from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.mesh.hosts import fqdn
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService, delegate_of
from kubectl_mesh.routing.compare import Comparing, Difference, compare
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.treatment import Treatment, differing

_ALL_ORDERS = 3
"""Of so many objects that change together all orders are tried; of more, one and its reverse."""
_ALL_LOOKED_AT = 4
"""Of so many objects that change together any change is looked at."""
_DECIDING = ("VirtualService", "DestinationRule")
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
    deciding = [_deciding(steps, places) for places in _together(live, steps)]
    groups = [places for places in deciding if places[1:]]
    start = outlook.after(live, ChangeSet(tuple(done))) if groups else live
    for places in groups:
        group = [steps[place] for place in places]
        end = outlook.after(start, ChangeSet(tuple(group)))
        wrong = []
        for order in _orders(group):
            text = _first_astray(start, order, end)
            if text is None:
                for place, step in zip(places, order, strict=True):
                    found[place] = step
                break
            wrong.append(text)
        else:
            told.append(wrong[0])
    return found, told


def _orders(group: Sequence[Step]) -> Iterable[Sequence[Step]]:
    return permutations(group) if len(group) <= _ALL_ORDERS else (group, group[::-1])


def astray(before: Snapshot, meanwhile: Snapshot, after: Snapshot) -> Iterator[str]:
    """Requests that fail meanwhile, and neither before nor after."""
    yield from _astray(before, meanwhile, after, _fails)


def _first_astray(start: Snapshot, order: Sequence[Step], end: Snapshot) -> str | None:
    is_wrong = (
        _fails_or_strays
        if outlook.kind_looked_at(order[0].resource) == "VirtualService"
        else _fails
    )
    for number in range(1, len(order)):
        state = outlook.after(start, ChangeSet(tuple(order[:number])))
        for text in _astray(start, state, end, is_wrong):
            changed, left = order[number - 1].target, order[number].target
            return f"while {changed} is changed and {left} is not, {text}"
    return None


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
    for one, other in ((before, after), (after, before)):
        comparing = Comparing(meanwhile, other)
        for each in compare(one, meanwhile).differences:
            was, now = each.before.treatment, each.after.treatment
            then = _treatment(comparing, each)
            if then is None or then.key == now.key or was.fails or then.fails:
                continue
            if is_wrong(was, now, then):
                yield f"{each.example} from {each.places[0].proxy} would get: {now.summary}"


def _treatment(comparing: Comparing, difference: Difference) -> Treatment | None:
    """What becomes of the example in the second state; None where that is not known."""
    try:
        return comparing.at(1, difference.places[0], difference.example).treatment
    except Undecidable:
        return None


def _together(live: Snapshot, steps: Sequence[Step]) -> Iterator[list[int]]:
    """The places of VirtualServices, and of DestinationRules, that concern the same hosts."""
    concerns = [frozenset(_concerns(live, step)) for step in steps]
    places: dict[Hashable, list[int]] = defaultdict(list)
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
        if group[1:]:
            yield sorted(group)


def _deciding(steps: Sequence[Step], places: list[int]) -> list[int]:
    """The places; of many only those of changes to which requests are taken, not to what for."""
    if len(places) <= _ALL_LOOKED_AT:
        return places
    return [place for place in places if _taken(steps[place].before) != _taken(steps[place].after)]


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


def _concerns(live: Snapshot, step: Step) -> Iterator[Hashable]:
    for document in (step.before, step.after):
        if document is None or outlook.kind_looked_at(step.resource) not in _DECIDING:
            continue
        resource = outlook.resource_of(step.resource, document)
        if resource.kind == "DestinationRule":
            host = str(resource.spec.get("host") or "")
            yield "rule for", fqdn(host, resource.namespace, live.config.domain)
            continue
        vs = VirtualService(resource, live.config)
        if vs.is_delegate:
            yield "delegate", (vs.namespace, resource.name)
        for host in vs.hosts:
            yield "host", host
        for rule in vs.own_http_rules:
            if key := delegate_of(rule):
                yield "delegate", key
