"""The names of what there is, and nothing else of it: for completion."""

from __future__ import annotations

from collections.abc import Collection

from kubectl_mesh.errors import NotInstalled
from kubectl_mesh.kube.discovery import base_of
from kubectl_mesh.kube.http import Client
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.sources.session import Session

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


def of_objects(session: Session, kind: str, namespace: str | None) -> Collection[tuple[str, str]]:
    """Namespace and name of all objects of a kind, as schema.KINDS has it; namespace None: of all.

    Raises ClusterError.
    """
    client = Client(session.client.connection.accepting(_METADATA))
    known = KINDS[kind]
    where = f"/namespaces/{namespace}" if namespace else ""
    for version in known.versions:
        api_version = f"{known.group}/{version}" if known.group else version
        try:
            items = client.items(f"{base_of(api_version)}{where}/{known.plural}", dict)
        except NotInstalled:
            continue
        metadata = [item.get("metadata") or {} for item in items]
        return [(str(each.get("namespace") or ""), str(each.get("name"))) for each in metadata]
    return []
