"""Whose proxy a request meets first: the pods of a Gateway, or the sidecar of a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kubectl_mesh.errors import UsageError
from kubectl_mesh.mesh.clients import gateway_pods
from kubectl_mesh.mesh.gateways import Gateway, Server
from kubectl_mesh.mesh.hosts import covers
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.unread import REASON, not_of_revision
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import Router


class NotFollowed(UsageError):
    """A way in that is not followed."""

    exit_status = 3


@dataclass(frozen=True)
class NamedProxy:
    """A proxy, how to name it to people, and what they should know of it."""

    proxy: Proxy
    name: str
    notes: tuple[str, ...] = ()


def of_gateway(snapshot: Snapshot, gateway: Gateway) -> NamedProxy:
    """The pods that a Gateway configures, with all other Gateways that configure them.

    Without such pods in the snapshot they are taken to be in the root namespace, where Istio
    installs them, with just the labels of the Gateway's selector.
    """
    pods = gateway_pods(snapshot, gateway)
    namespaces = list(dict.fromkeys(pod.namespace for pod in pods))
    notes = []
    labels: Mapping[str, str] = gateway.selector
    if pods:
        namespace, labels = pods[0].namespace, pods[0].labels
        where = f"pods of {namespace}"
        if len(namespaces) > 1:
            notes.append(
                f"Gateway {gateway.id} configures pods of namespaces {', '.join(namespaces)}: "
                f"shown is what those of {namespace} do"
            )
        if pods[0].is_scaled_to_zero:
            notes.append(f"{pods[0]} is scaled to zero: nothing answers until it has a pod")
    else:
        namespace = snapshot.config.root_namespace
        where = f"pods of {namespace}, by assumption"
        selector = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        notes.append(
            f"no pod with the labels of the Gateway's selector ({selector or 'none'}) was found: "
            + (
                "nothing answers until there is one"
                if snapshot.coverage.live
                else f"they are taken to run in {namespace}"
            )
        )
    proxy = Proxy.of_gateway(snapshot, namespace, labels)
    return NamedProxy(proxy, f"Gateway {gateway.id} ({where})", tuple(notes))


def gateway_named(snapshot: Snapshot, name: str, namespace: str) -> Gateway:
    """The Gateway NAMESPACE/NAME; of a NAME alone that of a namespace, or the only one.

    Raises UsageError where there is none, NotFollowed where it is one of the Gateway API.
    """
    gateways = snapshot.gateways
    where, slash, short = name.rpartition("/")
    found = gateways.by_id.get(name if slash else f"{namespace}/{short}")
    if found:
        return found
    same = [gateway for gateway in gateways.all if gateway.resource.name == short]
    if not slash and len(same) == 1:
        return same[0]
    for other in snapshot.unread.gateways:
        key = other.resource.id
        if key.name == short and key.namespace == (where or namespace):
            raise NotFollowed(f"{key} is no Gateway of Istio's, and {REASON}")
    for each in snapshot.of_other_revisions:
        if each.kind == "Gateway" and (each.namespace, each.name) == (where or namespace, short):
            raise NotFollowed(f"{each} is {not_of_revision(snapshot.config.revision)}")
    candidates = same or gateways.all
    listed = ", ".join(gateway.id for gateway in candidates[:10]) or "none"
    reason = snapshot.missing("Gateway") or f"there are: {listed}"
    raise UsageError(f"no Gateway {short} in namespace {where or namespace}; {reason}")


def of_workload(snapshot: Snapshot, workload: Workload) -> NamedProxy:
    """The sidecar of a pod."""
    client = Proxy(workload.namespace, workload.labels)
    notes: tuple[str, ...] = ()
    if snapshot.has_sidecar(workload) is False:
        notes = (
            f"{workload} has no sidecar: what follows holds only for pods that have one; its own "
            "requests go past all rules, to any pod of a Service, until they enter a gateway",
        )
    return NamedProxy(client, workload.pods, notes)


def of_client(namespace: str, labels: Mapping[str, str]) -> NamedProxy:
    """The sidecar of any pod of a namespace with some labels."""
    client = Proxy(namespace, labels)
    return NamedProxy(client, str(client))


def gateways_serving(router: Router, asked: Request | Connection) -> list[Gateway]:
    """The Gateways that have rules for a host, whatever the port."""
    found = []
    for gateway in router.snapshot.gateways.all:
        own = replace(of_gateway(router.snapshot, gateway).proxy, gateways=(gateway,))
        if any(_serves(router, own, server, asked) for server in gateway.servers):
            found.append(gateway)
    return found


def _serves(router: Router, proxy: Proxy, server: Server, asked: Request | Connection) -> bool:
    if isinstance(asked, Request):
        table = router.gateway(
            proxy,
            asked.host,
            server.number,
            tls=server.ends_tls,
            server_name=asked.dialled_host,
        )
        return table is not None and table.kind == "virtual-service"
    listener = router.listeners.gateway(proxy, server.number)
    chain = listener.find(replace(asked, port=server.number)) if listener else None
    if chain is None or chain.virtual_service is None:
        return False
    return any(covers(host, asked.host) for host in chain.virtual_service.hosts)
