"""Flags that several commands share, spelt as kubectl spells them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.versions import NEWEST, Istio, istio_given, written

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 24 * 3600.0

INPUT, CLUSTER = "what to look at", "which cluster, as for kubectl"
"""The headings of flags that several commands share."""
_OF_OUTPUT = ("output", "no_headers", "color", "verbose")


def duration(text: str) -> float | None:
    """Seconds of a kubectl duration (1s, 2m, 1m30s, or a bare number of seconds); None for 0.

    Raises argparse.ArgumentTypeError for any other text, and for more than 24 hours.
    """
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        parts = _DURATION.findall(text)
        if not parts or "".join(map("".join, parts)) != text:
            raise argparse.ArgumentTypeError(f"{text!r} is no duration; expected 30s, 2m or 0")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too long; expected 24h at most, or 0")
    return seconds or None


def istio(text: str) -> Istio:
    """The Istio of a version (1.27, 1.27.3). Raises argparse.ArgumentTypeError for no version."""
    try:
        return istio_given(text, "--istio-version")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def command_of(arguments: Sequence[str]) -> str | None:
    """The command among arguments: before it there are flags alone."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def comma_separated(flags: Sequence[str] | None) -> list[str]:
    """The values of a repeatable flag that may also hold several, parted by commas."""
    return [part.strip() for flag in flags or () for part in flag.split(",") if part.strip()]


@dataclass(frozen=True)
class _Words:
    """How the user gave an argument its value. `group` is the heading that it is under."""

    dest: str
    group: str | None
    words: Sequence[str]


@dataclass(frozen=True)
class Given:
    """What the user gave to a command, to be given to the next one."""

    command: str
    arguments: Sequence[_Words]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Given:
        """What is in `args`, which has its own parser as `parser`."""
        found = (
            _Words(each.dest, each.container.title, _given(each, getattr(args, each.dest, None)))
            for each in args.parser._actions
        )
        return cls(args.command, tuple(each for each in found if each.words))

    def again(
        self,
        command: str,
        *words: str,
        last: str = "",
        only: Collection[str] = (),
        without: Collection[str] = (),
    ) -> str:
        """A command line for a shell: some words, what the user gave to this one, a `last` word.

        With `only` it takes the arguments of these groups, or of these names, alone. It leaves out
        those `without`, and what is about the output. A token is not shown.
        """
        given = [
            word
            for each in self.arguments
            if each.dest not in (*_OF_OUTPUT, *without)
            and (not only or {each.group, each.dest} & {*only})
            for word in each.words
        ]
        return shlex.join(["kubectl", "mesh", command, *words, *given, *filter(None, (last,))])


def _given(action: argparse.Action, value: Any) -> list[str]:
    """What the user wrote to give an argument its value; nothing for the default."""
    default = action.default
    if isinstance(default, str) and callable(action.type):
        default = action.type(default)
    if value == default or action.default == argparse.SUPPRESS:
        return []
    values = [_text(each) for each in (value if isinstance(value, list) else [value])]
    if not action.option_strings:
        return values
    name = action.option_strings[0]
    if action.nargs == 0:
        return [name]
    if action.dest == "token":
        values = ["..."]
    return [
        word
        for each in values
        for word in ([f"{name}={each}"] if each.startswith("-") and each != "-" else [name, each])
    ]


def _text(value: object) -> str:
    """A value as it is given on a command line; those of no other type are durations."""
    if value is None:
        return "0"
    if isinstance(value, Istio):
        return value.text
    return f"{value:g}s" if isinstance(value, float) else str(value)


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(INPUT)
    group.add_argument(
        "-f",
        "--filename",
        action="append",
        metavar="FILE",
        help="manifests, not a cluster: a file, a folder, or - for standard input; repeatable",
    )
    add_folder_flags(group)
    group.add_argument(
        "--with-cluster",
        action="store_true",
        help="lay the manifests of -f over the cluster: what would be wrong after applying them",
    )
    group.add_argument(
        "-n",
        "--namespace",
        help="only this namespace; default: the context's, and all of them with -f",
    )
    group.add_argument("-A", "--all-namespaces", action="store_true", help="every namespace")
    group.add_argument(
        "--mesh-config",
        metavar="FILE",
        help="the MeshConfig; default: ConfigMap istio, or istio-REVISION, of the input, else "
        "Istio's defaults",
    )
    add_version_flag(group)


def add_version_flag(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--istio-version",
        metavar="VERSION",
        type=istio,
        help="the version of Istio; default: istiod's, or that of the proxies, else "
        f"{written(NEWEST)}",
    )


def add_folder_flags(group: argparse._ArgumentGroup) -> None:
    """How -f reads folders, and -k in its place."""
    group.add_argument(
        "-R", "--recursive", action="store_true", help="read the folders below a folder, too"
    )
    group.add_argument(
        "-k",
        "--kustomize",
        metavar="DIR",
        help="in place of -f: one kustomization, rendered",
    )
    group.add_argument(
        "--render",
        action="append",
        metavar="never|remote|helm",
        help="never: read the files of kustomizations as they are; remote: fetch what "
        "kustomizations take from elsewhere; helm: render Helm charts, too; default: "
        "kustomizations, from local files",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="files of a folder that are no Kubernetes manifests are failures",
    )


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(CLUSTER)
    group.add_argument("--kubeconfig", metavar="FILE")
    group.add_argument("--context")
    group.add_argument("--cluster")
    group.add_argument("--user")
    group.add_argument("-s", "--server", metavar="URL")
    group.add_argument("--token")
    group.add_argument("--as", dest="as_user", metavar="USER")
    group.add_argument("--as-group", dest="as_groups", action="append", metavar="GROUP")
    group.add_argument("--as-uid", metavar="UID")
    group.add_argument("--tls-server-name", metavar="NAME")
    group.add_argument("--insecure-skip-tls-verify", action="store_true")
    group.add_argument(
        "--request-timeout",
        type=duration,
        metavar="TIME",
        default="30s",
        help="how long one request may take: 30s (the default), 2m, 0 for no limit",
    )


def add_output_flags(
    parser: argparse.ArgumentParser, formats: tuple[str, ...], *, lists: bool = True
) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", choices=formats, default=formats[0], help="default: %(default)s"
    )
    if lists:
        group.add_argument(
            "--no-headers", action="store_true", help="the list alone: no counts beside it"
        )
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list the files that are skipped; print tracebacks of errors",
    )
