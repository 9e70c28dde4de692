"""Where a rendered object comes from: the file and line of each of its fields.

kustomize says in annotations which file an object is from, and which kustomizations changed it. A
field is looked for in the patches of those, the last first, then in the object's own file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jsonpointer import JsonPointer, JsonPointerException

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import ABSENT, Path, Position, Resource, field_at
from kubectl_mesh.sources.charts import Chart
from kubectl_mesh.sources.files import FileOrigin, objects_of, read_text
from kubectl_mesh.sources.folders import CHART
from kubectl_mesh.sources.kustomize import Closure, Kustomization
from kubectl_mesh.sources.yaml import Document, read_documents

ORIGIN = "config.kubernetes.io/origin"
TRANSFORMATIONS = "alpha.config.kubernetes.io/transformations"
_SELECTING: tuple[Path, ...] = (
    ("apiVersion",),
    ("kind",),
    ("metadata",),
    ("metadata", "name"),
    ("metadata", "namespace"),
)
"""What a patch says to name its object."""
_SOURCE = re.compile(r"^# Source: (\S+)", re.MULTILINE)
_BLOCK = re.compile(r"\|[-+0-9]*\s*(#.*)?$")


@dataclass(frozen=True)
class Patch:
    """One document of a patch: a part of an object, or a list of operations.

    `target` is None where it names its object itself. `origin` is None for one in the text of a
    kustomization.
    """

    value: Any
    target: Mapping[str, Any] | None
    locate: Callable[[Path], Position]
    origin: FileOrigin | None

    @property
    def selects_by_labels(self) -> bool:
        return bool({"labelSelector", "annotationSelector"} & (self.target or {}).keys())

    def concerns(self, names: Sequence[str], kind: str) -> bool:
        if self.target is not None:
            wanted = (self.target.get("kind"), self.target.get("name"))
            return _fits(wanted[0], [kind]) and _fits(wanted[1], names)
        if field_at(self.value, ("kind",)) != kind:
            return False
        name = field_at(self.value, ("metadata", "name"))
        return isinstance(name, str) and any(name in each for each in names)

    def place_of(self, path: Path, value: Any, rendered: Any) -> Path | None:
        """Where the patch writes `value` to the field at `path`; None where it does not."""
        if isinstance(self.value, list):
            return self._operation(path, value)
        if path in _SELECTING or not path:
            return None
        place = counterpart(self.value, rendered, path)
        if len(place) == len(path) and field_at(self.value, place) == value:
            return place
        return None

    def _operation(self, path: Path, value: Any) -> Path | None:
        for number in range(len(self.value) - 1, -1, -1):
            operation = self.value[number]
            if not isinstance(operation, dict) or operation.get("op") not in ("add", "replace"):
                continue
            try:
                parts = JsonPointer(str(operation.get("path"))).parts
            except JsonPointerException:
                continue
            if len(parts) > len(path) or not all(
                part == str(step) or (part == "-" and isinstance(step, int))
                for part, step in zip(parts, path, strict=False)
            ):
                continue
            rest = path[len(parts) :]
            if field_at(operation.get("value"), rest) == value:
                return (number, "value", *rest)
        return None


def counterpart(value: Any, rendered: Any, path: Path) -> Path:
    """The path in `value` to the field at `path` of what was made of it, as far as it goes.

    The item of a list is the one that is equal, else the one of the same name, else the one at its
    place if both lists are of one length.
    """
    found: list[str | int] = []
    for step in path:
        around, rendered = rendered, field_at(rendered, (step,))
        if isinstance(step, int):
            if not isinstance(value, list):
                break
            number = _item_like(value, around, step)
            if number is None:
                break
            step = number
        elif not isinstance(value, dict) or step not in value:
            break
        found.append(step)
        value = value[step]
    return tuple(found)


def _item_like(items: Sequence[Any], rendered: Any, index: int) -> int | None:
    wanted = field_at(rendered, (index,))
    equal = [number for number, item in enumerate(items) if item == wanted]
    if equal:
        return index if index in equal else equal[0]
    name = field_at(wanted, ("name",))
    if name is not ABSENT:
        named = [number for number, item in enumerate(items) if field_at(item, ("name",)) == name]
        return named[0] if len(named) == 1 else None
    return index if isinstance(rendered, list) and len(rendered) == len(items) else None


def _fits(pattern: Any, names: Sequence[str]) -> bool:
    if not isinstance(pattern, str) or not pattern:
        return True
    try:
        return any(re.fullmatch(pattern, name) for name in names)
    except re.error:
        return False


@dataclass(frozen=True)
class RenderedOrigin:
    """An object that kustomize rendered in a `root`.

    `source` is the object as it was written, None for a generated one; `patches` are those that may
    have changed it, in order. What is found in neither is at `otherwise`.
    """

    root: Root
    rendered: Mapping[str, Any]
    source: Resource | None
    patches: Sequence[Patch]
    otherwise: Callable[[Path], Position]

    @property
    def name(self) -> str:
        return self.locate(()).file

    def locate(self, path: Path) -> Position:
        for length in range(len(path), -1, -1):
            value = field_at(self.rendered, path[:length])
            found = None if value is ABSENT else self._place(path[:length], value)
            if found:
                return found
        return self.otherwise(path)

    def _place(self, path: Path, value: Any) -> Position | None:
        patch = self.writer(path, value)
        if patch:
            return patch[0].locate(patch[1])
        if self.source is None:
            return None
        place = counterpart(self.source.raw, self.rendered, path)
        return self.source.origin.locate(place) if len(place) == len(path) else None

    def writer(self, path: Path, value: Any) -> tuple[Patch, Path] | None:
        """The last patch that writes `value` to the field at `path`, and where in it.

        Labels may have kept a patch from this object: it is the writer only if the source is not.
        """
        place = counterpart(self.source.raw, self.rendered, path) if self.source else ()
        in_source = self.source is not None and field_at(self.source.raw, place) == value
        for patch in reversed(self.patches):
            found = patch.place_of(path, value, self.rendered)
            if found is not None and not (patch.selects_by_labels and in_source):
                return patch, found
        return None


class Root(Protocol):
    """A kustomization, as one who wants to change what it is made of needs it."""

    @property
    def name(self) -> str: ...

    def including(self, file: str) -> Sequence[str]:
        """The roots of the input that include a file, by its real path."""
        ...

    def effects(self, texts: Mapping[str, str]) -> Iterator[Effect]:
        """What other texts of some files, by their real path, would make of all roots with them."""
        ...


@dataclass(frozen=True)
class Effect:
    """The objects of one root before and after a change; `failure` says why there are none."""

    root: str
    before: Sequence[Any]
    after: Sequence[Any]
    failure: str = ""


def root_of(resource: Resource) -> str:
    """The name of the kustomization that an object is rendered by; "" for none."""
    origin = resource.origin
    return origin.root.name if isinstance(origin, RenderedOrigin) else ""


@dataclass
class Origins:
    """Finds the origins of the objects of one root. `shown` names a real path as the user would."""

    root: Root
    top: Kustomization
    closure: Closure
    base: str
    shown: Callable[[str], str]
    namespace: str
    _sources: dict[str, list[Resource]] = field(default_factory=dict)
    _patches: dict[str, list[Patch]] = field(default_factory=dict)

    def of(self, rendered: Document) -> RenderedOrigin:
        """The origin of an object; takes kustomize's annotations from it."""
        document = rendered.value if isinstance(rendered.value, dict) else {}
        origin, transformations = annotations_of(document)
        kustomizations = {each.file: each for each in self.closure.order}
        source = self._source(document, origin)
        names = [str(field_at(document, ("metadata", "name")))]
        kind = str(document.get("kind"))
        if source:
            names.append(source.name)
        order = [os.path.realpath(os.path.join(self.base, each)) for each in transformations]
        patches = [
            patch
            for file in dict.fromkeys(order)
            if file in kustomizations
            for patch in self._patches_of(kustomizations[file])
            if patch.concerns(names, kind)
        ]
        maker = kustomizations.get(self._path(origin.get("configuredIn")) or "", self.top)
        return RenderedOrigin(
            self.root,
            document,
            source,
            patches,
            lambda path: self._generated(maker, document, path),
        )

    def _path(self, relative: Any) -> str | None:
        if not isinstance(relative, str):
            return None
        return os.path.realpath(os.path.join(self.base, relative))

    def _source(self, document: Mapping[str, Any], origin: Mapping[str, Any]) -> Resource | None:
        file = self._path(origin.get("path"))
        if not file or file not in self.closure.files:
            return None
        if file not in self._sources:
            try:
                documents = list(read_documents(read_text(file), self.shown(file)))
            except InputError:
                documents = []
            self._sources[file] = objects_of(documents, file, self.namespace, nameless=True)[0]
        name, kind = str(field_at(document, ("metadata", "name"))), document.get("kind")
        of_kind = [each for each in self._sources[file] if each.id.api_kind == kind]
        named = [each for each in of_kind if each.name == name]
        named = named or [each for each in of_kind if each.name and each.name in name] or of_kind
        return max(named, key=lambda each: _likeness(each.raw, document), default=None)

    def _patches_of(self, kustomization: Kustomization) -> list[Patch]:
        if kustomization.file not in self._patches:
            self._patches[kustomization.file] = list(_patches(kustomization, self.shown))
        return self._patches[kustomization.file]

    def _generated(self, maker: Kustomization, document: Mapping[str, Any], path: Path) -> Position:
        """The generator of an object, or the file that it takes a value from."""
        name = str(field_at(document, ("metadata", "name")))
        for key in ("configMapGenerator", "secretGenerator"):
            for number, entry in enumerate(maker.value.get(key) or ()):
                own = field_at(entry, ("name",))
                if not isinstance(own, str) or own not in name:
                    continue
                files = field_at(entry, ("files",))
                for index, text in enumerate(files if isinstance(files, list) else ()):
                    given, _, file = str(text).rpartition("=")
                    if path[:1] == ("data",) and path[1:] == (given or os.path.basename(file),):
                        real = os.path.realpath(os.path.join(maker.folder, file))
                        if os.path.isfile(real):
                            return Position(self.shown(real), 1, 1)
                        return self._in(maker, (key, number, "files", index))
                return self._in(maker, (key, number))
        return self._in(maker, ())

    def _in(self, kustomization: Kustomization, path: Path) -> Position:
        found = kustomization.locate(path)
        return Position(self.shown(kustomization.file), found.line, found.column)


def annotations_of(document: dict[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Takes kustomize's annotations from an object: its origin, and what has changed it."""
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if not isinstance(annotations, dict):
        return {}, []
    origin = _parsed(annotations.pop(ORIGIN, None))
    transformations = _parsed(annotations.pop(TRANSFORMATIONS, None))
    if not annotations:
        del document["metadata"]["annotations"]
    files = [
        each["configuredIn"]
        for each in (transformations if isinstance(transformations, list) else ())
        if isinstance(each, dict) and isinstance(each.get("configuredIn"), str)
    ]
    is_local = isinstance(origin, dict) and "repo" not in origin
    return origin if is_local else {}, files


def _likeness(value: Any, other: Any) -> int:
    """How many plain values two objects have in common."""
    if isinstance(value, dict) and isinstance(other, dict):
        return sum(_likeness(value[key], other[key]) for key in value.keys() & other.keys())
    if isinstance(value, list) and isinstance(other, list):
        return sum(_likeness(one, another) for one, another in zip(value, other, strict=False))
    return int(value == other)


def _parsed(text: Any) -> Any:
    if not isinstance(text, str):
        return {}
    found = next(iter(read_documents(text, "")), None)
    return found.value if isinstance(found, Document) else {}


def _patches(here: Kustomization, shown: Callable[[str], str]) -> Iterator[Patch]:
    """The patches of a kustomization, in the order in which kustomize makes them."""
    for key in ("patchesStrategicMerge", "patches", "patchesJson6902"):
        entries = here.value.get(key)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            place: Path = (key, number)
            target = None
            if isinstance(entry, dict):
                found = entry.get("target")
                target = found if isinstance(found, dict) else None
                inline = "patch" in entry
                place = (*place, "patch") if inline else place
                text = entry.get("patch") if inline else entry.get("path")
            else:
                text, inline = entry, isinstance(entry, str) and "\n" in entry
            if not isinstance(text, str):
                continue
            yield from (
                _inline(here, place, text, target, shown)
                if inline
                else _in_file(here, text, target, shown)
            )


def _in_file(
    here: Kustomization,
    entry: str,
    target: Mapping[str, Any] | None,
    shown: Callable[[str], str],
) -> Iterator[Patch]:
    try:
        file = os.path.realpath(os.path.join(here.folder, entry))
        documents = list(read_documents(read_text(file), shown(file)))
    except (InputError, ValueError):
        return
    for document in documents:
        if isinstance(document, Document):
            yield Patch(document.value, target, document.locate, FileOrigin(document))


def _inline(
    here: Kustomization,
    place: Path,
    text: str,
    target: Mapping[str, Any] | None,
    shown: Callable[[str], str],
) -> Iterator[Patch]:
    """A patch in the text of a kustomization: its lines are the file's if it is a literal block."""
    at = here.locate(place)
    file = shown(here.file)
    lines = here.document.text.split("\n") if here.document else []
    first = at.line - (here.document.first_line if here.document else 1)
    is_block = 0 <= first < len(lines) - 1 and bool(_BLOCK.search(lines[first]))
    indent = len(lines[first + 1]) - len(lines[first + 1].lstrip()) if is_block else 0
    for document in read_documents(text, file):
        if not isinstance(document, Document):
            continue

        def locate(path: Path, document: Document = document) -> Position:
            inner = document.locate(path)
            if not is_block:
                return Position(file, at.line, at.column)
            return Position(file, at.line + inner.line, inner.column + indent)

        yield Patch(document.value, target, locate, None)


@dataclass(frozen=True)
class TemplateOrigin:
    """An object that Helm rendered: `file` is its template, of which `text` is left if readable."""

    document: Document
    file: str
    text: str

    @classmethod
    def of(cls, chart: Chart, document: Document) -> TemplateOrigin:
        """Helm names the template in a comment above each object."""
        named = _SOURCE.search(document.text)
        _, _, path = named[1].partition("/") if named else ("", "", "")
        file = os.path.join(chart.folder, *path.split("/"))
        try:
            if path and os.path.realpath(file).startswith(os.path.realpath(chart.folder) + os.sep):
                return cls(document, file, read_text(file))
        except InputError:
            pass
        return cls(document, os.path.join(chart.folder, CHART), "")

    @property
    def name(self) -> str:
        return self.file

    def locate(self, path: Path) -> Position:
        """The line of the template that is like that of the field, if only one is.

        Else that of the field around it; the first line if there is none.
        """
        lines = [line.strip() for line in self.text.split("\n")]
        rendered = self.document.text.split("\n")
        for length in range(len(path), 0, -1):
            at = self.document.locate(path[:length])
            line = rendered[at.line - self.document.first_line].strip()
            key = f"{path[length - 1]}:" if isinstance(path[length - 1], str) else None
            for numbers in (
                [number for number, each in enumerate(lines, 1) if each == line],
                [n for n, each in enumerate(lines, 1) if key and each.lstrip("- ").startswith(key)],
            ):
                if len(numbers) == 1:
                    column = self.text.split("\n")[numbers[0] - 1].find(lines[numbers[0] - 1]) + 1
                    return Position(self.file, numbers[0], column)
        return Position(self.file, 1, 1)
