"""The http rules of a VirtualService: names resolved, delegates merged."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.routing.rules import Rule, merged_rules

from .given import Object, exact, prefix, says, snapshot, virtual_service


def rules(*objects: Object) -> list[Rule]:
    """The rules of the VirtualService `root`."""
    found = snapshot(*objects).virtual_services
    return list(merged_rules(found, found.by_name["a", "root"]))


def delegating(*matches: dict[str, Any], namespace: str | None = None, **more: Any) -> Object:
    to = {"name": "d", **({"namespace": namespace} if namespace else {})}
    return {"delegate": to, **({"match": list(matches)} if matches else {}), **more}


def delegate(*http: Object, namespace: str = "a", **spec: Any) -> Object:
    return virtual_service("d", [], *http, namespace=namespace, **spec)


def root(*http: Object) -> Object:
    return virtual_service("root", ["h.example.com"], *http)


def test_names_are_written_out_in_the_namespace_of_the_object() -> None:
    rule = {
        "match": [{"gateways": ["gw", "b/gw", "./own", "mesh"]}],
        "route": [{"destination": {"host": "web"}}, {"destination": {"host": "web.b"}}],
        "mirror": {"host": "copy"},
        "mirrors": [{"destination": {"host": "*.b"}}],
    }
    (found,) = rules(root(rule))
    hosts = [route["destination"]["host"] for route in found.data["route"]]
    assert hosts == ["web.a.svc.cluster.local", "web.b"]
    assert found.data["mirror"]["host"] == "copy.a.svc.cluster.local"
    assert found.data["mirrors"][0]["destination"]["host"] == "*.b"
    assert found.matches
    assert found.matches[0].gateways == {"a/gw", "b/gw", "a/own", "mesh"}


def test_a_delegate_takes_the_place_of_the_rule_that_names_it() -> None:
    found = rules(
        root(says("first", exact("/1")), delegating(prefix("/d")), says("last")),
        delegate(says("one", exact("/d/1")), says("two", exact("/d/2"))),
    )
    assert [rule.data["directResponse"]["body"]["string"] for rule in found] == [
        "first", "one", "two", "last",
    ]  # fmt: skip
    assert [rule.index for rule in found] == [0, 0, 1, 2]
    assert [rule.owner.resource.name for rule in found] == ["root", "d", "d", "root"]


@pytest.mark.parametrize(
    ("objects", "merged"),
    [
        ([delegate(says("x"))], 1),
        ([], 0),
        ([virtual_service("d", ["has.hosts.example.com"], says("x"))], 0),
        ([delegate(says("x"), exportTo=["b"])], 0),
        ([delegate(says("x"), exportTo=["."])], 1),
    ],
    ids=["merged", "missing", "no delegate", "not exported", "own"],
)
def test_only_a_delegate_that_the_root_sees_is_merged(objects: list[Object], merged: int) -> None:
    assert len(rules(root(delegating()), *objects)) == merged


def test_a_delegate_of_another_namespace_resolves_names_in_its_own() -> None:
    inner = {"route": [{"destination": {"host": "web"}}]}
    (found,) = rules(root(delegating(namespace="b")), delegate(inner, namespace="b"))
    assert found.data["route"][0]["destination"]["host"] == "web.b.svc.cluster.local"


@pytest.mark.parametrize(
    ("outer", "inner", "agree"),
    [
        (prefix("/a"), prefix("/a/b"), True),
        (prefix("/a"), exact("/ab"), True),
        (prefix("/a"), exact("/b"), False),
        (prefix("/a/b"), prefix("/a"), False),
        (exact("/a"), exact("/a"), True),
        (exact("/a"), exact("/b"), False),
        (exact("/a"), prefix("/a"), False),
        ({"uri": {"regex": "/a"}}, {"uri": {"regex": "/a"}}, False),
        ({"uri": {"regex": "/a"}}, {}, True),
        (prefix("/a"), {"uri": {"regex": "/a.*"}}, False),
        (prefix("/a"), {"method": {"exact": "GET"}}, True),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}, False),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "2"}}}, False),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"y": {"exact": "2"}}}, True),
        (prefix("/a"), prefix("/a", ignoreUriCase=True), False),
        ({"port": 80}, {"port": 81}, False),
        ({"port": 80}, {}, True),
        ({"sourceNamespace": "a"}, {}, False),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "a"}, True),
        ({}, {"sourceNamespace": "a"}, True),
        ({"sourceLabels": {"app": "x"}}, {"sourceLabels": {"app": "y"}}, False),
        ({"sourceLabels": {"app": "x"}}, {"sourceLabels": {"v": "1"}}, True),
        ({"gateways": ["mesh"]}, {"gateways": ["gw"]}, False),
        ({"gateways": ["mesh", "gw"]}, {"gateways": ["gw"]}, True),
    ],
)
def test_a_delegates_match_must_be_within_the_roots(
    outer: dict[str, Any], inner: dict[str, Any], agree: bool
) -> None:
    found = rules(root(delegating(outer)), delegate(says("x", inner)))
    assert len(found) == agree


def test_matches_are_joined_and_every_pair_that_agrees_is_kept() -> None:
    (found,) = rules(
        root(delegating({**prefix("/a"), "name": "out", "port": 80}, prefix("/a/b"))),
        delegate(says("x", {**exact("/a/b/c"), "name": "in", "headers": {"h": {"exact": "1"}}})),
    )
    assert found.matches
    first, second = found.matches
    assert (first.name, second.name) == ("out-in", "in")
    assert (first.port, second.port) == (80, 0)
    assert first.data["uri"] == {"exact": "/a/b/c"}
    assert first.data["headers"] == {"h": {"exact": "1"}}
    assert first.index == second.index == 0


def test_one_match_of_the_delegate_in_conflict_drops_its_whole_rule() -> None:
    inner = says("x", exact("/a/b"), exact("/other"))
    assert rules(root(delegating(prefix("/a"))), delegate(inner)) == []


def test_fields_of_the_delegate_come_before_the_roots_and_are_not_mixed() -> None:
    outer = delegating(timeout="1s", retries={"attempts": 1}, name="out", headers={"request": {}})
    inner = says("x", retries={"perTryTimeout": "2s"}, name="in")
    (found,) = rules(root(outer), delegate(inner))
    assert found.data["timeout"] == "1s"
    assert found.data["retries"] == {"perTryTimeout": "2s"}
    assert found.data["headers"] == {"request": {}}
    assert found.name == "out-in"


def test_delegates_are_followed_one_step_only() -> None:
    further = virtual_service("e", [], says("x"))
    inner = {"delegate": {"name": "e"}}
    (found,) = rules(root(delegating()), delegate(inner), further)
    assert "directResponse" not in found.data
