"""An immutable, indexed set of resources, and what is known of what is not in it.

Every index is built at the first question that needs it, in one pass over one kind.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.canaries import Canaries
from kubectl_mesh.mesh.clusters import sign_of_several
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.destination_rules import DestinationRules
from kubectl_mesh.mesh.gateways import Gateways
from kubectl_mesh.mesh.hosts import namespace_of
from kubectl_mesh.mesh.injection import NEVER_INJECTED, REVISION, has_sidecar, is_gateway
from kubectl_mesh.mesh.registry import Registry, Service
from kubectl_mesh.mesh.resource import Resource, ResourceId, Unreadable
from kubectl_mesh.mesh.schema import KINDS, KUBERNETES_GATEWAY, kind_of
from kubectl_mesh.mesh.sidecars import Sidecars
from kubectl_mesh.mesh.unread import Unread
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.mesh.virtual_services import VirtualServices
from kubectl_mesh.mesh.waypoints import Waypoint, chosen_waypoint, serves_services
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload, Workloads

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a source has looked at.

    `live`: a cluster was read, so that what is not in the snapshot does not exist; manifests on
    disk may be a part of the whole. `missing`: why a kind could not be read, by kind and
    namespace; the namespace None stands for all. `namespaces`: those that were read; None for all.
    `elsewhere`: by kind and namespace, the other part of the input that may complete this one.
    """

    live: bool = False
    missing: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    namespaces: frozenset[str] | None = None
    elsewhere: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PodGroup:
    """The workloads that one selector selects in a namespace, and everything that has it."""

    services: tuple[Service, ...]
    workloads: tuple[Workload, ...]

    @cached_property
    def applications(self) -> tuple[Workload, ...]:
        """The workloads, less the proxies of gateways and waypoints."""
        return tuple(workload for workload in self.workloads if not is_gateway(workload))


def once_per_snapshot(derive: Callable[[Snapshot], T]) -> Callable[[Snapshot], T]:
    """Makes what a function derives from a snapshot at the first question, and keeps it with it."""

    @functools.wraps(derive)
    def derived(snapshot: Snapshot) -> T:
        if derive not in snapshot.derived:
            snapshot.derived[derive] = derive(snapshot)
        found: T = snapshot.derived[derive]
        return found

    return derived


class Snapshot:
    """The resources of one mesh at one time. Where an id occurs twice, the last one counts.

    `unreadable` is what the source could not read. `before` is the live state that the manifests
    of an overlay are laid over; None without an overlay.
    """

    def __init__(
        self,
        resources: Iterable[Resource],
        config: MeshConfig | None = None,
        coverage: Coverage | None = None,
        unreadable: Sequence[Unreadable] = (),
        before: Snapshot | None = None,
    ) -> None:
        self.config = config or MeshConfig()
        self.coverage = coverage or Coverage()
        self.unreadable = tuple(unreadable)
        self.before = before
        self.derived: dict[Callable[[Snapshot], Any], Any] = {}
        """By function, what was derived from it: see once_per_snapshot."""
        by_id: dict[ResourceId, Resource] = {}
        replaced: dict[ResourceId, list[Resource]] = {}
        for resource in resources:
            if kind_of(resource.api_version, resource.kind) is None:
                continue
            earlier = by_id.get(resource.id)
            if earlier is not None:
                replaced.setdefault(resource.id, []).append(earlier)
            by_id[resource.id] = resource
        others = [key for key, each in by_id.items() if not self.reads(each)]
        self.of_other_revisions = tuple(by_id.pop(key) for key in others)
        """What only istiods of other revisions read. Only `everything` tells of it besides."""
        self._by_id = by_id
        self.replaced: Mapping[ResourceId, Sequence[Resource]] = replaced
        """By id, the resources of the input that a later one of the same id replaces."""

    def reads(self, resource: Resource) -> bool:
        """Whether istiod of the revision that is looked at reads an object.

        Istio's objects with another label istio.io/rev it does not; as `inRevision` of istiod's
        client, which does not ask this of Gateways of the Gateway API.
        """
        ours = self.config.revision
        return (
            not ours
            or resource.labels.get(REVISION, ours) == ours
            or not KINDS[resource.kind].is_whole
            or resource.kind == KUBERNETES_GATEWAY
        )

    def run_by(self, istio: Istio) -> Snapshot:
        """The same resources in a mesh of that Istio."""
        return Snapshot(
            self.everything(),
            replace(self.config, istio=istio),
            self.coverage,
            self.unreadable,
            self.before,
        )

    @cached_property
    def _by_kind(self) -> Mapping[str, tuple[Resource, ...]]:
        grouped: dict[str, list[Resource]] = defaultdict(list)
        for resource in self._by_id.values():
            grouped[resource.kind].append(resource)
        return {kind: tuple(members) for kind, members in grouped.items()}

    def __len__(self) -> int:
        return len(self._by_id) + len(self.of_other_revisions)

    def of(self, kind: str) -> tuple[Resource, ...]:
        """Every resource of a kind, in order of input."""
        return self._by_kind.get(kind, ())

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        return self._by_id.get(ResourceId(kind, namespace, name))

    def read(self) -> Iterable[Resource]:
        """Every resource but those that only istiods of other revisions read."""
        return self._by_id.values()

    def everything(self) -> Iterable[Resource]:
        """Every resource of the input."""
        return (*self.read(), *self.of_other_revisions)

    @cached_property
    def gaps(self) -> tuple[str, ...]:
        """What was to be read and could not be, and why."""
        failed = (str(each) for each in self.unreadable if each.failed)
        parts = (*self.coverage.missing.values(), *failed, self.config.fault)
        return tuple(dict.fromkeys(filter(None, parts)))

    def missing(self, kind: str, namespace: str | None = None) -> str | None:
        """Why `kind` could not be read in `namespace` (None: at all); None where it was read."""
        reasons = self.coverage.missing
        if namespace is None:
            return reasons.get((kind, None))
        return reasons.get((kind, None)) or reasons.get((kind, namespace))

    def unknown(self, namespace: str, *kinds: str) -> str | None:
        """Why nothing can be said of the absence of such objects in a namespace; None if it can.

        In a cluster that was read an object that is not there does not exist. Manifests say
        something of a namespace only if they hold at least one object of one of the kinds in it.
        """
        for kind in kinds:
            reason = self.missing(kind, namespace)
            if reason:
                return reason
        coverage = self.coverage
        if coverage.live:
            if coverage.namespaces is None or namespace in coverage.namespaces:
                return None
            return f"the namespace {namespace} was not read"
        for kind in kinds:
            if other := coverage.elsewhere.get((kind, namespace)):
                return f"{other} holds {kind} objects of the namespace {namespace}, too"
        if any(namespace in self._namespaces_by_kind.get(kind, ()) for kind in kinds):
            return None
        listed = " or ".join(kinds)
        return f"the input holds no {listed} of the namespace {namespace}"

    @cached_property
    def _namespaces_by_kind(self) -> Mapping[str, frozenset[str]]:
        return {
            kind: frozenset(resource.namespace for resource in members)
            for kind, members in self._by_kind.items()
        }

    def unknown_workloads(self, namespace: str) -> str | None:
        """As `unknown`, for pods and everything that makes pods."""
        reason = self.unknown(namespace, *WORKLOAD_KINDS)
        if self.coverage.live:
            return reason
        if reason:
            return f"the input holds no workload of the namespace {namespace}"
        for rollout in self.workloads.without_template.get(namespace, ()):
            reference = rollout.spec["workloadRef"]
            return (
                f"{rollout} takes its pods from {reference.get('kind')} {reference.get('name')}, "
                "which is not in the input"
            )
        return None

    def provided_elsewhere(self, host: str) -> str | None:
        """Why a Service that is not here may provide a host: another cluster's, or Flagger's."""
        home = namespace_of(host, self.config.domain)
        if home is None:
            return None
        canary = self.canaries.making("Service", home, host.partition(".")[0])
        return f"Flagger makes the Service of {canary}" if canary else self.elsewhere

    def waypoints_of(self, host: str) -> Iterator[Waypoint]:
        """The waypoints before the Services of a host; one that was not seen is taken to exist."""
        for service in self.registry.providers(host):
            labels = self.namespace_labels(service.namespace) or {}
            found = chosen_waypoint(service.resource, labels)
            if found is None:
                continue
            gateway = self.get(KUBERNETES_GATEWAY, found.namespace, found.name)
            if serves_services(gateway) if gateway else self._may_exist(found):
                yield found

    def _may_exist(self, waypoint: Waypoint) -> bool:
        return self.unknown(waypoint.namespace, KUBERNETES_GATEWAY) is not None

    @cached_property
    def elsewhere(self) -> str | None:
        """Why Services and pods that are not here may be in another cluster of the mesh.

        None where nothing shows that the mesh has several. The objects of Istio are of one cluster.
        """
        kinds = ("Namespace", "Service", KUBERNETES_GATEWAY)
        labelled = (each for kind in kinds for each in self.of(kind))
        sign = sign_of_several(
            self.config,
            labelled,
            self.gateways,
            self.destination_rules,
            self.virtual_services,
            self.workloads,
        )
        return f"{sign}: the mesh has other clusters, which were not read" if sign else None

    def namespace_labels(self, namespace: str) -> Mapping[str, str] | None:
        """The labels of a namespace; None where it is not in the snapshot."""
        found = self.get("Namespace", "", namespace)
        return found.labels if found else None

    def has_sidecar(self, workload: Workload) -> bool | None:
        """Whether a pod has a sidecar, or would get one; None where that cannot be told."""
        return has_sidecar(workload, self.namespace_labels(workload.namespace))

    def is_client(self, workload: Workload) -> bool | None:
        """Whether a pod's own requests meet the rules for the mesh: it has a sidecar.

        The proxy of a gateway has only the rules that are bound to gateways.
        """
        return False if is_gateway(workload) else self.has_sidecar(workload)

    def is_system(self, namespace: str) -> bool:
        """Whether a namespace is Kubernetes' or Istio's own."""
        return namespace in (*NEVER_INJECTED, "istio-system", self.config.root_namespace)

    def pods_of(self, service: Service) -> tuple[Workload, ...]:
        """The workloads that the selector of a Service or a ServiceEntry selects."""
        group = self.group_of(service)
        return group.workloads if group else ()

    def group_of(self, service: Service) -> PodGroup | None:
        """The pods behind a Service or a ServiceEntry; None for one without a selector."""
        return self._group_by_service.get(service)

    @cached_property
    def pod_groups(self) -> tuple[PodGroup, ...]:
        """The pods behind Services and ServiceEntries, those of one selector once."""
        grouped: dict[tuple[str, frozenset[tuple[str, str]]], list[Service]] = defaultdict(list)
        for service in (*self.registry.services, *self.registry.entries):
            if service.selector:
                key = (service.namespace, frozenset(service.selector.items()))
                grouped[key].append(service)
        return tuple(
            PodGroup(tuple(services), self.workloads.select(namespace, dict(labels)))
            for (namespace, labels), services in grouped.items()
        )

    @cached_property
    def _group_by_service(self) -> Mapping[Service, PodGroup]:
        return {service: group for group in self.pod_groups for service in group.services}

    @cached_property
    def groups_by_workload(self) -> Mapping[Workload, tuple[PodGroup, ...]]:
        """The groups that each workload is in; one that nothing selects has no entry."""
        grouped: dict[Workload, list[PodGroup]] = defaultdict(list)
        for group in self.pod_groups:
            for workload in group.workloads:
                grouped[workload].append(group)
        return {workload: tuple(groups) for workload, groups in grouped.items()}

    @cached_property
    def sidecar_namespaces(self) -> frozenset[str]:
        """The namespaces with a client that has a sidecar, or may have one."""
        return frozenset(
            workload.namespace
            for workload in self.workloads.all
            if self.is_client(workload) is not False
        )

    @cached_property
    def sure_sidecar_namespaces(self) -> tuple[str, ...]:
        """The namespaces with a client that certainly has a sidecar, in order of name."""
        return tuple(
            sorted(
                {
                    workload.namespace
                    for workload in self.workloads.all
                    if workload.namespace != self.config.root_namespace and self.is_client(workload)
                }
            )
        )

    def workload_entries(self, namespace: str, labels: Mapping[str, str]) -> Iterator[Resource]:
        """The WorkloadEntries of a namespace that bear all of `labels`."""
        for entry in self._workload_entries.get(namespace, ()):
            own = entry.spec.get("labels") or entry.labels
            if labels.items() <= own.items():
                yield entry

    @cached_property
    def _workload_entries(self) -> Mapping[str, list[Resource]]:
        grouped: dict[str, list[Resource]] = defaultdict(list)
        for entry in self.of("WorkloadEntry"):
            grouped[entry.namespace].append(entry)
        return grouped

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.of("Service"), self.of("ServiceEntry"), self.config)

    @cached_property
    def destination_rules(self) -> DestinationRules:
        return DestinationRules(self.of("DestinationRule"), self.config)

    @cached_property
    def virtual_services(self) -> VirtualServices:
        return VirtualServices(self.of("VirtualService"), self.config)

    @cached_property
    def gateways(self) -> Gateways:
        return Gateways(self.of("Gateway"))

    @cached_property
    def unread(self) -> Unread:
        """What is of kinds that the model does not follow."""
        found = (resource for kind in unread.KINDS for resource in self.of(kind))
        return Unread(found, self.of("ServiceEntry"), self.config.domain)

    @cached_property
    def canaries(self) -> Canaries:
        return Canaries(self.of("Canary"))

    @cached_property
    def sidecars(self) -> Sidecars:
        return Sidecars(self.of("Sidecar"), self.config)

    @cached_property
    def workloads(self) -> Workloads:
        return Workloads(resource for kind in WORKLOAD_KINDS for resource in self.of(kind))
