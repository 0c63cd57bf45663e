"""The Piper engine: neural voices from model files that are already on this machine.

Either the ``piper-tts`` package (GPL-3.0-or-later, OHF-voice/piper1-gpl) or a ``piper`` executable is used; neither is
ever downloaded, nor a voice. Piper adds random numbers inside the network. With the package they are seeded for each
clip, for which the network has to be loaded anew (1.2 s for a medium voice, measured); with the executable they cannot
be, and the same call gives slightly other samples.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, resample
from speechtune.core.errors import InputError, SpeechtuneError

_OTHER_SPEAKER = "#"
_LONGEST_SENTENCE_S = 300


@dataclass(frozen=True, slots=True)
class PiperVoice:
    """A speaker of a model, and how it speaks: ``length_scale`` above 1 is slower; the noise scales vary the sound."""

    name: str
    language: str
    length_scale: float = 1.0
    noise_scale: float = 0.667
    noise_w_scale: float = 0.8

    def columns(self) -> dict[str, float]:
        """What was drawn, for the corpus table."""
        return {
            "length_scale": self.length_scale,
            "noise_scale": self.noise_scale,
            "noise_w_scale": self.noise_w_scale,
        }


class Piper:
    """Piper as an engine (`speechtune.corpus.synthesis.engines.Engine`).

    Args:
        models: voice model files (``.onnx``, each with its ``.onnx.json`` beside it).

    Raises:
        InputError: no model is given, one is missing, or Piper is not installed.
    """

    name = "piper"

    def __init__(self, models: Sequence[str]) -> None:
        if not models:
            raise InputError(
                "piper needs a voice model: name a .onnx file with --piper-model (voices: "
                "https://huggingface.co/rhasspy/piper-voices)"
            )
        self.models: dict[str, Path] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        for given in models:
            path = Path(given)
            stem = path.name.removesuffix(".onnx")
            self.configs[stem] = _config(path)
            self.models[stem] = path
        self.package = _package()
        self.executable = shutil.which("piper")
        if self.package is None and self.executable is None:
            raise InputError("piper is not installed: run pip install piper-tts, or put a piper executable on the PATH")

    def version(self) -> str:
        """For example ``piper-tts 1.8.0``; an executable does not tell its version in every release."""
        from importlib import metadata

        return (
            f"piper-tts {metadata.version('piper-tts')}" if self.package is not None else f"piper ({self.executable})"
        )

    def voices(self, language: str) -> list[str]:
        """Every speaker of every given model of a language, as ``model`` or ``model#speaker``.

        Raises:
            InputError: no given model speaks it.
        """
        wanted = language.lower().replace("-", "_")
        found = []
        for stem, config in self.configs.items():
            codes = {self._code(stem).lower(), self._code(stem).lower().split("_")[0]}
            if wanted in codes:
                speakers = int(config.get("num_speakers") or 1)
                found += [stem] if speakers == 1 else [f"{stem}{_OTHER_SPEAKER}{index}" for index in range(speakers)]
        if not found:
            spoken = ", ".join(f"{stem} ({self._code(stem)})" for stem in self.configs)
            raise InputError(f"no given piper voice speaks {language!r} (given: {spoken}): name another --piper-model")
        return found

    def _code(self, stem: str) -> str:
        config = self.configs[stem]
        return str(config.get("language", {}).get("code") or config.get("espeak", {}).get("voice") or "").replace(
            "-", "_"
        )

    def draw_voice(self, name: str, rng: np.random.Generator) -> PiperVoice:
        """The named voice at 0.85 to 1.2 of its own length, its noise scales at 0.8 to 1.2 of the model's."""
        stem = name.split(_OTHER_SPEAKER)[0]
        usual = self.configs[stem].get("inference", {})
        return PiperVoice(
            name,
            self._code(stem).split("_")[0],
            length_scale=round(float(usual.get("length_scale", 1.0) * rng.uniform(0.85, 1.2)), 3),
            noise_scale=round(float(usual.get("noise_scale", 0.667) * rng.uniform(0.8, 1.2)), 3),
            noise_w_scale=round(float(usual.get("noise_w", 0.8) * rng.uniform(0.8, 1.2)), 3),
        )

    def check(self, pronunciations: Mapping[str, str], voice: str) -> None:
        """Piper takes spelling only.

        Raises:
            InputError: there is a pronunciation.
        """
        if pronunciations:
            raise InputError(
                f"piper cannot use the pronunciation of {next(iter(pronunciations))!r}: use --engine espeak, or leave "
                "pronunciations out and spell the term as it sounds"
            )

    def speak(self, text: str, voice: PiperVoice, seed: int, pronunciations: Mapping[str, str]) -> np.ndarray:
        """Speak one text.

        Raises:
            InputError: nothing could be spoken.
            SpeechtuneError: the executable failed.
        """
        stem, _, number = voice.name.partition(_OTHER_SPEAKER)
        speaker = int(number) if number else None
        if self.package is not None:
            samples, rate_hz = self._with_package(self.models[stem], text, voice, speaker, seed)
        else:
            samples, rate_hz = self._with_executable(self.models[stem], text, voice, speaker)
        if not len(samples) or not np.abs(samples).max() > 0:
            raise InputError(f"piper made no sound of the text {text!r}: give it words to speak")
        return resample(samples, rate_hz, SAMPLE_RATE_HZ)

    def _with_package(
        self, model: Path, text: str, voice: PiperVoice, speaker: int | None, seed: int
    ) -> tuple[np.ndarray, int]:
        import onnxruntime

        settings = self.package.SynthesisConfig(
            speaker_id=speaker,
            length_scale=voice.length_scale,
            noise_scale=voice.noise_scale,
            noise_w_scale=voice.noise_w_scale,
        )
        loaded = _loaded(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        onnxruntime.set_seed(seed)  # taken over by the sessions that are made after it
        loaded.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        chunks = list(loaded.synthesize(text, syn_config=settings))
        parts = [chunk.audio_int16_array for chunk in chunks]
        rate_hz = chunks[0].sample_rate if chunks else SAMPLE_RATE_HZ
        whole = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        return whole.astype(np.float32) / 32768.0, rate_hz

    def _with_executable(
        self, model: Path, text: str, voice: PiperVoice, speaker: int | None
    ) -> tuple[np.ndarray, int]:
        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "speech.wav"
            command = [str(self.executable), "--model", str(model), "--output_file", str(wave)]
            command += ["--length_scale", str(voice.length_scale), "--noise_scale", str(voice.noise_scale)]
            command += ["--noise_w", str(voice.noise_w_scale)]
            command += [] if speaker is None else ["--speaker", str(speaker)]
            line = " ".join(text.split()) + "\n"
            done = subprocess.run(
                command, input=line.encode(), capture_output=True, timeout=_LONGEST_SENTENCE_S, check=False
            )
            if done.returncode or not wave.is_file():
                said = " ".join(done.stderr.decode("utf-8", "replace").split())[-200:]
                raise SpeechtuneError(f"{self.executable} failed on the text {text!r} ({said}): try it by hand")
            samples, rate_hz = soundfile.read(io.BytesIO(wave.read_bytes()), dtype="float32")
        return samples, int(rate_hz)


@lru_cache(maxsize=8)
def _loaded(model: Path) -> Any:
    """The voice with its phonemiser; its session is made anew for each clip."""
    return _package().PiperVoice.load(str(model))


def _package() -> Any:
    try:
        import piper
    except ImportError:
        return None
    return piper if hasattr(piper, "PiperVoice") else None  # another package is called piper too


def _config(model: Path) -> dict[str, Any]:
    path = model.with_name(model.name + ".json")
    for needed in (model, path):
        if not needed.is_file():
            raise InputError(f"the piper voice file {needed} does not exist: check --piper-model")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): download the voice again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a piper voice description: download the voice again")
    return config
