"""KM101: a route names a subset that no DestinationRule visible to the client defines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from kubectl_mesh.mesh.clients import Client, clients_of
from kubectl_mesh.mesh.destination_rules import DestinationRule, Lookup
from kubectl_mesh.mesh.hosts import is_wildcard
from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.routing.ways_in import service_namespace
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity, Skip

_COMPARED = 200
"""Of how many subsets at most one is sought that a misspelt name may mean."""


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for virtual_service in snapshot.virtual_services.all:
        seen: dict[tuple[str, frozenset[str]], list[tuple[Client, Lookup]]] = {}
        for destination in virtual_service.destinations:
            if not destination.subset or destination.idle or is_wildcard(destination.host):
                continue
            key = (destination.host, destination.gateways)
            if key not in seen:
                seen[key] = _lookups(snapshot, destination)
            yield from _check(snapshot, destination, destination.subset, seen[key])


def _lookups(snapshot: Snapshot, destination: Destination) -> list[tuple[Client, Lookup]]:
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
    lookups: list[tuple[Client, Lookup]],
) -> Iterator[Finding | Skip]:
    rules = snapshot.destination_rules
    host = destination.host
    without = []
    for client, lookup in lookups:
        if subset in lookup.subsets:
            continue
        if reason := _unread(snapshot, host, client, lookup):
            yield Skip(reason)
        else:
            without.append((client, lookup))
    if not without:
        return
    for found in rules.defining(host, subset):
        if found.rule.workload_selector is not None:
            yield Skip(
                f"{found.rule.resource} defines the subset {subset} of {host} for chosen client "
                "pods only (workloadSelector), which is not modelled"
            )
            return
    yield _finding(snapshot, destination, subset, without, len(without) < len(lookups))


def _unread(snapshot: Snapshot, host: str, client: Client, lookup: Lookup) -> str | None:
    """Why rules that could not be read may come before those that were found; None if none can."""
    found = lookup.rules[0].namespace if lookup.rules else None
    service = service_namespace(snapshot, host)
    for namespace in (client.namespace, service, snapshot.config.root_namespace):
        if namespace and (reason := snapshot.missing("DestinationRule", namespace)):
            return reason
        if namespace == found:
            break
    return None


def _finding(
    snapshot: Snapshot,
    destination: Destination,
    subset: str,
    without: list[tuple[Client, Lookup]],
    with_it: bool,
) -> Finding:
    rules = snapshot.destination_rules
    covering = list(rules.covering(destination.host))
    client, lookup = without[0]
    provided = bool(snapshot.registry.providers(destination.host))
    defined = next(rules.defining(destination.host, subset), None)
    defining = defined.rule if defined else None
    evidence = [
        f"{rule.resource} defines {_names(rule)} of {rule.host}" for rule in covering[:LISTED]
    ]
    if covering[LISTED:]:
        evidence.append(f"{len(covering) - LISTED} more DestinationRules are for the host")
    certain = client.certain and (provided or bool(covering) or snapshot.coverage.live)
    who = ""
    repairs: list[Repair] = []
    if not covering:
        why = f"no DestinationRule is for {destination.host}"
        if not certain:
            why = f"the input holds no DestinationRule for {destination.host}"
        cure = "create a DestinationRule that defines it"
    elif defining is None:
        target = (lookup.rules or tuple(covering))[0]
        why = f"{target.resource} does not define it"
        names = lookup.subsets if len(lookup.subsets) <= _COMPARED else ()
        close = difflib.get_close_matches(subset, names, n=1)
        if close:
            why += f" (did you mean {close[0]}?)"
            repairs.append(_renamed(destination, close[0]))
        repairs += _defined(snapshot, destination, target, subset)
        cure = f"add it to {target.resource}"
    elif lookup.rules:
        hiding = lookup.rules[0]
        who = f" for {client}"
        why = f"they get {hiding.resource}, which hides {defining.resource}"
        cure = f"add the subset to {hiding.resource}, or delete that rule"
        repairs += _defined(snapshot, destination, hiding, subset)
    else:
        who = f" for {client}"
        why = f"{defining.resource}, which defines it, is not visible there"
        cure = f"add {client.namespace} to its exportTo"
        if defining.export.reaches(client.namespace):
            why += (
                " (only rules of the client's, the Service's and the root namespace are looked at)"
            )
            cure = "move it to the namespace of the Service"
    if not client.certain and client.gateway:
        evidence.append(
            f"no pod of Gateway {client.gateway} is in the input: "
            f"taken to run in namespace {client.namespace}"
        )
    elif not client.certain:
        evidence.append(f"whether namespace {client.namespace} has any client is not known")
    resource = destination.virtual_service.resource
    return RULE.finding(
        resource,
        (*destination.path, "subset"),
        f"{dotted(destination.path)} sends to subset {subset} of {destination.host}, "
        f"which is not defined{who}: {why}",
        traffic=traffic_without_cluster(destination, client if with_it else None),
        next=f"{cure}; wait until proxies have it, and only then route to it",
        severity=Severity.ERROR if certain else Severity.WARNING,
        evidence=tuple(evidence),
        related=tuple(rule.resource.id for rule in covering[:LISTED]),
        repairs=tuple(repairs),
    )


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
    names = [found.name for found in rule.subsets[:LISTED]]
    more = f" and {len(rule.subsets) - LISTED} more" if rule.subsets[LISTED:] else ""
    return f"{', '.join(names) or 'no subset'}{more}"


def traffic_without_cluster(destination: Destination, only: Client | None = None) -> str:
    """What happens to requests of a rule, of all clients or of some, that lead to no cluster."""
    whose = f" of {only}" if only else ""
    if destination.role == "mirror":
        return f"the copies of requests{whose} are lost; the requests themselves are answered"
    share = ""
    if destination.weight is not None and 0 < destination.weight < 100:
        share = f"{destination.weight} % of "
    if destination.protocol != "http":
        return f"{share}connections{whose} that meet this rule are closed at once"
    return f"{share}requests{whose} that meet this rule get 503 (response flag NC: no cluster)"


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
