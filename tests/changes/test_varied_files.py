"""`fix --write` on files written in every style: only the lines of the change are touched."""

from __future__ import annotations

import contextlib
import difflib
import random
from pathlib import Path

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
from tests.changes.styles import varied
from tests.commands.test_fix import BAD
from tests.rules.stored import ways

COUNT = 200
FIXABLE = [file for file in BAD if ways(file)]


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
