"""Rules are moved only where that does what was meant."""

from __future__ import annotations

import pytest

from kubectl_mesh.fixing.moved_rules import unproven
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.rules.repair import Edit, Repair
from tests.routing.given import (
    Object,
    gateway,
    prefix,
    server,
    service,
    snapshot,
    to,
    virtual_service,
)

SERVICES = (service("shop"), service("cart"))
SHOP, CART = to("shop", prefix("/api")), to("cart", prefix("/api/cart"))


def moved(virtual_service: Resource, source: int, to: int) -> Repair:
    edit = Edit(virtual_service, ("spec", "http", to), source=("spec", "http", source))
    return Repair("move", "move it", (edit,), proof=True)


@pytest.mark.parametrize(
    ("rules", "source", "to", "proved"),
    [
        ([SHOP, CART], 1, 0, True),
        ([SHOP, to("shop", prefix("/other")), CART], 2, 0, True),
        ([to("shop"), CART], 0, 1, True),
        ([SHOP, to("cart", prefix("/api"))], 1, 0, False),
        ([to("shop", prefix("/api"), prefix("/x")), CART, to("cart", prefix("/x/y"))], 0, 2, True),
        ([to("cart", prefix("/x")), to("shop", prefix("/x/y"), prefix("/z"))], 1, 0, True),
        (
            [to("cart", prefix("/x"), prefix("/z")), to("shop", prefix("/z"), prefix("/q"))],
            1,
            0,
            False,
        ),
        ([SHOP, to("cart", prefix("/a"))], 1, 0, False),
        ([to("shop"), to("nowhere", prefix("/x"))], 0, 1, False),
        ([to("shop"), {"match": [prefix("/x")]}], 0, 1, False),
    ],
    ids=str,
)
def test_only_requests_that_the_rule_was_for_may_change(
    rules: list[Object], source: int, to: int, proved: bool
) -> None:
    """Also where the rule is not the only one that a request can meet, or none is freed."""
    mesh = snapshot(*SERVICES, virtual_service("shop", ["shop"], *rules))
    found = mesh.get("VirtualService", "a", "shop")
    assert found
    repair = moved(found, source, to)
    assert unproven(mesh, [repair]) == ([] if proved else [repair])


def test_requests_of_another_object_may_not_change() -> None:
    """On a gateway a rule that comes alive stands before those of a younger VirtualService."""
    front = gateway("front", server("shop.com"))
    old = virtual_service("shop", ["shop.com"], to("shop"), CART, gateways=["front"], age=2)
    young = virtual_service(
        "young", ["shop.com"], to("shop", prefix("/api/cart/x")), gateways=["front"], age=1
    )
    mesh = snapshot(*SERVICES, front, old, young)
    found = mesh.get("VirtualService", "a", "shop")
    assert found
    repair = moved(found, 0, 1)
    assert unproven(mesh, [repair]) == [repair]
    alone = snapshot(*SERVICES, front, old)
    assert unproven(alone, [repair]) == []


def test_nothing_is_proved_of_a_gateway_that_is_not_there() -> None:
    mesh = snapshot(*SERVICES, virtual_service("shop", ["shop"], to("shop"), CART, gateways=["x"]))
    found = mesh.get("VirtualService", "a", "shop")
    assert found
    repair = moved(found, 0, 1)
    assert unproven(mesh, [repair]) == [repair]


def test_a_move_has_to_cure_something() -> None:
    """Of two catch-alls that do the same either hides the other one."""
    mesh = snapshot(*SERVICES, virtual_service("shop", ["shop"], to("cart"), to("cart")))
    found = mesh.get("VirtualService", "a", "shop")
    assert found
    repair = moved(found, 0, 1)
    assert unproven(mesh, [repair]) == [repair]


def test_what_is_proved_only_together_with_what_is_refused_is_refused() -> None:
    """The younger one's catch-all is hidden by the older one's, and /a of it by /.* then."""
    front = gateway("front", server("*"))
    every = {"match": [{"uri": {"regex": "/.*"}}], "redirect": {"uri": "/x"}}
    old = virtual_service("old", ["shop"], to("shop"), every, gateways=["front"], age=2)
    young = virtual_service(
        "young",
        ["shop"],
        {**to("shop"), "headers": {"request": {"set": {"x": "y"}}}},
        to("cart", prefix("/a")),
        gateways=["front"],
        age=1,
    )
    mesh = snapshot(*SERVICES, front, old, young)
    repairs = []
    for name in ("old", "young"):
        found = mesh.get("VirtualService", "a", name)
        assert found
        repairs.append(moved(found, 0, 1))
    assert unproven(mesh, repairs) == repairs
