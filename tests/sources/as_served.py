"""Manifests as an API server gives them back, and what the project makes of both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubectl_mesh.merging.candidates import candidates
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import KINDS, kind_of
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.proof.scope import changed
from kubectl_mesh.report.route_json import answer
from kubectl_mesh.routing.proxies import of_gateway
from kubectl_mesh.routing.request import request_for
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.trace import Tracer
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.rules.repair import Repair
from kubectl_mesh.sources import cluster
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load
from kubectl_mesh.sources.overlay import lay_over
from kubectl_mesh.sources.session import ClusterOptions, Session
from tests.kube.fake import FakeApiServer
from tests.rules import stored

ROOT = Path(__file__).parents[2]
MANIFESTS = [
    *stored.MANIFESTS,
    *sorted(
        file
        for pattern in ("tests/troubles/*.yaml", "examples/**/*.yaml")
        for file in ROOT.glob(pattern)
    ),
]
BORN = "2099-01-01T00:00:00Z"
"""When the youngest were made: what has no timestamp counts as one of them."""


def manifests(file: Path) -> list[Resource]:
    """The objects of a file of the kinds that are looked at; of two for one object the last.

    They are given an age where they have none: that, a manifest cannot say.
    """
    resources, _ = load([str(file)])
    found = {each.id: _aged(each) for each in resources if kind_of(each.api_version, each.kind)}
    return list(found.values())


def _aged(resource: Resource) -> Resource:
    raw = dict(resource.raw)
    if isinstance(raw.get("metadata"), dict):
        raw["metadata"] = {"creationTimestamp": BORN, **raw["metadata"]}
    return as_resource(raw, resource.origin, resource.namespace)


def served(resources: Iterable[Resource]) -> Iterator[dict[str, Any]]:
    """The objects with what an API server adds, defaults that matter to a mesh among them."""
    for number, resource in enumerate(resources):
        found: dict[str, Any] = _without_nulls(resource.raw)
        found["metadata"] |= {
            "name": resource.name,
            "uid": f"uid-{number}",
            "resourceVersion": str(number),
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        }
        if resource.namespace:
            found["metadata"]["namespace"] = resource.namespace
        spec = found.get("spec")
        if isinstance(spec, dict):
            _default(resource.kind, spec)
        yield found


def _without_nulls(value: Any) -> Any:
    """A copy, in which a null is an absent field."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value


def _default(kind: str, spec: dict[str, Any]) -> None:
    if kind == "Service":
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in _mappings(spec.get("ports")):
            port.setdefault("protocol", "TCP")
            if spec["type"] != "ExternalName":
                port.setdefault("targetPort", port.get("port"))
    if kind in ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"):
        spec.setdefault("replicas", 1)
    pod = (spec.get("template") or {}).get("spec") if kind != "Pod" else spec
    if kind in KINDS and isinstance(pod, dict):
        pod.setdefault("restartPolicy", "Always")
        for container in _mappings(pod.get("containers")):
            container.setdefault("imagePullPolicy", "Always")
            for port in _mappings(container.get("ports")):
                port.setdefault("protocol", "TCP")


def _mappings(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


def snapshot(resources: Sequence[Resource], *, live: bool) -> Snapshot:
    return Snapshot(resources, find_mesh_config(resources), Coverage(live=live))


def findings(found: Snapshot) -> list[tuple[object, ...]]:
    """All that the doctor says, and would repair."""
    return sorted(
        (
            (
                each.rule.code,
                str(each.resource),
                each.path,
                each.severity,
                each.message,
                each.traffic,
                each.next,
                each.evidence,
                [str(other) for other in each.related],
                [repair_as_data(repair) for repair in each.repairs],
            )
            for each in examine(found, RULES).findings
        ),
        key=str,
    )


def repair_as_data(repair: Repair) -> tuple[object, ...]:
    edits = [
        (str(edit.resource), edit.path, edit.value, edit.insert, edit.source, edit.then)
        for edit in repair.edits
    ]
    return repair.name, repair.title, edits, repair.unsafe, repair.affects


def merges(found: Snapshot) -> list[tuple[object, ...]]:
    """All that could be merged: what that changes, what is in the way, and by which edits."""
    return [
        (
            [str(vs.resource) for vs in each.members],
            each.why,
            each.changes,
            each.obstacles,
            _merged(found, each.members, share_routes=each.has_routes_to_share),
        )
        for each in candidates(found, None)
    ]


def _merged(found: Snapshot, members: Sequence[Any], *, share_routes: bool) -> object:
    made = merge(found, members, share_routes=share_routes)
    if isinstance(made, Merge):
        return repair_as_data(made.repair), made.notes, made.unbound
    return list(map(str, made))


def traces(found: Snapshot) -> list[object]:
    """Where a request to each host of a VirtualService goes, from the mesh and its Gateways."""
    tracer = Tracer(router_of(found))
    return [
        answer(tracer.trace(proxy, request_for(f"http://{host.replace('*', 'any.test')}/api")))
        for vs in found.virtual_services.roots
        for host in vs.hosts
        for proxy in (
            Proxy(vs.namespace),
            *(
                of_gateway(found, found.gateways.by_id[name]).proxy
                for name in sorted(vs.gateways & found.gateways.by_id.keys())
            ),
        )
    ]


@contextlib.contextmanager
def serving_all_kinds() -> Iterator[FakeApiServer]:
    with FakeApiServer() as fake:
        for kind in KINDS.values():
            if kind.group:
                fake.versions[kind.group] = list(kind.versions)
        yield fake


def read(server: FakeApiServer, folder: Path) -> Sequence[Resource]:
    """What the source of clusters makes of what a server has."""
    session = Session(ClusterOptions(kubeconfig=server.kubeconfig(folder, token="t")))
    return cluster.load(session, KINDS, None).resources


def assert_found_the_same(written: Sequence[Resource], given: Sequence[Resource]) -> None:
    """Of manifests and of the same objects of a cluster; and applied, they change nothing.

    Both are taken for all there is, and for a part of it: that alone is another thing to know.
    """
    assert {each.id for each in given} == {each.id for each in written}
    for live in (False, True):
        on_disk, in_cluster = snapshot(written, live=live), snapshot(given, live=live)
        assert findings(in_cluster) == findings(on_disk)
        assert merges(in_cluster) == merges(on_disk)
        assert traces(in_cluster) == traces(on_disk)
    applied = snapshot(lay_over(given, written), live=True)
    assert not changed(in_cluster, applied)
    assert compare(in_cluster, applied).verdict == "the same for every request"
