"""What becomes of a request that takes a route, in a form that two configurations can share.

Names that only tell rules and subsets apart are left out: requests that go to the same pods by the
same policy, with the same changes on the way, are treated the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from kubectl_mesh.routing.outcome import upstream
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.table import Route, Target

_SECONDS = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 10**6),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|m|s)", re.ASCII)
_FULL = 100.0


@dataclass(frozen=True)
class Treatment:
    """What becomes of requests. `key` is the same for what is treated the same.

    `summary` says it in words; `aspects` holds each part of it, to tell what differs.
    """

    key: str
    summary: str
    aspects: Mapping[str, Any]

    @property
    def fails(self) -> bool:
        """Whether some of the requests are refused on the way, as far as configuration says."""
        fault = self.aspects.get("fault") or {}
        return (
            self.aspects.get("answer") in _FAILING
            or "(503" in self.summary
            or "(closed" in self.summary
            or (isinstance(fault, Mapping) and "abort" in fault)
        )


_FAILING = ("404", "blackhole", "closed", "rejected")


def fixed(name: str, summary: str) -> Treatment:
    """A treatment that no rule decides."""
    return Treatment(name, summary, {"answer": name})


@dataclass(frozen=True)
class Caller:
    """The pods of a proxy, as far as it matters which DestinationRules it has."""

    namespace: str
    labels: frozenset[tuple[str, str]] = frozenset()


def treatment_of(router: Router, route: Route, caller: Caller) -> Treatment:
    """What a proxy does with the requests that take a route."""
    action = route.action
    aspects: dict[str, Any] = _settings(action.data)
    words = [
        f"{spoken} {_compact(action.data[field])}"
        for field, spoken in _SPOKEN.items()
        if action.data.get(field) is not None
    ]
    if action.targets:
        aspects["destinations"], spoken = _destinations(
            router, action.targets, _destination_headers(route), caller
        )
        words.append(spoken)
    elif not words:
        aspects["answer"] = "no destination"
        words.append("no destination")
    mirrors = _mirrors(router, route, caller)
    if mirrors:
        aspects["mirrors"] = mirrors
    return Treatment(json.dumps(aspects, sort_keys=True, default=str), ", ".join(words), aspects)


_SPOKEN = {"redirect": "redirect", "directResponse": "direct response"}
_APART = ("mirror", "mirrors", "mirrorPercent", "mirrorPercentage", "destinationHeaders")


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's words on everything but destinations, alike where they mean the same."""
    found: dict[str, Any] = {}
    for field, value in data.items():
        if field in _APART:
            continue
        if field in ("headers", "fault"):
            value = _without_empty(value)
            if not value:
                continue
        if field == "timeout" and _duration(value) == "0":
            continue
        found[field] = _plain(value)
    return found


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


def treatment_of_connection(router: Router, targets: Sequence[Target], caller: Caller) -> Treatment:
    """What becomes of a TCP connection that is balanced over targets."""
    headers = [None] * len(targets)
    destinations, spoken = _destinations(router, targets, headers, caller, "closed")
    aspects = {"destinations": destinations}
    return Treatment(json.dumps(aspects, sort_keys=True, default=str), spoken, aspects)


def _destinations(
    router: Router,
    targets: Sequence[Target],
    headers: Sequence[Any],
    caller: Caller,
    vain: str = "503",
) -> tuple[Any, str]:
    """The shares of each upstream, merged and in a fixed order; and the same in words.

    `vain` says what becomes of what gets nowhere.
    """
    total = sum(target.weight for target in targets)
    shares: dict[str, Fraction] = {}
    described: dict[str, Any] = {}
    spoken = []
    for number, target in enumerate(targets):
        single = len(targets) == 1
        share = Fraction(1) if single or not total else Fraction(target.weight, total)
        where, words = _upstream(router, target, caller, vain)
        if headers[number]:
            where["headers"] = headers[number]
        key = json.dumps(where, sort_keys=True, default=str)
        shares[key] = shares.get(key, Fraction()) + share
        described[key] = where
        percent = "" if single else f"{float(share * 100):g}% "
        spoken.append(percent + words)
    return (
        [{**described[key], "share": str(share)} for key, share in sorted(shares.items())],
        ", ".join(spoken),
    )


def _destination_headers(route: Route) -> list[Any]:
    routes = (route.rule.data.get("route") or []) if route.rule else []
    kept = [each for each in routes if len(routes) == 1 or each.get("weight")]
    found = [_without_empty(each.get("headers") or {}) for each in kept]
    return found or [None] * len(route.action.targets)


def _upstream(
    router: Router, target: Target, caller: Caller, vain: str = "503"
) -> tuple[dict[str, Any], str]:
    found = upstream(router, target, caller.namespace, dict(caller.labels))
    policies = (rule.resource.spec.get("trafficPolicy") for rule in found.rules)
    top = next((each for each in policies if each is not None), None)
    policy: Any = top or {}
    if found.subset:
        own = found.subset.rule.resource.spec["subsets"][found.subset.path[-1]]
        policy = {**(top or {}), **(own.get("trafficPolicy") or {})}
    where: dict[str, Any] = {"host": target.host, "port": target.port}
    if found.flag:
        where["flag"] = found.flag
    if found.flag != "NC":
        where["labels"] = dict(found.labels)
        where["policy"] = _plain(policy)
    if found.service:
        spec = found.service.resource.spec
        port = found.service.port(target.port)
        where["behind"] = [
            found.service.selector,
            port and [port.target, port.protocol],
            *(
                spec.get(field)
                for field in ("type", "externalName", "resolution", "location", "endpoints")
            ),
        ]
    words = f"{target.host}:{target.port}"
    if target.subset:
        words += f" subset {target.subset}"
    if found.flag:
        words += f" ({vain} {found.flag})"
    return where, words


def _mirrors(router: Router, route: Route, caller: Caller) -> list[Any]:
    """Where copies go, and the part of the requests that is copied."""
    data = route.action.data
    found = []
    if data.get("mirror"):
        percent = (data.get("mirrorPercentage") or {}).get("value", data.get("mirrorPercent"))
        found.append((data["mirror"], percent))
    found += [
        (mirror.get("destination"), (mirror.get("percentage") or {}).get("value"))
        for mirror in data.get("mirrors") or ()
    ]
    targets = []
    for destination, percent in found:
        share = _FULL if percent is None else float(percent)
        if not destination or not destination.get("host") or not share:
            continue
        host = destination["host"]
        port = (destination.get("port") or {}).get("number") or _fallback_port(route)
        where, _ = _upstream(router, Target(host, port, destination.get("subset"), 0), caller)
        targets.append({**where, "percent": share})
    return sorted(targets, key=str)


def _fallback_port(route: Route) -> int:
    return route.action.targets[0].port if route.action.targets else 0


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def differing(before: Treatment, after: Treatment) -> list[str]:
    """The names of the parts of two treatments that are not the same."""
    names = dict.fromkeys((*before.aspects, *after.aspects))
    return [name for name in names if before.aspects.get(name) != after.aspects.get(name)]
