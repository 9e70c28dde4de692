"""KM206: a VirtualService's hosts and the hosts of its Gateways' servers do not meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_mesh.mesh.gateways import MESH, Gateway, resolve_gateway
from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.mesh.virtual_services import VirtualService
from kubectl_mesh.rules.rule import LISTED, Finding, Rule, Severity, Skip, listed

_SHOWN = 5


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    for vs in snapshot.virtual_services.roots:
        gateways: dict[Path, Gateway] = {}
        all_known = True
        for index, name in enumerate(vs.resource.spec.get("gateways") or ()):
            gateway = resolve_gateway(name, vs.namespace)
            found = snapshot.gateways.by_id.get(gateway)
            if found:
                gateways["spec", "gateways", index] = found
            elif gateway != MESH:
                all_known = False
        if gateways:
            yield from _check(vs, gateways, all_known)


def _check(
    vs: VirtualService, gateways: Mapping[Path, Gateway], all_known: bool
) -> Iterator[Finding]:
    admitted = {
        path: {host for host in vs.hosts if gateway.admits(host, vs.namespace)}
        for path, gateway in gateways.items()
    }
    if not vs.on_mesh and all_known:
        somewhere = frozenset[str]().union(*admitted.values())
        for index, host in enumerate(vs.hosts):
            if host not in somewhere:
                yield _dead_host(vs, ("spec", "hosts", index), host, list(gateways.values()))
        if not somewhere:
            return
    dead = {gateway.id for path, gateway in gateways.items() if not admitted[path]}
    nowhere = all_known and len(dead) == len(gateways)
    meant = {name for names in _alone(vs) if names <= dead for name in names}
    for path, gateway in gateways.items():
        if gateway.id in (dead if nowhere else meant):
            yield _dead_binding(vs, path, gateway, is_whole=nowhere)


def _alone(vs: VirtualService) -> Iterator[frozenset[str]]:
    """The Gateways of each match that is for some of them alone."""
    for protocol in ("http", "tcp", "tls"):
        for rule in vs.resource.spec.get(protocol) or ():
            for match in rule.get("match") or ():
                if names := match.get("gateways"):
                    yield frozenset(resolve_gateway(name, vs.namespace) for name in names)


def _dead_host(vs: VirtualService, path: Path, host: str, gateways: list[Gateway]) -> Finding:
    names = " nor ".join(listed([gateway.id for gateway in gateways]))
    return RULE.finding(
        vs.resource,
        path,
        f"{dotted(path)} is {host}, which no server of Gateway {names} admits",
        traffic=f"requests for {host} get 404 there, or the connection is refused: no rule of this "
        "VirtualService is set up for them",
        next="add the host to a server of the Gateway, or correct it here"
        + ("; calls from inside the mesh need mesh in spec.gateways" if ".svc." in host else ""),
        evidence=listed(map(_admits, gateways)),
        related=tuple(gateway.resource.id for gateway in gateways[:LISTED]),
    )


def _dead_binding(vs: VirtualService, path: Path, gateway: Gateway, *, is_whole: bool) -> Finding:
    hosts = ", ".join(vs.hosts[:_SHOWN])
    lost = "these rules; they hold inside the mesh only" if is_whole else "the rules that name it"
    return RULE.finding(
        vs.resource,
        path,
        f"{dotted(path)} binds to Gateway {gateway.id}, no server of which admits a host of this "
        f"VirtualService ({hosts})",
        traffic=f"no request that comes in through Gateway {gateway.id} meets {lost}",
        next="add the host to be served to a server of the Gateway and to spec.hosts, or take the "
        "Gateway out of spec.gateways",
        severity=Severity.ERROR if is_whole else Severity.WARNING,
        evidence=(_admits(gateway),),
        related=(gateway.resource.id,),
    )


def _admits(gateway: Gateway) -> str:
    hosts = list(dict.fromkeys(host for server in gateway.servers for host in server.hosts))
    return f"Gateway {gateway.id} admits {first_of(hosts, _SHOWN) or 'no host'}"


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
    hosts: ["*.example.com"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hello}
spec:
  gateways: [public]
  http:
  - route:
    - destination: {host: hello}
"""

RULE = Rule(
    code="KM206",
    name="host-not-admitted-by-gateway",
    severity=Severity.ERROR,
    summary="No server of the bound Gateways admits a host of the VirtualService.",
    explanation="""\
For each server of a Gateway, Istio takes the hosts that both the server and the VirtualService
name, wildcards on either side included. A server's host may be limited to VirtualServices of a
namespace (`ns/host`, `./host` for the Gateway's own). Where nothing is left, the VirtualService has
no part in that server, without a word.

Reported is a host that none of the bound Gateways admits. A VirtualService that is bound to `mesh`
too may name hosts for the mesh only, so there one of the Gateways must admit at least one host. A
Gateway that serves none of the hosts beside one that does is no fault, unless rules are for it
alone (`match.gateways`): these hold nowhere, a warning. Nothing is said of hosts while a bound
Gateway is unknown.""",
    fix="""\
Add the host to `hosts` of a server of the Gateway, or correct it in the VirtualService. Mind the
namespace before the `/` of a server's host.""",
    reference="https://istio.io/latest/docs/reference/config/networking/gateway/#Server",
    needs=("VirtualService", "Gateway"),
    equivalents=("IST0132",),
    check=check,
    bad=_SHARED.replace("spec:\n  gateways", "spec:\n  hosts: [hello.example.org]\n  gateways"),
    good=_SHARED.replace("spec:\n  gateways", "spec:\n  hosts: [hello.example.com]\n  gateways"),
)
