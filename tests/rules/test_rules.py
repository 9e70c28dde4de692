"""Every rule on its manifests: tests/rules/<CODE>/{bad,good}-*.yaml.

A bad manifest says in its first comment lines which findings all rules together give for it:
`# CODE severity Kind namespace/name dotted.path`. A good one gives none. What they say in full, and
what `fix` makes of a manifest, is stored beside them: see stored.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import Report, examine
from kubectl_mesh.rules.rule import Rule
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load
from tests.rules import stored
from tests.rules.stored import MANIFESTS


def run(*files: Path) -> Report:
    resources, unreadable = load(map(str, files))
    return examine(Snapshot(resources, find_mesh_config(resources), unreadable=unreadable), RULES)


def rendered(report: Report) -> list[str]:
    return sorted(
        f"{found.rule.code} {found.severity.label} {found.resource} {dotted(found.path) or '-'}"
        for found in report.findings
    )


def expected(file: Path) -> list[str]:
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("# KM"):
            break
        lines.append(line.removeprefix("# "))
    return sorted(lines)


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_manifest_gives_exactly_the_findings_it_names(file: Path) -> None:
    report = run(file)
    assert not report.crashes
    assert rendered(report) == expected(file)


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_bad_manifest_is_of_its_own_rule(file: Path) -> None:
    codes = {line.split()[0] for line in expected(file)}
    assert (file.parent.name in codes) == file.stem.startswith("bad")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.bad], ids=lambda rule: rule.code)
def test_rule_finds_its_own_bad_example(rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(rule.bad)
    assert {found.rule.code for found in run(file).findings} == {rule.code}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.good], ids=lambda rule: rule.code)
def test_no_rule_finds_anything_in_a_good_example(rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(rule.good)
    report = run(file)
    assert rendered(report) == []
    assert not [skip for skip in report.skipped if skip.failed]


def test_what_is_stored_is_what_is_found_and_repaired() -> None:
    """A change of a word or of a repair is seen in the stored files: read them before a commit."""
    changed = [
        str(file.relative_to(stored.HERE))
        for file, text in stored.stored().items()
        if not file.exists() or file.read_text() != text
    ]
    assert changed == [], "run python -m tests.rules.stored, and read what it changes"
    assert stored.superfluous() == []
