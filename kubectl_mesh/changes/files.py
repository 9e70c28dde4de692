"""Change sets made to manifests where they stand."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kubectl_mesh.changes.atomic import replace_file
from kubectl_mesh.changes.change_set import ChangeSet, Step, at_once
from kubectl_mesh.changes.patch import operations_of
from kubectl_mesh.changes.rendered import at_sources, check_effects, including
from kubectl_mesh.changes.text import NotEditable, edited, item, removed
from kubectl_mesh.errors import InputError, MeshError
from kubectl_mesh.mesh.resource import Path as FieldPath
from kubectl_mesh.mesh.resource import field_at
from kubectl_mesh.rules.repair import Copied
from kubectl_mesh.sources.files import FileOrigin, read_text
from kubectl_mesh.sources.yaml import Document, read_documents


@dataclass(frozen=True)
class FileChange:
    """A file as it is, and as it is to be; both with lines that end with a newline alone.

    `after` is None where nothing is left of it, so that it is to go. `roots` are the kustomizations
    that include it.
    """

    file: str
    before: str
    after: str | None
    roots: Sequence[str] = ()


def file_changes(changes: ChangeSet) -> list[FileChange]:
    """What a change set makes of the files that its objects, or their sources, stand in.

    Raises NotEditable where a text cannot be changed in place, or would change something else that
    is rendered from it; InputError for a file that is gone.
    """
    changes = at_once(changes)
    by_file: dict[str, list[Step]] = {}
    for step in at_sources(changes).steps:
        by_file.setdefault(step.resource.origin.name, []).append(step)
    found = [_changed(file, steps) for file, steps in by_file.items()]
    check_effects(changes, {each.file: each.after or "" for each in found})
    return [replace(each, roots=including(changes, each.file)) for each in found]


def _changed(file: str, steps: Sequence[Step]) -> FileChange:
    documents: dict[int, tuple[Document, list[tuple[FieldPath, Step]]]] = {}
    for step in steps:
        origin = step.resource.origin
        assert isinstance(origin, FileOrigin)
        documents.setdefault(id(origin.document), (origin.document, []))[1].append(
            (origin.base, step)
        )
    if not os.path.isfile(file):
        raise NotEditable(
            f"{file}: it is no file that can be changed: use -o yaml", steps[0].resource.id
        )
    before = after = read_text(file)
    for document, parts in sorted(
        documents.values(),
        key=lambda each: (each[0].first_line, each[0].first_column),
        reverse=True,
    ):
        start = _start(after, document)
        if start is None or after[start : start + len(document.text)] != document.text:
            raise InputError("it has changed since it was read: run it again", file)
        text = document.text
        for base, step in sorted(parts, key=_patches_first):
            try:
                if step.after is not None:
                    text = _edited(text, base, step, document)
                elif base:
                    text = _without_item(text, base, document)
                else:
                    after = _without_document(after, start, document)
                    break
            except NotEditable as error:
                raise NotEditable(
                    f"{document.file}: {step.resource}: {error}", step.resource.id
                ) from error
        else:
            after = after[:start] + text + after[start + len(document.text) :]
    left = any(isinstance(each, InputError) or each.value for each in _read(after, file))
    return FileChange(file, before, after if left or "#" in after else None)


def _patches_first(part: tuple[FieldPath, Step]) -> tuple[object, ...]:
    """Patches before deletions, and of those the last item of a List first."""
    base, step = part
    numbers = tuple(-number for number in base if isinstance(number, int))
    return step.after is None, numbers if step.after is None else ()


def _read(text: str, file: str) -> list[Document | InputError]:
    return list(read_documents(text, file))


def _without_item(text: str, base: FieldPath, document: Document) -> str:
    """The text of a List without one of its objects."""
    new = removed(text, base, is_json=document.is_json)
    *parents, number = base
    items = field_at(_value(text, document), tuple(parents))
    assert isinstance(number, int)
    left = [*items[:number], *items[number + 1 :]]
    if field_at(_value(new, document), tuple(parents)) != left:
        raise NotEditable("delete it by hand")
    return new


def _value(text: str, document: Document) -> object:
    (found,) = _read(text, "it.json" if document.is_json else "it.yaml")
    return found.value if isinstance(found, Document) else found


def _without_document(text: str, start: int, document: Document) -> str:
    """The text of a file without one of its documents, and without a separator that is left.

    Comments stay that are not its own: those at its end, and above it those that a blank line parts
    from it. So do separators with a comment.
    """
    kept = _others_comments(document.text)
    head, tail = text[:start], text[start + len(document.text) :]
    above = head.removesuffix("\n").rfind("\n") + 1
    if head[above:].rstrip() == "---":
        head = head[:above]
    elif tail.partition("\n")[0].rstrip() == "---":
        tail = tail.partition("\n")[2]
    new = head + kept + tail
    values = [each.value for each in _read(text, document.file) if isinstance(each, Document)]
    values.remove(document.value)
    found = [each.value for each in _read(new, document.file) if isinstance(each, Document)]
    if [each for each in values if each] != [each for each in found if each]:
        raise NotEditable("delete it by hand")
    return new


def _others_comments(text: str) -> str:
    """The comments of a document that are not its object's."""
    lines = text.splitlines(keepends=True)
    written = [
        number for number, line in enumerate(lines) if line.strip() and line.lstrip()[0] != "#"
    ]
    if not written:
        return text
    above = lines[: written[0]]
    while above and above[-1].strip():
        above.pop()
    return "".join(above) + "".join(lines[written[-1] + 1 :])


def _start(text: str, document: Document) -> int | None:
    """Where a document begins in its file; None for a file that has not so many lines."""
    start = 1 if text.startswith("\ufeff") else 0
    for _ in range(document.first_line - 1):
        start = text.find("\n", start) + 1
        if not start:
            return None
    return start + document.first_column


def _edited(text: str, base: FieldPath, step: Step, document: Document) -> str:
    """The text after a step. What is copied keeps its comments, unless it reads otherwise then."""
    for written in (_written(step, document), {}):
        try:
            new = edited(text, step.operations, base, is_json=document.is_json, written=written)
        except NotEditable:
            if not written:
                raise
            continue
        if field_at(_value(new, document), base) == step.after:
            return new
    raise NotEditable("its text cannot be changed in place: use -o yaml")


def _written(step: Step, document: Document) -> dict[int, str]:
    """The lines of what a step copies from other objects, by the number of its operation."""
    if document.is_json:
        return {}
    found = {number: _copied(edit.copied) for number, edit in enumerate(step.edits) if edit.copied}
    return {number: lines for number, lines in found.items() if lines}


def _copied(copied: Copied) -> str | None:
    """The lines of an item of an object; None where they cannot stand elsewhere."""
    origin = copied.resource.origin
    if not isinstance(origin, FileOrigin) or origin.document.is_json:
        return None
    operations = operations_of(copied.resource.raw, copied.edits)
    try:
        text = edited(origin.document.text, operations, origin.base, is_json=False)
        return item(text, (*origin.base, *copied.path))
    except NotEditable:
        return None


def unified_diff(changes: Iterable[FileChange]) -> Iterator[str]:
    """The lines of a diff, as `git apply` takes it for files without carriage returns."""
    for change in changes:
        name = os.path.normpath(change.file).lstrip("/")
        yield from difflib.unified_diff(
            _lines(change.before),
            _lines(change.after or ""),
            f"a/{name}",
            f"b/{name}" if change.after is not None else "/dev/null",
        )


def _lines(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def write(changes: Iterable[FileChange]) -> None:
    """Writes the files, each at once: it is the old one or the new one at any moment.

    Raises InputError where a file has changed since it was read, MeshError where one cannot be
    written; those before it are put back then.
    """
    changes = list(changes)
    for change in changes:
        if read_text(change.file) != change.before:
            raise InputError("it has changed since it was read: run it again", change.file)
    done: list[tuple[Path, bytes, int]] = []
    for change in changes:
        path = Path(os.path.realpath(change.file))
        try:
            raw, mode = path.read_bytes(), path.stat().st_mode
            if change.after is None:
                path.unlink()
            else:
                replace_file(path, _with_line_ends(raw, change.before, change.after), mode)
            done.append((path, raw, mode))
        except OSError as error:
            for written, old, its_mode in done:
                replace_file(written, old, its_mode)
            raise MeshError(
                f"{change.file} cannot be written: {error.strerror}; nothing is changed"
            ) from error
    for change in changes:
        if change.after is None and os.path.islink(change.file):
            os.unlink(change.file)


def _with_line_ends(raw: bytes, old_text: str, new_text: str) -> bytes:
    """The new text with the line ends of the old one: where lines are new, those of most lines."""
    old = raw.decode("utf-8", "surrogateescape").split("\n")
    ends = [line.endswith("\r") for line in old[:-1]]
    usual = sum(ends) * 2 > len(ends)
    before, after = old_text.split("\n"), new_text.split("\n")
    kept = [usual] * (len(after) - 1) + [False]
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for first, second, size in matcher.get_matching_blocks():
        for offset in range(size):
            if first + offset < len(ends) and second + offset < len(kept) - 1:
                kept[second + offset] = ends[first + offset]
    lines = [line + ("\r" if end else "") for line, end in zip(after, kept, strict=True)]
    return "\n".join(lines).encode("utf-8", "surrogateescape")
