"""`python -m tests.realmesh shell`, as people use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .mesh import Mesh

ROOT = Path(__file__).parents[2]
SHELL = [sys.executable, "-m", "tests.realmesh", "shell"]
ENVIRONMENT = {**os.environ, "SHELL": "/bin/sh"}


def test_the_shell_reaches_everything(mesh: Mesh) -> None:
    """`mesh` is here for its skip where nothing is built."""
    script = """
        kubectl get pods -A
        kubectl mesh doctor -A
        kubectl --kubeconfig $KUBECONFIG_ALICE get pods || echo forbidden
        client cat /proc/net/route | grep -c eth0
        ask='import http.client as h, sys; c = h.HTTPConnection(*sys.argv[1:3]);
c.request("GET", "/hello", headers={"Host": sys.argv[3]}); print(c.getresponse().status)'
        client python3 -c "$ask" localhost 5000 helloworld:5000
        ingress=$(kubectl get pod -n istio-system ingress -o jsonpath={.status.podIP})
        node python3 -c "$ask" $ingress 8080 myapp.com
        node python3 -c 'import urllib.request as u; print(u.urlopen("http://localhost:8080/ready"))'
    """
    done = subprocess.run(
        SHELL, cwd=ROOT, env=ENVIRONMENT, input=script, capture_output=True, text=True, check=True
    )
    assert "helloworld-v2-0" in done.stdout
    assert "No problems found" in done.stdout
    assert "\nforbidden\n2\n200\n200\n" in done.stdout
    assert "http.client.HTTPResponse" in done.stdout


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_shell_dies(mesh: Mesh, signal_: signal.Signals) -> None:
    shell = subprocess.Popen(
        SHELL, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell:
        shell.stdin.write("echo folder: $(dirname $KUBECONFIG); sleep 600\n")
        shell.stdin.flush()
        folder = next(line.split()[1] for line in shell.stdout if line.startswith("folder: "))
        assert len(_working_in(folder)) > 8  # etcd, API server, istiod, two Envoys, agents, ...
        shell.send_signal(signal_)
    deadline = time.monotonic() + 30
    while (left := _working_in(folder)) or Path(folder).exists():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _working_in(folder: str) -> list[str]:
    """The command lines of the processes whose working directory is the folder."""
    processes = Path("/proc").glob("[0-9]*")
    return [command for process in processes if (command := _command(process, folder))]


def _command(process: Path, folder: str) -> str | None:
    try:
        if os.readlink(process / "cwd").startswith(folder):
            return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        pass  # it has ended
    return None
