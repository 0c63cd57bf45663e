"""Plans against the notebook's own sums, hand counts, and laws."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from speechtune.core.errors import InputError
from speechtune.corpus.planning.coverage import TermCounter, Texts, coverage, read_terms, vocabulary_growth
from speechtune.corpus.planning.curve import fit_learning_curve, read_points
from speechtune.corpus.planning.plan import PlanRequest, make_plan, write_plan
from speechtune.corpus.planning.recording import CARRIERS, Candidate, candidates, plan_recordings, read_carriers
from speechtune.corpus.planning.text import plan_text
from speechtune.corpus.planning.volume import GOALS, TIERS, advise_volume, expected_gain, labour, split_verdicts
from speechtune.corpus.table import Corpus, Utterance

TEN = ["alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]


def corpus(root: Path, rows: list[tuple[str, str | None, str | None, float]]) -> Path:
    """A table of (text, split, speaker, seconds); no audio is needed to plan."""
    root.mkdir()
    utterances = [
        Utterance(
            utterance_id=f"u{n}",
            file_name=f"{n}.flac",
            text=text,
            duration_s=s,
            split=split,
            speaker_id=who,
            language="en",
        )
        for n, (text, split, who, s) in enumerate(rows)
    ]
    Corpus(root, utterances, {}).save()
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return corpus(
        tmp_path / "corpus",
        [
            ("We went to the makolet today", "train", "s1", 3.0),
            ("Makolet is a shop", "train", "s2", 2.0),
            ("makolet", "train", "s1", 1.0),
            ("The sun shines today", "train", "s1", 2.0),
            ("We met at the makolet", "dev", "s3", 2.0),
            ("A misrad is an office", "test", "s4", 2.0),
        ],
    )


def test_terms_are_counted_by_split_speaker_sentence_and_position(small: Path) -> None:
    plan = make_plan(small, PlanRequest(terms=("makolet", "misrad", "the sun")))
    one, other, two_words = plan.terms
    assert (one.instances, dict(one.by_split), one.speakers) == (3, {"train": 3, "dev": 1}, {"s1", "s2"})
    assert dict(one.positions) == {"middle": 1, "beginning": 2}
    assert (one.alone, len(one.sentences)) == (1, 3)
    assert (other.instances, dict(other.by_split)) == (0, {"test": 1})
    assert two_words.instances == 1
    assert plan.term_frac == pytest.approx(5 / 15)  # three times one word and once two, of 6 + 4 + 1 + 4


def test_coverage_and_growth_by_hand(small: Path) -> None:
    plan = make_plan(small, PlanRequest())
    dev, test = plan.coverages
    assert (dev.tokens, dev.tokens_seen, dev.types) == (5, 3, 5)
    assert {word for word, _ in dev.missing} == {"met", "at"}
    assert test.out_of_vocabulary_frac == pytest.approx(3 / 5)
    last = plan.growth[-1]
    assert (last.texts, last.types) == (4, plan.vocabulary)
    assert last.out_of_vocabulary_frac == pytest.approx(5 / 10)


def test_growth_counts_the_texts_before_the_mark() -> None:
    texts = Texts()
    for word in "abcd":
        texts.add([word])
    growth = vocabulary_growth(texts, dict.fromkeys("abcdwxyz", 1), points=4)
    assert [(one.texts, one.types) for one in growth] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [one.out_of_vocabulary_frac for one in growth] == [7 / 8, 6 / 8, 5 / 8, 4 / 8]


def test_growth_never_rises() -> None:
    rng = np.random.default_rng(0)
    texts = Texts()
    for _ in range(200):
        texts.add([f"w{int(number)}" for number in rng.zipf(1.5, 8)])
    target = {f"w{int(number)}": 1 for number in range(1, 50)}
    growth = vocabulary_growth(texts, target)
    shares = [one.out_of_vocabulary_frac or 0.0 for one in growth]
    assert len(growth) == 10
    assert shares == sorted(shares, reverse=True)
    assert [one.types for one in growth] == sorted(one.types for one in growth)
    assert growth[-1].out_of_vocabulary_frac == coverage(texts.counts(), target, "x").out_of_vocabulary_frac


def test_the_notebooks_sum_of_ten_words() -> None:
    """10 words times 70 instances at 10 % density and 2 words a second are about 60 minutes (L16069-16072)."""
    sentence = "one two three {term} five six seven eight nine ten"
    possible = candidates(TEN, [], [sentence.replace("one", f"one{n}") for n in range(10)])
    plan = plan_recordings(dict.fromkeys(TEN, 70), possible)
    assert (len(plan.takes), plan.words, plan.density_frac) == (700, 7000, 0.1)
    assert plan.audio_s == 3500
    assert plan.recording_s == 3 * 3500
    assert plan.sessions == math.ceil(10_500 / 1800)
    assert plan.unmet == {}


def test_the_cover_meets_every_need_in_varied_sentences() -> None:
    missing = {"alfa": 50, "bravo": 20, "charlie": 0}
    plan = plan_recordings(missing, candidates(TEN, [], CARRIERS["en"]))
    assert plan.planned == {"alfa": 50, "bravo": 20}
    assert plan.unmet == {}
    texts = [take.text for take in plan.takes if "alfa" in take.terms]
    assert len(set(texts)) == len(CARRIERS["en"])
    assert max(texts.count(text) for text in set(texts)) <= math.ceil(50 / len(CARRIERS["en"]))
    first_takes = [take.take for take in plan.takes]
    assert first_takes == sorted(first_takes)


def test_a_sentence_with_several_terms_is_preferred() -> None:
    both = Candidate("alfa and bravo in one line", 6, {"alfa": 1, "bravo": 1})
    each = [Candidate(f"only {term} in one line", 6, {term: 1}) for term in ("alfa", "bravo")]
    plan = plan_recordings({"alfa": 1, "bravo": 1}, [*each, both])
    assert [take.text for take in plan.takes] == [both.text]


def test_instances_beyond_the_need_are_worth_nothing() -> None:
    twice = Candidate("alfa met alfa there", 4, {"alfa": 2})
    once = Candidate("alfa was there", 3, {"alfa": 1})
    assert [take.text for take in plan_recordings({"alfa": 1}, [twice, once]).takes] == [once.text]
    assert [take.text for take in plan_recordings({"alfa": 2}, [twice, once]).takes] == [twice.text]


def test_too_few_sentences_are_said_so() -> None:
    plan = plan_recordings({"alfa": 50}, candidates(["alfa"], ["we saw alfa there"], []))
    assert (plan.planned, plan.unmet) == ({"alfa": 9}, {"alfa": 41})


def test_the_same_seed_gives_the_same_plan() -> None:
    possible = candidates(TEN, [], CARRIERS["en"])
    plans = [plan_recordings(dict.fromkeys(TEN, 30), possible, seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_carriers_put_the_term_in_every_position_at_the_recommended_density() -> None:
    counter = TermCounter(["alfa"])
    for one in candidates(["alfa"], [], CARRIERS["en"]):
        counter.add(one.text.lower().strip(".?").split(), "train", None, True)
    positions = counter.densities["alfa"].positions
    assert all(positions[name] >= 3 for name in ("beginning", "middle", "end"))
    assert 0.10 <= (counter.term_frac or 0) <= 0.15


@pytest.mark.parametrize(
    ("hours", "gain"),
    [(0.5, None), (1.5, (5, 15)), (3, (10, 20)), (15, (20, 40)), (30, (20, 60)), (75, (40, 60)), (5000, (70, 85))],
)
def test_gain_by_volume(hours: float, gain: tuple[float, float] | None) -> None:
    assert expected_gain(hours)[1] == gain


def test_more_hours_never_promise_less() -> None:
    spans = [expected_gain(hours)[1] or (0, 0) for hours in np.geomspace(0.1, 2000, 400)]
    assert all(after[1] >= before[1] for before, after in itertools.pairwise(spans))
    assert [tier.from_h for tier in TIERS] == sorted(tier.from_h for tier in TIERS)


def test_the_verdict_knows_the_goal() -> None:
    assert advise_volume(1.0, 1, "vocabulary").verdict.startswith("enough")
    assert advise_volume(1.0, 1, "general").verdict.startswith("too little")
    assert advise_volume(1.0, 1, "vocabulary").speakers_wanted == 0
    assert advise_volume(60.0, 30, "general").speakers_wanted == 20
    assert all(goal.least_h < goal.enough_h for goal in GOALS.values())
    with pytest.raises(InputError, match="vocabulary"):
        advise_volume(1.0, 1, "world peace")


@pytest.mark.parametrize(
    ("minutes", "level"),
    [(0, "missing"), (14.9, "error"), (15, "warning"), (59, "warning"), (60, "ok"), (300, "ideal")],
)
def test_split_sizes(minutes: float, level: str) -> None:
    assert split_verdicts({"dev": 60 * minutes})["dev"]["level"] == level


def test_labour_of_one_hour() -> None:
    """$1 a minute is $60 an hour of audio, four hours of typing at $30 are $120 (notebook L2451-2455)."""
    one = labour(1.0)
    assert (one.service_cost_usd, one.typing_cost_usd, one.recording_hours) == ((60, 180), 120, 3)


@pytest.mark.parametrize("exponent", [0.1, 0.35, 0.8])
def test_an_exact_power_law_is_recovered(exponent: float) -> None:
    points = [(hours, 30 * hours**-exponent) for hours in (1, 2, 4, 8)]
    curve = fit_learning_curve(points, 16)
    assert (curve.scale, curve.exponent, curve.floor) == pytest.approx((30, exponent, 0))
    assert curve.predicted_wer == pytest.approx(30 * 16**-exponent)
    assert curve.relative_cut == pytest.approx(1 - 2**-exponent)


def test_a_floor_is_recovered_from_enough_points() -> None:
    curve = fit_learning_curve([(hours, 20 * hours**-0.6 + 5) for hours in (0.5, 1, 2, 4, 8, 16, 32)], 1000)
    assert curve.floor == pytest.approx(5, rel=0.02)
    assert curve.predicted_wer == pytest.approx(20 * 1000**-0.6 + 5, rel=0.02)


@pytest.mark.parametrize("volumes", [(1, 2, 4), (1, 2, 3, 4, 1, 2, 3, 4)])
def test_the_interval_covers_new_measurements(volumes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)

    def measured(hours: float) -> float:
        return 30 * hours**-0.3 * math.exp(rng.normal(0, 0.05))

    hits = 0
    for trial in range(80):
        points = [(hours, measured(hours)) for hours in volumes]
        low, high = fit_learning_curve(points, 8, seed=trial, resamples=200).interval
        hits += low <= measured(8) <= high
    assert hits >= 0.85 * 80


def test_a_curve_that_does_not_fall_is_said_so() -> None:
    curve = fit_learning_curve([(1, 20), (2, 21), (4, 22)], 40)
    assert any("label errors" in note for note in curve.notes)
    assert any("times the most hours" in note for note in curve.notes)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(InputError, match="3 different"):
        fit_learning_curve([(1, 30), (2, 20), (2, 21)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hours,cer\n1,2\n", "columns"),
        ("hours,wer\n1,x\n", "line 2"),
        ("hours,wer\n1,20\n0,5\n", "line 3"),
        ("", "columns"),
    ],
)
def test_points_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_points(path)


def test_term_and_carrier_files(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("\ufeff# note\nMakolet\nmakolet \n\nte'udat zehut\n", encoding="utf-8")
    assert read_terms(path) == ["Makolet", "te'udat zehut"]
    for text, says in (("# nothing\n", "no term"), ("good\n!!!\n", "line 2")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read_terms(path)
    path.write_text("I saw {term}.\nI saw nothing.\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        read_carriers(path)


def test_a_language_without_carriers_asks_for_sentences(tmp_path: Path) -> None:
    root = corpus(tmp_path / "c", [("hola amigo", "train", None, 1.0)])
    table = root / "metadata.jsonl"
    table.write_text(table.read_text().replace('"en"', '"es"'))
    with pytest.raises(InputError, match="--carriers"):
        make_plan(root, PlanRequest(terms=("mercado",)))


def test_sentences_of_dev_and_test_are_not_read_again(small: Path) -> None:
    plan = make_plan(small, PlanRequest(terms=("makolet", "misrad")))
    assert plan.recording is not None
    texts = {take.text.lower().strip(".") for take in plan.recording.takes}
    assert "we went to the makolet today" in texts
    assert not texts & {"we met at the makolet", "a misrad is an office"}


def test_a_written_plan_is_whole(small: Path, tmp_path: Path) -> None:
    plan = make_plan(small, PlanRequest(terms=("makolet",), target_hours=2.0))
    write_plan(plan, tmp_path / "plan")
    rows = [json.loads(line) for line in (tmp_path / "plan/prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    page = (tmp_path / "plan/prompts.txt").read_text(encoding="utf-8")
    assert plan.recording is not None
    assert len(rows) == len(plan.recording.takes) == 67
    assert all(row["prompt_id"] in page and row["text"] in page for row in rows)
    assert json.loads((tmp_path / "plan/plan.json").read_text())["recording"]["takes"] == 67
    with pytest.raises(InputError, match="not empty"):
        write_plan(plan, tmp_path / "plan")


@pytest.fixture
def run() -> Any:
    from speechtune.cli import plan

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("plan")(plan.command)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_verb(small: Path, tmp_path: Path, run: Any) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("makolet\nmisrad\n", encoding="utf-8")
    points = tmp_path / "points.csv"
    points.write_text("hours,wer\n1,30\n2,25\n4,21\n", encoding="utf-8")
    words = (small, "--terms", terms, "--learning-curve", points, "--target-hours", 8, "--out", tmp_path / "plan")
    result: Result = run(*words, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["kept"] == 6 and value["seconds_of_audio"] == 12.0
    assert value["recording"]["wanted"] == {"makolet": 67, "misrad": 70}
    assert value["learning_curve"]["target_hours"] == 8
    assert (tmp_path / "plan/prompts.txt").is_file()
    plain = run(small, "--terms", terms, "--quiet")
    assert plain.exit_code == 0 and "to record:" in plain.stdout
    assert run(small, "--goal", "everything").exit_code == 2
    assert run(tmp_path / "nowhere").exit_code == 2


def test_the_text_names_what_the_json_holds(small: Path) -> None:
    plan = make_plan(small, PlanRequest(terms=("makolet",), target_hours=20))
    text = plan_text(plan)
    for part in ("makolet", "20 to 40 %", "unseen", "sessions", "docs/results/children.md"):
        assert part in text
