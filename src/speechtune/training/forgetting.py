"""Forgetting: how much worse than its base a model hears the guard sets, during training and after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.transcript import read_transcripts
from speechtune.models.family import Family
from speechtune.scoring.alignment import Counts
from speechtune.scoring.score import score_transcripts

if TYPE_CHECKING:
    from speechtune.training.evaluation import Measurement
    from speechtune.training.recipe import Recipe, TestSet

GUARD_SEED = 0
"""Seed of the draw of guard utterances: the same ones in every run, so that runs can be compared."""


class GuardWatch:
    """The guard sets' WER at every evaluation of a run, on a fixed draw of their utterances."""

    def __init__(self, recipe: Recipe, sets: Sequence[tuple[TestSet, Corpus]], run: Path) -> None:
        """``sets``: every evaluation set of the recipe; ``run``: where the base model's transcripts are written.

        Raises:
            InputError: guards are to be measured and there is no guard set.
        """
        self.recipe = recipe
        self.run = run
        self.guards: list[tuple[TestSet, Corpus]] = []
        self._base: float | None = None
        count = recipe.evaluation.guard_each
        if count is None:
            return
        guards = [(wanted, corpus) for wanted, corpus in sets if wanted.role == "guard"]
        if not guards:
            raise InputError("evaluation.guard_each needs a guard set: give one of evaluation.sets the role guard")
        shares = np.array_split(np.arange(count), len(guards))
        for (wanted, corpus), share in zip(guards, shares, strict=True):
            self.guards.append((wanted, drawn(corpus, max(1, len(share)))))

    def metrics(self, family: Family) -> dict[str, float]:
        """``guard_wer`` (a fraction over all guards' words), and ``forgetting`` in points of WER against the base.

        Empty without ``evaluation.guard_each``. The base is taken from the run's ``transcripts``, where they stand.
        """
        if not self.guards:
            return {}
        found = Counts()
        for wanted, corpus in self.guards:
            transcripts = transcribe_corpus(family, corpus, self.recipe.decoding, f"guard {wanted.name}")
            found = found + score_transcripts(corpus, transcripts, language=family.language).words
        if found.rate is None:
            raise InputError("the guard sets have no reference words: choose others")
        base = self._base_wer(family.language)
        return {"guard_wer": found.rate} | ({} if base is None else {"forgetting": points(base, found.rate)})

    def _base_wer(self, language: str | None) -> float | None:
        if self._base is None:
            total = Counts()
            for wanted, corpus in self.guards:
                files = [self.run / f"transcripts/{wanted.name}.before.{context}.jsonl" for context in ("full", "fit")]
                stands = next((file for file in files if file.is_file()), None)
                if stands is None:
                    return None
                chosen = {one.utterance_id for one in corpus}
                said = [one for one in read_transcripts(stands) if one.utterance_id in chosen]
                total = total + score_transcripts(corpus, said, language=language).words
            self._base = total.rate
        return self._base


def drawn(corpus: Corpus, count: int) -> Corpus:
    """``count`` utterances of a corpus (all of it if it has fewer), drawn with `GUARD_SEED`, in the corpus's order."""
    if len(corpus.utterances) <= count:
        return corpus
    places = np.random.default_rng(GUARD_SEED).permutation(len(corpus.utterances))[:count]
    return Corpus(corpus.root, [corpus.utterances[place] for place in sorted(places)])


def points(before: float, after: float) -> float:
    """Points of WER by which it rose (negative: fell); 0.21 to 0.25 is 4."""
    return round(100 * (after - before), 3)


def forgetting(before: Sequence[Measurement], after: Sequence[Measurement], context: str) -> float | None:
    """Points of WER by which a run made all guard sets together worse; ``None`` without a guard set.

    The base is taken at its own context, full, where it was measured, as in `compare_all`; the tuned model at
    ``context``, the one that it decodes with, where it was measured.
    """
    rates = []
    for measurements, first in ((before, "full"), (after, context)):
        total = Counts()
        for name in dict.fromkeys(one.test_set.name for one in measurements if one.test_set.role == "guard"):
            own = [one for one in measurements if one.test_set.name == name]
            total = total + next((one for one in own if one.context == first), own[0]).score.words
        rates.append(total.rate)
    return None if None in rates else points(rates[0], rates[1])  # type: ignore[arg-type]
