"""Which cluster, user and namespace the flags and the kubeconfig mean, as kubectl has it.

Files are merged by client-go's rules: of the files in $KUBECONFIG those that are missing or empty
are passed over, the first to name a cluster, user, context or current-context wins, and relative
paths are relative to the file they stand in. Where there is no kubeconfig at all, a pod's service
account serves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from kubectl_mesh.errors import ClusterError

DEFAULT_NAMESPACE = "default"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
IN_CLUSTER = "in-cluster"
MAX_SIZE = 1024 * 1024
"""Bytes of a kubeconfig."""
MAX_DEPTH = 50
MAX_ALIASES = 100
"""Aliases and merge keys of a kubeconfig."""
MAX_VALUES = 200_000
"""Values that a kubeconfig stands for, those behind its aliases counted each time."""
MAX_COLONS = 1000
"""Colons of one text: YAML 1.1 takes 1:1:1 for a number of base 60, which takes squared time."""
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")

_Shape = type[object] | list[Any] | dict[str, Any]
_SHAPES: Mapping[str, _Shape] = {
    "context": {"cluster": str, "user": str, "namespace": str},
    "cluster": {
        "server": str,
        "tls-server-name": str,
        "insecure-skip-tls-verify": bool,
        "certificate-authority": str,
        "certificate-authority-data": str,
        "proxy-url": str,
    },
    "user": {
        "client-certificate": str,
        "client-certificate-data": str,
        "client-key": str,
        "client-key-data": str,
        "token": str,
        "tokenFile": str,
        "username": str,
        "password": str,
        "as": str,
        "as-uid": str,
        "as-groups": [str],
        "as-user-extra": {"*": [str]},
        "exec": {
            "apiVersion": str,
            "command": str,
            "args": [str],
            "env": [{"name": str, "value": str}],
            "installHint": str,
            "interactiveMode": str,
            "provideClusterInfo": bool,
        },
        "auth-provider": {"name": str, "config": {}},
    },
}
"""The fields that are read of each entry, as client-go types them; "*" is any key."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """kubectl's flags of these names; None where a flag is not given.

    `request_timeout` is in seconds; None for no limit.
    """

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    token: str | None = None
    as_user: str | None = None
    as_groups: Sequence[str] = ()
    as_uid: str | None = None
    request_timeout: float | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A context with the flags applied.

    `cluster` and `user` are as in a kubeconfig, with absolute paths. `context` is a name to show.
    """

    context: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    user_name: str

    @property
    def server(self) -> str:
        return str(self.cluster["server"]).rstrip("/")


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _apply(options: ClusterOptions, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    if options.server:
        cluster["server"] = options.server
    if options.tls_server_name:
        cluster["tls-server-name"] = options.tls_server_name
    if options.insecure_skip_tls_verify:
        cluster["insecure-skip-tls-verify"] = True
        cluster.pop("certificate-authority", None)
        cluster.pop("certificate-authority-data", None)
    if options.token:
        for key in ("tokenFile", "exec", "auth-provider", "username", "password"):
            user.pop(key, None)
        user["token"] = options.token
    if user.get("tokenFile"):
        user.pop("token", None)
    if options.as_user:
        user["as"] = options.as_user
        user["as-groups"] = list(options.as_groups)
        user["as-uid"] = options.as_uid
    elif options.as_groups or options.as_uid:
        raise ClusterError("--as-group and --as-uid need --as: whom to impersonate")


class Kubeconfig:
    """The kubeconfig files, merged, and what the options mean by them.

    Raises ClusterError where a file cannot be read.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        explicit = options.kubeconfig
        listed = os.environ.get("KUBECONFIG")
        if explicit:
            paths = [explicit]
        elif listed:
            paths = [path for path in listed.split(os.pathsep) if path]
        else:
            paths = [os.path.expanduser("~/.kube/config")]
        self.files: list[str] = []
        self.current: str | None = None
        self._entries: dict[str, dict[str, dict[str, Any]]] = {
            "cluster": {},
            "user": {},
            "context": {},
        }
        one = len(paths) == 1
        lacking = f"{'does' if one else 'do'} not exist"
        if any(map(os.path.exists, paths)):
            lacking = f"{'names' if one else 'name'} no cluster"
        self.nothing_found = (
            f"no kubeconfig: {' and '.join(paths)} {lacking}; name one with --kubeconfig, or an "
            "API server with --server"
        )
        for path in paths:
            if explicit or os.path.exists(path):
                self._read(path)

    @property
    def described(self) -> str:
        return f"kubeconfig {', '.join(self.files)}" if self.files else "no kubeconfig"

    def names(self, kind: str) -> list[str]:
        """Each `cluster`, `user` or `context`."""
        return list(self._entries[kind])

    @property
    def namespace(self) -> str:
        """The namespace that commands work in by default. Raises ClusterError as `target` does."""
        return _namespace(self._context()[1])

    def target(self) -> Target:
        """The API server and the user that the options name.

        Raises ClusterError where there is no kubeconfig, where it does not hold the context,
        cluster or user that is asked for, and where a field of these is of a type that client-go
        would refuse.
        """
        options = self._options
        name, context = self._context()
        cluster = dict(self._entry("cluster", options.cluster or context.get("cluster")))
        user_name = options.user or context.get("user") or ""
        user = dict(self._entry("user", user_name))
        if not cluster and not user and not self.files and not options.server:
            if not _in_cluster():
                raise ClusterError(self.nothing_found)
            name, user_name = IN_CLUSTER, "the pod's service account"
            cluster, user = _of_the_pod()
        _apply(options, cluster, user)
        if not isinstance(cluster.get("server"), str) or not cluster["server"]:
            raise ClusterError(
                f"{self.described}: no API server is named: choose a context (there are: "
                f"{', '.join(self.names('context')) or 'none'}) with --context, or use --server"
            )
        if "://" not in cluster["server"]:
            cluster["server"] = f"http://{cluster['server']}"
        if not _is_url(cluster["server"]):
            raise ClusterError(
                f"{cluster['server']!r} is no address of an API server: https://HOST"
            )
        return Target(
            name or cluster["server"],
            _namespace(context),
            cluster,
            user,
            user_name,
        )

    def _context(self) -> tuple[str, Mapping[str, Any]]:
        """The name and content of the context; neither where none is chosen."""
        name = self._options.context or self.current
        return (name, self._entry("context", name)) if name else ("", {})

    def _entry(self, kind: str, name: str | None) -> Mapping[str, Any]:
        """The cluster, user or context of that name; empty for no name.

        Raises ClusterError where there is none, and where a field of it is of a wrong type.
        """
        if not name:
            return {}
        found = self._entries[kind].get(name)
        if found is None:
            raise ClusterError(
                f"{self.described}: no {kind} is called {name!r} "
                f"(there are: {', '.join(self._entries[kind]) or 'none'})"
            )
        problem = _type_problem(found, _SHAPES[kind])
        if problem:
            raise ClusterError(f"{self.described}: {kind} {name!r}: {problem}")
        return found

    def _read(self, path: str) -> None:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            with open(path, "rb") as stream:
                text = stream.read(MAX_SIZE + 1)
            if len(text) > MAX_SIZE:
                raise ClusterError(f"kubeconfig {path}: larger than {MAX_SIZE >> 20} MiB")
            problem = _bomb_problem(yaml.parse(text, Loader=loader))
            if problem:
                raise ClusterError(f"kubeconfig {path}: {problem}")
            config = yaml.load(text, Loader=loader)
        except OSError as error:
            raise ClusterError(f"kubeconfig {path}: {error.strerror or error}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" line {mark.line + 1}:" if mark else ""
            problem = getattr(error, "problem", None) or type(error).__name__
            raise ClusterError(f"kubeconfig {path}:{where} no YAML: {problem}") from None
        if config is None:
            return
        if not isinstance(config, dict):
            raise ClusterError(f"kubeconfig {path}: must be a mapping")
        self.files.append(path)
        current = config.get("current-context")
        if self.current is None and isinstance(current, str) and current:
            self.current = current
        folder = os.path.dirname(os.path.abspath(path))
        for kind, known in self._entries.items():
            for name, content in _named(config.get(f"{kind}s"), kind, path):
                known.setdefault(name, _absolute(content, folder))


def _bomb_problem(events: Iterable[Any]) -> str | None:
    """Why these YAML events are not to be built: libyaml's composer recurses, and merges copy."""
    aliases = values = 0
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = values - before
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                return f"the alias *{event.anchor} stands for no finished value before it"
            aliases += 1
            values += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if event.value.count(":") > MAX_COLONS:
                return f"a text in it has more than {MAX_COLONS} colons"
            aliases += event.value == "<<"
            values += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
        if len(opened) > MAX_DEPTH:
            return f"line {event.start_mark.line + 1}: nested deeper than {MAX_DEPTH} levels"
        if aliases > MAX_ALIASES:
            return f"more than {MAX_ALIASES} aliases and merge keys"
        if values > MAX_VALUES:
            return f"it and its aliases stand for more than {MAX_VALUES:,} values"
    return None


def _type_problem(value: Any, shape: _Shape, path: str = "") -> str | None:
    """What is wrong with the first value that is of another type than its field; null never is."""
    if value is None:
        return None
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{path} must be a mapping"
        problems = (
            _type_problem(
                inner, shape[key] if key in shape else shape["*"], f"{path}.{key}".lstrip(".")
            )
            for key, inner in value.items()
            if key in shape or "*" in shape
        )
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path} must be a list"
        problems = (
            f"{path}[{index}] must not be null"
            if inner is None
            else _type_problem(inner, shape[0], f"{path}[{index}]")
            for index, inner in enumerate(value)
        )
    else:
        wanted = "true or false" if shape is bool else "a string (quote it)"
        return None if isinstance(value, shape) else f"{path} must be {wanted}"
    return next(filter(None, problems), None)


def _named(entries: Any, kind: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    if entries is None:
        return []
    named = []
    for entry in entries if isinstance(entries, list) else [None]:
        content = (entry.get(kind) or {}) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(content, dict) or not isinstance(name, str):
            raise ClusterError(
                f"kubeconfig {path}: {kind}s must be a list of {{name: ..., {kind}: {{...}}}}"
            )
        named.append((name, content))
    return named


def _absolute(content: dict[str, Any], folder: str) -> dict[str, Any]:
    """`content` with its paths made absolute; an exec plugin's too, where it is no bare name."""
    resolved = dict(content)
    for key in _PATHS:
        if isinstance(resolved.get(key), str) and resolved[key]:
            resolved[key] = os.path.join(folder, resolved[key])
    plugin = resolved.get("exec")
    command = plugin.get("command") if isinstance(plugin, dict) else None
    if isinstance(plugin, dict) and isinstance(command, str) and os.path.dirname(command):
        resolved["exec"] = {**plugin, "command": os.path.join(folder, command)}
    return resolved


def _of_the_pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster that a pod runs in, and its service account as a user."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    cluster = {
        "server": f"https://{host}:{port}",
        "certificate-authority": os.path.join(SERVICE_ACCOUNT, "ca.crt"),
    }
    return cluster, {"tokenFile": os.path.join(SERVICE_ACCOUNT, "token")}


def _in_cluster() -> bool:
    return all(
        os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    ) and os.path.exists(os.path.join(SERVICE_ACCOUNT, "token"))


def _namespace(context: Mapping[str, Any]) -> str:
    """The context's namespace, else that of the pod that this runs in, else DEFAULT_NAMESPACE."""
    if context.get("namespace"):
        return str(context["namespace"])
    try:
        with open(os.path.join(SERVICE_ACCOUNT, "namespace"), encoding="utf-8") as stream:
            return stream.read().strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE
