"""What undoing or finishing a run would break in the mesh as it is now."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, Step
from kubectl_mesh.changes.journal import Entry, Run, State, new_run
from kubectl_mesh.changes.patch import Target
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.rollout.breakage import unseen
from kubectl_mesh.rollout.consequences import ahead, back, broken_by, concerns_routes, cures
from kubectl_mesh.rules.repair import Then
from tests.routing.given import (
    Object,
    destination_rule,
    gateway,
    server,
    service,
    snapshot,
    to,
    virtual_service,
)

WEB = service("web")


def rule(*subsets: str) -> Object:
    return destination_rule("web", "web", *subsets)


def route(subset: str, name: str = "web") -> Object:
    return virtual_service(name, [name], to("web", subset=subset))


def mesh(*objects: Object) -> Snapshot:
    return snapshot(WEB, *objects, live=True)


def run(*steps: tuple[Object | None, Object | None, State]) -> Run:
    return new_run("a context", "https://server", [_entry(*each) for each in steps])


def _entry(before: Object | None, after: Object | None, state: State) -> Entry:
    known = after or before
    assert known
    metadata = known["metadata"]
    target = Target(
        known["apiVersion"], known["kind"], metadata.get("namespace", ""), metadata["name"]
    )
    path = f"/{known['kind']}/{metadata['name']}"
    return Entry(target, path, ["why"], (), before, after, Then.PROXIES, state)


def undone(live: Snapshot, found: Run) -> list[str]:
    return broken_by(live, back(found, live), found.cures or ())


def test_what_somebody_needs_by_now_is_not_taken_away() -> None:
    added = run((rule("v1"), rule("v1", "v2"), State.DONE))
    assert undone(mesh(rule("v1", "v2"), route("v1")), added) == []
    (text,) = undone(mesh(rule("v1", "v2"), route("v2", "late")), added)
    assert text.startswith("VirtualService a/late: spec.http[0]")
    assert "sends to subset v2 of web.a.svc.cluster.local, which is not defined for" in text
    assert "clients in namespace a" in text


@pytest.mark.parametrize(
    ("made", "user", "said"),
    [
        (service("made"), virtual_service("late", ["x"], to("made")), "which no Service and no"),
        (
            gateway("made", server("x.com")),
            virtual_service("late", ["x.com"], to("web"), gateways=["made"]),
            "names Gateway a/made, which does not exist",
        ),
        (
            virtual_service("made", [], to("web")),
            virtual_service("late", ["x"], {"delegate": {"name": "made"}}),
            "a/made",
        ),
    ],
    ids=["Service", "Gateway", "delegate"],
)
def test_what_a_run_has_created_may_be_in_use(made: Object, user: Object, said: str) -> None:
    created = run((None, made, State.DONE))
    assert undone(mesh(made), created) == []
    assert said in "\n".join(undone(mesh(made, user), created))


def test_a_run_that_was_stopped_is_undone_in_part() -> None:
    """What it has not made, undoing it does not take away."""
    steps = (rule("v1"), rule("v1", "v2")), (route("v1"), route("v2"))
    live = mesh(rule("v1", "v2"), route("v2"))
    one, other = steps
    assert undone(live, run((*one, State.DONE), (*other, State.DONE))) == []
    assert len(undone(live, run((*one, State.DONE), (*other, State.UNDONE)))) == 1
    assert undone(live, run((*one, State.UNDONE), (*other, State.DONE))) == []
    assert undone(live, run((*one, State.PLANNED), (*other, State.PLANNED))) == []


def test_what_fails_on_the_way_counts() -> None:
    """The DestinationRule is undone before the route that needs it."""
    found = run((route("v1"), route("v2"), State.DONE), (rule("v1"), rule("v2"), State.DONE))
    live = mesh(rule("v2"), route("v2"))
    assert len(back(found, live)) == 2
    assert "sends to subset v2" in undone(live, found)[0]


def test_what_somebody_has_deleted_stays_so() -> None:
    found = run((route("v9"), route("v1"), State.DONE))
    assert back(found, mesh(rule("v1"))) == []
    assert len(undone(mesh(rule("v1"), route("v1")), found)) == 1


def test_what_failed_before_may_fail_again() -> None:
    live = mesh(rule("v1"), route("v2"))
    added = run((rule("v1"), rule("v1", "v2"), State.DONE))
    resource = live.get("DestinationRule", "a", "web")
    assert resource
    changes = ChangeSet((Step(resource, rule("v1"), rule("v1", "v2"), (), (), ["why"]),))
    added.cures = cures(live, changes)
    assert len(added.cures) == 1
    now = mesh(rule("v1", "v2"), route("v2"))
    assert undone(now, added) == []
    later = mesh(rule("v1", "v2"), route("v2"), route("v2", "late"))
    (text,) = undone(later, added)
    assert text.startswith("VirtualService a/late")
    added.cures = None
    assert len(undone(now, added)) == 1, "where it is not known what failed before"


def test_what_is_left_is_looked_at_likewise() -> None:
    left = run((rule("v1", "v2"), rule("v2"), State.PLANNED))
    for live, broken in (
        (mesh(rule("v1", "v2"), route("v2")), 0),
        (mesh(rule("v1", "v2"), route("v1")), 1),
    ):
        assert len(broken_by(live, ahead(left))) == broken


def test_what_is_being_deleted_is_not_relied_on() -> None:
    """Going back, the route leads to a subset that will be gone."""
    ending = rule("v1", "v2")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    other = destination_rule("other", "web", "v2")
    live = mesh(ending, other, route("v2"))
    (text,) = undone(live, run((route("v1"), route("v2"), State.DONE)))
    assert "sends to subset v1" in text
    assert text.endswith(", once DestinationRule a/web is gone")


def test_what_is_being_deleted_is_not_put_back() -> None:
    """Until it is gone, the route leads to the subset that undo takes away."""
    ending = route("v2")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    steps = (rule("v1"), rule("v1", "v2")), (route("v1"), route("v2"))
    found = run(*((*each, State.DONE) for each in steps))
    live = mesh(rule("v1", "v2"), ending)
    assert [[str(step.target) for step in phase] for phase in back(found, live)] == [
        ["DestinationRule a/web"]
    ]
    (text,) = undone(live, found)
    assert text.startswith("VirtualService a/web: ")
    assert "sends to subset v2" in text
    assert undone(mesh(rule("v1", "v2"), route("v2")), found) == []


def test_which_runs_have_to_do_with_routes() -> None:
    assert concerns_routes(run((None, route("v1"), State.DONE)))
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "a"}}
    knative = {**service("x"), "apiVersion": "serving.knative.dev/v1"}
    for each in (other, knative):
        assert not concerns_routes(run((None, each, State.DONE)))


def hidden(*kinds: str) -> Snapshot:
    missing = {(kind, None): f"cannot list {kind}" for kind in kinds}
    return Snapshot((), coverage=Coverage(live=True, missing=missing))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), ""),
        (("Pod", "Service"), ""),
        (("Pod", "DestinationRule"), "cannot list DestinationRule"),
        (("VirtualService",), "cannot list VirtualService"),
    ],
)
def test_all_routes_have_to_be_seen(kinds: Iterable[str], said: str) -> None:
    assert unseen(hidden(*kinds)) == said
