"""The real krew and the real kubectl, in an empty HOME, with no network but loopback."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from krew.build import ROOT
from kubectl_mesh import __version__
from tests.krew.conftest import Release, release
from tests.krew.pythons import pythons

from . import build
from .apiserver import ApiServer
from .conftest import built

OLD = "0.0.9"
BROKEN = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web, subset: v1}}]}]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}]
"""


class Home:
    """A user with kubectl, krew, git and python3, and nothing else."""

    def __init__(self, folder: Path, kubeconfig: Path | None) -> None:
        self.folder = folder / "home"
        self.folder.mkdir()
        tools = folder / "tools"
        tools.mkdir()
        (tools / "kubectl").symlink_to(built(build.kubectl))
        (tools / "kubectl-krew").symlink_to(built(lambda: build.binary("krew")))
        (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tools / "python3").chmod(0o755)
        self._environment = {
            "HOME": str(self.folder),
            "PATH": f"{self.folder}/.krew/bin:{tools}:/usr/bin:/bin",
            "KUBECONFIG": str(kubeconfig or os.devnull),
            "COLUMNS": "100",
        }

    def run(self, *command: str | Path, status: int = 0) -> str:
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def kubectl(self, *arguments: str | Path, status: int = 0) -> str:
        return self.run("kubectl", *arguments, status=status)

    def ours(self) -> list[str]:
        """All files that have to do with the plugin, but for krew's copy of the index."""
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        return [
            name for name in sorted(found) if "mesh" in name and not name.startswith(".krew/index/")
        ]


@pytest.fixture
def home(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Home:
    config = json.loads(apiserver.kubeconfig.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return Home(tmp_path, kubeconfig)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Release, Release]]:
    """The version before, and this one, both to be had over HTTP."""
    folder = tmp_path_factory.mktemp("published")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        clone = folder / "clone"
        git("clone", "--quiet", ROOT, clone, cwd=folder)
        file = clone / "kubectl_mesh" / "__init__.py"
        file.write_text(file.read_text().replace(f'"{__version__}"', f'"{OLD}"'))
        git(*AUTHOR, "commit", "--quiet", "--all", "--message", "Go back", cwd=clone)
        subprocess.run([sys.executable, "-m", "krew.build", "--url", url], cwd=clone, check=True)
        dist = clone / "dist"
        before = Release(next(dist.glob("*.gz")), dist / "plugin.yaml", dist / "index", dist)
        found = before, release(folder / "new", url)
        for each in found:
            version = each.archive.name.removeprefix("kubectl-mesh-").removesuffix(".tar.gz")
            (folder / version).mkdir()
            shutil.copy(each.archive, folder / version)
        yield found
        server.shutdown()


AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(*arguments: str | Path, cwd: Path) -> None:
    subprocess.run(["git", *arguments], cwd=cwd, check=True)


def index(folder: Path, content: Path) -> None:
    """Makes or updates the repository of an index."""
    shutil.copytree(content, folder, dirs_exist_ok=True)
    git("init", "--quiet", cwd=folder)
    git("add", ".", cwd=folder)
    git(*AUTHOR, "commit", "--quiet", "--message", "Release", cwd=folder)


def test_installed_from_a_manifest_and_an_archive(
    home: Home, published: tuple[Release, Release], namespace: str
) -> None:
    _, new = published
    krew = ("krew", "install", f"--manifest={new.manifest}", f"--archive={new.archive}")
    home.kubectl(*krew)
    assert home.kubectl("mesh", "version", "--client") == f"kubectl mesh  {__version__}\n"
    assert "No problems found" in home.kubectl("mesh", "doctor")
    file = home.folder / "broken.yaml"
    file.write_text(SERVICE + "---" + BROKEN)
    home.kubectl("apply", "-f", file)
    report = json.loads(home.kubectl("mesh", "doctor", "-o", "json", status=1))
    assert "KM101" in [each["code"] for each in report["findings"]]
    assert report["findings"][0]["resource"]["namespace"] == namespace
    assert "usage: kubectl mesh doctor" in home.kubectl("mesh", "doctor", "--help")


def test_from_our_own_index_upgraded_and_uninstalled(
    home: Home, published: tuple[Release, Release], tmp_path: Path
) -> None:
    """Nothing is left then but the journal of what the user has applied."""
    old, new = published
    repository = tmp_path / "index"
    index(repository, old.index)
    home.kubectl("krew", "index", "add", "mesh", f"file://{repository}")
    home.kubectl("krew", "install", "mesh/mesh")
    assert home.kubectl("mesh", "version", "--client") == f"kubectl mesh  {OLD}\n"
    file = home.folder / "service.yaml"
    file.write_text(SERVICE)
    home.kubectl("mesh", "apply", "-f", file, "--yes")
    index(repository, new.index)
    home.kubectl("krew", "update")
    home.kubectl("krew", "upgrade", "mesh")
    assert home.kubectl("mesh", "version", "--client") == f"kubectl mesh  {__version__}\n"
    assert not (home.folder / ".krew/store/mesh" / f"v{OLD}").exists()
    assert "mesh" in home.kubectl("krew", "list")
    home.kubectl("krew", "uninstall", "mesh")
    left = home.ours()
    assert home.folder / left[0] == home.folder / ".local/state/kubectl-mesh"
    assert all(name.startswith(".local/state/kubectl-mesh") for name in left)
    assert sum(name.endswith(".json") for name in left) == 1


def test_krews_own_checks(published: tuple[Release, Release], tmp_path: Path) -> None:
    """It installs the plugin from where it is published, on every platform that it is for."""
    validate = built(lambda: build.binary("validate-krew-manifest"))
    _, new = published
    home = Home(tmp_path, None)
    home.run(validate, "-manifest", new.index / "plugins" / "mesh.yaml")
    shutil.copy(ROOT / "plugin.yaml", tmp_path / "mesh.yaml")
    home.run(validate, "-manifest", tmp_path / "mesh.yaml", "-skip-install")


def test_completion_as_the_printed_script_says(
    home: Home, published: tuple[Release, Release], namespace: str
) -> None:
    _, new = published
    home.kubectl("krew", "install", f"--manifest={new.manifest}", f"--archive={new.archive}")
    script = home.kubectl("mesh", "completion")
    command = "".join(line[3:] for line in script.splitlines() if line.startswith("#   "))
    home.run("sh", "-c", command)
    home.kubectl("mesh", "version")  # Python compiles what it needs for a cluster, once
    offered = home.kubectl("__complete", "mesh", "doctor", "-n", namespace[:-1]).splitlines()
    assert namespace in offered
    assert offered[-1] == ":4"
    assert "doctor\t" in home.kubectl("__complete", "mesh", "doc")


RUN = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{4}")


def test_the_session_of_the_readme(
    new_apiserver: Callable[..., ApiServer], published: tuple[Release, Release], tmp_path: Path
) -> None:
    """Word for word, but for the number of the run, with the plugin that krew has installed."""
    _, new = published
    home = Home(tmp_path, new_apiserver().kubeconfig)
    home.kubectl("krew", "install", f"--manifest={new.manifest}", f"--archive={new.archive}")
    (home.folder / "examples").symlink_to(ROOT / "examples")
    text = (ROOT / "README.md").read_text().partition("## Five minutes")[2]
    session = text.partition("```console\n")[2].partition("```\n")[0]
    for part in session.split("$ ")[1:]:
        command, _, expected = part.partition("\n")
        said = home.run("sh", "-c", f"{command}; true")
        assert RUN.sub("ID", said) == RUN.sub("ID", expected), command


IN_ROOT = """
mount --bind /dev/null "$1/dev/null" && mount -t tmpfs tmpfs "$1/mnt" &&
mkdir "$1/mnt/plugin" "$1/mnt/files" && mount --bind "$2" "$1/mnt/plugin" &&
mount --bind "$3" "$1/mnt/files" && { test -z "$4" || mount --bind "$4" "$1$4"; } &&
root=$1 && shift 4 &&
exec chroot "$root" /mnt/plugin/kubectl-mesh "$@"
"""
EXAMPLE = ROOT / "examples" / "2-rules-without-effect-on-ingress.yaml"
NEW = [version for version in pythons() if version >= (3, 10)]


@pytest.mark.parametrize(
    "version", [*NEW, None], ids=lambda it: ".".join(map(str, it)) if it else "newest"
)
def test_a_python_and_nothing_else(
    apiserver: ApiServer,
    namespace: str,
    published: tuple[Release, Release],
    tmp_path: Path,
    version: tuple[int, int] | None,
) -> None:
    """A root directory with python3, as the manifest demands, and sh, as every system has it."""
    _, new = published
    if version:
        root = tmp_path / "root"
        library: Path | None = root_with(pythons()[version], root)
    else:
        root = Path(built(lambda: build.binary("python-root"), required=False))
        library = None
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(EXAMPLE, files / "example.yaml")
    flat = apiserver.kubectl("config", "view", "--raw", "--flatten").stdout
    (files / "kubeconfig").write_text(flat)
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    command = ["unshare", "--mount", *user, "sh", "-c", IN_ROOT, "sh"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, root, new.unpacked, files, library or "", *arguments],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "100"},
            capture_output=True,
            text=True,
        )

    told = run("version", "--client")
    assert told.stdout == f"kubectl mesh  {__version__}\n", told.stderr
    found = run("doctor", "-f", "/mnt/files/example.yaml")
    assert (found.returncode, found.stderr) == (1, "")
    assert "KM201" in found.stdout
    live = run("doctor", "-n", namespace, "--kubeconfig", "/mnt/files/kubeconfig")
    assert (live.returncode, live.stderr) == (0, ""), live
    assert live.stdout.startswith("No problems found")


_WHERE = "import sys, sysconfig as s; print(s.get_path('stdlib'), s.get_config_var('DESTSHARED'))"


def root_with(python: Path, root: Path) -> Path:
    """A root directory with sh, this Python's program, and the libraries that both need.

    Returns the folder of the standard library, which has to be mounted at the same place.
    """
    program = python.resolve()
    done = subprocess.run([program, "-c", _WHERE], capture_output=True, text=True, check=True)
    library, modules = map(Path, done.stdout.split())
    linked = [program, Path("/bin/sh").resolve(), *modules.glob("*.so")]
    told = subprocess.run(["ldd", *linked], capture_output=True, text=True, check=True).stdout
    for file in {program, *map(Path, re.findall(r"(/\S+) \(0x", told))}:
        copy = root / file.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    for folder in ("bin", "dev", "mnt", library.relative_to("/")):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "dev" / "null").touch()
    shutil.copy("/bin/sh", root / "bin" / "sh")
    (root / "bin" / "python3").symlink_to(program)
    return library
