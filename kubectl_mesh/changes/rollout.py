"""Manifests brought into a cluster in the order in which no request fails.

A proxy that has a route before it has the subset's cluster answers 503. So first comes all that
receives requests, then DestinationRules with all subsets of now and then, then, once the proxies
have those, VirtualServices, and, once the proxies have these, what nothing routes to any more goes.
See Istio's text on 503 errors after setting a destination rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from kubectl_mesh.changes import outlook
from kubectl_mesh.changes.change_set import ChangeSet, Ready, Step
from kubectl_mesh.changes.patch import Operation, operations_of, same
from kubectl_mesh.mesh.hosts import fqdn
from kubectl_mesh.mesh.resource import Resource, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.repair import Edit, Then
from kubectl_mesh.rules.rule import Finding

Document = Mapping[str, Any]
_RULES, _ROUTES = "DestinationRule", "VirtualService"
_SUBSETS = ("spec", "subsets")
_HOSTS = ("spec", "hosts")
_Unions = Mapping[str, tuple[Document, Document]]
"""By path, what is applied to a DestinationRule for a while, and what becomes of it."""
_CALLED = ("Service", "ServiceEntry")
_FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ConfigMap", "Secret")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "Rollout")


@dataclass(frozen=True)
class Wanted:
    """An object of the manifests.

    `applied` is what they say, None for one that is only to lose subsets; `live` the object as it
    is, None where there is none; `after` as the server would have it. `path` is where it has it.
    """

    resource: Resource
    path: str
    applied: Document | None
    live: Document | None
    after: Document


@dataclass(frozen=True)
class Unwanted:
    """An object that is to go, as it is."""

    resource: Resource
    path: str
    live: Document


@dataclass(frozen=True)
class Phase:
    """Steps that are made one after the other, without waiting in between."""

    title: str
    why: str
    steps: tuple[Step, ...]
    waits_for: str = ""


@dataclass(frozen=True)
class Plan:
    """What is done, in order; what stands in the way; what may go wrong all the same."""

    phases: tuple[Phase, ...]
    refusals: tuple[str, ...]
    risks: tuple[str, ...]

    @property
    def changes(self) -> ChangeSet:
        """The steps of all phases."""
        return ChangeSet(tuple(step for phase in self.phases for step in phase.steps))


class Server(Protocol):
    """The API server, to be asked without changing anything."""

    def would_be(self, wanted: Wanted, applied: Document) -> Document:
        """What would become of an object, if another configuration were applied to it."""

    def is_there(self, need: Ready) -> bool:
        """Whether a pod is ready."""


def plan(
    live: Snapshot,
    wanted: Sequence[Wanted],
    unwanted: Sequence[Unwanted],
    server: Server,
    *,
    allow_empty: bool = False,
) -> Plan:
    """The order in which manifests are brought into a cluster, and objects taken out of it."""
    changed = [each for each in wanted if each.live is None or not same(each.live, each.after)]
    return _Planning(live, changed, unwanted, server).plan(allow_empty=allow_empty)


class _Planning:
    def __init__(
        self,
        live: Snapshot,
        changed: Sequence[Wanted],
        unwanted: Sequence[Unwanted],
        server: Server,
    ) -> None:
        self._live = live
        self._changed = changed
        self._unwanted = unwanted
        self._server = server

    def plan(self, *, allow_empty: bool) -> Plan:
        unions: dict[str, tuple[Document, Document]] = {}
        for each in self._of(_RULES):
            union = self._union(each)
            if union is not None:
                unions[each.path] = (union, self._server.would_be(each, union))
        phases = [
            self._receiving(),
            self._with_all_subsets(unions, allow_empty=allow_empty),
            self._routes(),
            self._final(unions),
        ]
        phases = [phase for phase in phases if phase.steps]
        last = len(phases) - 1
        phases = [
            _awaited(phase) if number < last and phase.waits_for else replace(phase, waits_for="")
            for number, phase in enumerate(phases)
        ]
        return Plan(
            tuple(phases),
            (*self._refusals(phases), *self._without_pods(phases)),
            tuple(self._risks(allow_empty=allow_empty)),
        )

    def _of(self, *kinds: str) -> list[Wanted]:
        return [each for each in self._changed if each.resource.kind in kinds]

    def _going(self, kind: str | None) -> Iterator[Step]:
        """Deletions of a kind; None stands for all others."""
        for each in self._unwanted:
            own = each.resource.kind
            if own == kind or (kind is None and own not in (_RULES, _ROUTES)):
                yield Step(
                    each.resource, each.live, None, (), (), ["nothing needs it"], path=each.path
                )

    def _receiving(self) -> Phase:
        others = [each for each in self._changed if each.resource.kind not in (_RULES, _ROUTES)]
        others.sort(key=lambda each: _rank(each.resource.kind))
        known = any(each.resource.kind in _CALLED for each in others)
        return Phase(
            "Services and all else that receives requests",
            "they have to be there before requests are sent to them",
            tuple(_step(each, "it is there before requests are sent to it") for each in others),
            "all proxies know them" if known else "",
        )

    def _with_all_subsets(self, unions: _Unions, *, allow_empty: bool) -> Phase:
        steps = []
        for each in sorted(self._of(_RULES), key=_loses_subsets):
            ready = () if allow_empty else tuple(self._needs(each))
            if each.path in unions:
                why = "it has the subsets of now and then, until no route names the old ones"
                applied, after = unions[each.path]
                steps.append(_step(replace(each, applied=applied, after=after), why, ready))
            elif each.applied is not None:
                steps.append(_step(each, "proxies have it before routes do", ready))
        return Phase(
            "DestinationRules, with all subsets of now and then",
            "a route to a subset that a proxy does not know gets 503",
            tuple(steps),
            "all proxies have the subsets",
        )

    def _routes(self) -> Phase:
        found = sorted(self._of(_ROUTES), key=_turn)
        steps = [_step(each, "proxies know all subsets that it names") for each in found]
        going = list(self._going(_ROUTES))
        going.sort(key=lambda step: not step.resource.spec.get("hosts"))
        return Phase(
            "VirtualServices",
            "all that they route to is there",
            (*steps, *going),
            "no proxy routes by the old ones",
        )

    def _final(self, unions: _Unions) -> Phase:
        why = "no route names the subsets that go"
        steps = []
        for each in self._of(_RULES):
            if each.path in unions:
                steps.append(_step(replace(each, live=unions[each.path][1]), why))
            elif each.applied is None:
                steps.append(_step(each, why))
        return Phase(
            "DestinationRules as they are to be, and what goes",
            "nothing routes there any more",
            (
                *steps,
                *self._going(_RULES),
                *sorted(self._going(None), key=lambda step: -_rank(step.resource.kind)),
            ),
        )

    def _union(self, wanted: Wanted) -> Document | None:
        """A DestinationRule with the subsets that go, besides; None where none goes.

        Nor where no route changes: then nothing is gained by keeping them for a while.
        """
        routes = self._of(_ROUTES) or any(self._going(_ROUTES))
        if wanted.live is None or wanted.applied is None or not routes:
            return None
        kept = _subsets(wanted.applied)
        names = {_name(each) for each in kept}
        going = [each for each in _subsets(wanted.live) if _name(each) not in names]
        if not going:
            return None
        spec = {**(wanted.applied.get("spec") or {}), "subsets": [*kept, *going]}
        return {**wanted.applied, "spec": spec}

    # What may go wrong

    def _needs(self, wanted: Wanted) -> Iterator[Ready]:
        """The pods that new subsets, and those with other labels, need."""
        namespace = wanted.resource.namespace
        host = fqdn(
            str(field_at(wanted.after, ("spec", "host"))), namespace, self._live.config.domain
        )
        before = {_name(each): each for each in _subsets(wanted.live or {})}
        for subset in _subsets(wanted.applied or {}):
            labels = subset.get("labels") or {}
            known = before.get(_name(subset))
            if known is not None and (known.get("labels") or {}) == labels:
                continue
            for service in self._after.registry.providers(host):
                if service.is_kubernetes and service.selector:
                    yield Ready(
                        service.namespace,
                        {**service.selector, **labels},
                        f"subset {_name(subset)} of {host}",
                    )

    @cached_property
    def _after(self) -> Snapshot:
        steps = [_step(each, "") for each in self._changed]
        return outlook.after(self._live, ChangeSet(tuple(steps)))

    def _refusals(self, phases: Sequence[Phase]) -> Iterator[str]:
        """Routes to subsets that would not be there, at the end of any phase."""
        known = set(_undefined(self._live))
        steps: list[Step] = []
        for phase in phases:
            steps += phase.steps
            for found in _undefined(outlook.after(self._live, ChangeSet(tuple(steps)))):
                if found not in known:
                    known.add(found)
                    yield found[0]

    def _without_pods(self, phases: Sequence[Phase]) -> Iterator[str]:
        """New subsets for which no pod is ready, where no workload is among the manifests."""
        if self._of(*_WORKLOADS):
            return
        for phase in phases:
            for step in phase.steps:
                for need in step.ready:
                    if not self._server.is_there(need):
                        yield (
                            f"{step.target}: no pod is ready for {need.what}, and requests to it "
                            "would get 503: start one first, or say --allow-empty"
                        )

    def _risks(self, *, allow_empty: bool) -> Iterator[str]:
        for each in self._of(_RULES):
            before = {_name(subset): subset for subset in _subsets(each.live or {})}
            for subset in _subsets(each.applied or {}):
                known = before.get(_name(subset))
                if known and (known.get("labels") or {}) != (subset.get("labels") or {}):
                    yield (
                        f"{each.resource}: subset {_name(subset)} gets other labels and keeps its "
                        "name: each proxy sends its requests to other pods from the moment on at "
                        "which it hears of it; under a new name it could be done in order"
                    )
        if allow_empty:
            yield "new subsets may be without pods (--allow-empty): requests to them get 503 UH"


def _awaited(phase: Phase) -> Phase:
    *steps, last = phase.steps
    return replace(phase, steps=(*steps, replace(last, then=Then.PROXIES)))


def _step(wanted: Wanted, reason: str, ready: Sequence[Ready] = ()) -> Step:
    operations: Sequence[Operation] = ()
    if wanted.applied is None and wanted.live is not None:
        operations = operations_of(
            wanted.live,
            [Edit(wanted.resource, _SUBSETS, field_at(wanted.after, _SUBSETS))],
        )
    return Step(
        wanted.resource,
        wanted.live,
        wanted.after,
        operations,
        (),
        [reason],
        applied=wanted.applied,
        path=wanted.path,
        ready=ready,
    )


def _loses_subsets(wanted: Wanted) -> bool:
    """Such come last: another one may have them, of which proxies hear before."""
    left = {_name(each) for each in _subsets(wanted.after)}
    return not {_name(each) for each in _subsets(wanted.live or {})} <= left


def _turn(wanted: Wanted) -> tuple[bool, bool, bool]:
    """Delegates first, as others hand over to them; new ones, then those that lose no host.

    Proxies hear of VirtualServices in the order in which they change, so that a host that one loses
    to another is never without rules.
    """
    hosts = set(field_at(wanted.live or {}, _HOSTS) or ()) if wanted.live else set()
    left = set(wanted.resource.spec.get("hosts") or ())
    return bool(left), wanted.live is not None, not hosts <= left


def _rank(kind: str) -> int:
    """Kinds without which others cannot be made come first, workloads after what they mount."""
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST) + (kind in _WORKLOADS)


def _subsets(document: Document) -> Sequence[Mapping[str, Any]]:
    found = field_at(document, _SUBSETS)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()


def _name(subset: Mapping[str, Any]) -> str:
    return str(subset.get("name") or "")


def _undefined(snapshot: Snapshot) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What names subsets that are not there, and for which clients that is seen."""
    for finding in BY_CODE["KM101"].check(snapshot):
        if isinstance(finding, Finding):
            yield f"{finding.resource}: {finding.message}", finding.evidence
