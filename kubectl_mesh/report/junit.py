"""A report as JUnit XML, for CI systems: a suite for each rule, a case for each finding."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from kubectl_mesh.mesh.resource import dotted
from kubectl_mesh.report import Layout
from kubectl_mesh.rules import BY_CODE, km900_unreadable_input
from kubectl_mesh.rules.examine import Report, Skipped
from kubectl_mesh.rules.rule import Finding, Rule, Severity

_FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow, not even escaped, advises against, or a terminal would obey."""


def render(report: Report, layout: Layout) -> str:
    """Errors and warnings fail, notes pass; a rule that could not run is skipped.

    Input that could not be read is an error of its case: a build must not pass over it. Where
    there is nothing to tell, one case passes, as several CI systems take a file without cases for
    a broken run.
    """
    cases: dict[str, list[Element]] = defaultdict(list)
    for finding in report.findings:
        cases[_title(finding.rule)].append(_finding(finding))
    for skip in report.skipped:
        cases[_title(BY_CODE[skip.code])].append(_skipped(skip))
    if not cases:
        name = f"no problems found in {report.resources} resources"
        cases["kubectl mesh"].append(case("kubectl mesh", name))
    return suites(cases)


def suites(cases: Mapping[str, list[Element]]) -> str:
    """Cases, by the title of their suite, as a document in ASCII."""
    root = Element("testsuites", {"name": "kubectl mesh"})
    for title, of_one in cases.items():
        suite = SubElement(root, "testsuite", {"name": title, **_counts(of_one)})
        suite.extend(of_one)
    root.attrib.update(_counts([found for of_one in cases.values() for found in of_one]))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=True)
    return text.decode("ascii") + "\n"


def _counts(cases: list[Element]) -> dict[str, str]:
    plurals = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    counts = {
        attribute: str(sum(1 for found in cases if found.find(outcome) is not None))
        for outcome, attribute in plurals.items()
    }
    return {"tests": str(len(cases)), **counts}


def _title(rule: Rule) -> str:
    return f"{rule.code} {rule.name}"


def case(classname: str, name: str) -> Element:
    """A case that passes, until a child says otherwise."""
    return Element("testcase", {"classname": clean(classname), "name": clean(name)})


def _finding(finding: Finding) -> Element:
    rule = finding.rule
    field = dotted(finding.path)
    found = case(_title(rule), f"{finding.resource} {field}".rstrip())
    position = finding.resource.origin.locate(finding.path)
    lines = [finding.message, f"Traffic: {finding.traffic}", f"Next: {finding.next}"]
    lines += finding.evidence
    if finding.roots:
        lines.append(f"In {', '.join(finding.roots)}")
    if position:
        found.set("file", clean(position.file))
        found.set("line", str(position.line))
        lines.append(f"At {position.file}:{position.line}:{position.column}")
    lines.append(rule.documentation)
    if finding.severity == Severity.INFO:
        outcome = SubElement(found, "system-out")
    else:
        attributes = {"type": finding.severity.label, "message": clean(finding.message)}
        outcome = SubElement(found, "failure", attributes)
    outcome.text = clean("\n".join(lines))
    return found


def _skipped(skip: Skipped) -> Element:
    position = skip.position
    name = f"{position.file}:{position.line}:{position.column}" if position else skip.reason
    found = case(_title(BY_CODE[skip.code]), name)
    unreadable = skip.code == km900_unreadable_input.RULE.code and skip.failed
    outcome = "error" if unreadable else "skipped"
    SubElement(found, outcome, {"message": clean(skip.reason)})
    return found


def clean(text: str) -> str:
    """Text that XML may hold, and a terminal."""
    return _FORBIDDEN.sub("\ufffd", text)
