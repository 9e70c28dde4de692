"""The cluster as a source, on a real API server with Istio's resource definitions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_mesh.errors import ClusterError, Forbidden
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.sources.cluster import ClusterState, load
from kubectl_mesh.sources.session import ClusterOptions, Session

from .apiserver import ADMIN, ApiServer

ALL = tuple(KINDS)
MANY = 1500


def session(server: ApiServer, user: str = ADMIN, **more: Any) -> Session:
    return Session(ClusterOptions(kubeconfig=str(server.user(user)), **more))


def virtual_service(name: str, namespace: str, host: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]},
    }


def create_virtual_services(server: ApiServer, namespace: str, count: int) -> None:
    server.create(virtual_service(f"v-{number:04}", namespace) for number in range(count))


def names(state: ClusterState, kind: str, namespace: str) -> list[str]:
    return [
        found.name
        for found in state.resources
        if found.kind == kind and found.namespace == namespace
    ]


def grant(server: ApiServer, user: str, namespace: str) -> None:
    """Lets a user read everything in one namespace."""
    verbs = "--verb=get,list"
    kinds = "--resource=*.networking.istio.io,*.apps,*.batch,pods,services,configmaps,namespaces"
    more = ",replicationcontrollers,*.gateway.networking.k8s.io"
    server.kubectl("create", "role", "reader", "-n", namespace, verbs, kinds + more)
    server.kubectl(
        "create", "rolebinding", user, "-n", namespace, "--role=reader", f"--user={user}"
    )


@pytest.mark.parametrize("text", ["(?<a>b)&c", "é ☃ \u2028", "tab\t", "\x7f", "\b", '\\"'])
def test_a_patch_tests_any_text(apiserver: ApiServer, namespace: str, text: str) -> None:
    item = virtual_service("v", namespace)
    item["spec"]["http"][0]["name"] = text
    apiserver.create([item])
    client = session(apiserver).client
    test = {"op": "test", "path": "/spec/http/0", "value": item["spec"]["http"][0]}
    assert client.patch(apiserver.path(item), [test], {})["spec"] == item["spec"]


def test_many_pages(apiserver: ApiServer, namespace: str) -> None:
    create_virtual_services(apiserver, namespace, MANY)
    seen: list[int] = []

    def progress(kind: str, count: int) -> None:
        if kind == "VirtualService":
            seen.append(count)

    state = load(session(apiserver), ["VirtualService"], {namespace}, progress=progress)
    wanted = [f"v-{number:04}" for number in range(MANY)]
    assert names(state, "VirtualService", namespace) == wanted
    assert names(load(session(apiserver), ALL, None), "VirtualService", namespace) == wanted
    assert seen[:3] == [500, 1000, 1500]


def test_what_is_read_and_what_is_kept(apiserver: ApiServer, namespace: str) -> None:
    apiserver.apply(
        f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}, labels: {{app: web}}}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: web}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: nginx, ports: [{{name: web, containerPort: 80}}]}}]}}
"""
    )
    state = load(session(apiserver), ALL, {namespace})
    assert state.context == "test"
    assert state.coverage.missing == {}
    assert state.unreadable == ()
    assert state.coverage.namespaces == frozenset((namespace, "istio-system"))
    assert not [found for found in state.resources if found.faults]
    service = next(found for found in state.resources if found.kind == "Service")
    assert service.metadata["creationTimestamp"]
    assert set(service.metadata) == {"name", "namespace", "labels", "creationTimestamp"}
    assert service.spec["ports"] == [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}
    ]
    assert names(state, "Deployment", namespace) == ["web"]


def test_a_user_of_one_namespace(apiserver: ApiServer, namespace: str) -> None:
    create_virtual_services(apiserver, namespace, 1)
    grant(apiserver, "bob", namespace)
    state = load(session(apiserver, "bob"), ALL, {namespace})
    assert names(state, "VirtualService", namespace) == ["v-0000"]
    missing = {kind for kind, where in state.coverage.missing if where in (None, namespace)}
    assert missing <= {"GatewayClass"}, "which is in no namespace"
    assert state.coverage.missing["Pod", "istio-system"] == (
        'cannot list pods in namespace istio-system: forbidden for user "bob" '
        "(needs get,list on pods)"
    )
    reasons = "\n".join(item.reason for item in state.unreadable)
    assert "cannot list configmaps named istio in namespace istio-system" in reasons
    kinds = "virtualservices, destinationrules, gateways, serviceentries"
    assert re.search(rf"{kinds},? .*may not be listed in all namespaces", reasons)
    with pytest.raises(Forbidden, match=r'^nothing may be listed for user "bob" in all namespaces'):
        load(session(apiserver, "bob"), ALL, None)


def test_a_user_who_may_read_nothing(apiserver: ApiServer, namespace: str) -> None:
    with pytest.raises(Forbidden, match=f'for user "nobody" in namespace {namespace}$'):
        load(session(apiserver, "nobody"), ALL, {namespace})


def test_impersonation(apiserver: ApiServer, namespace: str) -> None:
    grant(apiserver, "eve", namespace)
    state = load(session(apiserver, as_user="eve"), ["Pod"], {namespace})
    assert 'for user "eve"' in state.coverage.missing["Pod", "istio-system"]
    server_group = session(apiserver, as_user="root", as_groups=("system:masters",))
    assert load(server_group, ["Pod"], None).coverage.missing == {}
    with pytest.raises(ClusterError, match=r"does not allow --as: .*cannot impersonate"):
        load(session(apiserver, "alice", as_user="eve"), ["Pod"], {namespace})


def test_a_kind_that_is_not_installed(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver(crds=False)
    routing = ["VirtualService", "DestinationRule", "Service"]
    absent = {
        (kind.name, None): f"the cluster does not serve {kind.plural}.networking.istio.io "
        "(is Istio installed?)"
        for kind in (KINDS["VirtualService"], KINDS["DestinationRule"])
    }
    for namespaces in (None, {"default"}):
        assert load(session(server), routing, namespaces).coverage.missing == absent
    server.install_crds(without={"destinationrules"})
    del absent["VirtualService", None]
    for namespaces in (None, {"default"}):
        state = load(session(server), [*routing, "Rollout", "MeshPolicy"], namespaces)
        assert state.coverage.missing == absent


def test_an_api_server_that_dies_in_mid_listing(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver()
    create_virtual_services(server, "default", 501)
    seen: list[int] = []

    def kill(kind: str, count: int) -> None:
        if not seen and kind == "VirtualService":
            seen.append(count)
            server.kill()

    with pytest.raises(ClusterError, match=f"the API server {server.url} .*context test"):
        load(session(server), ["VirtualService"], None, progress=kill)
    assert seen == [500]
    server.start()
    state = load(session(server), ["VirtualService"], None)
    assert len(names(state, "VirtualService", "default")) == 501


def test_an_unknown_token(apiserver: ApiServer) -> None:
    with pytest.raises(ClusterError, match="does not accept the credentials of user 'admin'"):
        load(session(apiserver, token="expired"), ["Pod"], None)


def test_a_certificate_of_nobody_we_trust(apiserver: ApiServer) -> None:
    bare = Session(ClusterOptions(kubeconfig="/dev/null", server=apiserver.url, token="x"))
    with pytest.raises(ClusterError, match=r"certificate is not accepted: .*certificate-authority"):
        load(bare, ["Pod"], None)


def test_a_certificate_of_another_host(apiserver: ApiServer) -> None:
    with pytest.raises(ClusterError, match=r"certificate is not accepted: .*--tls-server-name"):
        load(session(apiserver, tls_server_name="other.example"), ["Pod"], None)
    unchecked = session(apiserver, insecure_skip_tls_verify=True)
    assert load(unchecked, ["Pod"], None).coverage.missing == {}
