"""Which DestinationRules clients get where several are for one host, before and since Istio 1.24.

tests/realmesh/test_destination_rules_model.py holds the same code to istiod, on random rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.destination_rules import DestinationRules, Lookup
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.versions import Istio

Object = dict[str, Any]
HOST = "web.shop.svc.cluster.local"
SWITCHED_OFF = Istio((1, 31), settings={"ENABLE_ENHANCED_DESTINATIONRULE_MERGE": "false"})


class Nowhere:
    name = "a test"

    def locate(self, path: Path) -> None:
        return None


def rule(number: int, export: Sequence[str] | None, namespace: str = "shop", **spec: Any) -> Object:
    """The rule of a number, which defines the subset of that number; the first is the oldest."""
    if export is not None:
        spec["exportTo"] = list(export)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {
            "name": f"r{number}",
            "namespace": namespace,
            "creationTimestamp": f"2024-01-01T00:00:0{number}Z",
        },
        "spec": {"host": HOST, "subsets": [{"name": str(number)}], **spec},
    }


def given(*rules: Object, istio: Istio | None = None, **config: Any) -> DestinationRules:
    resources = [as_resource(item, Nowhere()) for item in rules]
    return DestinationRules(resources, MeshConfig(istio=istio or Istio(), **config))


def of(rules: DestinationRules, client: str, labels: Mapping[str, str] | None = None) -> str:
    """The subsets that clients of a namespace have, and after `-` those of rules that they lose."""
    found: Lookup = rules.lookup(HOST, client, "shop", labels)
    lost = "".join(lost.rule.resource.name.removeprefix("r") for lost in found.lost)
    return "".join(sorted(found.subsets)) + (f"-{lost}" if lost else "")


_ = None


@pytest.mark.parametrize(
    ("exports", "since", "before"),
    [
        # each: the exportTo of the rules, the oldest first; what shop, front and other have
        ([_, _], "12 12 12", "12 12 12"),
        ([_, ["front"]], "1 2-1 1", "1 12 -1"),
        ([_, ["*"]], "2-1 2-1 2-1", "12 12 12"),
        ([["*"], ["*"]], "12 12 12", "12 12 12"),
        ([["front"], ["*"]], "2 2-1 2", "2 12 -2"),
        ([["front"], ["front", "other"]], " 12 -2", " 12 -2"),
        ([["front", "other"], ["front"]], " 2-1 1", " 12 12"),
        ([["."], _], "2-1 2 2", "12 2 2"),
        ([["."], [".", "front"]], "12 2 ", "12 2 "),
        ([["front"], ["other"], ["front"]], " 3-1 2", " 123 -2"),
        ([["front"], ["other"], ["front", "other"]], " 13 23", " 123 -23"),
    ],
)
def test_which_rules_are_joined(
    exports: Sequence[Sequence[str] | None], since: str, before: str
) -> None:
    made = [rule(number, export) for number, export in enumerate(exports, 1)]
    for istio, expected in ((Istio((1, 24)), since), (Istio((1, 23)), before)):
        rules = given(*made, istio=istio)
        assert " ".join(of(rules, client) for client in ("shop", "front", "other")) == expected


def test_the_switch_brings_joining_back_with_the_oldest_s_export() -> None:
    rules = given(rule(1, None), rule(2, ["front"]), istio=SWITCHED_OFF)
    assert [of(rules, client) for client in ("front", "other")] == ["12", "12"]
    rules = given(rule(1, ["front"]), rule(2, None), istio=SWITCHED_OFF)
    assert [of(rules, client) for client in ("front", "other")] == ["12", "-2"]


CHOSEN: Object = {"workloadSelector": {"matchLabels": {"app": "x"}}}


@pytest.mark.parametrize(
    ("export", "since", "before"),
    [
        (None, "2-1 1 1", "12 1 1"),
        (["."], "12 -1 -1", "12 1 1"),
        ([".", "front"], "12 1 1", "12 1 1"),
        (["front"], "2  3", "2  3"),
    ],
)
def test_a_rule_for_all_beside_one_for_chosen_pods(
    export: Sequence[str] | None, since: str, before: str
) -> None:
    """What chosen pods have, the others of that namespace, and who is asked for without labels."""
    made = [rule(1, export), rule(2, None, **CHOSEN), rule(3, None, namespace="istio-system")]
    for istio, expected in ((Istio((1, 24)), since), (Istio((1, 23)), before)):
        rules = given(*made, istio=istio)
        labels: tuple[Mapping[str, str] | None, ...] = ({"app": "x"}, {}, None)
        assert " ".join(of(rules, "shop", each) for each in labels) == expected


def test_two_rules_for_chosen_pods_are_joined_if_they_choose_alike() -> None:
    other: Object = {"workloadSelector": {"matchLabels": {"v": "1"}}}
    for istio in (Istio((1, 24)), Istio((1, 23))):
        made = (rule(1, None, **CHOSEN), rule(2, None, **other), rule(3, None, **CHOSEN))
        rules = given(*made, istio=istio)
        assert of(rules, "shop", {"app": "x"}) == "13"
        assert of(rules, "shop", {"v": "1"}) == "2"


def test_the_root_namespace_comes_after_rules_that_a_client_loses() -> None:
    root = rule(3, None, namespace="istio-system")
    rules = given(rule(1, ["front"]), rule(2, ["front", "other"]), root)
    assert [of(rules, client) for client in ("front", "other")] == ["12", "3-2"]


@pytest.mark.parametrize(
    ("default", "expected"),
    [(("*",), "1 1"), ((".",), "1 "), ((".", "*"), "1 "), (("front",), "1 1"), (("~",), "1 1")],
)
def test_of_the_mesh_s_default_dot_alone_is_heeded(default: tuple[str, ...], expected: str) -> None:
    for istio in (Istio(), Istio((1, 22))):
        rules = given(rule(1, None), istio=istio, destination_rule_export=default)
        assert " ".join(of(rules, client) for client in ("shop", "front")) == expected


def test_a_wildcard_may_stand_for_the_beginning_of_a_label() -> None:
    wider = rule(1, None) | {
        "spec": {"host": "*.shop.svc.cluster.local", "subsets": [{"name": "w"}]}
    }
    narrow = rule(2, None) | {
        "spec": {"host": "*b.shop.svc.cluster.local", "subsets": [{"name": "n"}]}
    }
    other = rule(3, None) | {
        "spec": {"host": "*c.shop.svc.cluster.local", "subsets": [{"name": "o"}]}
    }
    assert of(given(wider, narrow, other), "shop") == "n"
    assert [each.host[:2] for each in given(wider, other, narrow).covering(HOST)] == ["*b", "*."]
