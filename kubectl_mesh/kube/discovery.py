"""Where an API server has the objects of each kind, as it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_mesh.errors import ClusterError, NotInstalled
from kubectl_mesh.kube.http import Client


def base_of(api_version: str) -> str:
    """Where an API server has all of an apiVersion."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


class Kinds:
    """The kinds that a server knows. It is asked once for each apiVersion."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Mapping[str, Mapping[str, Any]]] = {}

    def is_namespaced(self, api_version: str, kind: str) -> bool:
        """Raises ClusterError for a kind that the server does not know."""
        return bool(self._resource(api_version, kind).get("namespaced"))

    def path(self, api_version: str, kind: str, namespace: str, name: str) -> str:
        """Where an object is. Raises ClusterError for a kind that the server does not know."""
        resource = self._resource(api_version, kind)
        where = f"/namespaces/{namespace}" if resource.get("namespaced") else ""
        return f"{base_of(api_version)}{where}/{resource['name']}/{name}"

    def _resource(self, api_version: str, kind: str) -> Mapping[str, Any]:
        if api_version not in self._known:
            try:
                found = self._client.get(base_of(api_version)).get("resources") or []
            except NotInstalled:
                found = []
            self._known[api_version] = {
                each["kind"]: each
                for each in found
                if isinstance(each, dict) and "/" not in str(each.get("name", "/"))
            }
        try:
            return self._known[api_version][kind]
        except KeyError:
            raise ClusterError(
                f"the API server knows no {kind} of {api_version}: is its CustomResourceDefinition "
                "installed, and the apiVersion right?"
            ) from None
