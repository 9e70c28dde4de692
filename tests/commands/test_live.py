"""Commands on a cluster: what they say and do is that of the whole objects, as on files."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_mesh.changes.patch import content
from kubectl_mesh.commands import fix
from kubectl_mesh.fixing import cure as module
from kubectl_mesh.mesh.schema import KINDS
from tests.commands.test_fix import BEHIND, Run, run
from tests.kube.fake import Answer, FakeApiServer, Request
from tests.sources.test_cluster import settings, thing

__all__ = ["run"]

RULE = {
    "name": "api",
    "match": [{"uri": {"prefix": "/api"}, "statPrefix": "api", "new": {"in": ["a", "match"]}}],
    "route": [{"destination": {"host": "web", "new": 1}, "weight": 100, "new": {"of": "a route"}}],
    "timeout": "3s",
    "retries": {"attempts": 2, "backoff": "1s", "retryIgnorePreviousHosts": False},
    "mirror": {"host": "web"},
    "mirror_percent": 7,
    "new": [{"nobody": "knows"}],
}
"""A rule with fields that the model does not know, old, new and to come, at every level."""


class Live:
    """A cluster with some objects, and our commands on it."""

    def __init__(self, fake: FakeApiServer, run: Run, folder: Path) -> None:
        self._fake = fake
        self._run = run
        self._kubeconfig = fake.kubeconfig(folder, token="t")
        self.folder = folder
        self.add(settings(), thing("Namespace", "shop", None))

    def add(self, *objects: dict[str, Any]) -> None:
        """Adds objects as an API server gives them; each is a second younger than those before."""
        for each in objects:
            number = len(self._fake.objects)
            metadata = {
                **each["metadata"],
                "uid": f"uid-{number}",
                "resourceVersion": str(number),
                "creationTimestamp": f"2024-01-01T00:00:{number:02}Z",
                "managedFields": [{"manager": "kubectl"}],
            }
            self._fake.objects.append(
                {"apiVersion": version(each["kind"]), **each, "metadata": metadata}
            )

    @property
    def objects(self) -> list[dict[str, Any]]:
        return self._fake.objects

    def change_after_the_list(self, name: str, path: tuple[str | int, ...], value: object) -> None:
        """Somebody changes a field of an object right after it was listed."""
        told = self._fake.answer

        def answer(request: Request) -> Answer:
            found = copy.deepcopy(told(request))
            if request.path.endswith(f"/{KINDS['VirtualService'].plural}"):
                place: Any = next(each for each in self.objects if each["metadata"]["name"] == name)
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = value
            return found

        self._fake.answer = answer  # type: ignore[method-assign]

    def serve_rollouts(self) -> None:
        self._fake.versions["argoproj.io"] = ["v1alpha1"]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        return self._run(*arguments, "--kubeconfig", self._kubeconfig)


def version(kind: str) -> str:
    core = {"Service", "Namespace", "ConfigMap", "Pod"}
    apps = {"Deployment": "apps/v1", "Rollout": "argoproj.io/v1alpha1"}
    return "v1" if kind in core else apps.get(kind, "networking.istio.io/v1beta1")


@pytest.fixture
def live(run: Run, tmp_path: Path) -> Iterator[Live]:
    with FakeApiServer() as fake:
        found = Live(fake, run, tmp_path)
        found.add(
            thing(
                "Service",
                "web",
                spec={
                    "type": "ClusterIP",
                    "clusterIP": "10.96.0.7",
                    "selector": {"app": "web"},
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}],
                },
            )
        )
        yield found


def virtual_service(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return thing("VirtualService", name, spec={"hosts": ["web"], **spec, "http": list(rules)})


def test_a_merge_keeps_every_field_of_a_rule(live: Live) -> None:
    other = {"name": "rest", "route": [{"destination": {"host": "web"}}]}
    live.add(virtual_service("old", other), virtual_service("young", RULE))
    status, out, err = live("merge-vs", "old", "young", "-n", "shop", "-o", "yaml")
    assert status == 1, err
    (merged,) = yaml.safe_load_all(out)
    assert merged["spec"]["http"] == [RULE, other]


def test_a_repair_copies_every_field_of_a_setting(live: Live) -> None:
    live.add(
        thing(
            "Gateway",
            "front",
            spec={
                "selector": {"istio": "ingressgateway"},
                "servers": [
                    {
                        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
                        "hosts": ["shop.com"],
                    }
                ],
            },
        ),
        virtual_service("inside", {key: RULE[key] for key in ("route", "timeout", "retries")}),
        virtual_service(
            "outside",
            {"route": [{"destination": {"host": "web"}}]},
            hosts=["shop.com"],
            gateways=["front"],
        ),
    )
    status, out, err = live("fix", "KM202", "--all-rules", "-n", "shop", "-o", "yaml")
    assert status == 1, err
    (changed,) = yaml.safe_load_all(out)
    assert changed["spec"]["http"][0]["retries"] == RULE["retries"]


def test_nothing_is_copied_of_an_object_with_fields_of_a_wrong_type(live: Live) -> None:
    broken = {**RULE, "retries": {"attempts": "2", "backoff": "1s"}}
    live.add(
        virtual_service("old", {"route": [{"destination": {"host": "web"}}]}),
        virtual_service("young", broken),
    )
    status, _, err = live("merge-vs", "old", "young", "-n", "shop")
    assert status == 3
    assert "VirtualService shop/young has fields of a wrong type" in err


def test_an_object_that_changes_while_it_is_looked_at(live: Live) -> None:
    """What was copied of it, and is lost with it, is not what it is now."""
    live.add(
        virtual_service("old", {"route": [{"destination": {"host": "web"}}]}),
        virtual_service("young", RULE),
    )
    live.change_after_the_list("young", ("spec", "http", 0, "new"), "else")
    status, out, err = live("merge-vs", "old", "young", "-n", "shop")
    assert (status, out) == (3, "")
    assert "VirtualService shop/young was changed while the cluster was looked at" in err


@pytest.mark.parametrize("name", ["young", "young.shop"])
def test_a_virtual_service_of_a_rollout_is_left_apart(live: Live, name: str) -> None:
    live.serve_rollouts()
    istio = {"virtualService": {"name": name}}
    strategy = {"canary": {"trafficRouting": {"istio": istio}, "steps": [{"setWeight": 5}]}}
    live.add(
        thing("Rollout", "web", spec={"strategy": strategy}),
        virtual_service("old", {"route": [{"destination": {"host": "web"}}]}),
        virtual_service("young", RULE),
    )
    status, _, err = live("merge-vs", "old", "young", "-n", "shop")
    assert status == 3
    assert "Rollout shop/web sets the weights of VirtualService shop/young" in err


@pytest.mark.parametrize("kind", ["VirtualService", "DestinationRule", "Gateway", "Service"])
def test_a_manifest_equal_to_the_live_object_differs_in_nothing(live: Live, kind: str) -> None:
    live.add(*SEVERAL)
    written = [content(each) for each in live.objects if each["kind"] == kind]
    for each in written:
        each["metadata"]["labels"] = {"added": "by the manifest"}
        each["metadata"].pop("managedFields", None)
    file = live.folder / "it.yaml"
    file.write_text(yaml.safe_dump_all(written))
    status, out, err = live("compare", "-f", str(file))
    assert (status, err) == (0, "")
    assert "the same for every request" in out


def pod(name: str, **labels: str) -> dict[str, Any]:
    containers = [{"name": "web"}, {"name": "istio-proxy"}]
    return thing("Pod", name, metadata={"labels": labels}, spec={"containers": containers})


SEVERAL = (
    pod("web", app="web", version="v1"),
    pod("front", istio="ingressgateway"),
    virtual_service("web", RULE),
    thing(
        "DestinationRule",
        "web",
        spec={
            "host": "web",
            "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}, "new": {}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}, "new": 1}],
            "new": 1,
        },
    ),
    thing(
        "Gateway",
        "front",
        spec={
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {
                    "port": {"number": 443, "name": "https", "protocol": "HTTPS", "targetPort": 1},
                    "hosts": ["shop.com"],
                    "tls": {"mode": "SIMPLE", "credentialName": "shop", "new": 1},
                }
            ],
        },
    ),
)


@pytest.mark.parametrize(("rounds", "expected"), [(1, 1), (9, 0)])
def test_what_is_deferred_is_left_to_repair(
    live: Live, monkeypatch: pytest.MonkeyPatch, rounds: int, expected: int
) -> None:
    for each in yaml.safe_load_all(BEHIND):
        del each["apiVersion"]
        live.add({**each, "metadata": {**each["metadata"], "namespace": "shop"}})
    monkeypatch.setattr(module, "MAX_ROUNDS", rounds)
    monkeypatch.setattr(fix, "apply", lambda *_: None)
    status, out, err = live("fix", "-n", "shop", "--apply", "--yes")
    assert (status, err) == (expected, "")
    assert ("DEFERRED: run fix again" in out) == (expected == 1)
