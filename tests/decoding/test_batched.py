"""Batching changes the speed, never which utterance gets which text."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches, transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.sources import open_model, open_source
from speechtune.decoding.transcript import Transcript, read_transcripts, write_transcripts
from speechtune.models.family import Family, load_family

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def family(tiny_model: Path) -> Family:
    return load_family(tiny_model)


def test_texts_do_not_depend_on_the_batch_at_full_context(family: Family, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    settings = {"context": "full", "max_new_tokens": 8}
    alone = transcribe_corpus(family, corpus, DecodingConfig(batch_size=1, **settings))  # type: ignore[arg-type]
    together = transcribe_corpus(family, corpus, DecodingConfig(batch_size=7, **settings))  # type: ignore[arg-type]
    assert [one.utterance_id for one in together] == [utterance.utterance_id for utterance in corpus]
    assert [one.text for one in together] == [one.text for one in alone]
    assert len({one.text for one in alone}) > 1


def test_batches_hold_similar_lengths_within_both_bounds(family: Family, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    config = DecodingConfig(batch_size=6, batch_seconds=6.0, margin_s=0.1)
    batches = plan_batches(family, corpus.utterances, config)
    assert sorted(one.utterance_id for batch, _ in batches for one in batch) == sorted(
        utterance.utterance_id for utterance in corpus
    )
    longest = [max(one.duration_s for one in batch) for batch, _ in batches]
    assert longest == sorted(longest, reverse=True)
    for (batch, n_frames), seconds in zip(batches, longest, strict=True):
        assert len(batch) <= 6
        assert len(batch) * (seconds + 0.1) <= 6.0 or len(batch) == 1
        assert seconds * 100 <= n_frames <= (seconds + 0.1) * 100 + 2


def test_full_context_counts_the_window_not_the_clip(family: Family, tiny_corpus: Path) -> None:
    config = DecodingConfig(context="full", batch_seconds=6.0)
    for batch, n_frames in plan_batches(family, Corpus.load(tiny_corpus).utterances, config):
        assert n_frames == 300
        assert len(batch) <= 2


def test_a_clip_longer_than_the_window_is_named(family: Family, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    corpus.utterances[3].duration_s = 3.01
    with pytest.raises(InputError, match=r"u03\.wav .u03. is 3\.0 s long and the model's window is 3 s"):
        transcribe_corpus(family, corpus, DecodingConfig())


def test_transcripts_survive_the_round_trip(tmp_path: Path) -> None:
    said = [
        Transcript(utterance_id="a", text="", log_prob=-0.5),
        Transcript(utterance_id="b", text="one\u2028two", flags=["truncated"]),
    ]
    write_transcripts(tmp_path / "t.jsonl", said)
    assert read_transcripts(tmp_path / "t.jsonl") == said


def test_the_verb_takes_a_file_a_folder_and_a_corpus(
    speechtune: Command, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus = json.loads(speechtune("transcribe", tiny_model, tiny_corpus, "--split", "dev", "--json").stdout)
    assert corpus["kept"] == 4
    folder = json.loads(speechtune("transcribe", tiny_model, tiny_corpus / "audio", "--json", "--quiet").stdout)
    assert folder["kept"] == 20
    out = tmp_path / "one.jsonl"
    done = speechtune("transcribe", tiny_model, tiny_corpus / "audio" / "u16.wav", "--out", out)
    assert done.returncode == 0, done.stderr
    (one,) = read_transcripts(out)
    assert one.utterance_id == "u16.wav"
    by_id = {row["utterance_id"]: row["text"] for row in corpus["transcripts"]}
    assert one.text == by_id["u16"]


def test_a_model_is_decoded_at_the_context_it_was_trained_for(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    assert open_model(str(tiny_model)).decoding.context == "full"
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_model, tuned)
    (tuned / "speechtune.json").write_text('{"audio_contexts": ["fit", "full"]}')
    assert open_model(str(tuned)).decoding.context == "fit"
    assert open_model(str(tuned), context="full").decoding.context == "full"


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no audio files"):
        open_source(tmp_path, window_s=30)
