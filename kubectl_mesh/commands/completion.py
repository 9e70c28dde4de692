"""`kubectl mesh completion`: what lets kubectl complete the words of this plugin."""

from __future__ import annotations

import argparse

from kubectl_mesh.term import emit

_SCRIPT = """\
#!/bin/sh
# kubectl, 1.26 or later, runs this to complete `kubectl mesh ...`, if its own completion is set up
# in your shell (`kubectl completion --help`). It has to be on PATH as kubectl_complete-mesh. pip
# brings it along; where krew installed the plugin, this puts it there, once:
#
#   kubectl mesh completion > "${KREW_ROOT:-$HOME/.krew}/bin/kubectl_complete-mesh" &&
#     chmod +x "${KREW_ROOT:-$HOME/.krew}/bin/kubectl_complete-mesh"
#
# It is yours: `kubectl krew uninstall mesh` leaves it there.
exec kubectl mesh __complete "$@"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "How to install what it prints stands in it."


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    emit(_SCRIPT)
    return 0
