"""Every repair that a rule has: applied to a real API server in one run, and taken back in one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.schema import KINDS, Kind
from tests.commands.test_fix import BAD, OUTLIVING, identities
from tests.rules.stored import EVERYTHING, ways

from .apiserver import ApiServer
from .conftest import built
from .manifests import Object
from .rollouts import rolled_out
from .test_doctor_live import MESH_POLICY, Trouble, create, doctor, namespace_of

LEFT_OUT = {
    "KM201/bad-two-virtual-services-alone": "in a cluster it is seen that nothing has the subset",
    "KM201/bad-oldest-of-two-wins": "nobody but the API server says when an object was made",
    "KM301/bad-names": "the API server refuses some of these ports",
    "KM401/bad-configmap-alone": "in a cluster it is seen that nothing reads it",
    "KM401/bad-explicit-without-upstream-in-input": "in a cluster it is seen that nothing is there",
}
FILES = [
    file
    for file in BAD
    if ways(file)
    and file.stem not in OUTLIVING
    and f"{file.parent.name}/{file.stem}" not in LEFT_OUT
]
PILOT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istio-pilot", "namespace": "istio-system"},
    "spec": {
        "selector": {"matchLabels": {"app": "pilot"}},
        "template": {
            "metadata": {"labels": {"app": "pilot"}},
            "spec": {"containers": [{"name": "discovery", "image": "istio/pilot:1.1.7"}]},
        },
    },
}
"""What is restarted for KM501, and is in no manifest of it."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with built(ApiServer) as server:
        server.apply(MESH_POLICY)
        server.kubectl(
            "wait", "--for=condition=Established", "crd/meshpolicies.authentication.istio.io"
        )
        serve(server, "Rollout", *unread.KINDS)
        with rolled_out(server):
            yield server


def serve(server: ApiServer, *kinds: str) -> None:
    """Has a server serve kinds of schema.KINDS, and waits until it does."""
    made = [crd(KINDS[kind]) for kind in kinds]
    server.apply(*made)
    for each in made:
        name = f"crd/{each['metadata']['name']}"
        server.kubectl("wait", "--for=condition=Established", name)


def crd(kind: Kind) -> Object:
    """A CustomResourceDefinition of a kind, in its best version, that takes anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": kind.versions[0], "served": True, "storage": True}
    official = {"api-approved.kubernetes.io": "unapproved, for a test"}
    metadata = {"name": f"{kind.plural}.{kind.group}", "annotations": official}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "plural": kind.plural,
                "kind": kind.api_kind,
                "listKind": f"{kind.api_kind}List",
            },
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


class Fixture:
    """A rule's manifest in a cluster where nothing else is."""

    def __init__(self, server: ApiServer, file: Path) -> None:
        self._server = server
        names = [each[0].name for each in ways(file) if each[1:]]
        self.choices = [word for name in names for word in ("--choose", name)]
        documents = [each for each in yaml.safe_load_all(file.read_text()) if each]
        objects = Trouble(file, 0, sorted(map(namespace_of, documents))).objects
        if file.parent.name == "KM501":
            objects.append(PILOT)
        listed = server.request("GET", "/api/v1/namespaces")["items"]
        existing = {each["metadata"]["name"] for each in listed}
        new = [
            each
            for each in objects
            if each["kind"] != "Namespace" or each["metadata"]["name"] not in existing
        ]
        create(server, new)
        self._objects = [each for each in new if each["kind"] != "Namespace"]

    def contents(self) -> list[Object]:
        """The objects without their metadata."""
        found = [self._server.request("GET", self._server.path(each)) for each in self._objects]
        return [{**each, "metadata": None, "status": None} for each in found]

    def delete(self) -> None:
        for each in self._objects:
            self._server.request("DELETE", self._server.path(each))


@pytest.fixture
def fixture(server: ApiServer, request: pytest.FixtureRequest) -> Iterator[Fixture]:
    made = Fixture(server, request.param)
    yield made
    made.delete()


@pytest.mark.parametrize(
    "fixture", FILES, indirect=True, ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_applied_it_is_gone_and_undone_it_is_back(
    server: ApiServer, fixture: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        kubeconfig = str(server.kubeconfig)
        status = main([*arguments, "--yes", "--kubeconfig", kubeconfig, "--journal", str(tmp_path)])
        out, err = capsys.readouterr()
        told = [each for each in err.splitlines() if not each.startswith("Warning: not read: ")]
        assert (status in (0, 1, 3), told) == (True, []), out
        return out

    def findings() -> Sequence[dict[str, Any]]:
        return doctor(server, "-A").findings

    contents, before = fixture.contents(), findings()
    out = run("fix", "-A", "--apply", *EVERYTHING, *fixture.choices)
    assert out.count("mesh undo") == 1
    after = findings()
    assert identities(list(after)) <= identities(list(before))
    assert len(after) < len(before)
    assert "mesh undo" not in run("fix", "-A", "--apply", *EVERYTHING, *fixture.choices)
    run("undo")
    assert json.dumps(fixture.contents()) == json.dumps(contents)
    assert findings() == before
