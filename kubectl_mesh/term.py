"""What a terminal is given: text that cannot harm it, colours where they are wanted, a width."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Protocol

COLOR_CHOICES = ("auto", "always", "never")


class Stream(Protocol):
    """As much of a text stream as is asked here."""

    def isatty(self) -> bool: ...


def safe(text: str, *, newlines: bool = False) -> str:
    r"""`text` with everything that does not print made visible: \x1b, \u202e, \u2028.

    That is control characters of both sets, with them every escape sequence, and all that changes
    the direction or the look of what follows (bidi overrides, zero width, odd spaces), besides
    surrogates, which no stream encodes. A newline is kept if `newlines`, else becomes \n.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (newlines and character == "\n")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def use_color(choice: str, stream: Stream, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes to `stream`; `choice` is one of COLOR_CHOICES.

    On "auto", NO_COLOR forbids it, then FORCE_COLOR or CLICOLOR_FORCE (not 0) demand it, then a
    terminal that is not dumb gets it.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return environ.get("TERM") != "dumb" and stream.isatty()


def width() -> int:
    """The columns of the terminal, or of COLUMNS; 80 where standard output is no terminal."""
    return shutil.get_terminal_size((80, 24)).columns


class Paint:
    """Wraps text in colours, or leaves it alone if not `enabled`."""

    _CODES: Mapping[str, str] = {
        "bold": "1",
        "dim": "2",
        "red": "31",
        "yellow": "33",
        "cyan": "36",
        "green": "32",
    }

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, *styles: str) -> str:
        if not self.enabled or not text:
            return text
        codes = ";".join(self._CODES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"


def emit(text: str) -> None:
    """Writes a result to standard output, also where its reader has gone away (`| head`)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
