"""Slices: against the rest, small ones, bands of what has to be computed or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.files import write_json
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import Score, compare, score_transcripts
from speechtune.scoring.slice_scores import rate_against_rest
from speechtune.scoring.slices import UNKNOWN, labels_of, signal_to_noise


def _simulate(seed: int, speakers: int, each: int, gap: float = 0.0) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 15, (speakers, each))
    inside = np.arange(speakers) % 3 == 0
    rates = np.clip(draw.beta(3, 12, speakers) + gap * inside, 0, 1)
    errors = draw.binomial(lengths, rates[:, None])
    return errors.ravel(), lengths.ravel(), np.repeat(inside, each), np.repeat(np.arange(speakers), each)


@pytest.mark.parametrize("speakers", [15, 60])
def test_slices_of_other_speakers_are_called_different_as_often_as_promised(speakers: int) -> None:
    called = alone = covered = 0
    for seed in range(500):
        errors, lengths, inside, speaker = _simulate(seed, speakers, 20)
        found = rate_against_rest(errors, lengths, inside, speaker.tolist())
        assert found is not None and found.p_value is not None and found.interval is not None
        called += found.p_value < 0.05
        covered += found.interval.low <= 0 <= found.interval.high
        naive = rate_against_rest(errors, lengths, inside)
        alone += naive is not None and naive.p_value is not None and naive.p_value < 0.05
    assert 0.02 <= called / 500 <= 0.075
    assert covered == 500 - called
    assert alone / 500 > 0.3


def test_difference_is_slice_minus_rest_and_is_seen() -> None:
    errors, lengths, inside, speaker = _simulate(1, 60, 20, 0.15)
    found = rate_against_rest(errors, lengths, inside, speaker.tolist())
    assert found is not None and found.p_value is not None and found.p_value < 1e-3
    expected = errors[inside].sum() / lengths[inside].sum() - errors[~inside].sum() / lengths[~inside].sum()
    assert found.difference == pytest.approx(expected)
    assert rate_against_rest([1, 2], [0, 3], np.array([True, False])) is None
    one_speaker = rate_against_rest([1, 0, 1, 0, 1, 0], [3] * 6, np.arange(6) == 0, list("abcdef"))
    assert one_speaker is not None and one_speaker.p_value is None


def _corpus(rows: list[dict[str, Any]], root: Path = Path("c")) -> Corpus:
    base = {"file_name": "", "text": "a b", "duration_s": 1.0}
    return Corpus(root, [Utterance.from_row({**base, "utterance_id": f"u{i}", **row}) for i, row in enumerate(rows)])


def _score(rows: list[dict[str, Any]], outputs: list[str], column: str) -> Score:
    transcripts = [Transcript(utterance_id=f"u{i}", text=text) for i, text in enumerate(outputs)]
    config = ScoringConfig(normaliser="none", resamples=100)
    return score_transcripts(_corpus(rows), transcripts, slice_by=[column], confidence=config)


def test_small_slices_are_marked_with_the_reason() -> None:
    rows = [{"age": "6" if i < 60 else "7", "speaker_id": f"s{i % 10 if i < 60 else 10}"} for i in range(100)]
    score = _score(rows, ["a b"] * 100, "age")
    assert score.slices["age"]["6"].small == ""
    assert score.slices["age"]["7"].small == "80 words, 1 speaker"
    assert "(small)" in score.to_text() and score.to_json()["slices"]["age"]["7"]["small"] == "80 words, 1 speaker"
    few = _score([*rows[:20], {"age": "8"}], ["a b"] * 21, "age").slices["age"]["8"]
    assert few.small == "1 utterance, 2 words, 0 speakers"


def test_p_values_of_slices_are_corrected_for_their_number() -> None:
    rows = [{"age": str(i % 4), "speaker_id": f"s{i % 40}"} for i in range(400)]
    outputs = ["a x" if i % 4 == 0 and i % 3 else "a b" if i % 5 else "x b" for i in range(400)]
    score = _score(rows, outputs, "age")
    slices = score.slices["age"]
    raw = {name: one.against_rest.p_value for name, one in slices.items() if one.against_rest}
    assert len(raw) == 4
    smallest = min(raw, key=lambda name: raw[name] or 0)
    assert slices[smallest].adjusted_p_value == pytest.approx(min(1.0, 4 * (raw[smallest] or 0)))
    assert all((one.adjusted_p_value or 0) >= (raw[name] or 0) for name, one in slices.items())
    better = _score(rows, ["a b"] * 400, "age")
    change = compare(score, better, ScoringConfig(resamples=100))
    assert change.adjusted["age"]["0"] is not None and change.adjusted["age"]["0"] < 1e-3
    assert change.to_json()["slices"]["age"]["0"]["adjusted_p_value"] == change.adjusted["age"]["0"]
    assert change.tests is not None and "mapsswe" in change.to_json()["significance"]["tests"]


def test_speaking_rate_and_many_whole_numbers() -> None:
    rows = [{"duration_s": float(number)} for number in range(1, 9)] + [{"duration_s": 0.0}]
    labels, order = labels_of("words_per_s", _corpus(rows), [4] * 9)
    assert labels[-1] == UNKNOWN and len(order) == 5 and labels[0].startswith(">=") and labels[7].startswith("<")
    ages = [{"age": age} for age in range(20, 60)]
    assert len(labels_of("age", _corpus(ages), [1] * 40)[1]) == 4
    assert labels_of("age", _corpus(ages[:10]), [1] * 10)[1] == [str(age) for age in range(20, 30)]


def test_snr_of_the_column_else_of_the_audit_else_measured(tmp_path: Path) -> None:
    assert signal_to_noise(_corpus([{"snr_db": 12.0}, {}])) == [12.0, None]
    assert signal_to_noise(_corpus([{}])) == [None]
    pytest.importorskip("silero_vad", reason="speech is found by Silero (extra audit)")
    soundfile = pytest.importorskip("soundfile")
    draw = np.random.default_rng(0)
    root = tmp_path / "corpus"
    root.mkdir()
    time_s = np.arange(32_000) / 16_000
    rows = []
    for number, level in enumerate((0.001, 0.1)):
        voice = np.sin(2 * np.pi * 150 * time_s) * (np.sin(2 * np.pi * 2 * time_s) > 0) * 0.3
        soundfile.write(root / f"{number}.wav", voice + level * draw.standard_normal(32_000), 16_000)
        rows.append({"file_name": f"{number}.wav", "duration_s": 2.0})
    corpus = _corpus(rows, root)
    corpus.save()
    from speechtune.audio.measures import measure_file

    assert signal_to_noise(corpus) == [measure_file(root / f"{number}.wav").snr_db for number in range(2)]
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from speechtune.corpus.stream import table_sha256

    (root / "audit").mkdir()
    table = pyarrow.table({"utterance_id": ["u1", "u0"], "snr_db": [7.0, 33.0]})
    parquet.write_table(table, root / "audit" / "audit.parquet")
    write_json(root / "audit" / "audit.json", {"table_sha256": table_sha256(root)})
    assert signal_to_noise(corpus) == [33.0, 7.0]
    write_json(root / "audit" / "audit.json", {"table_sha256": "of another table"})
    assert signal_to_noise(corpus) != [33.0, 7.0]
