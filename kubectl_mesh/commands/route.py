"""`kubectl mesh route`: where a request goes, and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_mesh.commands.inputs import Inputs, name_limits, take_snapshot
from kubectl_mesh.commands.output import Output
from kubectl_mesh.errors import InputError, UsageError
from kubectl_mesh.flags import (
    add_cluster_flags,
    add_input_flags,
    add_output_flags,
    comma_separated,
)
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.versions import (
    NEWEST,
    OLDEST,
    Istio,
    Release,
    older_releases,
    written,
)
from kubectl_mesh.report.route_json import FIELDS, answer, document
from kubectl_mesh.routing.callers import Caller, Callers
from kubectl_mesh.routing.connection import Connection, connection_for, is_connection
from kubectl_mesh.routing.expected import Case, Source, mismatches, read_cases
from kubectl_mesh.routing.request import Request, request_for
from kubectl_mesh.routing.router import router_of
from kubectl_mesh.routing.trace import Trace, Tracer
from kubectl_mesh.sources.files import STDIN, read_text
from kubectl_mesh.sources.yaml import collector_paused
from kubectl_mesh.term import emit, safe

FORMATS = ("text", "json", "yaml", "junit")
KINDS = (
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "ServiceEntry",
    "Sidecar",
    "Service",
    "Namespace",
    "Pod",
)
"""What routing needs of a cluster, where pods tell of themselves."""
_EPILOG = """\
examples:
  {prog} http://myapp.com/hello --gateway myapp-gateway
  {prog} http://reviews:9080/reviews/1 --from default/client-pod -H 'end-user: jason'
  {prog} http://reviews:9080/ --from-namespace a --from-labels app=x -f manifests/ -R
  {prog} tls://en.wikipedia.org:443 --from default/client-pod
  {prog} --requests requests.jsonl -f manifests/ -R -o junit

where the request comes from:
  Without --gateway or --from, from a sidecar in the namespace of -n or of the context; if a
  Gateway of the input serves the host, you are asked to choose. A NAME without a namespace is in
  that namespace, too; a Gateway that is not there may be anywhere, if only one has that name.

--requests, one JSON object a line:
  {{"from": "mesh" or "gateway/NAMESPACE/NAME", "sourceNamespace": "a", "sourceLabels": {{}},
   "method": "GET", "url": "http://host/path", "headers": {{}}, "serverName": "...",
   "name": "...", "expect": {{}}}}
  The answers are JSON Lines in the same order. `expect` may name any field of an answer; of an
  object in it, only the fields that are named count. What is not met goes to standard error.

exit status:
  0  answered, and all that is expected holds
  1  something that is expected does not hold
  2  the command line is at fault
  3  something could not be read, and the answer may be another
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG.format(prog=parser.prog)
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="http[s]://HOST[:PORT][/PATH][?QUERY], tls://HOST:PORT or tcp://HOST:PORT",
    )
    parser.add_argument("-X", "--request", metavar="METHOD", help="default: GET")
    parser.add_argument(
        "-H", "--header", action="append", metavar="'NAME: VALUE'", help="repeatable; Host, too"
    )
    parser.add_argument(
        "--server-name",
        metavar="NAME",
        help="of TLS (https:// and tls://), where it is not the URL's host",
    )
    parser.add_argument(
        "--requests", metavar="FILE", help="many requests, in JSON Lines; - for standard input"
    )
    group = parser.add_argument_group("where the request comes from")
    group.add_argument(
        "--gateway", metavar="[NAMESPACE/]NAME", help="from outside, through this Gateway"
    )
    group.add_argument(
        "--from",
        dest="workload",
        metavar="[NAMESPACE/][KIND/]NAME",
        help="from this pod, or from the pods of deploy/NAME",
    )
    group.add_argument("--from-namespace", metavar="NAME", help="from a pod of this namespace")
    group.add_argument(
        "--from-labels",
        action="append",
        metavar="KEY=VALUE",
        help="from a pod with these labels; repeatable",
    )
    add_input_flags(parser)
    add_output_flags(parser, FORMATS, lists=False)
    add_cluster_flags(parser)


@dataclass(frozen=True)
class Asked:
    """What is asked, of which mesh: one `request`, or those of a `file`."""

    request: Request | Connection | None
    file: str
    caller: Caller
    inputs: Inputs
    output: Output

    @classmethod
    def of(cls, args: argparse.Namespace) -> Asked:
        """Raises UsageError for flags that contradict each other, and for what is no URL."""
        many = args.requests is not None
        if many == (args.url is not None):
            raise UsageError("name one URL, or a file of them with --requests")
        if many and (args.request or args.header or args.server_name):
            raise UsageError("with --requests, method, headers and server name stand in the file")
        if args.output == "junit" and not many:
            raise UsageError("-o junit is for --requests")
        inputs = Inputs.of(args)
        if many and args.requests == STDIN and inputs.files.hold_stdin:
            raise UsageError("standard input cannot be both manifests and requests")
        request = None
        if not many:
            request = _request(args.url, args.request, args.header or (), args.server_name)
        caller = _caller(args.gateway, args.workload, args.from_namespace, args.from_labels)
        return cls(request, args.requests or "", caller, inputs, Output.of(args))


def run(args: argparse.Namespace) -> int:
    """Answers one request, or those of --requests.

    Raises UsageError for what contradicts itself or names what is not there, InputError for a file
    of requests that cannot be read, ClusterError where no cluster answers.
    """
    asked = Asked.of(args)
    with collector_paused():
        return _run_one(asked, asked.request) if asked.request else _run_many(asked)


def _run_one(asked: Asked, request: Request | Connection) -> int:
    snapshot, callers = _mesh(asked, [], [request])
    source = callers.default(request)
    trace = Tracer(callers.router).follow(source.proxy, request)
    notes = (*source.notes, *snapshot.config.notes, *_on_older_istio(callers, request, trace))
    source = replace(source, notes=notes)
    unknown = (*snapshot.gaps, *callers.ways_in_unread(request))
    if asked.output.format == "text":
        from kubectl_mesh.report.route_text import render

        emit(render(trace, source, snapshot, unknown, asked.output.layout))
    else:
        _emit_document(document(trace, source, snapshot, unknown), asked.output.format)
    return 3 if unknown or trace.effect.outcome == "undecided" else 0


def _on_older_istio(callers: Callers, request: Request | Connection, found: Trace) -> Iterator[str]:
    """Says so where the release was assumed, and an older one treats the request otherwise."""
    snapshot = callers.router.snapshot
    if snapshot.config.istio.origin:
        return

    def is_same(release: Release) -> bool:
        router = router_of(snapshot.run_by(Istio(release)))
        other = Callers(router, callers.caller, callers.namespace)
        trace = Tracer(router).follow(other.default(request).proxy, request)
        return answer(trace) == answer(found)

    if not is_same(OLDEST):
        older = next(each for each in (*older_releases(), OLDEST) if not is_same(each))
        yield (
            f"Istio {written(older)} treats this otherwise: {written(NEWEST)} was assumed "
            f"(--istio-version {written(older)} shows it)"
        )


def _caller(
    gateway: str | None,
    workload: str | None,
    namespace: str | None,
    labels: Sequence[str] | None,
) -> Caller:
    """Raises UsageError for flags that contradict each other, and for what is no label."""
    given = [
        flag
        for flag, value in (
            ("--gateway", gateway),
            ("--from", workload),
            ("--from-namespace or --from-labels", namespace or labels),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} contradict each other")
    known = None if labels is None else _labels(comma_separated(labels))
    return Caller(gateway, workload, namespace, known)


def _request(
    url: str, method: str | None, headers: Sequence[str], server_name: str | None
) -> Request | Connection:
    """Raises UsageError for what is no URL, and for flags that are not for it."""
    if is_connection(url):
        if method is not None or headers:
            raise UsageError("a connection has no method and no headers: leave out -X and -H")
        return connection_for(url, server_name)
    return request_for(url, method or "GET", _headers(headers), server_name)


def _emit_document(value: Mapping[str, Any], output: str) -> None:
    if output == "yaml":
        from kubectl_mesh.report.yaml_ import dump

        emit(dump(value))
    else:
        emit(json.dumps(value, indent=2) + "\n")


def _headers(given: Iterable[str]) -> dict[str, str]:
    """Headers as curl takes them; the values of one name are joined, as Envoy does.

    Raises UsageError for what is no header.
    """
    found: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        key = name.strip().lower()
        if not colon or not key:
            raise UsageError(f"-H {text!r} is no header: write 'NAME: VALUE'")
        found[key] = f"{found[key]},{value.strip()}" if key in found else value.strip()
    return found


def _run_many(asked: Asked) -> int:
    file = "<stdin>" if asked.file == STDIN else asked.file
    lines = list(read_cases(read_text(asked.file), file, FIELDS))
    cases = [line for line in lines if isinstance(line, Case)]
    sources = {case.source for case in cases if case.source}
    snapshot, callers = _mesh(asked, sources, [case.request for case in cases])
    tracer = Tracer(callers.router)
    results = [
        _Result(line) if isinstance(line, InputError) else _answered(line, file, tracer, callers)
        for line in lines
    ]
    if asked.output.format == "junit":
        from kubectl_mesh.report.route_junit import render

        emit(render(file, [(each.line, each.failures) for each in results], snapshot.gaps))
    elif asked.output.format == "yaml":
        from kubectl_mesh.report.yaml_ import dump

        emit("".join(f"---\n{dump(each.value)}" for each in results))
    else:
        encode = json.JSONEncoder().encode
        emit("".join(f"{encode(each.value)}\n" for each in results))
    return _status(file, results, snapshot.gaps)


@dataclass(frozen=True)
class _Result:
    """A line of the file, its answer, and where that is not the one expected."""

    line: Case | InputError
    value: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.line, InputError):
            object.__setattr__(self, "value", {"error": str(self.line)})


def _answered(case: Case, file: str, tracer: Tracer, callers: Callers) -> _Result:
    try:
        source = callers.of(case.source) if case.source else callers.default(case.request)
    except UsageError as error:
        return _Result(InputError(str(error), file, case.line))
    found = answer(tracer.follow(source.proxy, case.request, tried=False))
    if case.expect is None:
        return _Result(case, found)
    failures = list(mismatches(case.expect, found))
    if found["undecided"] and "undecided" not in case.expect:
        failures.insert(0, f"not decided: {found['undecided']}")
    return _Result(case, found, tuple(failures))


def _status(file: str, results: Iterable[_Result], unknown: Collection[str]) -> int:
    """Says on standard error what is wrong, and returns the exit status."""
    bad = expected = failed = 0
    for result in results:
        if isinstance(result.line, InputError):
            bad += 1
            print(f"error: {safe(str(result.line))}", file=sys.stderr)
        elif result.line.expect is not None:
            expected += 1
            failed += bool(result.failures)
            for failure in result.failures:
                where = f"{file}:{result.line.line}: {result.line.name}"
                print(safe(f"{where}: {failure}"), file=sys.stderr)
    for reason in unknown:
        print(f"Warning: not known: {safe(reason)}", file=sys.stderr)
    if failed:
        print(f"{failed} of {expected} requests are not treated as expected", file=sys.stderr)
        return 1
    return 3 if bad or unknown else 0


def _labels(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--from-labels {text!r} is no label: write KEY=VALUE")
        found[key] = value
    return found


def _mesh(
    asked: Asked, sources: Iterable[Source], requests: Iterable[Request | Connection]
) -> tuple[Snapshot, Callers]:
    """What the flags name, of a cluster only what bears on these requests."""
    own = asked.inputs.own_namespace
    namespaces = {
        source.gateway.partition("/")[0] if source.gateway else source.namespace or own
        for source in sources
    }
    namespace, kind = asked.caller.where(own)
    if namespace is not None:
        namespaces.add(namespace)
    hosts = {request.host for request in requests}
    hosts |= {each.dialled_host for each in requests if isinstance(each, Request)}
    kinds = [*KINDS, *filter(None, (kind,))]
    snapshot, _ = take_snapshot(asked.inputs, kinds, namespaces or {own}, hosts)
    name_limits(snapshot)
    return snapshot, Callers(router_of(snapshot), asked.caller, own)
