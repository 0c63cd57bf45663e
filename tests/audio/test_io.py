"""Laws of reading and writing audio, and one error for each way a file can be bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtune.audio import io
from speechtune.audio.io import AudioError, load_audio, probe, resample, resampled_length, write_audio
from speechtune.core.errors import InputError

RATE_HZ = 16_000


def tone(seconds: float = 2.0, rate_hz: int = RATE_HZ, frequency_hz: float = 440.0) -> np.ndarray:
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def peak_hz(samples: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def write_with_av(path: Path, samples: np.ndarray, codec: str, rate_hz: int) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        sizes = av.AudioResampler(stream.format, "mono", rate_hz, frame_size=stream.codec_context.frame_size or 960)
        for piece in [*sizes.resample(frame), *sizes.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("frames", [1, 2, 999, 4_410, 16_001])
def test_length_follows_the_law(tmp_path: Path, rate_hz: int, frames: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(frames, np.float32), rate_hz)
    expected = max(1, int(np.floor(frames * RATE_HZ / rate_hz + 0.5)))
    assert load_audio(path).shape == (expected,)
    assert resampled_length(frames, rate_hz, RATE_HZ) == expected


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_pcm16_survives_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 20_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, RATE_HZ)
    samples = load_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, pcm / np.float32(32768))
    write_audio(tmp_path / f"b{suffix}", samples)
    np.testing.assert_array_equal(soundfile.read(tmp_path / f"b{suffix}", dtype="int16")[0], pcm)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_frequency_and_level(tmp_path: Path, rate_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate_hz=rate_hz), rate_hz, subtype="FLOAT")
    samples = load_audio(tmp_path / "a.wav")
    assert peak_hz(samples) == pytest.approx(440, abs=1)
    np.testing.assert_allclose(samples[2_000:-2_000], tone()[2_000:-2_000], atol=1e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    assert np.abs(resample(tone(rate_hz=48_000, frequency_hz=12_000), 48_000, RATE_HZ)[500:-500]).max() < 1e-3


def test_channels_are_averaged_for_any_count_and_rate(tmp_path: Path) -> None:
    channels = np.random.default_rng(1).uniform(-0.5, 0.5, (9_600, 6)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, 96_000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav", sample_rate_hz=96_000), channels.mean(axis=1), atol=1e-6)
    assert len(load_audio(tmp_path / "a.wav")) == 1_600
    info = probe(tmp_path / "a.wav")
    assert (info.channels, info.sample_rate_hz, info.duration_s, info.decoder) == (6, 96_000, 0.1, "soundfile")


@pytest.mark.parametrize("options", [{}, {"format": "FLAC"}, {"format": "OGG", "subtype": "OPUS"}, {"format": "MP3"}])
def test_a_span_equals_the_slice_of_the_whole(tmp_path: Path, options: dict[str, str]) -> None:
    noise = np.random.default_rng(2).uniform(-0.3, 0.3, 20 * RATE_HZ).astype(np.float32)
    path = tmp_path / "a.bin"
    soundfile.write(path, noise, RATE_HZ, **(options or {"format": "WAV"}))
    whole = load_audio(path)
    for start_s, end_s in ((0.0, 0.5), (1.23456, 4.56789), (18.0, 20.0), (13.0, None), (None, 2.0)):
        first = round((start_s or 0) * RATE_HZ)
        last = len(whole) if end_s is None else round(end_s * RATE_HZ)
        np.testing.assert_allclose(load_audio(path, start_s, end_s), whole[first:last], atol=1e-5)


@pytest.mark.parametrize("options", [{"format": "OGG", "subtype": "OPUS"}, {"format": "MP3"}, {"format": "OGG"}])
def test_lossy_formats_keep_length_and_pitch(tmp_path: Path, options: dict[str, str]) -> None:
    soundfile.write(tmp_path / "a.bin", tone(), RATE_HZ, **options)
    samples = load_audio(tmp_path / "a.bin")
    assert len(samples) == 2 * RATE_HZ
    assert peak_hz(samples) == pytest.approx(440, abs=1)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "samples"),
    [("a.m4a", "aac", 16_000, 32_000), ("a.m4a", "aac", 44_100, 32_000), ("a.webm", "libopus", 48_000, 32_128)],
)
def test_formats_read_through_av(tmp_path: Path, name: str, codec: str, rate_hz: int, samples: int) -> None:
    write_with_av(tmp_path / name, tone(rate_hz=rate_hz), codec, rate_hz)
    loaded = load_audio(tmp_path / name)
    assert probe(tmp_path / name).decoder == "av"
    assert len(loaded) == pytest.approx(samples, abs=130)  # WebM states its length in ms, with Opus's pre-skip
    assert peak_hz(loaded) == pytest.approx(440, abs=1)


def test_a_late_span_of_m4a_is_the_slice_of_the_whole(tmp_path: Path) -> None:
    sweep = tone(30.0) * np.linspace(0.1, 1.0, 30 * RATE_HZ, dtype=np.float32)
    write_with_av(tmp_path / "a.m4a", sweep, "aac", RATE_HZ)
    whole = load_audio(tmp_path / "a.m4a")
    span = load_audio(tmp_path / "a.m4a", 20.0, 21.5)
    assert len(span) == 24_000
    np.testing.assert_allclose(span, whole[320_000:344_000], atol=1e-4)


def test_opus_is_what_ogg_writes(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.ogg", tone())
    assert soundfile.info(tmp_path / "a.ogg").subtype == "OPUS"
    assert len(load_audio(tmp_path / "a.ogg")) == 32_000


def test_writing_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.wav, \.flac or \.ogg"):
        write_audio(tmp_path / "a.m4a", tone())
    with pytest.raises(InputError, match="Opus"):
        write_audio(tmp_path / "a.ogg", tone(), 44_100)
    with pytest.raises(InputError, match="shape"):
        write_audio(tmp_path / "a.wav", np.zeros((2, 3), np.float32))
    assert list(tmp_path.iterdir()) == []


def reason(path: Path, *span: float | None) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path, *span)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_each_bad_file_has_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert reason(path) == io.MISSING
    assert reason(tmp_path) == io.MISSING
    path.write_bytes(b"")
    assert reason(path) == io.EMPTY
    soundfile.write(path, np.zeros(0, np.float32), RATE_HZ)
    assert reason(path) == io.EMPTY
    path.write_text("these are words, not a recording\n" * 50)
    assert reason(path) == io.UNREADABLE
    for bad in (np.nan, np.inf):
        soundfile.write(path, np.array([0.0, bad, 0.1], np.float32), RATE_HZ, subtype="FLOAT")
        assert reason(path) == io.NON_FINITE


@pytest.mark.parametrize(
    "options",
    [{"format": "WAV"}, {"format": "FLAC"}, {"format": "OGG", "subtype": "OPUS"}, {"format": "OGG"}, {"format": "MP3"}],
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, options: dict[str, str], share: float) -> None:
    path = tmp_path / "a.bin"
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, 5 * RATE_HZ).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ, **options)
    load_audio(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert reason(path) == io.TRUNCATED


def test_a_wav_written_to_a_pipe_states_no_length_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE_HZ)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(load_audio(path)) == 32_000


def test_spans_outside_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE_HZ)
    for span in ((-1.0, 1.0), (0.0, 2.5), (2.0, None), (1.0, 1.0), (1.5, 1.0), (float("nan"), 1.0)):
        assert reason(path, *span) == io.OUTSIDE
    assert len(load_audio(path, 1.0, 2.005)) == RATE_HZ  # within the slack of one feature hop


def test_without_pyav_the_ffmpeg_executable_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the executable: it writes a known stereo WAV, as ffmpeg would, whatever it is asked for."""
    import sys

    from speechtune.audio.channels import read_channels

    stereo = np.stack([np.linspace(-0.5, 0.5, 800), np.zeros(800)], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "decoded.wav", stereo, 16_000, subtype="FLOAT")
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/decoded.wav"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(64))
    recording = read_channels(path)
    assert np.array_equal(recording.frames, stereo)
    assert recording.format == "M4A"
    assert np.array_equal(load_audio(path, 0.01, 0.02), stereo[160:320].mean(axis=1))
    assert probe(path).channels == 2
    program.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    assert reason(path) == io.UNREADABLE
