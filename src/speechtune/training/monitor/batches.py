"""Which utterances a micro-batch holds, from the sampler's plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechtune.training.data import BucketSampler, Pick, TrainingSet
from speechtune.training.steps import StepSampler


@dataclass(slots=True)
class BatchBook:
    """Looks micro-batches of this process up, counted from the start of the training."""

    data: TrainingSet
    sampler: BucketSampler

    def picks(self, micro_batch: int) -> list[Pick]:
        """The picks of a micro-batch, or of a whole step where the sampler deals in steps."""
        start, sampler = 0, self.sampler
        for epoch, end in enumerate(sampler.epoch_ends()):
            if micro_batch < end:
                if isinstance(sampler, StepSampler):
                    own = sampler.steps(epoch)[micro_batch - start][sampler.rank :: sampler.world]
                    return [pick for batch in own for pick in batch]
                return sampler.plan(epoch)[sampler.rank :: sampler.world][micro_batch - start]
            start = end
        raise IndexError(f"the run has {start} micro-batches, not {micro_batch + 1}")

    def amounts(self, micro_batch: int) -> tuple[int, float]:
        """How many utterances a micro-batch shows, and their seconds of audio."""
        found = self.utterances(micro_batch)
        return len(found), float(sum(self.sampler.durations_s[index] / pick.speed for index, pick in found))

    def utterances(self, micro_batch: int) -> list[tuple[int, Pick]]:
        """Index and pick of every utterance of a micro-batch; what is packed into one example shares its pick."""
        picks = self.picks(micro_batch)
        return [(index, pick) for pick in picks for index in (pick.index, *(part.index for part in pick.parts))]

    def describe(self, micro_batch: int) -> list[dict[str, Any]]:
        """The utterances of a micro-batch with all that decides what the model saw."""
        rows = []
        for index, pick in self.utterances(micro_batch):
            one = self.data.utterances[index]
            rows.append(
                {
                    "utterance_id": one.utterance_id,
                    "file": str(self.data.corpus.path_of(one)),
                    "text": self.data.label_text(one),
                    "duration_s": round(one.duration_s, 3),
                    "context_s": round(pick.context_s, 3),
                    "speed": round(pick.speed, 4),
                }
            )
        return rows
