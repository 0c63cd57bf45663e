"""SpecAugment (Park et al. 2019, arXiv 1904.08779): stripes of a spectrogram are blanked out.

Two parameterisations are in use. *By count*: so many masks, each up to so wide (the paper; LibriSpeech double is 2 time
masks up to 100 frames and 2 frequency masks up to 27 bins; the Hebrew plan has 2 of 80 and 2 of 27). *By share*: masks
of one width, as many as cover a share of the axis when they do not overlap (Transformers' ``mask_time_prob`` and
``mask_time_length``; Whisper's defaults there are 0.05 and 10, at least 2; the second-placed entry of the children's
challenge used just that). Masks are drawn here and applied apart, so that they can be logged and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from speechtune.core.errors import InputError

Features = TypeVar("Features")
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MaskDraw:
    """The stripes of one clip: (first, width) in frames and in mel bins. They may overlap."""

    time: tuple[Span, ...] = ()
    bins: tuple[Span, ...] = ()

    def to_json(self) -> dict[str, list[list[int]]]:
        """Plain lists."""
        return {"time": [list(span) for span in self.time], "bins": [list(span) for span in self.bins]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MaskDraw:
        """The inverse of `to_json`.

        Raises:
            InputError: the value is not such a draw.
        """
        try:
            time, bins = (tuple((int(first), int(width)) for first, width in value[key]) for key in ("time", "bins"))
            return cls(time, bins)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{str(value)[:80]!r} is not a mask draw ({error}): give what to_json wrote") from error


def draw_masks_by_count(
    rng: np.random.Generator,
    frames: int,
    bins: int,
    *,
    time_masks: int = 2,
    time_width: int = 80,
    bin_masks: int = 2,
    bin_width: int = 27,
    time_share_max: float = 1.0,
) -> MaskDraw:
    """So many masks, each of a width drawn from 0 to the greatest, at a place drawn from where it fits.

    Args:
        rng: a seeded generator.
        frames: frames that hold the clip (not its padding), 10 ms each.
        bins: mel bins.
        time_masks: number of time masks.
        time_width: greatest width of one in frames.
        bin_masks: number of frequency masks.
        bin_width: greatest width of one in bins.
        time_share_max: no time mask covers more than this share of the frames (``p`` in the paper).
    """
    time_width = min(time_width, int(frames * time_share_max))
    return MaskDraw(
        tuple(_any_width(rng, frames, time_width) for _ in range(time_masks)),
        tuple(_any_width(rng, bins, bin_width) for _ in range(bin_masks)),
    )


def _any_width(rng: np.random.Generator, length: int, widest: int) -> Span:
    width = int(rng.integers(0, min(widest, length) + 1))
    return int(rng.integers(0, length - width + 1)), width


def draw_masks_by_share(
    rng: np.random.Generator,
    frames: int,
    bins: int,
    *,
    time_prob: float = 0.05,
    time_length: int = 10,
    time_min_masks: int = 2,
    bin_prob: float = 0.0,
    bin_length: int = 10,
    bin_min_masks: int = 0,
) -> MaskDraw:
    """As many masks of one width as would cover a share of the axis, at different first frames.

    The law of Transformers' ``_compute_mask_indices``: ``share x length / width`` masks, rounded up or down at random
    so that the mean is exact, at least the given number, never more than fit beside each other; none when the share is
    0.

    Args:
        rng: a seeded generator.
        frames: frames that hold the clip (not its padding).
        bins: mel bins.
        time_prob: share of the frames.
        time_length: width of a time mask in frames.
        time_min_masks: fewest time masks.
        bin_prob: share of the bins.
        bin_length: width of a frequency mask in bins.
        bin_min_masks: fewest frequency masks.
    """
    return MaskDraw(
        _one_width(rng, frames, time_prob, time_length, time_min_masks),
        _one_width(rng, bins, bin_prob, bin_length, bin_min_masks),
    )


def _one_width(rng: np.random.Generator, length: int, share: float, width: int, fewest: int) -> tuple[Span, ...]:
    if share <= 0 or length < width:
        return ()
    count = max(int(share * length / width + rng.random()), fewest)
    count = min(count, length // width)
    firsts = rng.choice(length - width + 1, count, replace=False)
    return tuple((int(first), width) for first in firsts)


def apply_masks(features: Features, draw: MaskDraw, value: float = 0.0) -> Features:
    """A copy with the stripes set to ``value``.

    Args:
        features: numpy array or torch tensor, shape (..., bins, frames).
        draw: from `draw_masks_by_count` or `draw_masks_by_share`.
        value: 0 as in Transformers and in the Hebrew plan; of a log-mel scaled as Whisper's, the mean is near it.
    """
    changed: Any = features.copy() if isinstance(features, np.ndarray) else features.clone()  # type: ignore[attr-defined]
    for first, width in draw.time:
        changed[..., :, first : first + width] = value
    for first, width in draw.bins:
        changed[..., first : first + width, :] = value
    return changed
