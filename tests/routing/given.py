"""Small meshes for the tests of routing, in few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.objects import as_resource
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Path
from kubectl_mesh.mesh.snapshot import Coverage, Snapshot
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Table

Object = dict[str, Any]


class Nowhere:
    name = "a test"

    def locate(self, path: Path) -> None:
        return None


def thing(
    api_version: str,
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    namespace: str = "a",
    **meta: Any,
) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": dict(spec),
    }


def istio(
    kind: str, name: str, spec: Mapping[str, Any], namespace: str = "a", age: int = 0
) -> Object:
    """`age` is in days: 2 is older than 1."""
    stamp = {"creationTimestamp": f"2024-01-{20 - age:02}T00:00:00Z"}
    return thing("networking.istio.io/v1", kind, name, spec, namespace, **stamp)


def virtual_service(
    name: str,
    hosts: Iterable[str],
    *http: Mapping[str, Any],
    namespace: str = "a",
    age: int = 0,
    **spec: Any,
) -> Object:
    found = {"hosts": list(hosts), "http": list(http), **spec}
    return istio("VirtualService", name, found, namespace, age)


def says(text: str, *matches: Mapping[str, Any], **more: Any) -> Object:
    """A rule in which Envoy itself answers."""
    response = {"status": 200, "body": {"string": text}}
    return {**({"match": list(matches)} if matches else {}), "directResponse": response, **more}


def to(host: str, *matches: Mapping[str, Any], **more: Any) -> Object:
    """A rule that sends all requests to one host."""
    rule = {"match": list(matches)} if matches else {}
    subset = {"subset": more.pop("subset")} if "subset" in more else {}
    return {**rule, "route": [{"destination": {"host": host, **subset}}], **more}


def prefix(path: str, **more: Any) -> Object:
    return {"uri": {"prefix": path}, **more}


def exact(path: str, **more: Any) -> Object:
    return {"uri": {"exact": path}, **more}


def service(name: str, namespace: str = "a", *ports: Mapping[str, Any], **spec: Any) -> Object:
    listed = list(ports) or [{"name": "http", "port": 80}]
    found = {"selector": {"app": name}, "ports": listed, **spec}
    return thing("v1", "Service", name, found, namespace)


def entry(name: str, hosts: Iterable[str], namespace: str = "a", **spec: Any) -> Object:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    return istio("ServiceEntry", name, {"hosts": list(hosts), "ports": ports, **spec}, namespace)


def gateway(
    name: str, *servers: Mapping[str, Any], namespace: str = "a", age: int = 0, **selector: str
) -> Object:
    spec = {"selector": selector or {"istio": "ingress"}, "servers": list(servers)}
    return istio("Gateway", name, spec, namespace, age)


def server(*hosts: str, number: int = 80, protocol: str = "HTTP", **more: Any) -> Object:
    port = {"number": number, "name": f"p{number}", "protocol": protocol}
    return {"port": port, "hosts": list(hosts) or ["*"], **more}


def destination_rule(
    name: str, host: str, *subsets: str, namespace: str = "a", **spec: Any
) -> Object:
    listed = [{"name": subset, "labels": {"version": subset}} for subset in subsets]
    found = {"host": host, "subsets": listed, **spec}
    return istio("DestinationRule", name, found, namespace, spec.pop("age", 0))


def deployment(app: str, namespace: str = "a", replicas: int = 1, **labels: str) -> Object:
    name = "-".join((app, *labels.values()))
    labelled = {"app": app, **labels}
    template = {"metadata": {"labels": labelled}, "spec": {"containers": [{"name": "app"}]}}
    spec = {"replicas": replicas, "template": template}
    return thing("apps/v1", "Deployment", name, spec, namespace)


def pod(name: str, namespace: str = "a", ready: bool | None = None, **labels: str) -> Object:
    found = thing("v1", "Pod", name, {"containers": [{"name": "app"}]}, namespace, labels=labels)
    if ready is not None:
        conditions = [{"type": "Ready", "status": str(ready)}]
        found["status"] = {"phase": "Running", "conditions": conditions}
    return found


def snapshot(*objects: Object, live: bool = False, config: MeshConfig | None = None) -> Snapshot:
    resources = [as_resource(item, Nowhere()) for item in objects]
    return Snapshot(resources, config, Coverage(live=live))


def router(*objects: Object, **options: Any) -> Router:
    return Router(snapshot(*objects, **options))


def proxy(found: Router, namespace: str = "istio-system", **labels: str) -> Proxy:
    """The pods that all Gateways of a mesh configure."""
    gateways = sorted(found.snapshot.gateways.all, key=lambda each: each.resource.age_key)
    return Proxy(namespace, labels or {"istio": "ingress"}, tuple(gateways))


def said(table: Table | None, request: Request) -> str:
    """What answers a request: the text of a rule of `says`, a cluster, or the kind of table."""
    assert table
    route = table.first(request)
    if route is None:
        return "404" if table.kind == "virtual-service" else table.kind
    if route.rule is None:
        return f"service {route.action.targets[0].host}"
    response = route.action.data.get("directResponse")
    if response:
        return str(response["body"]["string"])
    return " ".join(target.cluster for target in route.action.targets)


def asked(
    found: Router,
    url: str,
    client: Proxy | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> str:
    """What answers a request from a sidecar in namespace a, or from another proxy."""
    request = request_for(url, method, headers)
    client = client or Proxy("a")
    if not client.is_gateway:
        return said(found.sidecar(client, request.host, request.port), request)
    tls = request.scheme == "https"
    return said(found.gateway(client, request.host, request.port, tls=tls), request)
