"""In which order the objects of one phase change, as proxies may hear of each by itself.

A host that goes from one object to another is claimed by the new one before the old one leaves it;
a delegate is there while a root hands over to it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kubectl_mesh.changes.after import kind_looked_at, resource_of
from kubectl_mesh.changes.change_set import Step
from kubectl_mesh.mesh.gateways import Gateway
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService, delegate_of

_Claim = tuple[Hashable, ...]
"""What is told to an operator first; what tells it from others after it."""
_KINDS = ("VirtualService", "ServiceEntry", "Gateway")


@dataclass(frozen=True)
class _Claims:
    """What an object offers, and which delegates it needs. Hosts are needed by whoever calls."""

    offers: frozenset[_Claim] = frozenset()
    needs: frozenset[_Claim] = frozenset()


class _Turns:
    """Who offers what, and who needs it, while steps are made."""

    def __init__(self, live: Snapshot, steps: Sequence[Step]) -> None:
        self._live = live
        self._offered: Counter[_Claim] = Counter()
        self._needed: Counter[_Claim] = Counter()
        changes = [(self._resource(step, False), self._resource(step, True)) for step in steps]
        everything = [each for each in live.read() if each.kind in _KINDS]
        documents = [each for pair in changes for each in pair if each]
        self._of_roots: dict[str, set[_Claim]] = defaultdict(set)
        for each in (*everything, *documents):
            for claim in self._needs(each):
                self._of_roots[str(claim[0])].add(claim)
        for each in everything:
            self._count(self._claims(each), 1)
        self._changes: Mapping[int, tuple[_Claims, _Claims]] = {
            id(step): (self._claims(before), self._claims(after))
            for step, (before, after) in zip(steps, changes, strict=True)
        }

    def make(self, step: Step, *, back: bool = False) -> None:
        """Makes a step, or takes it back."""
        before, after = self._changes[id(step)]
        self._count(after, -1 if back else 1)
        self._count(before, 1 if back else -1)

    def missing(self, step: Step) -> set[_Claim]:
        """Of what a step concerns, what is needed and nobody offers."""
        before, after = self._changes[id(step)]
        concerned = before.offers | before.needs | after.offers | after.needs
        return {claim for claim in concerned if self._is_missing(claim)}

    def _is_missing(self, claim: _Claim) -> bool:
        needed = self._needed[claim] if claim[0] in self._of_roots else 1
        return bool(needed) and not self._offered[claim]

    def _count(self, claims: _Claims, number: int) -> None:
        for claim in claims.offers:
            self._offered[claim] += number
        for claim in claims.needs:
            self._needed[claim] += number

    def _resource(self, step: Step, then: bool) -> Resource | None:
        document = step.after if then else step.before
        if document is None or kind_looked_at(step.resource) not in _KINDS:
            return None
        found = resource_of(step.resource, document)
        return found if self._live.reads(found) else None

    def _claims(self, resource: Resource | None) -> _Claims:
        if resource is None:
            return _Claims()
        return _Claims(frozenset(self._offers(resource)), frozenset(self._needs(resource)))

    def _offers(self, resource: Resource) -> Iterable[_Claim]:
        if resource.kind == "ServiceEntry":
            return [(f"host {host}", "provided") for host in resource.spec.get("hosts") or ()]
        if resource.kind == "Gateway":
            gateway = Gateway(resource)
            proxies = tuple(sorted(gateway.selector.items()))
            return [
                (f"host {host} on port {server.number} of gateways", proxies)
                for server in gateway.servers
                for host in server.hosts
            ]
        vs = VirtualService(resource, self._live.config)
        if not vs.is_delegate:
            return [(f"a rule for {host}", gateway) for gateway in vs.gateways for host in vs.hosts]
        if not vs.own_http_rules:
            return []
        wanted = self._of_roots.get(self._delegate(vs.namespace, resource.name), ())
        return [claim for claim in wanted if vs.export.reaches(str(claim[1]))]

    def _needs(self, resource: Resource) -> Iterable[_Claim]:
        if resource.kind != "VirtualService":
            return []
        vs = VirtualService(resource, self._live.config)
        keys = [] if vs.is_delegate else [delegate_of(rule) for rule in vs.own_http_rules]
        return [(self._delegate(*key), vs.namespace) for key in keys if key]

    @staticmethod
    def _delegate(namespace: str, name: str) -> str:
        return f"the delegate VirtualService {namespace}/{name}"


def in_turn(live: Snapshot, steps: Sequence[Step]) -> list[Step]:
    """The steps in an order in which nothing is missing meanwhile, as far as there is one.

    They keep their order where nothing is gained by another.
    """
    if len(steps) < 2:
        return list(steps)
    turns = _Turns(live, steps)
    excused = _excused(turns, steps)
    left, found = list(steps), []
    while left:
        chosen = next((step for step in left if not _lacking(turns, step) - excused), left[0])
        turns.make(chosen)
        left.remove(chosen)
        found.append(chosen)
    return found


def gaps(live: Snapshot, steps: Sequence[Step]) -> list[str]:
    """What is missing meanwhile, if steps are made in their order, as an operator is told.

    What is missing before or after all of them is none of it.
    """
    if len(steps) < 2:
        return []
    turns = _Turns(live, steps)
    excused = _excused(turns, steps)
    told = []
    for step in steps:
        lacking = _lacking(turns, step) - excused
        turns.make(step)
        told += [f"{step.target} would leave {claim[0]} missing for a while" for claim in lacking]
        excused |= lacking
    return sorted(told)


def _excused(turns: _Turns, steps: Sequence[Step]) -> set[_Claim]:
    """What is missing before some steps, or after all of them."""
    found = {claim for step in steps for claim in turns.missing(step)}
    for step in steps:
        turns.make(step)
    found |= {claim for step in steps for claim in turns.missing(step)}
    for step in steps:
        turns.make(step, back=True)
    return found


def _lacking(turns: _Turns, step: Step) -> set[_Claim]:
    """What is missing once a step is made."""
    turns.make(step)
    found = turns.missing(step)
    turns.make(step, back=True)
    return found
