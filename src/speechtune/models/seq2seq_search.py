"""Decoding with an encoder-decoder family: greedy, beams, N-best lists and sampling, through ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.utils import ModelOutput

from speechtune.core.errors import InputError
from speechtune.models.family import Hypothesis, best_of
from speechtune.models.generation import generation_config
from speechtune.models.search_config import SearchConfig, check_n_best

if TYPE_CHECKING:
    from speechtune.models.seq2seq import Seq2SeqFamily

_LOGITS_PER_CHUNK = 100_000_000


def search_seq2seq(
    family: Seq2SeqFamily, waveforms: Sequence[np.ndarray], max_new_tokens: int, beams: int, search: SearchConfig
) -> list[Hypothesis]:
    """The best hypothesis of each clip, with all kept ones in its ``nbest``, best first.

    Their order is the search's, that of sampled ones the mean log-probability. Log-probabilities are the model's own
    (temperature 1, no penalties), of the tokens and the end. A clip's text ends at ``family.most_tokens``.

    Raises:
        InputError: more hypotheses than beams, suppressed tokens that hold the end, or a prompt.
    """
    check_n_best(search, beams)
    if search.said_before():
        raise InputError(
            f"decoding.search.prompt and hotwords do not work with {family.title}, which reads no text before the "
            "transcript: remove them"
        )
    prefix = family.tokenizer.encode(search.prefix, add_special_tokens=False) if search.prefix else []
    device = next(family.model.parameters()).device
    start = [*family.prompt, *prefix]
    limit = max(1, min(max_new_tokens, family.limits.max_label_tokens - len(start)))
    own = [family.most_tokens(len(one)) for one in waveforms]
    caps = [limit if one is None else max(1, min(limit, one)) for one in own]
    encoded = family.encode(waveforms)
    kept = {name: encoded[name] for name in encoded}  # generate repeats them, in place, for every beam
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=search.sample):
        if search.sample:
            torch.manual_seed(search.seed)
        model: Any = family.model
        found: Any = GenerationMixin.generate(
            model,
            encoder_outputs=type(encoded)(**kept),
            decoder_input_ids=torch.tensor([start] * len(waveforms), device=device),
            generation_config=generation_config(
                family.tokenizer,
                search,
                limit,
                beams,
                ends=[family.end],
                filler=family.end,
                decoder_start_token_id=start[0],
            ),
            logits_processor=LogitsProcessorList([_EndAt(caps, len(start), family.end)] if min(caps) < limit else []),
        )
    scores = _log_probs(family, type(encoded)(**kept), found, len(start), search.n_best)
    ends = (family.end,)
    rows = [
        Hypothesis.of_row(row, own, family.text, ends, caps[number // search.n_best], prefix)
        for number, (row, own) in enumerate(zip(found[:, len(start) :].tolist(), scores, strict=True))
    ]
    return [best_of(rows[first : first + search.n_best], search) for first in range(0, len(rows), search.n_best)]


def repeated(encoded: Any, times: int) -> Any:
    """An encoder's output with every clip so many times in a row."""
    return type(encoded)(**{name: one.repeat_interleave(times, dim=0) for name, one in encoded.items()})


def _log_probs(
    family: Seq2SeqFamily, encoded: ModelOutput, tokens: torch.Tensor, given: int, kept: int
) -> list[list[float]]:
    """Log-probability of every token behind the first ``given`` ones, ``kept`` rows of tokens a clip."""
    model: Any = family.model
    whole = repeated(encoded, kept)
    size = tokens.shape[1] * int(model.get_output_embeddings().weight.shape[0])
    at_once = max(1, _LOGITS_PER_CHUNK // size)
    rows: list[list[float]] = []
    for first in range(0, len(tokens), at_once):
        part = tokens[first : first + at_once]
        states = type(whole)(**{name: one[first : first + at_once] for name, one in whole.items()})
        logits = model(encoder_outputs=states, decoder_input_ids=part[:, :-1], use_cache=False).logits[:, given - 1 :]
        chosen = part[:, given:, None]
        rows += logits.float().log_softmax(-1).gather(-1, chosen).squeeze(-1).tolist()
    return rows


class _EndAt(LogitsProcessor):
    """Allows a clip nothing but the end once it has as many tokens as it may."""

    def __init__(self, caps: list[int], given: int, end: int) -> None:
        self.caps = torch.tensor(caps)
        self.given = given
        self.end = end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, with all but the end at minus infinity for clips that are full."""
        caps = self.caps.to(scores.device).repeat_interleave(len(scores) // len(self.caps))
        full = caps <= input_ids.shape[1] - self.given
        others = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
        others[self.end] = False
        return scores.masked_fill(full[:, None] & others[None], -torch.inf)
