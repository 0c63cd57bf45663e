"""Comparisons without a model: corpora of tones, made-up transcripts, real scores."""

from __future__ import annotations

import random
from pathlib import Path

from report_fixtures import HEBREW, HOSTILE_ID, HOSTILE_TEXT, WORDS, corrupted, tone

from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.comparison import Cost, SystemComparison, SystemInput, compare_systems
from speechtune.scoring.config import ScoringConfig


def small_corpus(root: Path, number: int = 10) -> Corpus:
    """A few clips, one with Hebrew and one with hostile text; saved."""
    draw = random.Random(0)
    rows = []
    for place in range(number):
        seconds = round(draw.uniform(0.6, 1.6), 2)
        rows.append(
            Utterance(
                utterance_id=f"utt-{place:03d}",
                file_name=f"audio/{place:03d}.wav",
                text=" ".join(draw.choices(WORDS, k=draw.randint(3, 9))).capitalize() + ".",
                duration_s=seconds,
                speaker_id=f"child {place % 6}",
                age=str(6 + place % 2),
                language="en",
            )
        )
        tone(root / rows[-1].file_name, seconds)
    rows[0].utterance_id, rows[0].text = HOSTILE_ID, HOSTILE_TEXT
    rows[1].utterance_id, rows[1].text = "עברית 1", HEBREW
    corpus = Corpus(root, rows, {})
    corpus.save()
    return corpus


def large_corpus(number: int) -> Corpus:
    """Many utterances without audio, made quickly."""
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 10))) for _ in range(200)]
    rows = [
        Utterance(
            utterance_id=f"u{place:06d}",
            file_name="",
            text=texts[place % 200],
            duration_s=1.0 + place % 7,
            speaker_id=f"s{place % 50}",
            age=str(6 + place % 9),
            language="en",
        )
        for place in range(number)
    ]
    return Corpus(Path("large"), rows)


def system(
    corpus: Corpus, name: str, share: float, cost: Cost | None = None, log_probs: tuple[float, ...] = ()
) -> SystemInput:
    """A system that spoils a share of the words; equal texts are spoilt in a few ways only.

    Utterances have the log-probabilities in turn.
    """
    draw = random.Random(name)
    ways: dict[tuple[str, int], str] = {}
    transcripts = []
    for place, one in enumerate(corpus):
        key = (one.text, place % 5)
        if key not in ways:
            ways[key] = corrupted(one.text, share, draw)
        sure = log_probs[place % len(log_probs)] if log_probs else None
        transcripts.append(Transcript(utterance_id=one.utterance_id, text=ways[key], log_prob=sure))
    return SystemInput(name=name, source=f"{name}.jsonl", transcripts=transcripts, cost=cost or Cost())


def compared(corpus: Corpus, systems: list[SystemInput], examples: int = 12) -> SystemComparison:
    """The comparison with slices by age and length."""
    slices = ["age", "reference_words"]
    return compare_systems(
        corpus, systems, ScoringConfig(slice_by=slices, normaliser="unicode", resamples=500), examples=examples
    )
