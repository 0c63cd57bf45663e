"""A corpus with known faults: clean synthetic (or given) speech, and one planted defect in each of many clips.

    python tests/planted_defects.py OUT [--per-kind N] [--clean N] [--seed S] [--base CORPUS]

Each defect kind stands at one or more severities. The ledger (``planted.json`` beside the table) says for every
utterance what was planted, which check has to find it at which severity, and which other checks may rightly speak too
(a clip cut to telephone quality has fewer characters of evidence, not a second fault).
"""

from __future__ import annotations

import argparse
import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechtune.audio.io import load_audio, resample
from speechtune.corpus.stream import iter_utterances
from speechtune.corpus.synthesis import Clip, Sentence, coloured_noise, plan_corpus, render
from speechtune.corpus.table import METADATA

RATE_HZ = 16_000
VOICES = {
    "train": ("en-us", "en-us+f2", "en-us+m3", "en-gb-x-rp", "en-gb-scotland+f4", "en-us+m7", "en-gb-x-rp+f1"),
    "dev": ("en-us+f5", "en-gb-scotland"),
    "test": ("en-us+m1", "en-gb-x-rp+f3"),
}
_PARTS = tuple(
    line.split()
    for line in """
the a every some that this our her his their
old small quiet yellow heavy early gentle broken hungry clever silver narrow distant friendly empty
farmer window teacher river candle doctor garden engine sailor kitchen bottle morning horse village mirror
carried followed watched painted opened visited remembered borrowed noticed covered answered lifted
the a every some that this our her his their
wooden golden frozen purple hidden simple bitter modern lonely secret polite curious
basket letter bridge jacket mountain orchard blanket island hammer picture lantern harbour pocket
near behind under beside before after across without inside above
the a every some that this our her his their
market station forest church library factory valley corner theatre meadow airport museum
""".strip().splitlines()
)
Samples = np.ndarray


@dataclass
class Draft:
    """A clip about to be written: audio, how to store it, and its row."""

    samples: Samples
    text: str
    speaker_id: str
    split: str
    name: str = ""
    suffix: str = ".flac"
    rate_hz: int = RATE_HZ
    write: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Path], None] | None = None
    partner: str | None = None


@dataclass(frozen=True)
class Kind:
    """A defect at one severity: what it does to a draft, and what must (and may) be said of it."""

    name: str
    level: str
    check: str
    severity: str
    apply: Callable[[Draft, np.random.Generator, list[Draft]], Draft]
    may: tuple[str, ...] = ()


def sentence(random: np.random.Generator) -> str:
    return " ".join(part[int(random.integers(len(part)))] for part in _PARTS)


def clean_drafts(count: int, seed: int) -> Iterator[Draft]:
    """Synthetic speech: known text, voice, level, 25-35 dB of noise."""
    random = np.random.default_rng(seed)
    places = ["train"] * 7 + ["dev"] * 2 + ["test"]
    sentences = [Sentence(sentence(random), places[number % 10]) for number in range(count)]
    for clip in plan_corpus(sentences, VOICES, seed):
        yield _rendered(clip)


def _rendered(clip: Clip) -> Draft:
    voice = clip.draw.voice.name
    return Draft(render(clip), clip.sentence.text, f"{clip.sentence.split}-{voice}", clip.sentence.split)


def real_drafts(corpus: Path, count: int, seed: int) -> Iterator[Draft]:
    """Clips of a corpus that is taken to be clean, texts in lower case."""
    rows = list(iter_utterances(corpus))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    for index in sorted(chosen):
        row = rows[index]
        samples = load_audio(corpus / row.file_name, row.start_s, row.end_s)
        yield Draft(samples, row.text.lower(), row.speaker_id or "x", row.split or "train")


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _fit(samples: Samples) -> Samples:
    return np.asarray(samples / max(1.0, float(np.abs(samples).max()) / 0.99), dtype=np.float32)


def _speech_part(samples: Samples) -> slice:
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
    return slice(int(loud[0]), int(loud[-1]) + 1)


def _noise(count: int, random: np.random.Generator, rms: float) -> Samples:
    if not count:
        return np.zeros(0, np.float32)
    return (coloured_noise(count, "pink", int(random.integers(2**31))) * rms).astype(np.float32)


def _keep(change: Callable[[Samples, np.random.Generator], Samples]) -> Callable[..., Draft]:
    return lambda draft, random, others: replace(draft, samples=np.asarray(change(draft.samples, random), np.float32))


def _text(change: Callable[[str, np.random.Generator], str]) -> Callable[..., Draft]:
    return lambda draft, random, others: replace(draft, text=change(draft.text, random))


def _spoiled(spoil: Callable[[Path], None], **changes: Any) -> Callable[..., Draft]:
    return lambda draft, random, others: replace(draft, spoil=spoil, **changes)


def _stored(**changes: Any) -> Callable[..., Draft]:
    return lambda draft, random, others: replace(draft, **changes)


def _cut_file(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _at_rate(rate_hz: int) -> Callable[..., Draft]:
    def apply(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
        return replace(draft, samples=resample(draft.samples, RATE_HZ, rate_hz), rate_hz=rate_hz)

    return apply


def _through(rate_hz: int) -> Callable[..., Draft]:
    return _keep(lambda x, r: resample(resample(x, RATE_HZ, rate_hz), rate_hz, RATE_HZ)[: len(x)])


def _second_channel(gain: float) -> Callable[..., Draft]:
    return _keep(lambda x, r: np.stack([x, gain * x], axis=1))


def _speech_level(change_to_dbfs: float) -> Callable[..., Draft]:
    return _keep(lambda x, r: _fit(x * 10 ** (change_to_dbfs / 20) / _rms(x[_speech_part(x)])))


def _clip(over_db: float) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        return np.clip(x / np.abs(x).max() * 10 ** (over_db / 20), -0.95, 0.95)

    return _keep(apply)


def _with_noise(snr_db: float) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        return _fit(x + _noise(len(x), r, _rms(x[_speech_part(x)]) * 10 ** (-snr_db / 20)))

    return _keep(apply)


def _hum(hz: int, below_db: float) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        margin = _noise(RATE_HZ, r, _rms(x) * 10**-1.5)  # a second before and after, 30 dB down, as recordings have
        x = np.concatenate([margin, x, margin])
        time = np.arange(len(x)) / RATE_HZ
        lines = sum(np.sin(2 * np.pi * hz * k * time + k) / k for k in (1, 2, 3, 5))
        return _fit(x + lines / _rms(lines) * _rms(x) * 10 ** (-below_db / 20))

    return _keep(apply)


def _drop(length_s: float, times: int) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        x = x.copy()
        length = round(length_s * RATE_HZ)
        energy = np.convolve(np.square(x), np.ones(length) / length, "valid")
        for place in r.choice(np.flatnonzero(energy > np.quantile(energy, 0.7)), times):
            x[place : place + length] = 0
        return x

    return _keep(apply)


def _silence(lead_s: float = 0, trail_s: float = 0, pause_s: float = 0) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        floor = float(np.sqrt(np.quantile(np.square(x[: len(x) // 160 * 160]).reshape(-1, 160).mean(axis=1), 0.05)))
        lead, trail, pause = (_noise(round(s * RATE_HZ), r, max(floor, 1e-4)) for s in (lead_s, trail_s, pause_s))
        middle = len(x) // 2
        return np.concatenate([lead, x[:middle], pause, x[middle:], trail])

    return _keep(apply)


def _joined(seconds: float) -> Callable[..., Draft]:
    def apply(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
        parts, texts = [draft.samples], [draft.text]
        while sum(map(len, parts)) <= seconds * RATE_HZ:
            other = others[int(random.integers(len(others)))]
            parts.append(other.samples)
            texts.append(other.text)
        return replace(draft, samples=np.concatenate(parts), text=" ".join(texts))

    return apply


def _more_text(times: int) -> Callable[..., Draft]:
    return _text(lambda text, r: " ".join([text, *(sentence(r) for _ in range(times))]))


def _short(seconds: float, text: str) -> Callable[..., Draft]:
    def apply(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
        start = _speech_part(draft.samples).start
        return replace(draft, samples=draft.samples[start : start + round(seconds * RATE_HZ)], text=text)

    return apply


def _slow(text: str, seconds: float) -> Callable[..., Draft]:
    def apply(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
        return replace(_joined(seconds)(draft, random, others), text=text)

    return apply


def _two_voices(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
    """Two clips one after the other whose voices lie farthest apart in pitch (espeak's +f4 and +m variants)."""
    low = [other for other in others if other.speaker_id.endswith(("+m7", "+m1", "+m3"))]
    high = [other for other in others if other.speaker_id.endswith(("+f2", "+f4", "+f1", "+f3", "+f5"))]
    parts = [group[int(random.integers(len(group)))] if group else draft for group in (low, high)]
    return replace(
        draft, samples=np.concatenate([one.samples for one in parts]), text=" ".join(one.text for one in parts)
    )


def _music(gain_db: float) -> Callable[..., Draft]:
    def apply(x: Samples, r: np.random.Generator) -> Samples:
        time = np.arange(round(max(6.0, len(x) / RATE_HZ) * RATE_HZ)) / RATE_HZ
        sound = np.zeros(len(time))
        for start in np.arange(0, time[-1], 0.5):
            root = 220 * 2 ** (int(r.choice([0, 3, 5, 7, 10, 12])) / 12)
            live = (time >= start) & (time < start + 0.5)
            for step in (0, 4, 7):
                for harmonic in (1, 2, 3, 4):
                    tone = np.sin(2 * np.pi * root * 2 ** (step / 12) * harmonic * time[live])
                    sound[live] += tone / harmonic * np.exp(-1.5 * (time[live] - start))
        sound *= _rms(x[_speech_part(x)]) * 10 ** (gain_db / 20) / _rms(sound)
        sound[: len(x)] += x
        return _fit(sound)

    return _keep(apply)


def _copied(change: Callable[[Draft, np.random.Generator], Draft]) -> Callable[..., Draft]:
    """A changed copy of a clean clip of the same split."""

    def apply(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
        same = [other for other in others if other.split == draft.split]
        other = same[int(random.integers(len(same)))]
        copy = replace(draft, samples=other.samples, text=other.text, speaker_id=other.speaker_id)
        return replace(change(copy, random), partner=other.name)

    return apply


def _typing_error(draft: Draft, random: np.random.Generator, others: list[Draft]) -> Draft:
    other = others[int(random.integers(len(others)))]
    return replace(draft, text=other.text[:-1] + "x", partner=other.name)


def _swapped(find: str, put: str) -> Callable[..., Draft]:
    return _text(lambda text, r: text.replace(find, put, 1) if find in text else f"{put} {text}")


def _end(*endings: str) -> Callable[..., Draft]:
    return _text(lambda text, r: f"{text} {endings[int(r.integers(len(endings)))]}")


_GERMAN = (
    "der alte mann ging gestern abend langsam über die brücke nach hause",
    "wir haben heute morgen zusammen im garten gefrühstückt und viel gelacht",
    "die kinder spielen jeden nachmittag auf dem großen platz vor der schule",
)
_FRENCH = (
    "le vieux monsieur traverse lentement le pont pour rentrer chez lui",
    "nous avons mangé ensemble dans le jardin pendant toute la matinée",
    "les enfants jouent tous les jours devant la grande école du village",
)
_RUSSIAN = ("старый человек медленно шёл по мосту домой", "дети играют каждый день во дворе школы")
_NOISY = ("snr_low", "bandwidth_low", "no_speech", "rate_slow")
_TALKY = ("rate_fast", "rate_slow", "several_speakers", "near_duplicate_audio", "near_duplicate_text", "label_conflict")
_COPY = ("duplicate_audio", "near_duplicate_audio", "near_duplicate_text", "label_conflict")

# fmt: off
KINDS: tuple[Kind, ...] = (
    Kind("missing file", "", "audio_missing", "error", _spoiled(Path.unlink)),
    Kind("not audio", "text", "audio_unreadable", "error", _spoiled(lambda p: p.write_text("this is not audio " * 99))),
    Kind("not audio", "random bytes", "audio_unreadable", "error",
         _spoiled(lambda p: p.write_bytes(np.random.default_rng(len(p.name)).bytes(9_999)))),
    Kind("truncated", "FLAC", "audio_truncated", "error", _spoiled(_cut_file)),
    Kind("truncated", "WAV", "audio_truncated", "error", _spoiled(_cut_file, suffix=".wav")),
    Kind("no samples", "", "audio_empty", "error", _stored(samples=np.zeros(0, np.float32), suffix=".wav")),
    Kind("NaN samples", "", "audio_non_finite", "error",
         lambda d, r, o: replace(d, samples=np.where(np.arange(len(d.samples)) == 99, np.nan, d.samples),
                                 suffix=".wav", write={"subtype": "FLOAT"})),
    Kind("span outside the file", "", "span_outside_audio", "error",
         lambda d, r, o: replace(d, row={"start_s": 0.0, "end_s": len(d.samples) / RATE_HZ + 2}),
         ("duration_mismatch",)),
    Kind("too short", "0.05 s", "duration_short", "error", _short(0.05, "oh"), ("no_speech", "rate_fast", *_NOISY)),
    Kind("too short", "0.3 s", "duration_short", "warning", _short(0.3, "oh"), ("no_speech", "rate_fast", *_NOISY)),
    Kind("too short", "0.8 s", "duration_short", "note", _short(0.8, "well then"), ("no_speech", "rate_fast", *_NOISY)),
    Kind("too long", "31 s", "duration_long", "error", _joined(31), _TALKY),
    Kind("too long", "60 s", "duration_long", "error", _joined(60), (*_TALKY, "tokens_many")),
    Kind("table disagrees about length", "0.3 s", "duration_mismatch", "warning",
         lambda d, r, o: replace(d, row={"duration_s": len(d.samples) / RATE_HZ + 0.3})),
    Kind("table disagrees about length", "2 s", "duration_mismatch", "warning",
         lambda d, r, o: replace(d, row={"duration_s": len(d.samples) / RATE_HZ + 2})),
    Kind("low sample rate", "6 kHz", "sample_rate_low", "error", _at_rate(6_000), _NOISY),
    Kind("low sample rate", "8 kHz", "sample_rate_low", "warning", _at_rate(8_000), _NOISY),
    Kind("low sample rate", "11 kHz", "sample_rate_low", "warning", _at_rate(11_025), _NOISY),
    Kind("eight bits", "", "bit_depth_low", "warning", _stored(suffix=".wav", write={"subtype": "PCM_U8"}),
         ("snr_low", "level_low")),
    Kind("strong compression", "MP3", "bitrate_low", "warning",
         _stored(suffix=".mp3", write={"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.99}),
         ("bandwidth_low",)),
    Kind("two channels", "equal", "several_channels", "note", _second_channel(0.7)),
    Kind("channels cancel", "opposite", "phase_cancellation", "error", _second_channel(-1.0),
         ("several_channels", "silent", "no_speech", "level_low", "bandwidth_low", "snr_low")),
    Kind("channels cancel", "-0.8", "phase_cancellation", "error", _second_channel(-0.8),
         ("several_channels", "level_low", "no_speech")),
    Kind("upsampled", "from 6 kHz", "bandwidth_low", "warning", _through(6_000), _NOISY),
    Kind("upsampled", "from 8 kHz", "bandwidth_low", "warning", _through(8_000), _NOISY),
    Kind("silent", "zeros", "silent", "error", _keep(lambda x, r: np.zeros_like(x)), _COPY),
    Kind("silent", "-75 dBFS noise", "silent", "error", _keep(lambda x, r: _noise(len(x), r, 10 ** (-75 / 20)))),
    Kind("quiet", "-43 dBFS", "level_low", "note", _speech_level(-43)),
    Kind("quiet", "-52 dBFS", "level_low", "warning", _speech_level(-52), ("silent", "no_speech", "snr_low")),
    Kind("clipped", "6 dB", "clipping", "warning", _clip(6), ("level_high",)),
    Kind("clipped", "12 dB", "clipping", "warning", _clip(12), ("level_high", "dc_offset")),
    Kind("clipped", "24 dB", "clipping", "error", _clip(24), ("level_high", "dc_offset", "snr_low", "no_speech")),
    Kind("too loud", "compressed", "level_high", "note", _keep(lambda x, r: 0.95 * np.tanh(8 * x / np.abs(x).max())),
         ("snr_low", "clipping", "no_speech")),
    Kind("constant offset", "0.05", "dc_offset", "warning", _keep(lambda x, r: _fit(x + 0.05))),
    Kind("constant offset", "0.2", "dc_offset", "warning", _keep(lambda x, r: _fit(0.7 * x + 0.2))),
    Kind("dropouts", "1 x 80 ms", "dropout", "warning", _drop(0.08, 1)),
    Kind("dropouts", "4 x 30 ms", "dropout", "warning", _drop(0.03, 4)),
    Kind("mains hum", "50 Hz, 20 dB below", "hum", "note", _hum(50, 20), (*_NOISY, "music")),
    Kind("mains hum", "60 Hz, 10 dB below", "hum", "note", _hum(60, 10), _NOISY),
    Kind("noisy", "12 dB", "snr_low", "note", _with_noise(12), _NOISY),
    Kind("noisy", "8 dB", "snr_low", "warning", _with_noise(8), _NOISY),
    Kind("noisy", "-6 dB", "snr_low", "error", _with_noise(-6), (*_NOISY, "music", "several_speakers")),
    Kind("silence before", "3 s", "lead_silence", "warning", _silence(lead_s=3)),
    Kind("silence before", "8 s", "lead_silence", "warning", _silence(lead_s=8), ("no_speech",)),
    Kind("silence after", "3 s", "trail_silence", "warning", _silence(trail_s=3)),
    Kind("silence after", "8 s", "trail_silence", "warning", _silence(trail_s=8), ("no_speech",)),
    Kind("pause inside", "4 s", "long_pause", "note", _silence(pause_s=4)),
    Kind("pause inside", "8 s", "long_pause", "warning", _silence(pause_s=8), ("no_speech",)),
    Kind("noise with a text", "pink", "no_speech", "error", _keep(lambda x, r: _noise(len(x), r, 0.02)), _NOISY),
    Kind("noise with a text", "quiet", "no_speech", "error", _keep(lambda x, r: _noise(len(x), r, 0.004)),
         (*_NOISY, "level_low")),
    Kind("speech without text", "", "text_missing", "error", _text(lambda t, r: "")),
    Kind("text too long", "x 3", "rate_fast", "warning", _more_text(2)),
    Kind("text too long", "x 5", "rate_fast", "error", _more_text(4)),
    Kind("text too short", "one word for 10 s", "rate_slow", "error", _slow("yes", 10), _TALKY),
    Kind("text too short", "two words for 8 s", "rate_slow", "warning", _slow("the farmer", 8), _TALKY),
    Kind("too many tokens", "", "tokens_many", "error", _more_text(50), ("rate_fast",)),
    Kind("letters of two scripts", "one Cyrillic letter", "mixed_script", "error", _swapped("e", "\u0435"),
         ("foreign_letters", "casing_unlike_corpus")),
    Kind("foreign alphabet", "a word", "foreign_letters", "warning", _end("человек", "старый"),
         ("mixed_script", "language_mismatch")),
    Kind("foreign alphabet", "all", "foreign_letters", "warning",
         _text(lambda t, r: f"{_RUSSIAN[int(r.integers(2))]} {int(r.integers(3)) * 'да '}".strip()),
         ("language_mismatch", "near_duplicate_text")),
    Kind("other language", "German", "language_mismatch", "warning", _text(lambda t, r: _GERMAN[int(r.integers(3))]),
         ("foreign_letters",)),
    Kind("other language", "French", "language_mismatch", "warning", _text(lambda t, r: _FRENCH[int(r.integers(3))]),
         ("foreign_letters",)),
    Kind("digits", "", "digits", "note", _end("20", "1984", "3 times")),
    Kind("symbols", "", "symbols", "note", _end("& more", "50 %", "a + b", "\U0001f600"), ("digits",)),
    Kind("web address", "", "symbols", "note", _end("at www.example.org", "mail me@example.org")),
    Kind("markup", "", "markup", "warning", _end("[noise]", "<unk>", "(laughs)", "&amp;"), ("symbols",)),
    Kind("speaker label", "", "markup", "warning", _text(lambda t, r: f"SPEAKER 1: {t}"),
         ("digits", "casing_unlike_corpus")),
    Kind("invisible characters", "", "control_characters", "warning", _end("x\u200b", "\u202ehi", "bell\x07")),
    Kind("mojibake", "UTF-8 as Latin-1", "mojibake", "error",
         _end("schÃ¶n", "cafÃ©", "donâ€™t"),
         ("symbols", "foreign_letters", "control_characters", "casing_unlike_corpus")),
    Kind("mojibake", "U+FFFD", "mojibake", "error", _end("caf\ufffd"), ("symbols",)),
    Kind("not NFC", "", "not_nfc", "note",
         _end(unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFD", "naïve"))),
    Kind("repeated phrase", "", "repeated_phrase", "warning", _text(lambda t, r: "i am going to the shop " * 8),
         ("rate_fast", "near_duplicate_text")),
    Kind("invented phrase", "", "hallucination_phrase", "warning",
         _text(lambda t, r: ("thank you for watching", "please subscribe", "thanks for watching")[int(r.integers(3))]),
         ("rate_slow",)),
    Kind("other casing", "capitals", "casing_unlike_corpus", "note", _text(lambda t, r: t.upper())),
    Kind("two speakers", "low, then high", "several_speakers", "note", _two_voices, _TALKY),
    Kind("music", "as loud as the voice", "music", "warning", _music(0),
         (*_NOISY, "several_speakers", "trail_silence")),
    Kind("music", "alone", "music", "warning", _music(25),
         (*_NOISY, "several_speakers", "rate_slow", "lead_silence", "trail_silence", "long_pause")),
    Kind("same audio", "same file", "duplicate_audio", "warning", _copied(lambda d, r: d)),
    Kind("same audio", "other container", "duplicate_audio", "warning",
         _copied(lambda d, r: replace(d, suffix=".wav"))),
    Kind("same audio, other text", "", "label_conflict", "error",
         _copied(lambda d, r: replace(d, text=sentence(r))), ("duplicate_audio",)),
    Kind("nearly the same audio", "MP3", "near_duplicate_audio", "warning",
         _copied(lambda d, r: replace(d, suffix=".mp3", write={"format": "MP3", "compression_level": 0.3})),
         ("bitrate_low",)),
    Kind("nearly the same audio", "quieter, noisier", "near_duplicate_audio", "warning",
         _copied(lambda d, r: replace(d, samples=0.5 * _with_noise(25)(d, r, []).samples)), ("snr_low",)),
    Kind("nearly the same audio", "cut", "near_duplicate_audio", "warning",
         _copied(lambda d, r: replace(d, samples=d.samples[4_000:]))),
    Kind("nearly the same text", "one letter", "near_duplicate_text", "note",
         _typing_error),
)
# fmt: on

VOLATILE = ("near_duplicate_text", "duplicate_audio", "near_duplicate_audio", "label_conflict")
"""Checks about pairs: a clean clip that a defect was copied from may rightly be named too."""


def write_planted(
    out: Path, *, per_kind: int = 8, clean: int = 300, seed: int = 0, base: Path | None = None
) -> dict[str, Any]:
    """Write the corpus and its ledger (utterance id: kind, level, check, severity, may); returns the ledger."""
    needed = clean + per_kind * len(KINDS)
    drafts = list(real_drafts(base, needed, seed) if base else clean_drafts(needed, seed))
    if len(drafts) < needed:
        raise SystemExit(f"{base} has {len(drafts)} utterances, {needed} are needed: lower --per-kind or --clean")
    random = np.random.default_rng(seed + 1)
    order = random.permutation(needed)
    good = [drafts[index] for index in order[:clean]]
    for number, draft in enumerate(good):
        draft.name = f"clean-{number:04d}"
    rows = [write_draft(out, draft.name, draft) for draft in good]
    ledger: dict[str, Any] = {}
    rest = iter(order[clean:])
    for kind_number, kind in enumerate(KINDS):
        for number in range(per_kind):
            name = f"bad-{kind_number:02d}-{number:02d}"
            draft = kind.apply(drafts[next(rest)], random, good)
            rows.append(write_draft(out, name, draft))
            facts = {key: getattr(kind, key) for key in ("level", "check", "severity")}
            ledger[name] = {"kind": kind.name, **facts, "may": list(kind.may), "partner": draft.partner}
    shuffled = [rows[index] for index in random.permutation(len(rows))]
    (out / METADATA).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shuffled), "utf-8")
    (out / "planted.json").write_text(json.dumps(ledger, ensure_ascii=False, indent=1), "utf-8")
    return ledger


def write_draft(out: Path, name: str, draft: Draft) -> dict[str, Any]:
    """Write one clip; returns its row."""
    path = out / "audio" / f"{name}{draft.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = draft.samples
    if not draft.write:  # libsndfile rounds differently for each container
        samples = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(path, samples, draft.rate_hz, **draft.write)
    if draft.spoil:
        draft.spoil(path)
    row = {
        "utterance_id": name,
        "file_name": f"audio/{path.name}",
        "text": draft.text,
        "duration_s": round(len(draft.samples) / draft.rate_hz, 4),
        "speaker_id": draft.speaker_id,
        "language": "en",
        "split": draft.split,
    }
    return {**row, **draft.row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-kind", type=int, default=8)
    parser.add_argument("--clean", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", type=Path, help="corpus to plant into, instead of synthetic speech")
    options = parser.parse_args()
    ledger = write_planted(
        options.out, per_kind=options.per_kind, clean=options.clean, seed=options.seed, base=options.base
    )
    print(f"{options.out}: {options.clean} clean clips, {len(ledger)} planted defects of {len(KINDS)} kinds and levels")


if __name__ == "__main__":
    main()
