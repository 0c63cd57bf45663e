from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_systems import corpus_of, heard
from typer.testing import CliRunner

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.scoring import baseline as module
from speechtune.scoring.baseline import BaselineOptions, find_baseline, next_steps
from speechtune.scoring.baseline_advice import advise
from speechtune.scoring.baseline_edges import edge_cases
from speechtune.scoring.comparison import Cost, SystemComparison, compare_systems
from speechtune.scoring.config import ScoringConfig

STEPS = {"train": "TRAIN", "use": "USE MODEL"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three random models that write different things."""
    from tiny_whisper import make_transformers

    made = []
    for positions in (150, 152, 154):
        directory = tmp_path_factory.mktemp("candidates") / f"tiny-{positions}"
        make_transformers(directory, multilingual=False, positions=positions, text_positions=24)
        made.append(str(directory))
    return made


def options(models: list[str], **more: Any) -> BaselineOptions:
    return BaselineOptions(models=tuple(models), minutes=0.1, edge_minutes=0.05, batch_size=8, **more)


def test_search_runs_through_its_phases_and_goes_on_without_a_model(
    tiny_corpus: Path, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    found = find_baseline(tiny_corpus, out, options(models, keep=2))
    assert len(found.screening.systems) == 3 and len(found.full.systems) == 2
    assert found.screening.corpus.seconds_of_audio <= 6 < found.full.corpus.seconds_of_audio
    assert len(found.full.corpus) == len(Corpus.load(tiny_corpus))
    assert len(found.eliminated) == 1 and set(found.eliminated).isdisjoint(found.full.names)
    assert {one.name for one in found.edges} >= {"short", "long", "fast", "rare"}
    ids = {one.utterance_id for one in found.full.corpus}
    assert {one.utterance_id for one in found.screening.corpus} < ids
    best = found.full.systems[found.full.best()[0]]
    assert found.full.reference == found.full.best()[0]
    assert found.advice.model == best.name or found.advice.outcome == "alike"
    assert best.cost.parameters and best.cost.rtf
    kept = json.loads((out / "baseline.json").read_text())
    assert kept["recommendation"]["model"] == found.advice.model
    assert kept["kept"] == 20 and kept["dropped_by_reason"] == {}

    from speechtune.training.recipe import load_recipe

    recipe = load_recipe(out / "recipe.yaml")
    assert recipe.model.base in models and recipe.model.language == "en"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened although everything is there")

    monkeypatch.setattr(module, "open_model", never)
    again = find_baseline(tiny_corpus, out, options(models, keep=2))
    assert again.to_json() == found.to_json()
    with pytest.raises(InputError, match="holds a search with keep 2, not 3"):
        find_baseline(tiny_corpus, out, options(models, keep=3))


def test_command_writes_a_page_and_one_object(tiny_corpus: Path, models: list[str], tmp_path: Path) -> None:
    import typer

    from speechtune.cli.baseline import command

    app = typer.Typer()
    app.command()(command)
    words = [str(tiny_corpus), "--models", ",".join(models[:2]), "--minutes", "0.1", "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(app, [*words, "--json", "--quiet"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    page = Path(found["report"]).read_text()
    assert found["recommendation"]["next_command"] in page.replace("&#39;", "'")
    assert "Edge cases" in page and "Screening" in page
    text = CliRunner().invoke(app, words)
    assert "recommended: " in text.stdout and "next: speechtune" in text.stdout
    one = CliRunner().invoke(app, [str(tiny_corpus), "--models", models[0], "--out", str(tmp_path / "c"), "--json"])
    assert one.exit_code == 2 and "2 to 5" in one.stderr and not (tmp_path / "c").exists()
    none = CliRunner().invoke(app, [str(tiny_corpus), "--models", "a,b", "--out", str(tmp_path / "c"), "--json"])
    assert none.exit_code == 2 and "'a'" in none.stderr and not (tmp_path / "c").exists()


def test_the_test_split_is_not_looked_at(tmp_path: Path) -> None:
    rows = [
        Utterance(utterance_id=str(k), file_name="x", text="a" if k else " ", duration_s=1.0, split=split)
        for k, split in enumerate(("dev", "train", "test", "dev", None))
    ]
    pool, dropped = module._pool(Corpus(tmp_path, rows), None)
    assert [one.utterance_id for one in pool] == ["1", "3", "4"]
    assert dropped == {"of the test split": 1, "without text": 1}


def test_models_at_hand_know_the_language(monkeypatch: pytest.MonkeyPatch, models: list[str]) -> None:
    rows = [
        {"name": "a.en", "path": models[0], "languages": "English"},
        {"name": "b", "path": models[1], "languages": "99 languages"},
        {"name": "c", "path": models[2], "languages": None},
        {"name": "d", "path": None, "languages": None},
    ]
    monkeypatch.setattr(module, "list_models", lambda: rows)
    monkeypatch.setattr(module, "resolve_model", lambda name: Path(next(r["path"] for r in rows if r["name"] == name)))
    assert set(module.models_at_hand("en")) == {"a.en", "b", "c"}
    assert set(module.models_at_hand("he")) == {"b", "c"}
    rows[:] = rows[:2]
    with pytest.raises(InputError, match="only b is on this machine"):
        module.models_at_hand("he")


def comparison(
    shares: dict[str, float], number: int = 400, rtf: tuple[float, ...] = (0.1, 0.2, 0.3)
) -> SystemComparison:
    corpus = corpus_of(number, speakers=40)
    systems = [heard(corpus, name, share) for name, share in shares.items()]
    for one, factor in zip(systems, rtf, strict=False):
        one.cost = Cost(decode_s=factor, audio_s=1.0)
    found = compare_systems(corpus, systems, ScoringConfig(slice_by=["age"]))
    best = found.best()[0]
    return compare_systems(corpus, systems, ScoringConfig(slice_by=["age"]), reference=best)


def test_a_clear_winner_is_said_to_be_one() -> None:
    advice = advise(comparison({"a": 0.5, "b": 0.15, "c": 0.6}), [], STEPS)
    assert (advice.model, advice.outcome, advice.next_command) == ("b", "clear", "TRAIN")
    assert advice.confidence == 1.0


def test_equals_go_to_the_fastest() -> None:
    corpus = corpus_of(3000, speakers=100)
    slow, fast = heard(corpus, "x", 0.03), heard(corpus, "x", 0.03)
    slow.name, fast.name = "slow", "fast"
    slow.cost, fast.cost = Cost(decode_s=2.0, audio_s=1.0), Cost(decode_s=0.1, audio_s=1.0)
    advice = advise(compare_systems(corpus, [slow, fast], ScoringConfig(resamples=500)), [], STEPS)
    assert (advice.model, advice.outcome, advice.next_command) == ("fast", "alike", "USE fast")


def test_equals_of_equal_speed_go_to_the_one_that_knows_when_it_is_wrong() -> None:
    corpus = corpus_of(3000, speakers=100)
    texts = {one.utterance_id: one.text for one in corpus}
    proud, modest = heard(corpus, "x", 0.03), heard(corpus, "x", 0.03)
    proud.name, modest.name = "proud", "modest"
    for one in modest.transcripts:
        one.log_prob = -0.01 if one.text == texts[one.utterance_id] else -3.0
    for one in proud.transcripts:
        one.log_prob = -0.01
    for known, slower, expected in ((False, 1.0, "modest"), (True, 1.05, "modest"), (True, 3.0, "proud")):
        if known:
            proud.cost = Cost(decode_s=1.0, audio_s=10.0)
            modest.cost = Cost(decode_s=slower, audio_s=10.0)
        advice = advise(compare_systems(corpus, [proud, modest], ScoringConfig(resamples=500)), [], STEPS)
        assert (advice.model, advice.outcome) == (expected, "alike")
        assert any("confidences (utterance-mean), the best first: NLL modest" in one for one in advice.sentences)
        assert ("best confidences" in advice.sentences[0]) == (expected == "modest")


def test_too_little_data_is_said_to_be_too_little() -> None:
    advice = advise(comparison({"a": 0.3, "b": 0.32}, number=15), [], STEPS)
    assert advice.outcome == "unsettled" and "too small" in advice.sentences[0]


def test_a_part_where_another_is_better_is_named() -> None:
    corpus = corpus_of(600, speakers=30)
    whole, part = heard(corpus, "whole", 0.2), heard(corpus, "part", 0.6)
    for one, utterance in zip(part.transcripts, corpus, strict=True):
        if utterance.age == "7":
            one.text = utterance.text
    found = compare_systems(corpus, [whole, part], ScoringConfig(slice_by=["age"], resamples=10_000))
    advice = advise(found, [], STEPS)
    assert advice.model == "whole" and advice.outcome == "mixed"
    assert any("part is better where age is 7" in line for line in advice.sentences)


def test_edge_cases_are_the_extremes(tmp_path: Path) -> None:
    rows = [
        Utterance(
            utterance_id=f"u{k:03d}",
            file_name="x",
            text="word " * (1 + k % 7),
            duration_s=1.0 + k / 10,
            age="old" if k in (3, 50) else "young",
            extra={"snr_db": float(-k)},
        )
        for k in range(100)
    ]
    corpus = Corpus(tmp_path, rows)
    found = {
        one.name: [row.utterance_id for row in one.utterances] for one in edge_cases(corpus, 60, 0, tmp_path / "n")
    }
    assert found["noisy"] == [f"u{k:03d}" for k in range(99, 89, -1)]
    assert found["short"] == [f"u{k:03d}" for k in range(10)]
    assert found["long"] == [f"u{k:03d}" for k in range(99, 89, -1)]
    assert found["rare"][:2] == ["u003", "u050"]
    assert found["fast"][0] == "u006"  # seven words in 1.6 s
    assert not (tmp_path / "n").exists()  # nothing was measured: the corpus states its noise
    short = edge_cases(corpus, 0.05, 0, tmp_path / "n")[1]
    assert sum(one.duration_s for one in short.utterances) <= 3.0


def test_next_steps_split_first_where_there_are_no_splits(tmp_path: Path) -> None:
    row = {"file_name": "x", "text": "a", "duration_s": 1.0}
    bare = Corpus(tmp_path / "a b", [Utterance(utterance_id="1", **row)])
    assert next_steps(bare, tmp_path / "r.yaml")["train"].startswith("speechtune split '")
    full = Corpus(tmp_path, [Utterance(utterance_id=s, split=s, **row) for s in ("train", "dev", "test")])
    steps = next_steps(full, tmp_path / "r.yaml")
    assert steps["train"].startswith("speechtune train ") and steps["use"].endswith("--split test")
