"""What folders of a repository hold: manifests, kustomizations, Helm charts, and other files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.resource import Resource, Unreadable, field_at
from kubectl_mesh.sources.files import objects_of, read_text, unreadable_of
from kubectl_mesh.sources.yaml import Document, read_documents

EXTENSIONS = (".yaml", ".yml", ".json")
KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"
_NEVER = frozenset((".git", ".hg", ".svn", ".terraform", ".venv", "node_modules"))
"""Folders of other programs. Other hidden folders may hold manifests."""
_OF_A_CHART = frozenset(("templates", "charts", "crds", "files", "ci"))
_CHART_FILES = re.compile(r"Chart\.(yaml|lock)|requirements\.(yaml|lock)|values.*\.(ya?ml|json)")
_KEYS = ("apiVersion", "kind", "metadata", "spec")
_TEMPLATE = re.compile(r"^\s*(- +)?\{\{|:\s+\{\{", re.MULTILINE)
"""A template where YAML has a mapping: `{{- if`, `name: {{ .Values.name }}`."""
_IS_TEMPLATE = "a template: it can be examined once it is rendered"


@dataclass
class Folder:
    """What is below a folder, in order of name.

    `files` may hold manifests. `kustomizations` and `charts` are folders with a kustomization.yaml
    or a Chart.yaml. `passed_over` are the files that are no manifests, with the reason.
    """

    files: list[str] = field(default_factory=list)
    kustomizations: list[str] = field(default_factory=list)
    charts: list[str] = field(default_factory=list)
    passed_over: list[Unreadable] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def look_through(folder: str, *, recursive: bool, raw: bool = False) -> Folder:
    """The .yaml, .yml and .json files of a folder, those of folders below it if `recursive`.

    Unless `raw`, kustomizations and charts are told from other folders, and what belongs to a
    chart, the templates and charts below it included, is left out.
    """
    found = Folder()

    def failed(error: OSError) -> None:
        found.unreadable.append(Unreadable(str(error.filename), error.strerror or str(error)))

    for here, below, names in os.walk(folder, onerror=failed):
        is_chart = CHART in names and not raw
        if is_chart:
            found.charts.append(here)
        if not raw and any(os.path.isfile(os.path.join(here, name)) for name in KUSTOMIZATION):
            found.kustomizations.append(here)
        for name in sorted(below) if recursive else ():
            if os.path.islink(os.path.join(here, name)):
                reason = "a link to a folder, which is not followed"
                found.passed_over.append(Unreadable(os.path.join(here, name), reason))
        below[:] = [
            name
            for name in sorted(below)
            if recursive and name not in _NEVER and not (is_chart and name in _OF_A_CHART)
        ]
        for name in sorted(names):
            file = os.path.join(here, name)
            if not name.endswith(EXTENSIONS) or (is_chart and _CHART_FILES.fullmatch(name)):
                continue
            if os.path.isfile(file):
                found.files.append(file)
            elif os.path.islink(file):
                found.passed_over.append(Unreadable(file, "a link to nothing"))
    return found


@dataclass
class Read:
    """One file of a folder. `no_manifest` says why it is none; "" for one that is."""

    resources: list[Resource] = field(default_factory=list)
    broken: list[Unreadable] = field(default_factory=list)
    no_manifest: str = ""


def read_file(file: str, namespace: str, *, nameless: bool = False) -> Read:
    """A file that was found in a folder, where not every file is meant to be a manifest.

    It is one if any of its documents is, or is meant to be one and broken. Then the others have to
    be, too.
    """
    try:
        text = read_text(file)
    except InputError as error:
        if _is_meant(file):
            return Read(broken=[unreadable_of(error)])
        return Read(no_manifest=error.message)
    documents = list(read_documents(text, file))
    reasons = [_no_manifest(document, text) for document in documents]
    if all(reasons):
        return Read(no_manifest=reasons[0] or "" if reasons else "it is empty")
    resources, broken = objects_of(documents, file, namespace, nameless=nameless)
    if not resources and not broken:
        return Read(no_manifest="its objects have no name: no API server takes them")
    return Read(resources, broken)


def _is_meant(file: str) -> bool:
    """Whether a file that cannot be read as text may be a manifest all the same."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(1 << 20).replace(b"\0", b"")
    except (OSError, ValueError):
        return True
    return b"apiVersion" in head and b"kind" in head


def _no_manifest(document: Document | InputError, text: str) -> str | None:
    """Why a document is not meant to be a manifest; None for one that is, broken or not."""
    if isinstance(document, InputError):
        if not _has_keys_of_a_manifest(text):
            return document.message
        if _TEMPLATE.search(text):
            return _IS_TEMPLATE
        return None
    value = document.value
    if not isinstance(value, dict):
        return "a list" if isinstance(value, list) else "plain text"
    if not _is_manifest(value):
        return "not a Kubernetes object: no apiVersion and kind"
    return _IS_TEMPLATE if "{{" in str(field_at(value, ("metadata", "name"))) else None


def _is_manifest(value: dict[str, Any]) -> bool:
    """Whether a mapping is an object, or is meant to be one: a key may be missing or misspelt."""
    if isinstance(value.get("apiVersion"), str) and isinstance(value.get("kind"), str):
        return True
    keys = {str(key).lower() for key in value}
    return bool(keys & {"apiversion", "kind"}) and bool(keys & {"metadata", "spec"})


def _has_keys_of_a_manifest(text: str) -> bool:
    """Whether a text that is no YAML or JSON has the keys of an object all the same."""
    found = {
        key
        for key in _KEYS
        if re.search(rf'^["\']?{key}["\']?\s*:', text, re.MULTILINE)
        or (text.lstrip()[:1] == "{" and re.search(rf'"{key}"\s*:', text))
    }
    return len(found) > 1 and bool(found & {"apiVersion", "kind"})
