"""The proof of a run: the same sets, decoded and scored before and after training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.transcript import Transcript, read_transcripts, write_transcripts
from speechtune.models.family import Family
from speechtune.scoring.score import Score, compare, score_transcripts
from speechtune.scoring.terms import TermScore, term_recall
from speechtune.training.recipe import Recipe, TestSet

SeeDev = Callable[[Family, Corpus, list[Transcript]], dict[str, float]]
"""Looks at the transcripts of the dev split and returns further metrics."""


@dataclass(slots=True)
class Measurement:
    """One set, one system (``before`` or ``after``), one audio context, and its score."""

    test_set: TestSet
    corpus: Corpus
    system: str
    context: str
    transcripts: str
    score: Score
    terms: TermScore | None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record; ``transcripts`` is relative to the run."""
        return {
            "set": self.test_set.name,
            "role": self.test_set.role,
            "corpus": str(self.corpus.root),
            "split": self.test_set.split,
            "system": self.system,
            "context": self.context,
            "transcripts": self.transcripts,
            "score": self.score.to_json(),
            "terms": self.terms.to_json() if self.terms else None,
        }


def sets_of(recipe: Recipe, corpus: Corpus) -> list[tuple[TestSet, Corpus]]:
    """The evaluation sets of a recipe with their utterances.

    Raises:
        InputError: a corpus or split is missing.
    """
    found = []
    for wanted in recipe.test_sets():
        own = wanted.corpus is None or Path(wanted.corpus).resolve() == corpus.root.resolve()
        whole = corpus if own or wanted.corpus is None else Corpus.load(wanted.corpus)
        found.append((wanted, whole.split(wanted.split) if wanted.split else whole))
    return found


def dev_metrics(family: Family, dev: Corpus, recipe: Recipe, see: SeeDev | None = None) -> dict[str, float]:
    """Generated WER and CER on the dev split, as fractions, with the WER's interval and what ``see`` adds."""
    transcripts = transcribe_corpus(family, dev, recipe.decoding, "dev")
    score = score_transcripts(dev, transcripts, confidence=recipe.evaluation.scoring, language=family.language)
    if score.wer is None or score.cer is None:
        raise InputError(f"{dev.root}: the dev split has no reference words: choose another data.dev_split")
    interval = score.interval
    bounds = {"wer_low": interval.low, "wer_high": interval.high} if interval else {}
    return {"wer": score.wer, "cer": score.cer, **bounds, **(see(family, dev, transcripts) if see else {})}


def measure(
    family: Family, sets: list[tuple[TestSet, Corpus]], recipe: Recipe, run: Path, system: str
) -> list[Measurement]:
    """Decode and score every set at every audio context; transcripts that stand already are kept."""
    settings = recipe.evaluation
    contexts = (settings.baseline_contexts if system == "before" else None) or settings.contexts
    measurements = []
    for wanted, corpus in sets:
        for context in [one for one in contexts if one in family.contexts] or family.contexts[:1]:
            name = f"transcripts/{wanted.name}.{system}.{context}.jsonl"
            if not (run / name).is_file():
                decoding = recipe.decoding.model_copy(update={"context": context})
                title = f"{wanted.name} {system} ({context})"
                write_transcripts(run / name, transcribe_corpus(family, corpus, decoding, title))
            transcripts = read_transcripts(run / name)
            score = score_transcripts(
                corpus, transcripts, confidence=recipe.evaluation.scoring, language=family.language
            )
            terms = _terms(corpus, transcripts, score.normaliser, recipe)
            measurements.append(Measurement(wanted, corpus, system, context, name, score, terms))
    return measurements


def compare_all(before: list[Measurement], after: list[Measurement], recipe: Recipe) -> list[dict[str, Any]]:
    """For every set and context: the WER before and after, and the paired difference with its interval.

    ``before`` is taken at the base model's own context, full, where it was measured: a base model was
    never trained for fitted context, and comparing with it there would flatter the result.
    """
    rows = []
    for one in after:
        same_set = [other for other in before if other.test_set.name == one.test_set.name]
        base = next((other for other in same_set if other.context == "full"), same_set[0])
        difference = compare(base.score, one.score, recipe.evaluation.scoring).wer
        rows.append(
            {
                "set": one.test_set.name,
                "role": one.test_set.role,
                "context_before": base.context,
                "context_after": one.context,
                "wer_before": base.score.wer,
                "wer_after": one.score.wer,
                "difference": difference.to_json(),
                "term_recall_before": base.terms.recall if base.terms else None,
                "term_recall_after": one.terms.recall if one.terms else None,
            }
        )
    return rows


def _terms(corpus: Corpus, transcripts: list[Transcript], normaliser: str, recipe: Recipe) -> TermScore | None:
    scoring = recipe.evaluation.scoring
    if not scoring.terms:
        return None
    heard = {transcript.utterance_id: transcript.text for transcript in transcripts}
    references = [utterance.text for utterance in corpus]
    hypotheses = [heard[utterance.utterance_id] for utterance in corpus]
    return term_recall(references, hypotheses, scoring.terms, scoring.term_variants, normaliser)
