"""Workloads: target ports, who made whom, sidecars, and the Services that select them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.injection import is_gateway, namespace_wants_sidecars, wants_sidecar
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.sources.files import load


@pytest.fixture
def snapshot_of(tmp_path: Path):
    def build(text: str) -> Snapshot:
        file = tmp_path / "manifest.yaml"
        file.write_text(text)
        resources, unreadable = load([str(file)])
        assert not unreadable
        return Snapshot(resources)

    return build


def pod(metadata: str = "{name: web}", spec: str = "{containers: [{name: app}]}") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: {spec}\n"


def only(snapshot: Snapshot) -> Workload:
    (workload,) = snapshot.workloads.all
    return workload


@pytest.mark.parametrize(
    ("target", "protocol", "number"),
    [
        (9999, "TCP", 9999),
        ("http", "TCP", 8080),
        ("dns", "UDP", 53),
        ("dns", "TCP", None),
        ("helper", "TCP", 9100),
        ("setup", "TCP", None),
    ],
)
def test_target_port(snapshot_of, target, protocol, number) -> None:
    workload = only(
        snapshot_of(
            pod(
                spec="""
  initContainers:
  - {name: setup, ports: [{name: setup, containerPort: 1}]}
  - {name: helper, restartPolicy: Always, ports: [{name: helper, containerPort: 9100}]}
  containers:
  - name: app
    ports:
    - {name: http, containerPort: 8080}
    - {name: dns, containerPort: 53, protocol: UDP}
"""
            )
        )
    )
    assert workload.target_port(target, protocol) == number


def made_by(kind: str, name: str) -> str:
    return f"ownerReferences: [{{kind: {kind}, name: {name}, controller: true}}]"


def test_the_maker_of_a_pod_is_at_the_top_of_the_chain(snapshot_of) -> None:
    snapshot = snapshot_of(
        "---\n".join(
            (
                pod(f"{{name: web-1-a, {made_by('ReplicaSet', 'web-1')}}}"),
                f"apiVersion: apps/v1\nkind: ReplicaSet\n"
                f"metadata: {{name: web-1, {made_by('Deployment', 'web')}}}\n",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
                pod(f"{{name: alone, {made_by('ReplicaSet', 'gone')}}}"),
            )
        )
    )
    makers = {
        workload.resource.name: snapshot.workloads.maker(workload).resource.name
        for workload in snapshot.workloads.all
    }
    assert makers == {"web-1-a": "web", "web-1": "web", "web": "web", "alone": "alone"}
    assert {owner.resource.name for owner in snapshot.workloads.owners} == {"web", "alone"}


def test_owners_in_a_circle_end(snapshot_of) -> None:
    snapshot = snapshot_of(
        "---\n".join(
            (
                pod(f"{{name: a, {made_by('Pod', 'b')}}}"),
                pod(f"{{name: b, {made_by('Pod', 'a')}}}"),
            )
        )
    )
    assert [str(snapshot.workloads.maker(workload)) for workload in snapshot.workloads.all] == [
        "Pod default/b",
        "Pod default/a",
    ]


def test_services_and_service_entries_that_select_a_workload(snapshot_of) -> None:
    snapshot = snapshot_of(
        """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: web, tier: x}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: elsewhere}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: without-selector}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm}
spec: {hosts: [vm.example.com], workloadSelector: {labels: {app: web}}}
---
"""
        + pod("{name: web, labels: {app: web}}")
    )
    ((group,),) = snapshot.groups_by_workload.values()
    assert [service.resource.name for service in group.services] == ["web", "vm"]
    assert [str(found) for found in snapshot.pods_of(group.services[0])] == ["Pod default/web"]


@pytest.mark.parametrize(
    ("labels", "namespace", "wanted"),
    [
        ({}, None, None),
        ({}, {}, False),
        ({}, {"istio-injection": "enabled"}, True),
        ({}, {"istio-injection": "disabled", "istio.io/rev": "stable"}, False),
        ({}, {"istio.io/rev": "stable"}, True),
        ({"istio.io/rev": "stable"}, None, True),
        ({"sidecar.istio.io/inject": "false"}, {"istio-injection": "enabled"}, False),
        ({"sidecar.istio.io/inject": "true"}, {"istio-injection": "disabled"}, True),
    ],
)
def test_wants_sidecar(snapshot_of, labels, namespace, wanted) -> None:
    entries = ", ".join(f'{key}: "{value}"' for key, value in labels.items())
    workload = only(snapshot_of(pod(f"{{name: web, labels: {{{entries}}}}}")))
    assert wants_sidecar(workload, namespace) is wanted
    if not labels and namespace is not None:
        assert namespace_wants_sidecars(namespace) is wanted


@pytest.mark.parametrize(
    ("metadata", "containers", "expected"),
    [
        ("{name: a}", "{name: app}", False),
        ("{name: a}", "{name: istio-proxy}", True),
        ("{name: a}", "{name: app}, {name: istio-proxy}", False),
        ("{name: a, annotations: {inject.istio.io/templates: gateway}}", "{name: x}", True),
        ("{name: a, labels: {gateway.networking.k8s.io/gateway-name: g}}", "{name: x}", True),
        ("{name: a}", "", False),
        ("{name: a, annotations: {inject.istio.io/templates: 'grpc-agent,gateway'}}", "", True),
        ("{name: a, annotations: {inject.istio.io/templates: no-gateway}}", "{name: x}", False),
        ("{name: a}", "{name: istio-proxy, args: [proxy, router]}, {name: helper}", True),
        ("{name: a}", "{name: istio-proxy, args: [proxy, sidecar]}, {name: router}", False),
        ("{name: a}", "{name: app, args: [proxy, router]}", False),
    ],
)
def test_is_gateway(snapshot_of, metadata, containers, expected) -> None:
    workload = only(snapshot_of(pod(metadata, f"{{containers: [{containers}]}}")))
    assert is_gateway(workload) is expected
