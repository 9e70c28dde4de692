"""Which MeshConfig counts, where there are several revisions of Istio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from kubectl_mesh.cli import main
from kubectl_mesh.mesh.versions import ONE_NAMESPACE, Istio
from kubectl_mesh.sources import files
from kubectl_mesh.sources.config import find_mesh_config
from tests.kube.fake import FakeApiServer
from tests.sources.test_cluster import Cluster, thing

SETTINGS = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, namespace: istio-system}
data: {mesh: 'trustDomain: %s'}
"""
NAMESPACE = """\
---
apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {%s}}
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: %s, labels: {istio.io/rev: %s}}
"""
OTHER = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: istio-system}
data: {root-cert.pem: x}
"""
OLD = "defaultVirtualServiceExportTo: [old]"
NEW = "defaultVirtualServiceExportTo: [new]"
BOTH = (
    SETTINGS.replace("trustDomain: %s", OLD) % "istio"
    + SETTINGS.replace("trustDomain: %s", NEW) % "istio-1-27"
)
ENABLED, NEWER, TAG = "istio-injection: enabled", "istio.io/rev: 1-27", "istio.io/rev: prod"


def found(folder: Path, *parts: str, only: Sequence[str] | None = None) -> tuple[str, str]:
    path = folder / "a.yaml"
    path.write_text("".join(parts))
    config = find_mesh_config(files.load([str(path)])[0], only)
    return config.virtual_service_export[0], " ".join(config.notes)


@pytest.mark.parametrize(
    ("parts", "used", "noted"),
    [
        ([NAMESPACE % ("a", NEWER)], "new", ""),
        ([NAMESPACE % ("a", ENABLED)], "old", ""),
        ([NAMESPACE % ("a", f"{ENABLED}, {NEWER}")], "old", ""),
        ([NAMESPACE % ("a", f"istio-injection: disabled, {NEWER}")], "old", "no namespace selects"),
        ([NAMESPACE % ("a", "istio.io/rev: default")], "old", ""),
        ([POD % ("a", "1-27")], "new", ""),
        ([NAMESPACE % ("a", ENABLED), POD % ("a", "1-27")], "old", ""),
        (
            [],
            "old",
            "no namespace selects a revision of Istio: the MeshConfig of ConfigMap istio-s",
        ),
        ([NAMESPACE % ("a", TAG)], "old", "namespace a selects revision prod of Istio, whose"),
        (
            [NAMESPACE % ("a", ENABLED), NAMESPACE % ("b", NEWER), NAMESPACE % ("c", NEWER)],
            "new",
            "namespace a selects revision default of Istio: the MeshConfig of ConfigMap "
            "istio-system/istio-1-27 was used, and ConfigMap istio-system/istio may say otherwise",
        ),
    ],
)
def test_the_settings_are_those_of_the_revision_that_is_selected(
    parts: Sequence[str], used: str, noted: str, tmp_path: Path
) -> None:
    name, notes = found(tmp_path, BOTH, OTHER, *parts)
    assert name == used
    assert noted in notes
    assert bool(noted) is bool(notes)


def test_only_the_namespaces_asked_for_count(tmp_path: Path) -> None:
    parts = [BOTH, *(NAMESPACE % (name, ENABLED) for name in "abc"), NAMESPACE % ("d", NEWER)]
    assert found(tmp_path, *parts, only=["d"]) == ("new", "")


def test_one_for_all_needs_no_selection(tmp_path: Path) -> None:
    new = BOTH.partition("---\n")[2].partition("---\n")[2]
    assert found(tmp_path, "---\n", new) == ("new", "")
    assert found(tmp_path, "---\n", new, NAMESPACE % ("a", ENABLED)) == ("new", "")
    assert found(tmp_path, OTHER, NAMESPACE % ("a", NEWER)) == ("*", "")


@pytest.mark.parametrize("command", ["doctor", "route", "compare"])
def test_what_was_assumed_is_in_every_report(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BOTH)
    words = {
        "doctor": ["doctor", "-f", str(path)],
        "route": ["route", "http://web", "-f", str(path)],
        "compare": ["compare", str(path), str(path)],
    }[command]
    main([*words, "-o", "json"])
    assert "no namespace selects a revision of Istio" in json.dumps(
        json.loads(capsys.readouterr().out)
    )


@pytest.mark.parametrize("flag", ["--from-namespace", "--namespace"])
def test_a_route_is_that_of_the_callers_revision(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    closed = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"
    parts = [BOTH.replace(NEW, closed), *(NAMESPACE % (name, ENABLED) for name in "abc")]
    path.write_text("".join([*parts, NAMESPACE % ("d", NEWER)]))
    outcomes = []
    for name in "ad":
        main(["route", "http://elsewhere.example.com", "-f", str(path), flag, name, "-o", "json"])
        answer = json.loads(capsys.readouterr().out)
        outcomes.append((answer["outcome"], answer["notes"]))
    assert outcomes == [("passthrough", []), ("blackhole", [])]


ISTIOD = """\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod-%s, namespace: istio-system, labels: {app: istiod, istio.io/rev: %s}}
spec:
  template: {spec: {containers: [{name: discovery, image: "istio/pilot:%s", env: [%s]}]}}
"""
SWITCH = "{name: OTHER, value: x}, {name: PILOT_UNIFIED_SIDECAR_SCOPE, value: 'false'}"


@pytest.mark.parametrize(
    ("parts", "release", "noted"),
    [
        ([], (1, 31), ""),
        ([ISTIOD % ("x", "default", "1.26.1", "")], (1, 26), ""),
        ([ISTIOD % ("x", "1-27", "1.27.1", SWITCH)], (1, 27), ""),
        (
            [ISTIOD % ("x", "1-27", "latest", "")],
            (1, 31),
            "of revision default is not known: there are 1-27 (latest); 1.31 was assumed",
        ),
        ([ISTIOD % (name, name, "1.26.1", "") for name in ("1-26", "b")], (1, 26), ""),
        (
            [ISTIOD % ("x", "a", "1.26.1", ""), ISTIOD % ("y", "a", "1.27.1", "")],
            (1, 31),
            "of revision default is not known: there are a (1.26.1), a (1.27.1); 1.31",
        ),
        (
            [
                ISTIOD % ("x", "default", "1.26.1", ""),
                ISTIOD % ("y", "1-27", "1.27.1", ""),
                NAMESPACE % ("a", ENABLED),
                NAMESPACE % ("b", ENABLED),
                NAMESPACE % ("c", NEWER),
            ],
            (1, 26),
            "c selects revision 1-27, which is Istio 1.27: Istio 1.26 of revision default",
        ),
        (
            [
                ISTIOD % ("x", "1-26", "1.26.1", ""),
                ISTIOD % ("y", "1-27", "1.27.1", SWITCH),
                NAMESPACE % ("a", NEWER),
            ],
            (1, 27),
            "",
        ),
        (
            [ISTIOD % ("x", "1-26", "1.26.1", ""), ISTIOD % ("y", "1-27", "1.27.1", "")],
            (1, 31),
            "of revision default is not known: there are 1-26 (1.26.1), 1-27 (1.27.1); 1.31 was",
        ),
        ([ISTIOD % ("x", "default", "1.40.0", "")], (1, 40), "Istio 1.40"),
    ],
)
def test_the_istio_of_the_revision(
    parts: Sequence[str], release: tuple[int, int], noted: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("".join([OTHER, *parts]))
    config = find_mesh_config(files.load([str(path)])[0])
    assert config.istio.release == release
    assert (noted in " ".join(config.notes), bool(noted)) == (True, bool(config.notes))
    is_switched = release == (1, 27)
    assert config.istio.settings == (
        {"PILOT_UNIFIED_SIDECAR_SCOPE": "false"} if is_switched else {}
    )


TAGGED = """\
---
apiVersion: v1
kind: Service
metadata:
  name: istiod-revision-tag-%s
  namespace: istio-system
  labels: {app: istiod, istio.io/tag: %s, istio.io/rev: 1-27}
"""
REVISIONS = (ISTIOD % ("x", "default", "1.26.1", "")) + (ISTIOD % ("y", "1-27", "1.27.1", ""))


@pytest.mark.parametrize(
    ("parts", "revision"),
    [
        ([NAMESPACE % ("a", TAG), TAGGED % ("prod", "prod")], "1-27"),
        ([POD % ("a", "prod"), TAGGED % ("prod", "prod")], "1-27"),
        ([NAMESPACE % ("a", ENABLED), TAGGED % ("prod", "prod")], "default"),
        ([NAMESPACE % ("a", ENABLED), TAGGED % ("default", "default")], "1-27"),
    ],
)
def test_a_revision_tag_stands_for_its_revision(
    parts: Sequence[str], revision: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("".join([BOTH, REVISIONS, *parts]))
    config = find_mesh_config(files.load([str(path)])[0])
    release, export = ((1, 27), "new") if revision == "1-27" else ((1, 26), "old")
    assert (config.revision, config.istio.release, config.notes) == (revision, release, ())
    assert config.virtual_service_export == (export,)


LABELLED = """---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {ports: [{name: http, port: 80}], selector: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: a, labels: {istio.io/rev: %s}}
spec: {hosts: [web], http: [{name: ours, route: [{destination: {host: web}}]}]}
"""


@pytest.mark.parametrize(
    ("istiods", "label", "is_read"),
    [
        (REVISIONS, "1-27", False),
        (REVISIONS, "default", True),
        ("", "1-27", True),
        (REVISIONS.replace("istio.io/rev: default", "x: y"), "1-27", True),
    ],
)
def test_what_only_another_revision_reads(
    istiods: str, label: str, is_read: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An istiod without a revision reads all."""
    path = tmp_path / "a.yaml"
    path.write_text("".join([OTHER, istiods, NAMESPACE % ("a", ENABLED), LABELLED % label]))
    look = ("-f", str(path), "-n", "a")
    main(["route", "http://web", *look, "-o", "json"])
    said = capsys.readouterr()
    assert ("ours" in said.out) is is_read
    named = "VirtualService (a/web): not of revision default, which was looked at"
    assert (named in said.err) is not is_read
    main(["doctor", *look])
    said = capsys.readouterr()
    named = "1 VirtualService (web): not of revision default"
    assert (named in " ".join(said.out.split())) is not is_read


def two_revisions(folder: Path, *labels: str) -> str:
    """Objects of a namespace of revision default, one for each label istio.io/rev."""
    path = folder / "a.yaml"
    named = "name: %s, namespace: a, labels"
    parts = [(LABELLED % each).replace(named % "web", named % each) for each in labels]
    path.write_text("".join([OTHER, REVISIONS, NAMESPACE % ("a", ENABLED), *parts]))
    return str(path)


def test_what_different_istiods_read_is_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    second = LABELLED.replace("name: web, namespace: a, labels", "name: b, namespace: a, x")
    path.write_text("".join([OTHER, LABELLED % "1-27", second % "y"]))
    assert main(["merge-vs", "web", "b", "-f", str(path), "-n", "a"]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "are for different revisions of Istio (label istio.io/rev)" in said


def test_a_change_that_only_another_istiod_reads_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, labels in (("one", ["default"]), ("two", ["default", "1-27"])):
        (tmp_path / name).mkdir()
        two_revisions(tmp_path / name, *labels)
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "-o", "json"]) == 3
    (undecided,) = json.loads(capsys.readouterr().out)["undecided"]
    assert undecided.startswith(
        "VirtualService a/1-27 is not the same in both states, and is not of"
    )


def test_requests_of_another_revision_are_not_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_revisions(tmp_path, "default")
    with Path(path).open("a") as file:
        file.write(NAMESPACE % ("b", ENABLED) + NAMESPACE % ("c", NEWER))
    requests = tmp_path / "r.jsonl"
    lines = [{"url": "http://web.a", "from": "mesh", "sourceNamespace": name} for name in "ac"]
    requests.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    status = main(["route", "--requests", str(requests), "-f", path])
    said = capsys.readouterr()
    assert (status, len(said.out.splitlines())) == (3, 2)
    assert "namespace c selects revision 1-27 of Istio, and the answers are for" in said.err


@pytest.mark.parametrize("given", [None, Istio((1, 29), "--istio-version")])
def test_namespaces_of_another_revision_are_named_whatever_its_release(
    given: Istio | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    same = REVISIONS.replace("1.27.1", "1.26.1")
    parts = [NAMESPACE % ("a", ENABLED), NAMESPACE % ("b", ENABLED), NAMESPACE % ("c", NEWER)]
    path.write_text("".join([OTHER, same, *parts]))
    config = find_mesh_config(files.load([str(path)])[0], given=given)
    note = "namespace c selects revision 1-27: revision default was assumed for all (-n looks at"
    assert note in " ".join(config.notes)
    assert config.other_revisions == {"c": "1-27"}


def test_the_revision_is_the_one_that_is_selected_whoever_has_a_mesh_config(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("".join([SETTINGS % ("istio", "x"), REVISIONS, NAMESPACE % ("a", NEWER)]))
    config = find_mesh_config(files.load([str(path)])[0])
    assert (config.revision, config.istio.release) == ("1-27", (1, 27))
    assert "namespace a selects revision 1-27 of Istio, whose MeshConfig was not" in config.notes[0]


def test_a_gateway_of_another_revision_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_revisions(tmp_path, "default")
    with Path(path).open("a") as file:
        file.write(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\n"
            "metadata: {name: gw, namespace: a, labels: {istio.io/rev: 1-27}}\n"
            "spec: {servers: []}\n"
        )
    assert main(["route", "http://web", "--gateway", "a/gw", "-f", path]) == 3
    assert "Gateway a/gw is not of revision default" in capsys.readouterr().err


@pytest.mark.parametrize(("selecting", "tag"), [(TAG, "prod"), (ENABLED, "default")])
def test_the_revision_tags_of_a_cluster(selecting: str, tag: str, tmp_path: Path) -> None:
    """The tag default comes before a revision of that name."""
    with FakeApiServer() as fake:
        live = Cluster(fake, tmp_path)
        path = tmp_path / "a.yaml"
        path.write_text(REVISIONS + NAMESPACE % ("a", selecting) + TAGGED % (tag, tag))
        for each in filter(None, yaml.safe_load_all(path.read_text())):
            live.add(each)
        live.add(thing("ConfigMap", "istio-1-27", "istio-system", data={"mesh": NEW}))
        for namespaces in (None, {"a"}):
            config = live.load(["Service", "Namespace"], namespaces).config
            assert (config.revision, config.istio.release) == ("1-27", (1, 27))
            assert (config.virtual_service_export, config.notes) == (("new",), ())


def test_what_is_of_no_known_kind_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    spec = "spec: {template: {metadata: {labels: 3}, spec: {containers: [null, 3]}}}"
    metadata = "metadata: {name: a, namespace: b, labels: {app: istiod}}"
    path.write_text(f"apiVersion: other/v1\nkind: Deployment\n{metadata}\n{spec}\n")
    config = find_mesh_config(files.load([str(path)])[0])
    assert (config.istio.origin, config.notes) == ("", ())


def test_the_istio_of_a_cluster(tmp_path: Path) -> None:
    with FakeApiServer() as fake:
        live = Cluster(fake, tmp_path)
        live.add(thing("Service", "web", "shop"))
        container = {"name": "discovery", "image": "istio/pilot:1.26.3"}
        template = {"spec": {"containers": [container]}}
        istiod = thing("Deployment", "istiod", "istio-system", spec={"template": template})
        istiod["metadata"]["labels"] = {"app": "istiod"}
        live.add(istiod)
        for namespaces in (None, {"shop"}):
            assert live.load(["Service"], namespaces).config.istio.release == (1, 26)


def test_a_release_that_is_given_leaves_what_istiod_switches_back(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(ISTIOD % ("x", "default", "latest", SWITCH))
    found = find_mesh_config(files.load([str(path)])[0], given=Istio((1, 29), "--istio-version"))
    assert (found.istio.release, found.istio.has(ONE_NAMESPACE)) == ((1, 29), False)
    assert found.notes == ()


def test_a_container_beside_istiod_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    beside = "containers: [{name: vault, image: 'vault:1.17.2'}, "
    path.write_text((ISTIOD % ("x", "default", "1.26.1", "")).replace("containers: [", beside))
    assert find_mesh_config(files.load([str(path)])[0]).istio.release == (1, 26)


@pytest.mark.parametrize("after", [("1.31.0", ""), ("1.22.3", SWITCH)])
def test_another_istio_is_compared(
    after: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An upgrade alone: the younger DestinationRule takes the older one's place since 1.24."""
    rules = """\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: older, namespace: shop, creationTimestamp: "2020-01-01T00:00:00Z"}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: younger, namespace: shop, creationTimestamp: "2021-01-01T00:00:00Z"}
spec: {host: web, exportTo: ["*"], subsets: [{name: v2, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""
    states = []
    for name, (version, env) in (("before", ("1.22.3", "")), ("after", after)):
        states.append(tmp_path / f"{name}.yaml")
        states[-1].write_text(rules + ISTIOD % ("x", "default", version, env))
    status = main(["compare", *map(str, states)])
    out = capsys.readouterr().out
    assert (status, "503" in out) == ((1, True) if after[0] == "1.31.0" else (0, False))


@pytest.mark.parametrize(
    ("text", "said"), [("1.22", 0), ("1.27.3", 0), ("latest", 2), ("", 2), ("1", 2)]
)
def test_the_flag_for_it(
    text: str, said: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(OTHER)
    words = ["route", "http://web", "-f", str(path), "--istio-version", text]
    assert _status(words) == said
    err = capsys.readouterr().err
    assert ("expected 1.27 or 1.27.3" in err) is (said == 2)


def _status(words: Sequence[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_doctor_fails_for_it_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(BOTH)
    assert main(["doctor", "-f", str(path)]) == 0
    assert "no namespace selects a revision" in capsys.readouterr().out


def test_settings_that_cannot_be_read_are_named_and_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    broken = (SETTINGS % ("istio-1-27", "x")).replace("trustDomain: x", "{{{")
    path.write_text(broken + NAMESPACE % ("a", NEWER))
    told = "the MeshConfig of ConfigMap istio-system/istio-1-27 cannot be read"
    assert main(["doctor", "-f", str(path), "-o", "json"]) == 3
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    assert skipped["failed"]
    assert skipped["reason"].startswith(f"{told}, and Istio's defaults were used: line ")
    assert main(["compare", str(path), str(path)]) == 3
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("namespaces", [None, {"den"}])
@pytest.mark.parametrize("kinds", [("Namespace", "Service"), ("Namespace", "ConfigMap")])
def test_those_of_a_cluster(
    kinds: Sequence[str], namespaces: set[str] | None, tmp_path: Path
) -> None:
    with FakeApiServer() as fake:
        live = Cluster(fake, tmp_path)
        live.add(
            thing("Namespace", "den", None, metadata={"labels": {"istio.io/rev": "1-27"}}),
            thing("ConfigMap", "istio-1-27", "istio-system", data={"mesh": NEW, "other": "x"}),
            thing("ConfigMap", "istio-1-26", "istio-system", data={"mesh": OLD}),
        )
        state = live.load(kinds, namespaces)
        assert state.config.virtual_service_export == ("new",)
        assert state.config.notes == ()
        assert not state.unreadable


def test_those_of_a_cluster_that_may_not_be_read(tmp_path: Path) -> None:
    with FakeApiServer() as fake:
        live = Cluster(fake, tmp_path)
        labels = {"istio.io/rev": "1-27"}
        live.add(thing("Namespace", "den", None, metadata={"labels": labels}))
        truth = fake.answer
        fake.answer = lambda request: (  # type: ignore[method-assign]
            truth(request)
            if "1-27" not in request.query.get("fieldSelector", "")
            else type(truth(request))(403, {"message": "no"})
        )
        state = live.load(("Namespace", "Service"))
        (gap,) = state.unreadable
        assert "configmaps named istio-1-27" in gap.reason
        assert "whose MeshConfig was not found" in " ".join(state.config.notes)
