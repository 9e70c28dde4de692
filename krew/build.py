"""Builds the archive that krew installs, and what a release publishes beside it.

    python -m krew.build [--output dist] [--commit HEAD] [--url URL]

The archive is a plain folder: the launcher kubectl-mesh, our LICENSE, and lib/ with kubectl_mesh as
it is in the commit and the packages of requirements.txt with their licences. Everything in it is
pure Python, so that one archive serves every platform. The same commit gives the same bytes,
wherever and whenever it is built (with the same zlib).

In the output folder then are

    kubectl-mesh-v0.1.0.tar.gz           the archive
    kubectl-mesh-v0.1.0.tar.gz.sha256    its checksum, as `sha256sum --check` takes it
    plugin.yaml                          the manifest with the archive's address and checksum
    index/                               our own index, to be pushed to its repository
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from krew.check import archive_faults, manifest_faults

ROOT = Path(__file__).parent.parent
_PACKED = ("LICENSE", "kubectl_mesh", "krew/kubectl-mesh")
_NEEDED = ("plugin.yaml", "krew/requirements.txt", "krew/index/README.md")
"""Of the commit, too, and not in the archive."""
_PYTHON = "3.10"
_PLATFORM = "manylinux2014_x86_64"
"""Of the wheels with a compiled part, which is left out."""
_NOT_PACKED = re.compile(
    r"^lib/bin(/|$)|/(__pycache__|tests)(/|$)|\.(so|pyd|pyc)$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
_RELEASES = "https://github.com/kubectl-mesh/kubectl-mesh/releases/download"


class BuildError(Exception):
    """It cannot be built, or is not as krew wants it."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m krew.build", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=Path("dist"), help="default: %(default)s")
    parser.add_argument("--commit", default="HEAD", help="what is packed; default: %(default)s")
    parser.add_argument("--url", default=_RELEASES, help="below it, VERSION/ARCHIVE is published")
    args = parser.parse_args()
    try:
        for made in build(args.output, args.commit, args.url):
            print(made)
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if _run("git", "status", "--porcelain", *_PACKED, *_NEEDED):
        print(f"Warning: what is not committed is not in it: it is {args.commit}", file=sys.stderr)
    return 0


def build(output: Path, commit: str = "HEAD", url: str = _RELEASES) -> Iterator[Path]:
    """Builds the archive and what goes with it; yields the files. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder)
        version = f"v{_unpack(commit, whole)}"
        _install(_shown(commit, "krew/requirements.txt"), whole / "lib")
        packed = _packed(whole, int(_run("git", "log", "-1", "--format=%ct", commit)))
    archive = output / f"kubectl-mesh-{version}.tar.gz"
    checksum = hashlib.sha256(packed).hexdigest()
    filled = _filled(
        _shown(commit, "plugin.yaml"), version, f"{url}/{version}/{archive.name}", checksum
    )
    if faults := [*archive_faults(packed), *manifest_faults(filled)]:
        raise BuildError("; ".join(faults))
    plugins = output / "index" / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    readme = plugins.parent / "README.md"
    readme.write_text(_shown(commit, "krew/index/README.md"))
    for file, content in (
        (archive, packed),
        (output / f"{archive.name}.sha256", f"{checksum}  {archive.name}\n".encode()),
        (output / "plugin.yaml", filled.encode()),
        (plugins / "mesh.yaml", filled.encode()),
    ):
        file.write_bytes(content)
        yield file


def _unpack(commit: str, folder: Path) -> str:
    """Puts our own files of a commit where the archive has them; returns their version."""
    with zipfile.ZipFile(io.BytesIO(_git_archive(commit))) as committed:
        committed.extractall(folder)
    (folder / "lib").mkdir()
    (folder / "kubectl_mesh").rename(folder / "lib" / "kubectl_mesh")
    (folder / "krew" / "kubectl-mesh").rename(folder / "kubectl-mesh")
    (folder / "krew").rmdir()
    text = (folder / "lib" / "kubectl_mesh" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if version is None:
        raise BuildError("kubectl_mesh/__init__.py names no __version__")
    return version[1]


def _shown(commit: str, path: str) -> str:
    """The text of a file in a commit."""
    return _run("git", "show", f"{commit}:{path}") + "\n"


def _git_archive(commit: str) -> bytes:
    """Our own files, whatever this user's git makes of line ends."""
    as_it_is = ("-c", "core.autocrlf=false", "-c", "core.eol=lf")
    command = ["git", *as_it_is, "archive", "--format=zip", commit, *_PACKED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {done.stderr.decode().strip()}")
    return done.stdout


def _install(requirements: str, folder: Path) -> None:
    """The packages of requirements.txt: those very files, whatever Python and platform this is."""
    file = folder.parent / "requirements.txt"
    file.write_text(requirements)
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--target", str(folder), "--no-compile", "--no-deps", "--require-hashes"),
        *("--only-binary=:all:", "--platform", _PLATFORM, "--implementation", "cp"),
        *("--python-version", _PYTHON, "--upgrade"),
        *("--requirement", str(file)),
    )
    file.unlink()


def _packed(folder: Path, modified: int) -> bytes:
    """A folder as .tar.gz: in order, without anything of who packs it, and when."""
    stream = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as packed,
    ):
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
            name = path.relative_to(folder).as_posix()
            if _NOT_PACKED.search(name):
                continue
            entry = tarfile.TarInfo(name)
            entry.mtime = modified
            entry.mode = 0o755 if path.is_dir() or name == "kubectl-mesh" else 0o644
            if path.is_dir():
                entry.type = tarfile.DIRTYPE
                packed.addfile(entry)
            else:
                content = path.read_bytes()
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _filled(manifest: str, version: str, uri: str, checksum: str) -> str:
    """The manifest for one archive, without the comment at its top."""
    text = re.sub(r"\A(#[^\n]*\n)+", "", manifest)
    for field, value in (("version", version), ("uri", uri), ("sha256", f'"{checksum}"')):
        text, count = re.subn(rf"(?m)^( +){field}: .*$", partial(_set, field, value), text)
        if count != 1:
            raise BuildError(f"plugin.yaml has {count} fields {field}; expected one")
    return text


def _set(field: str, value: str, line: re.Match[str]) -> str:
    return f"{line[1]}{field}: {value}"


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
