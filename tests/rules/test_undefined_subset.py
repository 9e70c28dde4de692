"""Of the clients that lack a subset all are named, with what each of them gets instead."""

from __future__ import annotations

from pathlib import Path

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.rules.km101_undefined_subset import RULE
from kubectl_mesh.rules.rule import Finding, Skip
from kubectl_mesh.sources.files import load

ROUTED = """
apiVersion: v1
kind: Service
metadata: {name: till, namespace: shop}
spec: {selector: {app: till}, ports: [{name: http, port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: till, namespace: sales}
spec:
  hosts: [till.shop.svc.cluster.local]
  http: [{route: [{destination: {host: till.shop.svc.cluster.local, subset: v1}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: till, namespace: sales}
spec: {host: till.shop.svc.cluster.local, subsets: [{name: v1, labels: {app: till}}]}
"""
HIDING = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: limits, namespace: %s}
spec:
  host: till.shop.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 5}}}
"""
CLIENT = """
---
apiVersion: v1
kind: Pod
metadata: {name: till, namespace: %s, labels: {app: till, sidecar.istio.io/inject: "true"}}
spec: {containers: [{name: till}]}
"""


def only_finding(tmp_path: Path, text: str) -> Finding:
    file = tmp_path / "manifest.yaml"
    file.write_text(text)
    resources, _ = load([str(file)])
    [found] = RULE.check(Snapshot(resources))
    assert isinstance(found, Finding)
    return found


def test_all_namespaces_that_lack_it_are_named(tmp_path: Path) -> None:
    clients = "".join(CLIENT % name for name in ("sales", "shop", "a", "b"))
    found = only_finding(tmp_path, ROUTED + clients)
    assert "not defined for clients in namespaces shop, a and b: " in found.message
    assert found.traffic.startswith("requests of clients in namespaces shop, a and b that meet")


def test_many_are_counted(tmp_path: Path) -> None:
    clients = "".join(CLIENT % name for name in ("sales", *(f"n{n}" for n in range(9))))
    found = only_finding(tmp_path, ROUTED + clients)
    assert "for clients in namespaces n0, n1, n2, n3, n4 and 4 more: " in found.message


def test_each_cause_is_told_with_those_whom_it_meets(tmp_path: Path) -> None:
    clients = "".join(CLIENT % name for name in ("sales", "shop", "a", "b"))
    found = only_finding(tmp_path, ROUTED + HIDING % "a" + clients)
    assert "for clients in namespaces shop and b: DestinationRule sales/till, whi" in found.message
    assert "for clients in namespace a: they get DestinationRule a/limits, whi" in found.message


LOST = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a-younger, namespace: shop, creationTimestamp: "2024-02-01T00:00:00Z"}
spec: {host: till, exportTo: ["*"], subsets: [{name: v2, labels: {app: till}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: older, namespace: shop, creationTimestamp: "2024-01-01T00:00:00Z"}
spec: {host: till, subsets: [{name: v1, labels: {app: till}}]}
"""


def test_a_rule_that_a_younger_one_replaces_is_named(tmp_path: Path) -> None:
    """The younger one is not joined: its exportTo is written, if only as the default."""
    text = ROUTED.partition("---\napiVersion: networking.istio.io/v1\nkind: DestinationRule")[0]
    found = only_finding(tmp_path, text + LOST + CLIENT % "shop")
    assert (
        "DestinationRule shop/a-younger takes the place of DestinationRule shop/older, since "
        "Istio 1.24: their exportTo differ" in found.message
    )
    assert found.next.startswith(
        "give DestinationRule shop/older and DestinationRule shop/a-younger the same exportTo"
    )
    resources, _ = load([str(tmp_path / "manifest.yaml")])
    assert not list(RULE.check(Snapshot(resources, MeshConfig(istio=Istio((1, 23))))))


def test_a_service_of_type_external_name_has_the_subsets_of_its_host(tmp_path: Path) -> None:
    """No DestinationRule applies to the Service itself."""
    file = tmp_path / "manifest.yaml"
    alias = "{type: ExternalName, externalName: pay.example.com}"
    file.write_text(
        ROUTED.replace("{selector: {app: till}, ports: [{name: http, port: 8080}]}", alias)
    )
    resources, _ = load([str(file)])
    [found] = RULE.check(Snapshot(resources))
    assert isinstance(found, Skip)
    assert found.reason == (
        "whether till.shop.svc.cluster.local has the subset v1: Service shop/till stands for "
        "pay.example.com, whose rules count"
    )


def test_pods_that_a_rule_selects_and_gives_no_subset_are_named(tmp_path: Path) -> None:
    """Others of the namespace have the subset, by what it exports to itself."""
    selecting = (HIDING % "sales").replace(
        "spec:", "spec:\n  workloadSelector: {matchLabels: {a: b}}"
    )
    file = tmp_path / "manifest.yaml"
    file.write_text(ROUTED + selecting + CLIENT % "sales")
    [found] = RULE.check(Snapshot(load([str(file)])[0]))
    assert isinstance(found, Skip)
    whose = "whether pods that DestinationRule sales/limits selects (workloadSelector) send to "
    assert found.reason.startswith(f"{whose}subset v1")
