"""The istiods of a mesh: of which revision and version each is, and how it is set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_mesh.mesh.injection import PROXY, REVISION
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.schema import conform
from kubectl_mesh.mesh.texts import tag_of
from kubectl_mesh.mesh.versions import Istio, release_of, switches
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, pod_spec

DEFAULT = "default"
"""The revision that `istio-injection: enabled` selects, and whose ConfigMap is `istio`."""
TAG = "istio.io/tag"
"""The label of what makes a revision tag: a webhook, and a Service since 1.28."""
APP = "app"
NAMES = ("istiod", "pilot")
"""The values of the label `app` that istiod's Deployments have; the second is of Istio 1.4."""
_CONTAINER = "discovery"
_SHAPE = {
    "metadata": {"namespace": str, "labels": {"*": str}},
    "spec": {
        "template": {
            "spec": {
                "containers": [{"name": str, "image": str, "env": [{"name": str, "value": str}]}]
            }
        }
    },
}


@dataclass(frozen=True)
class ControlPlane:
    """An istiod: `version` is its image's tag, "" where it has none.

    `revision` is that of its label, "" for none. `settings` are its environment variables.
    """

    namespace: str
    revision: str
    version: str
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def istio(self) -> Istio:
        """The Istio that it runs; without an origin where its image does not say which."""
        known = {name: self.settings[name] for name in switches() if name in self.settings}
        release = release_of(self.version)
        if release is None:
            return Istio(settings=known)
        return Istio(release, f"istiod of namespace {self.namespace}", known)


def control_plane(deployment: Any) -> ControlPlane:
    """What a Deployment of istiod says, as the API server or a manifest has it."""
    data = conform(deployment, _SHAPE)[0] if isinstance(deployment, dict) else {}
    metadata = data.get("metadata") or {}
    template = (data.get("spec") or {}).get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    named = (each for each in containers if each.get("name") == _CONTAINER)
    container = next(named, containers[0])
    variables = container.get("env") or ()
    return ControlPlane(
        metadata.get("namespace") or "",
        (metadata.get("labels") or {}).get(REVISION) or "",
        tag_of(container.get("image") or ""),
        {each.get("name") or "": each.get("value") or "" for each in variables},
    )


@dataclass(frozen=True)
class ControlPlanes:
    """The istiods of a mesh, and by revision tag, the revision that it stands for.

    `unknown` says why they could not be read; "" where they could.
    """

    planes: Sequence[ControlPlane] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""

    def revision_of(self, name: str) -> str:
        """The revision that a namespace or a pod selects by a name, which may be a revision tag."""
        return self.tags.get(name, name)

    def has(self, revision: str) -> bool:
        """Whether there is an istiod whose label says that revision."""
        return any(each.revision == revision for each in self.planes)

    def may_have_tags(self, selected: Iterable[str]) -> bool:
        """Whether names that are selected may be tags: one that is no revision is, if anything.

        The tag `default` may stand beside a revision of that name, and comes first.
        """
        known = {each.revision or DEFAULT for each in self.planes}
        names = set(selected)
        return bool(known) and (not known >= names or (len(known) > 1 and DEFAULT in names))

    def istio_of(self, revision: str) -> Istio | None:
        """The Istio of a revision, or that of all istiods where none is of the revision.

        None where there is none, and where it is not one Istio.
        """
        chosen = [each for each in self.planes if (each.revision or DEFAULT) == revision]
        found = [each.istio for each in chosen or self.planes]
        return found[0] if found and all(each == found[0] for each in found) else None


def control_planes(resources: Iterable[Resource]) -> ControlPlanes:
    """Those of the Deployments of istiod among resources, with the tags that Services make."""
    planes, labels = [], []
    for each in resources:
        if each.labels.get(APP) not in NAMES:
            continue
        if each.kind == "Deployment":
            metadata = {"namespace": each.namespace, "labels": {**each.labels}}
            planes.append(control_plane({**each.data, "metadata": metadata}))
        elif each.kind == "Service":
            labels.append(each.labels)
    return ControlPlanes(planes, revision_tags(labels))


def revision_tags(labels: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    """By tag, the revision that it stands for, of the labels of what makes revision tags."""
    return {each[TAG]: each[REVISION] for each in labels if each.get(TAG) and each.get(REVISION)}


def istio_of_proxies(resources: Iterable[Resource]) -> Istio | None:
    """The newest Istio that a proxy among pods and workloads is of; None without any.

    istiod is as new as its newest proxy, or newer.
    """
    found = max(
        (
            (release, str(resource))
            for resource in resources
            if resource.kind in WORKLOAD_KINDS
            for container in _containers(resource)
            if container.get("name") == PROXY
            and (release := release_of(tag_of(container.get("image") or "")))
        ),
        default=None,
    )
    return Istio(found[0], f"the proxy of {found[1]}") if found else None


def _containers(resource: Resource) -> Iterable[Mapping[str, Any]]:
    spec = pod_spec(resource)
    for name in ("containers", "initContainers"):
        yield from spec.get(name) or ()
