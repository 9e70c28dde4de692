"""Processes that leave nothing behind, however the tests end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_PATIENCE = 120.0  # seconds; many times what any of the programs takes on a busy machine


class StartError(Exception):
    """A program did not get ready; the message ends with the last lines of its log."""


class Processes:
    """A scratch folder, and the processes that work in it.

    Closing it kills them and removes the folder; so does the end of the Python process that made
    it, whatever ends that: an exception, Ctrl-C or SIGKILL (see keeper.py). Close it with
    `close()`, or use it as a context manager.
    """

    def __init__(self) -> None:
        # The sockets in it need names of at most 107 bytes.
        parent = None if len(tempfile.gettempdir()) < 76 else "/tmp"
        self.folder = Path(tempfile.mkdtemp(prefix="kubectl-mesh-", dir=parent))
        self._started: list[subprocess.Popen[bytes]] = []
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__).with_name("keeper.py"), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._lifeline = self._keeper.stdin
        with self._keeper.stdout as said:
            self._group = int(said.readline())

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(
        self,
        name: str,
        *command: str | Path,
        environment: Mapping[str, str] | None = None,
        inherit: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Starts a program in the scratch folder; what it prints is added to `<name>.log` there.

        `environment` is added to ours; the file descriptors `inherit` stay open in it.
        """
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                pass_fds=inherit,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=functools.partial(os.setpgid, 0, self._group),
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        """The file with what the programs started as `name` printed."""
        return self.folder / f"{name}.log"

    def wait(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        """Waits until `ready()`. Raises StartError if the process ends first, or takes for ever."""
        deadline = time.monotonic() + _PATIENCE
        while not ready():
            if process.poll() is not None:
                problem = f"ended with status {process.returncode}"
            elif time.monotonic() > deadline:
                problem = f"was not ready after {_PATIENCE:.0f} s"
            else:
                time.sleep(0.05)
                continue
            end = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-15:])
            raise StartError(f"{name} {problem}; the end of its log:\n{end}")

    def close(self) -> None:
        """Kills the processes and removes the folder; a second time it does nothing."""
        self._lifeline.close()
        self._keeper.wait()
        for process in self._started:
            process.wait()


@contextlib.contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """While entered, the process is stopped in whatever it does."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
