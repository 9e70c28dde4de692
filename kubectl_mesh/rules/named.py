"""Rules by what people call them: a code, a name, or a peer's code for the same."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

from kubectl_mesh.errors import UsageError
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.rule import Rule

_PEERS = {"IST": "istioctl analyze", "KIA": "Kiali"}
_PEERS_CODE = re.compile(r"(IST|KIA)\d{4}")
_CUT_SHORT = re.compile(r"KM\d{1,2}")


@cache
def _by_word() -> Mapping[str, tuple[Rule, ...]]:
    found: dict[str, list[Rule]] = defaultdict(list)
    for rule in RULES:
        for word in (rule.code, rule.name, *rule.equivalents):
            found[word.lower()].append(rule)
    return {word: tuple(rules) for word, rules in found.items()}


def find(text: str) -> tuple[Rule, ...]:
    """The rules of a code, a name, or a peer's code, in any case. Raises UsageError for none."""
    wanted = text.lower()
    words = _by_word()
    if wanted in words:
        return words[wanted]
    everything = "`kubectl mesh explain` lists all rules"
    peer = _PEERS_CODE.fullmatch(text.upper())
    if peer:
        raise UsageError(
            f"{text.upper()} has no equivalent: no rule finds what {_PEERS[peer[1]]} reports under "
            f"that code; {everything}"
        )
    close = [
        word if "-" in word else word.upper()
        for word in difflib.get_close_matches(wanted, words, n=3)
    ]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(f"no rule is called {text}: {hint}{everything}")


def beginning(text: str) -> tuple[Rule, ...]:
    """The rules whose codes begin with one that is cut short: KM1, KM1xx, KM10; else none."""
    start = text.upper().removesuffix("XX")
    cut_short = _CUT_SHORT.fullmatch(start)
    return tuple(rule for rule in RULES if cut_short and rule.code.startswith(start))


def chosen(wanted: Sequence[str], unwanted: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules that are wanted (none named: all), less others; by what people call them.

    A code that is cut short stands for all that begin so. Raises UsageError for a name of no rule,
    and where no rule is left.
    """
    meant = {rule.code for text in wanted for rule in _meant(text)} if wanted else None
    left_out = {rule.code for text in unwanted for rule in _meant(text)}
    rules = tuple(
        rule
        for rule in RULES
        if (meant is None or rule.code in meant) and rule.code not in left_out
    )
    if not rules:
        raise UsageError("--skip-rule leaves no rule to be run")
    return rules


def _meant(text: str) -> tuple[Rule, ...]:
    return beginning(text) or find(text)
