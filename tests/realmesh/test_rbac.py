"""The roles of krew/rbac.yaml: with them everything works; with one verb less it is named."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from krew.build import ROOT
from kubectl_mesh.cli import main
from kubectl_mesh.mesh import unread
from kubectl_mesh.rules.repair import ACCEPT_MTLS_OFF

from .apiserver import ApiServer
from .client import PATIENCE
from .conftest import built
from .manifests import (
    Object,
    destination_rule,
    gateway,
    istio,
    says,
    server,
    service,
    to,
    virtual_service,
)
from .rollouts import rolled_out
from .test_doctor_live import MESH_POLICY
from .test_repairs_live import PILOT, serve

ROLES: dict[str, Object] = {
    each["metadata"]["name"]: each
    for each in yaml.safe_load_all((ROOT / "krew" / "rbac.yaml").read_text())
    if each
}
DOCTOR, FIX, APPLY, EVIDENCE = ROLES
GROUP = "rbac.authorization.k8s.io"
AT_ONCE = ("--wait-for", "delay=1ms")
HTTP: Object = {"name": "http", "port": 80}
REPAIRED = {
    "virtualservices": "KM205/bad-typo",
    "destinationrules": "KM101/bad-specific-host-hides-wildcard",
    "serviceentries": "KM303/bad-tcp-service-entry",
    "services": "KM301/bad-http-rules-depend-on-it",
    "configmaps": "KM401/bad-default-of-old-nginx",
    **dict.fromkeys(
        ("deployments", "statefulsets", "daemonsets"), "KM306/bad-replica-set-of-deployment"
    ),
}
"""The manifests of a rule of which an object of that resource is repaired."""
WORKLOADS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
APPLIED: dict[str, Object] = {
    "services": service("made", HTTP),
    "virtualservices": virtual_service("made", "made.example.com", says("made")),
    "destinationrules": destination_rule("made", "other"),
    "gateways": gateway("made", server("made.example.com")),
    "serviceentries": istio(
        "ServiceEntry",
        "made",
        hosts=["made.example.com"],
        ports=[{"number": 80, "name": "http", "protocol": "HTTP"}],
        resolution="DNS",
    ),
    "sidecars": istio("Sidecar", "made", egress=[{"hosts": ["*/*"]}]),
}
_users = itertools.count(1)

Right = tuple[str, str]
"""A verb, and the resource that it is for."""


def rights(role: str) -> list[Right]:
    return [
        (verb, resource)
        for rule in ROLES[role]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def lacking(role: Object, right: Right | None) -> Object:
    """A role without one right."""
    rules = []
    for rule in role["rules"]:
        for resource in rule["resources"]:
            verbs = [verb for verb in rule["verbs"] if (verb, resource) != right]
            if verbs:
                rules.append({**rule, "resources": [resource], "verbs": verbs})
    return {**role, "rules": rules}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApiServer]:
    """With all kinds that the doctor knows."""
    with built(ApiServer) as server:
        server.apply(MESH_POLICY)
        serve(server, "Rollout", "Canary", *unread.KINDS)
        name = "crd/meshpolicies.authentication.istio.io"
        server.kubectl("wait", "--for=condition=Established", name)
        server.apply(namespaced("v1", "Namespace", "istio-system"))
        yield server


@contextlib.contextmanager
def istiod(server: ApiServer) -> Iterator[None]:
    """While entered, there is a pod of istiod, which nothing runs."""
    pod = namespaced("v1", "Pod", "istiod", "istio-system", labels={"app": "istiod"})
    pod["spec"] = {"nodeName": "node", "containers": [{"name": "discovery", "image": "none"}]}
    server.apply(pod)
    server.request(
        "PATCH",
        f"{server.path(pod)}/status",
        {"status": {"phase": "Running"}},
        content_type="application/merge-patch+json",
    )
    try:
        yield
    finally:
        server.kubectl("delete", "pod/istiod", "-n", "istio-system", "--force", "--grace-period=0")


def namespaced(version: str, kind: str, name: str, namespace: str = "", **more: Any) -> Object:
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **where, **more}}


class User:
    """Somebody who is given some roles, of which the last may lack a right."""

    def __init__(
        self,
        cluster: ApiServer,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        *roles: str,
        missing: Right | None = None,
    ) -> None:
        number = next(_users)
        self.name, self.namespace = f"user-{number}", f"rbac-{number}"
        self._cluster = cluster
        self._folder = folder
        self._capsys = capsys
        injected = {"istio-injection": "enabled"}
        cluster.apply(namespaced("v1", "Namespace", self.namespace, labels=injected))
        for role in roles:
            self._grant(lacking(ROLES[role], missing if role == roles[-1] else None))
        deadline = time.monotonic() + PATIENCE
        while not self._is_known():
            assert time.monotonic() < deadline, "RBAC takes no notice of the roles"
            time.sleep(0.05)

    def _grant(self, role: Object) -> None:
        name = f"{role['metadata']['name']}-{self.name}"
        role = {**role, "metadata": {**role["metadata"], "name": name}}
        where = role["metadata"].get("namespace", "")
        binding = namespaced(f"{GROUP}/v1", f"{role['kind']}Binding", name, where)
        binding["roleRef"] = {"apiGroup": GROUP, "kind": role["kind"], "name": name}
        binding["subjects"] = [{"apiGroup": GROUP, "kind": "User", "name": self.name}]
        self._cluster.apply(role, binding)
        self._last = role["rules"][-1]

    def _is_known(self) -> bool:
        """Whether RBAC has taken notice."""
        plural, _, part = self._last["resources"][0].partition("/")
        resource = f"{plural}.{self._last['apiGroups'][0]}".rstrip(".")
        asked = [self._last["verbs"][-1], resource, f"--subresource={part}", "-n", "istio-system"]
        said = self._cluster.kubectl("auth", "can-i", *asked, "--as", self.name, check=False)
        return said.stdout == "yes\n"

    def run(self, *arguments: str) -> str:
        """What a command says to the user."""
        flags = ("--as", self.name, "--kubeconfig", str(self._cluster.kubeconfig))
        self._capsys.readouterr()
        main([*arguments, *flags])
        out, err = self._capsys.readouterr()
        return out + err

    def change(self, *arguments: str) -> str:
        return self.run(*arguments, "--yes", "--journal", str(self._folder / "journal"))

    def file(self, *objects: Object) -> str:
        """Objects, in the user's namespace."""
        own = [
            {**each, "metadata": {**each["metadata"], "namespace": self.namespace}}
            for each in objects
        ]
        file = self._folder / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": own}))
        return str(file)

    def given(self, *objects: Object) -> None:
        """Has the administrator apply them."""
        self._cluster.kubectl("apply", "-f", self.file(*objects))

    # What the roles are for

    def examine(self) -> str:
        """The whole cluster, and one namespace, where it matters who has a sidecar."""
        self.given(*broken("configmaps", self.namespace))
        return self.run("doctor", "-A", "-o", "json") + self.run("doctor", "-n", self.namespace)

    def preview(self, resource: str) -> str:
        """What would be repaired in an object of a resource."""
        self.given(*broken(resource, self.namespace))
        return self.run("fix", "-n", self.namespace, "--unsafe")

    def repair(self, resource: str) -> str:
        """A finding that is repaired in an object of a resource, and back."""
        self.given(*broken(resource, self.namespace))
        fixed = self.change("fix", "-n", self.namespace, "--apply", "--unsafe")
        return fixed + self.change("undo")

    def turn_off(self, *, apply: bool) -> str:
        """What would turn mTLS off, which a MeshPolicy turns on; or that it does, and back."""
        text = (ROOT / "tests" / "rules" / "KM501" / "bad-mesh-policy.yaml").read_text()
        text = text.replace("namespace: data", f"namespace: {self.namespace}")
        objects = [*yaml.safe_load_all(text), PILOT]
        self._cluster.apply(*objects)
        try:
            with rolled_out(self._cluster):
                fix = ("fix", "KM501", "-A", ACCEPT_MTLS_OFF)
                if not apply:
                    return self.run(*fix)
                return self.change(*fix, "--apply") + self.change("undo")
        finally:
            for each in objects:
                place = ("-n", each["metadata"].get("namespace", "default"))
                name = f"{each['kind']}/{each['metadata']['name']}"
                self._cluster.kubectl("delete", name, *place, "--ignore-not-found", "--wait=false")

    def halves(self) -> tuple[str, ...]:
        """Two VirtualServices of one host, as merge-vs is told of them."""
        halves = [
            virtual_service(
                f"half-{number}",
                "web.example.com",
                to("web", {"uri": {"prefix": f"/{number}"}}),
                gateways=["front"],
            )
            for number in (1, 2)
        ]
        self.given(service("web", HTTP), gateway("front", server("*.example.com")), *halves)
        return "half-1", "half-2", "-n", self.namespace

    def merge(self) -> str:
        """Two VirtualServices of one host, merged and parted."""
        names = self.halves()
        merged = self.change("merge-vs", *names, "--apply", *AT_ONCE)
        return merged + self.change("undo", *AT_ONCE)

    def apply(self, resource: str) -> str:
        """An object made, changed and deleted, and the last taken back."""
        made = APPLIED[resource]
        metadata = {**made["metadata"], "labels": {"changed": "yes"}}
        said = self.change("apply", "-f", self.file(made), *AT_ONCE)
        said += self.change("apply", "-f", self.file({**made, "metadata": metadata}), *AT_ONCE)
        said += self.change("apply", "--delete", "-f", self.file(made), *AT_ONCE)
        return said + self.change("undo", *AT_ONCE)

    def wait(self) -> str:
        """Two steps, with evidence between."""
        objects = APPLIED["services"], APPLIED["virtualservices"]
        with istiod(self._cluster):
            return self.change("apply", "-f", self.file(*objects), "--wait-for", "proxies")


def broken(resource: str, namespace: str) -> Iterator[Object]:
    """The objects of REPAIRED, in one namespace."""
    text = (ROOT / "tests" / "rules" / f"{REPAIRED[resource]}.yaml").read_text()
    text = re.sub(r"(?<=namespace: )\w+|(?<=\.)(default|shop)(?=\.svc)", namespace, text)
    text = text.replace("kind: Deployment", f"kind: {WORKLOADS.get(resource, 'Deployment')}")
    for each in yaml.safe_load_all(text.replace("istio.io/v1\n", "istio.io/v1beta1\n")):
        if each and each["kind"] not in ("Namespace", "ReplicaSet"):
            yield each


def refused(said: str) -> set[str]:
    """What the server, or we for it, say that somebody may not do."""
    return set(re.findall(r"forbidden[^\n]*|cannot [a-z]+ resource[^\n]*", said))


Users = Callable[..., User]


@pytest.fixture
def user(cluster: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Users]:
    """Makes users; their objects go with them."""
    made: list[User] = []

    def make(*roles: str, missing: Right | None = None) -> User:
        made.append(User(cluster, tmp_path, capsys, *roles, missing=missing))
        return made[-1]

    yield make
    for each in made:
        kinds = "virtualservices,destinationrules,gateways.networking.istio.io,serviceentries"
        kinds += ",sidecars,services,configmaps,deployments,statefulsets,daemonsets"
        kinds += ",gateways.gateway.networking.k8s.io,httproutes"
        cluster.kubectl("delete", kinds, "--all", "--wait=false", "-n", each.namespace)


def test_the_doctor_sees_everything(user: Users) -> None:
    someone = user(DOCTOR)
    report = json.loads(someone.run("doctor", "-A", "-o", "json"))
    assert [each for each in report["skipped"] if each["failed"]] == []
    assert "No problems found" in someone.run("doctor", "-n", someone.namespace)
    assert "forbidden" not in someone.run("version")


@pytest.mark.parametrize("resource", REPAIRED)
def test_the_doctor_sees_previews_of_repairs(user: Users, resource: str) -> None:
    said = user(DOCTOR).preview(resource)
    assert not refused(said)
    assert "TO BE REPAIRED" in said, said


def test_the_doctor_sees_how_mtls_is_turned_off(user: Users) -> None:
    said = user(DOCTOR).turn_off(apply=False)
    assert not refused(said)
    assert "TO BE REPAIRED" in said, said


def test_the_doctor_sees_previews_of_merges(user: Users) -> None:
    someone = user(DOCTOR)
    said = someone.run("merge-vs", *someone.halves())
    assert not refused(said)
    assert "TO BE MERGED" in said, said


def test_what_is_not_followed_is_named_live(user: Users) -> None:
    someone = user(DOCTOR)
    version = "gateway.networking.k8s.io/v1"
    route = namespaced(version, "HTTPRoute", "way")
    route["spec"] = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
    }
    someone.given(
        service("web", HTTP),
        gateway("front", server("*.example.com")),
        namespaced(version, "Gateway", "front"),
        route,
    )
    said = " ".join(someone.run("doctor", "-n", someone.namespace).split())
    counted = "1 Gateway (front), 1 HTTPRoute (way)"
    assert f"NOT READ namespace {someone.namespace}: {counted}" in said
    assert "KM902" not in said
    url = f"http://web.{someone.namespace}/"
    said = " ".join(someone.run("route", url, "-n", someone.namespace).split())
    assert f"Not decided: HTTPRoute {someone.namespace}/way may decide on it" in said


@pytest.mark.parametrize("resource", REPAIRED)
def test_what_is_found_can_be_repaired(user: Users, resource: str) -> None:
    said = user(DOCTOR, FIX).repair(resource)
    assert not refused(said)
    assert "To undo: kubectl mesh undo" in said, said
    assert " is as it was" in said


def test_virtual_services_can_be_merged(user: Users) -> None:
    said = user(DOCTOR, FIX).merge()
    assert not refused(said)
    assert " deleted" in said, said
    assert " is as it was" in said


def test_mtls_can_be_turned_off(user: Users) -> None:
    said = user(DOCTOR, FIX).turn_off(apply=True)
    assert not refused(said)
    assert "MeshPolicy default deleted" in said, said
    assert "MeshPolicy default is as it was" in said


@pytest.mark.parametrize("resource", APPLIED)
def test_manifests_can_be_applied(user: Users, resource: str) -> None:
    said = user(DOCTOR, APPLY).apply(resource)
    assert not refused(said)
    for done in (" created", " patched", " deleted", " is as it was"):
        assert done in said, said


def test_evidence_can_be_asked_for(user: Users) -> None:
    """No kubelet answers here: it gets as far as that."""
    said = user(DOCTOR, APPLY, EVIDENCE).wait()
    assert not refused(said)
    assert "kubectl port-forward to istiod failed" in said


def lacks(role: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("right", rights(role), ids="-".join)


def named(right: Right, said: str) -> None:
    """Asserts that it is said what is missing, and no more."""
    verb, resource = right
    said = " ".join(said.replace('\\"', '"').split())
    ours = rf"needs [a-z, ]*{verb}[a-z, ]* on {resource}\b"
    assert re.search(rf'cannot {verb} resource "{resource}"|{ours}', said), said
    assert "Traceback" not in said


@lacks(DOCTOR)
def test_the_doctor_names_what_it_may_not_read(user: Users, right: Right) -> None:
    someone = user(DOCTOR, missing=right)
    verb, resource = right
    if right == ("get", "meshpolicies"):
        named(right, someone.turn_off(apply=False))
    elif verb == "get" and resource in REPAIRED:
        named(right, someone.preview(resource))
    else:
        named(right, someone.examine())


@lacks(FIX)
def test_fix_names_what_it_may_not_do(user: Users, right: Right) -> None:
    verb, resource = right
    someone = user(DOCTOR, FIX, missing=right)
    if resource == "meshpolicies":
        named(right, someone.turn_off(apply=True))
    elif verb in ("create", "delete"):
        named(right, someone.merge())
    else:
        named(right, someone.repair(resource))


@lacks(APPLY)
def test_apply_names_what_it_may_not_do(user: Users, right: Right) -> None:
    named(right, user(DOCTOR, APPLY, missing=right).apply(right[1]))


@lacks(EVIDENCE)
def test_who_may_not_ask_istiod_is_told(user: Users, right: Right) -> None:
    named(right, user(DOCTOR, APPLY, EVIDENCE, missing=right).wait())
