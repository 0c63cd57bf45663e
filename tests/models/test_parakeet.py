"""Parakeet's transducers against a sum over all paths and Transformers' own classes, and what a TDT model learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import family_laws
import numpy as np
import pytest
import tiny_parakeet
import torch
from family_laws import TEXTS, clips, examples

from speechtune.core.errors import InputError
from speechtune.models import parakeet_network
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import load_family
from speechtune.models.parakeet import ParakeetFamily
from speechtune.models.parakeet_network import lattice_chunks

Load = Callable[..., ParakeetFamily]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_parakeet.make_parakeet(tmp_path_factory.mktemp("parakeet") / "model", spread=0.1)


@pytest.fixture
def load(directory: Path) -> Load:
    def loaded(path: Path | None = None) -> ParakeetFamily:
        family = load_family(path or directory, language="en", device="cpu")
        assert isinstance(family, ParakeetFamily)
        return family

    return loaded


def plain(path: Path) -> tuple[Any, Any]:
    from transformers import AutoProcessor, ParakeetForTDT

    model = ParakeetForTDT.from_pretrained(path, dtype=torch.float32).eval()
    model.generation_config.decoder_start_token_id = model.config.blank_token_id
    return model, AutoProcessor.from_pretrained(path)


def log_likelihood(model: Any, processor: Any, clip: np.ndarray, tokens: list[int]) -> float:
    """Of a clip alone in the plain class: the sum over all paths, written as the recursion of the paper."""
    config = model.config
    given = processor(clip, sampling_rate=16_000)
    with torch.no_grad():
        output = model(**given, decoder_input_ids=torch.tensor([[config.blank_token_id, *tokens]]))
    scores = output.logits[0].double()
    names, steps = scores[..., : config.vocab_size].log_softmax(-1), scores[..., config.vocab_size :].log_softmax(-1)
    frames = len(scores)

    @cache
    def from_here(frame: int, written: int) -> float:
        ways = []
        for place, duration in enumerate(config.durations):
            step, there = float(steps[frame, written, place]), frame + duration
            blank = float(names[frame, written, config.blank_token_id]) + step
            if duration and there == frames and written == len(tokens):
                ways.append(blank)
            elif duration and there < frames:
                ways.append(blank + from_here(there, written))
            if written < len(tokens) and there < frames:
                ways.append(float(names[frame, written, tokens[written]]) + step + from_here(there, written + 1))
        best = max(ways, default=-math.inf)
        return best if best == -math.inf else best + math.log(sum(math.exp(one - best) for one in ways))

    return from_here(0, 0)


def test_the_loss_is_the_sum_over_all_paths_of_each_clip_alone(directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    pairs = [(clip, family.tokens(text)[0]) for text, clip in zip(TEXTS, clips(), strict=True)]
    total = -sum(log_likelihood(model, processor, *pair) for pair in pairs)
    count = sum(len(tokens) for _, tokens in pairs)
    with torch.no_grad():
        batch = family.collate(examples(family), 0)
        assert float(family.model(**batch).loss) == pytest.approx(total / count, rel=1e-4)
        assert float(family.model(**batch, num_items_in_batch=7).loss) == pytest.approx(total / 7, rel=1e-4)
    assert sum(map(family.loss_alone, examples(family))) == pytest.approx(total, rel=1e-4)


def test_batches_accumulation_and_the_bound_on_memory_change_nothing(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load()
    family_laws.check_that_batches_change_nothing(family)
    items = examples(family)
    whole, gradients = family_laws.loss_and_gradients(family, [items], 9)
    monkeypatch.setattr(parakeet_network, "_LATTICE", 1)  # every clip by itself, computed again in the backward pass
    alone, own = family_laws.loss_and_gradients(family, [items], 9)
    assert alone == pytest.approx(whole, rel=1e-5)
    scale = max(float(one.abs().max()) for one in gradients)
    assert max(float((a - b).abs().max()) for a, b in zip(own, gradients, strict=True)) < 1e-4 * scale


def test_chunks_keep_the_order_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parakeet_network, "_LATTICE", 100)
    assert lattice_chunks([5, 5, 9, 1], [1, 1, 1, 0], 5) == [[0, 1], [2], [3]]
    assert lattice_chunks([50], [9], 5) == [[0]]


def test_labels_read_back_with_doubled_letters_and_what_cannot_be_written_is_said(load: Load) -> None:
    family = load()
    for text in ("aab bba", "cc"):
        assert family.text(family.tokens(text)[0]) == text
    assert family.tokenizer.decode(family.tokens("cc")[0]) != "cc"  # the tokenizer's own merges neighbours
    with pytest.raises(InputError, match="lacks 2 characters of the training texts"):
        family.prepare(CtcConfig(), ["ab zz"], 0)
    with pytest.raises(InputError, match="CTC models only"):
        family.prepare(CtcConfig(head="new"), ["ab"], 0)
    assert family.refusal(1.0, []) is not None


def test_generation_is_the_librarys_own_and_a_batch_changes_nothing(directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    together = family.generate(clips(), 0, 40)
    assert len({tuple(one.tokens) for one in together}) > 1
    for clip, ours in zip(clips(), together, strict=True):
        theirs = model.generate(**processor(clip, sampling_rate=16_000), max_new_tokens=200)
        kept = [token for token in theirs.sequences[0].tolist() if token != family.blank]
        assert ours.tokens == kept[:40] and ours.truncated == (len(kept) > 40)
        assert ours.token_log_probs is not None and len(ours.token_log_probs) == len(ours.tokens)
    with pytest.raises(InputError, match="greedily"):
        family.generate(clips()[:1], 0, 8, 2)


def test_scores_of_durations_are_never_taken_for_tokens(tmp_path: Path, load: Load) -> None:
    family = load()
    model: Any = family.model
    with torch.no_grad():
        model.joint.head.bias[family.config.vocab_size :] += 100
    ours = family.generate(clips(), 0, 40)
    assert all(token < family.config.vocab_size for one in ours for token in one.tokens)
    family.save(tmp_path / "saved")
    again, processor = plain(tmp_path / "saved")
    given = processor(clips()[0], sampling_rate=16_000)
    found = again.generate(**given, max_new_tokens=200).sequences[0].tolist()
    assert [token for token in found if token != family.blank] == ours[0].tokens
    again.generation_config.suppress_tokens = None
    with pytest.raises(IndexError):
        again.generate(**given, max_new_tokens=200)


def test_batches_do_not_change_the_statistics_of_normalisation(load: Load) -> None:
    family_laws.check_that_statistics_stay(load())


def test_parts_cover_every_weight_and_what_is_frozen_stays(load: Load) -> None:
    family = load()
    family_laws.check_parts(family, ["joint.head.weight", "joint.head.bias"])
    with pytest.raises(InputError, match="no part 'tail'"):
        family.part("tail")
    with pytest.raises(InputError, match="label smoothing"):
        family.regularise(None, 0.1)


@pytest.mark.parametrize(("targets", "count"), [(["attention"], 8), (["encoder_mlp"], 8), (["projector", "joint"], 3)])
def test_adapters_by_role_merge_into_the_model(targets: list[str], count: int, load: Load) -> None:
    family_laws.check_adapters(load(), targets, count)


def test_what_is_saved_loads_in_plain_transformers_with_the_same_logits(tmp_path: Path, load: Load) -> None:
    family = load()
    with torch.no_grad():
        for one in family.model.parameters():
            one.add_(0.01)
    family.save(tmp_path / "saved")
    model, processor = plain(tmp_path / "saved")
    given = processor(clips()[2], sampling_rate=16_000)
    tokens = torch.tensor([[family.blank, *family.tokens("abba")[0]]])
    with torch.no_grad():
        ours = family.model(**given, decoder_input_ids=tokens).logits
        assert torch.equal(model(**given, decoder_input_ids=tokens).logits, ours)
    assert processor.decoder_type == "tdt"


def test_an_rnnt_model_transcribes_and_says_why_it_cannot_be_trained(tmp_path: Path, load: Load) -> None:
    from transformers import AutoProcessor, ParakeetForRNNT

    path = tiny_parakeet.make_parakeet(tmp_path / "rnnt", "rnnt", spread=0.1)
    family = load(path)
    model = ParakeetForRNNT.from_pretrained(path).eval()
    model.generation_config.decoder_start_token_id = family.blank
    processor = AutoProcessor.from_pretrained(path)
    for clip, ours in zip(clips(), family.generate(clips(), 0, 40), strict=True):
        theirs = model.generate(**processor(clip, sampling_rate=16_000), max_new_tokens=200).sequences[0].tolist()
        assert ours.tokens == [token for token in theirs if token != family.blank][:40]
    with pytest.raises(InputError, match="cannot be fine-tuned here: its loss in Transformers is torchaudio's"):
        family.prepare(CtcConfig(), ["ab"], 0)


def test_the_commands_work(tmp_path: Path) -> None:
    base = tiny_parakeet.make_parakeet(tmp_path / "base", spread=0.1)
    family_laws.check_commands(base, tmp_path, "parakeet_tdt")
