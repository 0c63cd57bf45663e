"""Align and cut a long recording whose truth is known, because it was joined from short utterances.

Utterances of the given corpora are trimmed to their speech, drawn at random, joined with pauses of 0 to 3 s, and laid
over a noise bed. The transcript is their texts in a row, without any mark where one ends. Reported: how far the located
first and last words of utterances are from the truth, words lost, doubled or put into a piece that does not hold their
utterance, cuts that fall into sound, the longest piece, and the time it took.

With ``--mode vad`` or ``fixed`` the recording is cut without its transcript: how much of the utterances' sound is in no
piece, how many utterances are heard whole in one, and which cuts fall into sound.

With ``--wrong 0.1`` the text of every tenth utterance is exchanged for another's: how many of those are marked?

    python benchmarks/segmentation.py --corpus CHILDREN --corpus ADULTS --model whisper-tiny.en --minutes 10
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.corpus.segmentation.cuts import HOP_SAMPLES, SAMPLE_RATE_HZ, frame_energy_db
from speechtune.corpus.segmentation.pieces import Piece, SegmentationConfig, TimedWord, count_hows, segment
from speechtune.corpus.table import Corpus, Utterance

SOUND_DB = 30.0
NOISE_DB = 10.0
"""A frame is sound if it is at most 30 dB below its utterance's loudest frames and at least 10 dB above the level that
a tenth of the frames stay under (clean audio; many of the recordings hiss)."""


@dataclass(slots=True)
class Truth:
    """One utterance in the long recording: samples, the text it says, the text the transcript claims, its sound."""

    start: int
    end: int
    text: str
    claimed: str
    sound: np.ndarray


@dataclass(slots=True)
class Recording:
    """The joined recording and what is in it."""

    waveform: np.ndarray
    truths: list[Truth]

    @property
    def text(self) -> str:
        """The transcript."""
        return " ".join(truth.claimed for truth in self.truths)


def build(corpora: list[Path], seconds: float, noise: Path | None, snr_db: float, wrong: float, seed: int) -> Recording:
    """Join utterances until the recording is ``seconds`` long."""
    from speechtune.audio.io import load_audio

    rng = np.random.default_rng(seed)
    pool = [(corpus, utterance) for corpus in map(Corpus.load, corpora) for utterance in corpus]
    parts: list[np.ndarray] = [np.zeros(SAMPLE_RATE_HZ, np.float32)]
    truths: list[Truth] = []
    length = len(parts[0])
    for number in rng.permutation(len(pool)):
        corpus, utterance = pool[number]
        clip, sound = trimmed(load_audio(corpus.path_of(utterance)))
        claimed = pool[rng.integers(len(pool))][1].text if rng.random() < wrong else utterance.text
        truths.append(Truth(length, length + len(clip), utterance.text, claimed, sound))
        pause = np.zeros(int(rng.choice([0.05, 0.3, 0.8, 3.0]) * rng.uniform(0.5, 1.0) * SAMPLE_RATE_HZ), np.float32)
        parts += [clip, pause]
        length += len(clip) + len(pause)
        if length >= seconds * SAMPLE_RATE_HZ:
            break
    speech = np.concatenate(parts)
    bed = rng.standard_normal(len(speech)).astype(np.float32)
    if noise is not None:
        bed = np.resize(load_audio(noise), len(speech))
    voiced = np.concatenate([speech[truth.start : truth.end] for truth in truths])
    gain = np.sqrt(np.mean(voiced**2) / np.mean(bed**2)) * 10 ** (-snr_db / 20)
    return Recording(np.clip(speech + gain * bed, -1, 1).astype(np.float32), truths)


def trimmed(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clip from its first to its last frame of sound (0.05 s or longer), and which 10 ms hops of it are sound."""
    energy_db = frame_energy_db(clip)
    quiet, peak = np.percentile(energy_db, [10, 98])
    loud = energy_db > max(peak - SOUND_DB, quiet + NOISE_DB)
    steady = np.convolve(loud, np.ones(5), "same") >= 5
    first, last = np.flatnonzero(steady)[[0, -1]] if steady.any() else (2, len(loud) - 3)
    first, last = max(0, first - 2), last + 3
    return clip[first * HOP_SAMPLES : last * HOP_SAMPLES], loud[first:last]


def measure(recording: Recording, words: list[TimedWord], pieces: list[Piece]) -> dict[str, Any]:
    """Everything that is reported except time."""
    said = [word for piece in pieces for word in piece.text.split()]
    counts = [len(truth.claimed.split()) for truth in recording.truths]
    bounds = np.cumsum([0, *counts])
    right = [truth.claimed == truth.text for truth in recording.truths]
    start_s, end_s = [], []
    for truth, first, last, good in zip(recording.truths, bounds, bounds[1:], right, strict=False):
        if good and last > first:
            start_s.append(words[first].start_s - truth.start / SAMPLE_RATE_HZ)
            end_s.append(words[last - 1].end_s - truth.end / SAMPLE_RATE_HZ)
    owner = np.repeat(np.arange(len(counts)), counts)
    place, misplaced, unnoticed, marked_words = 0, 0, 0, np.zeros(len(owner), bool)
    for piece in pieces:
        first, last = round(piece.start_s * SAMPLE_RATE_HZ), round(piece.end_s * SAMPLE_RATE_HZ)
        size = len(piece.text.split())
        marked_words[place : place + size] = bool(piece.marks)
        for index in owner[place : place + size]:
            truth = recording.truths[index]
            wrong = right[index] and (truth.end <= first or truth.start >= last)
            misplaced += wrong
            unnoticed += wrong and not piece.marks
        place += size
    good_word = np.repeat(right, counts)
    return {
        "words": len(owner),
        "lost_or_doubled_words": 0 if said == recording.text.split() else abs(len(said) - len(owner)) or 1,
        "words_outside_their_piece": int(misplaced),
        "of_these_in_unmarked_pieces": int(unnoticed),
        "start_error_ms": _spread(start_s),
        "end_error_ms": _spread(end_s),
        "utterances_off_by_over_1_s": float(np.mean(np.abs(start_s) > 1.0)),
        **_cuts(recording, pieces),
        "pieces": len(pieces),
        "longest_piece_samples": max(
            round(one.end_s * SAMPLE_RATE_HZ) - round(one.start_s * SAMPLE_RATE_HZ) for one in pieces
        ),
        "mean_piece_s": float(np.mean([one.end_s - one.start_s for one in pieces])),
        "hows": count_hows(pieces),
        "right_words_marked": float(marked_words[good_word].mean()),
        "wrong_words_marked": float(marked_words[~good_word].mean()) if (~good_word).any() else None,
        "confidence_right": _deciles([w.confidence for w, good in zip(words, good_word, strict=True) if good]),
        "confidence_wrong": _deciles([w.confidence for w, good in zip(words, good_word, strict=True) if not good]),
    }


def _cuts(recording: Recording, pieces: list[Piece]) -> dict[str, int]:
    """Piece edges inside an utterance (0.1 s or more from its ends), and those of them that hit sound."""
    inside = in_sound = 0
    for edge in {round(at * SAMPLE_RATE_HZ) for piece in pieces for at in (piece.start_s, piece.end_s)}:
        for truth in recording.truths:
            if truth.start + 1600 <= edge <= truth.end - 1600:
                hop = (edge - truth.start) // HOP_SAMPLES
                inside += 1
                in_sound += bool(truth.sound[max(0, hop - 2) : hop + 3].all())
    return {"edges_inside_utterances": inside, "edges_in_sound": in_sound}


def measure_blind(recording: Recording, pieces: list[Piece]) -> dict[str, Any]:
    """What can be said of pieces that hold no words."""
    spans = [(round(one.start_s * SAMPLE_RATE_HZ), round(one.end_s * SAMPLE_RATE_HZ)) for one in pieces]
    sound = missed = whole = 0
    for truth in recording.truths:
        hops = truth.start + HOP_SAMPLES * np.flatnonzero(truth.sound)
        held = np.zeros(len(hops), bool)
        for first, last in spans:
            held |= (hops >= first) & (hops < last)
        sound += len(hops)
        missed += int((~held).sum())
        whole += any(hops[0] >= first and hops[-1] < last for first, last in spans) if len(hops) else 1
    return {
        "sound_in_no_piece": round(missed / sound, 5),
        "utterances_whole_in_one_piece": whole,
        **_cuts(recording, pieces),
        "pieces": len(pieces),
        "longest_piece_samples": max(last - first for first, last in spans),
        "mean_piece_s": float(np.mean([one.end_s - one.start_s for one in pieces])),
        "share_of_recording_kept": round(sum(last - first for first, last in spans) / len(recording.waveform), 4),
    }


def _spread(errors_s: list[float]) -> dict[str, float]:
    values = np.abs(errors_s) * 1000
    found = {"median": np.median(values), "p90": np.percentile(values, 90), "p95": np.percentile(values, 95)}
    return {
        **{name: round(float(value), 1) for name, value in found.items()},
        "bias": round(1000 * float(np.median(errors_s)), 1),
    }


def _deciles(values: list[float]) -> list[float]:
    return [round(float(one), 4) for one in np.percentile(values, [5, 10, 25, 50, 75, 90])] if values else []


def main() -> None:
    """Build, align, cut, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, action="append", required=True)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--mode", choices=["align", "vad", "fixed"], default="align")
    parser.add_argument("--detector", choices=["silero", "energy"], default="silero", help="Of mode vad.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--noise", type=Path, help="A noise bed; without it white noise.")
    parser.add_argument("--snr-db", type=float, default=25.0)
    parser.add_argument("--wrong", type=float, default=0.0, help="Share of utterances with another one's text.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recording = build(
        arguments.corpus, 60 * arguments.minutes, arguments.noise, arguments.snr_db, arguments.wrong, arguments.seed
    )
    seconds = len(recording.waveform) / SAMPLE_RATE_HZ
    if arguments.mode != "align":
        config = SegmentationConfig(mode=arguments.mode, detector=arguments.detector)
        utterance = Utterance(utterance_id="long", file_name="long.wav", text="", duration_s=seconds, language="en")
        pieces = segment(utterance, recording.waveform, config)
        facts = {"mode": arguments.mode, "minutes": round(seconds / 60, 2), "utterances": len(recording.truths)}
        print(json.dumps(facts | measure_blind(recording, pieces), indent=1))
        return
    from speechtune.decoding.forced_alignment import open_aligner

    aligner = open_aligner(arguments.model, language="en")
    began, used = time.monotonic(), time.process_time()
    words = aligner.align(recording.waveform, recording.text, "en")
    align_s, align_cpu_s = time.monotonic() - began, time.process_time() - used

    class Known:
        """The alignment already made."""

        def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[TimedWord]:
            return words

    utterance = Utterance(
        utterance_id="long", file_name="long.wav", text=recording.text, duration_s=seconds, language="en"
    )
    pieces = segment(utterance, recording.waveform, SegmentationConfig(mode="align"), Known())
    result = {
        "model": arguments.model,
        "minutes": round(seconds / 60, 2),
        "utterances": len(recording.truths),
        "real_time_factor": round(align_s / seconds, 4),
        "cpu_s_per_s": round(align_cpu_s / seconds, 4),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        **measure(recording, words, pieces),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
