"""One recipe file trains every family: only the line ``model:`` changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_canary
import tiny_ctc
import tiny_granite_speech
import tiny_parakeet
import tiny_qwen3_asr
from tiny_whisper import make_transformers

RECIPE = """\
data: {{corpus: {corpus}}}
model: {{base: {base}, language: en}}
training:
  epochs: 12
  learning_rate: 3.0e-3
  schedule: constant
  warmup_steps: 5
  batch: {{effective: 12}}
  audio_context: {{jitter_s: 0.0, full_share: 0.0}}
  evaluations_per_epoch: 1
  trackers: []
  monitor: {{enabled: false}}
decoding: {{max_new_tokens: 24}}
evaluation: {{contexts: [fit], scoring: {{resamples: 20}}}}
"""
"""Everything but ``base`` is the same for all."""

TEXTS = tiny_ctc.TEXTS[:6]


def _make(kind: str, directory: Path) -> Path:
    if kind == "whisper":
        make_transformers(directory, multilingual=False, positions=150, text_positions=64)
        return directory
    if kind == "qwen3_asr":
        return tiny_qwen3_asr.make_qwen3_asr(directory, spread=0.05)
    if kind == "moonshine":
        tiny_moonshine = pytest.importorskip("tiny_moonshine", reason="Moonshine's tiny model is not here")
        return tiny_moonshine.make_moonshine(directory)
    if kind == "canary":
        return tiny_canary.make_canary(directory, spread=0.15, subsampling=4)
    if kind == "parakeet_tdt":
        return tiny_parakeet.make_parakeet(directory, spread=0.1, subsampling=4)
    if kind == "granite_speech":
        return tiny_granite_speech.make_granite_speech(directory, spread=0.1, window=6)
    return tiny_ctc.make_ctc(directory, kind)


MORE = ("canary", "parakeet_tdt", "granite_speech")


@pytest.mark.parametrize("kind", ["whisper", "qwen3_asr", "moonshine", *MORE, *tiny_ctc.KINDS])
def test_the_recipe_lowers_the_loss_of_every_family(kind: str, tmp_path: Path) -> None:
    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    corpus = tiny_ctc.write_tones(tmp_path / "corpus", TEXTS)
    base = _make(kind, tmp_path / "base")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(corpus=corpus, base=base))
    train(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    losses = _losses(tmp_path / "run")
    assert losses[-1] < 0.8 * losses[0]
    checks = json.loads((tmp_path / "run" / "preflight.json").read_text())["checks"]
    by_hand = set() if kind == "parakeet_tdt" else {"by hand"}  # a transducer has no logits for each label
    assert {"labels", "loss", "gradients", "decoding"} | by_hand <= set(checks)


def _losses(run: Path) -> list[float]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]
