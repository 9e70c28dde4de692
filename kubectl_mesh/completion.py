"""What kubectl offers for a word of `kubectl mesh ...`, as its plugins answer it.

kubectl 1.26 and later runs `kubectl_complete-mesh`, which pip installs and `kubectl mesh
completion` prints, with the words so far; the last is the one to be completed, and may be empty. It
is given one candidate a line, a tab and what it is for after it, and a last line `:N`, which is
cobra's ShellCompDirective.
Whatever goes wrong, nothing is said: the user is typing.
"""

from __future__ import annotations

import argparse
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_mesh.flags import command_of
from kubectl_mesh.term import safe

if TYPE_CHECKING:
    from kubectl_mesh.sources.session import Session

PATIENCE = 1.0
"""Seconds that a cluster is given."""

_NO_FILES = 4
_FILES = 0
_NO_SPACE = 2

_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:/@=+]*")

Candidate = tuple[str, str]


@dataclass(frozen=True)
class Offer:
    """Candidates with what they are for, and what the shell does beside them."""

    candidates: Sequence[Candidate] = ()
    directive: int = _NO_FILES

    def __str__(self) -> str:
        lines = [f"{name}\t{safe(text)}" if text else name for name, text in self.candidates]
        return "\n".join([*lines, f":{self.directive}"]) + "\n"


def offer(parser: argparse.ArgumentParser, words: Sequence[str]) -> Offer:
    """What to offer for the last of some words, within PATIENCE.

    `parser` is the one for these words: of the command among them, if there is one, it has all
    flags.
    """
    found: list[Offer] = []
    asking = threading.Thread(target=lambda: found.append(_offer(parser, words)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return found[0] if found else Offer()


def _offer(parser: argparse.ArgumentParser, words: Sequence[str]) -> Offer:
    try:
        return _Line(parser, words).offer()
    except Exception:  # of a kubeconfig, a cluster or a plugin for credentials, all the same
        return Offer()


class _Line:
    """The words so far, as argparse will understand them."""

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
        *before, self._word = words or [""]
        self._parser = parser
        self._command = command_of(before)
        if self._command:
            self._parser = _subcommands(parser)[self._command]
            before = before[before.index(self._command) + 1 :]
        self._values: dict[str, str] = {}
        self._used: set[str] = set()
        self._positionals = 0
        self._pending: argparse.Action | None = None
        self._only_words = False
        for word in before:
            self._read(word)

    def offer(self) -> Offer:
        if self._pending and not self._is_left_out(self._word):
            return self._value(self._pending, self._word)
        if self._word.startswith("-") and not self._only_words:
            return self._flag()
        if not self._command:
            return Offer([*_starting(self._word, _summaries(self._parser))])
        positional = self._positional()
        return self._value(positional, self._word) if positional else Offer()

    def _flag(self) -> Offer:
        """For a word that is a flag, and perhaps its value."""
        flag, equals, value = self._word.partition("=")
        if not flag.startswith("--") or not equals:
            return Offer([*self._unused()])
        action = self._flags.get(flag)
        return self._value(action, value) if action else Offer()

    @property
    def _flags(self) -> Mapping[str, argparse.Action]:
        return self._parser._option_string_actions

    def _is_left_out(self, word: str) -> bool:
        """Whether a flag has no value, and the word after it is another flag."""
        optional = self._pending is not None and self._pending.nargs == "?"
        return optional and word.startswith("-")

    def _read(self, word: str) -> None:
        if self._pending and not self._is_left_out(word):
            self._values[self._pending.dest] = word
            self._pending = None
            return
        self._pending = None
        if word == "--":
            self._only_words = True
        elif word.startswith("-") and word != "-" and not self._only_words:
            flag, equals, value = word.partition("=")
            action = self._flags.get(flag)
            if action is None:
                self._read_bundle(word)
                return
            self._used.add(action.dest)
            if equals:
                self._values[action.dest] = value
            elif _takes_value(action):
                self._pending = action
        else:
            self._positionals += 1

    def _read_bundle(self, word: str) -> None:
        """Short flags in one word, the last with its value, if it takes one: -Aojson."""
        for index, letter in enumerate(word[1:], 1):
            action = self._flags.get(f"-{letter}") if not word.startswith("--") else None
            if action is None:
                return
            self._used.add(action.dest)
            if _takes_value(action):
                rest = word[index + 1 :].removeprefix("=")
                if rest:
                    self._values[action.dest] = rest
                else:
                    self._pending = action
                return

    def _positional(self) -> argparse.Action | None:
        actions = [each for each in self._parser._actions if not each.option_strings]
        if actions and self._positionals >= len(actions):
            return actions[-1] if actions[-1].nargs in ("*", "+") else None
        return actions[self._positionals] if actions else None

    def _unused(self) -> Iterator[Candidate]:
        for name, action in self._flags.items():
            long = name.startswith("--") or not self._word.startswith("--")
            again = isinstance(action, argparse._AppendAction) or action.dest not in self._used
            if name.startswith(self._word) and long and again:
                yield name, _help(action)

    def _value(self, action: argparse.Action, word: str) -> Offer:
        if action.choices is not None:
            return _names(word, map(str, action.choices))
        if action.dest in _FILE_NAMES:
            return Offer(directive=_FILES)
        source = _SOURCES.get(action.dest)
        return source(self, word) if source else Offer()

    # Where values come from

    @cached_property
    def _session(self) -> Session:
        """The cluster that the flags mean."""
        from kubectl_mesh.commands.inputs import session_of

        names = {each.dest: self._parser.get_default(each.dest) for each in self._parser._actions}
        given = {name: True for name in self._used if name not in self._values}
        flags = {**names, **given, "as_groups": None, **self._values}
        return session_of({**flags, "request_timeout": PATIENCE})

    def of_kubeconfig(self, kind: str, word: str) -> Offer:
        return _names(word, self._session.kubeconfig.names(kind))

    def namespaces(self, word: str) -> Offer:
        return _names(word, (name for _, name in self._objects("Namespace", None)))

    def objects(self, kind: str, word: str) -> Offer:
        """By name; by namespace/name where the word has a namespace, or all of them are meant."""
        own, slash, _ = word.partition("/")
        everywhere = "all_namespaces" in self._used
        found = self._objects(kind, own if slash else None if everywhere else self._namespace())
        qualified = bool(slash) or everywhere
        return _names(word, (f"{where}/{name}" if qualified else name for where, name in found))

    def subsets(self, word: str) -> Offer:
        """The DestinationRules: the subset itself is typed."""
        found = self.objects("DestinationRule", word)
        return Offer([(f"{name}/", text) for name, text in found.candidates], _NO_FILES | _NO_SPACE)

    def pods(self, word: str) -> Offer:
        kind, slash, _ = word.partition("/")
        if slash and kind in ("deploy", "deployment"):
            found = self._objects("Deployment", self._namespace())
            return _names(word, (f"{kind}/{name}" for _, name in found))
        return self.objects("Pod", word)

    def _namespace(self) -> str:
        return self._values.get("namespace") or self._session.namespace_on_disk

    def _objects(self, kind: str, namespace: str | None) -> Iterable[tuple[str, str]]:
        from kubectl_mesh.sources import names

        return names.of_objects(self._session, kind, namespace)

    def codes(self, word: str) -> Offer:
        from kubectl_mesh.rules import RULES

        return Offer([*_starting(word.upper(), ((rule.code, rule.summary) for rule in RULES))])

    def runs(self, word: str) -> Offer:
        from kubectl_mesh.changes.journal import Journal, Run, default_folder

        folder = self._values.get("journal")
        found = Journal(Path(folder) if folder else default_folder()).runs()
        known = ((each.id, each.context) for each in found if isinstance(each, Run))
        return Offer([*_starting(word, known)])

    def waits(self, word: str) -> Offer:
        ways = (("proxies", "until istiod says that all have it"), ("delay=5s", "without proof"))
        return Offer([*_starting(word, ways)])


_FILE_NAMES = (
    "filename",
    "kustomize",
    "kubeconfig",
    "mesh_config",
    "requests",
    "journal",
    "states",
)
_SOURCES: Mapping[str, Callable[[_Line, str], Offer]] = {
    "namespace": _Line.namespaces,
    "from_namespace": _Line.namespaces,
    "istio_namespace": _Line.namespaces,
    "context": lambda line, word: line.of_kubeconfig("context", word),
    "cluster": lambda line, word: line.of_kubeconfig("cluster", word),
    "user": lambda line, word: line.of_kubeconfig("user", word),
    "gateway": lambda line, word: line.objects("Gateway", word),
    "names": lambda line, word: line.objects("VirtualService", word),
    "host": lambda line, word: line.objects("Service", word),
    "remove_subset": _Line.subsets,
    "workload": _Line.pods,
    **dict.fromkeys(("code", "finding", "ignore", "rule", "skip_rule"), _Line.codes),
    "id": _Line.runs,
    "resume": _Line.runs,
    "wait_for": _Line.waits,
}
"""By the name under which argparse keeps a flag or an argument."""


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _summaries(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from ((each.dest, each.help or "") for each in action._choices_actions)


def _starting(word: str, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those that begin with the word, and are names: a shell is given nothing that it may run."""
    for name, text in candidates:
        if name.startswith(word) and _NAME.fullmatch(name):
            yield name, text


def _names(word: str, names: Iterable[str]) -> Offer:
    return Offer([*_starting(word, ((name, "") for name in names))])


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs in (None, "?")


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": ""}
