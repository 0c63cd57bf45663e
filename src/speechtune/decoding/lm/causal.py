"""Texts scored by a Transformers causal language model, alone or beside an n-gram model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.decoding.lm.loading import load_lm
from speechtune.decoding.lm.rescoring import Scorer, ngram_scorer
from speechtune.decoding.lm.text import Words


class CausalScorer:
    """Summed natural log-probabilities of whole texts, in one padded batch a call.

    A text is preceded by the model's begin (or end) token and followed by its end token, where it has them.

    Raises:
        InputError: the directory does not load as a causal language model.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path} does not load as a causal language model ({reason}): check decoding.lm.causal"
            ) from error
        self.model = loaded.to(device).eval()
        self.device = device
        self.begin = self.tokenizer.bos_token_id
        if self.begin is None:
            self.begin = self.tokenizer.eos_token_id
        if self.begin is None:
            raise InputError(
                f"{path} has neither a begin nor an end token, so texts cannot be scored: use another model"
            )

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """The log-probability of every text."""
        import torch

        end = [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else []
        encode = self.tokenizer.encode
        rows = [[self.begin, *encode(text, add_special_tokens=False), *end] for text in texts]
        longest = max(map(len, rows))
        tokens = torch.full((len(rows), longest), self.begin, device=self.device)
        mask = torch.zeros((len(rows), longest), dtype=torch.long, device=self.device)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with torch.inference_mode():
            logits = self.model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
            found = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
            return (found * mask[:, 1:]).sum(dim=1).tolist()


def scorer_of(ngram: str | None, causal: str | None, words: Words) -> Scorer:
    """The scorer of an n-gram model, of a causal one, or of both added up.

    Raises:
        InputError: neither is given, or one cannot be had.
    """
    scorers: list[Scorer] = []
    if ngram is not None:
        scorers.append(ngram_scorer(load_lm(ngram), words))
    if causal is not None:
        scorers.append(CausalScorer(Path(causal)))
    if not scorers:
        raise InputError("there is no language model to score with: set decoding.lm.model or decoding.lm.causal")
    return lambda texts: [sum(parts) for parts in zip(*(one(texts) for one in scorers), strict=True)]
