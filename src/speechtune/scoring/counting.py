"""Many pairs of texts normalised and counted, in this process or several."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from speechtune.core.progress import track
from speechtune.scoring.alignment import count_many, count_words
from speechtune.scoring.normalisation.rules import Normaliser, single_spaces
from speechtune.scoring.normalisation.variants import with_variants
from speechtune.scoring.normalisers import get_normaliser

_PAIRS_PER_CHUNK = 16_384
PAIRS_WORTH_A_PROCESS = 50_000
"""Starting a process costs about as much as counting this many pairs."""


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No search for reference cycles inside, for code that makes many lasting objects and no cycles.

    The collector walks through all of them again and again: a quarter of the time of scoring 200,000 utterances.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@dataclass(frozen=True, slots=True)
class NormaliserSpec:
    """A normaliser by name with other spellings of words: what can be sent to another process."""

    name: str
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def build(self) -> Normaliser:
        """The normaliser.

        Raises:
            InputError: the name is unknown, or the variants contradict each other.
        """
        return with_variants(get_normaliser(self.name), self.variants)


@dataclass(slots=True)
class Counted:
    """Normalised texts and their counts; ``words`` and ``chars`` have shape [pairs, 4]: H, S, D, I."""

    references: list[str]
    hypotheses: list[str]
    words: np.ndarray
    chars: np.ndarray


def count_texts(
    references: Sequence[str], hypotheses: Sequence[str], spec: NormaliserSpec, workers: int = 1
) -> Counted:
    """Normalise raw texts and count word and character errors of each pair.

    Args:
        references: raw reference texts.
        hypotheses: raw hypothesis texts, in the same order.
        spec: the normaliser of both.
        workers: processes; more than one are used from `PAIRS_WORTH_A_PROCESS` pairs on. The result does not depend
            on it. The calling script needs an ``if __name__ == "__main__"`` guard, as Python's ``spawn`` asks.
    """
    spec.build()
    chunks = [
        (references[start : start + _PAIRS_PER_CHUNK], hypotheses[start : start + _PAIRS_PER_CHUNK])
        for start in range(0, len(references), _PAIRS_PER_CHUNK)
    ]
    result = Counted([], [], np.zeros((len(references), 4), np.int64), np.zeros((len(references), 4), np.int64))
    done = 0
    for part in track(_counted_chunks(chunks, spec, workers, len(references)), "scoring", total=len(chunks)):
        end = done + len(part.references)
        result.references += part.references
        result.hypotheses += part.hypotheses
        result.words[done:end], result.chars[done:end] = part.words, part.chars
        done = end
    return result


def _counted_chunks(
    chunks: list[tuple[Sequence[str], Sequence[str]]], spec: NormaliserSpec, workers: int, pairs: int
) -> Iterator[Counted]:
    work = functools.partial(_count_chunk, spec)
    if workers < 2 or pairs < PAIRS_WORTH_A_PROCESS:
        yield from map(work, chunks)
        return
    # spawn, not fork: the process may hold threads of torch.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, chunks)


_built: dict[str, Normaliser] = {}


@collector_paused()
def _count_chunk(spec: NormaliserSpec, texts: tuple[Sequence[str], Sequence[str]]) -> Counted:
    key = repr(spec)
    if key not in _built:
        _built[key] = spec.build()
    normalise = _built[key]
    pieces = tuple(list(map(normalise.pieces, side)) for side in texts)
    words = count_words(*pieces)
    references, hypotheses = ([single_spaces(" ".join(one)) for one in side] for side in pieces)
    if normalise.characters_are_words:
        chars = count_many([one.replace(" ", "") for one in references], [one.replace(" ", "") for one in hypotheses])
    else:
        chars = count_many(references, hypotheses)
    return Counted(references, hypotheses, words, chars)
