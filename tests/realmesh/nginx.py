"""A real nginx in a pod of a mesh, on the configuration that a ConfigMap gives it.

    with Nginx(mesh.processes, pod.host, build.nginx(), DEFAULT_CONF, names={"backend": address}):
        ...

The text under test is what a ConfigMap holds for `/etc/nginx/conf.d`; around it stands a main
configuration as images of nginx have it. nginx looks the names of its upstreams up when it starts,
and there is no DNS here: `names` stands in the `/etc/hosts` that this nginx sees.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .client import Answer, Connection
from .network import Host
from .processes import Processes

# In one process, as root: where root is an ordinary user's in a namespace of his own, it cannot
# become another user, as nginx's workers do. Folders that nginx was compiled with may not exist.
_MAIN = """\
daemon off;
master_process off;
user root;
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path client_body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  include conf.d/*.conf;
}
"""


class Nginx:
    """An nginx beside whatever else runs in a pod; it runs while entered.

    `text` is a file of `conf.d`, which has it listen at `port`. `names` gives the addresses of the
    names in it. Entering raises StartError if nginx does not start, as on a text that it rejects.
    """

    def __init__(
        self,
        processes: Processes,
        host: Host,
        program: Path,
        text: str,
        *,
        names: Mapping[str, str] | None = None,
        port: int = 80,
    ) -> None:
        self._processes = processes
        self._host = host
        self._port = port
        folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=processes.folder))
        self._name = folder.name
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "default.conf").write_text(text)
        (folder / "nginx.conf").write_text(_MAIN)
        hosts = {"localhost": "127.0.0.1", **(names or {})}
        (folder / "hosts").write_text("".join(f"{hosts[name]} {name}\n" for name in hosts))
        self._command = _seeing(
            folder / "hosts", program, "-p", folder, "-c", folder / "nginx.conf"
        )

    def __enter__(self) -> Nginx:
        self._process = self._processes.start(self._name, *self._host.command(*self._command))
        self._processes.wait(self._name, self._process, self._listens)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def problems(self) -> str:
        """What nginx itself finds wrong with its configuration; "" where it accepts it."""
        asked = self._host.command(*self._command, "-t")
        done = subprocess.run(asked, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    def request(
        self, method: str, host: str, path: str = "/", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Sends nginx one request to `host`, from its own pod, on a connection of its own."""
        connection = Connection(self._host, "127.0.0.1", self._port)
        with contextlib.closing(connection):
            return connection.ask(method, host, path, headers)

    def stop(self) -> None:
        """Ends it at once; where it does not run, does nothing."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            self._host.connect("127.0.0.1", self._port).close()
        except OSError:
            return False
        return True


def _seeing(hosts: Path, *command: str | Path) -> list[str | Path]:
    """The command line that runs `command` with that file as its /etc/hosts."""
    mounted = f'mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "--", "sh", "-c", mounted, "sh", *command]
