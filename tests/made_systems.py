"""Made-up corpora and the transcripts of made-up systems, for comparisons."""

from __future__ import annotations

import random
from pathlib import Path

from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.comparison import SystemInput

WORDS = ["a", "big", "cat", "sat", "on", "the", "red", "mat", "and", "went", "home", "with", "my", "old", "friend"]


def corpus_of(number: int, speakers: int = 8, seed: int = 0) -> Corpus:
    """Random sentences of some speakers of three ages, without audio."""
    draw = random.Random(seed)
    rows = [
        Utterance(
            utterance_id=f"u{place:03d}",
            file_name="",
            text=" ".join(draw.choices(WORDS, k=draw.randint(1, 9))),
            duration_s=1.0,
            speaker_id=f"s{place % speakers}" if speakers else None,
            age=str(6 + place % 3),
            language="en",
        )
        for place in range(number)
    ]
    return Corpus(Path("nowhere"), rows)


def heard(corpus: Corpus, name: str, share: float) -> SystemInput:
    """A system that mistakes a share of the words."""
    draw = random.Random(name)
    made = []
    for one in corpus:
        words = [draw.choice(WORDS) if draw.random() < share else word for word in one.text.split()]
        made.append(Transcript(utterance_id=one.utterance_id, text=" ".join(words)))
    return SystemInput(name=name, source=f"{name}.jsonl", transcripts=made)
