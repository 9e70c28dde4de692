"""KM106: a change removes a subset to which a live VirtualService still routes."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.destinations import definition


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    before = snapshot.before
    if before is None:
        return
    for virtual_service in before.virtual_services.all:
        for destination in virtual_service.destinations:
            host, subset = destination.host, destination.subset
            if not subset or destination.idle:
                continue
            defined = definition(before, host, subset)
            if not defined or definition(snapshot, host, subset):
                continue
            rule = snapshot.get("DestinationRule", defined.namespace, defined.resource.name)
            if rule is None:
                continue
            user = virtual_service.resource
            after = snapshot.virtual_services.by_name.get((user.namespace, user.name))
            changed = after is None or not any(
                (later.host, later.subset) == (host, subset) and not later.idle
                for later in after.destinations
            )
            yield RULE.finding(
                rule,
                ("spec", "subsets") if rule.spec.get("subsets") else ("spec",),
                f"the subset {subset} of {host} is gone, but {user} in the cluster routes to it",
                traffic="requests that meet that rule get 503 (response flag NC: no cluster)"
                + (" until every proxy has the new VirtualService" if changed else ""),
                next=(
                    f"let kubectl mesh apply do it; by hand: apply {user} alone, once the subsets "
                    "that it names are there (KM105), wait until the proxies have it (istioctl "
                    f"proxy-status shows RDS as SYNCED), then apply {rule}"
                    if changed
                    else f"first take the subset out of {user}, wait until the proxies have "
                    f"that, then apply {rule}"
                ),
                related=(user.id,),
            )


RULE = Rule(
    code="KM106",
    name="subset-removed-while-used",
    severity=Severity.ERROR,
    summary="A change removes a subset to which a VirtualService of the cluster still routes.",
    explanation="""\
As soon as a proxy has the new DestinationRule the subset's cluster is gone, and a route that still
names it answers **503** (response flag `NC`). That is so for good where the VirtualService keeps
naming it, and for some seconds where the same change takes it out of the VirtualService, too.

The rule compares manifests with the cluster that they are meant for:
`kubectl mesh doctor -f FILES --with-cluster`.""",
    fix="""\
The other way round than adding, as `kubectl mesh apply` does it: first the VirtualService that no
longer names the subset, then wait until all proxies have it, then the DestinationRule without the
subset. Where new subsets come at the same time, the DestinationRule has both for a while.""",
    reference="https://istio.io/latest/docs/ops/best-practices/traffic-management/"
    "#avoid-503-errors-while-reconfiguring-service-routes",
    needs=("VirtualService", "DestinationRule"),
    compares=True,
    check=check,
    bad="",
    good="",
)
