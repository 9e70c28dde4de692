"""Sets of strings: whether some string meets demands and avoids others, and an example of one.

Constants, sets of names and regular expressions become automata that are walked side by side, as
far as it takes to find a string, or until there is nowhere to go: then there is none. Expressions
are read by the parser of Python's own `re`, so that they mean here what they mean in matching.py;
nothing is made deterministic ahead of time, so that a small expression cannot cost the earth.
"""

from __future__ import annotations

import random
import re
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Protocol

_re: Any = re
if sys.version_info >= (3, 11):
    _sre, _sre_parser = _re._constants, _re._parser
else:
    import sre_constants as _sre
    import sre_parse as _sre_parser

MAX_STATES = 20_000
"""So large may the automaton of one expression be."""
MAX_STEPS = 40_000
"""So many steps of automata may the search for one string take."""
_STATES_A_STEP = 2
"""Looking at so many states of an expression takes as long as one step does."""
_KEPT = 4_096
"""So many steps of one expression are remembered."""
_LETTERS = (
    "abcdefghijklmnopqrstuvwxyz0123456789/-_.ABCDEFGHIJKLMNOPQRSTUVWXYZ~=:,;+!$%&'()*@|^`<>{}[]"
    '"\\?# '
)
"""The printable ASCII characters, those first that look best in an example."""


class TooLarge(Exception):
    """The answer would take more steps, or more memory, than is allowed."""


class Budget:
    """Steps that some searches may take, all together."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Raises TooLarge where so many are not left."""
        self.left -= steps
        if self.left < 0:
            raise TooLarge


class Automaton(Protocol):
    """Reads a string character by character. A state is None when nothing can be accepted more."""

    @property
    def start(self) -> Hashable: ...

    @property
    def letters(self) -> Iterable[str]:
        """The characters that it names; those beyond printable ASCII are tried for them alone."""
        ...

    def kind(self, character: str) -> Hashable:
        """Characters of one kind lead from any state to the same state."""
        ...

    def step(self, state: Any, character: str) -> Hashable | None: ...

    def accepts(self, state: Any) -> bool: ...


class Words:
    """Words, each to be met as a whole or as a beginning. `fold` ignores the case of letters.

    With `port` a whole word may be followed by a colon and digits.
    """

    def __init__(
        self,
        exact: Iterable[str] = (),
        prefixes: Iterable[str] = (),
        *,
        fold: bool = False,
        port: bool = False,
    ) -> None:
        self._fold = fold
        self._port = port
        self._next: list[dict[str, int]] = [{}]
        self._ends: set[int] = set()
        self._all: set[int] = set()
        for word in exact:
            self._ends.add(self._add(word))
        for word in prefixes:
            self._all.add(self._add(word))
        self.letters = frozenset(
            letter for node in self._next for key in node for letter in (key, *self._cases(key))
        )
        self.start = 0

    _DONE = -1
    _COLON = -2
    _DIGITS = -3

    def _cases(self, letter: str) -> tuple[str, ...]:
        return (letter.lower(), letter.upper()) if self._fold else ()

    def _add(self, word: str) -> int:
        node = 0
        for letter in word.lower() if self._fold else word:
            if letter not in self._next[node]:
                self._next.append({})
                self._next[node][letter] = len(self._next) - 1
            node = self._next[node][letter]
        return node

    def kind(self, character: str) -> Hashable:
        if character in self.letters:
            return character.lower() if self._fold else character
        if self._port and (character == ":" or character.isdigit()):
            return ":" if character == ":" else "0"
        return None

    def step(self, state: int, character: str) -> int | None:
        if state == self._DONE or state in self._all:
            return self._DONE
        if state < 0:
            return self._DIGITS if character in "0123456789" else None
        if self._port and character == ":" and state in self._ends:
            return self._COLON
        return self._next[state].get(character.lower() if self._fold else character)

    def accepts(self, state: int) -> bool:
        return state in (self._DONE, self._DIGITS) or state in self._ends or state in self._all


class Expression:
    """A regular expression that must meet the whole string.

    Raises TooLarge. `exact` is False where a word boundary was read as met anywhere: then what it
    accepts is only a guess. `effort` counts the states that were looked at to find out about steps.
    """

    def __init__(self, expression: str) -> None:
        tree: Any = _sre_parser.parse(expression, re.ASCII)
        self.exact = True
        self._has_end = False
        self._edges: list[list[tuple[int, int]]] = []
        self._empty: list[list[tuple[int, str]]] = []
        self._sets: list[Callable[[str], bool]] = []
        self.letters: set[str] = set()
        first = self._state()
        self._last = self._compile(tree, first, tree.state.flags)
        self._kinds: dict[str, tuple[bool, ...]] = {}
        self._steps: dict[tuple[frozenset[int], Hashable], frozenset[int] | None] = {}
        self.effort = 0
        self.start = self._closure([first], "start")

    def _state(self) -> int:
        if len(self._edges) >= MAX_STATES:
            raise TooLarge
        self._edges.append([])
        self._empty.append([])
        return len(self._edges) - 1

    def _compile(self, items: Any, state: int, flags: int) -> int:
        for operation, argument in items:
            state = self._compile_one(operation, argument, state, flags)
        return state

    def _compile_one(self, operation: Any, argument: Any, state: int, flags: int) -> int:
        if operation in (_sre.LITERAL, _sre.NOT_LITERAL, _sre.ANY, _sre.IN):
            found = self._character_set(operation, argument, flags)
            after = self._state()
            self._sets.append(found)
            self._edges[state].append((len(self._sets) - 1, after))
            return after
        if operation is _sre.SUBPATTERN:
            _, added, removed, inner = argument
            return self._compile(inner, state, (flags | added) & ~removed)
        if operation is _sre.BRANCH:
            after = self._state()
            for branch in argument[1]:
                self._join(self._compile(branch, self._fork(state), flags), after)
            return after
        if operation in (_sre.MAX_REPEAT, _sre.MIN_REPEAT):
            return self._repeat(argument, state, flags)
        if operation is _sre.AT:
            after = self._state()
            if argument in (_sre.AT_BEGINNING, _sre.AT_BEGINNING_STRING):
                self._empty[state].append((after, "start"))
            elif argument in (_sre.AT_END, _sre.AT_END_STRING):
                self._empty[state].append((after, "end"))
                self._has_end = True
            else:
                self.exact = False
                self._join(state, after)
            return after
        raise TooLarge

    def _repeat(self, argument: Any, state: int, flags: int) -> int:
        least, most, inner = argument
        for _ in range(least):
            state = self._compile(inner, state, flags)
        if most is _sre.MAXREPEAT:
            loop = self._fork(state)
            self._join(self._compile(inner, loop, flags), loop)
            return self._fork(loop)
        after = self._state()
        for _ in range(most - least):
            self._join(state, after)
            state = self._compile(inner, self._fork(state), flags)
        self._join(state, after)
        return after

    def _fork(self, state: int) -> int:
        after = self._state()
        self._join(state, after)
        return after

    def _join(self, state: int, after: int) -> None:
        self._empty[state].append((after, ""))

    def _character_set(self, operation: Any, argument: Any, flags: int) -> Callable[[str], bool]:
        fold = bool(flags & re.IGNORECASE)
        if operation is _sre.ANY:
            return lambda character: character != "\n" or bool(flags & re.DOTALL)
        items = argument if operation is _sre.IN else [(_sre.LITERAL, argument)]
        negated = operation is _sre.NOT_LITERAL or any(kind is _sre.NEGATE for kind, _ in items)
        tests = [self._test(kind, value) for kind, value in items if kind is not _sre.NEGATE]

        def contains(character: str) -> bool:
            spellings = {character, character.lower(), character.upper()} if fold else {character}
            return any(test(each) for test in tests for each in spellings) is not negated

        return contains

    def _test(self, kind: Any, value: Any) -> Callable[[str], bool]:
        if kind is _sre.LITERAL:
            self.letters.add(chr(value))
            return lambda character: ord(character) == value
        if kind is _sre.RANGE:
            low, high = value
            self.letters |= {chr(low), chr(high)}
            return lambda character: low <= ord(character) <= high
        escape = _CATEGORIES.get(value)
        if escape is None:
            raise TooLarge
        pattern = re.compile(escape, re.ASCII)
        return lambda character: pattern.fullmatch(character) is not None

    def _closure(self, states: Iterable[int], place: str) -> frozenset[int]:
        found = set(states)
        pending = list(found)
        while pending:
            for after, condition in self._empty[pending.pop()]:
                if condition in ("", place) and after not in found:
                    found.add(after)
                    pending.append(after)
        return frozenset(found)

    def kind(self, character: str) -> tuple[bool, ...]:
        found = self._kinds.get(character)
        if found is None:
            found = self._kinds[character] = tuple(test(character) for test in self._sets)
        return found

    def step(self, state: frozenset[int], character: str) -> frozenset[int] | None:
        kinds = self.kind(character)
        key = (state, kinds)
        if key in self._steps:
            return self._steps[key]
        reached = {to for each in state for number, to in self._edges[each] if kinds[number]}
        after = self._closure(reached, "") if reached else None
        self.effort += len(state) + len(after or ())
        if len(self._steps) < _KEPT:
            self._steps[key] = after
        return after

    def accepts(self, state: frozenset[int]) -> bool:
        if self._last in state or not self._has_end:
            return self._last in state
        # only of the empty string are both ends in one place
        if state == self.start:
            state = self._closure(state, "start")
            ended = self._closure(state, "end")
            return self._last in self._closure(ended, "start") or self._last in ended
        return self._last in self._closure(state, "end")

    @cached_property
    def _alike(self) -> list[str]:
        """The letters, those together that lead from any state to the same state."""
        found: dict[Hashable, str] = {}
        for letter in dict.fromkeys((*_LETTERS, *sorted(self.letters))):
            kind = self.kind(letter)
            found[kind] = found.get(kind, "") + letter
        return list(found.values())

    def sample(self, choose: random.Random, longest: int = 40) -> str:
        """A string that it accepts, likely; any other if chance leads too far."""
        text: list[str] = []
        state = self.start
        while len(text) < longest:
            if self.accepts(state) and choose.random() < 0.4:
                break
            alike = choose.sample(self._alike, len(self._alike))
            leading = (letters for letters in alike if self.step(state, letters[0]) is not None)
            letters = next(leading, "")
            if not letters:
                break
            text.append(choose.choice(letters))
            state = self.step(state, text[-1]) or state
        return "".join(text)


_CATEGORIES: Mapping[Any, str] = {
    _sre.CATEGORY_DIGIT: r"\d",
    _sre.CATEGORY_NOT_DIGIT: r"\D",
    _sre.CATEGORY_SPACE: r"\s",
    _sre.CATEGORY_NOT_SPACE: r"\S",
    _sre.CATEGORY_WORD: r"\w",
    _sre.CATEGORY_NOT_WORD: r"\W",
}


@lru_cache(2048)
def expression(text: str) -> Expression:
    """The automaton of a regular expression that `re` accepts. Raises TooLarge."""
    try:
        return Expression(text)
    except RecursionError:
        raise TooLarge from None


def accepts(automaton: Automaton, text: str) -> bool:
    """Whether an automaton accepts a whole text."""
    state: Hashable | None = automaton.start
    for character in text:
        state = automaton.step(state, character)
        if state is None:
            return False
    return automaton.accepts(state)


def find(
    wanted: Sequence[Automaton], unwanted: Sequence[Automaton], budget: Budget | None = None
) -> str | None:
    """The shortest string that all of `wanted` accept and none of `unwanted`; None for none.

    Only printable characters are tried, and those that the automata name. Raises TooLarge where
    that takes more than MAX_STEPS, or than the budget has.
    """
    automata = (*wanted, *unwanted)
    required = len(wanted)
    letters = list(_representatives(automata))
    start = tuple(each.start for each in automata)
    seen: set[tuple[Hashable, ...]] = {start}
    pending: deque[tuple[tuple[Any, ...], str]] = deque([(start, "")])
    own = Budget(MAX_STEPS)
    expressions = [each for each in automata if isinstance(each, Expression)]
    effort = sum(each.effort for each in expressions)
    while pending:
        states, text = pending.popleft()
        looked_at = sum(each.effort for each in expressions)
        steps = len(letters) * len(automata) + (looked_at - effort) // _STATES_A_STEP
        effort = looked_at
        own.spend(steps)
        if budget:
            budget.spend(steps)
        if all(
            (state is not None and each.accepts(state)) is (number < required)
            for number, (each, state) in enumerate(zip(automata, states, strict=True))
        ):
            return text
        for letter in letters:
            after = tuple(
                None if state is None else each.step(state, letter)
                for each, state in zip(automata, states, strict=True)
            )
            if None in after[:required] or after in seen:
                continue
            seen.add(after)
            pending.append((after, text + letter))
    return None


def _representatives(automata: Sequence[Automaton]) -> Iterator[str]:
    """One character for all that no automaton tells from it."""
    named = {letter for each in automata for letter in each.letters if letter.isprintable()}
    seen: set[tuple[Hashable, ...]] = set()
    for letter in (*_LETTERS, *sorted(named - set(_LETTERS))):
        kinds = tuple(each.kind(letter) for each in automata)
        if kinds not in seen:
            seen.add(kinds)
            yield letter
