"""What becomes of a request that takes a route, in a form that two configurations can share.

Names that only tell rules and subsets apart are left out: requests that go to the same pods by the
same policy, with the same changes on the way, are treated the same. Of a subset whose definition is
not in the input only the name is known: it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from kubectl_mesh.mesh.config import MeshConfig
from kubectl_mesh.mesh.destination_rules import Lookup
from kubectl_mesh.mesh.proxy import Proxy
from kubectl_mesh.mesh.registry import Service
from kubectl_mesh.mesh.virtual_services import is_idle
from kubectl_mesh.proof.header_changes import authority, come_to
from kubectl_mesh.routing.paths import redirect_status
from kubectl_mesh.routing.rewriting import UNCHANGED, Rewriting
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Action, Route, Target, percent_of, shares
from kubectl_mesh.routing.upstreams import upstream

_SECONDS = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 10**6),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|m|s)", re.ASCII)


@dataclass(frozen=True)
class Treatment:
    """What becomes of requests.

    `apart` is the same for what is treated the same apart from `rewriting`, which is what becomes
    of the path. `summary` says it in words; `aspects` holds each part of it, to tell what differs.
    `fails` says whether some of the requests are refused on the way, `arrives` whether some are
    sent to an upstream that the rules name.
    """

    apart: str
    summary: str
    aspects: Mapping[str, Any]
    fails: bool
    arrives: bool = False
    rewriting: Rewriting = UNCHANGED

    @cached_property
    def key(self) -> str:
        """The same for what is treated the same, whatever the path."""
        return f"{self.apart} {self.rewriting}" if self.rewriting.changes else self.apart

    def is_as(self, other: Treatment, path: str) -> bool:
        """Whether both do the same with requests for a path. Raises Undecidable."""
        if self.key == other.key or self.apart != other.apart:
            return self.key == other.key
        return self.rewriting.of(path) == other.rewriting.of(path)


def fixed(name: str, summary: str, *, fails: bool = False) -> Treatment:
    """A treatment that no rule decides."""
    return Treatment(name, summary, {"answer": name}, fails)


def treatment_of(router: Router, route: Route, proxy: Proxy) -> Treatment:
    """What a proxy does with the requests that take a route."""
    action = route.action
    words = [
        f"{spoken} {_compact(action.data[field])}"
        for field, spoken in _SPOKEN.items()
        if action.data.get(field) is not None
    ]
    aspects: dict[str, Any] = {}
    rewriting, fails, arrives = UNCHANGED, False, False
    if action.targets:
        sent = _destinations(
            router,
            action.targets,
            _beside_destinations(route),
            proxy,
            aborted=_is_aborted(action),
        )
        if sent.shares:
            aspects["destinations"] = sent.shares
        words.append(sent.spoken)
        fails, arrives = sent.fails, sent.arrives
        rewriting = route.rewriting if arrives else rewriting
    elif action.answers:
        rewriting = UNCHANGED if _is_aborted(action) else route.rewriting
    elif not _is_aborted(action):
        aspects["answer"] = "no destination"
        words.append("no destination")
        fails = True
    fails = fails or _is_refused(action)
    aspects = _settings(router.snapshot.config, action, arrives=arrives) | aspects
    if action.copies and arrives:  # what has no cluster is not copied either
        mirrors, spoken = _mirrors(router, action, proxy)
        if mirrors:
            aspects["mirrors"] = [*aspects.get("mirrors", ()), *mirrors]
        words += spoken
    apart = _compact(_effective(route, aspects))
    if rewriting.changes:
        path = {"path": [rewriting.text, rewriting.cut, rewriting.expression]}
        field = "redirect" if action.answers else "rewrite"
        aspects[field] = {**aspects.get(field, {}), **path}
    return Treatment(apart, ", ".join(words), aspects, fails, arrives, rewriting)


def _effective(route: Route, aspects: Mapping[str, Any]) -> Mapping[str, Any]:
    """The aspects, with what all changes of headers come to in place of these."""
    rule = aspects.get("headers", {})
    rewrite = aspects.get("rewrite", {})
    single = len((route.rule.data.get("route") or ()) if route.rule else ()) == 1
    destinations = [
        {
            **share,
            "beside": _without(share.get("beside", {}), "headers"),
            "headers": come_to(rule, own, single=single),
            "authority": authority(rewrite, rule, own),
        }
        for share in aspects.get("destinations", ({},))
        for own in (share.get("beside", {}).get("headers", {}),)
    ]
    rest = _without(aspects, "headers", "rewrite")
    return {**rest, "rewrite": _without(rewrite, "authority"), "destinations": destinations}


_SPOKEN = {"redirect": "redirect", "directResponse": "direct response"}
_APART = ("mirrorPercent", "mirrorPercentage", "destinationHeaders")
_FOR_UPSTREAMS = ("rewrite", "timeout", "retries", "mirror", "mirrors", "corsPolicy")
"""What istiod leaves out where the proxy answers by itself, or Envoy does not look at."""
_FOR_ARRIVING = ("rewrite", "timeout", "retries", "mirror", "mirrors")
"""What matters only where an upstream gets the request."""
_BEHIND_FAULTS = ("redirect", "directResponse", "corsPolicy")
_ALL = 100  # percent
_USUAL_RETRIES = 2


def _is_aborted(action: Action) -> bool:
    """Whether a fault answers all requests: the filter for faults comes before all others."""
    return action.abort is not None and action.abort.percent >= _ALL


def _settings(config: MeshConfig, action: Action, *, arrives: bool) -> dict[str, Any]:
    """The rule's words on everything but destinations and paths, alike where they mean the same.

    Without what has no effect, as no request arrives at an upstream, or a fault comes before it.
    Fields that nobody knows here count as they are written.
    """
    found: dict[str, Any] = {}
    for field, value in action.data.items():
        if field in _APART or (action.answers and field in _FOR_UPSTREAMS):
            continue
        if not arrives and field in _FOR_ARRIVING:
            continue
        if _is_aborted(action) and field in _BEHIND_FAULTS:
            continue
        if field == "headers":
            value = _headers(action, value, arrives=arrives)
        elif field == "fault":
            value = _fault(value)
        elif field == "rewrite":
            value = _without(value, "uri", "uriRegexRewrite")
        elif field == "redirect":
            value = _redirect(value)
        elif field == "corsPolicy":
            value = _cors(value)
        elif field == "mirror":
            value = _without(value, "host", "subset", "port")
        elif field == "mirrors":
            value = [_beside(policy, "percentage") for policy in value]
            value = [each for each in value if each]
        elif field == "timeout" and _duration(value) == "0":
            continue
        elif field == "retries" and (value.get("attempts") or 0) <= 0:
            value = {"attempts": 0}  # not even those that there are without it
        elif field == "retries" and _is_usual(config, value):
            continue
        if value not in ({}, []):
            found[field] = _plain(value)
    return found


def _headers(action: Action, data: Mapping[str, Any], *, arrives: bool) -> dict[str, Any]:
    """The changes of headers that are made: none of requests that no upstream gets."""
    if action.answers and _is_aborted(action):
        return {}
    found: dict[str, Any] = _without_empty(data)
    return found if arrives else _without(found, "request")


def _is_usual(config: MeshConfig, retries: Mapping[str, Any]) -> bool:
    """Whether retries are as they are without a word on them, in a mesh with Istio's default."""
    is_default = all(name != "defaultHttpRetryPolicy" for name, _ in config.unread)
    stated = {field: value for field, value in retries.items() if value not in (None, "")}
    return is_default and stated == {"attempts": _USUAL_RETRIES}


def _without(value: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key not in fields and each is not None}


def _beside(entry: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What an entry with a destination says besides."""
    found = _without(entry, "destination", *known)
    more = _without(entry.get("destination") or {}, "host", "subset", "port")
    return {**found, "destination": more} if more else found


def _redirect(data: Mapping[str, Any]) -> dict[str, Any]:
    """A redirect with its status written out, and without a port that Envoy leaves out."""
    found = {**_without(data, "prefixRewrite"), "redirectCode": redirect_status(data)}
    usual = {"http": 80, "https": 443}.get(found.get("scheme") or "")
    if found.get("port") == usual:
        found.pop("port", None)
    if found.get("derivePort") == "FROM_PROTOCOL_DEFAULT":
        del found["derivePort"]
    return found


def _cors(data: Mapping[str, Any]) -> dict[str, Any]:
    """A corsPolicy without what it says of the default; nothing where it has no effect."""
    found: dict[str, Any] = _without_empty(data)
    older = found.pop("allowOrigin", ())
    if data.get("allowOrigins") is None and older:
        found["allowOrigins"] = [{"exact": each} for each in older]
    if not found.get("allowCredentials"):
        found.pop("allowCredentials", None)
    if found.get("unmatchedPreflights") != "IGNORE":
        found.pop("unmatchedPreflights", None)
    return found if {"allowOrigins", "unmatchedPreflights"} & set(found) else {}


def _fault(data: Mapping[str, Any]) -> dict[str, Any]:
    """The faults that are injected into some requests, each with its percentage."""
    found = _without(data)
    for kind, older in (("delay", "percent"), ("abort", "")):
        fault = found.pop(kind, None) or {}
        percent = percent_of(fault, fault.get(older) or 0)
        if percent > 0 and any(fault.get(field) for field in _EFFECTIVE[kind]):
            found[kind] = {**_without(fault, "percentage", older), "percent": percent}
    return found


_EFFECTIVE = {"delay": ("fixedDelay",), "abort": ("httpStatus", "grpcStatus")}
"""The fields without which a fault is none."""
_REFUSED = 400


def _is_refused(action: Action) -> bool:
    """Whether the proxy itself answers some requests with an error."""
    abort = action.abort
    if abort and (abort.http >= _REFUSED or abort.grpc not in ("", "OK")):
        return True
    if action.data.get("redirect") is not None:
        return False
    return ((action.data.get("directResponse") or {}).get("status") or 0) >= _REFUSED


def _without_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_empty(each) for key, each in value.items()}
    return {key: each for key, each in kept.items() if each not in (None, {}, [])}


def _plain(value: Any) -> Any:
    """A copy with durations written one way and without nulls."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return _duration(value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    """A duration as a number of seconds and `s`, `0` for none; any other text as it is."""
    parts = _DURATION.findall(value) if isinstance(value, str) else ()
    if not parts or "".join(map("".join, parts)) != value:
        return value
    total = sum((Fraction(number) * _SECONDS[unit] for number, unit in parts), Fraction())
    return f"{total}s" if total else "0"


def treatment_of_connection(router: Router, targets: Sequence[Target], proxy: Proxy) -> Treatment:
    """What becomes of a TCP connection that is balanced over targets."""
    sent = _destinations(router, targets, [{} for _ in targets], proxy, "closed")
    aspects = {"destinations": sent.shares}
    return Treatment(_compact(aspects), sent.spoken, aspects, sent.fails, sent.arrives)


@dataclass(frozen=True)
class _Sent:
    """The shares of each upstream, merged and in a fixed order; and the same in words.

    `fails` says whether some get nowhere, `arrives` whether the proxy has a cluster for some.
    """

    shares: Sequence[Mapping[str, Any]]
    spoken: str
    fails: bool
    arrives: bool


def _destinations(
    router: Router,
    targets: Sequence[Target],
    beside: Sequence[Mapping[str, Any]],
    proxy: Proxy,
    vain: str = "503",
    *,
    aborted: bool = False,
) -> _Sent:
    """Where requests go; `beside` is what is said of each target besides.

    `vain` says what becomes of what gets nowhere. With `aborted` nothing goes anywhere.
    """
    found: dict[str, Fraction] = {}
    described: dict[str, Any] = {}
    spoken = []
    fails = arrives = False
    for target, share, more in zip(targets, shares(targets), beside, strict=True):
        where = _upstream(router, target, proxy)
        flag = f" ({vain} {where['flag']})" if "flag" in where else ""
        percent = "" if len(targets) == 1 else f"{float(share * 100):g}% "
        spoken.append(f"{percent}{_named(target)}{flag}")
        if aborted:
            where = {}
        is_sent = not aborted and where.get("flag") != "NC"
        more = more if is_sent else _of_answers(more)
        if more:
            where["beside"] = more
        fails = fails or "flag" in where
        arrives = arrives or is_sent
        if where:
            key = _compact(where)
            found[key] = found.get(key, Fraction()) + share
            described[key] = where
    return _Sent(
        [{**described[key], "share": str(share)} for key, share in sorted(found.items())],
        ", ".join(spoken),
        fails,
        arrives,
    )


def _of_answers(beside: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of what is said of a target where no request is sent to it."""
    response = (beside.get("headers") or {}).get("response")
    return {"headers": {"response": response}} if response else {}


def _beside_destinations(route: Route) -> list[dict[str, Any]]:
    """What the rule says of each target besides, of headers above all."""
    routes = (route.rule.data.get("route") or []) if route.rule else []
    kept = [each for each in routes if not is_idle(each, routes)]
    found = [_without_empty(_beside(each, "weight")) for each in kept]
    return found or [{} for _ in route.action.targets]


def _upstream(router: Router, target: Target, proxy: Proxy) -> dict[str, Any]:
    found = upstream(router, target, proxy)
    where: dict[str, Any] = {"host": target.host, "port": target.port}
    if found.flag == "NC":
        return {**where, "flag": "NC"}
    if found.flag:
        where["flag"] = found.flag
    elif target.subset and not found.subset:
        where["subset"] = target.subset
    where["labels"] = dict(found.labels)
    where["policy"] = _plain(Lookup(found.rules).policy(found.subset, target.port))
    if found.service:
        where["behind"] = _behind(found.service, target.port)
    return where


def _behind(service: Service, number: int) -> list[Any]:
    """What stands behind a port of a host."""
    port = service.port(number)
    return [service.selector, port and [port.target, port.protocol], service.settings]


def _mirrors(
    router: Router, action: Action, proxy: Proxy
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Where copies go, and the part of the requests that is copied; and the same in words."""
    found: list[Mapping[str, Any]] = []
    spoken = []
    for copies in action.copies:
        where = {**_upstream(router, copies.target, proxy), "percent": copies.percent}
        if where.get("flag") != "NC":
            found.append(where)
        vain = f" in vain ({where['flag']})" if "flag" in where else ""
        spoken.append(f"{copies.percent:g}% copied to {_named(copies.target)}{vain}")
    return sorted(found, key=_compact), sorted(spoken)


def _named(target: Target) -> str:
    subset = f" subset {target.subset}" if target.subset else ""
    return f"{target.host}:{target.port}{subset}"


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def differing(before: Treatment, after: Treatment) -> list[str]:
    """The names of the parts of two treatments that are not the same."""
    names = dict.fromkeys((*before.aspects, *after.aspects))
    return [name for name in names if before.aspects.get(name) != after.aspects.get(name)]
