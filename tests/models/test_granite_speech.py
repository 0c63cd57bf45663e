"""Granite-Speech against Transformers' own class, one clip at a time, and what it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import family_laws
import numpy as np
import pytest
import tiny_granite_speech
import torch
from family_laws import clips
from torch.nn import functional

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.family import Example, load_family
from speechtune.models.granite_speech import GraniteSpeechFamily

Load = Callable[..., GraniteSpeechFamily]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_granite_speech.make_granite_speech(tmp_path_factory.mktemp("granite") / "model", spread=0.3)


@pytest.fixture
def load(directory: Path) -> Load:
    def loaded(path: Path | None = None) -> GraniteSpeechFamily:
        family = load_family(path or directory, device="cpu")
        assert isinstance(family, GraniteSpeechFamily)
        return family

    return loaded


def plain(path: Path) -> Any:
    from transformers import GraniteSpeechForConditionalGeneration

    return GraniteSpeechForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def request(family: GraniteSpeechFamily, clip: np.ndarray) -> dict[str, torch.Tensor]:
    """What the library's processor would hand over for one clip: it needs torchaudio, so written out here."""
    features = torch.from_numpy(mel_pairs(clip))[None]
    places = -(-features.shape[1] // 15) * 3
    text = family.tokenizer.apply_chat_template(
        [{"role": "user", "content": "<|audio|>can you transcribe the speech into a written format?"}],
        tokenize=False,
        add_generation_prompt=True,
    ).replace("<|audio|>", "<|audio|>" * places)
    ids = family.tokenizer(text, return_tensors="pt")["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": features,
        "input_features_mask": torch.ones(1, places, dtype=torch.bool),
    }


def mel_pairs(clip: np.ndarray) -> np.ndarray:
    """The features in numpy: frame by frame, HTK triangles by their definition (torchaudio's defaults)."""
    wave = np.pad(np.pad(clip, (0, max(0, 1600 - len(clip)))).astype(np.float64), 256, mode="reflect")
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [wave[at : at + 512] * window for at in range(0, len(wave) - 511, 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2

    def mel(hz: float) -> float:
        return 2595 * np.log10(1 + hz / 700)

    edges = 700 * (10 ** (np.linspace(0, mel(8000), 82) / 2595) - 1)
    hz = np.linspace(0, 8000, 257)
    up = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    log_mel = np.log10(np.maximum(power @ np.maximum(0, np.minimum(up, down)), 1e-10))
    log_mel = np.maximum(log_mel, log_mel.max() - 8) / 4 + 1
    log_mel = log_mel[: len(log_mel) // 2 * 2]
    return log_mel.reshape(len(log_mel) // 2, 160).astype(np.float32)


@pytest.mark.parametrize("samples", [100, 1_600, 16_000, 16_159, 16_160, 47_321])
def test_features_are_those_of_the_definition_and_fill_their_places(samples: int, directory: Path, load: Load) -> None:
    family = load()
    clip = clips((samples / 16_000,))[0]
    ours = family.front_end(clip).numpy()
    assert np.abs(ours - mel_pairs(clip)).max() < 2e-4
    with torch.no_grad():
        theirs = plain(directory).get_audio_features(torch.from_numpy(ours)[None]).pooler_output
    assert theirs.shape[1] == family.places(samples)


def test_the_librarys_extractor_gives_the_same_with_torchaudio(load: Load) -> None:
    pytest.importorskip("torchaudio", reason="torchaudio is not among the packages of speechtune")
    from transformers import GraniteSpeechFeatureExtractor

    for clip in clips():
        theirs = GraniteSpeechFeatureExtractor()(clip)
        assert float((theirs["input_features"][0] - load().front_end(clip)).abs().max()) < 2e-4
        assert theirs["audio_embed_sizes"] == [load().places(len(clip))]


@pytest.mark.parametrize("side", ["right", "left"])
def test_exactly_the_answer_is_trained_behind_the_prompt_of_inference(side: str, load: Load) -> None:
    family = load()
    asked = lambda clip: request(family, clip)["input_ids"][0].tolist()  # noqa: E731
    said = lambda text: family.tokenizer(f"{text}<|end_of_text|>")["input_ids"]  # noqa: E731
    family_laws.check_that_the_answer_is_trained(family, side, asked, said)


def alone_loss(path: Path, family: GraniteSpeechFamily, text: str, clip: np.ndarray) -> tuple[float, int]:
    """Summed cross-entropy of an answer from Transformers' class alone: no batch, no padding."""
    given = request(family, clip)
    answer = family.tokenizer(f"{text}<|end_of_text|>", return_tensors="pt")["input_ids"]
    ids = torch.cat([given["input_ids"], answer], 1)
    with torch.no_grad():
        logits = plain(path)(**{**given, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
    count = answer.shape[1]
    return float(functional.cross_entropy(logits[0, -count - 1 : -1], answer[0], reduction="sum")), count


def test_the_loss_is_that_of_each_clip_alone_in_the_plain_class(directory: Path, load: Load) -> None:
    family = load()
    family_laws.check_that_the_loss_is_that_of_clips_alone(
        family, lambda text, clip: alone_loss(directory, family, text, clip)
    )


def test_padding_side_batch_and_accumulation_change_neither_loss_nor_gradient(load: Load) -> None:
    family_laws.check_that_padding_changes_nothing(load())


def test_transformers_own_batch_gives_a_clip_other_audio_than_alone(directory: Path, load: Load) -> None:
    """Why the encoder is told where a clip ends."""
    family, model = load(), plain(directory)
    both = family.audio_inputs(clips((0.55, 2.0)))["input_features"]
    alone = family.audio_inputs(clips((0.55,)))["input_features"]
    count = family.places(len(clips((0.55,))[0]))
    with torch.no_grad():
        batch = model.get_audio_features(both).pooler_output[0, :count]
        assert float((batch - model.get_audio_features(alone).pooler_output[0]).abs().max()) > 1e-2


def test_batches_do_not_change_the_statistics_of_normalisation(load: Load) -> None:
    family_laws.check_that_statistics_stay(load())


def test_masks_blank_out_the_features_of_the_clip(load: Load) -> None:
    family = load()
    clip = clips((1.5,))[0]
    masks = MaskDraw(time=((10, 20),), bins=((3, 2),))
    clean = family.front_end(clip).reshape(-1, 80)
    masked = family.collate([Example(clip, *family.tokens("ab"), masks=masks)], 0)["input_features"][0].reshape(-1, 80)
    assert not masked[10:30].any() and not masked[:, 3:5].any()
    assert torch.equal(masked[30:, 5:], clean[30:, 5:])


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_librarys_own(beams: int, directory: Path, load: Load) -> None:
    family, model = load(), plain(directory)
    together = family.generate(clips(), 0, 12, beams)
    assert len({tuple(one.tokens) for one in together}) > 1  # the model does hear something
    for clip, ours in zip(clips(), together, strict=True):
        given = request(family, clip)
        theirs = model.generate(
            **given, max_new_tokens=12, num_beams=beams, do_sample=False, eos_token_id=family.end, pad_token_id=0
        )
        new = theirs[0, given["input_ids"].shape[1] :].tolist()
        body = new[: new.index(family.end)] if family.end in new else new
        assert ours.tokens == body and ours.truncated == (len(body) == 12)
        with torch.no_grad():
            logits = model(**{**given, "input_ids": theirs, "attention_mask": torch.ones_like(theirs)}).logits
        spread = logits[0, given["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
        expected = [float(spread[place, token]) for place, token in enumerate(body)]
        assert ours.token_log_probs == pytest.approx(expected, abs=1e-4)


def test_the_scale_of_the_language_models_logits_is_kept(tmp_path: Path, load: Load) -> None:
    """Granite's own class divides by it; the speech class of Transformers 5.23 forgets to."""
    path = tiny_granite_speech.make_granite_speech(tmp_path / "scaled", spread=0.3, logits_scaling=4.0)
    family, clip = load(path), clips()[0]
    given = request(family, clip)
    with torch.no_grad():
        theirs = plain(path)(**given).logits
        ours = family.model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], **family.audio_inputs([clip])
        ).logits
    assert float((ours * 4 - theirs).abs().max()) < 1e-3 and float(theirs.abs().max()) > 0.1


def test_n_best_lists_samples_and_prefixes(load: Load) -> None:
    family_laws.check_lists_samples_and_prefixes(load(), "a Granite-Speech model")


def test_parts_cover_every_weight_and_what_is_frozen_stays(load: Load) -> None:
    family_laws.check_parts(load(), ["model.language_model.embed_tokens.weight"])


ROLES = {"encoder_attention": 6, "encoder_mlp": 8, "decoder_attention": 8, "decoder_mlp": 6}


@pytest.mark.parametrize(("targets", "count"), [*(([one], count) for one, count in ROLES.items()), (["attention"], 14)])
def test_adapters_by_role_merge_into_the_model(targets: list[str], count: int, load: Load) -> None:
    family_laws.check_adapters(load(), targets, count)


def test_the_projector_is_adapted_by_its_role_and_unknown_ones_are_refused(load: Load) -> None:
    names = load().adapter_targets(["projector"])
    assert names and all(name.startswith("model.projector.") for name in names)
    with pytest.raises(InputError, match=r"no layers of role 'ears': use attention, mlp, projector"):
        load().adapter_targets(["ears"])
    with pytest.raises(InputError, match="no part 'ears': use encoder, projector, decoder, head"):
        load().part("ears")


def test_dropout_and_label_smoothing_act_in_training_only(load: Load) -> None:
    family_laws.check_that_regularisation_acts_in_training_only(load())


def test_what_is_saved_loads_in_plain_transformers_with_the_same_logits(
    directory: Path, tmp_path: Path, load: Load
) -> None:
    family, clip = load(), clips()[2]
    family.set_prompt(family.tokenizer.encode("<|audio|>Say it.", add_special_tokens=False))
    family.save(tmp_path / "saved")
    model = plain(tmp_path / "saved")
    given = request(family, clip) | {"input_features": family.front_end(clip)[None]}
    with torch.no_grad():
        ours = family.model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], **family.audio_inputs([clip])
        ).logits
        assert float((model(**given).logits - ours).abs().max()) < 5e-5
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert stored["architectures"] == ["GraniteSpeechForConditionalGeneration"] and not stored["has_lora_adapter"]
    front = "preprocessor_config.json"
    assert (tmp_path / "saved" / front).read_bytes() == (directory / front).read_bytes()
    again = load(tmp_path / "saved")
    assert again.prompt == family.prompt != load().prompt  # the prompt of the run is used again


def test_an_adapter_beside_the_weights_is_merged(directory: Path, tmp_path: Path, load: Load) -> None:
    """IBM's checkpoints bring one for the language model (granite-speech-3.3)."""
    from peft import LoraConfig

    model = plain(directory)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model.config.has_lora_adapter = True
    model.save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match="saved with its adapter inside"):  # the base's names are lost there
        load(tmp_path)
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    adapted, family, clip = plain(tmp_path), load(tmp_path), clips()[0]
    assert not any("lora" in name for name, _ in family.model.named_parameters())
    given = request(family, clip) | {"input_features": family.front_end(clip)[None]}
    with torch.no_grad():
        bare, theirs = plain(directory)(**given).logits, adapted(**given).logits
        ours = family.model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], **family.audio_inputs([clip])
        ).logits
        assert float((theirs - bare).abs().max()) > 1e-2
        assert float((ours - theirs).abs().max()) < 1e-4
        family.save(tmp_path / "merged")
        assert float((plain(tmp_path / "merged")(**given).logits - theirs).abs().max()) < 1e-4


def test_bad_directories_get_one_sentence(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    with pytest.raises(InputError, match="does not load as a Granite-Speech model"):
        load_family(tmp_path, device="cpu")
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        load_family(tmp_path, device="cpu")


def test_the_commands_work(tmp_path: Path) -> None:
    base = tiny_granite_speech.make_granite_speech(tmp_path / "base", spread=0.1)
    family_laws.check_commands(base, tmp_path, "granite_speech")
