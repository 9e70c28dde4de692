"""From the input flags to a snapshot, the same way for every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import comma_separated
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource, Unreadable
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.sources import repository
from kubectl_mesh.sources.config import find_mesh_config, read_mesh_config
from kubectl_mesh.sources.context import ClusterOptions, namespace_on_disk
from kubectl_mesh.term import safe


def filenames_of(args: argparse.Namespace) -> list[str]:
    """The files and folders of all -f, or of -k. Raises UsageError for a flag that names none."""
    if args.kustomize is not None:
        if args.filename:
            raise UsageError("-k takes the place of -f: leave one of them out")
        if not args.kustomize:
            raise UsageError("-k names no folder")
        return [args.kustomize]
    filenames = comma_separated(args.filename)
    if args.filename and not filenames:
        raise UsageError("-f names no file")
    return filenames


def is_on_disk(args: argparse.Namespace) -> bool:
    """Whether manifests are named, and not a cluster."""
    return bool(args.filename or args.kustomize)


def read_manifests(
    args: argparse.Namespace, filenames: Sequence[str], *, nameless: bool = False
) -> repository.Input:
    """What is in files and folders, read as flags.add_folder_flags say.

    Says on standard error how many files were passed over. Raises UsageError for a --render of
    another word.
    """
    render = comma_separated(args.render) or [repository.LOCAL]
    for word in render:
        if word not in repository.RENDER:
            raise UsageError(f"--render={word}: expected {', '.join(repository.RENDER)}")
    if repository.NEVER in render and (len(set(render)) > 1 or args.kustomize is not None):
        raise UsageError("--render=never renders nothing: leave out -k and every other --render")
    found = repository.read(
        filenames,
        recursive=args.recursive,
        namespace=args.namespace or namespace_on_disk(cluster_options(args)),
        nameless=nameless,
        render=render,
        strict=args.strict,
        root=args.kustomize,
    )
    if count := len(found.passed_over):
        files = "1 file is not a Kubernetes manifest and was"
        if count > 1:
            files = f"{count} files are not Kubernetes manifests and were"
        then = "--strict makes them failures"
        print(
            f"{files} skipped; {then if args.verbose else f'-v lists them, {then}'}",
            file=sys.stderr,
        )
        for each in found.passed_over if args.verbose else ():
            print(safe(f"  {each.where}: {each.reason}"), file=sys.stderr)
    return found


def take_meshes(
    args: argparse.Namespace, kinds: Collection[str]
) -> tuple[Mapping[str, Snapshot], Collection[str] | None]:
    """As take_snapshot, for what looks at each mesh by itself: by the folder of its kustomization.

    The plain manifests, and a cluster, have the key "". What could not be read is in the first.
    """
    filenames = _filenames(args)
    if not filenames or args.with_cluster:
        snapshot, namespaces = take_snapshot(args, kinds)
        return {"": snapshot}, namespaces
    settings = given_settings(args)
    found = read_manifests(args, filenames)
    plain = found.meshes[0].resources
    only = (args.namespace,) if args.namespace and not args.all_namespaces else None
    meshes: dict[str, Snapshot] = {}
    for each in found.meshes:
        own = each.resources if each.root else ()
        meshes[each.root] = Snapshot(
            each.resources,
            settings([*own, *plain], only),
            Coverage(elsewhere=each.elsewhere),
            () if meshes else found.unreadable,
        )
    return meshes, only


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
    filenames = _filenames(args)
    kinds = {*kinds, *unread.KINDS}
    if not filenames:
        return _from_cluster(args, kinds, namespaces, hosts, [], [])
    found = read_manifests(args, filenames)
    resources, unreadable = found.only(), found.unreadable
    if args.with_cluster:
        return _from_cluster(args, kinds, namespaces, hosts, resources, unreadable)
    only = (args.namespace,) if args.namespace and not args.all_namespaces else None
    config = given_settings(args)(resources, namespaces or only)
    return Snapshot(resources, config, unreadable=unreadable), only


def given_settings(
    args: argparse.Namespace,
) -> Callable[[Sequence[Resource], Collection[str] | None], MeshConfig]:
    """What gives the settings of manifests, for clients of some namespaces (None: of all).

    --mesh-config and --istio-version come first. Raises InputError for a --mesh-config that cannot
    be read.
    """
    return partial(find_mesh_config, given=args.istio_version, settings=_read_config(args))


def _read_config(args: argparse.Namespace) -> MeshConfig | None:
    return read_mesh_config(args.mesh_config) if args.mesh_config is not None else None


def name_gaps(snapshot: Snapshot) -> bool:
    """Names what could not be read on standard error, and what is not followed.

    Whether something could not be read: then no command says that it has seen all.
    """
    for reason in snapshot.gaps:
        print(f"Warning: not read: {safe(reason)}", file=sys.stderr)
    name_limits(snapshot)
    return bool(snapshot.gaps)


def name_limits(*snapshots: Snapshot) -> None:
    """Names on standard error what is not followed, in one line, and what settings were assumed."""
    for note in dict.fromkeys(note for each in snapshots for note in each.config.notes):
        print(f"Warning: {safe(note)}", file=sys.stderr)
    texts = [unread.summed_up(each for snapshot in snapshots for each in snapshot.unread.all)]
    texts += [
        unread.summed_up(
            snapshot.of_other_revisions, unread.not_of_revision(snapshot.config.revision)
        )
        for snapshot in snapshots
    ]
    for text in dict.fromkeys(filter(None, texts)):
        print(f"Warning: not read: {safe(text)}", file=sys.stderr)


def _filenames(args: argparse.Namespace) -> list[str]:
    filenames = filenames_of(args)
    if args.with_cluster and not filenames:
        raise UsageError("--with-cluster lays manifests over a cluster: name them with -f")
    if not filenames:
        for flag, given in (
            ("-R", args.recursive),
            ("--render", args.render),
            ("--strict", args.strict),
        ):
            if given:
                raise UsageError(f"{flag} is about reading folders: name one with -f")
    return filenames


def _from_cluster(
    args: argparse.Namespace,
    kinds: Collection[str],
    wanted: Collection[str],
    hosts: Collection[str],
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
            config=_read_config(args),
            istio=args.istio_version,
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
