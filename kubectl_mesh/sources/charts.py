"""Helm charts: which there are, and what renders them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.sources.files import read_text
from kubectl_mesh.sources.folders import CHART
from kubectl_mesh.sources.yaml import Document, read_documents

_RELEASE = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?")
_FILE = "file://"


@dataclass(frozen=True)
class Chart:
    """A chart that is installed by itself. `subcharts` are the folders of charts that it takes."""

    folder: str
    name: str
    is_library: bool
    subcharts: frozenset[str]

    @property
    def release(self) -> str:
        return self.name if _RELEASE.fullmatch(self.name) else "release"

    @property
    def command(self) -> str:
        """What a user types to have it examined."""
        folder = shlex.quote(self.folder)
        return f"helm template {self.release} {folder} | kubectl mesh doctor -f -"


def read(folders: Iterable[str]) -> list[Chart]:
    """The charts in some folders, less libraries and those that other ones of them take."""
    found = [_read(folder) for folder in dict.fromkeys(folders)]
    taken = {folder for chart in found for folder in chart.subcharts}
    return [
        chart
        for chart in found
        if not chart.is_library and os.path.realpath(chart.folder) not in taken
    ]


def _read(folder: str) -> Chart:
    value: Any = None
    file = os.path.join(folder, CHART)
    try:
        for document in read_documents(read_text(file), file):
            value = document.value if isinstance(document, Document) else None
            break
    except InputError:
        pass
    value = value if isinstance(value, dict) else {}
    name = value.get("name")
    return Chart(
        folder,
        name if isinstance(name, str) else "",
        value.get("type") == "library",
        frozenset(_subcharts(folder, value.get("dependencies"))),
    )


def _subcharts(folder: str, dependencies: Any) -> Iterator[str]:
    for each in dependencies if isinstance(dependencies, list) else ():
        where = each.get("repository") if isinstance(each, dict) else None
        if isinstance(where, str) and where.startswith(_FILE):
            yield os.path.realpath(os.path.join(folder, where.removeprefix(_FILE)))
