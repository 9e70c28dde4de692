"""What a match demands of a request."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_mesh.errors import UsageError
from kubectl_mesh.routing.matching import StringMatch, Undecidable, conditions, re2
from kubectl_mesh.routing.request import request_for


def unmet(match: dict[str, Any], url: str = "http://h/a/b?q=1&q=2&r", **headers: str) -> str | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return conditions(match).unmet(request_for(url, "GET", named))


@pytest.mark.parametrize(
    ("match", "met"),
    [
        ({}, True),
        ({"uri": {"exact": "/a/b"}}, True),
        ({"uri": {"exact": "/a"}}, False),
        ({"uri": {"exact": "/A/b"}}, False),
        ({"uri": {"exact": "/A/B"}, "ignoreUriCase": True}, True),
        ({"uri": {"prefix": "/a"}}, True),
        ({"uri": {"prefix": "/a/b/"}}, False),
        ({"uri": {"prefix": "/A"}, "ignoreUriCase": True}, True),
        ({"uri": {"regex": "/a"}}, False),
        ({"uri": {"regex": "/a/.*"}}, True),
        ({"uri": {"regex": "/A/.*"}, "ignoreUriCase": True}, False),
        ({"uri": {"regex": "/a/b[?].*"}}, False),
        ({"uri": {}}, True),
        ({"method": {"exact": "GET"}}, True),
        ({"method": {"prefix": "P"}}, False),
        ({"scheme": {"exact": "http"}}, True),
        ({"scheme": {"exact": "https"}}, False),
        ({"authority": {"exact": "h"}}, True),
        ({"authority": {"regex": "[a-g]"}}, False),
        ({"headers": {"X-A": {"exact": "1"}}}, True),
        ({"headers": {"x-a": {"exact": "2"}}}, False),
        ({"headers": {"x-a": {}}}, True),
        ({"headers": {"x-b": {}}}, False),
        ({"headers": {"x-a": {"regex": "*"}}}, True),
        ({"headers": {"x-b": {"regex": "*"}}}, False),
        ({"headers": {"host": {"exact": "h"}}}, True),
        ({"withoutHeaders": {"x-a": {}}}, False),
        ({"withoutHeaders": {"x-b": {}}}, True),
        ({"withoutHeaders": {"x-a": {"exact": "1"}}}, False),
        ({"withoutHeaders": {"x-a": {"exact": "2"}}}, True),
        ({"withoutHeaders": {"x-b": {"exact": "2"}}}, True),
        ({"withoutHeaders": {"x-b": {"exact": ""}}}, False),
        ({"withoutHeaders": {"x-b": {"regex": ".*"}}}, False),
        ({"withoutHeaders": {"x-b": {"regex": "[0-9]*"}}}, False),
        ({"withoutHeaders": {"x-b": {"regex": "[0-9]+"}}}, True),
        ({"withoutHeaders": {"x-b": {"regex": "*"}}}, True),
        ({"withoutHeaders": {"x-a": {"regex": "[a-z]*"}}}, True),
        ({"queryParams": {"q": {"exact": "1"}}}, True),
        ({"queryParams": {"q": {"exact": "2"}}}, False),
        ({"queryParams": {"r": {}}}, True),
        ({"queryParams": {"s": {}}}, False),
        ({"queryParams": {"q": {"regex": "[0-9]"}}}, True),
        ({"uri": {"prefix": "/a"}, "headers": {"x-a": {"exact": "1"}}}, True),
        ({"uri": {"prefix": "/a"}, "headers": {"x-b": {}}}, False),
    ],
)
def test_a_match_is_met_or_not(match: dict[str, Any], met: bool) -> None:
    assert (unmet(match, x_a="1") is None) is met


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ({"uri": {"exact": "/x"}}, "the path is not '/x'"),
        ({"uri": {"prefix": "/x"}, "ignoreUriCase": True}, "does not begin with '/x' in any case"),
        ({"method": {"regex": "P.*"}}, "the method does not match 'P.*'"),
        ({"headers": {"x-b": {"exact": "1"}}}, "there is no header x-b"),
        ({"headers": {"x-a": {"exact": "2"}}}, "the header x-a is not '2'"),
        ({"withoutHeaders": {"x-a": {}}}, "the header x-a is there"),
        ({"withoutHeaders": {"x-a": {"prefix": "1"}}}, "the header x-a begins with '1'"),
        ({"withoutHeaders": {"x-b": {"regex": "1*"}}}, "no header x-b, which counts as an empty"),
        ({"queryParams": {"s": {}}}, "there is no query parameter s"),
        ({"queryParams": {"q": {"exact": "3"}}}, "the query parameter q is not '3'"),
    ],
)
def test_what_is_not_met_is_said(match: dict[str, Any], why: str) -> None:
    found = unmet(match, x_a="1")
    assert found is not None
    assert why in found


@pytest.mark.parametrize(
    "expression",
    ["(?=a)b", "(?<!a)b", r"(a)\1", "a++", "(?P=a)", r"\pL", "[[:alpha:]]", "(", "a{2,1}"],
)
def test_expressions_that_are_not_read_alike_are_refused(expression: str) -> None:
    with pytest.raises(Undecidable):
        re2(expression)


@pytest.mark.parametrize("expression", [r"\\1", r"[a-z]+?", r"\d{2,3}", "(?i)a", "(?P<n>a)", "a|b"])
def test_other_expressions_are_read(expression: str) -> None:
    assert re2(expression)


def test_claims_of_a_token_are_undecidable_unless_something_else_is_not_met() -> None:
    match = {"uri": {"exact": "/a/b"}, "headers": {"@request.auth.claims.Group": {"exact": "x"}}}
    with pytest.raises(Undecidable, match="Group is a claim"):
        unmet(match)
    assert unmet(match, "http://h/other")


@pytest.mark.parametrize(
    ("match", "everything"),
    [
        ({}, True),
        ({"uri": {"prefix": "/"}}, True),
        ({"uri": {"prefix": "/"}, "ignoreUriCase": True}, True),
        ({"uri": {"regex": ".*"}}, True),
        ({"uri": {"regex": "/.*"}}, False),
        ({"uri": {"regex": "(.*)"}}, False),
        ({"uri": {"regex": ".*"}, "headers": {"x": {}}}, False),
        ({"uri": {"regex": "*"}}, False),
        ({"uri": {"prefix": "/a"}}, False),
        ({"method": {"exact": "GET"}}, False),
        ({"withoutHeaders": {"x": {}}}, False),
        ({"queryParams": {"x": {}}}, False),
        ({"port": 80}, True),
    ],
)
def test_what_istiod_takes_for_a_catch_all(match: dict[str, Any], everything: bool) -> None:
    assert conditions(match).take_everything is everything


@pytest.mark.parametrize(
    ("expression", "meets"),
    [("(a+)+$", True), ("(a|a)*b", False), ("(.*a){20}b", False), ("(?:a|ab)*", True)],
)
def test_expressions_take_time_that_grows_with_the_text_alone(expression: str, meets: bool) -> None:
    """Python's own matching would never end on these."""
    assert StringMatch("regex", expression).accepts("a" * 5000) is meets


def test_an_expression_beyond_bounds_is_undecidable() -> None:
    with pytest.raises(Undecidable, match="too large"):
        StringMatch("regex", "((a{1,100}){1,100}){1,100}").accepts("aaaa")


@pytest.mark.parametrize(
    "url",
    ["ftp://a/", "http:///a", "http://a:0/", "http://a:70000/", "http://[::1/", "http://a b/",
     "http://a/\n", "http://a/\ud800", "http://user:secret@a/", f"http://{'ü' * 70}.de/"],
)  # fmt: skip
def test_what_no_client_can_ask_for_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        request_for(url)


@pytest.mark.parametrize(
    ("method", "headers"), [("A B", {}), ("", {}), ("GET", {"a b": "c"}), ("GET", {"a": "b\r\nc"})]
)
def test_what_no_client_can_send_is_refused(method: str, headers: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        request_for("http://a/", method, headers)


def test_hosts_are_asked_for_in_ascii() -> None:
    assert request_for("http://münchen.de/").host == "xn--mnchen-3ya.de"
    assert request_for("http://a:/").authority == "a"
