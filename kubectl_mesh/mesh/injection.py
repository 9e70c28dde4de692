"""Whether a pod has a sidecar.

Models the decision of Istio's injection webhook ("Installing the Sidecar"): the pod's label or
annotation `sidecar.istio.io/inject` first, then its revision label, then the namespace's labels. A
pod that exists has the sidecar or not, whatever the labels say today.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_mesh.mesh.workloads import Workload

INJECT = "sidecar.istio.io/inject"
INJECTION = "istio-injection"
REVISION = "istio.io/rev"
PROXY = "istio-proxy"
TEMPLATES = "inject.istio.io/templates"
GATEWAY_NAMES = ("gateway.networking.k8s.io/gateway-name", "istio.io/gateway-name")
_MODES = ("router", "waypoint")
"""What a gateway's proxy is started as: `proxy router`."""
NEVER_INJECTED = frozenset(("kube-system", "kube-public", "kube-node-lease", "local-path-storage"))


def has_sidecar(workload: Workload, namespace_labels: Mapping[str, str] | None) -> bool | None:
    """True or False where it can be told; None where the namespace's labels are not known."""
    spec = workload.pod_spec
    for field in ("containers", "initContainers"):
        if any(container.get("name") == PROXY for container in spec.get(field) or ()):
            return True
    if workload.resource.kind == "Pod" and workload.resource.data.get("status"):
        return False
    if spec.get("hostNetwork"):
        return False
    return wants_sidecar(workload, namespace_labels)


def wants_sidecar(workload: Workload, namespace_labels: Mapping[str, str] | None) -> bool | None:
    """Whether labels and annotations ask for a sidecar; None where that cannot be told."""
    own = workload.labels.get(INJECT, workload.annotations.get(INJECT))
    if own is not None:
        return own.lower() in ("true", "y", "yes", "on")
    if REVISION in workload.labels:
        return True
    return None if namespace_labels is None else namespace_wants_sidecars(namespace_labels)


def namespace_wants_sidecars(labels: Mapping[str, str]) -> bool:
    """Whether a namespace's labels ask for sidecars."""
    switch = labels.get(INJECTION)
    if switch is not None:
        return switch == "enabled"
    return REVISION in labels


def is_ambient(workload: Workload, namespace_labels: Mapping[str, str] | None) -> bool:
    """Whether ztunnel carries the pod's traffic, without a sidecar."""
    for labels in (workload.labels, namespace_labels or {}):
        mode = labels.get("istio.io/dataplane-mode")
        if mode is not None:
            return mode == "ambient"
    return False


def is_gateway(workload: Workload) -> bool:
    """Whether the pod is a gateway's or a waypoint's proxy, and no application.

    That is: it asks for the injection template of gateways, has their label, or holds a proxy in
    the mode of gateways or nothing but a proxy.
    """
    templates = workload.annotations.get(TEMPLATES, "").split(",")
    if any(name.strip() == "gateway" for name in templates) or any(
        label in workload.labels for label in GATEWAY_NAMES
    ):
        return True
    containers = workload.pod_spec.get("containers") or ()
    proxies = [container for container in containers if container.get("name") == PROXY]
    return bool(proxies) and (
        len(proxies) == len(containers)
        or any(mode in (proxy.get("args") or ())[:2] for proxy in proxies for mode in _MODES)
    )
