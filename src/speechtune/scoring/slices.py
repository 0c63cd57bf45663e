"""Values and bands of a column, by which a score is divided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.table import STANDARD_COLUMNS, Corpus

UNKNOWN = "(unknown)"
REFERENCE_WORDS = "reference_words"
"""A column every corpus has for slicing: the number of words of the normalised reference."""

BANDS: dict[str, tuple[float, ...]] = {
    "duration_s": (2, 5, 10, 30),
    "snr_db": (0, 5, 10, 20, 30),
    REFERENCE_WORDS: (1, 2, 6, 11, 21),
}
"""Edges of the bands a numeric column is sliced in: below the first, [edge, next edge), from the last on."""

_TEXT_COLUMNS = frozenset({"text", "file_name", "utterance_id"})


def labels_of(column: str, corpus: Corpus, reference_words: Sequence[int]) -> tuple[list[str], list[str]]:
    """Each utterance's label in a column, and the labels in the order in which they are shown.

    Args:
        column: a column of the corpus, or ``reference_words``.
        corpus: the utterances.
        reference_words: words of each normalised reference, in the order of the corpus.

    Raises:
        InputError: no utterance has a value in that column.
    """
    if column == REFERENCE_WORDS:
        values: list[Any] = list(reference_words)
    else:
        values = [utterance.column(column) for utterance in corpus]
    if all(value is None for value in values):
        columns = [*STANDARD_COLUMNS, *sorted({name for utterance in corpus for name in utterance.extra})]
        known = [name for name in columns if any(utterance.column(name) is not None for utterance in corpus)]
        known = [name for name in known if name not in _TEXT_COLUMNS] + [REFERENCE_WORDS]
        raise InputError(f"no utterance of {corpus.root} has a {column!r}: slice by one of {', '.join(known)}")
    labeller, order = _labeller(column, [value for value in values if value is not None])
    labels = [UNKNOWN if value is None else labeller(value) for value in values]
    present = set(labels)
    return labels, [label for label in order if label in present] + ([UNKNOWN] if UNKNOWN in present else [])


def block_labels(corpus: Corpus, column: str) -> list[str | None]:
    """What each utterance is resampled with: its value of a column, ``None`` where it has none.

    Raises:
        InputError: no utterance has a value in a column other than ``speaker_id``.
    """
    values = [utterance.column(column) for utterance in corpus]
    if column != "speaker_id" and all(value is None for value in values):
        raise InputError(
            f"no utterance of {corpus.root} has a {column!r} to resample by: name another column, or speaker_id"
        )
    return [None if value is None else _plain_label(value) for value in values]


def block_name(column: str) -> str:
    """What a block of a column is called: speaker for ``speaker_id``."""
    return column.removesuffix("_id")


def _labeller(column: str, values: list[Any]) -> tuple[Callable[[Any], str], list[str]]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and (column in BANDS or any(value != int(value) for value in numbers)):
        edges = BANDS.get(column) or _quartiles(numbers)
        names = _band_names(edges)
        return lambda value: names[sum(value >= edge for edge in edges)], names
    return _plain_label, sorted({_plain_label(value) for value in values}, key=_natural)


def _quartiles(numbers: list[float]) -> tuple[float, ...]:
    import numpy as np

    return tuple(sorted({float(f"{edge:.3g}") for edge in np.quantile(numbers, [0.25, 0.5, 0.75])}))


def _band_names(edges: Sequence[float]) -> list[str]:
    middle = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    return [f"<{edges[0]:g}", *middle, f">={edges[-1]:g}"]


def _plain_label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _natural(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
