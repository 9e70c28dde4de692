"""From the input flags to a snapshot, the same way for every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence

from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import comma_separated
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource, Unreadable
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.sources import files
from kubectl_mesh.sources.config import find_mesh_config, read_mesh_config
from kubectl_mesh.sources.context import ClusterOptions, namespace_on_disk
from kubectl_mesh.term import safe


def filenames_of(args: argparse.Namespace) -> list[str]:
    """The files and folders of all -f. Raises UsageError for a -f that names none."""
    filenames = comma_separated(args.filename)
    if args.filename and not filenames:
        raise UsageError("-f names no file")
    return filenames


def take_snapshot(
    args: argparse.Namespace,
    kinds: Collection[str],
    namespaces: Collection[str] = (),
    hosts: Collection[str] = (),
) -> tuple[Snapshot, Collection[str] | None]:
    """The mesh that the flags name, and the namespaces that are asked for (None: all).

    Of a cluster, the `kinds` are read (names of schema.KINDS), and those that are not followed.
    `namespaces` are asked for instead of the one of the flags or of the context; `hosts` are names
    that clients there call, and what bears on them is read as well.

    Raises UsageError where flags contradict each other, InputError for a --mesh-config that cannot
    be read, ClusterError where no cluster answers.
    """
    filenames = filenames_of(args)
    if args.with_cluster and not filenames:
        raise UsageError("--with-cluster lays manifests over a cluster: name them with -f")
    if args.recursive and not filenames:
        raise UsageError("-R reads folders: name one with -f")
    kinds = {*kinds, *unread.KINDS}
    config = read_mesh_config(args.mesh_config) if args.mesh_config is not None else None
    if not filenames:
        return _from_cluster(args, kinds, namespaces, hosts, config, [], [])
    namespace = args.namespace or namespace_on_disk(cluster_options(args))
    resources, unreadable = files.load(filenames, recursive=args.recursive, namespace=namespace)
    if args.with_cluster:
        return _from_cluster(args, kinds, namespaces, hosts, config, resources, unreadable)
    only = args.namespace and not args.all_namespaces
    return (
        Snapshot(resources, config or find_mesh_config(resources), unreadable=unreadable),
        (args.namespace,) if only else None,
    )


def _from_cluster(
    args: argparse.Namespace,
    kinds: Collection[str],
    wanted: Collection[str],
    hosts: Collection[str],
    config: MeshConfig | None,
    manifests: Sequence[Resource],
    unreadable: Sequence[Unreadable],
) -> tuple[Snapshot, Collection[str] | None]:
    """The live mesh, with the manifests of -f laid over it if there are any."""
    from kubectl_mesh.sources import cluster
    from kubectl_mesh.sources.overlay import lay_over
    from kubectl_mesh.sources.progress import ProgressLine

    options = cluster_options(args)
    namespaces: Collection[str] | None = None
    if not args.all_namespaces:
        named = wanted or (args.namespace or cluster.namespace_of_context(options),)
        namespaces = {*named, *(found.namespace for found in manifests if found.namespace)}
    with ProgressLine(sys.stderr) as progress:
        state = cluster.load(
            options,
            kinds,
            namespaces,
            hosts=hosts,
            manifests=manifests,
            config=config,
            progress=progress,
        )
    for warning in state.warnings:
        print(f"Warning: {safe(warning)}", file=sys.stderr)
    live = Snapshot(state.resources, state.config, state.coverage, state.unreadable)
    if not manifests and not unreadable:
        return live, namespaces
    after = Snapshot(
        lay_over(state.resources, manifests),
        state.config,
        state.coverage,
        (*state.unreadable, *unreadable),
        before=live,
    )
    return after, namespaces


def cluster_options(args: argparse.Namespace) -> ClusterOptions:
    """The flags of flags.add_cluster_flags as the sources take them."""
    return ClusterOptions(
        kubeconfig=args.kubeconfig,
        context=args.context,
        cluster=args.cluster,
        user=args.user,
        server=args.server,
        token=args.token,
        as_user=args.as_user,
        as_groups=tuple(args.as_groups or ()),
        as_uid=args.as_uid,
        request_timeout=args.request_timeout,
        insecure_skip_tls_verify=args.insecure_skip_tls_verify,
        tls_server_name=args.tls_server_name,
    )
