"""Files and folders as meshes: plain manifests are one, each root of kustomizations is another."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.resource import Resource, Unreadable
from kubectl_mesh.mesh.schema import kind_of
from kubectl_mesh.sources import charts, files
from kubectl_mesh.sources.folders import EXTENSIONS, KUSTOMIZATION, Folder, look_through, read_file
from kubectl_mesh.sources.kustomize import Closure, Kustomizations, is_remote
from kubectl_mesh.sources.render import Renderer
from kubectl_mesh.sources.yaml import collector_paused

LOCAL, NEVER, REMOTE, HELM = RENDER = ("local", "never", "remote", "helm")
_NAMED = 5
"""So many things of one kind are named in one line."""


@dataclass
class Manifests:
    """The objects of one mesh. `root` is the folder that was rendered, "" for plain manifests.

    `elsewhere` says, for a kind and a namespace, which other part of the input holds objects that
    may belong to this mesh, too.
    """

    root: str
    resources: list[Resource]
    elsewhere: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Input:
    """What -f and -k name. The plain manifests are the first mesh, and always there.

    `passed_over` are the files of folders that are no manifests. `roots` are all that could be
    looked at, also those that were not rendered.
    """

    meshes: list[Manifests] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    passed_over: list[Unreadable] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)

    def only(self) -> list[Resource]:
        """The objects, where one mesh is looked at. Raises UsageError where there are several."""
        plain, *rendered = self.meshes
        is_mixed = any(kind_of(each.api_version, each.kind) for each in plain.resources)
        if not self.roots:
            return plain.resources
        if is_mixed or len(self.roots) > 1:
            listed = [*self.roots[:_NAMED], *(["..."] if self.roots[_NAMED:] else ())]
            listed += ["the manifests outside of them"] if is_mixed else []
            raise UsageError(
                f"the input holds several meshes: {', '.join(listed)}. Choose one, a kustomization "
                "with -k or files with -f"
            )
        return [resource for each in rendered for resource in each.resources]


def read(
    filenames: Iterable[str],
    *,
    recursive: bool = False,
    namespace: str = "default",
    nameless: bool = False,
    render: Collection[str] = (LOCAL,),
    strict: bool = False,
    root: str | None = None,
) -> Input:
    """The meshes of files, folders and `-`; of the kustomization `root` alone if it is given.

    In a folder, files that are no manifests are passed over, or are unreadable if `strict`. Never
    raises: what cannot be read or rendered is named in `unreadable`.
    """
    reader = _Reader(namespace, render, nameless=nameless, strict=strict)
    with collector_paused():
        if root is None:
            reader.take(list(dict.fromkeys(filenames)), recursive)
        else:
            reader.take_root(root)
        return reader.finish()


class _Reader:
    def __init__(
        self, namespace: str, render: Collection[str], *, nameless: bool, strict: bool
    ) -> None:
        self.namespace = namespace
        self.render = render
        self.nameless = nameless
        self.strict = strict
        self.plain: list[Resource] = []
        self.unreadable: list[Unreadable] = []
        self.passed_over: list[Unreadable] = []
        self.renderer = Renderer(self._shown, namespace, network=REMOTE in render)
        self._given: list[tuple[str, str]] = []
        self._seen: set[str] = set()

    def take(self, filenames: Sequence[str], recursive: bool) -> None:
        renders = NEVER not in self.render
        folders = {
            name: look_through(name, recursive=recursive, raw=not renders)
            for name in filenames
            if name != files.STDIN and os.path.isdir(name)
        }
        self._given += [(os.path.realpath(name), name) for name in folders]
        kustomizations = Kustomizations(
            each for folder in folders.values() for each in folder.kustomizations
        )
        closures = {each.folder: kustomizations.closure(each) for each in kustomizations.all}
        owned = {file for closure in closures.values() for file in closure.files}
        for name in filenames:
            if name in folders:
                self._take_folder(name, folders[name], owned, closures, recursive)
            elif renders and _is_kustomization(name):
                reason = f"a kustomization: render it with -k {os.path.dirname(name) or '.'}"
                self.unreadable.append(Unreadable(name, reason))
            elif name not in self._seen:
                self._seen.add(name)
                found, broken = files.load([name], namespace=self.namespace, nameless=self.nameless)
                self.plain += found
                self.unreadable += broken
        roots = kustomizations.roots
        self.renderer.kustomizations([(root, closures[root.folder]) for root in roots])
        for component in kustomizations.unused:
            reason = "not examined: a component that no kustomization of the input includes"
            self.unreadable.append(Unreadable(self._shown(component.folder), reason, failed=False))
        found_charts = charts.read(each for folder in folders.values() for each in folder.charts)
        self.renderer.charts(found_charts, really=HELM in self.render)

    def _take_folder(
        self,
        name: str,
        folder: Folder,
        owned: Collection[str],
        closures: Mapping[str, Closure],
        recursive: bool,
    ) -> None:
        """The plain manifests of a folder.

        A manifest beside a kustomization that does not include it is not applied with it: it is
        named, and not examined.
        """
        passed_over = list(folder.passed_over)
        left_out: dict[str, list[str]] = defaultdict(list)
        examined = 0
        for file in folder.files:
            real = os.path.realpath(file)
            if file in self._seen or real in owned:
                examined += 1
                continue
            self._seen.add(file)
            read = read_file(file, self.namespace, nameless=self.nameless)
            if read.no_manifest:
                passed_over.append(Unreadable(file, read.no_manifest))
            elif os.path.dirname(real) in closures:
                left_out[os.path.dirname(file)].append(os.path.basename(file))
            else:
                examined += 1
                self.plain += read.resources
                self.unreadable += read.broken
        for where, names in left_out.items():
            listed = ", ".join([*names[:_NAMED], *(["..."] if names[_NAMED:] else ())])
            reason = f"not examined, as the kustomization of that folder leaves it out: {listed}"
            self.unreadable.append(Unreadable(where, reason, failed=False))
        self.unreadable += folder.unreadable
        if self.strict:
            self.unreadable += passed_over
        else:
            self.passed_over += passed_over
        if not (examined or left_out or folder.charts or folder.kustomizations):
            deeper = "" if recursive else " (use -R for the folders below it)"
            what = "manifest" if passed_over else ", ".join(EXTENSIONS)
            self.unreadable.append(Unreadable(name, f"the folder holds no {what}{deeper}"))

    def take_root(self, name: str) -> None:
        """The kustomization of a folder, or at a URL."""
        if is_remote(".", name):
            self.renderer.remote(name)
            return
        self._given.append((os.path.realpath(name), name))
        kustomizations = Kustomizations([name])
        if not kustomizations.all:
            reason = "the folder holds no kustomization.yaml: -k names the folder of one"
            if not os.path.isdir(name):
                reason = "no such folder: -k names the folder of a kustomization"
            self.unreadable.append(Unreadable(name, reason))
            return
        root = kustomizations.all[0]
        self.renderer.kustomizations([(root, kustomizations.closure(root))])

    def _shown(self, real: str) -> str:
        """A real path as the user would write it: below a folder that was named, or from here."""
        for folder, name in self._given:
            if real == folder:
                return name
            if real.startswith(os.path.join(folder, "")):
                return os.path.join(name, os.path.relpath(real, folder))
        if any(os.path.isabs(name) for _, name in self._given):
            return real
        return os.path.relpath(real)

    def finish(self) -> Input:
        rendered = self.renderer.rendered
        meshes = [Manifests("", self.plain)]
        meshes += [Manifests(root, resources) for root, resources in rendered.items()]
        _look_elsewhere(meshes)
        unreadable = [*self.unreadable, *self.renderer.unreadable]
        return Input(meshes, unreadable, self.passed_over, self.renderer.roots)


def _is_kustomization(file: str) -> bool:
    if os.path.basename(file) not in KUSTOMIZATION:
        return False
    return bool(Kustomizations([os.path.dirname(file) or "."]).all)


def _look_elsewhere(meshes: Sequence[Manifests]) -> None:
    """Says of each mesh which kinds of which namespaces another one has more of.

    Two meshes may be for one cluster: what the one has is not missing in the other. But objects
    that are made of one source are variants, for several clusters, unless the mesh names them.
    """
    owners: dict[tuple[str, str], list[tuple[Manifests, Resource, object]]] = defaultdict(list)
    for mesh in meshes if len(meshes) > 1 else ():
        for resource in mesh.resources:
            key = (resource.kind, resource.namespace)
            owners[key].append((mesh, resource, _source(resource)))
    for mesh in meshes:
        own = {resource.id for resource in mesh.resources}
        sources = {_source(resource) for resource in mesh.resources} if owners else set()
        words: set[str] = set()
        found: dict[tuple[str, str], str] = {}
        for key in owners.keys() & {(each.kind, each.namespace) for each in own}:
            for other, resource, source in owners[key]:
                if other is mesh or resource.id in own:
                    continue
                if source in sources:
                    words = words or {word for each in mesh.resources for word in _words(each.raw)}
                    if resource.name not in words:
                        continue
                found[key] = other.root or "the manifests outside of kustomizations"
                break
        mesh.elsewhere = found


def _source(resource: Resource) -> object:
    """What tells whether two objects are made of the same one."""
    position = resource.origin.locate(())
    return (position.file, position.line, position.column) if position else resource


def _words(value: Any) -> Iterator[str]:
    """The names that an object may refer to: plain ones, and the first part of hosts."""
    if isinstance(value, str):
        yield value.rpartition("/")[2].partition(".")[0]
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "metadata":
                yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
