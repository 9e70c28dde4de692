"""Change sets made to manifests where they stand."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.changes.change_set import ChangeSet, change_set
from kubectl_mesh.changes.files import file_changes, unified_diff, write
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.errors import InputError, MeshError
from kubectl_mesh.mesh.resource import ABSENT, Resource
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.sources.files import load

MANIFESTS = """\
# the first
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  ports:
  - port: 80 # a
---

apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: b}
  spec: {ports: [{port: 80}, {port: 81}]}
- kind: Service
  apiVersion: v1
  metadata:
    name: c
  spec:
    ports:
    - port: 80
---
not: a manifest
"""


def resources(*files: Path) -> dict[str, Resource]:
    found, _ = load(map(str, files))
    return {each.name: each for each in found}


def setting(resource: Resource, value: Any = "http", index: int = 0) -> Repair:
    path = ("spec", "ports", index, "appProtocol")
    return Repair("x", f"set it in {resource.name}", (Edit(resource, path, value),))


def changes_of(*repairs: Repair) -> ChangeSet:
    changes, waiting = change_set(repairs, lambda resource: resource.raw)
    assert waiting == []
    return changes


def test_only_the_lines_of_the_change_are_touched_in_every_document(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(MANIFESTS)
    found = resources(file)
    changes = file_changes(changes_of(*map(setting, found.values())))
    assert [line for line in unified_diff(changes) if line[0] in "+-"][2:] == [
        "+    appProtocol: http\n",
        "-  spec: {ports: [{port: 80}, {port: 81}]}\n",
        "+  spec: {ports: [{port: 80, appProtocol: http}, {port: 81}]}\n",
        "+      appProtocol: http\n",
    ]
    write(changes)
    again = resources(file)
    assert {each.raw["spec"]["ports"][0]["appProtocol"] for each in again.values()} == {"http"}
    assert os.listdir(tmp_path) == ["all.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        MANIFESTS.replace("\n", "\r\n"),
        "\ufeff" + MANIFESTS,
        MANIFESTS.replace("# the first\n", "# the first\r\n"),
        MANIFESTS.rstrip("\n"),
    ],
    ids=["crlf", "bom", "mixed", "no-end"],
)
def test_line_ends_and_marks_stay(tmp_path: Path, text: str) -> None:
    file = tmp_path / "it.yaml"
    file.write_bytes(text.encode())
    write(file_changes(changes_of(*map(setting, resources(file).values()))))
    after = file.read_bytes().decode()
    kept = [line for line in after.split("\n") if line in text.split("\n")]
    assert len(kept) == len(text.split("\n")) - 1
    added = text.count("\r\n") * 2 > text.count("\n")
    assert after.count("\r\n") == text.count("\r\n") + (2 if added else 0)


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    file, link = tmp_path / "it.yaml", tmp_path / "link.yaml"
    file.write_text(MANIFESTS)
    file.chmod(0o640)
    link.symlink_to(file)
    write(file_changes(changes_of(setting(resources(link)["a"]))))
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "appProtocol" in file.read_text()


def test_a_file_that_changes_meanwhile_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    repair = setting(resources(file)["a"])
    changes = file_changes(changes_of(repair))
    file.write_text(MANIFESTS.replace("# a", "# mine"))
    for attempt in (lambda: write(changes), lambda: file_changes(changes_of(repair))):
        with pytest.raises(InputError, match="it has changed since it was read"):
            attempt()
    assert file.read_text() == MANIFESTS.replace("# a", "# mine")


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    changes = file_changes(changes_of(setting(resources(file)["a"])))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MeshError, match=r"it\.yaml cannot be written: No space left"):
        write(changes)
    assert file.read_text() == MANIFESTS
    assert os.listdir(tmp_path) == ["it.yaml"]


def test_a_text_that_is_shared_is_named(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS.replace("- port: 80 # a", "- &port {port: 80}\n  - *port"))
    with pytest.raises(NotEditable, match=r"it.yaml: Service default/a: .* shared by an anchor"):
        file_changes(changes_of(setting(resources(file)["a"])))


def test_repairs_of_one_place_are_made_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    b = resources(file)["b"]
    away = Repair("y", "take the first away", (Edit(b, ("spec", "ports", 0), ABSENT),))
    for repairs in ([away, setting(b, index=1)], [setting(b, index=1), away], [away, setting(b)]):
        changes, waiting = change_set(repairs, lambda resource: resource.raw)
        assert (len(changes.steps), waiting) == (1, repairs[1:])
    changes, waiting = change_set([away, away], lambda resource: resource.raw)
    assert (len(changes.steps[0].edits), waiting) == (1, [])


def test_what_is_no_file_is_not_written(tmp_path: Path) -> None:
    pipe = tmp_path / "it.yaml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=[MANIFESTS])
    writer.start()
    repair = setting(resources(pipe)["a"])
    writer.join()
    with pytest.raises(NotEditable, match="no file that can be changed"):
        file_changes(changes_of(repair))


def test_a_file_that_has_become_shorter_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    repair = setting(resources(file)["c"])
    file.write_text("kind: Service\n")
    with pytest.raises(InputError, match="it has changed since it was read"):
        file_changes(changes_of(repair))


def gone(resource: Resource) -> Repair:
    return Repair("x", f"delete {resource}", (Edit(resource, (), ABSENT),))


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ("a", MANIFESTS[MANIFESTS.index("---\n") + 4 :]),
        (
            "b",
            MANIFESTS.replace(MANIFESTS[MANIFESTS.index("- apiV") : MANIFESTS.index("- kind")], ""),
        ),
        (
            "c",
            MANIFESTS.replace(
                MANIFESTS[MANIFESTS.index("- kind") : MANIFESTS.index("---\nnot")], ""
            ),
        ),
    ],
)
def test_a_deleted_object_leaves_everything_else_as_it_was(
    tmp_path: Path, names: str, left: str
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    found = resources(file)
    write(file_changes(changes_of(*(gone(found[name]) for name in names))))
    assert file.read_text() == left


def test_deletions_and_patches_of_one_file(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(MANIFESTS)
    found = resources(file)
    changes = file_changes(changes_of(gone(found["a"]), gone(found["b"]), setting(found["c"])))
    write(changes)
    after = resources(file)
    assert list(after) == ["c"]
    assert after["c"].spec["ports"] == [{"port": 80, "appProtocol": "http"}]
    assert file.read_text().endswith("---\nnot: a manifest\n")


def test_a_file_of_which_nothing_is_left_goes(tmp_path: Path) -> None:
    for text, left in (
        ('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}', False),
        ("---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n", False),
        ("# licence\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n", True),
    ):
        file = tmp_path / ("it.json" if text[0] == "{" else "it.yaml")
        file.write_text(text)
        (change,) = file_changes(changes_of(gone(resources(file)["a"])))
        assert ("+++ /dev/null\n" in unified_diff([change])) is not left
        write([change])
        assert file.exists() is left


POLICY = "kind: Service\napiVersion: v1\nmetadata: {name: a}\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{POLICY}--- # the next: ask\nother: 1\n", "--- # the next: ask\nother: 1\n"),
        (f"x: 1\n---\n{POLICY}# below\n---\ny: 1\n", "x: 1\n# below\n---\ny: 1\n"),
        (f"# Copyright\n\n# a\n{POLICY}", "# Copyright\n\n"),
        (f"# a\n{POLICY}---\ny: 1\n", "y: 1\n"),
    ],
)
def test_comments_that_are_not_of_a_deleted_object_stay(
    tmp_path: Path, text: str, left: str
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(text)
    write(file_changes(changes_of(gone(resources(file)["a"]))))
    assert file.read_text() == left


def test_a_link_goes_with_its_file(tmp_path: Path) -> None:
    file, link = tmp_path / "it.yaml", tmp_path / "link.yaml"
    file.write_text(POLICY)
    link.symlink_to(file)
    write(file_changes(changes_of(gone(resources(link)["a"]))))
    assert list(tmp_path.iterdir()) == []
