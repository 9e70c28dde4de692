"""Draws docs/picture.svg, what the README shows: `python -m tests.picture`.

It is what `kubectl mesh doctor` prints to a terminal for one of the examples.
"""

from __future__ import annotations

import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "picture.svg"
COLUMNS = 100
COMMAND = "kubectl mesh doctor -f examples/2-rules-without-effect-on-ingress.yaml"
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich has them loaded from elsewhere."""


def printed() -> str:
    """The command, and what it prints in colours."""
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_mesh", *COMMAND.split()[2:], "--color", "always"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(COLUMNS), "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
    )
    return f"$ {COMMAND}\n{done.stdout}"


def drawn(text: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text))
    return _FONTS.sub("", console.export_svg(title="kubectl mesh", unique_id="picture"))


def words(svg: str) -> list[str]:
    """What a picture says."""
    lines = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return " ".join(map(html.unescape, lines)).replace("\xa0", " ").split()


if __name__ == "__main__":
    PICTURE.write_text(drawn(printed()))
