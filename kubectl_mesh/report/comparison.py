"""What two states of a mesh treat differently: for people, and as an object with stable fields."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.resource import Unreadable
from kubectl_mesh.report import Layout
from kubectl_mesh.report.json_ import API_VERSION
from kubectl_mesh.routing.compare import Comparison, Decision, Difference, Place
from kubectl_mesh.term import Paint, safe

MAX_SHOWN = 20
MAX_PLACES = 3


def render(comparison: Comparison, unreadable: Sequence[Unreadable], layout: Layout) -> str:
    """Each class with an example, what was not compared, and the verdict at the end."""
    paint = Paint(layout.color)
    parts = [
        "\n".join(_class(number, each, paint))
        for number, each in enumerate(comparison.differences[:MAX_SHOWN], 1)
    ]
    hidden = len(comparison.differences) - MAX_SHOWN
    if hidden > 0:
        parts.append(f"and {hidden} more classes; -o json names them all")
    doubts = [
        *(f"{_where(each)}: {each.reason}" for each in unreadable),
        *comparison.undecided,
    ]
    if doubts:
        heading = paint("NOT COMPARED", "bold", "red")
        parts.append("\n".join([heading, *(f"  {safe(doubt)}" for doubt in doubts)]))
    if not layout.no_headers:
        style = "yellow" if comparison.differences or doubts or comparison.sampled else "green"
        parts.append(paint(safe(comparison.verdict), "bold", style))
    return "".join(f"{part}\n\n" for part in parts)[:-1]


def _class(number: int, difference: Difference, paint: Paint) -> Iterator[str]:
    first = difference.places[0]
    example = difference.example
    if example is None:
        title = f"connections: {difference.protocol}, to {first.host} on port {first.port}"
    else:
        title = str(example)
    yield paint(safe(f"{number}. {title}"), "bold")
    if example is not None:
        for name, value in sorted(example.headers.items()):
            yield f"   header  {safe(f'{name}: {value}')}"
    port = f", port {first.port}" if example is not None else ""
    yield f"   from    {safe(first.proxy)}{port}"
    yield f"   before  {safe(_decision(difference.before))}"
    yield f"   after   {safe(_decision(difference.after))}"
    if difference.aspects not in (["destinations"], ["answer"]):
        yield f"   differs {safe(', '.join(difference.aspects))}"
    if example is None:
        yield "   note    compared rule by rule, not connection by connection"
    others = _others(difference.places)
    if others:
        yield f"   also    {safe(others)}"


def _others(places: Sequence[Place]) -> str:
    """The other places, the first of them by name."""
    first = places[0]
    names = dict.fromkeys(
        f"{place.host}:{place.port}"
        + (f" from {place.proxy}" if place.proxy != first.proxy else "")
        for place in places[1:]
    )
    shown = list(names)[:MAX_PLACES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _decision(decision: Decision | str) -> str:
    if isinstance(decision, str):
        return decision
    named = rule_of(decision)
    return f"{decision.treatment.summary}{f' by {named}' if named else ''}"


def rule_of(decision: Decision) -> str:
    """The rule and match that decide, as a message names them; "" where none does."""
    route = decision.route
    if route is None or route.rule is None:
        return ""
    name = f" ({route.rule.name})" if route.rule.name else ""
    text = f"{route.rule.owner.resource} http[{route.rule.index}]{name}"
    if route.match is not None:
        text += f" match[{route.match.index}]"
    if route.virtual_service is not route.rule.owner:
        text += f", delegated by {route.virtual_service and route.virtual_service.resource}"
    return text


def _where(unreadable: Unreadable) -> str:
    position = unreadable.position
    if position is None:
        return unreadable.where
    return f"{position.file}:{position.line}:{position.column}"


def render_json(comparison: Comparison, unreadable: Sequence[Unreadable], layout: Layout) -> str:
    """JSON in ASCII, so that nothing in it means anything to a terminal."""
    return json.dumps(document(comparison, unreadable), indent=2) + "\n"


def render_yaml(comparison: Comparison, unreadable: Sequence[Unreadable], layout: Layout) -> str:
    from kubectl_mesh.report.yaml_ import dump

    return dump(document(comparison, unreadable))


def document(comparison: Comparison, unreadable: Sequence[Unreadable]) -> Mapping[str, Any]:
    """The object of the JSON and YAML output. Fields are only ever added."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Comparison",
        "verdict": comparison.verdict,
        "classes": [_document(each) for each in comparison.differences],
        "undecided": list(comparison.undecided),
        "sampled": sorted(comparison.sampled),
        "unreadable": [f"{_where(each)}: {each.reason}" for each in unreadable],
    }


def _document(difference: Difference) -> Mapping[str, Any]:
    example = difference.example
    return {
        "protocol": difference.protocol,
        "request": example
        and {
            "method": example.method,
            "url": _url(example.scheme, example.authority, example.port)
            + example.path
            + (f"?{example.query}" if example.query else ""),
            "port": example.port,
            "headers": dict(example.headers),
            "curl": _curl(difference),
        },
        "from": _place(difference.places[0]),
        "before": _decision_document(difference.before),
        "after": _decision_document(difference.after),
        "differsIn": list(difference.aspects),
        "places": [_place(place) for place in difference.places],
    }


def _url(scheme: str, authority: str, port: int) -> str:
    _, colon, stated = authority.rpartition(":")
    default = {"http": 80, "https": 443}[scheme]
    named = (colon and stated.isdigit()) or port == default
    return f"{scheme}://{authority}" + ("" if named else f":{port}")


def _curl(difference: Difference) -> str | None:
    """The request as a command, for whoever wants to see for himself."""
    example = difference.example
    if example is None:
        return None
    url = _url(example.scheme, example.authority, example.port) + example.path
    words = ["curl", "-X", example.method]
    for name, value in example.headers.items():
        words += ["-H", f"{name}: {value}" if value else f"{name};"]
    return shlex.join([*words, url + (f"?{example.query}" if example.query else "")])


def _place(place: Place) -> Mapping[str, Any]:
    return {
        "proxy": place.proxy,
        "kind": "gateway" if place.gateway else "sidecar",
        "namespace": place.namespace,
        "labels": dict(place.labels),
        "port": place.port,
        "host": place.host,
    }


def _decision_document(decision: Decision | str) -> Mapping[str, Any]:
    if isinstance(decision, str):
        return {"treatment": decision, "virtualService": None, "rule": None, "match": None}
    route = decision.route
    rule = route.rule if route else None
    root = route.virtual_service if route else None
    return {
        "treatment": decision.treatment.summary,
        "virtualService": f"{root.namespace}/{root.resource.name}" if root else None,
        "rule": rule
        and {
            "object": str(rule.owner.resource),
            "index": rule.index,
            "name": rule.name or None,
        },
        "match": route.match.index if route and route.match else None,
    }
