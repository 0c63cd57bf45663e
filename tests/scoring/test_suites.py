# ruff: noqa: RUF001

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_systems import corpus_of, heard
from typer.testing import CliRunner

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import open_model
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.score import score_transcripts
from speechtune.scoring.suites import (
    PACKAGED,
    SuiteSet,
    averages,
    evaluate_suite,
    load_suite,
    packaged_suites,
    set_corpus,
)


def test_macro_is_the_mean_of_the_sets_and_micro_all_errors_over_all_words() -> None:
    small, large = corpus_of(20, seed=1), corpus_of(200, seed=2)
    config = ScoringConfig(resamples=2000)
    scores = [
        score_transcripts(small, heard(small, "x", 0.6).transcripts, confidence=config),
        score_transcripts(large, heard(large, "x", 0.1).transcripts, confidence=config),
    ]
    macro, micro = averages(scores, "wer", config)
    assert macro.rate == pytest.approx((scores[0].wer + scores[1].wer) / 2)  # type: ignore[operator]
    words = [one.words for one in scores]
    assert micro.rate == sum(one.errors for one in words) / sum(one.reference_length for one in words)
    for one in (macro, micro):
        assert one.low is not None and one.high is not None and one.rate is not None
        assert one.low < one.rate < one.high
    # The small set weighs half in the macro average, so that one is the less certain.
    assert macro.high - macro.low > 2 * (micro.high - micro.low)  # type: ignore[operator]
    again = averages(scores, "wer", config)
    assert again == (macro, micro)


def test_interval_of_the_macro_average_covers() -> None:
    """Two sets of 100 independent utterances each: the 95 % interval holds the true mean rate about so often."""
    from speechtune.scoring.alignment import Counts
    from speechtune.scoring.score import Score, UtteranceScore

    def drawn(rate: float, generator: np.random.Generator) -> Score:
        errors = generator.binomial(8, rate, 100)
        rows = [
            UtteranceScore(
                utterance_id=str(k), reference="", hypothesis="", words=Counts(8 - e, e, 0, 0), chars=Counts(8, 0, 0, 0)
            )
            for k, e in enumerate(errors.tolist())
        ]
        total = Counts(800 - int(errors.sum()), int(errors.sum()), 0, 0)
        return Score(
            utterances=rows, normaliser="none", words=total, chars=total, interval=None, cer_interval=None, slices={},
            seconds_of_audio=0.0, empty_references=0, insertions_on_empty=0,
        )  # fmt: skip

    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        macro, _ = averages([drawn(0.1, generator), drawn(0.3, generator)], "wer", ScoringConfig(resamples=300))
        assert macro.low is not None and macro.high is not None
        held += macro.low <= 0.2 <= macro.high
    assert 178 <= held <= 199


def test_packaged_suites_are_the_published_layouts() -> None:
    assert set(packaged_suites()) == {"open-asr", "ivrit"}
    english, _ = load_suite("open-asr")
    assert [one.name for one in english.sets][:2] == ["ami", "earnings22"]
    assert len(english.sets) == 8 and english.headline == "macro" and english.normaliser == "whisper-english"
    hebrew, _ = load_suite("ivrit")
    assert len(hebrew.sets) == 6 and hebrew.language == "he"
    assert all(one.corpus.startswith("hf:") for one in [*english.sets, *hebrew.sets])


def test_ivrit_normaliser_deletes_points_and_quotes_then_is_whispers() -> None:
    normalise = get_normaliser("ivrit-leaderboard")
    assert normalise("שָׁלוֹם, \u200fעולם!") == "שלום עולם"
    assert normalise("צה\"ל ג'ירפה") == "צהל גירפה"
    assert normalise("עשרים ושלוש") == "עשרים ושלוש"  # unlike hebrew, numbers stay
    for text in ("בְּבֵית־סֵפֶר", "a [b] c"):
        assert normalise.explain(text)[-1].after == normalise(text)


def test_a_set_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise InputError("cannot load it: no network")

    monkeypatch.setattr("speechtune.scoring.suites.import_corpus", refuse)
    suite, base = load_suite("ivrit")
    with pytest.raises(InputError, match=r"set eval-d1 of the suite ivrit is not on this machine.*go online"):
        set_corpus(suite, suite.sets[0], base)


def test_wrong_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ivrit, open-asr"):
        load_suite("nothing")
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nsets: [{name: a, corpus: x}, {name: a, corpus: y}]\n")
    with pytest.raises(InputError, match="two sets are called 'a'"):
        load_suite(str(path))
    path.write_text("name: s\nnormalizer: x\nsets: [{name: a, corpus: x}]\n")
    with pytest.raises(InputError, match="normaliser"):
        load_suite(str(path))
    path.write_text("name: s\nsets: [{name: a, corpus: 'hf:x/y', split: test}]\n")
    with pytest.raises(InputError, match="write the split into the corpus"):
        load_suite(str(path))


def test_yaml_files_are_packaged() -> None:
    patterns = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "scoring/suites/*.yaml" in patterns and len(list(PACKAGED.glob("*.yaml"))) == 2
    assert SuiteSet.model_fields["corpus"].description


def test_suite_of_local_corpora_from_the_command_line(tmp_path: Path, tiny_model: Path, tiny_corpus: Path) -> None:
    import typer

    from speechtune.cli.evaluate import command

    whole = Corpus.load(tiny_corpus)
    texts = {one.text for one in whole}
    suite = {
        "name": "mine",
        "normaliser": "whisper-english",
        "leave_out_texts": ["then"],
        "sets": [{"name": "dev", "corpus": str(tiny_corpus), "split": "dev"}, {"name": "all", "corpus": "../c"}],
    }
    assert "then" in texts
    (tmp_path / "s").mkdir()
    (tmp_path / "c").symlink_to(tiny_corpus)
    path = tmp_path / "s" / "mine.yaml"
    path.write_text(yaml.safe_dump(suite))
    app = typer.Typer()
    app.command()(command)
    words = [str(tiny_model), "decoding.max_new_tokens=8", "--suite", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--json", "--quiet"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["sets"]] == ["dev", "all"]
    dropped = sum(one.text == "then" for one in whole)
    assert found["sets"][1]["dropped_by_reason"] == {"text that the suite leaves out": dropped}
    assert found["sets"][1]["utterances"] == len(whole) - dropped
    assert found["wer"] == found["macro"]["rate"] == pytest.approx(sum(one["wer"] for one in found["sets"]) / 2)
    assert json.loads((tmp_path / "out" / "suite.json").read_text())["suite"] == "mine"
    refused = CliRunner().invoke(app, [str(tiny_model), "--json"])
    assert refused.exit_code == 2 and "--suite" in refused.stderr


@pytest.mark.parametrize(
    ("layout", "sets", "normaliser"), [("ivrit", 6, "ivrit-leaderboard"), ("open-asr", 8, "whisper-english")]
)
def test_the_leaderboards_run_where_their_sets_are_on_this_machine(
    layout: str,
    sets: int,
    normaliser: str,
    tmp_path: Path,
    tiny_model: Path,
    tiny_corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stand-ins lie where the sets are kept once fetched; nothing is fetched."""
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path))
    monkeypatch.setattr("speechtune.scoring.suites.import_corpus", lambda *_, **__: pytest.fail("fetched"))
    suite, base = load_suite(layout)
    whole = Corpus.load(tiny_corpus)
    for number, one in enumerate(suite.sets):
        part = Corpus(tmp_path / "suites" / layout / one.name, whole.utterances[number : number + 2], whole.card)
        for utterance in part:
            (part.root / utterance.file_name).parent.mkdir(parents=True, exist_ok=True)
            (part.root / utterance.file_name).write_bytes((tiny_corpus / utterance.file_name).read_bytes())
        part.save()
    opened = open_model(str(tiny_model), overrides=["decoding.max_new_tokens=4"])
    found = evaluate_suite(opened, suite, base, tmp_path / "out", ScoringConfig(resamples=100)).to_json()
    assert [one["name"] for one in found["sets"]] == [one.name for one in suite.sets] and len(found["sets"]) == sets
    assert {one["normaliser"] for one in found["sets"]} == {normaliser}
    assert found["wer"] == pytest.approx(sum(one["wer"] for one in found["sets"]) / sets)
    assert found["macro"]["low"] <= found["wer"] <= found["macro"]["high"]
