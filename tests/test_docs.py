"""The generated documentation is what the code says now."""

from __future__ import annotations

import re

from kubectl_mesh.rules import RULES
from tests import docs, picture


def test_no_generated_page_is_stale() -> None:
    assert docs.stale() == [], "run python -m tests.docs"


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
