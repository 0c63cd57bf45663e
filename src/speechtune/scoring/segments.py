"""Utterances cut into segments whose errors are nearly independent, for the matched-pairs test.

Gillick & Cox 1989, "Some statistical issues in the comparison of speech recognition algorithms" (ICASSP): a segment is
a stretch with an error of either system, bounded on both sides by words that both systems have right (or by the ends
of the utterance). NIST's sc_stats asks for two such words; so does this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from speechtune.scoring.alignment import align


@dataclass(slots=True)
class Segments:
    """Errors of both systems in each segment, and the index of the utterance that it is of."""

    errors_a: list[int] = field(default_factory=list)
    errors_b: list[int] = field(default_factory=list)
    utterances: list[int] = field(default_factory=list)


def errors_by_place(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[list[int], list[int]]:
    """Whether each reference word is wrong (0 or 1), and how many words are inserted before each and at the end.

    Shapes: [words] and [words + 1].
    """
    wrong: list[int] = []
    inserted = [0] * (len(reference) + 1)
    for edit in align(reference, hypothesis):
        if edit.op == "insert":
            inserted[len(wrong)] += 1
        else:
            wrong.append(int(edit.op != "equal"))
    return wrong, inserted


def sentence_segments(
    references: Sequence[Sequence[str]],
    hypotheses_a: Sequence[Sequence[str]],
    hypotheses_b: Sequence[Sequence[str]],
    separating_words: int = 2,
) -> Segments:
    """The segments of all utterances; those without an error of either system are none.

    sc_stats leaves out what its second system inserts after the last word of a reference; here it counts.

    Args:
        references: words of each reference.
        hypotheses_a: words of system a for the same utterances.
        hypotheses_b: words of system b.
        separating_words: reference words in a row that both have right, with nothing inserted between, at least 1.
    """
    found = Segments()
    for index, (reference, first, second) in enumerate(zip(references, hypotheses_a, hypotheses_b, strict=True)):
        if reference == first == second:
            continue
        wrong_a, inserted_a = errors_by_place(reference, first)
        wrong_b, inserted_b = errors_by_place(reference, second)
        in_a = in_b = right = 0
        for place in range(len(reference) + 1):
            if inserted_a[place] or inserted_b[place]:
                in_a, in_b, right = in_a + inserted_a[place], in_b + inserted_b[place], 0
            if place == len(reference):
                break
            if wrong_a[place] or wrong_b[place]:
                in_a, in_b, right = in_a + wrong_a[place], in_b + wrong_b[place], 0
                continue
            right += 1
            if right == separating_words and (in_a or in_b):
                _close(found, in_a, in_b, index)
                in_a = in_b = 0
        if in_a or in_b:
            _close(found, in_a, in_b, index)
    return found


def _close(found: Segments, errors_a: int, errors_b: int, utterance: int) -> None:
    found.errors_a.append(errors_a)
    found.errors_b.append(errors_b)
    found.utterances.append(utterance)
