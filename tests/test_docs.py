"""The generated documentation is what the code says now."""

from __future__ import annotations

import re
from pathlib import Path

from kubectl_mesh.mesh import versions
from kubectl_mesh.rules import RULES
from tests import docs, picture

VERSIONS = Path(__file__).parents[1] / "docs" / "istio-versions.md"


def test_no_generated_page_is_stale() -> None:
    assert docs.stale() == [], "run python -m tests.docs"


def test_every_difference_between_releases_is_listed() -> None:
    """With its release and what switches it back, on one line of docs/istio-versions.md."""
    lines = VERSIONS.read_text().splitlines()
    known = [each for each in vars(versions).values() if isinstance(each, versions.Difference)]
    assert known
    for each in known:
        release = f"| {versions.written(each.since)}."
        listed = [line for line in lines if release in line.replace(", ", " | ")]
        assert [line for line in listed if each.switch in line and "modelled" in line], each


def test_each_rules_link_leads_to_its_heading() -> None:
    """GitHub's anchor of a heading is its text in lower case, without punctuation."""
    headings = re.findall(r"^#+ (.+)$", docs.rules_page(), flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    for rule in RULES:
        page, _, anchor = rule.documentation.partition("#")
        assert page.endswith("/docs/rules.md")
        assert anchors.count(anchor) == 1


def test_the_picture_shows_what_is_printed() -> None:
    shown = picture.words(picture.PICTURE.read_text())
    printed = re.sub(r"\x1b\[[0-9;]*m", "", picture.printed()).split()
    title = ["kubectl", "mesh"]
    assert shown == [*title, *printed], "run python -m tests.picture"
