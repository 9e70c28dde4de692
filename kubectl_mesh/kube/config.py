"""From a kubeconfig to a connection: address, TLS, credentials, impersonation.

The only module that imports `kubernetes`, and not before a cluster is used. That package reads
keys and certificates, runs exec credential plugins and auth providers and renews what expires; the
requests themselves go over a pool of our own.
"""

from __future__ import annotations

import logging
import ssl
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

from kubectl_mesh import __version__
from kubectl_mesh.errors import ClusterError
from kubectl_mesh.kube.kubeconfig import Target

POOL_SIZE = 8
"""Connections at a time: as many as there are workers."""
CONNECT_TIMEOUT = 10.0
"""Seconds to open a connection in, where --request-timeout is not shorter."""


@dataclass(slots=True, eq=False)
class Connection:
    """An API server, and what every request to it carries. Threads may share it.

    `pool` is urllib3's. `headers()` is to be called for every request, since tokens expire.
    """

    target: Target
    pool: urllib3.PoolManager
    timeout: float | None
    _credentials: _Credentials
    _headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return self.target.server

    @property
    def context(self) -> str:
        return self.target.context

    @property
    def namespace(self) -> str:
        """The context's namespace, which commands work in by default."""
        return self.target.namespace

    def headers(self) -> list[tuple[str, str]]:
        """The headers of a request. Raises ClusterError where a credential cannot be renewed."""
        authorization = self._credentials.authorization()
        headers = [*self._headers.items(), *_impersonation(self.target.user)]
        return [*headers, ("Authorization", authorization)] if authorization else headers

    def accepting(self, media_type: str) -> Connection:
        """The same, for answers of another type, such as lists with nothing but metadata."""
        return replace(self, _headers={**self._headers, "Accept": media_type})

    def renew(self, refused: Iterable[tuple[str, str]]) -> bool:
        """Gets new credentials after the server refused those headers; whether they differ."""
        if self.headers() == list(refused):  # else another thread has been here
            self._credentials.load()
        return self.headers() != list(refused)

    @property
    def timeouts(self) -> urllib3.Timeout:
        """For one request: to connect, and for one piece of the answer."""
        connect = CONNECT_TIMEOUT if self.timeout is None else min(self.timeout, CONNECT_TIMEOUT)
        return urllib3.Timeout(connect=connect, read=self.timeout)


def connect(chosen: Target, timeout: float | None) -> Connection:
    """The API server of a target; nothing is asked of it yet. `timeout` is in seconds.

    Runs the exec credential plugin if there is one. Raises ClusterError: unreadable certificate or
    key, a plugin that fails.
    """
    credentials = _Credentials(chosen)
    credentials.load()
    host = urlsplit(chosen.server).hostname or ""
    headers = {"User-Agent": f"kubectl-mesh/{__version__}", "Accept": "application/json"}
    if not _is_loopback(host):
        headers["Accept-Encoding"] = "gzip"
    return Connection(chosen, _pool(chosen, credentials), timeout, credentials, headers)


class _Credentials:
    """The user's part of a target, as the `kubernetes` package understands it."""

    def __init__(self, chosen: Target) -> None:
        self._target = chosen
        self._lock = threading.Lock()
        self.configuration: Any = None

    def load(self) -> None:
        """Reads the files and runs the plugin. Raises ClusterError."""
        from kubernetes.client import Configuration
        from kubernetes.config import load_kube_config_from_dict

        chosen = self._target
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": dict(chosen.cluster)}],
            "users": [{"name": "it", "user": dict(chosen.user)}],
        }
        configuration = Configuration()
        with self._lock, self._complaints():
            load_kube_config_from_dict(
                config, client_configuration=configuration, persist_config=False
            )
            self.configuration = configuration
        if chosen.user.get("exec") and not self.authorization() and not configuration.cert_file:
            raise self._plugin_failed("it printed neither a token nor a certificate")

    def authorization(self) -> str | None:
        """The Authorization header, renewed if its expiry is known and near."""
        with self._lock, self._complaints():
            # `authorization` before version 36, `BearerToken` since.
            found = self.configuration.get_api_key_with_prefix(
                "BearerToken"
            ) or self.configuration.get_api_key_with_prefix("authorization")
        return str(found).strip() if found else None

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        """Turns whatever goes wrong into a ClusterError.

        `kubernetes` logs the failure of a plugin and goes on without credentials; its auth
        providers raise what their libraries raise.
        """
        listener = _Listener()
        root = logging.getLogger()
        root.addHandler(listener)
        try:
            yield
        except Exception as error:
            raise ClusterError(
                f"the credentials of user {self._target.user_name!r} (context "
                f"{self._target.context}) cannot be used: {_last_line(str(error))}"
            ) from error
        finally:
            root.removeHandler(listener)
        if listener.said:
            raise self._plugin_failed(_last_line(listener.said[-1]))

    def _plugin_failed(self, why: str) -> ClusterError:
        plugin = self._target.user.get("exec")
        plugin = plugin if isinstance(plugin, dict) else {}
        words = [plugin.get("command"), *(plugin.get("args") or ())]
        command = " ".join(str(word) for word in words)
        hint = str(plugin.get("installHint") or "").strip().partition("\n")[0]
        return ClusterError(
            f"the credential plugin of user {self._target.user_name!r} failed: `{command}`: {why}"
            + (f" ({hint})" if hint and "No such file" in why else "")
        )


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason")


def _pool(chosen: Target, credentials: _Credentials) -> urllib3.PoolManager:
    configuration = credentials.configuration
    settings: dict[str, Any] = {"maxsize": POOL_SIZE, "num_pools": 2}
    if chosen.server.startswith("https://"):
        settings["ssl_context"] = _tls(chosen, configuration)
        if chosen.cluster.get("tls-server-name"):
            settings["server_hostname"] = chosen.cluster["tls-server-name"]
    proxy = chosen.cluster.get("proxy-url") or _proxy_of(chosen.server)
    if not proxy:
        return urllib3.PoolManager(**settings)
    try:
        if str(proxy).startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(str(proxy), **settings)
        return urllib3.ProxyManager(str(proxy), **settings)
    except (urllib3.exceptions.HTTPError, ValueError, ImportError) as error:
        raise ClusterError(f"the proxy {proxy} cannot be used: {error}") from None


class _Context(ssl.SSLContext):
    """Offers HTTP/1.1, whatever else it is told.

    urllib3 sets the protocols again for every connection that it opens. Where another thread opens
    one at that moment, it sends bytes that OpenSSL has freed, and the API server refuses them.
    """

    def __init__(self, protocol: int) -> None:
        super().set_alpn_protocols(["http/1.1"])

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        pass


def _tls(chosen: Target, configuration: Any) -> ssl.SSLContext:
    """TLS as Go does it: the system's roots by default, certificates that RFC 5280 would refuse."""
    try:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        if configuration.ssl_ca_cert:
            context.load_verify_locations(configuration.ssl_ca_cert)
        else:
            context.load_default_certs()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ClusterError(
            f"the certificates of context {chosen.context} cannot be used: "
            f"{error.strerror or error}: check certificate-authority, client-certificate and "
            "client-key in the kubeconfig"
        ) from None
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return context


def _proxy_of(server: str) -> str | None:
    """The proxy that the environment names for a server, as Go reads it: never for loopback."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    if _is_loopback(host):
        return None
    if urllib.request.proxy_bypass_environment(parts.netloc):  # type: ignore[attr-defined]
        return None
    return urllib.request.getproxies_environment().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not user.get("as"):
        return
    yield "Impersonate-User", str(user["as"])
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", str(group)
    if user.get("as-uid"):
        yield "Impersonate-Uid", str(user["as-uid"])
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values or ():
            yield f"Impersonate-Extra-{quote(str(key), safe='')}", str(value)
