"""A page to listen to: clips before and after augmentation, what was drawn, and what can be measured of it."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.augment import AugmentDraw, Augmenter, rng_for
from speechtune.audio.augment.effects.base import Samples
from speechtune.audio.augment.measure import decibels, power, snr_db, speech_level_db
from speechtune.audio.augment.presets import MIXTURES, PRESETS
from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio
from speechtune.core.errors import InputError
from speechtune.core.files import write_text
from speechtune.core.progress import track
from speechtune.corpus.augmenting import AugmentPlan, chosen_utterances, clip_info, preview_sample, speech_of
from speechtune.corpus.table import Corpus, Utterance
from speechtune.report.audio_clips import MAX_EMBEDDED_BYTES, data_uri, encode_opus
from speechtune.report.run_report import page_environment
from speechtune.report.spectrogram import spectrogram_png

_TRIES = 50


@dataclass(slots=True)
class Example:
    """One clip: players and pictures of both sides, the drawn effects, the measurements."""

    utterance: Utterance
    branch: str
    effects: list[tuple[str, str]]
    measured: list[tuple[str, str]]
    sides: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """Where the page is, how many examples it has, how many clips drew nothing, and which could not be read."""

    page: Path
    examples: int
    playable: int
    nothing_drawn: int
    unreadable: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "page": str(self.page)}


def write_preview(corpus: Corpus, plan: AugmentPlan, page: Path, examples: int = 12) -> PreviewResult:
    """Write one self-contained HTML page with before and after of some clips.

    Every part of a mixture is heard in turn. An effect that is rare is drawn again (up to 50 times) until there is
    something to hear, so the page shows what changed clips sound like, not how many are changed.

    Args:
        corpus: where the clips come from.
        plan: the effects, the splits, the seed.
        page: the file to write.
        examples: how many clips.

    Raises:
        InputError: there is nothing to draw, an effect lacks its material, or the page cannot be written.
    """
    augmenter = Augmenter(plan.config, speech_of(chosen_utterances(corpus, plan.splits), corpus.root))
    names = [branch.name for branch in augmenter.branches if branch.effects]
    if not names:
        raise InputError("the preview has no effects to play: name a --preset such as classroom, or a --config")
    shown: list[Example] = []
    nothing, unreadable, used_bytes, playable = 0, [], 0, 0
    for number, utterance in enumerate(track(preview_sample(corpus, plan.splits, examples, plan.seed), "drawing")):
        draw = _some_draw(augmenter, utterance, names[number % len(names)], plan.seed)
        if draw is None:
            nothing += 1
            continue
        try:
            before = load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        except InputError as error:
            unreadable.append(str(error))
            continue
        example, after = _measure(augmenter, utterance, draw, before)
        for title, samples in (("before", before), ("after", after)):
            peak = max(float(np.abs(samples).max(initial=0.0)), 1.0)
            uri = data_uri(encode_opus(samples / peak))
            used_bytes += len(uri)
            fits = used_bytes <= MAX_EMBEDDED_BYTES
            playable += fits
            picture = "data:image/png;base64," + base64.b64encode(spectrogram_png(samples)).decode()
            example.sides.append({"title": title, "audio": uri if fits else "", "picture": picture})
        shown.append(example)
    text = (
        page_environment()
        .get_template("augment_preview.html.j2")
        .render(
            corpus=str(corpus.root),
            what=plan.config.preset or ("a mixture" if plan.config.mixture else "own effects"),
            about=[(name, PRESETS[name].about, PRESETS[name].source) for name in names if name in PRESETS],
            mixture=MIXTURES.get(plan.config.preset or "", plan.config.mixture),
            examples=shown,
            nothing=nothing,
            unreadable=unreadable,
            seed=plan.seed,
        )
    )
    write_text(page, text.encode("utf-8", "replace").decode("utf-8"))
    return PreviewResult(page, len(shown), playable, nothing, unreadable)


def _some_draw(augmenter: Augmenter, utterance: Utterance, branch: str, seed: int) -> AugmentDraw | None:
    for epoch in range(_TRIES):
        draw = augmenter.draw(rng_for(seed, epoch, utterance.utterance_id), clip_info(utterance), branch)
        if draw is not None:
            return draw
    return None


def _measure(augmenter: Augmenter, utterance: Utterance, draw: AugmentDraw, before: Samples) -> tuple[Example, Samples]:
    example = Example(utterance, draw.branch, [], [])
    last = before
    for effect, changed in augmenter.steps(draw, before):
        example.effects.append((effect.kind.replace("_", " "), _words(effect.parameters)))
        if effect.kind == "noise":
            example.measured.append(("measured SNR", f"{snr_db(last, changed - last):.1f} dB over the speech"))
        last = changed
    lengths = [f"{len(clip) / SAMPLE_RATE_HZ:.2f} s" for clip in (before, last)]
    levels = [f"{speech_level_db(clip):.1f} dBFS" for clip in (before, last)]
    peaks = [f"{decibels(float(np.abs(clip).max(initial=0.0)) ** 2):.1f} dBFS" for clip in (before, last)]
    bands = [f"{_band_hz(clip):,.0f} Hz" for clip in (before, last)]
    for name, pair in (
        ("length", lengths),
        ("speech level", levels),
        ("peak", peaks),
        ("99 % of the power below", bands),
    ):
        example.measured.append((name, pair[0] if pair[0] == pair[1] else f"{pair[0]} → {pair[1]}"))
    return example, last


def _words(parameters: dict[str, Any]) -> str:
    """Parameters as text; lists of more than three numbers are in the log, not here."""
    parts = []
    for name, value in parameters.items():
        if name == "talkers":
            parts.append(f"{len(value)} talkers")
        elif not (isinstance(value, list) and len(value) > 3) and name != "seed":
            shown = " x ".join(f"{one:g}" for one in value) if isinstance(value, list) else value
            parts.append(f"{name} {shown:g}" if isinstance(shown, float) else f"{name} {shown}")
    return ", ".join(parts)


def _band_hz(samples: Samples) -> float:
    """Below which frequency 99 % of the power lies."""
    if power(samples) == 0:
        return 0.0
    energy = np.cumsum(np.square(np.abs(np.fft.rfft(samples))))
    return float(np.searchsorted(energy, 0.99 * energy[-1]) * SAMPLE_RATE_HZ / len(samples))
