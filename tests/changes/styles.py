"""Manifests written in every style."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

from kubectl_mesh.sources.yaml import is_text


class Writer:
    """Writes YAML in a style that is drawn anew for every value."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._step = choose.choice([2, 2, 4])
        self._dash = choose.choice([0, 0, 2])
        self._comments = choose.choice([0.0, 0.1, 0.4])
        self._flow = choose.choice([0.0, 0.1, 0.3])
        self._quotes = choose.choice([0.0, 0.3])
        self._anchors = choose.choice([0.0, 0.0, 0.1])
        self._count = 0

    def _maybe(self, share: float) -> bool:
        return self._choose.random() < share

    def _comment(self) -> str:
        self._count += 1
        return f"#{self._choose.choice([' ', '', chr(9), ' - a: '])}comment {self._count}"

    def _end(self) -> str:
        return f"{self._choose.choice(['  ', ' '])}{self._comment()}" if self._often() else ""

    def _often(self) -> bool:
        return self._maybe(self._comments)

    def _above(self, indent: int) -> Iterator[str]:
        if self._often():
            yield " " * indent + self._comment()
        if self._maybe(0.03):
            yield ""

    def scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        if self._maybe(self._quotes) or set(value) & set("\n,[]{}#") or not is_text(value):
            return json.dumps(value)
        text: str = yaml.dump(value, default_flow_style=True, width=10_000)
        return text.removesuffix("\n").removesuffix("\n...")

    def flow(self, value: Any) -> str:
        if isinstance(value, dict):
            inner = (f"{self.scalar(key)}: {self.flow(each)}" for key, each in value.items())
            return "{" + self._choose.choice([", ", ",  "]).join(inner) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.flow, value)) + "]"
        return self.scalar(value)

    def lines(self, value: Any, indent: int) -> Iterator[str]:
        """A mapping or a list that is not empty, in block style."""
        if isinstance(value, list):
            for item in value:
                yield from self._above(indent)
                yield from self._placed(f"{' ' * indent}-", item, indent + 2, in_list=True)
            return
        for key, each in value.items():
            yield from self._above(indent)
            below = indent + (self._dash if isinstance(each, list) else self._step)
            yield from self._placed(
                f"{' ' * indent}{self.scalar(key)}:", each, below, in_list=False
            )

    def _placed(self, head: str, value: Any, below: int, *, in_list: bool) -> Iterator[str]:
        self._count += 1
        anchor = f" &a{self._count}" if self._maybe(self._anchors) else ""
        if isinstance(value, (dict, list)) and value and not self._maybe(self._flow):
            if in_list and not anchor:
                first, *rest = self.lines(value, below)
                while not first.strip() or first.lstrip()[0] == "#":
                    first, *rest = self.lines(value, below)
                yield f"{head} {first.lstrip(' ')}"
                yield from rest
                return
            yield f"{head}{anchor}{self._end()}"
            yield from self.lines(value, below)
        elif isinstance(value, str) and "\n" in value and value[0] not in " \n":
            yield f"{head} |{'' if value.endswith(chr(10)) else '-'}"
            yield from (
                " " * below + line if line else "" for line in value.removesuffix("\n").split("\n")
            )
        else:
            yield f"{head}{anchor} {self.flow(value)}{self._end()}"

    def document(self, value: Any) -> str:
        return "\n".join(self.lines(value, 0)) + "\n"


def varied(documents: list[Any], choose: random.Random) -> tuple[str, str]:
    """A text of the documents, and the extension of its file."""
    kind = choose.random()
    whole = {"apiVersion": "v1", "kind": "List", "items": documents}
    if kind < 0.15:
        return json.dumps(whole, indent=choose.choice([None, 2, 4, "\t"])), "json"
    if kind < 0.25:
        return Writer(choose).document(whole), "yaml"
    separator = choose.choice(["---\n", "--- # another one\n", "...\n---\n", "---\n\n"])
    text = separator.join(Writer(choose).document(each) for each in documents)
    if choose.random() < 0.2:
        text = text.replace("\n", "\r\n")
    if choose.random() < 0.1:
        text = text.rstrip("\r\n")
    if choose.random() < 0.1:
        text = "\ufeff" + text
    return text, "yaml"
