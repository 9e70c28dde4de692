"""A real Envoy in a network namespace of its own: a sidecar or a gateway of a mesh."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .build import istio_release
from .client import PATIENCE, Answer, Connection, get
from .istiod import Istiod
from .network import Host
from .processes import Processes, frozen

_ADMIN = 15000
_requests = itertools.count(1)


@dataclass(frozen=True)
class Identity:
    """Who a proxy tells istiod that it is: a pod."""

    kind: str  # "sidecar" or "router", which is a gateway
    namespace: str
    name: str
    address: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def id(self) -> str:
        domain = f"{self.namespace}.svc.cluster.local"
        return f"{self.kind}~{self.address}~{self.name}.{self.namespace}~{domain}"


class Proxy:
    """An Envoy that istiod configures.

    It runs without redirection of traffic (`INTERCEPTION_MODE: NONE`): a sidecar listens on its own
    loopback at the port of each Service; a gateway, at its address, at the target port of its own
    Service, which `ports` gives for each port that clients address. `istiod` configures it, and
    knows it by `token` where it asks for one.
    """

    def __init__(
        self,
        processes: Processes,
        host: Host,
        program: Path,
        identity: Identity,
        ports: Mapping[int, int],
        istiod: Istiod,
        token: str = "",
    ) -> None:
        self.host = host
        self.istiod = istiod
        self.identity = identity
        self._processes = processes
        self._ports = ports
        bootstrap = processes.folder / f"{host.name}.bootstrap.json"
        bootstrap.write_text(json.dumps(_bootstrap(identity, istiod.xds, token)))
        self._process = processes.start(
            host.name,
            *host.command(program, "--config-path", bootstrap),
            "--disable-hot-restart",
            *("--concurrency", "1"),
            *("--drain-time-s", "1"),
            *("--file-flush-interval-msec", "10"),
            *("--log-level", "warning"),
        )
        processes.wait(host.name, self._process, self._is_ready)

    def __str__(self) -> str:
        return f"{self.identity.namespace}/{self.identity.name}"

    def connect(self, host: str, *, sni: str | None = None) -> Connection:
        """A connection, not yet open, to where the proxy takes requests to `host` (see request)."""
        port = _port(host, default=443 if sni else 80)
        if self.identity.kind == "router":
            return Connection(self.host, self.identity.address, self._ports[port], sni=sni)
        return Connection(self.host, "127.0.0.1", port, sni=sni)

    def request(
        self,
        method: str,
        host: str,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        *,
        sni: str | None = None,
    ) -> Answer:
        """Sends one request, on a connection of its own, as a client of this proxy.

        `host` is the name and port in the URL that the client asks for, `helloworld:5000`: without
        a port it is 80; by TLS for the server name `sni`, 443.
        """
        with contextlib.closing(self.connect(host, sni=sni)) as connection:
            return connection.ask(method, host, path, headers)

    def explain(self, method: str, host: str, path: str = "/", **more: Any) -> dict[str, Any]:
        """Sends a request and returns the line of Istio's access log on it.

        Among its fields are response_code, response_flags, route_name and upstream_cluster.
        """
        agent = f"realmesh-{next(_requests)}"
        headers = {**(more.pop("headers", None) or {}), "user-agent": agent}
        self.request(method, host, path, headers, **more)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in reversed(self._processes.log(self.host.name).read_text().splitlines()):
                if f'"{agent}"' in line and line.endswith("}"):
                    logged: dict[str, Any] = json.loads(line)
                    return logged
            time.sleep(0.01)
        raise TimeoutError(f"{self} has not logged its request {agent}")

    def admin(self, path: str) -> Any:
        """What Envoy's administration interface answers: JSON. Raises OSError, HTTPException."""
        return json.loads(get(self.host, _ADMIN, path))

    def stats(self, pattern: str) -> dict[str, Any]:
        """The counters, gauges and texts whose names hold a match of the regular expression.

        Since 1.23 istiod ends the names of clusters and of listeners with `;`, to tell them from
        what follows: that is left out, and a full stop (`\\.`) in the pattern is one with it, too.
        """
        pattern = pattern.replace(r"\.", r";?\.")
        answer = self.admin(f"/stats?format=json&filter={quote(pattern)}")
        return {
            each["name"].replace(";.", "."): each["value"]
            for each in answer["stats"]
            if "name" in each
        }

    @property
    def rejected(self) -> int:
        """How often the proxy has rejected what istiod sent."""
        return sum(self.stats(r"\.update_rejected$").values())

    @property
    def warnings(self) -> str:
        """Why the proxy rejected what istiod sent, as its log says: the last three times."""
        log = self._processes.log(self.host.name).read_text(errors="replace")
        return "\n".join(re.findall(r"gRPC config for .*?(?=\n[\[{]|\Z)", log, re.DOTALL)[-3:])

    def cluster_version(self, name: str) -> str | None:
        """The version of istiod's configuration that gave the proxy this cluster; None if none."""
        dump = f"/config_dump?resource=dynamic_active_clusters&name_regex={quote(name)}"
        for each in self.admin(dump).get("configs", ()):
            version: str = each["version_info"]
            return version
        return None

    def frozen(self) -> AbstractContextManager[None]:
        """While entered, the proxy does nothing: it neither serves nor acknowledges."""
        return frozen(self._process)

    def stop(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            get(self.host, _ADMIN, "/ready")
            return True
        except (OSError, http.client.HTTPException):
            return False


def _port(authority: str, *, default: int) -> int:
    _, _, port = authority.rpartition(":")
    return int(port) if port.isdigit() else default


def _bootstrap(identity: Identity, xds: tuple[str, int], token: str) -> dict[str, Any]:
    known = {"initial_metadata": [{"key": "authorization", "value": f"Bearer {token}"}]}
    return {
        "node": {
            "id": identity.id,
            "cluster": f"{identity.name}.{identity.namespace}",
            "metadata": {
                "NAMESPACE": identity.namespace,
                "NAME": identity.name,
                "LABELS": dict(identity.labels),
                "ISTIO_VERSION": f"{istio_release()}.0",
                "CLUSTER_ID": "Kubernetes",
                "INTERCEPTION_MODE": "NONE",
                "INSTANCE_IPS": identity.address,
                **identity.metadata,
            },
        },
        "admin": {"address": _socket("127.0.0.1", _ADMIN)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {"envoy_grpc": {"cluster_name": "xds-grpc"}, **(known if token else {})}
                ],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
        },
        "static_resources": {"clusters": [_istiod(xds)]},
        # Istio's own bootstrap lifts this limit, too, for its old names of things.
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}
            ]
        },
    }


def _istiod(xds: tuple[str, int]) -> dict[str, Any]:
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(*xds)}}]}],
        },
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", **http2}
        },
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
