"""When a hypothesis is there, and how much audio has arrived meanwhile: simulated, or the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

Cost = Callable[[float], float]
"""Seconds to decode so many seconds of audio."""


class Clock(Protocol):
    """Time in seconds since the audio began; ``busy_s`` is what computing took in all."""

    busy_s: float

    def after(self, heard_s: float, decoded_s: float, spent_s: float) -> float:
        """The time at which some work on audio up to ``heard_s`` is done.

        Args:
            heard_s: the audio that had to have arrived before the work could begin.
            decoded_s: audio that was decoded, in seconds; 0 for listening only.
            spent_s: what the work took, as measured.
        """

    def arrived_s(self) -> float:
        """Audio that has arrived by the end of that work, in seconds; it may be more than has been fed."""


class SimulatedClock:
    """Audio arrives in real time, and one thing is computed after the other.

    Args:
        cost: given: the same work takes the same time on every machine. ``None``: as measured.
    """

    def __init__(self, cost: Cost | None = None) -> None:
        self.cost = cost
        self.busy_s = 0.0
        self._now_s = 0.0

    def after(self, heard_s: float, decoded_s: float, spent_s: float) -> float:
        """Work begins when its audio is there and the work before it is done."""
        took_s = spent_s if self.cost is None else self.cost(decoded_s) if decoded_s else 0.0
        self.busy_s += took_s
        self._now_s = max(self._now_s, heard_s) + took_s
        return self._now_s

    def arrived_s(self) -> float:
        """As much as time has passed."""
        return self._now_s


class WallClock:
    """Real time. ``captured_s`` says how much audio a microphone, a pipe or a paced file has given so far."""

    def __init__(self, captured_s: Callable[[], float]) -> None:
        self.captured_s = captured_s
        self.busy_s = 0.0
        self._began_s = time.monotonic()

    def after(self, heard_s: float, decoded_s: float, spent_s: float) -> float:
        """Now."""
        self.busy_s += spent_s
        return time.monotonic() - self._began_s

    def arrived_s(self) -> float:
        """What the source has given."""
        return self.captured_s()


class InstantClock(SimulatedClock):
    """Computing moves no time, what is heard decides alone; ``busy_s`` is still what it took."""

    def after(self, heard_s: float, decoded_s: float, spent_s: float) -> float:
        """The time of the audio."""
        self.busy_s += spent_s
        self._now_s = max(self._now_s, heard_s)
        return self._now_s


def instant() -> SimulatedClock:
    """A clock under which computing takes no time."""
    return InstantClock()


def steady(factor: float) -> SimulatedClock:
    """A clock under which decoding takes ``factor`` times the length of what is decoded."""
    return SimulatedClock(lambda seconds: factor * seconds)
