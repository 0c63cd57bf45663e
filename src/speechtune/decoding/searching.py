"""One batch decoded as a configuration says: search, guides, fallback, N-best lists, rescoring."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.search_blocks import FallbackConfig
from speechtune.decoding.token_limits import limits_of, within_limit
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Family, Hypothesis
from speechtune.models.search_config import SearchConfig

Finish = Callable[[Transcript], Transcript]


class Searcher:
    """Decodes batches; what a configuration needs (a language model, terms) is loaded once.

    Raises:
        InputError: the family cannot do what the configuration asks, or a language model cannot be had.
    """

    def __init__(self, family: Family, config: DecodingConfig) -> None:
        from speechtune.decoding.guides import build_guides

        self.family, self.config = family, config
        self.guides = build_guides(family, config)
        search = config.search
        if config.fallback.active and search.scores == "auto":
            search = search.model_copy(update={"scores": "always"})
        self.search = search
        self.extended = bool(self.guides) or not search.is_plain()
        if self.extended and "search" not in inspect.signature(family.generate).parameters:
            raise InputError(
                f"decoding.search, fallback, boost and fused language models do not work with a {family.name} model: "
                "remove them from decoding"
            )
        if search.controls() and not hasattr(family, "prompt_for"):
            raise InputError(
                f"decoding.search.languages and task are Whisper's and this is a {family.name} model: remove them"
            )
        self.finish = _finisher(config)

    def transcripts(self, names: Sequence[str], waveforms: Sequence[np.ndarray], n_frames: int) -> list[Transcript]:
        """The transcripts of a batch of clips."""
        hypotheses = self._generate(waveforms, n_frames, self.search, self.config.beams)
        flags: list[list[str]] = [[] for _ in hypotheses]
        if self.config.fallback.active:
            hypotheses, flags = self._fall_back(waveforms, n_frames, hypotheses)
        made = [self._transcript(*one) for one in zip(names, hypotheses, flags, strict=True)]
        return [self.finish(one) for one in made] if self.finish else made

    def _generate(
        self, waveforms: Sequence[np.ndarray], n_frames: int, search: SearchConfig, beams: int
    ) -> list[Hypothesis]:
        limits = limits_of(self.config, waveforms)
        limit = max(limits)
        if not self.extended:
            found = self.family.generate(waveforms, n_frames, limit, beams)
        else:
            generate: Any = self.family.generate
            found = generate(waveforms, n_frames, limit, beams, search=search, guides=self.guides)
        if self.config.tokens_per_s is None:
            return found
        return [within_limit(one, own, self.family) for one, own in zip(found, limits, strict=True)]

    def _fall_back(
        self, waveforms: Sequence[np.ndarray], n_frames: int, hypotheses: list[Hypothesis]
    ) -> tuple[list[Hypothesis], list[list[str]]]:
        """Decode the failing clips again, hotter each time; the last try stands."""
        ladder = self.config.fallback
        best, flags = list(hypotheses), [[] for _ in hypotheses]  # type: list[Hypothesis], list[list[str]]
        failing = [place for place, one in enumerate(best) if needs_fallback(one, ladder)]
        for temperature in ladder.temperatures:
            if not failing:
                break
            update: dict[str, Any] = {"sample": temperature > 0, "n_best": ladder.best_of if temperature > 0 else 1}
            if temperature > 0:
                update["temperature"] = temperature
            search = self.search.model_copy(update=update)
            again = self._generate([waveforms[place] for place in failing], n_frames, search, 1)
            for place, hypothesis in zip(failing, again, strict=True):
                best[place] = replace(hypothesis, nbest=()) if self.search.n_best == 1 else hypothesis
                flags[place] = [f"fallback-{temperature:g}"]
            failing = [place for place in failing if needs_fallback(best[place], ladder)]
        for place in failing:
            flags[place].append("fallback-failed")
        for place, one in enumerate(best):
            if is_silence(one, ladder):
                best[place] = replace(one, text="", tokens=[], token_log_probs=None, nbest=(), truncated=False)
                flags[place].append("no-speech")
        return best, flags

    def _transcript(self, name: str, one: Hypothesis, flags: list[str]) -> Transcript:
        silence = one.no_speech_prob
        return Transcript(
            utterance_id=name,
            text=one.text,
            log_prob=round(one.log_prob, 4),
            no_speech_prob=None if silence is None else round(silence, 6),
            nbest=[nbest_row(other) for other in one.nbest],
            flags=[*(["truncated"] if one.truncated else []), *flags],
        )


def nbest_row(one: Hypothesis) -> dict[str, Any]:
    """A row of a transcript's N-best list; ``tokens`` counts the end of the text too."""
    total = one.sum_log_prob if one.sum_log_prob is not None else one.log_prob * (len(one.tokens) + 1)
    return {
        "text": one.text,
        "log_prob": round(one.log_prob, 4),
        "sum_log_prob": round(total, 4),
        "tokens": len(one.tokens) + (not one.truncated),
    }


def compression_ratio(text: str) -> float:
    """Bytes of the text by bytes of its zlib form, as openai/whisper measures repetition; 0 for an empty text."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data)) if data else 0.0


def needs_fallback(one: Hypothesis, ladder: FallbackConfig) -> bool:
    """Whether a text looks like a loop or a guess, and not like silence."""
    looping = ladder.compression_ratio is not None and compression_ratio(one.text) > ladder.compression_ratio
    unsure = ladder.log_prob is not None and one.log_prob < ladder.log_prob
    return (looping or unsure) and not is_silence(one, ladder)


def is_silence(one: Hypothesis, ladder: FallbackConfig) -> bool:
    """Whether ``<|nospeech|>`` was likely and the text was not."""
    if ladder.no_speech is None or one.no_speech_prob is None or one.no_speech_prob <= ladder.no_speech:
        return False
    return ladder.log_prob is None or one.log_prob < ladder.log_prob


def _finisher(config: DecodingConfig) -> Finish | None:
    """Rescoring, where the configuration asks for it."""
    lm = config.lm
    if lm.use != "rescore" or (lm.model is None and lm.causal is None):
        return None
    if config.search.n_best < 2:
        raise InputError(
            "decoding.lm.use: rescore chooses among hypotheses and decoding.search.n_best is 1: "
            "set beams and n_best to 8"
        )
    from speechtune.decoding.lm.causal import scorer_of
    from speechtune.decoding.lm.rescoring import features_of, rescore
    from speechtune.decoding.lm.text import words_function

    words = words_function(lm.words)
    scorer = scorer_of(lm.model, lm.causal, words)

    def finish(transcript: Transcript) -> Transcript:
        if not transcript.nbest:
            return transcript
        return rescore(transcript, features_of(transcript, scorer, words), lm.alpha, lm.beta, lm.length_power)

    return finish
