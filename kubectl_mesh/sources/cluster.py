"""A live cluster, as resources.

Asked for all namespaces, every kind is listed once, over the whole cluster. Asked for some:

- Kinds whose objects bear on other namespaces (VirtualService, DestinationRule, Gateway and
  ServiceEntry) are listed over the whole cluster where the user may. They are small, and any of
  them, anywhere, can decide what a request to a namespace meets; of those that were read, only the
  ones that have to do with the namespaces asked for are kept. Where the user may not, they are
  listed in the namespaces that are known to matter, and a warning tells so.
- Everything else is listed in the namespaces asked for, in the root namespace and in those that
  are referred to (see references.py); of a Gateway's own pods only those pods, wherever they are.
- This is repeated until nothing new is referred to, MAX_ROUNDS times at most, and for
  MAX_NAMESPACES namespaces at most; what is beyond counts as not read, with that reason.

The `istio` ConfigMap is always looked for, and `istio-REVISION` where a namespace selects that
revision of Istio. Secrets are never asked for.
"""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

from kubectl_mesh.errors import ClusterError, Forbidden, NotInstalled, UsageError
from kubectl_mesh.kube.config import POOL_SIZE
from kubectl_mesh.kube.discovery import base_of
from kubectl_mesh.kube.http import ApiError, Client
from kubectl_mesh.kube.istiod import Istiod, forwarded
from kubectl_mesh.kube.managed_fields import LAST_APPLIED
from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.control_planes import ControlPlanes
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.resource import Path, Resource, ResourceId, Unreadable
from kubectl_mesh.mesh.schema import KINDS, Kind
from kubectl_mesh.mesh.snapshot import Coverage
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.sources.config import (
    CONFIG_MAP,
    KEY,
    NETWORKS,
    config_map_of,
    find_mesh_config,
    is_mesh_config,
    selected_revisions,
)
from kubectl_mesh.sources.istiods import read_control_planes, with_tags
from kubectl_mesh.sources.overlay import lay_over
from kubectl_mesh.sources.references import (
    CONFIG_KINDS,
    References,
    Selector,
    is_namespace,
    references,
)
from kubectl_mesh.sources.session import Session
from kubectl_mesh.sources.yaml import collector_paused

MAX_ROUNDS = 8
MAX_NAMESPACES = 100
OPTIONAL_KINDS = frozenset(
    ("MeshPolicy", "Rollout", "Canary", "WorkloadEntry", "Sidecar", *unread.KINDS)
)
"""Kinds that many clusters do not serve: then there are none, and nothing is missing."""

_IDENTITY = (("metadata",), ("metadata", "name"), ("metadata", "namespace"))
"""Fields without which it is not known which object one is."""
_NGINX_ENDS = ";"
"""Every directive of nginx ends with it: files without one have no bearing on it."""
_INSTEAD = ("others are taken", "Istio's defaults are taken")
_USER = re.compile(r'User ("[^"]*")')

Progress = Callable[[str, int], object]
"""Is told of a kind and how many objects of it have been read; from one thread at a time."""


@dataclass(frozen=True, slots=True)
class ClusterOrigin:
    """A kubeconfig's context."""

    name: str

    def locate(self, path: Path) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What was read of a cluster.

    `unreadable` is what was asked for and could not be had, besides what `coverage` says.
    `warnings` are the API server's own, to be shown.
    """

    context: str
    resources: Sequence[Resource]
    config: MeshConfig
    coverage: Coverage
    unreadable: Sequence[Unreadable]
    warnings: Sequence[str]


def load(
    session: Session,
    kinds: Collection[str],
    namespaces: Collection[str] | None,
    *,
    hosts: Collection[str] = (),
    manifests: Sequence[Resource] = (),
    config: MeshConfig | None = None,
    istio: Istio | None = None,
    progress: Progress = lambda kind, count: None,
) -> ClusterState:
    """Reads the kinds (names of schema.KINDS) in the namespaces (None: all) and what they refer to.

    `hosts` are names that clients in the namespaces call, which count as referred to.
    Of ConfigMaps without nginx configuration the texts are not kept; if the kind is not chosen,
    `istio` is the only one. What `manifests`, which are to be laid over the cluster,
    refer to is read as well. `config` is used for the cluster's own MeshConfig, and the release of
    `istio` for that of its istiod.

    What is forbidden or not served becomes `coverage.missing`. Raises ClusterError where the
    cluster cannot be reached, hangs up, still fails at the last try of discovery, does not accept
    the credentials or lets nothing be read: a kind is read to its end or not at all.
    Raises UsageError for a name that no namespace can have.
    """
    for name in namespaces or ():
        if not is_namespace(name):
            raise UsageError(f"no namespace can be called {name!r}")
    client = session.client
    with collector_paused(), ThreadPoolExecutor(1) as beside:
        reader = _Reader(client, progress)
        chosen = [KINDS[name] for name in KINDS if name in kinds]
        reader.discover(chosen)
        planes = beside.submit(read_control_planes, client)
        loading = _Loading(reader, chosen, hosts, planes, config, istio)
        if namespaces is None:
            loading.read_all()
        else:
            asked = {*namespaces, *(found.namespace for found in manifests if found.namespace)}
            loading.read_some(frozenset(asked), frozenset(namespaces), manifests)
        return loading.state()


class _Reader:
    """Reads objects of a cluster, one list at a time. Threads may share it."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self.client = client
        self.context = client.connection.context
        self._origin = ClusterOrigin(self.context)
        self._progress = progress
        self._counts: dict[str, dict[object, int]] = {}
        self._lock = threading.Lock()
        self._served: Mapping[str, frozenset[str] | None] = {}

    def discover(self, kinds: Iterable[Kind]) -> None:
        """Learns which versions the cluster serves of the groups that are not Kubernetes' own."""
        groups = sorted({kind.group for kind in kinds if "." in kind.group})
        found = in_parallel([partial(self._versions, group) for group in groups], POOL_SIZE)
        self._served = dict(zip(groups, found, strict=True))

    def _versions(self, group: str) -> frozenset[str] | None:
        """The versions served of a group; None where the user may not ask.

        Raises ApiError where the server still fails, or is still too busy, at the last try: every
        list would end so, and take as long.
        """
        try:
            answer = self.client.get(f"/apis/{group}")
        except NotInstalled:
            return frozenset()
        except Forbidden:
            return None
        except ApiError as error:
            if error.retried:
                raise
            return None
        versions = answer.get("versions")
        return frozenset(
            version["version"]
            for version in (versions if isinstance(versions, list) else ())
            if isinstance(version, dict) and isinstance(version.get("version"), str)
        )

    def objects(
        self, kind: Kind, namespace: str | None, query: Mapping[str, str] | None = None
    ) -> list[Resource]:
        """The objects of a kind in a namespace (None: in all), or those that a query selects.

        Raises ClusterError as Client does; NotInstalled where no version of the kind is served.
        """
        served = self._served.get(kind.group)
        for version in kind.versions:
            if served is not None and version not in served:
                continue
            api_version = f"{kind.group}/{version}" if kind.group else version
            path = f"{base_of(api_version)}{f'/namespaces/{namespace}' if namespace else ''}"
            try:
                return self.client.items(
                    f"{path}/{kind.plural}",
                    partial(self._resource, kind, api_version),
                    query,
                    partial(self._count, kind.name, object()),
                )
            except NotInstalled:
                continue
        raise NotInstalled(f"the cluster does not serve {_full_name(kind)}")

    def namespace(self, name: str) -> Resource:
        """The Namespace of that name. Raises NotInstalled where there is none."""
        kind = KINDS["Namespace"]
        return self._resource(kind, "v1", self.client.get(f"/api/v1/namespaces/{name}"))

    def _resource(self, kind: Kind, api_version: str, item: Any) -> Resource:
        value = _lightened(item, kind) if isinstance(item, dict) else {}
        value |= {"apiVersion": api_version, "kind": kind.api_kind}
        found = as_resource(value, self._origin, in_part=True)
        if not found.name or any(fault.path in _IDENTITY for fault in found.faults):
            raise ClusterError(
                f"the API server {self.client.connection.server} listed a {kind.name} without "
                "name, or whose name or namespace is no string"
            )
        return found

    def _count(self, kind: str, job: object, count: int) -> None:
        with self._lock:
            counts = self._counts.setdefault(kind, {})
            counts[job] = count
            self._progress(kind, sum(counts.values()))


def _lightened(item: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """An object without notes of who wrote which field, and texts that are never looked at."""
    metadata = item.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if not kind.is_whole and isinstance(annotations, dict):
            annotations.pop(LAST_APPLIED, None)
        texts = item.get("data")
        if (
            kind.name == "ConfigMap"
            and metadata.get("name") != CONFIG_MAP
            and isinstance(texts, dict)
            and not any(_NGINX_ENDS in str(text) for text in texts.values())
        ):
            kept = (KEY, NETWORKS) if is_mesh_config(str(metadata.get("name"))) else ()
            item["data"] = {key: text if key in kept else "" for key, text in texts.items()}
    return item


@dataclass(frozen=True, slots=True)
class _Job:
    """One list to read: of a kind in a namespace (None: in all), or some of it by label or name."""

    kind: str
    namespace: str | None
    labels: Selector = ()
    name: str = ""

    @property
    def query(self) -> dict[str, str]:
        return {
            "labelSelector": ",".join(f"{key}={value}" for key, value in self.labels),
            "fieldSelector": f"metadata.name={self.name}" if self.name else "",
        }


class _Loading:
    """One load: what has been read so far, and what could not be."""

    def __init__(
        self,
        reader: _Reader,
        kinds: Sequence[Kind],
        hosts: Collection[str],
        planes: Future[ControlPlanes],
        config: MeshConfig | None,
        istio: Istio | None,
    ) -> None:
        self._reader = reader
        self._future_planes = planes
        self._given_istio = istio
        self._hosts = hosts
        self._kinds = kinds
        self._given_config = config
        self._found: dict[ResourceId, Resource] = {}
        self._missing: dict[tuple[str, str | None], str] = {}
        self._asked: frozenset[str] | None = None
        self._namespaces: frozenset[str] | None = None
        self._settings_read = {CONFIG_MAP}
        self._unreadable: list[Unreadable] = []
        self._something_read = False
        self._pods_anywhere = True
        self._refusals: list[ClusterError] = []
        self._tags_read = False

    @cached_property
    def _planes(self) -> ControlPlanes:
        try:
            return self._future_planes.result()
        except ClusterError as problem:
            return ControlPlanes(unknown=f"deployments of istiod cannot be listed: {problem}")

    @property
    def config(self) -> MeshConfig:
        """The settings of the mesh, of what has been read."""
        return find_mesh_config(
            self._found.values(),
            self._asked,
            self._planes,
            self._given_istio,
            self._given_config,
        )

    def state(self) -> ClusterState:
        return ClusterState(
            self._reader.context,
            tuple(self._found.values()),
            self.config,
            Coverage(True, self._missing, self._namespaces),
            tuple(self._unreadable),
            tuple(self._reader.client.warnings),
        )

    def read_all(self) -> None:
        """Reads every namespace."""
        jobs = [_Job(kind.name, None) for kind in self._kinds]
        for job, problem in self._read([*jobs, *self._config_job(None)]).items():
            if job.name:
                self._read_root_config()
            else:
                self._note(job, None, problem)
        self._read_settings_of_revisions()
        self._check_something_read("in all namespaces", "name one with -n")

    def read_some(
        self, asked: frozenset[str], named: frozenset[str], manifests: Sequence[Resource]
    ) -> None:
        """Reads the namespaces asked for and what they have to do with.

        `named` are those that must exist; those of manifests may yet have to be made.
        """
        self._asked = asked
        narrow = self._read_config(asked)
        done: set[_Job] = set()
        looked_up: set[str] = set()
        wanted = self._references(asked, manifests)
        for _ in range(MAX_ROUNDS):
            namespaces = self._bounded(asked, wanted.namespaces)
            jobs = self._jobs(namespaces, narrow, wanted) - done
            if not jobs and namespaces <= looked_up:
                break
            self._read_round(sorted(jobs, key=str))
            self._read_namespaces(sorted(namespaces - looked_up), named)
            self._read_settings_of_revisions()
            done |= jobs
            looked_up |= namespaces
            if any(job.kind in CONFIG_KINDS for job in jobs):
                wanted = self._references(asked, manifests)
        else:
            for namespace in wanted.namespaces - looked_up:
                self._leave_out(namespace, f"more than {MAX_ROUNDS} steps away from")
        self._namespaces = frozenset(looked_up)
        self._found = {
            key: found
            for key, found in self._found.items()
            if key.kind not in CONFIG_KINDS or key in wanted.related or key.namespace in asked
        }
        self._sum_up(asked)
        self._check_something_read(f"in {_listed('namespace', asked)}")

    def _read_config(self, asked: frozenset[str]) -> list[Kind]:
        """Reads the settings and CONFIG_KINDS everywhere; the kinds for which that is forbidden."""
        jobs = [_Job(kind.name, None) for kind in self._kinds if kind.name in CONFIG_KINDS]
        problems = self._read([*jobs, *self._config_job(None)])
        narrow = []
        for job, problem in problems.items():
            if job.name:
                self._read_root_config()
            elif isinstance(problem, Forbidden):
                narrow.append(KINDS[job.kind])
            else:
                self._note(job, None, problem)
        if narrow:
            plurals = ", ".join(
                _full_name(kind) if kind.name in unread.KINDS else kind.plural for kind in narrow
            )
            who = _user(problems[_Job(narrow[0].name, None)])
            self._not_everywhere(
                f"{plurals} may not be listed in all namespaces{who}: what other namespaces define "
                f"for the hosts of {_listed('namespace', asked)} was not looked at, save where it "
                "is referred to"
            )
        return narrow

    def _not_everywhere(self, reason: str) -> None:
        self._unreadable.append(Unreadable(f"context {self._reader.context}", reason))

    def _config_job(self, namespace: str | None, name: str = CONFIG_MAP) -> list[_Job]:
        wanted = self._given_config is None
        return [_Job("ConfigMap", namespace, name=name)] if wanted else []

    def _read_root_config(self, name: str = CONFIG_MAP) -> None:
        for problem in self._read(self._config_job(MeshConfig().root_namespace, name)).values():
            self._settings_unknown(problem, name)

    def _read_settings_of_revisions(self) -> None:
        """Reads the settings of the revisions that namespaces select, once that is known."""
        selected = set().union(*selected_revisions(self._found.values()).values())
        if not self._tags_read and self._planes.may_have_tags(selected):
            self._tags_read = True
            self._planes = with_tags(self._planes, self._reader.client)
        names = {config_map_of(self._planes.revision_of(name)) for name in selected}
        names -= self._settings_read
        self._settings_read |= names
        jobs = [job for name in sorted(names) for job in self._config_job(None, name)]
        for job in self._read(jobs):
            self._read_root_config(job.name)

    def _settings_unknown(self, problem: ClusterError, name: str) -> None:
        job = _Job("ConfigMap", MeshConfig().root_namespace, name=name)
        self._unreadable.append(
            Unreadable(
                f"context {self._reader.context}",
                f"{_reason(job, problem)}; {_INSTEAD[name == CONFIG_MAP]} for the mesh's settings "
                "(--mesh-config names others)",
            )
        )

    def _references(self, asked: frozenset[str], manifests: Sequence[Resource]) -> References:
        found = [found for key, found in self._found.items() if key.kind in CONFIG_KINDS]
        laid = [manifest for manifest in manifests if manifest.kind in CONFIG_KINDS]
        return references(lay_over(found, laid), asked, self.config, self._hosts)

    def _jobs(
        self, namespaces: frozenset[str], narrow: Sequence[Kind], wanted: References
    ) -> set[_Job]:
        """The lists of those namespaces, of the `narrow` kinds where they matter, and of pods."""
        config_namespaces = namespaces | wanted.config_namespaces
        jobs = {_Job(kind.name, namespace) for kind in narrow for namespace in config_namespaces}
        for kind in self._kinds:
            if not kind.namespaced:
                if kind.name != "Namespace":
                    jobs.add(_Job(kind.name, None))
            elif kind.name not in CONFIG_KINDS:
                jobs |= {_Job(kind.name, namespace) for namespace in namespaces}
        if KINDS["Pod"] in self._kinds:
            places = [None] if self._pods_anywhere else sorted(wanted.gateway_namespaces)
            jobs |= {_Job("Pod", place, labels) for place in places for labels in wanted.gateways}
        return jobs

    def _bounded(self, asked: frozenset[str], wanted: frozenset[str]) -> frozenset[str]:
        """At most MAX_NAMESPACES of the namespaces, those asked for and the root one first."""
        first = frozenset(filter(is_namespace, asked | {self.config.root_namespace}))
        others = sorted(wanted - first)
        room = max(0, MAX_NAMESPACES - len(first))
        for namespace in others[room:]:
            self._leave_out(namespace, f"beyond the {MAX_NAMESPACES} namespaces read for")
        return first | frozenset(others[:room])

    def _leave_out(self, namespace: str, why: str) -> None:
        for kind in self._kinds:
            reason = f"the namespace {namespace} was not read, as {why} those asked for; use -A"
            self._missing.setdefault((kind.name, namespace), reason)

    def _read_round(self, jobs: Sequence[_Job]) -> None:
        """Reads lists, and notes what cannot be read.

        Where the pods of Gateways may not be looked for everywhere, the next round does so in the
        namespaces of the Gateways; the root namespace, where most are, is read in any case.
        """
        for job, problem in self._read(jobs).items():
            if job.namespace is not None or not job.labels:
                self._note(job, job.namespace, problem)
            elif not isinstance(problem, Forbidden):
                self._note(job, self.config.root_namespace, problem)
            elif self._pods_anywhere:
                self._pods_anywhere = False
                self._not_everywhere(
                    f"pods may not be listed in all namespaces{_user(problem)}: the pods of "
                    "Gateways were looked for in the Gateways' namespaces and the root one only"
                )

    def _read_namespaces(self, names: Sequence[str], named: frozenset[str]) -> None:
        if KINDS["Namespace"] not in self._kinds:
            return

        def read(name: str) -> Resource | ClusterError:
            try:
                return self._reader.namespace(name)
            except (Forbidden, NotInstalled, ApiError) as error:
                return error

        answers = in_parallel([partial(read, name) for name in names], POOL_SIZE)
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, Resource):
                self._found[answer.id] = answer
            elif not isinstance(answer, NotInstalled):
                why = f"forbidden{_user(answer)} (needs get on namespaces)"
                if not isinstance(answer, Forbidden):
                    why = str(answer)
                self._missing["Namespace", name] = f"cannot get namespace {name}: {why}"
            elif name in named:
                self._unreadable.append(
                    Unreadable(
                        f"context {self._reader.context}", f"the namespace {name} does not exist"
                    )
                )

    def _read(self, jobs: Sequence[_Job]) -> dict[_Job, ClusterError]:
        """Reads lists, and returns those that the server refuses, with its reason."""

        def read(job: _Job) -> list[Resource] | ClusterError:
            try:
                return self._reader.objects(KINDS[job.kind], job.namespace, job.query)
            except (Forbidden, NotInstalled, ApiError) as error:
                return error

        answers = in_parallel([partial(read, job) for job in jobs], POOL_SIZE)
        problems = {}
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, ClusterError):
                problems[job] = answer
                if not isinstance(answer, NotInstalled):
                    self._refusals.append(answer)
            else:
                self._something_read |= not job.name
                self._found.update((resource.id, resource) for resource in answer)
        return problems

    def _note(self, job: _Job, namespace: str | None, problem: ClusterError) -> None:
        if isinstance(problem, NotInstalled):
            if job.kind in OPTIONAL_KINDS:
                return
            namespace = None
        self._missing[job.kind, namespace] = _reason(job, problem)

    def _check_something_read(self, where: str, cure: str = "") -> None:
        if self._something_read or not self._refusals:
            return
        first = self._refusals[0]
        if isinstance(first, Forbidden):
            raise Forbidden(f"nothing may be listed{_user(first)} {where}", cure)
        raise first

    def _sum_up(self, asked: frozenset[str]) -> None:
        """Says of a kind that could not be read in any namespace asked for that it is missing.

        Where only some could not be read, they are told of one by one.
        """
        for kind in self._kinds:
            reasons = {
                namespace: reason
                for namespace in sorted(asked)
                if (reason := self._missing.get((kind.name, namespace)))
            }
            if reasons and len(reasons) == len(asked):
                self._missing[kind.name, None] = "; ".join(reasons.values())
            else:
                self._unreadable += [
                    Unreadable(f"context {self._reader.context}", reason)
                    for reason in reasons.values()
                ]


def _reason(job: _Job, problem: ClusterError) -> str:
    kind = KINDS[job.kind]
    if isinstance(problem, NotInstalled):
        istio = " (is Istio installed?)" if kind.group.endswith("istio.io") else ""
        return f"{problem}{istio}"
    where = f"in namespace {job.namespace}" if job.namespace else "in all namespaces"
    what = f"{kind.plural} named {job.name}" if job.name else kind.plural
    if isinstance(problem, Forbidden):
        needs = f"needs get,list on {_full_name(kind)}"
        return f"cannot list {what} {where}: forbidden{_user(problem)} ({needs})"
    return f"cannot list {what} {where}: {problem}"


def _user(problem: ClusterError) -> str:
    """The user that the API server says it takes us for."""
    found = _USER.search(str(problem))
    return f" for user {found[1]}" if found else ""


def _listed(noun: str, names: Collection[str]) -> str:
    return f"{noun if len(names) == 1 else f'{noun}s'} {', '.join(sorted(names))}"


def _full_name(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if "." in kind.group else kind.plural


def whole(client: Client) -> Callable[[Resource], Mapping[str, Any]]:
    """What asks a cluster once for each object, with all its fields. Raises ClusterError."""
    get = cache(client.get)
    return lambda resource: get(path_of(resource))


def as_listed(resource: Resource, document: Mapping[str, Any]) -> Resource:
    """An object that was asked for by itself, as a list would have given it."""
    value = _lightened(copy.deepcopy(dict(document)), KINDS[resource.kind])
    return as_resource(value, resource.origin, resource.namespace)


@contextlib.contextmanager
def istiods(session: Session, namespace: str, url: str | None) -> Iterator[Sequence[Istiod]]:
    """The istiods of a cluster while it is entered: at a URL, or those that run in a namespace.

    Raises istiod.Unreachable.
    """
    if url:
        yield [Istiod(url)]
    else:
        with forwarded(session.client, session.options, namespace) as found:
            yield found


def path_of(resource: Resource) -> str:
    """Where the API server has an object."""
    place = f"/namespaces/{resource.namespace}" if resource.namespace else ""
    return f"{base_of(resource.api_version)}{place}/{KINDS[resource.kind].plural}/{resource.name}"
