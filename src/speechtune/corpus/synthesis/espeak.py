"""The espeak-ng engine: the shared library in the PyPI package ``espeakng-loader``, driven through ctypes.

espeak-ng 1.52 (GPL-3.0-or-later, with its data) by the interface of its ``speak_lib.h``. It keeps state in global
variables: the phase of its oscillator and its random generator carry over from one utterance to the next, and it is not
thread-safe. `synthesise` therefore loads the library afresh for every utterance (about 5 ms) under a lock; the same
call then gives the same samples whatever was said before it. That holds as long as nothing else in the process keeps
the same library file open, and with a C library whose ``dlclose`` unloads (glibc, macOS, Windows; not musl).
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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, missing_extra

SAMPLE_RATE_HZ = 16000

# From speak_lib.h of espeak-ng 1.52.
_ENGINE_RATE_HZ = 22050
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_CHARS_UTF8, _PHONEMES = 0x0001, 0x0100
_IPA = 0x0002
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_PHONEME = 0, 7
_VOLUME_WITHOUT_CLIPPING = 70  # at the default 100 several voices reach full scale inside the engine
_LONGEST_DATA_PATH_BYTES = 140  # espeak-ng cuts its data path at 160 bytes, ending included
_SEED = 1
_VARIANTS = ("", "+f2", "+m3", "+f3", "+m2", "+f4", "+m4", "+f5", "+m5", "+f1", "+m6", "+m7", "+m1")
_UNFIT = frozenset({"en-shaw"})  # reads the Shavian alphabet only
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

    @property
    def language(self) -> str:
        """The language code of the voice, without its accent."""
        return self.name.split("-")[0].split("+")[0]

    def columns(self) -> dict[str, int]:
        """What was drawn, for the corpus table."""
        return {"rate_wpm": self.rate_wpm, "pitch": self.pitch, "pitch_range": self.pitch_range}


class Espeak:
    """espeak-ng as an engine (`speechtune.corpus.synthesis.engines.Engine`)."""

    name = "espeak-ng"

    def version(self) -> str:
        """For example ``espeak-ng 1.52.0``."""
        return engine_version()

    def voices(self, language: str) -> list[str]:
        """Every accent of a language, each with the ordinary variants of its voice (f1 to f5, m1 to m7).

        Raises:
            InputError: espeak-ng does not know the language, or espeakng-loader is not installed.
        """
        wanted = language.lower().replace("_", "-")
        known = {path.name.lower() for path in (Path(_data_path()) / "lang").rglob("*") if path.is_file()}
        accents = sorted(name for name in known - _UNFIT if name == wanted or name.startswith(f"{wanted}-"))
        if not accents:
            raise InputError(f"espeak-ng has no language {language!r}: use a code such as en, hi, te, it or he")
        return [accent + variant for variant in _VARIANTS for accent in accents]

    def draw_voice(self, name: str, rng: np.random.Generator) -> Voice:
        """The named voice at 130-190 words a minute, pitch and pitch range 35-65."""
        return Voice(
            name,
            rate_wpm=int(rng.integers(130, 191)),
            pitch=int(rng.integers(35, 66)),
            pitch_range=int(rng.integers(35, 66)),
        )

    def check(self, pronunciations: Mapping[str, str], voice: str) -> None:
        """Refuse phonemes that the voice does not have (`check_pronunciation`)."""
        for term, phonemes in pronunciations.items():
            check_pronunciation(term, phonemes, voice)

    def speak(self, text: str, voice: Voice, seed: int, pronunciations: Mapping[str, str]) -> np.ndarray:
        """`synthesise`; the engine draws nothing, so the seed is not used."""
        return synthesise(text, voice, pronunciations)


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


def engine_version() -> str:
    """The version of the espeak-ng library, for example ``espeak-ng 1.52.0``.

    Raises:
        InputError: espeakng-loader is not installed.
    """
    with _LOCK, _engine() as library:
        library.espeak_Info.restype = ctypes.c_char_p
        return f"espeak-ng {library.espeak_Info(None).decode()}"


def ipa_of(texts: Iterable[str], voice_name: str) -> list[str]:
    """How espeak-ng reads each text, in the International Phonetic Alphabet, stress and length marks included.

    Raises:
        InputError: espeakng-loader is not installed, or the voice is unknown.
    """
    with _LOCK, _engine() as library:
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = (ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int)
        _select_voice(library, voice_name)
        read = []
        for text in texts:
            rest, parts = ctypes.c_char_p(text.encode()), []
            while rest.value:  # one clause a call; the pointer moves on and is null at the end
                parts.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARS_UTF8, _IPA) or b"")
            read.append(" ".join(part.decode("utf-8", "replace").strip() for part in parts))
        return read


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
