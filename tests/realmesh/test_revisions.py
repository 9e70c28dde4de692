"""Two revisions of Istio in one cluster: `apply` waits for the proxies of both.

Their istiods are found as in a cluster, by their pods; as there is no kubelet here, what stands in
for `kubectl port-forward` names a port of this host that leads to each one's debug pages.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_mesh.cli import main
from kubectl_mesh.sources.cluster import load
from kubectl_mesh.sources.session import ClusterOptions, Session

from .apiserver import ApiServer
from .client import PATIENCE
from .debug_pages import debug_pages
from .envoy import Proxy
from .istiod import Istiod
from .manifests import destination_rule, subset, to, virtual_service
from .mesh import ROOT_NAMESPACE, Mesh

CANARY = "canary"
_PORT_FORWARD = """\
#!{python}
import json, sys, time
ports = json.load(open({ports!r}))
_, pod, port = sys.argv[1:4]
print(f"Forwarding from 127.0.0.1:{{ports[pod]}} -> {{port.strip(':')}}", flush=True)
time.sleep(3600)
"""


def _pod(istiod: Istiod) -> dict[str, Any]:
    labels = {"app": "istiod", "istio.io/rev": istiod.revision}
    metadata = {"name": istiod.name, "namespace": ROOT_NAMESPACE, "labels": labels}
    spec = {"containers": [{"name": "discovery", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class Shop:
    """A Service of two versions, and a client of each revision."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self.mesh = mesh
        self.canary = mesh.revision(CANARY)
        mesh.service("web", ports={"http": 5000}, pods={"v1": 1, "v2": 1})
        self.old = mesh.sidecar("default")
        self.new = mesh.sidecar("elsewhere", istiod=self.canary)
        self._folder = folder
        for istiod in (mesh.istiod, self.canary):
            pod = _pod(istiod)
            mesh.apply(pod)
            mesh.server.request(
                "PATCH",
                f"{mesh.server.path(pod)}/status",
                {"status": {"phase": "Running"}},
                content_type="application/merge-patch+json",
            )

    def apply(self, *objects: dict[str, Any]) -> int:
        file = self._folder / "it.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return main(
            [
                *("apply", "-f", str(file), "--yes", "--wait-for", "proxies", "--timeout", "60s"),
                *("--kubeconfig", str(self.mesh.server.kubeconfig)),
                *("--journal", str(self._folder / "journal")),
            ]
        )


@pytest.fixture
def shop(
    new_mesh: Callable[..., Mesh], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    mesh = new_mesh()
    found = Shop(mesh, tmp_path)
    with contextlib.ExitStack() as exits:
        urls = {
            f"pod/{istiod.name}": exits.enter_context(debug_pages(istiod))
            for istiod in (mesh.istiod, found.canary)
        }
        ports = tmp_path / "ports.json"
        ports.write_text(json.dumps({pod: url.rpartition(":")[2] for pod, url in urls.items()}))
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(_PORT_FORWARD.format(python=sys.executable, ports=str(ports)))
        kubectl.chmod(0o755)
        monkeypatch.setenv("KUBECTL_PATH", str(kubectl))
        yield found


def test_a_revision_tag_of_a_webhook(apiserver: ApiServer, namespace: str) -> None:
    """As before 1.28, where a tag has no Service."""
    container = {"name": "discovery", "image": "istio/pilot:1.27.1"}
    labels = {"app": "istiod", "istio.io/rev": "1-27"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    istiod = {"name": "istiod-1-27", "namespace": namespace, "labels": labels}
    webhook = {"name": "istio-revision-tag-prod"}
    webhook["labels"] = {"istio.io/tag": "prod", "istio.io/rev": "1-27"}
    named = {"istio.io/rev": "prod"}
    made = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": istiod,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": webhook,
        },
    ]
    for each in made:
        apiserver.apply(each)
    path = f"/api/v1/namespaces/{namespace}"
    change = {"metadata": {"labels": named}}
    apiserver.request("PATCH", path, change, content_type="application/merge-patch+json")
    session = Session(ClusterOptions(kubeconfig=str(apiserver.kubeconfig)))
    try:
        config = load(session, ["Namespace"], [namespace]).config
    finally:
        for each in made:
            apiserver.delete(each)
    assert (config.revision, config.notes) == ("1-27", ())


def objects(version: str, **labels: str) -> list[dict[str, Any]]:
    """A subset, and the route to it."""
    found = [
        virtual_service("web", "web", to("web", subset=version)),
        destination_rule("web", "web", subset(version, version=version)),
    ]
    for each in found:
        each["metadata"]["labels"] = labels
    return found


def version(proxy: Proxy, host: str) -> str | None:
    return proxy.request("GET", host).version


def test_the_proxies_of_both_are_waited_for(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """The VirtualService comes only once the slow proxy of the other revision has the subset."""
    assert shop.apply(*objects("v1")) == 0
    assert "all 2 proxies have it" in capsys.readouterr().out
    with contextlib.ExitStack() as exits:
        exits.enter_context(shop.mesh.held_back(shop.new))
        timer = threading.Timer(3, exits.close)
        timer.start()
        with shop.mesh.load(shop.new, "web.default:5000") as load:
            load.more(10)
            assert shop.apply(*objects("v2")) == 0
            load.more(10)
        timer.join()
    assert {status for status, _ in load.counts} == {200}
    assert "client-" in capsys.readouterr().out
    assert (version(shop.old, "web:5000"), version(shop.new, "web.default:5000")) == ("v2", "v2")


def test_what_is_of_one_revision_holds_for_its_proxies_alone(shop: Shop) -> None:
    """istiod of the other one never reads it, and nobody waits for that."""
    for each in ("v1", "v2"):
        assert shop.apply(*objects(each, **{"istio.io/rev": CANARY})) == 0
        # Nothing waits for the last step of a plan: the route comes some moments later.
        deadline = time.monotonic() + PATIENCE
        while {version(shop.new, "web.default:5000") for _ in range(10)} != {each}:
            assert time.monotonic() < deadline
    assert {version(shop.old, "web:5000") for _ in range(20)} == {"v1", "v2"}
