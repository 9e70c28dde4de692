"""From the input flags to a snapshot, the same way for every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kubectl_mesh.errors import UsageError
from kubectl_mesh.flags import comma_separated
from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.resource import Resource, Unreadable
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.mesh.versions import Istio
from kubectl_mesh.sources import repository
from kubectl_mesh.sources.config import find_mesh_config, read_mesh_config
from kubectl_mesh.sources.files import STDIN
from kubectl_mesh.sources.session import ClusterOptions, Session
from kubectl_mesh.term import safe


@dataclass(frozen=True)
class Files:
    """The files and folders of all -f, or of -k, and how flags.add_folder_flags say to read them.

    `kustomize` is the folder of -k; with `verbose` the files that are skipped are listed.
    """

    names: Sequence[str] = ()
    kustomize: str | None = None
    recursive: bool = False
    render: Sequence[str] = ()
    strict: bool = False
    verbose: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> Files:
        """Raises UsageError for a flag that names no file, and for -f beside -k."""
        names = comma_separated(args.filename)
        if args.kustomize is not None:
            if args.filename:
                raise UsageError("-k takes the place of -f: leave one of them out")
            if not args.kustomize:
                raise UsageError("-k names no folder")
            names = [args.kustomize]
        elif args.filename and not names:
            raise UsageError("-f names no file")
        return cls(
            names,
            kustomize=args.kustomize,
            recursive=args.recursive,
            render=comma_separated(args.render),
            strict=args.strict,
            verbose=args.verbose,
        )

    @property
    def hold_stdin(self) -> bool:
        """Whether standard input is among them."""
        return STDIN in self.names


@dataclass(frozen=True)
class Inputs:
    """What a command looks at: a cluster, `files`, or files `with_cluster` below them.

    The rest is as flags.add_input_flags have it.
    """

    session: Session
    files: Files = Files()
    with_cluster: bool = False
    namespace: str | None = None
    all_namespaces: bool = False
    mesh_config: str | None = None
    istio: Istio | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Inputs:
        """Raises UsageError as Files.of does."""
        return cls(
            session_of(vars(args)),
            Files.of(args),
            with_cluster=args.with_cluster,
            namespace=args.namespace,
            all_namespaces=args.all_namespaces,
            mesh_config=args.mesh_config,
            istio=args.istio_version,
        )

    @property
    def has_files(self) -> bool:
        """Whether manifests are named, and not only a cluster."""
        return bool(self.files.names)

    @property
    def own_namespace(self) -> str:
        """The namespace of -n, or of the context. Raises ClusterError for a context not found."""
        return self.namespace or self.session.namespace_on_disk

    @property
    def namespaces(self) -> Collection[str] | None:
        """Which namespaces of manifests are asked for; None for all."""
        return (self.namespace,) if self.namespace and not self.all_namespaces else None


def session_of(flags: Mapping[str, Any]) -> Session:
    """The cluster that the values of flags.add_cluster_flags name."""
    return Session(
        ClusterOptions(
            kubeconfig=flags["kubeconfig"],
            context=flags["context"],
            cluster=flags["cluster"],
            user=flags["user"],
            server=flags["server"],
            token=flags["token"],
            as_user=flags["as_user"],
            as_groups=tuple(flags["as_groups"] or ()),
            as_uid=flags["as_uid"],
            request_timeout=flags["request_timeout"],
            insecure_skip_tls_verify=flags["insecure_skip_tls_verify"],
            tls_server_name=flags["tls_server_name"],
        )
    )


def read_manifests(files: Files, namespace: str, *, nameless: bool = False) -> repository.Input:
    """What is in files and folders; manifests that set no namespace are in `namespace`.

    Says on standard error how many files were passed over. Raises UsageError for a --render of
    another word.
    """
    render = files.render or [repository.LOCAL]
    for word in render:
        if word not in repository.RENDER:
            raise UsageError(f"--render={word}: expected {', '.join(repository.RENDER)}")
    if repository.NEVER in render and (len(set(render)) > 1 or files.kustomize is not None):
        raise UsageError("--render=never renders nothing: leave out -k and every other --render")
    found = repository.read(
        files.names,
        recursive=files.recursive,
        namespace=namespace,
        nameless=nameless,
        render=render,
        strict=files.strict,
        root=files.kustomize,
    )
    if count := len(found.passed_over):
        told = "1 file is not a Kubernetes manifest and was"
        if count > 1:
            told = f"{count} files are not Kubernetes manifests and were"
        then = "--strict makes them failures"
        print(
            f"{told} skipped; {then if files.verbose else f'-v lists them, {then}'}",
            file=sys.stderr,
        )
        for each in found.passed_over if files.verbose else ():
            print(safe(f"  {each.where}: {each.reason}"), file=sys.stderr)
    return found


def take_meshes(
    inputs: Inputs, kinds: Collection[str]
) -> tuple[Mapping[str, Snapshot], Collection[str] | None]:
    """As take_snapshot, for what looks at each mesh by itself: by the folder of its kustomization.

    The plain manifests, and a cluster, have the key "". What could not be read is in the first.
    """
    _check(inputs)
    if not inputs.has_files or inputs.with_cluster:
        snapshot, namespaces = take_snapshot(inputs, kinds)
        return {"": snapshot}, namespaces
    settings = given_settings(inputs)
    found = read_manifests(inputs.files, inputs.own_namespace)
    plain = found.meshes[0].resources
    meshes: dict[str, Snapshot] = {}
    for each in found.meshes:
        own = each.resources if each.root else ()
        meshes[each.root] = Snapshot(
            each.resources,
            settings([*own, *plain], inputs.namespaces),
            Coverage(elsewhere=each.elsewhere),
            () if meshes else found.unreadable,
        )
    return meshes, inputs.namespaces


def take_snapshot(
    inputs: Inputs,
    kinds: Collection[str],
    namespaces: Collection[str] = (),
    hosts: Collection[str] = (),
) -> tuple[Snapshot, Collection[str] | None]:
    """The mesh of the inputs, and the namespaces that are asked for (None: all).

    Of a cluster, the `kinds` are read (names of schema.KINDS), and those that are not followed.
    `namespaces` are asked for instead of the one of the inputs or of the context; `hosts` are names
    that clients there call, and what bears on them is read as well.

    Raises UsageError where inputs contradict each other, InputError for a --mesh-config that cannot
    be read, ClusterError where no cluster answers.
    """
    _check(inputs)
    kinds = {*kinds, *unread.KINDS}
    if not inputs.has_files:
        return _from_cluster(inputs, kinds, namespaces, hosts, [], [])
    found = read_manifests(inputs.files, inputs.own_namespace)
    resources, unreadable = found.only(), found.unreadable
    if inputs.with_cluster:
        return _from_cluster(inputs, kinds, namespaces, hosts, resources, unreadable)
    config = given_settings(inputs)(resources, namespaces or inputs.namespaces)
    return Snapshot(resources, config, unreadable=unreadable), inputs.namespaces


def given_settings(
    inputs: Inputs,
) -> Callable[[Sequence[Resource], Collection[str] | None], MeshConfig]:
    """What gives the settings of manifests, for clients of some namespaces (None: of all).

    --mesh-config and --istio-version come first. Raises InputError for a --mesh-config that cannot
    be read.
    """
    return partial(find_mesh_config, given=inputs.istio, settings=_read_config(inputs))


def _read_config(inputs: Inputs) -> MeshConfig | None:
    return read_mesh_config(inputs.mesh_config) if inputs.mesh_config is not None else None


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


def _check(inputs: Inputs) -> None:
    """Raises UsageError for flags about files where none is named."""
    if inputs.has_files:
        return
    if inputs.with_cluster:
        raise UsageError("--with-cluster lays manifests over a cluster: name them with -f")
    files = inputs.files
    for flag, given in (
        ("-R", files.recursive),
        ("--render", files.render),
        ("--strict", files.strict),
    ):
        if given:
            raise UsageError(f"{flag} is about reading folders: name one with -f")


def _from_cluster(
    inputs: Inputs,
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

    namespaces: Collection[str] | None = None
    if not inputs.all_namespaces:
        named = wanted or (inputs.namespace or inputs.session.kubeconfig.namespace,)
        namespaces = {*named, *(found.namespace for found in manifests if found.namespace)}
    with ProgressLine(sys.stderr) as progress:
        state = cluster.load(
            inputs.session,
            kinds,
            namespaces,
            hosts=hosts,
            manifests=manifests,
            config=_read_config(inputs),
            istio=inputs.istio,
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
