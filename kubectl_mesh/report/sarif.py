"""A report as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from kubectl_mesh import __version__
from kubectl_mesh.mesh.resource import Path, Position, ResourceId, pointer
from kubectl_mesh.report import Layout
from kubectl_mesh.report.rule_page import advice
from kubectl_mesh.rules import RULES
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Finding, Rule, Severity

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
HOME = "https://github.com/kubectl-mesh/kubectl-mesh"
_LEVELS: Mapping[Severity, str] = {
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.INFO: "note",
}
_INDEX: Mapping[str, int] = {rule.code: index for index, rule in enumerate(RULES)}


def render(report: Report, layout: Layout) -> str:
    """One run. A finding of a cluster has a logical location only: there is no file to show."""
    return json.dumps(_log(report), indent=2) + "\n"


def _log(report: Report) -> Mapping[str, Any]:
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "kubectl-mesh",
                        "semanticVersion": __version__,
                        "informationUri": HOME,
                        "rules": [_rule(rule) for rule in RULES],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": not any(skip.failed for skip in report.skipped),
                        "toolExecutionNotifications": [
                            _notification(skip) for skip in report.skipped
                        ],
                    }
                ],
                "results": [_result(finding) for finding in report.findings],
            }
        ],
    }


def _rule(rule: Rule) -> Mapping[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.explanation.strip()},
        "help": {
            "text": f"{rule.explanation.strip()}\n\n{rule.fix.strip()}\n\n{rule.reference}",
            "markdown": advice(rule),
        },
        "helpUri": rule.documentation,
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["istio", *rule.equivalents]},
    }


def _result(finding: Finding) -> Mapping[str, Any]:
    resource = finding.resource
    logical = {**_logical(resource.id, finding.path), "kind": "field" if finding.path else "object"}
    location: dict[str, Any] = {"logicalLocations": [logical]}
    position = resource.origin.locate(finding.path)
    if position:
        location["physicalLocation"] = _physical(position)
    sentences = [finding.message, f"Traffic: {finding.traffic}", f"Next: {finding.next}"]
    if finding.roots:
        sentences.append(f"In {', '.join(finding.roots)}")
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": _INDEX[finding.rule.code],
        "level": _LEVELS[finding.severity],
        "message": {"text": "\n".join((*sentences, *finding.evidence))},
        "locations": [location],
        "relatedLocations": [
            {
                "id": number,
                "message": {"text": str(related)},
                "logicalLocations": [{**_logical(related, ()), "kind": "object"}],
            }
            for number, related in enumerate(finding.related, start=1)
        ],
        "properties": {"roots": list(finding.roots)},
        "partialFingerprints": {"objectAndField/v1": _fingerprint(finding)},
    }


def _notification(skip: Skipped) -> Mapping[str, Any]:
    notification: dict[str, Any] = {
        "level": "error" if skip.failed else "note",
        "message": {"text": skip.reason},
        "associatedRule": {"id": skip.code, "index": _INDEX[skip.code]},
    }
    if skip.position:
        notification["locations"] = [{"physicalLocation": _physical(skip.position)}]
    return notification


def _logical(identity: ResourceId, path: Path) -> Mapping[str, str]:
    parts: Iterable[str] = (identity.namespace, identity.kind, identity.name)
    return {
        "name": identity.name,
        "fullyQualifiedName": "/".join(part for part in parts if part) + pointer(path),
    }


def _physical(position: Position) -> Mapping[str, Any]:
    return {
        "artifactLocation": _artifact(position.file),
        "region": {"startLine": position.line, "startColumn": position.column},
    }


def _artifact(file: str) -> Mapping[str, str]:
    """Relative to the working folder where the file is below it, as code scanning wants it."""
    try:
        relative = os.path.relpath(file)
    except FileNotFoundError:  # the working folder is gone
        return {"uri": quote(os.fsencode(file))}
    if relative.split(os.sep)[0] == os.pardir or os.path.isabs(relative):
        return {"uri": PurePath(os.path.abspath(file)).as_uri()}
    return {
        "uri": quote(os.fsencode(relative.replace(os.sep, "/"))),
        "uriBaseId": "%SRCROOT%",
    }


def _fingerprint(finding: Finding) -> str:
    """The same as long as the fault is on that field of that object, whatever its line."""
    identity = finding.resource.id
    parts = (
        finding.rule.code,
        identity.kind,
        identity.namespace,
        identity.name,
        pointer(finding.path),
    )
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
