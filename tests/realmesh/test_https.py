"""HTTPS that a gateway ends: the name in TLS chooses the server, whatever the Host header says."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable

from kubectl_mesh.mesh.proxy import Proxy as Place
from kubectl_mesh.routing.proxies import gateways_serving
from kubectl_mesh.routing.request import request_for
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Tracer

from .client import PATIENCE
from .envoy import Proxy
from .manifests import INGRESS, Object, gateway, says, server, virtual_service
from .mesh import ROOT_NAMESPACE, Mesh
from .routes_tried import snapshot_of

ASKED = [
    ("https://a.com/", None, None, "a", ["front"]),
    ("https://a.com/", "b.com", None, 404, []),
    ("https://b.com/", None, "a.com", 404, []),
    ("https://a.com/", "b.com", "b.com", "b", ["beside"]),
    ("https://b.com/", None, "c.com", None, []),
]
"""URL, Host header, server name; the answer, and the Gateways that serve it."""


def certificate(mesh: Mesh) -> Object:
    """A Secret of the namespace of the gateways."""
    data = {
        key: base64.b64encode((mesh.server.certificates / file).read_bytes()).decode()
        for key, file in (("tls.crt", "apiserver.crt"), ("tls.key", "apiserver.key"))
    }
    metadata = {"name": "shop", "namespace": ROOT_NAMESPACE}
    kind = "kubernetes.io/tls"
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}


def answer(ingress: Proxy, name: str, host: str) -> str | int | None:
    """What a client gets that connects by TLS for a name; None where it gets no connection."""
    with contextlib.closing(ingress.connect("a.com:443", sni=name)) as connection:
        try:
            found = connection.ask("GET", host, "/")
        except OSError:
            return None
        return found.body.decode() if found.status == 200 else found.status


def test_the_server_for_the_name_in_tls_routes(new_mesh: Callable[..., Mesh]) -> None:
    mesh = new_mesh(with_identities=True)
    ingress = mesh.gateway(INGRESS, {443: 8443})
    tls = {"mode": "SIMPLE", "credentialName": "shop"}
    mesh.apply(certificate(mesh))
    for name, host in (("front", "a"), ("beside", "b")):
        mesh.apply(
            gateway(name, server(f"{host}.com", port=443, protocol="HTTPS", tls=tls)),
            virtual_service(host, f"{host}.com", says(host), gateways=[name]),
        )
    mesh.settled()
    deadline = time.monotonic() + PATIENCE  # istiod sends Secrets when all else is settled
    while answer(ingress, "a.com", "a.com") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    snapshot = snapshot_of(mesh)
    router = Router(snapshot)
    gateways = tuple(snapshot.gateways.by_id[f"default/{name}"] for name in ("front", "beside"))
    model = Place(ROOT_NAMESPACE, INGRESS, gateways)
    for url, host, name, expected, serving in ASKED:
        request = request_for(url, headers={"Host": host} if host else {}, server_name=name)
        assert answer(ingress, request.dialled_host, request.authority) == expected
        effect = Tracer(router).follow(model, request).effect
        assert effect.status == {"a": 200, "b": 200}.get(str(expected), expected)
        assert [each.id for each in gateways_serving(router, request)] == [
            f"default/{each}" for each in serving
        ]
