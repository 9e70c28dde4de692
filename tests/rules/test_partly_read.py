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
