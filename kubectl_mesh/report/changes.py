"""A change set: as a diff for people, and in the words of kubectl, kustomize and RFC 6902."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kubectl_mesh.changes.change_set import Action, ChangeSet, Step
from kubectl_mesh.changes.patch import content, without_notes
from kubectl_mesh.changes.wait_for import DELAY
from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.report.yaml_ import dump
from kubectl_mesh.rules.repair import Then
from kubectl_mesh.term import Paint, safe

_HARMLESS = re.compile(r"[^\t\u00a0\ufeff]+")
"""What does not print and does a terminal no harm; a diff without it cannot be applied."""
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def paint_diff(lines: Iterable[str], paint: Paint) -> str:
    """The lines of a unified diff, coloured as git does it, with nothing that harms a terminal."""
    return "".join(_painted(line, paint) for line in lines)


def _painted(line: str, paint: Paint) -> str:
    text = _HARMLESS.sub(lambda found: safe(found[0]), line.rstrip("\n"))
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
            f"{step.target} (now)" if step.before else "/dev/null",
            f"{step.target} (then)" if step.after else "/dev/null",
        )


def _shown(document: Mapping[str, Any] | None) -> str:
    """An object as people read it: what the API server and kubectl keep for themselves is left out.

    Nothing, of one that is not there.
    """
    if document is None:
        return ""
    return dump(without_notes(content(document)))


def as_jsonpatch(changes: ChangeSet) -> str:
    """`[{"target": {...}, "patch": [...]}]`, in ASCII.

    In place of the patch, {"create": the object} or {"delete": true} for objects that come and go.
    """
    return json.dumps([_patch(step) for step in changes.steps], indent=2) + "\n"


def _patch(step: Step) -> Mapping[str, Any]:
    what: dict[str, Any] = {"patch": list(step.operations)}
    if step.action is Action.CREATE:
        what = {"create": step.after}
    elif step.action is Action.DELETE:
        what = {"delete": True}
    return {"target": target_of(step), **what}


def target_of(step: Step) -> Mapping[str, str]:
    """Which object a step is for: apiVersion, kind, namespace if it has one, name."""
    target = step.target
    where = {"namespace": target.namespace} if target.namespace else {}
    return {"apiVersion": target.api_version, "kind": target.kind, **where, "name": target.name}


def as_kustomize(changes: ChangeSet) -> str:
    """A `patches:` block of a kustomization. Raises UsageError for an object that is new to it."""
    patches = []
    for step in changes.steps:
        target = step.target
        patch = json.dumps(list(step.operations), indent=2)
        if step.action is Action.CREATE:
            raise UsageError(f"no patch makes {target}: use -o yaml, and add it to the resources")
        if step.action is Action.DELETE:
            name = {"name": target.name}
            if target.namespace:
                name["namespace"] = target.namespace
            gone = {"apiVersion": target.api_version, "kind": target.kind, "metadata": name}
            patch = dump({"$patch": "delete", **gone})
        selected = dict(target_of(step))
        group, _, version = selected.pop("apiVersion").rpartition("/")
        served = {"group": group, "version": version} if group else {"version": version}
        patches.append({"target": {**served, **selected}, "patch": patch})
    return dump({"patches": patches})


def as_kubectl(changes: ChangeSet) -> str:
    """Lines of kubectl for a shell, which stops at the first that fails.

    Where proxies have to have something before the next one, it is the few seconds of Istio's
    guidelines.
    """
    return "".join(f"{line}\n" for line in " &&\n".join(_commands(changes)).splitlines())


def _commands(changes: ChangeSet) -> Iterator[str]:
    for step in changes.steps:
        target = step.target
        group, _, version = target.api_version.rpartition("/")
        plural = KINDS[step.resource.kind].plural
        resource = f"{plural}.{version}.{group}" if group else plural
        where = ["-n", target.namespace] if target.namespace else []
        if step.action is Action.CREATE:
            text = shlex.quote(json.dumps(step.after))
            yield f"printf %s {text} | kubectl create -f -"
        elif step.action is Action.DELETE:
            yield shlex.join(["kubectl", "delete", resource, target.name, *where])
        else:
            patch = json.dumps(list(step.operations))
            yield shlex.join(
                ["kubectl", "patch", resource, target.name, *where, "--type=json", "-p", patch]
            )
        if step.then is Then.PROXIES and step is not changes.steps[-1]:
            yield f"sleep {DELAY:g}"
        if step.then is Then.ROLLED_OUT and step is not changes.steps[-1]:
            kind = target.kind.lower()
            yield shlex.join(["kubectl", "rollout", "status", f"{kind}/{target.name}", *where])


def as_yaml(changes: ChangeSet) -> str:
    """The objects as they are then, for `kubectl apply`; comments name those that are to go."""
    return "".join(
        f"---\n{_shown(step.after)}" if step.after else f"# delete {step.target}\n"
        for step in changes.steps
    )


FORMATS: Mapping[str, Callable[[ChangeSet], str]] = {
    "jsonpatch": as_jsonpatch,
    "kustomize": as_kustomize,
    "kubectl": as_kubectl,
    "yaml": as_yaml,
}
"""The values of `--output` besides `diff`."""
