"""`kubectl mesh doctor` on a real API server, from the command line to the report."""

from __future__ import annotations

import contextlib
import io
import json
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.mesh.schema import KINDS
from kubectl_mesh.rules import RULES
from kubectl_mesh.sources.cluster import OPTIONAL_KINDS
from tests.troubles.test_troubles import BAD, REPAIRED, faults, outline

from .apiserver import ADMIN, ApiServer

NOT_CREATED = {
    "2-broken-indentation.bad.yaml": "is no YAML: kubectl cannot even read it",
}
"""The manifests of tests/troubles that cannot be in a cluster, and why. All others are created."""

COMPLETED = {"2-guidelines.bad.yaml": "2-guidelines.repaired.yaml"}
"""Files that hold a part of a mesh, and where the rest of it is taken from."""

VERSIONS = {
    "networking.istio.io/v1": "networking.istio.io/v1beta1",
    "security.istio.io/v1": "security.istio.io/v1beta1",
    "extensions/v1beta1": "apps/v1",
}
"""What this API server serves instead of a version that it does not."""


class Result(NamedTuple):
    """What a run left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def findings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.report["findings"]
        return found


def run(*arguments: str) -> Result:
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        status = main(["doctor", *arguments])
    return Result(status, out.getvalue(), err.getvalue())


def doctor(server: ApiServer, *arguments: str, user: str = ADMIN) -> Result:
    """Runs the doctor on a server, for a JSON report."""
    return run("--kubeconfig", str(server.user(user)), "-o", "json", *arguments)


# The five troubles ------------------------------------------------------------------------------


class Trouble:
    """The objects of a file of tests/troubles, in namespaces that no other file has.

    `names` are those namespaces, by what the file calls them; those of `fixed` keep their names.
    """

    def __init__(self, file: Path, number: int, fixed: Sequence[str] = ()) -> None:
        self.file = file
        objects = list(_objects(file))
        if file.name in COMPLETED:
            there = {_identity(item) for item in objects}
            rest = _objects(file.with_name(COMPLETED[file.name]))
            objects += [item for item in rest if _identity(item) not in there]
        namespaces = {
            item["metadata"]["name"] if item["kind"] == "Namespace" else namespace_of(item)
            for item in objects
        }
        self.names = {
            name: name if name in fixed else f"{name}-{number}" for name in namespaces if name
        }
        named = "|".join(self.names)
        self._in_text = re.compile(rf"(?<=\.)({named})(?=\.svc\b)|^({named})(?=/)")
        moved = [_injected(self._moved(item)) for item in objects]
        declared = {item["metadata"]["name"] for item in moved if item["kind"] == "Namespace"}
        self.objects = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in self.names.values()
            if name not in declared
        ] + moved

    def _moved(self, item: dict[str, Any]) -> dict[str, Any]:
        moved: dict[str, Any] = self._renamed(item)
        metadata = moved["metadata"]
        if item["kind"] == "Namespace":
            metadata["name"] = self.names[metadata["name"]]
        elif namespace := namespace_of(item):
            metadata["namespace"] = self.names[namespace]
        if moved["apiVersion"] == "extensions/v1beta1":  # whose selector was the template's labels
            template = moved["spec"]["template"]
            moved["spec"].setdefault("selector", {"matchLabels": template["metadata"]["labels"]})
        moved["apiVersion"] = VERSIONS.get(moved["apiVersion"], moved["apiVersion"])
        return moved

    def _renamed(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._renamed(member, key) for key, member in value.items()}
        if isinstance(value, list):
            return [self._renamed(member, key) for member in value]
        if not isinstance(value, str):
            return value
        if key in ("namespace", "exportTo"):
            return self.names.get(value, value)
        return self._in_text.sub(lambda found: self.names[found[0]], value)

    def on_disk(self, folder: Path) -> list[dict[str, Any]]:
        """What the doctor finds in the same objects in a file."""
        file = folder / "objects.json"
        file.write_text(_list(self.objects))
        return run("-f", str(file), "-o", "json").findings

    def of(self, findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those findings that are on these namespaces or on objects in them."""

        def is_ours(resource: Mapping[str, str]) -> bool:
            namespaces = self.names.values()
            if resource["kind"] == "Namespace":
                return resource["name"] in namespaces
            return resource["namespace"] in namespaces

        return [found for found in findings if is_ours(found["resource"])]

    def missed(self, findings: Sequence[dict[str, Any]]) -> list[object]:
        """The faults that the file names and the findings do not."""
        serious = [
            found
            for found in findings
            if found["code"].startswith(f"KM{self.file.name[0]}")
            and found["severity"] in ("error", "warning")
        ]
        wanted = [
            [place._replace(namespace=self.names[place.namespace]) for place in places]
            for places in (faults(self.file) if self.file in BAD else [])
        ]
        return [
            places
            for places in wanted
            if not any(place.holds(found) for place in places for found in serious)
        ]


def _objects(file: Path) -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        yield from document["items"] if document["kind"] == "List" else [document]


def _identity(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["kind"], namespace_of(item), item["metadata"]["name"]


def _injected(item: dict[str, Any]) -> dict[str, Any]:
    """A Pod as Istio's injector, which is not here, would have made it; all else as it is."""
    if item["kind"] == "Pod":
        item["spec"]["containers"].append({"name": "istio-proxy", "image": "istio/proxyv2:1.22.3"})
    return item


def namespace_of(item: Mapping[str, Any]) -> str:
    """The namespace that an object is in; none for what is in none."""
    kind = KINDS.get(item["kind"])
    if kind is not None and not kind.namespaced:
        return ""
    namespace: str = item["metadata"].get("namespace", "default")
    return namespace


def _list(objects: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def create(server: ApiServer, objects: Sequence[dict[str, Any]]) -> None:
    server.create(item for item in objects if item["kind"] == "Namespace")
    rest = [item for item in objects if item["kind"] != "Namespace"]
    server.create(item for item in rest if item["kind"] in KINDS)
    others = [item for item in rest if item["kind"] not in KINDS]
    if others:
        server.apply(_list(others))


FILES = [file for file in (*BAD, *REPAIRED) if file.name not in NOT_CREATED]
TROUBLES = [
    Trouble(file, number) for number, file in enumerate(FILES) if not file.name.startswith("5-")
]
CITADEL = [
    Trouble(file, number, ["istio-system"])
    for number, file in enumerate(FILES)
    if file.name.startswith("5-")
]


@pytest.fixture(scope="module")
def live(apiserver: ApiServer) -> Result:
    """The doctor's report on all troubles but the fifth, at once."""
    create(apiserver, [item for trouble in TROUBLES for item in trouble.objects])
    return doctor(apiserver, "-A")


def summary(findings: Sequence[dict[str, Any]]) -> set[str]:
    return set(outline(list(findings)).splitlines())


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.file.name)
def test_a_trouble_live(trouble: Trouble, live: Result, tmp_path: Path) -> None:
    """What is found in a cluster is what is found in a file, to the letter."""
    found = trouble.of(live.findings)
    assert not trouble.missed(found), outline(found)
    assert summary(found) == summary(trouble.on_disk(tmp_path))


@pytest.mark.parametrize(
    "trouble",
    [trouble for trouble in TROUBLES if trouble.file in BAD],
    ids=lambda trouble: trouble.file.name,
)
@pytest.mark.usefixtures("live")
def test_a_trouble_live_in_one_namespace(trouble: Trouble, apiserver: ApiServer) -> None:
    """It is found without -A: the doctor reads what the namespace has to do with, too."""
    namespaces = {place.namespace for places in faults(trouble.file) for place in places}
    found = [
        found
        for namespace in namespaces
        for found in doctor(apiserver, "-n", trouble.names[namespace]).findings
    ]
    assert not trouble.missed(found), outline(found)


def test_headless_services_and_citadel_live(
    new_apiserver: Callable[..., ApiServer], tmp_path: Path
) -> None:
    server = new_apiserver()
    server.apply(MESH_POLICY)
    server.kubectl(
        "wait", "--for=condition=Established", "crd/meshpolicies.authentication.istio.io"
    )
    server.kubectl("create", "namespace", "istio-system")
    for trouble in CITADEL:
        create(server, [o for o in trouble.objects if o["metadata"]["name"] != "istio-system"])
        found = trouble.of(doctor(server, "-A").findings)
        assert not trouble.missed(found), outline(found)
        assert summary(found) == summary(trouble.on_disk(tmp_path)), trouble.file
        shared = [o for o in trouble.objects if namespace_of(o) in ("", "istio-system")]
        server.kubectl(
            "delete", "-f", "-", input=_list(o for o in shared if o["kind"] != "Namespace")
        )


MESH_POLICY = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: meshpolicies.authentication.istio.io}
spec:
  group: authentication.istio.io
  scope: Cluster
  names: {kind: MeshPolicy, listKind: MeshPolicyList, plural: meshpolicies, singular: meshpolicy}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
"""Of Istio 1.4 and earlier: today's Istio has none."""


# Who may read what, and what is there -----------------------------------------------------------


def service(namespace: str, port: str = "http", app: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {"selector": {"app": app}, "ports": [{"name": port, "port": 80}]},
    }


def deployment(namespace: str, version: str, app: str = "web") -> dict[str, Any]:
    labels = {"app": app, "version": version}
    container = {"name": app, "image": "example.com/web:1", "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{app}-{version}", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def destination_rule(namespace: str, *versions: str) -> dict[str, Any]:
    subsets = [{"name": version, "labels": {"version": version}} for version in versions]
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"host": "web", "subsets": subsets},
    }


def virtual_service(namespace: str, subset: str, host: str = "web") -> dict[str, Any]:
    destination = {"host": host, "subset": subset}
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": destination}]}]},
    }


@pytest.fixture
def shop(apiserver: ApiServer, namespace: str) -> str:
    """A namespace with two versions of a Service, and no rules yet."""
    apiserver.kubectl("label", "namespace", namespace, "istio-injection=enabled")
    apiserver.create([service(namespace), deployment(namespace, "v1"), deployment(namespace, "v2")])
    return namespace


def places(result: Result) -> list[tuple[str, str, str]]:
    return [
        (found["code"], "{kind} {namespace}/{name}".format(**found["resource"]), found["path"])
        for found in result.findings
    ]


SUBSET = "/spec/http/0/route/0/destination/subset"


def test_a_user_who_may_not_read_all_is_told_what_was_not_read(
    apiserver: ApiServer, shop: str
) -> None:
    readable = {
        "Service": "services",
        "Pod": "pods",
        "VirtualService": "virtualservices.networking.istio.io",
        "DestinationRule": "destinationrules.networking.istio.io",
    }
    apiserver.apply(_list([destination_rule(shop, "v1"), virtual_service(shop, "v1")]))
    apiserver.grant("alice", *readable.values(), namespace=shop)
    nothing_found = doctor(apiserver, "-n", shop, user="alice")
    apiserver.apply(_list([virtual_service(shop, "v2")]))
    found = doctor(apiserver, "-n", shop, user="alice")

    assert (nothing_found.status, places(nothing_found)) == (3, [])
    assert (found.status, places(found)) == (
        1,
        [("KM101", f"VirtualService {shop}/web", SUBSET)],
    )
    for result in (nothing_found, found):
        failed = {
            (skip["code"], skip["reason"]) for skip in result.report["skipped"] if skip["failed"]
        }
        told = "\n".join(f"{code} {reason}" for code, reason in failed)
        for rule in RULES:
            for kind in {*rule.needs, *rule.uses} - readable.keys() - OPTIONAL_KINDS:
                group, plural = KINDS[kind].group, KINDS[kind].plural
                resource = f"{plural}.{group}" if "." in group else plural
                wanted = rf'{rule.code} .*forbidden for user "alice" \(needs get\S* on {resource}\)'
                assert re.search(wanted, told), (rule.code, kind, told)
        assert re.search(
            "KM900 .*virtualservices, destinationrules, gateways.* may not be listed in all names",
            told,
        )


def test_istio_is_not_installed(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver(crds=False)
    (nginx,) = (found for found in TROUBLES if found.file.name == "4-no-directives.bad.yaml")
    (namespace,) = nginx.names.values()
    create(server, nginx.objects)
    istio = {kind.name for kind in KINDS.values() if kind.group.endswith("istio.io")}
    for flags in (["-A"], ["-n", namespace]):
        result = doctor(server, *flags)
        assert result.status == 1
        assert [found["code"] for found in result.findings] == ["KM401"]
        skipped = result.report["skipped"]
        assert all(skip["failed"] and "(is Istio installed?)" in skip["reason"] for skip in skipped)
        assert {skip["code"] for skip in skipped} >= {
            rule.code for rule in RULES if istio.intersection(rule.needs)
        }
    assert doctor(server, "-n", "default").status == 3


def test_an_api_server_that_does_not_answer(new_apiserver: Callable[..., ApiServer]) -> None:
    server = new_apiserver(crds=False)
    with server.frozen():
        silent = doctor(server, "-A", "--request-timeout", "1s")
    assert doctor(server, "-A", "--rule", "KM308").status == 0
    server.stop()
    stopped = doctor(server, "-A")
    where = f"error: the API server {server.url} (context test)"
    for result, problem in ((silent, "did not answer"), (stopped, "cannot be reached")):
        assert (result.status, result.out) == (3, "")
        assert result.err.startswith(f"{where} {problem}")
        assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--context", "nope"], "no context is called 'nope' (there are: test)"),
        (["--token", "expired"], "does not accept the credentials of user 'admin' (context test)"),
        (["--as", "nobody"], 'nothing may be listed for user "nobody" in all namespaces'),
    ],
)
def test_who_is_not_let_in_is_told_so_in_one_line(
    apiserver: ApiServer, flags: list[str], message: str
) -> None:
    result = doctor(apiserver, "-A", *flags)
    assert (result.status, result.out) == (3, "")
    assert result.err.startswith("error: ")
    assert message in result.err
    assert result.err.count("\n") == 1


# A change, before it is applied -----------------------------------------------------------------


def test_a_change_that_breaks_requests_while_it_spreads(
    apiserver: ApiServer, shop: str, tmp_path: Path
) -> None:
    def after(*change: Mapping[str, Any]) -> Result:
        file = tmp_path / "change.yaml"
        file.write_text(yaml.safe_dump_all(change))
        return doctor(apiserver, "-n", shop, "-f", str(file), "--with-cluster")

    def stored() -> str:
        kinds = "services,deployments,destinationrules,virtualservices"
        return apiserver.kubectl("get", kinds, "-n", shop, "-o", "yaml").stdout

    def next_step(result: Result) -> str:
        text: str = result.findings[0]["next"]
        return text

    rule, route = f"DestinationRule {shop}/web", f"VirtualService {shop}/web"
    adding = destination_rule(shop, "v1", "v2")
    using = virtual_service(shop, "v2")
    removing = destination_rule(shop, "v2")

    apiserver.apply(_list([destination_rule(shop, "v1"), virtual_service(shop, "v1")]))
    before = stored()
    at_once = after(adding, using)
    assert (at_once.status, places(at_once)) == (1, [("KM105", route, SUBSET)])
    assert re.search(f"by hand: apply {rule} alone.* then apply {route}$", next_step(at_once))
    assert (after(adding).status, after(adding).findings) == (0, [])
    used = after(removing)
    assert places(used) == [("KM106", rule, "/spec/subsets"), ("KM101", route, SUBSET)]
    assert re.match(f"first take the subset out of {route}, .* apply {rule}$", next_step(used))
    assert stored() == before

    apiserver.apply(_list([adding]))
    assert (after(using).status, after(using).findings) == (0, [])
    at_once = after(removing, using)
    assert (at_once.status, places(at_once)) == (1, [("KM106", rule, "/spec/subsets")])
    assert re.search(f"by hand: apply {route} alone.* then apply {rule}$", next_step(at_once))

    apiserver.apply(_list([using]))
    assert (after(removing).status, after(removing).findings) == (0, [])


# One namespace, or all --------------------------------------------------------------------------


def test_one_namespace_or_all(apiserver: ApiServer, shop: str, tmp_path: Path) -> None:
    other = f"{shop}-clients"
    labels = {"istio-injection": "enabled"}
    apiserver.create(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other, "labels": labels}}]
    )
    apiserver.create(
        [
            service(other, "tcp-web"),
            deployment(other, "v1"),
            service(shop, "tcp-raw", "raw"),
            deployment(shop, "v1", "raw"),
            virtual_service(shop, "v1"),  # of which there is no DestinationRule
            virtual_service(other, "v1", f"raw.{shop}.svc.cluster.local"),
        ]
    )
    ours = [
        ("KM303", f"Service {shop}/raw", "/spec/ports/0/name"),
        ("KM101", f"VirtualService {shop}/web", SUBSET),
    ]
    theirs = [("KM101", f"VirtualService {other}/web", SUBSET)]
    in_shop = doctor(apiserver, "-n", shop)
    assert places(in_shop) == ours
    assert in_shop.findings[0]["related"] == [
        {"kind": "VirtualService", "namespace": other, "name": "web"}
    ]
    assert places(doctor(apiserver, "-n", other)) == theirs
    assert {*ours, *theirs} <= set(places(doctor(apiserver, "-A")))

    kubeconfig = json.loads(apiserver.kubeconfig.read_text())
    kubeconfig["contexts"][0]["context"]["namespace"] = other
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(kubeconfig))
    assert places(run("--kubeconfig", str(file), "-o", "json")) == theirs


# What goes where --------------------------------------------------------------------------------


def test_progress_is_for_terminals_and_not_in_the_report(apiserver: ApiServer, shop: str) -> None:
    command = [sys.executable, "-m", "kubectl_mesh", "doctor", "-n", shop, "-o", "json"]
    environment = {**apiserver.environment(), "TERM": "xterm"}
    terminal, stderr = pty.openpty()
    with open(stderr, "wb") as ends_here:
        shown = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=ends_here)
    said = b"".join(_read_to_the_end(terminal))
    piped = subprocess.run(command, env=environment, capture_output=True)
    assert json.loads(shown.stdout) == json.loads(piped.stdout)
    assert b"reading the cluster: " in said
    assert said.endswith(b"\r\x1b[K")
    assert piped.stderr == b""


def _read_to_the_end(terminal: int) -> Iterator[bytes]:
    """What was written to the other end of a terminal, which is closed."""
    with open(terminal, "rb", buffering=0) as reader, contextlib.suppress(OSError):
        while part := reader.read(4096):  # Linux ends this with an error, others with nothing
            yield part
