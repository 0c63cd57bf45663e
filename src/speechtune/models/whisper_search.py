"""Whisper's decoding with N-best lists, sampling, prompts, and guides that change the scores of the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from speechtune.core.errors import InputError
from speechtune.models.family import Hypothesis, best_of
from speechtune.models.generation import generation_config
from speechtune.models.search_config import SearchConfig, check_n_best

if TYPE_CHECKING:
    from speechtune.models.whisper import WhisperFamily

Guide = Callable[[int], LogitsProcessor]
"""Makes a logits processor, given how many tokens come before the text: a language model, terms to prefer."""

_LOGITS_PER_CHUNK = 200_000_000


def search_whisper(
    family: WhisperFamily,
    waveforms: Sequence[np.ndarray],
    n_frames: int,
    max_new_tokens: int,
    beams: int,
    search: SearchConfig,
    guides: Sequence[Guide] = (),
) -> list[Hypothesis]:
    """The best hypothesis of each clip, with all kept ones in its ``nbest``, best first.

    Their order is the search's (its length penalty and guides included), that of sampled ones the mean
    log-probability. ``log_prob`` and ``sum_log_prob`` are the model's own, of temperature 1 and without guides.

    Raises:
        InputError: more hypotheses than beams, or a prompt that leaves no room for text.
    """
    _check(search, beams)
    device = next(family.model.parameters()).device
    features = family.front_end(waveforms, n_frames, device=str(device))
    encoded = family.part("encoder")(features)
    hidden = encoded.last_hidden_state  # generate repeats it, in place, for every beam
    given, start = prompt_tokens(family, search)
    head = len(control_tokens(family, search))
    limit = min(max_new_tokens, family.limits.max_label_tokens - len(given))
    if limit < 1:
        raise InputError(
            f"prompt and prefix take {len(given)} of the {family.limits.max_label_tokens} tokens that the model has "
            "for them and the text: shorten them"
        )
    own: Any = family.generation_config
    config = generation_config(
        family.tokenizer,
        search,
        limit,
        beams,
        ends=(family.eot,),
        filler=family.eot,
        never=own.suppress_tokens or (),
        decoder_start_token_id=family.config.decoder_start_token_id,
        begin_suppress_tokens=own.begin_suppress_tokens or None,
    )
    processors = LogitsProcessorList([family.no_timestamps(), *(guide(len(given)) for guide in guides)])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=search.sample):
        if search.sample:
            torch.manual_seed(search.seed)
        found: Any = GenerationMixin.generate(
            family.model,
            encoder_outputs=encoded,
            decoder_input_ids=torch.tensor([given] * len(waveforms), device=device),
            generation_config=config,
            logits_processor=processors,
        )
    kept = search.n_best
    log_probs, silence = teacher_forced(family, hidden, found, len(given), start, kept, config)
    prefix = given[start + head :]
    ends = (family.eot,)
    rows = [
        Hypothesis.of_row(row, own, family.text, ends, limit, prefix, silence[number // kept])
        for number, (row, own) in enumerate(zip(found[:, len(given) :].tolist(), log_probs, strict=True))
    ]
    return [best_of(rows[first : first + kept], search) for first in range(0, len(rows), kept)]


def prompt_tokens(family: WhisperFamily, search: SearchConfig) -> tuple[list[int], int]:
    """The tokens before the text, and where the start-of-transcript is among them."""
    encode = family.tokenizer.encode
    words = " ".join(search.said_before())
    previous: list[int] = []
    if words:
        begin = int(family.tokenizer.convert_tokens_to_ids("<|startofprev|>"))
        room = family.limits.max_label_tokens // 2 - 1
        previous = [begin, *encode(" " + words, add_special_tokens=False)[-room:]]
    prefix = family.tokens(search.prefix)[0][len(family.prompt) : -1] if search.prefix else []
    return [*previous, *control_tokens(family, search), *prefix], len(previous)


@dataclass(frozen=True, slots=True)
class ControlIds:
    """The ids that a Whisper's prompt is made of; without ``languages`` the model knows English only.

    ``languages``: of tokens such as ``<|en|>``. ``task``: what gives the id of transcribe or translate.
    ``other_model`` and ``say_language``: the advice of the two sentences that refuse.
    """

    start: int
    no_timestamps: int
    languages: Mapping[str, int]
    task: Callable[[str], int]
    other_model: str
    say_language: str

    def prompt(self, languages: Sequence[str], task: str) -> list[int]:
        """Start of the transcript, languages in order (several for speech that changes between them), task, no times.

        Raises:
            InputError: the model has no such language or task, or is multilingual and none is given.
        """
        if not self.languages:
            others = [one for one in languages if one != "en"]
            if others:
                raise InputError(f"this Whisper model knows English only, not {others[0]!r}: {self.other_model}")
            if task != "transcribe":
                raise InputError(f"an English-only Whisper model has no task {task!r}: use a multilingual one")
            return [self.start, self.no_timestamps]
        if not languages:
            raise InputError(f"a multilingual Whisper model needs a language: {self.say_language}, as in en")
        for language in languages:
            if f"<|{language}|>" not in self.languages:
                known = ", ".join(sorted(name[2:-2] for name in self.languages))
                raise InputError(f"this Whisper model has no language {language!r}: use one of {known}")
        spoken = [int(self.languages[f"<|{language}|>"]) for language in languages]
        return [self.start, *spoken, self.task(task), self.no_timestamps]


def control_tokens(family: WhisperFamily, search: SearchConfig) -> list[int]:
    """Start of the transcript, languages, task, and that there are no timestamps.

    Raises:
        InputError: the model has no such language or task.
    """
    if not search.controls():
        return family.prompt
    return family.prompt_for(search.languages or [family.language or ""], search.task)


def _check(search: SearchConfig, beams: int) -> None:
    check_n_best(search, beams)
    if search.sample and 1 < beams < search.n_best:
        raise InputError(
            f"decoding.search.n_best is {search.n_best} and decoding.beams {beams}: set beams to 1, or more"
        )


def teacher_forced(
    family: WhisperFamily,
    hidden: torch.Tensor,
    tokens: torch.Tensor,
    given: int,
    start: int,
    kept: int,
    config: Any,
) -> tuple[list[list[float]], list[float]]:
    """Log-probability of every token behind the ``given`` ones, and of silence, computed anew from the tokens.

    Args:
        hidden: what the encoder made, (clips, positions, width).
        tokens: (clips x kept, length), the given ones included.
        start: where the start-of-transcript is.
        config: its suppressed tokens have no probability.

    Returns:
        One list for each row of ``tokens``, and one probability of ``<|nospeech|>`` for each clip.

    Raises:
        ValueError: the rows of ``tokens`` are not ``kept`` for each clip.
    """
    if len(tokens) != kept * len(hidden):
        raise ValueError(f"{len(tokens)} hypotheses are not {kept} for each of {len(hidden)} clips")
    model: Any = family.model
    silent = family.first_timestamp - 2
    rows: list[list[float]] = []
    silence: list[float] = []
    clips = max(1, _LOGITS_PER_CHUNK // (kept * tokens.shape[1] * int(family.config.vocab_size)))
    for first in range(0, len(hidden), clips):
        part = tokens[first * kept : (first + clips) * kept]
        states = hidden[first : first + clips].repeat_interleave(kept, dim=0)
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=part[:, :-1]
        ).logits.float()
        silence += logits[::kept, start].softmax(-1)[:, silent].tolist()
        logits = logits[:, given - 1 :]
        logits[..., family.first_timestamp :] = -torch.inf
        logits[..., config.suppress_tokens or []] = -torch.inf
        logits[:, 0, config.begin_suppress_tokens or []] = -torch.inf
        rows += logits.log_softmax(-1).gather(-1, part[:, given:, None]).squeeze(-1).tolist()
    return rows, silence
