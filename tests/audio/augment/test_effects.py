"""Each effect against a law or an independent measurement; the speech of the test clip is known by construction."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from augment_fixtures import RATE_HZ, bursts
from pydantic import ValidationError

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects import (
    EFFECTS,
    BandLimit,
    Codec,
    Compress,
    Gain,
    Noise,
    Pitch,
    Reverb,
    Shift,
    Speed,
    Tempo,
)
from speechtune.audio.augment.effects.base import Effect
from speechtune.audio.augment.effects.channel import band_limit
from speechtune.audio.augment.effects.reverb import direct_sound, room_response
from speechtune.audio.augment.materials import Materials
from speechtune.audio.augment.measure import speech_active
from speechtune.core.errors import InputError

CLIP = ClipInfo("u0", 4.0, "s0")


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


def lag_samples(before: np.ndarray, after: np.ndarray, reach: int = 2_000) -> int:
    """By how much ``after`` is late, from the envelope-free cross-correlation at each lag."""
    size = 1 << (len(before) + len(after)).bit_length()
    both = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)), size)
    near = np.concatenate([both[-reach:], both[: reach + 1]])
    return int(np.argmax(near)) - reach


def drawn(effect: Effect, materials: Materials, seed: int = 0) -> dict[str, object]:
    parameters = effect.draw(np.random.default_rng(seed), CLIP, materials)
    assert parameters is not None
    return parameters


def hiss(seed: int = 5) -> np.ndarray:
    """Noise bursts: broad enough that a correlation has one peak."""
    speech, speaking = bursts()
    return (0.1 * np.random.default_rng(seed).standard_normal(len(speech)) * speaking).astype(np.float32)


def test_active_samples_are_the_bursts() -> None:
    speech, speaking = bursts()
    found = speech_active(speech)
    assert np.mean(found != speaking) < 0.06
    assert np.array_equal(found, speech_active(speech * np.float32(0.01)))  # no absolute level is involved
    assert not speech_active(np.zeros(800, np.float32)).any()
    assert len(speech_active(np.zeros(0, np.float32))) == 0


@pytest.mark.parametrize("source", ["files", "babble", "white", "pink", "brown", "hum"])
@pytest.mark.parametrize("snr_db", [15.0, -5.0, 40.0])
def test_the_requested_ratio_is_the_measured_one_over_the_speech(
    source: str, snr_db: float, materials: Materials
) -> None:
    speech, speaking = bursts()
    parameters = drawn(Noise(snr_db=(snr_db, snr_db), sources=(source,)), materials)
    noise = Noise.apply(speech, parameters, materials) - speech
    assert level_db(speech[speaking]) - level_db(noise[speaking]) == pytest.approx(snr_db, abs=0.5)


def test_noise_in_the_pauses_does_not_count(materials: Materials, monkeypatch: pytest.MonkeyPatch) -> None:
    speech, speaking = bursts()
    uneven = np.random.default_rng(1).standard_normal(len(speech)) * np.where(speaking, 1.0, 20.0)
    monkeypatch.setattr("speechtune.audio.augment.effects.noise.make_noise", lambda *_: uneven)
    noise = Noise.apply(speech, {"snr_db": 10.0}, materials) - speech
    inner = speaking & np.roll(speaking, 800) & np.roll(speaking, -800)  # the active frames reach into the pauses
    assert level_db(speech[speaking]) - level_db(noise[speech_active(speech)]) == pytest.approx(10.0, abs=0.5)
    assert level_db(noise[~speaking]) > level_db(noise[inner]) + 20


def test_a_noise_shorter_than_the_clip_begins_again(materials: Materials) -> None:
    speech, _ = bursts()
    parameters = {"snr_db": 0.0, "source": "files", "name": "street/one.wav", "offset_s": 0.25}
    noise = Noise.apply(speech, parameters, materials) - speech
    assert noise[:2_000] == pytest.approx(noise[24_000:26_000], abs=1e-6)
    assert np.abs(noise[:2_000] - noise[6_000:8_000]).max() > 1e-3


def test_a_long_recording_is_read_in_spans_as_if_it_were_whole(
    materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = materials.noises[1]
    whole = [recording.read(at, 40_000) for at in (0.0, 2.5, 5.9)]
    monkeypatch.setattr("speechtune.audio.augment.materials.KEPT_S", 0.0)
    for at, expected in zip((0.0, 2.5, 5.9), whole, strict=True):
        assert np.array_equal(recording.read(at, 40_000), expected)


def test_babble_has_other_speakers_only_each_once(materials: Materials) -> None:
    effect = Noise(sources=("babble",), voices=(2, 3))
    for seed in range(30):
        names = [one["name"] for one in drawn(effect, materials, seed)["talkers"]]  # type: ignore[attr-defined]
        assert names
        assert "u0" not in names  # the only utterance of the clip's own speaker
        assert not {"u2", "u3"} <= set(names)  # both are of one speaker
    alone = Materials(speech=[one for one in materials.speech if one.speaker_id == "s0"])
    assert effect.draw(np.random.default_rng(0), CLIP, alone) is None


def test_words_choose_among_the_files(materials: Materials) -> None:
    effect = Noise(sources=("files",), match=("cafe",))
    assert {drawn(effect, materials, seed)["name"] for seed in range(10)} == {"cafe/two.wav"}
    with pytest.raises(InputError, match="recordings with nowhere in their name"):
        Noise(sources=("files",), match=("nowhere",)).needs(materials)


def test_gain_is_exact(materials: Materials) -> None:
    speech, _ = bursts()
    for gain_db in (-6.0, 0.0, 12.0):
        changed = Gain.apply(speech, drawn(Gain(gain_db=(gain_db, gain_db)), materials), materials)
        assert level_db(changed) - level_db(speech) == pytest.approx(gain_db, abs=1e-4)


def test_clipping_cuts_the_drawn_share(materials: Materials) -> None:
    speech, _ = bursts()
    changed = EFFECTS["clip"].apply(speech, {"clipped_frac": 0.1}, materials)
    cut = np.abs(changed) < np.abs(speech)
    assert cut.sum() / speech_active(speech).sum() == pytest.approx(0.1, abs=0.01)
    assert np.array_equal(changed[~cut], speech[~cut])


def test_compression_brings_loud_and_soft_together_and_keeps_the_level(materials: Materials) -> None:
    speech, speaking = bursts()
    half = len(speech) // 2
    speech[:half] *= np.float32(0.25)  # 12 dB
    parameters = {"ratio": 4.0, "threshold_db": -30.0, "attack_ms": 5.0, "release_ms": 40.0}
    changed = Compress.apply(speech, parameters, materials)
    first, second = (
        level_db(changed[part & speaking]) for part in (np.arange(len(speech)) < half, np.arange(len(speech)) >= half)
    )
    assert second - first == pytest.approx(12.0 / 4.0, abs=1.5)
    active = speech_active(speech)
    assert level_db(changed[active]) == pytest.approx(level_db(speech[active]), abs=0.01)


@pytest.mark.parametrize("codec", ["mp3", "opus", "vorbis", "ulaw", "alaw", "gsm"])
@pytest.mark.parametrize("compression", [0.3, 0.95])
def test_codecs_keep_length_and_time_and_change_the_sound(codec: str, compression: float, materials: Materials) -> None:
    speech = hiss()
    changed = Codec.apply(speech, {"codec": codec, "compression": compression}, materials)
    assert changed.shape == speech.shape
    assert abs(lag_samples(speech, changed)) <= RATE_HZ // 1000
    assert level_db(changed - speech) > level_db(speech) - 45


@pytest.mark.parametrize("codec", ["mp3", "opus", "alaw"])
def test_a_codec_does_not_clip_what_is_louder_than_full_scale(codec: str, materials: Materials) -> None:
    speech = band_limit(hiss(), 400.0, 3_000.0, 8)
    parameters = {"codec": codec, "compression": 0.1}
    soft, loud = (Codec.apply(np.float32(gain) * speech, parameters, materials) for gain in (1.0, 30.0))
    assert level_db(loud) - level_db(soft) == pytest.approx(20 * np.log10(30), abs=0.2)


def test_a_telephone_passes_nothing_above_4_khz(materials: Materials) -> None:
    changed = Codec.apply(hiss(), {"codec": "alaw"}, materials)
    power = np.square(np.abs(np.fft.rfft(changed)))
    hz = np.fft.rfftfreq(len(changed), 1 / RATE_HZ)
    assert 10 * np.log10(power[hz > 4_100].mean() / power[(hz > 500) & (hz < 3_000)].mean()) < -40


def test_band_limit_is_3_db_down_at_its_edges_and_does_not_move(materials: Materials) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(160_000).astype(np.float32)
    changed = BandLimit.apply(noise, {"low_hz": 300.0, "high_hz": 3_000.0, "order": 4}, materials)
    ratio = np.square(np.abs(np.fft.rfft(changed))) / np.square(np.abs(np.fft.rfft(noise)))
    hz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
    at = [10 * np.log10(np.median(ratio[np.abs(hz - centre) < 15])) for centre in (300, 1_000, 3_000)]
    assert at[0] - at[1] == pytest.approx(-3.0, abs=0.3)
    assert at[2] - at[1] == pytest.approx(-3.0, abs=0.3)
    assert lag_samples(noise, changed) == 0


@pytest.mark.parametrize("source", ["rooms", "files"])
def test_reverb_keeps_onset_length_and_level_and_rings_on(source: str, materials: Materials) -> None:
    if source == "rooms":
        pytest.importorskip("pyroomacoustics", reason="needs pyroomacoustics (extra: augment)")
    speech = np.zeros(32_000, np.float32)
    speech[8_000:12_000] = hiss()[:4_000]
    for seed in range(3):
        changed = Reverb.apply(speech, drawn(Reverb(source=source, decay_s=(0.4, 0.5)), materials, seed), materials)
        assert changed.shape == speech.shape
        onset = int(np.argmax(np.abs(changed) > 0.1 * np.abs(changed[8_000:12_000]).max()))
        assert abs(onset - 8_000) <= RATE_HZ // 1000
        assert level_db(changed[12_100:14_000]) > level_db(speech[8_000:12_000]) - 40
        active = speech_active(speech)
        assert level_db(changed[active]) == pytest.approx(level_db(speech[active]), abs=0.01)


def test_the_direct_sound_is_found_before_a_stronger_reflection() -> None:
    response = np.zeros(2_000)
    response[[400, 402, 900]] = 0.5, 0.7, 1.0
    assert direct_sound(response) == 402


def test_a_room_decays_as_long_as_it_was_asked_to() -> None:
    pytest.importorskip("pyroomacoustics", reason="needs pyroomacoustics (extra: augment)")
    for wanted_s in (0.25, 0.5):
        response, direct = room_response(wanted_s, (5.0, 4.0, 2.7), (1.2, 1.1, 1.5), (3.6, 2.4, 1.2))
        decay = 10 * np.log10(np.cumsum(np.square(response[direct:])[::-1])[::-1])
        drop = decay - decay[0]
        t5, t25 = (int(np.argmax(drop < -limit)) for limit in (5, 25))
        assert (t25 - t5) / RATE_HZ * 3 == pytest.approx(wanted_s, rel=0.35)  # Sabine's formula is only that near


def test_the_direct_sound_is_where_the_distance_says() -> None:
    pytest.importorskip("pyroomacoustics", reason="needs pyroomacoustics (extra: augment)")
    response, direct = room_response(0.2, (8.0, 7.0, 3.0), (4.0, 3.0, 1.5), (4.0, 5.0, 1.5))
    assert np.argmax(np.abs(response[: direct + 30])) == pytest.approx(direct, abs=1)
    assert direct == round(2.0 / 343 * RATE_HZ) + 40


@pytest.mark.parametrize("kind", [Speed, Tempo])
@pytest.mark.parametrize("factor", [0.8, 1.1])
def test_speed_and_tempo_change_the_length_and_only_speed_the_pitch(
    kind: type[Effect], factor: float, materials: Materials
) -> None:
    if kind is Tempo:
        pytest.importorskip("python_stretch", reason="needs python-stretch (extra: augment)")
    tone = np.sin(2 * np.pi * 500 * np.arange(32_000) / RATE_HZ).astype(np.float32) * 0.3
    parameters = drawn(kind(factor=(factor, factor)), materials)
    changed = kind.apply(tone, parameters, materials)
    assert len(changed) == round(32_000 / factor)
    assert len(changed) / RATE_HZ == pytest.approx(kind.duration_after(2.0, parameters), abs=1e-4)
    peak_hz = np.argmax(np.abs(np.fft.rfft(changed))) * RATE_HZ / len(changed)
    assert peak_hz == pytest.approx(500 * factor if kind is Speed else 500, abs=6)


def test_pitch_moves_by_semitones_and_keeps_time(materials: Materials) -> None:
    pytest.importorskip("python_stretch", reason="needs python-stretch (extra: augment)")
    tone = np.sin(2 * np.pi * 500 * np.arange(32_000) / RATE_HZ).astype(np.float32) * 0.3
    changed = Pitch.apply(tone, {"semitones": 3.0}, materials)
    assert len(changed) == len(tone)
    peak_hz = np.argmax(np.abs(np.fft.rfft(changed))) * RATE_HZ / len(changed)
    assert peak_hz == pytest.approx(500 * 2 ** (3 / 12), abs=6)


def test_nothing_outgrows_the_longest_length() -> None:
    short = Materials(max_duration_s=4.0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for seconds in (3.7, 4.0, 4.5):
            clip = ClipInfo("u", seconds)
            for effect in (Speed(factor=(0.7, 0.9)), Shift(lead_s=(0.0, 2.0), tail_s=(0.0, 2.0))):
                parameters = effect.draw(rng, clip, short)
                if parameters is not None:
                    changed = effect.apply(np.ones(round(seconds * RATE_HZ), np.float32), parameters, short)
                    assert len(changed) <= max(4.0, seconds) * RATE_HZ
                    if isinstance(effect, Shift):
                        assert changed.sum() == round(seconds * RATE_HZ)  # all of the clip is still there


def test_ranges_and_keys_are_checked() -> None:
    with pytest.raises(ValidationError, match=r"gain\.gain_db falls from 6 to -6"):
        Gain(gain_db=(6, -6))
    with pytest.raises(ValidationError):
        Gain(loudness=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("module", "effect"), [("pyroomacoustics", Reverb()), ("python_stretch", Tempo()), ("python_stretch", Pitch())]
)
def test_a_missing_library_is_named_before_anything_is_drawn(
    module: str, effect: Effect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"is not installed: run pip install 'speechtune\[augment\]'"):
        effect.needs(Materials())
