"""In which order manifests are brought into a cluster, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import Ready, Step
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rollout.plan import Plan, Unwanted, Wanted, plan
from kubectl_mesh.rules.repair import Then
from tests.routing.given import (
    Object,
    deployment,
    destination_rule,
    entry,
    gateway,
    istio,
    pod,
    server,
    service,
    snapshot,
    thing,
    virtual_service,
)


class Server:
    """Makes of an object what is applied to it; pods with these labels are ready."""

    def __init__(self, ready: Iterable[str] = ("v1", "v2", "v3")) -> None:
        self._ready = set(ready)

    def would_be(self, wanted: Wanted, applied: Mapping[str, Any]) -> Mapping[str, Any]:
        return applied

    def is_there(self, need: Ready) -> bool:
        return need.labels.get("version") in self._ready


def route(*subsets: str, name: str = "web") -> Object:
    return virtual_service(name, ["web"], *(to("web", subset) for subset in subsets))


def to(host: str, subset: str) -> Object:
    return {"route": [{"destination": {"host": host, "subset": subset}}]}


def rule(*subsets: str, **spec: Any) -> Object:
    return destination_rule("web", "web", *subsets, **spec)


LIVE = (service("web"), rule("v1"), route("v1"))


def planned(
    manifests: Iterable[Object],
    *,
    live: Iterable[Object] = LIVE,
    gone: Iterable[Object] = (),
    ready: Iterable[str] = ("v1", "v2", "v3"),
    allow_empty: bool = False,
    allow_broken: bool = False,
    lost: Mapping[str, Any] | None = None,
    config: MeshConfig | None = None,
) -> Plan:
    mesh = snapshot(*copy.deepcopy([*live]), live=True, config=config)
    wanted = [_wanted(mesh, each) for each in snapshot(*copy.deepcopy([*manifests])).everything()]
    unwanted = [
        Unwanted(each, str(each), each.raw)
        for each in snapshot(*copy.deepcopy([*gone])).everything()
    ]
    if lost:
        found = mesh.get("DestinationRule", "a", "web")
        assert found
        wanted.append(Wanted(found, str(found), None, found.raw, {**found.raw, "spec": lost}))
    return plan(
        mesh,
        wanted,
        unwanted,
        Server(ready),
        allow_empty=allow_empty,
        allow_broken=allow_broken,
    )


def _wanted(mesh: Snapshot, resource: Resource) -> Wanted:
    live = mesh.get(resource.kind, resource.namespace, resource.name)
    return Wanted(resource, str(resource), resource.raw, live and live.raw, resource.raw)


def told(found: Plan) -> list[list[str]]:
    """For each phase its steps, with the subsets of DestinationRules; a star where it waits."""
    return [[_told(step) for step in phase.steps] for phase in found.phases]


def _told(step: Step) -> str:
    spec = (step.after or {}).get("spec")
    subsets = (spec.get("subsets") if isinstance(spec, dict) else None) or ()
    names = "".join(f" {each['name']}" for each in subsets)
    waits = "*" if step.then is Then.PROXIES else ""
    return f"{step.action.value} {step.resource.kind}/{step.resource.name}{names}{waits}"


def test_a_subset_is_there_before_its_route_and_goes_after_it() -> None:
    found = planned([route("v2"), rule("v2")])
    assert told(found) == [
        ["patch DestinationRule/web v2 v1*"],
        ["patch VirtualService/web*"],
        ["patch DestinationRule/web v2"],
    ]
    assert (found.refusals, found.risks) == ((), ())
    assert [need.labels for need in found.phases[0].steps[0].ready] == [
        {"app": "web", "version": "v2"}
    ]


def test_a_new_service_comes_first() -> None:
    found = planned([route("v1"), rule("v1"), service("web")], live=[service("other")])
    assert told(found) == [
        ["create Service/web*"],
        ["create DestinationRule/web v1*"],
        ["create VirtualService/web"],
    ]


def test_nothing_waits_where_nothing_follows() -> None:
    assert told(planned([rule("v1", "v2")])) == [["patch DestinationRule/web v1 v2"]]
    assert told(planned([route("v1"), rule("v1")])) == []
    moved = [rule("v1", "v2"), route("v1")]
    assert told(planned([route("v2")], live=[service("web"), *moved])) == [
        ["patch VirtualService/web"]
    ]


def test_a_subset_that_goes_is_kept_only_while_routes_change() -> None:
    live = [service("web"), rule("v1", "v2"), route("v1")]
    assert told(planned([rule("v1")], live=live)) == [["patch DestinationRule/web v1"]]


def test_delegates_come_before_those_that_hand_over_to_them() -> None:
    root = virtual_service("web", ["web"], {"delegate": {"name": "z"}})
    delegate = virtual_service("z", [], to("web", "v1"))
    del delegate["spec"]["hosts"]
    assert told(planned([root, delegate])) == [
        ["create VirtualService/z", "patch VirtualService/web"]
    ]


def test_a_host_is_never_without_rules() -> None:
    """It goes from one VirtualService to another; the third one changes as well."""
    live = [
        service("web"),
        rule("v1"),
        virtual_service("a", ["x", "y"], to("web", "v1")),
        route("v1"),
    ]
    manifests = [
        virtual_service("a", ["x"], to("web", "v1")),
        virtual_service("web", ["web", "more"], to("web", "v1")),
        virtual_service("z", ["y"], to("web", "v1")),
    ]
    assert told(planned(manifests, live=live)) == [
        ["create VirtualService/z", "patch VirtualService/web", "patch VirtualService/a"]
    ]


def test_routes_go_before_what_they_lead_to() -> None:
    assert told(planned([], gone=[*LIVE, deployment("web")])) == [
        ["delete VirtualService/web*"],
        ["delete DestinationRule/web", "delete Deployment/web", "delete Service/web"],
    ]


def test_a_subset_that_is_still_used_is_not_taken_away() -> None:
    """By a gateway's route of another namespace, by a mirror, by a tcp rule."""
    there = "web.a.svc.cluster.local"
    front = gateway("g", server("x.com"))
    outside = virtual_service("out", ["x.com"], to(there, "v1"), namespace="b", gateways=["a/g"])
    mirror = virtual_service("mirror", ["x"], {**to("web", "v2"), "mirror": _destination("v1")})
    tcp = virtual_service("tcp", ["y"], tcp=[{"route": [{"destination": _destination("v1")}]}])
    for used in (outside, mirror, tcp):
        live = [service("web"), rule("v1", "v2"), route("v2"), front, used]
        (refused,) = planned([rule("v2")], live=live).refusals
        assert "subset v1 of web.a.svc.cluster.local, which is not defined" in refused
        assert planned([rule("v1")], live=live).refusals, "nor v2, which the route names"


def _destination(subset: str) -> Object:
    return {"host": "web", "subset": subset}


def test_a_new_subset_needs_a_pod() -> None:
    manifests = [rule("v1", "v2"), route("v2")]
    (refused,) = planned(manifests, ready=["v1"]).refusals
    assert "no pod is ready for subset v2 of web.a.svc.cluster.local" in refused
    found = planned(manifests, ready=["v1"], allow_empty=True)
    assert (found.refusals, [step.ready for step in found.changes.steps]) == ((), [(), ()])
    assert "503 UH" in found.risks[0]
    found = planned([*manifests, deployment("web", version="v2")], ready=["v1"])
    assert (found.refusals, len(found.phases[1].steps[0].ready)) == ((), 1)


def test_labels_that_istiod_adds_are_not_asked_of_pods() -> None:
    labels = {"version": "v1", "topology.kubernetes.io/zone": "a", "topology.istio.io/cluster": "c"}
    found = planned([rule(subsets=[{"name": "a", "labels": labels}])])
    [step] = found.changes.steps
    assert [need.labels for need in step.ready] == [{"app": "web", "version": "v1"}]


def test_other_labels_under_the_same_name_are_a_risk() -> None:
    other = rule("v1")
    other["spec"]["subsets"][0]["labels"] = {"version": "v2"}
    found = planned([other])
    assert "subset v1 gets other labels and keeps its name" in found.risks[0]
    assert found.phases[0].steps[0].ready[0].labels["version"] == "v2"


def test_a_subset_is_taken_away_by_name() -> None:
    live = [service("web"), rule("v1", "v2"), route("v2")]
    left = {"host": "web", "subsets": rule("v2")["spec"]["subsets"]}
    found = planned([], live=live, lost=left)
    assert told(found) == [["patch DestinationRule/web v2"]]
    (step,) = found.changes.steps
    assert [each["op"] for each in step.operations] == ["test", "replace"]
    assert planned([], lost={"host": "web", "subsets": []}).refusals
    found = planned([route("v2")], live=[service("web"), rule("v1", "v2"), route("v1")], lost=left)
    assert told(found) == [["patch VirtualService/web*"], ["patch DestinationRule/web v2"]]


def test_a_subset_that_goes_from_one_rule_to_another_is_there_before_it_goes() -> None:
    empty = destination_rule("web", "web")
    other = destination_rule("two", "web", "v1")
    assert told(planned([empty, other])) == [
        ["create DestinationRule/two v1", "patch DestinationRule/web v1*"],
        ["patch DestinationRule/web"],
    ]


def at(host: str, port: int, **more: Any) -> Object:
    """A rule that sends to one port of a host."""
    return {"route": [{"destination": {"host": host, "port": {"number": port}}}], **more}


def ports(name: str, *numbers: int) -> Object:
    return service(name, "a", *({"name": f"http-{number}", "port": number} for number in numbers))


BOUND = virtual_service("out", ["x.com"], at("web", 80), gateways=["front"])


def test_what_takes_something_away_comes_once_nothing_routes_to_it() -> None:
    """Ports of Services, hosts of ServiceEntries and Gateways; what gives something comes first."""
    elsewhere = {"route": [{"destination": {"host": "y"}}]}
    old = {"route": [{"destination": {"host": "x.org"}}]}
    cases = [
        (ports("web", 80, 90), ports("web", 80), at("web", 90), "Service/web*"),
        (entry("web", ["x.org", "w"]), entry("web", ["w"]), old, "ServiceEntry/web*"),
        (gateway("web", server("x.org", "w")), gateway("web", server("w")), {}, "Gateway/web"),
    ]
    for more, less, rule_before, named in cases:
        before = virtual_service("v", ["v"], rule_before or {**elsewhere, "name": "before"})
        after = virtual_service("v", ["v"], elsewhere)
        gone = planned([less, after], live=[service("y"), more, before])
        assert told(gone) == [["patch VirtualService/v*"], [f"patch {named.rstrip('*')}"]]
        back = planned([more, before], live=[service("y"), less, after])
        assert told(back) == [[f"patch {named}"], ["patch VirtualService/v"]]
        assert (gone.refusals, back.refusals) == ((), ())


def test_a_sidecar_that_hides_hosts_comes_last() -> None:
    narrow = istio("Sidecar", "default", {"egress": [{"hosts": ["./*"]}]})
    wide = istio("Sidecar", "default", {"egress": [{"hosts": ["./*", "b/*"]}]})
    routed = {**route("v1"), "spec": {**route("v1")["spec"], "exportTo": ["."]}}
    assert told(planned([narrow, routed])) == [
        ["patch VirtualService/web*"],
        ["create Sidecar/default"],
    ]
    assert told(planned([narrow, routed], live=[*LIVE, wide]))[-1] == ["patch Sidecar/default"]
    assert told(planned([wide, routed], live=[*LIVE, narrow])) == [
        ["patch Sidecar/default*"],
        ["patch VirtualService/web"],
    ]


def test_what_gives_and_takes_goes_where_nothing_breaks() -> None:
    """A Service with another port: late, if no route needs the new one yet."""
    y = service("y")
    live = [y, ports("web", 80), virtual_service("v", ["v"], at("web", 80))]
    away = virtual_service("v", ["v"], at("y", 80))
    assert told(planned([ports("web", 90), away], live=live)) == [
        ["patch VirtualService/v*"],
        ["patch Service/web"],
    ]
    moved = planned([ports("web", 90), virtual_service("v", ["v"], at("web", 90))], live=live)
    (refused,) = moved.refusals
    assert "port 80 of web.a.svc.cluster.local, which it does not have (it has 90)" in refused
    assert "apply it in two runs" in refused


def test_what_is_still_in_use_is_not_deleted() -> None:
    root = virtual_service("root", ["r"], {"delegate": {"name": "d"}})
    delegate = virtual_service("d", [], at("web", 80))
    del delegate["spec"]["hosts"]
    live = [ports("web", 80), gateway("front", server()), BOUND, root, delegate]
    for gone, said in (
        ([live[0]], "which no Service and no ServiceEntry provides"),
        ([live[1]], "names Gateway a/front, which does not exist"),
        ([delegate], "names VirtualService a/d, which does not exist"),
    ):
        assert said in planned([], gone=gone, live=live).refusals[0]
        left = planned([], gone=gone, live=live, allow_broken=True)
        assert (left.refusals, said in left.risks[0]) == ((), True)
    assert not planned([], gone=live, live=live).refusals


def test_each_object_goes_where_least_breaks() -> None:
    """One first and another last; a second port of a Service last, for routes that name none."""
    front = [
        gateway("front", server("old.com", "x.com")),
        gateway("front", server("new.com", "x.com")),
    ]
    back = [ports("web", 90), ports("web", 91)]
    routed = virtual_service("v", ["v"], at("web", 90)), virtual_service("v", ["v"], at("y", 80))
    new = virtual_service("n", ["new.com"], at("y", 80), gateways=["front"])
    live = [service("y"), front[0], back[0], routed[0]]
    both = planned([front[1], back[1], routed[1], new], live=live)
    assert both.refusals == ()
    assert told(both)[-1] == ["patch Service/web"]
    bare = {"route": [{"destination": {"host": "web"}}]}
    outside = virtual_service("out", ["x.com"], bare, gateways=["front"])
    named = virtual_service("out", ["x.com"], at("web", 90), gateways=["front"])
    found = planned([ports("web", 90, 91), named], live=[front[0], back[0], outside])
    assert (found.refusals, told(found)[-1]) == ((), ["patch Service/web"])
    broken = [*live, virtual_service("far", ["far"], at("elsewhere", 1))]
    less = planned([back[1], routed[1]], live=broken, allow_broken=True)
    assert told(less)[-1] == ["patch Service/web"]


def test_what_was_broken_before_may_stay_so() -> None:
    """However the objects around it change, and by whom."""
    old = [
        virtual_service("beta", ["beta"], to("web", "v9"), to("web", "v8")),
        virtual_service("port", ["port"], at("web", 7777)),
        virtual_service("cart", ["cart"], at("cart", 80)),
        virtual_service("lost", ["lost"], to("web", "v1"), gateways=["fromt"]),
        virtual_service("dead", ["dead.com"], to("web", "v1"), gateways=["front"]),
    ]
    live = [*LIVE, gateway("front", server("x.com")), *old]
    renamed = virtual_service("other", ["beta"], to("web", "v9"), to("web", "v8"))
    bound = virtual_service("dead", ["dead.com"], to("web", "v1"), gateways=["front", "more"])
    for manifests, gone in (
        ([rule("v1", "v8")], []),
        ([rule("v1", "v2")], []),
        ([ports("web", 80, 81)], []),
        ([gateway("from", server("x.com"))], []),
        ([service("cart", "b")], []),
        ([renamed], [old[0]]),
        ([destination_rule("web", "web.a.svc.cluster.local", "v1", namespace="c")], []),
        ([deployment("any", "aa", version="v1")], []),
        ([gateway("more", server("y.com")), bound], []),
    ):
        assert planned(manifests, live=live, gone=gone, ready=["v1", "v2", "v8"]).refusals == ()


def test_more_requests_for_what_is_broken_are_refused() -> None:
    beta: Object = {"match": [{"uri": {"prefix": "/beta"}}]}
    live = [
        service("web"),
        rule("v1"),
        virtual_service("web", ["web"], {**beta, **to("web", "v9")}, to("web", "v1")),
    ]
    turned = virtual_service("web", ["web"], {**beta, **to("web", "v1")}, to("web", "v9"))
    assert planned([turned], live=live).refusals

    def weighed(one: int, other: int) -> Object:
        shares = zip(("v1", "v9"), (one, other), strict=True)
        return virtual_service(
            "web",
            ["web"],
            {
                "route": [
                    {"destination": _destination(name), "weight": share} for name, share in shares
                ]
            },
        )

    live = [service("web"), rule("v1"), weighed(99, 1)]
    assert planned([weighed(1, 99)], live=live).refusals


def test_fewer_requests_for_what_is_broken_are_not() -> None:
    """Less weight, one more condition, one match repaired; a delegate that is lost already."""
    x, y = {"uri": {"prefix": "/x"}}, {"uri": {"prefix": "/y"}}
    lost = {"match": [x, y], "route": [{"destination": _destination("v9")}]}
    half = [{"destination": _destination("v1"), "weight": 50}]
    half += [{"destination": _destination("v9"), "weight": 50}]
    tenth = [{**half[0], "weight": 90}, {**half[1], "weight": 10}]
    root = virtual_service("root", ["r"], {"delegate": {"name": "gone"}}, to("web", "v1"))
    live = [*LIVE, virtual_service("b", ["b"], lost, {"route": half}), root]
    narrow = {**lost, "match": [{**x, "headers": {"h": {"exact": "1"}}}, {**y, "name": "n"}]}
    for http in (
        [lost, {"route": tenth}],
        [narrow, {"route": half}],
        [{**lost, "match": [y]}, {"route": half}],
    ):
        assert planned([virtual_service("b", ["b"], *http)], live=live).refusals == ()
    more = virtual_service(
        "b", ["b"], lost, {"route": [{**half[1], "weight": 51}, {**half[0], "weight": 49}]}
    )
    assert planned([more], live=live).refusals


def test_a_host_that_was_not_broken_is_not_known_to_be() -> None:
    """Though another host, or another way in, leads to the same place."""
    old = virtual_service("old", ["old.com"], to("web", "v9"), gateways=["front"])
    front = gateway("front", server())
    web = virtual_service("web", ["web.com"], to("web", "v1"), gateways=["front"])
    bad = virtual_service("web", ["web.com"], to("web", "v9"), gateways=["front"])
    assert planned([bad], live=[*LIVE[:2], front, old, web]).refusals
    inside = virtual_service("old", ["web.com"], to("web", "v9"))
    assert planned([bad], live=[*LIVE[:2], front, inside, web]).refusals
    delegate = virtual_service("d", [], to("web", "v9"))
    del delegate["spec"]["hosts"]
    handed = {"delegate": {"name": "d"}}
    root = virtual_service("root", ["r.com"], handed, gateways=["front"])
    taken = virtual_service("web", ["web.com"], handed, gateways=["front"])
    assert planned([taken], live=[*LIVE[:2], front, delegate, root, web]).refusals


def test_a_namespace_that_is_exported_to_no_longer() -> None:
    injected = {"istio-injection": "enabled"}
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": injected}}
        for name in ("a", "b", "c")
    ]
    pods = [deployment("x", name) for name in ("a", "b", "c")]
    routed = virtual_service("v", ["v"], {"route": [{"destination": {"host": "x.org"}}]})
    live = [*spaces, *pods, entry("x", ["x.org"]), routed]
    (refused,) = planned([entry("x", ["x.org"], exportTo=[".", "b"])], live=live).refusals
    assert refused.endswith("x.org, which is not exported to clients in namespace c")
    (refused,) = planned([entry("x", ["x.org"], exportTo=["."])], live=live).refusals
    assert refused.endswith("exported to clients in namespace b and clients in namespace c")
    (refused,) = planned([entry("x", ["x.org"], exportTo=["d"])], live=live).refusals
    assert refused.endswith("exported to clients in namespace a and 2 others")
    assert not planned([entry("x", ["x.org"], exportTo=[".", "b", "c"])], live=live).refusals


def test_what_is_hidden_from_its_users() -> None:
    """By exportTo; by a wildcard, of which istiod makes no cluster for one name."""
    there = {"route": [{"destination": {"host": "x.org"}}]}
    outside = virtual_service("v", ["v"], there, namespace="b")
    own = entry("x", ["x.org"], exportTo=["."])
    live = [service("y", "b"), entry("x", ["x.org"]), outside]
    (refused,) = planned([own], live=live).refusals
    assert "which is not exported to clients in namespace b" in refused
    away = virtual_service("v", ["v"], at("y", 80), namespace="b")
    found = planned([own, away], live=live)
    assert (told(found), found.refusals) == (
        [["patch VirtualService/v*"], ["patch ServiceEntry/x"]],
        (),
    )
    assert planned([entry("x", ["*.org"])], live=live).refusals


def test_a_host_that_a_gateway_serves_no_longer() -> None:
    """Though the VirtualService is bound to others, and has other hosts; a selector for nobody."""
    both = gateway("front", server("x.com", "y.com"))
    more = gateway("more", server("x.com", "y.com"), app="nobody")
    vs = virtual_service("v", ["x.com", "y.com"], at("web", 80), gateways=["front", "more", "mesh"])
    pods = [pod("ingress", "a", istio="ingress"), ports("web", 80)]
    live = [*pods, both, more, vs]
    (refused,) = planned([gateway("front", server("x.com"))], live=live).refusals
    assert "is for y.com on Gateway a/front, which would serve it no longer" in refused
    assert planned([gateway("front", *both["spec"]["servers"], istio="typo")], live=live).refusals
    hidden = {**vs, "spec": {**vs["spec"], "exportTo": ["b"]}}
    assert planned([hidden], live=live).refusals
    assert not planned([more], live=live).refusals
    other = gateway("front", server("x.com", "y.com", number=81))
    assert "no longer on port 80" in planned([other], live=live).refusals[0]
    typo = gateway("new", server("x.com", "y.com"), istio="typo")
    gone = virtual_service("v", ["x.com", "y.com"], at("web", 80), gateways=["new"])
    assert "no pod of a gateway" in planned([typo, gone], live=[*pods, both, vs]).refusals[0]
    edge = pod("edge", "edge", istio="ingress")
    some = {**vs, "spec": {**vs["spec"], "exportTo": ["a"]}}
    assert planned([some], live=[*live, edge]).refusals
    swapped = [gateway("front", server("y.com")), gateway("other", server("x.com"))]
    one, other = (
        virtual_service(n, [h], at("web", 80), gateways=[g])
        for n, h, g in (("one", "x.com", "front"), ("other", "y.com", "other"))
    )
    turned = [
        virtual_service("one", ["x.com"], at("web", 80), gateways=["other"]),
        virtual_service("other", ["y.com"], at("web", 80), gateways=["front"]),
    ]
    live = [*pods, gateway("front", server("x.com")), gateway("other", server("y.com")), one, other]
    assert all(
        "apply it in two runs" in each for each in planned([*swapped, *turned], live=live).refusals
    )


def test_a_namespace_goes_with_what_is_in_it() -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    far = virtual_service("far", ["far"], at("web.team.svc.cluster.local", 80))
    live = [space, service("web", "team"), far]
    assert planned([], gone=[space], live=live).refusals
    assert not planned([], gone=[space, far], live=live).refusals


def test_a_rule_is_hidden_once_no_route_needs_it() -> None:
    shared, own = rule("v1"), rule("v1", exportTo=["."])
    routed = virtual_service("v", ["v"], to("web.a.svc.cluster.local", "v1"), namespace="b")
    away = virtual_service("v", ["v"], to("web.a.svc.cluster.local", ""), namespace="b")
    found = planned([own, away], live=[service("web"), shared, routed])
    assert told(found) == [
        ["patch DestinationRule/web v1*"],
        ["patch VirtualService/v*"],
        ["patch DestinationRule/web v1"],
    ]
    assert found.refusals == ()


def test_nothing_is_missing_between_two_steps() -> None:
    """Of one phase: chains of hosts, roots that leave a delegate; what goes round is refused."""

    def hosts(*names: str) -> list[Object]:
        found = zip(("p", "q", "r"), names, strict=False)
        return [virtual_service(name, [host], to("web", "v1")) for name, host in found]

    web = [service("web"), rule("v1")]
    chain = planned(hosts("two", "three", "four"), live=[*web, *hosts("one", "two", "three")])
    assert told(chain) == [
        ["patch VirtualService/p", "patch VirtualService/q", "patch VirtualService/r"]
    ]
    back = planned(hosts("one", "two", "three"), live=[*web, *hosts("two", "three", "four")])
    assert told(back) == [
        ["patch VirtualService/r", "patch VirtualService/q", "patch VirtualService/p"]
    ]
    assert (chain.refusals, back.refusals) == ((), ())
    (refused,) = planned(hosts("b", "a"), live=[*web, *hosts("a", "b")]).refusals
    assert "VirtualService a/p would leave a rule for a.a.svc.cluster.local missing" in refused
    assert "apply it in two runs" in refused
    delegate = virtual_service("d", [], to("web", "v1"))
    del delegate["spec"]["hosts"]
    root = virtual_service("root", ["r"], {"delegate": {"name": "d"}}, to("web", "v1"))
    hidden = {**delegate, "spec": {**delegate["spec"], "exportTo": ["b"]}}
    left = virtual_service("root", ["r"], to("web", "v1"))
    assert told(planned([hidden, left], live=[*web, delegate, root])) == [
        ["patch VirtualService/root", "patch VirtualService/d"]
    ]
    one, two = (entry(name, [f"{name}.org"]) for name in ("one", "two"))
    swapped = [entry("one", ["two.org"]), entry("two", ["one.org"])]
    assert planned(swapped, live=[one, two]).refusals


def test_kinds_of_others_are_no_kinds_of_ours() -> None:
    theirs = {**service("web"), "apiVersion": "serving.knative.dev/v1"}
    assert not planned([], gone=[theirs]).refusals
    mesh = snapshot(*LIVE, live=True)
    found = mesh.get("Service", "a", "web")
    assert found
    resource = replace(found, api_version="serving.knative.dev/v1")
    wanted = Wanted(resource, "theirs", {}, None, {"spec": "text"})
    assert told(plan(mesh, [wanted], [], Server())) == [["create Service/web"]]


def test_a_delegate_that_changes() -> None:
    root = virtual_service("root", ["r"], {"delegate": {"name": "d"}})
    before, after = (virtual_service("d", [], at("web", 80), age=age) for age in (1, 2))
    for each in (before, after):
        del each["spec"]["hosts"]
    after["spec"]["http"][0]["timeout"] = "3s"
    live = [ports("web", 80), root, before]
    assert told(planned([after], live=live)) == [["patch VirtualService/d"]]


def test_a_route_to_nothing_is_refused_if_it_was_not_there_before() -> None:
    lost = at("nothing", 80)
    (refused,) = planned([virtual_service("v", ["v"], lost)]).refusals
    assert "spec.http[0].route[0].destination sends to nothing.a.svc.cluster.local" in refused
    broken = [*LIVE, virtual_service("v", ["v"], lost)]
    prefixed = {**to("web", "v1"), "match": [{"uri": {"prefix": "/x"}}]}
    assert not planned([virtual_service("v", ["v"], prefixed, lost)], live=broken).refusals
    twice = [virtual_service("v", ["v"], {**lost, "match": prefixed["match"]}, lost)]
    assert not planned(twice, live=broken).refusals
    assert planned([virtual_service("v", ["v", "w"], lost)], live=broken).refusals
    assert planned([virtual_service("w", ["w"], lost)], live=broken).refusals


def test_a_rule_without_spec_is_no_reason_to_fail() -> None:
    bare = rule()
    del bare["spec"]["subsets"]
    bare["spec"] = None
    assert planned([bare, route("v1")]).refusals


def ending(document: Object, *finalizers: str) -> Object:
    """An object whose deletion was asked for."""
    stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": list(finalizers)}
    return {**document, "metadata": {**document["metadata"], **stamp}}


def test_what_is_being_deleted_is_not_applied_to() -> None:
    """Even if nothing is to be changed; and what is in a Namespace that is."""
    live = (service("web"), rule("v1"), ending(route("v1"), "x/y"))
    found = planned([route("v1")], live=live)
    assert found.phases == ()
    (refusal,) = found.refusals
    assert refusal.startswith("VirtualService a/web is being deleted (since 2026-01-01T00:00:00Z; ")
    assert "finalizer x/y): what is applied would vanish with it" in refusal
    space = thing("v1", "Namespace", "a", {}, "")
    for allow_broken in (False, True):
        found = planned([route("v1")], live=(*LIVE, ending(space)), allow_broken=allow_broken)
        assert found.refusals == (
            "VirtualService a/web: Namespace a is being deleted: what is applied would vanish with "
            "it; wait until it is gone",
        )
    assert not planned([route("v1")], live=(*LIVE, space)).refusals


def test_what_is_being_deleted_is_waited_for_where_it_is_to_go() -> None:
    live = (service("web"), rule("v1"), ending(route("v1"), "x/y"))
    found = planned([], live=live, gone=[rule("v1"), ending(route("v1"), "x/y")])
    assert told(found) == [["delete VirtualService/web*"], ["delete DestinationRule/web"]]
    assert "is being deleted" in found.phases[0].steps[0].reasons[0]


# The Kubernetes Gateway API


def http_route(*backends: str, name: str = "way", parent: str = "web") -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": parent}],
            "rules": [{"backendRefs": [{"name": each, "port": 80} for each in backends]}],
        },
    }


def test_a_route_that_is_not_followed_comes_after_what_it_leads_to() -> None:
    made = [http_route("new", parent="new"), service("new")]
    found = planned(made)
    assert told(found) == [["create Service/new*"], ["create HTTPRoute/way"]]
    assert found.refusals == ()
    (risk,) = [each for each in found.risks if "in both states" in each]
    assert risk.startswith("HTTPRoute a/way ")
    assert risk.endswith(": it was not proved that none of its requests fails")


def test_a_route_that_is_not_followed_goes_before_what_it_leads_to() -> None:
    gone = [service("new"), http_route("new", parent="new")]
    found = planned([], live=[*LIVE, *gone], gone=gone)
    assert told(found) == [["delete HTTPRoute/way*"], ["delete Service/new"]]
    assert found.refusals == ()


def test_a_backend_that_goes_or_is_not_there_is_refused() -> None:
    live = [*LIVE, service("new"), http_route("new")]
    found = planned([], live=live, gone=[service("new")])
    assert found.refusals == (
        "HTTPRoute a/way sends requests to Service a/new, which is not there",
    )
    assert planned([http_route("none")]).refusals[0].endswith("Service a/none, which is not there")
    assert planned([http_route("none")], allow_broken=True).refusals == ()
    assert planned([rule("v1", "v2")], live=[*LIVE, http_route("none")]).refusals == ()


@pytest.mark.parametrize("label", ["canary", "default"])
def test_what_another_revision_reads_was_not_looked_at(label: str) -> None:
    made = virtual_service("web", ["elsewhere"], to("web", "v1"))
    made["metadata"]["labels"] = {"istio.io/rev": label}
    risks = planned([made], config=MeshConfig(revision="default")).risks
    unproved = (
        "VirtualService a/web is not the same in both states, and is not of revision default, "
        "which was looked at (label istio.io/rev): it was not proved that none of its requests "
        "fails"
    )
    assert (unproved in risks) is (label == "canary")


def test_a_route_that_may_decide_is_a_risk_for_its_hosts_alone() -> None:
    other = service("other"), virtual_service("other", ["other"], to("other", ""))
    live = [*LIVE, *other, http_route("web")]
    found = planned([route("v1", "v1")], live=live)
    assert found.refusals == ()
    assert [each for each in found.risks if each.startswith("HTTPRoute a/way may decide")]
    changed = virtual_service("other", ["other"], {**to("other", ""), "timeout": "1s"})
    assert planned([changed], live=live).risks == ()


def test_what_could_not_be_read_is_told_of_the_plan() -> None:
    mesh = snapshot(*copy.deepcopy([*LIVE]), live=True)
    mesh.coverage = replace(mesh.coverage, missing={("Pod", None): "cannot list pods"})
    found = plan(mesh, [], [], Server())
    assert found.gaps == ("cannot list pods",)
    assert "cannot list pods" in found.risks[0]
