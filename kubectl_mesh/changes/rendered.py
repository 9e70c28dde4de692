"""Changes of rendered objects, as changes of the manifests and patches they are rendered from.

A field is changed where it is written, if that is one place. What comes of it is rendered again:
each root that includes the file has to come out as its own repairs want it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.patch import Conflict, operations_of, patched
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.mesh.resource import ABSENT, Path, Resource, dotted, field_at
from kubectl_mesh.rules.repair import Edit
from kubectl_mesh.sources.files import FileOrigin
from kubectl_mesh.sources.origins import RenderedOrigin, Root, TemplateOrigin, counterpart


@dataclass
class _Source:
    """An object or patch in a file, the edits that are made to it, and for which root each is."""

    origin: FileOrigin
    value: Mapping[str, Any]
    step: Step
    edits: list[Edit] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)


def at_sources(changes: ChangeSet) -> ChangeSet:
    """The steps that change files: those of rendered objects change what these are made of.

    Raises NotEditable where a field has no one place, or two roots need two values in it.
    """
    steps: list[Step] = []
    sources: dict[tuple[object, ...], _Source] = {}
    for step in changes.steps:
        origin = step.resource.origin
        if isinstance(origin, TemplateOrigin):
            raise NotEditable(
                f"{step.resource} is rendered by Helm: change {origin.file} or its values",
                step.resource.id,
            )
        if not isinstance(origin, RenderedOrigin):
            steps.append(step)
            continue
        for edit in step.edits:
            try:
                place, value, path = _place_of(origin, edit)
            except NotEditable as error:
                raise NotEditable(f"{step.resource}: {error}", step.resource.id) from error
            document = place.document
            key = (place.name, document.first_line, document.first_column, place.base)
            found = sources.setdefault(key, _Source(place, value, step))
            source = (*path[:-1], *edit.source[-1:]) if edit.source else ()
            mapped = replace(edit, path=path, source=source, copied=None)
            _add(found, mapped, step, origin.root.name)
    return ChangeSet((*steps, *map(_step, sources.values())))


def _add(found: _Source, edit: Edit, step: Step, root: str) -> None:
    """Adds an edit, unless another root has it; those of one root are made one after the other."""
    for known, other in zip(found.edits, found.roots, strict=True):
        if other != root and known.path == edit.path and known.source == edit.source:
            if known.value == edit.value and known.insert == edit.insert:
                return
            raise NotEditable(
                f"{step.resource}: {found.origin.name} is shared by several kustomizations, which "
                f"need different values of {dotted(edit.path)}",
                step.resource.id,
            )
    found.edits.append(edit)
    found.roots.append(root)


def _place_of(origin: RenderedOrigin, edit: Edit) -> tuple[FileOrigin, Mapping[str, Any], Path]:
    """The object or patch that an edit changes, and the path of the edit in it."""
    if edit.is_deletion:
        raise NotEditable("it is part of a kustomization: delete it there by hand")
    around = edit.path
    if edit.insert or edit.source:
        around = around[:-1]
    while field_at(origin.rendered, around) is ABSENT:
        around = around[:-1]
    rest = edit.path[len(around) :]
    value = field_at(origin.rendered, around)
    written = origin.writer(around, value)
    if written:
        patch, place = written
        if patch.origin is None:
            raise NotEditable(f"a patch in the text of {patch.locate(()).file} writes it")
        if isinstance(patch.value, list):
            number, *inner = place
            assert isinstance(number, int)
            found = replace(patch.origin, base=(number,))
            return found, patch.value[number], (*inner, *rest)
        return patch.origin, patch.value, (*place, *rest)
    source = origin.source
    if source is None or not isinstance(source.origin, FileOrigin):
        raise NotEditable("it is generated")
    place = counterpart(source.raw, origin.rendered, around)
    is_list = isinstance(value, list)
    if len(place) < len(around) or (
        field_at(source.raw, place) != value and (is_list or not isinstance(value, dict))
    ):
        raise NotEditable(f"{dotted(around)} is not written in one place")
    return source.origin, source.raw, (*place, *rest)


def _step(found: _Source) -> Step:
    resource = found.step.resource
    try:
        operations = operations_of(found.value, found.edits)
        after = patched(found.value, operations)
    except Conflict as error:
        raise NotEditable(f"{resource}: {error}", resource.id) from error
    made = Resource(
        resource.id, resource.api_version, found.value, found.value, found.origin, resource.faults
    )
    return replace(
        found.step,
        resource=made,
        before=found.value,
        after=after,
        operations=operations,
        edits=found.edits,
    )


def including(changes: ChangeSet, file: str) -> Sequence[str]:
    """The roots of the input that a file is part of."""
    origins = (step.resource.origin for step in changes.steps)
    first = next((each for each in origins if isinstance(each, RenderedOrigin)), None)
    return first.root.including(os.path.realpath(file)) if first else ()


def check_effects(changes: ChangeSet, texts: Mapping[str, str]) -> None:
    """Renders what includes some files with new texts of them.

    Each root has to come out as `changes`, those of the rendered objects of all roots, want it.
    Raises NotEditable for an object that is in the way.
    """
    wanted: dict[str, list[Step]] = defaultdict(list)
    roots: list[Root] = []
    for step in changes.steps:
        origin = step.resource.origin
        if isinstance(origin, RenderedOrigin):
            wanted[origin.root.name].append(step)
            roots.append(origin.root)
    if not roots:
        return
    everything = [step for steps in wanted.values() for step in steps]
    for effect in roots[0].effects({os.path.realpath(file): texts[file] for file in texts}):
        steps = wanted.get(effect.root, [])
        told = f"{effect.root} includes the same file, and would change in another way"
        if effect.failure:
            told = f"{effect.root} could not be rendered afterwards: {effect.failure}"
        elif len(effect.before) == len(effect.after):
            other = [
                before
                for before, after in zip(effect.before, effect.after, strict=True)
                if after != next((each.after for each in steps if each.before == before), before)
            ]
            if not other:
                continue
            kinds = [each for each in everything if each.resource.id.api_kind == other[0]["kind"]]
            everything = kinds or everything
        resource = (steps or everything)[0].resource
        raise NotEditable(f"{resource}: {told}", resource.id)
