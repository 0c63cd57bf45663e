"""What a recipe draws for the waveforms of an epoch, written down without reading any audio.

A training draws lazily, in whatever process reads an example, from its seed, the epoch and the example alone. So the
draws need not be recorded while it runs: here the same functions are asked the same questions, before or after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_jsonl

if TYPE_CHECKING:
    from speechtune.audio.augment import AugmentDraw, Augmenter
    from speechtune.audio.augment.effects.base import Samples
    from speechtune.training.data import Pick, TrainingSet
    from speechtune.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one waveform: nothing without a ``draw``."""

    augmenter: Augmenter
    draw: AugmentDraw | None

    def __call__(self, waveform: Samples) -> Samples:
        return waveform if self.draw is None else self.augmenter.apply(self.draw, waveform)


@dataclass(slots=True)
class DrawsWritten:
    """What `write_draws` wrote: examples, those of several clips, those without speech, and clips by what they got.

    ``effects`` counts the clips that have each effect.
    """

    out: Path
    examples: int = 0
    clips: int = 0
    changed: int = 0
    joined: int = 0
    empty: int = 0
    effects: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {name: getattr(self, name) for name in ("examples", "clips", "changed", "joined", "empty")}
        return {"out": str(self.out), **counts, "effects": dict(sorted(self.effects.items()))}

    def __str__(self) -> str:
        effects = ", ".join(f"{name} {count}" for name, count in sorted(self.effects.items()))
        return (
            f"{self.out}: {self.examples} examples ({self.joined} of several clips, {self.empty} without speech); "
            f"{self.changed} of {self.clips} clips changed{f' ({effects})' if effects else ''}"
        )


def write_draws(recipe: Recipe, out: Path, epochs: Sequence[int] = (0,), *, overwrite: bool = False) -> DrawsWritten:
    """Write the draws of some epochs as JSON lines, in the order in which a training with one process meets them.

    Each line is an example: ``stage`` (where the recipe has stages), ``epoch``, ``batch``, ``context_s``, and its
    ``clips``: ``utterance_id``, ``place`` (in the epoch's draw, which also holds repetitions), ``speed``, ``gap_s``
    (silence before it) and ``augment``, a draw that `AugmentDraw.from_json` reads and `Augmenter.apply` replays
    (null: nothing is changed). A clip without speech has an ``empty`` draw instead. SpecAugment's masks are not
    among them: they depend on the length of the changed waveform.

    Raises:
        InputError: the file exists, an epoch is negative or the recipe has fewer, or as `train`.
    """
    from speechtune.corpus.reading import load_corpus
    from speechtune.models.family import load_family
    from speechtune.models.obtaining import resolve_model
    from speechtune.training.data import sampler_for
    from speechtune.training.label_texts import prepare_family
    from speechtune.training.pool import training_pool
    from speechtune.training.run import training_set
    from speechtune.training.stages import stages_of

    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: choose another --out or add --overwrite")
    stages = stages_of(recipe, Path("."))
    base = resolve_model(recipe.model.base)
    family = load_family(base, family=recipe.model.family, language=recipe.model.language, device="cpu")
    prepare_family(family, [stage.recipe for stage in stages])
    written = DrawsWritten(out)

    def rows() -> Iterator[dict[str, Any]]:
        for stage in stages:
            one = stage.recipe
            keep_empty = one.training.format.keep_empty
            pool = training_pool(load_corpus(one.data), family, one.data, keep_empty=keep_empty)
            data = training_set(pool, family, one)
            sampler = sampler_for(one.training, data)
            for epoch in epochs:
                if not 0 <= epoch < sampler.epochs:
                    raise InputError(f"there is no epoch {epoch}: the recipe has {sampler.epochs}, counted from 0")
                for number, batch in enumerate(sampler.plan(epoch)):
                    for pick in batch:
                        row = {"stage": stage.name} if stage.name else {}
                        yield row | {"epoch": epoch, "batch": number, **_example(data, pick, written)}

    write_jsonl(out, rows())
    return written


def _example(data: TrainingSet, pick: Pick, written: DrawsWritten) -> dict[str, Any]:
    written.examples += 1
    shown = {"context_s": round(pick.context_s, 4)}
    if pick.empty_s > 0 and data.format is not None:
        written.empty += 1
        return {**shown, "empty": data.format.empty_draw(pick).to_json()}
    clips = [(pick.index, pick.place, pick.speed, 0.0)]
    clips += [(part.index, part.place, part.speed, part.gap_s) for part in pick.parts]
    written.joined += len(clips) > 1
    return {**shown, "clips": [_clip(data, pick.epoch, *clip, written) for clip in clips]}


def _clip(
    data: TrainingSet, epoch: int, index: int, place: int, speed: float, gap_s: float, written: DrawsWritten
) -> dict[str, Any]:
    utterance = data.utterances[index]
    change = None if data.augment is None else data.augment(utterance, epoch, place)
    draw = change.draw if isinstance(change, Change) else None
    written.clips += 1
    written.changed += draw is not None
    written.effects.update({effect.kind for effect in draw.effects} if draw is not None else set())
    return {
        "utterance_id": utterance.utterance_id,
        "place": place,
        "speed": float(speed),
        "gap_s": float(gap_s),
        "augment": None if draw is None else draw.to_json(),
    }
