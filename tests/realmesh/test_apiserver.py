"""The harness itself: what other tests take for granted about the API server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .apiserver import ApiServer

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: reviews, namespace: %s}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""


def test_istio_resources_are_served_in_every_version(apiserver: ApiServer) -> None:
    served = apiserver.kubectl("api-versions").stdout.split()
    assert "networking.istio.io/v1alpha3" in served
    assert "networking.istio.io/v1beta1" in served


def test_manifests_are_stored_and_validated(apiserver: ApiServer, namespace: str) -> None:
    apiserver.apply(VIRTUAL_SERVICE % namespace)
    hosts = apiserver.kubectl(
        "get", "virtualservice", "reviews", "-n", namespace, "-o", "jsonpath={.spec.hosts}"
    )
    assert hosts.stdout == '["reviews"]'
    with pytest.raises(RuntimeError, match=r"spec\.hosts: expected list"):
        apiserver.apply((VIRTUAL_SERVICE % namespace).replace("[reviews]", "7"))


def test_a_user_may_do_what_is_granted_and_no_more(apiserver: ApiServer, namespace: str) -> None:
    def bob_lists(*flags: str) -> subprocess.CompletedProcess[str]:
        return apiserver.kubectl("get", "services", *flags, user="bob", check=False)

    assert 'User "bob" cannot list resource "services"' in bob_lists("-n", namespace).stderr
    apiserver.grant("bob", "services", namespace=namespace)
    assert bob_lists("-n", namespace).returncode == 0
    assert "Forbidden" in bob_lists("--all-namespaces").stderr
    apiserver.grant("carol", "services", "virtualservices.networking.istio.io")
    for resource in ("services", "virtualservices"):
        apiserver.kubectl("get", resource, "--all-namespaces", user="carol")


def test_data_port_and_certificates_outlive_a_stop(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver(crds=False)
    url, trusted = server.url, server.user("admin").read_text()
    for end in (server.stop, server.kill):
        server.kubectl("create", "namespace", f"before-{end.__name__}")
        end()
        assert "refused" in server.kubectl("get", "namespaces", check=False).stderr
        server.start()
        server.kubectl("get", "namespace", f"before-{end.__name__}")
    assert (server.url, server.user("admin").read_text()) == (url, trusted)


def test_resource_definitions_can_be_left_out(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver(crds=False)
    server.install_crds(without=["gateways"])
    served = server.kubectl("api-resources", "--api-group=networking.istio.io", "-o", "name").stdout
    assert "virtualservices.networking.istio.io" in served
    assert "gateways.networking.istio.io" not in served


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_when_the_tests_die(end: signal.Signals, tmp_path: Path) -> None:
    """The owner of a group of processes is ended from outside, as by Ctrl-C or by the kernel."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # which the keeper inherits
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert owner.stdout
    folder, port = owner.stdout.readline().split()
    assert Path(folder).parent == tmp_path
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        owner.send_signal(end)
        assert connection.recv(1) == b""  # the process at the other end is gone
        owner.stdout.read()  # the keeper holds it open until its work is done
    owner.wait()
    assert list(tmp_path.iterdir()) == []


_OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
from tests.realmesh.processes import Processes
listener = '''
import socket, time
server = socket.create_server(("127.0.0.1", 0))
open("port.part", "w").write(str(server.getsockname()[1]))
import os; os.rename("port.part", "port")
client, _ = server.accept()
time.sleep(3600)
'''
processes = Processes()
port = processes.folder / "port"
child = processes.start("listener", sys.executable, "-c", listener)
processes.wait("listener", child, port.exists)
print(processes.folder, port.read_text(), flush=True)
time.sleep(3600)
"""
