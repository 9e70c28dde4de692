"""Pods and what makes pods, found by their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.resource import Path, Resource

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


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A pod, or the template that pods are made from.

    `template_path` is the path in `resource` of the mapping that has the pod's metadata and spec;
    it is empty for a Pod. Labels, annotations and spec are those of the pod.
    """

    resource: Resource
    template_path: Path
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pod_spec: Mapping[str, Any]

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
    def has_finished(self) -> bool:
        """Whether this is a pod that will never serve again."""
        status = self.resource.data.get("status") or {}
        return self.resource.kind == "Pod" and status.get("phase") in ("Succeeded", "Failed")

    @property
    def is_scaled_to_zero(self) -> bool:
        return self.resource.kind != "Pod" and self.resource.spec.get("replicas") == 0

    @property
    def pods(self) -> str:
        """How a message names the pods: "Pod a/b", or "the pods of Deployment a/b"."""
        return str(self) if self.resource.kind == "Pod" else f"the pods of {self}"

    def __str__(self) -> str:
        return str(self.resource)


class Workloads:
    """Every workload of a mesh."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.all = tuple(
            workload for resource in resources if not (workload := _workload(resource)).has_finished
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
        for reference in workload.resource.metadata.get("ownerReferences") or ():
            if reference.get("controller"):
                kind, name = reference.get("kind") or "", reference.get("name") or ""
                return self._by_name.get((workload.namespace, kind, name))
        return None

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, str, str], Workload]:
        return {
            (workload.namespace, workload.resource.kind, workload.resource.name): workload
            for workload in self.all
        }

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
        """The workloads of a namespace that bear all of `labels`; all of them for no labels."""
        if not labels:
            return self.by_namespace.get(namespace, ())
        candidates = min(
            (self._by_label.get((namespace, *label), ()) for label in labels.items()), key=len
        )
        return tuple(
            workload for workload in candidates if labels.items() <= workload.labels.items()
        )

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


def _workload(resource: Resource) -> Workload:
    path = _TEMPLATE_PATHS[resource.kind]
    template: Any = resource.data
    for step in path:
        template = template.get(step) or {}
    metadata = template.get("metadata") or {}
    return Workload(
        resource,
        path,
        metadata.get("labels") or {},
        metadata.get("annotations") or {},
        template.get("spec") or {},
    )
