"""KM900: a part of the input could not be read."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    """Finds nothing by itself: what could not be read stands among the skipped."""
    return iter(())


RULE = Rule(
    code="KM900",
    name="unreadable-input",
    severity=Severity.ERROR,
    summary="A part of the input could not be read, and was not examined.",
    explanation="""\
A file that is missing, empty, binary or too large, a document that is no YAML or no Kubernetes
object. It is listed with file, line and column among what was skipped; all other documents are
examined. Where nothing else is found the exit status is 3.

In a folder only a broken manifest is an error. Files that are not meant to be manifests are skipped
and counted; `--strict` makes them errors. A kustomization that could not be rendered is an error,
too, with the reason that kustomize gives. A Helm chart is named with the command that renders it.

YAML is read as kubectl reads it: a key that stands twice is refused, as are tags. The commonest
slip is a key that is indented into the list above it:

```yaml
hosts:
- myapp.com
  gateways:        # is `gateways` indented too far?
  - myapp-gateway
```""",
    fix="Correct the line that is named.",
    reference="https://kubernetes.io/docs/concepts/overview/working-with-objects/",
    needs=(),
    check=check,
    bad="",
    good="",
)
