"""Programs that turn sources into manifests: run without network, plugins or the user's files.

What they read is taken for hostile, so time, memory and output are bounded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubectl_mesh.sources.files import MAX_BYTES

AT_ONCE = 2
SECONDS = 60.0
MEMORY = 4 * 1024**2
"""KiB of address space. Programs in Go reserve far more than they use."""
_LIMITS = (
    f"ulimit -t {int(SECONDS)}; ulimit -f {2 * MAX_BYTES // 512}; "
    'ulimit -v "$0" 2>/dev/null; exec "$@"'
)
_NOWHERE = "http://127.0.0.1:9"
"""A proxy that nobody answers for: the port of `discard`."""
_LOGGED = re.compile(r'^E\d{4} .*?\] "command failed" err=', re.DOTALL)
_MAX_REASON = 1000


@dataclass(frozen=True)
class Rendered:
    """What a program printed, in a folder that is gone.

    `failure` is its reason where it failed; `is_ended` tells that it took or printed too much.
    """

    folder: str
    text: str = ""
    failure: str = ""
    is_ended: bool = False


@dataclass(frozen=True)
class Task:
    """A command line, and what gives the text of the files that it needs in its folder."""

    command: Sequence[str]
    files: Callable[[str], Mapping[str, str]] = lambda folder: {}
    memory: int = MEMORY


def program(*names: str) -> str | None:
    """The first of some programs that is installed, by its full path.

    Relative entries of PATH do not count: they would lead into what is examined.
    """
    folders = os.pathsep.join(filter(os.path.isabs, os.get_exec_path()))
    return next((found for name in names if (found := shutil.which(name, path=folders))), None)


def run_all(tasks: Iterable[Task], *, network: bool = False) -> Iterator[Rendered]:
    """What each task prints, in order; a few run at once.

    Without `network` a program finds neither git nor a proxy to leave this machine by.
    """
    running: deque[_Run] = deque()
    with tempfile.TemporaryDirectory(prefix="kubectl-mesh-") as scratch:
        try:
            for number, task in enumerate(tasks):
                if len(running) == AT_ONCE:
                    yield running.popleft().finish()
                folder = Path(os.path.realpath(scratch), str(number))
                running.append(_Run(task, folder, network))
            while running:
                yield running.popleft().finish()
        finally:
            for each in running:
                each.kill()


class _Run:
    """A program that runs in a folder of its own."""

    def __init__(self, task: Task, folder: Path, network: bool) -> None:
        folder.mkdir()
        for name, text in task.files(str(folder)).items():
            (folder / name).write_text(text, encoding="utf-8")
        self._folder = folder
        self._until = time.monotonic() + SECONDS
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _LIMITS, str(task.memory), *task.command],
                cwd=folder,
                env=_environment(folder, network),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def finish(self) -> Rendered:
        """What it printed, once it is over. Kills it where it takes too long."""
        folder = str(self._folder)
        try:
            status = self._process.wait(max(0.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            told = f"it takes longer than {SECONDS:.0f} seconds"
            return Rendered(folder, failure=told, is_ended=True)
        except BaseException:
            self.kill()
            raise
        if (self._folder / "out").stat().st_size > MAX_BYTES:
            told = f"it prints more than {MAX_BYTES // 1024**2} MiB"
            return Rendered(folder, failure=told, is_ended=True)
        if status:
            said = (self._folder / "err").read_bytes()[-(1 << 16) :]
            return Rendered(folder, failure=_reason(said.decode("utf-8", "replace"), status))
        text = (self._folder / "out").read_bytes().decode("utf-8", "surrogateescape")
        shutil.rmtree(self._folder, ignore_errors=True)
        return Rendered(folder, text)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _environment(folder: Path, network: bool) -> Mapping[str, str]:
    home = str(folder)
    if network:
        return {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    own = {"PATH": "/nonexistent", "HOME": home, "TMPDIR": home, "GOMEMLIMIT": "2GiB"}
    return {**own, **dict.fromkeys(names, _NOWHERE), "GOMAXPROCS": "2"}


def _reason(said: str, status: int) -> str:
    """What a program says went wrong, in one line."""
    text = _LOGGED.sub("", said.strip())
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('\\"', '"')
    text = " ".join(text.removeprefix("<").removesuffix(">").split())
    text = text.removeprefix("error: ").rpartition("Error: ")[2]
    if not text:
        return f"it ends with status {status} and says nothing"
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
