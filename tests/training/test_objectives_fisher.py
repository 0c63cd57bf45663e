"""The Fisher information is the mean of per-example squared gradients, and EWC holds weights by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.models.family import Example, Family, load_family
from speechtune.models.observe import taps_of
from speechtune.training.objectives import fisher
from speechtune.training.objectives.config import EwcConfig
from speechtune.training.objectives.fisher import estimate_fisher, log_likelihood_gradient


@pytest.fixture
def family(tiny_model: Path) -> Family:
    found = load_family(tiny_model, device="cpu")
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(0.5)
    return found


def weights_of(family: Family) -> dict[str, torch.nn.Parameter]:
    return {name: one for name, one in family.model.named_parameters() if one.requires_grad}


def test_it_equals_per_example_squared_gradients_of_autograd(family: Family, tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = Corpus.load(tiny_corpus).split("dev")
    config = EwcConfig(weight=1.0, corpus=str(tiny_corpus), split="dev", utterances=100, labels="given")
    found = estimate_fisher(family, weights_of(family), config, tmp_path, 0)
    sums = {name: torch.zeros_like(one) for name, one in weights_of(family).items()}
    for utterance in corpus:
        waveform = load_audio(corpus.path_of(utterance))
        tokens, prompt = family.tokens(utterance.text)
        batch = family.collate([Example(waveform, tokens, prompt)], family.context_frames(1.0, "full"))
        family.model.zero_grad()
        logits = (
            family.model(input_features=batch["input_features"], decoder_input_ids=torch.tensor([tokens[:-1]]))
            .logits[0]
            .log_softmax(-1)
        )
        (-sum(logits[place - 1, tokens[place]] for place in range(prompt, len(tokens)))).backward()
        for name, one in weights_of(family).items():
            assert one.grad is not None
            sums[name] += one.grad**2
    assert len(corpus.utterances) == 4
    for name, value in found.items():
        torch.testing.assert_close(value, sums[name] / 4, rtol=1e-3, atol=1e-6)
    mean_of_batch = sum(float(value.sum()) for value in found.values())
    assert mean_of_batch > 0


def test_drawn_labels_give_gradients_of_mean_zero(family: Family, tiny_corpus: Path) -> None:
    """The expected score is zero under the model's own distribution, and only under it."""
    corpus = Corpus.load(tiny_corpus).split("dev")
    utterance = corpus.utterances[0]
    batch = family.collate(
        [Example(load_audio(corpus.path_of(utterance)), *family.tokens(utterance.text))],
        family.context_frames(3, "full"),
    )
    name = "model.decoder.layer_norm.bias"
    weights, taps = {name: weights_of(family)[name]}, taps_of(family, "a test")
    family.model.eval()
    draws = 300
    scores = torch.stack(
        [
            log_likelihood_gradient(family, weights, batch, taps, torch.Generator().manual_seed(seed))[name]
            for seed in range(draws)
        ]
    )
    error = scores.mean(0).norm() / (scores.var(0).sum() / draws).sqrt()
    given = log_likelihood_gradient(family, weights, batch)[name].norm() / (scores.var(0).sum() / draws).sqrt()
    assert error < 2
    assert given > 5


def test_an_interrupted_estimate_continues_to_the_same_bits(
    family: Family, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EwcConfig(weight=1.0, corpus=str(tiny_corpus), utterances=7)
    weights = weights_of(family)
    whole = estimate_fisher(family, weights, config, tmp_path / "whole", 5)
    monkeypatch.setattr(fisher, "SAVE_EVERY", 2)
    real, calls = fisher.log_likelihood_gradient, []

    def dies(*args: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(fisher, "log_likelihood_gradient", dies)
    with pytest.raises(KeyboardInterrupt):
        estimate_fisher(family, weights, config, tmp_path / "parts", 5)
    again = estimate_fisher(family, weights, config, tmp_path / "parts", 5)
    assert len(calls) == 6 + 3  # four were kept
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    estimate_fisher(family, weights, config, tmp_path / "parts", 5)
    assert len(calls) == 9
    assert not family.model.training
    with torch.no_grad():
        weights["model.encoder.conv1.bias"].add_(1.0)
    changed = estimate_fisher(family, weights, config, tmp_path / "parts", 5)
    assert len(calls) == 16  # other weights have another Fisher information
    assert not torch.equal(changed["model.encoder.conv1.weight"], whole["model.encoder.conv1.weight"])


def test_ewc_is_the_fisher_weighted_distance(family: Family, tiny_corpus: Path, tmp_path: Path) -> None:
    from speechtune.training.config import TrainingConfig
    from speechtune.training.objectives.combine import objectives_for

    terms = {"weight": 2.0, "corpus": str(tiny_corpus), "split": "dev", "labels": "given"}
    objectives = objectives_for(TrainingConfig(objectives={"ewc": terms}), family, family.model, tmp_path)
    assert objectives is not None
    config = EwcConfig(weight=2.0, corpus=str(tiny_corpus), split="dev", labels="given")
    information = estimate_fisher(family, weights_of(family), config, tmp_path / "again", 0)
    rng, wanted = np.random.default_rng(0), 0.0
    with torch.no_grad():
        for name, one in weights_of(family).items():
            move = rng.normal(0, 0.1, tuple(one.shape)).astype(np.float32)
            one.add_(torch.from_numpy(move))
            wanted += 0.5 * float((information[name].double().numpy() * move.astype(np.float64) ** 2).sum())
    value = objectives.terms[0](None)  # type: ignore[arg-type]
    assert float(value) == pytest.approx(wanted, rel=1e-3)


def test_a_proxy_without_usable_text_is_refused(family: Family, tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    for one in corpus.utterances:
        one.text = " "
    empty = Corpus(tmp_path / "empty", corpus.utterances)
    (tmp_path / "empty").mkdir()
    empty.save()
    config = EwcConfig(weight=1.0, corpus=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no transcribed utterance"):
        estimate_fisher(family, weights_of(family), config, tmp_path, 0)
