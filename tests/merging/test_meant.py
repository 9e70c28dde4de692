"""What a merge changes: what is meant, and what is not."""

from __future__ import annotations

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import change_set
from kubectl_mesh.merging.candidates import candidates
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, merge
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import compare
from tests.routing.given import (
    Object,
    destination_rule,
    gateway,
    prefix,
    server,
    service,
    snapshot,
    to,
    virtual_service,
)

V1 = {"route": [{"destination": {"host": "cart", "subset": "v1"}}]}
SHOP_V1 = {"route": [{"destination": {"host": "shop", "subset": "v1"}}]}


def mesh(*objects: Object) -> Snapshot:
    return snapshot(
        *(service(name) for name in ("shop", "cart", "pay")),
        gateway("g1", server("*")),
        gateway("g2", server("*"), istio="ingress2"),
        *objects,
    )


def judged(found: Snapshot, *names: str, share: bool = False) -> set[Judgement]:
    members = [found.virtual_services.by_name["a", name] for name in names]
    made = merge(found, members, share_routes=share)
    assert isinstance(made, Merge), made
    changes, _ = change_set([made.repair], lambda resource: resource.raw)
    comparison = compare(found, mesh_after(found, changes))
    assert not comparison.undecided
    return {judge(made, each) for each in comparison.differences}


def test_what_somebody_elses_rule_takes_is_not_intended() -> None:
    """Merged into the youngest, the oldest leaves the host to a third one."""
    for others in ([to("pay")], [to("pay", prefix(f"/x{number}")) for number in range(5)]):
        found = mesh(
            virtual_service("a", ["shop"], to("shop"), age=3),
            virtual_service("ab", ["shop"], *others, age=2),
            virtual_service("b", ["shop"], to("cart", prefix("/x")), age=1),
        )
        assert Judgement.OTHER in judged(found, "b", "a")
        assert judged(found, "a", "b") <= {Judgement.ALIVE}


def test_what_stood_behind_a_catch_all_of_its_gateway_stays_there() -> None:
    rules = [
        {**to("shop"), "match": [{"gateways": ["g1"]}]},
        to("cart", prefix("/x")),
    ]
    found = mesh(
        destination_rule("cart", "cart", "v1"),
        virtual_service("a1", ["shop.com"], *rules, gateways=["g1", "g2"], age=2),
        virtual_service("a2", ["cart"], V1, age=1),
    )
    assert judged(found, "a1", "a2", share=True) <= {Judgement.SHARED, Judgement.EXPOSED}
    assert Judgement.SHARED in judged(found, "a1", "a2", share=True)


def test_a_subset_that_callers_in_the_mesh_get_is_not_intended() -> None:
    """A rule for both ways in takes the subset that was meant for the gateway's."""
    both = to("cart", prefix("/x", authority={"prefix": "shop.com"}))
    inner = {**V1, "match": [{"authority": {"prefix": "cart"}}]}
    found = mesh(
        destination_rule("cart", "cart", "v1"),
        virtual_service("a1", ["shop.com"], both, gateways=["g1", "mesh"], age=2),
        virtual_service("a2", ["cart"], inner, age=1),
    )
    assert Judgement.OTHER in judged(found, "a1", "a2", share=True)


def test_a_listing_of_merges_that_concern_each_others_hosts() -> None:
    found = mesh(
        destination_rule("cart", "cart", "v1"),
        destination_rule("shop", "shop", "v1"),
        virtual_service(
            "a1", ["one.com"], *(to("shop", prefix(f"/{n}")) for n in range(4)), gateways=["g1"]
        ),
        virtual_service(
            "a2", ["shop"], {"route": [{"destination": {"host": "shop", "subset": "v1"}}]}
        ),
        virtual_service("c1", ["shop.a.svc.cluster.local"], to("cart"), gateways=["g1"]),
        virtual_service("c2", ["cart"], V1),
    )
    assert len(candidates(found, None)) == 2
