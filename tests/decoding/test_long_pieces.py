"""Reading in spans, finding speech in blocks, planning pieces: nothing lost, whatever the block borders do."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtune.audio.io import load_audio, write_audio
from speechtune.audio.vad import speech_spans
from speechtune.decoding.long.pieces import PiecePlan, Scan, heard_together, plan_pieces, scan
from speechtune.decoding.long.recording import Recording

RATE = 16_000


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_spans_join_to_the_whole_file(tmp_path: Path, rate_hz: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal((round(7.3 * rate_hz), channels))
    soundfile.write(tmp_path / "a.wav", noise.clip(-0.99, 0.99), rate_hz, subtype="FLOAT")
    whole = load_audio(tmp_path / "a.wav")
    recording = Recording(tmp_path / "a.wav", 0.0, 7.3)
    edges_s = [0.0, 0.9, 2.0, 2.0313, 6.5, 7.3]
    parts = [recording.read(a, b) for a, b in pairwise(edges_s)]
    joined = np.concatenate(parts)
    assert len(joined) == len(whole) == recording.length
    assert np.abs(joined - whole).max() < 1e-3
    assert len(recording.read(7.0, 99.0)) == recording.length - 7 * RATE
    assert len(recording.read(8.0, 9.0)) == 0


def test_a_span_of_a_file_is_a_recording_of_its_own(tmp_path: Path) -> None:
    ramp = np.linspace(-0.5, 0.5, 5 * RATE, dtype=np.float32)
    write_audio(tmp_path / "a.wav", ramp)
    inside = Recording(tmp_path / "a.wav", 1.25, 3.0)
    np.testing.assert_allclose(inside.read(0.5, 1.5), ramp[round(1.75 * RATE) : round(2.75 * RATE)], atol=1e-4)
    blocks = list(inside.blocks(2, 1))
    assert [start for start, _ in blocks] == [0, RATE]
    assert [len(samples) for _, samples in blocks] == [2 * RATE, 2 * RATE]


def speech_like(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Voiced syllables that Silero takes for speech: pulses through formants, four syllables a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    phase = np.cumsum(pitch) / RATE
    pulses = (np.diff(np.floor(phase), prepend=0) > 0).astype(float)
    kernel = np.zeros(800)
    at = np.arange(800) / RATE
    for hz, width in ((650, 80), (1100, 90), (2500, 120)):
        kernel += np.exp(-np.pi * width * at) * np.sin(2 * np.pi * hz * at)
    voiced = np.convolve(pulses, kernel)[: len(time)] * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    return (0.25 * voiced / np.abs(voiced).max() + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)


def test_scanning_in_blocks_finds_what_scanning_at_once_finds(tmp_path: Path) -> None:
    pytest.importorskip("silero_vad")
    rng = np.random.default_rng(1)
    parts = []
    for seconds in (3.0, 20.0, 2.0, 12.0):
        parts += [1e-4 * rng.standard_normal(round(rng.uniform(4, 12) * RATE)), speech_like(rng, seconds)]
    write_audio(tmp_path / "a.wav", np.concatenate([*parts, np.zeros(5 * RATE)]).astype(np.float32))
    samples = load_audio(tmp_path / "a.wav")
    assert len(samples) > 64 * RATE, "one block only"
    found = scan(Recording(tmp_path / "a.wav", 0.0, len(samples) / RATE))
    whole = speech_spans(samples)
    assert whole, "the detector takes the made speech for none: the test says nothing"
    own = np.zeros(len(samples), bool)
    for start, end in found.spans:
        own[start:end] = True
    missed = sum((~own[round(one.start_s * RATE) : round(one.end_s * RATE)]).sum() for one in whole)
    assert missed < 0.05 * RATE
    loud = np.convolve(np.abs(samples) > 0.01, np.ones(RATE // 4), mode="same") > 0
    assert (own & ~loud).sum() < 0.2 * RATE * len(whole)
    assert len(found.energy_db) == -(-len(samples) // 160)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 1) as file:
        minute = (0.01 * np.random.default_rng(0).standard_normal(60 * RATE)).astype(np.float32)
        for _ in range(10):
            file.write(minute)
    recording = Recording(tmp_path / "long.flac", 0.0, 600.0)
    tracemalloc.start()
    total = sum(len(samples) for _, samples in recording.blocks(64, 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 600 * RATE
    assert peak < 20e6  # the whole is 38 MB


def test_every_sample_of_speech_is_in_exactly_one_piece() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        spans, at = [], 0
        for _ in range(60):
            at += round(float(rng.choice([0.2, 0.5, 1.0, 4.0])) * RATE)
            end = at + round(float(rng.uniform(0.2, 50.0) if rng.random() < 0.1 else rng.uniform(0.2, 6.0)) * RATE)
            spans.append((at, end))
            at = end
        length = at + RATE
        found = Scan(spans, rng.uniform(-80, 0, length // 160 + 1))
        pieces = plan_pieces(found, length, PiecePlan(target_s=15.0, longest_s=30.0, max_pause_s=2.0, margin_s=0.35))
        covered = np.zeros(length, np.int8)
        for start, end in pieces:
            assert 0 <= start < end <= length
            assert end - start <= 30 * RATE
            covered[start:end] += 1
        assert covered.max() == 1
        assert all(covered[start:end].min() == 1 for start, end in spans)
        gaps = [b[0] - a[1] for a, b in pairwise(pieces)]
        assert min(gaps) >= 0
        every = plan_pieces(found, length, PiecePlan(target_s=28.0, longest_s=30.0, max_pause_s=0.0, margin_s=0.35))
        joined = heard_together(every, 30 * RATE)
        covered[:] = 0
        for one in joined:
            assert one.heard == sum(b - a for a, b in one.spans) <= 30 * RATE
            assert all(b[0] - a[1] > 1 for a, b in pairwise(one.spans))  # what touches is one
            for start, end in one.spans:
                covered[start:end] += 1
        assert covered.max() == 1
        assert all(covered[start:end].min() == 1 for start, end in every)
        assert len(joined) < len(every)
        ends = dict(every)
        for a, b in pairwise(joined):  # nothing that had room was left for the next
            assert a.heard + ends[b.start] - b.start >= 30 * RATE
