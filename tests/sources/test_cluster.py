"""A cluster as a source, against a server that fails on demand; tests/realmesh has the real one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.errors import ClusterError, Forbidden, UsageError
from kubectl_mesh.kube import http
from kubectl_mesh.kube.managed_fields import LAST_APPLIED
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import ReadInPart
from kubectl_mesh.mesh.schema import KINDS, KUBERNETES_GATEWAY
from kubectl_mesh.sources import cluster, files
from kubectl_mesh.sources.cluster import ClusterState
from kubectl_mesh.sources.session import ClusterOptions, Session
from tests.kube.fake import Answer, FakeApiServer
from tests.sources.test_references import vs

ROUTING = ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry")
ALL = tuple(KINDS)


def thing(kind: str, name: str, namespace: str | None = "shop", **rest: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, **rest.pop("metadata", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"kind": kind, "metadata": metadata, **rest}


def route(name: str, namespace: str, host: str, to: str, **spec: Any) -> dict[str, Any]:
    http = [{"route": [{"destination": {"host": to}}]}]
    return thing("VirtualService", name, namespace, spec={"hosts": [host], "http": http, **spec})


def settings(namespace: str = "istio-system", text: str = "{}") -> dict[str, Any]:
    return thing("ConfigMap", "istio", namespace, data={"mesh": text})


class Cluster:
    """A fake cluster with some namespaces, and the load of it."""

    def __init__(self, fake: FakeApiServer, folder: Path) -> None:
        self.fake = fake
        self.options = ClusterOptions(kubeconfig=fake.kubeconfig(folder, token="t"))
        self.add(settings())
        for name in ("shop", "back", "team", "istio-system"):
            self.add(thing("Namespace", name, None))

    def add(self, *objects: dict[str, Any]) -> None:
        self.fake.objects += objects

    def load(
        self, kinds: Collection[str], namespaces: Collection[str] | None = None, **more: Any
    ) -> ClusterState:
        return cluster.load(Session(self.options), kinds, namespaces, **more)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Cluster]:
    with FakeApiServer() as fake:
        yield Cluster(fake, tmp_path)


def names(state: ClusterState, kind: str) -> list[str]:
    return sorted(
        f"{found.namespace}/{found.name}" if found.namespace else found.name
        for found in state.resources
        if found.kind == kind
    )


# Everything


def test_only_the_kinds_that_are_read(live: Cluster) -> None:
    live.add(thing("VirtualService", "web", spec={"hosts": ["web"]}))
    state = live.load(["VirtualService"])
    (found,) = (found for found in state.resources if found.kind == "VirtualService")
    assert found.origin.name == "here"
    assert found.origin.locate(("spec",)) is None
    assert state.coverage.live
    assert state.coverage.namespaces is None
    assert state.coverage.missing == {}
    assert not live.fake.asked("pods")
    assert not live.fake.asked("secrets")


def test_an_object_of_istio_is_kept_whole(live: Cluster) -> None:
    """Less the notes of who wrote which field; what the model reads conforms to the types."""
    metadata = {"annotations": {LAST_APPLIED: "{}"}, "uid": "u", "finalizers": ["f"]}
    spec = {"hosts": ["web"], "http": 7, "unknown": {"deep": [True]}}
    written = thing("VirtualService", "web", metadata=metadata, spec=spec, status={"s": 1})
    live.add({**written, "metadata": {**written["metadata"], "managedFields": [{}]}})
    state = live.load(["VirtualService"])
    (found,) = (found for found in state.resources if found.kind == "VirtualService")
    assert found.raw == {"apiVersion": "networking.istio.io/v1beta1", **written}
    assert found.spec == {"hosts": ["web"], "unknown": {"deep": [True]}}
    assert [fault.path for fault in found.faults] == [("spec", "http")]


def test_of_an_object_of_kubernetes_only_what_is_read_is_kept(live: Cluster) -> None:
    metadata = {"annotations": {"a": "b", LAST_APPLIED: "{}"}, "uid": "u"}
    live.add(thing("Service", "web", metadata=metadata, spec={"ports": 7, "sessionAffinity": "x"}))
    (found,) = (each for each in live.load(["Service"]).resources if each.kind == "Service")
    assert found.data == {
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"a": "b"}},
        "spec": {},
    }
    assert [fault.path for fault in found.faults] == [("spec", "ports")]
    assert found.whole is None
    with pytest.raises(ReadInPart, match="Service shop/web was read in part"):
        assert found.raw


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_reads_the_same_of_a_file_as_of_a_cluster(
    kind: str, live: Cluster, tmp_path: Path
) -> None:
    """Of every kind, whatever fields the model does not know."""
    group, versions = KINDS[kind].group, KINDS[kind].versions
    live.fake.versions.setdefault(group, list(versions))
    version = next(each for each in versions if not group or each in live.fake.versions[group])
    filled = {**filled_in(KINDS[kind].shape), "other": 1}
    filled["metadata"] = {**filled["metadata"], "name": "web", "uid": "u"}
    if not KINDS[kind].namespaced:
        del filled["metadata"]["namespace"]
    api_version = f"{group}/{version}".strip("/")
    written = {"apiVersion": api_version, "kind": KINDS[kind].api_kind, **filled}
    (tmp_path / "it.json").write_text(json.dumps(written))
    (on_disk,), unreadable = files.load([str(tmp_path / "it.json")])
    live.fake.objects = [written]
    found = next(each for each in live.load([kind]).resources if each.name == "web")
    assert not unreadable
    assert (found.id, found.api_version) == (on_disk.id, on_disk.api_version)
    assert (found.data, found.faults) == (on_disk.data, on_disk.faults)
    assert on_disk.raw == written


def filled_in(shape: Any) -> Any:
    """A value with every field of a shape, and one that it does not know at each level."""
    if isinstance(shape, dict):
        if shape.get("*") is object:
            return {"x": {"y": 1}}
        named = {key: filled_in(each) for key, each in shape.items() if key != "*"}
        return {"k": filled_in(shape["*"])} if "*" in shape else {**named, "other": {"a": [1]}}
    if isinstance(shape, list):
        return [filled_in(shape[0])]
    return {str: "x;", int: 1, bool: True}[shape[0] if isinstance(shape, tuple) else shape]


def test_secrets_are_never_asked_for(live: Cluster) -> None:
    live.load(ALL)
    live.load(ALL, {"shop"})
    assert not live.fake.asked("secrets")


@pytest.mark.parametrize(
    ("served", "used"),
    [(["v1alpha3"], "v1alpha3"), (["v1beta1", "v1alpha3"], "v1beta1"), (["v2", "v1"], "v1")],
)
def test_the_best_version_that_is_served(live: Cluster, served: list[str], used: str) -> None:
    live.fake.versions["networking.istio.io"] = served
    live.add(route("web", "shop", "web", "web"))
    state = live.load(["VirtualService"])
    assert names(state, "VirtualService") == ["shop/web"]
    assert {request.path.split("/")[3] for request in live.fake.asked("virtualservices")} == {used}


def test_a_version_that_only_other_kinds_of_the_group_have(live: Cluster) -> None:
    live.add(route("web", "shop", "web", "web"))
    live.fake.answers["virtualservices"] = [Answer(404, b"404 page not found")]
    assert names(live.load(["VirtualService"]), "VirtualService") == ["shop/web"]


def test_a_kind_that_is_not_installed(live: Cluster) -> None:
    live.fake.absent = {"destinationrules", "sidecars", "workloadentries"}
    state = live.load([*ROUTING, "Sidecar", "WorkloadEntry", "MeshPolicy", "Rollout"])
    assert state.coverage.missing == {
        ("DestinationRule", None): "the cluster does not serve "
        "destinationrules.networking.istio.io (is Istio installed?)"
    }


def test_no_istio_at_all(live: Cluster) -> None:
    del live.fake.versions["networking.istio.io"]
    state = live.load([*ROUTING, "Sidecar"])
    assert set(state.coverage.missing) == {(kind, None) for kind in ROUTING}
    assert set(live.load(ROUTING, {"shop"}).coverage.missing) == {(kind, None) for kind in ROUTING}
    assert not live.fake.asked("virtualservices")


def test_a_kind_that_is_forbidden(live: Cluster) -> None:
    live.fake.forbidden = {("pods", ""), ("destinationrules", "")}
    live.add(route("web", "shop", "web", "web"))
    state = live.load(["Pod", "VirtualService", "DestinationRule"])
    assert state.coverage.missing == {
        ("Pod", None): 'cannot list pods in all namespaces: forbidden for user "bob" '
        "(needs get,list on pods)",
        ("DestinationRule", None): "cannot list destinationrules in all namespaces: forbidden for "
        'user "bob" (needs get,list on destinationrules.networking.istio.io)',
    }
    assert names(state, "VirtualService") == ["shop/web"]


def test_nothing_but_refusals(live: Cluster) -> None:
    live.fake.forbidden = {("pods", ""), ("services", ""), ("pods", "shop"), ("services", "shop")}
    live.fake.forbidden |= {("pods", "istio-system"), ("services", "istio-system")}
    with pytest.raises(Forbidden) as caught:
        live.load(["Pod", "Service"])
    assert str(caught.value) == (
        'nothing may be listed for user "bob" in all namespaces: name one with -n'
    )
    with pytest.raises(Forbidden, match=r'for user "bob" in namespace shop$'):
        live.load(["Pod", "Service"], {"shop"})


def test_a_kind_whose_list_ends_in_an_error_is_missing_and_never_half(live: Cluster) -> None:
    """As a conversion webhook that is down gives it, for one kind alone."""
    live.add(*(route(f"v{number}", "shop", "web", "web") for number in range(501)))
    live.add(thing("Service", "web"))
    told, pages = live.fake.answer, iter([None])
    failure = Answer(400, {"kind": "Status", "message": "the webhook is gone"})
    live.fake.answer = lambda request: (  # type: ignore[method-assign]
        failure
        if request.path.endswith("virtualservices") and next(pages, failure)
        else told(request)
    )
    state = live.load(["VirtualService", "Service"])
    assert names(state, "VirtualService") == []
    assert names(state, "Service") == ["shop/web"]
    (reason,) = state.coverage.missing.values()
    assert reason.startswith("cannot list virtualservices in all namespaces: the API server ")
    assert reason.endswith("with 400: the webhook is gone")


def test_a_server_that_goes_away_ends_the_load(live: Cluster) -> None:
    live.fake.answers["virtualservices"] = [Answer(401)]
    with pytest.raises(ClusterError, match="does not accept the credentials"):
        live.load(ROUTING)


def test_a_server_that_always_fails_is_given_up_at_discovery(
    live: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_pause", lambda tries, retry_after="": 0)
    live.fake.answer = lambda request: Answer(500, {"message": "etcd is gone"})  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match="with 500: etcd is gone"):
        live.load(ALL)
    assert {request.path.count("/") for request in live.fake.requests} == {2}  # /apis/GROUP


@pytest.mark.parametrize(
    "metadata", [{}, {"name": 5}, {"name": "p", "namespace": ["a"]}, {"name": ["p"]}, [], "p"]
)
def test_an_object_without_a_name(live: Cluster, metadata: object) -> None:
    live.fake.answers["pods"] = [Answer(body={"items": [{"metadata": metadata}]})]
    with pytest.raises(ClusterError, match="listed a Pod without name"):
        live.load(["Pod"])


def test_warnings_of_the_server(live: Cluster) -> None:
    live.fake.answers["pods"] = [
        Answer(body={"items": []}, headers={"Warning": '299 - "pods are old"'})
    ]
    assert live.load(["Pod"]).warnings == ("pods are old",)


def test_progress(live: Cluster) -> None:
    live.add(*(thing("Pod", f"p{number}") for number in range(501)))
    seen: list[tuple[str, int]] = []
    live.load(["Pod"], progress=lambda kind, count: seen.append((kind, count)))
    assert [count for kind, count in seen if kind == "Pod"] == [500, 501]


# ConfigMaps


def test_config_maps(live: Cluster) -> None:
    nginx = {"default.conf": "proxy_pass http://x;", "gzip.conf": "gzip on;"}
    live.add(
        thing("ConfigMap", "nginx", data=nginx),
        thing("ConfigMap", "main", data={"nginx.conf": "include /etc/nginx/sites/*.conf;"}),
        thing("ConfigMap", "big", data={"a": "b" * 1000}),
        thing("ConfigMap", "odd", data=7),
    )
    only = live.load(["Service"])
    assert names(only, "ConfigMap") == ["istio-system/istio"]
    every = {found.name: found.data.get("data") for found in live.load(["ConfigMap"]).resources}
    assert every == {
        "nginx": nginx,
        "main": {"nginx.conf": "include /etc/nginx/sites/*.conf;"},
        "big": {"a": ""},
        "odd": None,
        "istio": {"mesh": "{}"},
    }


def test_the_settings_of_the_mesh_are_found_in_any_namespace(live: Cluster) -> None:
    live.fake.objects = [settings("mesh-control")]
    assert live.load(["Service"]).config.root_namespace == "mesh-control"
    assert live.load(["Service"], {"shop"}).config.root_namespace == "mesh-control"
    assert "mesh-control" in (live.load(["Service"], {"shop"}).coverage.namespaces or ())


def test_settings_that_may_be_read_in_the_root_namespace_alone(live: Cluster) -> None:
    live.fake.forbidden = {("configmaps", "")}
    live.fake.objects = [settings(text="authPolicy: MUTUAL_TLS")]
    for namespaces in (None, {"shop"}):
        state = live.load(["Service"], namespaces)
        assert state.config.auth_policy == "MUTUAL_TLS"
        assert state.unreadable == ()


def test_settings_that_may_not_be_read(live: Cluster) -> None:
    live.fake.forbidden = {("configmaps", ""), ("configmaps", "istio-system")}
    for namespaces in (None, {"shop"}):
        state = live.load(["Service"], namespaces)
        (unreadable,) = state.unreadable
        assert unreadable.reason == (
            'cannot list configmaps named istio in namespace istio-system: forbidden for user "bob"'
            " (needs get,list on configmaps); Istio's defaults are taken for the mesh's settings "
            "(--mesh-config names others)"
        )
        given = live.load(["Service"], namespaces, config=MeshConfig(domain="x"))
        assert given.unreadable == ()
        assert given.config.domain == "x"


# Some namespaces


def test_a_namespace_and_what_it_refers_to(live: Cluster) -> None:
    live.add(
        route("web", "shop", "web", "api.back.svc.cluster.local"),
        route("other", "team", "other", "other"),
        *(thing("Service", "s", namespace) for namespace in ("shop", "back", "team")),
        *(thing("Pod", "p", namespace) for namespace in ("shop", "back", "team")),
    )
    state = live.load(ALL, {"shop"})
    assert names(state, "VirtualService") == ["shop/web"]
    assert names(state, "Service") == ["back/s", "shop/s"]
    assert names(state, "Pod") == ["back/p", "shop/p"]
    assert names(state, "Namespace") == ["back", "istio-system", "shop"]
    assert state.coverage.namespaces == {"shop", "back", "istio-system"}
    assert state.coverage.missing == {}
    assert state.warnings == ()
    assert {request.path for request in live.fake.asked("pods")} == {
        f"/api/v1/namespaces/{namespace}/pods" for namespace in ("shop", "back", "istio-system")
    }


def test_the_pods_of_a_gateway_are_found_wherever_they_are(live: Cluster) -> None:
    live.add(
        route("web", "shop", "web.example", "web", gateways=["team/gw"]),
        thing("Gateway", "gw", "team", spec={"selector": {"istio": "in"}}),
        thing("Pod", "in", "edge", metadata={"labels": {"istio": "in"}}),
        thing("Pod", "else", "edge", metadata={"labels": {"istio": "out"}}),
    )
    state = live.load(["VirtualService", "Gateway", "Pod"], {"shop"})
    assert names(state, "Gateway") == ["team/gw"]
    assert names(state, "Pod") == ["edge/in"]


def test_a_user_of_one_namespace(live: Cluster) -> None:
    live.add(
        route("web", "shop", "web.example", "api.back.svc.cluster.local", gateways=["team/gw"]),
        thing("Gateway", "gw", "team", spec={"selector": {"istio": "in"}}),
        thing("Service", "web"),
    )
    for plural in ("virtualservices", "destinationrules", "gateways", "services", "pods"):
        live.fake.forbidden |= {
            (plural, namespace) for namespace in ("", "back", "team", "istio-system")
        }
    live.fake.forbidden |= {("namespaces", "back")}
    kinds = ["VirtualService", "DestinationRule", "Gateway", "Service", "Pod", "Namespace"]
    state = live.load(kinds, {"shop"})
    assert names(state, "VirtualService") == ["shop/web"]
    assert names(state, "Service") == ["shop/web"]
    missing = state.coverage.missing
    assert not [key for key in missing if key[1] in (None, "shop")]
    assert missing["Service", "back"] == (
        'cannot list services in namespace back: forbidden for user "bob" '
        "(needs get,list on services)"
    )
    assert missing["Namespace", "back"] == (
        'cannot get namespace back: forbidden for user "bob" (needs get on namespaces)'
    )
    assert ("Gateway", "team") in missing
    assert [item.reason for item in state.unreadable] == [
        "virtualservices, destinationrules, gateways may not be listed in all namespaces for user "
        '"bob": what other namespaces define for the hosts of namespace shop was not looked at, '
        "save where it is referred to",
    ]


def test_gateway_pods_that_may_not_be_looked_for(live: Cluster) -> None:
    labels = {"labels": {"istio": "in"}}
    live.add(
        route("web", "shop", "web.example", "web", gateways=["team/gw"]),
        thing("Gateway", "gw", "team", spec={"selector": {"istio": "in"}}),
        thing("Pod", "in", "istio-system", metadata=labels),
        thing("Pod", "in", "team", metadata=labels),
        thing("Pod", "other", "team"),
        thing("Pod", "in", "back", metadata=labels),
    )
    live.fake.forbidden = {("pods", "")}
    state = live.load(["VirtualService", "Gateway", "Pod"], {"shop"})
    assert names(state, "Pod") == ["istio-system/in", "team/in"]
    assert [item.reason for item in state.unreadable] == [
        'pods may not be listed in all namespaces for user "bob": the pods of Gateways were looked '
        "for in the Gateways' namespaces and the root one only",
    ]


def test_a_kind_that_is_forbidden_in_the_namespace_asked_for_is_missing(live: Cluster) -> None:
    live.fake.forbidden = {("pods", "shop")}
    state = live.load(["Service", "Pod"], {"shop"})
    reason = 'cannot list pods in namespace shop: forbidden for user "bob" (needs get,list on pods)'
    assert state.coverage.missing == {("Pod", "shop"): reason, ("Pod", None): reason}
    assert state.unreadable == ()


def test_a_kind_that_is_forbidden_in_one_of_the_namespaces_asked_for(live: Cluster) -> None:
    live.fake.forbidden = {("pods", "shop")}
    state = live.load(["Service", "Pod"], {"shop", "back"})
    assert set(state.coverage.missing) == {("Pod", "shop")}
    (unreadable,) = state.unreadable
    assert unreadable.where == "context here"
    assert unreadable.reason.startswith("cannot list pods in namespace shop: forbidden")


def test_a_namespace_that_does_not_exist(live: Cluster) -> None:
    state = live.load(["Service", "Namespace"], {"shopp"})
    (unreadable,) = state.unreadable
    assert unreadable.reason == "the namespace shopp does not exist"


def test_names_never_lead_out_of_their_place_in_a_path(live: Cluster) -> None:
    live.fake.objects = [settings(text="rootNamespace: ../../x")]
    live.add(
        route("web", "shop", "web", "a.b/../../secrets?x.svc.cluster.local", gateways=["../gw"])
    )
    manifest = vs("../secrets", "new", "web", "api", gateways=["a/../gw"])
    live.load(ALL, {"shop"}, manifests=[manifest])
    inside = [request.path for request in live.fake.requests if "/namespaces/" in request.path]
    assert {path.split("/namespaces/")[1].split("/")[0] for path in inside} == {"shop"}
    assert not [request for request in live.fake.requests if "secrets" in request.path]
    with pytest.raises(UsageError, match=r"no namespace can be called '\.\./x'"):
        live.load(ALL, {"../x"})


def test_too_many_namespaces(live: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MAX_NAMESPACES", 3)
    live.add(
        route("one", "shop", "one", "api.back.svc.cluster.local"),
        route("two", "shop", "two", "api.team.svc.cluster.local"),
    )
    state = live.load(["VirtualService", "Service"], {"shop"})
    assert state.coverage.namespaces == {"shop", "istio-system", "back"}
    assert state.coverage.missing["Service", "team"] == (
        "the namespace team was not read, as beyond the 3 namespaces read for those asked for; "
        "use -A"
    )


def test_too_many_steps(live: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MAX_ROUNDS", 1)
    live.fake.forbidden = {("virtualservices", "")}
    live.add(route("web", "shop", "web", "api.back.svc.cluster.local"))
    state = live.load(["VirtualService", "Service"], {"shop"})
    assert ("Service", "back") in state.coverage.missing


def test_what_manifests_refer_to_is_read_as_well(live: Cluster) -> None:
    live.add(thing("Service", "api", "back"), thing("Service", "web", "team"))
    manifest = vs("team", "new", "web", "api.back.svc.cluster.local")
    state = live.load(["VirtualService", "Service"], {"team"}, manifests=[manifest])
    assert names(state, "Service") == ["back/api", "team/web"]
    assert names(state, "VirtualService") == []
    state = live.load(["VirtualService", "Service"], {"shop"}, manifests=[manifest])
    assert names(state, "Service") == ["back/api", "team/web"]


# The Kubernetes Gateway API


def kubernetes(kind: str, name: str, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    version = "gateway.networking.k8s.io/v1"
    return {**thing(kind, name, namespace, spec=spec), "apiVersion": version}


def test_gateways_of_both_apis_are_read_apart(live: Cluster) -> None:
    live.fake.versions["gateway.networking.k8s.io"] = ["v1", "v1beta1"]
    live.add(kubernetes("Gateway", "web"), thing("Gateway", "web"))
    state = live.load(("Gateway", KUBERNETES_GATEWAY))
    assert names(state, "Gateway") == names(state, KUBERNETES_GATEWAY) == ["shop/web"]
    (found,) = (each for each in state.resources if each.kind == KUBERNETES_GATEWAY)
    assert found.id.api_kind == "Gateway"
    assert cluster.path_of(found).endswith(
        "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/web"
    )


def test_the_gateway_api_of_no_cluster_is_missed(live: Cluster) -> None:
    for namespaces in (None, {"shop"}):
        assert live.load(unread.KINDS, namespaces).coverage.missing == {}


def test_routes_that_may_not_be_listed_are_missing(live: Cluster) -> None:
    live.fake.versions["gateway.networking.k8s.io"] = ["v1"]
    live.fake.forbidden |= {("httproutes", ""), ("httproutes", "shop")}
    for namespaces in (None, {"shop"}):
        missing = live.load((*unread.KINDS, "Service"), namespaces).coverage.missing
        assert "httproutes.gateway.networking.k8s.io" in missing["HTTPRoute", None]


def test_of_a_namespace_the_routes_that_concern_it(live: Cluster) -> None:
    live.fake.versions["gateway.networking.k8s.io"] = ["v1"]
    service = {"group": "", "kind": "Service", "name": "web", "namespace": "shop"}
    live.add(
        kubernetes("Gateway", "door", "team"),
        kubernetes("Gateway", "other", "team"),
        kubernetes("HTTPRoute", "own", parentRefs=[{"name": "door", "namespace": "team"}]),
        kubernetes("HTTPRoute", "on-service", "team", parentRefs=[service]),
        kubernetes("HTTPRoute", "sends", "team", rules=[{"backendRefs": [service]}]),
        kubernetes("HTTPRoute", "same-host", "team", hostnames=["*.example"]),
        kubernetes("HTTPRoute", "elsewhere", "team", hostnames=["a.test"]),
        route("web", "shop", "web.example", "web"),
    )
    state = live.load((*unread.KINDS, "VirtualService"), {"shop"})
    assert names(state, "HTTPRoute") == [
        "shop/own",
        "team/on-service",
        "team/same-host",
        "team/sends",
    ]
    assert names(state, KUBERNETES_GATEWAY) == ["team/door"]
