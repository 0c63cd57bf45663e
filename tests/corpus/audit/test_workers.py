"""Results in order, a bounded look-ahead, and a sentence where a process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from speechtune.core.errors import SpeechtuneError
from speechtune.corpus.workers import in_order


def slow_square(number: int) -> tuple[int, str | None]:
    time.sleep(0.02 * (number % 3))
    return number * number, os.environ.get("OMP_NUM_THREADS")


def die(number: int) -> int:
    os._exit(9)


def test_results_come_in_order_from_a_bounded_look_ahead() -> None:
    taken = 0

    def pieces() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    for place, (result, threads) in enumerate(in_order(slow_square, pieces(), 2)):
        assert (result, threads) == (place * place, "1")
        assert taken <= place + 8
    assert taken == 40


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(SpeechtuneError, match="fewer --workers"):
        list(in_order(die, range(3), 2))
