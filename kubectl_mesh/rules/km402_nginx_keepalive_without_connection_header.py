"""KM402: nginx keeps upstream connections open, and its Connection header closes every one."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_mesh.mesh.resource import Resource
from kubectl_mesh.mesh.snapshot import Snapshot
from kubectl_mesh.mesh.workloads import WORKLOAD_KINDS
from kubectl_mesh.nginx.config import Header, Proxy, default_http_version
from kubectl_mesh.nginx.pods import NginxPod, nginx_pods
from kubectl_mesh.rules.repair import Repair
from kubectl_mesh.rules.rule import Finding, Rule, Severity
from kubectl_mesh.rules.shared.nginx import readers_of, repair_of


def check(snapshot: Snapshot) -> Iterator[Finding]:
    found: dict[tuple[int, str, int, str], tuple[Resource, NginxPod, dict[int, Proxy]]] = {}
    for pod in nginx_pods(snapshot):
        for proxy in pod.config.proxies:
            if proxy.upstream is None or not _closes_kept_connections(pod, proxy):
                continue
            config_map, key = pod.files[proxy.key]
            place = (id(config_map), key, proxy.upstream.line, proxy.upstream.name)
            proxies = found.setdefault(place, (config_map, pod, {}))[2]
            proxies.setdefault(proxy.line, proxy)
    readers = readers_of(nginx_pods(snapshot))
    for (read, key, _, name), (config_map, pod, proxies) in found.items():
        lines = [proxies[line] for line in sorted(proxies)]
        repair = repair_of(pod, lines, readers[read], blind=True)
        yield _finding(config_map, key, name, lines, repair)


def _closes_kept_connections(pod: NginxPod, proxy: Proxy) -> bool:
    """Whether the upstream has keepalive, and requests in HTTP/1.1 bear `Connection: close`.

    Where the header is set out of sight (an include that is not in the input), it may be right.
    """
    default, _ = default_http_version(pod.image or "")
    version = proxy.http_version.value if proxy.http_version else default
    if not proxy.keepalive or version != "1.1":
        return False
    if proxy.connection is not None:
        return proxy.connection.value.lower() == "close"
    return default != "1.1" and not proxy.gaps


def _finding(
    config_map: Resource, key: str, upstream: str, proxies: list[Proxy], repair: Repair | None
) -> Finding:
    first = proxies[0]
    others = ", ".join(str(proxy.line) for proxy in proxies[1:])
    context = f" ({first.context})" if first.context else ""
    also = f"; so do lines {others}" if len(proxies) > 2 else f"; so does line {others}"
    if first.connection:
        line = _line(first.connection, first)
        said = f"{line} sets the header `Connection: close`"
        cure = f'change {line} to `proxy_set_header Connection "";`'
    else:
        said = "nginx before 1.29.7 adds the header `Connection: close`"
        cure = 'add `proxy_set_header Connection "";` ' + _where(first)
    return RULE.finding(
        config_map,
        ("data", key),
        f"{key} line {first.line}{context} proxies to upstream {upstream}, which keeps "
        f"connections open (keepalive), but {said}{also if others else ''}",
        traffic="every request opens and closes a connection of its own: keepalive has no effect",
        next=cure,
        evidence=tuple(
            f"{_line(header, first)} ({header.level}): proxy_set_header {header.name} "
            f"{header.value}"
            for header in first.headers
        ),
        repairs=(repair,) if repair else (),
    )


def _where(proxy: Proxy) -> str:
    """The place where the header joins those in force instead of replacing them."""
    if proxy.headers:
        last = proxy.headers[-1]
        count = len(proxy.headers)
        lines = "line" if count == 1 else f"{count} lines"
        return (
            f"after {_line(last, proxy)} ({last.level}): further in, it would switch off the "
            f"{lines} of proxy_set_header there"
        )
    beside = f"beside the proxy_pass in line {proxy.line}"
    if proxy.outer_seen:
        return beside
    return f"{beside}; if an http block around it sets headers, repeat them there"


def _line(header: Header, proxy: Proxy) -> str:
    return f"line {header.line}" + (f" of {header.key}" if header.key != proxy.key else "")


RULE = Rule(
    code="KM402",
    name="nginx-keepalive-without-connection-header",
    severity=Severity.WARNING,
    summary="nginx has keepalive for an upstream, and sends `Connection: close` to it.",
    explanation="""\
An `upstream` block with `keepalive` asks nginx to use connections again. That takes HTTP/1.1
**and** a request without `Connection: close`, which nginx before 1.29.7 adds by default:
`proxy_set_header Connection "";` takes it out. Without it the upstream, or the Envoy before it,
closes every connection after one request. Latency goes up, and under load the ports of the pod
run out.

The rule looks at every `proxy_pass` to an upstream with `keepalive` where HTTP/1.1 (by
`proxy_http_version`, or by an image of nginx 1.29.7 or newer) and no other Connection header is in
force. It is silent for `Connection ""`, for upgrades (`upgrade`, `$connection_upgrade`), where an
included file that is not in the input may set the header, and for an image known to hold nginx
1.29.7 or later, unless `close` is written out there: it sends no Connection header by default.""",
    fix="""\
Add the header **where the other `proxy_set_header` lines in force stand**:

```nginx
proxy_set_header Host $host;
proxy_set_header Connection "";
```

A block inherits `proxy_set_header` only if it sets none of its own. Added in a `location`, this
line switches off the `Host` and `X-Forwarded-*` lines of the `server` around it: repeat them
there.""",
    reference="https://nginx.org/en/docs/http/ngx_http_upstream_module.html#keepalive",
    needs=("ConfigMap",),
    uses=WORKLOAD_KINDS,
    check=check,
    bad="""\
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data:
  default.conf: |
    upstream api {
      server api:8080;
      keepalive 16;
    }
    server {
      listen 8080;
      location / {
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_pass http://api;
      }
    }
""",
    good="""\
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data:
  default.conf: |
    upstream api {
      server api:8080;
      keepalive 16;
    }
    server {
      listen 8080;
      location / {
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection "";
        proxy_pass http://api;
      }
    }
""",
)
