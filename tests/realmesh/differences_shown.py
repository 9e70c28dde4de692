"""Whether what `compare` reports is seen on the real mesh, and whether it reports what is seen.

Requests are asked in two states of the mesh. What is answered otherwise has to be in a class that
is reported, and the example of each class has to be answered otherwise, in the way in which it
shows what the class is about.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.proof.compare import Comparison, Decision, Difference, decision_of
from kubectl_mesh.routing.request import Request
from kubectl_mesh.routing.router import router_of

from . import random_routes, random_treatments
from .envoy import Proxy
from .mesh import Mesh
from .random_routes import Ask
from .random_treatments import HEADERS, ORIGINS
from .routes_tried import Tried, request_of, table_for
from .treatments_seen import Watching, upstreams

Example = tuple[Proxy, Ask, str | None]
"""A request to a proxy, with its Host header where that is not what clients make of the host."""
Shown = Sequence[tuple[Difference, Sequence[Example]]]

_PREFLIGHT = {"access-control-request-method": "PUT"}
_FAILURES = (
    *({"x-fail": status} for status in ("500", "502", "503", "409")),
    *({"x-reply-grpc-status": status} for status in ("1", "14")),
)
_SLOW = ("0.8", "2.6")  # seconds, between the timeouts of random_treatments.py and beyond them
_NUMBER = re.compile(r"\b[shu](\d+)\b")


class ByRule:
    """Looks which rule answers, of configurations of random_routes.py."""

    configuration = staticmethod(random_routes.configuration)
    mutated = staticmethod(random_routes.mutated)
    requests = staticmethod(random_routes.requests)
    asked = 40
    shown = ("destinations", "directResponse", "rewrite")

    def __init__(self, mesh: Mesh, tried: Tried) -> None:
        self._tried = tried

    def look(self, asked: Iterable[Example]) -> list[object]:
        """What is the same where requests are treated alike."""
        return [self._tried.say(*each) for each in asked]

    def that_show(self, difference: Difference, example: Example) -> Iterator[Example]:
        yield example

    def unseen(self, difference: Difference) -> Unseen | None:
        return None


class ByTreatment:
    """Looks at all that is seen of requests, of configurations of random_treatments.py."""

    configuration = staticmethod(random_treatments.configuration)
    mutated = staticmethod(random_treatments.mutated)
    requests = staticmethod(random_treatments.requests)
    asked = 20
    shown = (
        *("destinations", "directResponse", "redirect", "rewrite", "headers", "mirrors"),
        *("timeout", "retries", "fault", "corsPolicy"),
    )

    def __init__(self, mesh: Mesh, tried: Tried) -> None:
        upstreams(mesh)
        self._watching = Watching(mesh, tried)

    def look(self, asked: Iterable[Example]) -> list[object]:
        """What is the same where requests are treated alike."""
        return [each.sees for each in self._watching.seen((one[0], one[1]) for one in asked)]

    def that_show(self, difference: Difference, example: Example) -> Iterator[Example]:
        """The example as it shows what a class is about.

        It has headers that rules may change, and what they are for where that is told by more than
        one request: failures, slow answers, origins.
        """
        proxy, ask, authority = example
        headers = {f"x-reply-{name}": "more" for name in HEADERS} | dict.fromkeys(HEADERS, "more")
        headers |= dict(ask.headers)
        more: list[tuple[str, dict[str, str]]] = [(ask.method, {})]
        if "corsPolicy" in difference.aspects:
            for origin in ORIGINS:
                more += [(ask.method, {"origin": origin})]
                more += [("OPTIONS", {"origin": origin, **_PREFLIGHT})]
        if "retries" in difference.aspects:
            more += [(ask.method, each) for each in _FAILURES]
        if {"retries", "timeout"} & set(difference.aspects):
            more += [(ask.method, {"x-slow": each}) for each in _SLOW]
        for method, added in more:
            every = tuple({**headers, **added}.items())
            yield proxy, replace(ask, method=method, headers=every), authority

    def unseen(self, difference: Difference) -> Unseen | None:
        """Why requests do not show a difference; None where one has to."""
        before, after = (each.treatment.aspects for each in (difference.before, difference.after))
        fields = set(difference.aspects)
        if all(_gets_nowhere(each) for each in (before, after)):
            return Unseen.NO_POD
        if fields == {"mirrors"} and _copies(before) == _copies(after):
            return Unseen.NO_POD
        if {"answer", "directResponse"} & fields and _is_plain_404(before) and _is_plain_404(after):
            return Unseen.SAME_404
        if fields == {"headers"} and _removes_more(before, after):
            return Unseen.NOT_REMOVED
        if fields == {"retries"} and _but_for(before, _HOSTS) == _but_for(after, _HOSTS):
            return Unseen.OTHER_POD
        if fields == {"timeout"} and _TRY in before.get("retries", {}):
            return Unseen.SAME_END
        return None


class Unseen(enum.Enum):
    """Why a difference cannot be seen from outside, by one request."""

    UNTRIED = "no proxy like that is tried"
    NO_POD = "no pod is there that could get a request"
    SAME_404 = "a direct response of 404 without a body is what there is without a rule"
    NOT_REMOVED = "what is removed of the proxy's own answer is not in it"
    OTHER_POD = "which pod gets the next try is a matter of chance"
    SAME_END = "a try ends as early by itself"


_HOSTS, _TRY = "retryIgnorePreviousHosts", "perTryTimeout"


def _gets_nowhere(aspects: Mapping[str, Any]) -> bool:
    return all("flag" in each for each in aspects.get("destinations", ({},)))


def _copies(aspects: Mapping[str, Any]) -> list[Any]:
    """The copies that some pod may get."""
    return [each for each in aspects.get("mirrors", ()) if "flag" not in each]


def _is_plain_404(aspects: Mapping[str, Any]) -> bool:
    return aspects in ({"answer": "404"}, {"directResponse": {"status": 404}})


def _removes_more(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether answers that the proxy makes differ in what is removed of their headers alone."""
    sides = []
    for aspects in (before, after):
        if "destinations" in aspects:
            return False
        response = aspects.get("headers", {}).get("response", {})
        sides.append({verb: each for verb, each in response.items() if verb != "remove"})
    return sides[0] == sides[1]


def _but_for(aspects: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    return {key: each for key, each in aspects.get("retries", {}).items() if key != field}


Looking = ByRule | ByTreatment
MANY = 100
"""So many pairs or groups show all that there is to be looked at."""


@dataclass
class Outcome:
    """What was found of two states, or of several such pairs.

    `classes` counts what is reported, `seen` the requests that are answered otherwise, `aspects`
    what the classes are about that were tried, `unseen` why some of them cannot be seen. `wrong` is
    where the mesh and `compare` do not agree, in words, by the number of the configuration.
    """

    classes: int = 0
    seen: int = 0
    aspects: Counter[str] = field(default_factory=Counter)
    unseen: Counter[Unseen] = field(default_factory=Counter)
    wrong: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        unseen = {reason.value: count for reason, count in self.unseen.items()}
        return (
            f"{self.classes} classes, of {dict(self.aspects)}; {self.seen} requests that are "
            f"answered otherwise; not seen: {unseen}"
        )

    def add(self, other: Outcome) -> None:
        self.classes += other.classes
        self.seen += other.seen
        self.aspects += other.aspects
        self.unseen += other.unseen
        for number, words in other.wrong.items():
            self.wrong[number] += words


class Between:
    """Requests that are asked in two states of the mesh, and classes that are reported of them."""

    def __init__(self, tried: Tried, looking: Looking, asked: Iterable[Ask]) -> None:
        self._tried = tried
        self._looking = looking
        self._asked: list[Example] = [
            (proxy, ask, None) for ask in asked for proxy in tried.proxies
        ]

    def ask(self) -> tuple[Snapshot, list[object]]:
        """The mesh as it is, and what is seen of the requests."""
        return self._tried.snapshot(), self._looking.look(self._asked)

    def shown(self, reported: Comparison, was: Snapshot, now: Snapshot) -> Shown:
        """What shows each class that is reported, where it is for a proxy that is tried."""
        assert not reported.undecided
        return [
            (difference, list(self._looking.that_show(difference, example)))
            for number, difference in enumerate(reported.differences)
            if (example := self._example(number, difference, was, now))
        ]

    def _example(
        self, number: int, difference: Difference, was: Snapshot, now: Snapshot
    ) -> Example | None:
        """The example of a class, at a proxy where the same rules decide on it.

        Of several such proxies each is asked for another class: they are asked at the same time.
        """
        request, place = difference.example, difference.places[0]
        assert isinstance(request, Request)
        path = f"{request.path}?{request.query}" if request.query else request.path
        headers = tuple(request.headers.items())
        ask = Ask(request.method, request.host, place.port, path, headers)
        proxies = self._tried.proxies
        first = number % len(proxies)
        for proxy in (*proxies[first:], *proxies[:first]):
            decided = (self._decided(state, proxy, ask) for state in (was, now))
            if _class(*decided) == _class(difference.before, difference.after):
                return proxy, ask, request.authority
        return None

    def look(self, shown: Shown) -> list[list[object]]:
        """What is seen of each class."""
        seen = iter(self._looking.look(each for _, several in shown for each in several))
        return [[next(seen) for _ in several] for _, several in shown]

    def outcome(
        self,
        reported: Comparison,
        before: tuple[Snapshot, list[object]],
        after: tuple[Snapshot, list[object]],
        shown: Shown,
        looks: tuple[list[list[object]], list[list[object]]],
    ) -> Outcome:
        """What `ask` and `look` have found in both states, held against what is reported."""
        found = Outcome(len(reported.differences))
        found.unseen[Unseen.UNTRIED] += len(reported.differences) - len(shown)
        for (difference, examples), (one, other) in zip(
            shown, zip(*looks, strict=True), strict=True
        ):
            found.aspects.update(difference.aspects)
            if one != other:
                continue
            if reason := self._looking.unseen(difference):
                found.unseen[reason] += 1
                continue
            proxy, ask, _ = examples[0]
            treatments = difference.before.treatment, difference.after.treatment
            aspects = "; ".join(
                f"{name} {treatments[0].aspects.get(name)} then {treatments[1].aspects.get(name)}"
                for name in difference.aspects
            )
            found.wrong[_number(ask)].append(
                f"reported, and answered alike: {proxy} {ask}: {aspects}: {one[0]}"
            )
        classes = {_class(each.before, each.after) for each in reported.differences}
        for (proxy, ask, _), was, now in zip(self._asked, before[1], after[1], strict=True):
            if was != now:
                found.seen += 1
                decided = (self._decided(state[0], proxy, ask) for state in (before, after))
                if _class(*decided) not in classes:
                    found.wrong[_number(ask)].append(
                        f"not reported: {proxy} {ask}: {was}, then {now}"
                    )
        return found

    def _decided(self, snapshot: Snapshot, proxy: Proxy, ask: Ask) -> Decision:
        """What the model says of a request, as classes tell one from another."""
        router = router_of(snapshot)
        place = dict(self._tried.places(snapshot))[proxy]
        request = request_of(ask, place)
        return decision_of(router, table_for(router, place, request), place, request)


def _class(before: Decision, after: Decision) -> tuple[object, ...]:
    """The same for what is one class."""
    return (before.identity, after.identity, before.treatment.key, after.treatment.key)


def _number(ask: Ask) -> int:
    """The number of the configuration that has the host."""
    found = _NUMBER.search(ask.host)
    assert found
    return int(found[1])
