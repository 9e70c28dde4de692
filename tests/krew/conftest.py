"""The archive as it would be released, built once."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from krew.build import ROOT, build


@dataclass(frozen=True)
class Release:
    """What a release publishes, and the folder that the archive becomes once it is unpacked."""

    archive: Path
    manifest: Path
    index: Path
    unpacked: Path


def release(folder: Path, url: str = "https://example.com") -> Release:
    """Builds the checkout as it stands: with what is changed in it, not with what is new."""
    changed = subprocess.run(
        ["git", "stash", "create"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    archive, _, manifest, index = build(folder / "dist", changed or "HEAD", url)
    unpacked = folder / "unpacked"
    with tarfile.open(archive) as packed:
        packed.extractall(unpacked)
    return Release(archive, manifest, index.parent.parent, unpacked)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Release:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: the archive is made of a commit")
    return release(tmp_path_factory.mktemp("release"))
