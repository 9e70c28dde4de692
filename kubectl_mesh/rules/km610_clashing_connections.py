"""KM610: two rules of a listener are for the same server name or subnet, and Envoy refuses it."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Path, Resource, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.proof.proxies_compared import clients, distinctions, gateways_compared
from kubectl_mesh.routing.chains import Chain, Listener
from kubectl_mesh.routing.router import Router, router_of
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    router = router_of(snapshot)
    told: set[tuple[object, ...]] = set()
    for whose, listener in (*_of_gateways(router), *_of_sidecars(router)):
        if isinstance(listener, Skip):
            yield listener
        elif listener.clash:
            one, other, what = listener.clash
            key = (*_place(one), *_place(other), what)
            if key not in told:
                told.add(key)
                yield _finding(whose, listener, one, other, what)


def _of_gateways(router: Router) -> Iterator[tuple[str, Listener]]:
    for proxy in gateways_compared([router.snapshot]):
        names = " and ".join(gateway.id for gateway in proxy.gateways or ())
        for port in router.listeners.merged(proxy):
            listener = router.listeners.gateway(proxy, port)
            if listener:
                yield f"the proxies of Gateway {names}", listener


def _of_sidecars(router: Router) -> Iterator[tuple[str, Listener | Skip]]:
    """The listeners that tcp and tls rules have a part in."""
    seen: set[str] = set()
    for vs in router.snapshot.virtual_services.roots:
        if not vs.on_mesh or not (vs.resource.spec.get("tls") or vs.resource.spec.get("tcp")):
            continue
        for pattern in vs.hosts:
            for service in router.snapshot.registry.covered_by(pattern):
                if service.host in seen:
                    continue
                seen.add(service.host)
                told_apart = distinctions([router], service.host)
                found = clients([router], told_apart, assume=not router.snapshot.coverage.live)
                if not told_apart.complete:
                    why = f"whether rules for {service.host} clash for all clients: too many differ"
                    yield "", Skip(why)
                for port in service.ports:
                    if port.protocol != "udp":
                        for client in found:
                            listener = router.listeners.sidecar(client, service.host, port.number)
                            yield "sidecars", listener


def _place(chain: Chain) -> tuple[Resource | None, Path]:
    """The object and the field that a chain is made of."""
    if chain.virtual_service:
        return chain.virtual_service.resource, chain.path
    if chain.server:
        return chain.server[0].resource, chain.server[1].path
    return chain.service.resource if chain.service else None, ()


def _finding(whose: str, listener: Listener, one: Chain, other: Chain, what: str) -> Finding:
    if other.virtual_service is None and one.virtual_service is not None:
        one, other = other, one
    resource, path = _place(other)
    assert resource
    rival, at = _place(one)
    same = one is other
    lent = [_lent(each) for each in dict.fromkeys((one, other)) if each.lender]
    beside = "twice" if same else f"as does {rival}" + (f" {dotted(at)}" if at else "")
    return RULE.finding(
        resource,
        path,
        f"{dotted(path) or 'spec'} asks for {what}, {beside}: Envoy refuses the configuration of "
        f"{listener.name} as a whole",
        traffic=f"{whose} go on with what they had on this port before, and those that start anew "
        "have nothing there: no change of any rule for it comes into force",
        next=_next(one, other, what),
        evidence=tuple(lent),
        related=() if same or rival is None else (rival.id,),
    )


def _where(chain: Chain) -> str:
    resource, path = _place(chain)
    return f"{dotted(path)} of {resource}"


def _lent(chain: Chain) -> str:
    """Where a match has subnets from that names none."""
    assert chain.lender
    vs, path = chain.lender
    resource, at = _place(chain)
    subnets = ", ".join(map(str, chain.subnets))
    return (
        f"{resource} {dotted(at)} has no destinationSubnets, and gets those of {vs.resource} "
        f"{dotted(path)}, the last before it that has some: {subnets}"
    )


def _next(one: Chain, other: Chain, what: str) -> str:
    if one is other:
        return f"name {what} once"
    for chain in (one, other):
        if chain.lender:
            vs, path = chain.lender
            return (
                f"put {_where(chain)} before {dotted(path)} of {vs.resource}, or give it "
                "destinationSubnets of its own: 0.0.0.0/0 stands for every address"
            )
    if one.server:
        return f"either end TLS for {what} in the Gateway, or pass it on by this rule: not both"
    return f"ask for {what} in one match only; names that go the same way can share its list"


_BAD = """\
apiVersion: v1
kind: Service
metadata: {name: secure}
spec:
  selector: {app: secure}
  ports: [{name: tls, port: 443}]
---
apiVersion: v1
kind: Service
metadata: {name: cache}
spec:
  selector: {app: cache}
  ports: [{name: tls, port: 443}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure}
spec:
  hosts: [secure]
  tls:
  - match:
    - sniHosts: [a.example.com]
    route:
    - destination: {host: cache}
  - match:
    - sniHosts: [a.example.com, b.example.com]
    route:
    - destination: {host: secure}
"""

RULE = Rule(
    code="KM610",
    name="clashing-connections",
    severity=Severity.ERROR,
    summary="Two tcp or tls rules are for the same connections, and Envoy refuses the listener.",
    explanation="""\
Of tls rules for a Service istiod leaves out the later of two matches whose lists of server names
are the same, letter by letter. Where two lists only share a name it hands both to the sidecar, and
Envoy refuses a listener with two filter chains for one name. It does not leave out the rule alone:
all that is sent for that port is lost. The proxy goes on with what it had before. A pod that starts
anew has nothing for the port, and its connections go past all rules, or are closed where the mesh's
outboundTrafficPolicy is REGISTRY_ONLY.

Since Istio 1.24 a tls match without `destinationSubnets` is not for all addresses where a match
before it has some: it gets those of the last that has, in the same rule, another or an older
VirtualService of the host. So a match for a name and a subnet, and after it one for the name alone,
clash, which they did not before. Put the one without subnets first, or give it `0.0.0.0/0`, which
stands for every address.

The same holds for subnets in tcp rules, for a name that comes twice in one list, and on a gateway
for a name that one server opens (`SIMPLE`, `MUTUAL`) and a tls rule passes on.

Nothing tells of it but the metric `pilot_total_xds_rejects` and the proxy's log: "multiple filter
chains with overlapping matching rules are defined".""",
    fix="""\
Ask for each server name in one match only. Names that go the same way belong in one list; where
several VirtualServices are about one Service, into one of them.""",
    reference="https://istio.io/latest/docs/reference/config/networking/virtual-service/"
    "#TLSMatchAttributes",
    needs=("VirtualService",),
    uses=(
        *("Gateway", "Service", "ServiceEntry", "Sidecar", "DestinationRule", "Namespace"),
        *WORKLOAD_KINDS,
    ),
    check=check,
    bad=_BAD,
    good=_BAD.replace("[a.example.com, b.example.com]", "[b.example.com]"),
)
