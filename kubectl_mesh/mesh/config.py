"""The settings of the mesh that routing depends on.

Models the parts of Istio's MeshConfig that the rules ask about, with istiod's own defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_mesh.mesh.schema import conform
from kubectl_mesh.mesh.versions import CONNECTION_SETTINGS, Istio

_SHAPE = {
    "rootNamespace": str,
    "trustDomain": str,
    "domain": str,
    "authPolicy": str,
    "sdsUdsPath": str,
    "defaultVirtualServiceExportTo": [str],
    "defaultDestinationRuleExportTo": [str],
    "defaultServiceExportTo": [str],
    "ingressControllerMode": str,
    "outboundTrafficPolicy": {"mode": str},
    "pathNormalization": {"normalization": str},
    "defaultConfig": {"proxyMetadata": {"*": str}},
}
_NOT_FOR_REQUESTS = frozenset(
    (
        *("accessLogEncoding", "accessLogFile", "accessLogFormat", "configSources"),
        *("disableEnvoyListenerLog", "dnsRefreshRate", "enableEnvoyAccessLogService"),
        *("enablePrometheusMerge", "enableTracing", "ingressClass", "ingressSelector"),
        *("ingressService", "statNameCleanup", "tracing"),
    )
)
"""Fields that change nothing about what becomes of requests."""
_CONNECTION_SETTINGS = "defaultConfig.connectionSettings"
_LOCAL_HOSTS = {"serviceSettings": [{"settings": {"clusterLocal": bool}}]}
_NETWORKS = {"networks": {"*": {"endpoints": [{"fromRegistry": str}]}}}


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """What the `istio` ConfigMap's `mesh` key says, or Istio's defaults where it is silent.

    `domain` is istiod's, not a field of Istio's MeshConfig; the file given by --mesh-config may
    name it all the same. `registry_only`: sidecars let nothing out to hosts that the registry does
    not know; `resolves_unknown`: they let HTTP out to where their own DNS leads. The three exports
    are the defaults for resources without exportTo. `unread` holds the fields that nothing is known
    of here, as texts. `several_clusters` says which setting is for a mesh of several clusters; ""
    if none is. `istio` is the Istio that has these settings, and `revision` the label of its
    istiod; "" where that is not known; `other_revisions` are the namespaces that select another,
    with it. `chosen` says why these settings were taken, and no others;
    `fault` says why they could not be read, where these are Istio's defaults for that.
    """

    root_namespace: str = "istio-system"
    domain: str = "cluster.local"
    virtual_service_export: tuple[str, ...] = ("*",)
    destination_rule_export: tuple[str, ...] = ("*",)
    service_export: tuple[str, ...] = ("*",)
    auth_policy: str = ""
    sds_uds_path: str = ""
    proxy_metadata: Mapping[str, str] | None = None
    registry_only: bool = False
    resolves_unknown: bool = False
    path_normalization: str = "BASE"
    unread: tuple[tuple[str, str], ...] = ()
    several_clusters: str = ""
    istio: Istio = field(default=Istio())
    revision: str = ""
    other_revisions: Mapping[str, str] = field(default_factory=dict, compare=False)
    chosen: tuple[str, ...] = field(default=(), compare=False)
    fault: str = field(default="", compare=False)

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> MeshConfig:
        """Reads a MeshConfig as Istio writes it; fields of a wrong type count as absent."""
        data, _ = conform(dict(value), _SHAPE)

        mode = (data.get("outboundTrafficPolicy") or {}).get("mode")

        def export(key: str) -> tuple[str, ...]:
            return tuple(data.get(key) or ("*",))

        return cls(
            root_namespace=data.get("rootNamespace") or "istio-system",
            domain=data.get("domain") or "cluster.local",
            virtual_service_export=export("defaultVirtualServiceExportTo"),
            destination_rule_export=export("defaultDestinationRuleExportTo"),
            service_export=export("defaultServiceExportTo"),
            auth_policy=data.get("authPolicy") or "",
            sds_uds_path=data.get("sdsUdsPath") or "",
            registry_only=mode == "REGISTRY_ONLY",
            resolves_unknown=mode == "ALLOW_ANY_DYNAMIC_DNS",
            path_normalization=_normalization(data.get("pathNormalization") or {}),
            proxy_metadata=(data.get("defaultConfig") or {}).get("proxyMetadata"),
            unread=tuple(
                (str(key), json.dumps(field, sort_keys=True, default=str))
                for key, field in sorted(_unread(value).items(), key=str)
            ),
            several_clusters="the MeshConfig has serviceSettings with clusterLocal"
            if _names_local_hosts(value)
            else "",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Why these settings were taken, and that the Istio is none that is known here."""
        return (*self.chosen, *filter(None, (self.istio.doubt,)))

    @property
    def has_connection_settings(self) -> bool:
        """Whether it states connectionSettings for all proxies, which are not followed."""
        return self.istio.has(CONNECTION_SETTINGS) and _CONNECTION_SETTINGS in dict(self.unread)

    def with_networks(self, value: Mapping[str, Any]) -> MeshConfig:
        """The same settings beside MeshNetworks, as the key `meshNetworks` has them."""
        data, _ = conform(dict(value), _NETWORKS)
        registries = {
            endpoint.get("fromRegistry")
            for network in (data.get("networks") or {}).values()
            for endpoint in (network or {}).get("endpoints") or ()
        }
        if len(registries - {None}) < 2:
            return self
        return replace(self, several_clusters="the MeshNetworks name several registries")


def _unread(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that nothing is known of here, and that requests may depend on."""
    found = {
        key: each
        for key, each in value.items()
        if key not in _SHAPE and key not in _NOT_FOR_REQUESTS
    }
    defaults = value.get("defaultConfig")
    if isinstance(defaults, Mapping) and defaults.get("connectionSettings"):
        found[_CONNECTION_SETTINGS] = defaults["connectionSettings"]
    return found


def _names_local_hosts(value: Mapping[str, Any]) -> bool:
    """Whether hosts are kept to the clusters of their clients, as only several clusters need."""
    data, _ = conform(dict(value), _LOCAL_HOSTS)
    settings = (each.get("settings") or {} for each in data.get("serviceSettings") or ())
    return any("clusterLocal" in each for each in settings)


def _normalization(stated: Mapping[str, Any]) -> str:
    name = str(stated.get("normalization") or "DEFAULT")
    return name if name in ("NONE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES") else "BASE"
