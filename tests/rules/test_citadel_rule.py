"""What KM501 tells the operator, beyond where."""

from __future__ import annotations

from pathlib import Path

from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.rules import BY_CODE
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load
from tests.rules.stored import HERE
from tests.rules.test_rules import run


def test_the_next_step_has_the_cure_in_its_order() -> None:
    finding = run(HERE / "KM501" / "bad-mesh-policy.yaml").findings[0]
    steps = ("MeshPolicy default", "restart deployment/istio-pilot", "--replicas=0")
    assert sorted(steps, key=finding.next.index) == list(steps)
    assert {related.kind for related in finding.related} == {"Deployment", "MeshPolicy"}


def test_nothing_but_citadel_is_touched_where_mtls_is_off_already() -> None:
    finding = run(HERE / "KM501" / "bad-mtls-off.yaml").findings[0]
    assert finding.next.startswith("kubectl -n istio-system scale deployment/istio-citadel")
    assert "authPolicy" not in finding.next


def test_mtls_stays_on_where_clients_would_speak_it_to_servers_that_do_not(tmp_path: Path) -> None:
    """Istio 1.1 installs this DestinationRule beside the MeshPolicy."""
    text = (HERE / "KM501" / "bad-mesh-policy.yaml").read_text()
    file = tmp_path / "it.yaml"
    file.write_text(
        text + "---\napiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\n"
        "metadata: {name: default, namespace: istio-system}\n"
        "spec: {host: '*.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n"
    )
    finding = run(file).findings[0]
    assert finding.repairs == ()
    assert "and the tls mode ISTIO_MUTUAL of all DestinationRules before it" in finding.next
    (repair,) = run(HERE / "KM501" / "bad-mesh-policy.yaml").findings[0].repairs
    assert [edit.is_deletion for edit in repair.edits] == [True, False]


def test_a_cluster_without_the_pilot_that_would_be_restarted_is_left_to_people() -> None:
    resources, _ = load([str(HERE / "KM501" / "bad-mesh-policy.yaml")])
    config = find_mesh_config(resources)
    mesh = Snapshot(resources, config, coverage=Coverage(live=True))
    (finding,) = examine(mesh, [BY_CODE["KM501"]]).findings
    assert finding.repairs == ()
    assert (
        "then restart pilot (there is no Deployment istio-system/istio-pilot, so `fix` leaves all "
        "of this to you), then kubectl -n istio-system scale"
    ) in finding.next
