"""All that is seen of requests on the real mesh: the answer, what upstreams get, copies."""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kubectl_mesh.kube.workers import in_parallel
from kubectl_mesh.routing.router import Router
from kubectl_mesh.routing.trace import Trace, Tracer

from .client import Answer
from .envoy import Proxy
from .manifests import Object
from .mesh import Mesh
from .random_routes import Ask
from .random_treatments import HEADERS, NAMESPACE, SUBSETS, TARGET_PORTS, UPSTREAMS, VERSIONS
from .routes_tried import Tried, request_of
from .treatments_told import CORS, arrival, may_get, told

PATIENCE = 3.0  # seconds, for copies
QUIET = 0.2  # seconds, in which nobody gets what the model does not tell

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Seen:
    """A request to a proxy, what the model tells of it, and what is seen; see `told`.

    Pods of which any may get it are named together, by what the model knows of them.
    """

    proxy: Proxy
    ask: Ask
    trace: Trace
    tells: Object
    sees: Object


class Watching:
    """Asks proxies of a mesh, and looks at all that comes of it."""

    def __init__(self, mesh: Mesh, tried: Tried) -> None:
        self._mesh = mesh
        self._tried = tried

    def seen(self, asked: Iterable[tuple[Proxy, Ask]]) -> list[Seen]:
        """What becomes of requests, in their order; those of one proxy one after the other."""
        snapshot = self._tried.snapshot()
        tracer = Tracer(Router(snapshot))
        places = dict(self._tried.places(snapshot))
        everything = [(proxy, ask, str(next(_numbers))) for proxy, ask in asked]
        answers = self._answers(everything)
        traces = [
            tracer.trace(places[proxy], request_of(ask, places[proxy]), tried=False)
            for proxy, ask, _ in everything
        ]
        tells = [told(trace) for trace in traces]
        got = self._got(sum(each["got"].total() for each in tells))
        return [
            Seen(proxy, ask, trace, each, _seen(answers[mark], got[mark], trace))
            for (proxy, ask, mark), trace, each in zip(everything, traces, tells, strict=True)
        ]

    def _answers(self, asked: Iterable[tuple[Proxy, Ask, str]]) -> Mapping[str, Answer]:
        """The answers by the marks of the requests; proxies are asked at the same time."""
        by_proxy = defaultdict(list)
        for proxy, ask, mark in asked:
            by_proxy[proxy].append((mark, ask))

        def answers_of(proxy: Proxy) -> dict[str, Answer]:
            return {
                mark: self._tried.ask(proxy, replace(ask, headers=(*ask.headers, ("x-ask", mark))))
                for mark, ask in by_proxy[proxy]
            }

        found = in_parallel([functools.partial(answers_of, each) for each in by_proxy], 8)
        return {mark: answer for each in found for mark, answer in each.items()}

    def _got(self, expected: int) -> Mapping[str, list[Object]]:
        """What applications got, by the mark of the request: copies come after the answer."""
        found: defaultdict[str, list[Object]] = defaultdict(list)
        count, deadline = 0, time.monotonic() + PATIENCE
        while True:
            kept = self._mesh.got()
            for each in kept:
                found[each["headers"]["x-ask"]].append(each)
            count += len(kept)
            if not kept and (count >= expected or time.monotonic() > deadline):
                return found
            time.sleep(QUIET)


def _seen(answer: Answer, got: list[Object], trace: Trace) -> Object:
    """What is seen of a request, in the words of `told`."""
    headers = answer.headers
    return {
        "status": answer.status,
        "location": headers.get("location"),
        "body": None if answer.said else answer.body.decode(),
        "headers": {
            name: value
            for name, value in headers.items()
            if name in HEADERS or name.startswith(CORS)
        },
        "got": Counter(
            arrival(
                may_get(trace, [each["pod"]]),
                port=each["port"],
                path=each["path"],
                host=each["headers"]["host"],
                headers=each["headers"],
            )
            for each in got
        ),
    }


def upstreams(mesh: Mesh) -> None:
    """Starts what rules of random_treatments.py send requests to."""
    for name, ports in UPSTREAMS.items():
        targets = {port: TARGET_PORTS[port] for port in ports}
        pods = dict.fromkeys(VERSIONS[name], 1)
        mesh.service(name, ports=ports, pods=pods, namespace=NAMESPACE, target_ports=targets)
    mesh.apply(SUBSETS)
