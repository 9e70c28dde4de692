"""Whether the mesh has more clusters than the one that is looked at.

istiod joins the Services and pods of all clusters, and sees others by secrets that are not read
here. Settings of a mesh of several clusters show that there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.destination_rules import DestinationRules
from kubectl_mesh.mesh.gateways import Gateways
from kubectl_mesh.mesh.injection import PROXY
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.virtual_services import VirtualServices
from kubectl_mesh.mesh.workloads import Workloads

CLUSTER = "topology.istio.io/cluster"
NETWORK = "topology.istio.io/network"
_EAST_WEST = ("istio", "eastwestgateway")
_EAST_WEST_CLASS = "istio-east-west"
"""The class of the Gateways of the Kubernetes Gateway API that join ambient clusters."""
_SINGLE = ("", "Kubernetes")
"""What istiod calls the cluster where nobody named it."""
_VARIABLES = {
    PROXY: ("ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK", "ISTIO_META_REQUESTED_NETWORK_VIEW"),
    "discovery": ("CLUSTER_ID",),
}
"""By container, the variables that name a cluster or a network: the proxies' and istiod's."""


def sign_of_several(
    config: MeshConfig,
    labelled: Iterable[Resource],
    gateways: Gateways,
    rules: DestinationRules,
    virtual_services: VirtualServices,
    workloads: Workloads,
) -> str | None:
    """What shows that the mesh has several clusters; None if nothing does.

    `labelled` are objects whose own labels may name a network.
    """
    signs: Sequence[Callable[[], Iterator[str]]] = (
        lambda: iter((config.several_clusters,) if config.several_clusters else ()),
        lambda: _of_gateways(gateways),
        lambda: _of_labels(labelled),
        lambda: _of_rules(rules, virtual_services),
        lambda: _of_workloads(workloads),
    )
    return next((sign for each in signs for sign in each()), None)


def _of_gateways(gateways: Gateways) -> Iterator[str]:
    for gateway in gateways.all:
        if any(server.tls_mode == "AUTO_PASSTHROUGH" for server in gateway.servers):
            yield f"{gateway.resource} has a server with AUTO_PASSTHROUGH"


def _of_labels(resources: Iterable[Resource]) -> Iterator[str]:
    for resource in resources:
        if resource.labels.get(NETWORK):
            yield f"{resource} has the label {NETWORK}"
        elif (
            _EAST_WEST in resource.labels.items()
            or resource.spec.get("gatewayClassName") == _EAST_WEST_CLASS
        ):
            yield f"{resource} is of an east-west gateway"


def _of_rules(rules: DestinationRules, virtual_services: VirtualServices) -> Iterator[str]:
    for rule in rules.all:
        if any(CLUSTER in subset.labels for subset in rule.subsets):
            yield f"{rule.resource} has a subset by {CLUSTER}"
    for vs in virtual_services.all:
        for protocol in ("http", "tcp", "tls"):
            for routed in vs.resource.spec.get(protocol) or ():
                if any(CLUSTER in (m.get("sourceLabels") or {}) for m in routed.get("match") or ()):
                    yield f"{vs.resource} has a match by {CLUSTER}"


def _of_workloads(workloads: Workloads) -> Iterator[str]:
    for workload in workloads.all:
        if workload.labels.get(NETWORK):
            yield f"{workload.pods} have the label {NETWORK}"
        if _EAST_WEST in workload.labels.items():
            yield f"{workload} is an east-west gateway"
        for _, container in workload.containers:
            names = _VARIABLES.get(container.get("name") or "", ())
            for variable in container.get("env") or () if names else ():
                name, value = variable.get("name"), variable.get("value") or ""
                if name in names and value not in _SINGLE:
                    yield f"{workload} has {name}={value}"
