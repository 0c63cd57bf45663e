"""Waveform changes by source: each corpus of a mixture, or each value of a column, has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from speechtune.audio.augment import AugmentConfig
from speechtune.core.errors import InputError

if TYPE_CHECKING:
    from speechtune.corpus.table import Utterance
    from speechtune.training.config import TrainingConfig
    from speechtune.training.data import Augment
    from speechtune.training.pool import Pool


class AugmentByConfig(BaseModel):
    """Other changes of the waveforms for some sources; the sources that are not named get ``training.augment``."""

    model_config = ConfigDict(extra="forbid")

    column: str | None = Field(
        None, description="Column whose values are the sources; none: the parts of data.mix, by their corpus's name."
    )
    values: dict[str, AugmentConfig] = Field(
        default_factory=dict,
        description="A block like training.augment for each source that differs, as in "
        "{synthetic: {preset: balanced}}; an empty block leaves a source as it is. A name that no training "
        "utterance has is an error.",
    )


def augment_of(config: TrainingConfig, pool: Pool, learnt: list[Utterance], window_s: float) -> Augment | None:
    """What a recipe does to the waveforms of each source.

    Args:
        config: its ``augment`` and ``augment_by``.
        pool: says which part of a mixture an utterance comes from.
        learnt: the training utterances.
        window_s: see `speechtune.training.data.augment_for`.

    Raises:
        InputError: a source is named that does not occur, or see `augment_for`.
    """
    from speechtune.corpus.table import Corpus
    from speechtune.training.data import augment_for

    corpus = Corpus(pool.corpus.root, learnt)
    general = augment_for(config, corpus, window_s)
    wanted = config.augment_by
    if not wanted.values:
        if wanted.column is not None:
            raise InputError("training.augment_by.column stands alone: say in augment_by.values what each source gets")
        return general
    source_of = _sources(pool, learnt, wanted.column)
    known = sorted(set(source_of.values()))
    for name in wanted.values:
        if name not in known:
            raise InputError(
                f"training.augment_by.values: no training utterance is of {name!r} (there are {', '.join(known)}): "
                "correct the name"
            )
    own = {
        name: augment_for(config.model_copy(update={"augment": one}), corpus, window_s)
        for name, one in wanted.values.items()
    }

    def augment(utterance: Utterance, epoch: int, place: int):  # type: ignore[no-untyped-def]
        chosen = own.get(source_of[_key(utterance)], general)
        return (lambda waveform: waveform) if chosen is None else chosen(utterance, epoch, place)

    return augment


def _sources(pool: Pool, learnt: Sequence[Utterance], column: str | None) -> dict[tuple[str, str, float | None], str]:
    if column is not None:
        from speechtune.corpus.conditions import require_column
        from speechtune.training.pool import UNKNOWN

        require_column(learnt, column, "the training data")
        values = {_key(one): one.column(column) for one in learnt}
        return {key: UNKNOWN if value is None else str(value) for key, value in values.items()}
    if pool.parts:
        return {_key(one): part.name for part in pool.parts for one in part.utterances}
    return {_key(one): pool.corpus.root.resolve().name for one in learnt}


def _key(utterance: Utterance) -> tuple[str, str, float | None]:
    return utterance.utterance_id, utterance.file_name, utterance.start_s
