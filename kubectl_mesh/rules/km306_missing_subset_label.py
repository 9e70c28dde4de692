"""KM306: pods lack the label by which the subsets of their host are told apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from kubectl_mesh.mesh.added_labels import ADDED
from kubectl_mesh.mesh.destination_rules import DestinationRule
from kubectl_mesh.mesh.resource import field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity


def check(snapshot: Snapshot) -> Iterator[Finding]:
    lacking: dict[tuple[Workload, str], list[DestinationRule]] = defaultdict(list)
    for rule in snapshot.destination_rules.all:
        subsets = [subset.labels.keys() for subset in rule.subsets if subset.labels]
        if not subsets or rule.host.startswith("*"):
            continue
        everywhere = set.intersection(*map(set, subsets))
        for service in snapshot.registry.providers(rule.host):
            for workload in snapshot.pods_of(service) if everywhere else ():
                for key in everywhere - workload.labels.keys():
                    if workload.gets(key):
                        continue
                    lacking[snapshot.workloads.maker(workload), key].append(rule)
    for (workload, key), rules in lacking.items():
        yield _finding(snapshot, workload, key, list(dict.fromkeys(rules)))


def _finding(
    snapshot: Snapshot, workload: Workload, key: str, rules: list[DestinationRule]
) -> Finding:
    hosts = dict.fromkeys(rule.host for rule in rules)
    users = [
        destination.virtual_service.resource
        for host in hosts
        for destination in snapshot.virtual_services.by_destination_host.get(host, ())
        if destination.subset
    ]
    users = list(dict.fromkeys(users))
    if users:
        traffic = f"they get none of what {', '.join(map(str, users))} sends to subsets"
    else:
        traffic = "none is lost yet: no route names a subset; one that does will pass them by"
    names = sorted({subset.name for rule in rules for subset in rule.subsets})
    narrow = "narrow the Service's selector if the pods are not meant to serve it"
    added = ADDED.get(key)
    return RULE.finding(
        workload.resource,
        (*workload.template_path, "metadata", "labels"),
        f"{workload.pods} lack the label {key}, so they are in no subset of "
        f"{', '.join(hosts)} ({', '.join(names)})",
        traffic=traffic,
        next=f"{narrow}: {added.by} adds the label {key}, but not to these"
        if added
        else f"add the label {key} to the pod template, or {narrow}",
        severity=Severity.WARNING if users else Severity.INFO,
        related=tuple(resource.id for resource in (*(rule.resource for rule in rules), *users)),
        repairs=tuple(
            Repair(
                f"{key}={value}",
                f"label {workload.pods} {key}={value}, for subset {name}",
                (
                    Edit(
                        workload.resource,
                        (*workload.template_path, "metadata", "labels", key),
                        value,
                    ),
                ),
                unsafe=f"what is sent to subset {name} arrives there"
                + (
                    "" if workload.resource.kind == "Pod" else ", and pods are replaced by new ones"
                ),
            )
            for value, name in (_values(key, rules) if added is None else {}).items()
            if key not in _template_labels(workload)
        ),
    )


def _template_labels(workload: Workload) -> Mapping[str, str]:
    """The labels that new pods get; those of old pods may differ."""
    path = (*workload.template_path, "metadata", "labels")
    found = field_at(workload.resource.data, path)
    return found if isinstance(found, dict) else {}


def _values(key: str, rules: list[DestinationRule]) -> dict[str, str]:
    """The values that subsets ask of a label, each with the name of the first that does."""
    found: dict[str, str] = {}
    for rule in rules:
        for subset in rule.subsets:
            if key in subset.labels:
                found.setdefault(subset.labels[key], subset.name)
    return found


RULE = Rule(
    code="KM306",
    name="missing-subset-label",
    severity=Severity.WARNING,
    summary="Pods lack the label by which the subsets of their host are told apart.",
    explanation="""\
Subsets select pods by labels, `version` as a rule. A pod that its Service selects but that lacks
the label is in **no** subset: routes to subsets pass it by, and it takes traffic only from routes
to the whole host.

Said of a label that every subset of the host asks for. A pod that has the label with a value of no
subset is taken to be meant so. For information only while no route names a subset of the host.
Labels that nothing selects on may be absent, and so may those that Kubernetes, istiod or Argo
Rollouts add to these pods.""",
    fix="Give the pod template the labels `app` and `version`, and roll the workload out again.",
    reference="https://istio.io/latest/docs/ops/deployment/application-requirements/",
    needs=("DestinationRule", "Service"),
    uses=("VirtualService", "ServiceEntry", *WORKLOAD_KINDS),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector: {matchLabels: {app: reviews, version: v1}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v2}
spec:
  selector: {matchLabels: {app: reviews, release: v2}}
  template:
    metadata: {labels: {app: reviews, release: v2}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector: {matchLabels: {app: reviews, version: v1}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers: [{name: reviews, ports: [{containerPort: 9080}]}]
""",
)
