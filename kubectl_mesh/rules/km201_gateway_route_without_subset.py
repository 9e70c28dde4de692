"""KM201: a gateway's route has no subset, while rules for the mesh choose subsets of its host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.clients import gateway_namespaces
from kubectl_mesh.mesh.resource import dotted, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.missed_rules import (
    Bypass,
    NotCompared,
    Selection,
    Share,
    absent_gateways,
    bypasses,
    select,
    service_namespace,
)
from kubectl_mesh.rules.repair import ALL_RULES, Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, listed


@dataclass(frozen=True, slots=True)
class _Choice:
    """A subset that a rule for the mesh chooses, and what that choice comes to."""

    to: Destination
    selection: Selection

    @property
    def severity(self) -> Severity | None:
        """How bad it is for requests to miss the choice; None where they get the same pods."""
        share, subset = self.selection.share, self.selection.subset
        if share is Share.SOME:
            return Severity.ERROR
        if share is Share.ALL:
            return Severity.WARNING if subset and subset.has_policy else None
        only_one = subset is not None and not self.selection.siblings
        return Severity.WARNING if only_one or share is Share.ALL_NOW else Severity.ERROR

    @property
    def text(self) -> str:
        share = f" ({self.to.weight} %)" if self.to.weight and self.to.weight < 100 else ""
        return f"{self.to.subset}{share}"


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    selected = cache(partial(select, snapshot))
    for bypass in bypasses(snapshot):
        if isinstance(bypass, NotCompared):
            yield Skip(str(bypass), beyond=bypass.unread)
            continue
        choices = [
            _Choice(to, selected(to.host, to.subset or "", vs.namespace))
            for vs, to in bypass.missed
        ]
        severities = [choice.severity for choice in choices if choice.severity]
        if severities:
            yield _finding(snapshot, bypass, choices, max(severities))


def _finding(
    snapshot: Snapshot, bypass: Bypass, choices: list[_Choice], severity: Severity
) -> Finding:
    winners = tuple(dict.fromkeys(vs for vs, _ in bypass.missed))
    subsets = ", ".join(listed(dict.fromkeys(choice.text for choice in choices)))
    gateways = ", ".join(bypass.gateways)
    to = bypass.to
    what = "requests" if to.protocol == "http" else "connections"
    evidence = listed(
        f"{choice.to.virtual_service.resource} {dotted(choice.to.path)} chooses subset "
        f"{choice.text}"
        for choice in choices
    )
    evidence += listed(dict.fromkeys(choice.selection.why for choice in choices if choice.severity))
    absent = listed(absent_gateways(snapshot, bypass.root, bypass.gateways))
    evidence += absent
    effect = f"they are balanced over all pods of {to.host}, whatever their version"
    if severity is Severity.WARNING:
        effect = "they would reach pods of any other version that is started"
        if all(choice.selection.share is Share.ALL for choice in choices if choice.severity):
            effect = "they reach the same pods, without the subset's traffic policy"
    return RULE.finding(
        to.virtual_service.resource,
        to.path,
        f"{dotted(to.path)} sends {what} from Gateway {gateways} to {to.host} without a subset, "
        f"while {winners[0].resource} chooses {subsets} for calls from inside the mesh",
        traffic=f"{what} that come in through Gateway {gateways} never meet those rules: {effect}"
        + "".join(f"; {text}" for text in absent),
        next=f"name the subset in this route as {winners[0].resource} does, or bind one "
        "VirtualService to both the gateway and mesh",
        severity=severity,
        evidence=evidence,
        related=tuple(vs.resource.id for vs in winners),
        repairs=tuple(_repairs(snapshot, bypass)),
    )


def _repairs(snapshot: Snapshot, bypass: Bypass) -> Iterator[Repair]:
    """A subset that the mesh chooses; or its shares, where a single rule hands out shares."""
    known = _known(snapshot, bypass)
    assumes = _assumptions(snapshot, bypass, known)
    chosen = [to for _, to in bypass.missed]
    if all(to.weight in (None, 0, 100) for to in chosen):
        for subset in dict.fromkeys(to.subset for to in chosen if to.subset):
            if known is None or subset in known:
                yield _with_subset(bypass, subset, assumes)
        return
    first = chosen[0]
    shared = first.virtual_service.routes_of(first.rule)
    if set(chosen) == set(shared) and (known is None or all(to.subset in known for to in shared)):
        yield from _with_shares(bypass, shared, assumes)


def _known(snapshot: Snapshot, bypass: Bypass) -> set[str] | None:
    """The subsets of the host that all of the gateways' proxies know; None for any.

    That is where no manifest of a DestinationRule for the host is in the input, so that the one
    which the mesh's rules rely on has to be somewhere else.
    """
    host = bypass.to.host
    home = service_namespace(snapshot, host)
    covering = next(iter(snapshot.destination_rules.covering(host)), None)
    if covering is None and not snapshot.coverage.live and home:
        return None if snapshot.unknown(home, "DestinationRule") else set()
    known = [
        snapshot.destination_rules.lookup(host, namespace, home).subsets
        for gateway in bypass.gateways
        for namespace, _ in gateway_namespaces(snapshot, gateway)
    ]
    return set.intersection(*map(set, known)) if known else set()


def _assumptions(snapshot: Snapshot, bypass: Bypass, known: set[str] | None) -> tuple[str, ...]:
    """What a repair takes to be so, for want of a Gateway or a DestinationRule."""
    found = absent_gateways(snapshot, bypass.root, bypass.gateways)
    if known is None:
        subsets = ", ".join(dict.fromkeys(to.subset for _, to in bypass.missed if to.subset))
        found.append(
            f"no DestinationRule for {bypass.to.host} is in the input: the one on which "
            f"{bypass.missed[0][0].resource} relies is taken to define {subsets} for the gateway "
            "as well"
        )
    return tuple(found)


def _with_subset(bypass: Bypass, subset: str, assumes: tuple[str, ...]) -> Repair:
    to = bypass.to
    return Repair(
        subset,
        f"send to subset {subset} of {to.host}, as the rules for the mesh do",
        (Edit(to.virtual_service.resource, (*to.path, "subset"), subset),),
        affects=_also(bypass),
        assumes=assumes,
    )


def _with_shares(
    bypass: Bypass, shared: Sequence[Destination], assumes: tuple[str, ...]
) -> Iterator[Repair]:
    """None where the route is one of several, or where headers go with the mesh's shares."""
    to = bypass.to
    routes = field_at(to.virtual_service.resource.data, (*to.rule, "route"))
    if len(routes) != 1 or any("headers" in _route(each) for each in shared):
        return
    yield Repair(
        "as-mesh",
        "share out as the rules for the mesh do: "
        + ", ".join(f"weight {each.weight} to subset {each.subset}" for each in shared),
        (
            Edit(
                to.virtual_service.resource,
                (*to.rule, "route"),
                [
                    {
                        **routes[0],
                        "destination": {**routes[0]["destination"], "subset": each.subset},
                        "weight": each.weight,
                    }
                    for each in shared
                ],
            ),
        ),
        unsafe=f"requests through Gateway {', '.join(bypass.gateways)} are shared out so from then "
        "on",
        flag=ALL_RULES,
        affects=_also(bypass),
        assumes=assumes,
    )


def _also(bypass: Bypass) -> tuple[str, ...]:
    if not any(
        field_at(to.virtual_service.resource.data, to.rule).get("match") for _, to in bypass.missed
    ):
        return ()
    return ("the mesh's rules choose by match, this route chooses for all that it takes",)


def _route(to: Destination) -> Mapping[str, Any]:
    """The item of a rule's routes that a destination stands in."""
    found: Mapping[str, Any] = field_at(to.virtual_service.resource.data, to.path[:-1])
    return found


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v1}
spec:
  selector: {matchLabels: {app: hello, version: v1}}
  template:
    metadata: {labels: {app: hello, version: v1}}
    spec:
      containers: [{name: hello, image: hello:1, ports: [{containerPort: 8080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello-v2}
spec:
  selector: {matchLabels: {app: hello, version: v2}}
  template:
    metadata: {labels: {app: hello, version: v2}}
    spec:
      containers: [{name: hello, image: hello:2, ports: [{containerPort: 8080}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hello}
spec:
  host: hello
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [hello.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  hosts: [hello]
  http:
  - route:
    - destination: {host: hello, subset: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello-public}
spec:
  hosts: [hello.example.com]
  gateways: [public]
  http:
  - route:
"""

RULE = Rule(
    code="KM201",
    name="gateway-route-without-subset",
    severity=Severity.ERROR,
    summary="A gateway's route names no subset, though rules for the mesh choose subsets of its "
    "host.",
    explanation="""\
The rules of a VirtualService for a service are applied by the sidecars of its callers. A request
that comes in through a gateway meets the rules of the VirtualServices that are bound to **that
gateway**, and no other: the gateway's route decides alone where it goes. If that route names no
subset, the request is balanced over all pods of the service, also over versions that the mesh's
rules give nothing to. So a version that is kept back, or tried on a few, is open to everyone
outside.

The gateway's rules are put beside those that sidecars have for the host on the port: of the
VirtualService that wins on the mesh, its delegates merged. The proof is a request that takes the
gateway's route and, as it arrives at the service, the mesh's. The rule stays silent where

- the subsets select all pods of the service, and bring no traffic policy of their own;
- no request takes both routes, as their matches, or earlier rules of either side, rule it out;
- every server of the gateway only redirects to https;
- the gateway's rule names a subset of the host itself;
- the mesh's rules are for chosen callers only (`sourceLabels`, `sourceNamespace`, `exportTo`);
- one VirtualService is bound to both the gateway and the mesh;
- the gateway sends to the waypoint of the Service (`istio.io/ingress-use-waypoint`), which has the
  mesh's rules.

What a rewrite or a change of headers leaves is taken to be anything, and so are claims of tokens.
Skipped where matches are too many or too intricate, or where a route of the Kubernetes Gateway API
may rule the Service in the mesh. Routes of tcp and tls rules are compared as well, by port alone.

Where the pods are not in the input and a single subset is defined, or the other version is scaled
to zero, the finding is a warning.""",
    fix="""\
Give the gateway's route the subset (and weights) of the mesh's rule. Or keep one set of rules for
both ways in: one VirtualService with the hosts of both, bound to `mesh` and to the gateway, with
`gateways` in a match where a rule is for one of them only. Note that one VirtualService serves all
of its hosts on all of its gateways.""",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#route-rules-have-no-effect-on-ingress-gateway-requests",
    needs=("VirtualService",),
    uses=(
        "DestinationRule",
        "Gateway",
        "Service",
        "ServiceEntry",
        "Sidecar",
        "Namespace",
        *unread.KINDS,
        *WORKLOAD_KINDS,
    ),
    equivalents=("IST0140",),
    check=check,
    bad=_SHARED
    + """\
    - destination: {host: hello}
""",
    good=_SHARED
    + """\
    - destination: {host: hello, subset: v1}
""",
)
