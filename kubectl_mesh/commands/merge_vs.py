"""`kubectl mesh merge-vs`: one VirtualService from several, and the proof of what that changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from kubectl_mesh.changes.files import FileChange
from kubectl_mesh.changes.text import NotEditable
from kubectl_mesh.commands.changing import (
    ChangeOptions,
    add_change_flags,
    apply,
    how_to_make,
    owned_steps,
    show,
    tell,
    texts_of,
    whole,
    write,
)
from kubectl_mesh.commands.inputs import name_gaps, take_snapshot
from kubectl_mesh.errors import UsageError
from kubectl_mesh.fixing.assumed_gateways import with_gateways
from kubectl_mesh.flags import (
    CLUSTER,
    INPUT,
    Given,
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
)
from kubectl_mesh.merging.candidates import Candidate, bypassing, candidates, concerning, named
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge
from kubectl_mesh.merging.proposal import Proposal, Unmergeable, propose
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Comparison
from kubectl_mesh.proof.scope import KINDS as ROUTING_KINDS
from kubectl_mesh.report import Layout
from kubectl_mesh.report.changes import FORMATS
from kubectl_mesh.report.comparison import render
from kubectl_mesh.report.table import wrap
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import Paint, emit, safe, width

_KINDS = {*ROUTING_KINDS, "Rollout"}

_EPILOG = """\
examples:
  {prog}                               what could be merged, and what that would change
  {prog} myapp helloworld -n shop      shows one VirtualService instead of two, and the proof
  {prog} myapp helloworld --share-routes    the gateway's routes take the mesh's subsets, too
  {prog} --host reviews.shop.svc.cluster.local    all VirtualServices that concern it
  {prog} myapp helloworld -f manifests/ --write    changes the files
  {prog} myapp helloworld -n shop --apply    asks, and changes the cluster; `undo` takes it back

The oldest survives and is changed in place, so that it wins on the mesh throughout; the others are
deleted once the proxies have its rules. Every rule is bound to the gateways, or the mesh, where it
held before. A change that is not what the merge is for stops it, unless --allow-differences.

exit status:
  0  there is nothing to merge, or it is written or applied; of the listing
  1  there is something to change
  2  the command line is at fault, or you did not agree
  3  it cannot be merged, or something could not be read or changed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    parser.add_argument(
        "names", nargs="*", metavar="[NAMESPACE/]NAME", help="the VirtualServices to be merged"
    )
    add_input_flags(parser)
    group = parser.add_argument_group("how to merge")
    group.add_argument(
        "--host", metavar="HOST", help="all VirtualServices that concern a host, in place of names"
    )
    group.add_argument(
        "--share-routes",
        action="store_true",
        help="give routes of gateways the subsets that the rules for the mesh choose",
    )
    group.add_argument(
        "--allow-differences",
        action="store_true",
        help="merge although requests are treated differently, other than it is meant for",
    )
    add_change_flags(group)
    add_output_flags(parser, ("diff", *FORMATS))
    add_cluster_flags(parser)


@dataclass(frozen=True)
class MergeOptions:
    """Which VirtualServices are merged: `names`, or those of a `host`; without both, none yet."""

    names: Sequence[str]
    host: str
    share_routes: bool
    allow_differences: bool
    changes: ChangeOptions

    @classmethod
    def of(cls, args: argparse.Namespace) -> MergeOptions:
        """Raises UsageError for flags that contradict each other."""
        changes = ChangeOptions.of(args)
        host = args.host or ""
        if args.names and host:
            raise UsageError("name VirtualServices, or a --host: not both")
        found = cls(args.names, host, args.share_routes, args.allow_differences, changes)
        if not found.is_chosen and (changes.write or changes.apply or args.output != "diff"):
            raise UsageError("name the VirtualServices to be merged, or a --host")
        return found

    @property
    def is_chosen(self) -> bool:
        return bool(self.names or self.host)

    @property
    def namespace(self) -> str | None:
        """The namespace that is asked about; None for all."""
        inputs = self.changes.inputs
        anywhere = inputs.all_namespaces or (inputs.has_files and not inputs.namespace)
        return None if anywhere else inputs.own_namespace


def run(args: argparse.Namespace) -> int:
    """Previews a merge, or makes it; without names, lists what could be merged.

    Raises UsageError for names that are not there, Unmergeable where something stands in the way,
    and what changing.show and changing.apply raise.
    """
    asked = MergeOptions.of(args)
    inputs, namespace = asked.changes.inputs, asked.namespace
    with collector_paused():
        # a proof needs all that could be treated differently
        taken, _ = take_snapshot(replace(inputs, all_namespaces=True), _KINDS)
        nothing = 3 if name_gaps(taken) else 0
        if asked.is_chosen and (why := taken.missing("VirtualService")):
            raise Unmergeable(f"{why}; nothing is changed")
        snapshot, assumed = with_gateways(taken)
        if not asked.is_chosen:
            mergeable = candidates(snapshot, {namespace} if namespace else None)
            emit(_listing(asked.changes.given, mergeable, snapshot, asked.changes.output.paint))
            return nothing
    members, alone = _members(asked, snapshot)
    if alone:
        what = "Nothing to merge was found" if snapshot.gaps else "There is nothing to merge"
        emit(safe(f"{what}: {alone}.") + "\n")
        return nothing
    found = propose(
        snapshot, members, whole(inputs.session, snapshot), share_routes=asked.share_routes
    )
    texts = _show(asked, snapshot, found, assumed)
    if found.obstacles and not asked.allow_differences:
        raise Unmergeable(
            f"{' and '.join(found.obstacles)}; nothing is changed: leave them apart (fix KM201 "
            "copies the mesh's subset into a gateway's route), or merge all the same with "
            "--allow-differences"
        )
    if asked.changes.write:
        write(found.changes, texts)
    elif asked.changes.apply:
        apply(asked.changes, found.changes, snapshot)
    else:
        return 1
    return nothing


def _members(asked: MergeOptions, snapshot: Snapshot) -> tuple[Sequence[VirtualService], str]:
    """The VirtualServices that are meant, and why there is nothing to merge; "" if there is."""
    if not asked.names:
        members = concerning(snapshot, asked.host, asked.namespace)
        if members[1:]:
            return members, ""
        alone = f"{members[0].resource} concerns {asked.host} alone" if members else ""
        return members, alone or f"no VirtualService concerns {asked.host}"
    inputs = asked.changes.inputs
    own = inputs.own_namespace if inputs.namespace or snapshot.coverage.live else None
    members, missing = named(snapshot, asked.names, own)
    if missing:
        return members, f"{'; '.join(missing)}, and {members[0].resource} stands alone"
    return members, "" if members[1:] else f"{members[0].resource} is the only one"


def _show(
    asked: MergeOptions, snapshot: Snapshot, found: Proposal, assumed: Collection[str]
) -> Sequence[FileChange]:
    """Prints a merge and its proof; returns the texts of the files, where they can be edited.

    `assumed` are Gateways that are not in the input. Raises NotEditable as `texts_of` does, where
    the files are to be written.
    """
    texts: Sequence[FileChange] | None = None
    try:
        texts = texts_of(asked.changes, found.changes)
    except NotEditable as error:
        if asked.changes.write:
            raise
        print(f"Warning: {safe(str(error))}", file=sys.stderr)
    show(asked.changes, found.changes, texts)
    needed = sorted(set().union(*(vs.gateways for vs in found.merge.members)) & {*assumed})
    notes = [f"Gateway {name} is not in the input: taken to serve every host" for name in needed]
    told = list(_told(asked, snapshot, found, notes))
    if texts is not None and (not found.obstacles or asked.allow_differences):
        told.append(how_to_make(asked.changes, found.changes))
    tell(asked.changes.output, found.changes, told)
    return texts or ()


def _told(
    asked: MergeOptions,
    snapshot: Snapshot,
    found: Proposal,
    assumptions: Sequence[str],
) -> Iterator[str]:
    room, paint = width(), asked.changes.output.paint
    merge, comparison = found.merge, found.comparison
    lines = [
        merge.repair.title,
        *assumptions,
        *merge.notes,
        *([] if asked.share_routes else _missed(snapshot, merge)),
        *_exposed(merge, comparison),
        *(f"{step.target} belongs to {owner}" for step, owner in owned_steps(found.changes)),
    ]
    if not snapshot.coverage.live and len({vs.resource.age_key[0] for vs in merge.members}) == 1:
        lines.append(
            "manifests do not say which is the oldest: in a cluster the oldest survives, and its "
            "rules come first"
        )
    heading = paint("MERGED" if asked.changes.write else "TO BE MERGED", "bold", "green")
    yield heading + "\n" + "\n".join(wrap(safe(line), room, "  ", "    ") for line in lines)
    failing = [
        f"{each.example} from {each.places[0].name}, port {each.places[0].port}: "
        f"{each.after.treatment.summary}; before: {each.before.treatment.summary}"
        for each in comparison.differences
        if each.after.treatment.fails and not each.before.treatment.fails
    ]
    if failing:
        heading = paint("REQUESTS THAT WILL FAIL", "bold", "red")
        yield heading + "\n" + "\n".join(wrap(safe(line), room, "  ", "    ") for line in failing)
    layout = Layout(room, paint.enabled)
    proof = render(comparison, (), layout, lambda each: judge(merge, each).text)
    yield paint("HOW REQUESTS WILL BE ROUTED", "bold") + "\n" + proof.rstrip()


def _missed(snapshot: Snapshot, found: Merge) -> Iterator[str]:
    """Routes of gateways that still miss the subsets of the mesh's rules."""
    members = {vs.resource.id for vs in found.members}
    missing = [each for each in bypassing(snapshot) if {each.resource.id, *each.related} <= members]
    if missing:
        yield (
            "requests that come in through gateways do not meet the subsets of the mesh's rules "
            f"({', '.join(dict.fromkeys(each.rule.code for each in missing))}), and the doctor "
            "takes that to be meant in one VirtualService: --share-routes gives them those subsets"
        )


def _exposed(found: Merge, comparison: Comparison) -> Iterator[str]:
    """Hosts that are served where they were not, as one VirtualService has one list of hosts."""
    places = [
        place
        for each in comparison.differences
        if judge(found, each) is Judgement.EXPOSED
        for place in each.places
    ]
    for gateway in (True, False):
        hosts = ", ".join(
            dict.fromkeys(each.host for each in places if each.proxy.is_gateway is gateway)
        )
        if hosts and gateway:
            yield (
                f"{hosts} can be called through the gateways then: take it out of the hosts of "
                "the Gateway's servers, or match the authority, if that must not be"
            )
        elif hosts:
            yield (
                f"sidecars route {hosts} by these rules then, and answer 404 where none matches"
                "; to repair the gateway's route without that: kubectl mesh fix KM201"
            )


def _listing(given: Given, found: Sequence[Candidate], snapshot: Snapshot, paint: Paint) -> str:
    """What could be merged, what each merge would change, and what stands in the way."""
    if not found and snapshot.gaps:
        return "Nothing to merge was found in what could be read.\n"
    if not found:
        return "No VirtualServices share a host, or route from a gateway to a host with rules.\n"
    room = width()
    parts = []
    for each in found:
        names = ", ".join(f"{vs.namespace}/{vs.resource.name}" for vs in each.members)
        lines = [each.why, *each.changes, *(f"in the way: {line}" for line in each.obstacles)]
        command = ""
        if not each.obstacles:
            words = [f"{vs.namespace}/{vs.resource.name}" for vs in each.members]
            words += ["--share-routes"] if each.has_routes_to_share else []
            command = given.again("merge-vs", *words, only=(INPUT, CLUSTER))
        told = "\n".join(wrap(safe(line), room, "  ", "    ") for line in lines)
        told += f"\n  next: {safe(command)}" if command else ""
        parts.append(paint(safe(names), "bold") + "\n" + told)
    return "\n\n".join(parts) + "\n"
