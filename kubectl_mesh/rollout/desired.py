"""What manifests want of a cluster: each object as it is, and as the server would have it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kubectl_mesh.changes.change_set import Ready
from kubectl_mesh.changes.cluster import Cluster
from kubectl_mesh.changes.deletion import is_terminating
from kubectl_mesh.changes.owners import is_applied
from kubectl_mesh.changes.patch import Conflict, Target, content
from kubectl_mesh.changes.waiting import has_ready_pod
from kubectl_mesh.errors import InputError, NotInstalled, UsageError
from kubectl_mesh.kube.kubeconfig import DEFAULT_NAMESPACE
from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Resource, ResourceId, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rollout.breakage import unseen
from kubectl_mesh.rollout.plan import Plan, Unwanted, Wanted, plan

_WORKERS = 8
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?")
_NAMESPACES = "/api/v1/namespaces/"


def check_manifests(resources: Sequence[Resource], *, deleted: bool = False) -> None:
    """Raises InputError for an object of manifests that no server would take, or have by that name.

    One that is to be `deleted` only needs its name. Raises UsageError for one that stands twice,
    and where there is none.
    """
    seen: set[object] = set()
    for resource in resources:
        key = (resource.api_version.rpartition("/")[0], resource.id)
        if key in seen:
            raise UsageError(f"{resource} stands twice in the manifests: leave one of them")
        seen.add(key)
        metadata = resource.raw.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise _fault(resource, f"{resource.kind} without a name", "metadata")
        for field in ("name", "namespace"):
            text = metadata.get(field)
            if text is not None and not (isinstance(text, str) and _NAME.fullmatch(text)):
                told = f"{resource.kind} {text!r}: no valid {field}"
                raise _fault(resource, told, "metadata", field)
        if resource.faults and not deleted:
            fault = resource.faults[0]
            what = f"expected {fault.expected}, found {fault.found}"
            raise _fault(resource, f"{resource}: {dotted(fault.path)}: {what}", *fault.path)
    if not resources:
        raise UsageError("there is nothing in the manifests")


def _fault(resource: Resource, told: str, *path: str | int) -> InputError:
    return InputError(told, str(resource.origin.locate(path) or resource.origin.name))


def planned(
    cluster: Cluster,
    live: Snapshot,
    resources: Sequence[Resource],
    *,
    delete: bool = False,
    prune: str = "",
    remove_subsets: Iterable[str] = (),
    namespace: str = DEFAULT_NAMESPACE,
    allow_empty: bool = False,
    allow_broken: bool = False,
) -> Plan:
    """How the objects of manifests are brought into a cluster, or with `delete` out of it.

    `live` is the whole mesh as it is. With `prune`, labels, what else has these goes, too (see
    Desired.pruned); so do the subsets of `remove_subsets`, as [NAMESPACE/]NAME/SUBSET, where
    `namespace` is that of those that name none. New subsets may be without a ready pod with
    `allow_empty`, routes may fail with `allow_broken`.

    Raises Conflict where not all routes can be seen, and for fields that somebody else has;
    UsageError for a subset that is not there, or stands in the manifests; ClusterError.
    """
    if reason := unseen(live):
        raise Conflict(f"{reason}: it is not known which subsets are in use; nothing is changed")
    desired = Desired(cluster)
    wanted: list[Wanted] = []
    if delete:
        unwanted = list(desired.unwanted(resources))
    else:
        wanted = desired.wanted(resources)
        unwanted = list(desired.pruned(resources, prune)) if prune else []
        known = {each.path for each in wanted}
        lost = desired.without_subsets(live, remove_subsets, namespace)
        for each in lost:
            if each.path in known:
                raise UsageError(f"{each.resource} stands in the manifests: change it there")
        wanted += lost
    return plan(live, wanted, unwanted, desired, allow_empty=allow_empty, allow_broken=allow_broken)


class Desired:
    """Asks a cluster about the objects of manifests. Raises ClusterError."""

    def __init__(self, cluster: Cluster) -> None:
        self._client = cluster.client
        self._cluster = cluster
        self._kinds = cluster.kinds

    def wanted(self, resources: Iterable[Resource]) -> list[Wanted]:
        """The objects of manifests. Raises Conflict for one whose fields somebody else has."""
        resources = [self._placed(each) for each in resources]
        twice = [each for each, count in Counter(map(_identity, resources)).items() if count > 1]
        if twice:
            _, kind, _, name = twice[0]
            raise UsageError(f"{kind} {name} stands twice in the manifests: leave one of them")
        named = {each.name for each in resources if each.kind == "Namespace"}
        known = {f"{_NAMESPACES}{name}": self._live(f"{_NAMESPACES}{name}") for name in named}
        return in_parallel([partial(self._wanted, each, known) for each in resources], _WORKERS)

    def _wanted(self, resource: Resource, known: Mapping[str, Mapping[str, Any] | None]) -> Wanted:
        """`known` are the namespaces of the manifests by path; None for one yet to be made."""
        path, namespace = self._path(resource), resource.namespace
        live = known[path] if path in known else self._live(path)
        metadata = {**resource.raw["metadata"], **({"namespace": namespace} if namespace else {})}
        applied = content({**resource.raw, "metadata": metadata})
        after: Mapping[str, Any] = applied
        is_coming = known.get(f"{_NAMESPACES}{namespace}", applied) is None
        if not is_terminating(live) and (live is not None or not is_coming):
            after = self._cluster.would_be(_target(resource, namespace), path, applied, live, live)
        return Wanted(resource, path, applied, live, after)

    def is_there(self, need: Ready) -> bool:
        """Whether a pod is ready."""
        return has_ready_pod(self._client, need)

    def would_be(self, wanted: Wanted, applied: Mapping[str, Any]) -> Mapping[str, Any]:
        """What would become of an object, if another configuration were applied."""
        target = _target(wanted.resource, str(applied["metadata"].get("namespace") or ""))
        current = self._live(wanted.path)
        return self._cluster.would_be(target, wanted.path, applied, wanted.live, current)

    def unwanted(self, resources: Iterable[Resource]) -> Iterator[Unwanted]:
        """Those of the objects that are there."""
        for resource in map(self._placed, resources):
            path = self._path(resource)
            live = self._live(path)
            if live is not None:
                yield Unwanted(resource, path, live)

    def pruned(self, resources: Collection[Resource], selector: str) -> Iterator[Unwanted]:
        """What has some labels, of the kinds and namespaces of manifests, and is none of them.

        As for kubectl it has to be something that was applied, and nothing that belongs to another
        object.
        """
        resources = [self._placed(each) for each in resources]
        known = set(map(_identity, resources))
        folders: dict[tuple[str, str, str], tuple[str, Resource]] = {}
        for each in resources:
            folder = self._path(each).rpartition("/")[0]
            folders.setdefault(_identity(each)[:3], (folder, each))
        for folder, resource in folders.values():
            for live in self._client.items(folder, dict, {"labelSelector": selector}):
                whole = {**live, "apiVersion": resource.api_version, "kind": resource.id.api_kind}
                found = as_resource(whole, resource.origin)
                if _identity(found) not in known and _is_prunable(whole):
                    yield Unwanted(found, f"{folder}/{found.name}", whole)

    def without_subsets(
        self, snapshot: Snapshot, names: Iterable[str], namespace: str
    ) -> list[Wanted]:
        """The DestinationRules without some subsets, each as NAME/SUBSET or NAMESPACE/NAME/SUBSET.

        Without a namespace it is `namespace`. A name is that of a DestinationRule, or the host that
        it is for. Raises UsageError where there is none with that subset.
        """
        going: dict[ResourceId, set[str]] = {}
        for name in names:
            parts = name.split("/")
            if len(parts) not in (2, 3) or not all(parts):
                raise UsageError(f"--remove-subset {name}: expected [NAMESPACE/]NAME/SUBSET")
            *where, host, subset = parts
            everywhere = [
                rule.resource
                for rule in snapshot.destination_rules.all
                if host in (rule.resource.name, rule.host, rule.host.partition(".")[0])
                and any(each.name == subset for each in rule.subsets)
            ]
            own = where[0] if where else namespace
            found = [each for each in everywhere if each.namespace == own]
            if not found:
                others = f"; there is {everywhere[0]}" if everywhere else ""
                raise UsageError(
                    f"--remove-subset {name}: no DestinationRule of namespace {own} has that "
                    f"subset{others}"
                )
            for each in found:
                going.setdefault(each.id, set()).add(subset)
        return [
            self._without(rule.resource, going[rule.resource.id])
            for rule in snapshot.destination_rules.all
            if rule.resource.id in going
        ]

    def _without(self, resource: Resource, names: Collection[str]) -> Wanted:
        path = self._path(resource)
        live = self._client.get(path)
        left = [each for each in live["spec"]["subsets"] if each.get("name") not in names]
        after = {**live, "spec": {**live["spec"], "subsets": left}}
        return Wanted(resource, path, None, live, after)

    def _placed(self, resource: Resource) -> Resource:
        """An object of a manifest, in no namespace if the server has its kind in none."""
        if self._kinds.is_namespaced(resource.api_version, resource.id.api_kind):
            return resource
        return replace(resource, id=replace(resource.id, namespace=""))

    def _path(self, resource: Resource) -> str:
        return self._kinds.path(
            resource.api_version, resource.id.api_kind, resource.namespace, resource.name
        )

    def _live(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._client.get(path)
        except NotInstalled:
            return None


def _identity(resource: Resource) -> tuple[str, str, str, str]:
    """What tells an object from all others, in whatever version it is written."""
    group = resource.api_version.rpartition("/")[0]
    return group, resource.id.api_kind, resource.namespace, resource.name


def _is_prunable(live: Mapping[str, Any]) -> bool:
    return is_applied(live) and not live["metadata"].get("ownerReferences")


def _target(resource: Resource, namespace: str) -> Target:
    return Target(resource.api_version, resource.id.api_kind, namespace, resource.name)
