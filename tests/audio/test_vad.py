"""Speech probabilities against ONNX Runtime on the same graph, batching, and the rules that make spans."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from synthetic_voice import voice

from speechtune.audio import silero, vad
from speechtune.audio.vad import (
    SpeechSpan,
    VadConfig,
    audible_spans,
    heard_spans,
    spans_from_probabilities,
    speech_probabilities,
    speech_spans,
)
from speechtune.core.errors import InputError


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(21_000).astype(np.float32) * 0.05
    lengths = (0, 1, 511, 512, 513, 8_000)
    return [voice(2.0, 1, pause_s=0.5), noise, voice(1.3, 2, 220), *(noise[:length] for length in lengths)]


def by_onnxruntime(waveform: np.ndarray) -> np.ndarray:
    """The package's other graph, frame by frame, as its own streaming wrapper runs it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        silero._weights_path().with_name("silero_vad.onnx"), options, providers=["CPUExecutionProvider"]
    )
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    frames = np.pad(waveform, (0, -len(waveform) % 512)).reshape(-1, 1, 512)
    values = []
    for frame in frames:
        inputs = {"input": np.concatenate([context, frame], axis=1), "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, inputs)
        context = frame[:, -64:]
        values.append(probability[0, 0])
    return np.array(values, np.float32)


def test_the_probabilities_are_those_of_the_onnx_graph() -> None:
    waveforms = clips()
    for waveform, probabilities in zip(waveforms, speech_probabilities(waveforms), strict=True):
        assert probabilities.shape == (-(-len(waveform) // 512),)
        np.testing.assert_allclose(probabilities, by_onnxruntime(waveform), atol=2e-5)


def test_a_recording_longer_than_one_block_carries_its_state() -> None:
    long = np.concatenate([voice(6.0, seed, pause_s=0.4) for seed in range(3)])
    assert len(long) > silero._BLOCK * 512
    np.testing.assert_allclose(speech_probabilities([long])[0], by_onnxruntime(long), atol=2e-5)


def test_a_batch_gives_bit_for_bit_what_single_clips_give() -> None:
    waveforms = clips() + [voice(0.3 + 0.1 * number, number) for number in range(40)]
    together = speech_probabilities(waveforms)
    for waveform, probabilities in zip(waveforms, together, strict=True):
        assert np.array_equal(probabilities, speech_probabilities([waveform])[0])


def test_a_voice_is_found_where_it_is_and_noise_is_not_one() -> None:
    (span,) = speech_spans(voice(3.0, 0, pause_s=1.0))
    assert span.start_s == pytest.approx(1.0, abs=0.08)
    assert span.end_s == pytest.approx(4.0, abs=0.12)
    assert speech_spans(clips()[1]) == []
    assert speech_spans(np.zeros(0, np.float32)) == []


def test_neither_torch_nor_onnxruntime_is_loaded() -> None:
    code = (
        "import sys, numpy; from speechtune.audio.vad import speech_spans; speech_spans(numpy.zeros(999, 'f'));"
        "sys.exit(bool({'torch', 'onnxruntime', 'silero_vad'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_weights_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    silero._weights.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"speechtune\[audit\]"):
        speech_probabilities([np.zeros(600, np.float32)])


def spans(pattern: str, length: int | None = None, **config: float) -> list[tuple[float, float]]:
    """Spans in frames of a string: ``#`` speech, ``.`` none, ``~`` between the two thresholds."""
    values = np.array([{"#": 0.9, ".": 0.1, "~": 0.4}[letter] for letter in pattern])
    found = spans_from_probabilities(values, length or 512 * len(pattern), VadConfig(**{"pad_s": 0, **config}))
    return [(span.start_s / vad.FRAME_S, span.end_s / vad.FRAME_S) for span in found]


def test_spans_follow_the_probabilities() -> None:
    assert spans("....##########....") == [(4, 14)]
    assert spans("~~~~##########~~..") == [(4, 16)]  # speech begins above the one and ends below the other threshold
    assert spans("##########") == [(0, 10)]
    assert spans("") == []


def test_short_pauses_are_closed_and_short_spans_left_out() -> None:
    assert spans("##########..##########") == [(0, 22)]
    assert spans("##########....##########") == [(0, 10), (14, 24)]
    assert spans("....####....") == []
    assert spans("....####....", min_speech_s=0.1) == [(4, 8)]


def test_padding_stays_inside_the_clip_and_spans_never_overlap() -> None:
    assert spans("#########....", 13 * 512, pad_s=0.064) == [(0, 11)]
    assert spans("#########....#########", pad_s=0.5) == [(0, 11), (11, 22)]
    assert spans("..#########", 10 * 512 + 1)[0][1] == pytest.approx(10 + 1 / 512)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError):
        VadConfig(treshold=0.4)  # type: ignore[call-arg]
    assert SpeechSpan(1.0, 2.5).duration_s == 1.5


def test_what_is_heard_beside_the_spans_is_not_silence() -> None:
    """The detector's spans are given, so that it is the energy alone that speaks here."""
    rng = np.random.default_rng(0)
    clip = (0.001 * rng.standard_normal(4 * 16_000)).astype(np.float32)
    times_s = np.arange(8_000) / 16_000
    clip[16_000:24_000] += (0.1 * np.sin(2 * np.pi * 200 * times_s)).astype(np.float32)
    clip[40_000:48_000] += (0.1 * np.sin(2 * np.pi * 200 * times_s)).astype(np.float32)
    (span,) = audible_spans(clip, [SpeechSpan(2.5, 3.0)])
    assert span.start_s == pytest.approx(1.0, abs=0.04)
    assert span.end_s == pytest.approx(3.0, abs=0.04)
    first, last = audible_spans(clip[::-1].copy(), [SpeechSpan(1.0, 1.2), SpeechSpan(1.3, 1.5)])
    assert (first.start_s, first.end_s) == pytest.approx((1.0, 1.2), abs=0.04)
    assert last.end_s == pytest.approx(3.0, abs=0.04)
    loud_noise = clip + (0.05 * rng.standard_normal(len(clip))).astype(np.float32)
    assert audible_spans(loud_noise, [SpeechSpan(2.5, 3.0)]) == [SpeechSpan(2.5, 3.0)]
    assert audible_spans(clip, []) == []


def test_a_word_overlooked_between_two_spans_is_heard() -> None:
    rng = np.random.default_rng(0)
    clip = (0.001 * rng.standard_normal(6 * 16_000)).astype(np.float32)
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(8_000) / 16_000)).astype(np.float32)
    for start_s in (1.0, 3.0, 5.0):
        clip[round(16_000 * start_s) :][:8_000] += tone
    clip[32_000:32_800] += tone[:800]  # a click of 50 ms
    found = heard_spans(clip, [SpeechSpan(1.0, 1.5), SpeechSpan(5.0, 5.4)])
    assert [(round(one.start_s, 1), round(one.end_s, 1)) for one in found] == [(1.0, 1.5), (3.0, 3.5), (5.0, 5.5)]
    assert heard_spans(clip, []) == []
    noisy = clip + (0.05 * rng.standard_normal(len(clip))).astype(np.float32)
    assert heard_spans(noisy, [SpeechSpan(1.0, 1.5)]) == [SpeechSpan(1.0, 1.5)]
