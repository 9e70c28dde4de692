"""What a route makes of the path.

Models `prefix_rewrite` and `regex_rewrite` of Envoy: the first replaces the prefix that the route
matched, or all of the path where an exact path or an expression matched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.routing.matching import StringMatch, re2

_ROOT = StringMatch("prefix", "/")


@dataclass(frozen=True)
class Rewriting:
    """`text` takes the place of the first `cut` characters of a path; of all where that is None.

    `expression` is a uriRegexRewrite, which counts instead: what is replaced, and by what.
    """

    text: str = ""
    cut: int | None = 0
    expression: tuple[str, str] | None = None

    def of(self, path: str) -> str:
        """The path that the upstream gets. Raises Undecidable."""
        if self.expression:
            return _replaced(path, *self.expression) or path  # Envoy takes nothing for no rewrite
        return self.text if self.cut is None else self.text + path[self.cut :]

    @property
    def changes(self) -> bool:
        """Whether it makes another path of any."""
        return self != UNCHANGED


UNCHANGED = Rewriting()
"""What a route without rewrite does."""


def rewriting(matched: StringMatch | None, rewrite: Mapping[str, Any] | None) -> Rewriting:
    """What a rule's `rewrite` does on a route that demands a path.

    Nothing is put between: with the prefix `/`, or no uri at all, `/hello` rewritten to `/v2` is
    `/v2hello`.
    """
    stated = (rewrite or {}).get("uriRegexRewrite") or {}
    if stated:
        return Rewriting(expression=(stated.get("match") or "", stated.get("rewrite") or ""))
    text: str = (rewrite or {}).get("uri") or ""
    if not text:
        return UNCHANGED
    matched = matched or _ROOT
    return Rewriting(text, len(matched.value) if matched.kind == "prefix" else None)


def _replaced(path: str, expression: str, replacement: str) -> str:
    """As RE2's GlobalReplace: `\\1` stands for a group."""

    def of(found: re.Match[str]) -> str:
        return re.sub(
            r"\\(\\|\d)",
            lambda part: "\\" if part[1] == "\\" else found[int(part[1])] or "",
            replacement,
        )

    pattern = re2(expression)
    if any(int(group) > pattern.groups for group in re.findall(r"\\(\d)", replacement)):
        return path
    return pattern.sub(of, path)
