"""The first route of a table that a request meets, without trying the routes that it cannot meet.

A table of a thousand rules is asked thousands of times. Each route stands under the one demand that
rules most requests out: its path, or a header of one value. The answer, Undecidable included, is
that of Table.first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from kubectl_mesh.routing.matching import CLAIM_PREFIX, Conditions, Undecidable, header, matcher
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.table import Route, Table

_NOT_LITERAL = frozenset(r"\.[](){}^$*+?|")


_Key = tuple[str, bool, str]
"""`exact`, `prefix` or `=` and a header's name; whether case is ignored; the value."""


class Index:
    """The routes of a table by what they demand."""

    def __init__(self, table: Table) -> None:
        self._routes = table.routes
        self._always: list[int] = []
        self._by_key: dict[_Key, list[int]] = defaultdict(list)
        keys = [list(_keys(route.conditions)) for route in table.routes]
        sizes = Counter(key for found in keys for key in found)
        for number, found in enumerate(keys):
            if found:
                self._by_key[min(found, key=sizes.__getitem__)].append(number)
            else:
                self._always.append(number)
        kinds = {kind for kind, _, _ in self._by_key}
        self._headers = kinds - {"exact", "prefix"}
        self._folded = [
            fold for fold in (False, True) if any(key[1] is fold for key in self._by_key)
        ]
        self._lengths = {
            fold: sorted(
                {len(key[2]) for key in self._by_key if key[0] == "prefix" and key[1] is fold}
            )
            for fold in self._folded
        }

    def first(self, request: Request) -> Route | None:
        """The route that a request takes. Raises Undecidable."""
        for number in sorted(self._candidates(request)):
            route = self._routes[number]
            if route.conditions.met(request):
                return route
        return None

    def _candidates(self, request: Request) -> Iterator[int]:
        yield from self._always
        for fold, lengths in self._lengths.items():
            path = request.path.lower() if fold else request.path
            yield from self._by_key.get(("exact", fold, path), ())
            for length in lengths:
                if length > len(path):
                    break
                yield from self._by_key.get(("prefix", fold, path[:length]), ())
        for name in self._headers:
            value = header(request, name[1:])
            if value is not None:
                yield from self._by_key.get((name, False, value), ())


def _keys(conditions: Conditions) -> Iterator[_Key]:
    """The demands under which a route may stand: none that Undecidable could come before."""
    path = conditions.path
    if path:
        if path.kind == "regex" and not _is_readable(path.value):
            return
        if path.kind == "regex":
            yield "prefix", False, _beginning(path.value)
        else:
            yield path.kind, path.fold, path.value.lower() if path.fold else path.value
    for name, wanted in conditions.headers[:1]:
        if wanted.kind == "exact" and not name.startswith(CLAIM_PREFIX):
            yield f"={name}", False, wanted.value


def _is_readable(expression: str) -> bool:
    try:
        matcher(expression)
    except Undecidable:
        return False
    return True


def _beginning(expression: str) -> str:
    """What every text begins with that a regular expression means; "" where that is not plain."""
    if "|" in expression:
        return ""
    length = next(
        (place for place, letter in enumerate(expression) if letter in _NOT_LITERAL),
        len(expression),
    )
    repeated = expression[length : length + 1] in ("*", "?", "{")
    return expression[: max(length - 1, 0)] if repeated else expression[:length]
