"""The Whisper family against Transformers' own model, loss and decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable, count_parameters, save_trained
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import Example, load_family
from speechtune.models.whisper import IGNORED, WhisperFamily


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    loaded = load_family(tiny_model)
    assert isinstance(loaded, WhisperFamily)
    loaded.model.eval()
    return loaded


def examples(family: WhisperFamily, texts: tuple[str, ...] = ("the thing", "in", "sing the king")) -> list[Example]:
    rng = np.random.default_rng(0)
    lengths = (16_000, 8_000, 23_000)
    return [
        Example(rng.standard_normal(length).astype(np.float32) * 0.1, *family.tokens(text))
        for length, text in zip(lengths, texts, strict=True)
    ]


def reference_model(path: Path) -> torch.nn.Module:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def test_full_context_equals_transformers_forward_loss_and_gradients(family: WhisperFamily, tiny_model: Path) -> None:
    batch = family.collate(examples(family), family.context_frames(1.0, "full"))
    ours = family.model(**batch).loss
    reference = reference_model(tiny_model)
    theirs = reference(**batch).loss
    assert torch.allclose(ours, theirs, atol=1e-6)
    ours.backward()
    theirs.backward()
    expected = dict(reference.named_parameters())
    compared = 0
    for name, parameter in family.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, expected[name].grad, atol=1e-5), name
            compared += 1
    assert compared > 40


def test_fit_context_is_the_same_network_on_a_shorter_window(family: WhisperFamily, tiny_model: Path) -> None:
    """Independent answer: Transformers' model rebuilt with fewer positions."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    n_frames = 160
    config = WhisperConfig.from_pretrained(tiny_model, max_source_positions=n_frames // 2)
    short = WhisperForConditionalGeneration(config).eval()
    state = reference_model(tiny_model).state_dict()
    state["model.encoder.embed_positions.weight"] = state["model.encoder.embed_positions.weight"][: n_frames // 2]
    short.load_state_dict(state)
    batch = family.collate(examples(family), n_frames)
    with torch.no_grad():
        ours, theirs = family.model(**batch).loss, short(**batch).loss
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_labels_are_text_and_end_the_prompt_and_padding_are_masked(family: WhisperFamily) -> None:
    batch = family.collate(examples(family), 150)
    start = family.config.decoder_start_token_id
    for row, example in enumerate(examples(family)):
        labels, inputs = batch["labels"][row].tolist(), batch["decoder_input_ids"][row].tolist()
        text = [label for label in labels if label != IGNORED]
        assert family.text(text) == ("the thing", "in", "sing the king")[row]
        assert text[-1] == family.eot
        assert text.count(family.eot) == 1
        assert inputs.count(start) == 1
        assert inputs[0] == start
        # Position by position the target is the next input.
        for position, label in enumerate(labels[:-1]):
            if label not in (IGNORED, family.eot):
                assert inputs[position + 1] == label
        assert labels[: example.prompt_tokens - 1] == [IGNORED] * (example.prompt_tokens - 1)
        assert labels[len(example.tokens) - 1 :] == [IGNORED] * (len(labels) - len(example.tokens) + 1)


def test_the_loss_equals_an_independent_computation_and_sums_over_micro_batches(family: WhisperFamily) -> None:
    all_examples = examples(family)
    batch = family.collate(all_examples, 150)
    with torch.no_grad():
        logits = family.model(
            input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"]
        ).logits
        expected = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED)
        assert torch.allclose(family.model(**batch).loss, expected, atol=1e-6)
        items = int((batch["labels"] != IGNORED).sum())
        parts = sum(
            family.model(**family.collate([example], 150), num_items_in_batch=items).loss for example in all_examples
        )
    assert torch.allclose(parts, expected, atol=1e-5)


def test_label_smoothing_and_dropout_act_in_training_only(family: WhisperFamily) -> None:
    batch = family.collate(examples(family), 150)
    with torch.no_grad():
        plain = family.model.eval()(**batch).loss
        family.regularise(None, 0.1)
        assert torch.equal(family.model(**batch).loss, plain)
        family.model.train()
        logits = family.model(
            input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"]
        ).logits.log_softmax(-1)
        counted = batch["labels"] != IGNORED
        target = logits[counted].gather(-1, batch["labels"][counted][:, None]).squeeze(-1)
        expected = -(0.9 * target + 0.1 * logits[counted].mean(-1)).mean()
        assert torch.allclose(family.model(**batch).loss, expected, atol=1e-5)
        family.regularise(0.5, 0.0)
        torch.manual_seed(0)
        first = family.model(**batch).loss
        assert not torch.equal(family.model(**batch).loss, first)
        assert not torch.allclose(first, plain)
        assert torch.equal(family.model.eval()(**batch).loss, plain)
        blocks = [*family.part("encoder").layers, *family.part("decoder").layers]  # type: ignore[arg-type, misc]
        assert {block.dropout for block in blocks} == {0.5}
    assert family.config.dropout == 0.0


def test_padding_in_the_batch_changes_nothing_but_the_context(family: WhisperFamily) -> None:
    """A row's loss at one context is the same whatever stands beside it."""
    one, *others = examples(family)
    with torch.no_grad():
        alone = family.model(**family.collate([one], 150), num_items_in_batch=1).loss
        together = family.model(**family.collate([one, *others], 150), num_items_in_batch=1).loss
        rest = family.model(**family.collate(others, 150), num_items_in_batch=1).loss
    assert torch.allclose(together, alone + rest, atol=1e-4)


def test_greedy_decoding_equals_a_step_by_step_loop_without_cache(family: WhisperFamily) -> None:
    waveforms = [example.waveform for example in examples(family)]
    got = family.generate(waveforms, 150, max_new_tokens=10)
    features = family.front_end(waveforms, 150)
    banned = [*family.generation_config.suppress_tokens, *range(family._first_timestamp, family.config.vocab_size)]
    for row, hypothesis in enumerate(got):
        tokens, log_probs = list(family.prompt), []
        while len(tokens) < len(family.prompt) + 10:
            with torch.no_grad():
                logits = family.model(
                    input_features=features[row : row + 1], decoder_input_ids=torch.tensor([tokens])
                ).logits[0, -1]
            logits[banned] = -torch.inf
            if len(tokens) == len(family.prompt):
                logits[family.generation_config.begin_suppress_tokens] = -torch.inf
            log_probs.append(float(logits.log_softmax(-1).max()))
            if int(logits.argmax()) == family.eot:
                break
            tokens.append(int(logits.argmax()))
        assert hypothesis.tokens == tokens[len(family.prompt) :]
        assert hypothesis.log_prob == pytest.approx(sum(log_probs) / len(log_probs), abs=1e-4)
        assert hypothesis.truncated == (len(hypothesis.tokens) == 10)


def test_beam_search_finds_the_best_sequence_that_exhaustive_search_finds(family: WhisperFamily) -> None:
    """Two tokens, beams wide enough to hold every first token: the winner is the true maximum of the mean."""
    waveforms = [example.waveform for example in examples(family)]
    features = family.front_end(waveforms, 150)
    banned = [*family.generation_config.suppress_tokens, *range(family._first_timestamp, family.config.vocab_size)]

    def log_probs(row: int, tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = family.model(
                input_features=features[row : row + 1], decoder_input_ids=torch.tensor([tokens])
            ).logits[0, -1]
        scores = logits.log_softmax(-1)
        scores[banned] = -torch.inf
        if len(tokens) == len(family.prompt):
            scores[family.generation_config.begin_suppress_tokens] = -torch.inf
        return scores

    got = family.generate(waveforms, 150, max_new_tokens=2, beams=12)
    for row, hypothesis in enumerate(got):
        first = log_probs(row, list(family.prompt))
        best_score, best = -torch.inf, None
        for token in first.topk(12).indices.tolist():
            second = log_probs(row, [*family.prompt, token])
            score = float(first[token] + second.max()) / 2
            if score > best_score:
                best_score, best = score, [token, int(second.argmax())]
        assert hypothesis.tokens == [token for token in best or [] if token != family.eot]
        chain = [*family.prompt, *(best or [])]
        renormalised = [log_probs(row, chain[: len(family.prompt) + place]).log_softmax(-1) for place in (0, 1)]
        mean = sum(float(scores[token]) for scores, token in zip(renormalised, best or [], strict=True)) / 2
        assert hypothesis.log_prob == pytest.approx(mean, abs=1e-4)


def test_a_saved_model_loads_in_transformers_alone_and_says_the_same(family: WhisperFamily, tmp_path: Path) -> None:
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    family.save(tmp_path / "saved")
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "saved").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert type(loaded).__name__ == "WhisperForConditionalGeneration"
    assert processor.tokenizer.decode(family.tokens("the thing")[0], skip_special_tokens=True).strip() == "the thing"
    batch = family.collate(examples(family), family.context_frames(1.0, "full"))
    with torch.no_grad():
        assert torch.allclose(loaded(**batch).loss, family.model(**batch).loss, atol=1e-6)


@pytest.mark.parametrize(
    ("roles", "layers_each"),
    [
        (["attention"], {"encoder": 4, "decoder": 8}),
        (["decoder_mlp"], {"decoder": 2}),
        (["encoder_attention"], {"encoder": 4}),
    ],
)
def test_lora_reaches_exactly_the_layers_of_its_roles(
    family: WhisperFamily, roles: list[str], layers_each: dict[str, int]
) -> None:
    names = family.adapter_targets(roles)
    found = {side: sum(f".{side}." in name for name in names) for side in ("encoder", "decoder")}
    depth = {"encoder": family.config.encoder_layers, "decoder": family.config.decoder_layers}
    assert found == {side: layers_each.get(side, 0) * depth[side] for side in found}


def test_lora_trains_only_its_matrices_and_merges_into_the_same_function(family: WhisperFamily, tmp_path: Path) -> None:
    batch = family.collate(examples(family), 150)
    with torch.no_grad():
        before = family.model(**batch).loss
    trained = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2, alpha=4, dropout=0.0))
    names = [name for name, parameter in trained.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    with torch.no_grad():
        assert torch.allclose(trained(**batch).loss, before, atol=1e-6)
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
        adapted = trained(**batch).loss
    assert not torch.allclose(adapted, before, atol=1e-3)
    save_trained(family, trained, tmp_path)
    with torch.no_grad():
        assert torch.allclose(load_family(tmp_path / "model").model.eval()(**batch).loss, adapted, atol=1e-4)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_training_one_part_freezes_the_other(family: WhisperFamily, part: str) -> None:
    _, total = count_parameters(family.model)
    model = choose_trainable(family, ModelConfig(train=part), AdapterConfig())  # type: ignore[arg-type]
    trainable, _ = count_parameters(model)
    assert 0 < trainable < total
    assert all(f"model.{part}." in name for name, one in model.named_parameters() if one.requires_grad)


def test_the_prompt_carries_language_and_task_and_wrong_languages_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(tmp_path / "multi", multilingual=True, positions=150)
    family = load_family(tmp_path / "multi", language="de")
    assert isinstance(family, WhisperFamily)
    names = family.tokenizer.convert_ids_to_tokens(family.prompt)
    assert names == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    with pytest.raises(InputError, match="has no language 'xx'"):
        load_family(tmp_path / "multi", language="xx")
    with pytest.raises(InputError, match="needs a language"):
        load_family(tmp_path / "multi")
    with pytest.raises(InputError, match="English only"):
        load_family(tiny_model, language="de")


def test_chinese_text_starts_without_a_space_and_english_with_one(tmp_path: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(tmp_path / "multi", multilingual=True, positions=150)
    chinese, english = (load_family(tmp_path / "multi", language=code) for code in ("zh", "en"))
    assert isinstance(chinese, WhisperFamily)
    assert isinstance(english, WhisperFamily)
    assert chinese.tokenizer.decode(chinese.tokens("你好")[0][4:-1]) == "你好"
    assert english.tokenizer.decode(english.tokens("the")[0][4:-1]) == " the"
