"""Proofs before the first step, on the real recipe and the real data, in seconds.

Most wrong fine-tunes train without complaint: a doubled start token, a prompt in the loss, a loss
multiplied by the accumulation steps, an adapter that reaches nothing. Each is checked here and
stops the run with one sentence.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechtune.core.errors import InputError
from speechtune.core.provenance import available_bytes
from speechtune.models.adapters import count_parameters
from speechtune.models.family import Example, Family
from speechtune.training.batch_finder import elements_of
from speechtune.training.data import BucketSampler, Collator, Pick, TrainingSet
from speechtune.training.precision import check_master_weights
from speechtune.training.preflight_checks import (
    PreflightError,
    check_audio,
    check_blank,
    check_generation,
    check_loss_by_hand,
    check_optimiser,
    check_reach,
    rates_note,
    token_problem,
)
from speechtune.training.trainer import SpeechTrainer

SAMPLE = 4
"""Utterances that go through the model; labels are checked on more."""

LABELS_CHECKED = 500
MEMORY_RESERVE = 1.25
"""Factor on the estimated memory for what is not counted (fragmentation, temporaries); a guess."""


@dataclass(slots=True)
class Preflight:
    """What was proven, with the numbers."""

    checks: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return asdict(self)


def preflight(trainer: SpeechTrainer, run: Path) -> Preflight:
    """Run every check on what the trainer holds; model, gradients and random state are left as they were.

    Raises:
        PreflightError: labels, masks, gradients or the loss are wrong.
        InputError: memory or disk will not suffice.
    """
    start_s = time.monotonic()
    result = Preflight()
    model, data, sampler = trainer.model, trainer.data, trainer.sampler
    assert isinstance(model, torch.nn.Module)
    with _as_it_was(model):
        if trainer.plan is not None:
            result.checks["parameters"] = trainer.plan.summary()
        precision = "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32"
        result.checks["precision"] = check_master_weights(model, precision)
        result.checks["disk"] = check_disk(model, run, trainer.keep_newest)
        _add(result, "rates", rates_note(trainer.plan, model is not data.family.model))
        result.checks["labels"] = check_labels(data)
        _add(result, "blank", check_blank(data.family))
        shortest = np.argsort(sampler.durations_s, kind="stable")[:SAMPLE]
        window_s = float(max(sampler.durations_s[index] for index in shortest))
        picks = [Pick(int(index), window_s) for index in shortest]
        if data.format is not None:
            from speechtune.training.format_check import check_format, sample_picks

            result.checks["format"] = check_format(data, sampler)
            picks = sample_picks(sampler, SAMPLE)
        items = [data[pick] for pick in picks]
        result.checks["audio"] = check_audio(items, [data.utterances[pick.index].utterance_id for pick in picks])
        with _deterministic(model):
            result.checks["reach"] = check_reach(trainer, items)
        result.checks["memory"] = check_memory(trainer, data, sampler)
        with _deterministic(model):
            _add(result, "by hand", check_loss_by_hand(trainer, items))
            result.checks["loss"] = check_split_invariance(trainer, items)
            result.checks["gradients"] = check_gradients(model)
        _add(result, "optimiser", check_optimiser(trainer))
        _add(result, "decoding", check_generation(trainer, items))
    result.seconds = round(time.monotonic() - start_s, 2)
    return result


def _add(result: Preflight, name: str, found: str | None) -> None:
    """Record a check that not every family or training has."""
    if found is not None:
        result.checks[name] = found


def check_labels(data: TrainingSet) -> str:
    """Labels decode back to the text; prompt and padding are masked; the start token stands once.

    Raises:
        PreflightError: the first utterance for which one of these is not so.
    """
    family = data.family
    indices = np.unique(np.linspace(0, len(data) - 1, min(LABELS_CHECKED, len(data))).astype(int))
    silence = np.zeros(1600, dtype=np.float32)
    for start in range(0, len(indices), 16):
        part = [data.utterances[index] for index in indices[start : start + 16]]
        encoded = [family.tokens(data.label_text(utterance)) for utterance in part]
        batch = family.collate([Example(silence, *tokens) for tokens in encoded], family.context_frames(0.1))
        for row, utterance in enumerate(part):
            problem = _label_problem(family, batch, row, data.label_text(utterance), *encoded[row])
            if problem:
                raise PreflightError(f"preflight: the label of utterance {utterance.utterance_id} is wrong: {problem}")
    return f"{len(indices)} labels decode back to their texts; prompt and padding are masked"


def _label_problem(
    family: Family, batch: dict[str, torch.Tensor], row: int, text: str, tokens: list[int], prompt_tokens: int
) -> str | None:
    labels = batch["labels"][row].tolist()
    counted = [position for position, label in enumerate(labels) if label != -100]
    targets = [labels[position] for position in counted]
    problem = token_problem(family, tokens, prompt_tokens)
    if problem:
        return problem
    if targets != tokens[prompt_tokens:]:
        return "the positions that are learnt are not exactly the text and its end token"
    if " ".join(family.text(targets).split()) != " ".join(family.written(text).split()):
        return f"it decodes to {family.text(targets)!r}, not to {text!r}; is the text in Unicode NFC?"
    inputs = batch.get("decoder_input_ids")
    if inputs is not None:
        if inputs[row].tolist().count(tokens[0]) != 1:
            return "the start token does not stand exactly once in the decoder's input"
        if inputs[row, : len(tokens) - 1].tolist() != tokens[:-1]:
            return "the decoder's input is not the label shifted by one"
        if counted != list(range(prompt_tokens - 1, len(tokens) - 1)):
            return "the mask does not end where the prompt ends"
    return None


def check_split_invariance(trainer: SpeechTrainer, items: list[Any]) -> str:
    """One batch, and the same utterances one at a time, give the same loss and gradient norm.

    It goes through the Trainer's own step, so the accumulation scaling is the one that will be used.

    Raises:
        PreflightError: they differ by more than 1 % (bf16 and fp16) or 0.1 % (fp32).
    """
    collate = Collator(trainer.data.family, asides=trainer.data.asides is not None)
    whole, norm_whole = _accumulated_step(trainer, [collate(items)])
    parts, norm_parts = _accumulated_step(trainer, [collate([item]) for item in items])
    tolerance = 1e-3 if not (trainer.args.bf16 or trainer.args.fp16) else 1e-2
    for name, one, other in (("loss", whole, parts), ("gradient norm", norm_whole, norm_parts)):
        if not np.isfinite(one) or abs(one - other) > tolerance * abs(one):
            raise PreflightError(
                f"preflight: the {name} changes with the batch split ({one:.5g} in one batch, {other:.5g} in "
                f"{len(items)} parts): gradient accumulation would train something else"
            )
    return f"loss {whole:.4f} and gradient norm {norm_whole:.4f}, the same in 1 batch and in {len(items)} parts"


def _accumulated_step(trainer: SpeechTrainer, batches: list[dict[str, torch.Tensor]]) -> tuple[float, float]:
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    model.zero_grad(set_to_none=True)
    trainer.current_gradient_accumulation_steps = len(batches)
    items = trainer._get_num_items_in_batch(batches, trainer.args.device)
    loss = sum(float(trainer.training_step(model, batch, items)) for batch in batches)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads) if grads else torch.tensor(0.0)
    return loss, float(norm)


def check_gradients(model: torch.nn.Module) -> str:
    """After a backward pass every trainable parameter has a finite gradient that is not all zero, no frozen one has.

    LoRA's A matrices are exempt from "not all zero": their partner B starts at zero; so are both of AdaLoRA's, whose E
    does, and the layers into a bottleneck.

    Raises:
        PreflightError: naming the first parameter for which it is not so.
    """
    from speechtune.models.bottleneck import WiderIn

    names = dict(model.named_parameters()).keys()
    silent = {id(one) for module in model.modules() if isinstance(module, WiderIn) for one in module.of_adapter()}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            if parameter.grad is not None:
                raise PreflightError(f"preflight: the frozen parameter {name} receives a gradient")
            continue
        if parameter.grad is None or not bool(parameter.grad.isfinite().all()):
            raise PreflightError(f"preflight: the trainable parameter {name} receives no finite gradient")
        waits = "lora_A" in name or (".lora_B." in name and name.replace(".lora_B.", ".lora_E.") in names)
        waits = waits or id(parameter) in silent
        if not waits and not bool(parameter.grad.any()):
            raise PreflightError(f"preflight: the gradient of {name} is zero everywhere: it would not be trained")
    trainable, total = count_parameters(model)
    if not trainable:
        raise PreflightError("preflight: no parameter is trainable: check model.train and adapter.targets")
    return f"all of {trainable:,} trainable parameters (of {total:,}) receive gradient, no frozen one does"


def check_memory(trainer: SpeechTrainer, data: TrainingSet, sampler: BucketSampler) -> str:
    """The largest planned micro-batch fits, judged by the tensors one utterance keeps for its backward pass.

    Where it does not and a smaller one does, micro-batches begin at the size that does.

    Raises:
        InputError: the estimate for a single utterance exceeds the memory that is free.
    """
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    size, context_s = max(
        (
            (len(batch), max(pick.context_s for pick in batch))
            for epoch in sorted({0, sampler.epochs - 1})  # a curriculum begins with the short ones
            for batch in sampler.plan(epoch)
        ),
        key=lambda b: b[0] * b[1],
    )
    pick = Pick(int(np.argmax(sampler.durations_s <= context_s)), context_s)
    if data.format is not None:
        from speechtune.training.format_check import fullest_pick

        pick = fullest_pick(sampler, context_s)
    one = Collator(data.family)([data[pick]])
    kept_bytes = _kept_for_backward(trainer, one)
    model.zero_grad(set_to_none=True)
    trainable, _ = count_parameters(model)
    state_bytes = trainer.plan.state_bytes if trainer.plan is not None else trainable * 4 * 2
    needed = MEMORY_RESERVE * (kept_bytes * size + trainable * 4 + state_bytes)
    free = _free_memory(trainer.args.device)
    fitting = int((free / MEMORY_RESERVE - trainable * 4 - state_bytes) // kept_bytes)
    if needed > free and fitting >= 1 and not trainer.args.fsdp:
        trainer.finder.start_with(fitting, size, fitting * elements_of(one))
        return (
            f"{free / 2**30:.1f} GiB are free and the largest batch ({size} utterances at {context_s:.1f} s) needs "
            f"about {needed / 2**30:.1f}: micro-batches are cut to {fitting} such utterances, the optimiser step stays "
            "the same"
        )
    if needed > free:
        raise InputError(
            f"the largest batch ({size} utterances at {context_s:.1f} s) needs about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free: lower training.batch.utterances or training.batch.seconds and raise "
            "training.batch.accumulate"
        )
    return f"about {needed / 2**30:.1f} GiB needed for {size} utterances at {context_s:.1f} s, {free / 2**30:.1f} free"


def _kept_for_backward(trainer: SpeechTrainer, batch: dict[str, torch.Tensor]) -> int:
    sizes: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in trainer.model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = trainer._prepare_inputs(batch)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, inputs)
    return sum(sizes.values())


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(available_bytes())


def check_disk(model: torch.nn.Module, run: Path, keep_newest: int) -> str:
    """Checkpoints (weights and two Adam moments) and the final model fit on the disk.

    Raises:
        InputError: they do not.
    """
    import shutil

    trainable, total = count_parameters(model)
    stored = trainable if trainable < total // 2 else total
    needed = (keep_newest + 2) * 4 * (stored + 2 * trainable) + 2 * 4 * total
    free = shutil.disk_usage(run).free
    if needed > free:
        raise InputError(
            f"the run needs about {needed / 2**30:.1f} GiB in {run} and {free / 2**30:.1f} GiB are free: free some "
            "space or choose another --out"
        )
    return f"about {needed / 2**30:.1f} GiB needed at most, {free / 2**30:.1f} free"


@contextmanager
def _as_it_was(model: torch.nn.Module) -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def _deterministic(model: torch.nn.Module) -> Iterator[None]:
    """No dropout, no layer drop, no SpecAugment: what is left must not depend on the batch split."""
    names = ("p", "dropout", "attention_dropout", "activation_dropout", "dropout_positions", "layerdrop")
    changed: list[tuple[Any, str, Any]] = []
    for module in model.modules():
        for name in names:
            value = module.__dict__.get(name)
            if isinstance(value, float) and value > 0:
                changed.append((module, name, value))
                setattr(module, name, 0.0)
    config: Any = model.config
    if getattr(config, "apply_spec_augment", False):
        changed.append((config, "apply_spec_augment", True))
        config.apply_spec_augment = False
    if getattr(config, "layerdrop", 0):
        changed.append((config, "layerdrop", config.layerdrop))
        config.layerdrop = 0.0
    try:
        yield
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)
