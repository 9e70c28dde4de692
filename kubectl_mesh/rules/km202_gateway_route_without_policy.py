"""KM202: settings of the mesh's rules for a host that requests through a gateway do not meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_mesh.mesh import unread
from kubectl_mesh.mesh.resource import Path, ResourceId, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.virtual_services import Destination
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.missed_rules import (
    GatewayRule,
    MeshRule,
    NotCompared,
    RulesMissed,
    absent_gateways,
    gateway_rules,
)
from kubectl_mesh.routing.rules import Rule as HttpRule
from kubectl_mesh.rules.repair import ALL_RULES, Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip, listed

_SETTINGS: Mapping[str, str] = {
    "timeout": "timeout",
    "retries": "retries",
    "fault": "fault",
    "mirror": "mirror",
    "mirrors": "mirror",
    "headers": "headers",
    "rewrite": "rewrite",
    "corsPolicy": "cors",
    "redirect": "redirect",
    "directResponse": "directResponse",
}
"""What the fields of an http rule are called; `mirror` and `mirrors` are one thing."""
_FIELDS = _SETTINGS.keys()
_COPIED: Mapping[str, Sequence[str]] = {
    "timeout": ("timeout",),
    "retries": ("retries",),
    "fault": ("fault",),
    "mirror": ("mirror", "mirrors", "mirrorPercentage", "mirrorPercent"),
    "headers": ("headers",),
    "cors": ("corsPolicy",),
    "weights": ("route",),
}
"""The fields that a repair copies for what a finding names; what is not here is for one URI."""


@dataclass(frozen=True, slots=True)
class _Missed:
    """A rule for the mesh, and what it sets and the gateway's rule does not.

    `chosen` are things for which the gateway's rule has a choice of its own, which differs.
    """

    rule: MeshRule
    settings: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = f"{self.rule.rule.owner.resource} {dotted(self.rule.rule.path)}"
        return f"{where} sets {', '.join(self.settings + self.chosen)}"


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    rules_missed = RulesMissed(snapshot, _sets_anything)
    for way_in in gateway_rules(snapshot):
        found: dict[tuple[ResourceId, Path], _Missed] = {}
        for to in way_in.rule.routes:
            for inside in rules_missed.by(way_in, to):
                if isinstance(inside, NotCompared):
                    yield Skip(str(inside), beyond=inside.unread)
                    continue
                missed = _compare(way_in.rule, inside, to)
                if missed.settings or missed.chosen:
                    found.setdefault((inside.rule.owner.resource.id, inside.rule.path), missed)
        if found:
            yield _finding(snapshot, way_in, list(found.values()))


def _compare(outside: HttpRule, inside: MeshRule, to: Destination) -> _Missed:
    missed = _Missed(inside)
    rule = inside.rule
    ours = _settings(outside)
    missed.settings.extend(name for name in _settings(rule) if name not in ours)
    theirs, own = _shares(rule), _shares(outside)
    elsewhere = sorted(theirs.keys() - own.keys())
    if elsewhere:
        missed.settings.append(f"a route to {', '.join(elsewhere)}")
        return missed
    differ = len(theirs) > 1 and theirs != own
    if any(route.subset for route in outside.routes if route.host == to.host):
        theirs, own = _shares(rule, to.host), _shares(outside, to.host)
        differ |= len(theirs) > 1 and theirs != own
    if differ:
        missed.chosen.append("weights")
    return missed


def _sets_anything(rule: HttpRule, host: str) -> bool:
    """Whether calls for `host` that meet a rule get more than a way to `host`."""
    return len(rule.routes) != 1 or rule.routes[0].host != host or bool(_settings(rule))


def _settings(rule: HttpRule) -> list[str]:
    """What a rule sets besides its destinations, as it is called in a finding."""
    data = rule.data
    found = (
        [name for key, name in _SETTINGS.items() if data.get(key)] if _FIELDS & data.keys() else []
    )
    if any(route.get("headers") for route in data.get("route") or ()):
        found.append("headers")
    return list(dict.fromkeys(found))


def _shares(rule: HttpRule, host: str | None = None) -> Mapping[str, int]:
    """What each host, or each subset of `host`, gets of the requests that meet a rule, in %."""
    weights: Counter[str] = Counter()
    for to in rule.routes:
        if host is None:
            weights[to.host] += to.weight or 1
        elif to.host == host:
            weights[to.subset or ""] += to.weight or 1
    total = sum(weights.values())
    return {name: round(100 * weight / total) for name, weight in weights.items()} if total else {}


def _finding(snapshot: Snapshot, way_in: GatewayRule, missed: list[_Missed]) -> Finding:
    first = missed[0]
    rule = way_in.rule
    settings = dict.fromkeys(
        setting for each in missed for setting in (*each.settings, *each.chosen)
    )
    gateways = ", ".join(way_in.gateways)
    roots = dict.fromkeys(each.rule.root.resource.id for each in missed)
    only_chosen = not any(each.settings for each in missed)
    return RULE.finding(
        rule.owner.resource,
        rule.path,
        f"{dotted(rule.path)}, for Gateway {gateways}, "
        + ("differs from" if only_chosen else "lacks")
        + f" what {first.rule.root.resource} sets for calls from inside the mesh: "
        + ", ".join(settings),
        traffic=f"requests that come in through Gateway {gateways} never meet those rules and are "
        "handled by this one alone; nothing is inherited",
        next=f"copy what should hold for them from {first.rule.root.resource}, or bind one "
        "VirtualService to both the gateway and mesh",
        severity=Severity.INFO if only_chosen else None,
        evidence=(
            *listed(map(str, missed)),
            *listed(absent_gateways(snapshot, way_in.root, way_in.gateways)),
        ),
        related=tuple(roots),
        repairs=tuple(_copied(way_in, missed)),
    )


def _copied(way_in: GatewayRule, missed: Sequence[_Missed]) -> Iterator[Repair]:
    """The one repair there is where requests miss a single rule, all of which can be copied.

    Of an object with fields of a wrong type nothing is copied: the model reads it without them.
    """
    if missed[1:]:
        return
    (only,) = missed
    outside, inside = way_in.rule, only.rule.rule
    if inside.owner.resource.faults or only.rule.root.resource.faults:
        return
    names = [*only.settings, *only.chosen]
    if not _COPIED.keys() >= set(names):
        return
    fields = {
        key: inside.data[key] for name in names for key in _COPIED[name] if key in inside.data
    }
    if "weights" in names:
        if _shares(inside).keys() != _shares(outside).keys():
            return
        fields["route"] = _with_ports(inside, outside)
    elif "headers" in names and "headers" not in fields:
        return
    source = f"{inside.owner.resource} {dotted(inside.path)}"
    gateways = ", ".join(way_in.gateways)
    yield Repair(
        "as-mesh",
        f"copy {', '.join(names)} of {source}",
        tuple(
            Edit(outside.owner.resource, (*outside.path, key), value)
            for key, value in fields.items()
        ),
        unsafe=f"requests through Gateway {gateways} are handled so from then on",
        flag=ALL_RULES,
        affects=("the mesh's rule is for a match, this one for all that it takes",)
        if inside.matches
        else (),
    )


def _with_ports(inside: HttpRule, outside: HttpRule) -> list[Mapping[str, Any]]:
    """The mesh's routes; what names no port is for the port that is called, so the gateway's."""
    ports = {to.host: to.port for to in outside.routes}
    found: list[Mapping[str, Any]] = []
    for route in inside.data["route"]:
        to = route["destination"]
        port = ports.get(to["host"])
        if port and not to.get("port"):
            to = {**to, "port": {"number": port}}
        found.append({**route, "destination": to})
    return found


_SHARED = """\
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{name: http, port: 8080}]
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
  - timeout: 3s
    retries: {attempts: 2, perTryTimeout: 1s}
    route:
    - destination: {host: hello}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello-public}
spec:
  hosts: [hello.example.com]
  gateways: [public]
  http:
"""

RULE = Rule(
    code="KM202",
    name="gateway-route-without-policy",
    severity=Severity.WARNING,
    summary="A gateway's rule lacks settings that the mesh's rules for its host have.",
    explanation="""\
Timeout, retries, fault, mirror, headers, rewrite, cors, redirects and weights belong to one rule of
one VirtualService; nothing is inherited. A request that comes in through a gateway meets the
gateway's rule, and not the one that calls to the same service meet inside the mesh. So it waits
without the timeout, is retried as the mesh's default has it (twice), is not mirrored, and all of it
goes where the gateway's rule says.

One finding for a gateway's rule names all that it lacks. What the gateway's rule sets itself,
otherwise than the mesh's does, was meant so and is not reported, save for different weights, which
are told as information. Subsets that the gateway's rule does not choose are KM201's. Rules are
compared as there: those of the VirtualService that wins for the host on the mesh that can meet the
same request, and never a VirtualService with itself. Rules of the mesh that bring requests to an
egress gateway, which takes in the same host, have been met already and do not count.""",
    fix="""\
Write the settings that should hold for requests from outside into the gateway's rule. Some are
rightly different: a fault for tests inside the mesh, a shorter timeout between services.""",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#route-rules-have-no-effect-on-ingress-gateway-requests",
    needs=("VirtualService",),
    uses=(
        "Gateway",
        "Service",
        "ServiceEntry",
        "Sidecar",
        "Namespace",
        *unread.KINDS,
        *WORKLOAD_KINDS,
    ),
    check=check,
    bad=_SHARED
    + """\
  - route:
    - destination: {host: hello}
""",
    good=_SHARED
    + """\
  - timeout: 3s
    retries: {attempts: 2, perTryTimeout: 1s}
    route:
    - destination: {host: hello}
""",
)
