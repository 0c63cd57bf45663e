"""Metrics beside WER and CER, by name; each keeps its counts, and a rate with nothing to count is ``None``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.table import Utterance
from speechtune.scoring.alignment import Counts, count_many, units_of
from speechtune.scoring.counting import Counted, NormaliserSpec
from speechtune.scoring.phones_espeak import PhonesFrom


@dataclass(slots=True)
class Metric:
    """One figure with what it is made of; ``reason`` says why there is no value."""

    name: str
    value: float | None
    unit: str = "rate"
    details: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Value, unit and counts, JSON-ready."""
        reason = {"reason": self.reason} if self.reason else {}
        return {"value": self.value, "unit": self.unit, **self.details, **reason}


@dataclass(slots=True)
class Pairs:
    """What metrics are computed from, all in the order of the corpus.

    ``hypotheses`` are raw texts, ``counted`` the normalised ones with their counts; ``rows`` are the other columns of
    each transcript; ``tokenizer`` is a model directory; ``phones`` says what reads words.
    """

    utterances: Sequence[Utterance]
    hypotheses: Sequence[str]
    counted: Counted
    spec: NormaliserSpec
    rows: Sequence[Mapping[str, Any]]
    language: str | None = None
    tokenizer: str | None = None
    phones: PhonesFrom = "spelling"

    @property
    def words(self) -> Counts:
        """Word counts of all utterances together."""
        return as_counts(self.counted.words)


def as_counts(table: np.ndarray) -> Counts:
    """The sum of a table of counts with shape [pairs, 4]."""
    return Counts(*(int(one) for one in table.sum(axis=0)))


def _of_counts(name: str, counts: Counts) -> Metric:
    return Metric(name, counts.rate, details=counts.to_json())


def _wer(pairs: Pairs) -> Metric:
    return _of_counts("wer", pairs.words)


def _cer(pairs: Pairs) -> Metric:
    return _of_counts("cer", as_counts(pairs.counted.chars))


def _mer(pairs: Pairs) -> Metric:
    return Metric("mer", pairs.words.match_error_rate, details=pairs.words.to_json())


def _wil(pairs: Pairs) -> Metric:
    counts = pairs.words
    return Metric(
        "wil", counts.information_lost, details=counts.to_json() | {"hypothesis_length": counts.hypothesis_length}
    )


def _grapheme(pairs: Pairs) -> Metric:
    spaces = not pairs.spec.build().characters_are_words
    sides = [
        [units_of(text, "graphemes", spaces) for text in texts]
        for texts in (pairs.counted.references, pairs.counted.hypotheses)
    ]
    return _of_counts("grapheme-error-rate", as_counts(count_many(*sides)))


def _tokens(pairs: Pairs) -> Metric:
    name = "token-error-rate"
    if not pairs.tokenizer:
        return Metric(name, None, reason="no tokenizer was named: give --tokenizer MODEL_DIRECTORY")
    encode = load_tokenizer(pairs.tokenizer)
    sides = [[encode(text) for text in texts] for texts in (pairs.counted.references, pairs.counted.hypotheses)]
    metric = _of_counts(name, as_counts(count_many(*sides)))
    metric.details["tokenizer"] = pairs.tokenizer
    return metric


def load_tokenizer(directory: str) -> Callable[[str], list[str]]:
    """The tokens of a text by the tokenizer of a model directory, without special tokens.

    Raises:
        InputError: Transformers is missing, or the directory holds no tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise missing_extra("Transformers", "train") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} holds no tokenizer that Transformers can load: give a model directory"
        ) from error

    def encode(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def _sentence(pairs: Pairs) -> Metric:
    wrong = int((pairs.counted.words[:, 1:].sum(axis=1) > 0).sum())
    return Metric(
        "sentence-error-rate",
        wrong / len(pairs.utterances) if pairs.utterances else None,
        details={"utterances_with_errors": wrong, "utterances": len(pairs.utterances)},
    )


def registry() -> dict[str, tuple[str, Callable[[Pairs], Metric]]]:
    """Every metric by name, with what it is in a sentence. A new metric is one function and one line here."""
    from speechtune.scoring import metrics_output as output
    from speechtune.scoring import metrics_text as text

    return {
        "wer": ("word error rate: errors / reference words", _wer),
        "cer": ("character error rate over code points, spaces between words included", _cer),
        "mer": ("match error rate: errors / aligned words, insertions included", _mer),
        "wil": ("word information lost", _wil),
        "grapheme-error-rate": ("error rate over grapheme clusters (a letter with its marks is one)", _grapheme),
        "token-error-rate": ("error rate over the tokens of a model's tokenizer (--tokenizer)", _tokens),
        "ipa-cer": ("IPA character error rate as the children's challenge defines it", text.ipa_cer),
        "compound-wer": ("WER where words joined or split are no errors, and with each counted once", text.compound),
        "phonetic-wer": ("WER where a substitution costs as much as the words differ in sound", text.phonetic),
        "orthographic-wer": ("WER over the raw words, case and punctuation included", text.orthographic),
        "punctuation-f1": ("precision, recall and F1 of punctuation marks", text.punctuation),
        "case-error-rate": ("recognised words whose capital letters are wrong", text.case),
        "sentence-error-rate": ("utterances with at least one error", _sentence),
        "hallucination": ("words recognised in a minute of silence (empty references)", output.hallucination),
        "repetition": ("utterances whose output loops and whose reference does not", output.repetition),
        "empty-output": ("utterances with words where nothing was recognised", output.empty_output),
        "word-timing": ("mean absolute error of word boundaries, where both sides have times", output.word_timing),
        "time-wer": ("WER where words can only match at the same time", output.time_wer),
        "latency": ("real-time factor and latencies that the transcripts carry", output.latency),
    }


def choose_metrics(names: Iterable[str]) -> list[str]:
    """The metrics of a list of names, in the registry's order; ``all`` is every one.

    Raises:
        InputError: a name is unknown.
    """
    known = list(registry())
    wanted = set(names)
    if "all" in wanted:
        return known
    for name in sorted(wanted - set(known)):
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise InputError(
            f"there is no metric {name!r}: did you mean {', '.join(near)}? speechtune score --metrics list"
        )
    return [name for name in known if name in wanted]


def compute_metrics(names: Sequence[str], pairs: Pairs) -> dict[str, Metric]:
    """Each named metric of the pairs."""
    functions = registry()
    return {name: functions[name][1](pairs) for name in names}


def metrics_as_lines(metrics: Mapping[str, Metric]) -> list[str]:
    """One line for each metric, for a person."""
    width = max((len(name) for name in metrics), default=0)
    lines = []
    for name, one in metrics.items():
        if one.value is None:
            shown = f"- ({one.reason or 'nothing to count'})"
        else:
            shown = f"{100 * one.value:.2f} %" if one.unit == "rate" else f"{one.value:.3f} {one.unit}"
        details = [f"{key} {value:g}" for key, value in one.details.items() if isinstance(value, int | float)]
        lines.append(f"  {name:<{width}}  {shown}" + (f"  ({', '.join(details)})" if details else ""))
    return ["metrics:", *lines] if lines else []
