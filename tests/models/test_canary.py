"""Canary against Transformers' own class and processor, one clip at a time, and what it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import family_laws
import pytest
import tiny_canary
import torch
from family_laws import TEXTS, clips, examples
from torch.nn import functional

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.canary import CanaryFamily
from speechtune.models.family import Example, load_family

Load = Callable[..., CanaryFamily]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_canary.make_canary(tmp_path_factory.mktemp("canary") / "model", spread=0.2, subsampling=4)


@pytest.fixture
def load(directory: Path) -> Load:
    def loaded(path: Path | None = None, language: str | None = "en") -> CanaryFamily:
        family = load_family(path or directory, language=language, device="cpu")
        assert isinstance(family, CanaryFamily)
        return family

    return loaded


def plain(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    model = AutoModelForSpeechSeq2Seq.from_pretrained(path, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(path)


def test_the_prompt_is_the_librarys_own_at_inference_and_only_text_and_end_are_learnt(
    directory: Path, load: Load
) -> None:
    _, processor = plain(directory)
    for language in ("en", "de"):
        family = load(language=language)
        given = processor.apply_transcription_request(clips()[0], source_language=language)
        assert family.prompt == given["decoder_input_ids"][0].tolist()
    batch = family.collate(examples(family), 0)
    for row, text in enumerate(TEXTS):
        learnt = batch["labels"][row][batch["labels"][row] != -100].tolist()
        assert family.tokenizer.decode(learnt) == f"{text}<|endoftext|>" and family.text(learnt) == text
        fed = batch["decoder_input_ids"][row, : len(family.prompt) + len(learnt) - 1].tolist()
        assert fed == [*family.prompt, *learnt[:-1]]


def test_a_language_is_needed_and_must_be_known(load: Load) -> None:
    with pytest.raises(InputError, match="needs a language"):
        load(language=None).tokens("ab")
    for language in ("xx", "fr"):  # one that Canary does not have, and one that this tokenizer has no token for
        with pytest.raises(InputError, match=f"language '{language}'"):
            load(language=language)


def test_the_loss_is_that_of_each_clip_alone_in_the_plain_class(directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    total, count = 0.0, 0
    for text, clip in zip(TEXTS, clips(), strict=True):
        given = processor.apply_transcription_request(clip, source_language="en")
        answer = [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]
        fed = torch.cat([given["decoder_input_ids"], torch.tensor([answer[:-1]])], 1)
        with torch.no_grad():
            logits = model(**{**given, "decoder_input_ids": fed}).logits[0, -len(answer) :]
        total += float(functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        count += len(answer)
    with torch.no_grad():
        batch = family.collate(examples(family), 0)
        assert float(family.model(**batch).loss) == pytest.approx(total / count, rel=1e-5)
        assert float(family.model(**batch, num_items_in_batch=7).loss) == pytest.approx(total / 7, rel=1e-5)


def test_batches_and_accumulation_change_neither_loss_nor_gradient(load: Load) -> None:
    family_laws.check_that_batches_change_nothing(load())


def test_masks_blank_out_the_features_of_the_clip(load: Load) -> None:
    family = load()
    clip = clips((1.5,))[0]
    masks = MaskDraw(time=((10, 20),), bins=((3, 2),))
    masked = family.collate([Example(clip, *family.tokens("ab"), masks=masks)], 0)["input_features"][0]
    assert not masked[10:30].any() and not masked[:, 3:5].any() and masked[30:, 5:].any()


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_librarys_own(beams: int, directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    together = family.generate(clips(), 0, 8, beams)
    assert len({tuple(one.tokens) for one in together}) > 1
    for clip, ours in zip(clips(), together, strict=True):
        given = processor.apply_transcription_request(clip, source_language="en")
        theirs = model.generate(**given, max_new_tokens=8, num_beams=beams, do_sample=False)[0].tolist()
        body = [token for token in theirs[len(family.prompt) :] if token != family.end]
        assert ours.tokens == body and ours.truncated == (len(body) == 8)


def test_batches_do_not_change_the_statistics_of_normalisation(load: Load) -> None:
    family_laws.check_that_statistics_stay(load())


def test_parts_cover_every_weight_and_what_is_frozen_stays(load: Load) -> None:
    family_laws.check_parts(load(), ["model.decoder.embed_tokens.weight", "proj_out.bias"])


@pytest.mark.parametrize(
    ("targets", "count"), [(["attention"], 24), (["mlp"], 12), (["encoder_mlp", "cross_attention"], 16)]
)
def test_adapters_by_role_merge_into_the_model(targets: list[str], count: int, load: Load) -> None:
    family_laws.check_adapters(load(), targets, count)


def test_dropout_acts_in_training_only(load: Load) -> None:
    family = load()
    batch = family.collate(examples(family), 0)
    with torch.no_grad():
        expected = float(family.model(**batch).loss)
        family.regularise(0.3, 0.0)
        family.model.train()
        assert float(family.model(**batch).loss) != float(family.model(**batch).loss)
        family.model.eval()
        assert float(family.model(**batch).loss) == pytest.approx(expected, rel=1e-6)


def test_what_is_saved_loads_in_plain_transformers_with_the_same_logits(tmp_path: Path, load: Load) -> None:
    family = load()
    with torch.no_grad():
        for one in family.model.parameters():
            one.add_(0.01)
    family.save(tmp_path / "saved")
    model, processor = plain(tmp_path / "saved")
    given = processor.apply_transcription_request(clips()[2], source_language="en")
    with torch.no_grad():
        assert torch.equal(model(**given).logits, family.model(**given).logits)
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert stored["architectures"] == ["CanaryForConditionalGeneration"]
    assert load(tmp_path / "saved").prompt == family.prompt


def test_the_commands_work(tmp_path: Path) -> None:
    base = tiny_canary.make_canary(tmp_path / "base", spread=0.1)
    family_laws.check_commands(base, tmp_path, "canary", model={"base": str(base), "language": "en"})
