"""Clips without speech, made from seeded draws: whatever a recogniser writes about them is invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from speechtune.core.files import new_directory
from speechtune.corpus.table import METADATA, Corpus, Utterance

Kind = Literal["silence", "white", "pink", "hum", "clicks"]
KINDS: tuple[Kind, ...] = ("silence", "white", "pink", "hum", "clicks")
SAMPLE_RATE_HZ = 16_000
_HARMONICS = 6


@dataclass(frozen=True, slots=True)
class NonSpeech:
    """One clip: ``level_dbfs`` is its RMS level (of a click: its peak), ``seed`` that of its samples."""

    kind: Kind
    seconds: float
    level_dbfs: float
    seed: int


def draw_clips(count: int, seed: int, longest_s: float = 8.0) -> list[NonSpeech]:
    """Draw ``count`` clips, the kinds in turn, of 1 s to ``longest_s`` at -60 to -25 dBFS."""
    rng = np.random.default_rng(seed)
    return [
        NonSpeech(
            KINDS[number % len(KINDS)],
            round(float(rng.uniform(1, longest_s)), 2),
            round(float(rng.uniform(-60, -25)), 1),
            int(rng.integers(2**31)),
        )
        for number in range(count)
    ]


def render(clip: NonSpeech) -> np.ndarray:
    """The samples of a clip: float32, mono, 16 kHz."""
    rng = np.random.default_rng(clip.seed)
    length = round(clip.seconds * SAMPLE_RATE_HZ)
    gain = 10 ** (clip.level_dbfs / 20)
    if clip.kind == "silence":
        return np.zeros(length, np.float32)
    if clip.kind == "clicks":
        samples = np.zeros(length)
        places = rng.integers(0, length, max(1, round(2 * clip.seconds)))
        samples[places] = gain * rng.choice([-1.0, 1.0], len(places))
        return samples.astype(np.float32)
    if clip.kind == "hum":
        times_s = np.arange(length) / SAMPLE_RATE_HZ
        base_hz = rng.choice([50.0, 60.0])
        samples = sum(
            np.sin(2 * np.pi * base_hz * number * times_s + rng.uniform(0, 2 * np.pi)) / number
            for number in range(1, _HARMONICS + 1)
        )
    else:
        samples = rng.standard_normal(length)
        if clip.kind == "pink":  # power falls with 1 / frequency
            spectrum = np.fft.rfft(samples)
            samples = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), length)
    level = np.sqrt(np.mean(np.square(samples)))
    return np.clip(samples * gain / level, -1, 1).astype(np.float32)


def make_corpus(root: Path, clips: Sequence[NonSpeech], language: str | None) -> Corpus:
    """The clips as a corpus with empty texts below ``root``; one that stands there is used again."""
    from speechtune.audio.io import write_audio

    if (root / METADATA).is_file():
        return Corpus.load(root)
    with new_directory(root) as draft:
        (draft / "audio").mkdir()
        utterances = []
        for number, clip in enumerate(clips):
            name = f"audio/{number:03d}-{clip.kind}.wav"
            write_audio(draft / name, render(clip))
            utterances.append(
                Utterance(
                    utterance_id=f"{number:03d}-{clip.kind}",
                    file_name=name,
                    text="",
                    duration_s=round(clip.seconds * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ,
                    language=language,
                )
            )
        Corpus(draft, utterances, {"draws": [asdict(one) for one in clips]}).save()
    return Corpus.load(root)
