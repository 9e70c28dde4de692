"""What KM601, KM602 and KM603 advise: nothing is deleted that makes other paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.resource import ABSENT
from kubectl_mesh.rules.repair import Repair
from kubectl_mesh.rules.rule import Finding
from tests.rules.test_rules import run

HERE = Path(__file__).parent


def findings(name: str) -> list[Finding]:
    return list(run(HERE / f"{name}.yaml").findings)


@pytest.mark.parametrize(
    ("name", "advice", "evidence"),
    [
        (
            "KM601/bad-longer-prefix-second",
            "put it before spec.http[0] of VirtualService shops/shop, or narrow that match",
            "spec.http[0].match[0] makes // of the path /x/; spec.http[1].match[0] would make /",
        ),
        (
            "KM602/bad-longer-prefix-second",
            "put it before spec.http[0].match[0] of VirtualService shops/shop, or narrow that "
            "match",
            "spec.http[0].match[0] makes // of the path /x/; spec.http[0].match[1] would make /",
        ),
        ("KM603/bad-other-prefix", "move it before spec.http[0]", None),
    ],
)
def test_what_makes_another_path_is_put_first(name: str, advice: str, evidence: str | None) -> None:
    first = findings(name)[0]
    assert first.next == advice
    assert evidence is None or evidence in first.evidence
    assert not [each for each in first.repairs if is_removal(each)]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("KM602/bad-longer-prefix-second", "spec.http[1].match[1]"),
        ("KM602/bad-within-one-rule", "spec.http[0].match[1]"),
    ],
)
def test_what_makes_no_difference_may_be_deleted(name: str, where: str) -> None:
    advice = [each.next for each in findings(name)]
    assert f"delete {where}" in advice


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "KM601/bad-left-out-under-one-root-rule",
            "make spec.http[0].match[0] match less than spec.http[0] of VirtualService shops/shop "
            "does, or leave out what that one matches already",
        ),
        (
            "KM602/bad-left-out-whole-under-one-root-rule",
            "give spec.http[0].match[1] a rule of its own, or make it match less than "
            "spec.http[0] of VirtualService shops/shop does",
        ),
    ],
)
def test_a_delegates_rule_that_a_root_leaves_out_is_not_moved(name: str, advice: str) -> None:
    """It stands before what takes its requests already."""
    (found,) = findings(name)
    assert (found.next, found.repairs) == (advice, ())
    assert "under spec.http[0] of VirtualService shops/shop, where Istio drops" in found.message


def is_removal(repair: Repair) -> bool:
    return any(edit.value is ABSENT for edit in repair.edits)
