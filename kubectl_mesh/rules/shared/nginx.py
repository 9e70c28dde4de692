"""The two lines that an nginx needs in front of Envoy, put where they lose nothing.

`proxy_http_version 1.1;` and `proxy_set_header Connection "";` go before the proxy_pass that lacks
them, or in place of what says otherwise. A block inherits `proxy_set_header` only if it has none of
its own: the header goes beside those that are in force, and is left out where some may be in force
that cannot be seen, unless the user accepts that. What comes out is read again, and has to mean
what was meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kubectl_mesh.mesh.resource import Path, Resource
from kubectl_mesh.nginx.config import Header, Proxy, read
from kubectl_mesh.nginx.pods import NginxPod
from kubectl_mesh.rules.repair import Edit, Repair

_VERSION = "proxy_http_version 1.1;"
_HEADER = 'proxy_set_header Connection "";'
_RESTARTABLE = ("Deployment", "StatefulSet", "DaemonSet")
_LEVELS = ("location",)
"""The blocks of a proxy_pass in which both directives are allowed."""


def readers_of(pods: Iterable[NginxPod]) -> Mapping[int, Sequence[NginxPod]]:
    """The nginx that read each ConfigMap, by the id() of that."""
    found: dict[int, list[NginxPod]] = {}
    for pod in pods:
        for config_map in {id(resource): None for resource, _ in pod.files.values()}:
            found.setdefault(config_map, []).append(pod)
    return found


def restart_of(readers: Iterable[NginxPod]) -> str:
    """What makes nginx read its files again, as a command where it is known what runs it."""
    workloads = [pod.workload.resource for pod in readers if pod.workload]
    commands = dict.fromkeys(
        f"kubectl -n {each.namespace} rollout restart {each.kind.lower()}/{each.name}"
        for each in workloads
        if each.kind in _RESTARTABLE
    )
    return " and ".join(commands) or "restart nginx"


def repair_of(
    pod: NginxPod, proxies: Sequence[Proxy], readers: Sequence[NginxPod], *, blind: bool = False
) -> Repair | None:
    """What makes some proxies of an nginx speak HTTP/1.1, and keep connections open if they may.

    `readers` are all nginx that read the file. With `blind` the header is set, too, where blocks
    that cannot be seen may set others: that is unsafe. Else, of an upstream with keepalive, KM402
    tells that it is left out.
    None where it cannot be written down: the directive stands in a block that does not allow
    these, comes from a variable, or is not found on its line. None, too, where nothing is to be
    done.
    """
    if not all(map(_is_clear, proxies)):
        return None
    texts = {name: _text(*place) for name, place in pod.files.items()}
    edits = _Edits(texts)
    versions = [
        each for each in proxies if not each.http_version or each.http_version.value != "1.1"
    ]
    for proxy in versions:
        _set_version(edits, proxy)
    closing = [each for each in proxies if _closes(each)]
    stock_main = all(each.stock_main for each in readers)
    unseen = [each for each in closing if not _shows_headers(each, stock_main)]
    risky = [each for each in unseen if blind and not each.gaps]
    left = [each for each in unseen if each not in risky]
    headers = [each for each in closing if each not in left]
    for proxy in headers:
        _set_header(edits, proxy)
    new = edits.made()
    if not new or not _means_it({**texts, **new}, proxies):
        return None
    changed: dict[tuple[int, str], Edit] = {}
    for name, text in new.items():
        config_map, key = pod.files[name]
        path: Path = ("data", key)
        changed[id(config_map), key] = Edit(config_map, path, text)
    return Repair(
        "http-1.1",
        _title(versions, headers),
        tuple(changed.values()),
        unsafe=f"headers that an http block around {_lines(risky)} sets, in a file that is not in "
        "the input, no longer hold there"
        if risky
        else "",
        affects=(
            *_still_closing(left),
            f"nginx reads it once it is restarted: {restart_of(readers)}",
        ),
    )


def _is_clear(proxy: Proxy) -> bool:
    """Whether it can be told what its block sends now, and that it may stand there."""
    is_variable = proxy.http_version is not None and "$" in proxy.http_version.value
    return proxy.level in _LEVELS and _takes_connection(proxy) and not is_variable


def _closes(proxy: Proxy) -> bool:
    """Whether nginx sends `Connection: close`, which is its default."""
    return proxy.connection is None or proxy.connection.value.lower() == "close"


def _shows_headers(proxy: Proxy, stock_main: bool) -> bool:
    """Whether a header set there switches off none that are not in the input."""
    return bool(proxy.headers) or (not proxy.gaps and (proxy.outer_seen or stock_main))


def _still_closing(left: Iterable[Proxy]) -> Iterator[str]:
    found = [proxy for proxy in left if not proxy.keepalive]
    if found:
        yield (
            f"nginx goes on to send `Connection: close` where {_lines(found)} proxies: a header "
            "set there could switch off others that are not in the input"
        )


def _title(versions: Sequence[Proxy], headers: Sequence[Proxy]) -> str:
    """What is set, and where."""
    version, header = "set proxy_http_version 1.1", "clear the Connection header"
    if not versions or not headers:
        return f"{header if headers else version} where {_lines(headers or versions)} proxies"
    if versions == headers:
        return f"{version} and {header} where {_lines(versions)} proxies"
    return f"{version} where {_lines(versions)} proxies, and {header} where {_lines(headers)} does"


def _text(config_map: Resource, key: str) -> str:
    return str((config_map.data.get("data") or {}).get(key) or "")


def _lines(proxies: Sequence[Proxy]) -> str:
    found = sorted({proxy.line for proxy in proxies})
    listed = ", ".join(map(str, found))
    return f"line {listed} of {proxies[0].key}" if len(found) == 1 else f"each of lines {listed}"


def _set_version(edits: _Edits, proxy: Proxy) -> None:
    setting = proxy.http_version
    if setting is None:
        edits.before(proxy.key, proxy.line, "proxy_pass", _VERSION)
    else:
        edits.replace(setting.key, setting.line, "proxy_http_version", _VERSION)


def _takes_connection(proxy: Proxy) -> bool:
    """Whether it is clear which Connection header is sent."""
    return [header.name.lower() for header in proxy.headers].count("connection") < 2


def _set_header(edits: _Edits, proxy: Proxy) -> None:
    """Takes the Connection header out: in its place, else beside the headers in force."""
    connection = proxy.connection
    if connection is not None:
        edits.replace(connection.key, connection.line, "proxy_set_header", _HEADER)
    elif proxy.headers:
        last: Header = proxy.headers[-1]
        edits.before(last.key, last.line, "proxy_set_header", _HEADER)
    else:
        edits.before(proxy.key, proxy.line, "proxy_pass", _HEADER)


class _Edits:
    """Edits of the lines of some files, each made once."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._wanted: dict[str, dict[int, dict[tuple[str, bool], list[str]]]] = defaultdict(dict)

    def before(self, key: str, line: int, directive: str, new: str) -> None:
        """A directive before another one: above its line, or on it if that has more on it."""
        self._add(key, line, (directive, False), new)

    def replace(self, key: str, line: int, directive: str, new: str) -> None:
        """A directive in place of the one that stands there."""
        self._add(key, line, (directive, True), new)

    def _add(self, key: str, line: int, how: tuple[str, bool], new: str) -> None:
        wanted = self._wanted[key].setdefault(line, {}).setdefault(how, [])
        if new not in wanted:
            wanted.append(new)

    def made(self) -> dict[str, str] | None:
        """The new texts; None where a directive is not found on its line, or twice."""
        found = {}
        for key, by_line in self._wanted.items():
            lines = self._texts[key].split("\n")
            for number in sorted(by_line, reverse=True):
                for (directive, replaces), new in by_line[number].items():
                    edited = _edited(lines[number - 1], directive, new, replaces=replaces)
                    if edited is None:
                        return None
                    lines[number - 1 : number] = edited
            found[key] = "\n".join(lines)
        return found


def _edited(line: str, directive: str, new: Iterable[str], *, replaces: bool) -> list[str] | None:
    places = list(re.finditer(rf"(?<![\w$#\"']){directive}\s[^;]*;", line.partition("#")[0]))
    if len(places) != 1:
        return None
    start, end = places[0].span()
    if replaces:
        return [line[:start] + " ".join(new) + line[end:]]
    indent = line[:start]
    if indent.strip():
        return [f"{indent}{' '.join(new)} {line[start:]}"]
    return [*(f"{indent}{each}" for each in new), line]


def _means_it(texts: Mapping[str, str], proxies: Sequence[Proxy]) -> bool:
    """Whether the new texts proxy as before, but in HTTP/1.1 and without the close."""
    config = read(texts)
    if config is None or config.unreadable:
        return False
    for old in proxies:
        found = [
            new
            for new in config.proxies
            if (new.key, new.target, new.context) == (old.key, old.target, old.context)
        ]
        if not found or not all(_is_cured(old, new) for new in found):
            return False
    return True


def _is_cured(old: Proxy, new: Proxy) -> bool:
    version = new.http_version.value if new.http_version else None
    kept = [_named(old), _named(new)]
    return version == "1.1" and kept[0] == kept[1]


def _named(proxy: Proxy) -> list[tuple[str, str]]:
    """The headers that are set besides Connection."""
    return [
        (header.name.lower(), header.value)
        for header in proxy.headers
        if header.name.lower() != "connection"
    ]
