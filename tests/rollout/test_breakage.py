"""What fails in one state of a mesh and not in another, told by requests and not by words."""

from __future__ import annotations

from typing import Any

from kubectl_mesh.rollout.breakage import Failures, breaks
from tests.routing.given import Object, service, snapshot, virtual_service


def failures(*rules: Object) -> Failures:
    return Failures(snapshot(service("web"), virtual_service("web", ["web"], *rules), live=True))


def missing(name: str, **match: Any) -> Object:
    return {"match": [match], "delegate": {"name": name}}


A, B = {"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}
FINE: Object = {"match": [{"uri": {"prefix": "/c"}}], "route": [{"destination": {"host": "web"}}]}


def new(before: Failures, after: Failures) -> list[str]:
    return list(breaks(before, after, after))


def test_a_second_rule_that_hands_over_to_the_same_missing_delegate_is_new() -> None:
    """Both findings say the same: requests for /b went elsewhere, and get 404 now."""
    before, after = failures(missing("d", **A)), failures(missing("d", **A), missing("d", **B))
    assert len(new(before, after)) == 1
    assert new(after, before) == []


def test_another_rule_that_hands_over_to_it_instead_is_new() -> None:
    assert len(new(failures(missing("d", **A)), failures(missing("d", **B)))) == 1


def test_a_broken_rule_that_moves_or_loses_a_match_is_not_new() -> None:
    whole = {"match": [A, B], "delegate": {"name": "d"}}
    assert new(failures(whole), failures(FINE, whole)) == []
    assert new(failures(whole), failures(FINE, missing("d", **A))) == []
