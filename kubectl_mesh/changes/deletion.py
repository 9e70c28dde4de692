"""Objects whose deletion was asked for and is not finished.

The API server keeps an object until its finalizers are removed, a Namespace until it is empty, and
a pod until it has stopped. Until then everything reads it: a VirtualService still routes. Nobody
can cancel a deletion, so that whatever is written to such an object vanishes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OF_COLLECTOR = frozenset(("foregroundDeletion", "orphan"))
"""Finalizers that the API server adds when somebody asks for a deletion."""


def is_terminating(document: Mapping[str, Any] | None) -> bool:
    """Whether the deletion of an object was asked for. False for one that is not there."""
    return bool(((document or {}).get("metadata") or {}).get("deletionTimestamp"))


def being_deleted(document: Mapping[str, Any]) -> str:
    """Since when an object is being deleted, and what keeps it."""
    since = (document.get("metadata") or {}).get("deletionTimestamp")
    return f"is being deleted (since {since}; {kept_by(document)})"


def kept_by(document: Mapping[str, Any]) -> str:
    """What keeps an object that is being deleted."""
    return "; ".join(_keepers(document)) or "it has no finalizers and has not stopped yet"


def uid_of(document: Mapping[str, Any] | None) -> str:
    """The uid of an object; "" where it has none."""
    return str(((document or {}).get("metadata") or {}).get("uid") or "")


def _keepers(document: Mapping[str, Any]) -> Iterator[str]:
    spec, status = (document.get(part) or {} for part in ("spec", "status"))
    finalizers = list((document.get("metadata") or {}).get("finalizers") or ())
    if document.get("kind") == "Namespace":
        finalizers += spec.get("finalizers") or ()
    if finalizers:
        word = "finalizer" if len(finalizers) == 1 else "finalizers"
        yield f"{word} {', '.join(map(str, finalizers))}"
    for each in status.get("conditions") or ():
        if document.get("kind") == "Namespace" and each.get("status") == "True":
            yield str(each.get("message"))
