"""A long file built from real utterances with known text: what the ways through it lose beyond the utterances alone.

    python benchmarks/long_form.py whisper-tiny.en CORPUS --minutes 60 --out figures.json

The utterances are joined with pauses of 0.3 to 4 s. Reported for each way (and for the utterances alone): WER with
its interval, deleted words, hours of audio an hour of work, and the highest memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000


def build(source: Path, target: Path, minutes: float, seed: int) -> tuple[str, list[str]]:
    """Write the long file; its text, and the ids of the utterances in it."""
    from speechtune.audio.io import load_audio
    from speechtune.corpus.table import Corpus

    corpus = Corpus.load(source)
    rng = np.random.default_rng(seed)
    texts, ids, seconds = [], [], 0.0
    with soundfile.SoundFile(target, "w", RATE_HZ, 1, "PCM_16") as file:
        for place in rng.permutation(len(corpus)):
            one = corpus.utterances[place]
            if seconds > 60 * minutes:
                break
            samples = load_audio(corpus.path_of(one), one.start_s, one.end_s)
            pause = (1e-4 * rng.standard_normal(int(rng.uniform(0.3, 4.0) * RATE_HZ))).astype(np.float32)
            file.write(samples)
            file.write(pause)
            seconds += (len(samples) + len(pause)) / RATE_HZ
            texts.append(one.text)
            ids.append(one.utterance_id)
    return " ".join(texts), ids


def main() -> None:
    """Print and write the figures."""
    from speechtune.corpus.table import Corpus, Utterance
    from speechtune.decoding.sources import open_model, transcribe_to
    from speechtune.scoring.score import score_transcripts

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--modes", nargs="+", default=["vad", "chunks", "sequential"])
    parser.add_argument("--language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    figures: dict = {"model": given.model, "minutes": given.minutes, "seed": given.seed}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        text, ids = build(given.corpus, root / "long.wav", given.minutes, given.seed)
        duration_s = soundfile.info(root / "long.wav").duration
        row = Utterance(utterance_id="long", file_name="long.wav", text=text, duration_s=duration_s)
        chosen = set(ids)
        alone = Corpus.load(given.corpus).subset(lambda one: one.utterance_id in chosen)
        for name in ("alone", *given.modes):
            corpus = alone if name == "alone" else Corpus(root, [row], {})
            overrides = [] if name == "alone" else [f"decoding.long={name}"]
            opened = open_model(given.model, language=given.language, overrides=overrides)
            began = time.monotonic()
            score = score_transcripts(corpus, transcribe_to(opened, corpus, None), language=opened.family.language)
            wall_s = time.monotonic() - began
            facts = score.to_json()
            figures[name] = {
                "wer": facts["wer"],
                "words": facts["words"],
                "seconds_of_audio": corpus.seconds_of_audio,
                "rtfx": round(corpus.seconds_of_audio / wall_s, 2),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            print(name, json.dumps(figures[name]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
