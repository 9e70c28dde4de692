"""Several VirtualServices made one, which does what they did.

The oldest survives and is edited in place, so that it wins on the mesh throughout. It gets the
hosts, gateways and rules of the others; each rule is bound by per-match `gateways` to where it held
before. Rules come in the order of the age of their VirtualServices, as istiod joins them on a
gateway: catch-alls last, as istiod leaves out what stands behind one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from kubectl_mesh.changes.deletion import is_terminating
from kubectl_mesh.changes.patch import NOTES, operations_of, patched
from kubectl_mesh.mesh.gateways import MESH, resolve_gateway
from kubectl_mesh.mesh.hosts import is_wildcard, overlap
from kubectl_mesh.mesh.injection import REVISION
from kubectl_mesh.mesh.resource import ABSENT, Path, Resource, dotted, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.routing.rules import Match, Rule, handed_over, own_rules
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.repair import Copied, Edit, Repair, Then
from kubectl_mesh.rules.rule import Finding

_PROTOCOLS = ("http", "tls", "tcp")
_CLAIM = "@request.auth.claims"


@dataclass(frozen=True)
class Refusal:
    """Why VirtualServices are not merged, and what can be done instead."""

    reason: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.way_out}"


@dataclass(frozen=True)
class Source:
    """The rule that a rule of the merged VirtualService was; `shared` if it has a new subset."""

    virtual_service: VirtualService
    index: int
    shared: bool


@dataclass(frozen=True)
class Merge:
    """How some VirtualServices become one.

    `sources` are the http rules of the merged one in their order. `notes` are things to know.
    `unbound` tells of rules that may hold at gateways, or in the mesh, where they did not.
    """

    survivor: VirtualService
    others: tuple[VirtualService, ...]
    repair: Repair
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    unbound: tuple[str, ...]

    @property
    def members(self) -> tuple[VirtualService, ...]:
        return (self.survivor, *self.others)


def merge(
    snapshot: Snapshot, members: Sequence[VirtualService], *, share_routes: bool = False
) -> Merge | list[Refusal]:
    """What makes one of some VirtualServices, or why nothing does.

    The first of them survives; their order of age is that of the snapshot. With `share_routes` the
    routes of gateways get the subsets that the rules for the mesh choose.
    """
    merging = _Merging(snapshot, members)
    refusals = list(merging.refusals())
    if not refusals and share_routes:
        refusals = list(merging.share_routes())
    return refusals or merging.made()


@dataclass
class _Member:
    """A VirtualService with the edits that it gets where it stands, before rules are moved.

    `shared` are http rules with a new subset, `dropped` rules that never held. `closed` are, for
    each http rule, the gateways on which a catch-all stands before it.
    """

    vs: VirtualService
    edits: list[Edit] = field(default_factory=list)
    shared: set[int] = field(default_factory=set)
    dropped: set[tuple[str, int]] = field(default_factory=set)
    closed: Sequence[frozenset[str]] = ()

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Its spec with the edits made; to be asked for once all of them are known."""
        raw = self.vs.resource.raw
        found: Mapping[str, Any] = patched(raw, operations_of(raw, self.edits))["spec"]
        return found

    def rules(self, protocol: str) -> Sequence[Mapping[str, Any]]:
        rules: Sequence[Mapping[str, Any]] = self.vs.resource.spec.get(protocol) or ()
        return rules

    def is_behind(self, index: int) -> bool:
        """Whether a catch-all stands before an http rule wherever that holds."""
        return self.vs.own_http_rules[index].gateways <= self.closed[index]

    def edit(self, path: Path, value: Any) -> None:
        """Sets a field, unless it is so."""
        if field_at(self.vs.resource.raw, path) != value:
            self.edits.append(Edit(self.vs.resource, path, value))


class _Merging:
    def __init__(self, snapshot: Snapshot, members: Sequence[VirtualService]) -> None:
        self._snapshot = snapshot
        self._survivor = members[0]
        wanted = set(members)
        self._members = [_Member(vs) for vs in snapshot.virtual_services.roots if vs in wanted]
        self._delegates = [vs for vs in members if vs.is_delegate]
        self._gateways = frozenset().union(*(vs.gateways for vs in members))
        self._notes: list[str] = []

    # What stands in the way

    def refusals(self) -> Iterator[Refusal]:
        for vs in self._delegates:
            yield Refusal(f"{vs.resource} has no hosts: it is a delegate", "merge those above it")
        for member in self._members:
            resource = member.vs.resource
            if resource.faults:
                yield Refusal(
                    f"{resource} has fields of a wrong type", "kubectl mesh doctor names them"
                )
            if resource.id in self._snapshot.replaced:
                yield Refusal(f"{resource} stands twice in the input", "leave one of them")
            if is_terminating(resource.data):
                yield Refusal(f"{resource} is being deleted", "wait until it is gone")
        if len(self._members) < 2:
            return
        yield from self._different_revisions()
        yield from self._different_exports()
        yield from self._hosts_in_the_way()
        yield from self._claims()
        yield from self._rollouts()

    def _different_revisions(self) -> Iterator[Refusal]:
        first, *others = (member.vs.resource for member in self._members)
        for other in others:
            if other.labels.get(REVISION) != first.labels.get(REVISION):
                yield Refusal(
                    f"{first} and {other} are for different revisions of Istio (label {REVISION})",
                    "merged, other istiods would read the rules of one of them: leave them apart",
                )

    def _different_exports(self) -> Iterator[Refusal]:
        first, *others = self._members
        for other in others:
            if other.vs.export != first.vs.export:
                yield Refusal(
                    f"{first.vs.resource} and {other.vs.resource} have different exportTo",
                    "merged, one of them would be seen by more namespaces or fewer: give both "
                    "the same",
                )

    def _hosts_in_the_way(self) -> Iterator[Refusal]:
        hosts = list(dict.fromkeys(host for member in self._members for host in member.vs.hosts))
        if "*" in hosts and MESH in self._gateways:
            yield Refusal(
                "the host * cannot be bound to the mesh",
                "name the hosts that the gateway serves instead of *",
            )
            return
        for wildcard in filter(is_wildcard, hosts):
            for host in hosts:
                if host != wildcard and overlap(wildcard, host):
                    yield Refusal(
                        f"the hosts {wildcard} and {host} overlap, and no VirtualService may have "
                        "both",
                        "requests for one of them alone meet its own rules today: leave them apart",
                    )

    def _claims(self) -> Iterator[Refusal]:
        if MESH not in self._gateways:
            return
        for member in self._members:
            for index, rule in enumerate(member.rules("http")):
                matches = rule.get("match") or ()
                names = [
                    name
                    for match in matches
                    for part in ("headers", "withoutHeaders")
                    for name in match.get(part) or ()
                ]
                if any(name.startswith(_CLAIM) for name in names):
                    yield Refusal(
                        f"http[{index}] of {member.vs.resource} matches claims of a token, which "
                        "Istio admits on gateways alone",
                        "leave it apart from what is bound to the mesh",
                    )

    def _unbound(self) -> Iterator[str]:
        """Rules of chosen clients, which cannot name gateways: that switches their sources off."""
        for member in self._members:
            if member.vs.gateways == self._gateways:
                continue
            for rule in own_rules(member.vs):
                effective = self._effective(member.vs, rule)
                if any(match for each in effective for match in _sourced(each)):
                    yield (
                        f"{dotted(rule.path)} of {member.vs.resource} is for chosen clients "
                        "(sourceLabels or sourceNamespace), and cannot be bound to its gateways "
                        "alone, as naming them switches that off: leave it apart, or choose the "
                        "clients by a header"
                    )

    def _effective(self, vs: VirtualService, rule: Rule) -> Iterator[Rule]:
        return handed_over(self._snapshot.virtual_services, vs, rule)

    def _rollouts(self) -> Iterator[Refusal]:
        members = {
            (member.vs.namespace, member.vs.resource.name): member for member in self._members
        }
        for rollout in self._snapshot.of("Rollout"):
            for name, routes in _routed_by(rollout):
                member = members.get(name)
                if member is None:
                    continue
                if member.vs is not self._survivor:
                    yield Refusal(
                        f"{rollout} sets the weights of {member.vs.resource}, which would be gone",
                        "leave it apart",
                    )
                elif not routes and any(
                    other.rules("http") for other in self._members if other is not member
                ):
                    yield Refusal(
                        f"{rollout} sets the weights of the one http rule of {member.vs.resource}, "
                        "which would have several",
                        "name the rule, and have the Rollout's trafficRouting.istio list it under "
                        "routes, or leave it apart",
                    )

    @property
    def _others(self) -> list[VirtualService]:
        return [member.vs for member in self._members if member.vs is not self._survivor]

    # The subsets of the mesh for the routes of gateways

    def share_routes(self) -> Iterator[Refusal]:
        by_resource = {member.vs.resource.id: member for member in self._members}
        for finding in BY_CODE["KM201"].check(self._snapshot):
            if not isinstance(finding, Finding) or finding.resource.id not in by_resource:
                continue
            if not set(finding.related) <= by_resource.keys():
                continue
            where = f"{dotted(finding.path)} of {finding.resource}"
            if len(finding.repairs) != 1:
                yield Refusal(
                    f"{where} could take several subsets of the mesh's rules, or none that its "
                    "proxies know",
                    "write the subset there, or merge without --share-routes",
                )
                continue
            member = by_resource[finding.resource.id]
            self._notes += finding.repairs[0].assumes
            for edit in finding.repairs[0].edits:
                member.edits.append(edit)
                member.shared.add(_number(edit.path, 2))

    # The edits

    def made(self) -> Merge:
        for member in self._members:
            member.closed = list(self._closed(member.vs))
            self._bind(member)
            self._name_in_full(member)
        self._name_apart()
        survivor = next(member for member in self._members if member.vs is self._survivor)
        sources = list(self._in_order())
        edits = [*survivor.edits, *self._hosts(), *self._gateway_names()]
        edits += self._http(survivor, sources)
        for protocol in ("tls", "tcp"):
            edits += self._appended(survivor, protocol)
        edits[-1:] = [replace(edit, then=Then.PROXIES) for edit in edits[-1:]]
        gone = [Edit(vs.resource, (), ABSENT) for vs in self._others]
        for vs in self._others:
            told = ", ".join(sorted(vs.resource.annotations.keys() - NOTES))
            if told:
                self._notes.append(f"the annotations of {vs.resource} go with it: {told}")
        home = f"{self._survivor.namespace}/"
        ids = (f"{vs.namespace}/{vs.resource.name}" for vs in self._others)
        names = ", ".join(each.removeprefix(home) for each in ids)
        return Merge(
            self._survivor,
            tuple(self._others),
            Repair("merge", f"merge {names} into {self._survivor.resource}", (*edits, *gone)),
            tuple(Source(member.vs, index, index in member.shared) for member, index in sources),
            tuple(self._notes),
            tuple(self._unbound()),
        )

    def _names(self, gateways: Iterable[str]) -> list[str]:
        """Gateways as the survivor names them."""
        return sorted(map(self._short, gateways), key=lambda name: (name != MESH, name))

    def _short(self, gateway: str) -> str:
        namespace = self._survivor.namespace
        short = gateway.removeprefix(f"{namespace}/")
        return short if resolve_gateway(short, namespace) == gateway else gateway

    def _bind(self, member: _Member) -> None:
        """Has every match name the gateways that it holds on, where they are not all."""
        for protocol in _PROTOCOLS:
            for index, rule in enumerate(member.rules(protocol)):
                path: Path = ("spec", protocol, index, "match")
                matches = rule.get("match") or ()
                open_ones = member.vs.gateways
                if protocol == "http" and not member.is_behind(index):
                    open_ones -= member.closed[index]
                everywhere = open_ones == self._gateways
                if not matches and not everywhere:
                    member.edit(path, [{"gateways": self._names(open_ones)}])
                dead = []
                for number, match in enumerate(matches):
                    named = match.get("gateways")
                    left = open_ones & member.vs.resolve_gateways(named or ())
                    if named and not left:
                        dead.append(number)
                    elif named:
                        written = self._written(left, named, member)
                        member.edit((*path, number, "gateways"), written)
                    elif not everywhere and not (protocol == "http" and _has_sources(match)):
                        member.edit((*path, number, "gateways"), self._names(open_ones))
                if len(dead) == len(matches) and dead:
                    member.dropped.add((protocol, index))
                    self._notes.append(
                        f"{protocol}[{index}] of {member.vs.resource} is left out: its matches "
                        "name gateways alone on which it never held"
                    )
                    continue
                for number in reversed(dead):
                    member.edits.append(Edit(member.vs.resource, (*path, number), ABSENT))
                    self._notes.append(
                        f"{protocol}[{index}].match[{number}] of {member.vs.resource} is left out: "
                        "it names gateways alone on which it never held"
                    )

    def _closed(self, vs: VirtualService) -> Iterator[frozenset[str]]:
        closed: frozenset[str] = frozenset()
        for rule in own_rules(vs):
            yield closed
            if self._is_catch_all(vs, rule):
                closed |= _taken(vs, rule)

    def _is_catch_all(self, vs: VirtualService, rule: Rule) -> bool:
        return any(map(_takes_everything, self._effective(vs, rule)))

    def _written(
        self, gateways: frozenset[str], written: Sequence[str], member: _Member
    ) -> Sequence[str]:
        """Gateways as they are written, where that means the same in the survivor."""
        meant = frozenset(resolve_gateway(name, self._survivor.namespace) for name in written)
        if meant == gateways and member.vs.resolve_gateways(written) == gateways:
            return written
        return self._names(gateways)

    def _name_in_full(self, member: _Member) -> None:
        """Writes names out that mean another object in the survivor's namespace."""
        vs = member.vs
        if vs.namespace == self._survivor.namespace:
            return
        for destination in vs.destinations:
            member.edit((*destination.path, "host"), destination.host)
        for index, rule in enumerate(member.rules("http")):
            delegate = rule.get("delegate")
            if delegate and not delegate.get("namespace"):
                member.edit(("spec", "http", index, "delegate", "namespace"), vs.namespace)

    def _name_apart(self) -> None:
        """Gives an http rule another name where an older VirtualService has one of that name."""
        taken: set[str] = set()
        for member in self._members:
            own = {rule.get("name") for rule in member.rules("http")}
            for index, rule in enumerate(member.rules("http")):
                name = rule.get("name")
                if name and name in taken:
                    number = 2
                    while f"{name}-{number}" in taken | own:
                        number += 1
                    fresh = f"{name}-{number}"
                    member.edit(("spec", "http", index, "name"), fresh)
                    self._notes.append(
                        f"http[{index}] of {member.vs.resource} is called {fresh} then, as "
                        f"{name} is taken: EnvoyFilters, telemetry and Rollouts may name it"
                    )
                    own.add(fresh)
            taken |= {name for name in own if name}

    def _in_order(self) -> Iterator[tuple[_Member, int]]:
        """The http rules: what can hold before a catch-all, then the catch-alls, then the rest."""
        behind: list[tuple[_Member, int]] = []
        for member in self._members:
            for rule in own_rules(member.vs):
                if ("http", rule.index) in member.dropped:
                    continue
                if member.is_behind(rule.index) or self._is_catch_all(member.vs, rule):
                    behind.append((member, rule.index))
                else:
                    yield member, rule.index
        yield from behind

    def _hosts(self) -> Iterator[Edit]:
        resource = self._survivor.resource
        known = list(self._survivor.hosts)
        same = all(each.vs.namespace == self._survivor.namespace for each in self._members)
        for member in self._members:
            for written, host in zip(
                member.vs.resource.spec["hosts"], member.vs.hosts, strict=True
            ):
                if host not in known:
                    place: Path = ("spec", "hosts", len(known))
                    yield Edit(resource, place, written if same else host, insert=True)
                    known.append(host)

    def _gateway_names(self) -> Iterator[Edit]:
        resource = self._survivor.resource
        new = self._gateways - self._survivor.gateways
        written = resource.spec.get("gateways")
        if new and not written:
            yield Edit(resource, ("spec", "gateways"), self._names(self._gateways))
            return
        count = len(written or ())
        for name in self._names(new):
            yield Edit(
                resource, ("spec", "gateways", 0 if name == MESH else count), name, insert=True
            )
            count += 1

    def _http(self, survivor: _Member, wanted: list[tuple[_Member, int]]) -> Iterator[Edit]:
        """Moves the survivor's rules, and puts those of the others between them."""
        resource = survivor.vs.resource
        path: Path = ("spec", "http")
        if not survivor.rules("http"):
            if wanted:
                yield Edit(resource, path, [_rule(member, "http", at) for member, at in wanted])
            return
        standing = [(survivor, index) for index in range(len(survivor.rules("http")))]
        for index in reversed(range(len(standing))):
            if ("http", index) in survivor.dropped:
                yield Edit(resource, (*path, index), ABSENT)
                del standing[index]
        for place, (member, index) in enumerate(wanted):
            if member is survivor:
                now = standing.index((member, index))
                if now != place:
                    yield Edit(resource, (*path, place), source=(*path, now))
                    standing.insert(place, standing.pop(now))
                continue
            yield _copy(resource, (*path, place), member, (*path, index))
            standing.insert(place, (member, index))

    def _appended(self, survivor: _Member, protocol: str) -> Iterator[Edit]:
        """The tls or tcp rules, the survivor's in their place of age."""
        resource = survivor.vs.resource
        path: Path = ("spec", protocol)
        wanted = [
            (member, index)
            for member in self._members
            for index in range(len(member.rules(protocol)))
            if (protocol, index) not in member.dropped
        ]
        if not survivor.rules(protocol):
            if wanted:
                yield Edit(resource, path, [_rule(member, protocol, at) for member, at in wanted])
            return
        for index in sorted(
            (at for each, at in survivor.dropped if each == protocol), reverse=True
        ):
            yield Edit(resource, (*path, index), ABSENT)
        for place, (member, index) in enumerate(wanted):
            if member is not survivor:
                yield _copy(resource, (*path, place), member, (*path, index))


def _copy(resource: Any, place: Path, member: _Member, path: Path) -> Edit:
    copied = Copied(member.vs.resource, path, tuple(member.edits))
    value = field_at({"spec": member.spec}, path)
    return Edit(resource, place, value, insert=True, copied=copied)


def _rule(member: _Member, protocol: str, index: int) -> Any:
    return member.spec[protocol][index]


def _number(path: Path, place: int) -> int:
    number = path[place]
    assert isinstance(number, int)
    return number


def _sourced(rule: Rule) -> Iterator[Match]:
    """The matches of a rule that are for chosen clients and name no gateways."""
    for match in rule.matches or ():
        if (match.source_labels or match.source_namespace) and not match.gateways:
            yield match


def _has_sources(match: Mapping[str, Any]) -> bool:
    return bool(match.get("sourceLabels") or match.get("sourceNamespace"))


def _taken(vs: VirtualService, rule: Rule) -> frozenset[str]:
    """The gateways on which a rule takes everything."""
    if rule.matches is None:
        return vs.gateways
    return frozenset().union(
        *(
            (match.gateways or vs.gateways) & vs.gateways
            for match in rule.matches
            if _is_open(match)
        )
    )


def _takes_everything(rule: Rule) -> bool:
    """Whether istiod leaves out what stands behind a rule, for every client and port."""
    return rule.matches is None or any(map(_is_open, rule.matches))


def _is_open(match: Match) -> bool:
    sourced = match.source_labels or match.source_namespace
    return match.conditions.take_everything and not (match.port or (sourced and not match.gateways))


def _routed_by(rollout: Resource) -> Iterator[tuple[tuple[str, str], Sequence[str]]]:
    """The VirtualServices whose weights a Rollout sets, by namespace and name, and of which rules.

    It names one as NAME or NAME.NAMESPACE, and no rules where there is a single one.
    """
    canary = (rollout.spec.get("strategy") or {}).get("canary") or {}
    istio = (canary.get("trafficRouting") or {}).get("istio") or {}
    for found in (istio.get("virtualService"), *(istio.get("virtualServices") or ())):
        if found and found.get("name"):
            name, _, namespace = found["name"].partition(".")
            yield (namespace or rollout.namespace, name), found.get("routes") or ()
