"""What is stored of the manifests of rules: `python -m tests.rules.stored` writes it anew.

findings.yaml in the folder of a rule has, for each manifest, all that all rules together say of it.
`bad-x.fixed.yaml` is what `fix --write` makes of `bad-x.yaml`, with the first of several ways.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.fixing.moved_rules import unproven
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import Report, examine
from kubectl_mesh.rules.repair import Repair
from kubectl_mesh.rules.rule import Finding
from kubectl_mesh.sources.config import find_mesh_config
from kubectl_mesh.sources.files import load

HERE = Path(__file__).parent
FIXED = ".fixed"
STORED = "findings.yaml"
_ALL = sorted(file for file in HERE.glob("KM*/*.yaml") if file.name != STORED)
MANIFESTS = [file for file in _ALL if not file.stem.endswith(FIXED)]
EVERYTHING = ("--unsafe", "--all-rules", "--accept-mtls-off")
"""Accepts every repair."""


def snapshot_of(file: Path) -> Snapshot:
    resources, unreadable = load([str(file)])
    return Snapshot(resources, find_mesh_config(resources), unreadable=unreadable)


def report_of(file: Path) -> Report:
    """What all rules say of a manifest."""
    return examine(snapshot_of(file), RULES)


def ways(file: Path) -> list[tuple[Repair, ...]]:
    """The ways to repair each finding that has some, without what cannot be proved."""
    found = [each.repairs for each in report_of(file).findings if each.repairs]
    doubtful = unproven(snapshot_of(file), [way for each in found for way in each if way.proof])
    return [each for each in found if not any(way in doubtful for way in each)]


def findings(folder: Path) -> str:
    """What is stored of the manifests of a rule."""
    files = [file for file in MANIFESTS if file.parent == folder]
    told = {file.stem: _report(report_of(file)) for file in files}
    return yaml.safe_dump(_without(str(HERE), told), sort_keys=False, width=100)


def _without(folder: str, value: Any) -> Any:
    """What was told, with the files by their names from here."""
    if isinstance(value, str):
        return value.replace(f"{folder}/", "")
    if isinstance(value, list):
        return [_without(folder, each) for each in value]
    return {key: _without(folder, each) for key, each in value.items()}


def _report(report: Report) -> Mapping[str, Any]:
    skipped = [f"{skip.code} {skip.reason}" for skip in report.skipped]
    return {
        "findings": [_finding(each) for each in report.findings],
        **({"skipped": skipped} if skipped else {}),
    }


def _finding(finding: Finding) -> Mapping[str, Any]:
    told = {
        "what": f"{finding.rule.code} {finding.severity.label} {finding.resource}",
        "path": dotted(finding.path),
        "message": finding.message,
        "traffic": finding.traffic,
        "next": finding.next,
        "evidence": list(finding.evidence),
        "related": [str(each) for each in finding.related],
        "repairs": [_repair(each) for each in finding.repairs],
    }
    return {name: value for name, value in told.items() if value}


def _repair(repair: Repair) -> Mapping[str, Any]:
    told = {
        "name": repair.name,
        "title": repair.title,
        "unsafe": f"{repair.unsafe} ({repair.flag})" if repair.unsafe else "",
        "affects": list(repair.affects),
        "assumes": list(repair.assumes),
    }
    return {name: value for name, value in told.items() if value}


def fixed(file: Path) -> str:
    """The text of a manifest once it is repaired, by the first of several ways."""
    chosen = [part for each in ways(file) if each[1:] for part in ("--choose", each[0].name)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(file, folder))
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            status = main(["fix", "-f", str(copy), "--write", *EVERYTHING, *chosen])
        assert status in (0, 3), f"{file}: fix ends with {status}"
        return copy.read_text()


def stored() -> Mapping[Path, str]:
    """By file, all that is to be stored."""
    folders = {file.parent for file in MANIFESTS}
    repaired = {file: fixed(file) for file in MANIFESTS if ways(file)}
    return {
        **{folder / STORED: findings(folder) for folder in sorted(folders)},
        **{
            file.with_suffix(f"{FIXED}.yaml"): text
            for file, text in repaired.items()
            if text != file.read_text()
        },
    }


def superfluous() -> list[Path]:
    """The files that are stored and should not be."""
    there = {*HERE.glob(f"KM*/{STORED}"), *(file for file in _ALL if file.stem.endswith(FIXED))}
    return sorted(there - stored().keys())


def write() -> None:
    """Stores all anew."""
    for file in superfluous():
        file.unlink()
    for file, text in stored().items():
        file.write_text(text)


if __name__ == "__main__":
    write()
    sys.exit(0)
