"""What one decoding setting does: errors on speech, words on clips without speech, time. Each is decoded once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speechtune.core.files import read_json, write_json
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.transcript import Transcript, read_transcripts, write_transcripts
from speechtune.models.family import Family
from speechtune.scoring.counting import NormaliserSpec, count_texts
from speechtune.scoring.tuning.space import key_of

Metric = Literal["wer", "cer"]


@dataclass(slots=True)
class Measured:
    """``errors``: of each utterance, in the corpus's order; ``inserted_per_min``: words a minute on clips without
    speech; ``rtf``: seconds of decoding by seconds of speech.
    """

    errors: np.ndarray
    inserted_per_min: float
    rtf: float


class Measurer:
    """Measures settings of one model on one corpus; transcripts are kept below ``keep`` and used again."""

    def __init__(
        self, family: Family, speech: Corpus, nonspeech: Corpus | None, normaliser: str, metric: Metric, keep: Path
    ) -> None:
        self.family, self.speech, self.nonspeech = family, speech, nonspeech
        self.spec, self.metric, self.keep = NormaliserSpec(normaliser), metric, keep
        self.lengths = self._counts([utterance.text for utterance in speech])[:, :3].sum(axis=1)

    def measure(self, config: DecodingConfig, title: str) -> Measured:
        """Decode (unless it is done) and count.

        Raises:
            InputError: the model cannot do what the setting asks.
        """
        place = self.keep / key_of(config)
        spoken, empty, facts = place / "speech.jsonl", place / "nonspeech.jsonl", place / "measured.json"
        if not facts.is_file():
            begin_s = time.perf_counter()
            heard = transcribe_corpus(self.family, self.speech, config, title)
            taken_s = time.perf_counter() - begin_s
            write_transcripts(spoken, heard)
            if self.nonspeech:
                write_transcripts(empty, transcribe_corpus(self.family, self.nonspeech, config, f"{title}, no speech"))
            write_json(facts, {"decoding": config.model_dump(), "seconds": round(taken_s, 3)})
        known: dict[str, Any] = read_json(facts)
        counts = self._counts(_in_order(self.speech, read_transcripts(spoken)))
        return Measured(
            counts[:, 1:].sum(axis=1),
            self._inserted_per_min(read_transcripts(empty)) if self.nonspeech else 0.0,
            known["seconds"] / max(self.speech.seconds_of_audio, 1e-9),
        )

    def _counts(self, texts: list[str]) -> np.ndarray:
        counted = count_texts([utterance.text for utterance in self.speech], texts, self.spec)
        return counted.words if self.metric == "wer" else counted.chars

    def _inserted_per_min(self, transcripts: list[Transcript]) -> float:
        assert self.nonspeech is not None
        normalise = self.spec.build()
        words = sum(len(normalise(one.text).split()) for one in transcripts)
        return words / (self.nonspeech.seconds_of_audio / 60)


def _in_order(corpus: Corpus, transcripts: list[Transcript]) -> list[str]:
    texts = {one.utterance_id: one.text for one in transcripts}
    return [texts[utterance.utterance_id] for utterance in corpus]
