"""A CTC model through the same commands as every other: train, evaluate, transcribe, models get."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_ctc

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import Family, load_family
from speechtune.training.config import TrainingConfig
from speechtune.training.data import TrainingSet, sampler_for
from speechtune.training.label_texts import label_texts
from speechtune.training.pool import training_pool

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctc.write_tones(tmp_path_factory.mktemp("tones") / "corpus")


def test_an_encoder_is_trained_evaluated_and_transcribes_from_the_command_line(
    tones: Path, tmp_path: Path, speechtune: Command
) -> None:
    from transformers import AutoModelForCTC, AutoProcessor

    encoder = tiny_ctc.make_encoder(tmp_path / "encoder", "wav2vec2-layer")
    recipe = tiny_ctc.write_recipe(
        tmp_path / "recipe.yaml",
        encoder,
        tones,
        model={"base": str(encoder), "ctc": {"head": "new", "case": "upper"}},
        training={"spec_augment": {"time_prob": 0.1, "time_length": 2}},
    )
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [row["context_after"] for row in summary["comparisons"]] == ["fit"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0]
    assert json.loads((tmp_path / "run" / "model" / "speechtune.json").read_text())["audio_contexts"] == ["fit"]
    AutoModelForCTC.from_pretrained(tmp_path / "run" / "model")
    assert "A" in AutoProcessor.from_pretrained(tmp_path / "run" / "model").tokenizer.get_vocab()

    done = speechtune("evaluate", tmp_path / "run", tones, "--split", "dev", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["context"] == "fit"
    done = speechtune("transcribe", tmp_path / "run", tones / "audio", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 2 * len(tiny_ctc.TEXTS)
    done = speechtune("transcribe", tmp_path / "run", tones / "audio", "--context", "full")
    assert done.returncode == 2
    assert "no padded window" in done.stderr


def test_models_get_loads_it_and_says_what_it_is(tmp_path: Path, speechtune: Command) -> None:
    path = tiny_ctc.make_ctc(tmp_path / "model", "hubert")
    done = speechtune("models", "get", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["family"] == "hubert"
    (path / "model.safetensors").write_bytes(b"")
    done = speechtune("models", "get", path)
    assert done.returncode == 2
    assert "cannot load" in done.stderr


def family_for(path: Path, corpus: Path, **settings: Any) -> Family:
    family = load_family(path, device="cpu")
    family.prepare(CtcConfig(**settings), label_texts(DataConfig(corpus=str(corpus))), 0)
    return family


def test_a_text_too_long_for_its_audio_is_refused_with_a_reason_and_counted(tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "corpus", ("ab", "c", "dad"))
    whole = Corpus.load(corpus)
    whole.utterances[0].text = "abba dada " * 20
    whole.save()
    family = family_for(tiny_ctc.make_ctc(tmp_path / "model", "wav2vec2-layer"), corpus)
    whole = Corpus.load(corpus)
    with pytest.raises(InputError, match=r"train00 .* is too short for its text \(CTC needs \d+ frames for 199 tokens"):
        training_pool(whole, family, DataConfig(corpus=str(corpus)))
    pool = training_pool(whole, family, DataConfig(corpus=str(corpus), unusable="drop"))
    assert pool.dropped == {"is too short for its text": 1}
    assert [row.utterance_id for row in pool.utterances] == ["train01", "train02"]


def test_a_vocabulary_from_lowered_texts_takes_lowered_labels(tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "corpus", ("ab", "c", "dad"))
    whole = Corpus.load(corpus)
    whole.utterances[0].text = "AB"
    whole.save()
    data = DataConfig(corpus=str(corpus), case="lower")
    assert label_texts(data) == ["ab", "c", "dad"]
    family = load_family(tiny_ctc.make_encoder(tmp_path / "model", "hubert"), device="cpu")
    family.prepare(CtcConfig(head="new"), label_texts(data), 0)
    assert len(training_pool(Corpus.load(corpus), family, data).utterances) == 3


def test_no_batch_is_stretched_to_a_window_that_the_model_does_not_have(tones: Path, tmp_path: Path) -> None:
    family = family_for(tiny_ctc.make_ctc(tmp_path / "model", "wav2vec2-group"), tones)
    corpus = Corpus.load(tones).split("train")
    data = TrainingSet(corpus, corpus.utterances, family, DataConfig(corpus=str(tones)))
    config = TrainingConfig(audio_context={"full_share": 0.5, "jitter_s": 2.0})
    sampler = sampler_for(config, data)
    longest_s = max(row.duration_s for row in corpus)
    assert max(pick.context_s for batch in sampler.plan(0) for pick in batch) == pytest.approx(longest_s)


def test_label_likelihoods_need_a_decoder(tones: Path, tmp_path: Path) -> None:
    from speechtune.decoding.label_likelihood import label_likelihoods

    family = family_for(tiny_ctc.make_ctc(tmp_path / "model", "hubert"), tones)
    with pytest.raises(InputError, match="judge labels with a Whisper model"):
        label_likelihoods(family, [], [], 0)
