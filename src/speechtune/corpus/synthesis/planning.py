"""What is to be said by whom: everything random about a synthetic corpus, drawn before anything is spoken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speechtune.core.errors import InputError
from speechtune.corpus.synthesis.engines import AnyVoice, Engine
from speechtune.corpus.synthesis.espeak import Espeak


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text to be spoken, the split it belongs to, the target terms in it, and its kind (a label for slices)."""

    text: str
    split: str
    terms: tuple[str, ...] = ()
    kind: str = "plain"


@dataclass(frozen=True, slots=True)
class VoiceDraw:
    """Everything random about one clip, drawn before anything is synthesised.

    ``gain_db`` is relative to `SPEECH_LEVEL_DBFS`; ``noise`` is ``white`` or ``pink``; ``lead_s`` and ``tail_s`` are
    the noise-only margins before and after the speech.
    """

    voice: AnyVoice
    gain_db: float
    noise: str
    noise_snr_db: float
    noise_seed: int
    lead_s: float
    tail_s: float


@dataclass(frozen=True, slots=True)
class Clip:
    """One planned recording."""

    sentence: Sentence
    draw: VoiceDraw
    name: str | None = None
    """Utterance id; ``None``: split and number."""


def plan_corpus(
    sentences: Sequence[Sentence], voices: Mapping[str, Sequence[str]], seed: int, engine: Engine | None = None
) -> list[Clip]:
    """Draw a voice and a mild variation for every sentence.

    Ranges: the voice as its engine draws it (espeak-ng: 130-190 words a minute, pitch and pitch range 35-65), gain
    -6 to +6 dB, white or pink noise at 25-35 dB SNR, margins of 0.1-0.4 s. Within a split every voice speaks equally
    often, give or take one clip.

    Args:
        sentences: what to say; the order is kept.
        voices: the voice names of each split that occurs in ``sentences``.
        seed: the same seed and sentences give the same plan.
        engine: who draws how a voice speaks (``None``: espeak-ng).

    Raises:
        InputError: a split has no voices.
    """
    engine = engine or Espeak()
    random = np.random.default_rng(seed)
    decks: dict[str, list[str]] = {}
    plan = []
    for sentence in sentences:
        names = voices.get(sentence.split)
        if not names:
            raise InputError(f"the split {sentence.split!r} has no voices: name at least one for it")
        deck = decks.setdefault(sentence.split, [])
        if not deck:
            deck.extend(names[index] for index in random.permutation(len(names)))
        plan.append(Clip(sentence, _draw(deck.pop(), engine, random)))
    return plan


def _draw(name: str, engine: Engine, random: np.random.Generator) -> VoiceDraw:
    return VoiceDraw(
        voice=engine.draw_voice(name, random),
        gain_db=round(float(random.uniform(-6, 6)), 2),
        noise=("white", "pink")[int(random.integers(2))],
        noise_snr_db=round(float(random.uniform(25, 35)), 2),
        noise_seed=int(random.integers(2**31)),
        lead_s=round(float(random.uniform(0.1, 0.4)), 3),
        tail_s=round(float(random.uniform(0.1, 0.4)), 3),
    )
