"""How good a combination could be at best: the fewest errors that the given hypotheses hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechtune.corpus.table import Corpus
from speechtune.decoding.together.rover import Slot, build_network
from speechtune.decoding.together.systems import System, words_of
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.normalisation.rules import Normaliser


@dataclass(frozen=True, slots=True)
class Oracle:
    """Word error rates (fractions) of choices that only someone who knows the references can make.

    ``hypothesis``: of the systems' texts the best one of each utterance; ``list``: of all hypotheses in their N-best
    lists (the same where there are no lists); ``path``: the best way through the word network of the systems' texts.
    """

    hypothesis: float | None
    list: float | None
    path: float | None
    hypotheses_per_utterance: float

    def to_json(self) -> dict[str, float | None]:
        """The rates, JSON-ready."""
        return {
            "wer_best_hypothesis": self.hypothesis,
            "wer_best_of_lists": self.list,
            "wer_best_network_path": self.path,
            "hypotheses_per_utterance": round(self.hypotheses_per_utterance, 2),
        }


def best_text(reference: str, texts: Sequence[str]) -> int:
    """Which text (normalised, as the reference) has the fewest word errors; of equal ones the first."""
    errors = [word_counts(reference, text).errors for text in texts]
    return errors.index(min(errors))


def network_errors(reference: Sequence[str], network: Sequence[Slot]) -> int:
    """The fewest word errors of any path through a word network.

    Args:
        reference: words.
        network: slots whose words' keys are compared with them.
    """
    errors = list(range(len(reference) + 1))  # of the first words of the reference against the slots so far
    for slot in network:
        keys = {word.key for _, word in slot if word is not None}
        skipped = any(word is None for _, word in slot)
        row = [errors[0] + (0 if skipped else 1)]
        for place, wanted in enumerate(reference, start=1):
            best = min(errors[place - 1] + (wanted not in keys), row[place - 1] + 1) if keys else row[place - 1] + 1
            row.append(min(best, errors[place] + (0 if skipped else 1)))
        errors = row
    return errors[-1]


def oracle(corpus: Corpus, systems: Sequence[System], normaliser: Normaliser) -> Oracle:
    """The oracle rates of a set of systems on a corpus whose every utterance they have transcribed."""
    sums, length, hypotheses = [0, 0, 0], 0, 0
    for utterance in corpus:
        reference = normaliser(utterance.text)
        own = [system.transcripts[utterance.utterance_id] for system in systems]
        firsts = [normaliser(one.text) for one in own]
        lists = {*firsts, *(normaliser(str(row["text"])) for one in own for row in one.nbest)}
        sums[0] += min(word_counts(reference, text).errors for text in firsts)
        sums[1] += min(word_counts(reference, text).errors for text in lists)
        sums[2] += network_errors(reference.split(), build_network([words_of(text, str.split) for text in firsts]))
        length += len(reference.split())
        hypotheses += len(lists)
    rates = [one / length if length else None for one in sums]
    return Oracle(rates[0], rates[1], rates[2], hypotheses / max(len(corpus), 1))
