"""istiod's own view: which proxies it serves, what they have acknowledged, what it has read.

Its debug pages answer on port 15014, to callers on its own machine alone: they are reached through
`kubectl port-forward`, or at an address that the user gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from kubectl_mesh.errors import ClusterError, MeshError
from kubectl_mesh.kube.http import Client
from kubectl_mesh.kube.kubeconfig import ClusterOptions

PORT = 15014
_ISTIO = ".istio.io"
_REVISION = "istio.io/rev"
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_LONGEST = 15.0
"""Seconds that a page may take."""
_LARGEST = 256 * 1024 * 1024
"""Bytes of one."""
_PARTS = ("cluster", "listener", "route")
_ENDPOINT = "endpoint"
"""Is sent for every pod that comes and goes, whatever else changes."""
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> ")


class Unreachable(MeshError):
    """istiod's debug pages cannot be read, and why."""


@dataclass(frozen=True)
class Proxy:
    """What istiod says of a proxy: the marks of the clusters, listeners and routes that it was last
    sent, and whether it has acknowledged all, endpoints too.
    """

    sent: tuple[str, ...]
    in_sync: bool


class Istiod:
    """One istiod, of a revision (None: not known). `proxies` and `versions` raise Unreachable."""

    def __init__(self, url: str, revision: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.revision = revision
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)

    def proxies(self) -> dict[str, Proxy]:
        """The proxies that it serves, by name and namespace: web-7d4b.shop."""
        found = self._list("syncz")
        if not all(isinstance(each.get("proxy"), str) and "cluster_sent" in each for each in found):
            raise Unreachable(f"istiod at {self.url} tells of proxies in a way that is not known")
        return {each["proxy"]: _proxy(each) for each in found}

    def versions(self) -> dict[tuple[str, str, str], str]:
        """The resourceVersions of Istio's objects that it has read, by kind, namespace and name."""
        found: dict[tuple[str, str, str], str] = {}
        for each in self._list("configz"):
            metadata = each.get("metadata")
            if not isinstance(metadata, dict):
                raise Unreachable(f"istiod at {self.url} tells of objects without metadata")
            group = str(each.get("apiVersion") or _ISTIO).partition("/")[0]
            if not group.endswith(_ISTIO):
                continue  # another group may have kinds and objects of the same names
            where = str(metadata.get("namespace") or "")
            key = (str(each.get("kind")), where, str(metadata.get("name")))
            found[key] = str(metadata.get("resourceVersion") or "")
        return found

    def reads(self, revision: str | None) -> bool:
        """Whether it reads Istio's objects that have the label istio.io/rev; None: those without.

        As LabelsInRevision of istiod: an object without the label is for every revision.
        """
        return None in (revision, self.revision) or revision == self.revision

    def _list(self, page: str) -> list[dict[str, Any]]:
        url = f"{self.url}/debug/{page}"
        try:
            status, data = self._get(url)
            found = json.loads(data) if status == 200 else None
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
            raise Unreachable(f"istiod at {url} does not answer: {error}") from error
        if status != 200:
            raise Unreachable(f"istiod at {url} answers with {status}")
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Unreachable(f"istiod at {url} answers with something else than a list")
        return found

    def _get(self, url: str) -> tuple[int, bytes]:
        deadline = time.monotonic() + _LONGEST
        response = self._pool.request("GET", url, preload_content=False)
        data = bytearray()
        try:
            for piece in response.stream(64 * 1024):
                data += piece
                if time.monotonic() > deadline or len(data) > _LARGEST:
                    raise OSError(f"more than {_LONGEST:g} s, or {_LARGEST >> 20} MiB")
        finally:
            response.close()
        return response.status, bytes(data)


def _proxy(state: Mapping[str, Any]) -> Proxy:
    sent = tuple(str(state.get(f"{part}_sent") or "") for part in _PARTS)
    return Proxy(
        sent,
        all(
            state.get(f"{part}_sent") == state.get(f"{part}_acked") for part in (*_PARTS, _ENDPOINT)
        ),
    )


@contextlib.contextmanager
def forwarded(
    client: Client, options: ClusterOptions, namespace: str
) -> Iterator[Sequence[Istiod]]:
    """All istiods of a cluster, through `kubectl port-forward`, while it is entered.

    Raises Unreachable where there is none, or one of them cannot be reached.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    try:
        pods = client.items(path, lambda pod: pod, {"labelSelector": "app=istiod"})
    except ClusterError as error:
        raise Unreachable(f"the pods of istiod cannot be listed: {error}") from error
    running = [
        pod["metadata"] for pod in pods if (pod.get("status") or {}).get("phase") == "Running"
    ]
    if not running:
        raise Unreachable(f"no pod of istiod (app=istiod) runs in namespace {namespace}")
    with contextlib.ExitStack() as exits:
        yield [
            Istiod(
                exits.enter_context(_forward(options, namespace, str(pod["name"]))),
                (pod.get("labels") or {}).get(_REVISION),
            )
            for pod in running
        ]


@contextlib.contextmanager
def _forward(options: ClusterOptions, namespace: str, pod: str) -> Iterator[str]:
    kubectl = os.environ.get("KUBECTL_PATH") or "kubectl"  # kubectl 1.37 tells its plugins
    command = [kubectl, "port-forward", f"pod/{pod}", f":{PORT}", "-n", namespace]
    command += ["--address", "127.0.0.1", *_flags(options)]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise Unreachable(f"kubectl cannot be run: {error.strerror}") from error
    try:
        assert process.stdout
        found = _FORWARDING.search(process.stdout.readline())
        if not found:
            process.kill()
            _, said = process.communicate()
            raise Unreachable(f"kubectl port-forward to {pod} failed: {' '.join(said.split())}")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.communicate()


def _flags(options: ClusterOptions) -> Iterator[str]:
    for flag, value in (
        ("kubeconfig", options.kubeconfig),
        ("context", options.context),
        ("cluster", options.cluster),
        ("user", options.user),
        ("server", options.server),
        ("token", options.token),
        ("as", options.as_user),
        ("as-uid", options.as_uid),
        ("tls-server-name", options.tls_server_name),
    ):
        if value:
            yield f"--{flag}={value}"
    yield from (f"--as-group={group}" for group in options.as_groups)
    if options.insecure_skip_tls_verify:
        yield "--insecure-skip-tls-verify"
