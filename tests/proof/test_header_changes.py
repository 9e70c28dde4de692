"""What changes of headers come to. That Envoy makes them so: tests/realmesh/treatments_told.py."""

from __future__ import annotations

import pytest

from kubectl_mesh.proof.header_changes import Headers, authority, come_to

SET: Headers = {"request": {"set": {"A": "rule"}}}
ADD: Headers = {"request": {"add": {"a": "rule"}}}
OWN_SET: Headers = {"request": {"set": {"a": "own"}}}
OWN_REMOVE: Headers = {"request": {"remove": ["a"]}}


@pytest.mark.parametrize(
    ("rule", "own", "single", "kept", "values"),
    [
        (SET, {}, True, False, ["rule"]),
        (SET, OWN_SET, True, False, ["own"]),
        (SET, OWN_SET, False, False, ["rule"]),
        (ADD, OWN_SET, True, False, ["own", "rule"]),
        (ADD, {}, True, True, ["rule"]),
        (SET, OWN_REMOVE, True, False, ["rule"]),
        ({}, OWN_REMOVE, True, False, []),
        (OWN_REMOVE, ADD, False, False, []),
        (OWN_REMOVE, ADD, True, False, ["rule"]),
    ],
)
def test_of_a_header(
    rule: Headers, own: Headers, single: bool, kept: bool, values: list[str]
) -> None:
    assert come_to(rule, own, single=single) == {"request": {"a": (kept, values)}}


def test_what_nobody_knows_counts() -> None:
    assert come_to({"brandNew": {"a": "b"}}, {}, single=True)
    assert come_to({}, {"response": {"brandNew": "b"}}, single=True)


def test_the_host_is_apart() -> None:
    rule: Headers = {"request": {"set": {"Host": "rule"}}}
    own: Headers = {"request": {"add": {":authority": "own"}}}
    assert come_to(rule, own, single=True) == {}
    assert authority({"authority": "rewritten"}, rule, own) == "rewritten"
    assert authority({}, rule, own) == "rule"
    assert authority({}, {}, own) == "own"
    assert authority({}, {}, {}) == ""
