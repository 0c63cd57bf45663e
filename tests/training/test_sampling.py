"""Laws of the training draw: ratios, temperatures, weights, curricula; the same on every process and after a resume."""

from __future__ import annotations

import hashlib
import json
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Started

from speechtune.core.errors import InputError
from speechtune.corpus.config import CurriculumConfig, DataConfig
from speechtune.corpus.sampling import Group, PoolDraw, systematic
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Family, load_family
from speechtune.training.config import AudioContextConfig, BatchConfig, SpeedConfig
from speechtune.training.data import BucketSampler, Pick, TrainingSet
from speechtune.training.pool import Pool, training_pool

DURATIONS_S = np.random.default_rng(0).gamma(3.0, 1.3, 500).clip(0.3, 29).tolist()


def draw_of(*sizes: int, shares: tuple[float, ...], shown: int, **options: Any) -> PoolDraw:
    edges = np.cumsum([0, *sizes])
    groups = [
        Group(f"g{number}", np.arange(edges[number], edges[number + 1]), share) for number, share in enumerate(shares)
    ]
    return PoolDraw(tuple(groups), shown, **options)


def counts(draw: PoolDraw, epoch: int, seed: int = 0, pool: int | None = None) -> np.ndarray:
    return np.bincount(draw(seed, epoch), minlength=pool or sum(len(group.members) for group in draw.groups))


def test_without_a_draw_the_plan_is_what_it_was_before_draws_existed() -> None:
    """The digest was taken from the sampler of commit 313e32b."""
    one = BucketSampler(
        DURATIONS_S,
        BatchConfig(utterances=16, seconds=200),
        AudioContextConfig(),
        SpeedConfig(share=0.5),
        epochs=3,
        seed=0,
        window_s=30.0,
    )
    plan = [[(pick.index, round(pick.context_s, 9), round(pick.speed, 9)) for pick in batch] for batch in one]
    digest = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    assert digest == "399f69627b3436340cc242126398145a9045a20f0233ac064397cd538589f068"


def test_a_draw_of_everything_once_gives_the_plan_without_a_draw() -> None:
    whole = draw_of(500, shares=(1.0,), shown=500)
    for world in (1, 3):
        options: dict[str, Any] = {"epochs": 3, "seed": 4, "window_s": 30.0, "world": world}
        parts = (DURATIONS_S, BatchConfig(utterances=16, seconds=200), AudioContextConfig(), SpeedConfig(share=0.5))
        assert list(BucketSampler(*parts, **options)) == list(BucketSampler(*parts, **options, draw=whole))


@pytest.mark.parametrize("seed", range(5))
def test_systematic_rounds_each_down_or_up_keeps_the_total_and_is_right_on_average(seed: int) -> None:
    expected = np.random.default_rng(seed).dirichlet(np.ones(20)) * 57
    drawn = np.array([systematic(expected, np.random.default_rng((seed, again))) for again in range(2000)])
    assert (drawn.sum(axis=1) == 57).all()
    assert ((drawn == np.floor(expected)) | (drawn == np.ceil(expected))).all()
    assert np.abs(drawn.mean(axis=0) - expected).max() < 4 * np.sqrt(0.25 / 2000)


def test_a_ratio_is_kept_in_every_epoch_and_all_are_shown_before_one_repeats() -> None:
    draw = draw_of(80, 300, shares=(0.8, 0.2), shown=100)
    seen = np.zeros(380, dtype=int)
    for epoch in range(20):
        shown = counts(draw, epoch)
        assert shown.sum() == 100
        assert abs(shown[:80].sum() - 80) <= 3 * np.sqrt(100 * 0.8 * 0.2)  # the bound of independent draws ...
        assert abs(shown[:80].sum() - 80) <= 1  # ... and the far closer one of this draw
        seen += shown
        for part in (seen[:80], seen[80:]):
            assert part.max() - part.min() <= 1


def test_draws_are_a_function_of_seed_and_epoch_whatever_was_asked_before() -> None:
    draw = draw_of(50, 70, shares=(0.33, 0.67), shown=64)
    in_order = [draw(3, epoch).tolist() for epoch in range(6)]
    again = draw_of(50, 70, shares=(0.33, 0.67), shown=64)
    assert [again(3, epoch).tolist() for epoch in reversed(range(6))] == in_order[::-1]
    assert draw(4, 0).tolist() != in_order[0]
    assert len({tuple(one) for one in in_order}) == 6


def test_weights_are_how_often_an_utterance_is_shown() -> None:
    weights = np.array([1.0] * 50 + [3.0] * 50)
    draw = draw_of(100, shares=(1.0,), shown=100, weights=weights)
    total = sum(counts(draw, epoch) for epoch in range(40))
    assert total[50:].sum() / total.sum() == pytest.approx(0.75, abs=0.01)
    assert (np.abs(total - 40 * weights / 2) <= 40 * 0.5).all()
    assert total.std() > 0


def test_a_curriculum_begins_with_the_easiest_of_every_group_and_grows_to_everything() -> None:
    difficulty = np.random.default_rng(1).permutation(200).astype(float)
    curriculum = CurriculumConfig(by="wer", epochs=4)
    draw = draw_of(120, 80, shares=(0.6, 0.4), shown=200, difficulty=difficulty, curriculum=curriculum)
    for epoch, part in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        shown = counts(draw, epoch)
        assert shown.sum() == round(200 * part)
        for members in (np.arange(120), np.arange(120, 200)):
            easiest = set(members[np.argsort(difficulty[members])[: round(len(members) * part)]])
            assert set(members[shown[members] > 0]) == easiest


def test_sorted_epochs_show_easy_batches_first_and_later_ones_do_not() -> None:
    difficulty = np.asarray(DURATIONS_S)
    curriculum = CurriculumConfig(by="duration_s", epochs=1, how="sorted")
    draw = draw_of(500, shares=(1.0,), shown=500, difficulty=difficulty, curriculum=curriculum)
    one = BucketSampler(DURATIONS_S, BatchConfig(), AudioContextConfig(), epochs=2, seed=0, window_s=30.0, draw=draw)
    means = [[np.mean([difficulty[pick.index] for pick in batch]) for batch in one.plan(epoch)] for epoch in (0, 1)]
    assert means[0] == sorted(means[0])
    assert means[1] != sorted(means[1])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_with_a_draw_batches_keep_both_bounds_and_processes_share_one_plan(world: int) -> None:
    draw = draw_of(100, 400, shares=(0.7, 0.3), shown=333)
    parts = [
        BucketSampler(
            DURATIONS_S,
            BatchConfig(utterances=16, seconds=200),
            AudioContextConfig(full_share=0.2),
            SpeedConfig(share=0.3),
            epochs=3,
            seed=1,
            window_s=30.0,
            rank=rank,
            world=world,
            draw=draw,
        )
        for rank in range(world)
    ]
    assert len({len(list(part)) for part in parts}) == 1
    assert len(parts[0]) == len(list(parts[0]))
    for epoch in range(3):
        plan = parts[0].plan(epoch)
        assert all(part.plan(epoch) == plan for part in parts)
        shares = [plan[rank::world] for rank in range(world)]
        picks = Counter((pick.epoch, pick.place) for share in shares for batch in share for pick in batch)
        wanted = draw(1, epoch)
        assert set(picks) == {(epoch, place) for place in range(len(wanted))}
        repeated = {(pick.epoch, pick.place) for batch in plan[: world - 1] for pick in batch}
        assert all(count == 1 for key, count in picks.items() if key not in repeated)
        for batch in plan:
            assert len(batch) <= 16
            assert len(batch) == 1 or len(batch) * max(pick.context_s for pick in batch) <= 200 + 1e-9
            assert len({pick.context_s == 30.0 for pick in batch}) == 1
            assert all(pick.index == wanted[pick.place] for pick in batch)
            assert all(pick.context_s >= DURATIONS_S[pick.index] / pick.speed - 1e-9 for pick in batch)


# From a recipe's data section to a pool.


@pytest.fixture(scope="module")
def family(tiny_model: Path) -> Family:
    return load_family(tiny_model)


def save_corpus(root: Path, rows: list[Utterance]) -> Corpus:
    root.mkdir()
    corpus = Corpus(root, rows, {})
    corpus.save()
    return corpus


def rows_of(count: int, prefix: str, **columns: Any) -> list[Utterance]:
    rng = np.random.default_rng(len(prefix) + count)
    return [
        Utterance(
            utterance_id=f"{prefix}{number}",
            file_name=f"audio/{prefix}{number}.wav",
            text="sing",
            duration_s=float(rng.uniform(0.5, 2.5)),
            speaker_id=f"{prefix}s{number % 5}",
            split="dev" if number % 10 == 9 else "train",
            **{name: value(number) if callable(value) else value for name, value in columns.items()},
        )
        for number in range(count)
    ]


@pytest.fixture
def own(tmp_path: Path) -> Corpus:
    """90 training utterances: three quarters aged 6, and a tier and a weight as extra columns."""
    extra = lambda number: {"tier": "0.7" if number % 3 else "all", "quality": number % 2, "wer": number / 100}  # noqa: E731
    return save_corpus(tmp_path / "own", rows_of(100, "a", age=lambda n: "6" if n % 4 else "7", extra=extra))


@pytest.fixture
def other(tmp_path: Path) -> Corpus:
    languages = lambda number: "hi" if number % 2 else "en"  # noqa: E731
    return save_corpus(tmp_path / "other", rows_of(300, "b", language=languages))


def pool_of(corpus: Corpus, family: Family, **data: Any) -> Pool:
    return training_pool(corpus, family, DataConfig(corpus=str(corpus.root), **data))


def test_a_plain_recipe_draws_nothing_and_takes_the_split(own: Corpus, family: Family) -> None:
    pool = pool_of(own, family)
    assert pool.draw is None
    assert pool.utterances == own.split("train").utterances
    assert set(pool.to_json()) == {"kept", "dropped_by_reason", "seconds_of_audio"}


def test_a_mixture_shows_the_target_once_and_the_others_at_their_ratio(
    own: Corpus, other: Corpus, family: Family
) -> None:
    mix = [{"weight": 0.75}, {"corpus": str(other.root), "weight": 0.25, "language": "hi"}]
    pool = pool_of(own, family, mix=mix)
    assert pool.draw is not None
    assert pool.draw.epoch_utterances == 120
    first = Counter(pool.utterances[index].utterance_id for index in pool.draw(0, 0))
    assert {name for name in first if name[0] == "a"} == {row.utterance_id for row in own.split("train")}
    assert sum(count for name, count in first.items() if name[0] == "b") == 30
    assert {row.language for row in pool.utterances if row.utterance_id[0] == "b"} == {"hi"}
    assert {Path(row.file_name).is_absolute() for row in pool.utterances} == {True}
    assert pool.to_json()["mix"][1]["kept"] == len(pool.utterances) - 90
    for row in other:
        row.split = None
    other.save()
    unsplit = pool_of(own, family, mix=mix)
    assert sum(row.utterance_id[0] == "b" for row in unsplit.utterances) == 150
    seconds = pool_of(own, family, mix=mix, mix_unit="seconds", epoch_utterances=600)
    assert seconds.draw is not None
    shown_s = [0.0, 0.0]
    for index in seconds.draw(0, 0):
        shown_s[seconds.utterances[index].utterance_id[0] == "b"] += seconds.utterances[index].duration_s
    assert shown_s[0] / sum(shown_s) == pytest.approx(0.75, abs=0.02)


def test_balance_at_temperature_one_changes_nothing_and_at_infinity_is_uniform(own: Corpus, family: Family) -> None:
    natural = pool_of(own, family, balance={"column": "age", "temperature": 1})
    assert natural.draw is not None
    assert all(natural.draw(seed, 0).tolist() == list(range(90)) for seed in range(5))
    uniform = pool_of(own, family, balance={"column": "age", "temperature": float("inf")})
    assert uniform.draw is not None
    ages = Counter(uniform.utterances[index].age for index in uniform.draw(0, 0))
    assert ages == {"6": 45, "7": 45}
    halfway = pool_of(own, family, balance={"column": "age", "temperature": 2}, epoch_utterances=1000)
    assert halfway.draw is not None
    sizes = Counter(row.age for row in own.split("train"))
    wanted = np.sqrt(sizes["6"]) / (np.sqrt(sizes["6"]) + np.sqrt(sizes["7"]))
    assert np.mean([halfway.utterances[index].age == "6" for index in halfway.draw(0, 0)]) == pytest.approx(
        wanted, abs=0.001
    )


def test_oversampling_shows_everything_at_least_once(own: Corpus, family: Family) -> None:
    balance = {"column": "age", "temperature": float("inf"), "how": "oversample"}
    pool = pool_of(own, family, balance=balance)
    assert pool.draw is not None
    sizes = Counter(row.age for row in own.split("train"))
    for epoch in range(3):
        shown = counts(pool.draw, epoch)
        assert shown.min() == 1
        assert shown.sum() == 2 * max(sizes.values())


def test_conditions_weights_and_hours_are_counted(own: Corpus, family: Family) -> None:
    pool = pool_of(own, family, where=["tier=0.7", {"column": "wer", "max": 0.8}], weight_column="quality")
    assert {row.extra["tier"] for row in pool.utterances} == {"0.7"}
    assert {row.extra["quality"] for row in pool.utterances} == {1}
    assert set(pool.dropped) == {"tier is not 0.7", "wer is above 0.8", "quality is 0"}
    assert len(pool.utterances) + sum(pool.dropped.values()) == 90
    small, large = (pool_of(own, family, hours=hours) for hours in (0.01, 0.02))
    assert {row.utterance_id for row in small.utterances} < {row.utterance_id for row in large.utterances}
    assert 30 < small.seconds_of_audio <= 36
    assert small.dropped == {"not drawn for hours": 90 - len(small.utterances)}
    few = pool_of(own, family, max_utterances=7)
    assert (len(few.utterances), sum(few.dropped.values())) == (7, 83)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"where": ["tier=none"]}, "meets the conditions"),
        ({"where": ["colour=red"]}, "its columns are file_name"),
        ({"where": ["duration_s<=x"]}, "valid number"),
        ({"weight_column": "age_s"}, "no utterance of .* has age_s"),
        ({"curriculum": {"by": "tier_name"}}, "has tier_name"),
        ({"curriculum": {"by": "speaker_id"}}, "not a number"),
        ({"mix": [{"weight": 1, "language": "fr"}]}, "no utterance in language 'fr'"),
        ({"mix": [{"weight": 1, "split": "dev"}]}, "also in the dev split"),
        ({"mix": [{"weight": 0}]}, "greater than 0"),
        ({"mix": [{"weight": 1}], "hours": 1}, "give hours to the parts"),
        ({"hours": 1e-6}, "too few for one utterance"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(own: Corpus, family: Family, data: dict[str, Any], expected: str) -> None:
    with pytest.raises((InputError, ValueError), match=expected):
        pool_of(own, family, **data)


def test_the_augment_hook_gets_the_epoch_and_the_place(tiny_corpus: Path, family: Family) -> None:
    corpus = Corpus.load(tiny_corpus).split("train")
    calls = []

    def augment(utterance: Utterance, epoch: int, place: int) -> Callable[[Any], Any]:
        calls.append((utterance.utterance_id, epoch, place))
        return lambda waveform: waveform * 0.5

    config = DataConfig(corpus=str(tiny_corpus))
    plain = TrainingSet(corpus, corpus.utterances, family, config)
    quiet = TrainingSet(corpus, corpus.utterances, family, config, augment=augment)
    pick = Pick(3, 2.0, epoch=5, place=17)
    np.testing.assert_allclose(quiet[pick][0].waveform, plain[pick][0].waveform * 0.5)
    assert calls == [("u03", 5, 17)]


KILL_AT_STEP_3 = """
import os, signal, sys, transformers
original = transformers.Trainer.training_step
def step(self, *a, **k):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *a, **k)
transformers.Trainer.training_step = step
"""


def test_a_mixed_run_resumes_and_names_what_it_learnt_from(
    write_recipe: Callable[..., Path], tiny_corpus: Path, tmp_path: Path
) -> None:
    """The whole road with every option: killed and resumed, the same weights; a changed part is refused."""
    source = Corpus.load(tiny_corpus)
    rows = [
        replace(row, file_name=str(source.path_of(row).resolve()), utterance_id=f"x{row.utterance_id}", split="train")
        for row in source.split("train")
    ]
    second = save_corpus(tmp_path / "second", rows)
    data = {
        "corpus": str(tiny_corpus),
        "mix": [{"weight": 0.8}, {"corpus": str(second.root), "weight": 0.2, "where": ["duration_s<=1.2"]}],
        "balance": {"column": "speaker_id"},
        "curriculum": {"by": "duration_s", "epochs": 2},
        "where": [{"column": "speaker_id", "not_in": ["s5"]}],
    }
    training = {"checkpoint_every_steps": 1, "epochs": 3, "batch": {"utterances": 4}, "trackers": []}
    recipe = write_recipe(data=data, training=training, evaluation={"contexts": ["fit"], "scoring": {"resamples": 50}})
    run = tmp_path / "run"
    done = Started(["train", recipe, "--out", run, "--quiet"])
    assert done.wait() == 0, done.stderr()
    facts = json.loads((run / "provenance.json").read_text())["data"]
    assert [part["weight"] for part in facts["mix"]] == [0.8, 0.2]
    assert facts["draw"]["epoch_utterances"] == round(facts["mix"][0]["kept"] / 0.8)
    assert facts["dropped_by_reason"]["speaker_id is s5"] > 0
    killed = tmp_path / "killed"
    stopped = Started(["train", recipe, "--out", killed, "--quiet"], KILL_AT_STEP_3)
    assert stopped.wait() == -signal.SIGKILL, stopped.stderr()
    done = Started(["train", recipe, "--out", killed, "--quiet", "--resume"])
    assert done.wait() == 0, done.stderr()
    first, second_run = ((one / "model" / "model.safetensors").read_bytes() for one in (run, killed))
    assert first == second_run
    (run / "run.json").unlink()
    second.utterances[0].text = "changed"
    second.save()
    refused = Started(["train", recipe, "--out", run, "--quiet", "--resume"])
    assert refused.wait() == 2
    assert "second has changed since" in refused.stderr()
