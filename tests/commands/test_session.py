"""What a command does once: it reads the kubeconfig, runs the credential plugin, gets an object."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh import completion
from kubectl_mesh.cli import main
from tests.commands.test_fix import GUIDELINES
from tests.kube.fake import FakeApiServer
from tests.kube.test_config import COUNTING, plugin
from tests.routing.given import (
    Object,
    destination_rule,
    gateway,
    pod,
    server,
    service,
    thing,
    to,
    virtual_service,
)

HOST = "helloworld.default.svc.cluster.local"
CHANGED = virtual_service(
    "helloworld", [HOST], {**to(HOST, subset="v1"), "timeout": "5s"}, namespace="default"
)
OBJECTS = [
    thing("v1", "Namespace", "kube-system", {}, ""),
    thing("v1", "Namespace", "default", {}, ""),
    thing("v1", "Namespace", "shop", {}, ""),
    service("helloworld", namespace="default"),
    destination_rule("helloworld", "helloworld", "v1", "v2", namespace="default"),
    gateway("myapp-gateway", server("myapp.com"), namespace="default"),
    pod("ingress-1", "istio-system", True, istio="ingress"),
    pod("hello-1", "default", True, app="helloworld", version="v1"),
    pod("hello-2", "default", True, app="helloworld", version="v2"),
    *yaml.safe_load_all(GUIDELINES.replace("metadata:\n", "metadata:\n  namespace: default\n")),
]
ROUTE, OTHER = "virtualservices/helloworld", "virtualservices/myapp"


def stored() -> Iterator[Object]:
    for number, each in enumerate(OBJECTS):
        metadata = {**each["metadata"], "uid": f"uid-{number}", "resourceVersion": str(number)}
        yield {**each, "metadata": metadata}


class Live:
    """A cluster whose user has a credential plugin, our commands, and what each of them did."""

    def __init__(self, fake: FakeApiServer, folder: Path) -> None:
        self.fake = fake
        self.kubeconfig = fake.kubeconfig(folder, exec=plugin(folder, COUNTING))
        self.manifest = folder / "changed.yaml"
        self.manifest.write_text(yaml.safe_dump(CHANGED))
        self.reads: list[str] = []
        self._runs = folder / "plugin.runs"

    def __call__(self, *arguments: str) -> int:
        self.fake.requests.clear()
        self.reads.clear()
        self._runs.unlink(missing_ok=True)
        words = [str(self.manifest) if word == "FILE" else word for word in arguments]
        return main([*words, "--kubeconfig", self.kubeconfig])

    def has_connected_once(self) -> bool:
        return (self._runs.read_text(), self.reads) == ("1", [self.kubeconfig])

    @property
    def twice(self) -> dict[str, int]:
        """What was asked for more than once: the end of the path, and how often."""
        asked = Counter((each.path, str(each.query)) for each in self.fake.requests)
        return {
            "/".join(path.split("/")[-2:]): count for (path, _), count in asked.items() if count > 1
        }


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Live]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with FakeApiServer(stored()) as fake:
        fake.versions["networking.istio.io"] = ["v1"]
        found = Live(fake, tmp_path)
        really = builtins.open

        def opened(file: Any, *arguments: Any, **more: Any) -> Any:
            if file == found.kubeconfig:
                found.reads.append(file)
            return really(file, *arguments, **more)

        monkeypatch.setattr(builtins, "open", opened)
        yield found


@pytest.mark.parametrize(
    "line",
    [
        "doctor",
        "doctor -A",
        "doctor -n default",
        "doctor --with-cluster -n default -f FILE",
        "fix -n default",
        "fix -n default -o kubectl",
        "merge-vs -A",
        "merge-vs helloworld myapp -n default",
        "merge-vs --host helloworld -n default",
        "route http://helloworld/ --from-namespace default",
        "route http://myapp.com/hello --gateway default/myapp-gateway",
        "compare -n default -f FILE",
        "apply --dry-run -f FILE",
        "version",
    ],
)
def test_what_only_reads_asks_for_nothing_twice(live: Live, line: str) -> None:
    assert live(*line.split()) in (0, 1)
    assert live.has_connected_once()
    assert live.twice == {}


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        ("fix -n default --apply --dry-run=server", {OTHER: 2}),
        ("fix -n default --apply", {OTHER: 3}),
        ("apply -f FILE", {ROUTE: 2}),
        ("apply --delete -f FILE", {ROUTE: 4}),
        ("apply --remove-subset default/helloworld/v2", {"destinationrules/helloworld": 3}),
        (
            "merge-vs helloworld myapp -n default --allow-differences --apply",
            {ROUTE: 5, OTHER: 4},
        ),
    ],
)
def test_what_changes_an_object_looks_at_it_again(
    live: Live, line: str, looks: dict[str, int]
) -> None:
    """To decide, when the server tries it, before it is made, and until what is deleted is gone.

    What is applied on the server was tried to see what would become of it; and what was made is
    looked at twice more where the proxies have to have it before something goes.
    """
    waiting = ("--wait-for", "delay=0s", "--yes")
    assert live(*line.split(), *waiting) == 0
    assert live.has_connected_once()
    assert live.twice == looks
    if "--dry-run" not in line:
        assert live("undo", *waiting) == 0
        assert live.has_connected_once()
        assert set(live.twice.values()) <= {3, 4}


def test_completion_connects_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "PATIENCE", 30.0)
    assert main(["__complete", "merge-vs", "--kubeconfig", live.kubeconfig, ""]) == 0
    assert live.has_connected_once()
    assert [each.path.rpartition("/")[2] for each in live.fake.requests] == ["virtualservices"]


def test_a_namespace_of_the_manifests_is_looked_at_once(live: Live) -> None:
    documents = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        CHANGED,
    ]
    live.manifest.write_text(yaml.safe_dump_all(documents))
    assert live("apply", "--dry-run", "-f", "FILE") == 1
    assert live.twice == {}
