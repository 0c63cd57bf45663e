"""CTC models of every kind against Transformers' own model, PyTorch's loss without batches, and what they learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import torch
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable, count_parameters, save_trained
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.ctc import CtcFamily
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.ctc_network import frames_needed, summed_ctc_loss
from speechtune.models.family import Example, load_family
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Layout

TEXTS = ("abba", "c", "bad cab")
Load = Callable[..., CtcFamily]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("ctc")
    return {kind: tiny_ctc.make_ctc(root / kind, kind) for kind in tiny_ctc.KINDS}


@pytest.fixture
def load(models: dict[str, Path]) -> Load:
    def loaded(kind: str = "wav2vec2-group", **settings: Any) -> CtcFamily:
        family = load_family(models[kind], device="cpu")
        assert isinstance(family, CtcFamily)
        family.prepare(CtcConfig(**settings), TEXTS, 0)
        family.model.eval()
        return family

    return loaded


def examples(family: CtcFamily, texts: tuple[str, ...] = TEXTS) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tiny_ctc.spoken(text, rng), *family.tokens(text)) for text in texts]


def head_of(family: Any) -> torch.Tensor:
    return family.part("head").weight


def plain(path: Path) -> Any:
    from transformers import AutoModelForCTC

    return AutoModelForCTC.from_pretrained(path, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", [*tiny_ctc.KINDS, "unispeech", "unispeech-sat"])
def test_a_clip_has_the_logits_that_transformers_gives_it_alone(
    kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """In any batch and behind any padding; Transformers' own batch is not that exact for ``group`` normalisation."""
    path = models.get(kind) or tiny_ctc.make_ctc(tmp_path / kind, kind)
    family = load_family(path, device="cpu")
    assert isinstance(family, CtcFamily)
    reference = plain(path)
    items = examples(family)
    together, frames = family.log_probs([item.waveform for item in items])
    for row, item in enumerate(items):
        given = family.extractor(item.waveform, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            alone = reference(**given).logits[0].log_softmax(-1)
        count = int(frames[row])
        assert count == family.logit_frames(len(item.waveform))
        assert count in (len(alone), len(alone) - 1)  # W2v-BERT and Parakeet: a last frame that is masked
        assert torch.allclose(together[row, :count], alone[:count], atol=1e-5)


def test_transformers_own_batch_differs_where_the_first_layer_normalises_over_time(models: dict[str, Path]) -> None:
    """Why `ClipGroupNorm` exists; with the mask or without, the padding moves every logit."""
    family = load_family(models["wav2vec2-group"], device="cpu")
    assert isinstance(family, CtcFamily)
    items = examples(family)
    batch = family.collate(items, 0)
    reference = plain(models["wav2vec2-group"])
    with torch.no_grad():
        theirs = reference(input_values=batch["input_values"]).logits.log_softmax(-1)
    ours, frames = family.log_probs([items[1].waveform])
    assert float((theirs[1, : frames[0]] - ours[0]).abs().max()) > 0.01


@pytest.mark.parametrize("kind", tiny_ctc.KINDS)
def test_the_loss_equals_one_without_batch_and_padding_and_sums_over_micro_batches(kind: str, load: Load) -> None:
    family = load(kind)
    items = examples(family)
    expected = []
    for item in items:
        log_probs, frames = family.log_probs([item.waveform])
        target = torch.tensor(item.tokens)
        loss = functional.ctc_loss(log_probs[0], target, frames, torch.tensor([len(target)]), blank=0, reduction="sum")
        expected.append(float(loss))
    tokens = sum(len(item.tokens) for item in items)
    whole = family.collate(items, 0)
    assert int((whole["labels"] != -100).sum()) == tokens
    assert float(family.model(**whole).loss.detach()) == pytest.approx(sum(expected) / tokens, rel=1e-5)
    parts = [family.collate(items[:1], 0), family.collate(items[1:], 0)]
    gradients = []
    for batches in ([whole], parts):
        family.model.zero_grad()
        family.model.train()
        family.regularise(0.0, 0.0)
        _silence(family)
        losses = [family.model(**batch, num_items_in_batch=torch.tensor(tokens)).loss for batch in batches]
        torch.stack(losses).sum().backward()
        assert sum(float(one.detach()) for one in losses) == pytest.approx(sum(expected) / tokens, rel=1e-5)
        gradients.append([one.grad.clone() for one in family.model.parameters() if one.grad is not None])
    assert len(gradients[0]) > 10
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def _silence(family: CtcFamily) -> None:
    """No randomness in training mode."""
    family.config.apply_spec_augment = False
    for module in family.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_positions"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def test_a_label_longer_than_its_frames_is_refused_and_never_turns_the_loss_into_nan(load: Load) -> None:
    family = load()
    tokens, _ = family.tokens("aaaaaaaa")
    assert frames_needed(tokens) == 15
    assert family.refusal(0.2, tokens) is not None
    assert "CTC needs 15 frames for 8 tokens" in str(family.refusal(0.2, tokens))
    assert family.refusal(0.5, tokens) is None
    said: list[int] = []
    family.model.on_impossible = said.append  # type: ignore[assignment]
    fine = examples(family)[0]
    short = Example(np.ones(3_200, dtype=np.float32), tokens, 0)
    loss = family.model(**family.collate([fine, short], 0), num_items_in_batch=4).loss
    assert said == [1]
    assert torch.allclose(loss, family.model(**family.collate([fine], 0), num_items_in_batch=4).loss, atol=1e-6)
    only = family.model(**family.collate([short], 0), num_items_in_batch=8).loss
    only.backward()
    assert float(only) == 0.0
    assert all(bool(one.grad.isfinite().all()) for one in family.model.parameters() if one.grad is not None)


def test_the_loss_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 30, 7)
    labels = torch.tensor([[3, 4, -100], [5, 5, 6]])
    frames = torch.tensor([30, 22])
    expected, _ = summed_ctc_loss(logits, frames, labels, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found, impossible = summed_ctc_loss(logits, frames, labels, 0)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not impossible.any()


@pytest.mark.parametrize("kind", tiny_ctc.KINDS)
def test_greedy_decoding_is_transformers_own_and_the_same_in_any_batch(
    kind: str, load: Load, models: dict[str, Path]
) -> None:
    from transformers import AutoTokenizer

    family = load(kind)
    waveforms = [item.waveform for item in examples(family)]
    _peak(family, waveforms[2])
    found = family.generate(waveforms, 0, 5)
    assert any(len(one.tokens) > 5 for one in found)  # no limit of tokens
    tokenizer = AutoTokenizer.from_pretrained(models[kind])
    for waveform, hypothesis in zip(waveforms, found, strict=True):
        log_probs, frames = family.log_probs([waveform])
        best = log_probs[0, : frames[0]].argmax(-1)
        # With skip_special_tokens Transformers drops blanks before it joins repetitions, and doubled letters are lost.
        assert hypothesis.text == " ".join(tokenizer.decode(best).replace("<unk>", "").split())
        alone = family.generate([waveform], 0, 5)[0]
        assert alone.tokens == hypothesis.tokens
        assert alone.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-5)
        assert hypothesis.token_log_probs is not None
        assert len(hypothesis.token_log_probs) == len(hypothesis.tokens)
        assert max(hypothesis.token_log_probs, default=0.0) <= 0.0
    with pytest.raises(InputError, match=r"n_best is 3 and decoding\.beams is 2"):
        family.generate(waveforms, 0, 5, beams=2, search=SearchConfig(n_best=3))


def _peak(family: CtcFamily, waveform: np.ndarray) -> None:
    """Make a random head say many different letters in a clip."""
    with torch.no_grad():
        head: Any = family.part("head")
        head.weight.normal_(0, 20.0, generator=torch.Generator().manual_seed(1))
        head.bias.zero_()
        batch = family._inputs([family.features(waveform)])
        head.bias -= family.model(**batch).logits[0].mean(0)


@pytest.mark.parametrize("kind", tiny_ctc.KINDS)
def test_a_saved_model_is_plain_and_gives_the_same_logits(kind: str, load: Load, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoProcessor

    family = load(kind, head="new", case="upper")
    family.save(tmp_path / "saved")
    assert AutoConfig.from_pretrained(tmp_path / "saved").architectures[0].endswith("ForCTC")
    reference, processor = plain(tmp_path / "saved"), AutoProcessor.from_pretrained(tmp_path / "saved")
    again = load_family(tmp_path / "saved", device="cpu")
    assert again.tokens("bad cab") == family.tokens("bad cab")  # capitals only: written in capitals
    assert processor.tokenizer.decode(family.tokens("bad cab")[0], group_tokens=False) == "BAD CAB"
    waveform = examples(family)[0].waveform
    given = processor.feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = reference(**given).logits[0].log_softmax(-1)
    ours, frames = family.log_probs([waveform])
    assert torch.allclose(theirs[: frames[0]], ours[0], atol=1e-5)


@pytest.mark.parametrize("kind", tiny_ctc.KINDS)
def test_parts_cover_every_weight_and_the_roles_are_found(kind: str, load: Load) -> None:
    family = load(kind)
    layout = Layout(family)
    assert {layout.place(name).part.split(".")[0] for name in layout.parameters} == {"encoder", "head"}
    assert "encoder.rest" not in {layout.place(name).part for name in layout.parameters}
    assert len(family.adapter_targets(["encoder_attention"])) == 2 * 4
    assert len(family.adapter_targets(["mlp"])) == (8 if kind in ("wav2vec2-bert", "parakeet") else 4)
    upper = layout.select({"encoder.layers": [0.5, 1.0]}, "model.train")
    assert upper
    assert all("layers.1." in name for name in upper)
    with pytest.raises(InputError, match="no layers of role 'decoder_mlp'"):
        family.adapter_targets(["decoder_mlp"])
    with pytest.raises(InputError, match="has no part 'decoder'"):
        family.part("decoder")


@pytest.mark.parametrize("kind", tiny_ctc.KINDS)
def test_lora_reaches_what_it_should_and_merges(kind: str, load: Load, tmp_path: Path) -> None:
    """WavLM in Transformers ignores adapters on its attention."""
    family = load(kind, head="new")
    batch = family.collate(examples(family), 0)
    trained = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2, alpha=4, dropout=0.0))
    trained(**batch).loss.backward()
    for name, parameter in trained.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            assert parameter.requires_grad, name
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name
    assert any("modules_to_save" in name for name, one in trained.named_parameters() if one.requires_grad)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
        expected = trained(**batch).loss
    save_trained(family, trained, tmp_path)
    with torch.no_grad():
        merged = load_family(tmp_path / "model", device="cpu").model.eval()
        assert torch.allclose(merged(**batch).loss, expected, atol=1e-4)


QUICK = ("wav2vec2-layer", "parakeet")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in tiny_ctc.KINDS]
)
def test_a_fresh_head_learns_a_dozen_utterances_by_heart(kind: str, load: Load) -> None:
    """The demo of truth: 0 % word errors; what is frozen has not moved by one bit."""
    family = load(kind, head="new", freeze_feature_encoder=kind in ("wav2vec2-layer", "hubert"))
    family.regularise(0.0, 0.0)
    _silence(family)
    items = examples(family, tiny_ctc.TEXTS)
    batch = family.collate(items, 0)
    frozen = {name: one.clone() for name, one in family.model.named_parameters() if not one.requires_grad}
    statistics = {name: one.clone() for name, one in family.model.named_buffers() if "running" in name}
    assert (len(frozen) > 1) == (kind in ("wav2vec2-layer", "hubert"))
    model = choose_trainable(family, ModelConfig(), AdapterConfig())
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=3e-3)
    found: list[str] = []
    for step in range(1, 161):
        model.train()
        optimiser.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            model.eval()
            found = [one.text for one in family.generate([item.waveform for item in items], 0, 9)]
            if found == list(tiny_ctc.TEXTS):
                break
    assert found == list(tiny_ctc.TEXTS)
    now = dict([*family.model.named_parameters(), *family.model.named_buffers()])
    assert all(torch.equal(one, now[name]) for name, one in {**frozen, **statistics}.items())
    assert bool(statistics) == (kind == "parakeet")


def test_an_encoder_without_a_head_needs_a_new_one(tmp_path: Path) -> None:
    family = load_family(tiny_ctc.make_encoder(tmp_path / "ssl", "wav2vec2-layer"), device="cpu")
    assert isinstance(family, CtcFamily)
    assert not family.has_trained_head
    with pytest.raises(InputError, match=r"set model\.ctc\.head=new"):
        family.prepare(CtcConfig(), ["ab"], 0)
    with pytest.raises(InputError, match="no vocabulary"):
        family.tokens("ab")
    family.prepare(CtcConfig(head="new"), ["ab", "c"], 7)
    first = head_of(family).detach().clone()
    assert first.shape == (6, 48)
    family.prepare(CtcConfig(head="new"), ["ab", "c"], 7)
    assert torch.equal(first, head_of(family))
    trainable, total = count_parameters(family.model)
    assert 0 < trainable < total
    assert all(not one.requires_grad for one in family.part("feature_encoder").parameters())


def test_training_defaults_are_said_and_not_inherited(load: Load) -> None:
    family = load()
    assert family.config.layerdrop == 0.0  # the checkpoint says 0.1
    parakeet = load("parakeet", layerdrop=0.3)
    assert parakeet.model.encoder.layerdrop == 0.3  # type: ignore[union-attr]
    family.regularise(0.25, 0.0)
    layer: Any = family.model.get_submodule("wav2vec2.encoder.layers.0")
    assert layer.dropout.p == layer.feed_forward.output_dropout.p == 0.25
    assert layer.feed_forward.intermediate_dropout.p != 0.25
    with pytest.raises(InputError, match="no label smoothing"):
        family.regularise(None, 0.1)


@pytest.mark.parametrize("kind", ["wav2vec2-group", "parakeet"])
def test_spec_augment_by_share_acts_in_training_only_and_leaves_short_clips_alone(kind: str, load: Load) -> None:
    family = load(kind)
    family.regularise(0.0, 0.0)
    _silence(family)
    config: Any = family.config
    batch = family.collate(examples(family), 0)
    with torch.no_grad():
        plain_loss = family.model(**batch).loss
        config.apply_spec_augment, config.mask_time_prob, config.mask_time_length = True, 0.5, 10
        config.mask_feature_prob, config.mask_feature_length = 0.0, 10
        assert torch.equal(family.model(**batch).loss, plain_loss)
        family.model.train()
        assert not torch.allclose(family.model(**batch).loss, plain_loss)
        short = family.collate([Example(np.ones(1_600, dtype=np.float32), family.tokens("a")[0], 0)], 0)
        assert bool(family.model(**short).loss.isfinite())
        assert config.apply_spec_augment


def test_masks_by_count_act_on_features_and_are_refused_for_waveforms(load: Load) -> None:
    from speechtune.audio.augment import MaskDraw

    waveform = examples(load())[0].waveform
    masks = MaskDraw(((4, 3),), ((10, 5),))
    bert, parakeet = load("wav2vec2-bert"), load("parakeet")
    for family in (bert, parakeet):
        spectrum = family.features(waveform, masks).reshape(-1, 80)
        assert not spectrum[4:7].any()
        assert not spectrum[:, 10:15].any()
        rest = spectrum == family.features(waveform).reshape(-1, 80)
        assert bool(rest[7:, 15:].all())
    with pytest.raises(InputError, match=r"spec_augment\.time_prob"):
        load().features(waveform, masks)


def test_mms_takes_the_adapter_and_the_vocabulary_of_its_language(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCTC

    from speechtune.models.ctc_vocabulary import character_tokenizer

    config = tiny_ctc.configuration("wav2vec2-layer", 7)
    config.adapter_attn_dim = 4
    torch.manual_seed(0)
    model = AutoModelForCTC.from_config(config)
    model.save_pretrained(tmp_path / "mms")
    tiny_ctc.extractor_for("wav2vec2-layer").save_pretrained(tmp_path / "mms")
    languages = {"eng": tiny_ctc.VOCABULARY, "deu": {"<pad>": 0, "<unk>": 1, "|": 2, "x": 3, "y": 4}}
    tokenizer = character_tokenizer(languages["eng"], "eng")
    tokenizer.vocab = languages
    tokenizer.save_pretrained(tmp_path / "mms")
    for number, (code, units) in enumerate(languages.items()):
        weights = {name: torch.full_like(one, 0.01 * (number + 1)) for name, one in model._get_adapters().items()}
        weights["lm_head.weight"] = torch.full((len(units), 48), 0.1 * (number + 1))
        weights["lm_head.bias"] = torch.zeros(len(units))
        save_file(weights, tmp_path / "mms" / f"adapter.{code}.safetensors", metadata={"format": "pt"})
    german = load_family(tmp_path / "mms", language="de", device="cpu")
    assert isinstance(german, CtcFamily)
    assert german.language == "deu"
    assert german.tokens("xy")[0] == [3, 4]
    assert head_of(german).shape == (5, 48)
    assert float(head_of(german)[0, 0]) == pytest.approx(0.2)
    assert sum(one.numel() for one in german.part("language_adapter").parameters()) > 5 * 48
    with pytest.raises(InputError, match="no adapter for 'xx'"):
        load_family(tmp_path / "mms", language="xx", device="cpu")
    german.save(tmp_path / "tuned")
    again = load_family(tmp_path / "tuned", language="de", device="cpu")
    assert again.tokens("xy")[0] == [3, 4]
    assert torch.equal(head_of(again), head_of(german))
    new = load_family(tmp_path / "mms", language="de", device="cpu")
    new.prepare(CtcConfig(head="new"), ["äöü"], 0)
    new.save(tmp_path / "new")
    assert load_family(tmp_path / "new", language="de", device="cpu").tokens("äö")[0] == new.tokens("äö")[0]


def test_a_saved_model_aligns_text_to_speech(load: Load, tmp_path: Path) -> None:
    from speechtune.decoding.forced_alignment import open_aligner

    family = load("wav2vec2-layer")
    family.save(tmp_path / "saved")
    found = open_aligner(str(tmp_path / "saved")).align(examples(family)[2].waveform, "bad cab", None)
    assert [one.text for one in found] == ["bad", "cab"]
    assert 0 <= found[0].start_s <= found[0].end_s <= found[1].end_s <= 1.2
