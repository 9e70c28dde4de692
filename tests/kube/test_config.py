"""Connections: what every request carries, and what goes wrong before the first."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh import __version__
from kubectl_mesh.errors import ClusterError
from kubectl_mesh.kube.config import Connection
from kubectl_mesh.sources.session import ClusterOptions, Session
from tests.kube.fake import Answer, FakeApiServer


def connect(options: ClusterOptions) -> Connection:
    return Session(options).client.connection


def plugin(tmp_path: Path, code: str, **more: Any) -> dict[str, Any]:
    """An exec plugin that runs Python code."""
    script = tmp_path / "plugin.py"
    script.write_text(code)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
        **more,
    }


def credential(**status: str) -> str:
    content = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    return f"print({json.dumps(json.dumps(content))})"


COUNTING = """
import json, pathlib
runs = pathlib.Path(__file__).with_suffix(".runs")
count = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(count))
print(json.dumps({
    "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
    "status": {"token": f"token-{count}"},
}))
"""


def headers_of(fake: FakeApiServer, options: ClusterOptions) -> Any:
    Session(options).client.get("/api/v1/pods")
    return fake.requests[-1]


def test_token_agent_and_impersonation(fake: FakeApiServer, tmp_path: Path) -> None:
    file = fake.kubeconfig(tmp_path, token="secret")
    options = ClusterOptions(
        kubeconfig=file, as_user="eve", as_groups=("dev", "ops"), as_uid="uid-1"
    )
    request = headers_of(fake, options)
    assert request.header("Authorization") == ["Bearer secret"]
    assert request.header("User-Agent") == [f"kubectl-mesh/{__version__}"]
    assert request.header("Impersonate-User") == ["eve"]
    assert request.header("Impersonate-Group") == ["dev", "ops"]
    assert request.header("Impersonate-Uid") == ["uid-1"]


def test_impersonation_of_the_kubeconfig(fake: FakeApiServer, tmp_path: Path) -> None:
    user = {"as": "eve", "as-groups": ["dev"], "as-user-extra": {"Reason/why": ["a", "b"]}}
    request = headers_of(fake, ClusterOptions(kubeconfig=fake.kubeconfig(tmp_path, **user)))
    assert request.header("Impersonate-User") == ["eve"]
    assert request.header("Impersonate-Group") == ["dev"]
    assert request.header("Impersonate-Extra-Reason%2Fwhy") == ["a", "b"]
    assert request.header("Authorization") == []


def test_basic_authentication(fake: FakeApiServer, tmp_path: Path) -> None:
    file = fake.kubeconfig(tmp_path, username="bob", password="pw")
    assert headers_of(fake, ClusterOptions(kubeconfig=file)).header("Authorization") == [
        "Basic Ym9iOnB3"
    ]


def test_exec_plugin(fake: FakeApiServer, tmp_path: Path) -> None:
    file = fake.kubeconfig(tmp_path, exec=plugin(tmp_path, credential(token="of-plugin")))
    request = headers_of(fake, ClusterOptions(kubeconfig=file))
    assert request.header("Authorization") == ["Bearer of-plugin"]


def test_exec_plugin_runs_again_when_its_token_is_refused(
    fake: FakeApiServer, tmp_path: Path
) -> None:
    file = fake.kubeconfig(tmp_path, exec=plugin(tmp_path, COUNTING))
    fake.answers["pods"] = [Answer(401)]
    request = headers_of(fake, ClusterOptions(kubeconfig=file))
    assert request.header("Authorization") == ["Bearer token-2"]
    assert len(fake.requests) == 2


def test_exec_plugin_runs_again_when_its_token_is_about_to_expire(
    fake: FakeApiServer, tmp_path: Path
) -> None:
    code = COUNTING.replace(
        '"status": {', '"status": {"expirationTimestamp": "2020-01-01T00:00:00Z", '
    )
    file = fake.kubeconfig(tmp_path, exec=plugin(tmp_path, code))
    connection = connect(ClusterOptions(kubeconfig=file))
    first, second = connection.headers(), connection.headers()
    assert first[-1] != second[-1]


def test_token_file_is_read_again_when_it_is_refused(fake: FakeApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    file = fake.kubeconfig(tmp_path, tokenFile="token")
    client = Session(ClusterOptions(kubeconfig=file)).client
    (tmp_path / "token").write_text("new\n")
    fake.answers["pods"] = [Answer(401)]
    client.get("/api/v1/pods")
    assert [request.header("Authorization") for request in fake.requests] == [
        ["Bearer old"],
        ["Bearer new"],
    ]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; sys.exit('warning\\nyour session has expired')", "your session has expired"),
        ("print('no JSON')", "exec: failed to decode process output"),
        (credential(), "exec: missing token or clientCertificateData"),
    ],
)
def test_exec_plugin_that_fails(
    fake: FakeApiServer, tmp_path: Path, code: str, reason: str
) -> None:
    file = fake.kubeconfig(tmp_path, exec=plugin(tmp_path, code))
    with pytest.raises(ClusterError) as caught:
        connect(ClusterOptions(kubeconfig=file))
    begin = f"the credential plugin of user 'bob' failed: `{sys.executable} {tmp_path}/plugin.py`: "
    assert str(caught.value).startswith(begin + reason)
    assert "\n" not in str(caught.value)


def test_exec_plugin_that_is_not_installed(fake: FakeApiServer, tmp_path: Path) -> None:
    missing = plugin(tmp_path, "", command="no-such-plugin", installHint="brew install it\nmore")
    file = fake.kubeconfig(tmp_path, exec=missing)
    with pytest.raises(ClusterError, match=r"No such file.*'no-such-plugin' \(brew install it\)$"):
        connect(ClusterOptions(kubeconfig=file))


@pytest.mark.parametrize("token", ["secret\nX-Header: 1", "se\u20accret"])
def test_a_token_that_cannot_be_sent_is_not_shown(
    fake: FakeApiServer, tmp_path: Path, token: str
) -> None:
    file = fake.kubeconfig(tmp_path, token=token)
    with pytest.raises(ClusterError, match=r"characters that HTTP does not allow$") as caught:
        Session(ClusterOptions(kubeconfig=file)).client.get("/api/v1/pods")
    assert "cret" not in str(caught.value)


def test_unreadable_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    for data in (
        {"certificate-authority": "ca.crt"},
        {"certificate-authority": "missing.crt"},
        {"certificate-authority-data": "!"},
    ):
        (tmp_path / "config").write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": "https://x", **data}}],
                    "users": [{"name": "u", "user": {}}],
                }
            )
        )
        with pytest.raises(ClusterError, match=r"context c\)? cannot be used: ") as caught:
            connect(ClusterOptions(kubeconfig=str(tmp_path / "config")))
        assert "\n" not in str(caught.value)


def test_connections_of_other_threads_leave_the_offered_protocols_alone(
    fake: FakeApiServer, tmp_path: Path
) -> None:
    """urllib3 sets them for each connection, in memory that another thread's handshake reads."""
    options = ClusterOptions(kubeconfig=fake.kubeconfig(tmp_path), server="https://192.0.2.1")
    context = connect(options).pool.connection_pool_kw["ssl_context"]
    context.set_alpn_protocols(["spdy/1"])
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="192.0.2.1").do_handshake()
    sent = hello.read()
    assert (b"\x09\x08http/1.1" in sent, b"spdy" in sent) == (True, False)


def test_gzip_is_asked_for_on_remote_servers_only(fake: FakeApiServer, tmp_path: Path) -> None:
    file = fake.kubeconfig(tmp_path)
    assert "Accept-Encoding" not in dict(connect(ClusterOptions(kubeconfig=file)).headers())
    remote = ClusterOptions(kubeconfig=file, server="https://192.0.2.1")
    assert dict(connect(remote).headers())["Accept-Encoding"] == "gzip"


def test_proxy(fake: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake server plays the proxy: it gets the request that is meant for another one."""
    fake.objects = [{"kind": "Pod", "metadata": {"name": "p"}}]
    file = fake.kubeconfig(tmp_path)
    monkeypatch.setenv("HTTP_PROXY", fake.url)
    options = ClusterOptions(kubeconfig=file, server="http://192.0.2.1:8080")
    answer = Session(options).client.get("/api/v1/pods")
    assert len(answer["items"]) == 1
    assert fake.requests[-1].header("Host") == ["192.0.2.1:8080"]
    monkeypatch.setenv("NO_PROXY", "192.0.2.0,192.0.2.1")
    assert not hasattr(connect(options).pool, "proxy_url")
    local = ClusterOptions(kubeconfig=file)
    assert connect(local).pool.proxy is None
