"""`kubectl mesh version`: ours, and those of the cluster where it can be reached."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kubectl_mesh import __version__
from kubectl_mesh.errors import ClusterError
from kubectl_mesh.flags import add_cluster_flags
from kubectl_mesh.term import emit, safe

if TYPE_CHECKING:
    from kubectl_mesh.sources.versions import Versions

_EPILOG = """\
examples:
  {prog}             of kubectl mesh, of Kubernetes and of Istio
  {prog} --client    of kubectl mesh alone: no cluster is asked
  {prog} -o json

Istio's is the tag of the image that its control plane runs.

exit status:
  0  always, if the command line is right: that no cluster can be reached is said, and no error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    group = parser.add_argument_group("what to show")
    group.add_argument("--client", action="store_true", help="only ours; ask no cluster")
    group.add_argument("-o", "--output", choices=("text", "json"), default="text")
    add_cluster_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the versions. Raises nothing: what cannot be reached is told."""
    found, problem = None, ""
    if not args.client:
        from kubectl_mesh.commands.inputs import session_of
        from kubectl_mesh.sources.versions import versions

        try:
            found = versions(session_of(vars(args)))
        except ClusterError as error:
            problem = str(error)
    if args.output == "json":
        emit(json.dumps(_document(found, problem), indent=2) + "\n")
    else:
        emit("".join(f"{name:<14}{safe(text)}\n" for name, text in _lines(found, problem)))
    return 0


def _lines(found: Versions | None, problem: str) -> Iterator[tuple[str, str]]:
    yield "kubectl mesh", __version__
    if problem:
        yield "Kubernetes", f"not reached: {problem}"
    if found:
        yield "Kubernetes", found.kubernetes
        for each in found.istio:
            revision = f", revision {each.revision}" if each.revision else ""
            yield "Istio", f"{each.version or 'without a tag'} (in {each.namespace}{revision})"
        if not found.istio:
            yield "Istio", f"not known: {found.unknown}" if found.unknown else "no istiod is found"


def _document(found: Versions | None, problem: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "mesh.kubectl.dev/v1",
        "kind": "Version",
        "kubectlMesh": __version__,
        "kubernetes": found.kubernetes if found else None,
        "istio": [
            {"namespace": each.namespace, "revision": each.revision, "version": each.version}
            for each in (found.istio if found else ())
        ],
        "notReached": problem or (found.unknown if found else "") or None,
    }
