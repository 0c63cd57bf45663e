"""Calibration: against hand-made tables and scikit-free formulas, and by simulation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from speechtune.cli.app import build
from speechtune.core.errors import InputError
from speechtune.core.files import write_jsonl
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.calibration import ConfidencePairs, calibration_of, utterance_pairs, word_pairs
from speechtune.scoring.calibration_scaling import Scaling, fit_scaling
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.score import Score, score_transcripts
from speechtune.scoring.score_options import calibration_options


def _pairs(confidence: Any, correct: Any, blocks: list[str | None] | None = None) -> ConfidencePairs:
    values = np.asarray(confidence, dtype=np.float64)
    return ConfidencePairs("word", values, np.asarray(correct, dtype=bool), blocks or [None] * len(values))


def test_measures_of_a_hand_made_table() -> None:
    found = calibration_of(_pairs([0.9, 0.9, 0.2, 0.2], [1, 0, 0, 0]), bins=2)
    assert found is not None
    assert [(one.count, one.accuracy) for one in found.bins] == [(2, 0.0), (2, 0.5)]
    assert found.ece == pytest.approx((2 * 0.2 + 2 * 0.4) / 4)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.04 + 0.04) / 4)
    assert found.nll == pytest.approx(-(math.log(0.9) + math.log(0.1) + 2 * math.log(0.8)) / 4)
    assert found.auroc == pytest.approx((2 + 0.5) / 3)
    assert (found.accuracy, found.mean_confidence) == (0.25, pytest.approx(0.55))


def test_one_sure_mistake_costs_a_finite_amount() -> None:
    found = calibration_of(_pairs([1.0, 1.0], [1, 0]))
    assert found is not None and found.nll == pytest.approx(-math.log(1e-6) / 2, rel=1e-3) and len(found.bins) == 1
    assert calibration_of(_pairs([], [])) is None
    alone = calibration_of(_pairs([0.4], [1]))
    assert alone is not None and alone.ece_interval is None and alone.ece == pytest.approx(0.6) and alone.auroc is None


def test_bins_hold_equally_many() -> None:
    found = calibration_of(_pairs(np.random.default_rng(0).beta(8, 1, 1000), np.ones(1000)))
    assert found is not None and [one.count for one in found.bins] == [100] * 10


def _simulated(seed: int, speakers: int, each: int, power: float) -> ConfidencePairs:
    """Confidences c that are right with probability c ** power, a little higher or lower for each speaker."""
    draw = np.random.default_rng(seed)
    confidence = draw.uniform(0.2, 1.0, (speakers, each))
    chance = np.clip(confidence**power + draw.normal(0, 0.05, (speakers, 1)), 0, 1)
    blocks: list[str | None] = [f"s{number}" for number in range(speakers) for _ in range(each)]
    return _pairs(confidence.ravel(), (draw.random((speakers, each)) < chance).ravel(), blocks)


def test_interval_covers_and_the_correction_takes_off_the_bias() -> None:
    grid = np.linspace(0.2, 1.0, 200_001)
    truth = float(np.mean(grid - grid**3))
    covered, plain, corrected, lows = 0, [], [], []
    for seed in range(200):
        found = calibration_of(_simulated(seed, 30, 20, 3.0), resamples=300, seed=seed)
        assert found is not None and found.ece_interval is not None
        covered += found.ece_interval.low <= truth <= found.ece_interval.high
    assert 0.89 <= covered / 200 <= 0.985
    for seed in range(60):
        draw = np.random.default_rng(seed)
        confidence = draw.uniform(0, 1, 300)
        found = calibration_of(_pairs(confidence, draw.random(300) < confidence), resamples=200)
        assert found is not None and found.ece_interval is not None
        plain.append(found.ece)
        corrected.append(found.ece_corrected)
        lows.append(found.ece_interval.low)
    assert np.mean(corrected) < 0.6 * np.mean(plain)
    assert np.mean(np.array(lows) < 0.02) > 0.8  # nearly calibrated is not ruled out; unshifted ends begin at 0.04


def test_temperature_is_found_and_mends() -> None:
    draw = np.random.default_rng(3)
    logits = draw.normal(1, 1.5, 20_000)
    correct = draw.random(20_000) < 1 / (1 + np.exp(-logits))
    sure = 1 / (1 + np.exp(-(2.5 * logits)))
    temperature = fit_scaling(sure[:10_000], correct[:10_000], "temperature")
    assert temperature.temperature == pytest.approx(2.5, rel=0.08) and temperature.shift == 0
    shifted = 1 / (1 + np.exp(-(2.5 * logits + 2)))
    platt = fit_scaling(shifted[:10_000], correct[:10_000])
    assert platt.temperature == pytest.approx(2.5, rel=0.08) and platt.shift == pytest.approx(-0.8, abs=0.1)
    before, after = (
        calibration_of(_pairs(shifted[10_000:], correct[10_000:]), scaling, resamples=0) for scaling in (None, platt)
    )
    assert before is not None and after is not None
    assert after.ece < 0.25 * before.ece and after.nll < before.nll and after.auroc == pytest.approx(before.auroc)


def test_scaling_of_all_right_or_worthless_confidences_is_finite() -> None:
    right = fit_scaling(np.array([0.5, 0.9, 0.7]), np.array([True, True, True]))
    assert np.mean(right.apply(np.array([0.5, 0.9, 0.7]))) == pytest.approx(4 / 5, abs=1e-3)  # Platt's target
    worthless = fit_scaling(np.linspace(0.1, 0.9, 200), np.linspace(0.1, 0.9, 200) < 0.5)
    applied = worthless.apply(np.array([0.1, 0.9]))
    assert applied[0] <= applied[1] and abs(applied[1] - applied[0]) < 0.05
    with pytest.raises(InputError, match="no confidences to fit"):
        fit_scaling(np.array([]), np.array([]))


def test_scaling_is_the_logistic_formula() -> None:
    assert Scaling(2.0, 0.5, 1).apply(np.array([0.8]))[0] == pytest.approx(
        1 / (1 + math.exp(-(math.log(0.8 / 0.2) / 2 + 0.5)))
    )


def _score(rows: list[tuple[str, str]]) -> Score:
    utterances = [
        Utterance(utterance_id=f"u{i}", file_name="", text=ref, duration_s=1.0, language="en")
        for i, (ref, _) in enumerate(rows)
    ]
    transcripts = [Transcript(utterance_id=f"u{i}", text=hyp) for i, (_, hyp) in enumerate(rows)]
    return score_transcripts(Corpus(Path("c"), utterances), transcripts)


def test_utterance_confidences() -> None:
    score = _score([("a b", "A, b!"), ("a b", "a"), ("c", "c"), ("d", "d")])
    best = [{"text": "A, b!", "sum_log_prob": -0.6}]
    given = [
        Transcript(utterance_id="u0", text="A, b!", log_prob=-0.2, nbest=best),
        Transcript(utterance_id="u1", text="a", log_prob=-0.7, nbest=[{"text": "other", "sum_log_prob": -9.0}]),
        Transcript(utterance_id="u2", text="c"),
    ]
    rows = {"u2": {"token_log_probs": [-0.1, -0.3]}}
    mean = utterance_pairs(score, given, rows)
    assert mean.confidence == pytest.approx(np.exp([-0.2, -0.7, -0.2])) and mean.correct.tolist() == [True, False, True]
    assert mean.dropped_by_reason == {"no transcript": 1}
    total = utterance_pairs(score, given, rows, "utterance-sum")
    assert total.confidence == pytest.approx(np.exp([-0.6, -0.4])) and total.correct.tolist() == [True, True]
    assert total.dropped_by_reason == {"no log-probability for utterance-sum": 1, "no transcript": 1}


def test_word_confidences_follow_the_normalised_words() -> None:
    score = _score([("he is here", "He's hear."), ("the 21 cats", "the twenty one cats"), ("a b", "a b")])
    words: dict[str, dict[str, Any]] = {
        "u0": {"words": [{"word": "He's", "confidence": 0.7}, {"word": " hear.", "confidence": 0.4}]},
        "u1": {"words": [{"text": word, "log_prob": -0.1} for word in ("the", "twenty", "one", "cats")]},
    }
    pairs = word_pairs(score, words, get_normaliser("whisper-english"))
    assert pairs.confidence == pytest.approx([0.7, 0.7, 0.4, math.exp(-0.1), math.exp(-0.1)])
    assert pairs.correct.tolist() == [True, True, False, True, True]
    assert pairs.dropped_by_reason == {
        "words that the normaliser made of others": 1,
        "words of utterances without word confidences": 2,
    }
    with pytest.raises(InputError, match="u0: word 1 has the confidence 3"):
        word_pairs(score, {"u0": {"words": [{"word": "x", "confidence": 3}]}}, get_normaliser("none"))


def test_cli_fits_on_one_split_and_judges_another(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    utterances, rows = [], []
    for number in range(400):
        sure = float(draw.uniform(0.3, 1))
        right = draw.random() < sure**4
        split = "dev" if number % 2 else "test"
        utterances.append(
            Utterance(utterance_id=f"u{number}", file_name=f"{number}.wav", text="cat", duration_s=1.0, split=split)
        )
        rows.append({"utterance_id": f"u{number}", "text": "cat" if right else "dog", "log_prob": math.log(sure)})
    Corpus(tmp_path / "corpus", utterances).save()
    write_jsonl(tmp_path / "t.jsonl", rows)
    command = ["score", str(tmp_path / "corpus"), str(tmp_path / "t.jsonl"), "--calibration", "-q"]
    result = CliRunner().invoke(build(), [*command, "--split", "test", "--fit-split", "dev", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["calibration"]
    plain, scaled = found["utterance-mean"], found["scaled"]["utterance-mean"]
    assert plain["pairs"] == scaled["pairs"] == 200 and scaled["scaling"]["pairs"] == 200
    assert scaled["ece_corrected"] < 0.5 * plain["ece_corrected"] and scaled["nll"] < plain["nll"]
    assert "no log-probability" in found["missing"]["utterance-sum"]
    text = CliRunner().invoke(build(), [*command, "--split", "test"]).stdout
    assert "calibration, utterance-mean: ECE" in text and "promised" in text
    for wrong in (["--fit-split", "dev"], ["--split", "dev", "--fit-split", "dev"]):
        assert CliRunner().invoke(build(), [*command, *wrong]).exit_code == 2
    with pytest.raises(InputError, match="only used with --calibration"):
        calibration_options(False, "dev", "test")
