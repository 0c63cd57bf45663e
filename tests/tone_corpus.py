"""A corpus of short tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TEXTS = ("the thing", "sing the king", "a ring", "in the inn", "nothing here", "then", "bring thin things", "go on")


def write_corpus(root: Path, count: int = 16, dev: int = 4) -> Path:
    """A corpus of short tones: ``count`` training and ``dev`` dev utterances of 0.3 to 1.5 s."""
    from speechtune.audio.io import write_audio
    from speechtune.corpus.table import Corpus, Utterance

    rng = np.random.default_rng(3)
    utterances = []
    (root / "audio").mkdir(parents=True)
    for number in range(count + dev):
        length = int(rng.integers(4_800, 24_000))
        tone = 0.3 * np.sin(np.arange(length) * (0.05 + 0.01 * (number % 8)))
        name = f"audio/u{number:02d}.wav"
        write_audio(root / name, tone.astype(np.float32))
        utterances.append(
            Utterance(
                utterance_id=f"u{number:02d}",
                file_name=name,
                text=TEXTS[number % len(TEXTS)],
                duration_s=length / 16_000,
                speaker_id=f"s{number % 6}",
                language="en",
                split="train" if number < count else "dev",
            )
        )
    Corpus(root, utterances, {"kept": len(utterances)}).save()
    return root
