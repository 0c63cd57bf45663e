"""What was drawn for one clip, as data: it can be logged, written as JSON and applied again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from speechtune.core.errors import InputError


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a draw may know about a clip before it is read."""

    utterance_id: str
    duration_s: float
    speaker_id: str | None = None


@dataclass(frozen=True, slots=True)
class EffectDraw:
    """One change and its parameters (numbers, words and lists of them)."""

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AugmentDraw:
    """The changes of one clip, in order.

    ``branch`` is the part of the mixture they come from. ``duration_s`` is the length the result was drawn for; its
    samples may differ from that by rounding.
    """

    utterance_id: str
    branch: str
    duration_s: float
    effects: tuple[EffectDraw, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives an equal draw, also after a trip through text."""
        return {
            "utterance_id": self.utterance_id,
            "branch": self.branch,
            "duration_s": self.duration_s,
            "effects": [{"kind": one.kind, **one.parameters} for one in self.effects],
        }

    def dumps(self) -> str:
        """`to_json` as one line of text."""
        return json.dumps(self.to_json(), ensure_ascii=False)

    @classmethod
    def from_json(cls, value: dict[str, Any] | str) -> AugmentDraw:
        """The inverse of `to_json` and of `dumps`.

        Raises:
            InputError: the value is not a draw.
        """
        try:
            values = json.loads(value) if isinstance(value, str) else value
            effects = tuple(
                EffectDraw(one["kind"], {key: part for key, part in one.items() if key != "kind"})
                for one in values["effects"]
            )
            return cls(values["utterance_id"], values["branch"], float(values["duration_s"]), effects)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{str(value)[:80]!r} is not an augmentation draw ({error}): give what AugmentDraw.to_json wrote"
            ) from error
