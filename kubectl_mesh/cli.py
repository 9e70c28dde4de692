"""The command line: which commands there are, and how errors become exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from kubectl_mesh import __version__
from kubectl_mesh.errors import MeshError
from kubectl_mesh.flags import command_of

COMMANDS: Mapping[str, str] = {
    "doctor": "Find what is wrong with the routing of a mesh, in a cluster or in manifests",
    "fix": "Repair what the doctor finds: shown as a diff, written into manifests or applied",
    "apply": "Bring manifests into a cluster in the order in which no request fails",
    "merge-vs": "Make one VirtualService of several, and prove what that changes",
    "undo": "Take back what was applied to a cluster",
    "route": "Say where a request or a connection goes, and why",
    "compare": "Say which requests two states of a mesh treat differently",
    "explain": "Say what a rule looks for, why it matters and how to repair it",
    "version": "Say which versions of kubectl mesh, Kubernetes and Istio there are",
    "completion": "Print what lets kubectl complete the words of this plugin",
}
"""Each is a module of kubectl_mesh.commands, with _ for -, that has configure(parser) and
run(args) -> int.
"""

INTERRUPTED = 130
_COMPLETE = "__complete"


class _Parser(argparse.ArgumentParser):
    """argparse with kubectl's way of saying what is wrong."""

    def error(self, message: str) -> NoReturn:
        from kubectl_mesh.term import safe

        self.exit(2, f"error: {safe(message)}\nSee '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status; nothing is raised but SystemExit."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        if arguments[:1] == [_COMPLETE]:
            with _quiet() if argv is None else contextlib.nullcontext():
                return _complete(arguments[1:])
        args = _parse(arguments)
        status = _run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return MeshError.exit_status


def complete() -> int:
    """`kubectl_complete-mesh`, which kubectl runs for each word that is to be completed."""
    sys.argv.insert(1, _COMPLETE)
    return main()


def _complete(words: list[str]) -> int:
    from kubectl_mesh.completion import offer

    sys.stdout.write(str(offer(_parser_for(words[:-1]), words)))
    sys.stdout.flush()
    return 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without a terminal: a plugin for credentials may not ask, tell, nor outlive the question."""
    alone = True
    try:
        os.setsid()
    except OSError:
        alone = False
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 2)
    try:
        yield
    finally:
        if alone:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)


def _run(args: argparse.Namespace) -> int:
    try:
        return int(_module(args.command).run(args))
    except MeshError as error:
        if getattr(args, "verbose", 0):
            import traceback

            traceback.print_exc()
        from kubectl_mesh.term import safe

        print(f"error: {safe(str(error))}", file=sys.stderr)
        return error.exit_status


def _module(command: str) -> Any:
    return importlib.import_module(f"kubectl_mesh.commands.{command.replace('-', '_')}")


def _parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the flags of that command alone which is among the arguments."""
    parser = _Parser(
        prog=_program(),
        description="Finds what is wrong with the routing of an Istio mesh, and says why.",
        epilog=f"Run '{_program()} COMMAND --help' for the flags of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kubectl-mesh {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=_Parser
    )
    chosen = command_of(arguments)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            _module(name).configure(command)
            command.set_defaults(parser=command)
    return parser


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _parser_for(arguments)
    args, unknown = parser.parse_known_args(arguments)
    if args.command is None:
        parser.print_help()
        raise SystemExit(2)
    if unknown:
        hint = "" if unknown[0].startswith("-") else f"; did you mean -f {unknown[0]}?"
        _Parser(prog=f"{parser.prog} {args.command}").error(f"unknown: {' '.join(unknown)}{hint}")
    return args


def _program() -> str:
    """The command as the user typed it, as far as a program can know."""
    name = os.path.basename(sys.argv[0])
    if name.startswith("kubectl-"):
        return name.replace("-", " ", 1)
    return "python -m kubectl_mesh" if name == "__main__.py" else "kubectl mesh"
