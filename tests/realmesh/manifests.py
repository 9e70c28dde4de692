"""The manifests that tests need again and again, as objects to apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

INGRESS = {"istio": "ingressgateway"}
"""The labels of Istio's ingress gateway, which its Gateways select."""


def istio(kind: str, name: str, namespace: str = "default", **spec: Any) -> Object:
    """An object of networking.istio.io."""
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def virtual_service(
    name: str, hosts: str, *rules: Object, namespace: str = "default", **spec: Any
) -> Object:
    """`rules` are those of HTTP. `hosts` are separated by spaces: a delegate has none."""
    own = {"hosts": hosts.split()} if hosts else {}
    http = {"http": list(rules)} if rules else {}
    return istio("VirtualService", name, namespace, **own, **http, **spec)


def destination_rule(
    name: str, host: str, *subsets: Object, namespace: str = "default", **spec: Any
) -> Object:
    return istio("DestinationRule", name, namespace, host=host, subsets=list(subsets), **spec)


def subset(name: str, **labels: str) -> Object:
    """A subset of a DestinationRule."""
    return {"name": name, "labels": labels}


def gateway(
    name: str,
    *servers: Object,
    namespace: str = "default",
    selector: Mapping[str, str] = INGRESS,
) -> Object:
    return istio("Gateway", name, namespace, selector=dict(selector), servers=list(servers))


def server(*hosts: str, port: int = 80, protocol: str = "HTTP", **more: Any) -> Object:
    """A server of a Gateway: for all hosts unless some are named."""
    numbered = {"number": port, "name": f"port-{port}", "protocol": protocol}
    return {"port": numbered, "hosts": list(hosts or "*"), **more}


def service(name: str, *ports: Object, app: str | None = None) -> Object:
    """A Kubernetes Service, of the pods that are labelled `app`: by default with its name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": app or name}, "ports": list(ports)},
    }


def says(words: str, *matches: Object, **more: Any) -> Object:
    """An HTTP rule with which Envoy itself answers 200 and these words."""
    answer = {"status": 200, "body": {"string": words}}
    return {**_matching(matches), "directResponse": answer, **more}


def to(
    host: str, *matches: Object, subset: str | None = None, port: int | None = None, **more: Any
) -> Object:
    """A rule of HTTP, TCP or TLS that sends everything to one destination."""
    return {**_matching(matches), "route": [destination(host, subset=subset, port=port)], **more}


def destination(
    host: str, *, subset: str | None = None, port: int | None = None, **more: Any
) -> Object:
    """One of the destinations of a rule; `more` is its weight, for one."""
    wanted: Object = {"host": host}
    if subset is not None:
        wanted["subset"] = subset
    if port is not None:
        wanted["port"] = {"number": port}
    return {"destination": wanted, **more}


def _matching(matches: tuple[Object, ...]) -> Object:
    return {"match": list(matches)} if matches else {}


def prefix(uri: str, **more: Any) -> Object:
    """A match of paths that begin so, and of whatever `more` asks for."""
    return {"uri": {"prefix": uri}, **more}


def exact(uri: str, **more: Any) -> Object:
    return {"uri": {"exact": uri}, **more}


def regex(uri: str, **more: Any) -> Object:
    return {"uri": {"regex": uri}, **more}
