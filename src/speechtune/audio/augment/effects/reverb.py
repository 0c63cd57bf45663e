"""Rooms: shoebox rooms by the image-source method, or measured impulse responses; the speech stays where it was."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Effect, Parameters, Range, Samples, uniform
from speechtune.audio.augment.effects.channel import fft_size
from speechtune.audio.augment.effects.level import same_speech_level
from speechtune.audio.augment.materials import KEPT_S, Materials
from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError, missing_extra

ROOM_SIZES_M: dict[str, tuple[Range, Range, Range]] = {
    "small": ((2.5, 4.5), (2.5, 4.0), (2.4, 2.8)),
    "medium": ((4.5, 8.0), (4.0, 7.0), (2.5, 3.2)),
    "large": ((8.0, 12.0), (6.0, 9.0), (2.8, 3.8)),
}
"""Length, width and height in metres: a bedroom, a classroom (about 8 x 7 x 3 m), a hall."""
_SOUND_M_S = 343.0
_FRACTIONAL_DELAY_SAMPLES = 40  # half of pyroomacoustics' 81-tap interpolation filter stands before every reflection
_MOST_REFLECTIONS = 60


class Reverb(Effect):
    """The clip as heard in a room: direct sound in step with the original, reflections behind it, same speech level.

    Length is kept: the decay behind the last sample is cut off.
    """

    kind: Literal["reverb"] = "reverb"
    source: Literal["rooms", "files"] = Field(
        "rooms", description="rooms: image-source simulation; files: the impulse-response directory."
    )
    size: tuple[Literal["small", "medium", "large"], ...] = Field(
        ("small", "medium", "large"), min_length=1, description="Sizes of simulated rooms, each equally often."
    )
    decay_s: Range = Field((0.2, 0.6), description="Reverberation time (RT60, by Sabine's formula) of simulated rooms.")
    distance_m: Range = Field((0.5, 3.0), description="From mouth to microphone in simulated rooms.")
    rooms: int = Field(24, ge=1, description="How many different rooms there are; each is computed once in a process.")
    room_seed: int = Field(0, ge=0, description="Seed of the rooms.")

    def needs(self, materials: Materials) -> None:
        """pyroomacoustics, or impulse responses."""
        if self.source == "rooms":
            _pyroomacoustics()
        elif not materials.impulses:
            raise InputError("reverb from files has no impulse responses: name an impulse-response directory")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """The room with both places in it, or the ``name`` of an impulse response."""
        if self.source == "files":
            return {"name": materials.impulses[int(rng.integers(len(materials.impulses)))].name}
        return self.room(int(rng.integers(self.rooms)))

    def room(self, number: int) -> Parameters:
        """One of the ``rooms`` rooms: ``room_m``, ``decay_s``, ``mouth_m``, ``microphone_m``."""
        rng = np.random.default_rng([self.room_seed, number])
        room = [uniform(rng, bounds, 2) for bounds in ROOM_SIZES_M[self.size[int(rng.integers(len(self.size)))]]]
        decay_s, wanted_m = uniform(rng, self.decay_s, 2), uniform(rng, self.distance_m, 2)
        best: tuple[float, list[list[float]]] | None = None
        for _ in range(40):  # the pair of places whose distance is nearest to the drawn one
            places = [
                [uniform(rng, (0.4, room[0] - 0.4), 2), uniform(rng, (0.4, room[1] - 0.4), 2), uniform(rng, heights, 2)]
                for heights in ((1.0, 1.8), (0.7, 1.6))
            ]
            miss = abs(math.dist(*places) - wanted_m)
            if math.dist(*places) >= 0.2 and (best is None or miss < best[0]):
                best = (miss, places)
        assert best is not None
        return {"room_m": room, "decay_s": decay_s, "mouth_m": best[1][0], "microphone_m": best[1][1]}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Convolve, start at the direct sound, and bring the speech back to its level."""
        if "name" in parameters:
            recording = materials.recording("impulses", parameters["name"])
            samples = round(min(recording.duration_s, KEPT_S) * SAMPLE_RATE_HZ)
            response = recording.read(0.0, samples).astype(np.float64)
            direct = direct_sound(response)
        else:
            keys = ("room_m", "mouth_m", "microphone_m")
            response, direct = room_response(parameters["decay_s"], *(tuple(parameters[key]) for key in keys))
        size = fft_size(len(waveform) + len(response))
        wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)
        return same_speech_level(waveform, wet[direct : direct + len(waveform)].astype(np.float32))


def direct_sound(response: npt.NDArray[np.float64]) -> int:
    """Where the direct sound of a measured impulse response is: the first peak at least half as high as the highest.

    Several reflections that arrive together can be higher than it.
    """
    height = np.abs(response)
    first = int(np.argmax(height >= height.max() / 2))
    return first + int(np.argmax(height[first : first + 16]))


@lru_cache(maxsize=256)
def room_response(
    decay_s: float, room_m: tuple[float, ...], mouth_m: tuple[float, ...], microphone_m: tuple[float, ...]
) -> tuple[npt.NDArray[np.float64], int]:
    """The impulse response of a shoebox room at 16 kHz, and the index of the direct sound in it.

    Image-source method (Allen and Berkley 1979) of pyroomacoustics, one absorption for all walls from Sabine's formula,
    reflections up to the order that the decay needs (at most 60), cut off after the decay time.

    Raises:
        InputError: pyroomacoustics is not installed.
    """
    library = _pyroomacoustics()
    length, width, height = room_m
    surface = 2 * (length * width + length * height + width * height)
    absorption = min(24 * math.log(10) / _SOUND_M_S * (length * width * height) / (surface * decay_s), 0.95)
    order = min(math.ceil(_SOUND_M_S * decay_s / min(room_m)), _MOST_REFLECTIONS)
    library.constants.set("num_threads", 1)
    library.constants.set("c", _SOUND_M_S)
    room = library.ShoeBox(list(room_m), fs=SAMPLE_RATE_HZ, materials=library.Material(absorption), max_order=order)
    room.add_source(list(mouth_m))
    room.add_microphone(np.array(microphone_m))
    room.compute_rir()
    direct = _FRACTIONAL_DELAY_SAMPLES + round(math.dist(mouth_m, microphone_m) / _SOUND_M_S * SAMPLE_RATE_HZ)
    response = np.asarray(room.rir[0][0], np.float64)[: direct + round(decay_s * SAMPLE_RATE_HZ)]
    return response, direct


def _pyroomacoustics() -> Any:
    try:
        import pyroomacoustics
    except ImportError as error:
        raise missing_extra("pyroomacoustics", "augment") from error
    return pyroomacoustics
