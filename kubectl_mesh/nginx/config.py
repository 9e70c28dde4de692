"""What nginx, set up by the files of a ConfigMap, speaks to its upstreams.

Envoy answers an HTTP/1.0 request with 426 Upgrade Required unless HTTP/1.0 is switched on, and
nginx before 1.29.7 proxies with HTTP/1.0 unless `proxy_http_version` says otherwise. `read` finds
every `proxy_pass` over http or https and what is in force there: `proxy_http_version` is inherited
by http, server and location, level by level; `proxy_set_header` only by a level that sets none.

`include` is resolved among the ConfigMap's keys alone, by base name; no file is ever opened.
What takes part but is not in the ConfigMap is kept as a `Gap`, since it may set anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal, NamedTuple

from kubectl_mesh.mesh.texts import tag_of

MAX_SIZE = 1 << 20
"""Characters in all files: what the API server takes for a ConfigMap."""
MAX_DEPTH = 64
"""Blocks and includes within each other."""
MAX_DIRECTIVES = 100_000
"""Directives in one file, and in all of them once every include is expanded."""
MAX_PATTERN = 253
"""Characters of an include's pattern: as many as a ConfigMap's key can have."""
_PATTERN_COST = 10
"""What a pattern costs in directives: about the time that it takes to compile."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A directive's value as written, where it is set (`line` from 1) and in what kind of block."""

    value: str
    key: str
    line: int
    level: str


@dataclass(frozen=True, slots=True)
class Header:
    """One `proxy_set_header`, as `Setting` says where."""

    name: str
    value: str
    key: str
    line: int
    level: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that takes part in a level and cannot be seen.

    `what` is an include of a file that is not in the ConfigMap or cannot be read, or a
    placeholder such as `${EXTRA}`.
    """

    what: str
    key: str
    line: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """An `upstream` block; `servers` are its addresses as written.

    `keepalive` is None where it is not set: no connection is kept before nginx 1.29.7, and 32
    for each worker from then on.
    """

    name: str
    servers: tuple[str, ...]
    keepalive: Setting | None
    key: str
    line: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """One `proxy_pass` to an HTTP upstream and what is in force there.

    `level` is the block that holds it: location, if or limit_except (the directives that matter
    here are not allowed in the last two, so they belong in the location around). `http_version`
    is None where no level sets it: nginx's default, see `default_http_version`. `outer_seen` is
    false for a fragment that no other key includes: the blocks around it, which the image's own
    nginx.conf provides, may set more.
    """

    target: str
    key: str
    line: int
    level: str
    context: str
    http_version: Setting | None
    headers: tuple[Header, ...]
    upstream: Upstream | None
    gaps: tuple[Gap, ...]
    outer_seen: bool

    @property
    def scheme(self) -> Literal["http", "https"] | None:
        """None where a variable holds it. The proxies see nothing of HTTP inside https."""
        scheme = self.target[:8].lower()
        if scheme == "https://":
            return "https"
        return "http" if scheme.startswith("http://") else None

    @property
    def connection(self) -> Header | None:
        """The Connection header sent, its value "" where it is taken out.

        None is nginx's default: `close` before 1.29.7, nothing from then on. Of several, nginx
        sends all that are not empty.
        """
        set_here = [header for header in self.headers if header.name.lower() == "connection"]
        return next((header for header in set_here if header.value), next(iter(set_here), None))

    @property
    def keepalive(self) -> bool:
        """Whether the upstream asks for connections to be kept open."""
        setting = self.upstream.keepalive if self.upstream else None
        return setting is not None and setting.value != "0"

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The hosts that it may connect to, without port; None where a variable decides.

        Empty for a Unix socket, which no request to the mesh goes through.
        """
        addresses = self.upstream.servers if self.upstream else (_authority(self.target),)
        hosts = [_host(address) for address in addresses if not address.startswith("unix:")]
        if any("$" in host for host in hosts):
            return None
        return tuple(dict.fromkeys(hosts))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A key that is nginx configuration, and why it (or a part of it) could not be read."""

    key: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class NginxConfig:
    proxies: tuple[Proxy, ...]
    unreadable: tuple[Unreadable, ...]


def read(data: Mapping[str, str]) -> NginxConfig | None:
    """What the nginx configuration among the values of `data` (a ConfigMap's) proxies.

    None where no value is nginx configuration. A file that nginx would refuse for its syntax
    counts as unreadable and adds nothing to the proxies. Raises nothing, whatever the text.
    """
    reader = _Reader({key: text for key, text in data.items() if isinstance(text, str)})
    reader.read()
    if not reader.found:
        return None
    return NginxConfig(tuple(reader.proxies()), tuple(reader.unreadable))


# The text of one key


class _Statement(NamedTuple):
    """A directive; `block` is None where it ends with a semicolon."""

    key: str
    line: int
    name: str
    args: tuple[str, ...]
    block: tuple[_Statement, ...] | None = None


class _SyntaxFault(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


_ARGUMENTS = {"include": 1, "proxy_pass": 1, "proxy_http_version": 1, "proxy_set_header": 2}
_PLACEHOLDER = re.compile(r"\$(?:\w+|\{\w+\})")


@cache
def _directives() -> dict[str, bool]:
    """The directives of nginx and its usual modules, and whether each may open a block."""
    from crossplane.analyzer import DIRECTIVES, NGX_CONF_BLOCK

    return {
        name: any(mask & NGX_CONF_BLOCK for mask in masks) for name, masks in DIRECTIVES.items()
    }


def _parse(key: str, text: str) -> tuple[_Statement, ...]:
    """The directives of `text`; raises _SyntaxFault where nginx would refuse it."""
    from crossplane import lex_string
    from crossplane.errors import NgxParserBaseException

    outer: list[tuple[_Statement, list[_Statement]]] = []
    body: list[_Statement] = []
    words: list[str] = []
    start = count = 0
    try:
        for token, line, quoted in lex_string(_hide_braces(_without_lua(text))):
            if not quoted and token.startswith("#"):
                continue
            if quoted or token not in ("{", "}", ";"):
                if len(words) == 1 and line > start and _PLACEHOLDER.fullmatch(words[0]):
                    # A template's line of its own: what replaces it ends with a semicolon.
                    body.append(_Statement(key, start, words.pop(), ()))
                if not words:
                    start = line
                words.append(_show_braces(token))
                continue
            if token == "}":
                if words:
                    raise _SyntaxFault(start, f'{_name(words[0])} is not terminated by ";"')
                opened, inner = outer.pop()
                inner.append(opened._replace(block=tuple(body)))
                body = inner
                continue
            if not words:
                raise _SyntaxFault(line, f'unexpected "{token}"')
            count += 1
            if count > MAX_DIRECTIVES:
                raise _SyntaxFault(start, f"has more than {MAX_DIRECTIVES} directives")
            statement = _Statement(key, start, words[0], tuple(words[1:]))
            words = []
            if token == ";":
                _check_arguments(statement)
                body.append(statement)
                continue
            if _directives().get(statement.name) is False:
                raise _SyntaxFault(start, f'{_name(statement.name)} is not terminated by ";"')
            if len(outer) == MAX_DEPTH:
                raise _SyntaxFault(start, f"has blocks nested deeper than {MAX_DEPTH}")
            outer.append((statement, body))
            body = []
    except NgxParserBaseException as error:
        message = error.strerror
        if outer and message.endswith('end of file, expecting "}"'):
            opened = outer[-1][0]
            message += f" ({_name(opened.name)} on line {opened.line} is open)"
        raise _SyntaxFault(error.lineno or 1, message) from None
    if words:
        raise _SyntaxFault(start, f'{_name(words[0])} is not terminated by ";"')
    return tuple(body)


def _check_arguments(statement: _Statement) -> None:
    """A forgotten semicolon makes the next line arguments of this one; nginx refuses that."""
    takes, has = _ARGUMENTS.get(statement.name), len(statement.args)
    if takes is None or takes == has or any(map(_PLACEHOLDER.fullmatch, statement.args)):
        return
    hint = ' (is a ";" missing?)' if has > takes else ""
    message = f"{_name(statement.name)} takes {takes} and has {has} arguments{hint}"
    raise _SyntaxFault(statement.line, message)


def _name(word: str) -> str:
    """`word` for a message, however long and whatever is in it."""
    return '"' + ascii(word[:40])[1:-1] + '"'


# crossplane's lexer runs the words after `${NAME}` together with it, so it never sees the braces.


def _hide_braces(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", "$\ue000\\1\ue001", text)


def _show_braces(token: str) -> str:
    return token.replace("\ue000", "{").replace("\ue001", "}")


_LUA_BLOCK = re.compile(r"(?m)(?:^|[;{}])[ \t]*\w+_by_lua_block\b[^{};#]{0,200}\{")
_LUA_MARK = re.compile(r"--\[(=*)\[|--|\[(=*)\[|[\"'{}]")
_LUA_REST_OF_STRING = {
    '"': re.compile(r'(?:\\.|[^\\"\n])*"', re.DOTALL),
    "'": re.compile(r"(?:\\.|[^\\'\n])*'", re.DOTALL),
}


def _without_lua(text: str) -> str:
    """`text` with OpenResty's Lua blocks emptied and its line numbers kept."""
    kept: list[str] = []
    start = 0
    while match := _LUA_BLOCK.search(text, start):
        end = _lua_end(text, match.end())
        if end is None:
            break
        kept += [text[start : match.end()], "\n" * text.count("\n", match.end(), end)]
        start = end
    return "".join(kept) + text[start:]


def _lua_end(text: str, position: int) -> int | None:
    """Where the brace stands that closes the Lua block begun before `position`."""
    depth = 1
    while match := _LUA_MARK.search(text, position):
        mark, position = match.group(), match.end()
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if not depth:
                return match.start()
        elif mark in _LUA_REST_OF_STRING:
            rest = _LUA_REST_OF_STRING[mark].match(text, position)
            if rest is None:
                return None
            position = rest.end()
        else:
            end = "\n" if mark == "--" else f"]{match.group(1) or match.group(2) or ''}]"
            position = text.find(end, position)
            if position < 0:
                return None
            position += len(end)
    return None


# Is it nginx, and where does it belong?

_MARK = re.compile(
    r"(?m)(?:^|[;{}])[ \t]*(?:"
    r"(?P<block>(?:http|events|server|stream|mail)\s{0,80}\{"
    r"|upstream\s{1,80}[^\s{};]{1,300}\s{0,80}\{"
    r"|location\s{1,80}(?:(?:=|~\*?|\^~)\s{0,80})?[^\s={};][^{};]{0,300}\{)"
    r"|proxy_(?:pass|http_version|set_header)\s|include\s)"
)
_FIRST_WORD = re.compile(r"(?:\s|#[^\n]*\n)*(\w+)\s")
_DIRECTIVE = re.compile(r"(?m)(?:^|[;{}])[ \t]*([a-z][a-z0-9_]{0,80})[ \t][^\n;{}]{1,300};")
_OTHER_LANGUAGE = re.compile(
    r"(?m)\A\s*(?:#!|[<{\[])"  # a script, markup, JSON
    r"|^[^#\n]*<<-?\s?(?P<quote>['\"]?)[A-Za-z_]\w*(?P=quote)\s*(?:[|>].*)?$"  # a here document
    r"|^[ \t]*```"  # Markdown
)
_DIRECTIVE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LOCATION_MODIFIERS = ("=", "~", "~*", "^~")

_Home = Literal["main", "http", "server", "location", "any"]
_OPENS: Mapping[str, tuple[str, ...]] = {
    "main": ("http",),
    "http": ("server",),
    "server": ("location",),
    "location": ("location", "if", "limit_except"),
}
"""The blocks that a level may hold and that a proxy_pass may be in."""


@dataclass(frozen=True, slots=True)
class _File:
    """A key's directives, and the block that it is written for: None where it is not nginx."""

    statements: tuple[_Statement, ...] = ()
    home: _Home | None = None
    fault: _SyntaxFault | None = None


def _load(data: Mapping[str, str]) -> dict[str, _File]:
    files: dict[str, _File] = {}
    room = MAX_SIZE
    for key, text in data.items():
        if not _MARK.search(text):
            files[key] = _File()
            continue
        room -= len(text)
        if room >= 0:
            files[key] = _load_file(key, text)
        else:
            message = f"is beyond the {MAX_SIZE} characters that a ConfigMap can hold"
            files[key] = _File(fault=_SyntaxFault(1, message))
    return files


def _load_file(key: str, text: str) -> _File:
    try:
        statements = _parse(key, text)
    except _SyntaxFault as fault:
        return _File(fault=fault)
    if _OTHER_LANGUAGE.search(text):
        return _File(statements)
    return _File(statements, _home(statements))


def _looks_like_nginx(text: str) -> bool:
    """Whether a text that cannot be parsed was meant as nginx configuration.

    It begins with a directive, has a block of nginx's and a whole directive.
    """
    first = _FIRST_WORD.match(text)
    known = _directives()
    return (
        not _OTHER_LANGUAGE.search(text)
        and first is not None
        and first.group(1) in known
        and any(match["block"] for match in _MARK.finditer(text))
        and any(match[1] in known for match in _DIRECTIVE.finditer(text))
    )


def _home(statements: tuple[_Statement, ...]) -> _Home | None:
    if not all(_DIRECTIVE_NAME.fullmatch(s.name) or _is_placeholder(s) for s in statements):
        return None
    homes = {_home_of(statement) for statement in statements}
    for home in ("main", "http", "server", "location"):
        if home in homes:
            return home
    return "any" if "any" in homes and all(map(_is_known, statements)) else None


def _home_of(statement: _Statement) -> _Home | None:
    """The block that a directive must be in for nginx to take it, where that tells nginx apart."""
    name, args, block = statement.name, statement.args, statement.block
    if block is None:
        if name == "proxy_pass" and len(args) == 1 and _is_http_target(args[0]):
            return "location"
        return "any" if name in ("proxy_http_version", "proxy_set_header") else None
    if not any(map(_is_known, block)):
        return None
    if name in ("http", "events", "stream", "mail") and not args:
        return "main"
    if (name == "server" and not args) or (name == "upstream" and len(args) == 1):
        return "http"
    return "server" if name == "location" and _is_location(args) else None


def _is_location(args: tuple[str, ...]) -> bool:
    if len(args) == 2:
        return args[0] in _LOCATION_MODIFIERS
    return len(args) == 1 and args[0] not in _LOCATION_MODIFIERS and args[0][:1] in tuple("/@=~^")


def _is_known(statement: _Statement) -> bool:
    name = statement.name
    return name in _directives() or "_by_lua" in name or _is_placeholder(statement)


def _is_placeholder(statement: _Statement) -> bool:
    return _PLACEHOLDER.fullmatch(statement.name) is not None


def _is_http_target(target: str) -> bool:
    return target.lower().startswith(("http://", "https://", "$"))


# All keys together


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is in force at a level."""

    level: str
    context: str = ""
    http_version: Setting | None = None
    headers: tuple[Header, ...] = ()
    gaps: tuple[Gap, ...] = ()
    outer_seen: bool = True
    upstreams: dict[str, Upstream] = field(default_factory=dict)


class _TooMuch(Exception):
    """The includes expand to more than is worth reading."""


_STOCK = frozenset({"mime.types", "fastcgi_params", "fastcgi.conf", "uwsgi_params", "scgi_params"})
"""Files that come with nginx and say nothing of proxying."""

_TEMPLATE = ".template"
"""Of the official image: envsubst writes `x.conf` from `x.conf.template`."""


class _Reader:
    def __init__(self, data: Mapping[str, str]) -> None:
        self._files = _load(data)
        self._keys = {key.removesuffix(_TEMPLATE): key for key in data} | {key: key for key in data}
        self._named: set[str] = set()
        self._globs: dict[tuple[str, str], tuple[str, ...]] = {}
        self._left = MAX_DIRECTIVES
        self._met: list[tuple[_Statement, _Scope]] = []
        self.unreadable: dict[Unreadable, None] = {}
        for key, file in self._files.items():
            if file.fault and _looks_like_nginx(data[key]):
                self._fault(key, file.fault.line, file.fault.message)
        self.found = bool(self.unreadable) or any(file.home for file in self._files.values())

    def read(self) -> None:
        self._named = set(self._included_by_name())
        try:
            roots = self._roots()
            for key in roots:
                if self._files[key].home == "main":
                    self._enter(_Scope("main"), self._expand(self._files[key].statements, "main"))
            fragments = [s for key in roots for s in self._in_http(key)]
            outside = _Scope("http", outer_seen=False)
            self._enter(outside, self._expand(fragments, "http"))
        except _TooMuch as error:
            statement = error.args[0]
            message = f"its includes expand to more than {MAX_DIRECTIVES} directives; rest not read"
            self._fault(statement.key, statement.line, message)

    def proxies(self) -> Iterator[Proxy]:
        for statement, scope in self._met:
            target = statement.args[0]
            yield Proxy(
                target=target,
                key=statement.key,
                line=statement.line,
                level=scope.level,
                context=scope.context,
                http_version=scope.http_version,
                headers=scope.headers,
                upstream=scope.upstreams.get(_authority(target).lower()),
                gaps=scope.gaps,
                outer_seen=scope.outer_seen,
            )

    def _fault(self, key: str, line: int, message: str) -> None:
        self.unreadable[Unreadable(key, line, message)] = None

    def _spend(self, statement: _Statement, cost: int = 1) -> None:
        self._left -= cost
        if self._left < 0:
            raise _TooMuch(statement)

    # Which file is read where

    def _in_http(self, key: str) -> tuple[_Statement, ...]:
        """A file that nothing here includes, as the image's nginx.conf would have it in http."""
        file = self._files[key]
        if file.home == "server":
            return (_Statement(key, 0, "server", (), file.statements),)
        if file.home == "location":
            location = _Statement(key, 0, "location", (), file.statements)
            return (_Statement(key, 0, "server", (), (location,)),)
        if file.home == "http" or (
            file.home == "any" and key.removesuffix(_TEMPLATE).endswith(".conf")
        ):
            return file.statements
        return ()

    def _roots(self) -> list[str]:
        """The files to begin with: those that no other includes, and one of each circle."""
        nginx = [key for key, file in self._files.items() if file.home]
        targets = {key: set(self._targets(key)) - {key} for key in nginx}
        included = set().union(*targets.values())
        roots: list[str] = []
        reached: set[str] = set()
        for key in [k for k in nginx if k not in included] + [k for k in nginx if k in included]:
            if key in reached:
                continue
            roots.append(key)
            stack = [key]
            while stack:
                at = stack.pop()
                if at not in reached:
                    reached.add(at)
                    stack += targets.get(at, ())
        return roots

    def _targets(self, key: str) -> Iterator[str]:
        file = self._files[key]
        for include, level in _includes(file.statements, file.home or "any"):
            yield from self._resolve(include, level) or ()

    def _included_by_name(self) -> Iterator[str]:
        for key, file in self._files.items():
            for include, _ in _includes(file.statements if file.home else (), "any"):
                target = self._keys.get(_base(include))
                if target is not None and target != key:
                    yield target

    def _resolve(self, include: _Statement, level: str) -> tuple[str, ...] | None:
        """The keys that an include names, None where it names none of them.

        A pattern stands for the files of one folder, and keys have none: it leaves out what is
        included by name elsewhere and what would not be allowed at this level.
        """
        base = _base(include)
        if not _is_pattern(base):
            return (self._keys[base],) if base in self._keys else None
        if len(base) > MAX_PATTERN:
            return None
        if (base, level) not in self._globs:
            self._spend(include, _PATTERN_COST + len(self._keys))
            matching = {key for name, key in self._keys.items() if fnmatchcase(name, base)}
            self._globs[base, level] = tuple(
                key for key in sorted(matching - self._named) if _fits(self._files[key].home, level)
            )
        found = self._globs[base, level]
        self._spend(include, len(found))
        return found or None

    def _expand(
        self, statements: Iterable[_Statement], level: str, within: tuple[str, ...] = ()
    ) -> Iterator[tuple[_Statement, tuple[str, ...]]]:
        """The directives with what they include in place, each with the files that led there.

        An include that cannot be followed is left as it is.
        """
        for statement in statements:
            self._spend(statement)
            keys = self._resolve(statement, level) if _is_include(statement) else None
            if keys is None:
                yield statement, within
                continue
            for key in keys:
                file = self._files[key]
                if key == statement.key or key in within:
                    if not _is_pattern(_base(statement)):
                        message = f"{_name(statement.args[0])} includes itself"
                        self._fault(statement.key, statement.line, message)
                elif len(within) >= MAX_DEPTH:
                    message = f"includes are nested deeper than {MAX_DEPTH}"
                    self._fault(statement.key, statement.line, message)
                elif file.fault:
                    self._fault(key, file.fault.line, file.fault.message)
                    yield statement, within
                else:
                    yield from self._expand(file.statements, level, (*within, statement.key))

    # What is in force

    def _enter(
        self,
        outer: _Scope,
        body: Iterable[tuple[_Statement, tuple[str, ...]]],
        depth: int = 0,
    ) -> None:
        """Reads one level: `outer` is what it inherits, its own name and place already in it."""
        level = outer.level
        http_version = outer.http_version
        headers: list[Header] = []
        gaps: list[Gap] = []
        held: list[tuple[_Statement, tuple[str, ...]]] = []
        for statement, within in body:
            key, line, name, args, block = statement
            if block is not None or name == "proxy_pass":
                held.append((statement, within))
            elif level == "main":
                continue
            elif name == "proxy_http_version" and len(args) == 1:
                http_version = Setting(args[0], key, line, level)
            elif name == "proxy_set_header" and len(args) == 2:
                headers.append(Header(args[0], args[1], key, line, level))
            elif _is_placeholder(statement) or _may_be_missing(statement):
                gaps.append(Gap(" ".join((name, *args)), key, line))
        scope = replace(outer, http_version=http_version, headers=tuple(headers) or outer.headers)
        if gaps:
            self._left -= len(outer.gaps)
            scope = replace(scope, gaps=(*outer.gaps, *gaps))
        for statement, within in held:
            name, block = statement.name, statement.block
            if block is None:
                if level in ("location", "if", "limit_except") and _is_http_target(
                    "".join(statement.args[:1])
                ):
                    self._met.append((statement, scope))
            elif name == "upstream" and level == "http" and len(statement.args) == 1:
                upstream = self._upstream(statement, within)
                scope.upstreams.setdefault(upstream.name.lower(), upstream)
            elif name in _OPENS.get(level, ()):
                self._open(scope, statement, within, depth)

    def _open(
        self, outer: _Scope, statement: _Statement, within: tuple[str, ...], depth: int
    ) -> None:
        """Reads the block of `statement` as a level inside `outer`."""
        if depth >= MAX_DEPTH:
            message = f"has blocks nested deeper than {MAX_DEPTH}, through its includes"
            self._fault(statement.key, statement.line, message)
            return
        level = statement.name
        body = list(self._expand(statement.block or (), level, within))
        label = _label(statement, (s for s, _ in body))
        context = ", ".join(filter(None, (outer.context, label)))
        scope = replace(outer, level=level, context=context)
        if level == "http":
            scope = replace(scope, upstreams={})
        self._enter(scope, body, depth + 1)

    def _upstream(self, statement: _Statement, within: tuple[str, ...]) -> Upstream:
        servers: list[str] = []
        keepalive: Setting | None = None
        for s, _ in self._expand(statement.block or (), "upstream", within):
            if s.name == "server" and s.args:
                servers.append(s.args[0])
            elif s.name == "keepalive" and s.args:
                keepalive = Setting(s.args[0], s.key, s.line, "upstream")
        return Upstream(statement.args[0], tuple(servers), keepalive, statement.key, statement.line)


def _includes(statements: tuple[_Statement, ...], level: str) -> Iterator[tuple[_Statement, str]]:
    """Every include, with the level that it is at."""
    stack = [(statement, level) for statement in statements]
    while stack:
        statement, at = stack.pop()
        if _is_include(statement):
            yield statement, at
        stack += [(inner, statement.name) for inner in statement.block or ()]


def _is_include(statement: _Statement) -> bool:
    return statement.name == "include" and statement.block is None and len(statement.args) == 1


def _base(include: _Statement) -> str:
    return include.args[0].rpartition("/")[2]


def _is_pattern(base: str) -> bool:
    return any(char in base for char in "*?[")


def _fits(home: _Home | None, level: str) -> bool:
    """Whether a file written for `home` may be included at `level`."""
    if home == "any":
        return level in ("http", "server", "location")
    return home == level or (home == "server" and level == "location")


def _may_be_missing(statement: _Statement) -> bool:
    return _is_include(statement) and _base(statement) not in _STOCK


def _label(statement: _Statement, body: Iterable[_Statement]) -> str:
    """How a message calls a block: by its arguments, a server by its name or its port."""
    if not statement.line or statement.name == "http":
        return ""
    args = statement.args
    if statement.name == "server":
        said = {s.name: s.args[:1] for s in body if s.name in ("server_name", "listen")}
        args = said.get("server_name") or said.get("listen") or ()
    return " ".join((statement.name, *args))[:200]


_HOST_ENDS = re.compile(r"[/?#]|\$\{?(?:request_uri|uri|document_uri)\b")
"""Variables that begin with a slash, too."""


def _authority(target: str) -> str:
    """The host and port of a proxy_pass; the whole of it for a Unix socket."""
    rest = target.partition("://")[2] if _has_scheme(target) else target
    return rest if rest.startswith("unix:") else _HOST_ENDS.split(rest, maxsplit=1)[0]


def _has_scheme(target: str) -> bool:
    return target.lower().startswith(("http://", "https://"))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0].lower()
    return address.partition(":")[0].lower()


# Which nginx an image holds

_DEFAULT_CHANGED = (1, 29, 7)
_VERSIONED_AS_NGINX = ("nginx", "nginx-unprivileged", "openresty")
"""Image names whose tag is the version of nginx (OpenResty adds a fourth number)."""
_PUBLISHERS = ("", "library", "nginx", "nginxinc", "bitnami", "bitnamilegacy", "openresty")
_RUNS_BESIDE = frozenset({"exporter", "operator", "agent"})
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?![\da-zA-Z])", re.ASCII)


def is_nginx_image(image: str) -> bool:
    """Whether the name of a container image says that it runs nginx."""
    organisation, _, name = _image_path(image).rpartition("/")
    words = set(re.split(r"[-_.]", name))
    if name == "controller":
        return organisation.rpartition("/")[2] == "ingress-nginx"
    return bool(words & {"nginx", "openresty"}) and not words & _RUNS_BESIDE


def default_http_version(image: str) -> tuple[Literal["1.0", "1.1"] | None, str]:
    """The HTTP version that the nginx of a container image proxies with where nothing sets one.

    1.0 before nginx 1.29.7 and 1.1 from then on; None where the image does not say which nginx
    it holds. With it goes a phrase that says why, to follow "because".
    """
    publisher, _, name = _image_path(image).rpartition("/")
    tag = tag_of(image)
    if not is_nginx_image(image):
        return None, f"the name of image {image} does not say that it holds nginx"
    if name not in _VERSIONED_AS_NGINX:
        return None, f"image {image} has version numbers of its own, not nginx's"
    if not tag:
        return None, f"image {image} has no tag that says which nginx it holds"
    match = _VERSION.match(tag)
    if match is None:
        return None, f"tag {tag} of image {image} is not one version of nginx"
    version = tuple(int(number) for number in match.groups() if number)
    is_someones_own = publisher not in _PUBLISHERS and version[:2] < (1, 10)
    if version[0] > 1 or is_someones_own:
        return None, f"tag {tag} of image {image} may be a version of its own, not nginx's"
    if version == _DEFAULT_CHANGED[:2]:
        return None, f"image {image} may be older or newer than nginx 1.29.7"
    said = ".".join(map(str, version))
    if version < _DEFAULT_CHANGED:
        return "1.0", f"nginx {said} proxies with HTTP/1.0 by default, as all before 1.29.7"
    return "1.1", f"nginx {said} proxies with HTTP/1.1 by default, as all since 1.29.7"


def is_official_image(image: str) -> bool:
    """Whether it is an image of nginx's own makers on Docker Hub.

    Its nginx.conf sets no proxy_set_header, and includes /etc/nginx/conf.d/*.conf.
    """
    path = image.partition("@")[0].partition(":")[0]
    for registry in ("docker.io/", "index.docker.io/"):
        path = path.removeprefix(registry)
    return path in ("nginx", "library/nginx", "nginxinc/nginx-unprivileged")


def _image_path(image: str) -> str:
    """The repository without registry."""
    folder, slash, last = image.partition("@")[0].rpartition("/")
    registry, _, rest = (folder + slash).partition("/")
    if not ("." in registry or ":" in registry or registry == "localhost"):
        rest = folder + slash
    return rest + last.partition(":")[0]
