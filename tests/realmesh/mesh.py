"""A real mesh on this machine: a Kubernetes API server, istiod, Envoys, and pods that answer.

    with Mesh() as mesh:
        mesh.service("helloworld", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
        client = mesh.sidecar("default", {"app": "client"})
        ingress = mesh.gateway({"istio": "ingressgateway"}, {80: 8080})
        mesh.apply(VIRTUAL_SERVICE)
        mesh.settled()
        assert client.request("GET", "helloworld:5000", "/hello").version == "v1"

Routing is Istio's own from end to end: istiod reads the API server as in any cluster, and Envoy
gets its configuration from istiod and decides. What is not real:

- There is no kubelet, no scheduler and no controller. A Pod, with its status, and a Service's
  EndpointSlice exist because `service`, `sidecar` and `gateway` made them; a Pod or Deployment that
  a test applies is an object and nothing more.
- There is no CNI plugin and no iptables: nothing redirects the traffic of a pod to its sidecar. A
  client talks to its sidecar's listener of the Service's port on loopback, under the Service's name
  (Istio's INTERCEPTION_MODE NONE). Therefore Services of one port number cannot be of HTTP and of
  TCP at once, all TCP Services need ports of their own, those of headless ones lead nowhere, and a
  sidecar takes requests to its own pod only where a Sidecar resource says so. ClusterIPs and DNS
  names lead nowhere.
- Nothing is injected. Proxies have no certificates: mTLS is off, and no webhook validates. Gateways
  get those of Secrets only where proxies say who they are (`with_identities`).
- Envoy is the one that its authors publish, newer than istiod, without Istio's own extensions:
  telemetry and the peers' metadata are absent.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from kubectl_mesh.changes.deletion import is_terminating
from kubectl_mesh.kube.workers import in_parallel

from . import backend, build
from .apiserver import ApiServer, group_path, objects
from .client import Connection
from .envoy import Identity, Proxy
from .finalizers import let_go
from .istiod import Istiod
from .load import Load
from .network import Host, Network
from .processes import Processes
from .settled import wait_until_read, wait_until_taken

ROOT_NAMESPACE = "istio-system"

MESH_CONFIG = """\
accessLogFile: /dev/stdout
accessLogEncoding: JSON
enableAutoMtls: false
enablePrometheusMerge: false
"""

_MARKER = "realmesh-settled"
_PORT_NAMES = {80: "http2", 443: "https"}  # of the ingress gateway that Istio installs


class Mesh:
    """A mesh. Starts when entered; is gone when left, and when the Python process ends.

    `debounce` is how long istiod waits for more changes before it tells the proxies of one; Istio's
    own default is 100ms. With `with_identities` each proxy has a token of its service account:
    without one istiod gives it no Secret. Raises NotBuilt where something that it needs is missing,
    StartError where something does not start.
    """

    def __init__(self, *, debounce: str = "100ms", with_identities: bool = False) -> None:
        self._envoy = build.envoy()
        self._pilot_discovery = build.pilot_discovery()
        self._debounce = debounce
        self._with_identities = with_identities
        self._exit = contextlib.ExitStack()
        self._numbers = itertools.count(1)
        self._addresses = itertools.count(1)
        self._istiods: list[Istiod] = []
        self._proxies: list[Proxy] = []
        self._applications: list[subprocess.Popen[bytes]] = []
        self._listening: list[Connection] = []

    def __enter__(self) -> Mesh:
        with contextlib.ExitStack() as exits:
            self.processes = exits.enter_context(Processes())
            self._network = Network(self.processes)
            self.node = self._network.node
            self.server = exits.enter_context(ApiServer(processes=self.processes, node=self.node))
            self.server.apply(_object("v1", "Namespace", "", ROOT_NAMESPACE))
            self.server.apply(_MESH_CONFIG_MAP, _PLAIN_TEXT)
            if self._with_identities:
                self.server.apply(_MAY_READ_SECRETS)
            self.istiod = self._start_istiod()
            self._pods = self._network.add("pods")
            self._kinds = list(self._namespaced_kinds())
            self._own = {self.server.path(item) for item in self._objects(self._kinds)}
            self._exit = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    def revision(self, name: str) -> Istiod:
        """Starts the istiod of another revision, which stays as long as the mesh."""
        self.server.apply(_mesh_config(f"istio-{name}"))
        return self._start_istiod(revision=name, number=len(self._istiods))

    def _start_istiod(self, **which: Any) -> Istiod:
        found = Istiod(
            self.processes,
            self.node,
            self._pilot_discovery,
            self.server.kubeconfig,
            self._debounce,
            asks_identity=self._with_identities,
            **which,
        )
        self._istiods.append(found)
        return found

    def apply(self, *manifests: str | Mapping[str, Any]) -> None:
        """Applies YAML or objects, in their order; makes the namespaces that they name."""
        everything = list(objects(*manifests))
        namespaces = {item["metadata"].get("namespace", "default") for item in everything}
        self.server.apply(*(_object("v1", "Namespace", "", name) for name in sorted(namespaces)))
        self.server.apply(*everything)

    def service(
        self,
        name: str,
        *,
        ports: Mapping[str, int],
        pods: Mapping[str, int],
        namespace: str = "default",
        target_ports: Mapping[str, int] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """A Service, and ready pods behind it that answer who they are (see backend.py).

        `ports` gives port names and numbers, `target_ports` those where the pods listen on another
        number. `pods` gives how many there are of each version; they are named `<name>-<version>-0`
        and so on, and have the labels `app`, `version` and `labels`.
        """
        targets = {**ports, **(target_ports or {})}
        selected = {"app": name, **(labels or {})}
        made = [
            self._pod(
                namespace, f"{name}-{version}-{number}", {**selected, "version": version}, "app"
            )
            for version, count in pods.items()
            for number in range(count)
        ]
        for pod in made:
            self._network.give(self._pods, pod["status"]["podIP"])
        applications = [
            {
                "pod": pod["metadata"]["name"],
                "version": pod["metadata"]["labels"]["version"],
                "address": pod["status"]["podIP"],
                "port": port,
            }
            for pod in made
            for port in sorted(set(targets.values()))
        ]
        self.listen(self._pods, applications)
        self.apply(
            _service(namespace, name, ports, targets, selected),
            _endpoint_slice(namespace, name, targets, made),
        )

    def listen(self, host: Host, applications: list[dict[str, Any]]) -> None:
        """Starts applications in a network namespace, as backend.py takes them."""
        if not applications:
            return
        name = f"backend-{next(self._numbers)}"
        certificates = self.server.certificates
        self._applications.append(
            self.processes.start(
                name,
                *host.command(sys.executable, "-I", "-S", backend.__file__),
                certificates / "apiserver.crt",
                certificates / "apiserver.key",
                json.dumps(applications),
            )
        )
        last = applications[-1]
        self.processes.wait(
            name, self._applications[-1], lambda: _listens(host, last["address"], last["port"])
        )
        self._listening.append(Connection(host, last["address"], last["port"]))

    def got(self) -> list[dict[str, Any]]:
        """The requests with a header `x-ask` that applications got since this was last asked.

        Each is what backend.py says of it; those of one Service are in the order of their arrival.
        """
        return [
            each
            for connection in self._listening
            for each in json.loads(connection.ask("GET", "applications", backend.GOT).body)
        ]

    def sidecar(
        self,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        istiod: Istiod | None = None,
    ) -> Proxy:
        """A pod with a sidecar, and nothing else that runs in it: a client.

        `metadata` is told to istiod besides, as injection has it from ISTIO_META_ variables;
        `istiod` is that of another revision.
        """
        pod = self._pod(namespace, name or self._name("client"), labels or {}, "app", "istio-proxy")
        return self._proxy("sidecar", pod, labels or {}, {}, metadata or {}, istiod)

    def gateway(
        self,
        labels: Mapping[str, str],
        ports: Mapping[int, int],
        *,
        namespace: str = ROOT_NAMESPACE,
        name: str | None = None,
    ) -> Proxy:
        """A gateway: its pod, and its Service with these ports and target ports."""
        name = name or self._name("gateway")
        pod = self._pod(namespace, name, labels, "istio-proxy")
        names = {_PORT_NAMES.get(port, f"tcp-{port}"): port for port in ports}
        targets = {port_name: ports[port] for port_name, port in names.items()}
        self.apply(
            _service(namespace, name, names, targets, labels),
            _endpoint_slice(namespace, name, targets, [pod]),
        )
        # istiod looks for the target ports once, when the proxy connects.
        wait_until_read(self.istiod, self._read_by_istiod)
        return self._proxy("router", pod, labels, ports, {})

    def next_second(self) -> None:
        """Waits until what is applied next is younger than what was applied before.

        Objects are as old as their creationTimestamp says, which counts seconds.
        """
        now = int(time.time())
        while int(time.time()) == now:
            time.sleep(0.01)

    @contextlib.contextmanager
    def held_back(self, proxy: Proxy) -> Iterator[None]:
        """While entered, nothing of istiod reaches a proxy, which serves by what it has."""
        packets = f"to {proxy.identity.address} ipproto tcp sport {proxy.istiod.xds[1]} blackhole"
        self.node.run("ip", "rule", "add", *packets.split())
        try:
            yield
        finally:
            self.node.run("ip", "rule", "del", *packets.split())

    def load(self, proxy: Proxy, host: str, path: str = "/", *, rate: float = 200) -> Load:
        """Steady traffic through a proxy, for a `with` statement (see load.py)."""
        return Load(proxy, host, path, rate=rate)

    def _proxy(
        self,
        kind: str,
        pod: Mapping[str, Any],
        labels: Mapping[str, str],
        ports: Mapping[int, int],
        metadata: Mapping[str, str],
        istiod: Istiod | None = None,
    ) -> Proxy:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        address = pod["status"]["podIP"]
        host = self._network.add(f"{namespace}.{name}", address)
        identity = Identity(kind, namespace, name, address, labels, metadata)
        proxy = Proxy(
            self.processes,
            host,
            self._envoy,
            identity,
            ports,
            istiod or self.istiod,
            self._token(namespace) if self._with_identities else "",
        )
        self._proxies.append(proxy)
        return proxy

    def _token(self, namespace: str) -> str:
        """By which a proxy of a namespace says who it is."""
        account = _object("v1", "ServiceAccount", namespace, "default")
        self.apply(account)
        path = f"{self.server.path(account)}/token"
        spec = {"audiences": ["istio-ca"], "expirationSeconds": 3600}
        found = self.server.request("POST", path, {"spec": spec})
        token: str = found["status"]["token"]
        return token

    def _pod(
        self, namespace: str, name: str, labels: Mapping[str, str], *containers: str
    ) -> dict[str, Any]:
        """A Pod object, running and ready, at an address that nobody has."""
        number = next(self._addresses)
        address = f"10.1.{1 + number // 250}.{1 + number % 250}"
        named = [{"name": container, "image": "none"} for container in containers]
        spec = {"nodeName": "node", "containers": named}
        pod = _object("v1", "Pod", namespace, name, spec=spec)
        pod["metadata"]["labels"] = dict(labels)
        self.apply(pod)
        running = {
            "image": "none",
            "imageID": "",
            "restartCount": 0,
            "ready": True,
            "started": True,
            "state": {"running": {}},
        }
        pod["status"] = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": container, **running} for container in containers],
        }
        path = f"{self.server.path(pod)}/status"
        return self.server.request("PATCH", path, pod, content_type="application/merge-patch+json")

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def settled(self) -> None:
        """Waits until every proxy has taken, and uses, all that was applied until now.

        All of Istio's objects, Services, endpoints; not the MeshConfig, which istiod shows nowhere.
        Raises NotSettled where a proxy rejects it, or does not take it within a minute; the message
        says what is missing.
        """
        for istiod in self._istiods:
            wait_until_read(istiod, self._read_by_istiod)
        rejected = {proxy: proxy.rejected for proxy in self._proxies}
        # istiod sends proxies what it knows, whole: a change made now comes with all before it.
        marker = self._name(_MARKER)
        self.apply(_marker(marker))
        wait_until_taken(self._proxies, marker, rejected)

    def reset(self) -> None:
        """Takes away all proxies, applications and objects that were not there at the start.

        Namespaces stay. Finalizers go first: no controller is there to heed them.
        """
        for proxy in self._proxies:
            proxy.stop()
            self._network.remove(proxy.host)
        for application in self._applications:
            application.kill()
        self._proxies.clear()
        self._applications.clear()
        self._listening.clear()
        objects = self._objects(self._kinds)
        left = [item for item in objects if self.server.path(item) not in self._own]
        in_parallel([functools.partial(self._take_away, item) for item in left], 8)
        self.server.apply(_MESH_CONFIG_MAP)

    def _take_away(self, item: Mapping[str, Any]) -> None:
        is_held = bool(item["metadata"].get("finalizers"))
        if is_held:
            let_go(self.server, self.server.path(item))
        if not (is_held and is_terminating(item)):  # else it is gone by now
            self.server.delete(item)

    def _namespaced_kinds(self) -> Iterator[tuple[str, str, str]]:
        """apiVersion, kind and plural of all that lives in namespaces and can be deleted.

        Without Events, which come and go, and in two API groups.
        """
        groups = self.server.request("GET", "/apis")["groups"]
        served = [version["groupVersion"] for group in groups for version in group["versions"]]
        seen = {("", "Event"), ("events.k8s.io", "Event")}
        for version in ["v1", *served]:
            for resource in self.server.resources(version):
                key = (version.rpartition("/")[0], resource["kind"])
                if resource["namespaced"] and "delete" in resource["verbs"] and key not in seen:
                    seen.add(key)
                    yield version, resource["kind"], resource["name"]

    def _read_by_istiod(self) -> Iterator[dict[str, Any]]:
        """The objects that istiod makes proxies' configuration of."""
        return self._objects(
            kind
            for kind in self._kinds
            if kind[1] in ("Pod", "Service", "EndpointSlice")
            or kind[0].partition("/")[0].endswith(".istio.io")
        )

    def _objects(self, kinds: Iterable[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
        for version, kind, plural in kinds:
            for item in self.server.request("GET", f"{group_path(version)}/{plural}")["items"]:
                yield {"apiVersion": version, "kind": kind, **item}


def _object(version: str, kind: str, namespace: str, name: str, **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _mesh_config(name: str) -> dict[str, Any]:
    return _object("v1", "ConfigMap", ROOT_NAMESPACE, name, data={"mesh": MESH_CONFIG})


_MESH_CONFIG_MAP = _mesh_config("istio")


_PLAIN_TEXT = _object(  # else sidecars wait for certificates before they listen for their own pods
    "security.istio.io/v1beta1",
    "PeerAuthentication",
    ROOT_NAMESPACE,
    "default",
    spec={"mtls": {"mode": "DISABLE"}},
)


_MAY_READ_SECRETS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "gateways"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "cluster-admin",
    },
    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": ROOT_NAMESPACE}],
}
"""That is the account of gateways; istiod asks whether it may read Secrets."""


def _marker(name: str) -> dict[str, Any]:
    """An EnvoyFilter that gives every proxy one more cluster, which nothing refers to."""
    patch = {"operation": "ADD", "value": {"name": name, "type": "STATIC"}}
    added = {"applyTo": "CLUSTER", "match": {"context": "ANY"}, "patch": patch}
    version = "networking.istio.io/v1alpha3"
    spec = {"configPatches": [added]}
    return _object(version, "EnvoyFilter", ROOT_NAMESPACE, _MARKER, spec=spec)


def _service(
    namespace: str,
    name: str,
    ports: Mapping[str, int],
    targets: Mapping[str, int],
    selector: Mapping[str, str],
) -> dict[str, Any]:
    listed = [
        {"name": port, "port": number, "targetPort": targets[port]}
        for port, number in ports.items()
    ]
    spec = {"ports": listed, "selector": dict(selector)}
    return _object("v1", "Service", namespace, name, spec=spec)


def _endpoint_slice(
    namespace: str, service: str, targets: Mapping[str, int], pods: list[dict[str, Any]]
) -> dict[str, Any]:
    made = _object("discovery.k8s.io/v1", "EndpointSlice", namespace, f"{service}-0")
    made["metadata"]["labels"] = {"kubernetes.io/service-name": service}
    made["addressType"] = "IPv4"
    made["ports"] = [{"name": name, "port": port} for name, port in targets.items()]
    made["endpoints"] = [
        {
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": True},
            "nodeName": "node",
            "targetRef": {
                "kind": "Pod",
                "namespace": namespace,
                "name": pod["metadata"]["name"],
            },
        }
        for pod in pods
    ]
    return made


def _listens(host: Host, address: str, port: int) -> bool:
    try:
        host.connect(address, port).close()
        return True
    except OSError:
        return False
