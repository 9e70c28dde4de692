"""All that can be seen of a request, as the model tells it.

The model says which rule takes a request, whether an upstream gets it and which, with which path,
where copies go and where a redirect leads. What it has no words for is made here of the data of the
rule that it names: what becomes of the Host and other headers, how often an upstream is tried, and
what CORS adds to an answer.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from kubectl_mesh.routing.paths import with_query
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.table import Route
from kubectl_mesh.routing.trace import Trace
from kubectl_mesh.routing.upstreams import Upstream

from .build import istio_release
from .manifests import Object
from .random_treatments import HEADERS

CORS = "access-control-"
TIMED_OUT = 504
_BODIES = {"FI": "fault filter abort", "UH": "no healthy upstream"}
"""What Envoy says where it answers with a flag."""
_TIMEOUTS = {None: 0.0, "0.4s": 0.4, "400ms": 0.4, "2s": 2.0}
_GRPC = {"1": "cancelled", "14": "unavailable"}
_RETRIED_BY_DEFAULT = {"cancelled", "unavailable", *(["503"] if istio_release() == "1.22" else [])}
_RETRIES_BY_DEFAULT = 2
_SHADOWED = istio_release() == "1.22"
"""Whether copies have another Host."""

Headers = dict[str, list[str]]


def told(trace: Trace) -> Object:
    """What is seen of a request, by the names of what can be seen.

    `status`, `location`, `body` and `headers` of the answer; the body of an upstream's is None.
    `got` counts what pods get: as often as the upstream is tried, and copies.
    """
    request, route, effect = trace.request, trace.route, trace.effect
    assert isinstance(request, Request)
    data = route.action.data if route else {}
    seen: Object = {
        "status": effect.status,
        "location": trace.location,
        "body": _BODIES.get(effect.flag or "", ""),
        "headers": {},
        "got": Counter(),
    }
    answer: Headers = {}
    if effect.outcome == "direct-response":
        body = data["directResponse"].get("body") or {}
        seen["body"] = body.get("string") or base64.b64decode(body.get("bytes", "")).decode()
    elif effect.outcome == "upstream":
        assert route
        (up,) = effect.upstreams
        status, tries = _tried(data, request)
        seen["status"] = status
        seen["got"][arrival(_pods(up), **_got(trace, up))] += tries
        if status == TIMED_OUT:
            seen["body"] = "upstream request timeout"
        else:
            seen["body"] = None
            answer = _named(request, "x-reply-")
    for mirror in effect.mirrors:
        if not mirror.upstream.flag:
            pods = may_get(trace, _pods(mirror.upstream))
            seen["got"][arrival(pods, **_got(trace, mirror.upstream, copy=True))] += 1
    if route and _is_changed(route, effect.outcome):
        answer = _changed(answer, _operations(route, "response"))
    seen["headers"] = {name: ",".join(values) for name, values in answer.items()}
    if effect.outcome not in ("abort", "redirect", "direct-response"):
        seen["headers"] |= _cors(data.get("corsPolicy") or {}, request, effect.outcome)
    return seen


def _is_changed(route: Route, outcome: str) -> bool:
    """Whether Envoy changes the headers of an answer as a route says.

    Filters answer before there is a redirect or a direct response.
    """
    if outcome == "abort":
        return not route.action.answers
    return outcome != "preflight"


def arrival(pods: Iterable[str], *, port: int, path: str, host: str, headers: Object) -> str:
    """A request as one of some pods gets it, in words that are the same for the same."""
    changed = {name: value for name, value in sorted(headers.items()) if name in HEADERS}
    return f"{' or '.join(sorted(pods))} {port}: {host} {path} {changed}"


def may_get(trace: Trace, pods: Iterable[str]) -> list[str]:
    """The pods of the upstream, if these are some of them: any may get it; else just these."""
    every = [_pods(up) for up in trace.effect.upstreams if up.pods and not up.flag]
    return next((each for each in every if set(pods) <= set(each)), list(pods))


def _pods(up: Upstream) -> list[str]:
    assert up.pods
    return [pod.resource.name for pod in up.pods]


def _got(trace: Trace, up: Upstream, *, copy: bool = False) -> Object:
    """What an upstream gets, and at which port of its pods."""
    request, route = trace.request, trace.route
    assert isinstance(request, Request)
    assert route
    port = up.service.port(up.target.port) if up.service else None
    assert port
    changed = _changed(_named(request, ""), _operations(route, "request"))
    host = _authority(route) or request.authority
    return {
        "port": port.target,
        "path": trace.path or with_query(request.path, request),
        "host": _shadow(host) if copy and _SHADOWED else host,
        "headers": {name: ",".join(values) for name, values in changed.items()},
    }


def _named(request: Request, prefix: str) -> Headers:
    """Those of HEADERS that a request has behind a prefix."""
    given = request.headers
    return {name: [given[prefix + name]] for name in HEADERS if prefix + name in given}


def _shadow(host: str) -> str:
    name, colon, port = host.partition(":")
    return f"{name}-shadow{colon}{port}"


def _sent(route: Route) -> Mapping[str, Any]:
    """The entry of the rule's `route` that gets everything."""
    entries: list[Mapping[str, Any]] = (route.rule.data.get("route") if route.rule else None) or [
        {}
    ]
    if len(entries) == 1:
        return entries[0]
    return next(each for each in entries if each.get("weight"))


def _authority(route: Route) -> str | None:
    """The Host that a route sets: its own word counts before that of a destination."""
    named: str | None = (route.action.data.get("rewrite") or {}).get("authority")
    for headers in (route.action.data.get("headers"), _sent(route).get("headers")):
        request = (headers or {}).get("request") or {}
        for verb in ("set", "add"):
            for name, value in (request.get(verb) or {}).items():
                if name.lower() in ("host", ":authority"):
                    named = named or value
    return named


def _operations(route: Route, way: str) -> list[list[Mapping[str, Any]]]:
    """The changes of headers, in groups that are made one after another.

    istiod joins those of a single destination with those of the rule. Of several Envoy makes the
    destination's first.
    """
    rule = (route.action.data.get("headers") or {}).get(way) or {}
    if route.action.answers or not route.rule:
        return [[rule]]
    destination = (_sent(route).get("headers") or {}).get(way) or {}
    if len(route.rule.data.get("route") or []) == 1:
        return [[rule, destination]]
    return [[destination], [rule]]


def _changed(headers: Headers, groups: Iterable[list[Mapping[str, Any]]]) -> Headers:
    """Headers after changes: in each group Envoy removes first, then sets, then adds."""
    found = dict(headers)
    for group in groups:
        for operations in group:
            for name in operations.get("remove") or ():
                found.pop(name.lower(), None)
        for operations in group:
            for name, value in (operations.get("set") or {}).items():
                found[name.lower()] = [value]
        for operations in group:
            for name, value in (operations.get("add") or {}).items():
                found[name.lower()] = [*found.get(name.lower(), []), value]
    return {name: values for name, values in found.items() if name in HEADERS}


def _tried(data: Mapping[str, Any], request: Request) -> tuple[int, int]:
    """The status that a client gets in the end, and how often the upstream gets the request."""
    policy = data.get("retries")
    retries = _RETRIES_BY_DEFAULT if policy is None else policy.get("attempts") or 0
    stated = (policy or {}).get("retryOn") or ""
    conditions = {each.strip() for each in stated.split(",")} if stated else _RETRIED_BY_DEFAULT
    limit = _TIMEOUTS[data.get("timeout")]
    if slow := float(request.headers.get("x-slow", 0)):
        per_try = _TIMEOUTS[(policy or {}).get("perTryTimeout")]
        if limit and limit < slow and not (retries and per_try and per_try < limit):
            return TIMED_OUT, 1
        if retries and per_try:
            again = conditions & {"5xx", "gateway-error", "reset"}
            return TIMED_OUT, 1 + (retries if again else 0)
        return 200, 1
    status = int(request.headers.get("x-fail", 200))
    failures = {str(status)}
    if status >= 500:
        failures.add("5xx")
    if status in (502, 503, 504):
        failures.add("gateway-error")
    if status == 409:
        failures.add("retriable-4xx")
    failures.add(_GRPC.get(request.headers.get("x-reply-grpc-status", ""), ""))
    return status, 1 + (retries if conditions & failures else 0)


def _cors(policy: Mapping[str, Any], request: Request, outcome: str) -> dict[str, str]:
    """The headers that a corsPolicy adds to an answer."""
    origin = request.headers.get("origin")
    wanted = policy.get("allowOrigins") or [{"exact": it} for it in policy.get("allowOrigin") or ()]
    found: dict[str, str] = {}
    allowed = origin and any(_allows(each, origin) for each in wanted)
    if origin and allowed:
        found["allow-origin"] = origin
        found["expose-headers"] = ",".join(policy.get("exposeHeaders") or ())
    if policy.get("allowCredentials") and (allowed or outcome == "preflight"):
        found["allow-credentials"] = "true"
    if outcome == "preflight":
        found["allow-methods"] = ",".join(policy.get("allowMethods") or ())
        found["allow-headers"] = ",".join(policy.get("allowHeaders") or ())
        ages = {None: "", "24h": "86400", "60s": "60", "1m30s": "90"}
        found["max-age"] = ages[policy.get("maxAge")]
    return {f"{CORS}{name}": value for name, value in found.items() if value}


def _allows(wanted: Mapping[str, str], origin: str) -> bool:
    if wanted.get("exact"):
        return wanted["exact"] in ("*", origin)
    if wanted.get("prefix"):
        return origin.startswith(wanted["prefix"])
    return any(re.fullmatch(wanted["regex"], text) for text in ("*", origin))
