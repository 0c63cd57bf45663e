"""CTranslate2 to Transformers: compared with the model CTranslate2's own converter started from."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

import torch
from tiny_whisper import POSITIONS, TIMESTAMPS, make_ctranslate2, make_transformers
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models import packaged
from speechtune.models.checking import check_exact
from speechtune.models.importers.ctranslate2 import read_ctranslate2
from speechtune.models.importers.ctranslate2_whisper import ctranslate2_to_transformers
from speechtune.models.packages import PACKAGED

SHARED = Path(__file__).parents[3] / "shared" / "data" / "speechocean762" / "adults" / "audio"


@pytest.fixture(scope="module", params=[True, False], ids=["multilingual", "english"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A random Whisper and the directory it was saved in."""
    directory = tmp_path_factory.mktemp("tiny")
    return make_transformers(directory, multilingual=request.param), directory


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 CTranslate2 directory."""
    folder = tmp_path_factory.mktemp("converted")
    make_transformers(folder / "hf")
    return make_ctranslate2(folder / "hf", folder / "ct2", "float16")


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_import_gives_every_original_value(tiny: tuple[Any, Path], kind: str, tmp_path: Path) -> None:
    model, directory = tiny
    source = make_ctranslate2(directory, tmp_path / "ct2", kind)
    facts = ctranslate2_to_transformers(source, tmp_path / "hf")
    back = WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf").state_dict()
    original = model.state_dict()
    assert facts["stored_as"] == kind
    assert back.keys() == original.keys()
    for name, tensor in original.items():
        assert back[name].dtype == torch.float32
        assert torch.equal(back[name], tensor.to(getattr(torch, kind)).float()), name


def test_import_gives_the_original_logits(tiny: tuple[Any, Path], tmp_path: Path) -> None:
    model, directory = tiny
    ctranslate2_to_transformers(make_ctranslate2(directory, tmp_path / "ct2", "float32"), tmp_path / "hf")
    back = WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    features = torch.randn(2, 80, 2 * POSITIONS, generator=torch.Generator().manual_seed(1))
    tokens = torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        assert torch.equal(
            back(features, decoder_input_ids=tokens).logits, model(features, decoder_input_ids=tokens).logits
        )


def test_import_gives_the_original_configuration(tiny: tuple[Any, Path], tmp_path: Path) -> None:
    model, directory = tiny
    ctranslate2_to_transformers(make_ctranslate2(directory, tmp_path / "ct2", "float16"), tmp_path / "hf")
    back = WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf")
    ours, theirs = back.config.to_dict(), model.config.to_dict()
    passing = {"_name_or_path", "transformers_version", "architectures", "dtype", "suppress_tokens", "max_length"}
    assert {k: v for k, v in ours.items() if k not in passing} == {k: v for k, v in theirs.items() if k not in passing}
    wanted = model.generation_config.to_dict()
    for name in ("suppress_tokens", "begin_suppress_tokens", "is_multilingual", "no_timestamps_token_id", "max_length"):
        assert back.generation_config.to_dict()[name] == wanted[name], name
    assert back.generation_config.to_dict().get("lang_to_id") == wanted.get("lang_to_id")
    assert back.generation_config.to_dict().get("task_to_id") == wanted.get("task_to_id")
    assert back.generation_config.to_dict()["alignment_heads"] == [[0, 1]]
    assert getattr(back.generation_config, "forced_decoder_ids", None) is None


def test_tokenizer_knows_prefixes_and_timestamps(tiny: tuple[Any, Path], tmp_path: Path) -> None:
    model, directory = tiny
    ctranslate2_to_transformers(make_ctranslate2(directory, tmp_path / "ct2", "float16"), tmp_path / "hf")
    processor = WhisperProcessor.from_pretrained(tmp_path / "hf")
    tokenizer, ids = processor.tokenizer, model.generation_config
    start, silent = ids.decoder_start_token_id, ids.no_timestamps_token_id
    assert tokenizer.prefix_tokens == [start, silent]
    if ids.is_multilingual:
        tokenizer.set_prefix_tokens(language="de", task="transcribe")
        assert tokenizer.prefix_tokens == [start, start + 3, ids.task_to_id["transcribe"], silent]
    text = "the thing, wörld नमस्ते"
    encoded = tokenizer(text).input_ids
    assert encoded[-1] == ids.eos_token_id
    assert tokenizer.decode(encoded, skip_special_tokens=True) == text
    assert tokenizer.all_special_ids[-1] == silent  # Transformers takes the next id for <|0.00|>
    timed = tokenizer("<|0.00|>the<|1.50|>", add_special_tokens=False).input_ids
    assert (timed[0], timed[-1]) == (silent + 1, silent + 1 + 75)
    assert tokenizer.decode(timed, decode_with_timestamps=True) == "<|0.00|>the<|1.50|>"
    assert len(tokenizer) == silent + 1 + TIMESTAMPS
    assert processor.feature_extractor.nb_max_frames == 2 * POSITIONS


def test_untied_projection_is_kept(tmp_path: Path) -> None:
    model = make_transformers(tmp_path / "hf", tied=False)
    source = make_ctranslate2(tmp_path / "hf", tmp_path / "ct2", "float32")
    ctranslate2_to_transformers(source, tmp_path / "back")
    back = WhisperForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert torch.equal(back.proj_out.weight, model.proj_out.weight)
    assert not torch.equal(back.proj_out.weight, back.model.decoder.embed_tokens.weight)


def test_check_exact_sees_one_changed_bit(converted: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    ctranslate2_to_transformers(converted, tmp_path / "hf")
    assert check_exact(converted / "model.bin", tmp_path / "hf")[0]
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    values = tensors["model.encoder.layers.1.self_attn.v_proj.bias"]
    values[7] = np.nextafter(np.float16(values[7]), np.float16(np.inf))
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(Exception, match="encoder/layer_1/self_attention/linear_0/bias differs"):
        check_exact(converted / "model.bin", tmp_path / "hf")


def test_a_cut_or_lengthened_file_is_refused(converted: Path, tmp_path: Path) -> None:
    whole = (converted / "model.bin").read_bytes()
    path = tmp_path / "model.bin"
    for size in [0, 1, 15, 16, 20, *range(21, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_ctranslate2(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="1 bytes are left over"):
        read_ctranslate2(path)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    for head in (b"", struct.pack("<I", 6), struct.pack("<IH", 6, 3) + b"ab\0"):
        (tmp_path / "model.bin").write_bytes(head + generator.bytes(4000))
        with pytest.raises(InputError):
            read_ctranslate2(tmp_path / "model.bin")


@pytest.mark.parametrize("kind", ["int8", "int16", "int8_float16"])
def test_quantised_models_are_refused(converted: Path, kind: str, tmp_path: Path) -> None:
    source = make_ctranslate2(converted.parent / "hf", tmp_path / "ct2", kind)
    with pytest.raises(InputError, match="is quantised"):
        ctranslate2_to_transformers(source, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def _copy(source: Path, target: Path, **replaced: bytes) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(replaced.get(path.stem, path.read_bytes()))
    return target


def test_other_architectures_and_layouts_are_refused(converted: Path, tmp_path: Path) -> None:
    whole = (converted / "model.bin").read_bytes()
    changes = {
        "spec": (b"WhisperSpec", b"WhispxrSpec", "WhispxrSpec"),
        "version": (struct.pack("<I", 6), struct.pack("<I", 5), "binary version"),
        "variable": (b"encoder/conv1/bias\0", b"encoder/conv1/bixs\0", "encoder/conv1/bias"),
        "layer": (b"decoder/layer_0/ffn/linear_1/bias\0", b"decoder/layer_0/ffn/linear_9/bias\0", "linear_1/bias"),
    }
    for name, (old, new, message) in changes.items():
        source = _copy(converted, tmp_path / name, model=whole.replace(old, new, 1))
        with pytest.raises(InputError, match=message):
            ctranslate2_to_transformers(source, tmp_path / "out")


def test_a_key_bias_is_refused(converted: Path, tmp_path: Path) -> None:
    whole = (converted / "model.bin").read_bytes()
    name = b"encoder/layer_0/self_attention/linear_0/bias\0"
    values = whole.index(name) + len(name) + 1 + 4 + 1 + 4
    key = values + 32 * 2  # float16: the query's 32 values come first
    changed = whole[:key] + struct.pack("<e", 0.5) + whole[key + 2 :]
    with pytest.raises(InputError, match="key bias in encoder/layer_0"):
        ctranslate2_to_transformers(_copy(converted, tmp_path / "ct2", model=changed), tmp_path / "out")


def test_files_of_different_models_are_refused(converted: Path, tmp_path: Path) -> None:
    source = _copy(converted, tmp_path / "ct2")
    vocabulary = read_json(source / "vocabulary.json")
    vocabulary[5], vocabulary[6] = vocabulary[6], vocabulary[5]
    write_json(source / "vocabulary.json", vocabulary)
    with pytest.raises(InputError, match="belong to different models"):
        ctranslate2_to_transformers(source, tmp_path / "out")
    document = read_json(source / "tokenizer.json")
    document["added_tokens"].pop()
    write_json(source / "tokenizer.json", document)
    with pytest.raises(InputError, match="not the tokenizer of a Whisper model"):
        ctranslate2_to_transformers(source, tmp_path / "out")
    (source / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        ctranslate2_to_transformers(source, tmp_path / "out")


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_real_checkpoints_decode_as_ctranslate2_does(name: str, tmp_path: Path) -> None:
    if not packaged.at_hand(PACKAGED[name]):
        pytest.skip(f"{PACKAGED[name].source} is neither installed nor in the SPEECHTUNE_WHEELS folder")
    if not SHARED.is_dir():
        pytest.skip(f"real speech is not at {SHARED}")
    import ctranslate2
    import soundfile

    packaged.gather(PACKAGED[name], tmp_path / "ct2", allow_download=False)
    ctranslate2_to_transformers(tmp_path / "ct2", tmp_path / "hf")
    assert check_exact(tmp_path / "ct2" / "model.bin", tmp_path / "hf")[0]
    engine = ctranslate2.models.Whisper(str(tmp_path / "ct2"), compute_type="float32")
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    processor = WhisperProcessor.from_pretrained(tmp_path / "hf")
    options = {"language": "en", "task": "transcribe"} if engine.is_multilingual else {}
    processor.tokenizer.set_prefix_tokens(**options)
    for path in sorted(SHARED.glob("*.ogg"))[::80]:
        audio, rate_hz = soundfile.read(path, dtype="float32")
        features = processor(audio, sampling_rate=rate_hz, return_tensors="pt").input_features
        view = ctranslate2.StorageView.from_array(features.numpy())
        theirs = engine.generate(view, [processor.tokenizer.prefix_tokens], beam_size=1)[0].sequences_ids[0]
        ours = model.generate(features, num_beams=1, do_sample=False, **options)[0].tolist()
        special = set(processor.tokenizer.all_special_ids)
        assert [token for token in ours if token not in special] == theirs, path.name
