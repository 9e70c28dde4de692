"""A real Kubernetes API server, with Istio's real resource definitions, on this machine.

    with ApiServer() as server:
        server.apply(manifests)
        server.kubectl("get", "virtualservices", "-A")

It is etcd and kube-apiserver and nothing else: no scheduler, no kubelet, and no controllers. So a
Deployment makes no pods, a deleted namespace stays Terminating (use a fresh one), and the roles
`view`, `edit` and `admin`, which a controller fills, are empty (use `grant`). Authentication by
token, RBAC and TLS are real.

By itself it listens on loopback, which needs no root and no user namespaces. On the node of a mesh
(see mesh.py) it listens on the node's loopback, and a relay on ours, at the same port: so one
kubeconfig serves on both sides, and the server reaches the pods of the mesh, as `kubectl get --raw
.../proxy/...` asks it to. While that server is stopped, the relay closes connections at once,
instead of refusing them.

Two can run at once: etcd listens on Unix sockets in the server's scratch folder, and the API
server's port is taken, by a socket bound to it, from before its first start until it is closed. So
nobody else gets the port while the server is stopped, either.
"""

from __future__ import annotations

import contextlib
import functools
import http
import http.client
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import yaml

from kubectl_mesh.kube.config import Connection
from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.sources.session import ClusterOptions, Session

from . import agent, build
from .network import Host
from .processes import Processes, frozen

ADMIN = "admin"
CRD = "CustomResourceDefinition"
USERS = ("alice", "bob", "carol", "nobody")
"""Users who may do nothing until they are granted it; no test grants `nobody` anything."""


class ApiServer:
    """An API server with an etcd of its own. Starts when entered, is gone when left.

    `crds=False` leaves the resource definitions of Istio and of the Gateway API out. `processes`
    and `node` put it into a mesh. Raises NotBuilt when a program that it needs is missing,
    StartError when one does not start.
    """

    def __init__(
        self, *, crds: bool = True, processes: Processes | None = None, node: Host | None = None
    ) -> None:
        self._crds = crds
        self._shared = processes
        self._node = node
        self._resources: dict[tuple[str, str], dict[str, Any]] = {}
        self._programs = {name: build.binary(name) for name in ("etcd", "kube-apiserver")}
        self._definitions = _definitions()
        self._kubectl = build.kubectl()
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> ApiServer:
        with contextlib.ExitStack() as exits:
            self._processes = self._shared or exits.enter_context(Processes())
            reserved = exits.enter_context(socket.socket())
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(("127.0.0.1", 0))
            self._port: int = reserved.getsockname()[1]
            if self._node:
                self._start_relay(reserved, self._node)
            self._write_users()
            self._start_etcd()
            self._start()
            if self._crds:
                self.install_crds()
            self._exit = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of the administrator, who may do everything."""
        return self.user(ADMIN)

    def user(self, name: str) -> Path:
        """A kubeconfig of `admin` or one of USERS; its context's namespace is not set."""
        if name not in (ADMIN, *USERS):
            raise ValueError(f"no user {name!r}: there are {', '.join((ADMIN, *USERS))}")
        return self._processes.folder / f"{name}.kubeconfig"

    def environment(self, user: str = ADMIN) -> dict[str, str]:
        """The environment for a program that is to use this server: ours, with its KUBECONFIG.

        kubectl's discovery cache goes to the scratch folder. The commands of this Python's
        environment and of the build come first on PATH.
        """
        built = (str(part.path.parent) for part in build.PARTS.values())
        commands = dict.fromkeys((sysconfig.get_path("scripts"), *built))
        return {
            **os.environ,
            "KUBECONFIG": str(self.user(user)),
            "KUBECACHEDIR": str(self._processes.folder / "kubectl-cache"),
            "PATH": os.pathsep.join([*commands, os.environ.get("PATH", os.defpath)]),
        }

    def kubectl(
        self, *args: str, input: str | None = None, user: str = ADMIN, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl. With `check`, raises RuntimeError with what it printed if it fails."""
        done = subprocess.run(
            [self._kubectl, *args],
            env=self.environment(user),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr or done.stdout}")
        return done

    def apply(self, *manifests: str | Mapping[str, Any]) -> None:
        """Applies YAML documents or objects, one after the other, on the server's side.

        Like `kubectl apply --server-side --force-conflicts`, without kubectl's half a second. An
        object without a namespace goes to `default`. Raises RuntimeError.
        """
        for item in objects(*manifests):
            self.request(
                "PATCH",
                f"{self.path(item)}?fieldManager=realmesh&force=true",
                item,
                content_type="application/apply-patch+yaml",
            )

    def create(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Creates objects with fields that are not ours, several at once. Raises RuntimeError."""

        def post(item: Mapping[str, Any]) -> None:
            folder = self.path(item).rpartition("/")[0]
            self.request("POST", f"{folder}?fieldManager=administrator", item)

        in_parallel([partial(post, item) for item in items], 8)

    def delete(self, *manifests: str | Mapping[str, Any]) -> None:
        """Deletes the objects of these manifests, one after the other, without grace."""
        for item in objects(*manifests):
            self.request("DELETE", f"{self.path(item)}?gracePeriodSeconds=0")

    def patch(self, path: str, operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Applies a JSON Patch as the administrator. Raises RuntimeError as `request` does."""
        return self.request("PATCH", path, operations, content_type="application/json-patch+json")

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Asks the server as the administrator. Raises RuntimeError unless the status is 2xx."""
        connection = self._connection
        answer = connection.pool.request(
            method,
            self.url + path,
            headers={**dict(connection.headers()), "Content-Type": content_type},
            body=None if body is None else json.dumps(body),
        )
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data.decode()}")
        return cast(dict[str, Any], json.loads(answer.data))

    def path(self, item: Mapping[str, Any]) -> str:
        """The path of an object on the server. Raises RuntimeError if it knows no such kind."""
        version, kind, metadata = item["apiVersion"], item["kind"], item["metadata"]
        if (version, kind) not in self._resources:
            found = {each["kind"]: each for each in self.resources(version)}
            if kind not in found:
                raise RuntimeError(f"the server has no kind {kind} in {version}")
            self._resources[version, kind] = found[kind]
        resource = self._resources[version, kind]
        where = ""
        if resource["namespaced"]:
            where = f"/namespaces/{metadata.get('namespace', 'default')}"
        return f"{group_path(version)}{where}/{resource['name']}/{metadata['name']}"

    def resources(self, version: str) -> list[dict[str, Any]]:
        """What the server's discovery says of the kinds of an apiVersion."""
        found = self.request("GET", group_path(version))["resources"]
        return [resource for resource in found if "/" not in resource["name"]]

    def grant(self, user: str, *resources: str, namespace: str | None = None) -> None:
        """Lets the user get and list the resources, in one namespace or in all.

        A resource is written as for `kubectl create role`: `pods`,
        `virtualservices.networking.istio.io`. Returns once RBAC has taken notice.
        """
        verbs = ("get", "list")
        kind = "role" if namespace else "clusterrole"
        where = ["--namespace", namespace] if namespace else []
        role = f"{user}-{secrets.token_hex(4)}"
        rules = [f"--verb={','.join(verbs)}", f"--resource={','.join(resources)}"]
        self.kubectl("create", kind, role, *rules, *where)
        self.kubectl("create", f"{kind}binding", role, f"--{kind}={role}", f"--user={user}", *where)
        scope = where or ["--all-namespaces"]

        def noticed() -> bool:
            return all(
                self.kubectl("auth", "can-i", verb, resource, *scope, user=user, check=False).stdout
                == "yes\n"
                for verb in verbs
                for resource in resources
            )

        self._processes.wait("kube-apiserver", self._apiserver, noticed)

    def install_crds(self, *, without: Collection[str] = ()) -> None:
        """Installs the resource definitions of Istio and of the Gateway API.

        Those of the plural names in `without` are left out.
        """
        texts = [file.read_text() for file in self._definitions]
        definitions = [each for each in objects(*texts) if each["kind"] == CRD]
        chosen = [crd for crd in definitions if crd["spec"]["names"]["plural"] not in without]
        self.create(chosen)
        self._processes.wait(
            "kube-apiserver", self._apiserver, lambda: all(map(self._is_established, chosen))
        )

    def _is_established(self, crd: Mapping[str, Any]) -> bool:
        status = self.request("GET", self.path(crd)).get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        return conditions.get("Established") == "True"

    def start(self) -> None:
        """Starts the API server again, on the same data, port and certificates.

        Raises RuntimeError if it runs.
        """
        if self._apiserver.poll() is None:
            raise RuntimeError("the API server runs already")
        self._start()

    def _start(self) -> None:
        key = self.certificates / "apiserver.key"  # the server makes it when it first starts
        program: list[str | Path] = [self._programs["kube-apiserver"]]
        self._apiserver = self._processes.start(
            "kube-apiserver",
            *(self._node.command(*program) if self._node else program),
            "--etcd-servers=unix://etcd:2379",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--request-timeout=20s",  # so long a stop waits for those who watch; default: 60s
            "--permit-port-sharing",  # with the socket that reserves the port
            "--advertise-address=192.0.2.1",  # nobody's; without one it looks for a default route
            f"--cert-dir={self.certificates}",
            f"--token-auth-file={self._processes.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",  # its controller is not there
        )
        self._processes.wait("kube-apiserver", self._apiserver, self._is_ready)

    @functools.cached_property
    def _connection(self) -> Connection:
        return Session(ClusterOptions(kubeconfig=str(self.kubeconfig))).client.connection

    def stop(self) -> None:
        """Stops the API server as its operator would; its data stay."""
        self._apiserver.terminate()
        self._apiserver.wait()

    def kill(self) -> None:
        """Ends the API server as a crash would, in the middle of whatever it does."""
        self._apiserver.kill()
        self._apiserver.wait()

    def frozen(self) -> AbstractContextManager[None]:
        """While entered, the API server takes connections and answers nothing."""
        return frozen(self._apiserver)

    @property
    def certificates(self) -> Path:
        """The folder of the server's own certificate and key, `apiserver.crt` and `.key`."""
        return self._processes.folder / "certificates"

    @property
    def _authority(self) -> Path:
        """The certificate that signed the server's own; the server makes both."""
        return self.certificates / "apiserver.crt"

    def _start_etcd(self) -> None:
        # A URL needs a port, even where it is only part of the name of a socket in the folder.
        client, peer = "etcd:2379", "etcd:2380"
        etcd = self._processes.start(
            "etcd",
            self._programs["etcd"],
            "--data-dir=etcd-data",
            f"--listen-client-urls=unix://{client}",
            f"--advertise-client-urls=unix://{client}",
            f"--listen-peer-urls=unix://{peer}",
            f"--initial-advertise-peer-urls=unix://{peer}",
            f"--initial-cluster=default=unix://{peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self._processes.wait("etcd", etcd, (self._processes.folder / client).exists)

    def _start_relay(self, listener: socket.socket, node: Host) -> None:
        listener.listen(128)
        fd = listener.fileno()
        arguments = ("relay", str(fd), node.agent, str(self._port))
        self._processes.start("relay", sys.executable, agent.__file__, *arguments, inherit=[fd])

    def _write_users(self) -> None:
        tokens = [f"{_token(ADMIN)},{ADMIN},{ADMIN},system:masters"]
        tokens += [f"{_token(name)},{name},{name}" for name in USERS]
        (self._processes.folder / "tokens.csv").write_text("\n".join(tokens) + "\n")
        cluster = {"server": self.url, "certificate-authority": str(self._authority)}
        for name in (ADMIN, *USERS):
            kubeconfig = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": name, "user": {"token": _token(name)}}],
            }
            self.user(name).write_text(json.dumps(kubeconfig, indent=2))

    def _is_ready(self) -> bool:
        # The server says it is ready a moment before it has made the namespace `default`.
        return self._answers("/readyz") and self._answers("/api/v1/namespaces/default")

    def _answers(self, path: str) -> bool:
        try:
            authorization = {"Authorization": f"Bearer {_token(ADMIN)}"}
            trusted = ssl.create_default_context(cafile=self._authority)
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=trusted)
            with contextlib.closing(connection):
                connection.request("GET", path, headers=authorization)
                return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def group_path(version: str) -> str:
    """The path of an apiVersion on any API server."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def objects(*manifests: str | Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects in YAML texts, in Lists, and those that are objects already.

    Raises ValueError for what is no object, yaml.YAMLError for what is no YAML.
    """
    for manifest in manifests:
        if isinstance(manifest, str):
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            for item in filter(None, yaml.load_all(manifest, Loader=loader)):
                if isinstance(item, str):
                    raise ValueError(f"not an object: {item!r}")
                yield from objects(item)
        elif not isinstance(manifest, Mapping):
            raise ValueError(f"not an object: {manifest!r}")
        elif manifest.get("kind") == "List":
            yield from objects(*manifest.get("items") or ())
        elif not all(isinstance(manifest.get(key), str) for key in ("apiVersion", "kind")):
            raise ValueError(f"an object without apiVersion or kind: {manifest!r}")
        elif not (manifest.get("metadata") or {}).get("name"):
            raise ValueError(f"an object without metadata.name: {manifest!r}")
        else:
            yield manifest


def _token(user: str) -> str:
    return f"token-of-{user}"


def _definitions() -> list[Path]:
    """The manifests of resource definitions that a cluster with this Istio has. Raises NotBuilt."""
    found = [build.istio_crds()]
    if build.istio_release() == build.NEWEST:  # the other knows no Gateway API of today
        found += sorted(build.gateway_api_crds().glob("*.yaml"))
    return found
