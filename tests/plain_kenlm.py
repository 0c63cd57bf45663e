"""Stands for the Python package ``kenlm``: an n-gram model asked by the definition of back-off, from the ARPA file.

Nothing of speechtune is used, so that it can judge speechtune's own models where KenLM is not installed.
"""

from __future__ import annotations

from pathlib import Path


class State:
    """The words before, at most order - 1."""

    words: tuple[str, ...] = ()


class Model:
    """What pyctcdecode calls of ``kenlm.Model``. Log-probabilities are base 10."""

    def __init__(self, path: str) -> None:
        self.grams: dict[tuple[str, ...], tuple[float, float]] = {}
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            columns = line.split("\t")
            if len(columns) > 1:
                back_off = float(columns[2]) if len(columns) > 2 else 0.0
                self.grams[tuple(columns[1].split(" "))] = (float(columns[0]), back_off)
        self.order = max(len(gram) for gram in self.grams)

    def __contains__(self, word: str) -> bool:
        return (word,) in self.grams

    def probability(self, before: tuple[str, ...], word: str) -> float:
        """Of a word; an unknown one is ``<unk>``, as anywhere in the words before it."""
        if (*before, word) in self.grams:
            return self.grams[(*before, word)][0]
        if not before:
            return self.grams.get(("<unk>",), (-100.0, 0.0))[0]
        return self.grams.get(before, (0.0, 0.0))[1] + self.probability(before[1:], word)

    def BeginSentenceWrite(self, state: State) -> None:  # noqa: N802
        """The state at the start of a sentence."""
        state.words = ("<s>",)

    def NullContextWrite(self, state: State) -> None:  # noqa: N802
        """The state without anything before."""
        state.words = ()

    def BaseScore(self, before: State, word: str, after: State) -> float:  # noqa: N802
        """The probability of a word behind a state; ``after`` becomes the state behind it."""
        known = word if word in self else "<unk>"
        after.words = (*before.words, known)[max(0, len(before.words) + 2 - self.order) :]
        return self.probability(before.words, known)

    def score(self, sentence: str) -> float:
        """Of a whole sentence, its beginning and end included."""
        state, total = State(), 0.0
        self.BeginSentenceWrite(state)
        for word in [*sentence.split(), "</s>"]:
            after = State()
            total += self.BaseScore(state, word, after)
            state = after
        return total
