"""What a match of an http rule demands of a request, and whether a request meets it.

Models `TranslateRouteMatch` of istiod and Envoy's route matching: the path is compared without the
query, a regular expression with the whole value, `ignoreUriCase` is for exact paths and prefixes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from kubectl_mesh.routing import regular_languages as languages
from kubectl_mesh.routing.request import Request

CLAIM_PREFIX = "@request.auth.claims"
"""The beginning of header names that stand for claims of a token, which no header shows."""


class Undecidable(Exception):
    """A match on something that is not in the request, or an expression that we cannot read."""


@dataclass(frozen=True)
class StringMatch:
    """A demand on a string; `present` is met by any. `fold` ignores the case of letters."""

    kind: Literal["exact", "prefix", "regex", "present"]
    value: str = ""
    fold: bool = False

    def accepts(self, text: str) -> bool:
        """Raises Undecidable for an expression that cannot be read as RE2 reads it."""
        if self.kind == "present":
            return True
        if self.kind == "regex":
            return matcher(self.value)(text)
        wanted = self.value.lower() if self.fold else self.value
        found = text.lower() if self.fold else text
        return found == wanted if self.kind == "exact" else found.startswith(wanted)

    def said(self, subject: str, met: bool) -> str:
        """That a string meets the demand, or does not, in words."""
        verb = {
            "exact": ("is", "is not"),
            "prefix": ("begins with", "does not begin with"),
            "regex": ("matches", "does not match"),
            "present": ("is there", "is not there"),
        }[self.kind][not met]
        value = "" if self.kind == "present" else f" {self.value!r}"
        return f"{subject} {verb}{value}" + (" in any case" if self.fold else "")

    def __str__(self) -> str:
        if self.kind == "present":
            return "any value"
        return f"{self.kind} {self.value!r}" + (" in any case" if self.fold else "")


@dataclass(frozen=True)
class Conditions:
    """All that a match demands. `headers` are wanted, `without` must not be met.

    Method, scheme and authority stand among the headers as `:method`, `:scheme`, `:authority`.
    """

    path: StringMatch | None = None
    headers: tuple[tuple[str, StringMatch], ...] = ()
    without: tuple[tuple[str, StringMatch], ...] = ()
    parameters: tuple[tuple[str, StringMatch], ...] = ()

    @property
    def take_everything(self) -> bool:
        """Whether istiod takes them for a catch-all, after which it leaves rules out.

        That is: the prefix `/`, the regular expression `.*` in just these letters, or no uri; and
        nothing else.
        """
        everything = self.path is None or self.path in (_ROOT, _ROOT_FOLDED, _ANYTHING)
        return everything and not (self.headers or self.without or self.parameters)

    def met(self, request: Request) -> bool:
        """Whether a request meets all demands. Raises Undecidable."""
        return self._unmet(request) is None

    def unmet(self, request: Request) -> str | None:
        """The first demand that a request does not meet, in words; None if it meets them all.

        Raises Undecidable.
        """
        found = self._unmet(request)
        return found() if found else None

    def _unmet(self, request: Request) -> Callable[[], str] | None:
        """What words the first demand that is not met: that takes longer than to find it."""
        if self.path and not self.path.accepts(request.path):
            return partial(self.path.said, "the path", False)
        for name, wanted in self.headers:
            value = header(request, name)
            if value is None:
                return partial("there is no header {}".format, name)
            if not wanted.accepts(value):
                return partial(wanted.said, _named(name), False)
        for name, unwanted in self.without:
            value = header(request, name)
            if value is None and refuses_absence(unwanted):
                return partial("there is no header {}, which counts as an empty one".format, name)
            if value is not None and unwanted.accepts(value):
                return partial(unwanted.said, _named(name), True)
        parameters = request.parameters if self.parameters else {}
        for name, wanted in self.parameters:
            if name not in parameters:
                return partial("there is no query parameter {}".format, name)
            if not wanted.accepts(parameters[name]):
                return partial(wanted.said, f"the query parameter {name}", False)
        return None


_ROOT = StringMatch("prefix", "/")
_ROOT_FOLDED = StringMatch("prefix", "/", fold=True)
_ANYTHING = StringMatch("regex", ".*")


def refuses_absence(unwanted: StringMatch) -> bool:
    """Whether what a header must not be fails a request without that header.

    A missing header counts as an empty one, save where the header must not be there at all. Raises
    Undecidable.
    """
    return unwanted.kind != "present" and unwanted.accepts("")


def header(request: Request, name: str) -> str | None:
    """The value of a header, or of `:method`, `:scheme`, `:authority`. Raises Undecidable."""
    if name.startswith(CLAIM_PREFIX):
        raise Undecidable(f"{name} is a claim of a token, which the request does not show")
    if name == ":method":
        return request.method
    if name == ":scheme":
        return request.scheme
    if name in (":authority", "host"):
        return request.authority
    return request.headers.get(name)


def _named(name: str) -> str:
    return f"the {name[1:]}" if name.startswith(":") else f"the header {name}"


def conditions(match: Mapping[str, Any]) -> Conditions:
    """What an http match, as the API writes it, demands of a request itself."""
    fold = bool(match.get("ignoreUriCase"))
    headers = list(_named_matches(match.get("headers")))
    headers += [
        (f":{field}", _string_match(match[field]))
        for field in ("method", "authority", "scheme")
        if match.get(field) is not None
    ]
    uri = match.get("uri")
    return Conditions(
        path=_path(uri, fold) if uri else None,
        headers=tuple(headers),
        without=tuple(_named_matches(match.get("withoutHeaders"))),
        parameters=tuple(
            (name, _string_match(wanted)) for name, wanted in _items(match.get("queryParams"))
        ),
    )


def _items(value: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    return sorted((value or {}).items())


def _named_matches(value: Mapping[str, Any] | None) -> Iterator[tuple[str, StringMatch]]:
    for name, wanted in _items(value):
        yield name if name.startswith(CLAIM_PREFIX) else name.lower(), _string_match(wanted)


def _path(uri: Mapping[str, Any], fold: bool) -> StringMatch | None:
    if uri.get("regex") is not None:
        return StringMatch("regex", uri["regex"])
    found = _string_match(uri)
    return None if found.kind == "present" else StringMatch(found.kind, found.value, fold)


def _string_match(value: Mapping[str, Any] | None) -> StringMatch:
    for kind in ("exact", "prefix", "regex"):
        text = (value or {}).get(kind)
        if text is not None:
            if kind == "regex" and text == "*":  # istiod's own word for any value
                return StringMatch("present")
            return StringMatch(kind, text)
    return StringMatch("present")


_BEYOND_RE2 = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")
_BEYOND_PYTHON = re.compile(r"\\[pPCQEz]|\[\[:|\(\?[a-zA-Z]*U|\(\?<[A-Za-z]")


_REPEATED_GROUP = re.compile(r"\)[*+{]")


@functools.lru_cache(4096)
def matcher(expression: str) -> Callable[[str], bool]:
    """Says of a text whether an expression matches the whole of it. Raises Undecidable.

    It takes time that grows with the text, as RE2 does. Python's `re` does not keep to that where a
    group is repeated: an automaton takes its place, if one that is not too large can.
    """
    compiled = re2(expression)
    if not _REPEATED_GROUP.search(expression):
        return lambda text: compiled.fullmatch(text) is not None
    try:
        return functools.partial(languages.accepts, languages.expression(expression))
    except languages.TooLarge:
        raise Undecidable(f"the regular expression {expression!r} is too large") from None


@functools.lru_cache(4096)
def re2(expression: str) -> re.Pattern[str]:
    """A regular expression as Envoy's RE2 reads it. Raises Undecidable.

    What both RE2 and Python know they read alike; what only one of them knows is refused.
    """
    plain = re.sub(r"\\\\", "", expression)
    if _BEYOND_RE2.search(plain) or _BEYOND_PYTHON.search(plain):
        raise Undecidable(f"the regular expression {expression!r} is beyond what is compared")
    try:
        return re.compile(expression, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise Undecidable(f"the regular expression {expression!r}: {error}") from error
