"""Answers to many requests as JUnit XML: a case for each request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement

from kubectl_mesh.errors import InputError
from kubectl_mesh.report.junit import case, clean, suites
from kubectl_mesh.routing.expected import Case


def render(
    file: str, results: Iterable[tuple[Case | InputError, Sequence[str]]], unknown: Sequence[str]
) -> str:
    """What is not as expected fails, what could not be read is an error.

    A request of which nothing is expected is skipped.
    """
    cases = [_case(file, line, failures) for line, failures in results]
    for reason in unknown:
        error = case(file, "the input")
        SubElement(error, "error", {"message": clean(reason)})
        cases.append(error)
    if not cases:
        cases.append(case(file, "no requests"))
    return suites({clean(file): cases})


def _case(file: str, line: Case | InputError, failures: Sequence[str]) -> Element:
    if isinstance(line, InputError):
        found = case(file, f"line {line.line}")
        SubElement(found, "error", {"message": clean(line.message)})
    else:
        found = case(file, line.name)
        if line.expect is None:
            SubElement(found, "skipped", {"message": "nothing is expected of it"})
        elif failures:
            message = clean(failures[0])
            failure = SubElement(found, "failure", {"type": "route", "message": message})
            failure.text = clean("\n".join(failures))
    found.set("file", clean(file))
    found.set("line", str(line.line))
    return found
