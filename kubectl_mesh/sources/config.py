"""The mesh's settings, found in the input or read from --mesh-config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.sources.files import read_text
from kubectl_mesh.sources.yaml import read_documents

CONFIG_MAP = "istio"
KEY = "mesh"
NETWORKS = "meshNetworks"


def read_mesh_config(file: str) -> MeshConfig:
    """The MeshConfig in a file: as istiod takes it, or an `istio` ConfigMap around it.

    Raises InputError where the file cannot be read or is neither.
    """
    for document in read_documents(read_text(file), file):
        if isinstance(document, InputError):
            raise document
        value = document.value
        if isinstance(value, dict) and value.get("kind") == "ConfigMap":
            data = value.get("data")
            text = data.get(KEY) if isinstance(data, dict) else None
            if not isinstance(text, str):
                raise InputError(f"this ConfigMap has no key `{KEY}`", file, document.first_line)
            return _parse(text, file)
        if not isinstance(value, dict):
            raise InputError("a MeshConfig must be a mapping", file, document.first_line)
        if "kind" in value:
            raise InputError(
                f"a {value['kind']}, neither a MeshConfig nor a ConfigMap around one",
                file,
                document.first_line,
            )
        return MeshConfig.from_mapping(value)
    raise InputError("the file is empty: it holds no MeshConfig", file)


def find_mesh_config(resources: Iterable[Resource]) -> MeshConfig:
    """The MeshConfig of the `istio` ConfigMap among the resources, or Istio's defaults.

    The one in istio-system counts where there are several. A text that cannot be read counts as
    empty, as it does for the report: istiod would refuse it.
    """
    found = [
        resource
        for resource in resources
        if resource.kind == "ConfigMap" and resource.name == CONFIG_MAP
    ]
    found.sort(key=lambda resource: resource.namespace != "istio-system")
    for resource in found:
        data = resource.data.get("data") or {}
        if text := data.get(KEY):
            try:
                config = _parse(text, resource.origin.name, resource.namespace)
            except InputError:
                config = MeshConfig(root_namespace=resource.namespace)
            return config.with_networks(_networks(data.get(NETWORKS) or ""))
    return MeshConfig()


def _parse(text: str, file: str, root_namespace: str = "istio-system") -> MeshConfig:
    value: Any = {}
    for document in read_documents(text, file):
        if isinstance(document, InputError):
            raise document
        value = document.value
    if not isinstance(value, dict):
        raise InputError("a MeshConfig must be a mapping", file)
    return MeshConfig.from_mapping({"rootNamespace": root_namespace, **value})


def _networks(text: str) -> Mapping[str, Any]:
    """The MeshNetworks of a text; none where it cannot be read."""
    for document in read_documents(text, NETWORKS):
        if not isinstance(document, InputError) and isinstance(document.value, dict):
            return document.value
    return {}
