"""Attention dropout acts on attention alone, in training alone, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import tiny_qwen3_asr
import torch
from tiny_whisper import make_transformers

from speechtune.core.errors import InputError
from speechtune.models.attention_dropout import set_attention_dropout
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import Example, load_family

KINDS = ("whisper", "qwen3_asr", "wav2vec2-layer", "wavlm", "wav2vec2-bert", "parakeet")


def make(kind: str, directory: Path) -> Any:
    if kind == "whisper":
        make_transformers(directory, multilingual=False, positions=150, text_positions=64)
    elif kind == "qwen3_asr":
        tiny_qwen3_asr.make_qwen3_asr(directory, spread=0.3)
    else:
        tiny_ctc.make_ctc(directory, kind)
    family = load_family(directory, language="en" if kind == "qwen3_asr" else None, device="cpu")
    family.prepare(CtcConfig(), ["abba"], 0)
    for module in family.model.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(module.__dict__.get(name), float):
                setattr(module, name, 0.0)
    family.model.config.apply_spec_augment = False  # type: ignore[union-attr]
    return family


@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_in_training_and_is_not_saved(kind: str, tmp_path: Path) -> None:
    family = make(kind, tmp_path / "model")
    waveform = np.random.default_rng(0).normal(0, 0.1, 12_000).astype(np.float32)
    batch = family.collate([Example(waveform, *family.tokens("abba"))], family.context_frames(1.0))

    def losses(training: bool) -> set[float]:
        family.model.train(training)
        with torch.no_grad():
            return {round(float(family.model(**batch).loss), 6) for _ in range(4)}

    plain = losses(True)
    assert len(plain) == 1
    attentions = set_attention_dropout(family.model, 0.5)
    assert attentions >= 2
    assert len(losses(True)) == 4
    assert losses(False) == plain
    set_attention_dropout(family.model, 0.0)
    assert losses(True) == plain


def test_a_model_without_is_refused() -> None:
    with pytest.raises(InputError, match="attention has no dropout to set"):
        set_attention_dropout(torch.nn.Linear(2, 2), 0.1)
