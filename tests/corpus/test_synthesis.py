"""espeak-ng synthesis: determinism, the effect of every parameter, the plan, and the corpus on disk."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus import synthesis
from speechtune.corpus.synthesis import (
    Clip,
    Sentence,
    Voice,
    VoiceDraw,
    espeak,
    plan_corpus,
    render,
    synthesise,
    write_corpus,
)
from speechtune.corpus.table import Corpus

TEXT = "We waited for the bus all morning."
RATE_HZ = synthesis.SAMPLE_RATE_HZ


@pytest.fixture(autouse=True)
def _engine_installed(request: pytest.FixtureRequest) -> None:
    if "no_engine" not in request.fixturenames:
        pytest.importorskip("espeakng_loader", reason="needs the PyPI package espeakng-loader (extra: demo)")


def _draw(**changes: Any) -> VoiceDraw:
    plain = VoiceDraw(Voice("en-us"), 0.0, "white", 60.0, 1, 0.4, 0.2)
    return replace(plain, **changes)


def _rms_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def _fundamental_hz(samples: np.ndarray) -> float:
    """Median autocorrelation peak (60-400 Hz) over the louder half of 40 ms frames."""
    frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
    energy = np.square(frames).sum(axis=1)
    found = []
    for frame in frames[energy > np.median(energy)]:
        correlation = np.correlate(frame, frame, "full")[639:]
        low, high = RATE_HZ // 400, RATE_HZ // 60
        found.append(RATE_HZ / (low + int(np.argmax(correlation[low:high]))))
    return float(np.median(found))


@pytest.mark.parametrize("name", ["en-us", "en+m2", "en-gb-scotland", "en-us+whisper", "en-us+klatt2"])
def test_the_same_call_gives_the_same_samples_whatever_was_said_before(name: str) -> None:
    first = synthesise(TEXT, Voice(name))
    synthesise("Something quite different, and longer.", Voice("en-029+f2", rate_wpm=185, pitch=60))
    assert np.array_equal(first, synthesise(TEXT, Voice(name)))


def test_threads_do_not_disturb_each_other() -> None:
    voices = [Voice(name) for name in ("en-us", "en-us+f3", "en", "en-029")] * 3
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda voice: synthesise(TEXT, voice), voices))
    assert all(np.array_equal(one, synthesise(TEXT, voice)) for one, voice in zip(together, voices, strict=True))


def test_samples_are_float32_at_16_khz_in_range_and_voices_differ() -> None:
    one, other = synthesise(TEXT, Voice("en-us")), synthesise(TEXT, Voice("en-gb-scotland+f2"))
    assert one.dtype == np.float32
    assert one.ndim == 1
    assert 1.0 < len(one) / RATE_HZ < 4.0
    assert 0.05 < np.abs(one).max() < 1.0
    assert _fundamental_hz(other) > 1.3 * _fundamental_hz(one)


def test_rate_shortens_and_pitch_raises() -> None:
    slow, fast = (len(synthesise(TEXT, Voice("en-us", rate_wpm=rate))) for rate in (130, 190))
    assert 1.25 < slow / fast < 1.7
    low, high = (_fundamental_hz(synthesise(TEXT, Voice("en-us", pitch=pitch))) for pitch in (20, 80))
    assert high > 1.3 * low


def test_a_pronunciation_replaces_whole_words_in_any_case() -> None:
    sounds = {"Makolet": "mA:k'olet", "Teudat Zehut": "te?ud'A:t zeh'ut", "Teudat": "dZ"}
    spoken = synthesise("My teudat zehut is at the Makolet.", Voice("en-us"), sounds)
    by_hand = synthesise("My [[te?ud'A:t zeh'ut]] is at the [[mA:k'olet]].", Voice("en-us"))
    assert np.array_equal(spoken, by_hand)
    untouched = "Two Makolets."
    assert np.array_equal(synthesise(untouched, Voice("en-us"), sounds), synthesise(untouched, Voice("en-us")))


@pytest.mark.parametrize("phonemes", ["mAk'0lEt", "", "  ", "m]]a"])
def test_phonemes_the_engine_would_cut_short_are_refused(phonemes: str) -> None:
    with pytest.raises(InputError, match="of 'Makolet' is not valid espeak-ng phonemes"):
        synthesis.check_pronunciation("Makolet", phonemes)
    synthesis.check_pronunciation("Makolet", "mA:k'olet")


@pytest.mark.parametrize("name", ["en-zz", "en-us+nobody", "", "+f2", "en-us+../../phontab"])
def test_an_unknown_voice_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match="espeak-ng has no voice"):
        synthesise(TEXT, Voice(name))


@pytest.mark.parametrize("text", ["", "  ", "..."])
def test_a_text_without_words_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="made no sound"):
        synthesise(text, Voice("en-us"))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)


@pytest.mark.usefixtures("no_engine")
def test_without_the_package_the_extra_is_named() -> None:
    with pytest.raises(InputError, match=r"espeakng-loader is not installed: run pip install 'speechtune\[demo\]'"):
        synthesise(TEXT, Voice("en-us"))


def test_a_data_path_too_long_for_the_engine_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = synthesise(TEXT, Voice("en-us+f2"))
    loader = espeak._loader()
    folder = tmp_path / ("a" * 90) / ("b" * 90)
    folder.mkdir(parents=True)
    far = folder / "espeak-ng-data"
    far.symlink_to(loader.get_data_path(), target_is_directory=True)
    long_loader = SimpleNamespace(get_library_path=loader.get_library_path, get_data_path=lambda: str(far))
    monkeypatch.setattr(espeak, "_loader", lambda: long_loader)
    espeak._data_path.cache_clear()
    try:
        assert np.array_equal(synthesise(TEXT, Voice("en-us+f2")), expected)
    finally:
        espeak._data_path.cache_clear()


@pytest.mark.usefixtures("no_engine")
def test_a_plan_is_drawn_without_the_engine_in_range_balanced_and_repeatable() -> None:
    sentences = [Sentence(f"sentence {number}", "train" if number % 3 else "test") for number in range(90)]
    voices = {"train": ["a", "b", "c", "d"], "test": ["e", "f"]}
    plan = plan_corpus(sentences, voices, seed=3)
    assert plan == plan_corpus(sentences, voices, seed=3)
    assert plan != plan_corpus(sentences, voices, seed=4)
    assert [clip.sentence for clip in plan] == sentences
    for split, names in voices.items():
        spoken = Counter(clip.draw.voice.name for clip in plan if clip.sentence.split == split)
        assert set(spoken) == set(names)
        assert max(spoken.values()) - min(spoken.values()) <= 1
    draws = [clip.draw for clip in plan]
    assert all(130 <= draw.voice.rate_wpm <= 190 and 25 <= draw.noise_snr_db <= 35 for draw in draws)
    assert all(-6 <= draw.gain_db <= 6 and 0.1 <= min(draw.lead_s, draw.tail_s) <= 0.4 for draw in draws)
    assert {draw.noise for draw in draws} == {"white", "pink"}


@pytest.mark.usefixtures("no_engine")
def test_a_split_without_voices_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'dev' has no voices"):
        plan_corpus([Sentence("hello", "dev")], {"train": ["en"]}, seed=0)


@pytest.mark.usefixtures("no_engine")
def test_pink_noise_has_the_same_power_in_every_octave_and_white_doubles() -> None:
    for colour, step_db in (("pink", 0.0), ("white", 3.01)):
        noise = synthesis.coloured_noise(2**17, colour, seed=5)
        power = np.square(np.abs(np.fft.rfft(noise)))
        octaves = [10 * np.log10(power[2**k : 2 ** (k + 1)].sum()) for k in range(9, 16)]
        assert np.diff(octaves) == pytest.approx([step_db] * 6, abs=0.6)
        assert np.mean(np.square(noise)) == pytest.approx(1.0)


@pytest.mark.parametrize(("gain_db", "snr_db"), [(0.0, 20.0), (-6.0, 35.0)])
def test_render_sets_the_level_the_noise_and_the_margins(gain_db: float, snr_db: float) -> None:
    clip = Clip(Sentence(TEXT, "train"), _draw(gain_db=gain_db, noise_snr_db=snr_db))
    samples = render(clip)
    lead, tail = round(0.4 * RATE_HZ), round(0.2 * RATE_HZ)
    assert len(samples) == len(synthesise(TEXT, clip.draw.voice)) + lead + tail
    assert _rms_db(samples[lead:-tail]) == pytest.approx(-26 + gain_db, abs=0.2)
    assert _rms_db(samples[:lead]) == pytest.approx(-26 + gain_db - snr_db, abs=0.5)
    assert np.array_equal(samples, render(clip))


def test_render_never_leaves_the_range() -> None:
    samples = render(Clip(Sentence(TEXT, "train"), _draw(gain_db=30.0)))
    assert np.abs(samples).max() == pytest.approx(1.0)


def test_a_written_corpus_loads_and_counts_what_it_dropped(tmp_path: Path) -> None:
    import soundfile

    endless = "This sentence goes on and on without an end. " * 6
    sentences = [Sentence("I was at the Makolet.", "train", ("Makolet",), "term"), Sentence(endless, "train")]
    plan = [*plan_corpus(sentences, {"train": ["en-us+f2"]}, seed=1)]
    out = tmp_path / "corpus"
    write_corpus(out, plan, {"Makolet": "mA:k'olet"}, seed=1)
    corpus = Corpus.load(out)
    (row,) = corpus
    samples, rate_hz = soundfile.read(out / row.file_name)
    assert rate_hz == RATE_HZ
    assert row.duration_s == pytest.approx(len(samples) / rate_hz, abs=1e-3)
    assert samples == pytest.approx(render(plan[0], {"Makolet": "mA:k'olet"}), abs=2**-15)
    assert (row.text, row.speaker_id, row.language) == ("I was at the Makolet.", "en-us+f2", "en")
    assert (row.extra["term"], row.extra["kind"]) == ("Makolet", "term")
    drawn = plan[0].draw
    assert (row.extra["rate_wpm"], row.extra["noise_snr_db"]) == (drawn.voice.rate_wpm, drawn.noise_snr_db)
    assert corpus.card["kept"] == 1
    assert corpus.card["dropped_by_reason"] == {"longer_than_10_s": 1}
    assert corpus.card["terms"] == ["Makolet"]
    assert corpus.card["seconds_of_audio"] == pytest.approx(row.duration_s, abs=1e-3)
    assert corpus.card["provenance"]["engine"].startswith("espeak-ng 1.")


def test_a_bad_pronunciation_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Makolet"):
        write_corpus(tmp_path / "corpus", [], {"Makolet": "mAk"}, seed=0)
    assert list(tmp_path.iterdir()) == []
