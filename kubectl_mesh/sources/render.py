"""Kustomizations and charts as manifests, rendered by kustomize and Helm themselves."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Origin, Position, Resource, Unreadable
from kubectl_mesh.sources.charts import Chart
from kubectl_mesh.sources.files import objects_of, unreadable_of
from kubectl_mesh.sources.kustomize import Closure, Kustomization
from kubectl_mesh.sources.origins import Effect, Origins, TemplateOrigin, annotations_of
from kubectl_mesh.sources.progress import ProgressLine
from kubectl_mesh.sources.sandbox import MEMORY, Rendered, Task, program, run_all
from kubectl_mesh.sources.yaml import Document, read_documents

OriginOf = Callable[[Document], Origin]
_MISSING = "neither kubectl nor kustomize is installed"


@dataclass(frozen=True)
class Root:
    """A kustomization that is rendered by itself."""

    renderer: Renderer
    name: str
    top: Kustomization
    closure: Closure

    def including(self, file: str) -> Sequence[str]:
        """As origins.Root has it."""
        return self.renderer.including(file)

    def effects(self, texts: Mapping[str, str]) -> Iterator[Effect]:
        """As origins.Root has it."""
        return self.renderer.effects(texts)


class Renderer:
    """Gathers the objects of each root by its folder, and why others are not rendered.

    `shown` names a real path as the user would. Without `network` nothing is fetched.
    """

    def __init__(self, shown: Callable[[str], str], namespace: str, *, network: bool) -> None:
        self.rendered: dict[str, list[Resource]] = {}
        self.unreadable: list[Unreadable] = []
        self.roots: list[str] = []
        self._rendered: list[Root] = []
        self._shown = shown
        self._namespace = namespace
        self._network = network

    def kustomizations(self, found: Sequence[tuple[Kustomization, Closure]]) -> None:
        """Renders roots. None that takes a chart, or something that has to be fetched."""
        roots = [
            Root(self, os.path.normpath(self._shown(top.folder)), top, closure)
            for top, closure in found
        ]
        self.roots += [root.name for root in roots]
        roots = [root for root in roots if not self._is_refused(root)]
        kustomize = _kustomize()
        if kustomize is None:
            for root in roots:
                self._not_rendered(root.name, _MISSING)
            return
        failed: list[Root] = []
        tasks = [Task((*kustomize, "."), _wrapping(root.top.folder)) for root in roots]
        for root, rendered in zip(roots, self._run(tasks), strict=True):
            if rendered.is_ended:
                self._not_rendered(root.name, rendered.failure)
            elif rendered.failure:
                failed.append(root)
            else:
                self._add_root(root, rendered)
        # Alone, a root fails with a clearer message, or with an old kustomize not at all.
        tasks = [Task((*kustomize, root.top.folder)) for root in failed]
        for root, rendered in zip(failed, self._run(tasks), strict=True):
            if rendered.failure:
                self._not_rendered(root.name, f"kustomize says: {rendered.failure}")
            else:
                self._add_root(root, rendered)

    def including(self, file: str) -> Sequence[str]:
        """The roots that were rendered and include a file, by its real path."""
        return [root.name for root in self._rendered if file in root.closure.files]

    def effects(self, texts: Mapping[str, str]) -> Iterator[Effect]:
        """What other texts of some files, by their real path, would make of all roots with them.

        The roots are rendered in a copy of their files.
        """
        kustomize = _kustomize()
        roots = [each for each in self._rendered if not texts.keys().isdisjoint(each.closure.files)]
        if kustomize is None or not roots:
            return
        with tempfile.TemporaryDirectory(prefix="kubectl-mesh-") as scratch:
            tree = os.path.realpath(scratch)
            for file in {file for root in roots for file in root.closure.files}:
                copy = os.path.join(tree, file.lstrip(os.sep))
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                if file in texts:
                    with open(copy, "w", encoding="utf-8", errors="surrogateescape") as stream:
                        stream.write(texts[file])
                else:
                    shutil.copyfile(file, copy)
            folders = [root.top.folder for root in roots]
            folders += [os.path.join(tree, folder.lstrip(os.sep)) for folder in folders]
            tasks = [Task((*kustomize, "."), _wrapping(folder)) for folder in folders]
            rendered = list(self._run(tasks))
        for root, before, after in zip(
            roots, rendered[: len(roots)], rendered[len(roots) :], strict=True
        ):
            failure = before.failure or after.failure
            yield Effect(root.name, _values(before.text), _values(after.text), failure)

    def _is_refused(self, root: Root) -> bool:
        if root.closure.charts:
            here, place = root.closure.charts[0]
            reason = "it inflates a Helm chart, as only `kustomize build --enable-helm` does"
        elif root.closure.remote and not self._network:
            here, place, entry = root.closure.remote[0]
            reason = f"it takes {entry}; --render=remote fetches it"
        else:
            return False
        position = replace(here.locate(place), file=self._shown(here.file))
        self._not_rendered(root.name, reason, position)
        return True

    def remote(self, url: str) -> None:
        """Renders the kustomization at a URL."""
        self.roots.append(url)
        kustomize = _kustomize()
        if not self._network:
            self._not_rendered(url, "it is remote; --render=remote fetches it")
        elif kustomize is None:
            self._not_rendered(url, _MISSING)
        else:
            (rendered,) = self._run([Task((*kustomize, "--", url))])
            if rendered.failure:
                self._not_rendered(url, f"kustomize says: {rendered.failure}")
            else:
                self._add(url, rendered.text, None)

    def charts(self, found: Sequence[Chart], *, really: bool) -> None:
        """Names charts with what renders them, or renders them `really`, as they are by default."""
        helm = program("helm") if really and found else None
        if helm is None:
            for chart in found:
                missing = "helm is not installed; " if really else ""
                told = f"a Helm chart; {missing}to examine it: {chart.command}"
                self._not_rendered(chart.folder, told, failed=really)
            return
        self.roots += [os.path.normpath(chart.folder) for chart in found]
        tasks = [
            Task(
                (helm, "template", chart.release, os.path.realpath(chart.folder)),
                memory=3 * MEMORY,  # it reserves more for Starlark alone
            )
            for chart in found
        ]
        for chart, rendered in zip(found, self._run(tasks), strict=True):
            name = os.path.normpath(chart.folder)
            if rendered.failure:
                self._not_rendered(name, f"helm says: {rendered.failure}")
            else:
                self._add(name, rendered.text, partial(TemplateOrigin.of, chart))

    def _run(self, tasks: Sequence[Task]) -> Iterator[Rendered]:
        with ProgressLine(sys.stderr) as progress:
            for number, rendered in enumerate(run_all(tasks, network=self._network), 1):
                progress.show(f"rendering: {number} of {len(tasks)}")
                yield rendered

    def _not_rendered(
        self, name: str, reason: str, position: Position | None = None, *, failed: bool = True
    ) -> None:
        told = f"{name} is not rendered: {reason}" if position else f"not rendered: {reason}"
        self.unreadable.append(Unreadable(name, told, position, failed))

    def _add_root(self, root: Root, rendered: Rendered) -> None:
        self._rendered.append(root)
        origins = Origins(
            root, root.top, root.closure, rendered.folder, self._shown, self._namespace
        )
        self._add(root.name, rendered.text, origins.of)

    def _add(self, name: str, text: str, origin_of: OriginOf | None) -> None:
        resources = self.rendered.setdefault(name, [])
        for document in read_documents(text, name):
            if isinstance(document, InputError):
                self.unreadable.append(unreadable_of(document))
                continue
            origin = origin_of(document) if origin_of else None
            found, broken = objects_of([document], name, self._namespace)
            self.unreadable += broken
            resources += [replace(each, origin=origin) if origin else each for each in found]


def _values(text: str) -> list[Any]:
    """The objects that kustomize printed, without what it says of them."""
    found = []
    for document in read_documents(text, ""):
        if isinstance(document, Document) and isinstance(document.value, dict):
            annotations_of(document.value)
            found.append(document.value)
    return found


def _kustomize() -> tuple[str, ...] | None:
    """The program that renders kustomizations, with its first arguments."""
    if found := program("kubectl"):
        return found, "kustomize"
    found = program("kustomize")
    return (found, "build") if found else None


def _wrapping(root: str) -> Callable[[str], Mapping[str, str]]:
    """What makes a kustomization around a root that has kustomize say where objects come from."""

    def files(folder: str) -> Mapping[str, str]:
        value: dict[str, Any] = {
            "resources": [os.path.relpath(root, folder)],
            "buildMetadata": ["originAnnotations", "transformerAnnotations"],
        }
        return {"kustomization.yaml": json.dumps(value)}

    return files
