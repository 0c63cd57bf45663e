# ruff: noqa: RUF001

from __future__ import annotations

from pathlib import Path
from typing import Any

import jiwer
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.metrics import Metric, choose_metrics, registry
from speechtune.scoring.metrics_output import loop_words
from speechtune.scoring.metrics_text import compound_counts
from speechtune.scoring.score import score_transcripts


def _metrics(
    references: list[str],
    hypotheses: list[str],
    names: list[str],
    *,
    columns: list[dict[str, Any]] | None = None,
    rows: list[dict[str, Any]] | None = None,
    **config: Any,
) -> dict[str, Metric]:
    utterances = [
        Utterance.from_row({"utterance_id": f"u{i}", "file_name": "", "text": text, "duration_s": 30.0, **extra})
        for i, (text, extra) in enumerate(zip(references, columns or [{}] * len(references), strict=True))
    ]
    transcripts = [Transcript(utterance_id=f"u{i}", text=text) for i, text in enumerate(hypotheses)]
    settings = ScoringConfig(**{"normaliser": "unicode", "metrics": names, "resamples": 0, **config})
    others = {f"u{i}": row for i, row in enumerate(rows or [])}
    return score_transcripts(Corpus(Path("c"), utterances), transcripts, confidence=settings, rows=others).metrics


def test_rates_equal_jiwer() -> None:
    references, hypotheses = ["a b c d", "e f", ""], ["a x c", "e f g h", "y"]
    found = _metrics(references, hypotheses, ["wer", "cer", "mer", "wil"])
    judge = jiwer.process_words(references, hypotheses)
    assert found["wer"].value == pytest.approx(judge.wer) and found["mer"].value == pytest.approx(judge.mer)
    assert found["wil"].value == pytest.approx(judge.wil)
    assert found["cer"].value == pytest.approx(jiwer.cer(references, hypotheses))


def test_a_rate_without_anything_to_count_is_none() -> None:
    found = _metrics([""], [""], ["all"], columns=[{"duration_s": 0.0}])
    assert set(found) == set(registry())
    assert {name for name, one in found.items() if one.value is not None} == {"sentence-error-rate", "repetition"}
    assert all(one.to_json()["value"] is None or one.value == 0 for one in found.values())


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "joined", "split"),
    [
        ("the play ground is nice", "the playground is nice", 0, 1, 0),
        ("the playground is nice", "a play ground is", 2, 0, 1),
        ("ice cream truck", "icecreamtruck", 0, 1, 0),
        ("a b", "b a", 2, 0, 0),
        ("", "a", 1, 0, 0),
    ],
)
def test_compounds(reference: str, hypothesis: str, errors: int, joined: int, split: int) -> None:
    found = compound_counts(reference.split(), hypothesis.split())
    assert (found.counts.errors, found.joined, found.split) == (errors, joined, split)
    assert found.counts.reference_length == len(reference.split())


def test_compound_rate_and_with_each_counted_once() -> None:
    one = _metrics(["the play ground", "x y"], ["the playground", "x z"], ["compound-wer"])["compound-wer"]
    assert one.value == pytest.approx(1 / 5) and one.details["counted_once"] == pytest.approx(2 / 5)


def test_case_and_punctuation() -> None:
    found = _metrics(
        ["Hello, Anna. How are you?"],
        ["hello Anna. How are you."],
        ["orthographic-wer", "punctuation-f1", "case-error-rate", "wer"],
    )
    assert found["wer"].value == 0
    assert found["orthographic-wer"].value == pytest.approx(2 / 5)
    marks = found["punctuation-f1"].details
    assert (marks["right"], marks["missed"], marks["false"]) == (1, 2, 1)
    assert found["punctuation-f1"].value == pytest.approx(2 / 5)
    assert found["case-error-rate"].value == pytest.approx(1 / 5)


def test_output_on_silence_loops_and_nothing() -> None:
    references = ["", "", "go go go", "hello there", "a b"]
    hypotheses = ["thank you", "", "go go go", "no no no no no no", ""]
    found = _metrics(references, hypotheses, ["hallucination", "repetition", "empty-output", "sentence-error-rate"])
    assert found["hallucination"].value == pytest.approx(2.0)  # two words in one minute
    assert found["hallucination"].details["with_output"] == 1
    assert found["repetition"].details == {"looping_utterances": 1, "repeated_words": 5, "utterances": 5}
    assert found["empty-output"].value == pytest.approx(1 / 3)
    assert found["sentence-error-rate"].value == pytest.approx(3 / 5)


def test_loops() -> None:
    assert loop_words(["a", "b", "c", "a", "b", "c", "a", "b", "c"]) == 6
    assert loop_words(["no", "no", "no"]) == 0 and loop_words(["no", "no", "no", "no"]) == 3
    assert loop_words(["a", "b", "a", "b"]) == 0 and loop_words([]) == 0


def test_graphemes_count_a_letter_with_its_mark_once() -> None:
    found = _metrics(["नि"], ["नी"], ["cer", "grapheme-error-rate"], normaliser="indic")
    assert found["cer"].value == 0.5 and found["grapheme-error-rate"].value == 1.0


def test_chinese_characters_are_words_and_spaces_are_none() -> None:
    found = _metrics(["你好 world。"], ["你号world"], ["wer", "cer"], normaliser="cjk")
    assert found["wer"].value == pytest.approx(1 / 3) and found["cer"].value == pytest.approx(1 / 7)


def test_ipa_rate_is_the_challenges() -> None:
    found = _metrics(["t͡ʃiːz", "bɝd"], ["ʧiz", "bɚt"], ["ipa-cer"], normaliser="ipa")["ipa-cer"]
    assert found.value == pytest.approx(jiwer.cer(["ʧiːz", "bɚd"], ["ʧiz", "bɚt"]))
    assert found.details["unaccepted_symbols"] == {"reference": "", "hypothesis": ""}
    beside = _metrics(
        ["cheese"], ["cheese"], ["ipa-cer"], columns=[{"phonetic_text": "tʃiːz"}], rows=[{"phonetic_text": "tʃiːs"}]
    )["ipa-cer"]
    assert beside.value == pytest.approx(1 / 4)


def test_word_times_and_latency() -> None:
    said = [{"word": "a", "start_s": 0.0, "end_s": 0.5}, {"word": "B", "start_s": 1.0, "end_s": 1.4}]
    heard = [{"word": "a", "start": 0.1, "end": 0.5}, {"word": "b", "start": 1.0, "end": 1.8}]
    found = _metrics(
        ["a b"],
        ["a b"],
        ["word-timing", "time-wer", "latency"],
        columns=[{"words": said}],
        rows=[{"words": heard, "decode_s": 15.0, "latency_s": 0.2}],
    )
    assert found["word-timing"].value == pytest.approx(0.5 / 4)
    assert found["word-timing"].details["within_100_ms"] == pytest.approx(0.75)
    assert found["time-wer"].value == 0
    assert found["latency"].value == pytest.approx(0.5) and found["latency"].details["latency_s"]["rows"] == 1
    with pytest.raises(InputError, match="'u0': word 1 needs"):
        _metrics(["a"], ["a"], ["time-wer"], columns=[{"words": said}], rows=[{"words": [{"word": "a"}]}])


def test_token_error_rate(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]").save_pretrained(tmp_path)
    found = _metrics(["abc", "a"], ["abb", "a"], ["token-error-rate"], tokenizer=str(tmp_path))["token-error-rate"]
    assert found.value == pytest.approx(1 / 4)
    with pytest.raises(InputError, match="no tokenizer"):
        _metrics(["a"], ["a"], ["token-error-rate"], tokenizer=str(tmp_path / "none"))


def test_phonetic_rate_is_below_the_word_error_rate() -> None:
    found = _metrics(["a pear fell"], ["a bear fell"], ["phonetic-wer", "wer"])
    assert 0 < found["phonetic-wer"].value < 0.2 * found["wer"].value


def test_unknown_metric() -> None:
    with pytest.raises(InputError, match=r"no metric 'werr'.*wer"):
        choose_metrics(["werr"])
