"""The five troubles that this project exists for, each in many shapes.

`N-<what>.bad.yaml` holds trouble N and names each of its faults in a leading comment:

    # <Kind> <namespace>/<name> <path>[ or <Kind> <namespace>/<name> <path>]...

where `or` separates places of which any may be named for that one fault. A file that is not YAML
says `# unreadable <line>` instead. `N-<what>.repaired.yaml` is what an engineer would deploy.
The manifests were written from Istio's documentation, not from the rules that are tested here.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubectl_mesh.cli import main

HERE = Path(__file__).parent
BAD = sorted(HERE.glob("*.bad.yaml"))
REPAIRED = sorted(HERE.glob("*.repaired.yaml"))
TROUBLES = "12345"


class Place(NamedTuple):
    """An object and the JSON Pointer under which its fault lies."""

    kind: str
    namespace: str
    name: str
    pointer: str

    def holds(self, finding: dict[str, Any]) -> bool:
        resource = finding["resource"]
        return (
            resource["kind"] == self.kind
            and resource.get("namespace") == self.namespace
            and resource["name"] == self.name
            and (finding["path"] + "/").startswith(self.pointer + "/")
        )


def pointer(dotted: str) -> str:
    """Return the JSON Pointer of `spec.http[0].route`; after `data.` all is one key."""
    if dotted.startswith("data."):
        key = dotted.removeprefix("data.")
        return "/data/" + key.replace("~", "~0").replace("/", "~1")
    return "/" + re.sub(r"\[(\d+)\]", r".\1", dotted).replace(".", "/")


def place(text: str) -> Place:
    kind, full_name, dotted = text.split()
    namespace, name = full_name.split("/")
    return Place(kind, namespace, name, pointer(dotted))


def headers(file: Path) -> list[str]:
    """Return the leading comment lines, without their `#`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:count]]


def faults(file: Path) -> list[list[Place]]:
    """Return, for each fault of a bad file, the places where it may be reported."""
    return [
        [place(alternative) for alternative in line.split(" or ")]
        for line in headers(file)
        if not line.startswith("unreadable ")
    ]


def unreadable_line(file: Path) -> int:
    (line,) = headers(file)
    return int(line.removeprefix("unreadable "))


def is_unreadable(file: Path) -> bool:
    return headers(file)[0].startswith("unreadable ")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own context, and its namespace, out of the results."""
    monkeypatch.setenv("KUBECONFIG", os.devnull)


def report(file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run `kubectl mesh doctor` on one file and return its report."""
    main(["doctor", "-f", str(file), "-o", "json", "--fail-on", "never"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def doctor(file: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = report(file, capsys)["findings"]
    return findings


def outline(findings: list[dict[str, Any]]) -> str:
    return "\n".join(
        "{code} {severity} {kind} {namespace}/{name} {path}: {message}".format(
            **{"kind": "", "namespace": "", "name": "", **(finding.get("resource") or {})},
            **{key: finding.get(key) for key in ("code", "severity", "path", "message")},
        )
        for finding in findings
    )


@pytest.mark.parametrize(
    "file", [f for f in BAD if not is_unreadable(f)], ids=lambda f: f.name.removesuffix(".bad.yaml")
)
def test_each_fault_is_found(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings = doctor(file, capsys)
    serious = [
        finding
        for finding in findings
        if finding["code"].startswith(f"KM{file.name[0]}")
        and finding["severity"] in ("error", "warning")
    ]
    missed = [
        places for places in faults(file) if not any(p.holds(f) for p in places for f in serious)
    ]
    assert not missed, f"not found: {missed}\nreported instead:\n{outline(findings)}"


@pytest.mark.parametrize("file", [f for f in BAD if is_unreadable(f)], ids=lambda f: f.name)
def test_unreadable_file_is_reported_with_its_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = report(file, capsys)["skipped"]
    lines = [
        skip["source"]["line"]
        for skip in skipped
        if skip["code"] == "KM900"
        and Path(skip["source"]["file"]).name == file.name
        and "indented too far?" in skip["reason"]
    ]
    assert unreadable_line(file) in lines, f"skipped instead: {skipped}"


@pytest.mark.parametrize("file", REPAIRED, ids=lambda f: f.name.removesuffix(".repaired.yaml"))
def test_repaired_manifests_give_no_finding(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(file, capsys)
    assert not found["findings"], f"false alarms:\n{outline(found['findings'])}"
    assert not [skip for skip in found["skipped"] if skip["failed"]]


def test_every_trouble_has_bad_manifests_and_each_a_repaired_one() -> None:
    for trouble in TROUBLES:
        assert sum(file.name.startswith(trouble + "-") for file in BAD) >= 6
    for file in BAD:
        assert file.with_name(file.name.replace(".bad.", ".repaired.")) in REPAIRED
        assert is_unreadable(file) or faults(file), f"{file.name} names no fault"
