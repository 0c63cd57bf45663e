"""What every effect is: a block of settings that can draw parameters, and a function that applies them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.materials import Materials

Samples = npt.NDArray[np.float32]
Range = tuple[float, float]
Parameters = dict[str, Any]


class Effect(BaseModel):
    """Settings of one effect. ``draw`` uses them and a generator; ``apply`` uses only what was drawn."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    probability: float = Field(1.0, ge=0, le=1, description="Probability that a clip gets this effect.")

    @model_validator(mode="after")
    def _ranges_rise(self) -> Effect:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.annotation in (Range, tuple[int, int]) and value[0] > value[1]:
                raise ValueError(
                    f"{self.kind}.{name} falls from {value[0]:g} to {value[1]:g}: give the lower end first"
                )
        return self

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters | None:
        """The parameters for one clip, JSON-ready; ``None`` where the effect cannot be used on it."""
        raise NotImplementedError

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """The changed clip: float32, shape (samples,), 16 kHz. ``waveform`` is not written to; nothing is drawn."""
        raise NotImplementedError

    @classmethod
    def duration_after(cls, duration_s: float, parameters: Parameters) -> float:
        """How long a clip of ``duration_s`` seconds becomes."""
        return duration_s

    def needs(self, materials: Materials) -> None:
        """Check that what this effect works with is there.

        Raises:
            InputError: a directory or a library is missing.
        """


def uniform(rng: np.random.Generator, bounds: Range, digits: int = 3) -> float:
    """A number between the bounds, rounded so that a log can be read."""
    return round(float(rng.uniform(*bounds)), digits)
