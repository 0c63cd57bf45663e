from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jiwer
import pytest

from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import UNKNOWN, Score, compare, corpus_from_lines, score_transcripts
from speechtune.scoring.score_report import score_files

FAST = ScoringConfig(resamples=100)


def _corpus(texts: list[str], **columns: list[Any]) -> Corpus:
    utterances = []
    for number, text in enumerate(texts):
        row = {name: values[number] for name, values in columns.items()}
        row = {"duration_s": 1.0, **row}
        utterances.append(Utterance.from_row({"utterance_id": f"u{number}", "file_name": "a.wav", "text": text, **row}))
    return Corpus(Path("corpus"), utterances)


def _transcripts(texts: list[str]) -> list[Transcript]:
    return [Transcript(utterance_id=f"u{number}", text=text) for number, text in enumerate(texts)]


def _score(references: list[str], hypotheses: list[str], **columns: list[Any]) -> Score:
    corpus = _corpus(references, **columns)
    return score_transcripts(
        corpus, _transcripts(hypotheses), normaliser="none", slice_by=list(columns), confidence=FAST
    )


def _random_texts(seed: int, number: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(["a", "b", "cat", "dog", "go"], k=draw.randint(1, 8))) for _ in range(number)]


def test_rates_equal_jiwer_and_not_the_mean_of_utterances() -> None:
    references, hypotheses = _random_texts(1, 60), _random_texts(2, 60)
    score = _score(references, hypotheses)
    assert score.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert score.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert score.interval is not None and score.wer is not None
    assert score.interval.low < score.wer < score.interval.high
    means = [one.words.rate for one in score.utterances if one.words.rate is not None]
    assert score.wer != pytest.approx(sum(means) / len(means), abs=1e-3)


def test_micro_rate_of_a_hand_made_table() -> None:
    assert _score(["a b c d e f g h i j", "a"], ["a b c d e f g h i j", "b"]).wer == pytest.approx(1 / 11)


def test_order_of_corpus_and_transcripts_does_not_matter() -> None:
    references, hypotheses = _random_texts(3, 40), _random_texts(4, 40)
    corpus = _corpus(references, speaker_id=[f"s{i % 8}" for i in range(40)])
    transcripts = _transcripts(hypotheses)
    first = score_transcripts(corpus, transcripts, slice_by=["speaker_id"])
    shuffled = Corpus(corpus.root, random.Random(0).sample(corpus.utterances, 40))
    second = score_transcripts(shuffled, random.Random(1).sample(transcripts, 40), slice_by=["speaker_id"])
    assert first.to_json() == second.to_json()
    assert first.interval is not None and first.interval.unit == "speaker"


def test_empty_references_are_scored_and_counted() -> None:
    score = _score(["", "a b"], ["x", "a b"])
    assert score.wer == 0.5 == jiwer.wer(["", "a b"], ["x", "a b"])
    assert (score.empty_references, score.insertions_on_empty) == (1, 1)


def test_only_empty_references_have_no_rate() -> None:
    score = _score(["", ""], ["x", ""])
    assert score.wer is None and score.interval is None and score.words.errors == 1
    assert "WER - %" in score.to_text()


def test_missing_transcripts() -> None:
    corpus = _corpus(["a b", "c d", "e"])
    with pytest.raises(InputError, match="1 of 3 utterances of corpus have no transcript: 'u2'"):
        score_transcripts(corpus, _transcripts(["a b", "c d"]))
    score = score_transcripts(corpus, _transcripts(["a b", "c d"]), allow_missing=True)
    assert score.missing == 1 and score.words.deletions == 1 and score.wer == pytest.approx(1 / 5)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_unknown_and_repeated_ids(allow_missing: bool) -> None:
    corpus = _corpus(["a"])
    with pytest.raises(InputError, match="no utterance in corpus: 'u1'"):
        score_transcripts(corpus, _transcripts(["a", "b"]), allow_missing=allow_missing)
    with pytest.raises(InputError, match="'u0' more than once"):
        score_transcripts(corpus, _transcripts(["a"]) * 2, allow_missing=allow_missing)


def test_empty_corpus() -> None:
    with pytest.raises(InputError, match="no utterances"):
        score_transcripts(_corpus([]), [])


def test_slices_partition_the_corpus() -> None:
    references, hypotheses = _random_texts(5, 30), _random_texts(6, 30)
    ages = [10, 9, None] * 10
    score = _score(references, hypotheses, age=ages)
    parts = score.slices["age"]
    assert list(parts) == ["9", "10", UNKNOWN]
    assert sum(one.counts.errors for one in parts.values()) == score.words.errors
    assert sum(one.utterances for one in parts.values()) == 30
    nine = [number for number in range(30) if ages[number] == 9]
    assert parts["9"].wer == pytest.approx(jiwer.wer([references[i] for i in nine], [hypotheses[i] for i in nine]))


def test_durations_are_sliced_in_bands() -> None:
    score = _score(["a"] * 6, ["a"] * 6, duration_s=[0.5, 1.99, 2.0, 9.0, 30.0, 12.0])
    assert {value: one.utterances for value, one in score.slices["duration_s"].items()} == {
        "<2": 2,
        "2-5": 1,
        "5-10": 1,
        "10-30": 1,
        ">=30": 1,
    }


def test_reference_words_is_a_column_of_every_corpus() -> None:
    corpus = _corpus(["", "a", "a b", "a b c d e f"])
    score = score_transcripts(corpus, _transcripts(["", "", "", ""]), normaliser="none", slice_by=["reference_words"])
    assert list(score.slices["reference_words"]) == ["<1", "1-2", "2-6", "6-11"]


def test_unlisted_real_numbers_are_sliced_in_quartiles() -> None:
    score = _score(["a"] * 8, ["a"] * 8, loudness=[0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5])
    assert [one.utterances for one in score.slices["loudness"].values()] == [2, 2, 2, 2]


def test_unknown_column_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="no utterance of corpus has a 'agee': slice by one of duration_s, age, "):
        score_transcripts(_corpus(["a"], age=[7]), _transcripts(["a"]), slice_by=["agee"])


def test_auto_normaliser_follows_the_language() -> None:
    hypotheses = _transcripts(["123"])
    assert score_transcripts(_corpus(["One two three!"], language=["en"]), hypotheses).wer == 0
    assert score_transcripts(_corpus(["One two three!"]), hypotheses, language="en").wer == 0
    assert score_transcripts(_corpus(["One two three!"]), hypotheses).wer == 1
    hindi = score_transcripts(_corpus(["ले"], language=["hi"]), _transcripts(["ली"]))
    assert (hindi.normaliser, hindi.wer) == ("indic", 1)
    thai = score_transcripts(_corpus(["ที่นี่"], language=["th"]), _transcripts(["ที่นี่"]))
    assert any("read the CER" in note for note in thai.notes)


def test_compare() -> None:
    references = _random_texts(7, 50)
    columns = {"speaker_id": [f"s{i % 10}" for i in range(50)], "gender": ["f", "m"] * 25}
    bad = _score(references, [text + " x" for text in references], **columns)
    good = _score(references, references, **columns)
    result = compare(bad, good)
    words = bad.words.reference_length
    assert result.wer.difference == pytest.approx(-50 / words)
    assert result.wer.interval is not None and result.wer.interval.high < 0
    assert result.wer.interval.unit == "speaker"
    assert result.slices["gender"]["f"].difference == pytest.approx(
        -25 / bad.slices["gender"]["f"].counts.reference_length
    )
    same = compare(good, good)
    assert same.wer.difference == 0 and same.wer.p_value == 1


def test_compare_refuses_what_is_not_comparable() -> None:
    one = _score(["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="different utterances or references"):
        compare(one, _score(["a", "c"], ["a", "b"]))
    other = score_transcripts(_corpus(["a", "b"]), _transcripts(["a", "b"]), normaliser="unicode")
    with pytest.raises(InputError, match="'none' and 'unicode'"):
        compare(one, other)


def test_json_holds_rates_counts_and_no_utterances() -> None:
    result = json.loads(json.dumps(_score(["a b"] * 6, ["a"] * 6, age=[7] * 6).to_json()))
    assert (result["errors"], result["reference_words"]) == (6, 12)
    assert result["wer"] == 0.5 and result["words"]["deletions"] == 6 and result["utterances"] == 6
    assert result["slices"]["age"]["7"]["words"]["errors"] == 6
    assert result["interval"]["resamples"] == 100


def test_utterance_file(tmp_path: Path) -> None:
    score = _score(["a b", "c"], ["a", "c"], age=[7, 8])
    score.write_utterances(tmp_path / "rows.jsonl")
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert [row["wer"] for row in rows] == [0.5, 0.0]
    assert rows[0]["hypothesis"] == "a" and rows[1]["columns"] == {"age": "8"}


def test_lines_of_one_character_and_blank_lines_are_scored(tmp_path: Path) -> None:
    """jiwer 4.0.0's command drops lines of one character or less from each file on its own."""
    reference, hypothesis = tmp_path / "ref.txt", tmp_path / "hyp.txt"
    reference.write_text("a\n\nthe cat\n\u2028x\n", encoding="utf-8")
    hypothesis.write_bytes(b"b\r\ny\r\nthe cat\r\nx")
    corpus, transcripts = corpus_from_lines(reference, hypothesis)
    score = score_transcripts(corpus, transcripts, normaliser="none")
    assert len(score.utterances) == 4 and score.words.reference_length == 4
    assert (score.words.substitutions, score.words.insertions) == (1, 1)


def test_different_numbers_of_lines(tmp_path: Path) -> None:
    (tmp_path / "ref.txt").write_text("a\nb\n")
    (tmp_path / "hyp.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"ref.txt has 2 lines but .*hyp.txt has 1"):
        score_files(tmp_path / "ref.txt", tmp_path / "hyp.txt")


def test_split_leaves_other_transcripts_aside_and_says_so(tmp_path: Path) -> None:
    corpus = _corpus(["a", "b", "c"], split=["test", "train", "test"])
    corpus.root = tmp_path / "corpus"
    corpus.root.mkdir()
    corpus.save()
    write_transcripts(tmp_path / "t.jsonl", _transcripts(["a", "b", "x"]))
    report = score_files(corpus.root, tmp_path / "t.jsonl", split="test")
    assert report.score.wer == 0.5
    assert "1 transcripts of other splits were left aside" in report.score.notes
    with pytest.raises(InputError, match="is a directory"):
        score_files(corpus.root, tmp_path)


def test_terms_and_baseline_are_in_the_report(tmp_path: Path) -> None:
    for name, text in {"ref": "a cat\nb", "hyp": "a cat\nb", "base": "a\nb"}.items():
        (tmp_path / name).write_text(text)
    config = ScoringConfig(terms=["cat"], resamples=50)
    report = score_files(tmp_path / "ref", tmp_path / "hyp", config, against=tmp_path / "base")
    result = report.to_json()
    assert result["wer"] == 0 and result["baseline"]["wer"] == pytest.approx(1 / 3)
    assert result["difference"]["wer"]["difference"] == pytest.approx(-1 / 3)
    assert result["terms"]["recall"] == 1
    assert "points" in report.to_text() and "cat" in report.to_text()
