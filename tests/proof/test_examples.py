"""Sets of strings and regions of requests against what brute force finds."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from kubectl_mesh.proof import examples as regions
from kubectl_mesh.proof.examples import Hosts, Search, TooMany, hosts_of
from kubectl_mesh.routing.matching import Conditions, StringMatch, conditions
from kubectl_mesh.routing.paths import normalized
from kubectl_mesh.routing.regular_languages import TooLarge, Words, expression, find
from kubectl_mesh.routing.request import Request

ALPHABET = "ab/"
SHORT = [
    "".join(letters)
    for length in range(5)
    for letters in itertools.product(ALPHABET, repeat=length)
]
EXPRESSIONS = [
    "a*",
    "(ab)*",
    "a|b",
    "[ab]+",
    "[^a]*",
    "/.*",
    "a{2,3}",
    "(a|b)?/",
    "^a$",
    "^(/a)*$",
    "(?i)A+",
    "(?i:A)b*",
    "a??b",
    r"\w+",
    r"[\d/]*",
    "(a|)b",
    "",
    "a.b",
    "(^a|b)*",
    "a$|b",
    "[a-b]{2}",
    r"\/a",
]
WEB = Hosts("web.shop", "web.shop")


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_automaton_accepts_what_python_accepts(text: str) -> None:
    automaton = expression(text)
    for word in SHORT:
        state: object = automaton.start
        for letter in word:
            state = None if state is None else automaton.step(state, letter)
        accepted = state is not None and automaton.accepts(state)
        assert accepted == bool(re.fullmatch(text, word, re.ASCII)), word


@pytest.mark.parametrize("seed", range(300))
def test_find_gives_a_string_where_there_is_one(seed: int) -> None:
    choose = random.Random(seed)
    wanted = choose.sample(EXPRESSIONS, choose.randint(1, 3))
    unwanted = choose.sample(EXPRESSIONS, choose.randint(0, 4))

    def fits(word: str) -> bool:
        return all(re.fullmatch(each, word, re.ASCII) for each in wanted) and not any(
            re.fullmatch(each, word, re.ASCII) for each in unwanted
        )

    found = find([expression(each) for each in wanted], [expression(each) for each in unwanted])
    if found is None:
        assert not any(map(fits, SHORT))
    else:
        assert fits(found)


@pytest.mark.parametrize(
    ("words", "accepted", "refused"),
    [
        (Words(["ab"], ["/"]), ["ab", "/", "/x"], ["a", "abc", "AB", ""]),
        (Words(["Ab"], ["x"], fold=True), ["ab", "AB", "Xy"], ["abc"]),
        (Words(["a.b"], fold=True, port=True), ["a.b", "A.b:80"], ["a.b:", "a.b:8x", "a.bc", ":1"]),
    ],
)
def test_words(words: Words, accepted: list[str], refused: list[str]) -> None:
    for word in (*accepted, *refused):
        state: object = words.start
        for letter in word:
            state = None if state is None else words.step(state, letter)
        assert (state is not None and words.accepts(state)) == (word in accepted), word


def test_a_search_of_strings_ends() -> None:
    """Made deterministic this expression would have 2 ** 40 states."""
    with pytest.raises(TooLarge):
        find([expression(".*a.{40}"), expression("[ab]*b.{40}")], [expression(".*aa.*|.*bb.*|a.*")])
    with pytest.raises(TooLarge):
        expression("(((a{100}){100}){100}){100}")


def example(
    met: list[Conditions], unmet: list[Conditions], search: Search | None = None
) -> Request:
    found = (search or Search()).example(met, unmet, WEB, 80)
    assert found is not None
    assert all(each.unmet(found) is None for each in met)
    assert all(each.unmet(found) is not None for each in unmet)
    return found


def test_an_example_avoids_what_comes_before() -> None:
    api = conditions({"uri": {"prefix": "/api"}})
    first = conditions({"uri": {"prefix": "/ap"}, "headers": {"x-user": {}}})
    second = conditions({"uri": {"regex": "/api/.*"}, "method": {"exact": "GET"}})
    third = conditions({"uri": {"exact": "/api"}})
    found = example([api], [first, second, third])
    assert found.path.startswith("/api")
    assert "x-user" not in found.headers


@pytest.mark.parametrize(
    ("met", "unmet"),
    [
        ({"uri": {"exact": "/a"}}, [{"uri": {"prefix": "/"}}]),
        ({"uri": {"exact": "/a?x=1"}}, []),
        ({"uri": {"exact": "a"}}, []),
        ({"uri": {"regex": "/a+"}}, [{"uri": {"regex": "/aa*"}}]),
        ({"uri": {"prefix": "/api"}}, [{"uri": {"prefix": "/API"}, "ignoreUriCase": True}]),
        ({"headers": {"x": {"exact": "1"}}}, [{"headers": {"x": {}}}]),
        ({"headers": {"x": {"regex": "[0-9]+"}}}, [{"headers": {"x": {"regex": r"\d.*"}}}]),
        ({"method": {"exact": "GET"}, "headers": {":method": {"exact": "PUT"}}}, []),
        ({"scheme": {"prefix": "http"}}, [{"scheme": {"exact": s}} for s in ("http", "https")]),
        ({"authority": {"exact": "other"}}, []),
        ({"withoutHeaders": {"x": {}}}, [{"withoutHeaders": {"x": {"exact": "1"}}}]),
        ({"withoutHeaders": {"x": {"regex": ".*"}}}, []),
        ({"withoutHeaders": {"x": {"regex": "1*"}}}, [{"headers": {"x": {}}}]),
        ({}, [{"withoutHeaders": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "1"}}}]),
        ({"queryParams": {"a&b": {"exact": "1"}}}, []),
        ({"headers": {"not a token": {}}}, []),
        (
            {"uri": {"prefix": "/a"}},
            [
                {"uri": {"prefix": "/a"}, "headers": {"x": {}}},
                {"uri": {"prefix": "/a"}, "withoutHeaders": {"x": {}}},
            ],
        ),
    ],
)
def test_an_empty_region_has_no_example(met: dict, unmet: list[dict]) -> None:  # type: ignore[type-arg]
    search = Search()
    asked = [conditions(met)], [conditions(each) for each in unmet]
    assert search.example(*asked, WEB, 80) is None
    assert not search.sampled


def test_each_part_of_a_request_is_found() -> None:
    wanted = {
        "uri": {"regex": "/v[0-9]+/x"},
        "method": {"regex": "P.*"},
        "scheme": {"exact": "https"},
        "authority": {"regex": ".*:8443"},
        "headers": {"x-user": {"prefix": "a"}, "cookie": {"regex": "(.*; )?k=1(;.*)?"}},
        "queryParams": {"q": {"exact": ""}, "p": {"regex": "[0-9]{3}"}},
    }
    found = example([conditions(wanted)], [])
    assert found.host == "web.shop"
    assert found.method.startswith("P")


def test_a_wildcard_leaves_out_what_is_more_specific() -> None:
    known = ["*.example.org", "any.example.org", "*.b.example.org", "api.example.org"]
    hosts = hosts_of("*.example.org", known)
    assert hosts is not None
    assert hosts.example == "other.example.org"
    for name in ("api.example.org", "API.example.org:80", "x.b.example.org", "example.org"):
        assert not hosts.domain.contains(name)
    for name in ("x.example.org", "x.y.example.org", "X.Example.org:8080"):
        assert hosts.domain.contains(name)


def test_a_word_boundary_is_sampled_and_said_so() -> None:
    boundary = conditions({"headers": {"x": {"regex": r"a\bb"}}})
    search = Search()
    assert search.example([boundary], [], WEB, 80) is None
    assert search.sampled == {r"a\bb"}
    example([conditions({"headers": {"x": {"regex": r"a\b.*"}}})], [])


def test_a_region_that_is_too_intricate_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "MAX_NODES", 3)
    unmet = [conditions({"uri": {"exact": f"/{end}"}}) for end in ("", "x", "/x", "a")]
    with pytest.raises(TooMany):
        Search().example([Conditions(StringMatch("prefix", "/"))], unmet, WEB, 80)


@pytest.mark.parametrize(
    ("how", "path", "possible"),
    [
        ("BASE", "/a/../b", False),
        ("BASE", "/a/.", False),
        ("BASE", "/a/.b/c..", True),
        ("BASE", "/a|b", False),
        ("BASE", "/%41", False),
        ("BASE", "/%2f//x%zz", True),
        ("MERGE_SLASHES", "/a//b", False),
        ("DECODE_AND_MERGE_SLASHES", "/%2F", False),
        ("MERGE_SLASHES", "/%2F", True),
        ("NONE", "/a/../b|%41", True),
    ],
)
def test_paths_that_no_proxy_compares_are_no_examples(how: str, path: str, possible: bool) -> None:
    """They are those that normalization leaves as they are."""
    assert (normalized(path, how) == path) is possible
    found = Search(how).example([Conditions(StringMatch("exact", path))], [], WEB, 80)
    assert (found is not None) is possible
    prefixed = [Conditions(StringMatch("prefix", "/a")), Conditions(StringMatch("regex", ".*b"))]
    found = Search(how).example(prefixed, [], WEB, 80)
    assert found is not None
    assert normalized(found.path, how) == found.path
