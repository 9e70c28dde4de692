"""Which Istio a mesh runs, and how a difference between releases is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.control_planes import (
    ControlPlane,
    ControlPlanes,
    control_plane,
    control_planes,
    istio_of_proxies,
)
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.versions import NEWEST, OLDEST, ONE_NAMESPACE, Difference, Istio, release_of
from kubectl_mesh.sources.cluster import ClusterOrigin

NEWER = Difference((1, 27), "new", "old", "PILOT_NEWER")


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("1.27", (1, 27)),
        ("1.27.3", (1, 27)),
        ("v1.27.3-distroless", (1, 27)),
        ("1.31-dev", (1, 31)),
        ("1.31-alpha.8f0c", (1, 31)),
        ("2.0.0", None),
        ("2024.11", None),
        ("0.8.1", None),
        ("", None),
        ("latest", None),
        ("1", None),
        ("127", None),
        ("1.x", None),
        ("sha-1.27", None),
        ("\N{ARABIC-INDIC DIGIT ONE}.27", None),
    ],
)
def test_release_of_a_tag(text: str, release: tuple[int, int] | None) -> None:
    assert release_of(text) == release


@pytest.mark.parametrize(
    ("release", "settings", "has"),
    [
        ((1, 26), {}, False),
        ((1, 27), {}, True),
        ((2, 0), {}, True),
        ((1, 27), {"PILOT_NEWER": "false"}, False),
        ((1, 27), {"PILOT_NEWER": "FALSE"}, False),
        ((1, 27), {"PILOT_NEWER": "0"}, False),
        ((1, 27), {"PILOT_NEWER": "off"}, True),
        ((1, 27), {"PILOT_NEWER": "true"}, True),
        ((1, 27), {"PILOT_NEWER": ""}, True),
        ((1, 27), {"PILOT_OTHER": "false", "": "false"}, True),
        ((1, 26), {"PILOT_NEWER": "true"}, False),
    ],
)
def test_a_difference(release: tuple[int, int], settings: dict[str, str], has: bool) -> None:
    assert Istio(release, settings=settings).has(NEWER) is has


def test_a_difference_without_a_switch() -> None:
    assert Istio(settings={"": "false"}).has(Difference(NEWEST, "new", "old"))


@pytest.mark.parametrize(
    ("release", "doubt"),
    [
        (NEWEST, ""),
        (OLDEST, ""),
        ((1, 40), "Istio 1.40, as istiod has it, may route otherwise: what is known here is Istio"),
        ((1, 21), "Istio 1.21, as istiod has it, may route otherwise: what is known here is Istio"),
    ],
)
def test_a_release_that_is_not_known(release: tuple[int, int], doubt: str) -> None:
    istio = Istio(release, "istiod")
    assert istio.doubt.startswith(doubt)
    assert bool(istio.doubt) is bool(doubt)
    config = MeshConfig(chosen=("other",), istio=istio)
    assert config.notes == ("other", *([istio.doubt] if doubt else []))
    assert replace(config, istio=Istio()).notes == ("other",)


def deployment(image: str, revision: str = "", **env: str) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"istiod{revision}",
            "namespace": "istio-system",
            "labels": {"app": "istiod", **({"istio.io/rev": revision} if revision else {})},
        },
        "spec": {"template": {"spec": {"containers": [{"image": image, "env": variables}]}}},
    }


def resource(item: dict[str, Any]) -> Resource:
    return as_resource(item, ClusterOrigin("here"))


def test_settings_and_revision_of_an_istiod() -> None:
    item = deployment(
        "docker.io/istio/pilot:1.27.1", "canary", PILOT_UNIFIED_SIDECAR_SCOPE="false", OTHER="x"
    )
    (found,) = control_planes([resource(item)]).planes
    assert found == control_plane(item)
    assert (found.revision, found.version) == ("canary", "1.27.1")
    assert (found.istio.release, found.istio.has(ONE_NAMESPACE)) == ((1, 27), False)
    assert list(found.istio.settings) == ["PILOT_UNIFIED_SIDECAR_SCOPE"]
    assert found.istio.origin == "istiod of namespace istio-system"


def test_other_deployments_are_no_istiod() -> None:
    item = deployment("nginx:1.27.1")
    item["metadata"]["labels"] = {"app": "web"}
    assert control_planes([resource(item)]).planes == []


OLD, NEW, NONE = (
    ControlPlane("istio-system", revision, version)
    for revision, version in (("", "1.26.2"), ("canary", "1.27.0"), ("edge", "latest"))
)


@pytest.mark.parametrize(
    ("planes", "revision", "release"),
    [
        ([], "default", None),
        ([OLD], "default", (1, 26)),
        ([NEW], "default", (1, 27)),
        ([OLD, NEW], "canary", (1, 27)),
        ([OLD, NEW], "default", (1, 26)),
        ([OLD, NEW], "prod", None),
        ([NONE], "edge", NEWEST),
        ([OLD, NEW, NONE], "default", (1, 26)),
        ([OLD, ControlPlane("other", "x", "1.26.4")], "y", (1, 26)),
    ],
)
def test_the_istio_of_a_revision(
    planes: list[ControlPlane], revision: str, release: tuple[int, int] | None
) -> None:
    found = ControlPlanes(planes).istio_of(revision)
    assert (found.release if found else None) == release


def test_the_newest_proxy_says_it_where_no_istiod_does() -> None:
    def pod(
        name: str, image: str, container: str = "istio-proxy", field: str = "containers"
    ) -> Any:
        metadata = {"name": name, "namespace": "shop"}
        spec = {field: [{"name": container, "image": image}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    pods = [
        pod("a", "istio/proxyv2:1.24.3"),
        pod("b", "istio/proxyv2:1.26.0", field="initContainers"),
        pod("c", "auto"),
        pod("d", "app:9.9.9", "app"),
    ]
    found = istio_of_proxies(map(resource, pods))
    assert found is not None
    assert (found.release, found.origin) == ((1, 26), "the proxy of Pod shop/b")
    assert istio_of_proxies(map(resource, pods[2:])) is None
