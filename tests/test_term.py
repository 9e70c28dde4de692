"""What a terminal is given."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_mesh.term import Paint, safe, use_color


@dataclass
class Stream:
    terminal: bool

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("reviews.default.svc", "reviews.default.svc"),
        ("Grüße 漢字 😀", "Grüße 漢字 😀"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\tc\x7f", r"a\rb\tc\x7f"),
        ("a\u202eb\u2066c\u200b", r"a\u202eb\u2066c\u200b"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("a\ud800b", r"a\ud800b"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_does_not_print_is_made_visible(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_newlines_are_kept_only_on_demand() -> None:
    assert safe("a\n\x1bb", newlines=True) == "a\n\\x1bb"
    assert safe("a\nb") == r"a\nb"


@given(st.text(st.characters()))
def test_safe_text_prints_and_encodes(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode()
    assert safe(text, newlines=True).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("choice", "terminal", "environ", "colored"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", False, {"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True),
        ("auto", False, {"FORCE_COLOR": "0"}, False),
        ("auto", False, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_color(choice: str, terminal: bool, environ: dict[str, str], colored: bool) -> None:
    assert use_color(choice, Stream(terminal), environ) is colored


def test_paint() -> None:
    assert Paint(True)("text", "bold", "red") == "\x1b[1;31mtext\x1b[0m"
    assert Paint(False)("text", "bold", "red") == "text"
