"""The report for people, exactly as they get it."""

from __future__ import annotations

import re

import pytest

from kubectl_mesh.report import FORMATS, Layout
from kubectl_mesh.report.table import MAX_LENGTH
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Severity
from tests.report.samples import CART, CLEAN, FULL, SUBSET, finding, hostile

FULL_AT_80 = """\
2 ERRORS

VirtualService shop/cart
  KM101    10 % go to the subset v2 of cart.shop.svc.cluster.local, which is not
           defined anywhere
  at       mesh/cart of shop.yaml:24:36
  traffic  10 % of requests get 503 (response flag NC: no cluster)
  next     kubectl edit destinationrule -n shop cart, and add the subset v2

  KM101    copies go nowhere
  at       mesh/cart of shop.yaml:31:5
  traffic  copies are lost
  next     add it

1 WARNING

Gateway istio-ingress/main
  KM104    an odd label
  field    metadata.labels.a/b~c
  traffic  none yet
  next     remove it

1 INFO

Gateway istio-ingress/main
  KM902    worth knowing
  traffic  none
  next     nothing

COULD NOT BE EXAMINED
  mesh/broken.yaml:3:1: not YAML: a tab (KM900)
  cannot list pods: forbidden (KM102, KM103)

NOT DECIDED, as the input does not hold what it takes
  the input holds no workload of the namespace team-0 (KM103)
  the input holds no workload of the namespace team-1 (KM103)
  the input holds no workload of the namespace team-2 (KM103)
  the input holds no workload of the namespace team-3 (KM103)
  the input holds no workload of the namespace team-4 (KM103)
  and 3 more; -o wide names them all

2 errors, 1 warning, 1 info in 45 resources.
2 parts of the input could not be examined: see above.
Why, and how to repair it: kubectl mesh explain KM101 (also KM104, KM902)
"""

WIDE_FINDING = """\
VirtualService shop/cart
  KM101    10 % go to the subset v2 of cart.shop.svc.cluster.local, which is not defined anywhere
  at       mesh/cart of shop.yaml:24:36
  field    spec.http[0].route[1].destination.subset
  traffic  10 % of requests get 503 (response flag NC: no cluster)
  next     kubectl edit destinationrule -n shop cart, and add the subset v2
  because  DestinationRule shop/cart defines v1
  because  6 of 6 sidecars have it
  related  DestinationRule shop/cart
  same as  IST0101, KIA1107
"""


def table(report: Report, layout: Layout | None = None) -> str:
    return FORMATS["table"](report, layout or Layout())


def test_the_worst_first_and_the_sum_last() -> None:
    assert table(FULL) == FULL_AT_80


def test_wide_adds_positions_evidence_and_the_peers_codes() -> None:
    text = FORMATS["wide"](FULL, Layout(120))
    assert WIDE_FINDING in text
    assert "  context  prod-eu\n" in text
    assert "team-7" in text


def test_a_finding_on_a_clean_input_is_not_made_up() -> None:
    assert table(CLEAN) == "No problems found in 12 resources.\n"
    assert table(Report((), (), 1)) == "No problems found in 1 resource.\n"


def test_what_failed_is_told_where_nothing_was_found() -> None:
    report = Report((), (Skipped("KM103", "cannot list pods: forbidden", True),), 3)
    assert table(report) == (
        "COULD NOT BE EXAMINED\n"
        "  cannot list pods: forbidden (KM103)\n\n"
        "No problems found in 3 resources.\n"
        "1 part of the input could not be examined: see above.\n"
    )


def test_no_headers_leaves_headings_and_sum_out_but_nothing_that_is_wrong() -> None:
    text = table(FULL, Layout(no_headers=True))
    assert text.startswith("VirtualService shop/cart\n  KM101 ")
    assert "ERRORS" not in text
    assert "45 resources" not in text
    assert "an odd label" in text
    assert "cannot list pods: forbidden" in text
    assert table(CLEAN, Layout(no_headers=True)) == ""


@pytest.mark.parametrize("width", [80, 100, 120, 300])
def test_no_line_is_wider_than_the_terminal_or_than_can_be_read(width: int) -> None:
    for name in ("table", "wide"):
        lines = FORMATS[name](FULL, Layout(width)).splitlines()
        assert max(map(len, lines)) <= min(width, 120)


def test_names_and_commands_stay_whole_on_the_narrowest_terminal() -> None:
    text = FORMATS["wide"](FULL, Layout(20))
    assert "spec.http[0].route[1].destination.subset\n" in text
    assert "cart.shop.svc.cluster.local,\n" in text


def test_of_many_codes_the_first_are_named() -> None:
    found = [
        finding(code, Severity.ERROR, CART, SUBSET, "wrong", "none", "nothing")
        for code in ("KM101", "KM102", "KM103", "KM104", "KM901", "KM902")
    ]
    assert table(Report(tuple(found), (), 1)).endswith(
        "kubectl mesh explain KM101 (also KM102, KM103, ...)\n"
    )


def test_colors_change_nothing_but_colors() -> None:
    colored = table(FULL, Layout(color=True))
    assert "\x1b[1;31m2 ERRORS\x1b[0m" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == FULL_AT_80


@pytest.mark.parametrize("name", ["table", "wide"])
def test_nothing_of_the_input_reaches_the_terminal_raw(name: str) -> None:
    text = FORMATS[name](hostile(), Layout())
    assert text.replace("\n", "").isprintable()
    assert r"\x1b]0;owned" in text
    assert r"\u202eevil" in text
    text.encode()


def test_an_endless_text_is_cut() -> None:
    long = finding("KM101", Severity.ERROR, CART, SUBSET, "x" * 10**6, "none", "nothing")
    text = table(Report((long,), (), 1))
    assert "x…" in text
    assert len(text) < MAX_LENGTH + 1000
