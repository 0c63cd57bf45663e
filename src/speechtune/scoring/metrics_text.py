"""Metrics of the text: IPA, compounds, sound, case and punctuation."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speechtune.corpus.language_codes import short_code
from speechtune.corpus.table import Utterance
from speechtune.scoring.alignment import Counts, align, count_many
from speechtune.scoring.alignment_weighted import UNIT, align_by_sound
from speechtune.scoring.normalisation.ipa import ipa, unknown_symbols
from speechtune.scoring.phones import PhonesOf, word_distance
from speechtune.scoring.phones_espeak import phones_for

if TYPE_CHECKING:
    from speechtune.scoring.metrics import Metric, Pairs

LONGEST_COMPOUND = 4
"""At most so many words are taken as one that was split."""


def ipa_cer(pairs: Pairs) -> Metric:
    """CER after the challenge's IPA normalisation: of IPA texts, or of ``phonetic_text`` where both sides have it."""
    from speechtune.scoring.metrics import Metric, as_counts

    columns = [
        (utterance.extra.get("phonetic_text"), row.get("phonetic_text"))
        for utterance, row in zip(pairs.utterances, pairs.rows, strict=True)
    ]
    if pairs.spec.name == "ipa":
        references, hypotheses = pairs.counted.references, pairs.counted.hypotheses
    elif all(isinstance(ref, str) and isinstance(hyp, str) for ref, hyp in columns):
        normalise = ipa()
        references, hypotheses = (
            [normalise(str(ref)) for ref, _ in columns],
            [normalise(str(hyp)) for _, hyp in columns],
        )
    else:
        return Metric("ipa-cer", None, reason="the texts are not IPA: both sides need phonetic_text")
    counts = as_counts(count_many(references, hypotheses))
    unknown = {
        side: "".join(sorted(set().union(*(unknown_symbols(text) for text in texts))))
        for side, texts in (("reference", references), ("hypothesis", hypotheses))
    }
    return Metric("ipa-cer", counts.rate, details={**counts.to_json(), "unaccepted_symbols": unknown})


@dataclass(frozen=True, slots=True)
class CompoundCounts:
    """Word counts in which joined and split words are hits, and how often words were joined or split."""

    counts: Counts
    joined: int = 0
    split: int = 0

    def __add__(self, other: CompoundCounts) -> CompoundCounts:
        return CompoundCounts(self.counts + other.counts, self.joined + other.joined, self.split + other.split)


def compound_counts(reference: Sequence[str], hypothesis: Sequence[str]) -> CompoundCounts:
    """Counts where reference words written as one word, or one written as several, are no errors.

    The fewest errors are found exactly, and among those alignments the fewest joins and splits. Words joined or split
    are hits for every reference word involved. At most `LONGEST_COMPOUND` words make one.
    """
    n, m = len(reference), len(hypothesis)
    steps: list[list[tuple[int, int, int, str]]] = [[(0, 0, 0, "")] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        for j in range(m + 1):
            if i or j:
                steps[i][j] = min(_ways(reference, hypothesis, steps, i, j))
    tally: Counter[str] = Counter()
    i, j = n, m
    while i or j:
        _, _, code, kind = steps[i][j]
        back_i, back_j = divmod(code, LONGEST_COMPOUND + 1)
        tally[kind] += back_i if kind in ("hit", "joined", "split") else 1
        tally[f"{kind}s"] += 1
        i, j = i - back_i, j - back_j
    counts = Counts(tally["hit"] + tally["joined"] + tally["split"], tally["sub"], tally["del"], tally["ins"])
    return CompoundCounts(counts, tally["joineds"], tally["splits"])


def _ways(
    reference: Sequence[str], hypothesis: Sequence[str], steps: list[list[tuple[int, int, int, str]]], i: int, j: int
) -> list[tuple[int, int, int, str]]:
    """(errors, compounds, how far back, kind) of every way to end at reference i and hypothesis j."""
    base = LONGEST_COMPOUND + 1
    ways = []
    if i and j:
        errors, compounds, *_ = steps[i - 1][j - 1]
        wrong = reference[i - 1] != hypothesis[j - 1]
        ways.append((errors + wrong, compounds, base + 1, "sub" if wrong else "hit"))
        for size in range(2, LONGEST_COMPOUND + 1):
            if i >= size and "".join(reference[i - size : i]) == hypothesis[j - 1]:
                errors, compounds, *_ = steps[i - size][j - 1]
                ways.append((errors, compounds + 1, size * base + 1, "joined"))
            if j >= size and "".join(hypothesis[j - size : j]) == reference[i - 1]:
                errors, compounds, *_ = steps[i - 1][j - size]
                ways.append((errors, compounds + 1, base + size, "split"))
    if i:
        ways.append((steps[i - 1][j][0] + 1, steps[i - 1][j][1], base, "del"))
    if j:
        ways.append((steps[i][j - 1][0] + 1, steps[i][j - 1][1], 1, "ins"))
    return ways


def _may_compound(reference: Sequence[str], hypothesis: Sequence[str]) -> bool:
    left, right = "".join(reference), "".join(hypothesis)
    return any(len(word) > 1 and word in right for word in set(reference) - set(hypothesis)) or any(
        len(word) > 1 and word in left for word in set(hypothesis) - set(reference)
    )


def compound(pairs: Pairs) -> Metric:
    """Compound-tolerant WER; ``counted_once`` is the rate with one error for each join or split."""
    from speechtune.scoring.metrics import Metric

    sums = [0, 0, 0, 0]
    joined = split = 0
    rows = zip(pairs.counted.references, pairs.counted.hypotheses, pairs.counted.words.tolist(), strict=True)
    for ref, hyp, plain in rows:
        if sum(plain[1:]):
            reference, hypothesis = ref.split(), hyp.split()
            if _may_compound(reference, hypothesis):
                found = compound_counts(reference, hypothesis)
                joined, split = joined + found.joined, split + found.split
                one = found.counts
                plain = [one.hits, one.substitutions, one.deletions, one.insertions]
        sums = [a + b for a, b in zip(sums, plain, strict=True)]
    counts = Counts(*sums)
    length = counts.reference_length
    once = (counts.errors + joined + split) / length if length else None
    details = {**counts.to_json(), "joined": joined, "split": split, "counted_once": once}
    return Metric("compound-wer", counts.rate, details=details)


def phonetic(pairs: Pairs) -> Metric:
    """WER with substitutions weighted by the distance in sound; see `speechtune.scoring.phones`."""
    from speechtune.scoring.metrics import Metric

    cost = 0
    readers = _readers(pairs)
    counted = (pairs.counted.references, pairs.counted.hypotheses, pairs.counted.words.tolist())
    for utterance, ref, hyp, plain in zip(pairs.utterances, *counted, strict=True):
        if plain[1]:
            distance = functools.partial(word_distance, phones_of=readers[_language(pairs, utterance)])
            cost += align_by_sound(ref.split(), hyp.split(), distance)[1]
        else:
            cost += UNIT * sum(plain[1:])
    length = pairs.words.reference_length
    details = {"weighted_errors": cost / UNIT, "reference_length": length}
    return Metric("phonetic-wer", cost / UNIT / length if length else None, details=details)


def _language(pairs: Pairs, utterance: Utterance) -> str | None:
    named = utterance.language or pairs.language
    return short_code(named) if named else "en" if pairs.spec.name == "whisper-english" else None


def _readers(pairs: Pairs) -> dict[str | None, PhonesOf]:
    """What reads the words of each language."""
    words: dict[str | None, set[str]] = {}
    for utterance, *texts in zip(pairs.utterances, pairs.counted.references, pairs.counted.hypotheses, strict=True):
        words.setdefault(_language(pairs, utterance), set()).update(*map(str.split, texts))
    return {language: phones_for(pairs.phones, language, own) for language, own in words.items()}


def orthographic(pairs: Pairs) -> Metric:
    """WER over the words of the raw texts (NFC), as they are written."""
    from speechtune.scoring.metrics import Metric, as_counts

    sides = [[unicodedata.normalize("NFC", text).split() for text in texts] for texts in _raw(pairs)]
    counts = as_counts(count_many(*sides))
    return Metric("orthographic-wer", counts.rate, details=counts.to_json())


_MARKS = {
    **dict.fromkeys(".\u3002\u0964\u06d4\uff0e", "full stop"),
    **dict.fromkeys(",\u060c\u3001\uff0c", "comma"),
    **dict.fromkeys("?\u061f\uff1f\u037e", "question mark"),
    **dict.fromkeys("!\uff01", "exclamation mark"),
    **dict.fromkeys(";:\u061b\uff1b\uff1a", "colon or semicolon"),
}
_PIECE = re.compile(r"[\w\u0300-\u036f\u0590-\u05c7\u0900-\u0dff\u200c\u200d]+(?:['\u2019.\-][\w]+)*|[^\w\s]")


@functools.lru_cache(maxsize=200_000)
def words_and_marks(text: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The words of a raw text, and the marks after each; the first entry of the marks is what precedes every word."""
    words: list[str] = []
    marks: list[list[str]] = [[]]
    for piece in _PIECE.findall(unicodedata.normalize("NFC", text)):
        if piece in _MARKS:
            marks[-1].append(_MARKS[piece])
        elif piece[0].isalnum():
            words.append(piece)
            marks.append([])
    return tuple(words), tuple(map(tuple, marks))


def _raw(pairs: Pairs) -> tuple[list[str], list[str]]:
    return [utterance.text for utterance in pairs.utterances], list(pairs.hypotheses)


def punctuation(pairs: Pairs) -> Metric:
    """F1 of punctuation marks: a mark is right where the word before it is aligned and has it too.

    Words are aligned without regard to case. Marks: full stop, comma, question and exclamation mark, colon or
    semicolon, in every script's form.
    """
    from speechtune.scoring.metrics import Metric

    right, missed, false = Counter[str](), Counter[str](), Counter[str]()
    for ref_text, hyp_text in zip(*_raw(pairs), strict=True):
        (ref, ref_marks), (hyp, hyp_marks) = words_and_marks(ref_text), words_and_marks(hyp_text)
        places: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(ref_marks[0], hyp_marks[0])]
        i = j = 0
        for edit in align([one.casefold() for one in ref], [one.casefold() for one in hyp]):
            i, j = i + (edit.ref is not None), j + (edit.hyp is not None)
            places.append((ref_marks[i] if edit.ref is not None else (), hyp_marks[j] if edit.hyp is not None else ()))
        for wanted, found in places:
            if wanted or found:
                here, there = Counter(wanted), Counter(found)
                right += here & there
                missed += here - there
                false += there - here
    values = {name: _f1(right[name], missed[name], false[name]) for name in dict.fromkeys(_MARKS.values())}
    overall = _f1(right.total(), missed.total(), false.total())
    details = {**overall, "by_mark": {name: one for name, one in values.items() if any(one.values())}}
    return Metric("punctuation-f1", overall["f1"], details=details)


def _f1(right: int, missed: int, false: int) -> dict[str, float | None]:
    return {
        "right": right,
        "missed": missed,
        "false": false,
        "precision": right / (right + false) if right + false else None,
        "recall": right / (right + missed) if right + missed else None,
        "f1": 2 * right / (2 * right + missed + false) if right + missed + false else None,
    }


def case(pairs: Pairs) -> Metric:
    """Share of the recognised words with a cased letter that are written with other capitals than in the reference."""
    from speechtune.scoring.metrics import Metric

    wrong = cased = 0
    for ref_text, hyp_text in zip(*_raw(pairs), strict=True):
        ref, hyp = words_and_marks(ref_text)[0], words_and_marks(hyp_text)[0]
        i = j = -1
        for edit in align([one.casefold() for one in ref], [one.casefold() for one in hyp]):
            i, j = i + (edit.ref is not None), j + (edit.hyp is not None)
            if edit.op == "equal" and ref[i].lower() != ref[i].upper():
                cased += 1
                wrong += ref[i] != hyp[j]
    details = {"wrong_case": wrong, "recognised_cased_words": cased}
    return Metric("case-error-rate", wrong / cased if cased else None, details=details)
