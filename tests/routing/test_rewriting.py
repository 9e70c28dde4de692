"""What routes make of paths, and whether two make the same of all: against every short path."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from kubectl_mesh.proof.examples import Hosts, Search
from kubectl_mesh.proof.rewriting import telling_apart
from kubectl_mesh.routing.matching import Conditions, StringMatch, Undecidable
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.rewriting import rewriting

PATHS = ["/" + "".join(rest) for n in range(5) for rest in itertools.product("xX/", repeat=n)]
FOLDS = (False, True)
MATCHES = (
    None,
    *(StringMatch("prefix", text, fold) for text in ("/", "/x", "/x/", "/x/X") for fold in FOLDS),
    *(StringMatch("exact", text, fold) for text in ("/", "/x", "/x/x") for fold in FOLDS),
    *(StringMatch("regex", text) for text in ("/x.*", "/[xX]", "/x/.*")),
)
REWRITES = (
    None,
    *({"uri": text} for text in ("/", "/x", "/x/", "/x/X", "/X", "//")),
    *(
        {"uriRegexRewrite": {"match": match, "rewrite": text}}
        for match, text in (("^/x/(.*)", r"/\1"), ("x", "X"), ("//", "/"), ("x$", ""))
    ),
)


def find(met: Sequence[Conditions], unmet: Sequence[Conditions]) -> Request | None:
    return Search().example(met, unmet, Hosts("*", "any.example"), 80)


def accepted(match: StringMatch | None, path: str) -> bool:
    return match is None or match.accepts(path)


@pytest.mark.parametrize("seed", range(30))
def test_two_routes_are_told_apart_by_a_path_if_there_is_one(seed: int) -> None:
    choose = random.Random(seed)
    decided = 0
    for _ in range(40):
        (first, rewrite), (second, other_rewrite) = (
            (choose.choice(MATCHES), choose.choice(REWRITES)) for _ in range(2)
        )
        one, other = rewriting(first, rewrite), rewriting(second, other_rewrite)
        met = [Conditions(path=first), Conditions(path=second)]
        both = [path for path in PATHS if accepted(first, path) and accepted(second, path)]
        differing = [path for path in both if one.of(path) != other.of(path)]
        try:
            found = telling_apart(one, other, met, (), find)
        except Undecidable:
            continue
        decided += 1
        if found is None:
            assert not differing, (first, rewrite, second, other_rewrite, differing[0])
        else:
            assert accepted(first, found.path)
            assert accepted(second, found.path)
            assert one.of(found.path) != other.of(found.path)
    assert decided > 30


def test_a_path_of_which_an_expression_leaves_nothing_stays() -> None:
    rewrite = {"uriRegexRewrite": {"match": "/b", "rewrite": ""}}
    found = rewriting(StringMatch("prefix", "/"), rewrite)
    assert [found.of(path) for path in ("/b", "/b/b", "/b/c", "/c")] == ["/b", "/b/b", "/c", "/c"]


def test_a_long_prefix_is_no_matter() -> None:
    long = StringMatch("prefix", f"/{'x' * 5000}")
    short = StringMatch("prefix", "/")
    one, other = rewriting(short, {"uri": "/y/"}), rewriting(long, {"uri": f"/y/{'x' * 5000}"})
    met = [Conditions(path=short), Conditions(path=long)]
    assert telling_apart(one, other, met, (), find) is None
    other = rewriting(long, {"uri": "/y/"})
    assert telling_apart(one, other, met, (), find) is not None
