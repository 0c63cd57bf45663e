"""Token limits by the length of a clip: a short clip cannot hold a long text, and a loop ends early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.decoding.config import DecodingConfig
from speechtune.models.family import Family, Hypothesis


def limits_of(config: DecodingConfig, waveforms: Sequence[np.ndarray]) -> list[int]:
    """The token limit of each clip (mono, 16 kHz): ``max_new_tokens``, or less for a short one."""
    if config.tokens_per_s is None:
        return [config.max_new_tokens] * len(waveforms)
    seconds = [len(waveform) / SAMPLE_RATE_HZ for waveform in waveforms]
    return [min(config.max_new_tokens, int(config.tokens_at_least + config.tokens_per_s * one)) for one in seconds]


def within_limit(one: Hypothesis, limit: int, family: Family) -> Hypothesis:
    """A hypothesis cut to so many tokens, as if it had been decoded with that limit alone.

    A batch is decoded with the limit of its longest clip, so this keeps a clip's text independent of its neighbours.
    """
    if len(one.tokens) <= limit or family.name == "ctc":  # a CTC model's frames bound it, not its tokens
        return one
    known = None if one.token_log_probs is None else one.token_log_probs[:limit]
    return replace(
        one,
        text=family.text(one.tokens[:limit]),
        tokens=one.tokens[:limit],
        truncated=True,
        token_log_probs=known,
        log_prob=float(np.mean(known)) if known else one.log_prob,
        sum_log_prob=float(np.sum(known)) if known else None,
        nbest=tuple(within_limit(other, limit, family) for other in one.nbest),
    )
