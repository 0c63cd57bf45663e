"""The whole set of measures on files with known faults, and the laws of the batch."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synthetic_voice import voice

from speechtune.audio import defects, voices
from speechtune.audio.io import AudioError, load_audio
from speechtune.audio.measures import AudioMeasures, measure_batch, measure_file
from speechtune.audio.spectrum import power_frames
from speechtune.audio.vad import speech_probabilities

RNG = np.random.default_rng(3)


@pytest.fixture
def measure(tmp_path: Path):
    """``measure(samples, name="a.wav", rate_hz=16000, subtype=None)`` writes a file and measures it."""

    def write(samples: np.ndarray, name: str = "a.wav", rate_hz: int = 16_000, subtype: str | None = None):
        soundfile.write(tmp_path / name, samples, rate_hz, subtype=subtype)
        return measure_file(tmp_path / name)

    return write


def noise(count: int, level: float = 1e-3) -> np.ndarray:
    return RNG.standard_normal(count).astype(np.float32) * level


def noisy_voice(seconds: float = 2.0, pause_s: float = 0.5, **options: float) -> np.ndarray:
    samples = voice(seconds, pause_s=pause_s, **options)
    return samples + noise(len(samples), 3e-4)


def test_what_the_container_says(measure) -> None:
    stereo = np.stack([noise(24_000, 0.1)] * 2, axis=1)
    wav = measure(stereo, "a.wav", 48_000, "PCM_24")
    assert (wav.format, wav.subtype, wav.sample_rate_hz, wav.channels) == ("WAV", "PCM_24", 48_000, 2)
    assert (wav.bit_depth, wav.bitrate_kbps, wav.duration_s) == (24, None, 0.5)
    mp3 = measure(stereo, "a.mp3", 48_000)
    assert (mp3.format, mp3.subtype, mp3.bit_depth) == ("MP3", "MPEG_LAYER_III", None)
    assert mp3.bitrate_kbps is not None and 30 < mp3.bitrate_kbps < 400
    assert measure(stereo, "b.wav", 48_000, "PCM_U8").bit_depth == 8


def test_formats_that_only_ffmpeg_reads_keep_their_channels(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    left = noisy_voice()
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, -left]), "fltp", "stereo")
        frame.rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    measures = measure_file(tmp_path / "a.m4a")
    assert (measures.subtype, measures.channels, measures.bit_depth) == ("AAC", 2, None)
    assert measures.bitrate_kbps is not None and 10 < measures.bitrate_kbps < 400
    assert measures.channel_correlation == pytest.approx(-1, abs=0.02)
    part = measure_file(tmp_path / "a.m4a", 0.5, 1.25)
    assert part.duration_s == 0.75


def test_levels_of_a_sine(measure) -> None:
    sine = (0.5 * np.sin(2 * np.pi * 997 * np.arange(32_000) / 16_000)).astype(np.float32)
    measures = measure(sine + np.float32(0.125))
    assert measures.dc_offset == pytest.approx(0.125, abs=1e-4)
    assert measures.peak_dbfs == pytest.approx(20 * math.log10(0.625), abs=0.01)
    assert measure(sine).rms_dbfs == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.01)
    assert measure(sine).level_lufs == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.05)


@pytest.mark.parametrize("gain", [1.0, 0.4])
@pytest.mark.parametrize("drive", [1.2, 2.0, 5.0])
def test_clipping_of_a_sine_is_counted(measure, drive: float, gain: float) -> None:
    """A sine of amplitude A clipped at 1 stays there for 1 - 2/pi asin(1/A) of the time, half a period at most."""
    sine = drive * np.sin(2 * np.pi * 110 * np.arange(48_000) / 48_000)
    measures = measure(np.clip(sine, -1, 1) * gain, rate_hz=48_000)
    share = 1 - 2 / math.pi * math.asin(1 / drive)
    assert measures.clipped_frac == pytest.approx(share, abs=0.01)
    assert measures.longest_clipped_run_samples == pytest.approx(share * 48_000 / 220, abs=2)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "ULAW", "FLOAT"])
def test_loud_but_whole_audio_is_not_clipped(measure, subtype: str) -> None:
    for samples in (voice(2.0) * 1.9999, np.sin(2 * np.pi * 220 * np.arange(32_000) / 16_000)):
        assert measure(samples, subtype=subtype).clipped_frac == 0.0


def test_clipping_in_one_of_two_channels_counts_half() -> None:
    sine = 2 * np.sin(2 * np.pi * 110 * np.arange(16_000) / 16_000).astype(np.float32)
    frames = np.stack([np.clip(sine, -1, 1), sine * 0.4], axis=1)
    assert defects.clipping(frames)[0] == pytest.approx(defects.clipping(frames[:, :1])[0] / 2)
    assert defects.clipping(np.zeros((100, 2), np.float32)) == (0.0, 0)


def test_channels_that_cancel(measure) -> None:
    one, other = noise(16_000, 0.1), noise(16_000, 0.1)
    expected = {"same": (one, one, 1, 0), "apart": (one, other, 0, 3.01), "opposite": (one, -one, -1, 120)}
    for left, right, correlation, loss_db in expected.values():
        measures = measure(np.stack([left, right], axis=1), subtype="FLOAT")
        assert measures.channel_correlation == pytest.approx(correlation, abs=0.03)
        assert measures.phase_cancellation_db == pytest.approx(loss_db, abs=0.15)
    mono = measure(one)
    assert (mono.channel_correlation, mono.phase_cancellation_db) == (None, None)
    half = measure(np.stack([one, np.zeros(16_000)], axis=1))
    assert half.channel_correlation is None
    assert half.phase_cancellation_db == pytest.approx(3.01, abs=0.01)


def test_silences_are_measured(measure) -> None:
    first, second = voice(2.0, 0, 220), voice(1.5, 3)
    parts = [np.zeros(12_800), first, np.zeros(24_000), second, np.zeros(6_400)]
    samples = np.concatenate(parts).astype(np.float32)
    measures = measure(samples + noise(len(samples), 3e-4))
    assert measures.lead_silence_s == pytest.approx(0.8, abs=0.1)
    assert measures.trail_silence_s == pytest.approx(0.4, abs=0.15)
    assert measures.longest_silence_s == pytest.approx(1.5, abs=0.2)
    assert measures.speech_frac == pytest.approx(3.5 / 6.2, abs=0.06)
    assert not measures.is_silent


def test_a_clip_without_speech(measure) -> None:
    silent = measure(np.zeros(16_000))
    assert silent.is_silent
    assert (silent.speech_frac, silent.lead_silence_s, silent.longest_silence_s, silent.snr_db) == (0, 1.0, 1.0, None)
    assert (silent.rms_dbfs, silent.peak_dbfs, silent.bandwidth_hz) == (-120, -120, 0)
    assert measure(noise(16_000, 1e-4)).is_silent
    assert not measure(noise(16_000, 1e-2)).is_silent


def test_a_hole_in_a_word_is_a_dropout_and_a_gated_pause_is_not(measure) -> None:
    whole = noisy_voice(3.0)
    assert measure(whole).dropouts == 0
    torn = whole.copy()
    torn[24_500:24_900] = 0
    torn[30_100:30_400] = 0
    measures = measure(torn)
    assert measures.dropouts == 2
    assert measures.dropout_s == pytest.approx(700 / 16_000, abs=0.001)
    faded = np.concatenate([voice(1.5, 0) * np.linspace(1, 0, 24_000) ** 2, np.zeros(8_000), voice(1.5, 1)])
    faded[32_000:36_000] *= np.linspace(0, 1, 4_000) ** 2
    assert measure(faded).dropouts == 0


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_hole_that_took_the_first_or_last_sound_is_a_dropout_and_what_a_gate_or_a_pause_leaves_is_not(
    measure, at_the_end: bool
) -> None:
    samples = noisy_voice(2.5)

    def dropouts(change: slice, gated: bool = False) -> int:
        torn = samples.copy()
        torn[change] = 0
        if gated:  # nothing sounds before the word but a click
            torn[: change.start] = 0
            torn[1_000:1_100] = 0.01
        return measure(torn[::-1] if at_the_end else torn).dropouts

    voice_starts = 8_000
    assert dropouts(slice(voice_starts - 200, voice_starts + 1_200)) == 1
    assert dropouts(slice(voice_starts - 5_000, voice_starts + 1_200)) == 0  # a pause: longer than 0.25 s
    assert dropouts(slice(voice_starts - 200, voice_starts + 1_200), gated=True) == 0
    assert dropouts(slice(3_000, 3_800)) == 0  # in the noise before it


@pytest.mark.parametrize("mains_hz", [50, 60])
def test_hum_is_found_and_named(measure, mains_hz: int) -> None:
    samples = noisy_voice(3.0, 0.7)
    assert measure(samples).hum_mains_hz is None
    time_s = np.arange(len(samples)) / 16_000
    hum = sum(0.005 / number * np.sin(2 * np.pi * mains_hz * number * time_s) for number in (1, 2, 3))
    measures = measure(samples + hum)
    assert measures.hum_mains_hz == mains_hz
    assert measures.hum_prominence_db > 12
    level_db = 10 * math.log10(sum((0.005 / number) ** 2 / 2 for number in (1, 2, 3)))
    assert measures.hum_dbfs == pytest.approx(level_db, abs=1)


def test_sustained_chords_are_music_and_a_voice_or_noise_is_not(measure) -> None:
    time_s = np.arange(80_000) / 16_000
    chords = [(262, 330, 392), (294, 349, 440), (262, 349, 523), (247, 330, 392), (262, 330, 392)]
    music = np.zeros(80_000)
    for number, chord in enumerate(chords):
        part = slice(number * 16_000, (number + 1) * 16_000)
        for hz in chord:
            music[part] += sum(0.05 / h * np.sin(2 * np.pi * hz * h * time_s[part]) for h in (1, 2, 3))
    assert measure(music).music_score > 0.6
    assert measure(noisy_voice(4.0)).music_score < 0.4
    assert measure(noise(80_000, 0.1)).music_score < 0.1


def test_two_registers_raise_the_speaker_score_and_one_does_not() -> None:
    def score(samples: np.ndarray) -> float:
        return voices.several_speakers_score(power_frames(samples), speech_probabilities([samples])[0])

    assert score(np.concatenate([noisy_voice(2.5, pitch_hz=110), noisy_voice(2.5, pitch_hz=230)])) > 0.7
    assert score(noisy_voice(5.0, pitch_hz=110)) == 0.0
    assert score(noisy_voice(5.0, pitch_hz=230)) == 0.0


def test_a_voice_that_stays_higher_is_another_one_and_a_voice_that_returns_is_not() -> None:
    def score(*pitches_hz: float) -> float:
        phase = 2 * np.pi * np.cumsum(np.repeat(pitches_hz, 9_600)) / 16_000
        samples = sum(0.1 / number * np.sin(number * phase) for number in range(1, 11)).astype(np.float32)
        frames = power_frames(samples)
        return voices.several_speakers_score(frames, np.ones(len(frames), np.float32))

    low, high = (150, 155, 148, 152), (198, 206, 197, 203)  # 5 semitones apart
    assert score(*low, *high) > 0.7 and score(*high, *low) > 0.7
    assert score(*(hz for pair in zip(low, high, strict=True) for hz in pair)) < 0.3
    assert score(*low, *low) == score(*high, *high) == 0


def test_equal_samples_have_one_hash_in_any_lossless_container(measure, tmp_path: Path) -> None:
    pcm = np.rint(noisy_voice(1.0) * 32767).astype(np.int16)
    kinds = [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("b.flac", "PCM_24"), ("c.wav", "FLOAT"), ("d.aiff", "PCM_16")]
    hashes = {measure(pcm, name, subtype=subtype).samples_sha256 for name, subtype in kinds[:3]}
    hashes.add(measure(pcm / np.float32(32768), "c.wav", subtype="FLOAT").samples_sha256)
    assert len(hashes) == 1
    pcm[777] += 1
    assert measure(pcm).samples_sha256 not in hashes


def test_a_span_is_measured_as_if_it_were_a_file(measure, tmp_path: Path) -> None:
    samples = np.concatenate([noisy_voice(1.5), noisy_voice(2.0, pitch_hz=200)])
    measure(samples, "long.wav")
    part = measure_file(tmp_path / "long.wav", 1.0, 3.5)
    alone = measure(load_audio(tmp_path / "long.wav")[16_000:56_000], "part.wav")
    assert part == alone


def test_a_batch_gives_what_single_files_give_and_keeps_errors_in_their_place(tmp_path: Path) -> None:
    clips: list[tuple[Path, float | None, float | None]] = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, noisy_voice(0.5 + 0.3 * number, seed=number), (8_000, 16_000, 44_100)[number % 3])
        clips.append((path, None, None))
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    clips[2:2] = [(tmp_path / "broken.wav", None, None), (tmp_path / "gone.wav", None, None)]
    clips += [(tmp_path / "nan.wav", None, None), (tmp_path / "0.wav", -5.0, None), (tmp_path / "1.wav", 50.0, 60.0)]
    for clip, result in zip(clips, measure_batch(clips), strict=True):
        if isinstance(result, AudioError):
            with pytest.raises(AudioError) as expected:
                load_audio(*clip)
            assert (str(result), result.reason) == (str(expected.value), expected.value.reason)
            with pytest.raises(AudioError):
                measure_file(*clip)
        else:
            assert result == measure_file(*clip)
    assert sum(isinstance(result, AudioError) for result in measure_batch(clips)) == 5
    assert measure_batch([]) == []


@pytest.mark.parametrize("count", [1, 2, 100, 511, 700, 1_500, 8_000])
def test_the_shortest_clips_have_measures_that_json_can_hold(measure, count: int) -> None:
    for samples in (noise(count, 0.1), np.zeros(count), np.ones(count) * 0.99):
        for rate_hz in (8_000, 16_000, 48_000):
            measures = measure(samples, rate_hz=rate_hz)
            json.dumps(dataclasses.asdict(measures), allow_nan=False)
            assert isinstance(measures, AudioMeasures)


def test_real_recordings_have_plausible_measures(shared_speech: Path) -> None:
    paths = sorted((shared_speech / "speechocean762").glob("*/audio/*.ogg"))[::70]
    if not paths:
        pytest.skip("shared/data holds no speechocean762 recordings")
    for result in measure_batch([(path, None, None) for path in paths]):
        assert isinstance(result, AudioMeasures)
        assert result.snr_db is not None and result.snr_db > 10
        assert -45 < result.level_lufs < -10
        assert 0.3 < result.speech_frac < 0.95
        assert result.bandwidth_hz > 7_000
        assert result.clipped_frac == result.dropouts == 0
        assert result.music_score < 0.6 and result.several_speakers_score < 0.8
