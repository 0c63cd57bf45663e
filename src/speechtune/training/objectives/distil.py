"""Distillation: a teacher's distribution at the label positions, and its hidden states."""

from __future__ import annotations

import torch

from speechtune.core.errors import InputError
from speechtune.models.family import Family
from speechtune.models.observe import Needs, spaced, taps_of
from speechtune.training.objectives.acft import hidden_distance
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import DistilConfig
from speechtune.training.objectives.frozen import Frozen, widened
from speechtune.training.objectives.kl import Divergence

PROBE = "Twenty-one foxes, 42 dogs and one naïve café."
"""A text whose tokens tell tokenizers apart."""


class HiddenMatch:
    """Hidden states of the student against those of as many, evenly spaced, layers of the teacher.

    The last states (after the final LayerNorm) face each other; the rule for the others is that of
    `speechtune.models.observe.spaced`, by which `speechtune models shrink` also chooses layers.
    """

    name = "distil_hidden"
    scope: Scope = "labels"
    views = 1

    def __init__(self, config: DistilConfig, teacher: Frozen) -> None:
        self.config = config
        self.teacher = teacher
        self.needs = Needs(parts=frozenset(config.hidden_parts))

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.hidden.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The distance, summed over the parts."""
        other = step.observe(self.teacher, self.needs, self.config.context)
        terms = []
        for part in self.config.hidden_parts:
            own, all_states = step.hidden(step.seen, part), step.hidden(other, part)
            chosen = [all_states[place] for place in spaced(len(all_states), len(own))]
            terms.append(hidden_distance(own, chosen, step.hidden_weights(part)))
        return torch.stack(terms).sum()


def check_teacher(student: Family, teacher: Family, config: DistilConfig) -> None:
    """A teacher whose tokens, features and (for hidden states) widths are the student's.

    Raises:
        InputError: they are not.
    """
    name = f"the teacher {config.teacher}"
    if student.mel_bins != teacher.mel_bins:
        raise InputError(f"{name} takes {teacher.mel_bins} mel bins and the student {student.mel_bins}: choose another")
    if teacher.tokens(PROBE) != student.tokens(PROBE) or _vocabulary(teacher) != _vocabulary(student):
        raise InputError(
            f"{name} has other tokens or another prompt than the student: choose one with the same tokenizer (an .en "
            "model for an .en model) or train on its texts (speechtune label)"
        )
    own, other = taps_of(student, "objectives.distil"), taps_of(teacher, "being a teacher")
    if own.framewise != other.framewise:
        raise InputError(
            f"{name} gives its logits by {'frame' if other.framewise else 'token'} and the student does not"
        )
    if config.context == "full" and other.widen is None:
        widened(other, teacher, {})
    if not config.hidden.enabled:
        return
    for part in config.hidden_parts:
        if part not in own.blocks or part not in other.blocks:
            raise InputError(f"student and teacher do not both have a {part}: change objectives.distil.hidden_parts")
        widths = [int(next(taps.last[part].parameters()).shape[0]) for taps in (own, other)]
        if widths[0] != widths[1]:
            raise InputError(
                f"{name} has a {part} of width {widths[1]} and the student one of {widths[0]}: hidden states match "
                "only at equal widths (speechtune models shrink keeps them); set objectives.distil.hidden.weight=0"
            )
        if len(own.blocks[part]) > len(other.blocks[part]):
            raise InputError(f"{name} has fewer {part} layers than the student: set objectives.distil.hidden.weight=0")


def _vocabulary(family: Family) -> int:
    return int(getattr(family.model.config, "vocab_size", 0))


def build(setup: Setup) -> list[Objective]:
    """The terms that have a weight, with one teacher for both.

    Raises:
        InputError: the teacher cannot be loaded or does not fit the student.
    """
    from speechtune.decoding.sources import open_model

    config = setup.config.distil
    assert config.teacher is not None
    teacher = open_model(config.teacher, language=setup.family.language).family
    check_teacher(setup.family, teacher, config)
    frozen = Frozen(teacher)
    terms: list[Objective] = []
    if config.kl.enabled:
        terms.append(Divergence("distil_kl", config.kl, frozen, config.context))
    if config.hidden.enabled:
        terms.append(HiddenMatch(config, frozen))
    return terms
