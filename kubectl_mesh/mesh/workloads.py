"""Pods and what makes pods, found by their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.added_labels import ADDED, POD_INDEX, POD_NAME
from kubectl_mesh.mesh.resource import Path, Resource, ResourceId

_TEMPLATE_PATHS: Mapping[str, Path] = {
    **dict.fromkeys(
        (
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "ReplicationController",
            "Job",
            "Rollout",
        ),
        ("spec", "template"),
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
WORKLOAD_KINDS = tuple(_TEMPLATE_PATHS)

_Key = tuple[str, str, str]
"""Namespace, kind and name of what makes pods."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A pod, or the template that pods are made from.

    `template_path` is the path in `resource` of the mapping that has the pod's metadata and spec;
    it is empty for a Pod. Labels, annotations and spec are those of the pod. `rollout` is the
    Rollout that makes pods from this template as well (`workloadRef`). `by_version` are labels that
    a Rollout adds to the pods of one version or the other. `has_made` tells that pods
    or ReplicaSets which it made are in the snapshot, too.
    """

    resource: Resource
    template_path: Path
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pod_spec: Mapping[str, Any]
    rollout: Resource | None = None
    by_version: tuple[Mapping[str, str], ...] = ()
    has_made: bool = False

    @property
    def namespace(self) -> str:
        return self.resource.namespace

    @property
    def containers(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The containers that serve while the pod runs, sidecar-style init containers included."""
        for field, wanted in (("initContainers", "Always"), ("containers", None)):
            for index, container in enumerate(self.pod_spec.get(field) or ()):
                if wanted is None or container.get("restartPolicy") == wanted:
                    yield (*self.template_path, "spec", field, index), container

    @property
    def declared_ports(self) -> Iterator[tuple[str, int, str]]:
        """Name ("" for none), number and layer 4 protocol of each port that containers declare."""
        for _, container in self.containers:
            for port in container.get("ports") or ():
                yield (
                    port.get("name") or "",
                    port.get("containerPort") or 0,
                    port.get("protocol") or "TCP",
                )

    def target_port(self, target: int | str, protocol: str = "TCP") -> int | None:
        """The number of a Service's targetPort on the pod; None for a name that is not declared."""
        if isinstance(target, int):
            return target
        return next(
            (
                number
                for name, number, layer4 in self.declared_ports
                if name == target and layer4 == protocol
            ),
            None,
        )

    @property
    def exists(self) -> bool:
        """Whether this is a pod that was made: nobody but istiod adds labels to it any more."""
        return self.resource.kind == "Pod" and bool(self.resource.data.get("status"))

    def gets(self, key: str, *, as_endpoint: bool = True) -> bool:
        """Whether its pods get a label that the template need not have.

        Labels that istiod alone adds count only if `as_endpoint`.
        """
        if any(key in labels for labels in self.by_version):
            return True
        added = ADDED.get(key)
        if added is None:
            return False
        if as_endpoint and added.to_endpoints:
            return True
        if self.exists or not added.to_pods:
            return False
        kinds = {self.resource.kind, *("Rollout" for _ in (self.rollout,) if self.rollout)}
        return not added.kinds or bool(added.kinds & kinds)

    def bear(self, labels: Mapping[str, str], *, as_endpoint: bool = True) -> bool | None:
        """Whether some of its pods have all of `labels`; None where an added one decides."""
        decided: bool | None = True
        for key, value in labels.items():
            if self.labels.get(key) == value:
                continue
            if any(each.get(key) == value for each in self.by_version):
                continue
            if key not in ADDED or not self.gets(key, as_endpoint=as_endpoint):
                return False
            if key in (POD_NAME, POD_INDEX):
                if not self._counts(key, value):
                    return False
            elif ADDED[key].to_endpoints:
                decided = None
            elif self.has_made or key in self.labels:
                return False
            else:
                decided = None
        return decided

    def _counts(self, key: str, value: str) -> bool:
        """Whether a StatefulSet has a pod of that name or index, as far as `replicas` tells."""
        if key == POD_NAME:
            name, _, value = value.rpartition("-")
            if name != self.resource.name:
                return False
        if not (value.isascii() and value.isdigit()) or (value[0] == "0" and value != "0"):
            return False
        replicas = self.resource.spec.get("replicas")
        first = (self.resource.spec.get("ordinals") or {}).get("start") or 0
        return not replicas or first <= int(value[:10]) < first + replicas

    @property
    def has_finished(self) -> bool:
        """Whether this is a pod that will never serve again."""
        status = self.resource.data.get("status") or {}
        return self.resource.kind == "Pod" and status.get("phase") in ("Succeeded", "Failed")

    @property
    def is_scaled_to_zero(self) -> bool:
        makers = [each for each in (self.resource, self.rollout) if each]
        return self.resource.kind != "Pod" and all(
            each.spec.get("replicas") == 0 for each in makers
        )

    @property
    def pods(self) -> str:
        """How a message names the pods: "Pod a/b", or "the pods of Deployment a/b"."""
        return str(self) if self.resource.kind == "Pod" else f"the pods of {self}"

    def __str__(self) -> str:
        return str(self.resource)


class Workloads:
    """Every workload of a mesh.

    A Rollout that takes the template of another workload (`workloadRef`) is part of that one; where
    the snapshot lacks it, the Rollout is in `without_template`.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        found = tuple(resources)
        present = {_key(resource) for resource in found}
        made_by = {key for resource in found if (key := _controller(resource))}
        self._templates: dict[_Key, _Key] = {}
        rollouts: dict[_Key, Resource] = {}
        without: dict[str, list[Resource]] = defaultdict(list)
        for resource in found:
            template = _template_of(resource)
            if template is None:
                continue
            self._templates[_key(resource)] = template
            if template in present:
                rollouts[template] = resource
            else:
                without[resource.namespace].append(resource)
        self.without_template: Mapping[str, Collection[Resource]] = without
        self.all = tuple(
            workload
            for resource in found
            if (key := _key(resource)) not in self._templates
            and not (
                workload := _workload(
                    resource,
                    rollouts.get(key),
                    has_made=key in made_by or (key in rollouts and _key(rollouts[key]) in made_by),
                )
            ).has_finished
        )

    @cached_property
    def owners(self) -> tuple[Workload, ...]:
        """The workloads that a person edits: those no other workload of the snapshot made."""
        return tuple(workload for workload in self.all if self._owner(workload) is None)

    def maker(self, workload: Workload) -> Workload:
        """The one of `owners` that made a workload; the workload itself if none did."""
        seen = {workload}
        while (owner := self._owner(workload)) and owner not in seen:
            seen.add(owner)
            workload = owner
        return workload

    def _owner(self, workload: Workload) -> Workload | None:
        key = _controller(workload.resource)
        return self._by_name.get(self._templates.get(key, key)) if key else None

    @cached_property
    def _by_name(self) -> Mapping[_Key, Workload]:
        return {_key(workload.resource): workload for workload in self.all}

    @cached_property
    def _by_label(self) -> Mapping[tuple[str, str, str], tuple[Workload, ...]]:
        grouped: dict[tuple[str, str, str], list[Workload]] = defaultdict(list)
        for workload in self.all:
            for key, value in workload.labels.items():
                grouped[workload.namespace, key, value].append(workload)
        return {label: tuple(members) for label, members in grouped.items()}

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[Workload, ...]]:
        grouped: dict[str, list[Workload]] = defaultdict(list)
        for workload in self.all:
            grouped[workload.namespace].append(workload)
        return {namespace: tuple(members) for namespace, members in grouped.items()}

    def select(self, namespace: str, labels: Mapping[str, str]) -> tuple[Workload, ...]:
        """The workloads of a namespace whose pods have, or may get, all of `labels`.

        All of them for no labels.
        """
        if not labels:
            return self.by_namespace.get(namespace, ())
        candidates = min(
            (self._by_label.get((namespace, *label), ()) for label in labels.items()), key=len
        )
        found = tuple(
            workload for workload in candidates if labels.items() <= workload.labels.items()
        )
        if labels.keys() & ADDED.keys() or self._with_versions:
            found += tuple(
                workload
                for workload in self._that_may_get(namespace, labels)
                if not labels.items() <= workload.labels.items()
                and workload.bear(labels, as_endpoint=False) is not False
            )
        return found

    def _that_may_get(self, namespace: str, labels: Mapping[str, str]) -> Iterable[Workload]:
        if POD_NAME in labels:
            key = (namespace, "StatefulSet", labels[POD_NAME].rpartition("-")[0])
            return (self._by_name[key],) if key in self._by_name else ()
        by_version = self._with_versions.get(namespace, ())
        ordinary = {key: value for key, value in labels.items() if key not in ADDED}
        if len(ordinary) == len(labels):
            return by_version
        return dict.fromkeys((*self.select(namespace, ordinary), *by_version))

    @cached_property
    def _with_versions(self) -> Mapping[str, tuple[Workload, ...]]:
        grouped: dict[str, list[Workload]] = defaultdict(list)
        for workload in self.all:
            if workload.by_version:
                grouped[workload.namespace].append(workload)
        return {namespace: tuple(members) for namespace, members in grouped.items()}

    @cached_property
    def _anywhere_by_label(self) -> Mapping[tuple[str, str], tuple[Workload, ...]]:
        grouped: dict[tuple[str, str], list[Workload]] = defaultdict(list)
        for workload in self.all:
            for label in workload.labels.items():
                grouped[label].append(workload)
        return {label: tuple(members) for label, members in grouped.items()}

    def select_anywhere(self, labels: Mapping[str, str]) -> tuple[Workload, ...]:
        """The workloads of any namespace that bear all of `labels`; all of them for no labels."""
        if not labels:
            return self.all
        candidates = min(
            (self._anywhere_by_label.get(label, ()) for label in labels.items()), key=len
        )
        return tuple(
            workload for workload in candidates if labels.items() <= workload.labels.items()
        )


def _key(resource: Resource) -> _Key:
    return (resource.namespace, resource.kind, resource.name)


def _controller(resource: Resource) -> _Key | None:
    """What made an object."""
    for reference in resource.metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return (resource.namespace, reference.get("kind") or "", reference.get("name") or "")
    return None


def _template_of(resource: Resource) -> _Key | None:
    """The other workload whose template a Rollout uses."""
    reference = resource.spec.get("workloadRef") if resource.kind == "Rollout" else None
    if not reference:
        return None
    return (resource.namespace, reference.get("kind") or "", reference.get("name") or "")


def pod_labels(resource: Resource) -> Mapping[str, str]:
    """The labels of a Pod, or of the template of an object of WORKLOAD_KINDS."""
    labels: Mapping[str, str] = (_template(resource).get("metadata") or {}).get("labels") or {}
    return labels


def pod_spec(resource: Resource) -> Mapping[str, Any]:
    """The spec of a Pod, or of the template of an object of WORKLOAD_KINDS."""
    spec: Mapping[str, Any] = _template(resource).get("spec") or {}
    return spec


def replaced_pods(
    before: Mapping[ResourceId, Resource], after: Mapping[ResourceId, Resource]
) -> set[ResourceId]:
    """The Pods and ReplicaSets of workloads whose pods will bear other labels.

    Their controllers replace them: the template stands for their successors.
    """
    replaced = {
        key
        for key, resource in after.items()
        if resource is not before.get(key, resource)
        and _is_rolled_out(resource)
        and pod_labels(before[key]) != pod_labels(resource)
    }
    going: set[ResourceId] = set()
    if not replaced:
        return going
    for kind in ("ReplicaSet", "Pod"):  # a Deployment's pods belong to its ReplicaSets
        going |= {
            key
            for key, resource in after.items()
            if key.kind == kind and resource is before.get(key) and _owners(resource) & replaced
        }
        replaced |= going
    return going


def _is_rolled_out(resource: Resource) -> bool:
    """Whether its pods are replaced where its template changes."""
    return resource.kind in WORKLOAD_KINDS and resource.kind not in ("Pod", "Job", "CronJob")


def _owners(resource: Resource) -> set[ResourceId]:
    return {
        ResourceId(owner["kind"], resource.namespace, owner["name"])
        for owner in resource.metadata.get("ownerReferences") or ()
        if owner.get("kind") and owner.get("name")
    }


def _template(resource: Resource) -> Mapping[str, Any]:
    """What a workload's pods are made of; a Pod itself."""
    template: Any = resource.data
    for step in _TEMPLATE_PATHS[resource.kind]:
        template = template.get(step) or {}
    found: Mapping[str, Any] = template
    return found


def _workload(resource: Resource, rollout: Resource | None, *, has_made: bool) -> Workload:
    template = _template(resource)
    metadata = template.get("metadata") or {}
    return Workload(
        resource,
        _TEMPLATE_PATHS[resource.kind],
        metadata.get("labels") or {},
        metadata.get("annotations") or {},
        template.get("spec") or {},
        rollout,
        tuple(_by_version(rollout or resource)),
        has_made,
    )


def _by_version(rollout: Resource) -> Iterator[Mapping[str, str]]:
    """The labels of the metadata that a Rollout gives to the pods of a version."""
    strategy = rollout.spec.get("strategy") or {} if rollout.kind == "Rollout" else {}
    for way, fields in (
        ("canary", ("stableMetadata", "canaryMetadata")),
        ("blueGreen", ("activeMetadata", "previewMetadata")),
    ):
        for field in fields:
            if labels := ((strategy.get(way) or {}).get(field) or {}).get("labels"):
                yield labels
