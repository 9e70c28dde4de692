"""YAML and JSON text into plain objects, as kubectl reads them, and back to line and column.

kubectl's rules, which differ from PyYAML's: documents are split at lines of `---` before they are
parsed (so one broken document leaves the others readable), plain scalars follow YAML 1.1 as
go-yaml v2 has it (`yes`, `on` and `y` are booleans, dates are strings), a key that stands twice is
refused, mapping keys become strings. Text is taken for hostile: no tag builds an object, aliases
may not multiply, depth and size are bounded.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Path, Position

MAX_DEPTH = 100
MAX_ALIASED = 1_000_000
"""How many values the aliases of one file may stand for; a long string counts for several."""
MANY = 8
"""After so many questions for places in one document all of them are kept."""

_PARSER: Any = getattr(getattr(yaml, "cyaml", None), "CParser", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {
    spelling: value
    for value, words in ((True, "y yes true on"), (False, "n no false off"))
    for word in words.split()
    for spelling in (word, word.capitalize(), word.upper())
}
_NULLS = {"", "~", "null", "Null", "NULL"}
_FLOATS = {
    spelling: float(word.replace(".", ""))
    for word in (".inf", "+.inf", "-.inf", ".nan")
    for spelling in (word, word.upper(), word.replace("inf", "Inf").replace("nan", "NaN"))
}
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SEPARATOR = re.compile(r"^---[ \t\r]*(?:#.*)?$", re.MULTILINE)
_KEY = re.compile(r"( +)([A-Za-z][\w-]*):( |$)")
_SCALAR_ITEM = re.compile(r"""( *)- +("[^"]*"|'[^']*'|(?!\S+:(\s|$))\S)""")
_COMMENT_OR_BLANK = re.compile(r"\s*(#|$)")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""What errors="surrogateescape" makes of bytes that are not UTF-8."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


@dataclass(slots=True)
class Document:
    """One document of a file: its value, and enough to find a field's place again.

    `text` starts at `first_line`, `first_column` (columns count from 0).
    """

    file: str
    text: str
    first_line: int
    value: Any
    is_json: bool = False
    first_column: int = 0
    _places: dict[Path, tuple[int, int]] | None = None
    _asked: int = 0

    def locate(self, path: Path) -> Position:
        """The place of the field at `path`, or of the longest part of the path that is written.

        The text is walked again for it, up to the field; who asks often pays for all at once.
        """
        self._asked += 1
        if self._places is None and self._asked > MANY:
            self._places = dict(_places(self.text, self.is_json))
        if self._places is None:
            line, column = _place(self.text, self.is_json, path)
        else:
            line, column = next(
                place
                for length in range(len(path), -1, -1)
                if (place := self._places.get(path[:length])) or not length
            ) or (0, 0)
        column += self.first_column if line == 0 else 0
        return Position(self.file, self.first_line + line, column + 1)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Builds large trees without the cyclic collector walking them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_documents(text: str, file: str) -> Iterator[Document | InputError]:
    """Every document of a file in order, an InputError standing for each that cannot be read.

    Empty documents are left out. `file` is only used to name the place of an error.
    """
    if text.startswith("\ufeff"):
        text = text[1:]
    bad = _NOT_UTF8.search(text)
    if not bad and text.lstrip()[:1] == "{":
        documents, error = _read_json(text, file)
        if error is None:
            yield from documents
            return
        if file.endswith(".json"):
            yield from documents
            yield error
            return
    builder = _Builder(file)
    for first_line, part in _split(text):
        try:
            if bad:
                _check_utf8(part, file, first_line)
            value = builder.build(part, first_line)
        except InputError as error:
            yield error
            continue
        if value is not None:
            yield Document(file, part, first_line, value)


def _check_utf8(part: str, file: str, first_line: int) -> None:
    bad = _NOT_UTF8.search(part)
    if bad:
        before = part[: bad.start()]
        raise InputError(
            f"not UTF-8: the byte {ord(bad[0]) - 0xDC00:#04x}",
            file,
            first_line + before.count("\n"),
            len(before) - before.rfind("\n"),
        )


def _split(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a stream with the line each starts at, split as kubectl does."""
    start, line = 0, 1
    for separator in _SEPARATOR.finditer(text):
        if separator.start() > start:
            yield line, text[start : separator.start()]
        end = min(separator.end() + 1, len(text))
        line += text.count("\n", start, end)
        start = end
    if start < len(text):
        yield line, text[start:]


class _Builder:
    """Builds values from libyaml's events, which is twice as fast as its loader."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.plain: dict[str, Any] = {}
        self.aliased = 0

    def build(self, text: str, first_line: int) -> Any:
        """The value of one document; None where it is empty. Raises InputError."""
        self.first_line = first_line
        self.template_hint = (
            "; if this is a Helm template, render it first (helm template)" if "{{" in text else ""
        )
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0
        try:
            self.next = _PARSER(text).get_event
            self.next()
            event = self.next()
            if isinstance(event, yaml.StreamEndEvent):
                return None
            value = self._node(self.next(), 0)
            self.next()
            event = self.next()
            if not isinstance(event, yaml.StreamEndEvent):
                raise self._error(
                    "a second document starts here; put a line of `---` between them",
                    event.start_mark,
                )
            return value
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error, text) from None
        except yaml.reader.ReaderError as error:
            raise self._unprintable(error, text) from None
        except yaml.YAMLError as error:
            raise InputError(f"not YAML: {error}", self.file, first_line, 1) from None

    def _node(self, event: Any, depth: int) -> Any:
        kind = event.__class__
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1 + len(event.value) // 64)
            return value
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if depth >= MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        before = self.count
        if kind is yaml.MappingStartEvent:
            value = self._mapping(event, depth + 1)
        else:
            value = self._sequence(event, depth + 1)
        self.count += len(value)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.count - before + 1)
        return value

    def _mapping(self, start: Any, depth: int) -> dict[str, Any]:
        if start.tag:
            self._check_tag(start, "map")
        next_event, scalar, node = self.next, self._scalar, self._node
        mapping: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while True:
            event = next_event()
            if event.__class__ is yaml.MappingEndEvent:
                break
            if event.__class__ is yaml.ScalarEvent and not event.anchor:
                key = scalar(event)
            else:
                key = node(event, depth)
            if key.__class__ is not str:
                if isinstance(key, (dict, list)):
                    raise self._error(
                        f"a mapping's key must be a string{self.template_hint}", event.start_mark
                    )
                key = json.dumps(key)
            following = next_event()
            if following.__class__ is yaml.ScalarEvent and not following.anchor:
                value = scalar(following)
            else:
                value = node(following, depth)
            if key in mapping:
                raise self._error(
                    f"the key `{key}` stands twice in this mapping; keep one", event.start_mark
                )
            if key == "<<" and event.__class__ is yaml.ScalarEvent and event.implicit[0]:
                merged += self._merge_sources(value, event)
            else:
                mapping[key] = value
        for source in merged:
            mapping = {**source, **mapping}
        return mapping

    def _merge_sources(self, value: Any, event: Any) -> list[dict[str, Any]]:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise self._error("`<<` merges a mapping or a list of mappings", event.start_mark)
        return sources

    def _sequence(self, start: Any, depth: int) -> list[Any]:
        if start.tag:
            self._check_tag(start, "seq")
        items: list[Any] = []
        while True:
            event = self.next()
            if event.__class__ is yaml.SequenceEndEvent:
                return items
            items.append(self._node(event, depth))

    def _alias(self, event: Any) -> Any:
        try:
            value, size = self.anchors[event.anchor]
        except KeyError:
            raise self._error(
                f"the alias `*{event.anchor}` stands for nothing: no finished value before it "
                f"is named `&{event.anchor}`",
                event.start_mark,
            ) from None
        self.count += size
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise self._error(
                f"the aliases of this file stand for more than {MAX_ALIASED:,} values; "
                "write them out, or split the file",
                event.start_mark,
            )
        return value

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if event.implicit[0]:
            try:
                return self.plain[text]
            except KeyError:
                return self.plain.setdefault(text, _plain(text))
        if event.implicit[1] or event.tag in (None, "!", _TAG + "str"):
            return text
        self._check_tag(event, "bool", "int", "float", "null", "timestamp")
        if event.tag == _TAG + "timestamp":
            return text
        value = _plain(text)
        wanted = event.tag.removeprefix(_TAG)
        if wanted == "float" and type(value) is int:
            return float(value)
        if wanted != {"NoneType": "null"}.get(type(value).__name__, type(value).__name__):
            raise self._error(f"`{text}` is not of the type !!{wanted}", event.start_mark)
        return value

    def _check_tag(self, event: Any, *allowed: str) -> None:
        if event.tag and event.tag not in {"!", *(_TAG + name for name in allowed)}:
            tag = event.tag.replace(_TAG, "!!")
            raise self._error(
                f"the tag `{tag}` is not allowed here; a manifest holds plain values only",
                event.start_mark,
            )

    def _error(self, message: str, mark: Any) -> InputError:
        return InputError(message, self.file, self.first_line + mark.line, mark.column + 1)

    def _unprintable(self, error: Any, text: str) -> InputError:
        before = text[: error.position] if isinstance(error.position, int) else ""
        character = f"{error.character:#x}" if isinstance(error.character, int) else "?"
        return InputError(
            f"not YAML: the character {character} may not stand in a manifest",
            self.file,
            self.first_line + before.count("\n"),
            len(before) - before.rfind("\n"),
        )

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> InputError:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            return InputError(f"not YAML: {error.problem}", self.file, self.first_line, 1)
        lines = text.split("\n")
        hint = _indentation_hint(lines, mark.line) or _placeholder_hint(lines, mark.line)
        if hint:
            line, column, message = hint
            return InputError(f"not YAML: {message}", self.file, self.first_line + line, column + 1)
        context = f" {error.context}" if error.context else ""
        return self._error(f"not YAML: {error.problem}{context}{self.template_hint}", mark)


def _placeholder_hint(lines: list[str], failed: int) -> tuple[int, int, str] | None:
    """Recognises the `...` by which documentation leaves something out, as in `- match:`, `...`."""
    for number in range(min(failed, len(lines) - 1), max(failed - 3, -1), -1):
        if lines[number].startswith(" ") and lines[number].strip() == "...":
            message = "`...` is not a value: replace it, or delete it with the key above it"
            return number, lines[number].index("."), message
    return None


def _indentation_hint(lines: list[str], failed: int) -> tuple[int, int, str] | None:
    """Recognises a key that stands under a list's scalar item instead of under the list's key.

    hosts:
    - myapp.com
      gateways:        <- meant to stand under `hosts`, at its column
    """
    for number in range(min(failed, len(lines) - 1), max(failed - 4, 0), -1):
        key = _KEY.match(lines[number])
        above = number - 1
        while above > 0 and _COMMENT_OR_BLANK.match(lines[above]):
            above -= 1
        item = _SCALAR_ITEM.match(lines[above])
        if not key or not item or len(key[1]) <= len(item[1]):
            continue
        owner = next(
            (
                match
                for line in reversed(lines[:above])
                if (match := re.match(r"( *)(- )?([A-Za-z][\w-]*):\s*(#.*)?$", line))
                and len(match[1]) <= len(item[1])
            ),
            None,
        )
        place = (
            f" like `{owner[3]}`, at column {len(owner[1]) + len(owner[2] or '') + 1}"
            if (owner)
            else ""
        )
        indented = [
            other[2]
            for line in lines[number:]
            if (other := _KEY.match(line)) and other[1] == key[1]
        ]
        asked = " ".join(f"is `{name}` indented too far?" for name in dict.fromkeys(indented))
        return (
            number,
            len(key[1]),
            f"{asked} It stands inside the list item above it; move it out{place}",
        )
    return None


def _plain(text: str) -> Any:
    """What an unquoted scalar stands for in YAML 1.1, as go-yaml v2 resolves it."""
    if text in _NULLS:
        return None
    first = text[0]
    if first in "yYnNtTfFoO":
        return _BOOLEANS.get(text, text)
    if first in "0123456789+-.":
        if _INT.match(text):
            return _integer(text)
        if _FLOAT.match(text):
            return float(text)
        return _FLOATS.get(text, text)
    return text


def is_text(text: str) -> bool:
    """Whether an unquoted scalar stands for itself; for kubectl `y` and `012` do not."""
    return bool(_plain(text) == text)


def _integer(text: str) -> int | float | str:
    """An integer of 64 bits; a larger one is a float, as in Go."""
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.isdigit() and digits[0] != "0" and len(digits) > 20:
        return sign * float(digits)
    try:
        if digits.startswith(("0x", "0b", "0o")):
            value = int(digits, 0)
        else:
            value = int(digits, 8 if digits.startswith("0") and len(digits) > 1 else 10)
        return sign * (value if value < 1 << 64 else float(value))
    except ValueError:
        return text
    except OverflowError:
        return sign * float("inf")


class _KeyTwice(ValueError):
    """A key that stands twice in a JSON object."""


def _read_json(text: str, file: str) -> tuple[list[Document], InputError | None]:
    """The JSON values of a text, one after the other, and what stopped the reading."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
    documents: list[Document] = []
    end, line, line_start = 0, 1, 0
    try:
        while True:
            start = _BLANKS.match(text, end).end()  # type: ignore[union-attr]
            line += text.count("\n", end, start)
            line_start = max(line_start, text.rfind("\n", end, start) + 1)
            if start == len(text):
                return documents, None
            value, end = decoder.raw_decode(text, start)
            _check_depth(value)
            documents.append(Document(file, text[start:end], line, value, True, start - line_start))
            line += text.count("\n", start, end)
            line_start = max(line_start, text.rfind("\n", start, end) + 1)
    except json.JSONDecodeError as error:
        return documents, InputError(f"not JSON: {error.msg}", file, error.lineno, error.colno)
    except RecursionError:
        reason = f"nested deeper than {MAX_DEPTH} levels"
    except ValueError as error:
        reason = str(error) if isinstance(error, _KeyTwice) else f"not JSON: {error}"
    try:
        _Builder(file).build(text.replace("\t", " "), 1)
    except InputError as error:
        if error.message == reason:
            return documents, error
    return documents, InputError(reason, file, text.count("\n", 0, end) + 1, 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _KeyTwice(f"the key `{twice}` stands twice in this mapping; keep one")
    return mapping


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise RecursionError


def _place(text: str, is_json: bool, path: Path) -> tuple[int, int]:
    """Line and column, from 0, of the longest part of `path` that is written."""
    best, found = -1, (0, 0)
    for here, place in _places(text, is_json):
        if len(here) > best and here == path[: len(here)]:
            best, found = len(here), place
            if best == len(path):
                break
    return found


def masked_json(text: str) -> str:
    """JSON as libyaml can read it, with each value where it was: without tabs and surrogates."""
    return _SURROGATE.sub("??????", text.replace("\t", " "))


def _places(text: str, is_json: bool) -> Iterator[tuple[Path, tuple[int, int]]]:
    """The path of every mapping key and list item, with line and column from 0, in order.

    What stands behind an alias has no place of its own. Ends where the text cannot be read.
    """
    if is_json:
        text = masked_json(text)
    next_event = _PARSER(text).get_event
    open_nodes: list[_Open] = []
    while True:
        try:
            event = next_event()
        except yaml.YAMLError:
            return
        kind = event.__class__
        if kind is yaml.StreamEndEvent:
            return
        if kind in (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent):
            continue
        top = open_nodes[-1] if open_nodes else None
        if kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            open_nodes.pop()
            continue
        path: Path = ()
        mark = event.start_mark
        merged = False
        if top is not None:
            if top.is_mapping and top.key is None:
                top.key, top.mark = _key_text(event), mark
                continue
            if top.is_mapping:
                merged = top.key == "<<"
                path = top.path if merged else (*top.path, top.key or "")
                mark, top.key = top.mark, None
            else:
                path = (*top.path, top.index)
                top.index += 1
        if not merged:
            yield path, (mark.line, mark.column)
        if kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
            open_nodes.append(_Open(path, kind is yaml.MappingStartEvent))


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet; `key` is the key whose value comes next."""

    path: Path
    is_mapping: bool
    key: str | None = None
    mark: Any = None
    index: int = 0


def _key_text(event: Any) -> str:
    text: str = getattr(event, "value", "")
    if getattr(event, "implicit", (False,))[0]:
        value = _plain(text)
        return value if isinstance(value, str) else json.dumps(value)
    return text
