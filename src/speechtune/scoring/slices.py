"""Values and bands of a column, by which a score is divided.

Beside the columns of the corpus there are ``reference_words``, ``words_per_s`` (words of the normalised reference over
the length of the clip, pauses included) and ``snr_db``, which is taken from the corpus, else from its audit, else
measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.table import STANDARD_COLUMNS, Corpus

UNKNOWN = "(unknown)"
REFERENCE_WORDS = "reference_words"
"""A column every corpus has for slicing: the number of words of the normalised reference."""

WORDS_PER_S = "words_per_s"
"""How fast somebody spoke: reference words over ``duration_s``; unknown where either is zero."""

SNR_DB = "snr_db"
_MOST_LABELS = 15

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
        column: a column of the corpus, ``reference_words``, ``words_per_s`` or ``snr_db``.
        corpus: the utterances.
        reference_words: words of each normalised reference, in the order of the corpus.

    Raises:
        InputError: no utterance has a value in that column.
    """
    if column == REFERENCE_WORDS:
        values: list[Any] = list(reference_words)
    elif column == WORDS_PER_S:
        values = [
            words / utterance.duration_s if words and utterance.duration_s else None
            for words, utterance in zip(reference_words, corpus, strict=True)
        ]
    elif column == SNR_DB:
        values = signal_to_noise(corpus)
    else:
        values = [utterance.column(column) for utterance in corpus]
    if all(value is None for value in values):
        columns = [*STANDARD_COLUMNS, *sorted({name for utterance in corpus for name in utterance.extra})]
        known = [name for name in columns if any(utterance.column(name) is not None for utterance in corpus)]
        known = [name for name in known if name not in _TEXT_COLUMNS] + [REFERENCE_WORDS]
        if any(utterance.duration_s for utterance in corpus):
            known += [WORDS_PER_S]
        raise InputError(f"no utterance of {corpus.root} has a {column!r}: slice by one of {', '.join(known)}")
    labeller, order = _labeller(column, [value for value in values if value is not None])
    labels = [UNKNOWN if value is None else labeller(value) for value in values]
    present = set(labels)
    return labels, [label for label in order if label in present] + ([UNKNOWN] if UNKNOWN in present else [])


def signal_to_noise(corpus: Corpus) -> list[float | None]:
    """The signal-to-noise ratio of each utterance in dB: of its column, else of the corpus's audit, else measured.

    Empty where there is no audio either. An audit made before the table was changed is not used.

    Raises:
        InputError: measuring needs a package that is missing, or an audio file cannot be read.
    """
    values = [utterance.column(SNR_DB) for utterance in corpus]
    if any(value is not None for value in values):
        return values
    audited = _audited(corpus)
    if audited:
        note(f"{SNR_DB} is taken from {corpus.root / 'audit'}")
        return [audited.get(utterance.utterance_id) for utterance in corpus]
    if not all(utterance.file_name and corpus.path_of(utterance).is_file() for utterance in corpus):
        return values
    from speechtune.audio.io import AudioError
    from speechtune.audio.measures import measure_batch
    from speechtune.core.progress import track

    note(f"{SNR_DB} is measured: the corpus has no such column and no audit of its present table")
    measured: list[float | None] = []
    batches = [corpus.utterances[start : start + 64] for start in range(0, len(corpus), 64)]
    for batch in track(batches, "measuring"):
        spans = [(corpus.path_of(one), one.start_s, one.end_s) for one in batch]
        for one in measure_batch(spans):
            if isinstance(one, AudioError):
                raise InputError(str(one))
            measured.append(one.snr_db)
    return measured


def _audited(corpus: Corpus) -> dict[str, float | None]:
    """``snr_db`` of the audit beside a corpus, where it was made of the table as it is now."""
    table, summary = corpus.root / "audit" / "audit.parquet", corpus.root / "audit" / "audit.json"
    if not (table.is_file() and summary.is_file()):
        return {}
    from speechtune.corpus.stream import table_sha256

    try:
        import pyarrow.parquet as parquet

        if json.loads(summary.read_text(encoding="utf-8")).get("table_sha256") != table_sha256(corpus.root):
            return {}
        columns = parquet.read_table(table, columns=["utterance_id", SNR_DB]).to_pydict()
    except (ImportError, OSError, ValueError, KeyError):
        return {}
    return dict(zip(columns["utterance_id"], columns[SNR_DB], strict=True))


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
    many = len(set(numbers)) > _MOST_LABELS or any(value != int(value) for value in numbers)
    if len(numbers) == len(values) and (column in BANDS or many):
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
