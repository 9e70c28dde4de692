"""The Pythons that this machine has."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

_PLACES = (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin")


@functools.cache
def pythons() -> Mapping[tuple[int, int], Path]:
    """One CPython 3 of each minor version: of PATH, of pyenv and of uv."""
    found: dict[tuple[int, int], Path] = {}
    for program in _candidates():
        command = [program, "-c", "import sys; print(*sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            major, minor = map(int, done.stdout.split())
            found.setdefault((major, minor), program)
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += [path for place in _PLACES for path in Path.home().glob(place)]
    for folder in folders:
        if "shims" not in folder.parts:  # of pyenv, which depend on where they are called
            yield from (*folder.glob("python3.[0-9]"), *folder.glob("python3.[0-9][0-9]"))
