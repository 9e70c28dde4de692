"""What is said of a cluster of which a part may not be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.sources.files import load

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""
ROUTE = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v2}}]}]}
"""
RULE = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}
"""


@pytest.mark.parametrize(
    ("manifests", "unread", "is_found"),
    [
        (SERVICE + ROUTE + RULE, "istio-system", True),  # which is looked at after shop
        (SERVICE + ROUTE + RULE, "shop", False),
        (SERVICE + ROUTE, "istio-system", False),
        (SERVICE + ROUTE, "elsewhere", True),
    ],
)
def test_a_subset_is_undefined_only_if_no_rule_that_was_not_read_can_define_it(
    tmp_path: Path, manifests: str, unread: str, is_found: bool
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(manifests)
    resources, _ = load([str(file)])
    coverage = Coverage(live=True, missing={("DestinationRule", unread): "forbidden"})
    report = examine(Snapshot(resources, coverage=coverage), [BY_CODE["KM101"]])
    assert [found.rule.code for found in report.findings] == ["KM101"] * is_found
    assert [(skip.reason, skip.failed) for skip in report.skipped] == (
        [] if is_found else [("forbidden", True)]
    )


SPLIT = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {%s}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web}]}
status: {phase: Running}
"""
NETWORK = """---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {topology.istio.io/network: net-1}}
"""


@pytest.mark.parametrize(
    ("label", "more", "is_found"),
    [
        ("version: v1", "", True),
        ("version: v1", NETWORK, False),
        ("topology.kubernetes.io/zone: a", "", False),
    ],
)
def test_what_no_object_of_the_cluster_tells_is_no_failure_to_read_it(
    tmp_path: Path, label: str, more: str, is_found: bool
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SERVICE + SPLIT % label + more)
    resources, _ = load([str(file)])
    report = examine(Snapshot(resources, coverage=Coverage(live=True)), [BY_CODE["KM102"]])
    assert [found.rule.code for found in report.findings] == ["KM102"] * is_found
    assert [skip.failed for skip in report.skipped] == [False] * (not is_found)
