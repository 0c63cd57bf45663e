"""Several languages and the task in Whisper's prompt, in torch and in CTranslate2."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.engines.converting import converted
from speechtune.decoding.engines.ctranslate2 import Ctranslate2Whisper
from speechtune.decoding.long.timestamps import _given
from speechtune.decoding.searching import Searcher
from speechtune.models.family import load_family
from speechtune.models.search_config import SearchConfig
from speechtune.models.whisper import WhisperFamily
from speechtune.models.whisper_search import prompt_tokens

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_whisper import make_transformers

    directory = tmp_path_factory.mktemp("multilingual") / "model"
    make_transformers(directory, multilingual=True, positions=150, text_positions=48)
    return directory


def names(family: Any, ids: list[int]) -> list[str]:
    return [str(one) for one in family.tokenizer.convert_ids_to_tokens(ids)]


def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in (8_000, 14_000, 20_000)]


@pytest.fixture
def both(multilingual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    pytest.importorskip("ctranslate2")
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path))
    torch_family = load_family(multilingual, language="zh", device="cpu")
    torch_family.model.eval()
    directory = converted(multilingual, "float32")
    return [torch_family, Ctranslate2Whisper.load(directory, language="zh", threads=(1, 1), device="cpu")]


def test_the_prompt_holds_every_language_in_order_then_the_task(both: list[Any]) -> None:
    for family in both:
        assert names(family, family.prompt) == [
            "<|startoftranscript|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>",
        ]  # fmt: skip
        asked = SearchConfig(languages=["zh", "en"], prompt="the king", prefix="in the")
        given, start = prompt_tokens(family, asked)
        assert names(family, given[start:])[:5] == [
            "<|startoftranscript|>", "<|zh|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>",
        ]  # fmt: skip
        assert names(family, given[:1]) == ["<|startofprev|>"]
        assert family.text(given[start + 5 :]) == "in the"
        other = prompt_tokens(family, SearchConfig(task="translate"))[0]
        assert names(family, other)[1:3] == ["<|zh|>", "<|translate|>"]
        assert prompt_tokens(family, SearchConfig(languages=["zh"]))[0] == family.prompt
        with pytest.raises(InputError, match="no language 'xx'"):
            prompt_tokens(family, SearchConfig(languages=["zh", "xx"]))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("languages", [["zh", "en"], ["en", "zh", "de"]])
def test_the_text_is_what_transformers_says_after_the_same_prompt(
    both: list[Any], multilingual: Path, languages: list[str], beams: int
) -> None:
    from transformers import GenerationMixin, WhisperForConditionalGeneration

    ours, other = both
    reference = WhisperForConditionalGeneration.from_pretrained(multilingual, dtype=torch.float32).eval()
    ids = ours.tokenizer.convert_tokens_to_ids
    prompt = [ids(f"<|{one}|>") for one in ("startoftranscript", *languages, "transcribe", "notimestamps")]
    banned = {*(reference.generation_config.suppress_tokens or []), *range(ours.first_timestamp, 10**4)}
    n_frames = ours.context_frames(1.0, "full")
    theirs: Any = GenerationMixin.generate(
        reference,
        input_features=ours.front_end(waveforms(), n_frames),
        decoder_input_ids=torch.tensor([prompt] * 3),
        max_new_tokens=9,
        num_beams=beams,
        do_sample=False,
        suppress_tokens=sorted(one for one in banned if one < int(ours.config.vocab_size)),
        begin_suppress_tokens=reference.generation_config.begin_suppress_tokens,
    )
    expected = []
    for row in theirs[:, len(prompt) :].tolist():
        expected.append(row[: row.index(ours.eot)] if ours.eot in row else row)
    search = SearchConfig(languages=languages)
    assert [one.tokens for one in ours.generate(waveforms(), n_frames, 9, beams, search=search)] == expected
    if beams == 1:
        assert [one.tokens for one in other.generate(waveforms(), n_frames, 9, search=search)] == expected
        scored = search.model_copy(update={"scores": "always"})
        silence = [
            [one.no_speech_prob for one in family.generate(waveforms(), n_frames, 9, search=scored)] for family in both
        ]
        assert silence[0] == pytest.approx(silence[1], abs=1e-4)


def test_naming_the_models_own_language_changes_nothing(both: list[Any]) -> None:
    for family in both:
        n_frames = family.context_frames(1.0, "full")
        plain = family.generate(waveforms(), n_frames, 9)
        named = family.generate(waveforms(), n_frames, 9, search=SearchConfig(languages=["zh"]))
        twice = family.generate(waveforms(), n_frames, 9, search=SearchConfig(languages=["en", "zh"]))
        assert [one.tokens for one in named] == [one.tokens for one in plain]
        assert [one.log_prob for one in named] == pytest.approx([one.log_prob for one in plain], abs=1e-5)
        assert all(abs(one.log_prob - other.log_prob) > 1e-4 for one, other in zip(twice, plain, strict=True))


def test_windows_with_timestamps_have_the_same_languages(both: list[Any]) -> None:
    family = both[0]
    asked = {"search": {"languages": ["en", "de"], "task": "translate", "prompt": "the king"}}
    config = DecodingConfig.model_validate(asked)
    given = names(family, _given(family, family.tokenizer.encode("in", add_special_tokens=False), config))
    assert given[0] == "<|startofprev|>"
    assert given[-4:] == ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"]


def test_models_without_languages_say_so(tiny_model: Path, multilingual: Path) -> None:
    english = load_family(tiny_model)
    assert isinstance(english, WhisperFamily)
    for search, message in (({"task": "translate"}, "no task 'translate'"), ({"languages": ["en", "zh"]}, "not 'zh'")):
        config = DecodingConfig.model_validate({"search": search})
        with pytest.raises(InputError, match=message):
            Searcher(english, config).transcripts(["a"], waveforms()[:1], 300)

    class Other:
        name = "moonshine"

        def generate(
            self, waveforms: Any, n_frames: int, limit: int, beams: int = 1, *, search: Any, guides: Any
        ) -> Any:
            raise AssertionError

    with pytest.raises(InputError, match="Whisper's and this is a moonshine model"):
        Searcher(Other(), DecodingConfig.model_validate({"search": {"languages": ["en"]}}))  # type: ignore[arg-type]


def test_the_verb_needs_no_other_language_than_those_of_the_prompt(
    multilingual: Path, tiny_corpus: Path, tmp_path: Path, speechtune: Command
) -> None:
    said = speechtune(
        "transcribe", multilingual, tiny_corpus, "decoding.search.languages=[zh,en]", "decoding.max_new_tokens=8",
        "--context", "full", "--out", tmp_path / "x.jsonl", "--quiet",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(row["text"] for row in rows)
    wrong = speechtune("transcribe", multilingual, tiny_corpus, "decoding.search.languages=[zh,xx]")
    assert wrong.returncode == 2
    assert "no language 'xx'" in wrong.stderr and "Traceback" not in wrong.stderr
