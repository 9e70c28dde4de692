"""Files, folders and standard input."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kubectl_mesh.mesh.resource import Resource, Unreadable
from kubectl_mesh.sources import files

SERVICE = "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports: []\n"


def load(*names: object) -> tuple[list[Resource], list[Unreadable]]:
    return files.load(map(str, names))


def reason(path: Path) -> str:
    resources, unreadable = load(path)
    assert resources == []
    assert len(unreadable) == 1
    return unreadable[0].reason


def test_one_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SERVICE.format(name="a"))
    assert len(load(file, file)[0]) == 1


def test_a_list_gives_its_items_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n"
        "- apiVersion: v1\n  kind: ServiceList\n  items:\n"
        "  - {apiVersion: v1, kind: Service, metadata: {name: b}}\n"
    )
    resources, unreadable = load(file)
    assert not unreadable
    assert [resource.name for resource in resources] == ["a", "b"]
    position = resources[1].origin.locate(("metadata", "name"))
    assert position is not None
    assert (position.line, position.column) == (10, 48)


def test_namespaces(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        SERVICE.format(name="a")
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\n"
    )
    resources, _ = files.load([str(file)], namespace="mine")
    assert [resource.namespace for resource in resources] == ["mine", "", "shop"]


def test_a_broken_document_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{SERVICE.format(name='a')}---\nb: [\n---\n{SERVICE.format(name='c')}")
    resources, unreadable = load(file)
    assert [resource.name for resource in resources] == ["a", "c"]
    assert len(unreadable) == 1
    assert unreadable[0].position is not None
    assert unreadable[0].position.file == str(file)


@pytest.mark.parametrize(
    ("content", "part", "line"),
    [
        (b"- a\n- b\n", "a manifest must be a mapping", 1),
        (b"\nhello\n", "a manifest must be a mapping", 2),
        (b"a: 1\n", "apiVersion and kind missing", 1),
        (b"apiVersion: v1\nkind: 5\n", "kind missing", 1),
        (b"apiVersion: v1\nkind: List\nitems: 5\n", "items of a List must be a list", 3),
        (b"", "the file is empty", None),
        (b"# nothing\n---\n", "the file is empty", None),
        (b"\x7fELF\0\0", "a binary file", None),
        (b"\xff\xfea\0", "UTF-16; save it as UTF-8", None),
        (b"a: 1\nb: \xff\n", "not UTF-8: the byte 0xff", 2),
    ],
)
def test_what_is_no_manifest_is_named(
    tmp_path: Path, content: bytes, part: str, line: int | None
) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    resources, unreadable = load(file)
    assert resources == []
    assert part in unreadable[0].reason
    position = unreadable[0].position
    assert (position.line if position else None) == line


@pytest.mark.parametrize("metadata", ["", "metadata: {}", "metadata: []", "metadata: {name: 7}"])
def test_an_object_without_a_name_is_read_all_the_same(tmp_path: Path, metadata: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"apiVersion: v1\nkind: Service\n{metadata}\nspec: {{type: ExternalName}}\n")
    resources, unreadable = load(file)
    assert not unreadable
    assert resources[0].spec == {"type": "ExternalName"}
    assert resources[0].faults[-1].path == ("metadata", "name")


def test_a_file_for_kustomize_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "kustomization.yaml"
    file.write_text("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n")
    assert load(file) == ([], [])


def test_of_many_broken_parts_the_first_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("- x\n---\n" * 250)
    unreadable = load(file)[1]
    assert len(unreadable) == files.MAX_UNREADABLE + 1
    assert unreadable[-1].reason == "150 more parts of it cannot be read"


def test_missing_and_forbidden_files(tmp_path: Path) -> None:
    assert reason(tmp_path / "missing.yaml") == "No such file or directory"
    assert "null byte" in load("a\0b")[1][0].reason


def test_a_file_that_never_ends_is_refused() -> None:
    assert "larger than 32 MiB" in reason(Path("/dev/zero"))


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as stream:
        stream.truncate(files.MAX_BYTES + 1)
    assert "larger than 32 MiB; split it" in reason(file)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(SERVICE.format(name="a").encode()))
    monkeypatch.setattr("sys.stdin", stream)
    resources, unreadable = load("-")
    assert not unreadable
    assert resources[0].origin.name == "<stdin>"


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + SERVICE.format(name="a").replace("\n", "\r\n").encode())
    resources, unreadable = load(file)
    assert not unreadable
    position = resources[0].origin.locate(("metadata", "name"))
    assert position is not None
    assert (position.line, position.column) == (4, 3)
