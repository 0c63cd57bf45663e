"""The data folder that a package is rehearsed on: real clips or tones, a silent one, a broken one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio, write_audio
from speechtune.core.files import write_jsonl
from speechtune.corpus.table import Corpus

SILENT, BROKEN, LONG = "U_rehearsal_silence", "U_rehearsal_broken", "U_rehearsal_long"


@dataclass(slots=True)
class Sample:
    """Where it is, the waveforms of its ordinary clips by id, and their texts where they are known."""

    folder: Path
    waveforms: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def seconds_of_audio(self) -> float:
        """Of the ordinary clips."""
        return sum(map(len, self.waveforms.values())) / SAMPLE_RATE_HZ


def write_sample(
    folder: Path, corpus: Corpus | None, clips: int, seed: int, text_key: str, window_s: float = 30.0
) -> Sample:
    """Write ``utterance_metadata.jsonl``, ``submission_format.jsonl`` and ``audio/`` below ``folder``.

    Args:
        folder: the data folder to make.
        corpus: where clips are drawn from (without those longer than the window); none: tones in noise are made.
        clips: how many ordinary ones. One of digital silence, one unreadable and one beyond the window are added.
        seed: of the draw.
        text_key: name of the prediction.
        window_s: the model's window.
    """
    rng = np.random.default_rng(seed)
    sample = Sample(folder)
    if corpus is not None:
        usable = [one for one in corpus.utterances if 0 < one.duration_s <= window_s]
        chosen = rng.choice(len(usable), size=min(clips, len(usable)), replace=False)
        for number, place in enumerate(chosen):
            one = usable[int(place)]
            name = f"U_{number:016x}"
            sample.waveforms[name] = load_audio(corpus.path_of(one), one.start_s, one.end_s)
            sample.texts[name] = one.text
    else:
        for number in range(clips):
            length = int(rng.integers(SAMPLE_RATE_HZ // 2, int(min(8.0, window_s) * SAMPLE_RATE_HZ)))
            tone = 0.2 * np.sin(np.arange(length) * rng.uniform(0.02, 0.3)) + rng.normal(0, 0.01, length)
            sample.waveforms[f"U_{number:016x}"] = tone.astype(np.float32)
    longest = np.concatenate([*sample.waveforms.values()])
    beyond = np.resize(longest, int(1.3 * window_s * SAMPLE_RATE_HZ)).astype(np.float32)
    more = {SILENT: np.zeros(SAMPLE_RATE_HZ * 2, dtype=np.float32), LONG: beyond}
    rows = []
    for name, waveform in [*sample.waveforms.items(), *more.items()]:
        write_audio(folder / "audio" / f"{name}.flac", waveform)
        rows.append({**_facts(name), "audio_duration_sec": round(len(waveform) / SAMPLE_RATE_HZ, 3)})
    (folder / "audio" / f"{BROKEN}.flac").write_bytes(b"fLaC this is not a recording")
    rows.append({**_facts(BROKEN), "audio_duration_sec": 1.0})
    write_jsonl(folder / "utterance_metadata.jsonl", [rows[int(place)] for place in rng.permutation(len(rows))])
    order = [rows[int(place)]["utterance_id"] for place in rng.permutation(len(rows))]
    write_jsonl(folder / "submission_format.jsonl", ({"utterance_id": name, text_key: ""} for name in order))
    for name in sample.waveforms:  # what the package hears: 16 bits
        sample.waveforms[name] = load_audio(folder / "audio" / f"{name}.flac")
    return sample


def _facts(name: str) -> dict[str, str]:
    return {
        "utterance_id": name,
        "child_id": "C_rehearsal",
        "session_id": "S_rehearsal",
        "audio_path": f"audio/{name}.flac",
        "age_bucket": "unknown",
    }
