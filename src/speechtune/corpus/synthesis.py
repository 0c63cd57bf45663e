"""Speech made from text, offline: espeak-ng voices for a corpus of one's own vocabulary.

Two steps, so that what was done can be logged and replayed: `plan_corpus` draws everything that is random (voice, rate,
pitch, level, noise) into a list of `Clip`; `render` applies one clip and draws nothing but the noise of its own seed.

The engine is the shared library in the PyPI package ``espeakng-loader`` (espeak-ng 1.52, GPL-3.0-or-later, with its
data), driven through ctypes by the interface of its ``speak_lib.h``. espeak-ng keeps state in global variables: the
phase of its oscillator and its random generator carry over from one utterance to the next, and it is not thread-safe.
`synthesise` therefore loads the library afresh for every utterance (about 5 ms) under a lock; the same call then gives
the same samples whatever was said before it. That holds as long as nothing else in the process keeps the same library
file open, and with a C library whose ``dlclose`` unloads (glibc, macOS, Windows; not musl).
"""

from __future__ import annotations

import _ctypes
import atexit
import ctypes
import functools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import new_directory
from speechtune.core.progress import track
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus, Utterance

SAMPLE_RATE_HZ = 16000
SPEECH_LEVEL_DBFS = -26.0
"""Root-mean-square level of a clip with ``gain_db`` 0 (the nominal speech level of ITU-T P.56 practice)."""
MAX_CLIP_S = 10.0
SOURCE = "synthetic:espeak-ng"

# From speak_lib.h of espeak-ng 1.52.
_ENGINE_RATE_HZ = 22050
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_CHARS_UTF8, _PHONEMES = 0x0001, 0x0100
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_PHONEME = 0, 7
_VOLUME_WITHOUT_CLIPPING = 70  # at the default 100 several voices reach full scale inside the engine
_LONGEST_DATA_PATH_BYTES = 140  # espeak-ng cuts its data path at 160 bytes, ending included
_SEED = 1
_LOCK = threading.Lock()


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Voice:
    """An espeak-ng voice and how it speaks.

    ``name`` is a language voice with an optional variant after a plus sign: ``en-us+f3``, ``en+m2`` (British),
    ``en-029`` (Caribbean), ``en-gb-scotland``. ``rate_wpm`` is 80 to 450; ``pitch`` and ``pitch_range`` are 0 to 99 on
    espeak-ng's own scales (50 is the voice's normal).
    """

    name: str
    rate_wpm: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text to be spoken, the split it belongs to, the target terms in it, and its kind (a label for slices)."""

    text: str
    split: str
    terms: tuple[str, ...] = ()
    kind: str = "plain"


@dataclass(frozen=True, slots=True)
class VoiceDraw:
    """Everything random about one clip, drawn before anything is synthesised.

    ``gain_db`` is relative to `SPEECH_LEVEL_DBFS`; ``noise`` is ``white`` or ``pink``; ``lead_s`` and ``tail_s`` are
    the noise-only margins before and after the speech.
    """

    voice: Voice
    gain_db: float
    noise: str
    noise_snr_db: float
    noise_seed: int
    lead_s: float
    tail_s: float


@dataclass(frozen=True, slots=True)
class Clip:
    """One planned recording."""

    sentence: Sentence
    draw: VoiceDraw


def synthesise(text: str, voice: Voice, pronunciations: Mapping[str, str] | None = None) -> np.ndarray:
    """Speak ``text`` with espeak-ng.

    Args:
        text: one utterance. ``[[...]]`` holds espeak-ng phonemes, anything else is ordinary text.
        voice: who speaks, and how.
        pronunciations: espeak-ng phonemes for some words or phrases of the text.

    Returns:
        float32 samples in [-1, 1], shape (samples,), 16 kHz mono, without silence added.

    Raises:
        InputError: espeakng-loader is not installed, the voice is unknown, or nothing could be spoken.
    """
    import soxr

    samples, phonemes = _speak(_with_pronunciations(text, pronunciations or {}), voice)
    if not any(not name.startswith("_") for name in phonemes):
        raise InputError(f"espeak-ng made no sound of the text {text!r}: give it words to speak")
    speech = samples.astype(np.float32) / 32768.0
    return soxr.resample(speech, _ENGINE_RATE_HZ, SAMPLE_RATE_HZ, quality="HQ").astype(np.float32)


def check_pronunciation(term: str, phonemes: str, voice_name: str = "en-us") -> None:
    """Refuse a phoneme string that espeak-ng would cut short: it stops at the first phoneme it does not know.

    A known phoneme is put at the end; it is reached only if all before it were understood.

    Raises:
        InputError: the string holds a phoneme that this voice does not have.
    """
    _, spoken = _speak(f"[[{phonemes}tS]]", Voice(voice_name))
    names = [name for name in spoken if not name.startswith("_")]
    if not phonemes.strip() or "]]" in phonemes or not names or names[-1] != "tS":
        understood = " ".join(names) or "none"
        raise InputError(
            f"the pronunciation {phonemes!r} of {term!r} is not valid espeak-ng phonemes for voice {voice_name} "
            f"(understood: {understood}): correct it, for example h@l'oU for hello"
        )


def plan_corpus(sentences: Sequence[Sentence], voices: Mapping[str, Sequence[str]], seed: int) -> list[Clip]:
    """Draw a voice and a mild variation for every sentence.

    Ranges: 130-190 words a minute, pitch 35-65, pitch range 35-65, gain -6 to +6 dB, white or pink noise at 25-35 dB
    SNR, margins of 0.1-0.4 s. Within a split every voice speaks equally often, give or take one clip.

    Args:
        sentences: what to say; the order is kept.
        voices: the voice names of each split that occurs in ``sentences``.
        seed: the same seed and sentences give the same plan.

    Raises:
        InputError: a split has no voices.
    """
    random = np.random.default_rng(seed)
    decks: dict[str, list[str]] = {}
    plan = []
    for sentence in sentences:
        names = voices.get(sentence.split)
        if not names:
            raise InputError(f"the split {sentence.split!r} has no voices: name at least one for it")
        deck = decks.setdefault(sentence.split, [])
        if not deck:
            deck.extend(names[index] for index in random.permutation(len(names)))
        plan.append(Clip(sentence, _draw(deck.pop(), random)))
    return plan


def _draw(name: str, random: np.random.Generator) -> VoiceDraw:
    voice = Voice(
        name,
        rate_wpm=int(random.integers(130, 191)),
        pitch=int(random.integers(35, 66)),
        pitch_range=int(random.integers(35, 66)),
    )
    return VoiceDraw(
        voice=voice,
        gain_db=round(float(random.uniform(-6, 6)), 2),
        noise=("white", "pink")[int(random.integers(2))],
        noise_snr_db=round(float(random.uniform(25, 35)), 2),
        noise_seed=int(random.integers(2**31)),
        lead_s=round(float(random.uniform(0.1, 0.4)), 3),
        tail_s=round(float(random.uniform(0.1, 0.4)), 3),
    )


def render(clip: Clip, pronunciations: Mapping[str, str] | None = None) -> np.ndarray:
    """Apply a planned clip: float32 samples in [-1, 1], shape (samples,), 16 kHz mono.

    Raises:
        InputError: as `synthesise`.
    """
    draw = clip.draw
    speech = synthesise(clip.sentence.text, draw.voice, pronunciations)
    rms = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64))))
    target_rms = 10 ** ((SPEECH_LEVEL_DBFS + draw.gain_db) / 20)
    margins = (round(draw.lead_s * SAMPLE_RATE_HZ), round(draw.tail_s * SAMPLE_RATE_HZ))
    samples = np.pad(speech * (target_rms / max(rms, 1e-9)), margins)
    noise = coloured_noise(len(samples), draw.noise, draw.noise_seed)
    samples = samples + noise * target_rms * 10 ** (-draw.noise_snr_db / 20)
    return np.asarray(samples / max(1.0, float(np.abs(samples).max())), dtype=np.float32)


def coloured_noise(samples: int, colour: str, seed: int) -> np.ndarray:
    """Noise of root-mean-square 1, float64, shape (samples,): ``white``, or ``pink`` (power falling as 1/f)."""
    white = np.random.default_rng(seed).standard_normal(samples)
    if colour == "pink":
        spectrum = np.fft.rfft(white)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        white = np.fft.irfft(spectrum, samples)
    return white / np.sqrt(np.mean(np.square(white)))


def write_corpus(
    out: Path, plan: Sequence[Clip], pronunciations: Mapping[str, str], seed: int, overwrite: bool = False, **card: Any
) -> Corpus:
    """Render a plan into a corpus directory: ``audio/*.flac``, ``metadata.jsonl``, ``corpus.json``.

    ``speaker_id`` is the voice name; the extra columns are ``term`` (the terms joined by "; ", or null), ``kind``, and
    what was drawn: ``rate_wpm``, ``pitch``, ``pitch_range``, ``gain_db``, ``noise``, ``noise_snr_db``.
    A clip longer than 10 s is not written and is counted in ``dropped_by_reason``.

    Args:
        out: the directory to make.
        plan: from `plan_corpus`.
        pronunciations: espeak-ng phonemes of each target term; also written to ``corpus.json``, with the terms.
        seed: the seed of the plan, for the provenance.
        overwrite: replace ``out`` if it exists.
        card: further entries of ``corpus.json``.

    Raises:
        InputError: a pronunciation is not valid, ``out`` is not empty, or as `synthesise`.
    """
    import soundfile

    for term, phonemes in pronunciations.items():
        check_pronunciation(term, phonemes)
    rows: list[Utterance] = []
    dropped: dict[str, int] = {}
    with new_directory(out, overwrite) as draft:
        (draft / "audio").mkdir()
        for number, clip in enumerate(track(plan, "speaking")):
            samples = render(clip, pronunciations)
            if len(samples) > MAX_CLIP_S * SAMPLE_RATE_HZ:
                reason = f"longer_than_{MAX_CLIP_S:.0f}_s"
                dropped[reason] = dropped.get(reason, 0) + 1
                continue
            row = _row(clip, number, len(samples))
            soundfile.write(draft / row.file_name, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
            rows.append(row)
        corpus = Corpus(draft, rows)
        corpus.card = {
            "kept": len(rows),
            "dropped_by_reason": dropped,
            "seconds_of_audio": round(corpus.seconds_of_audio, 3),
            "terms": list(pronunciations),
            "pronunciations": dict(pronunciations),
            **card,
            "provenance": provenance(seed, source=SOURCE, engine=engine_version()),
        }
        corpus.save()
    return Corpus(out, rows, corpus.card)


def _row(clip: Clip, number: int, samples: int) -> Utterance:
    sentence, voice = clip.sentence, clip.draw.voice
    name = f"{sentence.split}-{number:04d}"
    return Utterance(
        utterance_id=name,
        file_name=f"audio/{name}.flac",
        text=sentence.text,
        duration_s=round(samples / SAMPLE_RATE_HZ, 4),
        speaker_id=voice.name,
        language=voice.name.split("-")[0].split("+")[0],
        split=sentence.split,
        source=SOURCE,
        extra={
            "term": "; ".join(sentence.terms) or None,
            "kind": sentence.kind,
            "rate_wpm": voice.rate_wpm,
            "pitch": voice.pitch,
            "pitch_range": voice.pitch_range,
            "gain_db": clip.draw.gain_db,
            "noise": clip.draw.noise,
            "noise_snr_db": clip.draw.noise_snr_db,
        },
    )


def engine_version() -> str:
    """The version of the espeak-ng library, for example ``espeak-ng 1.52.0``.

    Raises:
        InputError: espeakng-loader is not installed.
    """
    with _LOCK, _engine() as library:
        library.espeak_Info.restype = ctypes.c_char_p
        return f"espeak-ng {library.espeak_Info(None).decode()}"


def _with_pronunciations(text: str, pronunciations: Mapping[str, str]) -> str:
    """Put ``[[phonemes]]`` in place of every listed term (whole words, any case, longest term first)."""
    if not pronunciations:
        return text
    phonemes = {term.casefold(): spoken for term, spoken in pronunciations.items()}
    terms = "|".join(re.escape(term) for term in sorted(pronunciations, key=len, reverse=True))
    return re.sub(
        rf"(?<!\w)(?:{terms})(?!\w)", lambda match: f"[[{phonemes[match[0].casefold()]}]]", text, flags=re.IGNORECASE
    )


def _speak(text: str, voice: Voice) -> tuple[np.ndarray, list[str]]:
    """int16 samples at 22050 Hz, and the names of the phonemes that were spoken."""
    chunks: list[bytes] = []
    phonemes: list[str] = []

    @_Callback
    def receive(wave: int | None, samples: int, events: Any) -> int:
        if wave and samples > 0:
            chunks.append(ctypes.string_at(wave, 2 * samples))
        index = 0
        while events[index].type != _EVENT_END:
            if events[index].type == _EVENT_PHONEME:
                phonemes.append(events[index].id.string.decode("utf-8", "replace").lstrip("',%="))
            index += 1
        return 0

    encoded = text.encode()
    with _LOCK, _engine() as library:
        library.espeak_SetSynthCallback(receive)
        library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        _select_voice(library, voice.name)
        levels = {_RATE: voice.rate_wpm, _VOLUME: _VOLUME_WITHOUT_CLIPPING}
        for parameter, value in (levels | {_PITCH: voice.pitch, _RANGE: voice.pitch_range}).items():
            library.espeak_SetParameter(parameter, value, 0)
        size = ctypes.c_size_t(len(encoded) + 1)
        library.espeak_Synth(encoded, size, 0, 1, 0, _CHARS_UTF8 | _PHONEMES, None, None)
        library.espeak_Synchronize()
    return np.frombuffer(b"".join(chunks), dtype=np.int16), phonemes


def _select_voice(library: ctypes.CDLL, name: str) -> None:
    """espeak-ng says nothing about a variant it does not know, so that is looked up in its data here."""
    language, _, variant = name.partition("+")
    variants = {path.name for path in (Path(_data_path()) / "voices" / "!v").iterdir()}
    if variant and variant not in variants:
        known = ", ".join(sorted(variants, key=str.casefold))
        raise InputError(f"espeak-ng has no voice variant {variant!r} (voice {name!r}): use one of {known}")
    if not language or library.espeak_SetVoiceByName(name.encode()) != 0:
        raise InputError(
            f"espeak-ng has no voice {name!r}: use for example en (British), en-us, en-029, en-gb-scotland, "
            "with +f3 or +m2 after it for a variant"
        )


@contextmanager
def _engine() -> Iterator[ctypes.CDLL]:
    """espeak-ng with fresh global state; hold `_LOCK` around it."""
    library = ctypes.CDLL(_loader().get_library_path())
    unload = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary", None)
    try:
        options = _PHONEME_EVENTS | _DO_NOT_EXIT
        rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, _data_path().encode(), options)
        if rate_hz != _ENGINE_RATE_HZ:
            raise InputError(f"espeak-ng cannot read its data in {_data_path()}: reinstall espeakng-loader")
        try:
            yield library
        finally:
            library.espeak_Terminate()
    finally:
        if unload is not None:
            unload(library._handle)


@functools.cache
def _data_path() -> str:
    """The espeak-ng data directory, behind a short link if its path is too long for the engine."""
    path = str(_loader().get_data_path())
    if len(os.fsencode(path)) <= _LONGEST_DATA_PATH_BYTES:
        return path
    folder = tempfile.mkdtemp(prefix="espeak-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = Path(folder) / "espeak-ng-data"
    link.symlink_to(path, target_is_directory=True)
    return str(link)


def _loader() -> Any:
    try:
        import espeakng_loader
    except ImportError as error:
        raise missing_extra("espeakng-loader", "demo") from error
    return espeakng_loader
