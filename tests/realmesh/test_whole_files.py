"""Commands that write files, on random objects with every field of Istio's kinds.

What a command does not mean to change is there afterwards, in files of every style.
`KUBECTL_MESH_OBJECTS` says how many objects are tried, `KUBECTL_MESH_SEED` repeats a run.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_mesh.changes.patch import content
from kubectl_mesh.cli import main
from kubectl_mesh.sources.files import load
from tests.changes.styles import varied

from .manifests import Object
from .test_whole_objects import each_seed, some
from .whole_objects import (
    Case,
    Named,
    doubled_hosts,
    merges,
    missing_subsets,
    named,
    settings_apart,
)

_COMMENT = re.compile(r"comment \d+$", re.MULTILINE)
NAMESPACE = "shop"
A_FILE = 10
"""So many objects are in a file."""


class Files:
    """A folder with the objects of a case, in styles that are drawn, and our commands on it."""

    def __init__(self, folder: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._choose = random.Random(seed)
        self._capsys = capsys

    def does(self, case: Case) -> tuple[list[str], list[str]]:
        """What a case is meant to change is changed, and nothing else.

        Returns the comments of the files before and after. What stands so that it cannot be edited
        is named and stays; where nothing can be done without it, other styles are drawn.
        """
        while True:
            self._write(case.objects)
            texts, before = self._texts(), self._read()
            assert before == {named(each): each for each in case.objects}
            status = main([*case.command, "-f", str(self._folder), "--write"])
            said = self._capsys.readouterr().err
            if status == 0 or "by hand" not in said:
                break
            assert self._texts() == texts
        assert status == 0
        done = {
            (kind, name): spec
            for (kind, name), spec in case.specs.items()
            if f"{kind} {NAMESPACE}/{name}: " not in said
        }
        assert self._read() == replace(case, specs=done).after(before)
        assert len(done) > len(case.specs) / 2
        return _comments(texts), _comments(self._texts())

    def _write(self, objects: list[Object]) -> None:
        for file in self._folder.iterdir():
            file.unlink()
        for first in range(0, len(objects), A_FILE):
            text, extension = varied(objects[first : first + A_FILE], self._choose)
            (self._folder / f"it-{first}.{extension}").write_bytes(text.encode())

    def _texts(self) -> dict[str, str]:
        return {file.name: file.read_bytes().decode() for file in self._folder.iterdir()}

    def _read(self) -> dict[Named, Object]:
        resources, unreadable = load([str(file) for file in self._folder.iterdir()])
        assert not unreadable
        return {named(item): item for item in (content(each.raw) for each in resources)}


def _comments(texts: Mapping[str, str]) -> list[str]:
    return sorted(each for text in texts.values() for each in _COMMENT.findall(text))


@pytest.fixture
def files(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> Files:
    return Files(tmp_path, seed, capsys)


@each_seed
def test_merge(files: Files, seed: int) -> None:
    for case in merges(NAMESPACE, seed, some("VirtualService")):
        files.does(case)


@each_seed
def test_fix_of_virtual_services(files: Files, seed: int) -> None:
    files.does(doubled_hosts(NAMESPACE, seed, some("VirtualService")))


@each_seed
def test_fix_of_destination_rules(files: Files, seed: int) -> None:
    before, after = files.does(missing_subsets(NAMESPACE, seed, some("DestinationRule")))
    assert before == after


@each_seed
def test_a_repair_that_copies(files: Files, seed: int) -> None:
    before, after = files.does(settings_apart(NAMESPACE, seed, 10))
    assert before == after
