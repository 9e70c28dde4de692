"""The way of a request or a connection for people: the answer, then the steps that led to it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.resource import Path, dotted, field_at
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.texts import first_of
from kubectl_mesh.report import Layout
from kubectl_mesh.report.table import MAX_WIDTH, columns, place, wrap
from kubectl_mesh.routing.chains import Chain
from kubectl_mesh.routing.matching import Conditions
from kubectl_mesh.routing.proxies import NamedProxy
from kubectl_mesh.routing.table import Passed, Route
from kubectl_mesh.routing.trace import Trace
from kubectl_mesh.routing.upstreams import Upstream, is_ready, share, why_these_rules
from kubectl_mesh.term import Paint, safe

MAX_TRIED = 15
MAX_PODS = 6
_INDENT = "  "
_LABELS = 12


def render(
    trace: Trace, source: NamedProxy, snapshot: Snapshot, unknown: Sequence[str], layout: Layout
) -> str:
    """`unknown` is what could not be read, and might change the answer."""
    paint = Paint(layout.color)
    room = min(layout.width, MAX_WIDTH)
    parts = [
        f"{paint(safe(str(trace.request)), 'bold')}\n"
        + wrap(f"from {source.name}", room, "", _INDENT),
        paint(wrap(_answer(trace), room, "", _INDENT), "bold", _color(trace)),
        _block(list(_steps(trace, source, snapshot)), room, paint),
    ]
    if trace.passed:
        parts.append(_tried(trace.passed, room, paint))
    for heading, lines in (("NOTE", source.notes), ("NOT KNOWN", unknown)):
        if lines:
            listed = "\n".join(wrap(line, room, _INDENT, _INDENT * 2) for line in lines)
            parts.append(f"{paint(heading, 'bold', 'yellow')}\n{listed}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _color(trace: Trace) -> str:
    outcome = trace.effect.outcome
    if outcome in ("upstream", "redirect", "direct-response", "preflight"):
        return "yellow" if trace.effect.why and outcome == "upstream" else "green"
    return "yellow" if outcome in ("passthrough", "http", "undecided") else "red"


def _answer(trace: Trace) -> str:
    """What the client sees, in one sentence."""
    effect = trace.effect
    if effect.outcome == "undecided":
        doubtful = f"{_place(trace.route)} may match or not. " if trace.route else ""
        return f"Not decided: {doubtful}{effect.why}."
    if effect.outcome == "upstream":
        ups = effect.upstreams
        sent = f"to {_target(ups[0])}"
        if len(ups) > 1:
            sent = " and ".join(f"to {_target(up)} ({share(up.target, ups)})" for up in ups)
        return f"Goes {sent}." + (f" But {effect.why}." if effect.why else "")
    if effect.outcome == "redirect":
        why = f": {effect.why}" if effect.why else ""
        return f"{effect.status}, location {trace.location}{why}"
    if effect.outcome == "passthrough":
        return f"Passed through: {effect.why}."
    flag = f" ({effect.flag})" if effect.flag else ""
    if effect.status is None:
        closed = effect.outcome in ("no-cluster", "no-endpoint")
        return f"Closed{flag}: {effect.why}." if closed else _sentence(effect.why)
    return f"{effect.status}{flag}: {effect.why}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _target(up: Upstream) -> str:
    subset = f", subset {up.target.subset}" if up.target.subset else ""
    return f"{up.target.host} port {up.target.port}{subset}"


def _steps(trace: Trace, source: NamedProxy, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    yield "listener", trace.listener
    table, route = trace.table, trace.route
    if table and (route or not trace.location):
        kinds = {
            "service": "the Service's own, as no VirtualService rules here",
            "virtual-service": "of VirtualServices",
            "passthrough": "no virtual host has it",
            "dynamic-dns": "no virtual host has it",
            "blackhole": "no virtual host has it",
            "no-route": "no virtual host has it",
        }
        yield "host", f"{table.domain} ({kinds[table.kind]})"
    if route and route.rule:
        yield "rule", _place(route)
        told = "every request" if route.match is None else words(route.conditions)
        yield "match", told + _only(route.match.data if route.match else {})
        position = route.rule.owner.resource.origin.locate(_path(route))
        if position:
            yield "at", place(position)
    if trace.chain:
        yield from _chain(trace.chain)
    for up in trace.effect.upstreams:
        yield from _upstream(up, trace, source, snapshot)
    yield from _besides(trace)


def _chain(chain: Chain) -> Iterator[tuple[str, str]]:
    """The tcp or tls rule that takes a connection."""
    vs = chain.virtual_service
    if vs is None:
        if chain.service:
            yield "rule", "the Service's own route: no VirtualService has a rule for this"
        return
    yield "rule", f"{vs.resource} {dotted(chain.path)}"
    names = f"server name {' or '.join(chain.names)}" if chain.names else ""
    subnets = f"address in {' or '.join(map(str, chain.subnets))}" if chain.subnets else ""
    told = ", ".join(filter(None, (names, subnets))) or "every connection"
    match = field_at(vs.resource.data, chain.path) if chain.match_index is not None else {}
    yield "match", told + _only(match)
    position = vs.resource.origin.locate(chain.path)
    if position:
        yield "at", place(position)


def _upstream(
    up: Upstream, trace: Trace, source: NamedProxy, snapshot: Snapshot
) -> Iterator[tuple[str, str]]:
    ups = trace.effect.upstreams
    part = f"{share(up.target, ups)}, " if len(ups) > 1 else ""
    yield "cluster", f"{part}{up.target.cluster}"
    if up.service:
        yield "service", str(up.service.resource)
    rules = ", ".join(f"{rule.namespace}/{rule.resource.name}" for rule in up.rules) or "none"
    why = why_these_rules(up, source.proxy.namespace, snapshot)
    yield "policy", f"DestinationRule {rules}: {why}" if up.rules else f"no DestinationRule: {why}"
    if up.subset:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(up.labels.items()))
        yield "subset", f"{up.subset.name}: pods with {labels or 'any labels'}"
    if up.flag:
        status = "" if trace.connection else ", 503"
        yield "endpoints", f"none{status} ({up.flag}): {up.why}"
    elif up.pods is None:
        yield "endpoints", f"not known: {up.why}"
    if up.pods:
        yield "endpoints" if not up.flag else "", _pods(up)


def _pods(up: Upstream) -> str:
    pods = up.pods or ()
    states = [is_ready(pod) for pod in pods]
    words = {True: " (ready)", False: " (not ready)", None: ""}
    told = [f"{pod}{words[state]}" for pod, state in zip(pods, states, strict=True)]
    listed = first_of(told, MAX_PODS)
    if None in states:
        return listed
    return f"{states.count(True)} of {len(pods)} ready: {listed}"


def _besides(trace: Trace) -> Iterator[tuple[str, str]]:
    """What else happens to the request."""
    data: Mapping[str, Any] = trace.route.action.data if trace.route else {}
    effect = trace.effect
    if effect.outcome == "direct-response":
        body = (data["directResponse"].get("body") or {}).get("string")
        if body:
            yield "body", repr(body[:200])
    fault = data.get("fault") or {}
    if fault.get("delay"):
        delay = fault["delay"]
        yield "fault", f"delayed by {delay.get('fixedDelay')}{_of_requests(delay)}"
    if fault.get("abort") and effect.outcome != "abort":
        abort = fault["abort"]
        status = abort.get("httpStatus") or abort.get("grpcStatus")
        yield "fault", f"answered with {status}{_of_requests(abort)}"
    if effect.upstreams:
        if trace.path:
            yield "rewrite", f"the path becomes {trace.path}"
        rewrite = data.get("rewrite") or {}
        if rewrite.get("authority"):
            yield "rewrite", f"the host becomes {rewrite['authority']}"
        if data.get("timeout"):
            yield "timeout", str(data["timeout"])
        if data.get("retries"):
            yield "retries", _fields(data["retries"])
    for mirror in effect.mirrors:
        why = f", in vain: {mirror.upstream.why}" if mirror.upstream.flag else ""
        yield "mirror", f"{mirror.percent:g}% copied to {_target(mirror.upstream)}{why}"
    yield from _headers(data.get("headers") or {})
    if data.get("corsPolicy") and trace.route and not trace.route.action.answers:
        yield "cors", "the rule's corsPolicy answers preflight requests"


def _of_requests(fault: Mapping[str, Any]) -> str:
    percentage = fault.get("percentage")
    value = (percentage or {}).get("value") or 0
    return f", {value:g}% of requests" if percentage else ", 0% of requests: it has no percentage"


def _headers(headers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for way, operations in headers.items():
        done = [
            f"{verb} {_fields(operations[verb])}"
            for verb in ("set", "add")
            if (operations or {}).get(verb)
        ]
        if (operations or {}).get("remove"):
            done.append(f"remove {', '.join(operations['remove'])}")
        if done:
            yield "headers", f"{way}: {'; '.join(done)}"


def _fields(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {item}" for key, item in value.items())


def _place(route: Route) -> str:
    """The rule of a route, as people find it."""
    if route.rule is None:
        return "the Service's own route"
    owner = route.rule.owner
    name = f" ({route.rule.name})" if route.rule.name else ""
    text = f"{owner.resource} {dotted(_path(route))}{name}"
    if route.virtual_service and owner is not route.virtual_service:
        text += f", delegated by {route.virtual_service.resource}"
    return text


def _path(route: Route) -> Path:
    """To the match; to the rule, where the match is that of the root of a delegate."""
    assert route.rule
    rule = route.rule
    written = rule.owner.resource.spec["http"][rule.index].get("match")
    return (*rule.path, "match", route.match.index) if route.match and written else rule.path


def words(conditions: Conditions) -> str:
    """What conditions demand."""
    found = []
    if conditions.path:
        found.append(f"path {conditions.path}")
    for name, wanted in conditions.headers:
        found.append(f"{name[1:] if name.startswith(':') else f'header {name}'} {wanted}")
    found += [f"no header {name} that is {wanted}" for name, wanted in conditions.without]
    found += [f"query parameter {name} {wanted}" for name, wanted in conditions.parameters]
    return ", ".join(found) or "every request"


def _only(match: Mapping[str, Any]) -> str:
    """For whom a match is, and where, in words."""
    labels = match.get("sourceLabels") or {}
    listed = ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
    found = [
        f"on port {match['port']}" if match.get("port") else "",
        f"from pods with {listed}" if listed else "",
        f"from namespace {match['sourceNamespace']}" if match.get("sourceNamespace") else "",
    ]
    said = ", ".join(filter(None, found))
    return f" ({said})" if said else ""


def _tried(passed: Sequence[Passed], room: int, paint: Paint) -> str:
    shown = [(_place(each.route), each.why) for each in passed[:MAX_TRIED]]
    more = len(passed) - len(shown)
    heading = paint("TRIED BEFORE, in this order", "bold")
    lines = [wrap(f"{where}: {why}", room, _INDENT, _INDENT * 2) for where, why in shown]
    if more:
        lines.append(f"{_INDENT}and {more} more; -o json names them all")
    return "\n".join((heading, *lines))


def _block(steps: Sequence[tuple[str, str]], room: int, paint: Paint) -> str:
    width = room - _LABELS - len(_INDENT)
    rows = [(paint(label, "dim"), wrap(text, width)) for label, text in steps]
    return textwrap.indent(columns(rows), _INDENT)
