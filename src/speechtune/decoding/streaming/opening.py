"""From an opened model to a live transcriber."""

from __future__ import annotations

from collections.abc import Callable

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.long.timing import WordTimer, can_time
from speechtune.decoding.sources import OpenedModel, open_model
from speechtune.decoding.streaming.clock import Clock
from speechtune.decoding.streaming.recogniser import FamilyRecogniser
from speechtune.decoding.streaming.transcriber import StreamingTranscriber, Timer

_REFINING_BEAMS = 5
Begin = Callable[[Clock], StreamingTranscriber]
"""Begins a new stream; the models are loaded once."""


def open_streams(opened: OpenedModel, language: str | None = None, timer: Timer | None = None) -> Begin:
    """What begins streams with a model as ``decoding.streaming`` says, the second pass's model included.

    Args:
        opened: the model of the drafts.
        language: for the model of the second pass.
        timer: times of words, also where ``decoding.streaming.words`` does not ask for them.

    Raises:
        InputError: the models cannot be opened, or cannot do what the configuration asks.
    """
    streaming = opened.decoding.streaming
    drafts = FamilyRecogniser(opened.family, opened.decoding)
    refiner = _refiner(opened, language) if streaming.refine.active else None
    if refiner is not None and refiner.unspaced != drafts.unspaced:
        raise InputError(
            f"decoding.streaming.refine.model {streaming.refine.model} is for another language: name one for the same"
        )
    if timer is None and streaming.words:
        if not can_time(opened.family):
            raise InputError(
                f"decoding.streaming.words does not work with a {opened.family.name} model: remove it, or use "
                "decoding.engine=torch"
            )
        timer = WordTimer(opened.family, opened.decoding.context).times
    chosen = timer
    return lambda clock: StreamingTranscriber(drafts, streaming, clock=clock, refiner=refiner, timer=chosen)


def _refiner(opened: OpenedModel, language: str | None) -> FamilyRecogniser:
    refine = opened.decoding.streaming.refine
    if refine.model is None:
        beams = refine.beams or opened.decoding.beams
        if refine.beams is None and hasattr(opened.family, "eot"):  # a decoder that searches
            beams = max(beams, _REFINING_BEAMS)
        return FamilyRecogniser(opened.family, _with(opened.decoding, opened.decoding, beams))
    other = open_model(refine.model, language=language or opened.family.language, beams=opened.decoding.beams)
    return FamilyRecogniser(other.family, _with(other.decoding, opened.decoding, refine.beams or other.decoding.beams))


def _with(config: DecodingConfig, drafts: DecodingConfig, beams: int) -> DecodingConfig:
    return config.model_copy(update={"beams": beams, "streaming": drafts.streaming})
