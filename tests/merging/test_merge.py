"""How several VirtualServices become one: by which edits, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.repair import Then
from tests.routing.given import (
    Object,
    gateway,
    prefix,
    server,
    service,
    snapshot,
    thing,
    to,
    virtual_service,
)

FRONT = gateway("front", server("shop.com"))
BACK = gateway("back", server("shop.com"))
SHOP = "shop.a.svc.cluster.local"


def mesh(*objects: Object, **options: Any) -> Snapshot:
    return snapshot(service("shop"), service("cart"), FRONT, BACK, *objects, **options)


def merged(found: Snapshot, **options: Any) -> Merge:
    made = merge(found, found.virtual_services.roots, **options)
    assert isinstance(made, Merge), made
    return made


def spec(found: Snapshot, **options: Any) -> Mapping[str, Any]:
    changes, _ = change_set([merged(found, **options).repair], lambda resource: resource.raw)
    first, *others = changes.steps
    assert first.then is Then.PROXIES
    assert all(step.after is None for step in others)
    assert first.after
    after: Mapping[str, Any] = first.after["spec"]
    return after


def reasons(found: Snapshot, **options: Any) -> str:
    refusals = merge(found, found.virtual_services.roots, **options)
    assert isinstance(refusals, list)
    return "\n".join(map(str, refusals))


def test_a_gateway_with_the_mesh() -> None:
    found = mesh(
        virtual_service("front", ["shop.com"], to("shop", prefix("/a")), gateways=["front"], age=1),
        virtual_service("shop", ["shop"], to("shop")),
    )
    assert spec(found) == {
        "hosts": ["shop.com", "shop"],
        "gateways": ["mesh", "front"],
        "http": [
            to("shop", prefix("/a", gateways=["front"])),
            {**to("shop"), "match": [{"gateways": ["mesh"]}]},
        ],
    }


def test_the_oldest_survives_and_comes_first() -> None:
    found = mesh(
        virtual_service("young", ["shop"], to("cart", prefix("/b")), age=1),
        virtual_service("old", ["shop"], to("shop", prefix("/a")), to("shop"), age=2),
    )
    made = merged(found)
    assert (made.survivor.resource.name, made.others[0].resource.name) == ("old", "young")
    rules = [to("shop", prefix("/a")), to("cart", prefix("/b")), to("shop")]
    assert spec(found) == {"hosts": ["shop"], "http": rules}


def test_catch_alls_come_last_and_what_was_hidden_stays_hidden() -> None:
    one, two = to("shop", prefix("/1")), to("shop", prefix("/2"))
    found = mesh(
        virtual_service("old", ["shop.com"], to("shop"), one, gateways=["front"], age=2),
        virtual_service("young", ["shop.com"], two, to("cart"), gateways=["front"], age=1),
    )
    assert spec(found)["http"] == [two, to("shop"), one, to("cart")]
    sources = [(each.virtual_service.resource.name, each.index) for each in merged(found).sources]
    assert sources == [("young", 0), ("old", 0), ("old", 1), ("young", 1)]


def test_a_match_that_never_held_does_not_come_alive() -> None:
    dead = to("cart", prefix("/d", gateways=["mesh"]))
    half = to("cart", prefix("/h", gateways=["mesh"]), prefix("/h", gateways=["mesh", "front"]))
    found = mesh(
        virtual_service("old", ["shop.com"], dead, half, gateways=["front"], age=2),
        virtual_service("young", ["shop"], to("shop"), age=1),
    )
    made = merged(found)
    assert spec(found)["http"] == [
        to("cart", prefix("/h", gateways=["front"])),
        {**to("shop"), "match": [{"gateways": ["mesh"]}]},
    ]
    assert [note.partition(" is left out")[0] for note in made.notes] == [
        "http[0] of VirtualService a/old",
        "http[1].match[0] of VirtualService a/old",
    ]


def test_names_of_other_namespaces_are_written_out() -> None:
    young = virtual_service(
        "young",
        ["shop"],
        {**to("shop", prefix("/x")), "mirror": {"host": "cart"}},
        {"match": [prefix("/d")], "delegate": {"name": "d"}},
        namespace="b",
        gateways=["front"],
        age=1,
        tcp=[{"route": [{"destination": {"host": "shop"}}]}],
    )
    found = mesh(virtual_service("old", ["x.com"], to("shop", prefix("/y")), age=2), young)
    after = spec(found)
    assert after["hosts"] == ["x.com", "shop.b.svc.cluster.local"]
    assert after["gateways"] == ["mesh", "b/front"]
    inner, delegating = after["http"][1:]
    assert inner["route"][0]["destination"]["host"] == "shop.b.svc.cluster.local"
    assert inner["mirror"] == {"host": "cart.b.svc.cluster.local"}
    assert inner["match"] == [prefix("/x", gateways=["b/front"])]
    assert delegating["delegate"] == {"name": "d", "namespace": "b"}
    assert after["tcp"] == [
        {
            "route": [{"destination": {"host": "shop.b.svc.cluster.local"}}],
            "match": [{"gateways": ["b/front"]}],
        }
    ]


def test_names_of_rules_stay_and_are_unique() -> None:
    rules = [{**to("shop", prefix(f"/{number}")), "name": "r"} for number in range(2)]
    found = mesh(
        virtual_service("old", ["shop"], rules[0], {**rules[1], "name": "r-2"}, age=2),
        virtual_service("young", ["shop"], rules[1], age=1),
    )
    assert [rule["name"] for rule in spec(found)["http"]] == ["r", "r-2", "r-3"]
    assert "http[0] of VirtualService a/young is called r-3 then" in merged(found).notes[0]


def test_tls_and_tcp_rules_come_in_the_order_of_age() -> None:
    def routed(host: str) -> Object:
        return {"route": [{"destination": {"host": host}}]}

    found = mesh(
        virtual_service("old", ["shop"], age=2, tcp=[routed("shop")], tls=[]),
        virtual_service("young", ["shop"], age=1, tcp=[routed("cart")], tls=[routed("cart")]),
    )
    after = spec(found)
    assert (after["tcp"], after["tls"]) == ([routed("shop"), routed("cart")], [routed("cart")])


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"hosts": ["*"], "gateways": ["front"]}, {}, "the host * cannot be bound to the mesh"),
        ({"hosts": ["*"], "gateways": ["front"]}, {"gateways": ["back"]}, "overlap, and no"),
        ({"hosts": ["*.com"], "gateways": ["front"]}, {"hosts": ["x.com"]}, "overlap, and no"),
        ({"exportTo": ["."]}, {"exportTo": ["*"]}, "have different exportTo: merged, one of"),
        ({"hosts": []}, {}, "has no hosts: it is a delegate: merge those above it"),
        (
            {
                "gateways": ["front"],
                "http": [to("shop", {"headers": {"@request.auth.claims.a": {}}})],
            },
            {},
            "http[0] of VirtualService a/one matches claims of a token",
        ),
    ],
)
def test_what_stands_in_the_way(one: Object, other: Object, reason: str) -> None:
    objects = []
    for name, age, how in (("one", 2, one), ("other", 1, other)):
        made = virtual_service(name, ["shop"], to("shop"), age=age)
        made["spec"].update(how)
        objects.append(made)
    found = mesh(*objects)
    refusals = merge(found, found.virtual_services.all)
    assert isinstance(refusals, list)
    assert any(reason in each for each in map(str, refusals))


def test_what_a_rollout_sets_the_weights_of() -> None:
    rollout = thing(
        "argoproj.io/v1alpha1",
        "Rollout",
        "web",
        {
            "strategy": {
                "canary": {"trafficRouting": {"istio": {"virtualService": {"name": "young"}}}}
            }
        },
    )
    found = mesh(
        virtual_service("old", ["shop"], to("shop"), age=2),
        virtual_service("young", ["shop"], to("shop"), age=1),
        rollout,
    )
    assert "Rollout a/web sets the weights of VirtualService a/young" in reasons(found)


@pytest.mark.parametrize(("routes", "is_refused"), [([], True), (["primary"], False)])
def test_the_one_rule_whose_weights_a_rollout_sets(routes: list[str], is_refused: bool) -> None:
    """A Rollout that does not name the rule fails where there are several."""
    istio = {"virtualServices": [{"name": "old", "routes": routes}]}
    strategy = {"strategy": {"canary": {"trafficRouting": {"istio": istio}}}}
    found = mesh(
        virtual_service("old", ["shop"], {**to("shop"), "name": "primary"}, age=2),
        virtual_service("young", ["shop"], to("shop", prefix("/a")), age=1),
        thing("argoproj.io/v1alpha1", "Rollout", "web", strategy),
    )
    if is_refused:
        assert "sets the weights of the one http rule of VirtualService a/old" in reasons(found)
    else:
        assert merged(found).survivor.resource.name == "old"


def test_rules_of_chosen_clients_are_not_bound() -> None:
    """Naming gateways would switch their source fields off."""
    chosen = to("shop", prefix("/a", sourceLabels={"app": "x"}))
    found = mesh(
        virtual_service("front", ["shop.com"], to("shop"), gateways=["front"], age=2),
        virtual_service("shop", ["shop"], chosen, age=1),
    )
    assert spec(found)["http"][0] == chosen
    assert "cannot be bound to its gateways alone" in merged(found).unbound[0]


def test_annotations_of_those_that_go_are_told() -> None:
    young = virtual_service("young", ["shop"], to("shop"), age=1)
    young["metadata"]["annotations"] = {"team": "x", "a": "b"}
    found = mesh(virtual_service("old", ["shop"], to("shop"), age=2), young)
    note = "the annotations of VirtualService a/young go with it: a, team"
    assert merged(found).notes == (note,)


def test_a_rule_behind_a_catch_all_of_some_gateways_holds_on_the_others_alone() -> None:
    everything = {**to("shop"), "match": [{"gateways": ["front"]}]}
    found = mesh(
        virtual_service(
            "a", ["x.com"], everything, to("cart", prefix("/x")), gateways=["front", "back"], age=2
        ),
        virtual_service("b", ["cart"], to("cart"), age=1),
    )
    assert spec(found)["http"] == [
        to("cart", prefix("/x", gateways=["back"])),
        everything,
        {**to("cart"), "match": [{"gateways": ["mesh"]}]},
    ]


def test_a_gateway_is_not_shortened_to_what_means_another_one() -> None:
    found = mesh(
        gateway("web.example.com", server("shop.com")),
        gateway("mesh", server("shop.com")),
        virtual_service("a", ["shop.com"], to("shop", prefix("/a")), gateways=["front"], age=2),
        virtual_service("b", ["shop.com"], to("cart"), gateways=["a/web.example.com", "a/mesh"]),
    )
    after = spec(found)
    assert after["gateways"] == ["front", "a/mesh", "a/web.example.com"]
    assert after["http"][1]["match"] == [{"gateways": ["a/mesh", "a/web.example.com"]}]


def test_what_is_being_deleted_is_not_merged() -> None:
    one, other = (
        virtual_service(name, ["shop.com"], to("shop", prefix(f"/{name}")), gateways=["front"])
        for name in ("x", "y")
    )
    other["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert reasons(mesh(one, other)) == (
        "VirtualService a/y is being deleted: wait until it is gone"
    )
