"""What a batch carries beside the model's own inputs: a second view of every clip, and labels of another column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from speechtune.audio.mel import HOP_SAMPLES
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.family import Example, Family
from speechtune.models.observe import IGNORED

if TYPE_CHECKING:
    from speechtune.corpus.table import Utterance
    from speechtune.training.config import TrainingConfig
    from speechtune.training.data import Pick, TrainingSet

VIEW = "aside.view."
LABELS = "aside.labels"
SECOND_VIEW = 1 << 40
"""Added to a place in an epoch's draw, so that the second view of a clip gets draws of its own."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Twofold(Example):
    """An example with its second view, or with the labels of another column (empty: it has none)."""

    second: Example | None = None
    other: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Asides:
    """What is added to the examples of a training set.

    ``views``: a second view of every clip, changed by `training.augment` with other draws. ``column``: whose texts
    become labels of ``family.second``.
    """

    family: Any
    views: bool = False
    column: str | None = None

    def beside(self, example: Example, data: TrainingSet, pick: Pick) -> Twofold:
        """The example with what goes beside it."""
        plain = {one.name: getattr(example, one.name) for one in fields(Example)}
        second = self._second(example, data, pick) if self.views else None
        return Twofold(**plain, second=second, other=self._other(data, pick) if self.column else None)

    def _second(self, example: Example, data: TrainingSet, pick: Pick) -> Example:
        def read(index: int, epoch: int, place: int, speed: float) -> Any:
            return data.waveform(index, epoch, place + SECOND_VIEW, speed)

        if data.format is not None:
            waveform, _ = data.format.audio(pick, read)
        else:
            waveform = read(pick.index, pick.epoch, pick.place, pick.speed)
        masks = example.masks
        if data.masks is not None:
            frames = max(1, len(waveform) // HOP_SAMPLES)
            utterance = data.utterances[pick.index]
            masks = data.masks(utterance, pick.epoch, pick.place + SECOND_VIEW, frames, self.family.mel_bins)
        if self.family.name == "ctc" and len(waveform) != len(example.waveform):
            raise InputError(
                "objectives.consistency.waveforms compares two waveforms frame by frame and training.augment changes "
                "their length: leave out effects that do"
            )
        return replace(example, waveform=waveform, masks=masks)

    def _other(self, data: TrainingSet, pick: Pick) -> list[int]:
        assert self.column is not None
        texts = [] if pick.empty_s > 0 else [text_of(data.utterances[one], self.column) for one in pick.indices]
        return list(self.family.second.encode(" ".join(texts))) if texts and all(texts) else []


def text_of(utterance: Utterance, column: str) -> str:
    """The text in a column, empty where there is none."""
    value = utterance.column(column)
    return "" if value is None else " ".join(str(value).split())


def asides_for(training: TrainingConfig, utterances: Sequence[Utterance], family: Family) -> Asides | None:
    """What the objectives of a training want beside its examples; ``None``: nothing.

    Raises:
        InputError: no utterance has a text in the column, or nothing changes the waveforms of two views.
    """
    config = training.objectives
    views = config.consistency.enabled and config.consistency.waveforms
    if views and not (training.augment.enabled or training.augment_by.values):
        raise InputError(
            "objectives.consistency.waveforms compares two changed waveforms and training.augment changes none: give "
            "it a preset or effects"
        )
    column = config.second_ctc.column if config.second_ctc.enabled else None
    if column is not None:
        known = sum(bool(text_of(one, column)) for one in utterances)
        if not known:
            raise InputError(
                f"objectives.second_ctc.column: no training utterance has a text in {column!r}: use another column"
            )
        if known < len(utterances):
            note(
                f"{len(utterances) - known} of {len(utterances)} training utterances have no {column}: the second "
                "head does not learn from them"
            )
    return Asides(family, views, column) if views or column else None


def collate(family: Family, examples: Sequence[Example], n_frames: int) -> Batch:
    """A batch with what its examples have beside them; both views are padded to the same length."""
    seconds = [one.second for one in examples if isinstance(one, Twofold) and one.second is not None]
    batch = family.collate([*examples, *seconds], n_frames)
    if seconds:
        count = len(examples)
        batch |= {VIEW + name: value[count:] for name, value in batch.items()}
        batch |= {name: value[:count] for name, value in batch.items() if not name.startswith(VIEW)}
    others = [one.other for one in examples if isinstance(one, Twofold) and one.other is not None]
    if others:
        labels = torch.full((len(others), max(1, *(len(one) for one in others))), IGNORED)
        for row, one in enumerate(others):
            labels[row, : len(one)] = torch.tensor(one, dtype=torch.long)
        batch[LABELS] = labels
    return batch


def apart(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], torch.Tensor | None]:
    """A batch as the model's inputs, those of the second view (empty: there is none), and the other labels."""
    own = {name: value for name, value in inputs.items() if not name.startswith("aside.")}
    view = {name.removeprefix(VIEW): value for name, value in inputs.items() if name.startswith(VIEW)}
    return own, view, inputs.get(LABELS)
