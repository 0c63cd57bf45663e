"""A plan becomes a corpus: spoken in several processes, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.augment.coloured import coloured_noise
from speechtune.audio.augment.measure import NOMINAL_SPEECH_DBFS
from speechtune.audio.io import write_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.core.provenance import provenance
from speechtune.corpus.resumable import resumable_directory
from speechtune.corpus.synthesis.engines import EngineChoice, open_engine
from speechtune.corpus.synthesis.espeak import SAMPLE_RATE_HZ
from speechtune.corpus.synthesis.planning import Clip
from speechtune.corpus.table import Corpus, Utterance
from speechtune.corpus.workers import in_order

SPEECH_LEVEL_DBFS = NOMINAL_SPEECH_DBFS
"""Root-mean-square level of a clip with ``gain_db`` 0 (the nominal speech level of ITU-T P.56 practice)."""
MAX_CLIP_S = 10.0
_PER_PROCESS = 40
"""A further process is started for each so many clips: starting one takes about a second."""

Piece = tuple[Clip, Path, dict[str, str], EngineChoice, float]


def render(
    clip: Clip, pronunciations: Mapping[str, str] | None = None, engine: EngineChoice | None = None
) -> np.ndarray:
    """Apply a planned clip: float32 samples in [-1, 1], shape (samples,), 16 kHz mono.

    Raises:
        InputError: as the engine's ``speak``.
    """
    draw = clip.draw
    speaker = open_engine(engine or EngineChoice())
    speech = speaker.speak(clip.sentence.text, draw.voice, draw.noise_seed, pronunciations or {})
    rms = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64))))
    target_rms = 10 ** ((SPEECH_LEVEL_DBFS + draw.gain_db) / 20)
    margins = (round(draw.lead_s * SAMPLE_RATE_HZ), round(draw.tail_s * SAMPLE_RATE_HZ))
    samples = np.pad(speech * (target_rms / max(rms, 1e-9)), margins)
    noise = coloured_noise(len(samples), draw.noise, draw.noise_seed)
    samples = samples + noise * target_rms * 10 ** (-draw.noise_snr_db / 20)
    return np.asarray(samples / max(1.0, float(np.abs(samples).max())), dtype=np.float32)


def write_corpus(
    out: Path,
    plan: Sequence[Clip],
    pronunciations: Mapping[str, str],
    seed: int,
    overwrite: bool = False,
    *,
    engine: EngineChoice | None = None,
    max_clip_s: float = MAX_CLIP_S,
    workers: int | None = None,
    **card: Any,
) -> Corpus:
    """Render a plan into a corpus directory: ``audio/*.flac``, ``metadata.jsonl``, ``corpus.json``.

    ``speaker_id`` is the voice name; the extra columns are ``synthetic`` (true), ``engine``, ``voice``, ``term`` (the
    terms joined by "; ", or null), ``kind``, and what was drawn: the voice's own columns, ``gain_db``, ``noise``,
    ``noise_snr_db``. A clip that is too long, or of whose text the engine makes no sound, is not written and is counted
    in ``dropped_by_reason``. An interrupted call continues where it was.

    Args:
        out: the directory to make.
        plan: from `plan_corpus`.
        pronunciations: the engine's phonemes of each target term; also written to ``corpus.json``, with the terms.
        seed: the seed of the plan, for the provenance.
        overwrite: replace ``out`` if it exists.
        engine: who speaks (``None``: espeak-ng).
        max_clip_s: longest clip.
        workers: processes (``None``: one per core).
        card: further entries of ``corpus.json``.

    Raises:
        InputError: a pronunciation is not valid, ``out`` is not empty, the engine is missing, or nothing was spoken.
    """
    choice = engine or EngineChoice()
    speaker = open_engine(choice)
    speaker.check(pronunciations, plan[0].draw.voice.name if plan else "en-us")
    names = [clip.name or f"{clip.sentence.split}-{number:04d}" for number, clip in enumerate(plan)]
    facts = [[name, asdict(clip)] for name, clip in zip(names, plan, strict=True)]
    said = json.dumps([facts, dict(pronunciations), asdict(choice), speaker.version(), max_clip_s])
    rows: list[Utterance] = []
    dropped: dict[str, int] = {}
    with resumable_directory(out, hashlib.sha256(said.encode()).hexdigest(), overwrite) as shop:
        pieces: list[Piece] = [
            (clip, shop.folder / f"audio/{name}.flac", dict(pronunciations), choice, max_clip_s)
            for name, clip in zip(names, plan, strict=True)
            if name not in shop.done
        ]
        waiting = [name for name in names if name not in shop.done]
        processes = min(workers or os.cpu_count() or 1, len(pieces) // _PER_PROCESS + 1)
        made = track(in_order(_speak, pieces, processes), "speaking", len(pieces))
        for name, result in zip(waiting, made, strict=True):
            shop.finish(name, result)
        for name, clip in zip(names, plan, strict=True):
            result = shop.done[name]
            if "dropped" in result:
                dropped[result["dropped"]] = dropped.get(result["dropped"], 0) + 1
            else:
                rows.append(_row(clip, name, result["samples"], speaker.name))
        if plan and not rows:
            raise InputError(f"no text could be spoken ({dropped}): check the texts and the language")
        corpus = Corpus(shop.folder, rows)
        corpus.card = {
            "kept": len(rows),
            "dropped_by_reason": dropped,
            "seconds_of_audio": round(corpus.seconds_of_audio, 3),
            "terms": list(pronunciations),
            "pronunciations": dict(pronunciations),
            **card,
            "provenance": provenance(seed, source=f"synthetic:{speaker.name}", engine=speaker.version()),
        }
        corpus.save()
    return Corpus(out, rows, corpus.card)


def _speak(piece: Piece) -> dict[str, Any]:
    clip, path, pronunciations, choice, max_clip_s = piece
    try:
        samples = render(clip, pronunciations, choice)
    except InputError as error:
        if "made no sound" in str(error):
            return {"dropped": "no sound was made of the text"}
        raise
    if len(samples) > max_clip_s * SAMPLE_RATE_HZ:
        return {"dropped": f"longer_than_{max_clip_s:.0f}_s"}
    write_audio(path, samples)
    return {"samples": len(samples)}


def _row(clip: Clip, name: str, samples: int, engine: str) -> Utterance:
    sentence, voice = clip.sentence, clip.draw.voice
    return Utterance(
        utterance_id=name,
        file_name=f"audio/{name}.flac",
        text=sentence.text,
        duration_s=round(samples / SAMPLE_RATE_HZ, 4),
        speaker_id=voice.name,
        language=voice.language,
        split=sentence.split,
        source=f"synthetic:{engine}",
        extra={
            "synthetic": True,
            "engine": engine,
            "voice": voice.name,
            "term": "; ".join(sentence.terms) or None,
            "kind": sentence.kind,
            **voice.columns(),
            "gain_db": clip.draw.gain_db,
            "noise": clip.draw.noise,
            "noise_snr_db": clip.draw.noise_snr_db,
        },
    )
