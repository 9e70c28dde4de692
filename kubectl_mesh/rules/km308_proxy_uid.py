"""KM308: a container runs as the user whose traffic goes past the sidecar."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.injection import PROXY, is_gateway
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import Finding, Rule, Severity

PROXY_UID = 1337


def check(snapshot: Snapshot) -> Iterator[Finding]:
    for workload in snapshot.workloads.owners:
        if snapshot.is_system(workload.namespace) or is_gateway(workload):
            continue
        as_proxy = _as_proxy(workload)
        if not as_proxy:
            continue
        sidecar = snapshot.has_sidecar(workload)
        if sidecar is not False:
            for path, names in as_proxy.items():
                yield _finding(workload, path, names, bool(sidecar))


def _as_proxy(workload: Workload) -> dict[Path, list[str]]:
    """The containers that run as the proxy's user, by the field that says so."""
    found: dict[Path, list[str]] = {}
    of_pod = (workload.pod_spec.get("securityContext") or {}).get("runAsUser")
    for path, container in workload.containers:
        if container.get("name") == PROXY:
            continue
        own = (container.get("securityContext") or {}).get("runAsUser")
        if own is None:
            path = (*workload.template_path, "spec")
        if (of_pod if own is None else own) == PROXY_UID:
            names = found.setdefault((*path, "securityContext", "runAsUser"), [])
            names.append(container.get("name") or "")
    return found


def _finding(workload: Workload, path: Path, names: list[str], sure: bool) -> Finding:
    return RULE.finding(
        workload.resource,
        path,
        f"container {', '.join(names)} of {workload} runs as user {PROXY_UID}, "
        "which is that of the sidecar",
        traffic="its requests go past the sidecar" + ("" if sure else ", if the pod has one") + ": "
        "no route, retry or timeout applies to them, and where strict mTLS is asked for they are "
        "refused",
        next="run it as another user",
        severity=Severity.ERROR if sure else Severity.WARNING,
    )


RULE = Rule(
    code="KM308",
    name="proxy-uid",
    severity=Severity.ERROR,
    summary="A container runs as the user whose traffic goes past the sidecar.",
    explanation="""\
The rules that lead a pod's traffic into its sidecar let the traffic of user 1337 through, or what
the sidecar itself sends would come back to it. An application that runs as user 1337 is taken for
the sidecar: its requests meet no routing rule and carry no mTLS.

A container's `runAsUser` counts before the pod's. Init containers may run as 1337, to reach the
network before the sidecar is up. Silent for pods that certainly have no sidecar; a warning where
that is not known.""",
    fix="Choose another `runAsUser`.",
    reference="https://istio.io/latest/docs/ops/deployment/application-requirements/",
    needs=(),
    uses=("Namespace", *WORKLOAD_KINDS),
    equivalents=("IST0144",),
    check=check,
    bad="""\
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      securityContext: {runAsUser: 1337}
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
    good="""\
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      securityContext: {runAsUser: 1000}
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
)
