"""The manifests of all tests: read from files, and with the defaults of a real API server.

The server is asked for a dry run of each object. An object that it refuses is left out on both
sides: it is invalid, or of a kind that the server does not serve.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from tests.sources.as_served import (
    MANIFESTS,
    ROOT,
    assert_found_the_same,
    manifests,
    read,
    serving_all_kinds,
)

from .apiserver import ApiServer


def test_what_is_found_is_the_same(new_apiserver: Callable[..., ApiServer], tmp_path: Path) -> None:
    server = new_apiserver()
    known = {"default"}
    taken, differing = 0, []
    with serving_all_kinds() as stand_in:
        for file in MANIFESTS:
            written, given = [], []
            for resource in map(completed, manifests(file)):
                if resource.namespace and resource.namespace not in known:
                    namespace = {"metadata": {"name": resource.namespace}}
                    with contextlib.suppress(RuntimeError):  # it is there, or no namespace
                        server.request("POST", "/api/v1/namespaces", namespace)
                    known.add(resource.namespace)
                found = tried(server, resource)
                if found is not None:
                    written.append(resource)
                    given.append(found)
            taken += len(written)
            stand_in.objects = given
            try:
                assert_found_the_same(written, read(stand_in, tmp_path))
            except AssertionError as error:
                differing.append(f"{file.relative_to(ROOT)}: {error}")
    assert not differing
    assert taken > 1000


def completed(resource: Resource) -> Resource:
    """An object with the fields that the API server requires and no rule reads."""
    raw: Any = copy.deepcopy(dict(resource.raw))
    raw["metadata"]["name"] = resource.name
    if resource.namespace:
        raw["metadata"]["namespace"] = resource.namespace
    spec = raw.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if isinstance(template, dict) and resource.kind in ("Deployment", "StatefulSet", "DaemonSet"):
        labels = template.setdefault("metadata", {}).setdefault("labels", {"app": "x"})
        spec.setdefault("selector", {"matchLabels": labels})
        if resource.kind == "StatefulSet":
            spec.setdefault("serviceName", "x")
    pod = spec if resource.kind == "Pod" else (template or {}).get("spec")
    for container in (pod or {}).get("containers") or ():
        container.setdefault("image", "x")
    return as_resource(raw, resource.origin, resource.namespace)


def tried(server: ApiServer, resource: Resource) -> dict[str, Any] | None:
    """The object that the server would make; None if it refuses the manifest."""
    try:
        folder = server.path(resource.raw).rpartition("/")[0]
        found = server.request("POST", f"{folder}?dryRun=All", resource.raw)
    except RuntimeError as error:
        reasons = ("the server has no kind", ": 404 ", ": 422 ", ": 400 ", ": 409 ")
        if not any(reason in str(error) for reason in reasons):
            raise
        return None
    found["metadata"]["creationTimestamp"] = resource.metadata["creationTimestamp"]
    found.pop("status", None)  # nothing runs a pod here, nor gives it a sidecar
    if "status" in resource.raw:
        found["status"] = resource.raw["status"]
    return found
