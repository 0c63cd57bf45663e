"""Alignments whose substitutions cost more or less: words that sound alike, words that were said at the same time.

Costs are whole thousandths, so that equal costs are equal on every machine. A deletion and an insertion cost 1000 each.
Where several alignments cost least, one is read from the end: a deletion if a best one has it there, else a
substitution, else an insertion, else a match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from speechtune.scoring.alignment import Edit

UNIT = 1000
"""Cost of one deletion or insertion."""

FORBIDDEN = 4 * UNIT
"""A substitution cost that is never worth paying: a deletion and an insertion are cheaper."""


@dataclass(frozen=True, slots=True)
class TimedUnit:
    """A word with the times of its beginning and end in seconds."""

    text: str
    start_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        """The midpoint in seconds."""
        return (self.start_s + self.end_s) / 2


def align_by_cost(
    reference: Sequence[str], hypothesis: Sequence[str], costs: np.ndarray, indel: int = UNIT
) -> tuple[list[Edit], int]:
    """The cheapest alignment under given substitution costs, and its cost.

    Args:
        reference: units, such as words.
        hypothesis: units of the same kind.
        costs: shape [reference, hypothesis], whole numbers: what it costs to pair two units (equal ones too).
        indel: cost of a deletion or an insertion. (NIST's sclite has 3, and 4 for a substitution.)
    """
    rows, columns = len(reference), len(hypothesis)
    if costs.shape != (rows, columns):
        raise ValueError(
            f"costs have shape {costs.shape}; {rows} reference and {columns} hypothesis units need one each"
        )
    table = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    steps = indel * np.arange(columns + 1)
    table[0] = steps
    for row in range(1, rows + 1):
        best = table[row - 1] + indel
        best[1:] = np.minimum(best[1:], table[row - 1, :-1] + costs[row - 1])
        # An insertion adds indel to its left neighbour, whose best may be an insertion too: a running minimum.
        table[row] = np.minimum.accumulate(best - steps) + steps
    return _trace(reference, hypothesis, costs, table, indel), int(table[rows, columns])


def _trace(
    reference: Sequence[str], hypothesis: Sequence[str], costs: np.ndarray, table: np.ndarray, indel: int
) -> list[Edit]:
    edits: list[Edit] = []
    row, column = len(reference), len(hypothesis)
    while row or column:
        here = table[row, column]
        paired = row and column and here == table[row - 1, column - 1] + costs[row - 1, column - 1]
        equal = paired and reference[row - 1] == hypothesis[column - 1]
        if row and here == table[row - 1, column] + indel:
            row -= 1
            edits.append(Edit("delete", reference[row], None))
        elif column and here == table[row, column - 1] + indel and (equal or not paired):
            column -= 1
            edits.append(Edit("insert", None, hypothesis[column]))
        else:
            row, column = row - 1, column - 1
            edits.append(Edit("equal" if equal else "substitute", reference[row], hypothesis[column]))
    return edits[::-1]


def align_by_time(
    reference: Sequence[TimedUnit], hypothesis: Sequence[TimedUnit], collar_s: float = 0.5
) -> tuple[list[Edit], int]:
    """As the minimum edit distance, but two words can only be paired where they were said at the same time.

    That is where their spans overlap, or their midpoints lie at most ``collar_s`` seconds apart. A repeated word is
    then matched with the occurrence that was said, not with any (as NIST's asclite aligns with times).
    """
    costs = np.empty((len(reference), len(hypothesis)), dtype=np.int64)
    for row, ref in enumerate(reference):
        for column, hyp in enumerate(hypothesis):
            overlap = min(ref.end_s, hyp.end_s) - max(ref.start_s, hyp.start_s)
            near = overlap > 0 or abs(ref.middle_s - hyp.middle_s) <= collar_s
            costs[row, column] = (UNIT if ref.text != hyp.text else 0) if near else FORBIDDEN
    return align_by_cost([one.text for one in reference], [one.text for one in hypothesis], costs)


def align_by_sound(
    reference: Sequence[str], hypothesis: Sequence[str], distance: Callable[[str, str], float]
) -> tuple[list[Edit], int]:
    """As the minimum edit distance, but a substitution costs less the more alike two words sound.

    Args:
        reference: words.
        hypothesis: words.
        distance: 0 (the same sound) to 1 (nothing in common), such as `speechtune.scoring.phones.word_distance`.
    """
    costs = np.empty((len(reference), len(hypothesis)), dtype=np.int64)
    for row, ref in enumerate(reference):
        for column, hyp in enumerate(hypothesis):
            # Two different words never cost nothing: a homophone is a small error, and a match stays preferred.
            costs[row, column] = 0 if ref == hyp else max(1, round(UNIT * distance(ref, hyp)))
    return align_by_cost(reference, hypothesis, costs)
