"""Guards in the decoding of a batch: text that nobody said is found, decoded anew, else cut or emptied.

What each detector looks at is in `guard_detectors`. The order of remedies: a loop or an impossible rate is decoded
anew in the ways of ``decoding.guards.remedies``; the first text without a problem stands. If there is none, loops are
cut to one round, and what is impossible even then is emptied. Text on silence is emptied at once: there is nothing to
decode. Every change is a flag and a row of the transcript's ``interventions``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.audio.vad import FRAME_S, speech_probabilities
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guard_detectors import Evidence, cut_loops, is_impossible, problems
from speechtune.decoding.search_blocks import FallbackConfig
from speechtune.decoding.searching import Searcher
from speechtune.decoding.transcript import Transcript
from speechtune.models.capabilities import can
from speechtune.models.family import Family


def active_guard(family: Family, config: DecodingConfig) -> Guard | None:
    """The guard that a configuration asks for; none for ``off`` and for ``auto`` (`for_transcribing` resolves it)."""
    return None if config.guards.use in ("auto", "off") else Guard(family, config)


def for_transcribing(config: DecodingConfig) -> DecodingConfig:
    """The configuration with ``auto`` resolved as for a text that a person reads."""
    if config.guards.use != "auto":
        return config
    return config.model_copy(update={"guards": config.guards.model_copy(update={"use": "safe"})})


class Guard:
    """Watches the transcripts of one model.

    Raises:
        InputError: a guard needs the voice detector and its package is not installed.
    """

    def __init__(self, family: Family, config: DecodingConfig) -> None:
        self.family, self.config, self.guards = family, config, config.guards
        self.safe = self.guards.use == "safe"
        self.listens = not self.safe and {"silence", "phrase", "rate"} & set(self.guards.which) != set()
        self._searchers: dict[str, Searcher] = {}

    def watch(
        self, transcripts: Sequence[Transcript], waveforms: Sequence[np.ndarray], n_frames: int
    ) -> list[Transcript]:
        """The transcripts of a batch with what is wrong repaired (or, with ``flag``, named)."""
        evidence = self._evidence(transcripts, waveforms, n_frames)
        result = list(transcripts)
        wrong: dict[int, list[str]] = {}
        for place, one in enumerate(transcripts):
            found = problems(one.text, evidence[place], self.guards, self.safe)
            if not found:
                continue
            if self.guards.use == "flag":
                result[place] = replace(one, flags=[*one.flags, *(f"suspect-{name}" for name in found)])
            elif "silence" in found or "phrase" in found:
                result[place] = changed(one, found[0], "emptied", "")
            else:
                wrong[place] = found
        for place, (how, other) in self._decode_anew(wrong, waveforms, evidence, n_frames).items():
            result[place] = changed(transcripts[place], wrong[place][0], f"decoded anew: {how}", other.text, other)
            del wrong[place]
        for place, found in wrong.items():
            result[place] = self._cut(transcripts[place], evidence[place], found)
        return result

    def _evidence(
        self, transcripts: Sequence[Transcript], waveforms: Sequence[np.ndarray], n_frames: int
    ) -> list[Evidence]:
        heard: Sequence[np.ndarray | None] = [None] * len(transcripts)
        if self.listens:
            heard = speech_probabilities(waveforms)
        found = [
            Evidence(
                duration_s=len(waveform) / SAMPLE_RATE_HZ,
                speech_s=None if own is None else float((own >= self.guards.speech_probability).sum()) * FRAME_S,
                speech_peak=None if own is None else float(own.max(initial=0.0)),
                log_prob=one.log_prob,
                no_speech_prob=one.no_speech_prob,
                truncated="truncated" in one.flags,
                language=one.language or self.family.language,
            )
            for one, waveform, own in zip(transcripts, waveforms, heard, strict=True)
        ]
        # The model is asked about silence only where the answer decides: it costs another pass of the encoder.
        asking = [
            place
            for place, (one, what) in enumerate(zip(transcripts, found, strict=True))
            if self.listens and one.text and what.no_speech_prob is None and self._could_be_silence(one, what)
        ]
        if asking:
            silence = self._no_speech([waveforms[place] for place in asking], n_frames)
            for place, value in zip(asking, silence, strict=True):
                found[place] = replace(found[place], no_speech_prob=value)
        return found

    def _no_speech(self, waveforms: Sequence[np.ndarray], n_frames: int) -> Sequence[float | None]:
        """The model's own probability of silence, where the family has one."""
        if can(self.family, "no_speech"):
            return no_speech_probabilities(self.family, waveforms, n_frames)
        if not self._can("no-speech"):
            return [None] * len(waveforms)
        names = [str(place) for place in range(len(waveforms))]
        return [one.no_speech_prob for one in self._searcher("no-speech").transcripts(names, waveforms, n_frames)]

    def _could_be_silence(self, one: Transcript, what: Evidence) -> bool:
        if what.speech_s is not None and what.speech_s < self.guards.min_speech_s:
            return True
        return "phrase" in problems(one.text, replace(what, log_prob=-np.inf), self.guards)

    def _decode_anew(
        self, wrong: dict[int, list[str]], waveforms: Sequence[np.ndarray], evidence: Sequence[Evidence], n_frames: int
    ) -> dict[int, tuple[str, Transcript]]:
        """What has no problem any more, with the remedy that did it."""
        repaired: dict[int, tuple[str, Transcript]] = {}
        for remedy in self.guards.remedies:
            left = [place for place in wrong if place not in repaired]
            if not left or not self._can(remedy):
                continue
            searcher = self._searcher(remedy)
            for place in left:  # one by one: what is sampled must not depend on the clips beside it
                own = [waveforms[place]]
                frames = self._other_frames(own) if remedy == "context" else n_frames
                (one,) = searcher.transcripts([str(place)], own, frames)
                now = replace(evidence[place], log_prob=one.log_prob, truncated="truncated" in one.flags)
                if one.text.strip() and not problems(one.text, now, self.guards, self.safe):
                    repaired[place] = remedy, one
        return repaired

    def _can(self, remedy: str) -> bool:
        if remedy == "context":
            return len(self.family.contexts) > 1
        if hasattr(self.family, "log_probs"):  # CTC: nothing to sample from, and loops are not its fault
            return False
        return "search" in inspect.signature(self.family.generate).parameters

    def _other_frames(self, waveforms: Sequence[np.ndarray]) -> int:
        other = "fit" if self.config.context == "full" else "full"
        longest_s = max(len(one) for one in waveforms) / SAMPLE_RATE_HZ
        return self.family.context_frames(longest_s + self.config.margin_s, other)  # type: ignore[arg-type]

    def _searcher(self, remedy: str) -> Searcher:
        if remedy not in self._searchers:
            config, guards = self.config, self.guards
            if remedy == "no-repeat":
                search = config.search.model_copy(update={"no_repeat_ngram": guards.no_repeat_ngram})
                config = config.model_copy(update={"search": search})
            elif remedy == "no-speech":
                search = config.search.model_copy(update={"scores": "always"})
                config = config.model_copy(update={"search": search})
            elif remedy == "sample":
                ladder = FallbackConfig(
                    temperatures=guards.temperatures, compression_ratio=guards.compression_ratio, no_speech=None
                )
                config = config.model_copy(update={"fallback": ladder})
            self._searchers[remedy] = Searcher(self.family, config)
        return self._searchers[remedy]

    def _cut(self, one: Transcript, evidence: Evidence, found: list[str]) -> Transcript:
        """Loops cut to one round; emptied where what is left still cannot be said."""
        text = cut_loops(one.text)
        if is_impossible(text, evidence.duration_s, self.guards.max_chars_per_s) or text == one.text:
            return changed(one, found[0], "emptied", "")
        return changed(one, found[0], "loop cut", text)


def changed(one: Transcript, guard: str, action: str, text: str, other: Transcript | None = None) -> Transcript:
    """The transcript with another text, the flag, and what was before."""
    row: dict[str, Any] = {"guard": guard, "action": action, "before": one.text}
    kept = [flag for flag in (other or one).flags if other is not None or flag != "truncated"]
    return replace(
        one,
        text=text,
        log_prob=(other or one).log_prob,
        nbest=other.nbest if other else [],
        flags=[*kept, f"guard-{guard}"],
        interventions=[*one.interventions, row],
    )


def no_speech_probabilities(family: Any, waveforms: Sequence[np.ndarray], n_frames: int) -> list[float]:
    """The probability of ``<|nospeech|>`` behind the start of the transcript, as openai/whisper reads it."""
    if hasattr(family, "no_speech_probabilities"):  # an engine other than torch
        return family.no_speech_probabilities(waveforms, n_frames)
    import torch

    with torch.inference_mode():
        device = next(family.model.parameters()).device
        features = family.front_end(waveforms, n_frames, device=str(device))
        encoded = family.part("encoder")(features)
        start = torch.full((len(waveforms), 1), int(family.config.decoder_start_token_id), device=device)
        logits = family.model(encoder_outputs=encoded, decoder_input_ids=start).logits[:, 0].float()
        return [float(one) for one in logits.softmax(-1)[:, family.first_timestamp - 2]]
