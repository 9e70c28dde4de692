"""What KM501 tells the operator, beyond where."""

from __future__ import annotations

from tests.rules.test_rules import HERE, run


def test_the_next_step_has_the_cure_in_its_order() -> None:
    finding = run(HERE / "KM501" / "bad-mesh-policy.yaml").findings[0]
    steps = ("MeshPolicy default", "restart deployment/istio-pilot", "--replicas=0")
    assert sorted(steps, key=finding.next.index) == list(steps)
    assert {related.kind for related in finding.related} == {"Deployment", "MeshPolicy"}


def test_nothing_but_citadel_is_touched_where_mtls_is_off_already() -> None:
    finding = run(HERE / "KM501" / "bad-mtls-off.yaml").findings[0]
    assert finding.next.startswith("kubectl -n istio-system scale deployment/istio-citadel")
    assert "authPolicy" not in finding.next
