"""KM105: one change adds a subset and routes to it."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.destinations import definition


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    before = snapshot.before
    if before is None:
        return
    for virtual_service in snapshot.virtual_services.all:
        for destination in virtual_service.destinations:
            if not destination.subset or destination.idle:
                continue
            defining = definition(snapshot, destination.host, destination.subset)
            if defining and not definition(before, destination.host, destination.subset):
                yield RULE.finding(
                    virtual_service.resource,
                    (*destination.path, "subset"),
                    f"{dotted(destination.path)} uses the subset {destination.subset} of "
                    f"{destination.host}, which {defining.resource} gets by the same change",
                    traffic="until every proxy has the new DestinationRule, requests that meet "
                    "this rule get 503 (response flag NC: no cluster)",
                    next="let kubectl mesh apply do it; by hand: apply "
                    f"{defining.resource} alone, with the subsets that it has now besides the new "
                    "ones, wait until the proxies have it (istioctl proxy-status shows CDS as "
                    f"SYNCED), then apply {virtual_service.resource}",
                    related=(defining.resource.id,),
                )


RULE = Rule(
    code="KM105",
    name="subset-added-and-used-at-once",
    severity=Severity.ERROR,
    summary="One change adds a subset to a DestinationRule and routes to it.",
    explanation="""\
Configuration spreads to the proxies with eventual consistency: istiod learns of DestinationRules
and VirtualServices by separate watches, and proxies get clusters and routes in separate messages. A
proxy that has the new route before the new cluster answers **503** (response flag `NC`) until it
catches up. One `kubectl apply` of both files is no cure, in whatever order they stand.

The rule compares manifests with the cluster that they are meant for:
`kubectl mesh doctor -f FILES --with-cluster`.""",
    fix="""\
Make before break, as `kubectl mesh apply` does it: apply the DestinationRule alone, with the
subsets that it has now besides the new ones, wait until all proxies have it, then apply the
VirtualService.""",
    reference="https://istio.io/latest/docs/ops/best-practices/traffic-management/"
    "#avoid-503-errors-while-reconfiguring-service-routes",
    needs=("VirtualService", "DestinationRule"),
    compares=True,
    check=check,
    bad="",
    good="",
)
