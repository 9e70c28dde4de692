"""KM901: a field has a type that the API server refuses."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.schema import MAX_FAULTS
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for resource in snapshot.everything():
        for number, fault in enumerate(resource.faults, 1):
            hint = ", and there may be more of the kind" if number == MAX_FAULTS else ""
            if fault.lacks_quotes:
                hint = ": put it in quotes"
            yield RULE.finding(
                resource,
                fault.path,
                f"{dotted(fault.path)} must be {fault.expected}, but is {fault.found}{hint}",
                traffic="none changes: the API server refuses the whole object",
                next="correct the field; the other rules looked at the object without it",
            )


RULE = Rule(
    code="KM901",
    name="wrong-type",
    severity=Severity.ERROR,
    summary="A field has a type that the API server refuses.",
    explanation="""\
The API server refuses the whole object, so what the manifest says never comes about. Only fields
that some rule reads are judged. The other rules examine the object as if the field were absent.

Frequent cases: a label such as `version: 1` or `enabled: yes` without quotes (YAML reads a number
and a boolean), a list where a single value is wanted or the other way round.""",
    fix="Correct the field; put numbers and words such as `yes` in quotes where a string belongs.",
    reference="https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"
    "#syntax-and-character-set",
    needs=(),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews, version: 1}
  ports: [{name: http, port: 9080}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews, version: "1"}
  ports: [{name: http, port: 9080}]
""",
)
