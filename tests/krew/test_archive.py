"""The archive that krew unpacks: its bytes, and how it starts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from krew.build import ROOT
from kubectl_mesh import __version__
from tests.krew.conftest import Release
from tests.krew.pythons import pythons

EXAMPLE = ROOT / "examples" / "2-rules-without-effect-on-ingress.yaml"
GOOD = sorted(version for version in pythons() if version >= (3, 10))
OLD = sorted(version for version in pythons() if version < (3, 10))


def run(program: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": "/nonexistent", "COLUMNS": "100"}
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, cwd=ROOT
    )


def put(path: Path, content: str) -> None:
    """A python3 that comes first."""
    path.mkdir(exist_ok=True)
    (path / "python3").write_text(content)
    (path / "python3").chmod(0o755)


def link(path: Path, program: Path) -> None:
    path.mkdir(exist_ok=True)
    put(path, f'#!/bin/sh\nexec {program} "$@"\n')


def test_the_same_commit_gives_the_same_bytes(tmp_path: Path, released: Release) -> None:
    """In two clones of other names, at another time, by users with other habits."""
    sums = []
    for name, umask, zone in (("one", 0o022, "UTC"), ("another one", 0o077, "Asia/Tokyo")):
        clone = tmp_path / name
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        command = ["sh", "-c", f"umask {umask:o}; exec {sys.executable} -m krew.build"]
        environment = {**os.environ, "TZ": zone, "LC_ALL": "C", "PYTHONHASHSEED": str(umask)}
        subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
        (archive,) = (clone / "dist").glob("*.tar.gz")
        sums.append(hashlib.sha256(archive.read_bytes()).hexdigest())
        noted = (clone / "dist" / f"{archive.name}.sha256").read_text()
        assert noted == f"{sums[-1]}  {archive.name}\n"
        assert f'sha256: "{sums[-1]}"' in (clone / "dist" / "plugin.yaml").read_text()
        time.sleep(1.1)
    assert len(set(sums)) == 1


def test_what_is_not_committed_is_not_in_it(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "LICENSE").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "krew.build"], cwd=clone, capture_output=True, text=True
    )
    assert (done.returncode, "not committed" in done.stderr) == (0, True)


def test_a_commit_that_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "krew.build", "--commit", "nothing", "--output", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr[:7]) == (1, "error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", GOOD, ids=lambda version: ".".join(map(str, version)))
def test_it_works_on_every_python(
    released: Release, tmp_path: Path, version: tuple[int, int]
) -> None:
    link(tmp_path / "bin", pythons()[version])
    path = f"{tmp_path / 'bin'}:/bin"
    launcher = released.unpacked / "kubectl-mesh"
    assert (
        run(launcher, "version", "--client", path=path).stdout == f"kubectl mesh  {__version__}\n"
    )
    assert "Usage: kubectl mesh".lower() in run(launcher, "--help", path=path).stdout.lower()
    ours = run(launcher, "doctor", "-f", str(EXAMPLE), path=path)
    expected = subprocess.run(
        [sys.executable, "-m", "kubectl_mesh", "doctor", "-f", EXAMPLE],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, expected.stdout, "")


@pytest.mark.parametrize(
    "content",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/nonexistent/python\n",
        "\x7fELF of another machine",
        "",
        "#!/bin/sh\necho /\n",
        "#!/bin/sh\necho /bin/ls\n",
    ],
    ids=["broken", "without-interpreter", "other-machine", "empty", "folder", "other-program"],
)
def test_a_broken_python_that_comes_first(released: Release, tmp_path: Path, content: str) -> None:
    launcher = released.unpacked / "kubectl-mesh"
    put(tmp_path / "first", content)
    link(tmp_path / "second", Path(sys.executable))
    path = f"{tmp_path / 'first'}:{tmp_path}/none::{tmp_path / 'second'}"
    done = run(launcher, "version", "--client", path=path)
    assert (done.stdout, done.stderr) == (f"kubectl mesh  {__version__}\n", "")
    done = run(launcher, "version", "--client", path=str(tmp_path / "first"))
    assert done.returncode == 3
    assert done.stderr.startswith("error: kubectl mesh needs Python 3.10 or newer on PATH")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "first" / "python3") in done.stderr


@pytest.mark.parametrize("version", OLD, ids=lambda version: ".".join(map(str, version)))
def test_an_old_python_that_comes_first(
    released: Release, tmp_path: Path, version: tuple[int, int]
) -> None:
    launcher = released.unpacked / "kubectl-mesh"
    old = pythons()[version]
    subprocess.run([old, "-c", f"compile(open({str(launcher)!r}).read(), 'x', 'exec')"], check=True)
    link(tmp_path / "old", old)
    done = run(launcher, "--version", path=str(tmp_path / "old"))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    link(tmp_path / "new", Path(sys.executable))
    done = run(launcher, "--version", path=f"{tmp_path / 'old'}:{tmp_path / 'new'}")
    assert done.stdout == f"kubectl-mesh {__version__}\n"


def test_no_python_at_all(released: Release, tmp_path: Path) -> None:
    done = run(released.unpacked / "kubectl-mesh", "--version", path=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "error: kubectl mesh needs Python 3.10 or newer on PATH: install it "
        "(brew install python3, apt install python3)\n"
    )


def test_a_python_without_all_of_its_library(released: Release, tmp_path: Path) -> None:
    """As Debian's python3-minimal is."""
    script = (
        "import sys, runpy; sys.modules['argparse'] = None; del sys.argv[0]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    put(
        tmp_path / "bin",
        '#!/bin/sh\n[ "$3" = -c ] && echo "is:$0" && exit\nshift 2\n'
        f'exec {sys.executable} -I -S -c "{script}" "$@"\n',
    )
    done = run(released.unpacked / "kubectl-mesh", "--version", path=f"{tmp_path / 'bin'}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "lacks its module argparse: install all of Python" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_link_to_the_launcher(released: Release, tmp_path: Path) -> None:
    """As krew makes it; what the caller's Python has and says is of no account."""
    link(tmp_path / "bin", Path(sys.executable))
    there = tmp_path / "kubectl-mesh"
    there.symlink_to(released.unpacked / "kubectl-mesh")
    (tmp_path / "kubectl_mesh.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [there, "--help"],
        env={"PATH": f"{tmp_path / 'bin'}", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("usage: kubectl mesh ")
