"""A clip whose speech is known by construction, and materials made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speechtune.audio.augment.materials import Materials, Recording
from speechtune.audio.io import write_audio

RATE_HZ = 16_000


def bursts(seed: int = 0, seconds: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Voiced-like bursts of 0.5 s with pauses of 0.3 s over a floor 60 dB below, and where the bursts are."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    time_s = np.arange(samples) / RATE_HZ
    pitch_hz = 110 + 20 * rng.random()
    voice = sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 20))
    speaking = (time_s % 0.8) < 0.5
    speech = 0.1 * voice * speaking + 1e-4 * rng.standard_normal(samples)
    return speech.astype(np.float32), speaking


def materials(folder: Path, **changes: object) -> Materials:
    """Two noises, four other utterances of three speakers, one impulse response, all on disk."""
    rng = np.random.default_rng(7)
    made: dict[str, list[Recording]] = {"noises": [], "speech": [], "impulses": []}
    for name, seconds in (("street/one.wav", 1.5), ("cafe/two.wav", 6.0)):
        noise = (
            0.05
            * rng.standard_normal(round(seconds * RATE_HZ))
            * (1 + 0.8 * np.sin(np.arange(seconds * RATE_HZ) / 3e3))
        )
        made["noises"].append(_written(folder / "noise", name, noise))
    for number in range(4):
        speech, _ = bursts(number + 20, 2.0)
        made["speech"].append(_written(folder / "speech", f"u{number}.wav", speech, speaker=f"s{min(number, 2)}"))
    impulse = np.zeros(4_000)
    impulse[300] = 0.7
    impulse[900:3_900:211] = 0.2 * rng.standard_normal(len(impulse[900:3_900:211]))
    made["impulses"].append(_written(folder / "ir", "hall.wav", impulse))
    return Materials(**{**made, **changes})  # type: ignore[arg-type]


def _written(folder: Path, name: str, samples: np.ndarray, speaker: str | None = None) -> Recording:
    write_audio(folder / name, samples)
    stem = Path(name).stem if speaker else name
    return Recording(stem, folder / name, len(samples) / RATE_HZ, speaker_id=speaker, words=name.lower())
