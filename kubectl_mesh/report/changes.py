"""A change set: as a diff for people, and in the words of kubectl, kustomize and RFC 6902."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.report.yaml_ import dump
from kubectl_mesh.term import Paint, safe

_SERVERS_OWN = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def paint_diff(lines: Iterable[str], paint: Paint) -> str:
    """The lines of a unified diff, coloured as git does it, with nothing that harms a terminal."""
    return "".join(_painted(line, paint) for line in lines)


def _painted(line: str, paint: Paint) -> str:
    text = safe(line.rstrip("\n"))
    if line.startswith(("---", "+++")):
        text = paint(text, "bold")
    elif line[:1] in _COLORS:
        text = paint(text, _COLORS[line[:1]])
    end = "" if line.endswith("\n") else "\n\\ No newline at end of file"
    return f"{text}{end}\n"


def live_diff(changes: ChangeSet) -> Iterator[str]:
    """The lines of a diff of objects as YAML, for those that stand in no file."""
    for step in changes.steps:
        yield from difflib.unified_diff(
            _shown(step.before).splitlines(keepends=True),
            _shown(step.after).splitlines(keepends=True),
            f"{step.target} (now)",
            f"{step.target} (then)",
        )


def _shown(document: Mapping[str, Any]) -> str:
    """An object as people read it: what the API server keeps for itself is left out."""
    metadata = document.get("metadata")
    shown = {key: value for key, value in document.items() if key != "status"}
    if isinstance(metadata, dict):
        own = {key: value for key, value in metadata.items() if key not in _SERVERS_OWN}
        shown["metadata"] = own
    return dump(shown)


def as_jsonpatch(changes: ChangeSet) -> str:
    """`[{"target": {...}, "patch": [...]}]`, in ASCII."""
    return json.dumps([_patch(step) for step in changes.steps], indent=2) + "\n"


def _patch(step: Step) -> Mapping[str, Any]:
    target = step.target
    return {
        "target": {
            "apiVersion": target.api_version,
            "kind": target.kind,
            **({"namespace": target.namespace} if target.namespace else {}),
            "name": target.name,
        },
        "patch": list(step.operations),
    }


def as_kustomize(changes: ChangeSet) -> str:
    """A `patches:` block of a kustomization."""
    patches = []
    for step in changes.steps:
        target = step.target
        group, _, version = target.api_version.rpartition("/")
        patches.append(
            {
                "target": {
                    **({"group": group} if group else {}),
                    "version": version,
                    "kind": target.kind,
                    **({"namespace": target.namespace} if target.namespace else {}),
                    "name": target.name,
                },
                "patch": json.dumps(list(step.operations), indent=2),
            }
        )
    return dump({"patches": patches})


def as_kubectl(changes: ChangeSet) -> str:
    """`kubectl patch` lines for a shell, which stops at the first that fails."""
    return "".join(f"{line}\n" for line in " &&\n".join(map(_command, changes.steps)).splitlines())


def _command(step: Step) -> str:
    target = step.target
    group, _, version = target.api_version.rpartition("/")
    resource = (
        f"{KINDS[target.kind].plural}.{version}.{group}" if group else KINDS[target.kind].plural
    )
    where = ["-n", target.namespace] if target.namespace else []
    patch = json.dumps(list(step.operations))
    return shlex.join(
        ["kubectl", "patch", resource, target.name, *where, "--type=json", "-p", patch]
    )


def as_yaml(changes: ChangeSet) -> str:
    """The objects as they are then, for `kubectl apply`."""
    return "".join(f"---\n{_shown(step.after)}" for step in changes.steps)


FORMATS: Mapping[str, Callable[[ChangeSet], str]] = {
    "jsonpatch": as_jsonpatch,
    "kustomize": as_kustomize,
    "kubectl": as_kubectl,
    "yaml": as_yaml,
}
"""The values of `--output` besides `diff`."""
