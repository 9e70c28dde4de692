"""KM103: a route sends to a host that nothing provides."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.hosts import namespace_of
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.destinations import absent, traffic_without_cluster


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for host, destinations in snapshot.virtual_services.by_destination_host.items():
        for destination in destinations:
            if destination.idle:
                continue
            user = destination.virtual_service
            absence = absent(snapshot, host, user.export)
            if isinstance(absence, Skip):
                yield absence
            elif absence is not None:
                certain = (
                    snapshot.coverage.live
                    or (absence != "" and not snapshot.registry.wildcard_over(host))
                    or namespace_of(host, snapshot.config.domain) is not None
                )
                yield _finding(destination, absence, certain)


def _finding(destination: Destination, hint: str, certain: bool) -> Finding:
    host = destination.host
    return RULE.finding(
        destination.virtual_service.resource,
        (*destination.path, "host"),
        f"{dotted(destination.path)} sends to {host}, "
        f"which no Service and no ServiceEntry provides{hint}",
        traffic=traffic_without_cluster(destination),
        next="correct the host, or create the Service (for a host outside, a ServiceEntry) first",
        severity=Severity.ERROR if certain else Severity.WARNING,
    )


RULE = Rule(
    code="KM103",
    name="unknown-host",
    severity=Severity.ERROR,
    summary="A route sends to a host that no Service and no ServiceEntry provides.",
    explanation="""\
For such a host Envoy has no cluster: requests get **503** with the response flag `NC`, or are
dropped where it is a mirror.

A name without a dot is a Service of the **VirtualService's own** namespace. A name with a dot is
taken as it stands: `reviews.prod` is not `reviews.prod.svc.cluster.local`. A ServiceEntry's
wildcard provides none of the names that it covers: proxies have one cluster for it, of the
wildcard's own name. With manifests alone
the rule speaks only where the input holds at least one Service of the namespace that the host
names, and never of namespaces of Kubernetes and of Istio, which no one keeps as a whole; of a host
outside the cluster only where it holds a ServiceEntry, and then as a warning. A Service that
Flagger makes of a Canary counts. Where the mesh has several clusters it cannot decide about
Services, as one may be in another cluster.""",
    fix="""\
Write Services of other namespaces in full (`reviews.prod.svc.cluster.local`). For a host outside
the cluster create a ServiceEntry that lists the host itself.""",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#Destination",
    needs=("VirtualService", "Service", "ServiceEntry"),
    uses=("DestinationRule", "Gateway", "Namespace", "Canary", *WORKLOAD_KINDS, KUBERNETES_GATEWAY),
    equivalents=("IST0101", "KIA1101"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: prod}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: prod}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews.prod}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: prod}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: prod}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews.prod.svc.cluster.local}
""",
)
