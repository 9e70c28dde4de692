"""Steady traffic in the background, and what became of it."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

from .envoy import Proxy


class Load:
    """Asks a proxy for the same thing again and again, at a steady rate, while it is entered.

    `counts` holds how often each (status, version that answered) came; the version is None where no
    backend answered. A connection that broke in mid-request counts as (0, None).
    """

    def __init__(self, proxy: Proxy, host: str, path: str = "/", *, rate: float = 200) -> None:
        """`rate` is in requests a second; `host` is as for `Proxy.request`."""
        self.counts: Counter[tuple[int, str | None]] = Counter()
        self._proxy = proxy
        self._host = host
        self._path = path
        self._interval = 1 / rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def total(self) -> int:
        return self.counts.total()

    def status(self, status: int) -> int:
        """How many answers had this status."""
        return sum(count for (seen, _), count in self.counts.items() if seen == status)

    def more(self, requests: int = 20) -> None:
        """Waits for that many further answers."""
        wanted = self.total + requests
        while self.total < wanted and self._thread.is_alive():
            time.sleep(0.01)

    def fresh(self, requests: int = 20) -> Counter[tuple[int, str | None]]:
        """The counts of the next answers alone: not of those to requests that are under way."""
        self.more(2)
        before = self.counts.copy()
        self.more(requests)
        return self.counts - before

    def _run(self) -> None:
        connection = self._proxy.connect(self._host)
        due = time.monotonic()
        while not self._over.is_set():
            try:
                answer = connection.ask("GET", self._host, self._path)
                self.counts[answer.status, answer.version] += 1
            except (OSError, http.client.HTTPException):
                connection.close()
                self.counts[0, None] += 1
            due = max(due + self._interval, time.monotonic())
            self._over.wait(due - time.monotonic())
        connection.close()
