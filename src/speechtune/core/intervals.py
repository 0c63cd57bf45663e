"""Confidence intervals that any room may need."""

from __future__ import annotations

import math


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson 1927), as fractions; 95 % by default.

    Raises:
        ZeroDivisionError: ``total`` is 0; what to say then is for the caller.
    """
    share, square = count / total, z * z / total
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)
