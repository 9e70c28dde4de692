"""Set-ups that the documentation of Istio, Argo Rollouts and Flagger recommends: nothing is wrong.

The manifests are written for these tests, after the shape of what is documented.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import examine
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load

MANIFESTS = sorted(Path(__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_nothing_is_wrong(file: Path) -> None:
    resources, unreadable = load([str(file)])
    report = examine(Snapshot(resources, find_mesh_config(resources)), RULES)
    assert not unreadable
    assert [f"{each.rule.code} {each.resource}: {each.message}" for each in report.findings] == []
    assert not [skip for skip in report.skipped if skip.failed]
