"""`python -m tests.realmesh`: the real mesh of the tests, for people."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .apiserver import USERS
from .build import PARTS, BuildError, NotBuilt, build
from .mesh import Mesh
from .network import Host
from .processes import StartError

_say = functools.partial(print, flush=True)


def main(argv: list[str] | None = None) -> int:
    chosen = _parser().parse_args(argv)
    try:
        if chosen.command == "build":
            build(chosen.parts, say=_say)
        else:
            _shell()
        return 0
    except (BuildError, NotBuilt, StartError) as error:
        _say(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.realmesh", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builds = "build what is missing into the cache; find Envoy, nginx and kubectl"
    build_parser = commands.add_parser("build", help=builds, description=builds)
    build_parser.add_argument("parts", nargs="*", type=_part, metavar="PART", help=", ".join(PARTS))
    shell = "boot a mesh with a gateway, a client and a Service to call; open a shell that uses it"
    commands.add_parser("shell", help=shell, description=shell)
    return parser


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {name!r}: there are {', '.join(PARTS)}")
    return name


def _shell() -> None:
    """A shell in a playground; all of it goes when the shell ends."""
    _say("starting etcd, kube-apiserver, istiod and two Envoys ...")
    with Mesh() as mesh:
        mesh.service("helloworld", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
        ingress = mesh.gateway({"istio": "ingressgateway"}, {80: 8080}, name="ingress")
        client = mesh.sidecar("default", {"app": "client"}, name="client")
        mesh.apply(_PLAYGROUND)
        mesh.settled()
        commands = mesh.processes.folder / "commands"
        _write_command(commands / "client", client.host)
        _write_command(commands / "node", mesh.node)
        _say(
            _WELCOME.format(
                ingress=ingress.identity.address,
                users=", ".join(USERS),
                folder=mesh.processes.folder,
            )
        )
        environment = mesh.server.environment()
        environment["PATH"] = os.pathsep.join([str(commands), environment["PATH"]])
        for user in USERS:
            environment[f"KUBECONFIG_{user.upper()}"] = str(mesh.server.user(user))
        subprocess.run(_interactive(environment, mesh.processes.folder), env=environment)


# The client is in a Service because the doctor, who shall find nothing, calls that a fault.
_PLAYGROUND = """
apiVersion: v1
kind: Service
metadata: {name: client, namespace: default}
spec:
  selector: {app: client}
  ports: [{name: http, port: 8000}]
---
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: myapp-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [myapp.com]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: myapp, namespace: default}
spec:
  hosts: [myapp.com]
  gateways: [myapp-gateway]
  http:
  - route:
    - destination: {host: helloworld, port: {number: 5000}}
"""

_WELCOME = """\
A mesh is ready. `kubectl` and `kubectl mesh` use it as its administrator. In it are

- the Service default/helloworld, port 5000, with the pods helloworld-v1-0 and helloworld-v2-0
- the pod default/client with a sidecar:
      client curl -H 'Host: helloworld:5000' localhost:5000/hello
- the gateway istio-system/ingress, whose pod has the label istio: ingressgateway, with the
  VirtualService default/myapp of the host myapp.com:
      node curl -H 'Host: myapp.com' {ingress}:8080/hello
- Envoy's own view, and istiod's:
      client curl localhost:15000/config_dump
      node curl localhost:8080/debug/syncz

`client COMMAND` and `node COMMAND` run any command in the network of that pod or of the node.
Users who may do nothing yet ({users}): --kubeconfig $KUBECONFIG_ALICE, ...
There is no kubelet and no controller: a Deployment makes no pods, and there is nothing to exec
into. All logs are in {folder}. Ctrl-D ends it all.
"""


def _interactive(environment: Mapping[str, str], folder: Path) -> list[str | Path]:
    """The user's shell, or sh. What bash reads at its start must not lead kubectl elsewhere."""
    shell = shutil.which(os.environ.get("SHELL", "")) or "/bin/sh"
    if Path(shell).name != "bash":
        return [shell]
    ours = [f"export {name}={shlex.quote(environment[name])}" for name in ("KUBECONFIG", "PATH")]
    lines = ["[ -f ~/.bashrc ] && . ~/.bashrc", *ours, "PS1='(mesh) '$PS1"]
    (folder / "bashrc").write_text("\n".join(lines) + "\n")
    return [shell, "--rcfile", folder / "bashrc"]


def _write_command(path: Path, host: Host) -> None:
    """A command that runs its arguments in the host's network namespace."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, host.command()))} "$@"\n')
    path.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
