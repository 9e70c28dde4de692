"""Edits of YAML and JSON text: the value is as wanted, and every other line as it was."""

from __future__ import annotations

import copy
import difflib
import json
import os
import random
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_mesh.changes.text import NotEditable, added, item, moved, removed, replaced
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.sources.yaml import Document, read_documents

EDITS = int(os.environ.get("KUBECTL_MESH_EDITS", "2000"))
TEXTS = [
    """\
# top
apiVersion: v1   # version
kind: Service
metadata:
  name: "web"
  labels: {app: web, "x": 'y'}   # flow
spec:
  ports:
  - name: http   # the port
    port: 80

  # before the second
  - {name: tcp, port: 90}
  -   name: odd
      port: 1
  selector:
    app: web
# the end
""",
    """\
metadata:
    name: \u00fcn\u00efcode
    annotations:
spec:
    hosts: [a, "b",
      c]   # three
    http:
        -   match:
                - uri:
                    prefix: /hello
            route:
                - destination: { host: web,  subset: v1 }
                  weight: 100
        - route: [{destination: {host: x}}]
        - - nested
          - list
""",
    """\
kind: ConfigMap
data:
  nginx.conf: |
    http {
      # comment
      server {
      }
    }

  other: |-
    a
      b
  empty: ""
  n: 1""",
    json.dumps({"kind": "Service", "spec": {"ports": [{"a": 1}, {"b": "x"}], "s": {}}}, indent=2),
    '{"kind":"Service","spec":{"ports":[{"a":1},{"b":"x"}],\t"s":{}}}\n',
]
VALUES: list[Any] = [
    *("new", "yes", "", "multi\nline\n", "a: b #c", " x", "012", "'", '"', "\u00fc"),
    *(5, True, None, {"a": "b"}, [1, 2], [], {}, {"host": "h", "x": {"y": [{"z": "1"}]}}),
]


def value_of(text: str) -> Any:
    (found,) = read_documents(text, "it.json" if text.startswith("{") else "it.yaml")
    assert isinstance(found, Document), f"{found}\n{text}"
    return found.value


def paths(value: Any, here: Path = ()) -> Iterator[tuple[Path, Any]]:
    steps: list[Any] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        yield (*here, step), value[step]
        yield from paths(value[step], (*here, step))


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def test_the_text_says_what_was_wanted() -> None:
    """Random edits, one after the other, of texts in all styles."""
    choose = random.Random(EDITS)
    done = 0
    while done < EDITS:
        text = choose.choice(TEXTS)
        is_json = text.startswith("{")
        for _ in range(choose.randint(1, 3)):
            value = value_of(text)
            places = list(paths(value))
            if not places:
                break
            path, found = choose.choice(places)
            wanted = copy.deepcopy(value)
            new = copy.deepcopy(choose.choice(VALUES))
            kind = choose.choice(["replace", "remove", "add", "insert", "move"])
            try:
                if kind == "remove":
                    del at(wanted, path[:-1])[path[-1]]
                    text = removed(text, path, is_json=is_json)
                elif kind == "move" and isinstance(found, list) and found:
                    source, to = (choose.randrange(len(found)) for _ in range(2))
                    items = at(wanted, path)
                    items.insert(to, items.pop(source))
                    text = moved(text, (*path, source), (*path, to), is_json=is_json)
                elif kind == "insert" and isinstance(found, list):
                    index = choose.randint(0, len(found))
                    at(wanted, path).insert(index, new)
                    text = added(text, (*path, index), new, is_json=is_json)
                elif kind == "add" and isinstance(found, dict) and "fresh" not in found:
                    at(wanted, path)["fresh"] = new
                    text = added(text, (*path, "fresh"), new, is_json=is_json)
                else:
                    at(wanted, path[:-1])[path[-1]] = new
                    text = replaced(text, path, new, is_json=is_json)
            except NotEditable:
                continue
            assert value_of(text) == wanted, f"{kind} {path} {new!r}\n{text}"
            done += 1


def changed(before: str, after: str) -> list[str]:
    return [
        line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"
    ]


SERVICE, ROUTES, CONFIG, PRETTY, DENSE = TEXTS


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (SERVICE, replaced(SERVICE, ("metadata", "name"), "b'"), 2),
        (SERVICE, replaced(SERVICE, ("metadata", "labels", "x"), "it's"), 2),
        (SERVICE, added(SERVICE, ("spec", "ports", 0, "appProtocol"), "http"), 1),
        (SERVICE, added(SERVICE, ("spec", "ports", 1, "appProtocol"), "http"), 2),
        (SERVICE, added(SERVICE, ("spec", "ports", 2, "appProtocol"), "http"), 1),
        (SERVICE, added(SERVICE, ("spec", "type"), "ClusterIP"), 1),
        (SERVICE, added(SERVICE, ("spec", "ports", 3), {"name": "x", "port": 2}), 2),
        (SERVICE, removed(SERVICE, ("spec", "ports", 0, "port")), 1),
        (SERVICE, removed(SERVICE, ("spec", "ports", 1)), 2),
        (
            ROUTES,
            replaced(ROUTES, ("spec", "http", 0, "route", 0, "destination", "subset"), "v2"),
            2,
        ),
        (ROUTES, removed(ROUTES, ("spec", "http", 0, "route", 0, "weight")), 1),
        (ROUTES, removed(ROUTES, ("spec", "hosts", 1)), 3),
        (ROUTES, added(ROUTES, ("metadata", "annotations", "a"), "b"), 1),
        (CONFIG, replaced(CONFIG, ("data", "nginx.conf"), "http {\n}\n"), 3),
        (PRETTY, added(PRETTY, ("spec", "ports", 0, "c"), 2, is_json=True), 3),
        (PRETTY, replaced(PRETTY, ("spec", "ports", 1, "b"), "\u00fc", is_json=True), 2),
    ],
)
def test_no_other_line_is_touched(before: str, after: str, lines: int) -> None:
    assert len(changed(before, after)) == lines, after


def test_quotes_comments_and_indentation_stay() -> None:
    after = replaced(SERVICE, ("metadata", "labels", "x"), "it's")
    assert """  labels: {app: web, "x": 'it''s'}   # flow\n""" in after
    after = added(ROUTES, ("spec", "http", 1, "timeout"), "1s")
    assert "        - route: [{destination: {host: x}}]\n          timeout: 1s\n" in after
    after = replaced(CONFIG, ("data", "nginx.conf"), "http {\n  # comment\n}\n")
    assert "  nginx.conf: |\n    http {\n      # comment\n    }\n\n  other: |-\n" in after


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a: &x {b: 1}\nc: *x\n", ("a", "b")),
        ("a: &x {b: 1}\nc: *x\n", ("c", "b")),
        ("a: &x {b: 1}\nc: *x\n", ("c",)),
        ("a: &x {b: 1}\nc: {<<: *x}\n", ("c", "b")),
        ("a: >\n  folded\n  text\n", ("a",)),
    ],
)
def test_what_is_shared_or_folded_is_not_edited(text: str, path: Path) -> None:
    with pytest.raises(NotEditable, match=r"by hand|written nowhere"):
        replaced(text, path, "x\ny\n")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a: 1\n? b\n: 2\n", ("b",)),
        ("? a\n: 1\n? b\n: 2\n", ("b",)),
        ('{"a"\n:\n1, "b": 2}', ("a",)),
    ],
)
def test_what_is_written_as_nobody_writes_it_is_not_edited(text: str, path: Path) -> None:
    with pytest.raises(NotEditable, match="by hand"):
        removed(text, path, is_json=text[0] == "{")


def test_a_dash_in_a_comment_is_none_of_the_list() -> None:
    text = "a:\n-  # one - two\n  x\n# three - four\n- y\n"
    assert added(text, ("a", 0), "m") == "a:\n- m\n" + text[3:]
    assert removed(text, ("a", 0)) == "a:\n# three - four\n- y\n"
    assert removed(text, ("a", 1)) == "a:\n-  # one - two\n  x\n"


def test_characters_beyond_the_basic_plane_are_one_in_json_too() -> None:
    text = '{"a": "\U0001f600\\ud83d", "b": 1}'
    assert replaced(text, ("b",), 2, is_json=True) == text.replace("1", "2")


def test_what_is_moved_takes_its_comments_along() -> None:
    a, b, c = "# a\n# more\n- x: 1  # x\n  y: |\n    z\n", "- {b: 1}\n", "# c\n-   q"
    text = f"{a}{b}\n{c}"
    assert moved(text, (0,), (1,)) == f"{b}{a}\n{c}"
    assert moved(text, (0,), (2,)) == f"{b}{c}\n\n{a}"
    assert moved(text, (1,), (0,)) == f"{b}{a}\n{c}"
    assert moved(text, (2,), (0,)) == f"{c}\n{a}\n{b}"
    assert moved(text, (1,), (1,)) == text
    assert moved("[a, {b: 1} , c]", (1,), (2,)) == "[a, c, {b: 1}]"


def test_comments_belong_to_the_item_above_or_below() -> None:
    """Those indented further than the dash are of the item above; a text's lines are none."""
    a, b = "- x: |\n    y\n    # text\n  # x: 2\n", "# b\n- {z: 1}\n"
    assert moved(a + b, (0,), (1,)) == b + a
    assert removed(a + b, (0,)) == b
    assert removed(a + b, (1,)) == a
    assert added(a + b, (1,), 5) == f"{a}- 5\n{b}"
    assert item(a + b, (1,)) == b.removesuffix("\n")
    nested = "l:\n" + textwrap.indent(a, "  ")
    assert added(nested, ("l", 1), 5) == f"{nested}  - 5\n"
    for edit in (lambda text: moved(text, (0,), (1,)), lambda text: removed(text, (0,))):
        with pytest.raises(NotEditable, match="in flow style, with comments"):
            edit("[ # a\n  a, # about a\n  b]")


def test_a_copied_item_keeps_its_comments() -> None:
    lines = item(
        "http:\n    # mine\n    - a: 1  # one\n      b: |\n        x\n\n        y\n", ("http", 0)
    )
    assert added("l:\n- z\n", ("l", 0), {"a": 1, "b": "x\n\ny\n"}, written=lines) == (
        "l:\n# mine\n- a: 1  # one\n  b: |\n    x\n\n    y\n- z\n"
    )
