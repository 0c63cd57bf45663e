"""Which of several texts a model finds likelier for a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio
from speechtune.core.errors import InputError
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.sources import OpenedModel


def likelier(opened: OpenedModel, audio: Path, texts: Sequence[str]) -> dict[str, Any]:
    """The texts by their log-probability given the recording, each in its likeliest written form.

    Args:
        opened: an encoder-decoder model.
        audio: a recording within the model's window.
        texts: at least two, all different.

    Returns:
        ``texts``, likeliest first: ``text``, ``share`` (its probability if one of the texts is right and all were
        equally likely before), and what `Likelihood` says (``total``, ``mean``, ``lowest_word``, ...).

    Raises:
        InputError: fewer than two texts, a text that the model cannot take, or a recording longer than its window.
    """
    if len(set(texts)) < 2 or len(set(texts)) < len(texts):
        raise InputError("likelier compares different texts: give two or more, each once")
    waveform = load_audio(audio)
    seconds, window_s = len(waveform) / SAMPLE_RATE_HZ, opened.family.limits.max_audio_s
    if seconds > window_s:
        raise InputError(f"{audio} is {seconds:.1f} s long and the model's window is {window_s:g} s: cut it")
    opened.family.model.eval()
    n_frames = opened.family.context_frames(seconds + opened.decoding.margin_s, opened.decoding.context)
    (found,) = label_likelihoods(opened.family, [waveform], [list(texts)], n_frames)
    rows = []
    for text, one in zip(texts, found, strict=True):
        if one is None:
            raise InputError(f"{text[:60]!r} has more tokens than the model takes: shorten it")
        rows.append((text, one))
    totals = np.array([one.total for _, one in rows])
    shares = np.exp(totals - np.logaddexp.reduce(totals))
    order = sorted(range(len(rows)), key=lambda place: (-totals[place], place))
    return {
        "audio": str(audio),
        "model": str(opened.path),
        "texts": [{"text": rows[n][0], "share": round(float(shares[n]), 6), **rows[n][1].to_json()} for n in order],
    }
