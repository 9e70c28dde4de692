"""Who sees a Service or a VirtualService that has no exportTo, by the mesh's defaults."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.mesh.visibility import default_export, export_of


class Nowhere:
    name = "a test"

    def locate(self, path: Path) -> None:
        return None


def seen(kind: str, istio: Istio, default: tuple[str, ...], **spec: Any) -> str:
    """Which of the namespaces a (its own) and b see it."""
    metadata = {"name": "x", "namespace": "a"}
    resource = as_resource(
        {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}, Nowhere()
    )
    config = MeshConfig(istio=istio, virtual_service_export=default, service_export=default)
    export = export_of(resource, default_export(resource, config))
    return "".join(name for name in "ab" if export.reaches(name))


@pytest.mark.parametrize(
    ("default", "since", "before"),
    [
        (("*",), "ab", "ab"),
        ((".",), "a", "a"),
        (("b",), "b", ""),
        ((".", "b"), "ab", "a"),
        ((".", "*"), "ab", "a"),
        (("~",), "", ""),
    ],
)
def test_names_in_the_mesh_s_default(default: tuple[str, ...], since: str, before: str) -> None:
    for kind, spec in (
        ("Service", {}),
        ("ServiceEntry", {"hosts": ["x"]}),
        ("VirtualService", {"hosts": ["x"]}),
    ):
        assert seen(kind, Istio((1, 31)), default, **spec) == since, kind
        assert seen(kind, Istio((1, 30)), default, **spec) == before, kind
    for istio in (Istio((1, 31)), Istio((1, 30))):  # a delegate
        assert seen("VirtualService", istio, default) == since
