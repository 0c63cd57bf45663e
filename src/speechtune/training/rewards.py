"""What a transcript is worth, from its errors against the reference in the scoring room's units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from speechtune.scoring.alignment import char_counts, word_counts
from speechtune.scoring.metrics_output import loop_words
from speechtune.scoring.normalisers import default_normaliser, get_normaliser
from speechtune.training.objectives.grpo_config import RewardConfig


class Reward:
    """The reward of a recipe, after its normaliser.

    Args:
        config: the weights.
        language: of the texts; it chooses the normaliser where the config says ``auto``.

    Raises:
        InputError: there is no such normaliser.
    """

    def __init__(self, config: RewardConfig, language: str | None) -> None:
        self.config = config
        name = default_normaliser(language) if config.normaliser == "auto" else config.normaliser
        self.normalise = get_normaliser(name)

    def __call__(self, reference: str, hypotheses: Sequence[str]) -> list[float]:
        """The reward of each hypothesis; higher is better, 0 (plus the bonus) is a perfect one."""
        ref = self.normalise(reference)
        return [self._one(ref, self.normalise(text)) for text in hypotheses]

    def _one(self, reference: str, hypothesis: str) -> float:
        config = self.config
        ref, hyp = reference.split(), hypothesis.split()
        value = 0.0
        if config.wer:
            value -= config.wer * word_counts(reference, hypothesis).errors / max(1, len(ref))
        if config.cer:
            value -= config.cer * char_counts(reference, hypothesis).errors / max(1, len(" ".join(ref)))
        if config.exact and ref == hyp:
            value += config.exact
        if config.length:
            value -= config.length * abs(len(hyp) - len(ref)) / max(1, len(ref))
        if config.repetition:
            value -= config.repetition * repeated_share(hyp)
        return value


def repeated_share(words: Sequence[str]) -> float:
    """Share of the words that repeat in a loop, or the word right before them."""
    if not words:
        return 0.0
    doubled = sum(one == other for one, other in pairwise(words))
    return max(loop_words(words), doubled) / len(words)
