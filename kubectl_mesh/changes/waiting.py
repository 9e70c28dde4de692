"""What must hold before the next step of a change set, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kubectl_mesh.changes.patch import Target
from kubectl_mesh.errors import MeshError
from kubectl_mesh.kube.http import Client

_PAUSE = 1.0


class TimedOut(MeshError):
    """What was waited for does not hold in time."""


def rolled_out(
    client: Client, target: Target, path: str, timeout: float | None, told: Callable[[str], object]
) -> None:
    """Waits until all pods of a workload are of its newest template, and ready.

    As `kubectl rollout status` has it. `told` hears how far it is, whenever that changes. Raises
    TimedOut after `timeout` seconds (None: never), and ClusterError.
    """
    start = time.monotonic()
    last = ""
    while missing := _missing(client.get(path)):
        if missing != last:
            told(f"waiting for {target}: {missing}")
            last = missing
        if timeout is not None and time.monotonic() + _PAUSE > start + timeout:
            raise TimedOut(
                f"{target} is not rolled out within {timeout:g} s: {missing}: look at its pods "
                "and events, or wait longer with --timeout"
            )
        time.sleep(_PAUSE)


def _missing(workload: Mapping[str, Any]) -> str:
    """What a workload's rollout still lacks, in words; empty where nothing is."""
    status = workload.get("status") or {}
    wanted = (workload.get("spec") or {}).get("replicas", 1)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return "its controller has not seen the change yet"
    updated = status.get("updatedReplicas", 0)
    if updated < wanted:
        return f"{updated} of {wanted} pods are new"
    if status.get("replicas", 0) > updated:
        return f"{status['replicas'] - updated} old pods are still there"
    available = status.get("availableReplicas", 0)
    return "" if available >= updated else f"{available} of {updated} pods are ready"
