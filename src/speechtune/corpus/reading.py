"""The corpus of a recipe's ``data``: as it is on disk, or divided anew in memory; and rows that say the same twice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig, SplitConfig
from speechtune.corpus.mixing_audio import audio_digests
from speechtune.corpus.split_lists import FixedLists, SplitOptions, split_as_told
from speechtune.corpus.table import Corpus, Utterance
from speechtune.corpus.text_keys import text_key

SAME_LENGTH_S = 0.01
"""Lengths of one recording that was imported twice differ by less (rates are converted, spans are rounded)."""

SAID_TWICE = "the same audio and text as another row"
SAID_IN_DEV = "the same audio and text as a row of the dev split"


def load_corpus(data: DataConfig) -> Corpus:
    """``data.corpus`` with its own splits, or with those that ``data.split`` asks for; nothing is written.

    The same recipe and table give the same splits in every process, and those of ``speechtune split`` with the same
    options.

    Raises:
        InputError: the corpus cannot be read, or cannot be divided so.
    """
    return divided(Corpus.load(data.corpus), data.split)


def divided(corpus: Corpus, wanted: SplitConfig | None) -> Corpus:
    """The corpus with the splits that are wanted (``None``: as it is)."""
    if wanted is None:
        return corpus
    options = SplitOptions(wanted.dev, wanted.test, wanted.by, wanted.stratify, wanted.seed, overwrite=True)
    lists = FixedLists(_path(wanted.test_list), _path(wanted.dev_list), wanted.allow_speaker_overlap)
    try:
        split_as_told(corpus, options, lists, wanted.folds, wanted.fold)
    except InputError as error:
        raise InputError(f"data.split: {error}") from error
    return corpus


def redivided(corpus: Corpus, data: dict[str, Any]) -> Corpus:
    """A corpus that a finished run measured, with the splits of the run's recipe; ``data`` is that recipe's section."""
    same = Path(str(data.get("corpus"))).resolve() == corpus.root.resolve()
    return divided(corpus, SplitConfig.model_validate(data["split"])) if same and data.get("split") else corpus


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def repeated_rows(rows: Iterable[tuple[Corpus, Utterance]]) -> list[bool]:
    """For each row, whether an earlier one has its samples and its text.

    Only rows whose text and length another row shares are decoded. Texts are compared by `text_key`, samples at 16 kHz
    mono and 16 bit: a lossy copy is another recording.

    Raises:
        InputError: one of these recordings cannot be read.
    """
    given = list(rows)
    by_text: dict[str, list[int]] = {}
    for place, (_, row) in enumerate(given):
        by_text.setdefault(text_key(row.text), []).append(place)
    alike = {place for places in by_text.values() for place in _of_one_length(places, given)}
    digests = audio_digests(given[place] for place in sorted(alike)) if alike else {}
    seen: set[tuple[str, str]] = set()
    repeated = [False] * len(given)
    for place in sorted(alike):
        row = given[place][1]
        key = (text_key(row.text), digests[id(row)])
        repeated[place] = key in seen
        seen.add(key)
    return repeated


def _of_one_length(places: list[int], rows: list[tuple[Corpus, Utterance]]) -> list[int]:
    """Those that another of them is as long as."""
    lengths_s = {place: rows[place][1].duration_s for place in places}
    ordered = sorted(places, key=lengths_s.__getitem__)
    near = [lengths_s[after] - lengths_s[before] <= SAME_LENGTH_S for before, after in pairwise(ordered)]
    sides = zip(ordered, [False, *near], [*near, False], strict=True)
    return [place for place, before, after in sides if before or after]
