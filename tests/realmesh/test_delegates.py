"""How Istio joins a VirtualService with its delegates, shown on a running mesh.

Section 8 of Istio's behaviour: the rules of a delegate take the place of the root's rule that names
it. Nearly all rules here answer by themselves, with words; a root whose delegate's rule was dropped
answers with a rule of its own, "root", or not at all. All tests share one mesh: see given.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from .build import istio_release
from .envoy import Proxy
from .given import Given, service
from .manifests import (
    INGRESS,
    Object,
    exact,
    gateway,
    prefix,
    regex,
    says,
    server,
    to,
    virtual_service,
)
from .mesh import ROOT_NAMESPACE, Mesh
from .settled import NotSettled

pytestmark = pytest.mark.each_istio

GATEWAYS: Object = {"gateways": [f"{ROOT_NAMESPACE}/gateway"]}

given = Given()


def root(name: str, *rules: Object, host: str | None = None, **more: Any) -> Object:
    """Of the host <name>.example.com, on the gateway."""
    host = host or f"{name}.example.com"
    return virtual_service(f"{name}-root", host, *rules, **{**GATEWAYS, **more})


def delegate(name: str, *rules: Object, **more: Any) -> Object:
    return virtual_service(name, "", *rules, **more)


def delegated(name: str, *matches: Object, in_: Object | None = None, **more: Any) -> Object:
    """A root's rule."""
    match = {"match": list(matches)} if matches else {}
    return {**match, "delegate": {"name": name, **(in_ or {})}, **more}


def who(
    proxy: Proxy,
    name: str,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    *,
    port: int = 80,
) -> str | int:
    """The words of the rule that answered for <name>.example.com, or the status without one."""
    answer = proxy.request("GET", f"{name}.example.com:{port}", path, headers)
    return answer.body.decode() if answer.status == 200 else answer.status


class Proxies(NamedTuple):
    ingress: Proxy  # a gateway for all hosts, on ports 80 and 81
    client: Proxy  # a sidecar


@pytest.fixture(scope="module")
def proxies(session_mesh: Mesh) -> Iterator[Proxies]:
    with given.applied(session_mesh):
        ingress = session_mesh.gateway({**INGRESS, "zone": "a"}, {80: 8080, 81: 8081})
        made = Proxies(ingress, session_mesh.sidecar())
        session_mesh.settled()
        yield made


@pytest.fixture
def ingress(proxies: Proxies) -> Proxy:
    return proxies.ingress


@pytest.fixture
def client(proxies: Proxies) -> Proxy:
    return proxies.client


given(
    service("web", pods={"v1": 1}),
    gateway("gateway", server(), namespace=ROOT_NAMESPACE),
    gateway("other", server(port=81), namespace=ROOT_NAMESPACE),
)


@given(
    root(
        "shop",
        says("before", exact("/api/before")),
        delegated("shop", prefix("/api", headers={"x-user": {"exact": "jo"}}), prefix("/api/open")),
        delegated("all", prefix("/all")),
        says("after", prefix("/api")),
    ),
    delegate(
        "shop",
        says("before?", prefix("/api/before")),
        says("v1", prefix("/api/v1"), prefix("/api/open/v1")),
        says("method", {"method": {"exact": "GET"}, "queryParams": {"q": {"exact": "1"}}}),
    ),
    delegate("all", says("all")),
    root("whole", delegated("whole")),
    delegate("whole", says("whole /w", prefix("/w"))),
)
def test_the_rules_of_a_delegate_take_the_place_of_the_rule_that_names_it(ingress: Proxy) -> None:
    """In order; each match of the delegate is joined with each of the root's that it is under, and
    a rule without a match on either side is matched as the other."""
    jo = {"x-user": "jo"}
    assert who(ingress, "shop", "/api/before", jo) == "before"
    assert who(ingress, "shop", "/api/before/more", jo) == "before?"
    assert who(ingress, "shop", "/api/v1", jo) == "v1"
    assert who(ingress, "shop", "/api/v1") == "after"
    assert who(ingress, "shop", "/api/open/v1") == "v1"
    assert who(ingress, "shop", "/api/open/v2?q=1") == "method"
    assert who(ingress, "shop", "/api/v2?q=1", jo) == "method"
    assert who(ingress, "shop", "/api/v2?q=1") == "after"
    assert who(ingress, "shop", "/other?q=1", jo) == 404
    assert who(ingress, "shop", "/all/of/it") == "all"
    assert who(ingress, "whole", "/w") == "whole /w"
    assert who(ingress, "whole", "/other") == 404


MERGES: dict[str, tuple[Object, Object, bool]] = {
    "prefix-under-prefix": (prefix("/a"), prefix("/a/b"), True),
    "same-prefix": (prefix("/a"), prefix("/a"), True),
    "prefix-above-prefix": (prefix("/a/b"), prefix("/a"), False),
    "prefix-beside-prefix": (prefix("/b"), prefix("/a"), False),
    "exact-under-prefix": (prefix("/a"), exact("/a/b"), True),
    "exact-beside-prefix": (prefix("/a/c"), exact("/a/b"), False),
    "same-exact": (exact("/a/b"), exact("/a/b"), True),
    "other-exact": (exact("/a"), exact("/a/b"), False),
    "prefix-under-exact": (exact("/a/b"), prefix("/a/b"), False),
    "regex-under-prefix": (prefix("/a"), regex("/a/b"), False),
    "prefix-under-regex": (regex("/a.*"), prefix("/a/b"), False),
    "same-regex": (regex("/a.*"), regex("/a.*"), False),
    "regex-alone": ({}, regex("/a/b"), True),
    "root-regex-alone": (regex("/a.*"), {"method": {"exact": "GET"}}, True),
    "same-case": (prefix("/a", ignoreUriCase=True), prefix("/a/b", ignoreUriCase=True), True),
    "case-of-the-root": (prefix("/a", ignoreUriCase=True), prefix("/a/b"), False),
    "case-of-the-delegate": (prefix("/a"), prefix("/a/b", ignoreUriCase=True), False),
    "same-port": ({"port": 80}, {"port": 80}, True),
    "port-of-the-root": ({"port": 80}, prefix("/a"), True),
    "port-of-the-delegate": (prefix("/a"), {"port": 80}, True),
    "other-port": ({"port": 81}, {"port": 80}, False),
    "same-namespace": (
        {"sourceNamespace": ROOT_NAMESPACE},
        {"sourceNamespace": ROOT_NAMESPACE},
        True,
    ),
    "namespace-of-the-root": ({"sourceNamespace": ROOT_NAMESPACE}, prefix("/a"), False),
    "namespace-of-the-delegate": (prefix("/a"), {"sourceNamespace": ROOT_NAMESPACE}, True),
    "same-label": ({"sourceLabels": INGRESS}, {"sourceLabels": INGRESS}, True),
    "label-of-the-root": ({"sourceLabels": INGRESS}, prefix("/a"), True),
    "label-of-the-delegate": (prefix("/a"), {"sourceLabels": INGRESS}, True),
    "other-label": ({"sourceLabels": {"istio": "x"}}, {"sourceLabels": INGRESS}, False),
    "same-gateways": (GATEWAYS, GATEWAYS, True),
    "gateways-of-the-root": (GATEWAYS, prefix("/a"), True),
    "fewer-gateways": ({"gateways": ["mesh", *GATEWAYS["gateways"]]}, GATEWAYS, True),
    "more-gateways": (GATEWAYS, {"gateways": [*GATEWAYS["gateways"], "mesh"]}, False),
    "other-gateways": ({"gateways": ["mesh"]}, GATEWAYS, False),
    "same-header": (
        {"headers": {"x-user": {"prefix": "j"}}},
        {"headers": {"x-user": {"exact": "jo"}}},
        True,
    ),
    "other-header": (
        {"headers": {"x-user": {"exact": "jim"}}},
        {"headers": {"x-user": {"exact": "jo"}}},
        False,
    ),
    "same-header-regex": (
        {"headers": {"x-user": {"regex": "jo"}}},
        {"headers": {"x-user": {"regex": "jo"}}},
        False,
    ),
    "same-method": ({"method": {"exact": "GET"}}, {"method": {"exact": "GET"}}, True),
    "other-method": ({"method": {"exact": "POST"}}, {"method": {"exact": "GET"}}, False),
    "other-query": (
        {"queryParams": {"q": {"exact": "2"}}},
        {"queryParams": {"q": {"exact": "1"}}},
        False,
    ),
}
"""The root's match, the delegate's, and whether the delegate's rule stays. The delegate's match,
alone, is true of the test's request."""


@given(
    *(root(name, delegated(name, match), says("root")) for name, (match, _, _) in MERGES.items()),
    *(delegate(name, says("delegate", match)) for name, (_, match, _) in MERGES.items()),
    root("others-stay", delegated("others-stay", prefix("/a"))),
    delegate(
        "others-stay",
        says("conflict", prefix("/b")),
        says("segment", prefix("/a/b")),
        says("text", prefix("/ab")),
    ),
)
def test_a_delegates_rule_in_conflict_with_the_roots_match_is_dropped(ingress: Proxy) -> None:
    """Its match must be under the root's, and only some ways of being so are recognized. The
    delegate's other rules, and the root's, stay; nothing tells of it. Prefixes are text: /ab is
    under /a."""
    assert {name: who(ingress, name, "/a/b?q=1", {"x-user": "jo"}) for name in MERGES} == {
        name: "delegate" if stays else "root" for name, (_, _, stays) in MERGES.items()
    }
    assert who(ingress, "others-stay", "/a/b") == "segment"
    assert who(ingress, "others-stay", "/ab") == "text"
    assert who(ingress, "others-stay", "/b") == 404


@given(
    root("one", delegated("one", prefix("/a"), prefix("/b"))),
    delegate("one", says("fits", prefix("/a/x"), prefix("/b/x")), says("b", prefix("/b/y"))),
    root("two", delegated("two", prefix("/a"))),
    delegate("two", says("half", prefix("/a/x"), prefix("/b/x")), says("rest")),
)
def test_one_match_in_conflict_drops_a_rule_with_all_its_matches(ingress: Proxy) -> None:
    """Each match of the delegate's rule must be under some match of the root's: any of them."""
    assert [who(ingress, "one", path) for path in ("/a/x", "/b/x", "/b/y")] == ["fits", "fits", "b"]
    assert [who(ingress, "two", path) for path in ("/a/x", "/b/x")] == ["rest", 404]


ZONES = [{"sourceLabels": {"zone": zone}} for zone in "ab"]


@given(
    root("zone", delegated("zone", {"sourceLabels": INGRESS}), says("root")),
    delegate("zone", says("b", ZONES[1]), says("a", ZONES[0])),
    root("not-the-roots", delegated("not-the-roots", ZONES[1]), says("root")),
    delegate("not-the-roots", says("delegate", {"sourceLabels": INGRESS})),
)
def test_source_labels_of_root_and_delegate_must_both_hold(ingress: Proxy) -> None:
    """Labels of different names are no conflict: the rule has both."""
    assert who(ingress, "zone") == "a"
    assert who(ingress, "not-the-roots") == "root"


ELSEWHERE = {"namespace": "elsewhere"}
WORDS = says("delegate")


@given(
    root("missing", delegated("missing"), says("root")),
    root("namespace", delegated("namespace"), says("root")),
    delegate("namespace", WORDS, **ELSEWHERE),
    root("named", delegated("named", in_=ELSEWHERE), says("root")),
    delegate("named", WORDS, **ELSEWHERE),
    root("private", delegated("private", in_=ELSEWHERE), says("root")),
    delegate("private", WORDS, **ELSEWHERE, exportTo=["."]),
    root("exported", delegated("exported", in_=ELSEWHERE), says("root")),
    delegate("exported", WORDS, **ELSEWHERE, exportTo=["default"]),
    root("nobody", delegated("nobody"), says("root")),
    delegate("nobody", WORDS, exportTo=["~"]),
    root("own", delegated("own"), says("root")),
    delegate("own", WORDS, exportTo=["."]),
    root("hosts", delegated("hosts"), says("root")),
    virtual_service("hosts", "other.example.com", WORDS, **GATEWAYS),
    root("empty", delegated("empty"), says("root")),
    virtual_service("empty", "", http=[]),
    root("alone", delegated("gone")),
)
def test_a_delegate_that_is_not_to_be_had_drops_that_rule_alone(ingress: Proxy) -> None:
    """It does not exist; is in another namespace than named, by default the root's; is not exported
    to the root's; has hosts; or has no rules. Nothing tells of it."""
    found = {"named", "exported", "own"}
    lost = {"missing", "namespace", "private", "nobody", "hosts", "empty"}
    assert {name: who(ingress, name) for name in found} == dict.fromkeys(found, "delegate")
    assert {name: who(ingress, name) for name in lost} == dict.fromkeys(lost, "root")
    assert who(ingress, "alone") == 404
    assert who(ingress, "other") == "delegate"


@given(root("late", delegated("late"), says("root")))
def test_a_delegate_comes_and_goes(session_mesh: Mesh, ingress: Proxy) -> None:
    """A change of the delegate alone reaches the proxies."""
    assert who(ingress, "late") == "root"
    session_mesh.apply(delegate("late", says("delegate")))
    session_mesh.settled()
    assert who(ingress, "late") == "delegate"
    session_mesh.server.delete(delegate("late"))
    session_mesh.settled()
    assert who(ingress, "late") == "root"


@given(
    service("web", namespace="team", pods={"team": 1}),
    root(
        "web",
        delegated("web", prefix("/team"), in_={"namespace": "team"}),
        to("web"),
        host="web",
        gateways=["mesh"],
    ),
    delegate("web", to("web"), namespace="team"),
)
def test_delegates_work_for_the_mesh(client: Proxy) -> None:
    """Not for gateways alone. Short names in a delegate are of the delegate's own namespace."""
    assert client.request("GET", "web:5000", "/team").version == "team"
    assert client.request("GET", "web:5000", "/other").version == "v1"


OTHER: Object = {"gateways": [f"{ROOT_NAMESPACE}/other"]}
MIDDLE = says("middle", prefix("/middle"))


@given(
    root("whose", delegated("middle"), says("root"), **OTHER),
    delegate("middle", MIDDLE),
    delegate("leaf", says("leaf")),
)
def test_a_delegate_of_a_delegate_stops_all_updates_of_the_gateways_port(
    session_mesh: Mesh, ingress: Proxy
) -> None:
    """One level only. What istiod makes of a second one is a route that leads nowhere, for which
    Envoy rejects all routes of that port, of other hosts too, and keeps those that it has.

    Istio's admission, which is not here, rejects such a delegate.
    """
    assert who(ingress, "whose", "/middle", port=81) == "middle"
    session_mesh.apply(
        delegate("middle", delegated("leaf", prefix("/leaf")), MIDDLE),
        root("bystander", says("bystander"), **OTHER),
    )
    with pytest.raises(NotSettled, match="rejects"):
        session_mesh.settled()
    assert who(ingress, "whose", "/middle", port=81) == "middle"
    assert who(ingress, "whose", "/leaf", port=81) == "root"
    assert who(ingress, "bystander", port=81) == 404
    session_mesh.apply(delegate("middle", MIDDLE))
    session_mesh.settled()
    assert who(ingress, "bystander", port=81) == "bystander"


REWRITTEN: Object = {"rewrite": {"uri": "/of-the-root", "authority": "root.example.com"}}
HEADERS: Object = {
    "headers": {"request": {"set": {"x-root": "1"}}, "response": {"set": {"x-b": "1"}}}
}
OWN_HEADERS: Object = {"headers": {"request": {"set": {"x-delegate": "1"}}}}
ABORT: Object = {"fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}}
OWN_ABORT: Object = {"fault": {"abort": {"httpStatus": 429, "percentage": {"value": 100}}}}
ANSWER: Object = says("root")
MOVED: Object = {"redirect": {"uri": "/root"}}
CORS: Object = {
    "corsPolicy": {"allowOrigins": [{"exact": "https://a.com"}], "allowMethods": ["GET"]}
}


@given(
    root("fields", delegated("fields", **REWRITTEN, **HEADERS)),
    delegate(
        "fields",
        to("web", prefix("/own"), rewrite={"uri": "/of-the-delegate"}, **OWN_HEADERS),
        to("web"),
    ),
    root("fault", delegated("fault", **ABORT)),
    delegate("fault", to("web", prefix("/own"), **OWN_ABORT), to("web")),
    root("cors", delegated("cors", **CORS)),
    delegate("cors", to("web")),
    root("answer", delegated("answer", **ANSWER)),
    delegate("answer", says("own", prefix("/own")), to("web", prefix("/a")), MOVED),
    root("moved", delegated("moved", **MOVED)),
    delegate("moved", to("web")),
    root("time", delegated("time", timeout="7s", retries={"attempts": 5})),
    delegate("time", to("web", prefix("/own"), timeout="3s"), to("web")),
)
def test_what_a_delegates_rule_inherits(ingress: Proxy) -> None:
    """Its own field, else the root's: each as a whole. Not redirect, nor route."""
    inherited = ingress.request("GET", "fields.example.com", "/")
    assert inherited.said is not None
    assert inherited.said["path"] == "/of-the-root"
    assert inherited.said["headers"]["host"] == "root.example.com"
    assert inherited.said["headers"]["x-root"] == inherited.headers["x-b"] == "1"
    own = ingress.request("GET", "fields.example.com", "/own")
    assert own.said is not None
    assert own.said["path"] == "/of-the-delegate"
    assert own.said["headers"]["host"] == "fields.example.com"
    assert own.said["headers"]["x-delegate"] == "1"
    assert "x-root" not in own.said["headers"]
    assert "x-b" not in own.headers

    assert [who(ingress, "fault", path) for path in ("/", "/own")] == [418, 429]
    assert who(ingress, "answer", "/own") == "own"
    assert who(ingress, "answer", "/a") == "root"
    assert who(ingress, "answer", "/other") == 301
    assert ingress.request("GET", "moved.example.com").version == "v1"
    origin = {"origin": "https://a.com"}
    allowed = ingress.request("GET", "cors.example.com", "/", origin).headers
    assert allowed["access-control-allow-origin"] == "https://a.com"
    waited = [
        sent["headers"]["x-envoy-expected-rq-timeout-ms"]
        for path in ("/", "/own")
        if (sent := ingress.request("GET", "time.example.com", path).said)
    ]
    assert waited == ["7000", "3000"]


@given(
    root("both", delegated("both", **to("web"))),
    delegate("both", says("delegate", prefix("/d"))),
    root("gone", delegated("gone", **to("web"))),
)
def test_a_roots_rule_with_a_delegate_and_a_route(ingress: Proxy) -> None:
    """The route is lost (admission, which is not here, rejects such a rule): where the delegate has
    no rule that matches, and where there is no delegate."""
    assert who(ingress, "both", "/d") == "delegate"
    assert who(ingress, "both", "/other") == 404
    assert who(ingress, "gone") == 404


@given(
    root(
        "names",
        {**delegated("names", prefix("/a", name="rm"), prefix("/b")), "name": "root"},
        delegated("names", prefix("/c")),
    ),
    delegate(
        "names",
        says("1", prefix("/a/1", name="dm"), name="delegate"),
        says("2", prefix("/a/2"), name="delegate"),
        says("3", prefix("/b/3", name="dm")),
        says("4", prefix("/c/4"), name="delegate"),
    ),
)
def test_a_delegates_rules_are_named_after_both(ingress: Proxy) -> None:
    """`<root>-<delegate>`, for rules and for matches: the names that telemetry and EnvoyFilters
    see."""
    paths = ("/a/1", "/a/2", "/b/3", "/c/4")
    assert [ingress.explain("GET", "names.example.com", path)["route_name"] for path in paths] == [
        "root-delegate.rm-dm",
        "root-delegate.rm",
        "root.dm",
        "delegate",
    ]


@given(
    root("a", delegated("words"), host="www.example.com"),
    delegate("words", says("root, older")),
    root("b", says("no delegate, younger"), host="www.example.com"),
)
def test_a_root_with_delegates_has_the_place_of_its_age(ingress: Proxy) -> None:
    """Before 1.19.8, 1.20.4 and 1.21 such roots came after all others."""
    first = "no delegate, younger" if istio_release() == "1.22" else "root, older"
    assert who(ingress, "www") == first
