"""Voxtral against Transformers' own classes, one clip at a time, and its prompt against mistral-common where it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import family_laws
import numpy as np
import pytest
import tiny_voxtral
import torch
from family_laws import clips
from torch.nn import functional

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.family import Example, load_family
from speechtune.models.search_config import SearchConfig
from speechtune.models.voxtral import VoxtralFamily

Load = Callable[..., VoxtralFamily]
WINDOW_S, BINS = 1.0, 40


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_voxtral.make_voxtral(
        tmp_path_factory.mktemp("voxtral") / "model", spread=0.3, window_s=WINDOW_S, bins=BINS
    )


@pytest.fixture
def load(directory: Path) -> Load:
    def loaded(path: Path | None = None, language: str | None = "en") -> VoxtralFamily:
        family = load_family(path or directory, language=language, device="cpu")
        assert isinstance(family, VoxtralFamily)
        return family

    return loaded


def plain(path: Path) -> Any:
    from transformers import VoxtralForConditionalGeneration

    return VoxtralForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def windows_of(clip: np.ndarray, window_s: float = WINDOW_S, bins: int = BINS) -> torch.Tensor:
    """The features of a clip by `VoxtralProcessor`'s own method, which needs no tokenizer."""
    from transformers import VoxtralProcessor, WhisperFeatureExtractor

    window = round(window_s * 100)
    processor: Any = SimpleNamespace(feature_extractor=WhisperFeatureExtractor(feature_size=bins))
    options = VoxtralProcessor.audio_kwargs | {"pad_to_multiple_of": window * 160}
    options.pop("max_source_positions")
    return VoxtralProcessor._retrieve_input_features(processor, [clip], window, **options)


def request(family: VoxtralFamily, clip: np.ndarray, said: str = "lang:en") -> dict[str, torch.Tensor]:
    """What the library's processor hands over for one clip: the tokens written out, byte by byte and by their ids."""
    features = windows_of(clip)
    merged = {b"lang": [35 + 256 + 2], b"en": [35 + 256 + 3]}
    language = [*merged[b"lang"], 35 + ord(":"), *merged[b"en"]] if said else []
    ids = torch.tensor([[1, 3, 25, *[24] * (25 * len(features)), 4, *language, 34]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": features}


@pytest.mark.parametrize("samples", [1, 100, 15_999, 16_000, 16_001, 47_321])
def test_features_are_the_processors_and_fill_their_places(samples: int, directory: Path, load: Load) -> None:
    family = load()
    clip = clips((samples / 16_000,))[0]
    ours = family.log_mel(clip)
    assert torch.equal(ours, windows_of(clip)) and len(ours) == family.windows(samples) == -(-samples // 16_000)
    with torch.no_grad():
        theirs = plain(directory).get_audio_features(ours).pooler_output
    assert len(theirs) == family.places(samples) == 25 * len(ours)


def test_windows_of_thirty_seconds_are_those_of_whisper(tmp_path: Path, load: Load) -> None:
    """Sizes of the released models: 375 positions a window."""
    from speechtune.audio.mel import LogMel

    path = tiny_voxtral.make_voxtral(tmp_path / "long", window_s=30.0, together=4, bins=128)
    family, clip = load(path), clips((3.0,))[0]
    assert family.places(1) == family.places(480_000) == 375 and family.places(480_001) == 750
    assert family.limits.max_audio_s == 60.0
    assert float((family.log_mel(clip) - LogMel(128)([clip], 3000)).abs().max()) < 1e-5


@pytest.mark.parametrize("side", ["right", "left"])
def test_exactly_the_answer_is_trained_behind_the_prompt_of_inference(side: str, load: Load) -> None:
    family = load()
    asked = lambda clip: request(family, clip)["input_ids"][0].tolist()  # noqa: E731
    said = lambda text: [*(35 + one for one in text.encode()), 2]  # noqa: E731
    family_laws.check_that_the_answer_is_trained(family, side, asked, said)


def test_control_tokens_inside_a_text_are_text(load: Load) -> None:
    family = load()
    text = "[AUDIO] lang:en </s> [TRANSCRIBE] añ 日"
    tokens, prompt = family.tokens(text)
    assert tokens.count(24) == 1 and tokens.count(2) == 1 and family.text(tokens[prompt:]) == text


def alone_loss(path: Path, family: VoxtralFamily, text: str, clip: np.ndarray) -> tuple[float, int]:
    """Summed cross-entropy of an answer from Transformers' class alone: no batch, no padding."""
    given = request(family, clip)
    answer = torch.tensor([[*(35 + one for one in text.encode()), 2]])
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


def test_masks_blank_out_the_features_of_the_clip(load: Load) -> None:
    family = load()
    clip = clips((1.5,))[0]
    masks = MaskDraw(time=((90, 20),), bins=((3, 2),))
    clean = torch.cat(list(family.log_mel(clip)), 1)  # (bins, frames) of both windows
    batch = family.collate([Example(clip, *family.tokens("ab"), masks=masks)], 0)
    masked = torch.cat(list(batch["input_features"][0]), 1)
    assert batch["feature_windows"].tolist() == [2] and masked.shape == (BINS, 200)
    assert not masked[:, 90:110].any() and not masked[3:5].any()
    assert torch.equal(masked[5:, 110:], clean[5:, 110:]) and torch.equal(masked[:3, :90], clean[:3, :90])


def read_by(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The language model's input by the library's own parts."""
    embeddings = model.get_input_embeddings()(given["input_ids"])
    embeddings[0, 3 : 3 + given["input_ids"].eq(24).sum()] = model.get_audio_features(
        given["input_features"]
    ).pooler_output
    return embeddings


def generated(model: Any, beams: int, **given: torch.Tensor) -> list[int]:
    """The tokens of the library's ``generate`` behind its prompt, without the end."""
    found = model.generate(
        **given, max_new_tokens=12, num_beams=beams, do_sample=False, eos_token_id=2, pad_token_id=11
    )[0].tolist()
    new = found[given["input_ids"].shape[1] :] if "input_ids" in given else found
    return new[: new.index(2)] if 2 in new else new


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_librarys_own(beams: int, directory: Path, load: Load) -> None:
    family, model = load(), plain(directory)
    together = family.generate(clips(), 0, 12, beams)
    assert len({tuple(one.tokens) for one in together}) > 1  # the model does hear something
    for clip, ours in zip(clips(), together, strict=True):
        given = request(family, clip)
        with torch.no_grad():
            before = read_by(model, given)
            body = generated(model, beams, inputs_embeds=before, attention_mask=given["attention_mask"])
            if beams == 1 or len(given["input_features"]) == 1:
                assert generated(model, beams, **given) == body
            assert ours.tokens == body and ours.truncated == (len(body) == 12)
            after = model.get_input_embeddings()(torch.tensor([body]))
            spread = model(inputs_embeds=torch.cat([before, after], 1)).logits[0].log_softmax(-1)
        start = before.shape[1] - 1
        expected = [float(spread[start + place, token]) for place, token in enumerate(body)]
        assert ours.token_log_probs == pytest.approx(expected, abs=1e-4)


def test_transformers_own_beams_hear_the_first_window_of_a_long_clip_only(directory: Path, load: Load) -> None:
    """Why beams start from embeddings: `generate` repeats every window for the beams, and rows take them in turn."""
    family, model, clip = load(), plain(directory), clips()[2]
    given = request(family, clip)
    assert len(given["input_features"]) == 3
    with torch.no_grad():
        theirs = generated(model, 3, **given)
        first = {**given, "input_features": given["input_features"][:1].expand(3, -1, -1)}
        assert theirs == generated(
            model, 3, inputs_embeds=read_by(model, first), attention_mask=given["attention_mask"]
        )
    assert theirs != family.generate([clip], 0, 12, 3)[0].tokens


def test_n_best_lists_samples_and_prefixes(load: Load) -> None:
    family_laws.check_lists_samples_and_prefixes(load(), "a Voxtral model")


def test_the_language_stands_in_the_prompt_as_its_code(load: Load) -> None:
    english = load(language="en").prompt
    assert (
        english
        == [1, 3, 25, 24, 4, 293, 93, 294, 34]
        == load(language="English").prompt
        == load(language="en-GB").prompt
    )
    assert load(language=None).prompt == [1, 3, 25, 24, 4, 34]
    assert load(language="pt").prompt[5:-1] == [293, 35 + ord(":"), 35 + ord("p"), 35 + ord("t")]
    with pytest.raises(InputError, match="'klingon' has none"):
        load(language="klingon")


def test_a_run_remembers_its_language_and_another_one_can_be_given(tmp_path: Path, load: Load) -> None:
    load(language="de").save(tmp_path / "german")
    again = load(tmp_path / "german", language=None)
    assert (again.language, again.prompt) == ("de", load(language="de").prompt)
    assert load(tmp_path / "german", language="fr").prompt == load(language="fr").prompt
    load(language="it").save(tmp_path / "italian")  # as an adapter's record stands beside that of its base
    again.recall(tmp_path / "italian")
    assert (again.language, again.prompt) == ("it", load(language="it").prompt)


def test_parts_cover_every_weight_and_what_is_frozen_stays(load: Load) -> None:
    family_laws.check_parts(load(), ["lm_head.weight"])


def test_parts_go_by_the_names_of_transformers_too(load: Load) -> None:
    from speechtune.models.trainable import Layout

    family = load()
    layout = Layout(family)
    tower = layout.select({"audio_tower.layers": [0.5, 1.0]}, "model.train")
    assert tower == layout.select({"encoder.layers": [0.5, 1.0]}, "model.train")
    assert tower and all(name.startswith("model.audio_tower.layers.1.") for name in tower)
    assert family.part("audio_tower") is family.part("encoder")
    assert family.part("language_model") is family.part("decoder")
    assert layout.select("projector", "model.train") == [
        f"model.multi_modal_projector.linear_{one}.weight" for one in (1, 2)
    ]


ROLES = {"encoder_attention": 8, "encoder_mlp": 4, "decoder_attention": 8, "decoder_mlp": 6, "projector": 2}


@pytest.mark.parametrize(("targets", "count"), [*(([one], count) for one, count in ROLES.items()), (["attention"], 16)])
def test_adapters_by_role_merge_into_the_model(targets: list[str], count: int, load: Load) -> None:
    family_laws.check_adapters(load(), targets, count)


def test_unknown_roles_and_parts_are_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r"no layers of role 'ears': use attention, mlp, projector"):
        load().adapter_targets(["ears"])
    with pytest.raises(InputError, match="no part 'ears': use encoder, projector, decoder, head"):
        load().part("ears")


def test_dropout_and_label_smoothing_act_in_training_only(load: Load) -> None:
    family_laws.check_that_regularisation_acts_in_training_only(load())


def logits_of(family: VoxtralFamily, clip: np.ndarray) -> torch.Tensor:
    given = request(family, clip)
    with torch.no_grad():
        return family.model(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], **family.audio_inputs([clip])
        ).logits


def test_what_is_saved_loads_in_plain_transformers_with_the_same_logits(
    directory: Path, tmp_path: Path, load: Load
) -> None:
    from transformers import AutoTokenizer

    family, clip = load(), clips()[2]
    with torch.no_grad():
        family.part("head").weight.mul_(1.5)  # type: ignore[union-attr, operator]
    family.save(tmp_path / "saved")
    with torch.no_grad():
        theirs = plain(tmp_path / "saved")(**request(family, clip)).logits
        assert float((theirs - logits_of(family, clip)).abs().max()) < 5e-5
        assert float((theirs - plain(directory)(**request(family, clip)).logits).abs().max()) > 0.1
    stored = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert stored["architectures"] == ["VoxtralForConditionalGeneration"]
    for name in ("preprocessor_config.json", "tekken.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (directory / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved", mistral_format=False)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 11)
    text = "abba langue añ 日 ri"
    assert tokenizer.encode(text, add_special_tokens=False) == family.tokens(text)[0][9:-1]


def test_the_names_of_weights_in_released_checkpoints_load(directory: Path, tmp_path: Path, load: Load) -> None:
    """Voxtral-Mini-3B-2507 was saved by Transformers 4.54, with the language model's head inside it."""
    from safetensors.torch import load_file, save_file

    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    names = {
        "lm_head": "language_model.lm_head",
        "model.language_model": "language_model.model",
        "model.audio_tower": "audio_tower",
        "model.multi_modal_projector": "multi_modal_projector",
    }
    weights = {}
    for name, one in load_file(directory / "model.safetensors").items():
        old = next((old for old in names if name.startswith(f"{old}.")), None)
        bare = next(new for new in names.values() if old is None and name.startswith(f"{new}.")) if old is None else old
        weights[names.get(bare, bare) + name.removeprefix(bare)] = one.clone()
    assert any(name.startswith("language_model.model.layers.") for name in weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    clip = clips()[0]
    assert torch.equal(logits_of(load(tmp_path), clip), logits_of(load(), clip))
    load(tmp_path).save(tmp_path / "saved")
    assert torch.equal(logits_of(load(tmp_path / "saved"), clip), logits_of(load(), clip))


def test_a_checkpoint_with_tokenizer_json_needs_no_tekken_file(directory: Path, tmp_path: Path, load: Load) -> None:
    load().save(tmp_path / "model")
    (tmp_path / "model" / "tekken.json").unlink()
    family, text = load(tmp_path / "model"), "abba [AUDIO] langue añ 日 ri"
    assert family.tokens(text) == load().tokens(text)
    family.save(tmp_path / "again")
    assert not (tmp_path / "again" / "tekken.json").exists()
    assert load(tmp_path / "again").tokens(text) == load().tokens(text)


def test_bad_directories_get_one_sentence(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    with pytest.raises(InputError, match="does not load as a Voxtral model"):
        load_family(tmp_path, device="cpu")
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tekken.json").unlink()
    with pytest.raises(InputError, match=r"no tekken\.json and no tokenizer\.json"):
        load_family(tmp_path, device="cpu")
    stored = tiny_voxtral.tekken(WINDOW_S, 25.0, BINS)
    stored["special_tokens"][34]["token_str"] = "[SOMETHING]"
    (tmp_path / "tekken.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"no token \[TRANSCRIBE\]"):
        load_family(tmp_path, device="cpu")
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(InputError, match="does not load as a Voxtral model"):
        load_family(tmp_path, device="cpu")
    (tmp_path / "tekken.json").write_bytes((directory / "tekken.json").read_bytes())
    front = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**front, "feature_size": 80}))
    with pytest.raises(InputError, match="makes 80 bins at 16000 Hz and the encoder takes 40"):
        load_family(tmp_path, device="cpu")


def test_the_commands_work(tmp_path: Path) -> None:
    base = tiny_voxtral.make_voxtral(tmp_path / "base", spread=0.1)
    family_laws.check_commands(base, tmp_path, "voxtral")


# What follows runs where mistral-common is installed, which asks for another numpy (docs/dependencies.md).


def through_wav(clip: np.ndarray) -> tuple[np.ndarray, bytes]:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, clip, 16_000, format="wav")
    content = buffer.getvalue()
    return soundfile.read(io.BytesIO(content), dtype="float32")[0], content


@pytest.mark.parametrize("language", ["en", "pt", None])
def test_mistral_common_makes_the_same_request(language: str | None, tmp_path: Path, load: Load) -> None:
    """Prompt, places and features, by ``apply_transcription_request`` on what a run has saved."""
    pytest.importorskip("mistral_common", reason="mistral-common asks for numpy below 2.4")
    from transformers import VoxtralProcessor

    base = tiny_voxtral.make_voxtral(tmp_path / "base", spread=0.3, window_s=30.0, together=4)
    family = load(base, language)
    family.save(tmp_path / "saved")
    processor: Any = VoxtralProcessor.from_pretrained(tmp_path / "saved")
    for seconds in (0.4, 30.0, 31.0):
        clip, _ = through_wav(clips((seconds,))[0])
        heard, _ = through_wav(clip)
        asked = processor.apply_transcription_request(
            audio=[clip], model_id="any", language=language, sampling_rate=16_000, format=["wav"]
        )
        rows = family.prompt_rows([heard], SearchConfig())
        assert asked["input_ids"].tolist() == rows
        assert torch.equal(asked["input_features"], family.audio_inputs([heard])["input_features"][0])


def test_mistral_common_splits_texts_the_same_way(directory: Path, load: Load) -> None:
    pytest.importorskip("mistral_common", reason="mistral-common asks for numpy below 2.4")
    from transformers.tokenization_mistral_common import MistralCommonBackend

    theirs, family = MistralCommonBackend.from_pretrained(directory), load()
    rng = np.random.default_rng(0)
    letters = list("abcdefghilnr ABC,.'?0123\n-éñשלम日👍 ")
    texts = ["</s> [INST] [AUDIO]", "lang:en", *("".join(rng.choice(letters, rng.integers(1, 60))) for _ in range(500))]
    for text in map(str.strip, texts):
        tokens, prompt = family.tokens(text)
        assert tokens[prompt:-1] == theirs.encode(text, add_special_tokens=False)
        assert family.text(tokens[prompt:]) == text
