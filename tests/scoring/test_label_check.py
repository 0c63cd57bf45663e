from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.scoring.label_check import Judging, check_corpus, check_labels
from speechtune.scoring.label_evidence import likeness
from speechtune.scoring.label_judges import Answer, Judge, in_sample_warning
from speechtune.scoring.label_tiers import COLUMNS, RECORD, Tiers, apply_columns, make_tiers, undo_columns

TEXTS = {
    "a": "the quick brown fox jumps over the lazy dog",
    "b": "seven silver swans swam silently seaward",
    "c": "my mother bought a new umbrella yesterday",
    "d": "please close every window before the storm",
    "e": "forty chickens crossed the muddy road",
}


def corpus_of(tmp_path: Path, labels: dict[str, str], **columns: dict[str, Any]) -> Corpus:
    rows = []
    for name, text in labels.items():
        row = {"utterance_id": name, "file_name": f"{name}.wav", "text": text, "duration_s": 3.0, "language": "en"}
        rows.append(Utterance.from_row(row | {key: values[name] for key, values in columns.items() if name in values}))
    root = tmp_path / "corpus"
    root.mkdir(parents=True)
    corpus = Corpus(root, rows, {"kept": len(rows)})
    corpus.card["fingerprint"] = corpus.fingerprint()
    corpus.save()
    return corpus


def judge(heard: dict[str, str], name: str = "judge", **likelihoods: tuple[float, float]) -> Judge:
    answers = {}
    for key, text in heard.items():
        label, own = likelihoods.get(key, (None, None))
        answers[key] = Answer(text=text)
        if label is not None:
            answers[key].label = {"mean": label / 5, "total": label, "end": -0.1, "lowest_word_log_prob": label / 5}
            answers[key].own = {"mean": (own or 0) / 5, "total": own}
    return Judge(name=name, answers=answers)


def kinds(corpus: Corpus, *judges: Judge) -> dict[str, list[str]]:
    return {row["utterance_id"]: row["kinds"] for row in check_labels(corpus, judges, Tiers()).rows}


def test_right_labels_are_not_blamed_and_wrong_ones_are_told_apart(tmp_path: Path) -> None:
    labels = TEXTS | {
        "a": "the quick brown fox jumps",
        "b": TEXTS["b"] + " and never came back",
        "c": "my mother bought the very big a new umbrella yesterday",
        "d": "something altogether different was written here",
    }
    found = kinds(corpus_of(tmp_path, labels), judge(TEXTS), judge(TEXTS, "other"))
    assert found == {
        "a": ["text_truncated"],
        "b": ["audio_truncated"],
        "c": ["extra_words"],
        "d": ["wrong_text"],
        "e": [],
    }


def test_one_judge_that_hears_the_label_confirms_it(tmp_path: Path) -> None:
    heard = TEXTS | {"a": "something altogether different was written here"}
    corpus = corpus_of(tmp_path, TEXTS)
    assert kinds(corpus, judge(heard))["a"] == ["wrong_text"]
    assert kinds(corpus, judge(heard), judge(TEXTS, "other"))["a"] == []


def test_agreement_against_the_label_weighs_more(tmp_path: Path) -> None:
    labels = TEXTS | {"a": "a thicker crown box jumped off the messy frog"}
    corpus = corpus_of(tmp_path, labels)
    one = kinds(corpus, judge(TEXTS))["a"]
    both = kinds(corpus, judge(TEXTS), judge(TEXTS, "other"))["a"]
    assert (one, both) == ([], ["wrong_text"])


def test_a_label_as_probable_as_the_hypothesis_is_not_wrong(tmp_path: Path) -> None:
    labels = TEXTS | {"a": "something altogether different was written here"}
    corpus = corpus_of(tmp_path, labels)
    assert kinds(corpus, judge(TEXTS, a=(-12.0, -10.0)))["a"] == []
    assert kinds(corpus, judge(TEXTS, a=(-60.0, -10.0)))["a"] == ["wrong_text"]


def test_swapped_labels_are_found_with_their_owner_in_pairs_and_circles(tmp_path: Path) -> None:
    labels = TEXTS | {"a": TEXTS["b"], "b": TEXTS["a"], "c": TEXTS["d"], "d": TEXTS["e"], "e": TEXTS["c"]}
    rows = check_labels(corpus_of(tmp_path, labels), [judge(TEXTS)], Tiers()).rows
    assert {row["utterance_id"]: (row["kinds"], row["belongs_to"]) for row in rows} == {
        "a": (["swapped"], "b"),
        "b": (["swapped"], "a"),
        "c": (["swapped"], "e"),
        "d": (["swapped"], "c"),
        "e": (["swapped"], "d"),
    }


def test_a_label_taken_from_another_suspicious_utterance_is_no_swap(tmp_path: Path) -> None:
    labels = TEXTS | {"a": TEXTS["b"], "b": "something altogether different was written here"}
    found = kinds(corpus_of(tmp_path, labels), judge(TEXTS))
    assert found["a"] == found["b"] == ["wrong_text"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "empty"), ("go on go on go on go on go on", "loop"), ("many different words " * 3 + "x" * 120, "loop")],
)
def test_a_judge_that_hallucinates_is_no_evidence_and_the_row_keeps_tier_all(
    tmp_path: Path, text: str, why: str
) -> None:
    report = check_labels(corpus_of(tmp_path, TEXTS), [judge(TEXTS | {"a": text})], Tiers())
    assert report.rows[0]["kinds"] == [] and report.rows[0]["label_wer"] is None
    assert report.rows[0]["label_tier"] == "all" and report.rows[0]["judges"][0]["unusable"] == why
    assert report.unscored == {"no judge heard speech": 1} and report.tiers == {"0.7": 4, "0.9": 0, "all": 1}
    assert report.judge_problems == {f"judge ({why})": 1}


def test_a_loop_that_the_label_has_too_is_speech(tmp_path: Path) -> None:
    said = "no no no no no no"
    assert check_labels(corpus_of(tmp_path, {"a": said}), [judge({"a": said})], Tiers()).unscored == {}


def test_empty_labels_are_scored_against_what_is_heard(tmp_path: Path) -> None:
    rows = check_labels(corpus_of(tmp_path, {"a": "", "b": "(noise)"}), [judge({"a": "", "b": "hello you"})], Tiers())
    assert [(row["label_wer"], row["label_tier"]) for row in rows.rows] == [(0.0, "0.7"), (1.0, "all")]


def test_no_row_is_lost_and_bands_add_up(tmp_path: Path) -> None:
    heard = {name: TEXTS[name] for name in "abc"} | {"c": "my father sold an old coat"}
    corpus = corpus_of(tmp_path, TEXTS, age={"a": "6", "b": "6", "c": "7"})
    report = check_labels(corpus, [judge(heard)], Tiers(), group_by=["age"])
    assert report.unscored == {"no transcript": 2} and len(report.rows) == 5
    assert sum(report.tiers.values()) == 5
    ages = report.bands["age"]
    assert ages["6"]["0"] == 2 and ages["(unknown)"]["not scored"] == 2
    assert sum(count for age in ages.values() for band, count in age.items() if band != "probably wrong") == 5


@pytest.mark.parametrize(
    ("wer", "cer", "or_cer", "tier"),
    [
        (0.0, 0.0, None, "0.7"),
        (0.7, 0.6, None, "0.7"),
        (0.8, 0.4, None, "0.9"),
        (0.95, 0.4, None, "all"),
        (0.95, 0.5, 0.5, "0.9"),
        (0.95, 0.51, 0.5, "all"),
        (None, None, 0.5, "all"),
    ],
)
def test_tiers_are_the_winners_strata(wer: float | None, cer: float | None, or_cer: float | None, tier: str) -> None:
    row = Utterance(utterance_id="a", file_name="a.wav", text="x", duration_s=1.0)
    assert Tiers(or_cer=or_cer).tier(row, wer, cer) == tier


def test_thresholds_may_differ_by_group(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"a": "x", "b": "y"}, age={"a": "3", "b": "9"})
    file = tmp_path / "limits.yaml"
    file.write_text("'3': {0.9: 1.5, 0.7: 1.0}\n")
    tiers = make_tiers([0.9, 0.7], None, f"age:{file}", corpus.root)
    assert [tiers.tier(row, 0.95, None) for row in corpus] == ["0.7", "all"]
    file.write_text("'4': {0.9: 1.5}\n")
    with pytest.raises(InputError, match="no utterance has age '4'"):
        make_tiers([0.9, 0.7], None, f"age:{file}", corpus.root)
    file.write_text("'3': {0.8: 1.5}\n")
    with pytest.raises(InputError, match=r"no tier '0\.8'"):
        make_tiers([0.9, 0.7], None, f"age:{file}", corpus.root)


def test_apply_is_idempotent_and_undo_restores_the_table_byte_for_byte(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, TEXTS)
    corpus.utterances[1].extra["label_tier"] = "mine"
    corpus.save()
    before = (corpus.root / "metadata.jsonl").read_bytes()
    columns = {name: {"label_tier": "0.7", "label_wer": 0.5, "label_cer": None} for name in "ab"}
    assert apply_columns(corpus, columns, {"judges": ["x"]}) == 2
    once = (corpus.root / "metadata.jsonl").read_bytes()
    assert apply_columns(Corpus.load(corpus.root), columns, {"judges": ["x"]}) == 0
    assert (corpus.root / "metadata.jsonl").read_bytes() == once != before
    assert Corpus.load(corpus.root).utterances[0].extra == {"label_tier": "0.7", "label_wer": 0.5}
    assert undo_columns(corpus.root) == 2
    assert (corpus.root / "metadata.jsonl").read_bytes() == before
    assert "label_check" not in Corpus.load(corpus.root).card and not (corpus.root / RECORD).exists()
    with pytest.raises(InputError, match="nothing to undo"):
        undo_columns(corpus.root)


def test_the_noise_estimate_rises_with_the_noise(tmp_path: Path) -> None:
    import random

    rng = random.Random(0)
    letters = "abcdefghijklmnoprstuvw"
    heard = {f"u{number}": " ".join("".join(rng.choices(letters, k=6)) for _ in range(7)) for number in range(100)}
    labels = dict(heard)
    clean = check_labels(corpus_of(tmp_path / "one", labels), [judge(heard)], Tiers())
    for number in range(20):
        labels[f"u{number}"] = heard[f"u{number + 50}"]
    noisy = check_labels(corpus_of(tmp_path / "two", labels), [judge(heard)], Tiers())
    assert clean.noise is not None and clean.noise["estimated_share"] == 0.0
    assert noisy.noise is not None and noisy.noise["estimated_share"] == pytest.approx(0.2, abs=0.03)


def test_a_run_that_was_trained_on_these_utterances_is_a_warning(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, TEXTS, split={"a": "train", "b": "train", "c": "dev", "d": "dev", "e": "test"})
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("data: {corpus: elsewhere, train_split: train}\n")
    facts = {"data": {"corpus": "elsewhere", "fingerprint": corpus.card["fingerprint"]}}
    (run / "provenance.json").write_text(json.dumps(facts))
    warning = in_sample_warning(str(run), corpus)
    assert warning is not None and "trained on 2 of these 5" in warning
    assert in_sample_warning(str(run), corpus.split("dev")) is None
    facts["data"]["fingerprint"] = "another"
    (run / "provenance.json").write_text(json.dumps(facts))
    assert in_sample_warning(str(run), corpus) is None
    assert in_sample_warning("whisper-base", corpus) is None


def test_answers_are_kept_and_used_again_only_for_rows_that_did_not_change(
    tmp_path: Path, tiny_corpus: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechtune.scoring import label_judges

    root = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    asked: list[str] = []
    ask = label_judges._ask

    def watched(opened: Any, corpus: Any, utterances: Any) -> Any:
        asked.extend(row.utterance_id for row in utterances)
        return ask(opened, corpus, utterances)

    monkeypatch.setattr(label_judges, "_ask", watched)
    monkeypatch.setattr(label_judges, "_PART_UTTERANCES", 3)
    judging = Judging(models=[str(tiny_model)], context="fit")
    first = check_corpus(root, judging, Tiers())
    assert len(asked) == 20 and len(first.rows) == 20
    with pytest.raises(InputError, match="--resume"):
        check_corpus(root, judging, Tiers())
    parts = sorted((root / "label_check" / "judges").glob("*/part-*.jsonl"))
    parts[0].unlink()  # as if interrupted
    asked.clear()
    table = Corpus.load(root)
    table.utterances[-1].text = "another text"
    table.save()
    second = check_corpus(root, judging, Tiers(), resume=True)
    changed = table.utterances[-1].utterance_id
    assert changed in asked and 3 <= len(asked) <= 4
    same = [(a, b) for a, b in zip(first.rows, second.rows, strict=True) if a["utterance_id"] != changed]
    assert all(a["judges"][0]["text"] == b["judges"][0]["text"] for a, b in same)
    assert all(a["label_wer"] == b["label_wer"] for a, b in same)


def test_unreadable_and_overlong_audio_is_counted_not_fatal(
    tmp_path: Path, tiny_corpus: Path, tiny_model: Path
) -> None:
    root = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    table = Corpus.load(root)
    (root / table.utterances[0].file_name).write_bytes(b"no audio")
    table.utterances[1].duration_s = 99.0
    table.save()
    report = check_corpus(root, Judging(models=[str(tiny_model)], context="fit"), Tiers(), apply=True)
    assert report.unscored["audio cannot be read"] == 1
    assert report.unscored["longer than the model's window"] == 1
    rows = Corpus.load(root).utterances
    assert rows[0].extra == {"label_tier": "all", "label_weight": 1.0, "label_flags": "not scored"}
    assert all(row.extra["label_tier"] in ("all", "0.9", "0.7") for row in rows)
    assert set(rows[2].extra) <= set(COLUMNS)


def test_likeness_is_symmetric_and_bounded() -> None:
    assert likeness("abc", "abc") == 1.0 and likeness("abc", "xyz") == 0.0
    assert likeness("abcd", "abxd") == likeness("abxd", "abcd") == pytest.approx(0.75)
