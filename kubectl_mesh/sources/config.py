"""The mesh's settings, found in the input or read from --mesh-config."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubectl_mesh.errors import InputError
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.control_planes import (
    DEFAULT,
    ControlPlanes,
    control_planes,
    istio_of_proxies,
)
from kubectl_mesh.mesh.injection import INJECTION, REVISION
from kubectl_mesh.mesh.resource import Resource, ResourceId
from kubectl_mesh.mesh.schema import kind_of
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, pod_labels
from kubectl_mesh.sources.files import read_text
from kubectl_mesh.sources.yaml import read_documents

CONFIG_MAP = "istio"
KEY = "mesh"
NETWORKS = "meshNetworks"
_PREFIX = f"{CONFIG_MAP}-"
_MAX_NAMES = 3


def read_mesh_config(file: str) -> MeshConfig:
    """The MeshConfig in a file: as istiod takes it, or an `istio` ConfigMap around it.

    Raises InputError where the file cannot be read or is neither.
    """
    for document in read_documents(read_text(file), file):
        if isinstance(document, InputError):
            raise document
        value = document.value
        if isinstance(value, dict) and value.get("kind") == "ConfigMap":
            data = value.get("data")
            text = data.get(KEY) if isinstance(data, dict) else None
            if not isinstance(text, str):
                raise InputError(f"this ConfigMap has no key `{KEY}`", file, document.first_line)
            return _parse(text, file)
        if not isinstance(value, dict):
            raise InputError("a MeshConfig must be a mapping", file, document.first_line)
        if "kind" in value:
            raise InputError(
                f"a {value['kind']}, neither a MeshConfig nor a ConfigMap around one",
                file,
                document.first_line,
            )
        return MeshConfig.from_mapping(value)
    raise InputError("the file is empty: it holds no MeshConfig", file)


@dataclass(frozen=True)
class _Settings:
    """The MeshConfig of a revision, and the ConfigMap that holds it."""

    revision: str
    config: MeshConfig
    where: ResourceId


def is_mesh_config(name: str) -> bool:
    """Whether a ConfigMap of that name may hold the MeshConfig of a revision."""
    return name == CONFIG_MAP or name.startswith(_PREFIX)


def config_map_of(revision: str) -> str:
    """The name of the ConfigMap with the MeshConfig of a revision."""
    return CONFIG_MAP if revision == DEFAULT else f"{_PREFIX}{revision}"


def selected_revisions(resources: Iterable[Resource]) -> Mapping[str, frozenset[str]]:
    """The revisions, or tags, that each namespace selects, by its labels or else its pods'."""
    by_namespace: dict[str, str] = {}
    by_pods: dict[str, set[str]] = defaultdict(set)
    for resource in resources:
        if resource.kind == "Namespace":
            switch, revision = (resource.labels.get(name) for name in (INJECTION, REVISION))
            if switch == "enabled":
                by_namespace[resource.name] = DEFAULT
            elif switch is None and revision:
                by_namespace[resource.name] = revision
        elif resource.kind in WORKLOAD_KINDS:
            revision = pod_labels(resource).get(REVISION)
            if revision:
                by_pods[resource.namespace].add(revision)
    chosen = {name: frozenset((revision,)) for name, revision in by_namespace.items()}
    return {**{name: frozenset(found) for name, found in by_pods.items()}, **chosen}


def find_mesh_config(
    resources: Iterable[Resource],
    namespaces: Collection[str] | None = None,
    planes: ControlPlanes | None = None,
    given: Istio | None = None,
    settings: MeshConfig | None = None,
) -> MeshConfig:
    """The MeshConfig of the revision that some namespaces (None: all) select.

    It is in the ConfigMap `istio`, or `istio-REVISION`. Where they select several, it is that of
    most of them; a single one counts in any case; without any it is Istio's defaults. `settings`
    take the place of all these. The Istio is that of the revision among `planes` (None: those among
    the resources), or of proxies, unless its release is `given`. `notes` say what was assumed.
    """
    resources = [each for each in resources if kind_of(each.api_version, each.kind)]
    known = _settings(resources)
    planes = planes or control_planes(resources)
    wanted: dict[str, set[str]] = defaultdict(set)
    selected = {
        namespace: {planes.revision_of(name) for name in names}
        for namespace, names in selected_revisions(resources).items()
    }
    for namespace, revisions in selected.items():
        if namespaces is None or namespace in namespaces:
            for revision in revisions:
                wanted[revision].add(namespace)

    def first(name: str) -> tuple[int, bool, str]:
        return -len(wanted.get(name, ())), name != DEFAULT, name

    running = [name for name in wanted if planes.has(name) or name in known]
    revision = min(running or known or wanted or [DEFAULT], key=first)
    used = known.get(revision) or (known[min(known, key=first)] if known else None)
    istio = planes.istio_of(revision) or Istio()
    if given or not istio.origin:
        release = given or istio_of_proxies(resources) or Istio()
        istio = replace(release, settings=istio.settings)
    notes = [*_notes(used, known, wanted)] if used and settings is None else []
    notes += _notes_of_istio(planes, revision, wanted, istio, given)
    if planes.unknown and not istio.origin:
        notes.append(
            f"Istio's version is not known: {planes.unknown}; {istio.text} was assumed "
            "(--istio-version names another)"
        )
    return replace(
        settings or (used.config if used else MeshConfig()),
        istio=istio,
        revision=revision if planes.has(revision) else "",
        other_revisions={
            namespace: min(filter(planes.has, revisions))
            for namespace, revisions in selected.items()
            if planes.has(revision)
            and revision not in revisions
            and any(map(planes.has, revisions))
        },
        chosen=tuple(notes),
    )


def _notes_of_istio(
    planes: ControlPlanes,
    revision: str,
    wanted: Mapping[str, Collection[str]],
    used: Istio,
    given: Istio | None,
) -> Iterator[str]:
    """Says so where other namespaces have another istiod, and where the release is assumed."""
    if planes.planes and not used.origin:
        named = sorted(
            {f"{each.revision or DEFAULT} ({each.version or 'no tag'})" for each in planes.planes}
        )
        yield (
            f"the release of Istio of revision {revision} is not known: there are "
            f"{', '.join(named)}; {used.text} was assumed (--istio-version names another)"
        )
    for other, namespaces in sorted(wanted.items()):
        istio = planes.istio_of(other)
        if other == revision or istio is None or not (planes.has(other) or istio != used):
            continue
        which, ours = "", f"revision {revision}"
        if given is None and istio != used:
            which, ours = f", which is Istio {istio.text}", f"Istio {used.text} of {ours}"
        yield (
            f"{_who(namespaces, other)}{which}: {ours} was assumed for all (-n looks at one "
            "namespace)"
        )


def _who(namespaces: Collection[str], revision: str) -> str:
    """Some namespaces, and that they select a revision."""
    named = sorted(namespaces)
    noun, verb = ("namespace", "selects") if len(named) == 1 else ("namespaces", "select")
    return f"{noun} {first_of(named, _MAX_NAMES)} {verb} revision {revision}"


def _notes(
    used: _Settings, known: Mapping[str, _Settings], wanted: Mapping[str, Collection[str]]
) -> Iterator[str]:
    settings = f"the MeshConfig of {used.where} was used"
    if not wanted and len(known) > 1:
        others = ", ".join(str(each.where) for each in known.values() if each is not used)
        yield f"no namespace selects a revision of Istio: {settings}, and not that of {others}"
    for revision, namespaces in sorted(wanted.items()):
        if revision == used.revision:
            continue
        who = _who(namespaces, revision)
        if revision not in known:
            if revision != DEFAULT or len(known) > 1:
                yield f"{who} of Istio, whose MeshConfig was not found: {settings}"
        elif known[revision].config != used.config:
            yield f"{who} of Istio: {settings}, and {known[revision].where} may say otherwise"


def _settings(resources: Iterable[Resource]) -> Mapping[str, _Settings]:
    """The MeshConfigs, by revision; that of istio-system counts where there are several of one.

    A text that cannot be read counts as empty, and `fault` says so: istiod would refuse it.
    """
    found: dict[str, _Settings] = {}
    maps = [each for each in resources if each.kind == "ConfigMap" and is_mesh_config(each.name)]
    maps.sort(key=lambda resource: resource.namespace != "istio-system")
    for resource in maps:
        revision = resource.name.removeprefix(_PREFIX) if resource.name != CONFIG_MAP else DEFAULT
        data = resource.data.get("data") or {}
        text = data.get(KEY) or ""
        if not (text or data.get(NETWORKS)) or revision in found:
            continue
        try:
            config = _parse(text, resource.origin.name, resource.namespace)
        except InputError as error:
            fault = (
                f"the MeshConfig of {resource} cannot be read, and Istio's defaults were used: "
                f"line {error.line or 1} of its text: {error.message}"
            )
            config = MeshConfig(root_namespace=resource.namespace, fault=fault)
        config = config.with_networks(_networks(data.get(NETWORKS) or ""))
        found[revision] = _Settings(revision, config, resource.id)
    return found


def _parse(text: str, file: str, root_namespace: str = "istio-system") -> MeshConfig:
    value: Any = {}
    for document in read_documents(text, file):
        if isinstance(document, InputError):
            raise document
        value = document.value
    if not isinstance(value, dict):
        raise InputError("a MeshConfig must be a mapping", file)
    return MeshConfig.from_mapping({"rootNamespace": root_namespace, **value})


def _networks(text: str) -> Mapping[str, Any]:
    """The MeshNetworks of a text; none where it cannot be read."""
    for document in read_documents(text, NETWORKS):
        if not isinstance(document, InputError) and isinstance(document.value, dict):
            return document.value
    return {}
