"""One window of a Whisper model decoded with timestamps, after the text before it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, WhisperTimeStampLogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from speechtune.audio.mel import SAMPLE_RATE_HZ
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.long.sequential import TIME_TOKEN_S
from speechtune.models.family import Hypothesis
from speechtune.models.whisper import WhisperFamily


@torch.inference_mode()
def decode_window(
    family: WhisperFamily,
    waveform: np.ndarray,
    previous: Sequence[int],
    config: DecodingConfig,
    temperature: float = 0.0,
) -> Hypothesis:
    """The best hypothesis of a window, its tokens with timestamps.

    Args:
        waveform: at most the model's window.
        previous: tokens of the text before (timestamps among them); the last of them that fit are used, after those
            of ``decoding.search``'s prompt.
        config: context, beams (at temperature 0), token limit, ``fallback.best_of`` (above 0).
        temperature: 0 searches, above it is sampled.
    """
    device = next(family.model.parameters()).device
    n_frames = family.context_frames(len(waveform) / SAMPLE_RATE_HZ + config.margin_s, config.context)
    features = family.front_end([waveform], n_frames, device=str(device))
    encoded = family.part("encoder")(features)
    hidden = encoded.last_hidden_state.clone()  # generate repeats it, in place, for every beam
    given = _given(family, previous, config)
    start = given.index(int(family.config.decoder_start_token_id))
    limit = min(config.max_new_tokens, family.limits.max_label_tokens - len(given))
    samples = config.fallback.best_of if temperature > 0 else 1
    generation = _generation(family, limit, config, temperature, samples)
    rules = _rules(family, len(given), config.long_form.max_initial_timestamp_s)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=temperature > 0):
        if temperature > 0:
            torch.manual_seed(config.search.seed)
        found: Any = GenerationMixin.generate(
            family.model,
            encoder_outputs=encoded,
            decoder_input_ids=torch.tensor([given], device=device),
            generation_config=generation,
            logits_processor=LogitsProcessorList([rules]),
        )
    log_probs, silence = _scores(family, hidden, found, len(given), start, rules, generation)
    hypotheses = [
        _hypothesis(family, row[len(given) :].tolist(), own, limit, silence)
        for row, own in zip(found, log_probs, strict=True)
    ]
    return max(hypotheses, key=lambda one: one.log_prob)


def _given(family: WhisperFamily, previous: Sequence[int], config: DecodingConfig) -> list[int]:
    """Start of previous text, its last tokens, and the prompt without ``<|notimestamps|>``."""
    from speechtune.models.whisper_search import control_tokens, prompt_tokens

    prompt, start = prompt_tokens(family, config.search.model_copy(update={"prefix": None}))
    fixed = prompt[1:start]
    own = control_tokens(family, config.search)[:-1]
    room = family.limits.max_label_tokens // 2 - 1 - len(fixed)
    tail = list(previous)[-room:] if room > 0 else []
    if not fixed and not tail:
        return own
    return [int(family.tokenizer.convert_tokens_to_ids("<|startofprev|>")), *fixed, *tail, *own]


def _rules(family: WhisperFamily, begin: int, first_s: float) -> WhisperTimeStampLogitsProcessor:
    facts: Any = SimpleNamespace(
        no_timestamps_token_id=family.first_timestamp - 1,
        eos_token_id=family.eot,
        bos_token_id=family.eot,
        max_initial_timestamp_index=round(first_s / TIME_TOKEN_S),
    )
    return WhisperTimeStampLogitsProcessor(facts, begin_index=begin)


def _generation(family: WhisperFamily, limit: int, config: DecodingConfig, temperature: float, samples: int) -> Any:
    search = config.search
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "num_return_sequences": samples}
    beams = {"num_beams": config.beams, "length_penalty": search.length_penalty}
    return GenerationConfig(
        max_new_tokens=limit,
        **(drawn if temperature > 0 else beams),
        repetition_penalty=search.repetition_penalty,
        no_repeat_ngram_size=search.no_repeat_ngram,
        eos_token_id=family.eot,
        pad_token_id=family.eot,
        decoder_start_token_id=family.config.decoder_start_token_id,
        suppress_tokens=sorted({*(family.generation_config.suppress_tokens or []), *search.suppress_tokens}) or None,
        begin_suppress_tokens=family.generation_config.begin_suppress_tokens or None,
    )


def _scores(
    family: WhisperFamily, hidden: torch.Tensor, found: torch.Tensor, given: int, start: int, rules: Any, config: Any
) -> tuple[list[list[float]], float]:
    """Log-probabilities of every row's new tokens among those that the rules allow, and of silence."""
    model: Any = family.model
    rows = len(found)
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden.expand(rows, -1, -1)), decoder_input_ids=found[:, :-1]
    ).logits.float()
    silence = float(logits[0, start].softmax(-1)[family.first_timestamp - 2])
    logits = logits[:, given - 1 :]
    logits[..., config.suppress_tokens or []] = -torch.inf
    logits[:, 0, config.begin_suppress_tokens or []] = -torch.inf
    for step in range(logits.shape[1]):
        logits[:, step] = rules(found[:, : given + step], logits[:, step])
    return logits.log_softmax(-1).gather(-1, found[:, given:, None]).squeeze(-1).tolist(), silence


def _hypothesis(
    family: WhisperFamily, row: list[int], log_probs: list[float], limit: int, silence: float
) -> Hypothesis:
    ended = family.eot in row
    length = row.index(family.eot) if ended else len(row)
    counted = log_probs[: length + ended]
    return Hypothesis(
        text=family.text(row[:length]),
        tokens=row[:length],
        log_prob=sum(counted) / max(length + 1, 1),
        truncated=not ended and length >= limit,
        sum_log_prob=sum(counted),
        no_speech_prob=silence,
    )
