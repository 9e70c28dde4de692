"""What requests meet between two steps of a plan: the order that spares them, or a refusal."""

from __future__ import annotations

import copy
from typing import Any

from tests.routing.given import (
    Object,
    destination_rule,
    gateway,
    pod,
    server,
    service,
    virtual_service,
)

from .test_plan import planned, to, told

PODS = [
    pod(f"{app}-{version}", ready=True, app=app, version=version)
    for app in ("web", "api")
    for version in ("v1", "v2")
]
CLIENT = pod("client", ready=True)
CLIENT["spec"]["containers"].append({"name": "istio-proxy", "image": "istio/proxyv2:1.22.0"})
HOSTS = [service("web"), service("api"), CLIENT, *PODS]
WEB = [*HOSTS, destination_rule("web", "web", "v1", "v2"), gateway("front", server("a.com"))]


def under(prefix: str, action: Object) -> Object:
    return {"match": [{"uri": {"prefix": prefix}}], **action}


def front(name: str, *rules: Object, **spec: Any) -> Object:
    return virtual_service(name, ["a.com"], *rules, gateways=["front"], **spec)


def part(name: str, *rules: Object) -> Object:
    found = virtual_service(name, [], *rules)
    del found["spec"]["hosts"]
    return found


def delegated(prefix: str, name: str) -> Object:
    return under(prefix, {"delegate": {"name": name}})


def test_a_root_that_widens_comes_before_its_delegate() -> None:
    """Istio leaves a delegate's match out that is not within its root's."""
    live = [*WEB, front("root", delegated("/a", "d")), part("d", under("/a/x", to("web", "v1")))]
    wide = [part("d", under("/", to("web", "v1"))), front("root", delegated("/", "d"))]
    found = planned(wide, live=live)
    assert (told(found), found.refusals) == (
        [["patch VirtualService/root", "patch VirtualService/d"]],
        (),
    )
    back = planned([live[-1], live[-2]], live=[*WEB, *wide])
    assert (told(back), back.refusals) == (
        [["patch VirtualService/d", "patch VirtualService/root"]],
        (),
    )


def test_delegates_that_are_exchanged_together_with_their_root() -> None:
    live = [
        *WEB,
        front("root", delegated("/a", "one"), delegated("/b", "two")),
        part("one", under("/a", to("web", "v1"))),
        part("two", under("/b", to("web", "v2"))),
    ]
    swapped = [
        front("root", delegated("/a", "two"), delegated("/b", "one")),
        part("one", under("/b", to("web", "v2"))),
        part("two", under("/a", to("web", "v1"))),
    ]
    (refused,) = planned(swapped, live=live).refusals
    assert refused.startswith("while VirtualService a/one is changed and VirtualService a/two is ")
    assert "would get: 404: no rule matches, though in the end it would be right" in refused


def test_destination_rules_that_pass_on_a_host() -> None:
    one, two = destination_rule("one", "web", "v1"), destination_rule("two", "api", "v1")
    routed = [
        virtual_service("web", ["web"], to("web", "v1")),
        virtual_service("api", ["api"], to("api", "v1")),
    ]
    live = [*HOSTS, one, two, *routed]
    swapped = [destination_rule("one", "api", "v1"), destination_rule("two", "web", "v1")]
    (refused,) = planned(swapped, live=live).refusals
    assert "(503" in refused
    away = [destination_rule("one", "api", "v1"), destination_rule("three", "web", "v1")]
    found = planned(away, live=live[:-2] + routed[:1])
    assert (told(found), found.refusals) == (
        [["create DestinationRule/three v1", "patch DestinationRule/one v1"]],
        (),
    )


def test_a_path_that_moves_to_another_virtual_service_of_its_host() -> None:
    x, y, z = (under(f"/{name}", to("web", "v1")) for name in "xyz")
    live = [*WEB, front("one", x, y, age=1), front("two", z)]
    found = planned([front("one", y, age=1), front("two", z, x)], live=live)
    assert (told(found), found.refusals) == (
        [["patch VirtualService/two", "patch VirtualService/one"]],
        (),
    )


def test_a_host_that_a_wildcard_takes_over() -> None:
    v1 = to("web", "v1")

    def rules(one: list[str], two: list[str]) -> list[Object]:
        names = (("one", one), ("two", two))
        return [virtual_service(n, hosts, v1, gateways=["front"]) for n, hosts in names]

    live = [*HOSTS, WEB[-2], gateway("front", server("*"))]
    found = planned(
        rules(["b.com"], ["*.a.com"]), live=[*live, *rules(["x.a.com", "b.com"], ["q.com"])]
    )
    assert (told(found), found.refusals) == (
        [["patch VirtualService/two", "patch VirtualService/one"]],
        (),
    )


def test_two_moves_among_four() -> None:
    p, q, r, s, t, u = (under(f"/{name}", to("web", "v1")) for name in "pqrstu")
    live = [*WEB, front("a", p, q), front("b", r), front("c", s), front("d", t, u)]
    moved = [front("a", p), front("b", r, q), front("c", s, u), front("d", t)]
    found = planned(moved, live=live)
    ((*steps,),) = told(found)
    assert found.refusals == ()
    for first, then in (("b", "a"), ("c", "d")):
        places = [steps.index(f"patch VirtualService/{name}") for name in (first, then)]
        assert places == sorted(places)


def test_a_rule_that_another_uncovers() -> None:
    def some(*first_two: Object, **more: Any) -> list[Object]:
        others = [front(name, {**under(f"/{name}", to("web", "v1")), **more}) for name in "cde"]
        return [*first_two, *others]

    x, y = (under(f"/{name}", to("web", "v1")) for name in "xy")
    live = some(front("a", x, to("web", "v1"), age=4), front("b", y, to("web", "v9"), age=1))
    after = some(front("a", x, age=4), front("b", y, to("web", "v1"), age=1), timeout="3s")
    found = planned(after, live=[*WEB, *live])
    ((*steps,),) = told(found)
    assert found.refusals == ()
    assert steps.index("patch VirtualService/b") < steps.index("patch VirtualService/a")


def test_rules_that_are_exported_to_others() -> None:
    """Whichever changes first, one namespace is without rules for the host for a while."""

    def both(one: str, two: str) -> list[Object]:
        return [
            virtual_service("one", ["web"], to("web", "v1"), exportTo=[one]),
            virtual_service("two", ["web.a.svc.cluster.local"], to("web", "v1"), exportTo=[two]),
        ]

    other = copy.deepcopy(CLIENT)
    other["metadata"]["namespace"] = "b"
    live = [*WEB, other, *both("a", "b")]
    (refused,) = planned(both("b", "a"), live=live).refusals
    assert "from pods of namespace a would get: web.a.svc.cluster.local:80, though" in refused
    assert planned(both("*", "b"), live=live).refusals == ()
    nobody = [each for each in WEB if each is not CLIENT]
    (refused,) = planned(both("b", "a"), live=[*nobody, *both("a", "b")]).refusals
    assert "from pods of namespace" in refused
    found = planned(both("b", "a"), live=[*WEB, *both("a", "b")])  # no pod of b is seen
    assert (told(found), found.refusals) == (
        [["patch VirtualService/two", "patch VirtualService/one"]],
        (),
    )


def test_a_tls_host_that_moves_to_another_gateway() -> None:
    """The older Gateway has it as long as it is there: the other one's server is left out."""

    def tls(name: str, *hosts: str, age: int = 0) -> Object:
        found = server(*hosts, number=443, protocol="TLS", tls={"mode": "PASSTHROUGH"})
        return gateway(name, found, age=age)

    def routed(*gateways: str) -> Object:
        rule = {
            "match": [{"port": 443, "sniHosts": ["a.com"]}],
            "route": [{"destination": {"host": "web", "port": {"number": 80}}}],
        }
        return virtual_service("w", ["a.com"], tls=[rule], gateways=[*gateways])

    live = [*HOSTS, tls("one", "a.com", "b.com", age=1), routed("one")]
    moved = [tls("one", "b.com", age=1), tls("two", "a.com"), routed("two")]
    refused = planned(moved, live=live).refusals
    assert any("closed" in each and "in two runs" in each for each in refused), refused
    first = planned([tls("two", "a.com"), routed("one", "two")], live=live)
    assert first.refusals == ()
    then = planned(moved, live=[*live[:-1], tls("two", "a.com"), routed("one", "two")])
    assert then.refusals == ()
