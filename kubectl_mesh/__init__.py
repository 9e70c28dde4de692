"""kubectl mesh: says what is wrong with the routing of an Istio mesh, and why.

From Python, on manifests (`load_cluster` reads a cluster instead):

    import kubectl_mesh

    mesh = kubectl_mesh.load("manifests/")
    for finding in kubectl_mesh.doctor(mesh).findings:
        print(finding.rule.code, finding.resource, finding.message)
    print(kubectl_mesh.route(mesh, "http://reviews:9080/", namespace="shop")["outcome"])
    repaired, left = kubectl_mesh.fix(mesh).after
    for difference in kubectl_mesh.compare(mesh, repaired).differences:
        print(difference)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_mesh.errors import MeshError

if TYPE_CHECKING:
    from kubectl_mesh.api import compare, doctor, fix, load, load_cluster, route

__version__ = "0.1.0"
__all__ = ["MeshError", "__version__", "compare", "doctor", "fix", "load", "load_cluster", "route"]


def __getattr__(name: str) -> Any:
    """Imports a function when it is first asked for: no command needs them all."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kubectl_mesh import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
