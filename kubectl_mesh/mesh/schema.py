"""The kinds that the model reads, and of each kind the fields that it reads, with their types.

One table serves three ends: which kinds are asked of a cluster, which fields of an object are
kept, and which fields of a manifest have a type that the API server would refuse. Fields that
nothing reads are not listed; they are not judged. Objects of Istio's networking kinds keep them all
the same: rules are copied from one to the other, and compared whole. So do those of the Kubernetes
Gateway API, of which is seen at least whether they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_mesh.mesh.resource import Fault, Path, ResourceId

Shape = Any
"""A type, a tuple of types, {field: shape}, {"*": shape} for any field, or [shape] for a list."""

PORT = (int, str)
_NUMBER = (int, float)
_STRINGS = {"*": str}
_METADATA = {
    "name": str,
    "namespace": str,
    "labels": _STRINGS,
    "annotations": _STRINGS,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "ownerReferences": [{"apiVersion": str, "kind": str, "name": str, "controller": bool}],
}
_MATCH_STRING = {"exact": str, "prefix": str, "regex": str}
_DESTINATION = {"host": str, "subset": str, "port": {"number": int}}
_HEADERS = {
    way: {"set": _STRINGS, "add": _STRINGS, "remove": [str]} for way in ("request", "response")
}
_PERCENT = {"value": _NUMBER}
_L4_MATCH = {
    "destinationSubnets": [str],
    "port": int,
    "sourceLabels": _STRINGS,
    "gateways": [str],
    "sourceNamespace": str,
}
_L4_ROUTE = [{"destination": _DESTINATION, "weight": int}]
_VIRTUAL_SERVICE = {
    "hosts": [str],
    "gateways": [str],
    "exportTo": [str],
    "http": [
        {
            "name": str,
            "match": [
                {
                    "name": str,
                    "uri": _MATCH_STRING,
                    "scheme": _MATCH_STRING,
                    "method": _MATCH_STRING,
                    "authority": _MATCH_STRING,
                    "headers": {"*": _MATCH_STRING},
                    "withoutHeaders": {"*": _MATCH_STRING},
                    "queryParams": {"*": _MATCH_STRING},
                    "port": int,
                    "ignoreUriCase": bool,
                    "gateways": [str],
                    "sourceLabels": _STRINGS,
                    "sourceNamespace": str,
                }
            ],
            "route": [{"destination": _DESTINATION, "weight": int, "headers": _HEADERS}],
            "redirect": {
                "uri": str,
                "prefixRewrite": str,
                "authority": str,
                "port": int,
                "derivePort": str,
                "scheme": str,
                "redirectCode": int,
            },
            "directResponse": {"status": int, "body": {"string": str, "bytes": str}},
            "delegate": {"name": str, "namespace": str},
            "rewrite": {"uri": str, "authority": str, "uriRegexRewrite": _STRINGS},
            "timeout": str,
            "retries": {
                "attempts": int,
                "perTryTimeout": str,
                "retryOn": str,
                "retryRemoteLocalities": bool,
                "retryIgnorePreviousHosts": bool,
                "backoff": str,
            },
            "fault": {
                "delay": {"fixedDelay": str, "percentage": _PERCENT, "percent": int},
                "abort": {
                    "httpStatus": int,
                    "grpcStatus": str,
                    "http2Error": str,
                    "percentage": _PERCENT,
                },
            },
            "mirror": _DESTINATION,
            "mirrorPercent": int,
            "mirrorPercentage": _PERCENT,
            "mirrors": [{"destination": _DESTINATION, "percentage": _PERCENT}],
            "corsPolicy": {"*": object},
            "headers": _HEADERS,
        }
    ],
    "tcp": [{"match": [_L4_MATCH], "route": _L4_ROUTE}],
    "tls": [{"match": [{**_L4_MATCH, "sniHosts": [str]}], "route": _L4_ROUTE}],
}
_DESTINATION_RULE = {
    "host": str,
    "exportTo": [str],
    "subsets": [{"name": str, "labels": _STRINGS, "trafficPolicy": {"*": object}}],
    "trafficPolicy": {"*": object},
    "workloadSelector": {"matchLabels": _STRINGS},
}
_GATEWAY = {
    "selector": _STRINGS,
    "servers": [
        {
            "name": str,
            "hosts": [str],
            "port": {"number": int, "name": str, "protocol": str},
            "tls": {"mode": str, "httpsRedirect": bool},
        }
    ],
}
_SERVICE_ENTRY = {
    "hosts": [str],
    "addresses": [str],
    "exportTo": [str],
    "location": str,
    "resolution": str,
    "ports": [{"number": int, "name": str, "protocol": str, "targetPort": int}],
    "endpoints": [{"address": str, "labels": _STRINGS}],
    "workloadSelector": {"labels": _STRINGS},
}
_WORKLOAD_ENTRY = {"address": str, "labels": _STRINGS}
_SIDECAR = {
    "workloadSelector": {"labels": _STRINGS},
    "egress": [{"hosts": [str], "port": {"number": int}}],
    "outboundTrafficPolicy": {"mode": str},
}
_SERVICE = {
    "type": str,
    "clusterIP": str,
    "externalName": str,
    "internalTrafficPolicy": str,
    "publishNotReadyAddresses": bool,
    "trafficDistribution": str,
    "selector": _STRINGS,
    "ports": [
        {
            "name": str,
            "port": int,
            "protocol": str,
            "appProtocol": str,
            "targetPort": PORT,
        }
    ],
}
_CONTAINER = {
    "name": str,
    "image": str,
    "restartPolicy": str,
    "command": [str],
    "args": [str],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "securityContext": {"runAsUser": int},
    "env": [{"name": str, "value": str}],
    "volumeMounts": [{"name": str, "mountPath": str, "subPath": str}],
}
_POD = {
    "hostNetwork": bool,
    "securityContext": {"runAsUser": int},
    "initContainers": [_CONTAINER],
    "containers": [_CONTAINER],
    "volumes": [
        {
            "name": str,
            "configMap": {"name": str, "items": [{"key": str, "path": str}]},
            "projected": {
                "sources": [{"configMap": {"name": str, "items": [{"key": str, "path": str}]}}]
            },
        }
    ],
}
_TEMPLATE = {"metadata": _METADATA, "spec": _POD}
_WORKLOAD = {
    "replicas": int,
    "selector": {"matchLabels": _STRINGS},
    "template": _TEMPLATE,
}
_ROUTED_BY = {"name": str, "routes": [str]}
_LABELS = {"labels": _STRINGS}
_ROLLOUT = {
    **_WORKLOAD,
    "workloadRef": {"apiVersion": str, "kind": str, "name": str},
    "strategy": {
        "canary": {
            "canaryMetadata": _LABELS,
            "stableMetadata": _LABELS,
            "trafficRouting": {
                "istio": {"virtualService": _ROUTED_BY, "virtualServices": [_ROUTED_BY]}
            },
        },
        "blueGreen": {"activeMetadata": _LABELS, "previewMetadata": _LABELS},
    },
}
_REFERENCE = {"group": str, "kind": str, "namespace": str, "name": str}
_ROUTE = {
    "parentRefs": [{**_REFERENCE, "sectionName": str, "port": int}],
    "hostnames": [str],
    "rules": [
        {
            "backendRefs": [{**_REFERENCE, "port": int, "weight": int}],
            "filters": [
                {"type": str, "requestMirror": {"backendRef": {**_REFERENCE, "port": int}}}
            ],
        }
    ],
}
_LISTENERS = [{"name": str, "hostname": str, "port": int, "protocol": str}]
_STATEFUL_SET = {**_WORKLOAD, "ordinals": {"start": int}}
_CANARY = {"targetRef": {"kind": str, "name": str}, "service": {"name": str}}

ISTIO = "networking.istio.io"
GATEWAY_API = "gateway.networking.k8s.io"
_GATEWAY_API_EXPERIMENTS = "gateway.networking.x-k8s.io"
_GATEWAY_APIS = (GATEWAY_API, _GATEWAY_API_EXPERIMENTS)
KUBERNETES_GATEWAY = f"Gateway.{GATEWAY_API}"
"""The Gateway of the Kubernetes Gateway API, as kubectl tells it from Istio's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that the model reads.

    `name` is what the API server calls it, or KUBERNETES_GATEWAY. `versions` are in the order of
    preference; which of them a cluster serves is discovered. `shape` is that of the whole object.
    """

    name: str
    group: str
    versions: tuple[str, ...]
    plural: str
    shape: Mapping[str, Shape]
    namespaced: bool = True

    @property
    def api_kind(self) -> str:
        """What the API server calls it."""
        return self.name.partition(".")[0]

    @property
    def is_whole(self) -> bool:
        """Whether all fields of its objects are kept, and not only those of `shape`."""
        return self.group in (ISTIO, *_GATEWAY_APIS)


def _kind(
    name: str, group: str, versions: str, plural: str, namespaced: bool = True, **shape: Shape
) -> Kind:
    return Kind(
        name, group, tuple(versions.split()), plural, {"metadata": _METADATA, **shape}, namespaced
    )


_ISTIO_VERSIONS = "v1 v1beta1 v1alpha3"

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("VirtualService", ISTIO, _ISTIO_VERSIONS, "virtualservices", spec=_VIRTUAL_SERVICE),
        _kind(
            "DestinationRule", ISTIO, _ISTIO_VERSIONS, "destinationrules", spec=_DESTINATION_RULE
        ),
        _kind("Gateway", ISTIO, _ISTIO_VERSIONS, "gateways", spec=_GATEWAY),
        _kind("ServiceEntry", ISTIO, _ISTIO_VERSIONS, "serviceentries", spec=_SERVICE_ENTRY),
        _kind("WorkloadEntry", ISTIO, _ISTIO_VERSIONS, "workloadentries", spec=_WORKLOAD_ENTRY),
        _kind("Sidecar", ISTIO, _ISTIO_VERSIONS, "sidecars", spec=_SIDECAR),
        _kind(
            "MeshPolicy",
            "authentication.istio.io",
            "v1alpha1",
            "meshpolicies",
            namespaced=False,
            spec={"peers": [{"mtls": {"mode": str}}]},
        ),
        _kind("Service", "", "v1", "services", spec=_SERVICE),
        _kind("ConfigMap", "", "v1", "configmaps", data=_STRINGS),
        _kind("Namespace", "", "v1", "namespaces", namespaced=False),
        _kind(
            "Pod",
            "",
            "v1",
            "pods",
            spec=_POD,
            status={"phase": str, "podIP": str, "conditions": [{"type": str, "status": str}]},
        ),
        _kind("Deployment", "apps", "v1", "deployments", spec=_WORKLOAD),
        _kind("StatefulSet", "apps", "v1", "statefulsets", spec=_STATEFUL_SET),
        _kind("DaemonSet", "apps", "v1", "daemonsets", spec=_WORKLOAD),
        _kind("ReplicaSet", "apps", "v1", "replicasets", spec=_WORKLOAD),
        _kind(
            "ReplicationController",
            "",
            "v1",
            "replicationcontrollers",
            spec={"replicas": int, "selector": _STRINGS, "template": _TEMPLATE},
        ),
        _kind("Job", "batch", "v1", "jobs", spec={"template": _TEMPLATE}),
        _kind(
            "CronJob",
            "batch",
            "v1",
            "cronjobs",
            spec={"jobTemplate": {"spec": {"template": _TEMPLATE}}},
        ),
        _kind("Rollout", "argoproj.io", "v1alpha1", "rollouts", spec=_ROLLOUT),
        _kind("Canary", "flagger.app", "v1beta1", "canaries", spec=_CANARY),
        _kind("HTTPRoute", GATEWAY_API, "v1 v1beta1 v1alpha2", "httproutes", spec=_ROUTE),
        _kind("GRPCRoute", GATEWAY_API, "v1 v1alpha2", "grpcroutes", spec=_ROUTE),
        _kind("TLSRoute", GATEWAY_API, "v1 v1alpha3 v1alpha2", "tlsroutes", spec=_ROUTE),
        _kind("TCPRoute", GATEWAY_API, "v1 v1alpha2", "tcproutes", spec=_ROUTE),
        _kind("UDPRoute", GATEWAY_API, "v1 v1alpha2", "udproutes", spec=_ROUTE),
        _kind(
            KUBERNETES_GATEWAY,
            GATEWAY_API,
            "v1 v1beta1 v1alpha2",
            "gateways",
            spec={
                "gatewayClassName": str,
                "addresses": [{"type": str, "value": str}],
                "listeners": _LISTENERS,
                "infrastructure": {"labels": _STRINGS},
            },
        ),
        *(
            _kind(
                name,
                group,
                versions,
                plural,
                spec={"parentRef": _REFERENCE, "listeners": _LISTENERS},
            )
            for name, group, versions, plural in (
                ("ListenerSet", GATEWAY_API, "v1 v1alpha1", "listenersets"),
                ("XListenerSet", _GATEWAY_API_EXPERIMENTS, "v1alpha1", "xlistenersets"),
            )
        ),
        _kind(
            "GatewayClass",
            GATEWAY_API,
            "v1 v1beta1 v1alpha2",
            "gatewayclasses",
            namespaced=False,
            spec={"controllerName": str},
        ),
    )
}


_SHORT: Mapping[str, str] = {
    **{"vs": "VirtualService", "dr": "DestinationRule", "gw": "Gateway", "se": "ServiceEntry"},
    **{"we": "WorkloadEntry", "svc": "Service", "cm": "ConfigMap", "ns": "Namespace", "po": "Pod"},
    **{"deploy": "Deployment", "sts": "StatefulSet", "ds": "DaemonSet", "rs": "ReplicaSet"},
    **{"rc": "ReplicationController", "cj": "CronJob", "ro": "Rollout"},
    "gtw": KUBERNETES_GATEWAY,
}
_CALLED: Mapping[str, Kind] = {
    **{short: KINDS[name] for short, name in _SHORT.items()},
    **{
        word.lower(): kind
        for kind in KINDS.values()
        for word in (kind.name, kind.plural, f"{kind.plural}.{kind.group}")
        if kind.name != KUBERNETES_GATEWAY or "." in word
    },
}


def called(text: str) -> Kind | None:
    """The kind that kubectl knows by this name, plural or short name, in any case."""
    return _CALLED.get(text.lower())


_MOVED: Mapping[str, str] = {"extensions": "apps"}
"""Groups that kinds were in before: Istio up to 1.2 came with Deployments of extensions/v1beta1."""


def kind_of(api_version: str, name: str) -> Kind | None:
    """The kind that an object is of; None where it is none that the model reads.

    The version is not looked at: v1alpha3, v1beta1 and v1 of Istio's kinds have the same fields.
    """
    group = api_version.rpartition("/")[0]
    for kind in (KINDS.get(name), KINDS.get(f"{name}.{group}")):
        if kind and kind.group == _MOVED.get(group, group):
            return kind
    return None


def identity(api_version: str, kind: str, namespace: str, name: str) -> ResourceId:
    """What tells an object from all others, of a kind as the API server calls it."""
    known = kind_of(api_version, kind)
    return ResourceId(known.name if known else kind, namespace, name)


def conform(value: Any, shape: Shape) -> tuple[Any, tuple[Fault, ...]]:
    """`value` less the fields whose type is not that of `shape`, and those fields.

    Returns `value` itself where nothing is wrong with it. A null is an absent field, as it is to
    the API server; a null in a list is a fault. A list's item of a wrong type becomes an empty
    one, so that the others keep their index.
    """
    faults: list[Fault] = []
    return _conform(value, shape, (), faults), tuple(faults)


MAX_FAULTS = 20
"""So many faults of one object are named."""
_DROPPED = object()


def _conform(value: Any, shape: Shape, path: Path, faults: list[Fault]) -> Any:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _fault("a mapping", value, path, faults)
        any_field = shape.get("*")
        if any_field is object:
            return value
        conformed = value
        for key, old in value.items():
            field_shape = any_field or shape.get(key)
            if field_shape is None or old is None or old.__class__ is field_shape:
                continue
            new = _conform(old, field_shape, (*path, key), faults)
            if new is not old:
                if conformed is value:
                    conformed = dict(value)
                if new is _DROPPED:
                    del conformed[key]
                else:
                    conformed[key] = new
        return conformed
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _fault("a list", value, path, faults)
        items = [
            _conform(item, shape[0], (*path, index), faults) for index, item in enumerate(value)
        ]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return [_empty(shape[0]) if item is _DROPPED else item for item in items]
    if shape is object:
        return value
    if not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        return _fault(_type_name(shape), value, path, faults)
    return value


def _empty(shape: Shape) -> Any:
    return {} if isinstance(shape, dict) else ""


def _fault(expected: str, value: Any, path: Path, faults: list[Fault]) -> Any:
    if len(faults) < MAX_FAULTS:
        lacks_quotes = expected == _TYPE_NAMES[str] and isinstance(value, (bool, int, float))
        faults.append(Fault(path, expected, _found(value), lacks_quotes))
    return _DROPPED


def _found(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "null" if value is None else f"the string {value[:40]!r}"


_TYPE_NAMES: Mapping[object, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    float: "a number",
}


def _type_name(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(_TYPE_NAMES[item] for item in shape)
    return _TYPE_NAMES[shape]


def project(value: Any, shape: Shape) -> tuple[Any, tuple[Fault, ...]]:
    """A copy of `value` that holds the fields of `shape` only, less what conform drops."""
    faults: list[Fault] = []
    return _project(value, shape, (), faults), tuple(faults)


def _project(value: Any, shape: Shape, path: Path, faults: list[Fault]) -> Any:
    if not isinstance(shape, dict) or not isinstance(value, dict):
        if isinstance(shape, list) and isinstance(value, list):
            items = [_project(item, shape[0], (*path, n), faults) for n, item in enumerate(value)]
            return [_empty(shape[0]) if item is _DROPPED else item for item in items]
        return _conform(value, shape, path, faults)
    any_field = shape.get("*")
    if any_field is object:
        return value
    kept = {}
    for key, old in value.items():
        field_shape = any_field or shape.get(key)
        if field_shape is None or old is None:
            continue
        if old.__class__ is not field_shape:
            old = _project(old, field_shape, (*path, key), faults)
            if old is _DROPPED:
                continue
        kept[key] = old
    return kept
