"""An interrupt that a library swallows is raised again at the next step of the work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from speechtune.core.interrupt import catch_interrupts
from speechtune.core.progress import Bar


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in its background
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Destructor:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs here, where Python drops what it raises
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_interrupt_stops_the_next_step(lost: bool) -> None:
    catch_interrupts()
    with Bar("work", 3) as bar:
        bar.advance()
        if lost:
            one = Destructor()
            del one
            with pytest.raises(KeyboardInterrupt):
                bar.advance()
        bar.advance()
    assert bar.done == 2


def test_sigterm_is_an_interrupt_and_an_ignored_sigint_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    catch_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
