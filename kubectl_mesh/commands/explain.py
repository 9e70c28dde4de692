"""`kubectl mesh explain`: what a rule looks for, why, and how to repair it."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_mesh.commands.output import Output
from kubectl_mesh.flags import add_output_flags
from kubectl_mesh.report import COLORS
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.named import beginning, find
from kubectl_mesh.rules.rule import Rule
from kubectl_mesh.term import Paint, emit, width

FORMATS = ("text", "markdown", "json", "yaml")
MAX_WIDTH = 100
_LIST_ITEM = re.compile(r"( *(?:[-*]|\d+\.) +)")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help="a rule's code (KM101) or name (undefined-subset), or the code that istioctl analyze "
        "(IST0101) or Kiali (KIA1107) gives to the same; KM1 lists those that begin so; without "
        "it, all rules are listed",
    )
    add_output_flags(parser, FORMATS, lists=False)


def run(args: argparse.Namespace) -> int:
    """Prints one rule, the rules that mean what a peer's code means, or a list.

    Raises UsageError for a code that is none.
    """
    listed = beginning(args.code) if args.code else RULES
    output = Output.of(args)
    emit(_render(listed or find(args.code), output, listed=bool(listed)))
    return 0


def _render(rules: Sequence[Rule], output: Output, *, listed: bool) -> str:
    if output.format == "json":
        return json.dumps(_document(rules), indent=2) + "\n"
    if output.format == "yaml":
        from kubectl_mesh.report.yaml_ import dump

        return dump(_document(rules))
    if output.format == "markdown":
        from kubectl_mesh.report.rule_page import page

        return "\n".join(page(rule) for rule in rules)
    if listed:
        return _table(rules, output.paint)
    return "\n\n".join(_text(rule, output.paint) for rule in rules)


def _document(rules: Sequence[Rule]) -> Mapping[str, Any]:
    return {
        "apiVersion": "mesh.kubectl.dev/v1",
        "kind": "RuleList",
        "items": [
            {
                "code": rule.code,
                "name": rule.name,
                "severity": rule.severity.label,
                "summary": rule.summary,
                "explanation": rule.explanation,
                "fix": rule.fix,
                "reference": rule.reference,
                "documentation": rule.documentation,
                "equivalents": list(rule.equivalents),
                "needs": list(rule.needs),
                "uses": list(rule.uses),
                "bad": rule.bad,
                "good": rule.good,
            }
            for rule in rules
        ],
    }


def _table(rules: Sequence[Rule], paint: Paint) -> str:
    """One line a rule, for grep; on a terminal the summary stands below the name."""
    from kubectl_mesh.report.table import columns

    if not sys.stdout.isatty():
        rows = [(rule.code, rule.name, rule.severity.label, rule.summary) for rule in rules]
        return columns(rows, ("CODE", "NAME", "SEVERITY", "SUMMARY")) + "\n"
    room = max(min(width(), MAX_WIDTH) - len("CODE    SEVERITY    "), 30)
    folded = [
        (
            rule.code,
            paint(rule.severity.label, COLORS[rule.severity]),
            paint(rule.name, "bold") + "\n" + textwrap.fill(rule.summary, room),
        )
        for rule in rules
    ]
    return columns(folded, ("CODE", "SEVERITY", "RULE")) + "\n"


def _text(rule: Rule, paint: Paint) -> str:
    room = min(width(), MAX_WIDTH)
    color = COLORS[rule.severity]
    severity = paint(rule.severity.label, color)
    title = f"{paint(rule.code, 'bold', color)} {paint(rule.name, 'bold')} ({severity})"
    parts = [
        title,
        reflow(rule.summary, room),
        reflow(rule.explanation, room),
        paint("WHAT TO DO", "bold"),
        reflow(rule.fix, room),
    ]
    for heading, manifest in (("WITH THE FAULT", rule.bad), ("WITHOUT IT", rule.good)):
        if manifest:
            parts += [paint(heading, "bold"), textwrap.indent(manifest.strip(), "    ")]
    facts = f"{paint('Reference', 'bold')}  {rule.reference}"
    if rule.equivalents:
        facts += f"\n{paint('Same as', 'bold')}    {', '.join(rule.equivalents)}"
    parts.append(facts)
    return "\n\n".join(parts) + "\n"


def reflow(markdown: str, room: int) -> str:
    """Markdown with its paragraphs and list items filled to `room` columns, and no `**`.

    Code blocks, tables and everything indented stay as they are.
    """
    blocks = re.split(r"(^```.*?^```$)", markdown.strip(), flags=re.MULTILINE | re.DOTALL)
    filled: list[str] = []
    for block in blocks:
        if block.startswith("```"):
            filled.append(textwrap.indent("\n".join(block.split("\n")[1:-1]), "    "))
            continue
        paragraphs = re.split(r"\n\s*\n", block.replace("**", "").strip("\n"))
        filled += [_fill(paragraph, room) for paragraph in paragraphs]
    return "\n\n".join(part for part in filled if part.strip())


def _fill(paragraph: str, room: int) -> str:
    if paragraph.startswith(("    ", "|")):
        return paragraph
    items: list[list[str]] = []
    for line in paragraph.split("\n"):
        if _LIST_ITEM.match(line) or not items:
            items.append([line])
        else:
            items[-1].append(line.strip())
    lines = []
    for item in items:
        marker = _LIST_ITEM.match(item[0])
        lines.append(
            textwrap.fill(
                " ".join(item),
                room,
                subsequent_indent=" " * len(marker[1]) if marker else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)
