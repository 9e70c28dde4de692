"""What is behind a destination: the cluster, its DestinationRule and subset, and the pods.

A cluster that the proxy does not have answers 503 with Envoy's flag NC, one without endpoints 503
with UH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubectl_mesh.mesh.added_labels import adders
from kubectl_mesh.mesh.destination_rules import DestinationRule, Lost, Subset
from kubectl_mesh.mesh.hosts import is_wildcard, namespace_of
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.versions import DYNAMIC_DNS
from kubectl_mesh.mesh.workloads import Workload
from kubectl_mesh.routing.router import Client, Router
from kubectl_mesh.routing.table import Target


@dataclass(frozen=True)
class Upstream:
    """A target as a proxy of a namespace has it.

    `rules` are the DestinationRules that the look-up gives, `lost` those that it would give but for
    the exportTo or workloadSelector of others. `pods` are the workloads behind it;
    None where they are not known, and then `why` says so. `flag` is Envoy's where no request gets
    through: "NC" for no such cluster, "UH" for no endpoint; `why` says what is missing. Without a
    flag, it says what keeps requests from the port on which the pods listen.
    """

    target: Target
    service: Service | None
    rules: tuple[DestinationRule, ...]
    subset: Subset | None
    pods: tuple[Workload, ...] | None
    flag: str | None
    why: str
    lost: tuple[Lost, ...] = ()

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by which the subset selects; empty without one."""
        return self.subset.labels if self.subset else {}


def upstream(
    router: Router,
    target: Target,
    namespace: str,
    labels: Mapping[str, str],
    *,
    gateway: bool = False,
) -> Upstream:
    """What becomes of requests that a sidecar, or with `gateway` a gateway, sends to a target.

    The proxy's pod is one of `namespace` with `labels`.
    """
    snapshot = router.snapshot
    client = None if gateway else Client(namespace, labels)
    service = _provider(router, target, namespace, client)
    lookup = snapshot.destination_rules.lookup(
        target.host, namespace, service.namespace if service else None, labels
    )
    subset = lookup.subsets.get(target.subset) if target.subset else None

    def found(flag: str | None, why: str, pods: tuple[Workload, ...] | None = None) -> Upstream:
        return Upstream(target, service, lookup.rules, subset, pods, flag, why, lookup.lost)

    if service is None and target.host.endswith("."):
        return found("NC", "no host of the registry ends with a full stop: leave it out")
    if service is None and (wildcard := snapshot.registry.wildcard_over(target.host)):
        return found("NC", only_by_wildcard(wildcard, target.host))
    if service is None:
        home = namespace_of(target.host, snapshot.config.domain)
        unknown = snapshot.unknown(home or "", "Service", "ServiceEntry")
        if unknown := unknown or snapshot.provided_elsewhere(target.host):
            return found(None, f"{target.host} is taken to exist: {unknown}")
        return found("NC", f"no Service or ServiceEntry that it can see provides {target.host}")
    if service.is_external_name:
        return found(
            None,
            f"{service.resource} stands for {service.external_name}, where that has the port; a "
            "sidecar answers 503 instead where the Service itself lacks the port that is called",
        )
    if service.port(target.port) is None:
        listed = ", ".join(str(port) for port in service.ports) or "none"
        return found("NC", f"{service.resource} has no port {target.port}: it has {listed}")
    resolution = service.resource.spec.get("resolution")
    by_name = resolution == "DYNAMIC_DNS" and is_wildcard(service.host)
    if by_name and not snapshot.config.istio.has(DYNAMIC_DNS):
        return found(None, "what sidecars of this Istio do with DYNAMIC_DNS is not known here")
    if by_name and target.subset:
        return found("NC", f"{service.resource} has no subsets, as its resolution is DYNAMIC_DNS")
    if target.subset and subset is None:
        rules = ", ".join(str(rule.resource) for rule in lookup.rules) or "no DestinationRule"
        return found("NC", f"subset {target.subset} is not defined: the look-up gives {rules}")
    if not service.selector:
        if by_name:
            return found(None, "it goes to the name that the client asks for, by the proxy's DNS")
        if not service.is_kubernetes and resolution in (None, "NONE"):
            return found(
                None, f"it goes to the address that the client dials{_port(service, target)}"
            )
        return found(None, "its endpoints are not chosen by the labels of pods")
    reason = snapshot.unknown_workloads(service.namespace)
    if reason:
        return found(None, f"the pods behind it are not known: {reason}")
    wanted = subset.labels if subset else {}
    awake = [pod for pod in snapshot.pods_of(service) if not pod.is_scaled_to_zero]
    bearing = {pod: pod.bear(wanted) for pod in awake}
    pods = tuple(pod for pod, bears in bearing.items() if bears)
    if pods:
        return found(None, "" if gateway else _unheeded(service, target, pods), pods)
    if None in bearing.values():
        return found(None, f"the pods behind it are not known: {adders(wanted)}")
    if snapshot.elsewhere:
        return found(None, f"the pods behind it are not known: {snapshot.elsewhere}")
    which = "of the subset" if wanted else "that it selects"
    return found("UH", f"no pod of {service.resource} has the labels {which}", ())


def only_by_wildcard(wildcard: Service, host: str) -> str:
    """Why a host that a ServiceEntry covers by a wildcard is no destination."""
    return (
        f"{wildcard.resource} covers {host} by the wildcard {wildcard.host}, and proxies have a "
        f"cluster for the wildcard alone: add {host} to the hosts of a ServiceEntry"
    )


def _provider(
    router: Router, target: Target, namespace: str, client: Client | None
) -> Service | None:
    """What provides the host of a target for a client; for a gateway where that is None."""
    host = target.host
    if client is None:
        return router.providers.for_gateway(host, namespace, target.port)
    if not router.providers.lead_to(client, host, target.port):
        return None
    return router.providers.for_sidecar(client, host, target.port)


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
