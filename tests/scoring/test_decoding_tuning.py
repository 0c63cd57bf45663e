"""Tuning of decoding settings: the figure is of unseen speakers, settings are decoded once, runs go on."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.sources import open_model
from speechtune.decoding.transcript import write_transcripts
from speechtune.scoring.tuning import measuring
from speechtune.scoring.tuning.choosing import Limits, choose, deal, pareto_front
from speechtune.scoring.tuning.measuring import Measured
from speechtune.scoring.tuning.nonspeech import KINDS, draw_clips, make_corpus, render
from speechtune.scoring.tuning.run import TuneDecodingOptions, tune_decoding
from speechtune.scoring.tuning.space import Space, block_of, draw, key_of, settings


def made(errors: list[int], inserted: float = 0.0, rtf: float = 1.0) -> Measured:
    return Measured(np.array(errors), inserted, rtf)


SPEAKERS = [f"s{number // 5}" for number in range(40)]
LENGTHS = np.full(40, 10)


def test_chance_is_not_reported_as_a_gain() -> None:
    """Two hundred settings that differ by chance only: the best looks good on all, not on speakers it has not seen."""
    shown, crossed = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        measured = [made(rng.binomial(10, 0.3, 40).tolist()) for _ in range(200)]
        choice = choose(measured, LENGTHS, SPEAKERS, Limits(), folds=4, resamples=0)
        shown.append(choice.rate_chosen)
        crossed.append(choice.rate_crossed)
    assert np.mean(shown) < 0.27
    assert np.mean(crossed) == pytest.approx(0.3, abs=0.01)


def test_a_real_gain_is_found_and_significant() -> None:
    rng = np.random.default_rng(0)
    base = rng.binomial(10, 0.4, 40)
    measured = [made(base.tolist()), made((base + 1).tolist()), made(np.maximum(base - 2, 0).tolist())]
    choice = choose(measured, LENGTHS, SPEAKERS, Limits(), folds=4)
    assert choice.chosen == 2 and set(choice.folds) == {2}
    assert choice.rate_crossed == choice.rate_chosen == np.maximum(base - 2, 0).sum() / 400
    assert choice.significant
    worse = choose([measured[2], measured[0], measured[1]], LENGTHS, SPEAKERS, Limits(), folds=4)
    assert worse.chosen == 0 and not worse.significant and worse.rate_crossed == worse.rate_default


def test_a_fold_s_setting_depends_on_the_other_folds_only() -> None:
    rng = np.random.default_rng(1)
    measured = [made(rng.binomial(10, 0.3, 40).tolist()) for _ in range(10)]
    before = choose(measured, LENGTHS, SPEAKERS, Limits(), folds=4, resamples=0)
    groups = deal(sorted(set(SPEAKERS)), 4, 0)
    inside = np.array([groups[name] == 2 for name in SPEAKERS])
    for one in measured:
        one.errors = np.where(inside, rng.integers(0, 10, 40), one.errors)
    after = choose(measured, LENGTHS, SPEAKERS, Limits(), folds=4, resamples=0)
    assert before.folds[2] == after.folds[2]
    assert before.folds != after.folds


def test_limits_keep_slow_and_inventive_settings_out() -> None:
    measured = [
        made([3] * 40, 2.0, 1.0),
        made([1] * 40, 2.0, 5.0),
        made([1] * 40, 3.0, 1.0),
        made([2] * 40, 2.0, 2.0),
    ]
    choice = choose(measured, LENGTHS, SPEAKERS, Limits(slowdown=4.0), resamples=0)
    assert choice.chosen == 3 and choice.admissible == [0, 3]
    assert choose(measured, LENGTHS, SPEAKERS, Limits(10.0, 1.0), resamples=0).admissible == [0, 1, 2, 3]
    assert choice.pareto == [0, 1, 2, 3]
    assert pareto_front([(1, 1, 1), (1, 1, 2), (0, 5, 5), (1, 1, 1)]) == [0, 2, 3]


def test_one_speaker_or_no_words_cannot_be_tuned_on() -> None:
    with pytest.raises(InputError, match="fewer than two speakers"):
        choose([made([1, 1])], np.array([3, 3]), ["a", "a"], Limits())
    with pytest.raises(InputError, match="no reference words"):
        choose([made([1, 1])], np.array([0, 0]), ["a", "b"], Limits())


class Draws:
    """Draws at random what an Optuna trial would, and checks that a name always has the same choices."""

    def __init__(self, seed: int, known: dict[str, list[Any]]) -> None:
        self.rng, self.known = random.Random(seed), known

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        assert self.known.setdefault(name, choices) == choices
        return self.rng.choice(choices)


def test_every_draw_is_a_valid_configuration_and_a_setting_has_one_key() -> None:
    space, base = Space(("fit", "full"), 8, "hello", "some.arpa"), DecodingConfig(max_new_tokens=50)
    known: dict[str, list[Any]] = {}
    keys = set()
    for seed in range(300):
        params = draw(Draws(seed, known), space)
        config = settings(base, params, space)
        assert config.max_new_tokens == 50
        assert config.search.n_best <= config.beams
        assert ("length_penalty" in params) == (config.beams > 1)
        assert ("margin_s" in params) == (config.context == "fit")
        written = {"decoding": block_of(config)}
        assert DecodingConfig.model_validate(yaml.safe_load(yaml.safe_dump(written))["decoding"]) == config
        assert key_of(config) == key_of(settings(base, json.loads(json.dumps(params)), space))
        keys.add(key_of(config))
    assert len(keys) > 250
    assert {"prompt", "lm_use", "lm_use_greedy", "alpha", "context"} <= set(known)


def test_clips_without_speech_are_as_drawn(tmp_path: Path) -> None:
    clips = draw_clips(10, 3)
    assert clips == draw_clips(10, 3) != draw_clips(10, 4)
    assert {one.kind for one in clips} == set(KINDS)
    for clip in clips:
        samples = render(clip)
        assert len(samples) == round(clip.seconds * 16_000) and np.array_equal(samples, render(clip))
        if clip.kind == "silence":
            assert not samples.any()
        elif clip.kind != "clicks":
            level = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))
            assert level == pytest.approx(clip.level_dbfs, abs=0.1)
    corpus = make_corpus(tmp_path / "clips", clips, "en")
    assert [one.text for one in corpus] == [""] * 10
    assert make_corpus(tmp_path / "clips", [], "en").fingerprint() == corpus.fingerprint()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every decoding of speech or clips that a test causes."""
    pytest.importorskip("optuna", reason="optuna is not installed")
    calls: list[str] = []
    real = measuring.transcribe_corpus

    def transcribe(*arguments: Any) -> Any:
        calls.append(key_of(arguments[2]))
        return real(*arguments)

    monkeypatch.setattr(measuring, "transcribe_corpus", transcribe)
    return calls


def test_a_run_that_is_cut_off_ends_like_one_that_is_not(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TuneDecodingOptions(split=None, trials=4, folds=3, most_beams=2, clips=0, resamples=50)
    short_texts(monkeypatch)
    whole = tune_decoding(str(tiny_model), tiny_corpus, tmp_path / "a.yaml", options)
    assert len(counted) == len(set(counted)) == len({key_of(row.config) for row in whole.rows})

    counted.clear()
    stop_after(monkeypatch, counted, 2)
    with pytest.raises(KeyboardInterrupt):
        tune_decoding(str(tiny_model), tiny_corpus, tmp_path / "b.yaml", options)
    assert not (tmp_path / "b.yaml").exists()
    stop_after(monkeypatch, counted, 1000)
    counted.clear()
    again = tune_decoding(str(tiny_model), tiny_corpus, tmp_path / "b.yaml", options)
    assert [row.params for row in again.rows] == [row.params for row in whole.rows]
    assert again.choice.folds == whole.choice.folds or again.choice.admissible != whole.choice.admissible
    assert len(counted) < len({key_of(row.config) for row in whole.rows})

    counted.clear()
    more = TuneDecodingOptions(split=None, trials=5, folds=3, most_beams=2, clips=0, resamples=50)
    longer = tune_decoding(str(tiny_model), tiny_corpus, tmp_path / "b.yaml", more, overwrite=True)
    assert [row.params for row in longer.rows[:5]] == [row.params for row in whole.rows]
    assert len(counted) <= 1


def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never ends a text: let it stop early."""
    from speechtune.scoring.tuning import run

    def opened(name: str, **rest: Any) -> Any:
        found = open_model(name, **rest)
        found.decoding.max_new_tokens = 4
        return found

    monkeypatch.setattr(run, "open_model", opened)


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: list[str], most: int) -> None:
    def write(*arguments: Any) -> None:
        if len(calls) > most:
            raise KeyboardInterrupt
        write_transcripts(*arguments)

    monkeypatch.setattr(measuring, "write_transcripts", write)


def test_the_command_writes_what_transcribe_reads(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    from typer.testing import CliRunner

    from speechtune.cli.app import build

    short_texts(monkeypatch)
    out = tmp_path / "decoding.yaml"
    base = ["tune-decoding", str(tiny_model), str(tiny_corpus), "--split", "dev", "--out", str(out), "--quiet"]
    words = [*base, "--trials", "2", "--folds", "0", "--clips", "2", "--max-beams", "2", "--json"]
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["trials"] == 2 and result["kept"] == len(Corpus.load(tiny_corpus).split("dev"))
    assert open_model(str(tiny_model), settings=out).decoding.context == result["chosen"]["decoding"]["context"]
    rows = list(csv.DictReader((tmp_path / "decoding.tuning" / "trials.csv").open()))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert sum(int(row["chosen"]) for row in rows) == 1
    assert sum(int(row["folds"]) for row in rows) == len(result["folds"])
    assert float(rows[0]["wer"]) == pytest.approx(result["default"]["rate"], abs=1e-5)
    again = CliRunner().invoke(build(), words)
    assert again.exit_code == 2 and "add --overwrite" in again.stderr
    same_place = [str(tmp_path / "decoding.yml") if word == str(out) else word for word in words]
    other = CliRunner().invoke(build(), [*same_place, "--seed", "3"])
    assert other.exit_code == 2 and "holds trials of another model, corpus or search" in other.stderr
    wrong = CliRunner().invoke(build(), [*base, "--metric", "per", "--overwrite"])
    assert wrong.exit_code == 2 and "use wer or cer" in wrong.stderr
    for context in ("fit", "full"):
        single = CliRunner().invoke(build(), [*words, "--overwrite", "--trials", "1", "--context", context])
        assert json.loads(single.stdout)["chosen"]["decoding"]["context"] == context
        assert "context" not in csv.DictReader((tmp_path / "decoding.tuning" / "trials.csv").open()).fieldnames  # type: ignore[operator]
