from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.sources import OpenedModel
from speechtune.models.family import Hypothesis, Limits
from speechtune.scoring.label_pseudo import Labeller, PseudoLabelConfig, label_recordings, why_not


class Parrot:
    """A family that says what it is told, clip after clip in the order of length; ``stop_after`` breaks it."""

    language = "en"
    limits = Limits(30.0, 448)

    def __init__(self, text: str = "hello there", log_prob: float = -0.1, stop_after: int | None = None) -> None:
        self.model = self
        self.said, self.log_prob, self.stop_after = text, log_prob, stop_after
        self.clips = 0

    def eval(self) -> None:
        """Nothing to switch."""

    def context_frames(self, seconds: float, context: str = "fit") -> int:
        return 100

    def generate(self, waveforms: Sequence[np.ndarray], *rest: Any) -> list[Hypothesis]:
        if self.stop_after is not None and self.clips >= self.stop_after:
            raise KeyboardInterrupt
        self.clips += len(waveforms)
        return [Hypothesis(self.said, [1], self.log_prob, False) for _ in waveforms]


def labeller(family: Any, path: Path, name: str = "parrot") -> Labeller:
    return Labeller(name=name, opened=OpenedModel(path, family, DecodingConfig(batch_size=4)))


LOOSE = PseudoLabelConfig(min_duration_s=0.0, max_chars_per_s=1000.0)


def test_labels_carry_where_they_came_from_and_counts_add_up(tiny_corpus: Path, tmp_path: Path) -> None:
    result = label_recordings(tiny_corpus, labeller(Parrot(), tmp_path), tmp_path / "out", LOOSE)
    rows = Corpus.load(tmp_path / "out").utterances
    before = Corpus.load(tiny_corpus).utterances
    assert result.kept == 20 and [row.text for row in rows] == ["hello there"] * 20
    assert rows[0].extra == {
        "text_before_label": before[0].text,
        "label_source": "model",
        "label_model": "parrot",
        "label_log_prob": -0.1,
        "label_round": 1,
    }
    assert all(row.speaker_id == old.speaker_id for row, old in zip(rows, before, strict=True))
    again = label_recordings(tmp_path / "out", labeller(Parrot(), tmp_path), tmp_path / "second", LOOSE)
    assert again.round == 2


def test_an_interrupted_run_continues_and_ends_in_the_same_corpus(tiny_corpus: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    label_recordings(tiny_corpus, labeller(Parrot(), tmp_path), whole, LOOSE)
    with pytest.raises(KeyboardInterrupt):
        label_recordings(tiny_corpus, labeller(Parrot(stop_after=8), tmp_path), tmp_path / "out", LOOSE)
    assert not (tmp_path / "out").exists()
    rest = Parrot()
    label_recordings(tiny_corpus, labeller(rest, tmp_path), tmp_path / "out", LOOSE)
    assert rest.clips == 12
    assert (tmp_path / "out" / "metadata.jsonl").read_bytes() == (whole / "metadata.jsonl").read_bytes()


def test_two_models_must_agree(tiny_corpus: Path, tmp_path: Path) -> None:
    second = labeller(Parrot("hello here"), tmp_path, "other")
    with pytest.raises(InputError, match=r"the models differ by more than 0\.2 WER: 20"):
        label_recordings(tiny_corpus, labeller(Parrot(), tmp_path), tmp_path / "out", LOOSE, second=second)
    close = LOOSE.model_copy(update={"max_wer": 0.5})
    label_recordings(tiny_corpus, labeller(Parrot(), tmp_path), tmp_path / "out", close, second=second)
    assert {row.extra["label_disagreement"] for row in Corpus.load(tmp_path / "out")} == {0.5}


def test_a_folder_of_audio_serves_and_unreadable_files_are_counted(tiny_corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_corpus, tmp_path / "in")
    (folder / "audio" / "u00.wav").unlink()
    result = label_recordings(folder, labeller(Parrot(), tmp_path), tmp_path / "out", LOOSE)
    assert result.kept == 19 and result.dropped_by_reason == {"audio cannot be read": 1}
    plain = label_recordings(folder / "audio", labeller(Parrot(), tmp_path), tmp_path / "plain", LOOSE)
    assert plain.kept == 19 and "text_before_label" not in Corpus.load(tmp_path / "plain").utterances[0].extra


@pytest.mark.parametrize(
    ("change", "duration_s", "reason"),
    [
        ({}, 1.0, None),
        ({"log_prob": -0.5}, 1.0, "log-probability below -0.36"),
        ({"text": " . "}, 1.0, "the model heard no words"),
        ({"truncated": True}, 1.0, "the model ran into its token limit"),
        ({"text": "go on go on go on go on"}, 5.0, "the model repeats itself"),
        ({}, 0.4, "shorter than 0.5 s"),
        ({"text": "many words " * 2 + "in hardly any time"}, 1.0, "more than 30 characters a second"),
        ({}, 29.0, "fewer than 0.5 characters a second"),
        ({"problem": "audio cannot be read"}, 1.0, "audio cannot be read"),
    ],
)
def test_reasons(change: dict[str, Any], duration_s: float, reason: str | None) -> None:
    from speechtune.scoring.normalisers import get_normaliser

    answer = {"text": "hello there", "log_prob": -0.1, "truncated": False} | change
    row = Utterance(utterance_id="a", file_name="a.wav", text="", duration_s=duration_s)
    assert why_not(row, [answer], PseudoLabelConfig(), get_normaliser("whisper-english"))[0] == reason


def test_the_round_closes_label_correct_import(tiny_corpus: Path, tmp_path: Path) -> None:
    """What a model wrote goes out to a person and comes back as the corpus's texts, with where each came from."""
    import csv

    from speechtune.corpus.corrections import export_corrections, import_corrections, undo_corrections

    label_recordings(tiny_corpus, labeller(Parrot(), tmp_path), tmp_path / "out", LOOSE)
    labelled = Corpus.load(tmp_path / "out")
    table = (tmp_path / "out" / "metadata.jsonl").read_bytes()
    export_corrections(labelled, tmp_path / "fix.csv", only="label_source=model")
    with (tmp_path / "fix.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 20
    rows[0]["corrected_text"] = "hello, where?"
    rows[1]["verdict"] = "ok"
    rows[2]["verdict"] = "drop"
    with (tmp_path / "fix.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    import_corrections(tmp_path / "fix.csv", labelled)
    after = Corpus.load(tmp_path / "out")
    assert len(after) == 19
    assert after.utterances[0].text == "hello, where?"
    assert after.utterances[0].extra["text_before_correction"] == "hello there"
    sources = [row.extra["label_source"] for row in after.utterances[:3]]
    assert sources == ["corrected", "human", "model"]
    undo_corrections(after)
    assert (tmp_path / "out" / "metadata.jsonl").read_bytes() == table
