"""Examples of problems: what each says, sounds like and looks like, as far as the page's budget of bytes goes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.report.audio_clips import data_uri, encode_opus
from speechtune.report.audit_charts import plain
from speechtune.report.audit_reading import AuditRecord
from speechtune.report.spectrogram import spectrogram_uri

MOST_SECONDS = 15.0
MOST_CHARS = 400
_UNITS = {"s": "s", "hz": "Hz", "db": "dB", "dbfs": "dBFS", "lufs": "LUFS", "kbps": "kbit/s"}
_NAMES = {
    "abs(duration_s - table_duration_s)": ("difference of lengths", "s"),
    "chars / speech_s": ("characters per second of speech", ""),
    "abs(dc_offset)": ("offset, of full scale", ""),
    "chars_per_s": ("characters per second", ""),
    "words_per_s": ("words per second", ""),
    "tokens_most": ("tokens", ""),
    "snr_db": ("signal-to-noise ratio", "dB"),
    "level_lufs": ("loudness", "LUFS"),
    "rms_dbfs": ("level", "dBFS"),
    "peak_dbfs": ("peak", "dBFS"),
    "speech_frac": ("speech, share of the time", "%"),
    "clipped_frac": ("clipped samples", "%"),
    "lead_silence_s": ("silence before the speech", "s"),
    "trail_silence_s": ("silence after the speech", "s"),
    "chars": ("characters", ""),
    "words": ("words", ""),
}
_JOINERS = "\u200c\u200d"
"""Zero-width characters that scripts and emoji need."""


@dataclass(slots=True)
class Example:
    """One utterance of a problem; ``audio`` and ``picture`` are data URIs, or empty for the reason in ``without``."""

    utterance_id: str
    text: Markup
    language: str
    facts: list[tuple[str, str]]
    other: tuple[str, Markup] | None = None
    audio: str = ""
    picture: str = ""
    without: str = ""
    cut: bool = False


@dataclass(slots=True)
class Media:
    """Loads clips until the budget is used up, and counts what was left out."""

    corpus: Path
    max_bytes: int
    used_bytes: int = 0
    embedded: int = 0
    over_budget: int = 0
    unreadable: int = 0
    _made: dict[tuple[Any, ...], tuple[str, str, bool]] = field(default_factory=dict)

    def add(self, example: Example, row: dict[str, Any]) -> None:
        """Give an example its sound and picture, or the reason why it has none."""
        key = (row["file_name"], row.get("start_s"), row.get("end_s"))
        if self.used_bytes >= self.max_bytes:
            self.over_budget += 1
            example.without = "audio and picture left out to keep the page small"
            return
        try:
            audio, picture, cut = self._made.get(key) or self._make(row)
        except InputError as error:
            self.unreadable += 1
            example.without = f"the audio cannot be played: {getattr(error, 'reason', None) or error}"
            return
        if self.used_bytes + len(audio) + len(picture) > self.max_bytes:
            self.over_budget += 1
            example.without = "audio and picture left out to keep the page small"
            return
        self._made[key] = audio, picture, cut
        self.used_bytes += len(audio) + len(picture)
        self.embedded += 1
        example.audio, example.picture, example.cut = audio, picture, cut

    def _make(self, row: dict[str, Any]) -> tuple[str, str, bool]:
        start, end = row.get("start_s"), row.get("end_s")
        length = row.get("duration_s")
        cut = bool(length and length > MOST_SECONDS)
        if cut:
            start = start or 0.0
            end = start + MOST_SECONDS
        samples = load_audio(self.corpus / row["file_name"], start, end)
        return data_uri(encode_opus(samples)), spectrogram_uri(samples), cut

    def sentence(self) -> str:
        """How many clips are on the page, and how many are not and why."""
        megabytes = f"{self.used_bytes / 1e6:.1f} of at most {self.max_bytes / 1e6:g} MB"
        parts = [f"{self.embedded} of the examples can be heard and seen ({megabytes})"]
        if self.over_budget:
            parts.append(f"{self.over_budget} are shown without audio to keep the page small")
        if self.unreadable:
            parts.append(f"the audio of {self.unreadable} cannot be decoded")
        return "; ".join(parts) + "."


def visible(text: str | None, most: int = MOST_CHARS) -> Markup:
    """A transcript as safe HTML: cut at ``most`` characters, with a name in place of each invisible character."""
    if not text:
        return Markup('<span class="soft" dir="ltr">(no text)</span>')
    shown = []
    for character in text[:most]:
        if character in _JOINERS or not (
            character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Cs")
        ):
            shown.append(escape(character))
        else:
            shown.append(Markup('<span class="code" dir="ltr">U+{:04X}</span>').format(ord(character)))
    if len(text) > most:
        shown.append(
            Markup('<span class="soft" dir="ltr"> … {} more characters</span>').format(plain(len(text) - most))
        )
    return Markup("").join(shown)


def value_words(expression: str, value: float) -> tuple[str, str]:
    """Name and value of a measured number, from its column (or expression) in ``audit.parquet``."""
    name, unit = _NAMES.get(expression, ("", ""))
    if not name:
        stem, _, ending = expression.rpartition("_")
        unit = "%" if ending == "frac" else _UNITS.get(ending, "")
        name = (stem if unit else expression).replace("_", " ")
    if unit == "%":
        return name, f"{plain(100 * value)}\u00a0%"
    return name, f"{plain(value)}\u00a0{unit}" if unit else plain(value)


def problem_examples(audit: AuditRecord, problem: dict[str, Any], most: int) -> list[tuple[Example, dict[str, Any]]]:
    """The first examples of a problem with their rows, the worst first; without sound and picture."""
    rows = problem.get("examples")
    rows = audit.utterances(problem["utterance_ids"][:most], most) if rows is None else rows[:most]
    others = {
        row["utterance_id"]: row for row in audit.utterances([row["other"] for row in rows if row.get("other")], most)
    }
    return [(_example(problem, row, others.get(row.get("other", ""))), row) for row in rows]


def _example(problem: dict[str, Any], row: dict[str, Any], other: dict[str, Any] | None) -> Example:
    facts = []
    if row.get("value") is not None and problem.get("value"):
        facts.append(value_words(problem["value"], float(row["value"])))
    if row.get("duration_s") is not None and problem.get("value") != "duration_s":
        facts.append(("duration", f"{row['duration_s']:.2f}\u00a0s"))
    if row.get("start_s") is not None:
        facts.append(("from", f"{row['start_s']:.2f}\u00a0s of {row['file_name']}"))
    facts += [(name, str(row[key])) for name, key in (("speaker", "speaker_id"), ("split", "split")) if row.get(key)]
    twin = None
    if other is not None:
        where = f"{other['utterance_id']}{' in ' + other['split'] if other.get('split') else ''}"
        twin = (where, visible(other["text"]))
    return Example(row["utterance_id"], visible(row.get("text")), row.get("language") or "und", facts, twin)


def fill(shown: Sequence[Sequence[tuple[Example, dict[str, Any]]]], media: Media) -> None:
    """Give examples their media: the first of every problem, then the second of every problem, and so on."""
    deepest = max(map(len, shown), default=0)
    order = [examples[place] for place in range(deepest) for examples in shown if place < len(examples)]
    for example, row in track(order, "examples"):
        media.add(example, row)
