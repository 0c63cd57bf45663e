"""What every family that decodes token by token hands to Transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from speechtune.core.errors import InputError
from speechtune.models.search_config import SearchConfig


def generation_config(
    tokenizer: Any,
    search: SearchConfig,
    limit: int,
    beams: int,
    *,
    ends: Collection[int],
    filler: int,
    never: Collection[int] = (),
    **more: Any,
) -> GenerationConfig:
    """Limits, penalties, ranking, sampling and forbidden tokens of a search.

    Args:
        tokenizer: finds the single tokens of ``search.suppress``.
        search: what the recipe asks for.
        limit: most new tokens.
        beams: beams of the search; 1 is greedy, or sampling.
        ends: the tokens that end a text.
        filler: the token that fills finished rows.
        never: tokens that the model itself forbids.
        more: further fields of the ``GenerationConfig``.

    Raises:
        InputError: an end of the text is forbidden.
    """
    banned = {*never, *search.suppress_tokens}
    for text in search.suppress:
        for form in (text, " " + text):
            tokens = tokenizer.encode(form, add_special_tokens=False)
            if len(tokens) == 1:
                banned.add(int(tokens[0]))
    if banned & set(ends):
        raise InputError(f"decoding.search.suppress_tokens forbids the end of the text ({min(ends)}): remove it")
    sampling = {
        "temperature": search.temperature,
        "top_k": search.top_k,
        "top_p": search.top_p,
        "min_p": search.min_p or None,
        "typical_p": search.typical_p,
    }
    ranking = {"length_penalty": search.length_penalty, "early_stopping": search.early_stopping}
    return GenerationConfig(
        max_new_tokens=limit,
        num_beams=beams,
        num_return_sequences=search.n_best,
        do_sample=search.sample,
        **(sampling if search.sample else {}),
        **(ranking if beams > 1 else {}),
        repetition_penalty=search.repetition_penalty,
        no_repeat_ngram_size=search.no_repeat_ngram,
        eos_token_id=sorted(ends),
        pad_token_id=filler,
        suppress_tokens=sorted(banned) or None,
        **more,
    )


class LogProbs(LogitsProcessor):
    """Keeps the log-probability of the best token of every step, instead of every logit of every step."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, unchanged."""
        self.steps.append((scores.amax(-1) - scores.logsumexp(-1)).float())  # generate hands them over as float32
        return scores

    def by_row(self) -> list[list[float]]:
        """Log-probabilities, one list a row of the batch."""
        return torch.stack(self.steps, dim=1).tolist()
