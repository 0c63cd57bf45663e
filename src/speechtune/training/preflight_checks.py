"""Further proofs before the first step: what reaches the model, what its loss is, what the optimiser holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from speechtune.core.errors import SpeechtuneError
from speechtune.models.family import Example, Family
from speechtune.training.data import Collator

if TYPE_CHECKING:
    from speechtune.training.parameter_groups import ParameterPlan
    from speechtune.training.trainer import SpeechTrainer

Item = tuple[Example, float]

SCRATCH_RATE = 1e-4
"""Fine-tuning stays below; training from scratch begins here (notebook part 2, T8: 1e-5 to 5e-5, at most 1e-4)."""

GENERATED_TOKENS = 4


class PreflightError(SpeechtuneError):
    """A proof failed: training would not learn what the recipe says. Exit code 1."""


def check_reach(trainer: SpeechTrainer, items: Sequence[Item]) -> str:
    """The model takes its batch, something is trained, and that has a say in the loss.

    Raises:
        PreflightError: it does not.
    """
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise PreflightError("preflight: no parameter is trainable: check model.train and adapter.targets")
    batch = Collator(trainer.data.family)(list(items))
    _check_bins(trainer.data.family, batch)
    try:
        loss = _loss(trainer, batch)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise PreflightError(
            f"preflight: the model does not take its own batch ({type(error).__name__}: {reason}): obtain it again "
            "with speechtune models get"
        ) from error
    if not loss.requires_grad:
        raise PreflightError(
            "preflight: what is trained has no say in the loss: an adapter that is switched off, or was put on another "
            "copy of the model"
        )
    noise = np.random.default_rng(0)
    other = [
        (replace(one, waveform=noise.normal(0, 0.1, len(one.waveform)).astype(np.float32)), seconds)
        for one, seconds in items
    ]
    with torch.no_grad():
        apart = abs(float(_loss(trainer, Collator(trainer.data.family)(other))) - float(loss.detach()))
    if apart <= 1e-7 * abs(float(loss.detach())):
        raise PreflightError("preflight: the loss is the same with noise instead of the audio: the audio is not heard")
    return "the audio and what is trained both have a say in the loss"


def _loss(trainer: SpeechTrainer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with trainer.compute_loss_context_manager():
        return trainer.model(**trainer._prepare_inputs(batch)).loss


def _check_bins(family: Family, batch: dict[str, torch.Tensor]) -> None:
    config: Any = family.model.config
    features = batch.get("input_features")
    wanted = getattr(config, "feature_projection_input_dim", None)
    for owner in (config, getattr(config, "audio_config", None), getattr(config, "encoder_config", None)):
        wanted = wanted or getattr(owner, "num_mel_bins", None)
    if features is None or wanted is None or wanted in features.shape[1:]:
        return
    have = features.shape[2] if family.name == "ctc" else features.shape[-2]
    raise PreflightError(
        f"preflight: the features have {have} mel bins and the model takes {wanted}: take the feature extractor of "
        "this checkpoint"
    )


def check_audio(items: Sequence[Item], names: Sequence[str]) -> str:
    """The sampled waveforms are finite, are no digital silence, and are not all the same one.

    Raises:
        PreflightError: naming the first utterance for which it is not so.
    """
    for (one, _), name in zip(items, names, strict=True):
        if not np.isfinite(one.waveform).all():
            raise PreflightError(f"preflight: the audio of utterance {name} holds values that are not numbers")
    spoken = [one.waveform for one, _ in items]
    silent = [name for wave, name in zip(spoken, names, strict=True) if wave.size == 0 or float(np.ptp(wave)) == 0.0]
    if len(silent) > len(spoken) / 2:
        raise PreflightError(
            f"preflight: the audio of {len(silent)} of {len(spoken)} sampled utterances is digital silence (first: "
            f"{silent[0]}): were unreadable files replaced by silence?"
        )
    if len(spoken) > 1 and len({wave.tobytes() for wave in spoken}) == 1:
        raise PreflightError(f"preflight: {len(spoken)} utterances have the very same audio (first: {names[0]})")
    return f"{len(spoken)} waveforms differ and are no digital silence"


def token_problem(family: Family, tokens: Sequence[int], prompt_tokens: int) -> str | None:
    """What is wrong with an encoded label, whatever made it: its end, its prompt, or a blank among its tokens."""
    learnt = list(tokens[prompt_tokens:])
    vocabulary = getattr(family, "vocabulary", None)
    if vocabulary is not None:
        if vocabulary.blank in learnt:
            return "it holds the blank, which stands for no token"
        return None
    ends = set(getattr(family, "ends", ())) or ({family.eot} if hasattr(family, "eot") else set())
    if ends and (not learnt or learnt[-1] not in ends):
        return "its end token is not learnt: the model would not stop"
    if ends and sum(token in ends for token in learnt) != 1:
        return "an end token stands within the text"
    asked = inference_prompt(family)
    if asked is not None and list(tokens[: len(asked)]) != asked:
        return "the prompt is not the one that decoding gives"
    return None


def inference_prompt(family: Family) -> list[int] | None:
    """The tokens that decoding puts before a text, where the family knows them beforehand."""
    known = getattr(family, "prompt", None)
    if isinstance(known, list | tuple):
        return list(known)
    chat = getattr(family, "format", None)
    if known is not None and chat is not None:
        return list(chat.prompt(known, with_tag=True))
    return None


def check_blank(family: Family) -> str | None:
    """A CTC loss uses the vocabulary's blank, and the output layer has as many outputs as there are tokens.

    Raises:
        PreflightError: it does not.
    """
    vocabulary = getattr(family, "vocabulary", None)
    if family.name != "ctc" or vocabulary is None:
        return None
    used = int(family.model.config.pad_token_id)  # type: ignore[arg-type, union-attr]
    if used != vocabulary.blank:
        raise PreflightError(
            f"preflight: the loss takes token {used} for the blank and the vocabulary's is {vocabulary.blank}: the "
            "tokenizer belongs to another model"
        )
    head: Any = family.part("head")
    outputs = int(getattr(head, "out_features", 0) or getattr(head, "out_channels", 0))
    if outputs < len(vocabulary):
        raise PreflightError(
            f"preflight: the output layer has {outputs} outputs for {len(vocabulary)} tokens: set model.ctc.head=new"
        )
    return f"the blank is token {used} for loss and vocabulary"


def check_loss_by_hand(trainer: SpeechTrainer, items: Sequence[Item]) -> str | None:
    """The loss of a batch is the sum over its clips, each alone, of its own tokens' loss from the plain logits.

    For CTC and cross-entropy. It knows the label's tokens, not the batch's labels: a second shift, a learnt prompt or
    another blank shows.

    Raises:
        PreflightError: they differ by more than 1 % (bf16 and fp16) or 0.1 % (fp32).
    """
    family, model = trainer.data.family, trainer.model
    known = family.name == "ctc" or "cross-entropy" in getattr(getattr(family, "capabilities", None), "loss", "")
    if not known or trainer.args.fsdp or any(one.targets is not None for one, _ in items):
        return None
    assert isinstance(model, torch.nn.Module)
    within: Any = getattr(model, "get_base_model", None)
    plain: Any = within() if within else model  # AdaLoRA adds its regulariser to the loss
    collate = Collator(family)
    counted = sum(len(one.tokens) - one.prompt_tokens for one, _ in items)
    with _evaluating(model), torch.no_grad(), trainer.compute_loss_context_manager():
        whole = trainer._prepare_inputs(collate(list(items)))
        loss = float(plain(**whole, num_items_in_batch=torch.tensor(counted, device=trainer.args.device)).loss)
        total = 0.0
        for one, seconds in items:
            if hasattr(family, "loss_alone"):
                total += family.loss_alone(one)
                continue
            batch = trainer._prepare_inputs(collate([(one, seconds)]))
            logits = plain(**{name: value for name, value in batch.items() if name != "labels"}).logits[0].float()
            total += _loss_of(family, logits, one)
    expected = total / counted
    tolerance = 1e-2 if trainer.args.bf16 or trainer.args.fp16 else 1e-3
    if not np.isfinite(loss) or abs(loss - expected) > tolerance * max(abs(expected), 1e-3):
        raise PreflightError(
            f"preflight: the model's loss is {loss:.5g} and {expected:.5g} is computed from its logits and the labels' "
            "tokens: labels that are shifted twice, another blank, or a loss over other positions"
        )
    return f"the loss is that of each clip alone from its logits ({expected:.4f})"


def _loss_of(family: Family, logits: torch.Tensor, example: Example) -> float:
    target = torch.tensor(example.tokens[example.prompt_tokens :], device=logits.device)
    if family.name == "ctc":
        vocabulary = family.vocabulary  # type: ignore[attr-defined]
        frames = family.logit_frames(len(example.waveform))  # type: ignore[attr-defined]
        values = logits[:frames].log_softmax(-1)[:, None]
        lengths = torch.tensor([len(values)]), torch.tensor([len(target)])
        return float(functional.ctc_loss(values, target[None], *lengths, blank=vocabulary.blank, reduction="sum"))
    return float(functional.cross_entropy(logits[-len(target) :], target, reduction="sum"))


def check_optimiser(trainer: SpeechTrainer) -> str | None:
    """The optimiser holds every trainable weight once, with a rate above 0; it is made and let go.

    Raises:
        PreflightError: naming the first weight for which it is not so.
    """
    if trainer.args.fsdp or trainer.optimizer is not None:
        return None
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    groups = trainer.create_optimizer().param_groups
    trainer.optimizer = None
    held: dict[int, float] = {}
    for group in groups:
        for parameter in group["params"]:
            if id(parameter) in held:
                raise PreflightError("preflight: the optimiser holds a weight twice: it would take two steps at once")
            held[id(parameter)] = float(group["lr"])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not held.get(id(parameter), 0.0) > 0:
            why = "at a rate of 0" if id(parameter) in held else "not at all"
            raise PreflightError(f"preflight: the optimiser holds the trainable weight {name} {why}: it would not move")
    return f"the optimiser holds all {len(held)} trained tensors"


def check_generation(trainer: SpeechTrainer, items: Sequence[Item]) -> str | None:
    """Two clips are decoded for a few tokens, the way evaluation does it.

    Raises:
        PreflightError: decoding fails, or its scores are not numbers.
    """
    if trainer.args.fsdp or trainer.gather is not None:
        return None
    family = trainer.data.family
    chosen = list(items[:2])
    frames = family.context_frames(max(seconds for _, seconds in chosen))
    with _evaluating(family.model):
        try:
            found = family.generate([one.waveform for one, _ in chosen], frames, GENERATED_TOKENS)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise PreflightError(
                f"preflight: the model trains and does not decode ({type(error).__name__}: {reason}): every evaluation "
                "would fail or show 100 % errors"
            ) from error
    if not all(np.isfinite(one.log_prob) for one in found):
        raise PreflightError("preflight: decoding gives scores that are not numbers: every evaluation would be wrong")
    return f"{len(found)} clips are decoded"


def rates_note(plan: ParameterPlan | None, adapted: bool) -> str | None:
    """A warning where pre-trained layers are trained at a rate for training from scratch."""
    if plan is None or adapted:
        return None
    high = [
        (row.part, rate)
        for row in plan.rows
        for rate in row.rates
        if row.trained and "head" not in row.part and rate > SCRATCH_RATE
    ]
    if not high:
        return None
    part, rate = max(high, key=lambda one: one[1])
    return (
        f"warning: {part} is trained at {rate:g}, a rate for training from scratch (fine-tuning: 1e-5 to "
        f"{SCRATCH_RATE:g}); what it knows may be lost"
    )


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
