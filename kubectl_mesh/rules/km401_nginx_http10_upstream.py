"""KM401: an nginx in the mesh speaks HTTP/1.0 to its upstreams, and Envoy refuses that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from kubectl_mesh.mesh.injection import is_ambient
from kubectl_mesh.mesh.ports import HTTP_PROTOCOLS, SNIFFED
from kubectl_mesh.mesh.registry import Port, Service
from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.texts import GO_TRUE
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS, Workload
from kubectl_mesh.nginx.config import Proxy, default_http_version
from kubectl_mesh.nginx.pods import NginxPod, nginx_pods
from kubectl_mesh.rules.rule import Finding, Rule, Severity, Skip
from kubectl_mesh.rules.shared.nginx import readers_of, repair_of, restart_of

_ANNOTATION = "proxy.istio.io/config"
_HTTP10 = "ISTIO_META_HTTP10"
_IN_ANNOTATION = re.compile(rf"\b{_HTTP10}[\"']?\s*:\s*[\"']?1\b")
_PASSED_ON = (
    "Istio 1.13 and later pass HTTP/1.0 on there as plain TCP, past every HTTP rule; earlier ones "
    "answer 426"
)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Why something is so, and what is not known about it."""

    facts: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Fault:
    proxy: Proxy
    pod: NginxPod
    version: _Verdict
    answered: _Verdict

    @property
    def doubts(self) -> tuple[str, ...]:
        return self.version.doubts + self.answered.doubts


def check(snapshot: Snapshot) -> Iterator[Finding | Skip]:
    if not nginx_pods(snapshot) or _is_on_everywhere(snapshot):
        return
    by_address = {
        service.resource.spec.get("clusterIP"): service for service in snapshot.registry.services
    }
    faults: dict[tuple[int, str], dict[tuple[int, str], _Fault]] = {}
    places: dict[tuple[int, str], tuple[Resource, str]] = {}
    for pod in nginx_pods(snapshot):
        if pod.workload is None and snapshot.coverage.live:
            namespace = next(iter(pod.files.values()))[0].namespace
            if snapshot.unknown_workloads(namespace) is None:
                continue
        for unreadable in pod.config.unreadable:
            config_map, key = pod.files[unreadable.key]
            yield Skip(
                f"{config_map} data.{key} line {unreadable.line} cannot be read as nginx "
                f"configuration: {unreadable.message}"
            )
        answers: dict[int | str, _Verdict | None] = {}
        for proxy in pod.config.proxies:
            version = _speaks_http10(pod, proxy)
            if version is None or proxy.scheme == "https":
                continue
            upstream = id(proxy.upstream) if proxy.upstream else proxy.target
            if upstream not in answers:
                answers[upstream] = _answer(snapshot, pod, proxy, by_address)
            answered = answers[upstream]
            if answered is None:
                continue
            fault = _Fault(proxy, pod, version, answered)
            config_map, key = pod.files[proxy.key]
            place = (id(config_map), key)
            places[place] = (config_map, key)
            known = faults.setdefault(place, {})
            at = (proxy.line, proxy.context)
            if at not in known or len(fault.doubts) < len(known[at].doubts):
                known[at] = fault
    readers = readers_of(nginx_pods(snapshot))
    for place, found in faults.items():
        for certain in (True, False):
            chosen = [fault for fault in found.values() if certain == (not fault.doubts)]
            if chosen:
                yield _finding(*places[place], chosen, readers[place[0]])


def _answer(
    snapshot: Snapshot, pod: NginxPod, proxy: Proxy, by_address: Mapping[str | None, Service]
) -> _Verdict | None:
    """The surest of what is known of the addresses that a proxy_pass may connect to."""
    namespace = pod.files[proxy.key][0].namespace
    verdicts = (
        _is_answered(snapshot, pod, namespace, address, by_address) for address in _addresses(proxy)
    )
    found = (verdict for verdict in verdicts if verdict)
    return min(found, key=lambda verdict: len(verdict.doubts), default=None)


def _speaks_http10(pod: NginxPod, proxy: Proxy) -> _Verdict | None:
    """Whether a request is sent in HTTP/1.0; None where it is not."""
    setting = proxy.http_version
    if setting is not None:
        said = f"line {setting.line} sets proxy_http_version {setting.value}"
        if setting.key != proxy.key:
            config_map, key = pod.files[setting.key]
            said += f" ({config_map} data.{key})"
        if "$" in setting.value:
            return _Verdict(doubts=(f"{said}, which is filled in elsewhere",))
        return _Verdict((said,)) if setting.value == "1.0" else None
    if pod.workload is None:
        return _Verdict(
            doubts=(
                "no proxy_http_version is set, and no workload in the input mounts this ConfigMap: "
                "which nginx reads it is not known, and before 1.29.7 the default is HTTP/1.0",
            )
        )
    default, why = default_http_version(pod.image or "")
    if default == "1.1":
        return None
    if pod.image is None:
        why = f"which container of {pod.workload} reads it is not known"
    doubts = [f"{gap.what} (line {gap.line}) is not in the input" for gap in proxy.gaps]
    if default is None:
        return _Verdict(
            doubts=(
                f"no proxy_http_version is set, and {why}; before nginx 1.29.7 the default is "
                "HTTP/1.0",
                *doubts,
            )
        )
    return _Verdict(
        (f"no proxy_http_version is set; {why} ({pod.workload}, image {pod.image})",),
        tuple(f"{doubt} and may set proxy_http_version" for doubt in doubts),
    )


def _addresses(proxy: Proxy) -> tuple[str, ...]:
    """What it connects to, as host or host:port."""
    if proxy.upstream:
        return proxy.upstream.servers
    target = proxy.target.partition("://")[2] if proxy.scheme else proxy.target
    return (target if target.startswith("unix:") else re.split(r"[/?#]", target)[0],)


def _is_answered(
    snapshot: Snapshot,
    pod: NginxPod,
    namespace: str,
    address: str,
    by_address: Mapping[str | None, Service],
) -> _Verdict | None:
    """Whether an Envoy answers HTTP/1.0 requests to an address with 426; None where none does."""
    if address.startswith("unix:"):
        return None
    if "$" in address:
        return _Verdict(doubts=(f"only the running nginx knows which upstream {address} is",))
    host, number = _split(address)
    service, missing = _called(snapshot, host, namespace, by_address)
    if missing:
        return _Verdict(doubts=(missing,))
    port = service.port(number) if service and not service.is_external_name else None
    if service is None or port is None or not service.selector:
        return None
    if port.protocol == SNIFFED:
        where = f"port {number} of {service.resource}"
        return _Verdict(doubts=(f"{where} names no protocol: {_PASSED_ON}",))
    return _by_envoy(snapshot, pod, service, port) if port.protocol in HTTP_PROTOCOLS else None


def _called(
    snapshot: Snapshot, host: str, namespace: str, by_address: Mapping[str | None, Service]
) -> tuple[Service | None, str | None]:
    """The Service that a pod means by a name or an address, or why it is not known."""
    try:
        literal = ip_address(host)
    except ValueError:
        return (None, None) if host == "localhost" else _service(snapshot, host, namespace)
    return (None if literal.is_loopback else by_address.get(host)), None


def _by_envoy(snapshot: Snapshot, pod: NginxPod, service: Service, port: Port) -> _Verdict | None:
    """Whether an Envoy is between nginx and a port of HTTP, and refuses HTTP/1.0."""
    own = _has_sidecar(snapshot, [pod.workload] if pod.workload else [])
    upstreams = snapshot.workloads.select(service.namespace, service.selector)
    theirs = _has_sidecar(snapshot, upstreams)
    if theirs is False:
        if own is False:
            return None
        return _Verdict(doubts=(f"the pods of {service.resource} have no sidecar: {_PASSED_ON}",))
    if upstreams and all(map(_accepts_http10, upstreams)):
        return None
    facts: tuple[str, ...] = (
        f"port {port.number} of {service.resource} is declared {port.protocol}",
    )
    if theirs:
        facts += (f"the pods of {service.resource} have a sidecar",)
    elif own is False:
        return _Verdict(
            facts,
            (
                f"{pod.workload} has no sidecar, and whether the pods of {service.resource} have "
                "one is not known",
            ),
        )
    else:
        facts += (
            f"the pods of {service.resource} are taken to have a sidecar: nothing in the input "
            "says otherwise",
        )
    if pod.workload and _accepts_http10(pod.workload):
        return _Verdict(
            facts,
            (
                f"{_HTTP10} is set for the sidecar of nginx, which is enough only before Istio "
                f"1.13; from then on {service.resource}'s pods need it",
            ),
        )
    return _Verdict(facts)


def _split(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?(.*?)\]?(?::(\d{1,5}))?", address, re.DOTALL)
    host, port = match.groups() if match else (address, None)
    return host.lower().rstrip("."), int(port or 80)


def _service(snapshot: Snapshot, host: str, namespace: str) -> tuple[Service | None, str | None]:
    """The Service that a pod's DNS gives for a name, or why it is not known.

    A name outside the cluster gives neither.
    """
    domain = snapshot.config.domain
    name, _, rest = host.partition(".")
    in_cluster = host.endswith(f".svc.{domain}") or host.endswith(".svc") or not rest
    rest = rest.removesuffix(f".{domain}").removesuffix("svc").removesuffix(".") or namespace
    if "." in rest:
        return None, None
    for service in snapshot.registry.providers(f"{name}.{rest}.svc.{domain}"):
        if service.is_kubernetes:
            return service, None
    if not in_cluster and rest not in snapshot.workloads.by_namespace:
        return None, None
    if snapshot.coverage.live and snapshot.unknown(rest, "Service") is None:
        return None, None
    return None, (
        f"the input does not hold the Service {rest}/{name}: whether its port is HTTP and its pods "
        "have a sidecar is not known"
    )


def _has_sidecar(snapshot: Snapshot, workloads: Sequence[Workload]) -> bool | None:
    """Whether a pod among them has a sidecar; None where that cannot be told.

    ztunnel, which carries the traffic of a pod in ambient mode, does not look at HTTP.
    """
    unknown = not workloads
    for workload in workloads:
        has = snapshot.has_sidecar(workload)
        if has:
            return True
        if has is None and not is_ambient(workload, snapshot.namespace_labels(workload.namespace)):
            unknown = True
    return None if unknown else False


def _is_on_everywhere(snapshot: Snapshot) -> bool:
    """Whether istiod runs with PILOT_HTTP10, or the MeshConfig switches it on for all proxies."""
    if (snapshot.config.proxy_metadata or {}).get(_HTTP10) == "1":
        return True
    return any(
        container.get("name") == "discovery" and _env(container, "PILOT_HTTP10") in GO_TRUE
        for workload in snapshot.workloads.all
        for _, container in workload.containers
    )


def _accepts_http10(workload: Workload) -> bool:
    """Whether the pod's own proxy is told to accept HTTP/1.0."""
    if _IN_ANNOTATION.search(workload.annotations.get(_ANNOTATION, "")):
        return True
    return any(
        container.get("name") == "istio-proxy" and _env(container, _HTTP10) == "1"
        for _, container in workload.containers
    )


def _env(container: Mapping[str, object], name: str) -> str | None:
    variables = container.get("env")
    if isinstance(variables, list):
        for variable in variables:
            if variable.get("name") == name:
                value: str | None = variable.get("value")
                return value
    return None


def _finding(
    config_map: Resource, key: str, faults: list[_Fault], readers: Sequence[NginxPod]
) -> Finding:
    faults.sort(key=lambda fault: (fault.proxy.line, len(fault.doubts)))
    first = faults[0]
    also = sorted({fault.proxy.line for fault in faults} - {first.proxy.line})
    more = ""
    if also:
        shown = ", ".join(map(str, also[:8])) + (", ..." if len(also) > 8 else "")
        more = f"; so {'do' if len(also) > 1 else 'does'} line{'s' * (len(also) > 1)} {shown}"
    maybe = "may proxy" if first.version.doubts else "proxies"
    reason = "; ".join(first.version.facts + first.version.doubts)
    traffic = "Envoy answers these requests with 426 Upgrade Required (response detail low_version)"
    if first.answered.doubts:
        traffic = (
            "Envoy may answer these requests with 426 Upgrade Required: " + first.answered.doubts[0]
        )
    elif first.doubts:
        traffic = "if so, Envoy answers these requests with 426 Upgrade Required"
    setting = first.proxy.http_version
    if setting is None:
        cure = f"put `proxy_http_version 1.1;` beside the proxy_pass in line {first.proxy.line}"
        cure += " (or once in the server or http block around it)"
    else:
        where = f"line {setting.line}"
        if setting.key != first.proxy.key:
            where += f" of {setting.key}"
        cure = f"change {where} to `proxy_http_version 1.1;`"
    evidence = dict.fromkeys(
        text
        for fault in faults
        for text in (*fault.version.facts, *fault.answered.facts, *fault.doubts)
    )
    repair = repair_of(first.pod, [each.proxy for each in faults if each.pod is first.pod], readers)
    return RULE.finding(
        config_map,
        ("data", key),
        f"{key} line {first.proxy.line}{_context(first.proxy)} {maybe} to {first.proxy.target} in "
        f"HTTP/1.0: {reason}{more}",
        traffic=traffic,
        next=f"{cure}, then {restart_of(readers)}",
        severity=Severity.WARNING if first.doubts else RULE.severity,
        evidence=tuple(evidence),
        related=tuple(
            dict.fromkeys(fault.pod.workload.resource.id for fault in faults if fault.pod.workload)
        ),
        repairs=(repair,) if repair else (),
    )


def _context(proxy: Proxy) -> str:
    return f" ({proxy.context})" if proxy.context else ""


RULE = Rule(
    code="KM401",
    name="nginx-http10-upstream",
    severity=Severity.ERROR,
    summary="nginx speaks HTTP/1.0 to an upstream, and Envoy answers 426 Upgrade Required.",
    explanation="""\
Envoy refuses HTTP/1.0: it answers **426 Upgrade Required**. nginx before 1.29.7 proxies in
HTTP/1.0 unless `proxy_http_version` says otherwise; from 1.29.7 on (stable: 1.30) the default
is 1.1.

The rule reads every ConfigMap that holds nginx configuration, `include`s among its keys and
among the other ConfigMaps of the same pod followed, and finds for each `proxy_pass` the version
in force (http, server, location). Where none is set, the image of the container that mounts the
ConfigMap decides.

Who answers 426? Since Istio 1.13 it is the sidecar (or gateway) **of the upstream**, on a port
that is declared HTTP by its name or appProtocol. The sidecar of nginx itself does not take
HTTP/1.0 for HTTP: it passes it on as plain TCP, without mTLS, to the Service's address, past
every VirtualService. So where the upstream demands mTLS (`STRICT`), or nginx's sidecar knows
only registered hosts (`REGISTRY_ONLY`), the connection is cut, and nginx answers 502 instead.
Before 1.13 the sidecar of nginx answered 426 by itself.

The finding is an **error** where all of it is known: HTTP/1.0 is explicit or the image's
default, and the upstream's port is declared HTTP. A workload counts as part of the mesh unless
the input says otherwise. It is a **warning**, which says what is not known, where the image
does not tell its nginx version, no workload mounts the ConfigMap, an included file or the
upstream's Service is not in the input, or a variable holds the upstream; and where requests are
not refused by today's Istio but pass its HTTP rules by (a port without a protocol, pods without
sidecar).

The rule is silent for `https://` upstreams (Envoy sees TLS), Unix sockets, loopback, hosts
outside the cluster, ports declared TCP; where neither nginx nor the upstream has a sidecar; and
where HTTP/1.0 is switched on: `PILOT_HTTP10=1` on istiod, or `ISTIO_META_HTTP10: "1"` in the
`proxyMetadata` of the MeshConfig's `defaultConfig` or of the upstream pods'
`proxy.istio.io/config`.""",
    fix="""\
Set the version once, in the `http` or `server` block, and reload nginx:

```nginx
proxy_http_version 1.1;
```

A `location` that sets its own `proxy_http_version` needs the change there. Where the
configuration cannot be changed, switch HTTP/1.0 on for the whole mesh: `PILOT_HTTP10=1` in the
environment of istiod.""",
    reference="https://istio.io/latest/docs/ops/common-problems/network-issues/"
    "#envoy-wont-connect-to-my-http10-service",
    needs=("ConfigMap",),
    uses=("Service", "ServiceEntry", "Namespace", *WORKLOAD_KINDS),
    check=check,
    bad="""\
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data:
  default.conf: |
    server {
      listen 8080;
      location /api/ {
        proxy_pass http://api:8080;
      }
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.25.3
        ports: [{containerPort: 8080}]
        volumeMounts: [{name: conf, mountPath: /etc/nginx/conf.d}]
      volumes:
      - name: conf
        configMap: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  selector: {app: api}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, version: v1}}
    spec:
      containers: [{name: api, image: "example.com/api:1", ports: [{containerPort: 8080}]}]
""",
    good="""\
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data:
  default.conf: |
    server {
      listen 8080;
      proxy_http_version 1.1;
      location /api/ {
        proxy_pass http://api:8080;
      }
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.25.3
        ports: [{containerPort: 8080}]
        volumeMounts: [{name: conf, mountPath: /etc/nginx/conf.d}]
      volumes:
      - name: conf
        configMap: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  selector: {app: api}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, version: v1}}
    spec:
      containers: [{name: api, image: "example.com/api:1", ports: [{containerPort: 8080}]}]
""",
)
