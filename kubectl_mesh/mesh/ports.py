"""Which protocol Istio takes a port for.

Models `ConvertProtocol` of istiod and the page "Protocol Selection" of Istio's documentation:
appProtocol first, else the part of the name before the first `-`, else sniffed on the way out,
save for a few ports whose servers speak first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

HTTP_PROTOCOLS = frozenset(("http", "http2", "grpc", "grpc-web", "http_proxy"))
PROTOCOLS = HTTP_PROTOCOLS | {"https", "tcp", "tls", "mongo", "mysql", "redis", "udp"}
NEVER_SNIFFED: Mapping[int, str] = {25: "SMTP", 53: "DNS", 3306: "MySQL", 27017: "MongoDB"}
SNIFFED = "sniffed"

_APP_PROTOCOLS = {
    "kubernetes.io/h2c": "http2",
    "kubernetes.io/ws": "http",
    "kubernetes.io/wss": "https",
}


def parse(text: str) -> str | None:
    """The protocol that a port name or an appProtocol names, or None."""
    lowered = text.lower()
    if lowered in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[lowered]
    if lowered.startswith("grpc-web"):
        return "grpc-web"
    prefix = lowered.partition("-")[0]
    return prefix if prefix in PROTOCOLS else None


def family(protocol: str) -> Literal["http", "http2", "tls", "tcp", "udp", "sniffed"]:
    """The protocols that proxies treat alike: HTTP/1.1, HTTP/2, TLS passed on, other TCP."""
    if protocol in ("http2", "grpc", "grpc-web"):
        return "http2"
    if protocol in HTTP_PROTOCOLS:
        return "http"
    if protocol in ("https", "tls"):
        return "tls"
    if protocol == "udp":
        return "udp"
    return "sniffed" if protocol == SNIFFED else "tcp"


def protocol_of(port: Mapping[str, Any]) -> str:
    """The protocol of a Service's port, given as the API has it (name, port, appProtocol...).

    One of PROTOCOLS or SNIFFED.
    """
    if port.get("protocol") == "UDP":
        return "udp"
    app_protocol = port.get("appProtocol")
    found = parse(app_protocol if app_protocol is not None else port.get("name") or "")
    if found:
        return found
    return "tcp" if port.get("port") in NEVER_SNIFFED else SNIFFED


def entry_protocol(port: Mapping[str, Any]) -> str:
    """The protocol of a ServiceEntry's or a Gateway's port, whose `protocol` names it."""
    return parse(port.get("protocol") or "") or SNIFFED
