from __future__ import annotations

import numpy as np
import pytest
from made_systems import corpus_of, heard

from speechtune.core.errors import InputError
from speechtune.scoring.calibration import calibration_of, utterance_pairs
from speechtune.scoring.comparison import Cost, SystemInput, chance_of_best, compare_systems
from speechtune.scoring.comparison_text import comparison_as_text
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import compare, score_transcripts

CONFIG = ScoringConfig(slice_by=["age"], resamples=1000)


def test_rates_and_differences_are_those_of_score() -> None:
    corpus = corpus_of(120)
    inputs = [heard(corpus, "a", 0.5), heard(corpus, "b", 0.1), heard(corpus, "c", 0.48)]
    found = compare_systems(corpus, inputs, CONFIG)
    scores = [score_transcripts(corpus, one.transcripts, confidence=CONFIG) for one in inputs]
    for system, score in zip(found.systems, scores, strict=True):
        assert system.score.words == score.words
        assert system.score.interval == score.interval
        assert system.score.slices == score.slices
    enough = CONFIG.model_copy(update={"resamples": found.resamples})
    judged = compare(scores[0], scores[1], enough)
    assert found.pair(0, 1).difference == judged.wer
    assert found.slice_tests["age"]["7"][0].difference == judged.slices["age"]["7"]
    assert found.best() == sorted(range(3), key=lambda place: scores[place].wer or 0.0)


def test_a_pair_turned_round_has_the_opposite_sign_and_the_same_p() -> None:
    corpus = corpus_of(60)
    found = compare_systems(corpus, [heard(corpus, "a", 0.6), heard(corpus, "b", 0.1)], CONFIG)
    there, back = found.pair(0, 1), found.pair(1, 0)
    assert there.difference.difference == -(back.difference.difference or 0.0)
    assert there.difference.interval and back.difference.interval
    assert there.difference.interval.low == -back.difference.interval.high
    assert (there.verdict, back.verdict) == ("better", "worse")
    assert there.p_adjusted == back.p_adjusted


def test_p_values_of_the_pairs_are_corrected_as_one_family_by_holm() -> None:
    corpus = corpus_of(80)
    names = ["a", "b", "c", "d"]
    found = compare_systems(corpus, [heard(corpus, name, 0.2 + 0.05 * k) for k, name in enumerate(names)], CONFIG)
    raw = sorted(one.p_value or 0.0 for one in found.pairs)
    assert len(raw) == 6
    smallest = min(found.pairs, key=lambda one: one.p_value or 0.0)
    assert smallest.p_adjusted == pytest.approx(min(1.0, 6 * raw[0]))
    assert all((one.p_adjusted or 0.0) >= (one.p_value or 0.0) for one in found.pairs)
    assert found.resamples >= 10 * 9 / 0.05  # 3 ages x 3 systems: a corrected p can still be below 0.05


def test_wins_are_counted_over_all_utterances_and_the_largest_listed_first() -> None:
    corpus = corpus_of(200)
    found = compare_systems(corpus, [heard(corpus, "a", 0.5), heard(corpus, "b", 0.3)], CONFIG, examples=7)
    wins = found.wins[0]
    change = found.systems[1].errors - found.systems[0].errors
    assert wins.fewer + wins.same + wins.more == sum(wins.bands) == 200
    assert wins.fewer == int((change < 0).sum())
    assert wins.bands[5] == wins.same
    expected = sorted((int(change[k]), corpus.utterances[k].utterance_id, k) for k in range(200))[:7]
    assert wins.better == [place for _, _, place in expected]
    worst = sorted((-int(change[k]), corpus.utterances[k].utterance_id, k) for k in range(200))[:7]
    assert wins.worse == [place for _, _, place in worst]


def test_a_system_against_its_copy_is_never_better() -> None:
    corpus = corpus_of(40)
    one, two = heard(corpus, "a", 0.3), heard(corpus, "a", 0.3)
    two.name = "copy"
    found = compare_systems(corpus, [one, two], CONFIG)
    assert found.pair(0, 1).verdict == "unclear"
    assert [system.best_probability for system in found.systems] == [0.5, 0.5]
    assert not found.wins[0].better and not found.wins[0].worse


def test_chance_of_best_is_the_share_of_plain_resamples() -> None:
    draw = np.random.default_rng(0)
    errors, lengths = draw.integers(0, 4, (3, 30)), draw.integers(3, 9, 30)
    chances = chance_of_best(errors, lengths, None, 20_000, 1)
    places = np.random.default_rng(2).integers(0, 30, (20_000, 30))
    rates = errors[:, places].sum(axis=2) / lengths[places].sum(axis=1)
    best = rates == rates.min(axis=0)
    assert chances == pytest.approx((best / best.sum(axis=0)).mean(axis=1), abs=0.015)
    assert chance_of_best(errors[:, :1], lengths[:1]) is None


def test_speakers_are_drawn_as_blocks() -> None:
    """Two speakers out of six decide everything: with blocks the choice is far less sure."""
    errors = np.array([[5] * 20 + [2] * 100, [1] * 20 + [2.2] * 100]).astype(int)
    errors[1, 20:] = np.where(np.arange(100) % 4 == 0, 3, 2)
    lengths = np.full(120, 6)
    groups = [f"s{place // 20}" for place in range(120)]
    alone = chance_of_best(errors, lengths, None, 4000, 0)
    blocks = chance_of_best(errors, lengths, groups, 4000, 0)
    assert alone and blocks
    assert alone[1] > 0.98 > 0.85 > blocks[1]


def test_missing_and_unknown_ids_are_named_with_their_system() -> None:
    corpus = corpus_of(10)
    good, bad = heard(corpus, "good", 0.1), heard(corpus, "bad", 0.1)
    bad.transcripts[3].utterance_id = "stranger"
    with pytest.raises(InputError, match=r"bad .*'stranger'.*'u003'"):
        compare_systems(corpus, [good, bad], CONFIG)


def test_two_to_ten_systems_with_different_names() -> None:
    corpus = corpus_of(12)
    with pytest.raises(InputError, match="2 to 10"):
        compare_systems(corpus, [heard(corpus, "a", 0.1)], CONFIG)
    with pytest.raises(InputError, match="two systems are called 'a'"):
        compare_systems(corpus, [heard(corpus, "a", 0.1), heard(corpus, "a", 0.2)], CONFIG)
    ten = compare_systems(corpus, [heard(corpus, f"s{k}", 0.1 * k) for k in range(10)], CONFIG, reference=4)
    assert len(ten.pairs) == 45 and len(ten.wins) == 9
    assert {one.a for tests in ten.slice_tests["age"].values() for one in tests} == {4}
    assert sum(one.best_probability or 0.0 for one in ten.systems) == pytest.approx(1.0)


def test_text_and_json_hold_the_costs() -> None:
    corpus = corpus_of(12)
    one, two = heard(corpus, "a", 0.1), heard(corpus, "b", 0.2)
    two.cost = Cost(parameters=1_500_000, decode_s=3.0, audio_s=12.0, memory_bytes=2**20 * 700, device="cpu")
    found = compare_systems(corpus, [one, two], CONFIG)
    text = comparison_as_text(found)
    assert "0.25" in text and "700 MiB" in text and "1.5 M" in text
    row = found.to_json()["systems"][1]
    assert row["cost"]["rtf"] == 0.25 and row["wer"] == found.systems[1].score.wer


def test_many_tests_of_a_large_difference_are_significant_unless_the_speakers_are_too_few() -> None:
    """45 pairs: the bootstrap's least p-value would never survive the correction."""
    for speakers, verdict in ((14, "worse"), (5, "unclear")):
        corpus = corpus_of(20 * speakers, speakers=speakers)
        ten = compare_systems(corpus, [heard(corpus, f"s{k}", 0.08 * k) for k in range(10)], ScoringConfig())
        far = ten.pair(0, 9)
        assert far.difference.p_value and far.p_value
        assert 45 * far.difference.p_value > 0.05
        assert far.p_value >= min(far.difference.p_value, 2.0 ** (1 - speakers))
        assert far.verdict == verdict


def test_a_few_equal_differences_are_never_certain() -> None:
    """Three utterances, each one error better: the matched-pairs test alone would say p = 0."""
    corpus = corpus_of(3, speakers=0)
    good = heard(corpus, "good", 0.0)
    bad = heard(corpus, "bad", 0.0)
    for one in bad.transcripts:
        one.text += " extra"
    found = compare_systems(corpus, [bad, good], ScoringConfig(resamples=10_000))
    assert found.pairs[0].p_value is not None and found.pairs[0].p_value >= 0.02


def _sure(one: SystemInput, wrong_log_prob: float, texts: dict[str, str]) -> SystemInput:
    """Certain where the words are right, and as said where they are wrong."""
    for transcript in one.transcripts:
        right = transcript.text == texts[transcript.utterance_id]
        transcript.log_prob = -0.01 if right else wrong_log_prob
    return one


def test_systems_are_compared_by_their_confidences() -> None:
    corpus = corpus_of(200)
    texts = {one.utterance_id: one.text for one in corpus}
    modest = _sure(heard(corpus, "modest", 0.3), -3.0, texts)
    proud = _sure(heard(corpus, "proud", 0.3), -0.02, texts)
    found = compare_systems(corpus, [modest, proud], CONFIG)
    assert found.confidence_kind() == "utterance-mean"
    plain = [one.calibration["utterance-mean"] for one in found.systems]
    score = score_transcripts(corpus, modest.transcripts, confidence=CONFIG)
    assert plain[0] == calibration_of(utterance_pairs(score, modest.transcripts))
    assert plain[0].nll < plain[1].nll
    assert found.to_json()["systems"][0]["calibration"]["utterance-mean"]["nll"] == plain[0].nll
    assert f"{plain[1].nll:.3f}" in comparison_as_text(found)
    proud.transcripts[0].log_prob = None
    assert compare_systems(corpus, [modest, proud], CONFIG).confidence_kind() is None
