"""`kubectl mesh merge-vs`: one VirtualService from several, and the proof of what that changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kubectl_mesh.changes.after import mesh_after
from kubectl_mesh.changes.change_set import ChangeSet, change_set
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
from kubectl_mesh.errors import MeshError, UsageError
from kubectl_mesh.fixing.assumed_gateways import with_gateways
from kubectl_mesh.fixing.moved_rules import gateways_not_seen
from kubectl_mesh.flags import (
    CLUSTER,
    INPUT,
    Given,
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
)
from kubectl_mesh.merging.candidates import Candidate, bypassing, candidates, concerning
from kubectl_mesh.merging.meant import Judgement, judge
from kubectl_mesh.merging.merge import Merge, Refusal, merge
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.proof.compare import Comparison, compare
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


class Unmergeable(MeshError):
    """VirtualServices that are not merged, and why."""

    exit_status = 3


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
    output, inputs = asked.changes.output, asked.changes.inputs
    with collector_paused():
        # a proof needs all that could be treated differently
        taken, _ = take_snapshot(replace(inputs, all_namespaces=True), _KINDS)
        nothing = 3 if name_gaps(taken) else 0
        if asked.is_chosen and (why := taken.missing("VirtualService")):
            raise Unmergeable(f"{why}; nothing is changed")
        snapshot, assumed = with_gateways(taken)
        where = asked.namespace
        if not asked.is_chosen:
            mergeable = candidates(snapshot, {where} if where else None)
            emit(_listing(asked.changes.given, mergeable, snapshot, output.paint))
            return nothing
    members = _named(asked, snapshot) if asked.names else concerning(snapshot, asked.host, where)
    if not members and asked.names:
        return nothing
    if len(members) < 2:
        emit(safe(f"{_nothing(snapshot)}: {_told_alone(asked.host, members)}.") + "\n")
        return nothing
    found = merge(snapshot, members, share_routes=asked.share_routes)
    if not isinstance(found, Merge):
        raise Unmergeable(_refused(members, found))
    changes, _ = change_set([found.repair], whole(inputs.session, snapshot))
    comparison = compare(snapshot, mesh_after(snapshot, changes))
    stopping = _stopping(snapshot, found, comparison)
    texts: Sequence[FileChange] | None = None
    try:
        texts = texts_of(asked.changes, changes)
    except NotEditable as error:
        if asked.changes.write:
            raise
        print(f"Warning: {safe(str(error))}", file=sys.stderr)
    show(asked.changes, changes, texts)
    named = sorted(assumed & set().union(*(vs.gateways for vs in found.members)))
    notes = [f"Gateway {name} is not in the input: taken to serve every host" for name in named]
    told = list(_told(asked, snapshot, found, changes, comparison, notes))
    if texts is not None and (not stopping or asked.allow_differences):
        told.append(how_to_make(asked.changes, changes))
    tell(output, changes, told)
    if stopping and not asked.allow_differences:
        raise Unmergeable(
            f"{stopping}; nothing is changed: leave them apart (fix KM201 copies the mesh's subset "
            "into a gateway's route), or merge all the same with --allow-differences"
        )
    if asked.changes.write:
        write(changes, texts or ())
        return nothing
    if asked.changes.apply:
        apply(asked.changes, changes, snapshot)
        return nothing
    return 1


def _named(asked: MergeOptions, snapshot: Snapshot) -> list[VirtualService]:
    """The VirtualServices of the command line, the oldest first where that is known.

    None where a single one of them is there, and the others are merged into it already, or were
    never there: it says so.
    """
    known = snapshot.virtual_services.by_name
    inputs = asked.changes.inputs
    own = inputs.own_namespace if inputs.namespace or snapshot.coverage.live else None
    found: list[VirtualService] = []
    missing: list[str] = []
    for name in dict.fromkeys(asked.names):
        namespace, _, short = name.rpartition("/")
        if namespace:
            matching = [vs for vs in (known.get((namespace, short)),) if vs]
        elif own:
            matching = [vs for vs in (known.get((own, short)),) if vs]
        else:
            matching = [vs for (_, each), vs in known.items() if each == short]
        if not matching:
            place = namespace or own
            where = f"in namespace {place}" if place else "in the manifests"
            missing.append(f"there is no VirtualService {short} {where}")
        if matching[1:]:
            listed = ", ".join(str(vs.resource.id) for vs in matching)
            raise UsageError(f"{name} may be {listed}: say NAMESPACE/NAME")
        found += matching
    if missing and len(found) == 1 and len(asked.names) > 1:
        alone = f"{found[0].resource} stands alone"
        emit(safe(f"{_nothing(snapshot)}: {'; '.join(missing)}, and {alone}.") + "\n")
        return []
    if missing:
        raise UsageError("; ".join(missing))
    if all(vs.resource.metadata.get("creationTimestamp") for vs in found):
        found.sort(key=lambda vs: vs.resource.age_key)
    return found


def _nothing(snapshot: Snapshot) -> str:
    return "Nothing to merge was found" if snapshot.gaps else "There is nothing to merge"


def _told_alone(host: str, members: Sequence[VirtualService]) -> str:
    if not members:
        return f"no VirtualService concerns {host}"
    what = f"concerns {host} alone" if host else "is the only one"
    return f"{members[0].resource} {what}"


def _refused(members: Sequence[VirtualService], refusals: Sequence[Refusal]) -> str:
    names = " and ".join(str(vs.resource) for vs in members)
    return f"{names} cannot be merged: " + "; ".join(map(str, refusals))


def _stopping(snapshot: Snapshot, found: Merge, comparison: Comparison) -> str:
    """What is in the way of a merge that could be made."""
    other = sum(judge(found, each) is Judgement.OTHER for each in comparison.differences)
    parts = []
    if other:
        what = "a class of requests is" if other == 1 else f"{other} classes of requests are"
        parts.append(f"{what} treated differently, which is not intended")
    if comparison.undecided or snapshot.gaps:
        parts.append("not all requests could be compared")
    unseen = sorted(set().union(*(gateways_not_seen(snapshot, vs) for vs in found.members)))
    if unseen:
        parts.append(
            f"Gateway {', '.join(unseen)} is not in the input, so that requests cannot be compared"
        )
    if other:
        parts += found.unbound
    return " and ".join(parts)


def _told(
    asked: MergeOptions,
    snapshot: Snapshot,
    found: Merge,
    changes: ChangeSet,
    comparison: Comparison,
    assumptions: Sequence[str],
) -> Iterator[str]:
    room, paint = width(), asked.changes.output.paint
    lines = [
        found.repair.title,
        *assumptions,
        *found.notes,
        *([] if asked.share_routes else _missed(snapshot, found)),
        *_exposed(found, comparison),
        *(f"{step.target} belongs to {owner}" for step, owner in owned_steps(changes)),
    ]
    if not snapshot.coverage.live and len({vs.resource.age_key[0] for vs in found.members}) == 1:
        lines.append(
            "manifests do not say which is the oldest: in a cluster the oldest survives, and its "
            "rules come first"
        )
    heading = paint("MERGED" if asked.changes.write else "TO BE MERGED", "bold", "green")
    yield heading + "\n" + "\n".join(wrap(safe(line), room, "  ", "    ") for line in lines)
    failing = [
        f"{each.example} from {each.places[0].proxy}, port {each.places[0].port}: "
        f"{each.after.treatment.summary}; before: {each.before.treatment.summary}"
        for each in comparison.differences
        if each.after.treatment.fails and not each.before.treatment.fails
    ]
    if failing:
        heading = paint("REQUESTS THAT WILL FAIL", "bold", "red")
        yield heading + "\n" + "\n".join(wrap(safe(line), room, "  ", "    ") for line in failing)
    layout = Layout(room, paint.enabled)
    proof = render(comparison, (), layout, lambda each: judge(found, each).text)
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
        hosts = ", ".join(dict.fromkeys(each.host for each in places if each.gateway is gateway))
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
