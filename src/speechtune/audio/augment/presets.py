"""Named lists of effects, and named mixtures of them. Every number says where it comes from.

``notebook`` is the requirements notebook, part 1, section 6 (AU-1 to AU-15); ``plan`` the plan for the children's
challenge, step 3.1; ``winners`` what its winners published (docs/augmentation.md has the numbers). Effects stand in the
order of the real world: voice, room, noise, microphone, channel, level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from speechtune.audio.augment.effects import BandLimit, Clip, Codec, Compress, Gain, Noise, Pitch, Reverb, Speed, Tempo
from speechtune.audio.augment.effects.base import Effect
from speechtune.audio.augment.effects.noise import Source

CLEAN = "clean"
"""The part of a mixture that is left as it is."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset does, where its numbers come from, and its effects."""

    about: str
    source: str
    effects: Callable[[], list[Effect]]


def _place(snr_db: float, stand_ins: tuple[Source, ...], *words: str) -> Callable[[], list[Effect]]:
    sources: tuple[Source, ...] = ("files", *stand_ins)
    return lambda: [Noise(snr_db=(snr_db, snr_db), sources=sources, match=words)]


PRESETS: dict[str, Preset] = {
    "mild": Preset(
        "a slightly different voice and level, a little noise at home",
        "notebook AU-1 (home 25 dB), AU-5 (0.95-1.05), AU-6 (1 semitone), AU-7 (gain 0.7-1.3, -3.1 to +2.3 dB)",
        lambda: [
            Speed(factor=(0.95, 1.05), probability=0.3),
            Pitch(semitones=(-1.0, 1.0), probability=0.2),
            Noise(snr_db=(25.0, 35.0), sources=("files", "pink", "hum"), probability=0.3),
            Gain(gain_db=(-3.1, 2.3), probability=0.5),
        ],
    ),
    "classroom": Preset(
        "a reverberant room full of other voices",
        "winners (noise at 3-30 dB, gain 6 dB at p 0.5), notebook AU-4 (reverb at p 0.3, decay from 0.3 s)",
        lambda: [
            Reverb(size=("medium", "large"), decay_s=(0.3, 0.6), distance_m=(0.5, 4.0), probability=0.3),
            Noise(snr_db=(3.0, 30.0), sources=("files", "babble"), probability=0.5),
            Gain(gain_db=(-6.0, 6.0), probability=0.5),
        ],
    ),
    "phone_mic": Preset(
        "the microphone of a phone: thin, compressed, slightly clipped",
        "notebook AU-3 (roll-off of bass and treble, compression, slight clipping, in this order)",
        lambda: [
            BandLimit(low_hz=(100.0, 300.0), high_hz=(3_400.0, 7_000.0), order=2),
            Compress(ratio=(2.0, 6.0)),
            Clip(clipped_frac=(0.0, 0.01)),
        ],
    ),
    "telephone": Preset(
        "a telephone call: 300-3400 Hz, G.711 or GSM",
        "ITU-T G.711, GSM 06.10",
        lambda: [Codec(codecs=("ulaw", "alaw", "gsm"))],
    ),
    "streaming": Preset(
        "sent as MP3, Opus or Vorbis at few bits",
        "notebook part 2 D10 (channel simulation)",
        lambda: [Codec(codecs=("mp3", "opus", "vorbis"), compression=(0.85, 0.98))],
    ),
    "cafe": Preset(
        "people talking around, 15 dB", "notebook AU-1", _place(15.0, ("babble",), "cafe", "coffee", "restaurant")
    ),
    "traffic": Preset(
        "a road, 10 dB", "notebook AU-1", _place(10.0, ("brown",), "traffic", "street", "city", "road", "car", "train")
    ),
    "office": Preset(
        "an office, 20 dB", "notebook AU-1", _place(20.0, ("pink", "hum"), "office", "keyboard", "printer", "fan")
    ),
    "home": Preset("a flat, 25 dB", "notebook AU-1", _place(25.0, ("pink", "hum"), "home", "kitchen", "room", "tv")),
    "noise": Preset(
        "any noise at 10-25 dB",
        "notebook AU-9",
        lambda: [Noise(snr_db=(10.0, 25.0), sources=("files", "babble", "pink"))],
    ),
    "reverb": Preset(
        "rooms of all sizes", "notebook AU-4 (decay 0.3 s by default)", lambda: [Reverb(decay_s=(0.2, 0.6))]
    ),
    "speed_pitch": Preset(
        "speed 0.95-1.05, or pitch by a semitone",
        "notebook AU-5, AU-6",
        lambda: [Speed(factor=(0.95, 1.05)), Pitch(semitones=(-1.0, 1.0), probability=0.5)],
    ),
    "children_plan": Preset(
        "hiss, tempo, pitch, gain and clipping, each now and then",
        "plan (Gaussian amplitude 0.001-0.015 at p 0.3, here 10-34 dB below speech at -26 dBFS; tempo and pitch at p "
        "0.2, gain at p 0.3, clipping at p 0.1)",
        lambda: [
            Tempo(factor=(0.9, 1.1), probability=0.2),
            Pitch(semitones=(-2.0, 2.0), probability=0.2),
            Noise(snr_db=(10.0, 34.0), sources=("white",), probability=0.3),
            Clip(clipped_frac=(0.0, 0.1), probability=0.1),
            Gain(gain_db=(-6.0, 6.0), probability=0.3),
        ],
    ),
    "second_place": Preset(
        "noise at 3-30 dB on a fifth of the clips",
        "winners (legend/sunday, word track: 10 of 18 averaged models)",
        lambda: [Noise(snr_db=(3.0, 30.0), sources=("files", "babble"), probability=0.2)],
    ),
}

MIXTURES: dict[str, dict[str, float]] = {
    "everyday": {CLEAN: 0.40, "cafe": 0.15, "traffic": 0.15, "office": 0.15, "phone_mic": 0.15},
    "balanced": {CLEAN: 0.40, "noise": 0.30, "phone_mic": 0.15, "reverb": 0.10, "speed_pitch": 0.05},
}
"""Shares of presets: recipes (a) and (b) of the notebook, section 6 (L4114-4120, L4311-4317).

Recipe (c) asks for 20 % recordings made on the real device, which nothing here can stand in for.
"""

CLEAN_SHARE_MIN = 0.30
"""Notebook AU-12: keep 30-50 % clean."""
