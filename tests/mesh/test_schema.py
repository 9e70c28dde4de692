"""Which fields are kept, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_mesh.mesh.resource import Fault
from kubectl_mesh.mesh.schema import KINDS, KUBERNETES_GATEWAY, called, conform, kind_of, project

SHAPE = {"name": str, "port": int, "labels": {"*": str}, "hosts": [str], "rules": [{"on": bool}]}


def test_what_conforms_is_returned_as_it_is() -> None:
    value = {"name": "a", "port": 1, "labels": {"b": "c"}, "hosts": ["d"], "rules": [{"on": True}]}
    conformed, faults = conform(value, SHAPE)
    assert conformed is value
    assert faults == ()


@pytest.mark.parametrize(
    ("value", "conformed", "faults"),
    [
        ({"port": True}, {}, [Fault(("port",), "a whole number", "the boolean true")]),
        ({"labels": {"v": 1, "w": "x"}}, {"labels": {"w": "x"}},
         [Fault(("labels", "v"), "a string", "the number 1", lacks_quotes=True)]),
        ({"hosts": "a"}, {}, [Fault(("hosts",), "a list", "the string 'a'")]),
        ({"hosts": ["a", None, "b"]}, {"hosts": ["a", "", "b"]},
         [Fault(("hosts", 1), "a string", "null")]),
        ({"rules": [[], {"on": True}]}, {"rules": [{}, {"on": True}]},
         [Fault(("rules", 0), "a mapping", "a list")]),
        ([], None, [Fault((), "a mapping", "a list")]),
    ],
)  # fmt: skip
def test_what_does_not_is_dropped_and_named(
    value: object, conformed: object, faults: list[Fault]
) -> None:
    got, named = conform(value, SHAPE)
    assert list(named) == faults
    if conformed is not None:
        assert got == conformed


def test_a_null_is_an_absent_field() -> None:
    assert conform({"name": None, "hosts": None}, SHAPE)[1] == ()


def test_projection_keeps_only_the_fields_of_the_shape() -> None:
    value = {"name": 7, "other": 1, "labels": {"x": 1}, "rules": [{"on": True, "off": 1}, 5]}
    assert project(value, SHAPE)[0] == {"labels": {}, "rules": [{"on": True}, {}]}
    value = {"name": "a", "other": 1, "labels": {"x": "y"}, "rules": [{"on": True, "off": 1}]}
    assert project(value, SHAPE) == (
        {"name": "a", "labels": {"x": "y"}, "rules": [{"on": True}]},
        (),
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=2),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*SHAPE, "on", "x"]), inner, max_size=4)
        ),
    )
)
def test_projection_drops_and_names_what_conform_does(value: object) -> None:
    conformed, faults = conform(value, SHAPE)
    projected, same_faults = project(value, SHAPE)
    assert set(faults) == set(same_faults)
    if isinstance(value, dict):
        assert conform(projected, SHAPE) == (projected, ())
        assert project(conformed, SHAPE) == (projected, ())


def test_a_kind_is_told_by_its_group_not_its_version() -> None:
    assert kind_of("networking.istio.io/v1alpha3", "Gateway") is KINDS["Gateway"]
    assert kind_of("gateway.networking.k8s.io/v1beta1", "Gateway") is KINDS[KUBERNETES_GATEWAY]
    assert kind_of("networking.istio.io/v1", KUBERNETES_GATEWAY) is None
    assert kind_of("serving.knative.dev/v1", "Service") is None
    assert kind_of("v1", "Service") is KINDS["Service"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("gateway", "Gateway"),
        ("gw", "Gateway"),
        ("gateways.networking.istio.io", "Gateway"),
        ("gateways.gateway.networking.k8s.io", KUBERNETES_GATEWAY),
        ("Gateway.gateway.networking.k8s.io", KUBERNETES_GATEWAY),
        ("gtw", KUBERNETES_GATEWAY),
        ("HTTPRoutes", "HTTPRoute"),
        ("services", "Service"),
    ],
)
def test_a_kind_is_called_as_kubectl_calls_it(word: str, name: str) -> None:
    assert called(word) is KINDS[name]
