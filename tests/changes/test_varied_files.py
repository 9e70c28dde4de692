"""`fix --write` on files written in every style: only the lines of the change are touched."""

from __future__ import annotations

import contextlib
import difflib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.changes.files import file_changes, write
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.fixing.moved_rules import unproven
from kubectl_mesh.mesh.resource import ABSENT
from kubectl_mesh.mesh.resource import Path as FieldPath
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import FileOrigin, load
from kubectl_mesh.sources.yaml import Document, read_documents
from tests.commands.test_fix import BAD
from tests.rules.stored import ways

COUNT = 200
FIXABLE = [file for file in BAD if ways(file)]


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
        if self._maybe(self._quotes) or set(value) & set("\n,[]{}#"):
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


def touched(document: Document, path: FieldPath) -> set[int]:
    """The lines of a file at which the field at a path stands, or the nearest one around it."""
    node = yaml.compose(document.text.replace("\t", " "), Loader=yaml.CSafeLoader)
    key = node
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, each) for key, each in node.value if key.value == str(step)]
            if not found:
                break
            key, node = found[-1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                break
            key = node = node.value[step]
    first = document.first_line + key.start_mark.line
    return set(range(first, document.first_line + node.end_mark.line + 1))


def comments_above(text: str, line: int) -> set[int]:
    """The lines of comments above a line, which belong to an item that goes."""
    lines = text.splitlines()
    found: set[int] = set()
    while line > 1 and lines[line - 2].lstrip().startswith("#"):
        line -= 1
        found.add(line)
    return found


@pytest.mark.parametrize("number", range(COUNT))
def test_only_the_lines_of_the_change_are_touched(tmp_path: Path, number: int) -> None:
    choose = random.Random(number)
    source = FIXABLE[number % len(FIXABLE)]
    documents = [each for each in yaml.safe_load_all(source.read_text()) if each]
    text, extension = varied(documents, choose)
    file = tmp_path / f"it.{extension}"
    file.write_bytes(text.encode())
    resources, unreadable = load([str(file)])
    assert unreadable == []
    snapshot = Snapshot(resources, find_mesh_config(resources))
    ways = [each.repairs[0] for each in examine(snapshot, RULES).findings if each.repairs]
    doubtful = unproven(snapshot, [way for way in ways if way.proof])
    changes, _ = change_set(
        [way for way in ways if way not in doubtful], lambda resource: resource.raw
    )
    assert changes
    if "&a" in text:
        with contextlib.suppress(NotEditable):
            write(file_changes(changes))
    else:
        write(file_changes(changes))
    if file.read_bytes() == text.encode():
        return
    intended: set[int] = set()
    for step in changes.steps:
        origin = step.resource.origin
        assert isinstance(origin, FileOrigin)
        for edit in step.edits:
            for path in filter(None, (edit.path, edit.source)):
                parent = path[:-1] if edit.source else path
                intended |= touched(origin.document, (*origin.base, *parent))
            if edit.value is ABSENT and not edit.is_deletion:
                intended |= comments_above(
                    text, min(touched(origin.document, (*origin.base, *path)))
                )
            if edit.is_deletion:
                first = origin.document.first_line
                intended |= set(range(first, first + origin.document.text.count("\n")))
    before, after = (
        [line.rstrip(",") if extension == "json" else line for line in each.splitlines()]
        for each in (text, file.read_bytes().decode())
    )
    gone = {
        index + 1
        for tag, first, last, _, _ in difflib.SequenceMatcher(
            None, before, after, autojunk=False
        ).get_opcodes()
        if tag in ("replace", "delete")
        for index in range(first, last)
        if before[index].strip("\r") not in ("---", "...", "")
    }
    assert gone <= intended, (sorted(gone - intended), text, file.read_text())
    left, _ = load([str(file)])
    wanted = {each.id: each.raw for each in resources}
    for step in changes.steps:
        if step.after is None:
            del wanted[step.resource.id]
        else:
            wanted[step.resource.id] = step.after
    assert {each.id: each.raw for each in left} == wanted
    assert all(isinstance(each, Document) for each in read_documents(file.read_text(), "it.yaml"))
