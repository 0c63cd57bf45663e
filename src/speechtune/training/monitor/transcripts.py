"""Transcripts that repeat themselves or say more than was spoken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechtune.corpus.table import Utterance
from speechtune.corpus.text_patterns import repeated_phrase
from speechtune.decoding.searching import compression_ratio
from speechtune.decoding.transcript import Transcript

COMPRESSION_LIMIT = 2.4
"""Whisper decodes anew above this ratio (Radford et al. 2022, arXiv 2212.04356, section 4.5)."""

WORDS_PER_S_LIMIT = 8.0
"""More words a second than anybody says; the label check's scale ends there too."""


def complaint(text: str, reference: str, duration_s: float) -> str | None:
    """What is wrong with a transcript in itself, or ``None``; a loop that the reference has too is none."""
    words = text.split()
    loop = repeated_phrase(text)
    if loop and not repeated_phrase(reference):
        return f"{loop[0]!r} {loop[1]} times"
    ratio = compression_ratio(text)
    if ratio > COMPRESSION_LIMIT and compression_ratio(reference) <= COMPRESSION_LIMIT:
        return f"compression ratio {ratio:.1f}"
    if duration_s > 0 and len(words) >= 4 and len(words) / duration_s > WORDS_PER_S_LIMIT:
        return f"{len(words) / duration_s:.1f} words a second"
    if not reference.strip() and len(words) >= 3:
        return f"{len(words)} words where nothing is said"
    return None


def flag(utterances: Sequence[Utterance], transcripts: Sequence[Transcript]) -> dict[str, str]:
    """Utterance id to `complaint`, for those that have one."""
    found = {}
    for utterance, transcript in zip(utterances, transcripts, strict=True):
        why = complaint(transcript.text, utterance.text, utterance.duration_s)
        if why:
            found[utterance.utterance_id] = why
    return found


def sample_ids(utterances: Sequence[Utterance], count: int) -> list[str]:
    """``count`` fixed utterances, spread evenly over the lengths from the shortest to the longest."""
    ordered = sorted(utterances, key=lambda one: (one.duration_s, one.utterance_id))
    if count >= len(ordered):
        return [one.utterance_id for one in ordered]
    places = [round(place * (len(ordered) - 1) / max(1, count - 1)) for place in range(count)]
    return [ordered[place].utterance_id for place in places]


def sample_rows(
    step: int, ids: Sequence[str], utterances: Sequence[Utterance], transcripts: Sequence[Transcript]
) -> list[dict[str, Any]]:
    """The rows of ``samples.jsonl`` for one evaluation."""
    texts = {transcript.utterance_id: transcript.text for transcript in transcripts}
    references = {utterance.utterance_id: utterance.text for utterance in utterances}
    return [{"step": step, "utterance_id": one, "reference": references[one], "text": texts[one]} for one in ids]
