"""The clips that source and artefact are compared on: real speech where there is some, silence always."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.table import METADATA, Corpus, Utterance
from speechtune.export.source import Source

SAMPLE_RATE_HZ = 16_000
MARGIN_S = 0.2
SENTENCES = (
    "The little dog ran across the green field.",
    "She counted seven apples and gave two away.",
    "Tomorrow we will read a story about the sea.",
    "Please open the window before it gets too warm in here.",
    "My brother has a red bicycle with a silver bell.",
    "It rained all night, and the garden was full of snails.",
)
"""Spoken by espeak-ng where no corpus is at hand; written for speechtune."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip: float32 mono 16 kHz; ``text`` is what is said, ``None`` if that is not known, empty for silence."""

    name: str
    wave: np.ndarray
    text: str | None
    speaker: str | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.wave) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips and what they are: ``corpus``, ``synthetic speech`` or ``tones``; silence is the first ones."""

    clips: list[Clip]
    kind: str
    origin: str
    languages: tuple[str | None, ...] = ()


def gather_clips(source: Source, corpus: Path | None, split: str | None, count: int, seed: int) -> Clips:
    """Silence, then up to ``count`` clips: of ``corpus``, else of the run's dev set, else made.

    Clips of a corpus are drawn evenly over its durations, so that short and long ones are both there.

    Raises:
        InputError: the corpus has no utterance (in that split) that fits the model's window.
    """
    silent = silences(source.family.limits.max_audio_s)
    chosen, where = (corpus, split) if corpus else _of_run(source)
    if chosen is not None:
        drawn, languages = _from_corpus(chosen, where, count, seed, source.family.limits.max_audio_s)
        return Clips([*silent, *drawn], "corpus", f"{chosen} ({where or 'all'})", languages)
    spoken = _spoken(source.family.language)
    if spoken:
        note("no corpus given: comparing on synthetic speech; give --corpus for a WER on real speech")
        return Clips([*silent, *spoken], "synthetic speech", "espeak-ng", (source.family.language,))
    note("no corpus given: comparing on tones only; give --corpus for a WER on real speech")
    return Clips([*silent, *tones(seed, source.family.limits.max_audio_s)], "tones", "generated")


def silences(window_s: float) -> list[Clip]:
    """Digital silence of 1 s, and 4 s of the faint noise of a quiet microphone (-70 dB full scale)."""
    rng = np.random.default_rng(0)
    noise = (10 ** (-70 / 20) * rng.standard_normal(int(min(4.0, window_s / 2) * SAMPLE_RATE_HZ))).astype(np.float32)
    return [Clip("silence", np.zeros(SAMPLE_RATE_HZ, np.float32), ""), Clip("faint-noise", noise, "")]


def tones(seed: int, window_s: float, count: int = 6) -> list[Clip]:
    """Harmonic tones whose pitch and loudness move as in speech; nothing is said, so there is no text."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        seconds = float(rng.uniform(0.3, 1.0) * min(8.0, window_s))
        time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        pitch_hz = rng.uniform(90, 300) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_s))
        phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
        wave = sum(np.sin(k * phase) / k for k in range(1, 8)) * (1 + np.sin(2 * np.pi * 4 * time_s)) / 8
        wave = wave + 0.01 * rng.standard_normal(len(time_s))
        made.append(Clip(f"tone-{number}", wave.astype(np.float32), None))
    return made


def _of_run(source: Source) -> tuple[Path | None, str | None]:
    """The corpus and split a run chose its model by, wherever the run was started from."""
    if source.run is None:
        return None, None
    from speechtune.training.recipe import load_recipe

    data = load_recipe(source.run / "recipe.yaml").data
    named = Path(data.corpus)
    if data.split is not None:
        note(f"the run divided {named} by itself (data.split), so clips are taken from all of it")
    for root in (Path(), *source.run.resolve().parents):
        if (root / named / METADATA).is_file():
            return root / named, data.dev_split if data.split is None else None
    note(f"the run's corpus {named} is not here, so its dev set cannot be used")
    return None, None


def _from_corpus(
    root: Path, split: str | None, count: int, seed: int, window_s: float
) -> tuple[list[Clip], tuple[str | None, ...]]:
    whole = Corpus.load(root)
    part = whole.split(split) if split else whole
    fitting = [one for one in part.utterances if 0.1 <= one.duration_s <= window_s - MARGIN_S and one.text.strip()]
    if not fitting:
        raise InputError(
            f"{root} has no utterance with text that fits {window_s:g} s to compare on: choose another split"
        )
    return [_load(whole, one) for one in _spread(fitting, count, seed)], tuple({one.language for one in fitting})


def _load(corpus: Corpus, utterance: Utterance) -> Clip:
    wave = load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s)
    return Clip(utterance.utterance_id, wave, utterance.text, utterance.speaker_id)


def _spread(utterances: list[Utterance], count: int, seed: int) -> list[Utterance]:
    """One utterance of each of ``count`` equal slices of the list ordered by duration."""
    ordered = sorted(utterances, key=lambda one: (one.duration_s, one.utterance_id))
    if len(ordered) <= count:
        return ordered
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, len(ordered), count + 1).astype(int)
    return [ordered[int(rng.integers(low, high))] for low, high in pairwise(edges)]


def _spoken(language: str | None) -> list[Clip]:
    if language not in (None, "en"):
        return []
    from speechtune.corpus.synthesis.espeak import Voice, synthesise

    try:
        voice = Voice("en-us")
        return [Clip(f"spoken-{n}", synthesise(text, voice), text) for n, text in enumerate(SENTENCES)]
    except InputError:
        return []
