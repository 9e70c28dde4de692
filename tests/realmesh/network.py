"""Network namespaces with ordinary addresses, as a cluster's pods have them.

    with Processes() as processes:
        network = Network(processes)
        pod = network.add("client", "10.1.0.7")
        pod.connect("10.1.0.1", 15010)

One namespace is the node; each further one hangs on it by a pair of virtual Ethernet devices, and
the node forwards between them, as a cluster's network does. Nothing leads from there to this
machine's own network: what runs inside can reach nothing but its neighbours, and is reached
through `Host.connect` alone. The namespaces end with the processes in them, so closing `processes`
ends it all.

It takes root, or unprivileged user namespaces; and `ip`, `unshare` and `nsenter`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import agent
from .build import NotBuilt
from .processes import Processes, StartError

NODE = "10.1.0.1"
"""The node's address. The API server and istiod run there."""

_TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
_AS_ROOT = os.geteuid() == 0
_NEW_USER = () if _AS_ROOT else ("--user", "--map-root-user")
_JOIN_USER = () if _AS_ROOT else ("--user", "--preserve-credentials")


@dataclass(frozen=True)
class Host:
    """A network namespace: the node's, a pod's, or that of pods that need none of their own."""

    name: str
    process: subprocess.Popen[bytes]  # its agent
    agent: Path  # the agent's socket
    device: str  # the node's end of the link

    def command(self, *command: str | Path) -> list[str | Path]:
        """The command line that runs `command` in here, without a process in between."""
        return ["nsenter", f"--target={self.process.pid}", *_JOIN_USER, "--net", "--", *command]

    def run(self, *command: str | Path, input: str | None = None) -> str:
        """Runs a command in here and returns what it printed. Raises RuntimeError if it fails."""
        done = subprocess.run(self.command(*command), input=input, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
        return done.stdout

    def connect(self, address: str, port: int) -> socket.socket:
        """A TCP connection made in here, to use anywhere. Raises OSError as `connect` does."""
        return agent.connect(self.agent, address, port)


class Network:
    """The node, and what hangs on it. Raises NotBuilt where namespaces cannot be made."""

    def __init__(self, processes: Processes) -> None:
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise NotBuilt(f"there is no `{tool}` on PATH: install {package}")
        self._processes = processes
        self._numbers = itertools.count(1)
        try:
            self.node = self._start("node", "", ["unshare", *_NEW_USER, "--net"])
        except StartError as error:
            raise NotBuilt(f"no network namespace can be made here: {error}") from error
        _ip(self.node, "link set lo up", f"addr add {NODE}/32 dev lo")
        self.node.run("tee", "/proc/sys/net/ipv4/ip_forward", input="1")

    def add(self, name: str, *addresses: str) -> Host:
        """A new host on the node, at these addresses."""
        device = f"veth{next(self._numbers)}"
        host = self._start(name, device, self.node.command("unshare", "--net"))
        _ip(
            self.node,
            f"link add {device} type veth peer name eth0 netns {host.process.pid}",
            f"link set {device} up",
        )
        _ip(
            host,
            "link set lo up",
            "link set eth0 up",
            f"route add {NODE} dev eth0 scope link",
            f"route add default via {NODE}",
        )
        for address in addresses:
            self.give(host, address)
        return host

    def remove(self, host: Host) -> None:
        """Takes a host away, once nothing else runs in it."""
        host.process.kill()
        host.process.wait()

    def give(self, host: Host, address: str) -> None:
        """Gives a host, which is not the node, one more address."""
        _ip(host, f"addr add {address}/32 dev eth0")
        _ip(self.node, f"route add {address}/32 dev {host.device} src {NODE}")

    def _start(self, name: str, device: str, inside: list[str | Path]) -> Host:
        path = self._processes.folder / f"agent-{next(self._numbers)}"
        program = (sys.executable, "-I", "-S", agent.__file__, "serve")
        process = self._processes.start(name, *inside, *program, path)
        self._processes.wait(name, process, path.exists)
        return Host(name, process, path, device)


def _ip(host: Host, *commands: str) -> None:
    host.run("ip", "-batch", "-", input="\n".join(commands) + "\n")
