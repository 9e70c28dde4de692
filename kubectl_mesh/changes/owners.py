"""Whose objects are: controllers set back what others change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_mesh.kube.managed_fields import last_applied

_GITOPS = (
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
    ("argo-rollouts.argoproj.io/managed-by-rollouts", "Argo Rollouts"),
)
_OWNERS = {"Canary": "Flagger", "Rollout": "Argo Rollouts", "Application": "Argo CD"}


def owner_of(document: Mapping[str, Any]) -> str | None:
    """The controller that would set an object back to what it was; None if there is none."""
    metadata = document.get("metadata") or {}
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for mark, name in _GITOPS:
        if mark in marks:
            return f"{name} ({mark}: {marks[mark]})"
    if marks.get("app.kubernetes.io/managed-by") == "Helm":
        return "Helm (app.kubernetes.io/managed-by: Helm)"
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") in _OWNERS:
            return f"{_OWNERS[owner['kind']]} ({owner['kind']} {owner.get('name')})"
    return None


def is_applied(document: Mapping[str, Any]) -> bool:
    """Whether an object comes from a manifest that somebody has applied, by server or client."""
    fields = (document.get("metadata") or {}).get("managedFields") or ()
    by_server = any(each.get("operation") == "Apply" for each in fields)
    return by_server or last_applied(document) is not None
