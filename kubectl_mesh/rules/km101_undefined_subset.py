"""KM101: a route names a subset that no DestinationRule visible to the client defines."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kubectl_mesh.mesh.clients import Clients, clients_of, named_namespaces
from kubectl_mesh.mesh.destination_rules import DestinationRule, Lookup, Lost
from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.missed_rules import service_namespace
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity, Skip, listed
from kubectl_mesh.rules.shared.destinations import traffic_without_cluster

_COMPARED = 200
"""Of how many subsets at most one is sought that a misspelt name may mean."""
_NAMED = 5
"""So many namespaces, or Gateways, whose clients lack a subset are named."""


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for virtual_service in snapshot.virtual_services.all:
        seen: dict[tuple[str, frozenset[str]], list[tuple[Clients, Lookup]]] = {}
        for destination in virtual_service.destinations:
            if not destination.subset or destination.idle or is_wildcard(destination.host):
                continue
            alias = next(filter(_stands_for, snapshot.registry.by_host(destination.host)), None)
            if alias:
                yield Skip(
                    f"whether {destination.host} has the subset {destination.subset}: "
                    f"{alias.resource} stands for {alias.external_name}, whose rules count"
                )
                continue
            key = (destination.host, destination.gateways)
            if key not in seen:
                seen[key] = _lookups(snapshot, destination)
            yield from _check(snapshot, destination, destination.subset, seen[key])


def _stands_for(service: Service) -> bool:
    return service.is_external_name


def _lookups(snapshot: Snapshot, destination: Destination) -> list[tuple[Clients, Lookup]]:
    host = destination.host
    namespace = service_namespace(snapshot, host)
    return [
        (client, snapshot.destination_rules.lookup(host, client.namespace, namespace))
        for client in clients_of(snapshot, destination, namespace)
    ]


def _check(
    snapshot: Snapshot,
    destination: Destination,
    subset: str,
    lookups: list[tuple[Clients, Lookup]],
) -> Iterator[Finding | Skip]:
    rules = snapshot.destination_rules
    host = destination.host
    without = []
    for client, lookup in lookups:
        if subset in lookup.subsets:
            continue
        if reason := _unread(snapshot, host, client, lookup):
            yield Skip(reason)
        elif any(
            lost.defines(subset) and _all_selected(snapshot, client, lost) for lost in lookup.lost
        ):
            continue
        else:
            without.append((client, lookup))
    yield from _selected_pods(snapshot, host, subset, {client.namespace for client, _ in lookups})
    if not without:
        return
    for found in rules.defining(host, subset):
        if found.rule.workload_selector is not None:
            yield Skip(
                f"{found.rule.resource} defines the subset {subset} of {host} for chosen client "
                "pods only (workloadSelector): which clients lack it is not decided here"
            )
            return
    yield _finding(snapshot, destination, subset, without, len(without) < len(lookups))


def _all_selected(snapshot: Snapshot, client: Clients, lost: Lost) -> bool:
    """Whether a rule is lost for none of the pods: all that are known are selected."""
    gateway = snapshot.gateways.by_id.get(client.gateway or "")
    pods = [
        pod
        for pod in snapshot.workloads.by_namespace.get(client.namespace, ())
        if (
            gateway.selector.items() <= pod.labels.items()
            if gateway
            else snapshot.is_client(pod) is not False
        )
    ]
    selector = lost.to.workload_selector if lost.joined else None
    return selector is not None and bool(pods) and all(lost.to.selects(pod.labels) for pod in pods)


def _selected_pods(
    snapshot: Snapshot, host: str, subset: str, namespaces: Collection[str]
) -> Iterator[Skip]:
    """Names the rules with a workloadSelector that give the pods of a namespace no such subset."""
    rules = snapshot.destination_rules
    service = service_namespace(snapshot, host)
    for namespace in sorted(rules.selecting.keys() & set(namespaces)):
        for rule in rules.selecting[namespace]:
            found = rules.lookup(host, namespace, service, rule.workload_selector)
            if rule in found.rules and subset not in found.subsets:
                yield Skip(
                    f"whether pods that {rule.resource} selects (workloadSelector) send to subset "
                    f"{subset} of {host}, which they do not have: to them it takes the place of "
                    "other DestinationRules"
                )


def _unread(snapshot: Snapshot, host: str, client: Clients, lookup: Lookup) -> str | None:
    """Why rules that could not be read may come before those that were found; None if none can."""
    found = lookup.rules[0].namespace if lookup.rules else None
    service = service_namespace(snapshot, host)
    for namespace in (client.namespace, service, snapshot.config.root_namespace):
        if namespace and (reason := snapshot.missing("DestinationRule", namespace)):
            return reason
        if namespace == found:
            break
    return None


@dataclass(frozen=True)
class _Cause:
    """Why some clients do not have a subset, what cures it, and the rule to which it can be added.

    Without `cure` it is to export the rule to them. `everybody` tells that the cause is one for all
    clients.
    """

    why: str
    cure: str = ""
    rule: DestinationRule | None = None
    everybody: bool = False


def _finding(
    snapshot: Snapshot,
    destination: Destination,
    subset: str,
    without: list[tuple[Clients, Lookup]],
    with_it: bool,
) -> Finding:
    covering = list(snapshot.destination_rules.covering(destination.host))
    provided = bool(snapshot.registry.providers(destination.host))
    clients = [client for client, _ in without]
    evidence = [
        f"{rule.resource} defines {_names(rule)} of {rule.host}" for rule in covering[:LISTED]
    ]
    if covering[LISTED:]:
        evidence.append(f"{len(covering) - LISTED} more DestinationRules are for the host")
    known = provided or bool(covering) or snapshot.coverage.live
    certain = known and any(client.certain for client in clients)
    causes: dict[_Cause, list[Clients]] = defaultdict(list)
    for client, lookup in without:
        cause = _cause(snapshot, destination, subset, client, lookup)
        causes[cause].append(client)
    told = [
        cause.why if cause.everybody else f"for {_whom(snapshot, destination, those)}: {cause.why}"
        for cause, those in islice(causes.items(), 3)
    ]
    more = f"; {len(causes) - 3} more causes for other clients" if len(causes) > 3 else ""
    first, meets_first = next(iter(causes.items()))
    where = _first_of(list(dict.fromkeys(client.namespace for client in meets_first)))
    cure = first.cure or f"add {where} to its exportTo"
    repairs: dict[str, Repair] = {}
    for cause in causes:
        if cause.rule is not None:
            if cause.everybody and (close := _close(without[0][1], subset)):
                repairs[close] = _renamed(destination, close)
            for repair in _defined(snapshot, destination, cause.rule, subset):
                repairs.setdefault(str(cause.rule.resource), repair)
    evidence += [
        f"no pod of Gateway {client.gateway} is in the input: "
        f"taken to run in namespace {client.namespace}"
        if client.gateway
        else f"whether namespace {client.namespace} has any client is not known"
        for client in clients
        if not client.certain
    ]
    resource = destination.virtual_service.resource
    return RULE.finding(
        resource,
        (*destination.path, "subset"),
        f"{dotted(destination.path)} sends to subset {subset} of {destination.host}, "
        f"which is not defined{': ' if first.everybody else ' '}{'; '.join(told)}{more}",
        traffic=traffic_without_cluster(
            destination, _whom(snapshot, destination, clients) if with_it else ""
        ),
        next=f"{cure}; wait until proxies have it, and only then route to it",
        severity=Severity.ERROR if certain else Severity.WARNING,
        evidence=listed(dict.fromkeys(evidence)),
        related=tuple(rule.resource.id for rule in covering[:LISTED]),
        repairs=tuple(repairs.values()),
    )


def _cause(
    snapshot: Snapshot,
    destination: Destination,
    subset: str,
    client: Clients,
    lookup: Lookup,
) -> _Cause:
    rules = snapshot.destination_rules
    host = destination.host
    covering = next(rules.covering(host), None)
    if covering is None:
        why = f"no DestinationRule is for {host}"
        known = snapshot.registry.providers(host) or snapshot.coverage.live
        if not (known and client.certain):
            why = f"the input holds no DestinationRule for {host}"
        return _Cause(why, "create a DestinationRule that defines it", everybody=True)
    defined = next(rules.defining(host, subset), None)
    if defined is None:
        target = lookup.rules[0] if lookup.rules else covering
        why = f"{target.resource} does not define it"
        if close := _close(lookup, subset):
            why += f" (did you mean {close}?)"
        return _Cause(why, f"add it to {target.resource}", target, everybody=True)
    for lost in lookup.lost:
        if lost.defines(subset):
            return _Cause(lost.why, lost.cure)
    if lookup.rules:
        hiding = lookup.rules[0]
        return _Cause(
            f"they get {hiding.resource}, which hides {defined.rule.resource}",
            f"add the subset to {hiding.resource}, or delete that rule",
            hiding,
        )
    why = f"{defined.rule.resource}, which defines it, is not visible there"
    if not defined.rule.export.reaches(client.namespace):
        return _Cause(why)
    why += " (only rules of the client's, the Service's and the root namespace are looked at)"
    return _Cause(why, "move it to the namespace of the Service")


def _close(lookup: Lookup, subset: str) -> str | None:
    """A subset of those that clients have whose name is close to one that they have not."""
    names = lookup.subsets if len(lookup.subsets) <= _COMPARED else ()
    return next(iter(difflib.get_close_matches(subset, names, n=1)), None)


def _whom(snapshot: Snapshot, destination: Destination, clients: Sequence[Clients]) -> str:
    """Clients in words: the first namespaces and Gateways, and how many more there are."""
    home = service_namespace(snapshot, destination.host)
    named = named_namespaces(snapshot, destination, home)
    inside = [client.namespace for client in clients if not client.gateway]
    if any(namespace not in named for namespace in inside):
        inside += [
            namespace
            for namespace in snapshot.sure_sidecar_namespaces
            if namespace not in named
            and any(
                root.on_mesh and root.export.reaches(namespace)
                for root in snapshot.virtual_services.roots_of(destination.virtual_service)
            )
        ]
    inside = list(dict.fromkeys(inside))
    texts = [str(client) for client in clients if client.gateway]
    if inside:
        word = "namespace" if len(inside) == 1 else "namespaces"
        texts.insert(0, f"clients in {word} {_first_of(inside)}")
    return _first_of(texts)


def _first_of(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        return first_of(names, _NAMED)
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _renamed(destination: Destination, subset: str) -> Repair:
    path = (*destination.path, "subset")
    return Repair(
        f"route-to-{subset}",
        f"send to subset {subset} of {destination.host}, which is defined",
        (Edit(destination.virtual_service.resource, path, subset),),
    )


def _defined(
    snapshot: Snapshot, destination: Destination, rule: DestinationRule, subset: str
) -> Iterator[Repair]:
    """The subset in a DestinationRule, where there are pods that it would select.

    They have its name as the value of the label by which the other subsets of the rule select;
    `version` where there is no other. A subset is never invented.
    """
    keys = {key for each in rule.subsets for key in each.labels} or {"version"}
    if len(keys) > 1:
        return
    (key,) = keys
    pods = [
        pod
        for service in snapshot.registry.providers(destination.host)
        for pod in snapshot.pods_of(service)
        if pod.labels.get(key) == subset
    ]
    if pods:
        count = len(rule.resource.spec.get("subsets") or ())
        yield Repair(
            f"define-{subset}",
            f"define subset {subset} ({key}={subset}) in {rule.resource}: {pods[0]} has that label",
            (
                Edit(
                    rule.resource,
                    ("spec", "subsets", count) if count else ("spec", "subsets"),
                    {"name": subset, "labels": {key: subset}}
                    if count
                    else [{"name": subset, "labels": {key: subset}}],
                    insert=bool(count),
                ),
            ),
        )


def _names(rule: DestinationRule) -> str:
    return first_of([found.name for found in rule.subsets], LISTED) or "no subset"


RULE = Rule(
    code="KM101",
    name="undefined-subset",
    severity=Severity.ERROR,
    summary="A route names a subset that no DestinationRule visible to the client defines.",
    explanation="""\
Envoy has one cluster for each subset. A route to a subset for which a proxy has no DestinationRule
points at a cluster that does not exist, and every request that meets it gets **503** with the
response flag `NC`. Routes, mirrors, tcp and tls routes and delegates are all looked at.

Istio gives a client **one** set of DestinationRules for a host: those of the client's own
namespace if there are any, else those of the Service's namespace that are exported to the client,
else those of the root namespace. The three are never combined. Within the one that is taken only
the most specific host counts, and the rules for it are joined. So a rule in the client's namespace
that sets nothing but a timeout hides the subsets that the Service's owner defined.

Since Istio 1.24 rules are joined only if their `exportTo` is written alike. An older rule without
`exportTo` and a younger one with `["*"]` are both for everyone, yet each client gets the younger
one alone, and all subsets of the older one are gone. Where the older rule names some namespaces and
the younger one those and others, the younger one is added to the older one, and the other
namespaces get neither. Before 1.24 all are joined, and the first `exportTo` that one of them states
holds for all. In 1.24 and later a rule with `exportTo: ["."]` beside one with a `workloadSelector`
counts only for the pods that are selected.

Without live data the rule says what it does not know: where the input holds neither the Service nor
any DestinationRule for the host, or no client in the namespaces that lack the subset, the finding
is a warning.""",
    fix="""\
Make before break. To add a subset: put it into the DestinationRule, wait until the proxies have it,
then change the VirtualService. To remove one: change the VirtualService first, wait, then the
DestinationRule. One `kubectl apply` of both is no cure, as configuration spreads with eventual
consistency.""",
    reference="https://istio.io/latest/docs/ops/best-practices/traffic-management/"
    "#avoid-503-errors-while-reconfiguring-service-routes",
    needs=("VirtualService", "DestinationRule"),
    uses=("Service", "ServiceEntry", "Gateway", "Namespace", *WORKLOAD_KINDS),
    equivalents=("IST0101", "KIA1107"),
    check=check,
    bad="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v2}
""",
    good="""\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
  - name: v2
    labels: {version: v2}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v2}
""",
)
