"""What is behind a destination: the cluster, its DestinationRule and subset, and the pods.

A cluster that the proxy does not have answers 503 with Envoy's flag NC, one without endpoints 503
with UH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kubectl_mesh.mesh.added_labels import adders
from kubectl_mesh.mesh.destination_rules import DestinationRule, Lost, Subset
from kubectl_mesh.mesh.hosts import is_wildcard, namespace_of
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import DYNAMIC_DNS
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Target, shares

Missing = Literal["host", "port", "subset", "pods"]


@dataclass(frozen=True)
class Upstream:
    """A target as a proxy of a namespace has it.

    `rules` are the DestinationRules that the look-up gives, `lost` those that it would give but for
    the exportTo or workloadSelector of others. `pods` are the workloads behind it;
    None where they are not known, and then `why` says so. `missing` is what is not there where no
    request gets through, and `why` tells more of it; where there are pods, what keeps requests from
    the port on which they listen.
    """

    target: Target
    service: Service | None
    rules: tuple[DestinationRule, ...]
    subset: Subset | None
    pods: tuple[Workload, ...] | None
    missing: Missing | None
    why: str
    lost: tuple[Lost, ...] = ()

    @property
    def flag(self) -> Literal["NC", "UH"] | None:
        """Envoy's response flag: NC for no cluster, UH for no endpoint; None where there is one."""
        if self.missing is None:
            return None
        return "UH" if self.missing == "pods" else "NC"

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by which the subset selects; empty without one."""
        return self.subset.labels if self.subset else {}


def upstream(router: Router, target: Target, proxy: Proxy) -> Upstream:
    """What becomes of requests that a proxy sends to a target, as it is configured.

    Whether pods are ready does not count (see Tracer).
    """
    snapshot = router.snapshot
    service = _provider(router, target, proxy)
    lookup = snapshot.destination_rules.lookup(
        target.host, proxy.namespace, service.namespace if service else None, proxy.labels
    )
    subset = lookup.subsets.get(target.subset) if target.subset else None
    found = Upstream(target, service, lookup.rules, subset, None, None, "", lookup.lost)
    if service is None:
        missing, why = _unprovided(snapshot, target.host)
        return replace(found, missing=missing, why=why)
    lacking = _lacking(snapshot, found, service)
    if lacking:
        missing, why = lacking
        return replace(found, missing=missing, why=why)
    return _with_pods(snapshot, found, service, proxy)


_Lack = tuple[Missing | None, str]
"""What is missing, and why; None where that is not known, and why."""


def _unprovided(snapshot: Snapshot, host: str) -> _Lack:
    """What a host that nothing provides for a proxy lacks."""
    if host.endswith("."):
        return "host", "no host of the registry ends with a full stop: leave it out"
    wildcard = snapshot.registry.wildcard_over(host)
    if wildcard:
        return "host", only_by_wildcard(wildcard, host)
    home = namespace_of(host, snapshot.config.domain)
    unknown = snapshot.unknown(home or "", "Service", "ServiceEntry")
    if unknown := unknown or snapshot.provided_elsewhere(host):
        return None, f"{host} is taken to exist: {unknown}"
    return "host", f"no Service or ServiceEntry that it can see provides {host}"


def _lacking(snapshot: Snapshot, found: Upstream, service: Service) -> _Lack | None:
    """Why a proxy has no cluster for a target of a Service; None where it has one."""
    target = found.target
    if service.is_external_name:
        return None, (
            f"{service.resource} stands for {service.external_name}, where that has the port; a "
            "sidecar answers 503 instead where the Service itself lacks the port that is called"
        )
    if service.port(target.port) is None:
        return "port", no_such_port(service, target.port)
    if _is_by_name(service):
        if not snapshot.config.istio.has(DYNAMIC_DNS):
            return None, "what sidecars of this Istio do with DYNAMIC_DNS is not known here"
        if target.subset:
            return "subset", f"{service.resource} has no subsets, as its resolution is DYNAMIC_DNS"
    if target.subset and found.subset is None:
        rules = ", ".join(str(rule.resource) for rule in found.rules) or "no DestinationRule"
        return "subset", f"subset {target.subset} is not defined: the look-up gives {rules}"
    return None


def _is_by_name(service: Service) -> bool:
    """Whether proxies look up the name that is asked for by themselves."""
    resolution = service.resource.spec.get("resolution")
    return bool(resolution == "DYNAMIC_DNS" and is_wildcard(service.host))


def _with_pods(snapshot: Snapshot, found: Upstream, service: Service, proxy: Proxy) -> Upstream:
    """A cluster with the pods behind it, or why they are not known."""
    if not service.selector:
        return replace(found, why=_without_selector(service, found.target))
    reason = snapshot.unknown_workloads(service.namespace)
    awake = [pod for pod in snapshot.pods_of(service) if not pod.is_scaled_to_zero]
    bearing = {pod: pod.bear(found.labels) for pod in awake}
    pods = tuple(pod for pod, bears in bearing.items() if bears)
    if pods and not reason:
        why = "" if proxy.is_gateway else _unheeded(service, found.target, pods)
        return replace(found, pods=pods, why=why)
    if not reason and None in bearing.values():
        reason = adders(found.labels)
    if reason := reason or snapshot.elsewhere:
        return replace(found, why=f"the pods behind it are not known: {reason}")
    which = "of the subset" if found.labels else "that it selects"
    why = f"no pod of {service.resource} has the labels {which}"
    return replace(found, pods=(), missing="pods", why=why)


def _without_selector(service: Service, target: Target) -> str:
    """Where requests go to a Service that does not choose pods."""
    if _is_by_name(service):
        return "it goes to the name that the client asks for, by the proxy's DNS"
    if service.is_kubernetes or service.resource.spec.get("resolution") not in (None, "NONE"):
        return "its endpoints are not chosen by the labels of pods"
    return f"it goes to the address that the client dials{_port(service, target)}"


def no_such_port(service: Service, number: int) -> str:
    """That proxies have no such port of a Service, and which they have."""
    listed = ", ".join(str(port) for port in service.ports if port.protocol != "udp") or "none"
    lacks = f"has no port {number}"
    if any(port.number == number for port in service.ports):
        lacks = f"has port {number} for UDP, which proxies do not take"
    return f"{service.resource} {lacks}: it has {listed}"


def only_by_wildcard(wildcard: Service, host: str) -> str:
    """Why a host that a ServiceEntry covers by a wildcard is no destination."""
    return (
        f"{wildcard.resource} covers {host} by the wildcard {wildcard.host}, and proxies have a "
        f"cluster for the wildcard alone: add {host} to the hosts of a ServiceEntry"
    )


def _provider(router: Router, target: Target, proxy: Proxy) -> Service | None:
    """What provides the host of a target for a proxy."""
    host = target.host
    if proxy.is_gateway:
        return router.providers.for_gateway(host, proxy.namespace, target.port)
    if not router.providers.lead_to(proxy, host, target.port):
        return None
    return router.providers.for_sidecar(proxy, host, target.port)


def _unheeded(service: Service, target: Target, pods: Sequence[Workload]) -> str:
    """That a sidecar does not heed the targetPort of a headless Service, where it is another one.

    Its cluster is of type ORIGINAL_DST; that of a gateway has the pods as endpoints.
    """
    port = service.port(target.port)
    if not service.is_headless or port is None:
        return ""
    numbers = {pod.target_port(port.target) for pod in pods} - {None, port.number}
    if not numbers:
        return ""
    return (
        f"{service.resource} is headless, and a sidecar connects to the address and port that the "
        f"client dials: to port {port.number}, not to targetPort {port.target}"
    )


def _port(service: Service, target: Target) -> str:
    """At which port, where a ServiceEntry's targetPort is another than the one that is called."""
    port = service.port(target.port)
    changed = port is not None and port.target != port.number
    return f", at port {port.target}" if port and changed else ""


def share(target: Target, ups: Sequence[Upstream]) -> str:
    """How much of the traffic a destination gets."""
    parts = dict(zip((up.target for up in ups), shares([up.target for up in ups]), strict=True))
    return f"{float(100 * parts[target]):.4g}%"


def why_these_rules(up: Upstream, namespace: str, snapshot: Snapshot) -> str:
    """Why proxies of a namespace get the DestinationRules that they get for a destination.

    Names those for the same host, if there are some, that they do not get.
    """
    host = up.target.host
    others = [rule for rule in snapshot.destination_rules.covering(host) if rule not in up.rules]
    hidden = ""
    if others:
        listed = ", ".join(str(rule.resource) for rule in others)
        hidden = f"; not used: {listed}"
        hidden += "".join(f"; {lost.why}" for lost in up.lost)
    if not up.rules:
        if snapshot.missing("DestinationRule"):
            return "DestinationRules could not be read"
        chosen = [
            rule
            for rule in others
            if rule.namespace == namespace and rule.workload_selector is not None
        ]
        if chosen:
            named = " and ".join(str(rule.resource) for rule in chosen)
            return f"{named}, for other clients of {namespace}, hides all that is elsewhere{hidden}"
        seen = f"that proxies in {namespace} can see" if others else "at all"
        return f"there is none for {host} {seen}{hidden}"
    first = up.rules[0]
    places = {
        snapshot.config.root_namespace: "the root namespace, the last that is looked at",
        up.service.namespace if up.service else None: "the Service's namespace, as the client's "
        f"own, {namespace}, has none for this host",
        namespace: "the client's own namespace, the first that is looked at",
    }
    where = places.get(first.namespace, f"namespace {first.namespace}")
    joined = "; joined, the oldest first" if len(up.rules) > 1 else ""
    pattern = f"; {first.host} is the most specific host there" if first.host != host else ""
    return f"of {where}{joined}{pattern}{hidden}"


def is_ready(pod: Workload) -> bool | None:
    """Whether a live pod is ready; None for what is no live pod."""
    status = pod.resource.data.get("status")
    if pod.resource.kind != "Pod" or not status:
        return None
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
