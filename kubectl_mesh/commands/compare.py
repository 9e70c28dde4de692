"""`kubectl mesh compare`: what two states of a mesh treat differently."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kubectl_mesh.commands.inputs import (
    Inputs,
    given_settings,
    name_limits,
    read_manifests,
    take_snapshot,
)
from kubectl_mesh.commands.output import Output
from kubectl_mesh.errors import InputError, UsageError
from kubectl_mesh.flags import (
    add_cluster_flags,
    add_folder_flags,
    add_output_flags,
    add_version_flag,
    comma_separated,
)
from kubectl_mesh.mesh.resource import Unreadable
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import Comparison, compare
from kubectl_mesh.proof.scope import KINDS
from kubectl_mesh.report import Layout, comparison
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import emit, safe

_RENDERERS: Mapping[str, Callable[[Comparison, Sequence[Unreadable], Layout], str]] = {
    "table": comparison.render,
    "json": comparison.render_json,
    "yaml": comparison.render_yaml,
}
_EPILOG = """\
examples:
  {prog} before/ after/ -R          two states of the manifests
  {prog} old.yaml,common.yaml new.yaml,common.yaml
  {prog} -f change.yaml             the cluster now, and once the change is applied

All proxies, ports, hosts and requests are compared, not samples of them: where something had to be
sampled, or could not be decided, the verdict says so. Names of rules and subsets do not count, only
what becomes of requests, and of connections that no http rule is for.

exit status:
  0  every request is treated the same
  1  some are not
  2  the command line is at fault
  3  something could not be read or decided, and nothing else differs
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    parser.set_defaults(with_cluster=True)  # what -f names is laid over it
    parser.add_argument(
        "states",
        nargs="*",
        metavar="BEFORE AFTER",
        help="manifests of the two states: files, folders or -, several parted by commas",
    )
    group = parser.add_argument_group("what to look at")
    group.add_argument(
        "-f",
        "--filename",
        action="append",
        metavar="FILE",
        help="compare the cluster with what it will be once these manifests are applied; "
        "repeatable",
    )
    add_folder_flags(group)
    group.add_argument(
        "-n", "--namespace", help="that of manifests that name none, and the cluster's to look at"
    )
    group.add_argument("-A", "--all-namespaces", action="store_true", help="every namespace")
    group.add_argument(
        "--mesh-config",
        metavar="FILE",
        help="the MeshConfig of both; default: ConfigMap istio or istio-REVISION of each, or none",
    )
    add_version_flag(group)
    add_output_flags(parser, tuple(_RENDERERS))
    add_cluster_flags(parser)


def run(args: argparse.Namespace) -> int:
    inputs, output = Inputs.of(args), Output.of(args)
    with collector_paused():
        before, after = _states(inputs, args.states)
        found = compare(before, after)
    passed_over = dict.fromkeys((*before.unreadable, *after.unreadable))
    unreadable = [each for each in passed_over if each.failed]
    for each in passed_over:
        if not each.failed:
            print(f"Warning: not compared: {safe(str(each))}", file=sys.stderr)
    found.undecided += [f"{each.where} could not be read" for each in unreadable]
    known = {*found.undecided, *map(str, unreadable)}
    found.undecided += [gap for gap in after.gaps if gap not in known]
    name_limits(before, after)
    emit(_RENDERERS[output.format](found, unreadable, output.layout))
    if found.differences:
        return 1
    return 3 if found.undecided else 0


def _states(inputs: Inputs, states: Sequence[str]) -> tuple[Snapshot, Snapshot]:
    """The two states that are named, or a cluster and what it will be with the files over it.

    Raises UsageError where it does not name two, ClusterError where no cluster answers.
    """
    if inputs.has_files:
        if states:
            raise UsageError("-f compares with the cluster: leave BEFORE and AFTER out, or -f")
        after, _ = take_snapshot(inputs, KINDS)
        return after.before or after, after
    if len(states) != 2:
        raise UsageError("name two states, BEFORE and AFTER, or -f AFTER to compare a cluster with")
    if [name for state in states for name in comma_separated([state])].count("-") > 1:
        raise UsageError("standard input cannot be both states")
    before, after = (_read(inputs, state) for state in states)
    return before, after


def _read(inputs: Inputs, state: str) -> Snapshot:
    filenames = comma_separated([state])
    if not filenames:
        raise UsageError(f"{state!r} names no file")
    settings = given_settings(inputs)
    found = read_manifests(replace(inputs.files, names=filenames), inputs.own_namespace)
    resources, unreadable = found.only(), found.unreadable
    if unreadable and not resources:
        raise InputError(f"nothing of {state} could be read: {unreadable[0].reason}", state)
    return Snapshot(resources, settings(resources, None), unreadable=unreadable)
