"""Rules that no request meets: why, what takes their requests, and how that is repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubectl_mesh.mesh.resource import Path, ResourceId, dotted
from kubectl_mesh.mesh.virtual_services import VirtualService
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


def because(takers: list[Route], owner: VirtualService) -> str:
    """What is in the way of a match, in the words of a finding's message."""
    if not takers:
        return ": what it demands is never true of one request"
    return ": all that it matches is taken before by " + ", ".join(
        listed(name_of(taker, owner) for taker in takers)
    )


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


def related(takers: Iterable[Route], owner: VirtualService) -> tuple[ResourceId, ...]:
    owners = dict.fromkeys(taker.rule.owner for taker in takers if taker.rule)
    return tuple(found.resource.id for found in owners if found is not owner)
