"""One recipe trains every family until twenty utterances have no word error: only the line ``model:`` changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import family_laws
import numpy as np
import pytest
import tiny_canary
import tiny_ctc
import tiny_granite_speech
import tiny_moonshine
import tiny_parakeet
import tiny_qwen3_asr
import tiny_voxtral
from tiny_whisper import make_transformers

RECIPE = """\
data: {{corpus: {corpus}, dev_split: train, epoch_utterances: 1820}}
model: {{base: {base}, language: en}}
training:
  epochs: 3
  learning_rate: 2.0e-3
  batch: {{utterances: 7, accumulate: 1}}
  audio_context: {{jitter_s: 0.0, full_share: 0.0}}
  trackers: []
  monitor: {{enabled: false}}
decoding: {{max_new_tokens: 10}}
evaluation: {{contexts: [fit], sets: [{{name: learnt, split: train}}], scoring: {{resamples: 20}}}}
"""
"""Everything but ``base`` is the same for all; 780 steps."""


def _whisper(directory: Path) -> Path:
    make_transformers(directory, multilingual=False, positions=150, text_positions=64, noise=False)
    return directory


MODELS = {
    "whisper": _whisper,
    "qwen3_asr": lambda path: tiny_qwen3_asr.make_qwen3_asr(path, spread=0.1),
    "granite_speech": lambda path: tiny_granite_speech.make_granite_speech(path, spread=0.1, window=6),
    "voxtral": lambda path: tiny_voxtral.make_voxtral(path, spread=0.1),
    "moonshine": lambda path: tiny_moonshine.make_moonshine(path, spread=0.1),
    "canary": lambda path: tiny_canary.make_canary(path, spread=0.15, subsampling=4),
    "parakeet_tdt": lambda path: tiny_parakeet.make_parakeet(path, spread=0.1, subsampling=4),
    **{kind: lambda path, kind=kind: tiny_ctc.make_ctc(path, kind) for kind in tiny_ctc.KINDS},
}


def test_every_family_is_among_them() -> None:
    from speechtune.models.family import FAMILIES

    classes = {FAMILIES[kind] for kind in MODELS if kind in FAMILIES} | {FAMILIES["ctc"]}
    assert classes == set(FAMILIES.values())


@pytest.mark.parametrize("kind", MODELS)
def test_twenty_utterances_are_learnt_to_zero_errors(kind: str, tmp_path: Path) -> None:
    """What is scored is generated text, not teacher forcing; the base model gets nearly everything wrong."""
    from speechtune.decoding.sources import open_model
    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    corpus = tiny_ctc.write_tones(tmp_path / "corpus", family_laws.CORPUS)
    base = MODELS[kind](tmp_path / "base")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(corpus=corpus, base=base))
    run = tmp_path / "run"
    train(load_recipe(tmp_path / "recipe.yaml"), run)
    learnt = json.loads((run / "scores.json").read_text())["comparisons"][0]
    assert learnt["wer_after"] == 0.0 and learnt["wer_before"] > 0.5
    losses = _losses(run)
    assert losses[-1] < 0.1 * losses[0]
    checks = json.loads((run / "preflight.json").read_text())["checks"]
    by_hand = set() if kind == "parakeet_tdt" else {"by hand"}  # a transducer has no logits for each label
    assert {"labels", "loss", "gradients", "decoding"} | by_hand <= set(checks)
    opened = open_model(str(run), language="en", context="fit")
    rng = np.random.default_rng(0)
    spoken = [tiny_ctc.spoken(text, rng) for text in family_laws.CORPUS]  # the training audio
    frames = opened.family.context_frames(max(map(len, spoken)) / 16_000)
    assert [one.text for one in opened.family.generate(spoken, frames, 10)] == list(family_laws.CORPUS)


def _losses(run: Path) -> list[float]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]
