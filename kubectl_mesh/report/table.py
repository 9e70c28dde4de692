"""A report for people: by severity, then by object, the worst first and the sum last."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from kubectl_mesh.mesh.resource import Position, dotted
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.report import COLORS, Layout
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Finding, Severity
from kubectl_mesh.term import Paint, safe

MIN_WIDTH = 20
MAX_WIDTH = 120
MAX_LENGTH = 2000
MAX_UNDECIDED = 5
MAX_CODES = 3
MAX_ROOTS = 5
_INDENT = "  "
_NOUNS: Mapping[Severity, tuple[str, str]] = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.INFO: ("info", "info"),
}


def render(report: Report, layout: Layout) -> str:
    """What is wrong, what it does to traffic and what to run next."""
    return _render(report, layout, wide=False)


def render_wide(report: Report, layout: Layout) -> str:
    """As `render`, with file, line and column, the evidence and the peers' codes."""
    return _render(report, layout, wide=True)


def columns(rows: Iterable[Sequence[str]], headers: Sequence[str] = ()) -> str:
    """Rows as kubectl prints them: two spaces between columns, no lines."""
    from tabulate import tabulate  # dear to import, and not needed where nothing is found

    return tabulate(list(rows), headers=headers, tablefmt="plain", disable_numparse=True)


def _render(report: Report, layout: Layout, wide: bool) -> str:
    paint = Paint(layout.color)
    text_width = min(layout.width, MAX_WIDTH)
    parts: list[str] = []
    for severity, findings in groupby(report.findings, key=lambda finding: finding.severity):
        if not layout.no_headers:
            count = _counted(report.count(severity), *_NOUNS[severity]).upper()
            parts.append(paint(count, "bold", COLORS[severity]))
        for resource, of_one in groupby(findings, key=lambda finding: finding.resource):
            tables = (columns(_rows(finding, text_width, paint, wide)) for finding in of_one)
            blocks = textwrap.indent("\n\n".join(tables), _INDENT)
            parts.append(f"{paint(_printable(str(resource)), 'bold')}\n{blocks}")
    parts.extend(_not_examined(report, text_width, paint, wide))
    if not layout.no_headers:
        parts.append(_summary(report, text_width, paint))
    return "".join(f"{part}\n\n" for part in parts)[:-1]


def _rows(finding: Finding, width: int, paint: Paint, wide: bool) -> Iterator[tuple[str, str]]:
    rule = finding.rule
    position = finding.resource.origin.locate(finding.path)
    lines = [
        (rule.code, finding.message),
        ("at", place(position) if position else ""),
        ("roots" if finding.roots[1:] else "root", _named(finding.roots, wide)),
        ("field", dotted(finding.path) if wide or not position else ""),
        ("traffic", finding.traffic),
        ("next", finding.next),
    ]
    if wide:
        lines += [
            ("context", "" if position else finding.resource.origin.name),
            *(("because", fact) for fact in finding.evidence),
            ("related", ", ".join(map(str, finding.related))),
            ("same as", ", ".join(rule.equivalents)),
        ]
    room = width - len(_INDENT) - len("traffic") - 2
    for label, text in lines:
        if text:
            style = COLORS[finding.severity] if label == rule.code else "dim"
            yield paint(label, style), wrap(text, room)


def _named(roots: Sequence[str], wide: bool) -> str:
    return first_of(roots, len(roots) if wide else MAX_ROOTS)


def _printable(text: str) -> str:
    return safe(text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + "…")


def wrap(text: str, width: int, indent: str = "", further_indent: str = "") -> str:
    """Text as printable lines. Names and commands stay whole: they are there to be copied."""
    return textwrap.fill(
        _printable(text),
        max(width, MIN_WIDTH),
        initial_indent=indent,
        subsequent_indent=further_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def failures(report: Report, width: int, paint: Paint) -> str:
    """What could not be examined, and why; "" where there is nothing."""
    failed = [skip for skip in report.skipped if skip.failed]
    if not failed:
        return ""
    return paint("COULD NOT BE EXAMINED", "bold", "red") + "\n" + _skips(failed, width)


def unexamined(report: Report, width: int, paint: Paint, *, wide: bool = False) -> str:
    """The parts of the input that were passed over, and why; "" where there are none."""
    found = [each for each in report.skipped if each.is_input and not (each.failed or each.unread)]
    return _some(paint("NOT EXAMINED", "bold"), found, width, wide)


def _not_examined(report: Report, width: int, paint: Paint, wide: bool) -> Iterator[str]:
    passed = [skip for skip in report.skipped if not skip.failed]
    unread = [skip for skip in passed if skip.unread]
    undecided = [skip for skip in passed if not skip.is_input]
    heading = paint("NOT DECIDED, as the input does not hold what it takes", "bold")
    yield from filter(
        None,
        (
            failures(report, width, paint),
            _some(paint("NOT READ", "bold"), unread, width, wide),
            unexamined(report, width, paint, wide=wide),
            _some(heading, undecided, width, wide),
        ),
    )


def _some(heading: str, skips: Sequence[Skipped], width: int, wide: bool) -> str:
    """The first of some skips, or all of them if `wide`; "" for none."""
    if not skips:
        return ""
    shown = skips if wide else skips[:MAX_UNDECIDED]
    text = heading + "\n" + _skips(shown, width)
    if len(skips) > len(shown):
        text += f"\n{_INDENT}and {len(skips) - len(shown)} more; -o wide names them all"
    return text


def _skips(skips: Iterable[Skipped], width: int) -> str:
    """One entry a reason; the rules that it stops are named before it."""
    codes: dict[str, list[str]] = {}
    for skip in skips:
        reason = skip.reason
        if skip.position:
            reason = f"{place(skip.position)}: {reason}"
        codes.setdefault(reason, []).append(skip.code)
    return "\n".join(
        wrap(f"{reason} ({', '.join(stopped)})", width, _INDENT, _INDENT * 2)
        for reason, stopped in codes.items()
    )


def _summary(report: Report, width: int, paint: Paint) -> str:
    resources = _counted(report.resources, "resource", "resources")
    counts = [
        paint(_counted(report.count(severity), *_NOUNS[severity]), COLORS[severity])
        for severity in sorted(Severity, reverse=True)
        if report.count(severity)
    ]
    failed = len({(skip.reason, skip.position) for skip in report.skipped if skip.failed})
    unread = any(skip.unread for skip in report.skipped)
    style = "yellow" if failed else "green"
    lines = [
        f"{', '.join(counts)} in {resources}."
        if counts
        else paint(f"No problems found in {resources}.", style)
        if report.resources
        else "There is nothing that kubectl mesh can examine."
        if unread
        else "Nothing was examined."
    ]
    if failed:
        parts = _counted(failed, "part", "parts")
        lines.append(paint(f"{parts} of the input could not be examined: see above.", "red"))
    codes = list(dict.fromkeys(finding.rule.code for finding in report.findings))
    if codes:
        others = ", ".join(codes[1:MAX_CODES]) + (", ..." if len(codes) > MAX_CODES else "")
        also = f" (also {others})" if others else ""
        lines.append(
            wrap(f"Why, and how to repair it: kubectl mesh explain {codes[0]}{also}", width)
        )
    return "\n".join(lines)


def place(position: Position) -> str:
    """A place as editors and terminals take it."""
    return str(position)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
