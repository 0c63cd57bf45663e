"""Two changed waveforms of a clip, labels of another column, and changes by source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import torch
from test_ctc_terms import TEXTS, made
from test_objectives import build, call, columns
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.ctc_loading import SECOND_HEAD
from speechtune.models.family import Example, load_family
from speechtune.training.asides import LABELS, VIEW, Asides, Twofold, apart, asides_for, collate
from speechtune.training.augment_by import augment_of
from speechtune.training.batch_finder import cut
from speechtune.training.config import TrainingConfig
from speechtune.training.data import Collator, Pick, TrainingSet, augment_for
from speechtune.training.pool import Pool, PoolPart, training_pool
from speechtune.training.recipe import load_recipe
from speechtune.training.run import train

NOISE = {"effects": [{"kind": "noise", "snr_db": [10, 10], "sources": ["white"]}]}
OTHERS = ("xy", "", "zx y")


def test_the_second_view_is_the_same_clip_changed_by_draws_of_its_own(tiny_model: Path, tiny_corpus: Path) -> None:
    family, corpus = load_family(tiny_model), Corpus.load(tiny_corpus)
    config = TrainingConfig.model_validate(
        {"augment": NOISE, "objectives": {"consistency": {"weight": 1.0, "waveforms": True}}}
    )
    augment = augment_for(config, corpus, family.limits.max_audio_s)
    asides = asides_for(config, corpus.utterances, family)
    settings = DataConfig(corpus=str(corpus.root))
    data = TrainingSet(corpus, corpus.utterances, family, settings, augment=augment, asides=asides)
    plain = TrainingSet(corpus, corpus.utterances, family, settings, augment=augment)
    clean = TrainingSet(corpus, corpus.utterances, family, settings)
    picks = [Pick(number, 2.0, 1.0, epoch=1, place=number) for number in range(3)]
    items = [data[pick] for pick in picks]
    for (found, _), pick in zip(items, picks, strict=True):
        assert isinstance(found, Twofold) and found.second is not None
        assert np.array_equal(found.waveform, plain[pick][0].waveform)  # the first view is what it was
        first, second = (one.waveform - clean[pick][0].waveform for one in (found, found.second))
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.1 and first.std() == pytest.approx(second.std(), rel=0.1)
    assert np.array_equal(items[0][0].second.waveform, data[picks[0]][0].second.waveform)  # type: ignore[attr-defined]
    batch = Collator(family, asides=True)(items)
    own, view, labels = apart(batch)
    assert labels is None and set(view) == set(own)
    alone = Collator(family)([(one.second, seconds) for one, seconds in items])  # type: ignore[attr-defined,misc]
    assert torch.equal(view["input_features"], alone["input_features"])
    assert torch.equal(own["input_features"], Collator(family)(items)["input_features"])
    halves = cut(batch, batch["input_features"].numel() * 0.7)
    assert [len(half[VIEW + "labels"]) for half in halves] == [len(half["labels"]) for half in halves] == [2, 1]


def test_consistency_of_two_waveforms_is_the_symmetric_kl_between_them(tiny_model: Path, tmp_path: Path) -> None:
    """Against log-probabilities of two batches that were never in one."""
    family: Any = load_family(tiny_model, device="cpu")
    rng = np.random.default_rng(0)
    waves = [[rng.normal(0, 0.1, 8_000).astype(np.float32) for _ in TEXTS] for _ in range(2)]
    views = [
        [Example(wave, *family.tokens(text)) for wave, text in zip(own, ("the thing", "sing", "a"), strict=True)]
        for own in waves
    ]
    pairs = [Twofold(*_fields(one), second=two) for one, two in zip(*views, strict=True)]
    objectives = build(family, tmp_path, consistency={"weight": 1.0, "waveforms": True})
    batch = collate(family, pairs, 60)
    loss = objectives.loss(call(family.model, batch))
    found = columns(objectives)
    log_probs = []
    for own in views:
        alone = family.collate(own, 60)
        labels = alone.pop("labels")
        with torch.no_grad():
            log_probs.append(family.model(**alone).logits[labels != -100].log_softmax(-1).double())
    one, two = log_probs
    wanted = 0.5 * ((one.exp() - two.exp()) * (one - two)).sum(-1).mean()
    assert float(wanted) > 1e-5 and found["consistency"] == pytest.approx(float(wanted), rel=1e-3)
    picked = [log.gather(1, labels[labels != -100][:, None]).mean() for log in log_probs]
    assert found["label_loss"] == pytest.approx(-float(sum(picked)) / 2, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(found["label_loss"] + found["consistency"], rel=1e-4)


def _fields(one: Example) -> tuple[Any, ...]:
    return one.waveform, one.tokens, one.prompt_tokens, one.masks, one.inputs, one.targets


def test_the_second_head_learns_another_columns_texts_and_passes_over_clips_without(tmp_path: Path) -> None:
    family = made("wav2vec2-layer", tmp_path)
    family.add_second_head("characters", 16, ["xy", "zx y"], 0, own=False)
    family.model.eval()
    objectives = build(family, tmp_path, second_ctc={"weight": 0.3, "units": "characters", "column": "phones"})
    assert family.second is not None
    rng = np.random.default_rng(0)
    items = [
        Twofold(
            *_fields(Example(tiny_ctc.spoken(text, rng), *family.tokens(text))),
            other=list(family.second.encode(other)) if other else [],
        )
        for text, other in zip(TEXTS, OTHERS, strict=True)
    ]
    batch = collate(family, items, 0)
    assert [family.second.decode(row[row != -100].tolist()) for row in batch[LABELS]] == list(OTHERS)
    objectives.loss(call(family.model, batch))
    head: Any = family.model.get_submodule(SECOND_HEAD)
    expected = 0.0
    for item in items:
        if item.other:
            one, model = family.collate([item], 0), family.model
            hidden = model.wav2vec2(one["input_values"], attention_mask=one["attention_mask"]).last_hidden_state[0]  # type: ignore[operator,union-attr]
            log_probs, target = head(hidden).log_softmax(-1)[:, None], torch.tensor([item.other])
            lengths = torch.tensor([len(log_probs)]), torch.tensor([len(item.other)])
            blank = family.second.blank
            expected += float(functional.ctc_loss(log_probs, target, *lengths, blank=blank, reduction="sum"))
    labels = sum(len(item.tokens) for item in items)
    assert columns(objectives)["second_ctc"] == pytest.approx(expected / labels, rel=1e-5)
    batch[LABELS].fill_(-100)
    objectives.loss(call(family.model, batch))
    assert columns(objectives)["second_ctc"] == 0.0


def test_columns_and_changes_that_are_not_there_are_one_sentence(tiny_model: Path, tiny_corpus: Path) -> None:
    family, rows = load_family(tiny_model), Corpus.load(tiny_corpus).utterances
    column = TrainingConfig.model_validate({"objectives": {"second_ctc": {"weight": 1.0, "column": "ipa"}}})
    with pytest.raises(InputError, match="no training utterance has a text in 'ipa'"):
        asides_for(column, rows, family)
    views = {"consistency": {"weight": 1.0, "waveforms": True}}
    with pytest.raises(InputError, match=r"training\.augment changes none"):
        asides_for(TrainingConfig.model_validate({"objectives": views}), rows, family)
    with pytest.raises(ValueError, match="see one view"):
        TrainingConfig.model_validate({"objectives": {**views, "kl": {"weight": 1.0}}})
    assert asides_for(TrainingConfig(), rows, family) is None
    assert Asides(family).column is None


def test_a_run_with_two_views_and_another_column_shows_both_terms(
    write_recipe: Callable[..., Path], tiny_corpus: Path, tmp_path: Path
) -> None:
    """A CTC model on the tones; every utterance's second text is its first backwards."""
    whole = Corpus.load(tiny_corpus)
    for one in whole.utterances:
        one.file_name = str(whole.path_of(one).resolve())
        one.extra = {**one.extra, "backwards": one.text[::-1]}
    Corpus(tmp_path / "corpus", whole.utterances, whole.card).save()
    second = {"weight": 0.3, "units": "characters", "column": "backwards"}
    path = write_recipe(
        data={"corpus": str(tmp_path / "corpus"), "case": "lower"},
        model={"base": str(tiny_ctc.make_ctc(tmp_path / "ctc", "wav2vec2-layer")), "ctc": {"head": "new"}},
        training={
            "epochs": 1,
            "augment": NOISE,
            "objectives": {"consistency": {"weight": 0.2, "waveforms": True}, "second_ctc": second},
            "monitor": {"enabled": False},
        },
        evaluation={"contexts": ["fit"], "baseline_contexts": ["fit"], "scoring": {"resamples": 10}},
    )
    train(load_recipe(path), tmp_path / "run")
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert rows and all(row["consistency"] > 0 and row["second_ctc"] > 0 for row in rows)


def pool_of(corpus: Corpus, parts: list[list[Utterance]]) -> Pool:
    named = [PoolPart(name, corpus, rows, 1.0, None, "") for name, rows in zip(("read", "made"), parts, strict=False)]
    return Pool(corpus, [row for rows in parts for row in rows], {}, parts=named)


def test_each_source_has_the_changes_of_its_own_block(tiny_model: Path, tiny_corpus: Path) -> None:
    """What a source gets is, sample for sample, what a recipe with its block alone would give it."""
    corpus = Corpus.load(tiny_corpus)
    rows = [replace(row, split=None) for row in corpus.utterances]
    pool = pool_of(corpus, [rows[:8], rows[8:]])
    louder = {"effects": [{"kind": "gain", "gain_db": [6, 6]}]}
    config = TrainingConfig.model_validate({"augment": NOISE, "augment_by": {"values": {"made": louder}}})
    found = augment_of(config, pool, pool.utterances, 3.0)
    alone = {
        "read": augment_for(TrainingConfig.model_validate({"augment": NOISE}), corpus, 3.0),
        "made": augment_for(TrainingConfig.model_validate({"augment": louder}), corpus, 3.0),
    }
    assert found is not None
    tone = (0.1 * np.sin(np.arange(8000) / 5)).astype(np.float32)
    for name, own in zip(("read", "made"), (rows[:8], rows[8:]), strict=True):
        for row in own:
            wanted = alone[name]
            assert wanted is not None
            assert np.array_equal(found(row, 2, 5)(tone), wanted(row, 2, 5)(tone))
            if name == "made":
                assert np.allclose(found(row, 2, 5)(tone), tone * 10**0.3, rtol=1e-3)
    untouched = TrainingConfig.model_validate({"augment": NOISE, "augment_by": {"values": {"read": {}}}})
    found = augment_of(untouched, pool, pool.utterances, 3.0)
    assert found is not None and np.array_equal(found(rows[0], 0, 0)(tone), tone)
    assert not np.array_equal(found(rows[-1], 0, 0)(tone), tone)


def test_a_source_that_is_not_there_is_named_with_those_that_are(tiny_model: Path, tiny_corpus: Path) -> None:
    """The third winner's masks were keyed by sources that no row had, and never ran."""
    corpus = Corpus.load(tiny_corpus)
    pool = training_pool(corpus, load_family(tiny_model), DataConfig(corpus=str(tiny_corpus)))
    for given, says in (
        ({"values": {"talkbank": NOISE}}, f"of 'talkbank' .there are {corpus.root.resolve().name}."),
        ({"column": "speaker_id", "values": {"s9": NOISE}}, "of 's9' .there are s0, s1"),
        ({"column": "speaker_id"}, "stands alone"),
    ):
        config = TrainingConfig.model_validate({"augment_by": given})
        with pytest.raises(InputError, match=says):
            augment_of(config, pool, pool.utterances, 3.0)
    column = TrainingConfig.model_validate({"augment_by": {"column": "speaker_id", "values": {"s1": NOISE}}})
    found = augment_of(column, pool, pool.utterances, 3.0)
    tone = np.full(4000, 0.1, dtype=np.float32)
    assert found is not None
    changed = {row.speaker_id for row in pool.utterances if not np.array_equal(found(row, 0, 0)(tone), tone)}
    assert changed == {"s1"}
