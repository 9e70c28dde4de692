"""KM102: a subset's labels select none of the pods of its host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache, partial

from kubectl_mesh.mesh.added_labels import ADDED, adders, endpoint_has
from kubectl_mesh.mesh.destination_rules import Subset
from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.registry import Service, endpoint_labels
from kubectl_mesh.mesh.schema import KUBERNETES_GATEWAY
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, undecided


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    used: dict[tuple[str, str], Destination] = {}
    for host, destinations in snapshot.virtual_services.by_destination_host.items():
        for destination in destinations:
            if destination.subset and not destination.idle:
                used.setdefault((host, destination.subset), destination)
    endpoints_of = cache(partial(_endpoints, snapshot))
    for rule in snapshot.destination_rules.all:
        if not is_wildcard(rule.host):
            for subset in rule.subsets:
                user = used.get((rule.host, subset.name))
                yield from _check(snapshot, subset, rule.host, endpoints_of(rule.host), user)
    for (host, name), destination in used.items():
        for subset in snapshot.destination_rules.defining(host, name):
            if is_wildcard(subset.rule.host):
                yield from _check(snapshot, subset, host, endpoints_of(host), destination)


_QUESTION = "whether subsets select pods"
_Pods = Workload | None
"""What an endpoint is a pod of; None where a ServiceEntry or a WorkloadEntry lists it."""


class _Endpoints:
    """The labels of each endpoint of a host. Pods that are alike count once."""

    def __init__(self, endpoints: Iterable[tuple[Mapping[str, str], _Pods]]) -> None:
        self._all: dict[object, tuple[Mapping[str, str], _Pods]] = {}
        for labels, pods in endpoints:
            nature = pods if pods and not pods.exists else bool(pods)
            self._all.setdefault((frozenset(labels.items()), nature), (labels, pods))
        self._by_label: dict[tuple[str, str], list[tuple[Mapping[str, str], _Pods]]]
        self._by_label = defaultdict(list)
        for endpoint in self._all.values():
            for label in endpoint[0].items():
                self._by_label[label].append(endpoint)
        self._by_version = [each for each in self._all.values() if each[1] and each[1].by_version]
        self.differing = cache(self._differing)

    def have(self, wanted: Mapping[str, str]) -> bool | None:
        """Whether an endpoint has all labels that are wanted; None where an added one decides."""
        if any(wanted.items() <= labels.items() for labels, _ in self._with(wanted)):
            return True
        ordinary = {key: value for key, value in wanted.items() if key not in ADDED}
        candidates = self._with(ordinary) if len(ordinary) < len(wanted) else ()
        found = {
            pods.bear(wanted) if pods else endpoint_has(labels, wanted)
            for labels, pods in (*candidates, *self._by_version)
        }
        return True if True in found else None if None in found else False

    def _with(self, labels: Mapping[str, str]) -> Collection[tuple[Mapping[str, str], _Pods]]:
        """The endpoints among which are all that have some labels."""
        if not labels:
            return self._all.values()
        return min((self._by_label.get(label, []) for label in labels.items()), key=len)

    def _differing(self, keys: tuple[str, ...]) -> list[str]:
        """What the endpoints have for some labels, in order, each only once."""
        return sorted(
            {
                ",".join(f"{key}={labels[key]}" for key in keys if key in labels)
                or f"no label {' or '.join(keys)}"
                for labels, _ in self._all.values()
            }
        )

    def __bool__(self) -> bool:
        return bool(self._all)


def _endpoints(snapshot: Snapshot, host: str) -> _Endpoints | Skip:
    """The endpoints of a host; a Skip where they are not known."""
    endpoints: list[tuple[Mapping[str, str], _Pods]] = []
    for service in snapshot.registry.providers(host):
        if service.selector and (reason := snapshot.unknown_workloads(service.namespace)):
            return Skip(f"{_QUESTION}: {reason}")
        endpoints += _endpoint_labels(snapshot, service)
    return _Endpoints(endpoints)


def _check(
    snapshot: Snapshot,
    subset: Subset,
    host: str,
    endpoints: _Endpoints | Skip,
    user: Destination | None,
) -> Iterator[Finding | Skip]:
    if isinstance(endpoints, Skip):
        yield endpoints
    elif endpoints:
        selects = endpoints.have(subset.labels)
        if selects is None:
            yield Skip(
                f"whether subsets of {host} select pods: {adders(subset.labels)}, with values "
                "that are not known",
                beyond=True,
            )
        elif not selects:
            of_pods = any(service.selector for service in snapshot.registry.providers(host))
            skip = undecided(snapshot, _QUESTION, None) if of_pods else None
            yield skip or _finding(subset, host, endpoints, user)


def _endpoint_labels(
    snapshot: Snapshot, service: Service
) -> Iterator[tuple[Mapping[str, str], _Pods]]:
    for labels in endpoint_labels(service):
        yield labels, None
    if service.selector:
        for workload in snapshot.pods_of(service):
            yield workload.labels, workload
        if not service.is_kubernetes:
            for entry in snapshot.workload_entries(service.namespace, service.selector):
                yield entry.spec.get("labels") or entry.labels, None


def _finding(subset: Subset, host: str, endpoints: _Endpoints, user: Destination | None) -> Finding:
    wanted = ",".join(f"{key}={value}" for key, value in sorted(subset.labels.items()))
    found = endpoints.differing(tuple(sorted(subset.labels)))
    resource = subset.rule.resource
    if user is None:
        traffic = "none today: no route names the subset; a route to it would give 503"
    elif user.role == "mirror":
        traffic = "the copies of requests are lost; the requests themselves are answered"
    elif user.protocol == "http":
        traffic = "requests routed to it get 503 (response flag UH: no healthy upstream)"
    else:
        traffic = "connections routed to it are closed at once"
    return RULE.finding(
        resource,
        (*subset.path, "labels"),
        f"subset {subset.name} of {host} selects {wanted}, which no pod of the host has",
        traffic=traffic,
        next=f"correct the labels, or deploy pods with {wanted} before routing to the subset",
        severity=Severity.ERROR if user else Severity.INFO,
        evidence=(f"the pods of {host} have: {'; '.join(found[:5])}",),
        related=(user.virtual_service.resource.id,) if user else (),
    )


RULE = Rule(
    code="KM102",
    name="subset-without-pods",
    severity=Severity.ERROR,
    summary="A subset's labels select none of the pods of its host.",
    explanation="""\
A subset is the part of a host's pods that bear certain labels **besides** those of the Service's
selector. Where no pod does, Envoy has a cluster without endpoints, and requests routed to it get
**503** with the response flag `UH`.

Labels that somebody else adds to pods or endpoints count as they are added: Kubernetes names the
pods of a StatefulSet, istiod adds the node's zone and the cluster, Argo Rollouts the hash of a
version. Where only such a label decides, and its value is not in the input, nothing is said; nor
is it in a mesh of several clusters, where the pods may be in another one.

Templates of Deployments and other workloads count as pods, so that a subset whose pods are just
being started gives no finding. It is an error where some route, mirror or delegate names the
subset, and no more than worth knowing where none does: a subset that is there before its pods is
the safe order. Nothing is said where the workloads of the namespace are not known, or where the
Service selects no pod at all (KM311 says that).""",
    fix="""\
Compare the labels of the subset with `kubectl get pods --show-labels`. Either correct the subset's
labels, or give the pods the label (in the workload's template, which restarts them). Until then let
no route name the subset.""",
    reference="https://istio.io/latest/docs/reference/config/networking/destination-rule/#Subset",
    needs=("DestinationRule", "Service", *WORKLOAD_KINDS),
    uses=(
        "VirtualService",
        "ServiceEntry",
        "WorkloadEntry",
        "Gateway",
        "Namespace",
        KUBERNETES_GATEWAY,
    ),
    equivalents=("IST0173", "KIA0203"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector:
    matchLabels: {app: reviews, version: v1}
  template:
    metadata:
      labels: {app: reviews, version: v1}
    spec:
      containers: [{name: reviews, image: reviews, ports: [{containerPort: 9080}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v2
    labels: {version: v2}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector:
    matchLabels: {app: reviews, version: v1}
  template:
    metadata:
      labels: {app: reviews, version: v1}
    spec:
      containers: [{name: reviews, image: reviews, ports: [{containerPort: 9080}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
""",
)
