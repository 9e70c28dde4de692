"""kubectl mesh from Python: what its commands do, as functions.

`import kubectl_mesh` has them all. They print nothing and write nothing; every error that they
raise is a MeshError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kubectl_mesh.errors import UsageError
from kubectl_mesh.fixing.cure import Cure, Wishes, cure
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import istio_given
from kubectl_mesh.proof import compare as proof
from kubectl_mesh.proof.compare import Comparison
from kubectl_mesh.report.route_json import document
from kubectl_mesh.routing.connection import connection_for, is_connection
from kubectl_mesh.routing.proxies import gateway_named, of_client, of_gateway
from kubectl_mesh.routing.request import request_for
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.trace import Tracer
from kubectl_mesh.rules.examine import Report, examine
from kubectl_mesh.rules.ignore import Ignores
from kubectl_mesh.rules.named import chosen
from kubectl_mesh.sources import repository
from kubectl_mesh.sources.config import find_mesh_config, read_mesh_config
from kubectl_mesh.sources.session import ClusterOptions, Session


def load(
    *paths: str,
    recursive: bool = False,
    namespace: str = "default",
    client_namespace: str | None = None,
    mesh_config: str | None = None,
    istio_version: str | None = None,
) -> Snapshot:
    """The mesh that manifests describe, as -f reads them.

    `paths` are files and folders, with the folders below them if `recursive`; kustomizations are
    rendered. Manifests that set no namespace are in `namespace`. Of several revisions of Istio the
    one counts that `client_namespace` selects, else that of most namespaces. `mesh_config` is a
    file and `istio_version` such as 1.27, as the flags of these names. What could not be read is in
    `gaps` of the mesh.

    Raises UsageError where no path is given, where the folders hold several meshes, and for a
    version that is none; InputError for a mesh_config that cannot be read.
    """
    if not paths:
        raise UsageError("no file and no folder is named")
    try:
        given = None if istio_version is None else istio_given(istio_version, "istio_version")
    except ValueError as error:
        raise UsageError(str(error)) from None
    settings = None if mesh_config is None else read_mesh_config(mesh_config)
    found = repository.read(paths, recursive=recursive, namespace=namespace)
    resources = found.only()
    clients = None if client_namespace is None else (client_namespace,)
    config = find_mesh_config(resources, clients, given=given, settings=settings)
    return Snapshot(resources, config, unreadable=found.unreadable)


def load_cluster(
    *namespaces: str, kubeconfig: str | None = None, context: str | None = None
) -> Snapshot:
    """The mesh of a live cluster: of some namespaces and what bears on them, or of all.

    What could not be read is in `gaps` of the mesh. Raises ClusterError where the cluster cannot be
    reached, UsageError for a name that no namespace can have.
    """
    from kubectl_mesh.sources import cluster

    session = Session(ClusterOptions(kubeconfig=kubeconfig, context=context))
    state = cluster.load(session, KINDS, namespaces or None)
    return Snapshot(state.resources, state.config, state.coverage, state.unreadable)


def doctor(
    mesh: Snapshot,
    *,
    rules: Sequence[str] = (),
    skip_rules: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Report:
    """What is wrong with a mesh: `findings`, the worst first, and why rules were `skipped`.

    `rules`, `skip_rules` and `ignore` are as the flags --rule, --skip-rule and --ignore. Raises
    UsageError for one that names no rule.
    """
    return examine(mesh, chosen(rules, skip_rules), Ignores(ignore))


def route(
    mesh: Snapshot,
    url: str,
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    gateway: str | None = None,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Mapping[str, Any]:
    """Where a request goes and why: an object as `kubectl mesh route URL -o json` prints it.

    The request comes from a pod of `namespace` with `labels`, or from outside through `gateway`
    ([NAMESPACE/]NAME). Unlike the command it is not refused where a Gateway serves the host and
    none is named, and other releases of Istio are not tried. The URL may also be tls://HOST:PORT or
    tcp://HOST:PORT; `method` and `headers` are for HTTP alone.

    Raises UsageError for what is no URL, and for a Gateway that is not there.
    """
    if is_connection(url):
        if headers or method != "GET":
            raise UsageError("a connection has no method and no headers")
        asked: Any = connection_for(url)
    else:
        asked = request_for(url, method, headers)
    if gateway is None:
        source = of_client(namespace, labels or {})
    else:
        source = of_gateway(mesh, gateway_named(mesh, gateway, namespace))
    source = replace(source, notes=(*source.notes, *mesh.config.notes))
    trace = Tracer(router_of(mesh)).follow(source.proxy, asked)
    return document(trace, source, mesh, mesh.gaps)


def compare(before: Snapshot, after: Snapshot) -> Comparison:
    """What two states of a mesh treat differently, with an example of each class of requests.

    Its `differences` are all that there are, unless something is `undecided`.
    """
    return proof.compare(before, after)


def fix(
    mesh: Snapshot,
    *findings: str,
    choose: Collection[str] = (),
    unsafe: bool = False,
    all_rules: bool = False,
    accept_mtls_off: bool = False,
) -> Cure:
    """The repairs of what the doctor finds in a mesh that was read from manifests.

    `findings` are as the arguments of `kubectl mesh fix`, CODE or CODE=KIND/NAMESPACE/NAME, none
    for all; the others as its flags. `changes.steps` of the result are the patches (`operations`),
    `after` is the mesh with them and what is found there. Nothing is written.

    Raises UsageError for a mesh of a cluster, for findings that name no rule, and for a choice that
    is the name of no repair.
    """
    if mesh.coverage.live:
        raise UsageError("this mesh was read from a cluster: run `kubectl mesh fix`")
    wishes = Wishes.of(
        findings, choose, unsafe=unsafe, all_rules=all_rules, accept_mtls_off=accept_mtls_off
    )
    found = cure(mesh, doctor(mesh), doctor, wishes, lambda resource: resource.raw)
    for name in choose:
        if name not in found.known:
            there = ", ".join(sorted(found.known)) or "none"
            raise UsageError(f"no repair is called {name}; there are: {there}")
    return found
