"""From an object as it was read to a Resource: one way for files, clusters and change sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_mesh.mesh.resource import Fault, Origin, Resource
from kubectl_mesh.mesh.schema import conform, identity, kind_of, project


def as_resource(
    value: Mapping[str, Any], origin: Origin, namespace: str = "", *, in_part: bool = False
) -> Resource:
    """The resource of an object that has an apiVersion and a kind.

    An object of a namespaced kind that names no namespace is in `namespace`. With `in_part` an
    object of a kind that the model reads in part is not kept beyond that: it has no `raw`.
    """
    kind = kind_of(value["apiVersion"], value["kind"])
    data: Mapping[str, Any] = value
    faults: tuple[Fault, ...] = ()
    if kind:
        data, faults = (conform if kind.is_whole else project)(value, kind.shape)
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    name = metadata.get("name") or metadata.get("generateName")
    if not is_name(name):
        name = ""
        faults += (Fault(("metadata", "name"), "a name", "missing"),)
    own = metadata.get("namespace")
    where = str(own) if is_name(own) else namespace
    if kind and not kind.namespaced:
        where = ""
    key = identity(value["apiVersion"], value["kind"], where, str(name))
    kept = None if in_part and kind and not kind.is_whole else value
    return Resource(key, value["apiVersion"], kept, data, origin, faults)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""
