"""Which requests show that two routes make something else of the path."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from kubectl_mesh.routing import regular_languages as languages
from kubectl_mesh.routing.matching import Conditions, StringMatch, Undecidable, re2
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.rewriting import UNCHANGED, Rewriting

SAMPLES = 100
"""So many paths are looked at to see that an expression makes something else of one."""
MAX_TRIED = 12
"""So many requests are tried where it depends on each path what an expression makes of it."""

_ANY = StringMatch("present")

Find = Callable[[Sequence[Conditions], Sequence[Conditions]], "Request | None"]
"""Gives a request that meets all of some conditions and none of others, if there is one."""


def telling_apart(
    one: Rewriting,
    other: Rewriting,
    met: Sequence[Conditions],
    unmet: Sequence[Conditions],
    find: Find,
) -> Request | None:
    """A request of which two rewritings make different paths; None if there is none.

    It meets all of `met`, by which both routes matched it, and none of `unmet`. Raises Undecidable.
    """
    if one == other:
        return None
    touched = [_touched(each.expression[0]) for each in (one, other) if each.expression]
    doubt: Undecidable | None = None
    for demand in touched:
        try:
            found = _tried(one, other, demand, met, unmet, find)
        except Undecidable as error:
            doubt = error
            continue
        if found:
            return found
    elsewhere = [UNCHANGED if each.expression else each for each in (one, other)]
    agreed = _agreed(elsewhere[0], elsewhere[1], [each.path for each in met])
    found = None
    if agreed != _ANY:
        same = [Conditions(path=agreed)] if agreed else []
        found = find(met, [*unmet, *touched, *same])
    if doubt and found is None:
        raise doubt
    return found


def _touched(expression: str) -> Conditions:
    """The demand on a path that an expression finds something in it. Raises Undecidable."""
    re2(expression)
    start = end = ".*"
    if "|" not in expression:
        start = "" if expression.startswith("^") else start
        end = "" if re.search(r"(?<!\\)\$$", expression) else end
    whole = f"{start}(?:{expression}){end}"
    re2(whole)  # a flag is read at the beginning alone
    return Conditions(path=StringMatch("regex", whole))


def _tried(
    one: Rewriting,
    other: Rewriting,
    demand: Conditions,
    met: Sequence[Conditions],
    unmet: Sequence[Conditions],
    find: Find,
) -> Request | None:
    """As `telling_apart`, for paths with a demand: Undecidable where no path of many shows it."""
    expressions = [each.expression[0] for each in (one, other) if each.expression]
    paths = chain(*map(_samples, expressions))
    apart = (path for path in paths if one.of(path) != other.of(path))
    for path in islice(apart, MAX_TRIED):
        request = find([*met, Conditions(path=StringMatch("exact", path))], unmet)
        if request:
            return request
    tried: list[Conditions] = []
    while len(tried) < MAX_TRIED:
        request = find([*met, demand], [*unmet, *tried])
        if request is None or one.of(request.path) != other.of(request.path):
            return request
        tried.append(Conditions(path=StringMatch("exact", request.path)))
    raise Undecidable("whether an expression for rewriting makes the same of all paths")


def _samples(expression: str) -> Iterator[str]:
    """Paths in which an expression likely finds something, the same in each run."""
    choose = random.Random(expression)
    try:
        automaton = languages.expression(expression)
    except languages.TooLarge:
        return
    for _ in range(SAMPLES):
        text = automaton.sample(choose)
        yield text if text.startswith("/") else f"/{text}"


def _agreed(
    one: Rewriting, other: Rewriting, matched: Iterable[StringMatch | None]
) -> StringMatch | None:
    """What a path that is `matched` must meet so that two make the same of it; None: it cannot."""
    if one == other:
        return _ANY
    if one.cut is None and other.cut is None:
        return None
    first, second = sorted((one, other), key=_kept)
    assert first.cut is not None
    if not second.text.startswith(first.text):
        return None
    between = second.text[len(first.text) :]
    if second.cut is not None and len(between) != second.cut - first.cut:
        return None
    for each in matched:
        if each is None or each.fold or each.kind not in ("exact", "prefix"):
            continue
        if each.kind == "exact" or (second.cut is not None and len(each.value) >= second.cut):
            return _ANY if each.value[first.cut : second.cut] == between else None
    rest = "" if second.cut is None else ".*"
    return StringMatch("regex", f".{{{first.cut}}}{re.escape(between)}{rest}")


def _kept(each: Rewriting) -> float:
    return float("inf") if each.cut is None else each.cut
