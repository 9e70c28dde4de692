"""What the flags and the kubeconfig mean."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.errors import ClusterError
from kubectl_mesh.flags import duration
from kubectl_mesh.kube import kubeconfig
from kubectl_mesh.kube.kubeconfig import ClusterOptions, Kubeconfig, Target

SERVER = "https://prod.example:6443"


def target(options: ClusterOptions) -> Target:
    return Kubeconfig(options).target()


def write(path: Path, context: str | None = "prod", **parts: list[dict[str, Any]]) -> str:
    config: dict[str, Any] = {"current-context": context} if context else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**config, **parts}))
    return str(path)


def prod(server: str = SERVER, **user: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "prod", "cluster": {"server": server}}],
        "users": [{"name": "bob", "user": user}],
        "contexts": [
            {"name": "prod", "context": {"cluster": "prod", "user": "bob", "namespace": "shop"}}
        ],
    }


def test_current_context(tmp_path: Path) -> None:
    found = target(ClusterOptions(kubeconfig=write(tmp_path / "config", **prod(token="t"))))
    assert (found.context, found.namespace, found.server, found.user) == (
        "prod",
        "shop",
        SERVER,
        {"token": "t"},
    )


def test_home_is_read_without_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".kube" / "config", **prod())
    assert target(ClusterOptions()).context == "prod"


def test_first_file_of_the_list_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = write(tmp_path / "one", None, **prod("https://first"))
    second = write(tmp_path / "two", "prod", **prod("https://second"))
    third = write(tmp_path / "three", "nothing", users=[], clusters=[], contexts=[])
    (tmp_path / "empty").write_text("")
    files = [str(tmp_path / "missing"), first, str(tmp_path / "empty"), second, third]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(files))
    found = target(ClusterOptions())
    assert (found.context, found.server) == ("prod", "https://first")


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    parts = prod(**{"client-key": "keys/k", "exec": {"command": "bin/login", "args": ["a/b"]}})
    parts["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    found = target(ClusterOptions(kubeconfig=write(tmp_path / "config", **parts)))
    assert found.cluster["certificate-authority"] == str(tmp_path / "ca.crt")
    assert found.user["client-key"] == str(tmp_path / "keys/k")
    assert found.user["exec"] == {"command": str(tmp_path / "bin/login"), "args": ["a/b"]}


def test_a_bare_command_is_looked_for_on_the_path(tmp_path: Path) -> None:
    parts = prod(exec={"command": "aws"})
    found = target(ClusterOptions(kubeconfig=write(tmp_path / "config", **parts)))
    assert found.user["exec"] == {"command": "aws"}


def test_flags_win(tmp_path: Path) -> None:
    parts = prod(exec={"command": "aws"}, tokenFile="t")
    parts["clusters"].append({"name": "dev", "cluster": {"server": "https://dev"}})
    parts["clusters"][0]["cluster"]["certificate-authority-data"] = "eA=="
    file = write(tmp_path / "config", **parts)
    found = target(ClusterOptions(kubeconfig=file, token="mine", insecure_skip_tls_verify=True))
    assert found.user == {"token": "mine"}
    assert found.cluster == {
        "server": SERVER,
        "insecure-skip-tls-verify": True,
    }
    assert target(ClusterOptions(kubeconfig=file, cluster="dev")).server == "https://dev"
    assert target(ClusterOptions(kubeconfig=file, server="host:1")).server == "http://host:1"


def test_a_server_needs_no_kubeconfig() -> None:
    found = target(ClusterOptions(server="https://10.0.0.1", token="t"))
    assert (found.server, found.user, found.namespace) == (
        "https://10.0.0.1",
        {"token": "t"},
        "default",
    )


def test_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("tools\n")
    found = target(ClusterOptions())
    assert (found.server, found.namespace, found.context) == (
        "https://[fd00::1]:443",
        "tools",
        "in-cluster",
    )
    assert found.user == {"tokenFile": str(tmp_path / "token")}


def test_namespace_of_context(tmp_path: Path) -> None:
    parts = prod()
    parts["contexts"].append({"name": "bare", "context": {"cluster": "prod", "user": "bob"}})
    file = write(tmp_path / "config", **parts)
    assert Kubeconfig(ClusterOptions(kubeconfig=file)).namespace == "shop"
    assert Kubeconfig(ClusterOptions(kubeconfig=file, context="bare")).namespace == "default"
    assert Kubeconfig(ClusterOptions()).namespace == "default"


def test_the_configuration_of_an_auth_provider_may_hold_anything(tmp_path: Path) -> None:
    parts = prod()
    provider = {"name": "oidc", "config": {"client-id": "c", "id-token": "a.b.c"}}
    parts["users"] = [{"name": "bob", "user": {"auth-provider": provider}}]
    file = write(tmp_path / "config", **parts)
    assert target(ClusterOptions(kubeconfig=file)).user["auth-provider"] == provider


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClusterOptions(), "no kubeconfig: {home}/.kube/config does not exist; name one"),
        (ClusterOptions(kubeconfig="/no/such"), "kubeconfig /no/such: No such file or directory"),
        (ClusterOptions(kubeconfig="{file}", context="dev"), "no context is called 'dev' (there"),
        (
            ClusterOptions(kubeconfig="{file}", user="eve"),
            "no user is called 'eve' (there are",
        ),
        (
            ClusterOptions(kubeconfig="{file}", as_groups=("g",)),
            "--as-uid need --as",
        ),
        (
            ClusterOptions(kubeconfig="{none}"),
            "no API server is named: choose a context",
        ),
        (ClusterOptions(server="https://[::1"), "'https://[::1' is no address of an API server"),
        (
            ClusterOptions(server="https://host:x"),
            "'https://host:x' is no address",
        ),
        (ClusterOptions(server="ftp://host"), "'ftp://host' is no address of an API server"),
        (ClusterOptions(kubeconfig="{broken}"), "broken: line 2: no YAML: "),
        (ClusterOptions(kubeconfig="{list}"), "must be a mapping"),
        (
            ClusterOptions(kubeconfig="{odd}"),
            "users must be a list of {{name: ..., user: {{",
        ),
    ],
)
def test_one_clear_line(tmp_path: Path, options: ClusterOptions, message: str) -> None:
    write(tmp_path / "file", **prod())
    write(tmp_path / "none", None, **prod())
    (tmp_path / "broken").write_text("a: b\n\tc: d\n")
    (tmp_path / "list").write_text("[]")
    (tmp_path / "odd").write_text("users: {bob: {}}")
    path = options.kubeconfig and options.kubeconfig.replace("{", f"{tmp_path}/").replace("}", "")
    with pytest.raises(ClusterError) as caught:
        target(ClusterOptions(**{**_as_dict(options), "kubeconfig": path}))
    assert message.format(home=os.environ["HOME"]) in str(caught.value)
    assert "\n" not in str(caught.value)


BOMB = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 50_000, "line 1: (nested deeper than 50 levels|no YAML: .*maximum nesting depth)"),
        ("a: " + "{b: " * 60, "line 1: nested deeper than 50 levels"),
        (BOMB, "it and its aliases stand for more than 200,000 values"),
        (MERGES, "it and its aliases stand for more than 200,000 values"),
        (f"a: &a 1\nb: [{', '.join(['*a'] * 101)}]", "more than 100 aliases and merge keys"),
        ("a: &a [*a]", r"the alias \*a stands for no finished value"),
        ("current-context: 1" + ":1" * 500_000, "a text in it has more than 1000 colons"),
        ("#" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_a_hostile_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ClusterError, match=f"^kubeconfig {path}: {message}"):
        target(ClusterOptions(kubeconfig=str(path)))


def test_an_alias_and_a_merge_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: &c {cluster: k, namespace: n}},"
        " {name: b, context: {<<: *c, namespace: m}}]\n"
        "clusters: [{name: k, cluster: {server: 'https://k.example'}}]\n"
    )
    assert target(ClusterOptions(kubeconfig=str(path), context="b")).namespace == "m"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"exec": {"command": "echo", "args": 5}}, "exec.args must be a list"),
        ({"exec": {"command": "echo", "args": [5]}}, r"exec.args\[0\] must be a string"),
        ({"exec": {"command": "echo", "env": [[]]}}, r"exec.env\[0\] must be a mapping"),
        ({"exec": "echo"}, "exec must be a mapping"),
        ({"as-groups": 5}, "as-groups must be a list"),
        ({"as-groups": [None]}, r"as-groups\[0\] must not be null"),
        ({"as-user-extra": [1]}, "as-user-extra must be a mapping"),
        ({"as-user-extra": {"a": 5}}, "as-user-extra.a must be a list"),
        ({"token": 5}, r"token must be a string \(quote it\)"),
    ],
)
def test_a_user_of_wrong_types(tmp_path: Path, user: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "config", **prod(**user))
    with pytest.raises(ClusterError, match=f"^kubeconfig {path}: user 'bob': {message}"):
        target(ClusterOptions(kubeconfig=path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tls-server-name", ["a"], "tls-server-name must be a string"),
        ("certificate-authority", ["a"], "certificate-authority must be a string"),
        ("insecure-skip-tls-verify", "false", "insecure-skip-tls-verify must be true or false"),
    ],
)
def test_a_cluster_of_wrong_types(tmp_path: Path, field: str, value: Any, message: str) -> None:
    parts = prod()
    parts["clusters"][0]["cluster"][field] = value
    path = write(tmp_path / "config", **parts)
    with pytest.raises(ClusterError, match=f"^kubeconfig {path}: cluster 'prod': {message}"):
        target(ClusterOptions(kubeconfig=path))


@pytest.mark.parametrize("field", ["cluster", "user", "namespace"])
def test_a_context_of_wrong_types(tmp_path: Path, field: str) -> None:
    parts = prod()
    parts["contexts"][0]["context"][field] = ["a"]
    path = write(tmp_path / "config", **parts)
    config = Kubeconfig(ClusterOptions(kubeconfig=path))
    for read in (config.target, lambda: config.namespace):
        with pytest.raises(ClusterError, match=f"context 'prod': {field} must be a string"):
            read()


@pytest.mark.parametrize("text", ["99999999999", "9" * 400, "25h", "\xb2", "\u0663s", "x", ""])
def test_a_timeout_that_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        duration(text)


def test_timeouts() -> None:
    assert [duration(text) for text in ("24h", "1m30s", "5", "0")] == [86400, 90, 5, None]


def _as_dict(options: ClusterOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ClusterOptions.__slots__}


def test_kubernetes_is_not_imported_before_a_cluster_is_used() -> None:
    code = (
        "import sys, kubectl_mesh.sources.cluster, kubectl_mesh.kube.config;"
        "sys.exit('kubernetes' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
