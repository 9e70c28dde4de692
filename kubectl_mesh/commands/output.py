"""How a command prints."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from kubectl_mesh.report import Layout
from kubectl_mesh.term import Paint, use_color, width


@dataclass(frozen=True)
class Output:
    """What flags.add_output_flags say. With `no_headers` there is the list alone."""

    format: str
    color: str = "auto"
    no_headers: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> Output:
        """A command that prints no list has no --no-headers."""
        return cls(args.output, args.color, getattr(args, "no_headers", False))

    @property
    def paint(self) -> Paint:
        return Paint(use_color(self.color, sys.stdout))

    @property
    def layout(self) -> Layout:
        return Layout(width(), use_color(self.color, sys.stdout), self.no_headers)
