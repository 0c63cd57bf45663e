"""Every effect by its kind. A new one is a class in a file of this folder, its test, and one line here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from speechtune.audio.augment.effects.base import Effect
from speechtune.audio.augment.effects.channel import BandLimit, Codec
from speechtune.audio.augment.effects.level import Clip, Compress, Gain
from speechtune.audio.augment.effects.noise import Noise, Silence
from speechtune.audio.augment.effects.reverb import Reverb
from speechtune.audio.augment.effects.tempo import Pitch, Shift, Speed, Tempo

AnyEffect = Annotated[
    Gain | Clip | Compress | Speed | Tempo | Pitch | Shift | Reverb | Noise | BandLimit | Codec,
    Field(discriminator="kind"),
]

"""What a recipe may list. `Silence` is not among them: it takes away what the transcript says."""

EFFECTS: dict[str, type[Effect]] = {
    effect.model_fields["kind"].default: effect
    for effect in (Gain, Clip, Compress, Speed, Tempo, Pitch, Shift, Reverb, Noise, Silence, BandLimit, Codec)
}
"""Class of each ``kind``."""
