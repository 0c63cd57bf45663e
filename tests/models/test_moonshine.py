"""Moonshine against Transformers' own class, one clip at a time, and what it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import family_laws
import numpy as np
import pytest
import tiny_moonshine
import torch
from family_laws import TEXTS, clips, examples
from torch.nn import functional

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import Example, load_family
from speechtune.models.moonshine import MoonshineFamily
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Layout

Load = Callable[..., MoonshineFamily]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_moonshine.make_moonshine(tmp_path_factory.mktemp("moonshine") / "model", spread=0.2)


@pytest.fixture
def load(directory: Path) -> Load:
    def loaded(path: Path | None = None, language: str | None = "en") -> MoonshineFamily:
        family = load_family(path or directory, language=language, device="cpu")
        assert isinstance(family, MoonshineFamily)
        return family

    return loaded


def plain(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    model = AutoModelForSpeechSeq2Seq.from_pretrained(path, dtype=torch.float32).eval()
    assert type(model).__mro__[1].__name__ == "MoonshinePreTrainedModel"
    return model, AutoProcessor.from_pretrained(path)


def request(processor: Any, clip: np.ndarray) -> torch.Tensor:
    return processor(clip, sampling_rate=16_000, return_tensors="pt")["input_values"]


def test_a_clip_in_a_batch_has_the_encoding_that_the_library_gives_it_alone(directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    together = family.encode(clips())
    for row, clip in enumerate(clips()):
        with torch.no_grad():
            alone = model.model.encoder(request(processor, clip)).last_hidden_state[0]
        frames = int(together.attention_mask[row].sum())
        assert frames == len(alone)
        assert float((together.last_hidden_state[row, :frames] - alone).abs().max()) < 1e-4


def test_transformers_own_batch_gives_a_clip_another_encoding_than_alone(directory: Path) -> None:
    """Why `ClipEncoder` exists."""
    model, processor = plain(directory)
    short, long = clips((1.0003, 3.0))
    batch = processor([short, long], sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        alone = model.model.encoder(request(processor, short)).last_hidden_state[0]
        whole = model.model.encoder(batch["input_values"], attention_mask=batch["attention_mask"])
    assert int(whole.attention_mask[0].sum()) != len(alone)
    assert float((whole.last_hidden_state[0, : len(alone)] - alone).abs().max()) > 0.01


def test_labels_are_the_text_and_its_end_behind_one_start_token(load: Load) -> None:
    family = load()
    batch = family.collate(examples(family), 0)
    for row, text in enumerate(TEXTS):
        labels = batch["labels"][row]
        learnt = labels[labels != -100].tolist()
        assert family.tokenizer.decode(learnt).strip() == f"{text}</s>" and family.text(learnt) == text
        inputs = batch["decoder_input_ids"][row, : len(learnt)].tolist()
        assert inputs == [family.prompt[0], *learnt[:-1]] and inputs.count(family.prompt[0]) == 1
    own = family.tokenizer("ab")["input_ids"]  # a begin token and no end: the decoder would start with two of them
    assert own[0] == family.prompt[0] and own[-1] != family.end


def alone_loss(path: Path, family: MoonshineFamily, text: str, clip: np.ndarray) -> tuple[float, int]:
    """Summed cross-entropy of a text from Transformers' class alone: no batch, no padding."""
    model, processor = plain(path)
    ids = [processor.tokenizer.bos_token_id, *processor.tokenizer(text, add_special_tokens=False)["input_ids"]]
    target = torch.tensor([*ids[1:], processor.tokenizer.eos_token_id])
    with torch.no_grad():
        logits = model(request(processor, clip), decoder_input_ids=torch.tensor([ids])).logits[0]
    return float(functional.cross_entropy(logits, target, reduction="sum")), len(target)


def test_the_loss_is_that_of_each_clip_alone_in_the_plain_class(directory: Path, load: Load) -> None:
    family = load()
    found = [alone_loss(directory, family, text, clip) for text, clip in zip(TEXTS, clips(), strict=True)]
    total, count = sum(one for one, _ in found), sum(number for _, number in found)
    with torch.no_grad():
        batch = family.collate(examples(family), 0)
        assert float(family.model(**batch).loss) == pytest.approx(total / count, rel=1e-5)
        assert float(family.model(**batch, num_items_in_batch=7).loss) == pytest.approx(total / 7, rel=1e-5)


def test_batches_and_accumulation_change_neither_loss_nor_gradient(load: Load) -> None:
    family_laws.check_that_batches_change_nothing(load())


def test_label_smoothing_and_dropout_act_in_training_only(load: Load) -> None:
    family_laws.check_that_regularisation_acts_in_training_only(load())


def test_masks_of_time_are_silence_and_those_of_frequencies_are_left_out_and_said(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    family = load()
    clip = clips((1.5,))[0]
    masks = MaskDraw(time=((10, 20),), bins=((0, 1),))
    masked = family.collate([Example(clip, *family.tokens("ab"), masks=masks)] * 2, 0)["input_values"][0]
    assert not masked[1600:4800].any() and torch.equal(masked[4800:], torch.from_numpy(clip)[4800:])
    assert capsys.readouterr().err.count("frequency masks are left out") == 1


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_librarys_own(beams: int, directory: Path, load: Load) -> None:
    family = load()
    model, processor = plain(directory)
    together = family.generate(clips(), 0, 8, beams)
    assert len({tuple(one.tokens) for one in together}) > 1  # the model does hear something
    for clip, ours in zip(clips(), together, strict=True):
        given = request(processor, clip)
        theirs = model.generate(given, max_new_tokens=8, num_beams=beams, do_sample=False)[0].tolist()
        body = [token for token in theirs[1:] if token != family.end]
        assert ours.tokens == body and ours.truncated == (len(body) == 8)
        with torch.no_grad():
            logits = model(given, decoder_input_ids=torch.tensor([theirs])).logits[0]
        expected = [float(logits[place].log_softmax(-1)[token]) for place, token in enumerate(theirs[1:])]
        assert ours.token_log_probs == pytest.approx(expected[: len(body)], abs=1e-4)


def test_n_best_lists_prefixes_samples_and_what_is_refused(load: Load) -> None:
    family = load()
    for one in family.generate(clips()[:2], 0, 6, 4, search=SearchConfig(n_best=3)):
        assert len(one.nbest) == 3 and one.nbest[0].tokens == one.tokens
    started = family.generate(clips()[:1], 0, 6, search=SearchConfig(prefix="abba"))[0]
    assert started.text.startswith("abba")
    drawn = SearchConfig(sample=True, temperature=1.5, n_best=2, seed=4)
    assert family.generate(clips()[:1], 0, 6, search=drawn) == family.generate(clips()[:1], 0, 6, search=drawn)
    with pytest.raises(InputError, match="as many beams"):
        family.generate(clips()[:1], 0, 6, search=SearchConfig(n_best=2))
    with pytest.raises(InputError, match="reads no text before"):
        family.generate(clips()[:1], 0, 6, search=SearchConfig(hotwords=["Ada"]))


def test_a_clips_tokens_are_bounded_by_its_own_length(tmp_path: Path, load: Load) -> None:
    family = load()
    short, long = clips((0.9, 3.0))
    assert [family.most_tokens(len(one)) for one in (short, long)] == [8, 20]
    free = load()
    free.tokens_per_s = 1000.0
    looping = [len(one.tokens) for one in free.generate([short, long], 0, 30)]
    assert looping == [30, 30]  # this random model does not stop by itself
    for beams in (1, 2):
        bounded = family.generate([short, long], 0, 30, beams)
        assert [len(one.tokens) for one in bounded] == [8, 20] and all(one.truncated for one in bounded)
    family.prepare(CtcConfig(), ["ab", "dad"], 0)  # 2 + 3 letters are 2 + 4 pieces (▁a b, ▁ d a d)
    assert family.tokens_per_s == pytest.approx(26.0 * 6 / 5)
    family.save(tmp_path / "saved")
    assert load(tmp_path / "saved").tokens_per_s == pytest.approx(31.2)


def test_a_bfloat16_model_decodes_float32_speech(load: Load) -> None:
    family = load()
    family.model.to(torch.bfloat16)
    for beams in (1, 2):
        assert all(np.isfinite(one.log_prob) for one in family.generate(clips(), 0, 6, beams))
    with torch.no_grad():
        assert torch.isfinite(family.model(**family.collate(examples(family), 0)).loss)


def test_parts_cover_every_weight_and_what_is_frozen_stays(tmp_path: Path, load: Load) -> None:
    family_laws.check_parts(load(), ["model.decoder.embed_tokens.weight"])
    untied = load(tiny_moonshine.make_moonshine(tmp_path / "untied", tied=False))
    assert Layout(untied).select("head", "model.train") == ["proj_out.weight"]
    with pytest.raises(InputError, match="no part 'tail'"):
        untied.part("tail")


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["attention"], 24),
        (["mlp"], 8),
        (["cross_attention"], 8),
        (["encoder_attention", "decoder_mlp"], 12),
    ],
)
def test_adapters_by_role_merge_into_the_model(targets: list[str], count: int, load: Load) -> None:
    family_laws.check_adapters(load(), targets, count)


def test_what_is_saved_loads_in_plain_transformers_with_the_same_logits(tmp_path: Path, load: Load) -> None:
    family = load()
    config: Any = family.config
    config.apply_spec_augment, config.mask_time_prob = True, 0.05  # what a run with SpecAugment sets
    with torch.no_grad():
        for one in family.model.parameters():
            one.add_(0.01)
    family.save(tmp_path / "saved")
    model, processor = plain(tmp_path / "saved")
    given = request(processor, clips()[2])
    tokens = torch.tensor([family.tokens("abba")[0][:-1]])
    with torch.no_grad():
        ours = family.model(given, decoder_input_ids=tokens).logits
        assert torch.allclose(model(given, decoder_input_ids=tokens).logits, ours, atol=1e-6)
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert stored["architectures"] == ["MoonshineForConditionalGeneration"] and "mask_time_prob" not in stored
    again = load(tmp_path / "saved")
    assert [one.tokens for one in again.generate(clips(), 0, 8)] == [
        one.tokens for one in family.generate(clips(), 0, 8)
    ]


def test_bad_directories_get_one_sentence(tmp_path: Path, directory: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(directory, tmp_path / "holes")
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.encoder.conv1.weight"]
    save_file(tensors, tmp_path / "holes" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 tensors of a Moonshine model"):
        load_family(tmp_path / "holes", device="cpu")
    (tmp_path / "holes" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="does not load as a Moonshine model"):
        load_family(tmp_path / "holes", device="cpu")


def test_objectives_see_logits_and_hidden_states_of_both_stacks(load: Load) -> None:
    from speechtune.models.observe import Needs, watch

    family = load()
    batch = family.collate(examples(family), 0)
    taps = family.taps()
    with watch(taps, Needs(True, frozenset({"encoder", "decoder"}))) as seen:
        family.model(**batch)
    assert seen.logits is not None and len(seen.logits) == int((batch["labels"] != -100).sum())
    assert taps.frames is not None
    assert int(taps.frames(batch).max()) == seen.hidden["encoder"][0].shape[1]
    assert len(seen.hidden["decoder"]) == len(seen.hidden["encoder"]) == 2


def test_the_commands_work_and_a_lora_is_merged(tmp_path: Path) -> None:
    base = tiny_moonshine.make_moonshine(tmp_path / "base", spread=0.1)
    family_laws.check_commands(
        base, tmp_path, "moonshine", adapter={"kind": "lora", "rank": 4, "targets": ["attention", "mlp"]}
    )
    record = json.loads((tmp_path / "cli" / "model" / "speechtune.json").read_text())
    assert record["tokens_per_s"] > 6.5 and record["audio_contexts"] == ["fit"]
    for path in (tmp_path / "cli" / "model", tmp_path / "cli" / "adapter"):
        family = load_family(path, language="en", device="cpu")
        assert isinstance(family, MoonshineFamily) and family.tokens_per_s == record["tokens_per_s"]
