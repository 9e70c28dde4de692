"""A report as one JSON object, as report.schema.json has it. Fields are only ever added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kubectl_mesh.mesh.resource import Position, ResourceId, pointer
from kubectl_mesh.report import Layout
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Finding, Severity

API_VERSION = "mesh.kubectl.dev/v1"


def render(report: Report, layout: Layout) -> str:
    """JSON in ASCII, so that nothing in it means anything to a terminal."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> Mapping[str, Any]:
    """The object that the JSON and YAML reports hold."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Report",
        "findings": [_finding(finding) for finding in report.findings],
        "skipped": [_skipped(skip) for skip in report.skipped],
        "summary": {
            "resources": report.resources,
            **{
                severity.label: report.count(severity)
                for severity in sorted(Severity, reverse=True)
            },
        },
    }


def _finding(finding: Finding) -> Mapping[str, Any]:
    rule, resource = finding.rule, finding.resource
    position = resource.origin.locate(finding.path)
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": finding.severity.label,
        "resource": {
            "apiVersion": resource.api_version,
            **_identity(resource.id),
            "kind": resource.id.api_kind,
        },
        "path": pointer(finding.path),
        "source": _source(position),
        "context": None if position else resource.origin.name or None,
        "message": finding.message,
        "traffic": finding.traffic,
        "next": finding.next,
        "evidence": list(finding.evidence),
        "related": [_identity(related) for related in finding.related],
        "roots": list(finding.roots),
        "fixable": bool(finding.repairs),
        "equivalents": list(rule.equivalents),
        "documentation": rule.documentation,
    }


def _skipped(skip: Skipped) -> Mapping[str, Any]:
    return {
        "code": skip.code,
        "reason": skip.reason,
        "failed": skip.failed,
        **({"unread": True} if skip.unread else {}),
        "source": _source(skip.position),
    }


def _identity(identity: ResourceId) -> Mapping[str, str]:
    return {"kind": identity.kind, "namespace": identity.namespace, "name": identity.name}


def _source(position: Position | None) -> Mapping[str, Any] | None:
    if position is None:
        return None
    return {"file": position.file, "line": position.line, "column": position.column}
