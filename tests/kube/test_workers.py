"""Several requests at a time."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from kubectl_mesh.kube.workers import in_parallel


def test_results_are_in_the_order_of_the_tasks() -> None:
    second_is_done = threading.Event()

    def first() -> int:
        second_is_done.wait(60)
        return 1

    def second() -> int:
        second_is_done.set()
        return 2

    assert in_parallel([first, second], 2) == [1, 2]


def test_nothing_to_do() -> None:
    assert in_parallel([], 8) == []


def test_a_failure_is_not_kept_waiting() -> None:
    never = threading.Event()

    def fail() -> bool:
        raise KeyError("no")

    with pytest.raises(KeyError):
        in_parallel([never.wait, fail], 2)
    never.set()


def test_after_a_failure_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def task(number: int) -> None:
        begun.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        in_parallel([partial(task, number) for number in range(9)], 1)
    assert begun == [0]
