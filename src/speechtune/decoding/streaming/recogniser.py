"""What live transcription asks of a model: the words of a short waveform, given those it has committed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guards import active_guard, for_transcribing
from speechtune.decoding.searching import Searcher
from speechtune.decoding.streaming.agreement import joined, units_of
from speechtune.models.family import Family
from speechtune.models.search_config import SearchConfig

_LEAST_TOKENS = 8
"""A draft of the shortest audio may have so many tokens (own choice)."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """Words (or characters, in languages without spaces); ``looping``: the token limit was hit before the end."""

    units: list[str]
    looping: bool = False


class Recogniser(Protocol):
    """Anything that turns a waveform into words."""

    unspaced: bool
    longest_s: float
    """The longest waveform that it takes."""

    def recognise(self, waveform: Samples, given: Sequence[str], prompt: str, draft: bool) -> Recognised:
        """The words of a mono 16 kHz ``(samples,)`` array.

        Args:
            waveform: the audio.
            given: words that the text begins with; it may return others.
            prompt: what was said before the audio.
            draft: quickly (greedy, few tokens), or as well as it can.
        """


class FamilyRecogniser:
    """A loaded model, in torch or CTranslate2, at the audio context that its configuration names.

    Drafts are greedy; final texts are as ``decoding`` says, guards included.

    Raises:
        InputError: a setting that cannot be obeyed while words are still coming.
    """

    def __init__(self, family: Family, config: DecodingConfig) -> None:
        from speechtune.models.whisper import NO_SPACE_LANGUAGES

        self.family = family
        self.unspaced = family.language in NO_SPACE_LANGUAGES
        self.longest_s = family.limits.max_audio_s
        self.config = for_transcribing(config)
        self.streaming = config.streaming
        if config.search.prefix:
            raise InputError("decoding.search.prefix does not work with live transcription: remove it")
        self._continues = "search" in inspect.signature(family.generate).parameters and hasattr(family, "prompt")
        if self.streaming.prompt_words and not self._continues:
            raise InputError(f"decoding.streaming.prompt_words does not work with a {family.name} model: set it to 0")
        family.model.eval()
        self._guard = active_guard(family, self.config)
        self._final = Searcher(family, self.config)
        self._draft = Searcher(family, _for_drafts(self.config))
        self._plain = {id(one): (one.search, one.extended, one.config) for one in (self._final, self._draft)}

    def recognise(self, waveform: Samples, given: Sequence[str], prompt: str, draft: bool) -> Recognised:
        """As in `Recogniser`. All but the last given word are forced: Whisper may not end right behind a prefix."""
        seconds = len(waveform) / SAMPLE_RATE_HZ
        searcher = self._draft if draft else self._final
        search, extended, config = self._plain[id(searcher)]
        update = self._continued(search, given, prompt)
        searcher.search = search.model_copy(update=update) if update else search
        searcher.extended = extended or bool(update)
        if draft:
            limit = _LEAST_TOKENS + math.ceil(self.streaming.draft_tokens_per_s * seconds)
            searcher.config = config.model_copy(update={"max_new_tokens": min(limit, config.max_new_tokens)})
        n_frames = self.family.context_frames(seconds + config.margin_s, config.context)
        found = searcher.transcripts(["live"], [waveform], n_frames)
        if not draft and self._guard is not None:
            found = self._guard.watch(found, [waveform], n_frames)
        return Recognised(units_of(found[0].text, self.unspaced), "truncated" in found[0].flags)

    def _continued(self, search: SearchConfig, given: Sequence[str], prompt: str) -> dict[str, str]:
        if not self._continues:
            return {}
        update = {}
        if self.streaming.force_committed and len(given) > 1:
            update["prefix"] = joined(given[:-1], self.unspaced)
        if prompt:
            update["prompt"] = f"{search.prompt} {prompt}" if search.prompt else prompt
        return update


def _for_drafts(config: DecodingConfig) -> DecodingConfig:
    """Greedy, once, without rescoring; fused language models and preferred terms stay."""
    search = config.search.model_copy(update={"n_best": 1, "sample": False, "temperature": 1.0, "scores": "auto"})
    lm = config.lm.model_copy(update={"model": None, "causal": None}) if config.lm.use == "rescore" else config.lm
    fallback = config.fallback.model_copy(update={"temperatures": []})
    return config.model_copy(update={"beams": 1, "search": search, "lm": lm, "fallback": fallback})
