"""YAML as kubectl reads it: what goes-yaml v2 makes of scalars, and a clear error for the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import example, given
from hypothesis import strategies as st

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.sources.yaml import MAX_DEPTH, Document, read_documents


def values(text: str, file: str = "x.yaml") -> list[Any]:
    return [
        document.value if isinstance(document, Document) else document
        for document in read_documents(text, file)
    ]


def error(text: str, file: str = "x.yaml") -> InputError:
    found = [value for value in values(text, file) if isinstance(value, InputError)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("y", True),
        ("yEs", "yEs"),
        ("~", None),
        ("", None),
        ("null", None),
        ("0x1F", 31),
        ("010", 8),
        ("0o10", 8),
        ("08", 8.0),
        ("1_000", 1000),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("1.2.3", "1.2.3"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("0x1ffffffffffffffff", float(0x1FFFFFFFFFFFFFFFF)),
        ("-18446744073709551616", -float(2**64)),
        ("0b" + "1" * 1100, float("inf")),
        ("- ", [None]),
        ("{}", {}),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: Any) -> None:
    assert values(f"a: {text}" if text != "- " else "a:\n- ") == [{"a": value}]


def test_keys_become_strings() -> None:
    assert values("{1: a, yes: b, null: c, 1.5: d}") == [
        {"1": "a", "true": "b", "null": "c", "1.5": "d"}
    ]


def test_merge_keys_and_aliases() -> None:
    text = "base: &b {x: 1, w: 1}\none: {<<: *b, w: 2}\ntwo: {<<: [*b, {z: 3}]}"
    assert values(text) == [
        {"base": {"x": 1, "w": 1}, "one": {"x": 1, "w": 2}, "two": {"x": 1, "w": 1, "z": 3}}
    ]


def test_documents_are_split_before_they_are_parsed() -> None:
    found = values("a: 1\n---\nb: [\n---\n# nothing\n--- # comment\nc: 3\n")
    assert found[0] == {"a": 1}
    assert isinstance(found[1], InputError)
    assert found[1].line in (3, 4)  # libyaml's versions differ
    assert found[2] == {"c": 3}


def test_a_line_of_dashes_inside_a_block_scalar_is_text() -> None:
    assert values("a: |\n  x\n  ---\n  y\n") == [{"a": "x\n---\ny\n"}]


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key `a` stands twice"),
        ("a: !!python/object/apply:os.system [x]", 1, 4, "tag `!!python/object/apply:os.system`"),
        ("a: !secret x", 1, 4, "tag `!secret`"),
        ("a: !!int x", 1, 4, "not of the type !!int"),
        ("a: *b", 1, 4, "`*b` stands for nothing"),
        ("a: &b [*b]", 1, 8, "`*b` stands for nothing"),
        ("? [a]\n: b", 1, 3, "key must be a string"),
        ("a: b\n...\nc: d", 3, 1, "document start"),
        ("a: '", 1, 5, "not YAML"),
        ("\ta: 1", 1, 1, "not YAML"),
        ("a: \x07", 1, 4, "the character 0x7"),
        ("[" * (MAX_DEPTH + 1), 1, MAX_DEPTH + 1, "nested deeper than 100"),
        ("<<: 1", 1, 1, "`<<` merges a mapping"),
        ("{{ .Values.x }}: 1", 1, 2, "render it first"),
    ],
)
def test_what_cannot_be_read_is_named_with_line_and_column(
    text: str, line: int, column: int, part: str
) -> None:
    found = error(text)
    assert part in found.message
    assert (found.line, found.column) == (line, column)


def test_aliases_may_not_multiply() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
    )
    assert "aliases of this file stand for more than 1,000,000 values" in error(bomb).message


@pytest.mark.parametrize("item", ["myapp.com", '"myapp.com" # or "*" for tests'])
def test_keys_indented_into_the_list_above_are_recognised(item: str) -> None:
    text = f"""\
kind: VirtualService
spec:
  hosts:
  - {item}
    gateways:
    - myapp-gateway
    http:
    - route: []
"""
    found = error(text)
    assert "is `gateways` indented too far? is `http` indented too far?" in found.message
    assert "like `hosts`, at column 3" in found.message
    assert (found.line, found.column) == (5, 5)


def test_three_dots_of_a_listing_are_named() -> None:
    """As Istio's documentation leaves the other rules of a VirtualService out."""
    found = error("http:\n- route: []\n- match:\n  ...\n")
    assert found.message == (
        "not YAML: `...` is not a value: replace it, or delete it with the key above it"
    )
    assert (found.line, found.column) == (4, 3)
    assert values("a: 1\n...\n---\nb: ...\n") == [{"a": 1}, {"b": "..."}]


def test_a_list_item_that_is_a_mapping_is_no_such_slip() -> None:
    assert values("a:\n- b: 1\n  c: 2\n") == [{"a": [{"b": 1, "c": 2}]}]
    assert "indented too far" not in error("a:\n- b: 1\n   c: 2\n").message


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ('{"a": 1,}', 1, 9, "not JSON"),
        ('{"a": 1,\n "a": 2}', 2, 2, "the key `a` stands twice"),
        ('{"a": NaN}', 1, 1, "NaN is no JSON number"),
        ('{"a":' * 200, 1, 1, "not JSON"),
        ("[" * 150 + "]" * 150, 1, 101, "nested deeper"),
    ],
)
def test_json_errors(text: str, line: int, column: int, part: str) -> None:
    found = error(text, "x.json")
    assert part in found.message
    if part != "not JSON" or column != 1:
        assert (found.line, found.column) == (line, column)


def test_several_json_values_in_one_file() -> None:
    documents = list(read_documents('{"a": 1}\n\n  {"b": {"c": 2}}\n', "x.json"))
    assert [document.value for document in documents if isinstance(document, Document)] == [
        {"a": 1},
        {"b": {"c": 2}},
    ]
    assert isinstance(documents[1], Document)
    position = documents[1].locate(("b", "c"))
    assert (position.line, position.column) == (3, 10)


def test_a_flow_mapping_is_not_taken_for_broken_json() -> None:
    assert values("{a: b}") == [{"a": "b"}]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("spec", "http", 0, "route", 1), (9, 9)),
        (("spec", "http", 0, "route", 1, "weight"), (10, 9)),
        (("spec", "http"), (6, 3)),
        (("spec", "http", 0, "timeout"), (7, 5)),
        ((), (4, 1)),
        (("spec", "nowhere"), (5, 1)),
    ],
)
def test_every_field_is_found_again(path: Path, place: tuple[int, int]) -> None:
    text = """\
a: 1
---

kind: VirtualService
spec:
  http:
  - route:
      - weight: 10
      - x: 1
        weight: 90
"""
    document = list(read_documents(text, "x.yaml"))[1]
    assert isinstance(document, Document)
    position = document.locate(path)
    assert (position.line, position.column) == place


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_what_pyyaml_writes_is_read_back(value: dict[str, Any]) -> None:
    text = pyyaml.safe_dump(value, default_style='"')
    assert values(text) == [value]


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=5))
def test_what_json_writes_is_read_back(value: dict[str, Any]) -> None:
    assert values(json.dumps(value)) == [value]


def test_a_long_string_behind_many_aliases_is_a_bomb_too() -> None:
    text = f"a: &a {'x' * 100_000}\nb:\n" + "- *a\n" * 4_000
    assert "aliases of this file stand for more than 1,000,000 values" in error(text).message


def test_a_merge_key_behind_an_alias_is_a_key() -> None:
    assert values("a: &x <<\n*x : {b: 1}") == [{"a": "<<", "<<": {"b": 1}}]


def test_a_bad_byte_spoils_its_document_only() -> None:
    found = values(b"a: 1\n---\nb: 2 # caf\xe9\n---\nc: 3\n".decode(errors="surrogateescape"))
    assert found[0] == {"a": 1}
    assert str(found[1]) == "x.yaml:3:11: not UTF-8: the byte 0xe9"
    assert found[2] == {"c": 3}


def test_many_json_values_on_one_line_and_on_many() -> None:
    for separator in ("", "\n"):
        documents = list(read_documents(separator.join(['{"a": {"b": 1}}'] * 20_000), "x.json"))
        assert len(documents) == 20_000
        last = documents[-1]
        assert isinstance(last, Document)
        place = last.locate(("a", "b"))
        assert (place.line, place.column) == ((20_000, 8) if separator else (1, 15 * 19_999 + 8))


def test_places_are_the_same_however_often_they_are_asked_for() -> None:
    text = "a:\n  y: [1, {b: 2}]\n  <<: {z: 3}\n'1': x\n"
    (document,) = read_documents(text, "x.yaml")
    assert isinstance(document, Document)
    for _ in range(20):
        for path, place in (
            ((), (1, 1)),
            (("a", "true", 1, "b"), (2, 11)),
            (("a", "z"), (3, 8)),
            (("1",), (4, 1)),
            (("a", "none"), (1, 1)),
        ):
            position = document.locate(path)
            assert (position.line, position.column) == place


@example("{}0")
@given(st.text() | st.text(alphabet="ab:-*&<>{}[]!|#'\"0x19 \n\t?,%@`~."))
def test_no_text_makes_it_raise(text: str) -> None:
    for document in read_documents(text, "x.yaml"):
        if isinstance(document, Document):
            document.locate(("a", 0))
    values(text, "x.json")
