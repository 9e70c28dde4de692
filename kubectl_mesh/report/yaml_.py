"""A report as YAML: the object of the JSON report."""

from __future__ import annotations

from typing import Any

import yaml

from kubectl_mesh.report import Layout
from kubectl_mesh.report.json_ import document
from kubectl_mesh.rules.examine import Report


def render(report: Report, layout: Layout) -> str:
    """YAML in ASCII, so that nothing in it means anything to a terminal."""
    return dump(document(report))


def dump(value: Any) -> str:
    """Plain values as YAML, in their order; texts of several lines as blocks.

    A lone surrogate becomes `?`: libyaml refuses it.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def represent_text(self, text: str) -> yaml.Node:
        node: yaml.Node = self.represent_scalar(
            "tag:yaml.org,2002:str",
            text.encode("utf-8", "replace").decode("utf-8"),
            style="|" if "\n" in text else None,
        )
        return node


_Dumper.add_representer(str, _Dumper.represent_text)
