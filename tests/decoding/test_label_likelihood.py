from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from speechtune.decoding.label_likelihood import label_likelihoods, written_forms
from speechtune.models.family import Example, Family, load_family

LABEL = "the thing"


@pytest.fixture(scope="module")
def family(tiny_model: Path) -> Family:
    loaded = load_family(tiny_model, device="cpu")
    loaded.model.eval()
    return loaded


def tones(count: int = 2) -> list[np.ndarray]:
    return [(0.3 * np.sin(np.arange(12_000) * (0.05 + 0.03 * one))).astype(np.float32) for one in range(count)]


def test_the_total_is_the_models_own_loss(family: Family) -> None:
    """Against the training loss, which is computed elsewhere: -loss x tokens of the best written form."""
    n_frames = family.context_frames(1.0)
    (found,) = label_likelihoods(family, tones(1), [[LABEL]], n_frames)[0]
    totals = []
    for form in written_forms(LABEL):
        tokens, prompt = family.tokens(form)
        batch = family.collate([Example(tones(1)[0], tokens, prompt)], n_frames)
        with torch.inference_mode():
            totals.append(-float(family.model(**batch).loss) * (len(tokens) - prompt))
    assert found is not None and found.total == pytest.approx(max(totals), rel=1e-4)
    assert found.mean == pytest.approx(found.total / found.tokens)


def test_neighbours_in_the_batch_change_nothing(family: Family) -> None:
    n_frames = family.context_frames(1.0)
    together = label_likelihoods(family, tones(2), [[LABEL, "go"], ["a ring in the inn"]], n_frames)
    alone = label_likelihoods(family, tones(2)[1:], [["a ring in the inn"]], n_frames)
    assert [len(one) for one in together] == [2, 1]
    assert together[1][0] is not None and alone[0][0] is not None
    assert together[1][0].total == pytest.approx(alone[0][0].total, rel=1e-4)


@pytest.mark.parametrize("name", ["moonshine", "canary"])
def test_encoder_decoders_with_a_mask_agree_with_their_loss_in_any_batch(name: str, tmp_path: Path) -> None:
    maker = importlib.import_module(f"tiny_{name}")
    loaded = load_family(getattr(maker, f"make_{name}")(tmp_path / name, spread=0.2), device="cpu", language="en")
    loaded.model.eval()
    waves = [tones(1)[0], np.tile(tones(2)[1], 3)]
    found = label_likelihoods(loaded, waves, [["bad cab", "c"], ["abba"]], 0)
    for wave, texts, own in zip(waves, (["bad cab", "c"], ["abba"]), found, strict=True):
        for text, one in zip(texts, own, strict=True):
            totals = []
            for form in written_forms(text):
                tokens, prompt = loaded.tokens(form)
                with torch.inference_mode():
                    loss = loaded.model(**loaded.collate([Example(wave, tokens, prompt)], 0)).loss
                totals.append(-float(loss) * (len(tokens) - prompt))
            assert one is not None and one.total == pytest.approx(max(totals), rel=1e-4)


def test_a_text_too_long_for_the_model_has_no_likelihood(family: Family) -> None:
    found = label_likelihoods(family, tones(1), [["x" * 200, LABEL]], family.context_frames(1.0))
    assert found[0][0] is None and found[0][1] is not None


def test_the_lowest_word_is_one_of_the_text_and_below_the_mean(family: Family) -> None:
    (found,) = label_likelihoods(family, tones(1), [["sing the king"]], family.context_frames(1.0))[0]
    assert found is not None and found.lowest_word_log_prob is not None
    assert found.lowest_word is not None and found.lowest_word.strip(".").lower() in ("sing", "the", "king")
    body = (found.total - found.end) / (found.tokens - 1)
    assert found.lowest_word_log_prob <= body + 1e-6


def test_written_forms_have_no_doubles() -> None:
    assert written_forms("WE CALL  IT") == ["WE CALL IT", "we call it", "We call it."]
    assert written_forms("We go?") == ["We go?", "we go?"]
    assert written_forms("") == [""]
