"""Which waypoint stands before a Service, and whose rules it has.

Models istiod's choice of a waypoint: the labels of the Service, else those of its namespace.
Sidecars have their own rules and pass it by; ztunnel sends to it, and a gateway does where
`istio.io/ingress-use-waypoint` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_mesh.mesh.resource import Resource

_USE = "istio.io/use-waypoint"
_NAMESPACE = "istio.io/use-waypoint-namespace"
_INGRESS = "istio.io/ingress-use-waypoint"
_FOR = "istio.io/waypoint-for"


@dataclass(frozen=True, slots=True)
class Waypoint:
    """The waypoint of a Service; its Gateway is called `name`. `home` is the Service's namespace.

    `from_gateways` tells that gateways send through it, too.
    """

    namespace: str
    name: str
    home: str
    from_gateways: bool

    @property
    def rules_of(self) -> frozenset[str]:
        """The namespaces whose VirtualServices for the Service it has: it joins them by age."""
        return frozenset((self.home, self.namespace))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def chosen_waypoint(service: Resource, namespace_labels: Mapping[str, str]) -> Waypoint | None:
    """The waypoint that labels name for a Service or a ServiceEntry; None if they name none."""
    for labels in (service.labels, namespace_labels):
        name = labels.get(_USE)
        if name:
            if name == "none":
                return None
            asked = service.labels.get(_INGRESS, namespace_labels.get(_INGRESS, ""))
            where = labels.get(_NAMESPACE) or service.namespace
            return Waypoint(where, name, service.namespace, asked.lower() == "true")
    return None


def serves_services(gateway: Resource) -> bool:
    """Whether a Gateway that is a waypoint is one for what is sent to Services."""
    return gateway.labels.get(_FOR, "service") in ("service", "all")
