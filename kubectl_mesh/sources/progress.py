"""One line on a terminal that shows how much of a cluster, or of a repository, has been read."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TextIO

_ERASE = "\r\x1b[K"


class ProgressLine:
    """Shows counts as they grow, and leaves nothing behind: a context manager, to be called.

    Writes nothing unless `stream` is a terminal that can erase a line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._counts: dict[str, int] = {}
        self._is_dirty = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_dirty and self._shown:
            self._write("")
        self._shown = False  # a request that is still out may yet report

    def __call__(self, kind: str, count: int) -> None:
        """So many objects of a kind have been read."""
        self._counts[kind] = count
        total = sum(self._counts.values())
        self.show(f"reading the cluster: {total} objects ({kind}: {count})")

    def show(self, text: str) -> None:
        if self._shown:
            self._is_dirty = True
            self._write(text)

    def _write(self, text: str) -> None:
        self._stream.write(_ERASE + text)
        self._stream.flush()
