"""Proofs on the labels of a training format, before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from speechtune.models.family import Example
from speechtune.models.whisper_format import IGNORED, TIME_STEP_S, LabelText, WhisperFormat
from speechtune.training.data import BucketSampler, Pick, TrainingSet
from speechtune.training.formatting import TrainingFormat
from speechtune.training.preflight import PreflightError

CHECKED = 500
SILENCE = np.zeros(1600, dtype=np.float32)


def sample_picks(sampler: BucketSampler, count: int) -> list[Pick]:
    """Examples of the first epoch, the shortest of each kind first (alone, together, without speech)."""
    kinds: dict[tuple[bool, bool], list[Pick]] = {}
    for pick in sorted((pick for batch in sampler.plan(0) for pick in batch), key=lambda pick: pick.context_s):
        kinds.setdefault((bool(pick.parts), pick.empty_s > 0), []).append(pick)
    chosen: list[Pick] = []
    while kinds and len(chosen) < count:
        for kind in list(kinds):
            chosen.append(kinds[kind].pop(0))
            if not kinds[kind]:
                del kinds[kind]
    chosen = chosen[:count]
    context_s = max(pick.context_s for pick in chosen)
    return [replace(pick, context_s=context_s) for pick in chosen]


def fullest_pick(sampler: BucketSampler, context_s: float) -> Pick:
    """Of the examples of the first epoch within a context, the one with most clips, at that context."""
    within = [pick for batch in sampler.plan(0) for pick in batch if pick.context_s <= context_s]
    return replace(max(within, key=lambda pick: len(pick.parts)), context_s=context_s)


def check_format(data: TrainingSet, sampler: BucketSampler) -> str:
    """What stands in the batches of the first epoch reads back as what was said, and only that is learnt.

    Raises:
        PreflightError: the first example for which it is not so.
    """
    wanted = data.format
    assert wanted is not None
    picks = [pick for batch in sampler.plan(0) for pick in batch]
    chosen = [picks[place] for place in np.unique(np.linspace(0, len(picks) - 1, min(CHECKED, len(picks))).astype(int))]
    seen = {"with times": 0, "with previous text": 0, "without speech": 0}
    for start in range(0, len(chosen), 16):
        part = chosen[start : start + 16]
        spans = [wanted.planned_spans(pick, sampler.durations_s.tolist()) for pick in part]
        examples = [wanted.example(pick, SILENCE, span) for pick, span in zip(part, spans, strict=True)]
        batch = data.family.collate(examples, data.family.context_frames(0.1))
        for row, (pick, example, span) in enumerate(zip(part, examples, spans, strict=True)):
            label = wanted.label(pick, span)
            if wanted.writer is not None:
                problem = label_problem(wanted, label, example, batch, row, seen)
                if problem:
                    name = data.utterances[pick.index].utterance_id
                    raise PreflightError(f"preflight: the label of utterance {name} in its format is wrong: {problem}")
    clips = sum(len(pick.indices) for pick in picks if pick.empty_s == 0)
    shares = ", ".join(f"{100 * count / len(chosen):.0f} % {name}" for name, count in seen.items() if count)
    amount = f"{clips} clips in {len(picks)} examples an epoch"
    return f"{len(chosen)} labels in the recipe's format read back ({shares or 'plain'}); {amount}"


def label_problem(
    wanted: TrainingFormat, label: LabelText, example: Example, batch: dict[str, Any], row: int, seen: dict[str, int]
) -> str | None:
    """What is wrong with a row of a batch, read without the code that wrote it; ``seen`` is added to."""
    writer = wanted.writer
    assert writer is not None
    size = len(example.tokens) - 1
    inputs, targets = batch["decoder_input_ids"][row, :size].tolist(), batch["labels"][row].tolist()
    start_token = writer.prompt_of(label.language, label.task)[0]
    if size > writer.max_tokens:
        return f"it has {size} tokens and the model takes {writer.max_tokens}"
    if inputs.count(start_token) != 1:
        return "the start token does not stand exactly once in the decoder's input"
    start = inputs.index(start_token)
    if start and inputs[0] != writer.start_of_previous:
        return "what stands before the start token is not marked as previous text"
    head = [*writer.prompt_of(label.language, label.task)]
    length = len(head) if inputs[start : start + len(head)] == head else len(head) - 1
    if inputs[start : start + length] != head[:length]:
        return "the tokens of language and task are not those of the utterance"
    learnt = targets[start + length - 1 : size]
    if any(target != IGNORED for target in targets[:start] + targets[start + 1 : start + length - 1] + targets[size:]):
        return "previous text, prompt or padding is learnt"
    spoken = bool(label.text.strip())
    if not spoken and targets[start] != writer.no_speech:
        return "nobody speaks and the no-speech token is not learnt"
    if not spoken and length == 1:  # English-only with times: one position says both
        learnt = learnt[1:]
    if spoken and targets[start] == writer.no_speech:
        return "the no-speech token is learnt for a text"
    times = [token - writer.first_timestamp for token in learnt if token >= writer.first_timestamp]
    text = [token for token in learnt if token < writer.first_timestamp and token != writer.no_speech]
    if not learnt or learnt[-1] != writer.eot or text.count(writer.eot) != 1:
        return "its end token is not learnt exactly once, at the end"
    if " ".join(wanted.family.text(text).split()) != " ".join(label.text.split()):
        return f"it reads {wanted.family.text(text)!r}, not {label.text!r}; is the text in Unicode NFC?"
    seen["with times"] += bool(times) or (not spoken and length < len(head))
    seen["with previous text"] += start > 0
    seen["without speech"] += not spoken
    return _time_problem(times, label, writer) if spoken and times else None


def _time_problem(times: Sequence[int], label: LabelText, writer: WhisperFormat) -> str | None:
    spoken = [segment for segment in label.segments if segment.text.strip()]
    expected = [second for segment in spoken for second in (segment.start_s, segment.end_s)]
    if len(times) != len(expected):
        return f"it has {len(times)} times for {len(spoken)} segments"
    if list(times) != sorted(times) or times[-1] > writer.last_step:
        return "its times go back or beyond the window"
    apart = max(abs(step * TIME_STEP_S - second) for step, second in zip(times, expected, strict=True))
    return f"a time is {apart:.2f} s from its boundary" if apart > 1.5 * TIME_STEP_S else None
