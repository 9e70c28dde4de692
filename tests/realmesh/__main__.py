"""`python -m tests.realmesh`: the real control plane of the tests, for people."""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys

from .apiserver import USERS, ApiServer
from .build import PARTS, BuildError, NotBuilt, build
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
    builds = "build what is missing into the cache: etcd, kube-apiserver, istioctl and istiod"
    build_parser = commands.add_parser("build", help=builds, description=builds)
    build_parser.add_argument("parts", nargs="*", type=_part, metavar="PART", help=", ".join(PARTS))
    shell = "boot an API server with Istio's resource definitions and open a shell that uses it"
    commands.add_parser("shell", help=shell, description=shell)
    return parser


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {name!r}: there are {', '.join(PARTS)}")
    return name


def _shell() -> None:
    """A shell with KUBECONFIG set; the server goes when the shell ends."""
    _say("starting etcd and kube-apiserver ...")
    with ApiServer() as server:
        _say(f"{server.url} is ready; `kubectl` and `kubectl mesh` use it as its administrator.")
        for name in USERS:
            _say(f"{name}, who may do nothing yet: --kubeconfig {server.user(name)}")
        _say("Ctrl-D ends it all.")
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=server.environment())


if __name__ == "__main__":
    sys.exit(main())
