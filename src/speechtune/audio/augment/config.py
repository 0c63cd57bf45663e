"""The ``augment`` block of a recipe, and the file that ``speechtune augment --config`` reads."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from speechtune.audio.augment.effects import EFFECTS, AnyEffect
from speechtune.audio.augment.effects.base import Effect
from speechtune.audio.augment.presets import CLEAN, MIXTURES, PRESETS


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of a mixture: its name, its share of the clips, its effects in order."""

    name: str
    share: float
    effects: tuple[Effect, ...]


class AugmentConfig(BaseModel):
    """Changes of training clips. Off unless one of ``preset``, ``mixture`` and ``effects`` is given."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = Field(
        None, description="A named list of effects or a named mixture; docs/augmentation.md describes them."
    )
    mixture: dict[str, float] = Field(
        default_factory=dict,
        description="Share of each preset by name, such as {clean: 0.4, noise: 0.6}; they add up to 1.",
    )
    effects: list[AnyEffect] = Field(
        default_factory=list,
        description="Effects in order, each with its kind, probability and ranges: [{kind: gain, gain_db: [-6, 6]}].",
    )
    share: float = Field(1.0, ge=0, le=1, description="Share of the clips that get a draw at all.")
    noise_dir: str | None = Field(None, description="Directory of noise recordings (any format, any depth).")
    impulse_dir: str | None = Field(None, description="Directory of room impulse responses, for reverb from files.")
    max_duration_s: float = Field(30.0, gt=0, description="No effect makes a clip longer than this.")

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str | None) -> str | None:
        if name is not None and name not in MIXTURES:
            _known([name])
        return name

    @field_validator("mixture")
    @classmethod
    def _shares_add_up(cls, mixture: dict[str, float]) -> dict[str, float]:
        _known(name for name in mixture if name != CLEAN)
        if any(share < 0 for share in mixture.values()):
            raise ValueError("a share is negative: give shares between 0 and 1")
        if mixture and not math.isclose(sum(mixture.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares add up to {sum(mixture.values()):g}: make them 1")
        return mixture

    @field_validator("effects", mode="before")
    @classmethod
    def _known_keys(cls, effects: Any) -> Any:
        for number, effect in enumerate(effects if isinstance(effects, list) else [], start=1):
            if not isinstance(effect, dict):
                continue
            kinds = [kind for kind in EFFECTS if kind != "silence"]
            if effect.get("kind") not in kinds:
                raise ValueError(f"effect {number} has the kind {effect.get('kind')!r}: use one of {', '.join(kinds)}")
            fields = EFFECTS[effect["kind"]].model_fields
            for key in effect:
                if key not in fields:
                    raise ValueError(
                        f"effect {number} ({effect['kind']}) has no key {key!r}: it takes {', '.join(fields)}"
                    )
        return effects

    @model_validator(mode="after")
    def _one_way(self) -> AugmentConfig:
        given = [name for name in ("preset", "mixture", "effects") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given: keep one of them")
        return self

    @property
    def enabled(self) -> bool:
        """Whether anything is to be changed."""
        return self.share > 0 and bool(self.preset or self.mixture or self.effects)

    def branches(self) -> list[Branch]:
        """The parts of the mixture (a single one for a preset or a list of effects); their shares add up to 1."""
        if self.effects:
            return [Branch("effects", 1.0, tuple(self.effects))]
        if self.preset is not None and self.preset not in MIXTURES:
            return [Branch(self.preset, 1.0, tuple(PRESETS[self.preset].effects()))]
        shares = MIXTURES[self.preset] if self.preset is not None else self.mixture
        return [
            Branch(name, share, () if name == CLEAN else tuple(PRESETS[name].effects()))
            for name, share in shares.items()
        ]


def _known(names: Iterable[str]) -> None:
    for name in names:
        if name not in PRESETS:
            known = [*PRESETS, *MIXTURES]
            close = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}"
            raise ValueError(f"there is no preset {name!r}; {hint}")
