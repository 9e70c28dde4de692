"""Writes the documentation that is generated from the code: `python -m tests.docs`.

That is docs/rules.md, the tables of docs/istio-versions.md and docs/architecture.md between their
marks, and the output under each `$ kubectl mesh ...` of a console block in the README, in
docs/routes.md, in docs/merging.md and in the pages of docs/how-to. With `--check` it writes nothing
and exits with 1 where a page is not what it would write.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kubectl_mesh.mesh import versions
from kubectl_mesh.report.rule_page import page
from kubectl_mesh.rules import RULES

ROOT = Path(__file__).parent.parent
_ENDS = ("Start", "End")
_CONSOLE = re.compile(r"(```console\n\$ kubectl mesh ([^\n]*)\n).*?```", re.DOTALL)


def rules_page() -> str:
    """docs/rules.md: every rule, with the same text as `kubectl mesh explain`."""
    rows = "\n".join(
        f"| [{rule.code}](#{rule.code.lower()}) | {rule.name} | {rule.severity.label} "
        f"| {rule.summary} |"
        for rule in RULES
    )
    pages = "\n".join(page(rule) for rule in RULES)
    return f"""\
# Rules

<!-- Written by `python -m tests.docs` from kubectl_mesh/rules/. Change the text there. -->

What `kubectl mesh doctor` looks for. `kubectl mesh explain CODE` prints the same text. A code
never changes its meaning. An *error* says that requests fail or are routed otherwise than the
configuration says; a *warning*, that they will under a condition that cannot be seen from the
input, or that something is dead weight; an *info* is worth knowing, and nothing fails.

A finding is silenced with `--ignore CODE`, `--ignore CODE=kind/namespace/name`, or with the
annotation `mesh.kubectl.dev/ignore: CODE` on the object.

| code | name | severity | summary |
|---|---|---|---|
{rows}

{pages}"""


def differences() -> str:
    """The table of what the model does by the release of the mesh."""
    known = sorted(versions.differences(), key=lambda each: (each.since, each.what))
    rows = [
        f"| {versions.written(each.since)} | {each.what} | {each.before} "
        f"| {f'`{each.switch}=false`' if each.switch else '-'} |"
        for each in known
    ]
    head = "| Since | What Istio does | Before | What brings that back |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def modules() -> str:
    """A table for each package: its modules, and what their docstrings say of them.

    Of rules/ without the rules themselves, which docs/rules.md has.
    """
    package = ROOT / "kubectl_mesh"
    folders = sorted({file.parent for file in package.rglob("*.py")})
    return "\n".join(filter(None, map(_modules_of, folders)))


def _modules_of(folder: Path) -> str:
    files = [file for file in sorted(folder.glob("*.py")) if not file.stem.startswith(("__", "km"))]
    rows = [f"| `{file.name}` | {_summary(file)} |" for file in files]
    name = folder.relative_to(ROOT).as_posix()
    return "\n".join((f"| {name}/ | |", "|---|---|", *rows, "")) if rows else ""


def _summary(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def between_marks(text: str, written: str) -> str:
    """A page with what is written between its marks."""
    start, end = (f"<!-- {word} of what is written by `python -m tests.docs` -->" for word in _ENDS)
    before, _, rest = text.partition(f"{start}\n")
    return f"{before}{start}\n\n{written}\n{end}{rest.partition(end)[2]}"


def with_output(text: str) -> str:
    """A page with what each command of its console blocks prints now, at 100 columns."""
    return _CONSOLE.sub(lambda block: f"{block[1]}{_output(block[2])}```", text)


def _output(command: str) -> str:
    """What one `kubectl mesh` command prints in a clone of the project."""
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_mesh", *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def pages() -> Mapping[Path, str]:
    """Every generated page, with what it should hold."""
    docs = ROOT / "docs"
    releases, architecture = docs / "istio-versions.md", docs / "architecture.md"
    written = [ROOT / "README.md", docs / "routes.md", docs / "merging.md"]
    written += sorted((docs / "how-to").glob("*.md"))
    return {
        docs / "rules.md": rules_page(),
        releases: between_marks(releases.read_text(encoding="utf-8"), differences()),
        architecture: between_marks(architecture.read_text(encoding="utf-8"), modules()),
        **{page: with_output(page.read_text(encoding="utf-8")) for page in written},
    }


def stale() -> list[Path]:
    """The pages that are missing or differ from what they should hold."""
    return [
        file
        for file, text in pages().items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m tests.docs [--check]\n")
        return 2
    changed = stale()
    if arguments:
        for file in changed:
            sys.stderr.write(f"{file.relative_to(ROOT)} is stale: run python -m tests.docs\n")
        return 1 if changed else 0
    for file in changed:
        file.parent.mkdir(exist_ok=True)
        file.write_text(pages()[file], encoding="utf-8")
        sys.stderr.write(f"wrote {file.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
