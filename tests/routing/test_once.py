"""What is derived from a snapshot is made once, whoever asks for it."""

from __future__ import annotations

import pytest

from kubectl_mesh.mesh.snapshot import Snapshot, once_per_snapshot
from kubectl_mesh.proof.compare import compare
from kubectl_mesh.routing.router import Router, router_of
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import examine

from .given import service, snapshot, to, virtual_service


def test_each_snapshot_has_its_own() -> None:
    made = []

    @once_per_snapshot
    def derived(of: Snapshot) -> str:
        made.append(of)
        return str(len(made))

    one, other = snapshot(), snapshot()
    assert [derived(each) for each in (one, other, one, other)] == ["1", "2", "1", "2"]
    assert made == [one, other]


def test_rules_and_comparisons_share_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = Router.__init__

    def counted(router: Router, of: Snapshot) -> None:
        made.append(of)
        original(router, of)

    monkeypatch.setattr(Router, "__init__", counted)
    given = [service("web"), virtual_service("web", ["web"], to("web", ""))]
    states = [snapshot(*given), snapshot(*given[:1]), snapshot(*given[1:])]
    for state in states:
        examine(state, RULES)
        compare(states[0], state)
        router_of(state)
    assert [sum(each is state for each in made) for state in states] == [1, 1, 1]
