"""Samples that serve several optimiser steps, kept in checkpoints so that a resumed run goes on with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.training.objectives.grpo import GroupPolicy

FILE = "grpo_samples.pt"


class KeepSamples(TrainerCallback):
    """Writes a term's samples beside each checkpoint's other files and reads them where a run continues."""

    def __init__(self, term: GroupPolicy) -> None:
        self.term = term

    def keep(self, folder: Path) -> None:
        """Write them; called while a checkpoint is made."""
        if self.term.groups:
            torch.save(self.term.state(), folder / FILE)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin without samples, or with those of the checkpoint that was loaded."""
        file = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FILE
        stored = torch.load(file, weights_only=True) if state.global_step and file.is_file() else {}
        self.term.load(stored)
