"""Manifests on disk or on standard input, as resources."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.objects import as_resource, is_name
from kubectl_mesh.mesh.resource import Path, Position, Resource, Unreadable
from kubectl_mesh.mesh.schema import kind_of
from kubectl_mesh.sources.yaml import Document, collector_paused, read_documents

MAX_BYTES = 32 * 1024 * 1024
MAX_UNREADABLE = 100
"""So many parts of one file are named one by one when they cannot be read."""
STDIN = "-"


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """A document of a file, and the path of the resource in it (not empty in a List)."""

    document: Document
    base: Path = ()

    @property
    def name(self) -> str:
        return self.document.file

    def locate(self, path: Path) -> Position:
        return self.document.locate((*self.base, *path))


def load(
    filenames: Iterable[str], *, namespace: str = "default", nameless: bool = False
) -> tuple[list[Resource], list[Unreadable]]:
    """The resources of files and of `-` (standard input), and what could not be read of them.

    A manifest of a namespaced kind that names no namespace is in `namespace`. Objects without a
    name of kinds of no interest, such as the files of istioctl, which no API server is given, are
    left out unless `nameless`. Never raises: what is missing, too large, binary or broken becomes
    an Unreadable, and the rest is still read.
    """
    resources: list[Resource] = []
    unreadable: list[Unreadable] = []
    with collector_paused():
        for file in dict.fromkeys(filenames):
            try:
                text = read_text(file)
            except InputError as error:
                unreadable.append(unreadable_of(error))
                continue
            name = "<stdin>" if file == STDIN else file
            documents = list(read_documents(text, name))
            found, broken = objects_of(documents, name, namespace, nameless=nameless)
            resources += found
            unreadable += broken
            if not documents:
                what = "standard input" if file == STDIN else "the file"
                unreadable.append(Unreadable(name, f"{what} is empty: it holds no manifest"))
    return resources, unreadable


def objects_of(
    documents: Iterable[Document | InputError],
    name: str,
    namespace: str,
    *,
    nameless: bool = False,
) -> tuple[list[Resource], list[Unreadable]]:
    """The resources of the documents of one file, and its parts that are none; as `load`."""
    resources: list[Resource] = []
    broken: list[Unreadable] = []
    for document in documents:
        if isinstance(document, InputError):
            broken.append(unreadable_of(document))
            continue
        for item in _resources(document, namespace):
            if isinstance(item, Unreadable):
                broken.append(item)
            elif item.name or nameless or kind_of(item.api_version, item.kind):
                resources.append(item)
    if len(broken) > MAX_UNREADABLE:
        more = f"{len(broken) - MAX_UNREADABLE} more parts of it cannot be read"
        broken[MAX_UNREADABLE:] = [Unreadable(name, more)]
    return resources, broken


def unreadable_of(error: InputError) -> Unreadable:
    position = None
    if error.line is not None:
        position = Position(error.file, error.line, error.column or 1)
    return Unreadable(error.file, error.message, position)


def read_text(file: str) -> str:
    """The text of a file, or of standard input for `-`. Raises InputError.

    Bytes that are not UTF-8 become lone surrogates: they spoil their document, not the file.
    """
    try:
        if file != STDIN:
            with open(file, "rb") as stream:
                content = _read_bounded(stream, file)
        elif sys.stdin is None:
            raise InputError("standard input is closed", "<stdin>")
        else:
            content = _read_bounded(sys.stdin.buffer, "<stdin>")
    except OSError as error:
        raise InputError(error.strerror or str(error), file) from None
    except ValueError as error:
        raise InputError(str(error), file) from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("UTF-16; save it as UTF-8", file)
    if content.count(b"\0") > len(content) // 100:
        raise InputError("a binary file, not a manifest", file)
    return content.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n")


def _read_bounded(stream: BinaryIO, file: str) -> bytes:
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(
            f"larger than {MAX_BYTES // 1024**2} MiB; split it into several files", file
        )
    return content


def _resources(document: Document, namespace: str) -> Iterator[Resource | Unreadable]:
    """The objects of a document, a List's items for the List."""
    pending: list[tuple[Path, Any]] = [((), document.value)]
    while pending:
        base, value = pending.pop()
        origin = FileOrigin(document, base)
        if not isinstance(value, dict):
            yield _refused(origin, "a manifest must be a mapping with apiVersion and kind")
            continue
        missing = [key for key in ("apiVersion", "kind") if not is_name(value.get(key))]
        if missing:
            yield _refused(origin, f"not a Kubernetes object: {' and '.join(missing)} missing")
            continue
        if value["kind"].endswith("List") and "items" in value:
            items = value["items"] or []
            if isinstance(items, list):
                pending += [((*base, "items", index), item) for index, item in enumerate(items)][
                    ::-1
                ]
            else:
                yield _refused(origin, "the items of a List must be a list", ("items",))
            continue
        yield as_resource(value, origin, namespace)


def _refused(origin: FileOrigin, reason: str, path: Path = ()) -> Unreadable:
    return Unreadable(origin.name, reason, origin.locate(path))
