"""What two states of a mesh treat differently: for people, and as an object with stable fields."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.resource import Unreadable, dotted
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.proof.compare import Compared, Comparison, Decision, Difference, Place
from kubectl_mesh.report import Layout
from kubectl_mesh.report.json_ import API_VERSION
from kubectl_mesh.report.table import wrap
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.matching import Undecidable
from kubectl_mesh.routing.paths import with_query
from kubectl_mesh.routing.request import Request
from kubectl_mesh.term import Paint, safe

MAX_SHOWN = 20
MAX_PLACES = 3


def render(
    comparison: Comparison,
    unreadable: Sequence[Unreadable],
    layout: Layout,
    remark: Callable[[Difference], str] = lambda difference: "",
) -> str:
    """Each class with an example, what was not compared, and the verdict at the end.

    `remark` is what is said of a class besides.
    """
    paint = Paint(layout.color)
    parts = [
        "\n".join(_class(number, each, remark(each), paint))
        for number, each in enumerate(comparison.differences[:MAX_SHOWN], 1)
    ]
    hidden = len(comparison.differences) - MAX_SHOWN
    if hidden > 0:
        parts.append(f"and {hidden} more classes; -o json names them all")
    doubts = [
        *map(str, unreadable),
        *comparison.undecided,
    ]
    if comparison.sampled and comparison.differences:
        expressions = ", ".join(sorted(comparison.sampled))
        doubts.append(f"requests for regex {expressions} were only sampled")
    if doubts:
        heading = paint("NOT COMPARED", "bold", "red")
        parts.append("\n".join([heading, *(f"  {safe(doubt)}" for doubt in doubts)]))
    if not layout.no_headers:
        if comparison.compared:
            parts.append(wrap(safe(f"Compared: {_compared(comparison)}"), layout.width, "", "  "))
        style = "yellow" if comparison.differences or doubts or comparison.sampled else "green"
        parts.append(paint(safe(comparison.verdict), "bold", style))
    return "".join(f"{part}\n\n" for part in parts)[:-1]


def _compared(comparison: Comparison) -> str:
    """Which proxies were compared: those seen, and those that may be there."""
    sidecars = [each for each in comparison.compared if not each.proxy.is_gateway]
    gateways = [each for each in comparison.compared if each.proxy.is_gateway]
    parts = []
    if sidecars:
        seen = _listed(each.proxy.namespace for each in sidecars if not each.proxy.assumed)
        known = (
            f"pods seen in {seen}, others assumed"
            if seen
            else "assumed: no pod with a sidecar is seen"
        )
        parts.append(f"sidecars in every namespace ({known})")
    for assumed, remark in ((False, ""), (True, ", whose pods are assumed")):
        names = {
            name for each in gateways if each.proxy.assumed is assumed for name in each.gateways
        }
        if names:
            kind = "Gateway" if len(names) == 1 else "Gateways"
            parts.append(f"the proxies of {kind} {_listed(sorted(names))}{remark}")
    return "; ".join(parts)


def _listed(names: Iterable[str]) -> str:
    """Names, the first of them."""
    return first_of(list(dict.fromkeys(names)), MAX_PLACES)


def _class(number: int, difference: Difference, remark: str, paint: Paint) -> Iterator[str]:
    first = difference.places[0]
    example = difference.example
    yield paint(safe(f"{number}. {example}"), "bold")
    if isinstance(example, Request):
        for name, value in sorted(example.headers.items()):
            yield f"   header  {safe(f'{name}: {value}')}"
    yield f"   from    {safe(first.name)}, port {first.port}"
    paths = _paths(difference)
    yield f"   before  {safe(_decision(difference.before, paths[0]))}"
    yield f"   after   {safe(_decision(difference.after, paths[1]))}"
    if difference.aspects not in (["destinations"], ["answer"]):
        yield f"   differs {safe(', '.join(difference.aspects))}"
    if remark:
        yield f"   why     {safe(remark)}"
    others = _others(difference.places)
    if others:
        yield f"   also    {safe(others)}"


def _others(places: Sequence[Place]) -> str:
    """The other places, the first of them by name."""
    first = places[0]
    names = dict.fromkeys(
        f"{place.host}:{place.port}" + (f" from {place.name}" if place.name != first.name else "")
        for place in places[1:]
    )
    return _listed(names)


def _paths(difference: Difference) -> tuple[str | None, str | None]:
    """The paths that upstreams get of the example, before and after, if a rewrite tells them."""
    before, after = difference.before, difference.after
    if not (before.treatment.rewriting.changes or after.treatment.rewriting.changes):
        return None, None
    one, other = (_path(each, difference.example) for each in (before, after))
    return (None, None) if one == other else (one, other)


def _path(decision: Decision, example: Request | Connection) -> str | None:
    """The path with query that an upstream gets; None where none does, or nobody knows."""
    if not isinstance(example, Request) or not decision.treatment.arrives:
        return None
    try:
        return with_query(decision.treatment.rewriting.of(example.path), example)
    except Undecidable:
        return None


def _decision(decision: Decision, path: str | None) -> str:
    named = rule_of(decision)
    text = decision.treatment.summary + (f" as {path}" if path else "")
    return f"{text}{f' by {named}' if named else ''}"


def rule_of(decision: Decision) -> str:
    """The rule and match that decide, as a message names them; "" where none does."""
    chain = decision.chain
    if chain:
        vs = chain.virtual_service
        return f"{vs.resource} {dotted(chain.path[1:])}" if vs else ""
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
        "compared": [_compared_document(each) for each in comparison.compared],
        "unreadable": list(map(str, unreadable)),
        **({"notes": list(comparison.notes)} if comparison.notes else {}),
    }


def _compared_document(compared: Compared) -> Mapping[str, Any]:
    return {
        "kind": _kind(compared.proxy),
        "gateways": list(compared.gateways),
        "namespace": compared.proxy.namespace,
        "labels": dict(sorted(compared.proxy.labels.items())),
        "assumed": compared.proxy.assumed,
    }


def _kind(proxy: Proxy) -> str:
    return "gateway" if proxy.is_gateway else "sidecar"


def _document(difference: Difference) -> Mapping[str, Any]:
    return {
        "protocol": difference.protocol,
        "request": _example(difference.example),
        "from": _place(difference.places[0]),
        "before": _decision_document(difference.before, difference.example),
        "after": _decision_document(difference.after, difference.example),
        "differsIn": list(difference.aspects),
        "places": [_place(place) for place in difference.places],
    }


def _example(example: Request | Connection) -> Mapping[str, Any]:
    if isinstance(example, Connection):
        return {
            "url": example.url,
            "port": example.port,
            "serverName": example.server_name,
            "address": example.address,
        }
    return {
        "method": example.method,
        "url": _full_url(example),
        "port": example.port,
        "headers": dict(example.headers),
        "curl": _curl(example),
    }


def _full_url(example: Request) -> str:
    query = f"?{example.query}" if example.query else ""
    return _url(example.scheme, example.authority, example.port) + example.path + query


def _url(scheme: str, authority: str, port: int) -> str:
    _, colon, stated = authority.rpartition(":")
    default = {"http": 80, "https": 443}[scheme]
    named = (colon and stated.isdigit()) or port == default
    return f"{scheme}://{authority}" + ("" if named else f":{port}")


def _curl(example: Request) -> str:
    """The request as a command, for whoever wants to see for himself."""
    words = ["curl", "-X", example.method]
    for name, value in example.headers.items():
        words += ["-H", f"{name}: {value}" if value else f"{name};"]
    return shlex.join([*words, _full_url(example)])


def _place(place: Place) -> Mapping[str, Any]:
    return {
        "proxy": place.name,
        "kind": _kind(place.proxy),
        "namespace": place.proxy.namespace,
        "labels": dict(place.proxy.labels),
        "port": place.port,
        "host": place.host,
    }


def _decision_document(decision: Decision, example: Request | Connection) -> Mapping[str, Any]:
    route, chain = decision.route, decision.chain
    rule = route.rule if route else None
    root = route.virtual_service if route else chain.virtual_service if chain else None
    found: Mapping[str, Any] | None = None
    if rule:
        found = {
            "object": str(rule.owner.resource),
            "index": rule.index,
            "name": rule.name or None,
        }
    elif chain and root:
        found = {"object": str(root.resource), "index": chain.rule_index, "name": None}
    match = route.match.index if route and route.match else chain.match_index if chain else None
    return {
        "treatment": decision.treatment.summary,
        "path": _path(decision, example),
        "virtualService": f"{root.namespace}/{root.resource.name}" if root else None,
        "rule": found,
        "match": match,
    }
