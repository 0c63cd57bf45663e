from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding import kept as module
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.kept import read_kept, transcribe_kept
from speechtune.decoding.sources import open_model


def test_interrupted_work_goes_on_and_equals_uninterrupted(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.load(tiny_corpus)
    opened = open_model(str(tiny_model), batch_size=4, overrides=["decoding.max_new_tokens=8"])
    key = {"model": "tiny"}
    monkeypatch.setattr(module, "_FLUSH_S", 0.0)
    calls = 0
    real = module.Searcher.transcripts

    def dying(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(module.Searcher, "transcripts", dying)
    with pytest.raises(KeyboardInterrupt):
        transcribe_kept(lambda: opened, corpus, corpus.utterances, tmp_path, key, "x")
    assert len(read_kept(tmp_path, key).transcripts) == 8
    found = transcribe_kept(lambda: opened, corpus, corpus.utterances, tmp_path, key, "x")
    assert calls == 3 + 3  # two batches were kept, the third was lost, three are left
    expected = transcribe_corpus(opened.family, corpus, opened.decoding)
    assert [one.text for one in found.of(corpus)] == [one.text for one in expected]
    spent = found.spent(corpus)
    assert spent.audio_s == pytest.approx(corpus.seconds_of_audio)
    assert spent.decode_s > 0 and (spent.memory_bytes or 0) > 2**20
    assert found.spent(corpus.utterances[:1]).audio_s == 0.0
    assert found.parameters == sum(one.numel() for one in opened.family.model.parameters())

    def never() -> Any:
        raise AssertionError("the model was opened although nothing was left")

    assert len(transcribe_kept(never, corpus, corpus.utterances, tmp_path, key, "x").transcripts) == len(corpus)
    with pytest.raises(InputError, match="'tiny', not 'other'"):
        read_kept(tmp_path, {"model": "other"})
