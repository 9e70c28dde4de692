"""KM208: a Gateway's server has a host behind `*/*`, at which istiod crashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_mesh.mesh.gateways import Gateway
from kubectl_mesh.mesh.resource import Path, dotted
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import GATEWAY_HOSTS_CRASH
from kubectl_mesh.rules.repair import Edit, Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity

_EVERYTHING = "*/*"


def check(snapshot: Snapshot) -> Iterator[Finding]:
    crashes = snapshot.config.istio.has(GATEWAY_HOSTS_CRASH)
    for gateway in snapshot.gateways.all:
        for server in gateway.servers:
            index = _fatal(server.hosts)
            if index is not None:
                path = (*server.path, "hosts")
                yield _finding(gateway, path, index, server.hosts[index], crashes=crashes)


def _fatal(hosts: Sequence[str]) -> int | None:
    """The first host that istiod writes to a place that is gone; None if there is none.

    Models `sanitizeServerHostNamespace`: at `*/*` it makes the list a list of one, and goes on.
    """
    if _EVERYTHING not in hosts:
        return None
    for index in range(hosts.index(_EVERYTHING) + 1, len(hosts)):
        where, slash, name = hosts[index].partition("/")
        if slash and (where == "." or (where == "*" and name != "*")):
            return index
    return None


def _finding(gateway: Gateway, path: Path, index: int, host: str, *, crashes: bool) -> Finding:
    where = dotted((*path, index))
    release = "istiod crashes" if crashes else "istiod 1.28 and later crashes"
    return RULE.finding(
        gateway.resource,
        (*path, index),
        f"{where} is {host}, with {_EVERYTHING} before it in the list: {release} at that",
        traffic="istiod crashes again whenever it starts: proxies go on with what they have, no "
        "change of any object reaches them, and new pods get nothing"
        if crashes
        else "this Istio takes the list for all hosts; after an upgrade no proxy gets a change",
        next=f"leave {_EVERYTHING} alone in the list, as it admits every host",
        severity=Severity.ERROR if crashes else Severity.WARNING,
        repairs=(
            Repair(
                "alone",
                f"leave {_EVERYTHING} alone in {dotted(path)}",
                (Edit(gateway.resource, path, [_EVERYTHING]),),
            ),
        ),
    )


_BAD = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*/*", ./shop.example.com]
"""

RULE = Rule(
    code="KM208",
    name="hosts-that-crash-istiod",
    severity=Severity.ERROR,
    summary="A Gateway's server has a host with ./ or */ behind */*, at which istiod crashes.",
    explanation="""\
A server's hosts may say to which namespaces they are open: `ns/host`, `./host` for the Gateway's
own, `*/host` for all. Istiod turns these into one form before it looks at the Gateway. At `*/*` it
makes the list a list of one, since nothing else counts then, and goes on with the others: the first
`./host` or `*/host` behind it has no place any more, and istiod crashes ("index out of range"), for
whichever gateway it is. It starts again and crashes again. Admission lets such a Gateway pass.

Istio has done so since 1.28, and late patches of 1.27 and 1.26 may, too. Releases before end at the
`*/*`: there the finding is a warning of what an upgrade does.""",
    fix="Leave `*/*` alone in the list, or take it out: it admits every host of every namespace.",
    reference="https://istio.io/latest/docs/reference/config/networking/gateway/#Server",
    needs=("Gateway",),
    check=check,
    bad=_BAD,
    good=_BAD.replace("./shop.example.com", "shop.example.com"),
)
