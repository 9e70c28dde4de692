"""Rules that no request meets: why, what takes their requests, and how that is repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kubectl_mesh.mesh.resource import Path, ResourceId, dotted
from kubectl_mesh.mesh.virtual_services import VirtualService, delegate_of
from kubectl_mesh.proof.dead_connections import CoveredRule
from kubectl_mesh.proof.dead_rules import (
    Fate,
    MatchReach,
    RuleReach,
    alike,
    parting_path,
    path_of,
)
from kubectl_mesh.routing.matching import Conditions
from kubectl_mesh.routing.rules import Match, outside, own_rules
from kubectl_mesh.routing.rules import Rule as HeldRule
from kubectl_mesh.routing.table import Route
from kubectl_mesh.rules.rule import Finding, Rule, Severity, listed


def for_connections(
    rule: Rule,
    covered: CoveredRule,
    path: Path,
    by: Sequence[Path],
    severity: Severity,
    *,
    same: bool,
) -> Finding:
    """A finding on a tcp or tls rule, or on a match of it; `same` if nothing would change."""
    takers = ", ".join(listed(dict.fromkeys(dotted(each) for each in by)))
    first = dotted(by[0] if by[0][:3] == path[:3] else by[0][:3])
    return rule.finding(
        covered.vs.resource,
        path,
        f"no connection can meet {dotted(path)}: all that it matches is taken before by {takers}",
        traffic="the connections that it is meant for take the earlier route, and never this one",
        next=f"delete {dotted(path)}" if same else f"put it before {first}, or narrow that match",
        severity=severity,
    )


def is_dropped(rule: RuleReach) -> bool:
    """Whether it stands, wherever it could hold, after a catch-all of its own VirtualService."""
    return rule.all_dead and all(fate.dropped_by for match in rule.dead for fate in match.fates)


def excused(dead: Iterable[MatchReach], owner: VirtualService) -> bool:
    """Whether it needs no finding that these are dead.

    Another VirtualService does the same with their requests, or something is in the way that holds
    for more clients than it says: that is KM207.
    """
    fates = [fate for match in dead for fate in match.fates]
    takers = winners(fates)
    return any(fate.by_mistake for fate in fates) or (
        bool(takers)
        and all(is_foreign(taker, owner) for taker in takers)
        and all(alike(fate.route, taker) for fate in fates for taker in fate.winners)
    )


def winners(fates: Iterable[Fate]) -> list[Route]:
    """The routes that take the requests, each rule's match once."""
    found: dict[tuple[object, ...], Route] = {}
    for fate in fates:
        for taker in fate.winners:
            assert taker.rule
            found.setdefault((taker.rule.owner, path_of(taker)), taker)
    return list(found.values())


def is_foreign(taker: Route, owner: VirtualService) -> bool:
    """Whether it comes from a VirtualService that `owner` has no part in."""
    assert taker.rule
    return taker.rule.owner is not owner and (
        taker.virtual_service is not owner and not owner.is_delegate
    )


@dataclass(frozen=True)
class LeftOut:
    """A delegate's rule that a root's rule does not take over, as `match` is outside of it.

    So the rules after it take its requests there, though the root hands over to it again.
    """

    root: HeldRule
    rule: HeldRule
    match: Match

    @property
    def where(self) -> str:
        return dotted((*self.rule.path, "match", self.match.index))

    @property
    def under(self) -> str:
        return f"{dotted(self.root.path)} of {self.root.owner.resource}"

    @property
    def cure(self) -> str:
        within = f"match less than {self.under} does"
        if len(self.rule.matches or ()) > 1:
            return f"give {self.where} a rule of its own, or make it {within}"
        return f"make {self.where} {within}, or leave out what that one matches already"


def left_out(takers: Iterable[Route], rule: RuleReach) -> LeftOut | None:
    """Why routes that stand after a rule take its requests; None where none does."""
    owner = rule.owner
    inner = next(each for each in own_rules(owner) if each.path == rule.path)
    for taker in takers:
        root = taker.virtual_service
        if root and taker.rule and taker.rule.owner is owner and taker.rule.index > inner.index:
            for outer, written in zip(own_rules(root), root.own_http_rules, strict=True):
                named = delegate_of(written) == (owner.namespace, owner.resource.name)
                if named and (match := outside(outer, inner)):
                    return LeftOut(outer, inner, match)
    return None


def because(takers: list[Route], rule: RuleReach) -> str:
    """What is in the way of a match, in the words of a finding's message."""
    if not takers:
        return ": what it demands is never true of one request"
    by = ", ".join(listed(name_of(taker, rule.owner) for taker in takers))
    if lost := left_out(takers, rule):
        return (
            f": all that it matches is taken before by {by}, under {lost.under}, where Istio drops "
            f"{dotted(rule.path)}: {lost.where} is not within a match of that rule"
        )
    return f": all that it matches is taken before by {by}"


def name_of(taker: Route, owner: VirtualService) -> str:
    assert taker.rule
    text = dotted(path_of(taker))
    if taker.rule.owner is not owner:
        text += f" of {taker.rule.owner.resource}"
    return text


def lost_to(takers: list[Route], fates: Iterable[Fate]) -> str:
    if not takers:
        return "no request takes this route; those that were meant take a later one, or get 404"
    if all(alike(fate.route, taker) for fate in fates for taker in fate.winners):
        return "nothing would change without it: what takes its requests does the same with them"
    return "the requests that it is meant for take the earlier route, and never this one"


def repair(fates: Sequence[Fate], where: str, rule: RuleReach) -> str:
    """What to do about a rule or a match that no request meets."""
    takers = winners(fates)
    if not takers:
        return f"correct what {where} matches, or delete it"
    if all(alike(fate.route, taker) for fate in fates for taker in fate.winners):
        return f"delete {where}"
    if lost := left_out(takers, rule):
        return lost.cure
    first = takers[0]
    assert first.rule
    same = (first.rule.owner, first.rule.path) == (rule.owner, rule.path)
    path = path_of(first) if same else first.rule.path
    return f"put it before {dotted(path)} of {first.rule.owner.resource}, or narrow that match"


def evidence(dead: Iterable[MatchReach], rule: RuleReach) -> tuple[str, ...]:
    """What each match demands, where, and what the routes demand that take it."""
    lines: dict[str, None] = {}
    for match in dead:
        for fate in match.fates:
            demanded = fate.route.match.conditions if fate.route.match else Conditions()
            text = f"{fate.place}: {dotted(rule.path_of(match))} wants {demands(demanded)}"
            for taker in fate.winners:
                text += f"; {name_of(taker, rule.owner)} wants {demands(taker.conditions)}"
            lines[text] = None
        lines |= dict.fromkeys(_paths(match, rule))
    return listed(lines)


def _paths(match: MatchReach, rule: RuleReach) -> Iterator[str]:
    """For each route that takes requests and rewrites a path otherwise, one that shows it."""
    for fate in match.fates:
        for taker in fate.winners:
            path = parting_path(fate.route, taker)
            if path and fate.route.action.targets and taker.action.targets:
                made, meant = taker.rewriting.of(path), fate.route.rewriting.of(path)
                yield (
                    f"{name_of(taker, rule.owner)} makes {made} of the path {path}; "
                    f"{dotted(rule.path_of(match))} would make {meant}"
                )


def demands(conditions: Conditions) -> str:
    """All that a match demands, in words."""
    found = [f"the path {conditions.path}"] if conditions.path else []
    found += [f"{name} {wanted}" for name, wanted in conditions.headers]
    found += [f"not {name} {unwanted}" for name, unwanted in conditions.without]
    found += [f"parameter {name} {wanted}" for name, wanted in conditions.parameters]
    return " and ".join(found) or "any request"


def related(takers: Sequence[Route], rule: RuleReach) -> tuple[ResourceId, ...]:
    owners = [taker.rule.owner for taker in takers if taker.rule]
    if lost := left_out(takers, rule):
        owners.append(lost.root.owner)
    return tuple(each.resource.id for each in dict.fromkeys(owners) if each is not rule.owner)
