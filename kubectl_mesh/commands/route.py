"""`kubectl mesh route`: where a request goes, and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
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
from kubectl_mesh.mesh.gateways import Gateway
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.unread import REASON
from kubectl_mesh.mesh.versions import (
    NEWEST,
    OLDEST,
    Istio,
    Release,
    older_releases,
    written,
)
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.report.route_json import FIELDS, answer, document
from kubectl_mesh.routing.connection import Connection, connection_for, is_connection
from kubectl_mesh.routing.expected import Case, Source, mismatches, read_cases
from kubectl_mesh.routing.proxies import (
    Vantage,
    gateway_named,
    gateways_serving,
    of_client,
    of_gateway,
    of_workload,
)
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
_KIND_NAMES: Mapping[str, str] = {
    **{kind.lower(): kind for kind in WORKLOAD_KINDS},
    **{f"{kind.lower()}s": kind for kind in WORKLOAD_KINDS},
    "po": "Pod",
    "deploy": "Deployment",
    "sts": "StatefulSet",
    "ds": "DaemonSet",
    "rs": "ReplicaSet",
    "rc": "ReplicationController",
    "cj": "CronJob",
}
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
class Caller:
    """Where requests come from, as far as the flags say so: nothing of it is set where they do not.

    `gateway` is [NAMESPACE/]NAME, `workload` is [NAMESPACE/][KIND/]NAME; `namespace` and `labels`
    are those of a pod.
    """

    gateway: str | None = None
    workload: str | None = None
    namespace: str | None = None
    labels: Mapping[str, str] | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Caller:
        """Raises UsageError for flags that contradict each other, and for what is no label."""
        given = [
            flag
            for flag, value in (
                ("--gateway", args.gateway),
                ("--from", args.workload),
                ("--from-namespace or --from-labels", args.from_namespace or args.from_labels),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} contradict each other")
        labels = None
        if args.from_labels is not None:
            labels = _labels(comma_separated(args.from_labels))
        return cls(args.gateway, args.workload, args.from_namespace, labels)


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
        request = None if many else _request(args)
        return cls(request, args.requests or "", Caller.of(args), inputs, Output.of(args))


def run(args: argparse.Namespace) -> int:
    """Answers one request, or those of --requests.

    Raises UsageError for what contradicts itself or names what is not there, InputError for a file
    of requests that cannot be read, ClusterError where no cluster answers.
    """
    asked = Asked.of(args)
    with collector_paused():
        return _run_one(asked, asked.request) if asked.request else _run_many(asked)


def _run_one(asked: Asked, request: Request | Connection) -> int:
    mesh = _mesh(asked, [], [request])
    vantage = mesh.default(request)
    trace = Tracer(mesh.router).follow(vantage.proxy, request)
    notes = (*vantage.notes, *mesh.snapshot.config.notes, *_on_older_istio(mesh, request, trace))
    vantage = replace(vantage, notes=notes)
    unknown = (*mesh.unknown, *mesh.ways_in_unread(request))
    if asked.output.format == "text":
        from kubectl_mesh.report.route_text import render

        emit(render(trace, vantage, mesh.snapshot, unknown, asked.output.layout))
    else:
        _emit_document(document(trace, vantage, mesh.snapshot, unknown), asked.output.format)
    return 3 if unknown or trace.effect.outcome == "undecided" else 0


def _on_older_istio(mesh: _Mesh, request: Request | Connection, found: Trace) -> Iterator[str]:
    """Says so where the release was assumed, and an older one treats the request otherwise."""
    if mesh.snapshot.config.istio.origin:
        return

    def is_same(release: Release) -> bool:
        other = replace(mesh, snapshot=mesh.snapshot.run_by(Istio(release)))
        trace = Tracer(other.router).follow(other.default(request).proxy, request)
        return answer(trace) == answer(found)

    if not is_same(OLDEST):
        older = next(each for each in (*older_releases(), OLDEST) if not is_same(each))
        yield (
            f"Istio {written(older)} treats this otherwise: {written(NEWEST)} was assumed "
            f"(--istio-version {written(older)} shows it)"
        )


def _request(args: argparse.Namespace) -> Request | Connection:
    """Raises UsageError for what is no URL, and for flags that are not for it."""
    if is_connection(args.url):
        if args.request is not None or args.header:
            raise UsageError("a connection has no method and no headers: leave out -X and -H")
        return connection_for(args.url, args.server_name)
    headers = _headers(args.header or ())
    return request_for(args.url, args.request or "GET", headers, args.server_name)


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
    mesh = _mesh(asked, sources, [case.request for case in cases])
    tracer = Tracer(mesh.router)
    results = [
        _Result(line) if isinstance(line, InputError) else _answered(line, file, tracer, mesh)
        for line in lines
    ]
    if asked.output.format == "junit":
        from kubectl_mesh.report.route_junit import render

        emit(render(file, [(each.line, each.failures) for each in results], mesh.unknown))
    elif asked.output.format == "yaml":
        from kubectl_mesh.report.yaml_ import dump

        emit("".join(f"---\n{dump(each.value)}" for each in results))
    else:
        encode = json.JSONEncoder().encode
        emit("".join(f"{encode(each.value)}\n" for each in results))
    return _status(file, results, mesh.unknown)


@dataclass(frozen=True)
class _Result:
    """A line of the file, its answer, and where that is not the one expected."""

    line: Case | InputError
    value: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.line, InputError):
            object.__setattr__(self, "value", {"error": str(self.line)})


def _answered(case: Case, file: str, tracer: Tracer, mesh: _Mesh) -> _Result:
    try:
        vantage = mesh.of(case.source) if case.source else mesh.default(case.request)
    except UsageError as error:
        return _Result(InputError(str(error), file, case.line))
    found = answer(tracer.follow(vantage.proxy, case.request, tried=False))
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


@dataclass
class _Mesh:
    """The mesh that the flags name, and its proxies by the names that the user gives them."""

    caller: Caller
    snapshot: Snapshot
    namespace: str
    unknown: tuple[str, ...]
    _known: dict[Source, Vantage] = field(init=False, default_factory=dict)
    _serving: dict[tuple[str, str | None, str], list[Gateway]] = field(
        init=False, default_factory=dict
    )
    _default: Vantage | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.router = router_of(self.snapshot)

    def of(self, source: Source) -> Vantage:
        """Raises UsageError where there is no such Gateway, or pods are of another revision."""
        if source not in self._known:
            namespace = source.namespace or self.namespace
            if not source.gateway and namespace in self.snapshot.config.other_revisions:
                revision = self.snapshot.config.other_revisions[namespace]
                raise UsageError(
                    f"namespace {namespace} selects revision {revision} of Istio, and the answers "
                    f"are for revision {self.snapshot.config.revision}: ask from it in another run"
                )
            if source.gateway:
                self._known[source] = self._of_gateway(source.gateway)
            else:
                self._known[source] = of_client(namespace, dict(source.labels))
        return self._known[source]

    def default(self, request: Request | Connection) -> Vantage:
        """Where the flags say that requests come from, or who calls where they say nothing.

        Raises UsageError where that is not to be had, or must be chosen.
        """
        if self._default is None:
            self._default = self._of_flags()
        if self._default is not None:
            return self._default
        key = (request.host, getattr(request, "server_name", ""), getattr(request, "dialled", ""))
        if key not in self._serving:
            self._serving[key] = gateways_serving(self.router, request)
        serving = self._serving[key]
        if serving:
            named = ", ".join(f"--gateway {gateway.id}" for gateway in serving)
            raise UsageError(
                f"{request.host} is served by a Gateway: say where the request comes from, with "
                f"{named}, or with --from POD or --from-namespace {self.namespace} for a caller "
                "in the mesh"
            )
        return self.of(Source(None, self.namespace))

    def ways_in_unread(self, request: Request | Connection) -> Iterator[str]:
        """By which ways that are not followed a request may come in, if the flags name none."""
        if self._of_flags() is None:
            for ruled in self.router.bearing.ways_in(request.host):
                yield (
                    f"{ruled} takes {request.host} at a Kubernetes Gateway, and {REASON}; this is "
                    "the answer for callers in the mesh"
                )

    def _of_flags(self) -> Vantage | None:
        caller = self.caller
        if caller.gateway is not None:
            return self._of_gateway(caller.gateway)
        if caller.workload is not None:
            return of_workload(self.snapshot, self._workload(caller.workload))
        if caller.namespace is not None or caller.labels is not None:
            return of_client(caller.namespace or self.namespace, caller.labels or {})
        return None

    def _of_gateway(self, name: str) -> Vantage:
        return of_gateway(self.snapshot, gateway_named(self.snapshot, name, self.namespace))

    def _workload(self, text: str) -> Workload:
        namespace, kind, name = _named_workload(text, self.namespace)
        found = [
            workload
            for workload in self.snapshot.workloads.by_namespace.get(namespace, ())
            if workload.resource.name == name and kind in (None, workload.resource.kind)
        ]
        if found:
            return min(found, key=lambda workload: workload.resource.kind != "Pod")
        reason = self.snapshot.missing(kind or "Pod", namespace)
        if not reason:
            reason = "for the pods of a Deployment write deploy/NAME"
        raise UsageError(f"no {kind or 'pod'} {name} in namespace {namespace}: {reason}")


def _labels(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--from-labels {text!r} is no label: write KEY=VALUE")
        found[key] = value
    return found


def _named_workload(text: str, namespace: str) -> tuple[str, str | None, str]:
    """Namespace, kind (None: not named) and name of --from. Raises UsageError."""
    parts = text.split("/")
    if all(parts) and len(parts) == 1:
        return namespace, None, parts[0]
    if all(parts) and len(parts) == 2:
        kind = _KIND_NAMES.get(parts[0].lower())
        return (namespace, kind, parts[1]) if kind else (parts[0], None, parts[1])
    if all(parts) and len(parts) == 3 and parts[1].lower() in _KIND_NAMES:
        return parts[0], _KIND_NAMES[parts[1].lower()], parts[2]
    raise UsageError(f"--from {text!r} names no pod: write [NAMESPACE/][KIND/]NAME")


def _mesh(
    asked: Asked, sources: Iterable[Source], requests: Iterable[Request | Connection]
) -> _Mesh:
    """What the flags name, of a cluster only what bears on these requests."""
    own, caller = asked.inputs.own_namespace, asked.caller
    kinds = list(KINDS)
    namespaces = {
        source.gateway.partition("/")[0] if source.gateway else source.namespace or own
        for source in sources
    }
    if caller.gateway is not None:
        namespaces.add(caller.gateway.rpartition("/")[0] or own)
    elif caller.workload is not None:
        namespace, kind, _ = _named_workload(caller.workload, own)
        namespaces.add(namespace)
        if kind:
            kinds.append(kind)
    elif caller.namespace is not None:
        namespaces.add(caller.namespace)
    elif not namespaces:
        namespaces.add(own)
    hosts = {request.host for request in requests}
    hosts |= {each.dialled_host for each in requests if isinstance(each, Request)}
    snapshot, _ = take_snapshot(asked.inputs, kinds, namespaces, hosts)
    name_limits(snapshot)
    return _Mesh(caller, snapshot, own, snapshot.gaps)
