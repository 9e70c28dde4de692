"""A real istiod on the node of a mesh."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kubectl_mesh.mesh.versions import Istio

from .build import istio_release
from .client import get
from .network import NODE, Host
from .processes import Processes, frozen

DEFAULT = "default"
_XDS, _MONITORING = 15010, 15014
_HTTP = 8080
"""It answers debugging requests of its own host without asking who."""


ISTIO = {"1.31": Istio((1, 31)), "1.22": Istio((1, 20))}
"""What our model takes the istiods of the tests for, by `istio_release`.

The older one is a commit from before 1.21.0, and behaves so.
"""


def istio() -> Istio:
    """The Istio that the tests run on, for a MeshConfig."""
    return ISTIO[istio_release()]


class Istiod:
    """istiod, reading the API server of `kubeconfig`. Starts when made; ends with `processes`.

    Those of several revisions listen on ports of their own: `number` tells them apart. One that
    `asks_identity` serves just the proxies that have a token of the API server.
    """

    def __init__(
        self,
        processes: Processes,
        node: Host,
        program: Path,
        kubeconfig: Path,
        debounce: str,
        *,
        revision: str = DEFAULT,
        number: int = 0,
        asks_identity: bool = False,
    ) -> None:
        self.revision = revision
        self.name = "istiod" if revision == DEFAULT else f"istiod-{revision}"
        self.xds = (NODE, _XDS + 100 * number)
        """Where proxies get their configuration, in plain text."""
        self._http = _HTTP + 100 * number
        self._monitoring = _MONITORING + 100 * number
        self._processes = processes
        self._node = node
        self._kubeconfig = kubeconfig
        self._debounce = debounce
        self._asks_identity = asks_identity
        self._program = program
        self._start()

    def start(self) -> None:
        """Starts it again, and waits until it is ready. Raises RuntimeError if it runs."""
        if self._process.poll() is None:
            raise RuntimeError("istiod runs already")
        self._start()

    def _start(self) -> None:
        environment = {
            "POD_NAME": self.name,
            "REVISION": self.revision,
            "POD_NAMESPACE": "istio-system",
            "CLUSTER_ID": "Kubernetes",
            "PILOT_DEBOUNCE_AFTER": self._debounce,
            "XDS_AUTH_PLAINTEXT": str(self._asks_identity).lower(),
            # These two need extensions of Istio's own build of Envoy.
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
        }
        self._process = self._processes.start(
            self.name,
            *self._node.command(self._program, "discovery"),
            f"--kubeconfig={self._kubeconfig}",
            f"--grpcAddr={NODE}:{self.xds[1]}",
            f"--httpAddr=127.0.0.1:{self._http}",
            f"--monitoringAddr={NODE}:{self._monitoring}",
            "--secureGRPCAddr=",
            "--httpsAddr=",
            "--ctrlz_port=0",
            environment=environment,
        )
        self._processes.wait(self.name, self._process, self._is_ready)

    def stop(self) -> None:
        """Stops it as its operator would."""
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._process.kill()
        self._process.wait()

    def frozen(self) -> AbstractContextManager[None]:
        """While entered, it keeps its connections and does nothing."""
        return frozen(self._process)

    def has_ended(self) -> bool:
        """Whether it has ended, or does so soon: it hangs up a little before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        return self._process.poll() is not None

    @property
    def state(self) -> str:
        """Whether it runs, and else the end of what it printed."""
        if self._process.poll() is None:
            return "it runs"
        log = self._processes.log(self.name).read_text(errors="replace").splitlines()
        return "\n".join([f"it ended with status {self._process.returncode}:", *log[-15:]])

    def debug(self, what: str) -> Any:
        """What /debug/`what` answers. Raises OSError or HTTPException if it does not."""
        return json.loads(self._get(f"/debug/{what}"))

    def _is_ready(self) -> bool:
        try:
            self._get("/ready")
            return True
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str) -> bytes:
        return get(self._node, self._http, path)
