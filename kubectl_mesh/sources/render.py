"""Kustomizations and charts as manifests, rendered by kustomize and Helm themselves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Origin, Position, Resource, Unreadable
from kubectl_mesh.sources.charts import Chart
from kubectl_mesh.sources.files import objects_of, unreadable_of
from kubectl_mesh.sources.kustomize import Closure, Kustomization
from kubectl_mesh.sources.origins import Origins, TemplateOrigin
from kubectl_mesh.sources.progress import ProgressLine
from kubectl_mesh.sources.sandbox import Rendered, Task, program, run_all
from kubectl_mesh.sources.yaml import Document, read_documents

Root = tuple[Kustomization, Closure]
OriginOf = Callable[[Document], Origin]


class Renderer:
    """Gathers the objects of each root by its folder, and why others are not rendered.

    `shown` names a real path as the user would. Without `network` nothing is fetched.
    """

    def __init__(self, shown: Callable[[str], str], namespace: str, *, network: bool) -> None:
        self.rendered: dict[str, list[Resource]] = {}
        self.unreadable: list[Unreadable] = []
        self.roots: list[str] = []
        self._shown = shown
        self._namespace = namespace
        self._network = network

    def kustomizations(self, roots: Sequence[Root]) -> None:
        """Renders roots. None that takes a chart, or something that has to be fetched."""
        self.roots += [self._name(root) for root, _ in roots]
        roots = [each for each in roots if not self._is_refused(*each)]
        kustomize = _kustomize()
        if kustomize is None:
            for root, _ in roots:
                self._not_rendered(self._name(root), _MISSING)
            return
        tasks = [Task((*kustomize, "."), _wrapping(root)) for root, _ in roots]
        failed = []
        for each, rendered in zip(roots, self._run(tasks), strict=True):
            if rendered.failure:
                failed.append(each)
            else:
                self._add_root(each, rendered)
        # Alone, a root fails with a clearer message, or with an old kustomize not at all.
        tasks = [Task((*kustomize, root.folder)) for root, _ in failed]
        for each, rendered in zip(failed, self._run(tasks), strict=True):
            if rendered.failure:
                name = self._name(each[0])
                self._not_rendered(name, f"kustomize says: {rendered.failure}")
            else:
                self._add_root(each, rendered)

    def _is_refused(self, root: Kustomization, closure: Closure) -> bool:
        if closure.charts:
            here, place = closure.charts[0]
            reason = "it inflates a Helm chart, as only `kustomize build --enable-helm` does"
        elif closure.remote and not self._network:
            here, place, entry = closure.remote[0]
            reason = f"it takes {entry}; --render=remote fetches it"
        else:
            return False
        self._not_rendered(self._name(root), reason, self._place(here, here.locate(place)))
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
            Task((helm, "template", chart.release, os.path.realpath(chart.folder)))
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

    def _name(self, root: Kustomization) -> str:
        return os.path.normpath(self._shown(root.folder))

    def _place(self, here: Kustomization, position: Position) -> Position:
        return replace(position, file=self._shown(here.file))

    def _not_rendered(
        self, name: str, reason: str, position: Position | None = None, *, failed: bool = True
    ) -> None:
        told = f"{name} is not rendered: {reason}" if position else f"not rendered: {reason}"
        self.unreadable.append(Unreadable(name, told, position, failed))

    def _add_root(self, each: Root, rendered: Rendered) -> None:
        root, closure = each
        origins = Origins(root, closure, rendered.folder, self._shown, self._namespace)
        self._add(self._name(root), rendered.text, origins.of)

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


_MISSING = "neither kubectl nor kustomize is installed"


def _kustomize() -> tuple[str, ...] | None:
    """The program that renders kustomizations, with its first arguments."""
    if found := program("kubectl"):
        return found, "kustomize"
    found = program("kustomize")
    return (found, "build") if found else None


def _wrapping(root: Kustomization) -> Callable[[str], Mapping[str, str]]:
    """What makes a kustomization around a root that has kustomize say where objects come from."""

    def files(folder: str) -> Mapping[str, str]:
        value: dict[str, Any] = {
            "resources": [os.path.relpath(root.folder, folder)],
            "buildMetadata": ["originAnnotations", "transformerAnnotations"],
        }
        return {"kustomization.yaml": json.dumps(value)}

    return files
