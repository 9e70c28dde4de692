"""Several requests at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_parallel(tasks: Sequence[Callable[[], T]], workers: int) -> list[T]:
    """What the tasks return, in their order; raises what the first to fail raises, at once.

    The threads are daemons, unlike those of concurrent.futures: neither Ctrl-C nor the end of the
    program waits for an answer that is still out. After a failure no further task is begun.
    """
    pending = iter(enumerate(tasks))
    next_task = threading.Lock()
    stopped = threading.Event()
    done: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while not stopped.is_set():
            with next_task:
                numbered = next(pending, None)
            if numbered is None:
                return
            number, task = numbered
            try:
                done.put((number, task(), None))
            except BaseException as error:
                stopped.set()
                done.put((number, None, error))

    for _ in range(min(workers, len(tasks))):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, T] = {}
    try:
        for _ in tasks:
            number, result, error = done.get()
            if error is not None:
                raise error
            results[number] = result  # type: ignore[assignment]
    finally:
        stopped.set()
    return [results[number] for number in range(len(tasks))]
