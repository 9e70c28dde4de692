"""KM902: one object stands twice in the manifests."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for resource in snapshot.everything():
        others = [
            earlier
            for earlier in snapshot.replaced.get(resource.id, ())
            if earlier.raw != resource.raw
        ]
        if not others:
            continue
        yield RULE.finding(
            resource,
            ("metadata", "name"),
            f"{resource} is defined more than once, differently: "
            f"{', '.join(_place(other) for other in (*others, resource))}",
            traffic="as the one that is applied last says; only the last of these was examined",
            next="keep one of them, or examine the alternatives one at a time",
        )


def _place(resource: Resource) -> str:
    position = resource.origin.locate(())
    return f"{position.file}:{position.line}" if position else resource.origin.name


RULE = Rule(
    code="KM902",
    name="duplicate-manifest",
    severity=Severity.WARNING,
    summary="Two manifests of the input are for the same object, and differ.",
    explanation="""\
`kubectl apply` takes them one after the other, so the later one replaces the earlier. The other
rules look at the later one only. A folder that holds alternatives of one object (one for each
stage of a rollout, say) should be examined a stage at a time.""",
    fix="Keep one of them, or give them different names or namespaces.",
    reference="https://kubernetes.io/docs/concepts/overview/working-with-objects/names/",
    needs=(),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 80}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec:
  ports: [{name: http, port: 80}]
""",
)
