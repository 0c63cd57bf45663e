"""When speech begins and ends, by the timestamps of source and artefact: part of the parity gate.

Only Whisper's own timestamp tokens are compared: the first one and the last one of a clip.
"""

from __future__ import annotations

from typing import Any

from speechtune.core.intervals import wilson
from speechtune.core.progress import track
from speechtune.export.clips import Clip, Clips
from speechtune.export.source import Source
from speechtune.models.config import Context

CLIPS = 12
"""Clips that are timed; each costs a decoding with timestamps in the source and in the runtime."""
TOLERANCE_S = 0.2
"""An end that moves by more has moved; a timestamp token is 0.02 s."""
TIMED_RUNTIMES = frozenset({"ctranslate2", "faster-whisper", "whisper.cpp", "openai-whisper", "transformers"})
"""Runtimes that decode with timestamps; ONNX Runtime and onnx-asr have no rules for them."""

Ends = tuple[float, float]


def timed_places(clips: Clips) -> list[int]:
    """Places of the clips that are timed: spread over those in which something is said."""
    spoken = [number for number, clip in enumerate(clips.clips) if clip.text]
    count = min(CLIPS, len(spoken))
    return [spoken[(2 * number + 1) * len(spoken) // (2 * count)] for number in range(count)]


def ends_of(tokens: list[int], first_timestamp: int) -> Ends | None:
    """The first and the last timestamp among tokens, in seconds; ``None`` where there are not two."""
    from speechtune.decoding.long.sequential import TIME_TOKEN_S

    times = [(token - first_timestamp) * TIME_TOKEN_S for token in tokens if token >= first_timestamp]
    return (times[0], times[-1]) if len(times) > 1 else None


def source_ends(source: Source, clips: list[Clip], context: Context) -> list[Ends | None]:
    """The source's timestamps of each clip."""
    from speechtune.decoding.config import DecodingConfig
    from speechtune.decoding.long.timestamps import decode_window

    config = DecodingConfig(context=context, max_new_tokens=source.limit)
    found = []
    for clip in track(clips, f"source's timestamps at {context} context"):
        tokens = decode_window(source.family, clip.wave, [], config).tokens
        found.append(ends_of(list(tokens), source.family.first_timestamp))
    return found


def compare_ends(source: list[Ends | None], target: list[Ends | None], names: list[str]) -> dict[str, Any]:
    """Of the clips that the source gives two timestamps, those whose ends are elsewhere in the target, or missing."""
    known = [number for number, one in enumerate(source) if one is not None]
    moved = [number for number in known if _moved(source[number], target[number])]
    low, high = wilson(len(moved), len(known)) if known else (0.0, 1.0)
    return {
        "clips": len(known),
        "moved": len(moved),
        "low": low,
        "high": high,
        "examples": [{"clip": names[n], "source": source[n], "target": target[n]} for n in moved[:5]],
    }


def _moved(source: Ends | None, target: Ends | None) -> bool:
    assert source is not None
    return target is None or max(abs(a - b) for a, b in zip(source, target, strict=True)) > TOLERANCE_S
