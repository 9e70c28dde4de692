"""Kustomizations: what each one includes, and which of them are roots.

They are read here only to know what belongs together, and that rendering them fetches nothing.
`render.py` has kustomize itself render them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Path, Position, field_at
from kubectl_mesh.sources.files import read_text
from kubectl_mesh.sources.folders import KUSTOMIZATION
from kubectl_mesh.sources.yaml import Document, read_documents

_FOLDERS_TOO = ("resources", "bases", "components", "generators", "transformers", "validators")
_FILES = ("crds", "configurations", "patchesStrategicMerge")
_PATHS_IN = ("patches", "patchesJson6902", "replacements", "openapi")
_GENERATORS = ("configMapGenerator", "secretGenerator")
_HELM = ("helmCharts", "helmChartInflationGenerator")
_PLUGIN_PATHS = frozenset(("path", "paths", "file", "files", "env", "envs", "url", "repo"))
_REMOTE = re.compile(
    r"[a-z][a-z0-9+.-]*://|git::|gh:|(www\.)?github\.com[/:]|[\w.-]+@[\w.-]+[:/]", re.IGNORECASE
)
_HOST = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?/", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Kustomization:
    """A folder with a kustomization.yaml, by its real path. `document` is None if unreadable."""

    folder: str
    file: str
    document: Document | None

    @property
    def value(self) -> Mapping[str, Any]:
        value = self.document.value if self.document else None
        return value if isinstance(value, dict) else {}

    @property
    def is_component(self) -> bool:
        return self.value.get("kind") == "Component"

    @cached_property
    def entries(self) -> tuple[tuple[Path, str], ...]:
        """All that it includes or takes text from, as it is written, with its place."""
        return tuple(self._entries())

    def _entries(self) -> Iterator[tuple[Path, str]]:
        for key in (*_FOLDERS_TOO, *_FILES):
            for number, entry in enumerate(_items(self.value.get(key))):
                if isinstance(entry, str) and "\n" not in entry:
                    yield (key, number), entry
                elif isinstance(entry, str):
                    for text in _inline_paths(entry):
                        yield (key, number), text
        for key in _PATHS_IN:
            for number, entry in enumerate(_items(self.value.get(key))):
                path = entry.get("path") if isinstance(entry, dict) else None
                if isinstance(path, str):
                    yield (key, number, "path"), path
        for key in _GENERATORS:
            for number, entry in enumerate(_items(self.value.get(key))):
                if isinstance(entry, dict):
                    for inner in ("files", "envs", "env"):
                        for index, text in enumerate(_items(entry.get(inner))):
                            for path in _sources_of(text):
                                yield (key, number, inner, index), path

    @property
    def takes_charts(self) -> Path | None:
        """Where it inflates Helm charts; None where it does not."""
        return next(((key,) for key in _HELM if self.value.get(key)), None)

    def locate(self, path: Path) -> Position:
        return self.document.locate(path) if self.document else Position(self.file, 1, 1)


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _sources_of(text: Any) -> Iterator[str]:
    """What an entry `path` or `key=path` may name."""
    if isinstance(text, str):
        yield text
        if "=" in text:
            yield text.partition("=")[2]


def _inline_paths(text: str) -> Iterator[str]:
    for document in read_documents(text, ""):
        if isinstance(document, Document):
            yield from _plugin_paths(document.value)


def _plugin_paths(value: Any) -> Iterator[str]:
    """What the configuration of a generator or transformer may read."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for text in _items(inner) if key in _PLUGIN_PATHS else ():
                yield from _sources_of(text)
            yield from _plugin_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _plugin_paths(inner)


@dataclass
class Closure:
    """All that one kustomization includes. `order` has the included ones before the including."""

    order: list[Kustomization] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    remote: list[tuple[Kustomization, Path, str]] = field(default_factory=list)
    charts: list[tuple[Kustomization, Path]] = field(default_factory=list)


class Kustomizations:
    """The kustomizations of some folders, and those that they include, each read once."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._read: dict[str, Kustomization | None] = {}
        self._inner: dict[Kustomization, Sequence[Kustomization]] = {}
        found = (self.of(os.path.realpath(folder)) for folder in folders)
        self.all = tuple(dict.fromkeys(each for each in found if each))

    def of(self, folder: str) -> Kustomization | None:
        """The kustomization in a folder; None where there is none."""
        if folder not in self._read:
            self._read[folder] = _read(folder)
        return self._read[folder]

    @cached_property
    def roots(self) -> tuple[Kustomization, ...]:
        """Those that no other one includes. Of a circle, which kustomize refuses, one is a root."""
        included = {
            inner.folder for each in self.all for inner in self._included(each) if inner != each
        }
        roots = [each for each in self.all if each.folder not in included]
        reached = {inner.folder for root in roots for inner in self.closure(root).order}
        for each in self.all:
            if each.folder not in reached:
                roots.append(each)
                reached |= {inner.folder for inner in self.closure(each).order}
        return tuple(root for root in roots if not root.is_component)

    @property
    def unused(self) -> Iterator[Kustomization]:
        """The components that are part of no root."""
        reached = {inner.folder for root in self.roots for inner in self.closure(root).order}
        return (each for each in self.all if each.folder not in reached)

    def _included(self, outer: Kustomization) -> Sequence[Kustomization]:
        if outer not in self._inner:
            self._inner[outer] = tuple(self._find_included(outer))
        return self._inner[outer]

    def _find_included(self, outer: Kustomization) -> Iterator[Kustomization]:
        for _, entry in outer.entries:
            path = os.path.join(outer.folder, entry)
            if not is_remote(outer.folder, entry) and os.path.isdir(path):
                inner = self.of(os.path.realpath(path))
                if inner:
                    yield inner

    def closure(self, root: Kustomization) -> Closure:
        found = Closure()
        seen: set[str] = set()
        pending: list[tuple[Kustomization, bool]] = [(root, False)]
        while pending:
            here, done = pending.pop()
            if done:
                found.order.append(here)
                continue
            if here.folder in seen:
                continue
            seen.add(here.folder)
            pending.append((here, True))
            pending += [(inner, False) for inner in self._included(here)][::-1]
            self._look_at(here, found)
        return found

    def _look_at(self, here: Kustomization, found: Closure) -> None:
        if charts := here.takes_charts:
            found.charts.append((here, charts))
        found.files.add(here.file)
        for place, entry in here.entries:
            if is_remote(here.folder, entry):
                found.remote.append((here, place, entry))
                continue
            file = os.path.realpath(os.path.join(here.folder, entry))
            if not os.path.isfile(file):
                continue
            found.files.add(file)
            if place[0] in ("generators", "transformers", "validators"):
                self._look_at_plugin(here, place, file, found)

    def _look_at_plugin(self, here: Kustomization, place: Path, file: str, found: Closure) -> None:
        try:
            documents = list(read_documents(read_text(file), file))
        except InputError:
            return
        for document in documents:
            value = document.value if isinstance(document, Document) else None
            if field_at(value, ("kind",)) == "HelmChartInflationGenerator":
                found.charts.append((here, place))
            for text in _plugin_paths(value):
                if is_remote(here.folder, text):
                    found.remote.append((here, place, text))
                else:
                    found.files.add(os.path.realpath(os.path.join(here.folder, text)))


def is_remote(folder: str, entry: str) -> bool:
    """Whether kustomize might fetch an entry: it looks like a URL, or like none of the disk."""
    if _REMOTE.match(entry.strip()):
        return True
    try:
        if os.path.lexists(os.path.join(folder, entry)):
            return False
    except ValueError:  # a null byte
        return False
    return bool(_HOST.match(entry)) or "?ref=" in entry or ".git/" in entry


def _read(folder: str) -> Kustomization | None:
    for name in KUSTOMIZATION:
        file = os.path.join(folder, name)
        if not os.path.isfile(file):
            continue
        try:
            documents = list(read_documents(read_text(file), file))
        except InputError:
            return Kustomization(folder, file, None)
        first = documents[0] if documents else None
        if not isinstance(first, Document):
            return Kustomization(folder, file, None)
        version = field_at(first.value, ("apiVersion",))
        if isinstance(version, str) and not version.startswith("kustomize.config.k8s.io/"):
            return None  # an object of that name, such as Flux's Kustomization
        return Kustomization(folder, file, first)
    return None
