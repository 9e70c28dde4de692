"""The answer to a request or a connection as plain values, the same for one and for many.

Fields are only ever added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.report.json_ import API_VERSION
from kubectl_mesh.routing.chains import Chain
from kubectl_mesh.routing.connection import Connection
from kubectl_mesh.routing.proxies import NamedProxy
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.table import Passed, Route
from kubectl_mesh.routing.trace import Trace
from kubectl_mesh.routing.upstreams import Upstream, is_ready, why_these_rules

FIELDS = (
    "virtualService",
    "rule",
    "match",
    "status",
    "destinations",
    "directResponse",
    "redirect",
    "outcome",
    "flag",
    "why",
    "undecided",
    "delegate",
    "rewrite",
    "mirrors",
    "fault",
    "timeout",
    "retries",
    "headers",
    "protocol",
)
"""What an answer holds, and what an `expect` may name."""


def answer(trace: Trace) -> dict[str, Any]:
    """What becomes of a request: the fields of FIELDS."""
    route, effect = trace.route, trace.effect
    data = route.action.data if route else {}
    answered = effect.outcome == "direct-response"
    rewrite = data.get("rewrite") or {}
    sent = bool(effect.upstreams)
    return {
        **(_match_of(trace.chain) if trace.chain else _rule(route)),
        "status": effect.status,
        "destinations": [_destination(up, len(effect.upstreams)) for up in effect.upstreams],
        "directResponse": _direct_response(data) if answered else None,
        "redirect": {"status": effect.status, "location": trace.location}
        if trace.location
        else None,
        "outcome": effect.outcome,
        "flag": effect.flag,
        "why": effect.why or None,
        "undecided": trace.undecided,
        "delegate": _delegate(route),
        "rewrite": {"path": trace.path, "authority": rewrite.get("authority")}
        if rewrite and sent
        else None,
        "mirrors": [
            {**_destination(mirror.upstream, 1), "weight": mirror.percent}
            for mirror in effect.mirrors
        ],
        "fault": data.get("fault"),
        "timeout": data.get("timeout") if sent else None,
        "retries": data.get("retries") if sent else None,
        "headers": data.get("headers"),
        "protocol": trace.protocol,
    }


def _match_of(chain: Chain) -> Mapping[str, Any]:
    """The tcp or tls rule by which a filter chain is made."""
    vs = chain.virtual_service
    return {
        "virtualService": f"{vs.namespace}/{vs.resource.name}" if vs else None,
        "rule": chain.rule_index,
        "match": chain.match_index,
    }


def _rule(route: Route | None) -> Mapping[str, Any]:
    if route is None or route.rule is None or route.virtual_service is None:
        return {"virtualService": None, "rule": None, "match": None}
    vs = route.virtual_service.resource
    return {
        "virtualService": f"{vs.namespace}/{vs.name}",
        "rule": route.rule.name or route.rule.index,
        "match": route.match.index if route.match else None,
    }


def _delegate(route: Route | None) -> str | None:
    if route is None or route.rule is None or route.rule.owner is route.virtual_service:
        return None
    owner = route.rule.owner.resource
    return f"{owner.namespace}/{owner.name}"


def _destination(up: Upstream, of: int) -> Mapping[str, Any]:
    target = up.target
    return {
        "host": target.host,
        "port": target.port,
        "subset": target.subset,
        "weight": 100 if of == 1 else target.weight,
        "cluster": target.cluster,
        "flag": up.flag,
    }


def _direct_response(data: Mapping[str, Any]) -> Mapping[str, Any]:
    response = data["directResponse"]
    body = response.get("body") or {}
    return {"status": response.get("status"), "body": body.get("string", body.get("bytes"))}


def document(
    trace: Trace, source: NamedProxy, snapshot: Snapshot, unknown: Sequence[str]
) -> Mapping[str, Any]:
    """All that is known of one request's way; `unknown` is what could not be read."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Route",
        "request": _asked(trace.request),
        "from": {
            "kind": "gateway" if source.proxy.is_gateway else "sidecar",
            "name": source.name,
            "namespace": source.proxy.namespace,
            "labels": dict(source.proxy.labels),
        },
        "listener": trace.listener,
        "virtualHost": trace.table.domain if trace.table else None,
        **answer(trace),
        "destinationRules": [
            _lookup(up, source.proxy.namespace, snapshot) for up in trace.effect.upstreams
        ],
        "endpoints": [_endpoints(up) for up in trace.effect.upstreams],
        "tried": [_tried(passed) for passed in trace.passed],
        "notes": list(source.notes),
        "unknown": list(unknown),
    }


def _asked(request: Request | Connection) -> Mapping[str, Any]:
    if isinstance(request, Connection):
        return {
            "scheme": request.scheme,
            "host": request.host,
            "port": request.port,
            "serverName": request.server_name,
        }
    return {
        "method": request.method,
        "scheme": request.scheme,
        "serverName": request.dialled_host if request.scheme == "https" else None,
        "dialled": request.dialled_host,
        "authority": request.authority,
        "port": request.port,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
    }


def _lookup(up: Upstream, namespace: str, snapshot: Snapshot) -> Mapping[str, Any]:
    return {
        "cluster": up.target.cluster,
        "names": [f"{rule.namespace}/{rule.resource.name}" for rule in up.rules],
        "subset": {"name": up.subset.name, "labels": dict(up.subset.labels)} if up.subset else None,
        "why": why_these_rules(up, namespace, snapshot),
    }


def _endpoints(up: Upstream) -> Mapping[str, Any]:
    pods = up.pods or ()
    return {
        "cluster": up.target.cluster,
        "known": up.pods is not None,
        "workloads": [
            {
                "kind": pod.resource.kind,
                "namespace": pod.namespace,
                "name": pod.resource.name,
                "ready": is_ready(pod),
            }
            for pod in pods
        ],
    }


def _tried(passed: Passed) -> Mapping[str, Any]:
    return {**_rule(passed.route), "delegate": _delegate(passed.route), "why": passed.why}
