"""Manifests brought into a cluster in the order in which no request fails.

A proxy that has a route before it has the subset's cluster answers 503. So first comes all that
receives requests, then DestinationRules with all subsets of now and then, then, once the proxies
have those, VirtualServices, and, once the proxies have these, what nothing routes to any more goes.
See Istio's text on 503 errors after setting a destination rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from kubectl_mesh.changes.after import kind_looked_at, mesh_after, resource_of, without_terminating
from kubectl_mesh.changes.change_set import ChangeSet, Ready, Step
from kubectl_mesh.changes.deletion import being_deleted, is_terminating
from kubectl_mesh.changes.patch import Operation, operations_of, same
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.added_labels import of_pods
from kubectl_mesh.mesh.hosts import fqdn
from kubectl_mesh.mesh.resource import Resource, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.visibility import export_of
from kubectl_mesh.proof.scope import scope_of
from kubectl_mesh.proof.scope import unread as unread_changes
from kubectl_mesh.rollout.breakage import Failures, breaks, doubts
from kubectl_mesh.rollout.meanwhile import astray, in_step
from kubectl_mesh.rollout.order import gaps, in_turn
from kubectl_mesh.routing.not_followed import leading_nowhere
from kubectl_mesh.rules.repair import Edit, Then

Document = Mapping[str, Any]
_RULES, _ROUTES = "DestinationRule", "VirtualService"
_SUBSETS = ("spec", "subsets")
_Unions = Mapping[str, tuple[Document, Document]]
"""By path, what is applied to a DestinationRule for a while, and what becomes of it."""
_CALLED = ("Service", "ServiceEntry")
_OFFERING = (*_CALLED, "Gateway", "Sidecar")
"""Kinds of which something can be added or taken away on which routes rely."""
_MOST_TRIED = 20
"""Of so many objects at most the other place in the order is tried."""
_IN_TWO = (
    ", though in the end it would be right: apply it in two runs, first with what is new and what "
    "is there now together"
)
_ALL_HOSTS = "*/*"
"""What a Sidecar imports that imports all, and what is imported where there is none."""
_EVERYONE = ("*",)
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
    """What is done, in order; what stands in the way; what may go wrong all the same.

    `gaps` is what of the cluster could not be read.
    """

    phases: tuple[Phase, ...]
    refusals: tuple[str, ...]
    risks: tuple[str, ...]
    gaps: tuple[str, ...] = ()

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
    allow_broken: bool = False,
) -> Plan:
    """The order in which manifests are brought into a cluster, and objects taken out of it.

    With `allow_broken` routes to what is not there are a risk, and refused without.
    """
    vanishing = tuple(_vanishing(live, wanted))
    if vanishing:
        return Plan((), vanishing, ())
    changed = [each for each in wanted if each.live is None or not same(each.live, each.after)]
    planning = _Planning(live, changed, unwanted, server, allow_empty=allow_empty)
    found = planning.plan(allow_broken=allow_broken)
    staying, going = without_terminating(live)
    if not going:
        return found
    planning = _Planning(staying, changed, unwanted, server, allow_empty=allow_empty)
    then = planning.plan(allow_broken=allow_broken)
    once = f", once {', '.join(going)} is gone"
    refusals, risks = (
        (*now, *(text + once for text in later if text not in now))
        for now, later in ((found.refusals, then.refusals), (found.risks, then.risks))
    )
    return replace(found, refusals=refusals, risks=risks)


def _vanishing(live: Snapshot, wanted: Iterable[Wanted]) -> Iterator[str]:
    """Objects of the manifests that are being deleted, or whose Namespace is."""
    ending = {each.name for each in live.of("Namespace") if is_terminating(each.data)}
    for each in wanted:
        if each.live is not None and is_terminating(each.live):
            what = f"{each.resource} {being_deleted(each.live)}"
        elif each.resource.namespace in ending:
            what = f"{each.resource}: Namespace {each.resource.namespace} is being deleted"
        else:
            continue
        yield f"{what}: what is applied would vanish with it; wait until it is gone"


class _Planning:
    def __init__(
        self,
        live: Snapshot,
        changed: Sequence[Wanted],
        unwanted: Sequence[Unwanted],
        server: Server,
        *,
        allow_empty: bool,
    ) -> None:
        self._live = live
        self._changed = changed
        self._unwanted = unwanted
        self._server = server
        self._allow_empty = allow_empty

    def plan(self, *, allow_broken: bool) -> Plan:
        unions: dict[str, tuple[Document, Document]] = {}
        for each in self._of(_RULES):
            union = self._union(each)
            if union is not None:
                unions[each.path] = (union, self._server.would_be(each, union))
        phases, broken = self._in_step(*self._in_order(unions))
        refusals, risks = ((), broken) if allow_broken else (broken, ())
        return Plan(
            tuple(phases),
            (*refusals, *self._without_pods(phases)),
            (*risks, *self._risks()),
            self._live.gaps,
        )

    def _in_order(self, unions: _Unions) -> tuple[list[Phase], Sequence[str]]:
        """The phases, and what they break.

        What takes something away, such as a Service that loses a port, waits until nothing routes
        to it, and all else comes first. Where that breaks something, each object of these kinds is
        tried at the other end.
        """
        others = [
            each for each in self._changed if _kind(each) not in (_RULES, _ROUTES, *unread.ROUTES)
        ]
        late = {each.path for each in others if _takes(each) and not _gives(each)}
        phases = self._phases(others, late, unions)
        broken = list(self._broken(phases))
        movable = [each.path for each in others if _kind(each) in _OFFERING and each.live]
        for path in movable[:_MOST_TRIED]:
            if not broken:
                break
            other = self._phases(others, late ^ {path}, unions)
            if len(still := list(self._broken(other))) < len(broken):
                late, phases, broken = late ^ {path}, other, still
        return phases, broken

    def _in_step(
        self, phases: Sequence[Phase], broken: Sequence[str]
    ) -> tuple[list[Phase], Sequence[str]]:
        """The phases with their steps in an order in which no request goes astray meanwhile.

        With it what they break.
        """
        done: list[Step] = []
        found = []
        told = []
        for phase in phases:
            order, wrong = in_step(self._live, done, phase.steps)
            told += [text + _IN_TWO for text in wrong]
            steps = tuple(
                replace(step, then=old.then) for step, old in zip(order, phase.steps, strict=True)
            )
            found.append(replace(phase, steps=steps))
            done += steps
        if found != phases:
            broken = list(self._broken(found))
        return found, [*broken, *told]

    def _phases(
        self, others: Sequence[Wanted], late: Collection[str], unions: _Unions
    ) -> list[Phase]:
        phases = [
            self._receiving([each for each in others if each.path not in late]),
            self._with_all_subsets(unions),
            self._routes(),
            self._final([each for each in others if each.path in late], unions),
        ]
        phases = [phase for phase in phases if phase.steps]
        last = len(phases) - 1
        return [
            _awaited(phase) if number < last and phase.waits_for else replace(phase, waits_for="")
            for number, phase in enumerate(phases)
        ]

    def _of(self, *kinds: str) -> list[Wanted]:
        return [each for each in self._changed if _kind(each) in kinds]

    def _going(self, kind: str | None) -> Iterator[Step]:
        """Deletions of a kind; None stands for all others."""
        for each in self._unwanted:
            own = _kind(each)
            if own == kind or (kind is None and own not in (_RULES, _ROUTES, *unread.ROUTES)):
                why = "nothing needs it"
                if is_terminating(each.live):
                    why = f"it {being_deleted(each.live)}, and that is waited for"
                yield Step(each.resource, each.live, None, (), (), [why], path=each.path)

    def _receiving(self, others: Sequence[Wanted]) -> Phase:
        others = sorted(others, key=lambda each: _rank(each.resource.kind))
        known = any(_kind(each) in (*_CALLED, "Sidecar") for each in others)
        steps = [_step(each, "it is there before requests are sent to it") for each in others]
        return Phase(
            "Services and all else that receives requests",
            "they have to be there before requests are sent to them",
            tuple(in_turn(self._live, steps)),
            "all proxies know them" if known else "",
        )

    def _with_all_subsets(self, unions: _Unions) -> Phase:
        steps = []
        for each in sorted(self._of(_RULES), key=_loses_subsets):
            ready = () if self._allow_empty else tuple(self._needs(each))
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
        unfollowed = [
            _step(each, "all that it routes to is there") for each in self._of(*unread.ROUTES)
        ]
        unfollowed += (step for kind in unread.ROUTES for step in self._going(kind))
        kinds = [_ROUTES] if steps or going else []
        kinds += dict.fromkeys(step.resource.id.api_kind for step in unfollowed)
        return Phase(
            " and ".join(f"{kind}s" for kind in kinds),
            "all that they route to is there",
            (*in_turn(self._live, [*steps, *going]), *unfollowed),
            "no proxy routes by the old ones",
        )

    def _final(self, others: Sequence[Wanted], unions: _Unions) -> Phase:
        why = "no route names the subsets that go"
        steps = []
        for each in self._of(_RULES):
            if each.path in unions:
                steps.append(_step(replace(each, live=unions[each.path][1]), why))
            elif each.applied is None:
                steps.append(_step(each, why))
        return Phase(
            "What takes something away, and what goes",
            "nothing routes there any more",
            (
                *steps,
                *(_step(each, "nothing routes to what it takes away") for each in others),
                *self._going(_RULES),
                *sorted(self._going(None), key=lambda step: -_rank(step.resource.kind)),
            ),
        )

    def _union(self, wanted: Wanted) -> Document | None:
        """A DestinationRule with the subsets that go, besides, for all who see it now or then.

        None where it loses neither, and where neither a route nor another one changes: then nothing
        is gained by keeping them for a while.
        """
        others = len(self._of(_RULES, _ROUTES)) > 1 or any(self._going(_ROUTES))
        if wanted.live is None or wanted.applied is None or not others:
            return None
        kept = _subsets(wanted.applied)
        names = {_name(each) for each in kept}
        going = [each for each in _subsets(wanted.live) if _name(each) not in names]
        spec = dict(wanted.applied.get("spec") or {})
        before, after = (
            {*(each.get("exportTo") or "*")} for each in (wanted.live.get("spec") or {}, spec)
        )
        hides = "*" not in after and not before <= after
        if not going and not hides:
            return None
        if going:
            spec["subsets"] = [*kept, *going]
        if hides:
            spec["exportTo"] = ["*"] if "*" in before else sorted(before | after)
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
                        {**service.selector, **of_pods(labels)},
                        f"subset {_name(subset)} of {host}",
                    )

    @cached_property
    def _after(self) -> Snapshot:
        steps = [_step(each, "") for each in self._changed]
        return mesh_after(self._live, ChangeSet(tuple(steps)))

    def _broken(self, phases: Sequence[Phase]) -> Iterator[str]:
        """Requests that fail at the end of any phase, and do not now."""
        steps: list[Step] = []
        snapshots = []
        for phase in phases:
            steps += phase.steps
            snapshots.append(mesh_after(self._live, ChangeSet(tuple(steps))))
        states = [Failures(each) for each in snapshots]
        told: dict[str, None] = {}
        for state in reversed(states):
            for text in breaks(self._now, state, states[-1]):
                if text not in told and state is not states[-1]:
                    text += _IN_TWO
                told.setdefault(text)
        nowhere = set(leading_nowhere(self._live))
        for snapshot in snapshots:
            told |= dict.fromkeys(text for text in leading_nowhere(snapshot) if text not in nowhere)
        told |= dict.fromkeys(gap + _IN_TWO for gap in gaps(self._live, steps))
        if any(step.resource.kind == "Gateway" for step in steps):
            for snapshot in snapshots[:-1]:
                for text in astray(self._live, snapshot, snapshots[-1]):
                    told.setdefault(text + _IN_TWO)
        yield from told

    @cached_property
    def _now(self) -> Failures:
        return Failures(self._live)

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

    def _risks(self) -> Iterator[str]:
        yield from doubts(self._live)
        yield from self._unproved()
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
        if self._allow_empty:
            yield "new subsets may be without pods (--allow-empty): requests to them get 503 UH"

    def _unproved(self) -> Iterator[str]:
        """What is changed, or decides on the same requests, and is not followed."""
        steps = [_step(each, "") for each in self._changed]
        kinds = {_kind(each) for each in self._unwanted}
        steps += (step for kind in kinds for step in self._going(kind))
        after = mesh_after(self._live, ChangeSet(tuple(steps)))
        scope = scope_of(self._live, after)
        for text in unread_changes(scope):
            yield f"{text}: it was not proved that none of its requests fails"
        ruled = (each.unread.naming(scope.hosts) for each in (self._live, after))
        for route, host in dict.fromkeys(itertools.chain(*ruled)):
            yield (
                f"{route} may decide on requests for {host}, and {unread.REASON}: it was not "
                "proved that none of them fails"
            )


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
    hosts = set(((wanted.live or {}).get("spec") or {}).get("hosts") or ())
    left = set(wanted.resource.spec.get("hosts") or ())
    return bool(left), wanted.live is not None, not hosts <= left


def _kind(each: Wanted | Unwanted) -> str:
    return kind_looked_at(each.resource)


def _takes(wanted: Wanted) -> bool:
    """Whether something that requests may use now is not there afterwards."""
    return not _offers(wanted, wanted.live) <= _offers(wanted, wanted.after)


def _gives(wanted: Wanted) -> bool:
    before = _offers(wanted, wanted.live)
    return _ALL_HOSTS not in before and not _offers(wanted, wanted.after) <= before


def _offers(wanted: Wanted, document: Document | None) -> set[object]:
    """What requests may use of an object: ports, hosts, hosts on ports."""
    kind = _kind(wanted)
    if document is None or kind not in _OFFERING:
        return {_ALL_HOSTS} if kind == "Sidecar" else set()
    spec = document.get("spec") or {}
    export = export_of(resource_of(wanted.resource, document), _EVERYONE)
    exported = {
        ("exportTo", name) for name in (_EVERYONE if export.everyone else export.namespaces)
    }
    match kind:
        case "Service":
            return {*(port.get("port") for port in spec.get("ports") or ()), *exported}
        case "ServiceEntry":
            ports = {port.get("number") for port in spec.get("ports") or ()}
            return {*(spec.get("hosts") or ()), *ports, *exported}
        case "Gateway":
            return {
                ((server.get("port") or {}).get("number"), host)
                for server in spec.get("servers") or ()
                for host in server.get("hosts") or ()
            }
        case "Sidecar":
            return {
                host for egress in spec.get("egress") or () for host in egress.get("hosts") or ()
            }
    return set()


def _rank(kind: str) -> int:
    """Kinds without which others cannot be made come first, workloads after what they mount."""
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST) + (kind in _WORKLOADS)


def _subsets(document: Document) -> Sequence[Mapping[str, Any]]:
    found = field_at(document, _SUBSETS)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()


def _name(subset: Mapping[str, Any]) -> str:
    return str(subset.get("name") or "")
