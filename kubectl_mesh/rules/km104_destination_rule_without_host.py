"""KM104: a DestinationRule is for a host that nothing provides."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.destinations import absent


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for rule in snapshot.destination_rules.all:
        absence = absent(snapshot, rule.host, rule.export) if rule.host else None
        if isinstance(absence, Skip):
            yield absence
        elif absence is not None:
            yield RULE.finding(
                rule.resource,
                ("spec", "host"),
                f"spec.host is {rule.host}, which no Service and no ServiceEntry provides{absence}",
                traffic="none: its subsets and policies apply to no request",
                next="correct spec.host, or delete the DestinationRule",
            )


RULE = Rule(
    code="KM104",
    name="destination-rule-without-host",
    severity=Severity.WARNING,
    summary="A DestinationRule is for a host that no Service and no ServiceEntry provides.",
    explanation="""\
The subsets and traffic policies of such a rule apply to nothing. Often the host is misspelt, or
written as `name.namespace`, which Istio takes as it stands. Wildcard hosts are not judged. With
manifests alone the rule speaks as KM103 does: only where the input holds at least one Service of
the namespace that the host names, and never of namespaces of Kubernetes and of Istio.""",
    fix="""\
Correct `spec.host`; write Services of other namespaces in full. Delete the rule where the Service
is gone for good.""",
    reference="https://istio.io/latest/docs/reference/config/networking/destination-rule/"
    "#DestinationRule",
    needs=("DestinationRule", "Service", "ServiceEntry"),
    uses=("VirtualService", "Gateway", "Namespace", "Canary", *WORKLOAD_KINDS, KUBERNETES_GATEWAY),
    equivalents=("IST0174", "KIA0202"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: review
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
""",
)
