"""KM999: a rule of ours crashed; the others ran."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Path, Resource, ResourceId
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


class _Builtin:
    """The origin of the stand-in object that a crash is reported on."""

    name = ""

    def locate(self, path: Path) -> None:
        return None


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    """Finds nothing by itself: the findings are made where a rule crashes."""
    return iter(())


def finding(crashed: Rule, error: Exception) -> Finding:
    """The finding for a rule that raised `error`, on an object that stands for the rule."""
    identity = ResourceId("Rule", "", crashed.code)
    resource = Resource(identity, "mesh.kubectl.dev/v1", {}, {}, _Builtin())
    return RULE.finding(
        resource,
        (),
        f"the rule {crashed.code} ({crashed.name}) crashed: {type(error).__name__}: {error}",
        traffic="not known: what this rule looks for was not looked for",
        next="run again with -v for the traceback and report it as a bug, with the manifests",
    )


RULE = Rule(
    code="KM999",
    name="rule-crashed",
    severity=Severity.ERROR,
    summary="A rule of kubectl mesh crashed. The other rules ran.",
    explanation="""\
This is a fault of `kubectl mesh`, not of the mesh. What the rule looks for was not looked for, so
the report is incomplete, and says so with the severity of an error.""",
    fix="""\
Run the command again with `-v`, which prints the traceback, and report it. Until it is mended,
`--skip-rule CODE` leaves the rule out.""",
    reference="https://github.com/kubectl-mesh/kubectl-mesh/issues",
    needs=(),
    check=check,
    bad="",
    good="",
)
