"""The rules of krew and its index, on our manifest and on manifests with one fault each."""

from __future__ import annotations

import copy
import io
import tarfile
from typing import Any

import pytest
import yaml

from krew.build import ROOT
from krew.check import archive_faults, manifest_faults
from kubectl_mesh import __version__

OURS = (ROOT / "plugin.yaml").read_text()


def faults(manifest: Any, name: str = "mesh") -> list[str]:
    return list(manifest_faults(yaml.safe_dump(manifest), name))


def changed(path: str, value: object) -> dict[str, Any]:
    """Our manifest with another value of a field; without the field for None."""
    manifest: dict[str, Any] = copy.deepcopy(yaml.safe_load(OURS))
    *outer, last = path.split(".")
    place: Any = manifest
    for key in outer:
        place = place[int(key) if key.isdigit() else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return manifest


def test_our_manifest_is_right() -> None:
    assert list(manifest_faults(OURS)) == []
    assert yaml.safe_load(OURS)["spec"]["version"] == f"v{__version__}"
    assert f"/v{__version__}/kubectl-mesh-v{__version__}.tar.gz" in OURS


PLATFORM = "spec.platforms.0"
EXPRESSION = {"key": "arch", "operator": "Exists"}
OS = {"matchLabels": {"os": "linux"}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "krew.googlecontainertools.github.com/v1alpha1"),
        ("kind", "plugin"),
        ("metadata.name", "other"),
        ("metadata.name", "a.b"),
        ("metadata.name", "CON"),
        ("spec.version", "0.1.0"),
        ("spec.version", "v0.1"),
        ("spec.version", "v0.01.0"),
        ("spec.version", "v0.1.0-"),
        ("spec.shortDescription", None),
        ("spec.shortDescription", "two\nlines"),
        ("spec.shortDescription", "x" * 51),
        ("spec.shortDescription", "Ends with a stop."),
        ("spec.description", "x" * 81),
        ("spec.homepage", None),
        ("spec.caveats", ""),
        ("spec.platforms", []),
        (f"{PLATFORM}.selector", {}),
        (f"{PLATFORM}.selector", {"matchLabels": {"os": "linux", "libc": "musl"}}),
        (f"{PLATFORM}.selector", {"matchLabels": {"os": "plan9"}}),
        (f"{PLATFORM}.uri", "kubectl-mesh.tar.gz"),
        (f"{PLATFORM}.sha256", "A" * 64),
        (f"{PLATFORM}.sha256", 64),
        (f"{PLATFORM}.sha256", "a" * 63),
        (f"{PLATFORM}.bin", None),
        (f"{PLATFORM}.bin", "../kubectl-mesh"),
        (f"{PLATFORM}.bin", "/kubectl-mesh"),
        (f"{PLATFORM}.bin", "bin/kubectl-mesh"),
        (f"{PLATFORM}.files", [{"from": "kubectl-mesh", "to": "."}]),
        (f"{PLATFORM}.selector", {"matchLabels": {}, "matchExpressions": [EXPRESSION]}),
    ],
)
def test_each_fault_is_found(path: str, value: object) -> None:
    found = faults(changed(path, value))
    assert len(found) == (2 if path == "metadata.name" and value != "other" else 1)


def test_what_is_allowed() -> None:
    for path, value in (
        ("spec.version", "v1.0.0-rc.1+build"),
        (f"{PLATFORM}.selector", {"matchExpressions": [EXPRESSION]}),
        (f"{PLATFORM}.selector", OS),
    ):
        assert faults(changed(path, value)) == []


def test_one_platform_is_not_selected_twice() -> None:
    manifest = yaml.safe_load(OURS)
    other = {**manifest["spec"]["platforms"][0], "selector": OS}
    manifest["spec"]["platforms"].append(other)
    assert faults(manifest) == [
        f"spec.platforms: several are for linux/{arch}"
        for arch in ("386", "amd64", "arm", "arm64", "ppc64le")
    ]


def test_what_is_no_manifest() -> None:
    assert "no YAML" in next(manifest_faults("a: [1"))
    assert list(manifest_faults("[]")) == ["no mapping"]


def packed(*entries: tuple[str, int, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, mode, kind in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type = mode, kind
            archive.addfile(entry)
    return stream.getvalue()


LAUNCHER = ("kubectl-mesh", 0o755, tarfile.REGTYPE)
LICENCE = ("LICENSE", 0o644, tarfile.REGTYPE)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([LAUNCHER, LICENCE], ""),
        ([LAUNCHER, LICENCE, ("lib", 0o755, tarfile.DIRTYPE)], ""),
        ([LAUNCHER, LICENCE, ("x", 0o644, tarfile.SYMTYPE)], "x is neither"),
        ([LAUNCHER, LICENCE, ("a/../b", 0o644, tarfile.REGTYPE)], "a/../b leads out"),
        ([LAUNCHER, LICENCE, ("/b", 0o644, tarfile.REGTYPE)], "/b leads out"),
        ([LAUNCHER, LICENCE, ("lib/x.so", 0o644, tarfile.REGTYPE)], "lib/x.so is of one"),
        ([LAUNCHER, ("lib/LICENSE", 0o644, tarfile.REGTYPE)], "no licence at its root"),
        ([LICENCE, ("kubectl-mesh", 0o644, tarfile.REGTYPE)], "kubectl-mesh is not there, or"),
        ([LICENCE], "kubectl-mesh is not there, or"),
        (
            [LAUNCHER, LICENCE, ("lib/a.dist-info/METADATA", 0o644, tarfile.REGTYPE)],
            "lib/a.dist-info has no licence",
        ),
    ],
)
def test_archives(entries: list[tuple[str, int, bytes]], said: str) -> None:
    found = list(archive_faults(packed(*entries)))
    assert len(found) == bool(said)
    assert not said or said in found[0]
