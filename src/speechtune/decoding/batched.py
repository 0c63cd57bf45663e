"""Decode many utterances in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from speechtune.core.progress import track
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guards import active_guard
from speechtune.decoding.searching import Searcher
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Family

Load = Callable[[Utterance], np.ndarray]


def transcribe_corpus(
    family: Family, corpus: Corpus, config: DecodingConfig, title: str = "transcribe"
) -> list[Transcript]:
    """Transcripts of every utterance, in the corpus's order.

    Raises:
        InputError: an audio file cannot be read, or is longer than the model's window.
    """
    from speechtune.audio.io import load_audio

    def load(utterance: Utterance) -> np.ndarray:
        return load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s)

    return transcribe(family, corpus.utterances, load, config, title)


def transcribe(
    family: Family, utterances: Sequence[Utterance], load: Load, config: DecodingConfig, title: str = "transcribe"
) -> list[Transcript]:
    """Decode in batches sorted by length, so that little of a batch is padding; results in input order."""
    was_training = family.model.training
    family.model.eval()
    found: dict[str, Transcript] = {}
    searcher = Searcher(family, config)
    guard = active_guard(family, config)
    batches = plan_batches(family, utterances, config)
    try:
        for batch, n_frames in track(batches, title):
            waveforms = [load(utterance) for utterance in batch]
            names = [utterance.utterance_id for utterance in batch]
            transcripts = searcher.transcripts(names, waveforms, n_frames)
            if guard is not None:
                transcripts = guard.watch(transcripts, waveforms, n_frames)
            found.update(zip(names, transcripts, strict=True))
    finally:
        family.model.train(was_training)
    return [found[utterance.utterance_id] for utterance in utterances]


def plan_batches(
    family: Family, utterances: Sequence[Utterance], config: DecodingConfig
) -> list[tuple[list[Utterance], int]]:
    """Batches in order of length, longest first (memory trouble shows at once), with their frames.

    Raises:
        InputError: an utterance is longer than the model's window.
    """
    from speechtune.core.errors import InputError

    ordered = sorted(utterances, key=lambda one: (-one.duration_s, one.utterance_id))
    limit_s = family.limits.max_audio_s
    if ordered and ordered[0].duration_s > limit_s:
        raise InputError(
            f"{ordered[0].file_name} ({ordered[0].utterance_id}) is {ordered[0].duration_s:.1f} s long and the model's "
            f"window is {limit_s:g} s: cut it into shorter utterances"
        )
    batches: list[tuple[list[Utterance], int]] = []
    budget_s = config.batch_seconds * getattr(family, "batch_seconds_factor", 1.0)
    while ordered:
        n_frames = family.context_frames(ordered[0].duration_s + config.margin_s, config.context)
        window_s = limit_s if config.context == "full" else ordered[0].duration_s + config.margin_s
        size = max(1, min(config.batch_size, int(budget_s / window_s)))
        batches.append((ordered[:size], n_frames))
        ordered = ordered[size:]
    return batches
