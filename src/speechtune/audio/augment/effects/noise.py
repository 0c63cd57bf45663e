"""Noise under a clip at an exact signal-to-noise ratio, and clips of nothing but noise."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from speechtune.audio.augment.coloured import coloured_noise, hum
from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Effect, Parameters, Range, Samples, uniform
from speechtune.audio.augment.materials import Materials, Recording
from speechtune.audio.augment.measure import NOMINAL_SPEECH_DBFS, power, speech_active
from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError

Source = Literal["files", "babble", "white", "pink", "brown", "hum"]
HUM_HARMONICS = 12
_SILENT = 1e-14


class Noise(Effect):
    """Noise whose power is exactly so far below that of the speech, both measured where the clip has speech.

    What noise the recording already has counts as speech: on a noisy corpus the true ratio is lower than the drawn one.
    """

    kind: Literal["noise"] = "noise"
    snr_db: Range = Field((3.0, 30.0), description="Speech power over noise power in dB, over speech-active samples.")
    sources: tuple[Source, ...] = Field(
        ("files", "babble"),
        min_length=1,
        description="Where noise comes from, each equally often: files (the noise directory), babble (other speakers "
        "of the corpus talking at once), white, pink, brown, hum. Sources that are not to be had are passed over.",
    )
    match: tuple[str, ...] = Field(
        (), description="Of the files, only those with one of these words in path or category (none: all)."
    )
    voices: tuple[int, int] = Field((3, 8), description="How many people talk in a babble.")
    mains_hz: tuple[float, ...] = Field((50.0, 60.0), min_length=1, description="Mains frequencies of hum.")

    @model_validator(mode="after")
    def _some_voices(self) -> Noise:
        if self.voices[0] < 1:
            raise ValueError("a babble needs at least one voice: give noise.voices as for example [3, 8]")
        return self

    def available(self, materials: Materials) -> list[Source]:
        """The sources that can be had."""
        there = {"files": bool(self._files(materials)), "babble": bool(materials.speech)}
        return [source for source in self.sources if there.get(source, True)]

    def _files(self, materials: Materials) -> list[Recording]:
        words = [word.lower() for word in self.match]
        return [one for one in materials.noises if not words or any(word in one.words for word in words)]

    def needs(self, materials: Materials) -> None:
        """At least one source."""
        if not self.available(materials):
            about = f" with {' or '.join(self.match)} in their name or category" if self.match else ""
            raise InputError(
                f"the noise effect has no source (sources: {', '.join(self.sources)}): name a noise directory with "
                f"recordings{about}, or add white, pink, brown or hum to its sources"
            )

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters | None:
        """``snr_db``, ``source`` and what makes that source the same again."""
        sources = self.available(materials)
        snr_db = uniform(rng, self.snr_db, 2)
        source = sources[int(rng.integers(len(sources)))]
        made = self._draw_source(source, rng, clip, materials)
        if made is None:  # the only other speaker is the clip's own
            rest = [one for one in sources if one != "babble"]
            if not rest:
                return None
            source = rest[int(rng.integers(len(rest)))]
            made = self._draw_source(source, rng, clip, materials)
        return {"snr_db": snr_db, "source": source, **(made or {})}

    def _draw_source(
        self, source: Source, rng: np.random.Generator, clip: ClipInfo, materials: Materials
    ) -> Parameters | None:
        if source == "files":
            files = self._files(materials)
            return _spot(rng, files[int(rng.integers(len(files)))])
        if source == "babble":
            return _draw_babble(rng, clip, materials, self.voices)
        if source == "hum":
            levels = -6.0 * np.log2(np.arange(1, HUM_HARMONICS + 1)) + rng.uniform(-6, 6, HUM_HARMONICS)
            return {
                "mains_hz": self.mains_hz[int(rng.integers(len(self.mains_hz)))],
                "levels_db": [round(float(level), 1) for level in levels],
                "phases": [round(float(phase), 3) for phase in rng.uniform(0, 2 * np.pi, HUM_HARMONICS)],
            }
        return {"seed": int(rng.integers(2**31))}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """The clip plus the noise; a clip of digital silence gets it relative to the nominal speech level."""
        noise = make_noise(parameters, len(waveform), materials)
        active = speech_active(waveform)
        speech_power = power(waveform, active) or 10 ** (NOMINAL_SPEECH_DBFS / 10)
        noise_power = power(noise, active) if active.any() else power(noise)
        if noise_power < _SILENT * max(power(noise), 1.0):
            noise_power = power(noise)
        if noise_power <= 0:
            return waveform.copy()
        factor = np.sqrt(speech_power / noise_power) * 10 ** (-parameters["snr_db"] / 20)
        return waveform + (noise * factor).astype(np.float32)


class Silence(Effect):
    """Takes the place of the clip with silence; with `Noise` behind it, a noise-only clip. Its transcript is empty."""

    kind: Literal["silence"] = "silence"
    duration_s: Range = Field((1.0, 8.0), description="Length in seconds, drawn uniformly.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``duration_s``, at most the longest length."""
        return {"duration_s": min(uniform(rng, self.duration_s), materials.max_duration_s)}

    @classmethod
    def duration_after(cls, duration_s: float, parameters: Parameters) -> float:
        """The drawn length."""
        return float(parameters["duration_s"])

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Zeros; the clip given is not looked at."""
        return np.zeros(max(1, round(parameters["duration_s"] * SAMPLE_RATE_HZ)), np.float32)


def make_noise(parameters: Parameters, samples: int, materials: Materials) -> np.ndarray[Any, Any]:
    """The drawn noise at any level, shape (samples,)."""
    source = parameters["source"]
    if source == "files":
        return materials.recording("noises", parameters["name"]).read(parameters["offset_s"], samples)
    if source == "babble":
        mix = np.zeros(samples)
        for voice in parameters["talkers"]:
            speech = materials.recording("speech", voice["name"]).read(voice["offset_s"], samples)
            mix += speech / max(np.sqrt(power(speech, speech_active(speech))), 1e-9)
        return mix
    if source == "hum":
        return hum(samples, parameters["mains_hz"], parameters["levels_db"], parameters["phases"])
    return coloured_noise(samples, source, parameters["seed"])


def _spot(rng: np.random.Generator, recording: Recording) -> Parameters:
    return {"name": recording.name, "offset_s": uniform(rng, (0.0, max(recording.duration_s - 0.1, 0.0)))}


def _draw_babble(
    rng: np.random.Generator, clip: ClipInfo, materials: Materials, voices: tuple[int, int]
) -> Parameters | None:
    """Utterances of other speakers, as many speakers as there are; ``None`` where there is nobody else.

    Where the corpus does not say who speaks, every other utterance counts as another speaker.
    """
    wanted = int(rng.integers(voices[0], voices[1] + 1))
    talkers: dict[str, Parameters] = {}
    for index in rng.integers(len(materials.speech), size=8 * wanted):
        one = materials.speech[int(index)]
        speaker = one.speaker_id or f"\0{one.name}"
        own = one.name == clip.utterance_id or (one.speaker_id is not None and one.speaker_id == clip.speaker_id)
        if not own and speaker not in talkers:
            talkers[speaker] = _spot(rng, one)
        if len(talkers) == wanted:
            break
    return {"talkers": list(talkers.values())} if talkers else None
