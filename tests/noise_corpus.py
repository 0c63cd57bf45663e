"""A corpus of short noise clips: enough for everything but judgement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile


def write_noise(root: Path, count: int, **columns: Any) -> Path:
    (root / "audio").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        soundfile.write(root / f"audio/{number}.wav", random.normal(0, 0.05, 8_000), 16_000)
        rows.append(
            {"utterance_id": f"u{number}", "file_name": f"audio/{number}.wav", "text": f"word{number} is here now",
             "duration_s": 0.5, "split": "train" if number % 3 else "dev", **columns}
        )  # fmt: skip
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root
