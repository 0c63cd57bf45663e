"""How many times faster than real time one core measures audio, and where the time goes.

    OMP_NUM_THREADS=1 python benchmarks/audio_measures.py FOLDER [--clips 200]

The times are CPU seconds of all this process's threads, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from speechtune.audio import loudness, spectrum, voices
from speechtune.audio.channels import read_channels
from speechtune.audio.fingerprint import fingerprint
from speechtune.audio.io import AUDIO_SUFFIXES, load_audio
from speechtune.audio.measures import AudioMeasures, measure_batch
from speechtune.audio.vad import speech_probabilities


def cpu_s(work: Callable[[], object], repeats: int = 3) -> float:
    """The least CPU time of a few runs, after one that fills the caches."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure up to ``--clips`` of the files below FOLDER and print one line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="audio files, at any depth")
    parser.add_argument("--clips", type=int, default=200, help="how many of them, spread evenly")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    paths = paths[:: max(1, len(paths) // arguments.clips)][: arguments.clips]
    if not paths:
        parser.error(f"{arguments.folder} holds no audio")
    measured = measure_batch([(path, None, None) for path in paths])
    usable = [path for path, result in zip(paths, measured, strict=True) if isinstance(result, AudioMeasures)]
    seconds = sum(result.duration_s for result in measured if isinstance(result, AudioMeasures))
    waveforms = [load_audio(path) for path in usable]
    frames = [spectrum.power_frames(waveform) for waveform in waveforms]
    parts: dict[str, Callable[[], object]] = {
        "everything": lambda: measure_batch([(path, None, None) for path in usable]),
        "decoding": lambda: [read_channels(path) for path in usable],
        "speech (VAD)": lambda: speech_probabilities(waveforms),
        "spectrum": lambda: [spectrum.power_frames(waveform) for waveform in waveforms],
        "loudness": lambda: [loudness.integrated_lufs(waveform) for waveform in waveforms],
        "bandwidth": lambda: [spectrum.bandwidth_hz(w, 16_000, f) for w, f in zip(waveforms, frames, strict=True)],
        "music": lambda: [voices.music_score(f) for f in frames],
        "fingerprint": lambda: [fingerprint(f) for f in frames],
    }
    print(f"{len(usable)} clips, {seconds:.0f} s of audio ({len(paths) - len(usable)} unusable)")
    for name, work in parts.items():
        spent_s = cpu_s(work)
        print(
            f"{name:14s} {seconds / spent_s:8.0f} x real time   {1000 * spent_s / seconds:6.3f} ms per second of audio"
        )


if __name__ == "__main__":
    main()
