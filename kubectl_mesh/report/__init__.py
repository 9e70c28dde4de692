"""Reports in every format. A format's module is imported when the format is chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from kubectl_mesh.rules.examine import Report
from kubectl_mesh.rules.rule import Severity
from kubectl_mesh.term import emit, use_color, width

COLORS: Mapping[Severity, str] = MappingProxyType(
    {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How text for people is laid out. The other formats are the same in every layout."""

    width: int = 80
    color: bool = False
    no_headers: bool = False


Renderer = Callable[[Report, Layout], str]


def _renderer(module: str, function: str = "render") -> Renderer:
    def render(report: Report, layout: Layout) -> str:
        chosen: Renderer = getattr(import_module(f"kubectl_mesh.report.{module}"), function)
        return chosen(report, layout)

    return render


FORMATS: Mapping[str, Renderer] = MappingProxyType(
    {
        "table": _renderer("table"),
        "wide": _renderer("table", "render_wide"),
        "json": _renderer("json_"),
        "yaml": _renderer("yaml_"),
        "sarif": _renderer("sarif"),
        "junit": _renderer("junit"),
    }
)
"""The values of `--output` for a report. What they return ends with a newline."""


def write(report: Report, output: str, *, color: str = "auto", no_headers: bool = False) -> None:
    """Writes a report to standard output in the format `output`, one of FORMATS.

    `color` is one of term.COLOR_CHOICES.
    """
    layout = Layout(width(), use_color(color, sys.stdout), no_headers)
    emit(FORMATS[output](report, layout))
