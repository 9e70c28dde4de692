"""Whether some request meets some conditions and not others, and an example of one.

A region is empty or it is not: conditions are taken apart into demands on the path, on each header
and on each query parameter, which are independent of each other, and for each of these strings
regular_languages.py finds one that meets all that is demanded of it. What must not be met is tried
against the example alone: only where the example meets it one of its demands is turned around, each
in turn, until an example stands or nothing is left to try.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from kubectl_mesh.mesh.hosts import patterns_for
from kubectl_mesh.routing.matching import (
    CLAIM_PREFIX,
    Conditions,
    StringMatch,
    Undecidable,
    matcher,
    refuses_absence,
)
from kubectl_mesh.routing.regular_languages import (
    Automaton,
    Budget,
    TooLarge,
    Words,
    accepts,
    expression,
    find,
)
from kubectl_mesh.routing.request import Request

MAX_NODES = 5_000
"""So many examples are tried for one region."""
MAX_STEPS = 400_000
"""So many steps may all strings of one search take together, where nobody allows it more."""
SAMPLES = 200
"""So many strings are tried where an expression cannot be decided."""

Part = tuple[str, str]
"""A string of a request: ("path", ""), ("header", name), ("parameter", name), (":method", "")..."""
Atom = tuple[Part, StringMatch]

_PATH: Part = ("path", "")
_AUTHORITY: Part = (":authority", "")
_OPAQUE = "opaque"


class TooMany(Exception):
    """A region is too intricate to be decided within the bounds."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The strings that a part of a request can be. `likely` are those to try first."""

    language: str
    likely: tuple[str, ...]
    optional: bool = False
    banned: tuple[Automaton, ...] = ()

    def contains(self, text: str) -> bool:
        return re.fullmatch(self.language, text) is not None and not any(
            accepts(each, text) for each in self.banned
        )


_DOMAINS: Mapping[str, Domain] = {
    ":method": Domain(
        r"[A-Za-z0-9!#$%&'*+.^_`|~-]+",
        ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"),
    ),
    ":scheme": Domain(r"https?", ("http", "https")),
    "header": Domain(r"([!-~]([\t -~]*[!-~])?)?", ("x", "1", ""), optional=True),
    "parameter": Domain(r"[!-\"$%'-~]*", ("x", "1", ""), optional=True),
}
"""Visible ASCII, as RFC 9110 has clients write it; a path without query and fragment."""
_HTTP1_METHODS = Domain(
    "ACL|BIND|CHECKOUT|CONNECT|COPY|DELETE|GET|HEAD|LINK|LOCK|MERGE|MKACTIVITY|MKCALENDAR|MKCOL|MOVE"
    "|MSEARCH|NOTIFY|OPTIONS|PATCH|POST|PROPFIND|PROPPATCH|PURGE|PUT|REBIND|REPORT|SEARCH|SOURCE"
    "|SUBSCRIBE|TRACE|UNBIND|UNLINK|UNLOCK|UNSUBSCRIBE",
    _DOMAINS[":method"].likely,
)
"""To any other Envoy answers 400, in HTTP/1.1."""
_DOTS = r"(.*/)?\.\.?(/.*)?"
_NEEDLESS_ESCAPE = r".*%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe]).*"
_ESCAPED_SLASH = r".*%(2[Ff]|5[Cc]).*"
_TWO_SLASHES = r".*//.*"


@lru_cache
def _paths(normalization: str) -> Domain:
    """The paths that proxies compare, without query and fragment: those that `normalized` keeps."""
    if normalization == "NONE":
        return Domain(r"/[!-\"$->@-~]*", ("/",))
    banned = [_DOTS, _NEEDLESS_ESCAPE]
    if normalization != "BASE":
        banned.append(_TWO_SLASHES)
    if normalization == "DECODE_AND_MERGE_SLASHES":
        banned.append(_ESCAPED_SLASH)
    language = r"/[A-Za-z0-9_.~/!%$&'()*+,;=:@\[\]-]*"
    return Domain(language, ("/",), banned=tuple(map(expression, banned)))


_NOWHERE = Domain(r"[^\s\S]", (), optional=True)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_PARAMETER_NAME = re.compile(r"[!-\"$%'-<>-~]*")


@dataclass(frozen=True, eq=False)
class Hosts:
    """The host names that one virtual host takes: a name, or a wildcard less what is apart.

    `example` is one of them; `apart` the names and wildcards beside it that take names away.
    """

    pattern: str
    example: str
    apart: frozenset[str] = frozenset()

    @property
    def domain(self) -> Domain:
        """The authorities by which these hosts are called, with a port or without."""
        if not self.pattern.startswith("*"):
            host = re.escape(self.pattern.lower())
            return Domain(rf"(?i:{host})(:[0-9]+)?", (self.example,))
        suffix = self.pattern[1:].lower()
        names = {host for host in self.apart if host.lower().endswith(suffix) and host[0] != "*"}
        wildcards = {
            host
            for host in self.apart
            if host[0] == "*" and host != self.pattern and host[1:].lower().endswith(suffix)
        }
        banned: list[Automaton] = [Words(names, fold=True, port=True)]
        banned += [
            expression(rf"(?i:[a-z0-9_.-]+{re.escape(wildcard[1:])})(:[0-9]+)?")
            for wildcard in sorted(wildcards)
        ]
        language = rf"(?i:[a-z0-9_.-]+{re.escape(suffix)})(:[0-9]+)?"
        return Domain(language, (self.example,), banned=tuple(banned))


def hosts_of(pattern: str, known: Iterable[str]) -> Hosts | None:
    """The hosts of a virtual host beside all that are `known`; None where no name is left."""
    if not pattern.startswith("*"):
        return Hosts(pattern, pattern)
    known = frozenset(known)
    for label in ("any", "other", "another", "any.any", *(f"any.any{n}" for n in range(100))):
        example = f"{label}.example" if pattern == "*" else label + pattern[1:]
        first = next(each for each in patterns_for(example) if each in known or each == pattern)
        if first == pattern:
            return Hosts(pattern, example, known)
    return None


@dataclass
class Search:
    """Finds examples of regions. It keeps what it finds out about strings.

    `sampled` collects the expressions that were only sampled where nothing was found, `opaque` what
    can be read neither by matching.py nor here: it counts as met or not met as suits.
    """

    normalization: str = "BASE"
    """What becomes of paths before routes are looked at (see MeshConfig)."""
    sampled: set[str] = field(default_factory=set)
    nodes: int = 0
    budget: Budget = field(default_factory=lambda: Budget(MAX_STEPS))
    _found: dict[tuple[object, ...], tuple[str | None, set[str]]] = field(default_factory=dict)

    def example(
        self,
        met: Sequence[Conditions],
        unmet: Sequence[Conditions],
        hosts: Hosts,
        port: int,
        scheme: str = "http",
        *,
        http1: bool = False,
    ) -> Request | None:
        """A request to one of `hosts` that meets all of `met` and none of `unmet`.

        With `http1` its scheme is that of the connection, `scheme`, and its method one that Envoy
        takes in HTTP/1.1; else either may be whatever is demanded.

        None if there is none, or `sampled` says why one may have been missed. Where demands are
        opaque, it is a request for some of their meanings. Raises TooMany.
        """
        state = _State()
        for conditions in met:
            for atom, sign in _atoms(conditions):
                state = state.demand(atom, sign)
        authority = _names_authority((*met, *unmet))
        space = _Space(self, hosts, scheme, authority=authority, http1=http1)
        clauses = [_clause(conditions) for conditions in unmet]
        pending: list[Iterator[_State]] = [iter((state,))]
        nodes = 0
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                continue
            nodes += 1
            self.nodes += 1
            if nodes > MAX_NODES:
                raise TooMany
            values = space.values(following)
            if values is None:
                continue
            violated = next((clause for clause in clauses if _holds(clause, values)), None)
            if violated is None:
                return _request(values, hosts, port, scheme)
            pending.append(_turned(following, violated))
        return None

    def text(
        self,
        part: Part,
        domain: Domain,
        wanted: frozenset[StringMatch],
        unwanted: frozenset[StringMatch],
    ) -> str | None:
        """A string of a domain that is accepted by all of `wanted` and none of `unwanted`."""
        key = (part if domain is _DOMAINS.get(part[0]) else domain, wanted, unwanted)
        if key not in self._found:
            doubts: set[str] = set()
            self._found[key] = self._text(domain, wanted, unwanted, doubts), doubts
        found, doubts = self._found[key]
        self.sampled |= doubts
        return found

    def _text(
        self,
        domain: Domain,
        wanted: frozenset[StringMatch],
        unwanted: frozenset[StringMatch],
        doubts: set[str],
    ) -> str | None:
        def fits(text: str) -> bool:
            return (
                all(each.accepts(text) for each in wanted)
                and not any(each.accepts(text) for each in unwanted)
                and domain.contains(text)
            )

        if wanted & unwanted or StringMatch("present") in unwanted:
            return None
        exact = next((each for each in wanted if each.kind == "exact" and not each.fold), None)
        if exact is not None:
            return exact.value if fits(exact.value) else None
        if _contradict(wanted, unwanted):
            return None
        for text in _likely(domain, wanted):
            if fits(text):
                return text
        doubtful: list[str] = []
        try:
            accepted = [*_automata(wanted, doubtful), expression(domain.language)]
            refused = [*_automata(unwanted, doubtful, joined=True), *domain.banned]
            if not doubtful:
                return find(accepted, refused, self.budget)
        except TooLarge:
            pass
        expressions = [each.value for each in (*wanted, *unwanted) if each.kind == "regex"]
        with contextlib.suppress(TooLarge):
            for text in _samples(wanted):
                self.budget.spend(len(text) * len(expressions))
                if fits(text):
                    return text
        doubts.update(expressions or ["a long list of names"])
        return None


class _State:
    """Demands on each part of a request: what it must be and must not be. Immutable."""

    __slots__ = ("parts",)

    def __init__(
        self,
        parts: Mapping[Part, tuple[frozenset[StringMatch], frozenset[StringMatch]]] | None = None,
    ) -> None:
        self.parts = parts or {}

    def demand(self, atom: Atom, sign: bool) -> _State:
        part, match = atom
        wanted, unwanted = self.parts.get(part, (frozenset(), frozenset()))
        if sign:
            wanted = wanted | {match}
        else:
            unwanted = unwanted | {match}
        return _State({**self.parts, part: (wanted, unwanted)})


_Values = Mapping[Part, "str | None"]


class _Space:
    """Where the strings of one search come from."""

    def __init__(
        self, search: Search, hosts: Hosts, scheme: str, *, authority: bool, http1: bool
    ) -> None:
        self._search = search
        self._scheme = scheme
        self._http1 = http1
        self._authority = hosts.domain if authority else None

    def values(self, state: _State) -> _Values | None:
        """A string for each part that something is demanded of; None where a part has none."""
        found: dict[Part, str | None] = {_PATH: "/", (":method", ""): "GET"}
        found[":scheme", ""] = self._scheme
        if self._authority:
            found[_AUTHORITY] = self._authority.likely[0]
        for part, (wanted, unwanted) in state.parts.items():
            if part[0] == _OPAQUE:
                if wanted and unwanted:
                    return None
                found[part] = "" if wanted else None
                continue
            domain = self._domain(part)
            if domain.optional and not wanted:
                found[part] = None
                continue
            text = self._search.text(part, domain, wanted, unwanted)
            if text is None:
                return None
            found[part] = text
        return found

    def _domain(self, part: Part) -> Domain:
        kind, name = part
        if part == _PATH:
            return _paths(self._search.normalization)
        if part == _AUTHORITY:
            assert self._authority
            return self._authority
        if self._http1 and kind == ":scheme":
            return Domain(self._scheme, (self._scheme,))
        if self._http1 and kind == ":method":
            return _HTTP1_METHODS
        if kind == "header" and not _HEADER_NAME.fullmatch(name):
            return _NOWHERE
        if kind == "parameter" and not _PARAMETER_NAME.fullmatch(name):
            return _NOWHERE
        return _DOMAINS[kind]


def _names_authority(all_conditions: Iterable[Conditions]) -> bool:
    return any(
        atom[0] == _AUTHORITY for conditions in all_conditions for atom, _ in _atoms(conditions)
    )


def reads_authority(conditions: Conditions) -> bool:
    """Whether it counts for the conditions by which of its names a host is called."""
    return _names_authority((conditions,))


@lru_cache(65536)
def _atoms(conditions: Conditions) -> tuple[tuple[Atom, bool], ...]:
    """The demands one by one; False with those that must not be met."""
    found = [(_atom(_PATH, conditions.path), True)] if conditions.path else []
    for sign, headers in ((True, conditions.headers), (False, conditions.without)):
        found += [(_atom(_part(name), match), sign) for name, match in headers]
    for (part, match), sign in tuple(found):
        if not sign and part[0] == "header" and refuses_absence(match):
            found.append(((part, StringMatch("present")), True))
    found += [(_atom(("parameter", name), match), True) for name, match in conditions.parameters]
    return tuple(found)


def _part(name: str) -> Part:
    if name in (":authority", "host"):
        return _AUTHORITY
    return (name, "") if name in (":method", ":scheme") else ("header", name)


def _atom(part: Part, match: StringMatch) -> Atom:
    """A demand; one that cannot be read becomes a part of its own, that is met or not."""
    if part[1].startswith(CLAIM_PREFIX):
        return (_OPAQUE, f"{part} {match}"), StringMatch("present")
    if match.kind == "regex":
        try:
            matcher(match.value)
        except Undecidable:
            return (_OPAQUE, f"{part} {match}"), StringMatch("present")
    return part, match


def unreadable(conditions: Conditions) -> bool:
    """Whether something is demanded that cannot be read from a request."""
    return any(atom[0][0] == _OPAQUE for atom, _ in _atoms(conditions))


_Clause = tuple[tuple[Atom, bool], ...]


def _clause(conditions: Conditions) -> _Clause:
    return _atoms(conditions)


def _holds(clause: _Clause, values: _Values) -> bool:
    for (part, match), sign in clause:
        value = values.get(part)
        if (value is not None and match.accepts(value)) is not sign:
            return False
    return True


def _turned(state: _State, clause: _Clause) -> Iterator[_State]:
    """The ways not to meet a clause, those first that are the easiest to have."""
    for atom, sign in sorted(clause, key=lambda each: each[0][0][0] not in ("header", "parameter")):
        yield state.demand(atom, not sign)


def _contradict(wanted: frozenset[StringMatch], unwanted: frozenset[StringMatch]) -> bool:
    """Whether constants alone show that there is no such string."""
    starts = [each for each in wanted if each.kind in ("exact", "prefix")]
    for number, one in enumerate(starts):
        for other in starts[:number]:
            short, long = sorted((one.value.lower(), other.value.lower()), key=len)
            if not long.startswith(short):
                return True
    for avoided in unwanted:
        if avoided.kind == "prefix":
            for start in starts:
                same = start.value.startswith(avoided.value)
                folded = start.value.lower().startswith(avoided.value.lower())
                if (same and not start.fold) or (folded and avoided.fold):
                    return True
    return False


def _likely(domain: Domain, wanted: frozenset[StringMatch]) -> Iterator[str]:
    starts = [each.value for each in wanted if each.kind in ("exact", "prefix")]
    start = max(starts, key=len, default="")
    if not start:
        yield from domain.likely
    for end in ("", "x", "/x", "a", "/", "other", "-1", "7", ".z"):
        yield (start or "/") + end
    if start:
        yield start.lower()
        yield start.upper()


def _automata(
    matches: frozenset[StringMatch], doubtful: list[str], *, joined: bool = False
) -> Iterator[Automaton]:
    """An automaton for each demand; `joined`, one for all constants of a kind.

    Expressions that are read only roughly are added to `doubtful`. Raises TooLarge.
    """
    constants: list[StringMatch] = []
    for match in matches:
        if match.kind == "regex":
            automaton = expression(match.value)
            if not automaton.exact:
                doubtful.append(match.value)
            yield automaton
        elif match.kind != "present":
            constants.append(match)
    groups = [[each] for each in constants]
    if joined:
        groups = [[each for each in constants if each.fold is fold] for fold in (False, True)]
    for group in groups:
        if group:
            exact = [each.value for each in group if each.kind == "exact"]
            prefixes = [each.value for each in group if each.kind == "prefix"]
            yield Words(exact, prefixes, fold=group[0].fold)


def _samples(wanted: frozenset[StringMatch]) -> Iterator[str]:
    """Strings that likely meet the expressions of `wanted`, the same in each run."""
    for match in sorted(wanted, key=str):
        if match.kind != "regex":
            continue
        with contextlib.suppress(TooLarge):
            yield from _sampled(match.value)


@lru_cache(256)
def _sampled(text: str) -> tuple[str, ...]:
    """Strings that an expression likely accepts. Raises TooLarge."""
    automaton, choose = expression(text), random.Random(text)
    return tuple(automaton.sample(choose) for _ in range(SAMPLES))


def _request(values: _Values, hosts: Hosts, port: int, scheme: str) -> Request:
    query = "&".join(
        f"{name}={value}" if value else name + ("" if name else "=")
        for (kind, name), value in values.items()
        if kind == "parameter" and value is not None
    )
    return Request(
        authority=values.get(_AUTHORITY) or hosts.example,
        port=port,
        path=values[_PATH] or "/",
        query=query,
        method=values[":method", ""] or "GET",
        scheme=values[":scheme", ""] or scheme,
        headers={
            name: value
            for (kind, name), value in values.items()
            if kind == "header" and value is not None
        },
    )
