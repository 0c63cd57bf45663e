"""How fast each effect is, in seconds of audio per second of one core, draws included.

    python benchmarks/augment.py --corpus CORPUS [--noise DIRECTORY] [--clips 40] [--out results.json]

Clips are decoded before the clock starts. Every effect is first applied once to each clip (rooms are computed, noise is
decoded, codecs are calibrated), then timed; the time of the first pass is printed too, because each process of a data
loader pays it once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.augment import AugmentConfig, Augmenter, apply_masks, draw_masks_by_share, rng_for
from speechtune.audio.augment.presets import MIXTURES, PRESETS
from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio
from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.augmenting import clip_info, speech_of
from speechtune.corpus.table import Corpus

SINGLE: dict[str, dict[str, Any]] = {
    "gain": {"kind": "gain"},
    "clip": {"kind": "clip"},
    "compress": {"kind": "compress"},
    "speed": {"kind": "speed"},
    "tempo": {"kind": "tempo"},
    "pitch": {"kind": "pitch"},
    "shift": {"kind": "shift"},
    "reverb, rooms": {"kind": "reverb"},
    "noise, white": {"kind": "noise", "sources": ["white"]},
    "noise, pink": {"kind": "noise", "sources": ["pink"]},
    "noise, hum": {"kind": "noise", "sources": ["hum"]},
    "noise, babble": {"kind": "noise", "sources": ["babble"]},
    "noise, files": {"kind": "noise", "sources": ["files"]},
    "band limit": {"kind": "band_limit"},
    "codec, mp3": {"kind": "codec", "codecs": ["mp3"]},
    "codec, opus": {"kind": "codec", "codecs": ["opus"]},
    "codec, vorbis": {"kind": "codec", "codecs": ["vorbis"]},
    "codec, ulaw": {"kind": "codec", "codecs": ["ulaw"]},
    "codec, gsm": {"kind": "codec", "codecs": ["gsm"]},
}


def timed(augmenter: Augmenter, clips: list[tuple[Any, np.ndarray]]) -> tuple[float, float]:
    """Seconds of the first pass over the clips, and of the second one."""
    spent = []
    for _ in range(2):
        start_s = time.perf_counter()
        for info, waveform in clips:
            draw = augmenter.draw(rng_for(0, 0, info.utterance_id), info)
            if draw is not None:
                augmenter.apply(draw, waveform)
        spent.append(time.perf_counter() - start_s)
    return spent[0], spent[1]


def masking_s(clips: list[tuple[Any, np.ndarray]]) -> float:
    """Seconds to draw and apply SpecAugment to features of the clips' lengths."""
    features = [np.zeros((80, len(waveform) // 160), np.float32) for _, waveform in clips]
    start_s = time.perf_counter()
    for (info, _), one in zip(clips, features, strict=True):
        apply_masks(one, draw_masks_by_share(rng_for(0, 0, info.utterance_id), one.shape[1], 80, bin_prob=0.1))
    return time.perf_counter() - start_s


def main() -> None:
    """Print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    corpus = Corpus.load(given.corpus)
    chosen = corpus.utterances[:: max(1, len(corpus) // given.clips)][: given.clips]
    clips = [(clip_info(one), load_audio(corpus.path_of(one), one.start_s, one.end_s)) for one in chosen]
    audio_s = sum(len(waveform) for _, waveform in clips) / SAMPLE_RATE_HZ
    plans: dict[str, dict[str, Any]] = {
        name: {"effects": [effect]} for name, effect in SINGLE.items() if given.noise or name != "noise, files"
    }
    plans |= {f"preset {name}": {"preset": name} for name in [*PRESETS, *MIXTURES]}
    rows: list[dict[str, Any]] = []
    for name, values in plans.items():
        config = AugmentConfig.model_validate({**values, "noise_dir": str(given.noise) if given.noise else None})
        first_s, second_s = timed(Augmenter(config, speech_of(corpus)), clips)
        rows.append({"effect": name, "x_real_time": round(audio_s / second_s), "first_pass_s": round(first_s, 2)})
        print(f"{name:24} {rows[-1]['x_real_time']:>8} x   first pass {first_s:6.2f} s", flush=True)
    print(f"{'SpecAugment':24} {audio_s / masking_s(clips):>8.0f} x")
    if given.out:
        facts: dict[str, Any] = {"clips": len(clips), "seconds_of_audio": round(audio_s, 1), "rows": rows}
        write_json(given.out, {**facts, "provenance": provenance(0)})


if __name__ == "__main__":
    main()
