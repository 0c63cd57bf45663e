"""Speech made from text, offline: voices for the vocabulary that recordings do not have.

Two steps, so that what was done can be logged and replayed: `plan_corpus` draws everything that is random (voice, rate,
pitch, level, noise) into a list of `Clip`; `render` applies one clip and draws nothing but the noise of its own seed.
Engines are pluggable (``engines.py``): espeak-ng and Piper, one file each.
"""

from __future__ import annotations

from speechtune.audio.augment.coloured import coloured_noise
from speechtune.corpus.synthesis.engines import Engine, EngineChoice, open_engine
from speechtune.corpus.synthesis.espeak import SAMPLE_RATE_HZ, Voice, check_pronunciation, engine_version, synthesise
from speechtune.corpus.synthesis.making import SynthesisOrder, SynthesisResult, synthesise_corpus
from speechtune.corpus.synthesis.planning import Clip, Sentence, VoiceDraw, plan_corpus
from speechtune.corpus.synthesis.writing import MAX_CLIP_S, SPEECH_LEVEL_DBFS, render, write_corpus

__all__ = [
    "Clip",
    "Engine",
    "EngineChoice",
    "MAX_CLIP_S",
    "SAMPLE_RATE_HZ",
    "SPEECH_LEVEL_DBFS",
    "Sentence",
    "SynthesisOrder",
    "SynthesisResult",
    "Voice",
    "VoiceDraw",
    "check_pronunciation",
    "coloured_noise",
    "engine_version",
    "open_engine",
    "plan_corpus",
    "render",
    "synthesise",
    "synthesise_corpus",
    "write_corpus",
]
