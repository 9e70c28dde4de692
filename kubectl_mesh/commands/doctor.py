"""`kubectl mesh doctor`: finds what is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass

from kubectl_mesh.commands.inputs import Inputs, take_meshes
from kubectl_mesh.commands.output import Output
from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import (
    CLUSTER,
    INPUT,
    Given,
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
    comma_separated,
)
from kubectl_mesh.report import FORMATS, write
from kubectl_mesh.rules.examine import Report, examine_all
from kubectl_mesh.rules.ignore import Ignores
from kubectl_mesh.rules.named import chosen
from kubectl_mesh.rules.rule import Rule, Severity
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import emit, safe

RULES_MEANT = "what to look for"
_THRESHOLDS = {severity.label: severity for severity in reversed(Severity)}


_EPILOG = """\
examples:
  {prog}                                   the namespace of the context, in the cluster
  {prog} -f manifests/ -R                  manifests, no cluster
  {prog} -f . -R                           a repository, its kustomizations rendered
  {prog} -k overlays/prod                  one kustomization
  {prog} -f change.yaml --with-cluster     the cluster as it will be once applied

exit status:
  0  nothing at or above --fail-on was found
  1  something was found
  2  the command line is at fault
  3  something could not be examined, and nothing at or above --fail-on was found
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    add_input_flags(parser)
    group = add_rule_flags(parser)
    group.add_argument(
        "--fail-on",
        choices=(*_THRESHOLDS, "never"),
        default="error",
        help="exit with 1 from this severity on (default: %(default)s)",
    )
    add_output_flags(parser, tuple(FORMATS))
    add_cluster_flags(parser)


def add_rule_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The flags that say which findings are meant, for RulesMeant."""
    group = parser.add_argument_group(RULES_MEANT)
    group.add_argument(
        "--rule",
        action="append",
        metavar="CODE",
        help="only these rules: KM101, undefined-subset, KM1 for all that begin so, or the code of "
        "istioctl analyze or Kiali for the same; repeatable",
    )
    group.add_argument("--skip-rule", action="append", metavar="CODE", help="not these; as --rule")
    group.add_argument(
        "--ignore",
        action="append",
        metavar="CODE[=KIND/NAMESPACE/NAME]",
        help="leave out findings, of one object or of all; CODE as for --rule, but whole; "
        "repeatable",
    )
    return group


@dataclass(frozen=True)
class RulesMeant:
    """Which findings are meant: those of `rules`, but for what is ignored."""

    rules: tuple[Rule, ...]
    ignores: Ignores

    @classmethod
    def of(cls, args: argparse.Namespace) -> RulesMeant:
        """Raises UsageError where the flags name no rule, or one that is none."""
        if args.rule and not comma_separated(args.rule):
            raise UsageError("--rule names no rule")
        rules = chosen(comma_separated(args.rule), comma_separated(args.skip_rule))
        return cls(rules, Ignores(comma_separated(args.ignore)))

    @property
    def kinds(self) -> Collection[str]:
        """The kinds that the rules look at."""
        return {kind for rule in self.rules for kind in (*rule.needs, *rule.uses)}


def run(args: argparse.Namespace) -> int:
    meant, inputs, output = RulesMeant.of(args), Inputs.of(args), Output.of(args)
    if args.rule and all(rule.compares for rule in meant.rules) and not inputs.with_cluster:
        codes = ", ".join(rule.code for rule in meant.rules)
        raise UsageError(f"{codes} compares manifests with a cluster: add -f and --with-cluster")
    with collector_paused():
        meshes, namespaces = take_meshes(inputs, meant.kinds)
        report = examine_all(meshes, meant.rules, meant.ignores, namespaces)
    write(report, output.format, color=output.color, no_headers=output.no_headers)
    if output.format in ("table", "wide") and not output.no_headers:
        emit(_next(Given.of(args), inputs, report))
    if args.verbose:
        print(*report.crashes, sep="\n", end="", file=sys.stderr)
    return exit_status(report, args.fail_on)


def _next(given: Given, inputs: Inputs, report: Report) -> str:
    """The command that comes next; "" for none, as `fix` and `route` look at no overlay."""
    if inputs.with_cluster:
        return ""
    repairable = [finding for finding in report.findings if finding.repairs]
    if repairable:
        line = given.again("fix", only=(INPUT, RULES_MEANT, CLUSTER), without=("fail_on",))
        if inputs.files.hold_stdin:
            line = f"... | {line} -o yaml"  # there is no file to show a diff of
        asked = sum(len(each.repairs) > 1 or bool(each.repairs[0].unsafe) for each in repairable)
        some = f" ({asked} only with a choice or a flag that it names)" if asked else ""
        which = _some_of(len(repairable), len(report.findings))
        return f"To preview repairs for {which}{some}: {safe(line)}\n"
    if report.resources and not report.findings and not any(each.failed for each in report.skipped):
        line = given.again("route", "http://HOST/PATH", only=(INPUT, CLUSTER))
        if inputs.files.hold_stdin:
            line = f"... | {line}"
        return f"To see where one request goes: {safe(line)}\n"
    return ""


def _some_of(number: int, count: int) -> str:
    if number < count:
        return f"{number} of {count} findings"
    return "this finding" if count == 1 else f"all {count} findings"


def exit_status(report: Report, fail_on: str) -> int:
    """0, 1 or 3, as design and --help have it."""
    threshold = _THRESHOLDS.get(fail_on)
    if threshold and any(finding.severity >= threshold for finding in report.findings):
        return 1
    return 3 if any(skip.failed for skip in report.skipped) else 0
