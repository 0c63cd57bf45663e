"""What is the same for every family whose tokenizer writes any text: byte pairs, a fixed output layer."""

from __future__ import annotations

from collections.abc import Sequence

from speechtune.models.ctc_config import CtcConfig


class BytePairText:
    """The parts of `Family` that concern vocabulary, for a model that can write everything."""

    def prepare(self, settings: CtcConfig, texts: Sequence[str], seed: int) -> None:
        """Nothing: vocabulary and output layer are the checkpoint's."""

    def written(self, text: str) -> str:
        """The text itself: byte pairs write anything."""
        return text

    def refusal(self, duration_s: float, tokens: Sequence[int]) -> str | None:
        """``None``: only `limits` count."""
        return None
