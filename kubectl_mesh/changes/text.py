"""Edits of YAML and JSON text where it stands: all that is not changed stays, byte by byte.

The text is read as libyaml reads it, whose events say where each value begins and ends, and only
those places are written anew. A library that writes a whole document back (ruamel.yaml) keeps the
comments, but joins lines of flow style and breaks long ones, and its diff shows more than was asked
for. What comes out is read again: it has to be what the patch makes of the value.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import yaml
from jsonpointer import JsonPointer

from kubectl_mesh.changes.patch import Operation
from kubectl_mesh.errors import InputError, MeshError
from kubectl_mesh.mesh.resource import ABSENT, Path, ResourceId, dotted, field_at
from kubectl_mesh.sources.yaml import is_text, masked_json, read_documents

_PARSER: Any = getattr(getattr(yaml, "cyaml", None), "CParser", yaml.SafeLoader)
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_COMMENTED = re.compile(r"\s#")
_COMMENT = re.compile(r"( *)#")
_DASH = re.compile(r"(?:\s|#[^\n]*)*-")
_WIDE = 10_000
_FIRST = ("match",)
"""Keys that people write before the others of a mapping."""


class NotEditable(MeshError):
    """A text that cannot be changed in place, and why. `resource` is the object, where known."""

    def __init__(self, message: str, resource: ResourceId | None = None) -> None:
        super().__init__(message)
        self.resource = resource


@dataclass
class _Node:
    """A value with its place in the text. `children` are keys and values by turns, or items."""

    kind: str  # "scalar", "mapping", "list" or "alias"
    start: int
    end: int
    column: int
    flow: bool = False
    style: str = ""
    anchored: bool = False
    value: str = ""
    children: list[_Node] = field(default_factory=list)

    @property
    def last(self) -> int:
        """Where its text ends, comments and blank lines behind it left out."""
        if self.kind in ("scalar", "alias") or self.flow:
            return self.end
        return self.children[-1].last if self.children else self.end


def edited(
    text: str,
    operations: Iterable[Operation],
    base: Path,
    *,
    is_json: bool,
    written: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """The text of a document after a patch of the object that stands at `base` in it.

    `written` has the lines, as `item` gives them, of what some operations add: by their number,
    tests left out. Raises NotEditable where the text would have to be written anew.
    """
    changing = (operation for operation in operations if operation["op"] != "test")
    for number, operation in enumerate(changing):
        value = _value(text, is_json)
        path = (*base, *_steps(operation["path"], value, base))
        if operation["op"] == "move":
            source = (*base, *_steps(operation["from"], value, base))
            text = moved(text, source, path, is_json=is_json)
        elif operation["op"] == "remove":
            text = removed(text, path, is_json=is_json)
        elif operation["op"] == "add" and _is_new(value, path):
            lines = written.get(number)
            text = added(text, path, operation["value"], is_json=is_json, written=lines)
        else:
            text = replaced(text, path, operation["value"], is_json=is_json)
    return text


def _value(text: str, is_json: bool) -> Any:
    found = next(iter(read_documents(text, "it.json" if is_json else "it.yaml")))
    if isinstance(found, InputError):
        raise NotEditable(f"it would not be readable afterwards: {found}")
    return found.value


def _steps(path: str, value: Any, base: Path) -> Iterator[str | int]:
    """A JSON Pointer as a path: what names an item of a list is a number."""
    here = field_at(value, base)
    for part in JsonPointer(path).parts:
        step: str | int = part
        if isinstance(here, list):
            step = len(here) if part == "-" else int(part)
        yield step
        here = field_at(here, (step,))


def _is_new(value: Any, path: Path) -> bool:
    return isinstance(path[-1], int) or field_at(value, path) is ABSENT


def replaced(text: str, path: Path, value: Any, *, is_json: bool = False) -> str:
    """The text with another value in place of the one at `path`. Raises NotEditable."""
    edit = _Edit(text, is_json)
    node, parents = edit.find(path)
    return edit.replace(node, parents, value)


def added(
    text: str, path: Path, value: Any, *, is_json: bool = False, written: str | None = None
) -> str:
    """The text with a value more: under a key that is new, or before an item of a list.

    The last step of the path is that key, or the item's index: the length of the list is its end.
    `written` are the lines of such an item, as `item` gives them. Raises NotEditable.
    """
    edit = _Edit(text, is_json)
    parent, parents = edit.find(path[:-1])
    step = path[-1]
    if isinstance(step, int):
        return edit.insert(parent, parents, step, value, written)
    return edit.add(parent, parents, step, value)


def item(text: str, path: Path) -> str | None:
    """The lines of an item of a list in block style, from its dash on and with the comments above.

    None where it shares a line with something else, or is in flow style. Raises NotEditable.
    """
    edit = _Edit(text, False)
    node, parents = edit.find(path[:-1])
    index = path[-1]
    assert isinstance(index, int)
    return None if edit.is_flow(node, parents) else edit.item(node, index)


def removed(text: str, path: Path, *, is_json: bool = False) -> str:
    """The text without the key or item at `path`. Raises NotEditable."""
    edit = _Edit(text, is_json)
    parent, parents = edit.find(path[:-1])
    return edit.remove(parent, parents, path[-1])


def moved(text: str, source: Path, path: Path, *, is_json: bool = False) -> str:
    """The text with an item of a list moved from one place to another, as it is without it.

    The comments above the item go with it. Raises NotEditable.
    """
    edit = _Edit(text, is_json)
    node, parents = edit.find(source[:-1])
    start, to = source[-1], path[-1]
    assert isinstance(start, int)
    assert isinstance(to, int)
    if node.kind != "list" or max(start, to) >= len(node.children):
        raise NotEditable("it is no list, or a shorter one")
    if start == to:
        return text
    if not edit.is_flow(node, parents):
        return edit.move(node, start, to)
    item = node.children[start]
    rest = _Edit(removed(text, source, is_json=is_json), is_json)
    return rest.into_flow(rest.find(source[:-1])[0], to, text[item.start : item.last])


class _Edit:
    def __init__(self, text: str, is_json: bool) -> None:
        self.text = text
        self._is_json = is_json
        self._events = self._read(masked_json(text) if is_json else text)
        try:
            self._root = self._node(next(self._events))
        except yaml.YAMLError as error:
            raise NotEditable("it is written as YAML does not know it: edit it by hand") from error

    def _read(self, text: str) -> Iterator[Any]:
        next_event = _PARSER(text).get_event
        while True:
            event = next_event()
            if isinstance(event, yaml.StreamEndEvent):
                return
            if not isinstance(
                event, (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
            ):
                yield event

    def _node(self, event: Any) -> _Node:
        first, behind = event.start_mark, event.end_mark
        assert first
        assert behind
        start, end, column = first.index, behind.index, first.column
        if isinstance(event, yaml.AliasEvent):
            return _Node("alias", start, end, column)
        anchored = event.anchor is not None
        if isinstance(event, yaml.ScalarEvent):
            style = event.style or ""
            if style in ("|", ">"):
                end = len(self.text[:end].rstrip("\n ")) if end > start else end
            return _Node("scalar", start, end, column, False, style, anchored, event.value)
        kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "list"
        node = _Node(kind, start, end, column, bool(event.flow_style), "", anchored)
        for inner in self._events:
            if isinstance(inner, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                assert inner.end_mark
                node.end = inner.end_mark.index
                return node
            node.children.append(self._node(inner))
        return node

    def find(self, path: Path) -> tuple[_Node, list[_Node]]:
        """The node at a path, and those around it from the outermost on."""
        node = self._root
        parents: list[_Node] = []
        for number, step in enumerate(path):
            if node.kind == "alias" or node.anchored:
                raise NotEditable(
                    f"{dotted(path[:number])} is shared by an anchor: edit it by hand"
                )
            parents.append(node)
            found = self._child(node, step)
            if found is None:
                raise NotEditable(f"{dotted(path[: number + 1])} is written nowhere in it")
            node = found
        if node.kind == "alias" or (node.anchored and node.kind != "scalar"):
            raise NotEditable(f"{dotted(path)} is shared by an anchor: edit it by hand")
        return node, parents

    def _child(self, node: _Node, step: str | int) -> _Node | None:
        if node.kind == "mapping" and isinstance(step, str):
            for key, value in zip(node.children[::2], node.children[1::2], strict=True):
                if key.kind == "scalar" and key.value == step:
                    return value
        elif node.kind == "list" and isinstance(step, int) and step < len(node.children):
            return node.children[step]
        return None

    def is_flow(self, node: _Node, parents: Sequence[_Node]) -> bool:
        return node.flow or self._within_flow(parents)

    def _within_flow(self, parents: Sequence[_Node]) -> bool:
        return self._is_json or any(each.flow for each in parents)

    # Replacing

    def replace(self, node: _Node, parents: Sequence[_Node], value: Any) -> str:
        flow = self.is_flow(node, parents)
        if node.style in ("|", ">") and isinstance(value, str) and value[:1] not in ("", " ", "\n"):
            return self._replace_block(node, value)
        if isinstance(value, (dict, list)) and value and not flow:
            return self._replace_by_block(node, parents, value)
        if node.kind != "scalar" and not node.flow:
            end = node.last
            if parents and parents[-1].kind == "mapping":
                return self._spliced(
                    self._behind_key(node, parents[-1]), end, f" {self._flow(value)}"
                )
            return self._spliced(node.start, end, self._flow(value))
        new = self._scalar(value, node.style) if node.kind == "scalar" else self._flow(value)
        if node.start == node.end and not self.text[: node.start].endswith((" ", "\n")):
            new = f" {new}"
        return self._spliced(node.start, node.end, new)

    def _replace_by_block(self, node: _Node, parents: Sequence[_Node], value: Any) -> str:
        """A new collection in block style: below its key, or behind the dash of its item."""
        in_mapping = bool(parents) and parents[-1].kind == "mapping"
        if not in_mapping:
            lines = self._block(value, node.column)
            return self._spliced(node.start, node.last, lines.lstrip(" "))
        indent = parents[-1].children[0].column + (0 if isinstance(value, list) else 2)
        start = self._behind_key(node, parents[-1])
        return self._spliced(start, max(node.last, start), f"\n{self._block(value, indent)}")

    def _behind_key(self, node: _Node, parent: _Node) -> int:
        """Where the colon of a value's key ends."""
        number = next(n for n, each in enumerate(parent.children) if each is node)
        return self.text.index(":", parent.children[number - 1].end) + 1

    def _replace_block(self, node: _Node, value: str) -> str:
        """Another text in a literal scalar, at the same indentation."""
        body = self.text[node.start : node.end]
        header, _, content = body.partition("\n")
        first = next((line for line in content.split("\n") if line.strip()), "")
        indent = first[: len(first) - len(first.lstrip(" "))]
        if node.style == ">" or not indent or any(each.isdigit() for each in header):
            raise NotEditable("a folded text, or one without indentation: edit it by hand")
        keeps = header[1:2] if header[1:2] in ("-", "+") else ""
        wanted = value.rstrip("\n")
        tail = value[len(wanted) :]
        was = node.value[len(node.value.rstrip("\n")) :]
        if tail != was:
            keeps = "-" if tail == "" else "" if tail == "\n" else "+"
        lines = [f"{indent}{line}" if line else "" for line in wanted.split("\n")]
        comment = header[1:].lstrip("-+")
        return self._spliced(node.start, node.end, "\n".join([f"|{keeps}{comment}", *lines]))

    def _spliced(self, start: int, end: int, new: str) -> str:
        return f"{self.text[:start]}{new}{self.text[end:]}"

    # Adding

    def add(self, node: _Node, parents: Sequence[_Node], key: str, value: Any) -> str:
        if node.kind == "scalar" and node.value == "" and not node.style:
            return self.replace(node, parents, {key: value})
        if node.kind != "mapping":
            raise NotEditable("it is no mapping")
        if self.is_flow(node, parents):
            place = 0 if key in _FIRST else len(node.children)
            return self.into_flow(node, place, f"{self._key(key)}: {self._flow(value)}")
        column = node.children[0].column
        lines = self._block({key: value}, column)
        if key in _FIRST:
            start = node.children[0].start
            return self._spliced(start, start, f"{lines.lstrip(' ')}\n{' ' * column}")
        return self._after(node.last, lines)

    def item(self, node: _Node, index: int) -> str | None:
        if self._shares_line(self._dash(node, index)):
            return None
        start, end = self._lines_of(node, index)
        return textwrap.dedent(self.text[start:end]).removesuffix("\n")

    def insert(
        self,
        node: _Node,
        parents: Sequence[_Node],
        index: int,
        value: Any,
        written: str | None = None,
    ) -> str:
        if node.kind != "list" or index > len(node.children):
            raise NotEditable("it is no list, or a shorter one")
        if self.is_flow(node, parents):
            return self.into_flow(node, index, self._flow(value))
        indent = " " * self._dash_column(node)
        lines = textwrap.indent(written, indent) if written else self._block([value], len(indent))
        if index == len(node.children):
            end = self._behind(node, index - 1, len(indent)) if index else node.last
            return self._after(max(node.last, end - 1), lines)
        dash = self._dash(node, index)
        if self._shares_line(dash):
            return self._spliced(dash, dash, f"{lines.lstrip(' ')}\n{indent}")
        start = self._lines_of(node, index)[0]
        return self._spliced(start, start, f"{lines}\n")

    def into_flow(self, node: _Node, index: int, new: str) -> str:
        children = node.children
        if not children:
            return self._spliced(node.start + 1, node.start + 1, new)
        lined = "\n" in self.text[node.start : children[0].start]
        begin = self._line_start(children[0].start)
        indent = self.text[begin : children[0].start]
        gap = f"\n{indent}" if lined and not indent.strip() else " "
        if index >= len(children):
            end = children[-1].last
            return self._spliced(end, end, f",{gap}{new}")
        before = children[index].start
        return self._spliced(before, before, f"{new},{gap}")

    def _after(self, end: int, lines: str) -> str:
        """New lines below the one on which a value ends."""
        rest = _REST_OF_LINE.match(self.text, end)
        assert rest
        if rest[0].endswith("\n"):
            return self._spliced(rest.end(), rest.end(), f"{lines}\n")
        return self._spliced(rest.end(), rest.end(), f"\n{lines}\n")

    # Removing

    def remove(self, node: _Node, parents: Sequence[_Node], step: str | int) -> str:
        width = 2 if node.kind == "mapping" else 1
        child = self._child(node, step)
        if child is None:
            raise NotEditable(f"{step} is written nowhere in it")
        index = next(n for n, each in enumerate(node.children) if each is child) - (width - 1)
        if len(node.children) == width:
            return self.replace(node, parents, {} if node.kind == "mapping" else [])
        first, last = node.children[index], node.children[index + width - 1]
        if self.is_flow(node, parents):
            if not self._is_json and _COMMENTED.search(self.text, node.start, node.end):
                raise NotEditable("it is in flow style, with comments: edit it by hand")
            if index + width < len(node.children):
                return self._spliced(first.start, node.children[index + width].start, "")
            return self._spliced(node.children[index - 1].last, last.last, "")
        start = first.start if node.kind == "mapping" else self._dash(node, index)
        if node.kind == "list" and not self._shares_line(start):
            return self._spliced(*self._lines_of(node, index), "")
        rest = _REST_OF_LINE.match(self.text, last.last)
        assert rest
        if self._shares_line(start):
            if index + width >= len(node.children):
                raise NotEditable(f"{step} shares its line with something else: edit it by hand")
            following = node.children[index + width].start
            if node.kind == "list":
                following = self._dash(node, index + 1)
            return self._spliced(start, following, "")
        return self._spliced(self._line_start(start), rest.end(), "")

    # Moving

    def move(self, node: _Node, source: int, to: int) -> str:
        """The blank lines between items stay where they are."""
        first, last = sorted((source, to))
        spans = [self._lines_of(node, index) for index in range(first, last + 1)]
        items = [self.text[start:end].removesuffix("\n") + "\n" for start, end in spans]
        gaps = [self.text[one[1] : other[0]] for one, other in itertools.pairwise(spans)]
        items.insert(to - first, items.pop(source - first))
        new = "".join(map("".join, zip(items, [*gaps, ""], strict=True)))
        return self._spliced(spans[0][0], spans[-1][1], new)

    def _lines_of(self, node: _Node, index: int) -> tuple[int, int]:
        """Where the lines of an item begin and end, with the comments that belong to it.

        That is those above its dash, and those below it that are indented further than the dash.
        """
        dash = self._dash(node, index)
        if self._shares_line(dash):
            raise NotEditable("its list begins on the line of another one: edit it by hand")
        column = self._dash_column(node)
        start = self._line_start(dash)
        earliest = self._behind(node, index - 1, column) if index else 0
        while start > earliest and self._is_comment(self._line_start(start - 1), 0, column):
            start = self._line_start(start - 1)
        return start, self._behind(node, index, column)

    def _behind(self, node: _Node, index: int, column: int) -> int:
        """Where the lines of an item end, with the comments below that are part of it."""
        rest = _REST_OF_LINE.match(self.text, node.children[index].last)
        assert rest
        end = rest.end()
        while self._is_comment(end, column + 1, _WIDE):
            rest = _REST_OF_LINE.match(self.text, end)
            assert rest
            end = rest.end()
        return end

    def _is_comment(self, start: int, least: int, most: int) -> bool:
        """Whether the line that begins at a place is a comment, from that column on."""
        found = _COMMENT.match(self.text, start)
        return found is not None and least <= len(found[1]) <= most

    def _dash(self, node: _Node, index: int) -> int:
        """Where the dash of an item stands."""
        before = node.children[index - 1].last if index else node.start
        found = _DASH.match(self.text, before)
        assert found
        return found.end() - 1

    def _dash_column(self, node: _Node) -> int:
        return node.start - self._line_start(node.start)

    def _shares_line(self, index: int) -> bool:
        """Whether something stands before a place on its line, as a dash before the first key."""
        return bool(self.text[self._line_start(index) : index].strip())

    def _line_start(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    # Writing

    def _key(self, key: str) -> str:
        return json.dumps(key) if self._is_json else self._scalar(key, "")

    def _scalar(self, value: Any, style: str) -> str:
        if self._is_json:
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and style == '"':
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and style == "'" and "\n" not in value:
            return "'" + value.replace("'", "''") + "'"
        return self._flow(value)

    def _flow(self, value: Any) -> str:
        if self._is_json:
            return json.dumps(value, ensure_ascii=False)
        return _dumped(value, flow=True).removesuffix("...\n").strip("\n")

    def _block(self, value: Any, indent: int) -> str:
        lines = _dumped(value, flow=False).rstrip("\n").split("\n")
        return "\n".join(f"{' ' * indent}{line}" if line else line for line in lines)


class _Dumper(yaml.SafeDumper):
    """Writes nothing as an alias, and texts of several lines in quotes."""

    multiline = '"'

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _BlockDumper(_Dumper):
    """Writes texts of several lines as blocks."""

    multiline = "|"


def _text(dumper: _Dumper, value: str) -> Any:
    style = dumper.multiline if "\n" in value else None if is_text(value) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_BlockDumper.add_representer(str, _text)


def _dumped(value: Any, *, flow: bool) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper if flow else _BlockDumper,
        default_flow_style=flow,
        sort_keys=False,
        allow_unicode=True,
        width=_WIDE,
    )
    return text
