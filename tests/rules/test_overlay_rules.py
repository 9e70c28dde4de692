"""The rules that compare manifests with the cluster they are meant for."""

from __future__ import annotations

from pathlib import Path

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.rules.rule import Finding
from kubectl_mesh.sources.files import load
from kubectl_mesh.sources.overlay import lay_over

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
"""


def rule(*subsets: str) -> str:
    text = "".join(f"  - {{name: {name}, labels: {{version: {name}}}}}\n" for name in subsets)
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\n"
        f"spec:\n  host: reviews\n  subsets:\n{text}"
    )


def route(subset: str, name: str = "reviews") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n  hosts: [reviews]\n  http:\n  - route:\n"
        f"    - destination: {{host: reviews, subset: {subset}}}\n"
    )


def findings(tmp_path: Path, live: list[str], manifests: list[str]) -> list[Finding]:
    files = []
    for name, documents in (("live.yaml", [SERVICE, *live]), ("new.yaml", manifests)):
        file = tmp_path / name
        file.write_text("---\n".join(documents))
        files.append(str(file))
    live_resources, _ = load(files[:1])
    new_resources, _ = load(files[1:])
    coverage = Coverage(live=True)
    before = Snapshot(live_resources, coverage=coverage)
    after = Snapshot(lay_over(live_resources, new_resources), coverage=coverage, before=before)
    report = examine(after, [BY_CODE[code] for code in ("KM101", "KM105", "KM106")])
    assert not report.crashes
    return list(report.findings)


def shown(found: list[Finding]) -> list[str]:
    return [f"{finding.rule.code} {finding.resource} {dotted(finding.path)}" for finding in found]


def test_a_subset_that_is_added_and_used_by_one_change(tmp_path: Path) -> None:
    found = findings(tmp_path, [rule("v1"), route("v1")], [rule("v1", "v2"), route("v2")])
    assert shown(found) == [
        "KM105 VirtualService default/reviews spec.http[0].route[0].destination.subset"
    ]
    assert "by hand: apply DestinationRule default/reviews alone" in found[0].next


def test_the_destination_rule_alone_is_the_safe_first_step(tmp_path: Path) -> None:
    assert findings(tmp_path, [rule("v1"), route("v1")], [rule("v1", "v2")]) == []


def test_the_virtual_service_alone_is_the_safe_second_step(tmp_path: Path) -> None:
    assert findings(tmp_path, [rule("v1", "v2"), route("v1")], [route("v2")]) == []


def test_a_subset_that_is_removed_with_its_route(tmp_path: Path) -> None:
    found = findings(tmp_path, [rule("v1", "v2"), route("v2")], [rule("v1"), route("v1")])
    assert shown(found) == ["KM106 DestinationRule default/reviews spec.subsets"]
    assert "by hand: apply VirtualService default/reviews alone" in found[0].next


def test_a_subset_that_is_removed_while_a_route_keeps_it(tmp_path: Path) -> None:
    found = findings(tmp_path, [rule("v1", "v2"), route("v2")], [rule("v1")])
    assert shown(found) == [
        "KM106 DestinationRule default/reviews spec.subsets",
        "KM101 VirtualService default/reviews spec.http[0].route[0].destination.subset",
    ]


def test_a_removal_of_what_nothing_uses(tmp_path: Path) -> None:
    assert findings(tmp_path, [rule("v1", "v2"), route("v1")], [rule("v1")]) == []


def test_without_a_cluster_nothing_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("---\n".join([SERVICE, rule("v1"), route("v1")]))
    resources, _ = load([str(file)])
    report = examine(Snapshot(resources), [BY_CODE["KM105"], BY_CODE["KM106"]])
    assert report.findings == ()
