"""Words that a model invents on silence, noise and music, before and after the guards; and what speech loses by them.

    python benchmarks/hallucination.py whisper-tiny.en --noise ../shared/data/noise --speech CORPUS --out figures.json

The clips are made from a seed: digital silence, a quiet room, coloured noise, hum, recorded noise beds (with
``--noise``) and synthetic music. ``--speech`` is a corpus whose WER must not change beyond its interval.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import load_audio
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guards import active_guard
from speechtune.decoding.searching import Searcher
from speechtune.decoding.sources import open_model
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.bootstrap import bootstrap_interval
from speechtune.scoring.score import compare, score_transcripts

RATE_HZ = 16_000
USES = ("off", "safe", "on")
KINDS = ("silence", "room", "coloured", "hum", "bed", "music")


def clip(kind: str, rng: np.random.Generator, beds: list[np.ndarray]) -> np.ndarray:
    """One clip of 2 to 12 s without speech."""
    length = int(rng.uniform(2.0, 12.0) * RATE_HZ)
    if kind == "silence":
        return np.zeros(length, np.float32)
    if kind == "room":
        return coloured(length, 1.0, rng) * level(rng, -70, -50)
    if kind == "coloured":
        return coloured(length, rng.uniform(-1.0, 2.0), rng) * level(rng, -40, -12)
    if kind == "hum":
        base_hz = float(rng.choice([50.0, 60.0]))
        time = np.arange(length) / RATE_HZ
        tone = sum(np.sin(2 * math.pi * base_hz * k * time) / k for k in range(1, 8))
        return unit(np.asarray(tone)) * level(rng, -45, -20)
    if kind == "bed" and beds:
        bed = beds[int(rng.integers(len(beds)))]
        start = int(rng.integers(max(1, len(bed) - length)))
        return unit(bed[start : start + length]) * level(rng, -40, -12)
    if kind == "bed":
        gate = np.repeat(rng.random(length // 1600 + 1) < 0.3, 1600)[:length]
        return unit(coloured(length, 0.5, rng) * (0.1 + gate)) * level(rng, -40, -12)
    return music(length, rng) * level(rng, -30, -12)


def coloured(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by ``slope`` x 3 dB an octave, at root mean square 1."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE_HZ), 20.0)
    return unit(np.fft.irfft(spectrum * frequency ** (-slope / 2), length))


def music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Chords, a melody and a beat at a steady tempo."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    root_hz, beat_s = 110.0 * 2 ** rng.uniform(0, 1), rng.uniform(0.3, 0.6)
    result = np.zeros(length)
    for beat in range(int(length / RATE_HZ / beat_s) + 1):
        start = int(beat * beat_s * RATE_HZ)
        chord = scale[(np.array([0, 2, 4]) + int(rng.integers(7))) % 7] if beat % 4 == 0 else []
        notes = [*(root_hz * 2 ** (n / 12) for n in chord), 2 * root_hz * 2 ** (int(rng.choice(scale)) / 12)]
        for hz in notes:
            add(result, start, tone(hz, (4 if len(notes) > 1 else 1) * beat_s))
        add(result, start, 0.4 * rng.standard_normal(800) * np.exp(-np.arange(800) / 120))
    return unit(result)


def tone(hz: float, seconds: float) -> np.ndarray:
    """A plucked note with six partials."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    partials = sum(np.sin(2 * math.pi * hz * k * time) / k**1.5 for k in range(1, 7))
    return np.asarray(partials) * np.exp(-3.0 * time / seconds) * np.minimum(1, time / 0.01)


def add(onto: np.ndarray, start: int, what: np.ndarray) -> None:
    """Add in place, cut at the end."""
    stop = min(len(onto), start + len(what))
    onto[start:stop] += what[: max(0, stop - start)]


def unit(values: np.ndarray) -> np.ndarray:
    """The same at root mean square 1."""
    return np.asarray(values, np.float32) / max(float(np.sqrt(np.mean(np.square(values)))), 1e-9)


def level(rng: np.random.Generator, low_db: float, high_db: float) -> np.float32:
    """A factor for root mean square 1."""
    return np.float32(10 ** (rng.uniform(low_db, high_db) / 20))


def make_corpus(root: Path, count: int, noise: Path | None, seed: int) -> None:
    """``count`` clips, the kinds in turn, as a corpus with empty texts; the kind is the column ``session_id``."""
    from speechtune.audio.io import AUDIO_SUFFIXES, write_audio
    from speechtune.corpus.table import Utterance

    files = sorted(one for one in noise.iterdir() if one.suffix in AUDIO_SUFFIXES) if noise and noise.is_dir() else []
    beds = [load_audio(one, 0.0, 60.0) if seconds_of(one) > 60 else load_audio(one) for one in files]
    rows = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        samples = np.clip(clip(kind, np.random.default_rng([seed, number]), beds), -0.99, 0.99).astype(np.float32)
        name = f"{number:03d}-{kind}.wav"
        write_audio(root / name, samples)
        rows.append(
            Utterance(
                utterance_id=f"{number:03d}-{kind}",
                file_name=name,
                text="",
                duration_s=len(samples) / RATE_HZ,
                session_id=kind,
            )
        )
    Corpus(root, rows, {}).save()


def seconds_of(path: Path) -> float:
    """Length of a file."""
    from speechtune.audio.io import probe

    return probe(path).duration_s


def decode(opened: Any, corpus: Corpus) -> dict[str, list[Transcript]]:
    """Transcripts with the guards off, safe and on. The clips are decoded once: a guard is given what was found."""
    family, utterances = opened.family, corpus.utterances
    searcher = Searcher(family, opened.decoding)
    guards = {use: active_guard(family, with_guards(opened.decoding, use)) for use in USES}
    found: dict[str, dict[str, Transcript]] = {use: {} for use in USES}
    family.model.eval()
    for batch, n_frames in track(plan_batches(family, utterances, opened.decoding), "decode"):
        waveforms = [load_audio(corpus.path_of(one), one.start_s, one.end_s) for one in batch]
        names = [one.utterance_id for one in batch]
        said = searcher.transcripts(names, waveforms, n_frames)
        for use, guard in guards.items():
            own = [replace(one, flags=[*one.flags]) for one in said]
            own = own if guard is None else guard.watch(own, waveforms, n_frames)
            found[use].update(zip(names, own, strict=True))
    return {use: [own[one.utterance_id] for one in utterances] for use, own in found.items()}


def with_guards(config: DecodingConfig, use: str) -> DecodingConfig:
    """The configuration with ``guards.use``."""
    return config.model_copy(update={"guards": config.guards.model_copy(update={"use": use})})


def invented(corpus: Corpus, transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """Inserted words a minute by kind of sound, with an interval over clips for all of them."""
    words: dict[str, float] = {}
    minutes: dict[str, float] = {}
    for utterance, transcript in zip(corpus, transcripts, strict=True):
        for kind in (utterance.session_id or "", "all"):
            words[kind] = words.get(kind, 0) + len(transcript.text.split())
            minutes[kind] = minutes.get(kind, 0) + utterance.duration_s / 60
    counts = np.array([len(one.text.split()) for one in transcripts])
    lengths = np.array([round(100 * one.duration_s) for one in corpus])
    interval = bootstrap_interval(counts, lengths)
    return {
        "clips": len(corpus),
        "touched": sum(bool(one.interventions) for one in transcripts),
        "words_per_minute": {kind: round(words[kind] / minutes[kind], 2) for kind in minutes},
        "interval": [round(6000 * interval.low, 2), round(6000 * interval.high, 2)] if interval else None,
        "left": sorted({one.text for one in transcripts if one.text})[:20],
    }


def judged(corpus: Corpus, said: dict[str, list[Transcript]], language: str | None) -> dict[str, dict[str, Any]]:
    """WER of speech with its interval, and the difference to guards off."""
    scores = {use: score_transcripts(corpus, own, language=language) for use, own in said.items()}
    found = {}
    for use, score in scores.items():
        facts = score.to_json()
        found[use] = {
            "clips": len(corpus),
            "touched": sum(bool(one.interventions) for one in said[use]),
            **{name: facts[name] for name in ("wer", "interval", "errors", "reference_words")},
            "difference_to_off": compare(scores["off"], score).wer.to_json(),
        }
    return found


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--speech-split")
    parser.add_argument("--speech-clips", type=int)
    parser.add_argument("--language")
    parser.add_argument("--context", choices=("fit", "full"), help="as the model was trained where not given")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    opened = open_model(given.model, language=given.language, context=given.context, batch_size=given.batch_size)
    figures: dict[str, Any] = {"model": given.model, "context": opened.decoding.context, "seed": given.seed}
    with tempfile.TemporaryDirectory() as place:
        make_corpus(Path(place), given.clips, given.noise, given.seed)
        silent = Corpus.load(Path(place))
        for use, transcripts in decode(opened, silent).items():
            figures[use] = {"no speech": invented(silent, transcripts)}
            print(use, json.dumps(figures[use], ensure_ascii=False), flush=True)
    if given.speech:
        speech = Corpus.load(given.speech)
        speech = speech.split(given.speech_split) if given.speech_split else speech
        if given.speech_clips:
            step = max(1, len(speech) // given.speech_clips)
            speech = Corpus(speech.root, speech.utterances[::step][: given.speech_clips], speech.card)
        for use, facts in judged(speech, decode(opened, speech), opened.family.language).items():
            figures[use]["speech"] = facts
            print(use, json.dumps(facts, ensure_ascii=False), flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
