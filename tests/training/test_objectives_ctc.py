"""Objectives on CTC networks: logits by frame, clips padded in a batch, no 30 s window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import torch
from test_objectives import build, call, columns, gradients, log_softmax, nudge

from speechtune.core.errors import InputError
from speechtune.models.ctc import CtcFamily
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import Example, load_family

TEXTS = ("abba", "c", "bad cab")


@pytest.fixture(params=["wav2vec2-group", "parakeet"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> CtcFamily:
    kind = next(kind for kind in tiny_ctc.KINDS if kind.startswith(request.param))
    found = load_family(tiny_ctc.make_ctc(tmp_path / kind, kind), device="cpu")
    assert isinstance(found, CtcFamily)
    found.prepare(CtcConfig(), TEXTS, 0)
    found.model.eval()
    return found


@pytest.fixture
def examples(family: CtcFamily) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tiny_ctc.spoken(text, rng), *family.tokens(text)) for text in TEXTS]


def test_kl_is_a_mean_over_each_clips_own_frames_weighed_by_its_labels(
    family: Any, examples: list[Example], tmp_path: Path
) -> None:
    objectives = build(family, tmp_path, kl={"weight": 1.0})
    start = [family.log_probs([one.waveform])[0][0].double().numpy() for one in examples]
    batch = family.collate(examples, 0)
    loss = objectives.loss(call(family.model, batch))
    assert columns(objectives)["kl"] == pytest.approx(0, abs=1e-6)
    loss.backward()
    nudge(family.model, size=0.05)
    total = 0.0
    for example, old in zip(examples, start, strict=True):
        frames = family.logit_frames(len(example.waveform))
        base = log_softmax(old)[:frames]
        own = log_softmax(family.log_probs([example.waveform])[0][0].double().numpy())[:frames]
        total += len(example.tokens) * float((np.exp(base) * (base - own)).sum(-1).mean())
    objectives.loss(call(family.model, batch))
    wanted = total / sum(len(one.tokens) for one in examples)
    assert wanted > 1e-4
    assert columns(objectives)["kl"] == pytest.approx(wanted, rel=5e-3)


def test_the_split_into_micro_batches_does_not_matter(family: Any, examples: list[Example], tmp_path: Path) -> None:
    objectives = build(family, tmp_path, kl={"weight": 2.0}, l2sp={"weight": 0.3})
    nudge(family.model, size=0.05)
    found = []
    for parts in ([examples], [[one] for one in examples]):
        family.model.zero_grad(set_to_none=True)
        batches = [family.collate(part, 0) for part in parts]
        items = sum((batch["labels"] != -100).sum() for batch in batches)
        loss = 0.0
        for batch in batches:
            one = objectives.loss(call(family.model, batch, items))
            one.backward()
            loss += float(one)
        found.append((loss, gradients(family.model)))
    (whole, grads), (parts_loss, parts_grads) = found
    assert parts_loss == pytest.approx(whole, rel=1e-3)
    for name, grad in grads.items():
        torch.testing.assert_close(parts_grads[name], grad, rtol=2e-2, atol=2e-3)


def test_what_needs_a_window_is_refused_in_a_sentence(family: Any, tmp_path: Path) -> None:
    for terms, words in (
        ({"acft": {"weight": 1.0, "parts": ["encoder"]}}, "no full window"),
        ({"layer_drop": {"encoder": 0.1}}, "model.ctc.layerdrop"),
        ({"encoder_masks": {"time_masks": 1}}, "spec_augment"),
    ):
        with pytest.raises(InputError, match=words):
            build(family, tmp_path, **terms)
