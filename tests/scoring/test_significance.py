"""Tests of differences: against NIST's sc_stats and scipy, and by simulation under the null hypothesis."""

from __future__ import annotations

import math
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.bootstrap import (
    Method,
    bootstrap_interval,
    paired_difference,
    student_p_value,
    student_quantile,
)
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.power import needed_data
from speechtune.scoring.score import Score, score_transcripts
from speechtune.scoring.segments import sentence_segments
from speechtune.scoring.significance import adjust, compare_all, mapsswe, matched_pairs, mcnemar, pair_tests

SCTK = Path("/usr/lib/sctk/bin")
needs_sctk = pytest.mark.skipif(
    not (SCTK / "sc_stats").is_file(), reason="NIST sc_stats is not installed (apt-get install sctk)"
)


def _words(text: str) -> list[str]:
    return text.split()


def _clear_pairs(seed: int, utterances: int) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """References of different words, and outputs with errors whose alignment nobody can doubt.

    No insertion stands beside a deletion, and none behind the last word (sc_stats loses those of its second system).
    """
    draw = random.Random(seed)
    references: list[list[str]] = []
    outputs: tuple[list[list[str]], list[list[str]]] = ([], [])
    for _ in range(utterances):
        reference = [f"w{number}" for number in range(draw.randint(1, 25))]
        references.append(reference)
        for side in outputs:
            words: list[str] = []
            for place, word in enumerate(reference):
                kind = draw.choices(["right", "sub", "del", "ins"], [0.8, 0.1, 0.05, 0.05])[0]
                if kind == "ins":
                    words += [f"extra{draw.randrange(50)}", word]
                elif kind == "sub" or (kind == "del" and place + 1 == len(reference)):
                    words.append(f"other{draw.randrange(50)}")
                elif kind == "right":
                    words.append(word)
            side.append(words)
    return references, *outputs


def _sc_stats(folder: Path, references: list[list[str]], outputs: list[list[list[str]]], test: str) -> str:
    for name, texts in zip(("ref", "one", "two"), [references, *outputs], strict=True):
        rows = [f"{' '.join(words)} (s-{number:05d})" for number, words in enumerate(texts)]
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    systems = ["-h", str(folder / "one"), "trn", "one", "-h", str(folder / "two"), "trn", "two"]
    command = [str(SCTK / "sclite"), "-r", str(folder / "ref"), "trn", *systems, "-i", "spu_id", "-o", "sgml", "stdout"]
    aligned = subprocess.run(command, capture_output=True, check=True, cwd=folder).stdout
    command = [str(SCTK / "sc_stats"), "-p", "-t", test, "-v", "-n", "-"]
    return subprocess.run(command, input=aligned, capture_output=True, check=True, cwd=folder).stdout.decode()


@needs_sctk
@pytest.mark.parametrize("seed", range(4))
def test_mapsswe_equals_sc_stats(tmp_path: Path, seed: int) -> None:
    references, first, second = _clear_pairs(seed, 300)
    output = _sc_stats(tmp_path, references, [first, second], "mapsswe")
    found = re.search(
        r"\(# segs: (\d+)\).*\(mean: +(\S+)\) \(std dev: +(\S+)\) \(Z Stat: +(\S+)\) \(Stat Diff: (\w+)\)", output
    )
    assert found is not None
    ours = mapsswe(references, first, second)
    assert ours.units == int(found[1])
    assert ours.details["mean_difference"] == pytest.approx(-float(found[2]), abs=6e-4)
    assert ours.statistic == pytest.approx(-float(found[4]), abs=6e-4)
    assert ours.p_value is not None and (ours.p_value < 0.05) == (found[5] == "Yes")


@needs_sctk
def test_mcnemar_counts_equal_sc_stats(tmp_path: Path) -> None:
    references, first, second = _clear_pairs(9, 300)
    output = _sc_stats(tmp_path, references, [first, second], "mcn")
    right = re.search(r"corr +(\d+) +(\d+)\s+incorr +(\d+) +(\d+)", output[output.index("corr     incorr") + 15 :])
    assert right is not None
    result = mcnemar(
        [ref != hyp for ref, hyp in zip(references, first, strict=True)],
        [ref != hyp for ref, hyp in zip(references, second, strict=True)],
    )
    names = ("both_right", "only_b_wrong", "only_a_wrong", "both_wrong")
    assert [result.details[name] for name in names] == [int(one) for one in right.groups()]


def test_segments_are_bounded_by_two_right_words() -> None:
    reference = _words("a b c d e f g h")
    found = sentence_segments([reference], [_words("x b c d e f g y")], [_words("a b z d e f g h")])
    assert (found.errors_a, found.errors_b) == ([1, 1], [1, 0])  # one right word between a and c does not separate
    found = sentence_segments([reference], [_words("x b c d e f g h")], [_words("a b c y d e f g h")])
    assert (found.errors_a, found.errors_b) == ([1, 0], [0, 1])
    # An insertion between two right words keeps them from ending a segment.
    found = sentence_segments([_words("a b c d e")], [_words("x b c y e")], [_words("a b z c d e")])
    assert (found.errors_a, found.errors_b) == ([2], [1])
    found = sentence_segments([reference], [reference], [[*reference, "i"]])
    assert (found.errors_a, found.errors_b, found.utterances) == ([0], [1], [0])
    assert sentence_segments([reference, []], [reference, []], [reference, []]).utterances == []


def test_segments_hold_every_error() -> None:
    draw = random.Random(3)
    texts = [[draw.choices("abcd", k=draw.randint(0, 12)) for _ in range(200)] for _ in range(3)]
    found = sentence_segments(texts[0], texts[1], texts[2])
    from speechtune.scoring.alignment import count_many

    for side, errors in ((texts[1], found.errors_a), (texts[2], found.errors_b)):
        assert sum(errors) == int(count_many(texts[0], side)[:, 1:].sum())


def test_student_and_binomial_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is only the judge")
    for degrees in (1, 4, 9, 30, 200, 999):
        for value in (0.3, 1.0, 2.3, 4.5, 7.0):
            assert student_p_value(value, degrees) == pytest.approx(2 * stats.t.sf(value, degrees), rel=2e-3)
        for probability in (0.8, 0.975, 0.995) if degrees > 1 else (0.8,):
            assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-3)
    for only_a, only_b in ((0, 1), (0, 6), (3, 10), (40, 61), (0, 0)):
        wrong_a = [True] * only_a + [False] * only_b + [True, False]
        wrong_b = [False] * only_a + [True] * only_b + [True, False]
        result = mcnemar(wrong_a, wrong_b)
        exact = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert result.p_value == pytest.approx(exact)
        if only_a + only_b:
            chi = max(0, abs(only_a - only_b) - 1) ** 2 / (only_a + only_b)
            assert result.details["p_value_corrected"] == pytest.approx(stats.chi2.sf(chi, 1))


def test_benjamini_hochberg_against_scipy_and_holm_by_hand() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is only the judge")
    values = np.random.default_rng(0).random(30) ** 3
    assert adjust(values.tolist(), "benjamini-hochberg") == pytest.approx(stats.false_discovery_control(values))
    assert adjust([0.01, None, 0.04, 0.03, 0.005]) == [
        pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06), pytest.approx(0.02),
    ]  # fmt: skip
    assert adjust([0.6, 0.7]) == [1.0, 1.0] and adjust([]) == [] and adjust([None]) == [None]
    with pytest.raises(InputError, match="holm, benjamini-hochberg"):
        adjust([0.1], "bonferroni")  # type: ignore[arg-type]


def test_holm_keeps_the_familywise_rate() -> None:
    draw = np.random.default_rng(1)
    families = draw.random((2000, 20))
    false = sum(min(one for one in adjust(family.tolist()) if one is not None) < 0.05 for family in families)
    assert 0.035 < false / 2000 < 0.065
    assert (families.min(axis=1) < 0.05).mean() > 0.55


def _null_systems(seed: int, speakers: int, each: int, favour: float) -> tuple[np.ndarray, ...]:
    """Errors of two systems that are equally good over all speakers; each does better with some of the speakers.

    ``favour``: standard deviation of the difference of the two error rates between speakers.
    """
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 15, (speakers, each))
    rates = 0.05 + 0.3 * draw.beta(2, 3, (speakers, 1))
    gaps = np.clip(favour * draw.standard_normal((speakers, 1)), -rates, rates)
    first, second = draw.binomial(lengths, rates + gaps / 2), draw.binomial(lengths, rates - gaps / 2)
    return first.ravel(), second.ravel(), lengths.ravel(), np.repeat(np.arange(speakers), each)


@pytest.mark.parametrize(("speakers", "each"), [(8, 40), (30, 25)])
def test_false_positives_with_correlated_utterances(speakers: int, each: int) -> None:
    """Blocks keep the promised 5 %; utterances taken for independent do not."""
    called = dict.fromkeys(("bootstrap", "clustered", "bootstrap alone", "alone"), 0)
    for seed in range(400):
        first, second, lengths, speaker = _null_systems(seed, speakers, each, 0.06)
        groups = speaker.tolist()
        p_values = {
            "bootstrap": paired_difference(first, second, lengths, groups, 400, seed=seed).p_value,
            "clustered": matched_pairs(first, second, groups).p_value,
            "bootstrap alone": paired_difference(first, second, lengths, None, 400, seed=seed).p_value,
            "alone": matched_pairs(first, second).p_value,
        }
        for name, value in p_values.items():
            called[name] += value is not None and value < 0.05
    assert 0.025 < called["bootstrap"] / 400 < 0.09
    assert 0.025 < called["clustered"] / 400 < 0.08
    assert called["bootstrap alone"] / 400 > 0.14
    assert called["alone"] / 400 > 0.14


def test_false_positives_with_independent_utterances() -> None:
    called = dict.fromkeys(("mapsswe", "mcnemar", "corrected", "clustered", "mcnemar clustered"), 0)
    draw = random.Random(5)
    for _ in range(300):
        references, first, second = _clear_pairs(draw.randrange(10**9), 60)
        groups = [number % 12 for number in range(60)]
        wrong_a = np.array([ref != hyp for ref, hyp in zip(references, first, strict=True)])
        wrong_b = np.array([ref != hyp for ref, hyp in zip(references, second, strict=True)])
        sentences = mcnemar(wrong_a, wrong_b)
        values = (
            mapsswe(references, first, second).p_value,
            sentences.p_value,
            sentences.details["p_value_corrected"],
            mapsswe(references, first, second, groups).p_value,
            matched_pairs(wrong_a, wrong_b, groups).p_value,
        )
        for name, value in zip(called, values, strict=True):
            called[name] += value is not None and value < 0.05
    rates = {name: number / 300 for name, number in called.items()}
    assert all(0.02 <= rates[name] <= 0.09 for name in ("mapsswe", "clustered", "mcnemar clustered"))
    assert all(rates[name] <= 0.07 for name in ("mcnemar", "corrected"))  # discrete: below their level


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_session_intervals_cover(method: Method) -> None:
    covered = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        lengths = draw.integers(3, 15, (30, 20))
        errors = draw.binomial(lengths, draw.beta(3, 12, (30, 1)))
        sessions = [f"session{number}" for number in range(30) for _ in range(20)]
        interval = bootstrap_interval(
            errors.ravel(), lengths.ravel(), sessions, 500, seed=seed, block="session", method=method
        )
        assert interval is not None and interval.unit == "session"
        covered += interval.low <= 0.2 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_bca_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is only the judge")
    draw = np.random.default_rng(8)
    lengths = draw.integers(3, 15, 1500)
    errors = draw.binomial(lengths, np.where(draw.random(1500) < 0.05, 0.9, 0.02))
    ours = bootstrap_interval(errors, lengths, resamples=20_000, method="bca")
    plain = bootstrap_interval(errors, lengths, resamples=20_000)
    theirs = stats.bootstrap(
        (errors, lengths),
        lambda e, n, axis=-1: e.sum(axis=axis) / n.sum(axis=axis),
        paired=True, n_resamples=20_000, batch=500, method="BCa", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert ours is not None and plain is not None
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=4e-4), pytest.approx(theirs.high, abs=4e-4))
    assert ours.low > plain.low and ours.high > plain.high


def test_power_is_what_it_says() -> None:
    """The speakers that it asks for show the difference in about 80 % of new experiments."""
    gap = 0.03

    def experiment(seed: int, speakers: int) -> tuple[np.ndarray, ...]:
        first, second, lengths, speaker = _null_systems(seed, speakers, 20, 0.05)
        draw = np.random.default_rng(seed + 10**6)
        return first, np.minimum(second + draw.binomial(lengths - second, gap / 0.8), lengths), lengths, speaker

    first, second, lengths, _ = experiment(0, 20_000)
    difference = (second.sum() - first.sum()) / lengths.sum()
    first, second, lengths, speaker = experiment(1, 400)
    found = needed_data(first, second, lengths, speaker.tolist(), points=100 * difference)
    assert found is not None and found.blocks_needed is not None and found.design_effect is not None
    assert found.design_effect > 1.5 and found.utterances_needed > 1.4 * found.utterances_if_independent
    assert found.utterances_needed == found.blocks_needed * 20
    seen = alone = 0
    for seed in range(2, 302):
        one, two, _, who = experiment(seed, found.blocks_needed)
        p_value = matched_pairs(one, two, who.tolist()).p_value
        seen += p_value is not None and p_value < 0.05
        one, two, _, who = experiment(seed, math.ceil(found.utterances_if_independent / 20))
        p_value = matched_pairs(one, two, who.tolist()).p_value
        alone += p_value is not None and p_value < 0.05
    assert 0.72 < seen / 300 < 0.9
    assert alone / 300 < 0.72
    again = needed_data(first, second, lengths, speaker.tolist(), points=found.visible_points)
    assert again is not None and again.blocks_needed is not None
    assert abs(again.blocks_needed - 400) <= 1


def test_nothing_to_test() -> None:
    assert matched_pairs([], []).p_value is None
    assert matched_pairs([1], [0]).p_value is None
    assert matched_pairs([1, 2], [1, 2]).p_value == 1.0
    assert needed_data([1, 2], [1, 2], [3, 3]) is None
    same = matched_pairs([1, 1, 1], [0, 0, 0])  # no variance: three units are worth a sign test, not certainty
    assert same.statistic is None and same.p_value == pytest.approx(0.25)
    blocks = matched_pairs([1] * 12, [0] * 12, [number % 6 for number in range(12)])
    assert blocks.statistic is None and blocks.p_value == pytest.approx(2 / 64)
    assert mapsswe([["a"]], [["a"]], [["a"]]).p_value is None


def test_order_and_direction() -> None:
    first, second, _, speaker = _null_systems(4, 10, 10, 0.1)
    there, back = matched_pairs(first, second, speaker.tolist()), matched_pairs(second, first, speaker.tolist())
    assert there.statistic == pytest.approx(-back.statistic) and there.p_value == pytest.approx(back.p_value)
    shuffle = np.random.default_rng(0).permutation(100)
    assert matched_pairs(first[shuffle], second[shuffle], speaker[shuffle].tolist()).p_value == pytest.approx(
        there.p_value
    )
    better = matched_pairs(second + 1 + np.arange(100) % 3, second, speaker.tolist())
    assert better.statistic is not None and better.statistic < 0 and better.units == 10


def _score(texts: list[str], outputs: list[str], **options: object) -> Score:
    utterances = [
        Utterance.from_row(
            {"utterance_id": f"u{i}", "file_name": "", "text": text, "duration_s": 1.0, "speaker_id": f"s{i % 6}"}
            | {"session_id": f"day{i % 9}"}
        )
        for i, text in enumerate(texts)
    ]
    transcripts = [Transcript(utterance_id=f"u{i}", text=text) for i, text in enumerate(outputs)]
    config = ScoringConfig(normaliser="none", resamples=200, **options)  # type: ignore[arg-type]
    return score_transcripts(Corpus(Path("c"), utterances), transcripts, confidence=config)


def test_all_pairs_of_scores() -> None:
    references, first, second = _clear_pairs(11, 90)
    texts = [[" ".join(words) for words in side] for side in (references, first, second)]
    scores = {"one": _score(texts[0], texts[1]), "two": _score(texts[0], texts[2]), "right": _score(texts[0], texts[0])}
    found = compare_all(scores, ScoringConfig(resamples=200))
    assert list(found) == [("one", "two"), ("one", "right"), ("two", "right")]
    one = found["one", "right"]
    assert one.wer.difference is not None and one.wer.difference < 0
    assert one.adjusted is not None and one.p_value is not None and one.p_value < one.adjusted < 1e-3
    assert one.mapsswe.p_value is not None and one.mapsswe.p_value < 1e-6
    assert one.mapsswe_clustered.units == 6 and one.mcnemar.details["only_b_wrong"] == 0
    assert set(one.to_json()["tests"]) == {"mapsswe", "mapsswe-clustered", "mcnemar", "mcnemar-clustered"}
    assert "tests of the difference" in one.to_text()
    alone = pair_tests(scores["one"], scores["two"])
    assert alone.adjusted is None and alone.mapsswe == found["one", "two"].mapsswe


def test_resample_by_another_column() -> None:
    score = _score(["a b c", "d e"] * 30, ["a b x", "d e"] * 30, resample_by="session_id")
    assert score.interval is not None and (score.interval.unit, score.interval.units) == ("session", 9)
    with pytest.raises(InputError, match="'dialect' to resample by"):
        _score(["a"], ["a"], resample_by="dialect")
