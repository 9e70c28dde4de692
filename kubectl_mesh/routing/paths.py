"""What Envoy makes of a path before it looks for a route, and where redirects lead.

istiod turns `normalize_path` on for every proxy, unless the mesh's pathNormalization is NONE, and
`merge_slashes` and `path_with_escaped_slashes_action` where it says so.
Redirects model `newUri` and `processRequestHost` of Envoy, and `ApplyRedirect` of istiod.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kubectl_mesh.routing.request import Request

_PLAIN = re.compile(r"[A-Za-z0-9_.~/!$&'()*+,;=:@\[\]-]*")
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"%2[Ff]|%5[Cc]")
_SLASHES = re.compile(r"//+")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_KEPT = "/%!$&'()*+,;=:@[]~"


def normalized(path: str, how: str = "BASE") -> str:
    r"""A path as Envoy compares it with routes; `how` is as in MeshConfig.path_normalization.

    `.` and `..` are resolved, `\` is a `/`, escapes of letters, digits and `-._~` are undone and
    what may not stand in a URL is escaped. `//` and `%2F` stay as they are, unless `how` says
    otherwise.
    """
    if how == "NONE":
        return path
    if how == "DECODE_AND_MERGE_SLASHES":
        path = _ESCAPED_SLASH.sub("/", path)
    path = _canonical(path)
    return path if how == "BASE" else _SLASHES.sub("/", path)


def _canonical(path: str) -> str:
    if "/." not in path and _PLAIN.fullmatch(path):
        return path
    path = quote(path.replace("\\", "/"), safe=_KEPT, errors="surrogateescape")
    path = _ESCAPED.sub(_unescaped, path)
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == ".." and kept:
            kept.pop()
        elif segment not in (".", ".."):
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0]


def with_query(path: str, request: Request) -> str:
    return f"{path}?{request.query}" if request.query else path


_CODES = (301, 302, 303, 307, 308)


def redirect_status(redirect: Mapping[str, Any]) -> int:
    """The status of a redirect; the API server refuses other codes than Envoy's."""
    code = redirect.get("redirectCode")
    return code if code in _CODES else 301


def location(request: Request, redirect: Mapping[str, Any], port: int, path: str) -> str:
    """Where a redirect of a rule leads, for a request to a listener's port.

    `path` is what it makes of the request's, where it does not name a whole one.
    """
    scheme = redirect.get("scheme") or request.scheme
    new_port = redirect.get("port") or 0
    if redirect.get("derivePort") == "FROM_REQUEST_PORT":
        new_port = port
    if (scheme, new_port) in (("http", 80), ("https", 443)):
        new_port = 0
    host = redirect.get("authority") or _own_host(request, scheme, bool(new_port))
    path = redirect.get("uri") or path
    if "?" not in path:
        path = with_query(path, request)
    slash = "" if path.startswith("/") else "/"
    return f"{scheme}://{host}{f':{new_port}' if new_port else ''}{slash}{path}"


def _own_host(request: Request, scheme: str, new_port: bool) -> str:
    """The Host header, less a port that does not fit the new URL."""
    name, colon, port = request.authority.rpartition(":")
    if not colon or not port.isdigit():
        return request.authority
    usual = (request.scheme, port) in (("http", "80"), ("https", "443"))
    return name if new_port or (usual and scheme != request.scheme) else request.authority


def https_location(request: Request) -> str:
    """Where a server with httpsRedirect sends a request."""
    return f"https://{request.authority}{with_query(request.path, request)}"
