# ruff: noqa: RUF001

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.counting import NormaliserSpec, collector_paused, count_texts
from speechtune.scoring.inputs import load_input
from speechtune.scoring.score_report import score_files


def _write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _row(name: str, text: str, field: str = "text", **more: Any) -> dict[str, Any]:
    return {"utterance_id": name, field: text, **more}


def test_two_files_in_any_order_and_with_the_challenges_fields(tmp_path: Path) -> None:
    ref = _write(
        tmp_path / "r.jsonl",
        _row("a", "the cat", "orthographic_text", child_id="c1", audio_duration_sec=2.5),
        "",
        _row("b", "dog", "orthographic_text", child_id="c2", age_bucket="5-7"),
    )
    hyp = _write(tmp_path / "h.jsonl", _row("b", "dog"), _row("a", "the hat"))
    report = score_files(ref, hyp, ScoringConfig(slice_by=["age_bucket"], normaliser="none"))
    result = report.to_json()
    assert (result["wer"], result["errors"], result["reference_words"]) == (pytest.approx(1 / 3), 1, 3)
    assert {"cer", "interval"} <= set(result) and result["seconds_of_audio"] == 2.5
    assert report.score.utterances[0].speaker_id == "c1" and "5-7" in report.score.slices["age_bucket"]


def test_phonetic_files_are_scored_as_ipa(tmp_path: Path) -> None:
    ref = _write(tmp_path / "r.jsonl", _row("a", "t͡ʃiːz", "phonetic_text"))
    hyp = _write(tmp_path / "h.jsonl", _row("a", "ʧiz", "phonetic_text"))
    result = score_files(ref, hyp).to_json()
    assert result["normaliser"] == "ipa" and result["cer"] == pytest.approx(1 / 4)
    _write(tmp_path / "h.jsonl", _row("a", "cheese"))
    with pytest.raises(InputError, match="IPA"):
        score_files(ref, hyp)


def test_ids_missing_on_either_side_are_listed(tmp_path: Path) -> None:
    ref = _write(tmp_path / "r.jsonl", *(_row(name, "x") for name in "abc"))
    hyp = _write(tmp_path / "h.jsonl", *(_row(name, "x") for name in "ade"))
    with pytest.raises(InputError, match="'d', 'e'; 2 utterances have no transcript: 'b', 'c'"):
        score_files(ref, hyp)
    with pytest.raises(InputError, match=r"no utterance in .*'d', 'e'"):
        score_files(ref, hyp, allow_missing=True)
    _write(hyp, _row("a", "x"))
    with pytest.raises(InputError, match=r"2 of 3 .*'b', 'c'"):
        score_files(ref, hyp)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"utterance_id": "a", "text": "x"}', "", "{bad"], "line 3 is not valid JSON"),
        (["[1]"], "line 1 is not a JSON object"),
        (['{"text": "x"}'], "line 1 has no utterance_id"),
        (['{"utterance_id": 5, "text": "x"}'], "line 1 has no utterance_id in text form"),
        (['{"utterance_id": "a"}'], "has no text or orthographic_text"),
        (['{"utterance_id": "a", "text": null}'], "a text that is no text"),
        (['{"utterance_id": "a", "text": 5}'], "a text that is no text"),
        (['{"utterance_id": "a", "text": "x"}', "", '{"utterance_id": "a", "text": "y"}'], "lines 1 and 3 share"),
        ([], "holds no rows"),
        (["", " "], "holds no rows"),
    ],
)
@pytest.mark.parametrize("side", ["r.jsonl", "h.jsonl"])
def test_bad_rows_name_their_line(tmp_path: Path, rows: list[str], message: str, side: str) -> None:
    for name in ("r.jsonl", "h.jsonl"):
        _write(tmp_path / name, *(rows if name == side else [_row("a", "x")]))
    with pytest.raises(InputError, match=message) as found:
        score_files(tmp_path / "r.jsonl", tmp_path / "h.jsonl")
    assert side in str(found.value)


def test_files_of_two_kinds_and_missing_files(tmp_path: Path) -> None:
    ref = _write(tmp_path / "r.jsonl", _row("a", "x"))
    with pytest.raises(InputError, match=r"h\.txt is not JSONL"):
        load_input(ref, _write(tmp_path / "h.txt", "x"))
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        load_input(ref, tmp_path / "none.jsonl")
    (tmp_path / "h.jsonl").write_bytes(b'{"utterance_id": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8"):
        load_input(ref, tmp_path / "h.jsonl")


def test_several_processes_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speechtune.scoring.counting.PAIRS_WORTH_A_PROCESS", 10)
    monkeypatch.setattr("speechtune.scoring.counting._PAIRS_PER_CHUNK", 16)
    texts = [f"Hello number {n % 7}, mekolet" for n in range(50)]
    spec = NormaliserSpec("whisper-english", {"macolet": ["mekolet"]})
    one, two = (count_texts(texts, texts[::-1], spec, workers) for workers in (1, 2))
    assert one.references == two.references and one.hypotheses == two.hypotheses
    assert (one.words == two.words).all() and (one.chars == two.chars).all() and "macolet" in one.references[0]


def test_the_collector_goes_on_after_a_pause() -> None:
    def stopped() -> None:
        with collector_paused():
            with collector_paused():
                pass
            assert not gc.isenabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        stopped()
    assert gc.isenabled()


def test_texts_in_the_challenges_form_are_english_unless_they_say_otherwise(tmp_path: Path) -> None:
    for name, row in (("r", {"orthographic_text": "um"}), ("it", {"orthographic_text": "um", "language": "it"})):
        _write(tmp_path / f"{name}.jsonl", {"utterance_id": "a", **row})
    _write(tmp_path / "h.jsonl", _row("a", "he goed there", "orthographic_text"))
    english = score_files(tmp_path / "r.jsonl", tmp_path / "h.jsonl").score
    assert (english.normaliser, english.insertions_on_empty, english.wer) == ("whisper-english", 3, None)
    assert score_files(tmp_path / "it.jsonl", tmp_path / "h.jsonl").score.normaliser == "italian"
