"""CTranslate2 decodes what torch decodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches, transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.engines.converting import conversions_home, converted
from speechtune.decoding.engines.threads import choose_threads
from speechtune.decoding.sources import OpenedModel, open_model, trained_for

pytest.importorskip("ctranslate2")
Command = Callable[..., subprocess.CompletedProcess[str]]
SIZE = "decoding.max_new_tokens=12"


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / "engine-home"
    monkeypatch.setenv("SPEECHTUNE_HOME", str(home))


def opened(model: Path | str, *overrides: str, context: str = "fit", beams: int = 1) -> OpenedModel:
    return open_model(str(model), context=context, beams=beams, overrides=[SIZE, *overrides])


@pytest.mark.parametrize("context", ["fit", "full"])
def test_greedy_text_tokens_and_flags_are_torchs(tiny_model: Path, tiny_corpus: Path, context: str) -> None:
    corpus = Corpus.load(tiny_corpus)
    torch = opened(tiny_model, context=context)
    other = opened(tiny_model, "decoding.engine=ctranslate2", context=context)
    assert other.family.name == "whisper-ctranslate2" and torch.family.name == "whisper"
    expected = transcribe_corpus(torch.family, corpus, torch.decoding)
    found = transcribe_corpus(other.family, corpus, other.decoding)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.flags for one in found] == [one.flags for one in expected]
    assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in expected], abs=2e-3)
    assert len({one.text for one in found}) > 1 and any(one.flags for one in found)


def test_a_prompt_a_prefix_and_n_best_are_torchs(tiny_model: Path, tiny_corpus: Path) -> None:
    corpus = Corpus(tiny_corpus, Corpus.load(tiny_corpus).utterances[:4])
    asked = ["decoding.search.prompt=the king", "decoding.search.prefix=thing", "decoding.search.scores=always"]
    both = [opened(tiny_model, *asked), opened(tiny_model, *asked, "decoding.engine=ctranslate2")]
    (torch, found) = (transcribe_corpus(one.family, corpus, one.decoding) for one in both)
    assert [one.text for one in found] == [one.text for one in torch]
    assert all(one.text.startswith("thing") for one in found)
    assert [one.no_speech_prob for one in found] == pytest.approx([one.no_speech_prob for one in torch], abs=1e-4)
    assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in torch], abs=2e-3)
    listed = opened(tiny_model, "decoding.search.n_best=3", "decoding.engine=ctranslate2", beams=3)
    for one in transcribe_corpus(listed.family, corpus, listed.decoding):
        assert len(one.nbest) == 3 and one.nbest[0]["text"] == one.text


def test_the_guards_probability_of_silence_is_torchs(tiny_model: Path) -> None:
    from speechtune.decoding.guards import no_speech_probabilities

    clips = [0.3 * np.sin(np.arange(size, dtype=np.float32) * 0.07) for size in (9_000, 12_000)]
    torch, other = (opened(tiny_model, *more).family for more in ([], ["decoding.engine=ctranslate2"]))
    expected = no_speech_probabilities(torch, clips, 100)
    assert no_speech_probabilities(other, clips, 100) == pytest.approx(expected, abs=1e-5)
    assert all(0 < one < 1 for one in expected)


def test_a_limit_below_the_prompt_still_counts_new_tokens(tiny_model: Path) -> None:
    asked = ["decoding.search.prompt=the king in the inn", "decoding.engine=ctranslate2"]
    family = opened(tiny_model, *asked).family
    search = opened(tiny_model, *asked).decoding.search
    tone = 0.3 * np.sin(np.arange(9_000, dtype=np.float32) * 0.07)
    for limit in (2, 5, 30):
        (one,) = family.generate([tone], 80, limit, search=search)  # type: ignore[call-arg]
        assert len(one.tokens) <= limit and one.truncated == (len(one.tokens) == limit)
    assert one.log_prob < 0


def test_pieces_of_a_batch_decoded_at_once_stay_in_order(tiny_model: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    ways = [opened(tiny_model, "decoding.engine=ctranslate2", f"decoding.inter_threads={n}", "decoding.intra_threads=1")
            for n in (1, 3)]  # fmt: skip
    first, second = (transcribe_corpus(one.family, corpus, one.decoding) for one in ways)
    assert ways[1].family.facts["inter_threads"] == 3  # type: ignore[attr-defined]
    assert [one.text for one in first] == [one.text for one in second]


def test_windows_encoded_one_by_one_say_the_same(
    tiny_model: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechtune.decoding.engines import threads

    corpus = Corpus.load(tiny_corpus)
    one = opened(tiny_model, "decoding.engine=ctranslate2", "decoding.search.scores=always", context="full")
    whole = transcribe_corpus(one.family, corpus, one.decoding)
    sizes: list[int] = []

    class Counted:
        """The engine, telling what its encoder is given."""

        device = "cpu"
        generate = one.family.engine.generate  # type: ignore[attr-defined]

        def encode(self, features: Any) -> Any:
            sizes.append(features.shape[0])
            return encode(features)

    encode = one.family.engine.encode  # type: ignore[attr-defined]
    monkeypatch.setattr(one.family, "engine", Counted())
    monkeypatch.setattr(threads, "LONG_FRAMES", 200)
    monkeypatch.setattr(threads, "PIECE_FRAMES", 700)  # two of this model's windows
    found = transcribe_corpus(one.family, corpus, one.decoding)
    assert sum(sizes) == len(corpus.utterances) and max(sizes) == 2
    assert [row.text for row in found] == [row.text for row in whole]
    assert [row.log_prob for row in found] == pytest.approx([row.log_prob for row in whole], abs=1e-3)
    assert [row.no_speech_prob for row in found] == pytest.approx([row.no_speech_prob for row in whole], abs=1e-4)


def test_a_cpu_gets_batches_of_twice_the_seconds(tiny_model: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    sizes = []
    for engine in ("torch", "ctranslate2"):
        one = opened(tiny_model, f"decoding.engine={engine}", "decoding.batch_seconds=6", context="full")
        sizes.append(max(len(batch) for batch, _ in plan_batches(one.family, corpus.utterances, one.decoding)))
    assert sizes == [2, 4]  # windows of 3 s


def test_a_conversion_is_kept_until_its_source_changes(tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(tiny_model, source)
    first = converted(source, "int8")
    before = (first / "model.bin").stat().st_mtime_ns
    assert converted(source, "int8") == first and (first / "model.bin").stat().st_mtime_ns == before
    assert first.is_relative_to(conversions_home())
    weights = source / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert converted(source, "int8") == first and (first / "model.bin").stat().st_mtime_ns != before


def test_a_ctranslate2_directory_is_a_model(
    speechtune: Command, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    from tiny_whisper import make_ctranslate2

    directory = make_ctranslate2(tiny_model, tmp_path / "ct2", None)
    done = speechtune("evaluate", directory, tiny_corpus, SIZE, "--split", "dev", "--json", "--context", "fit")
    assert done.returncode == 0, done.stderr
    same = speechtune("evaluate", tiny_model, tiny_corpus, SIZE, "--split", "dev", "--json", "--context", "fit")
    assert json.loads(done.stdout)["wer"] == json.loads(same.stdout)["wer"]
    refused = speechtune("transcribe", directory, tiny_corpus, "decoding.engine=torch")
    assert refused.returncode == 2 and "decoding.engine=ctranslate2" in refused.stderr
    (directory / "tokenizer.json").unlink()
    broken = speechtune("transcribe", directory, tiny_corpus)
    assert broken.returncode == 2 and "no tokenizer.json" in broken.stderr and "Traceback" not in broken.stderr


def transcribe_with(model: Path, corpus: Corpus, wish: str) -> None:
    one = opened(model, "decoding.engine=ctranslate2", wish)
    transcribe_corpus(one.family, corpus, one.decoding)


def test_what_ctranslate2_cannot_do_is_refused(tiny_model: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    for wish, part in {
        "decoding.boost.terms=[king]": "needs the scores of every token|need the scores of every token",
        "decoding.compute_type=float16": "not what CTranslate2 can do on this cpu",
    }.items():
        with pytest.raises(InputError, match=part):
            transcribe_with(tiny_model, corpus, wish)
    drawn = ["decoding.search.sample=true", "decoding.search.top_p=0.5"]
    one = opened(tiny_model, "decoding.engine=ctranslate2", *drawn)
    with pytest.raises(InputError, match="top_p is not in CTranslate2"):
        transcribe_corpus(one.family, corpus, one.decoding)
    with pytest.raises(InputError, match="can only transcribe"):
        one.family.collate([], 10)
    with pytest.raises(InputError, match=r"needs decoding\.engine=ctranslate2"):
        opened(tiny_model, "decoding.compute_type=int8")


def test_threads_are_measured_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speechtune.decoding.engines import threads

    directory = converted(tiny_model, "float32")
    sizes = {"width": 32, "layers": 1, "mels": 80, "window": 300, "eot": 260, "start": 261}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    tried: list[tuple[int, int]] = []

    def seconds(directory: Path, compute_type: str, choice: tuple[int, int], sizes: dict[str, int]) -> float:
        tried.append(choice)
        return {1: 0.5, 2: 0.3, 4: 0.4}[choice[0]]

    monkeypatch.setattr(threads, "_seconds", seconds)
    assert choose_threads(directory, "float32", tmp_path / "t.json", sizes) == (2, 2)
    assert choose_threads(directory, "float32", tmp_path / "t.json", sizes) == (2, 2)
    assert sorted(tried) == [(1, 4), (2, 2), (4, 1)]
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert choose_threads(directory, "float32", tmp_path / "none.json", sizes) == (1, 1)
    assert threads._seconds(directory, "float32", (1, 1), sizes) > 0


STOCK = Path(os.environ.get("SPEECHTUNE_HOME", "~/.cache/speechtune")).expanduser() / "models" / "whisper-tiny.en"


def test_text_on_real_clips_is_torchs(shared_speech: Path) -> None:
    from speechtune.models.obtaining import resolve_model

    model = os.environ.get("SPEECHTUNE_TEST_MODEL") or str(STOCK)
    if not Path(model).is_dir():
        pytest.skip(f"no real model here ({model}); name one in SPEECHTUNE_TEST_MODEL")
    files = sorted((shared_speech / "speechocean762" / "children").rglob("*.ogg"))[:40:4]
    if not files:
        pytest.skip(f"no clips below {shared_speech}")
    resolve_model(model)
    from speechtune.decoding.sources import open_source

    source = open_source(files[0].parent, window_s=30)
    corpus = Corpus(source.root, source.utterances[::60][:8])
    contexts = trained_for(Path(model)).get("audio_contexts", ["full"])  # a stock model loops at fitted context
    for context in contexts:
        both = [
            open_model(model, context=context),
            open_model(model, context=context, overrides=["decoding.engine=ctranslate2"]),
        ]
        torch, found = (transcribe_corpus(one.family, corpus, one.decoding) for one in both)
        assert [one.text for one in found] == [one.text for one in torch]
    assert sum(len(one.text) for one in found) > 50


def test_default_settings_name_torch() -> None:
    assert DecodingConfig().engine == "torch" and DecodingConfig().compute_type == "float32"
