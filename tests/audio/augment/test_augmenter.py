"""Draws and their application: repeatable, replayable, pure, and in the right proportions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from augment_fixtures import RATE_HZ, bursts

from speechtune.audio.augment import AugmentConfig, AugmentDraw, Augmenter, ClipInfo, rng_for
from speechtune.audio.augment.materials import Materials, recordings_below
from speechtune.audio.augment.presets import CLEAN, MIXTURES, PRESETS
from speechtune.core.config import validate
from speechtune.core.errors import InputError

CLIP = ClipInfo("u0", 4.0, "s0")
LIBRARIES = ("pyroomacoustics", "python_stretch")


@pytest.fixture(autouse=True)
def _libraries() -> None:
    for name in LIBRARIES:
        pytest.importorskip(name, reason=f"needs {name} (extra: augment)")


@pytest.mark.parametrize("name", [*PRESETS, *MIXTURES])
def test_every_preset_draws_repeatably_and_applies_purely(name: str, materials: Materials) -> None:
    augmenter = Augmenter(AugmentConfig(preset=name), materials=materials)
    again = Augmenter(AugmentConfig(preset=name), materials=materials)
    speech, _ = bursts()
    kept = speech.copy()
    speech.flags.writeable = False
    changed_any = 0
    for epoch in range(6):
        draw = augmenter.draw(rng_for(1, epoch, "u0"), CLIP)
        assert draw == again.draw(rng_for(1, epoch, "u0"), CLIP)
        if draw is None:
            continue
        changed = augmenter.apply(draw, speech)
        replayed = AugmentDraw.from_json(json.loads(json.dumps(draw.to_json())))
        assert replayed == draw
        assert np.array_equal(changed, again.apply(replayed, speech))
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert len(changed) / RATE_HZ == pytest.approx(draw.duration_s, abs=2e-3)
        assert not np.shares_memory(changed, speech)
        changed_any += not np.array_equal(changed, speech)
    assert np.array_equal(speech, kept)
    assert changed_any or name == "second_place"


@pytest.mark.parametrize("samples", [1, 159, 4_000])
@pytest.mark.parametrize("amplitude", [0.0, 0.1, 30.0])
def test_odd_clips_stay_finite(samples: int, amplitude: float, materials: Materials) -> None:
    clip = (amplitude * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    for name in PRESETS:
        augmenter = Augmenter(AugmentConfig(preset=name), materials=materials)
        for epoch in range(3):
            draw = augmenter.draw(rng_for(0, epoch, "x"), ClipInfo("x", samples / RATE_HZ))
            if draw is not None:
                assert np.isfinite(augmenter.apply(draw, clip)).all(), draw


def test_off_by_default_and_a_share_of_none() -> None:
    assert not AugmentConfig().enabled
    assert Augmenter(AugmentConfig()).draw(np.random.default_rng(0), CLIP) is None
    assert not AugmentConfig(preset="phone_mic", share=0.0).enabled


def test_shares_of_a_mixture_and_of_all_clips(materials: Materials) -> None:
    augmenter = Augmenter(
        AugmentConfig(mixture={CLEAN: 0.25, "phone_mic": 0.5, "noise": 0.25}, share=0.8), materials=materials
    )
    draws = [augmenter.draw(rng_for(0, 0, f"u{number}"), CLIP) for number in range(2_000)]
    counts = {name: sum(draw is not None and draw.branch == name for draw in draws) for name in ("phone_mic", "noise")}
    assert counts["phone_mic"] / 2_000 == pytest.approx(0.4, abs=0.035)  # three standard errors
    assert counts["noise"] / 2_000 == pytest.approx(0.2, abs=0.03)


def test_named_mixtures_add_up() -> None:
    for shares in MIXTURES.values():
        assert sum(shares.values()) == pytest.approx(1.0)
        assert set(shares) - {CLEAN} <= set(PRESETS)


def test_an_empty_clip_is_silence_or_noise_and_never_babble(materials: Materials) -> None:
    augmenter = Augmenter(AugmentConfig(), materials=materials)
    levels = []
    for number in range(40):
        draw = augmenter.draw_empty(rng_for(0, 0, f"empty-{number}"), f"empty-{number}", (1.0, 2.0))
        clip = augmenter.apply(draw, np.zeros(0, np.float32))
        assert 1.0 <= len(clip) / RATE_HZ <= 2.0
        assert "babble" not in draw.dumps()
        levels.append(float(np.sqrt(np.mean(np.square(clip)))))
    silent = sum(level == 0 for level in levels)
    assert 1 <= silent <= 20
    loud = max(levels)
    assert 20 * np.log10(loud) == pytest.approx(-28, abs=3)


def test_speed_before_noise_keeps_the_ratio_and_the_length_rule(materials: Materials) -> None:
    config = AugmentConfig(
        effects=[
            {"kind": "speed", "factor": [0.5, 0.5]},
            {"kind": "shift", "lead_s": [3, 3]},
            {"kind": "noise", "sources": ["white"]},
        ],
    )
    augmenter = Augmenter(config, materials=Materials(max_duration_s=9.0))
    draw = augmenter.draw(rng_for(0, 0, "u0"), CLIP)
    assert draw is not None
    changed = augmenter.apply(draw, bursts()[0])
    assert 8.9 < len(changed) / RATE_HZ <= 9.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "classrom"}, "did you mean classroom"),
        ({"preset": "mild", "effects": [{"kind": "gain"}]}, "preset and effects are both given"),
        ({"mixture": {"clean": 0.5, "noise": 0.4}}, "add up to 0.9"),
        ({"effects": [{"kind": "gain"}, {"kind": "silence"}]}, "effect 2 has the kind 'silence'"),
        ({"effects": [{"kind": "gain", "gain": 3}]}, r"effect 1 \(gain\) has no key 'gain'"),
        ({"effects": [{"kind": "noise", "snr_db": [20, 3]}]}, "falls from 20 to 3"),
        ({"presett": "mild"}, "did you mean preset"),
    ],
)
def test_a_wrong_config_is_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        validate(AugmentConfig, values, "augment.yaml")
    assert "\n" not in str(caught.value)


def test_missing_material_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="noise effect has no source"):
        Augmenter(AugmentConfig(preset="second_place"))
    with pytest.raises(InputError, match="impulse-response directory"):
        Augmenter(AugmentConfig(effects=[{"kind": "reverb", "source": "files"}]))
    with pytest.raises(InputError, match="does not exist"):
        recordings_below(tmp_path / "no", "noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no audio files"):
        recordings_below(tmp_path / "empty", "noise")


def test_a_draw_that_cannot_be_replayed_says_so(materials: Materials) -> None:
    augmenter = Augmenter(AugmentConfig(), materials=materials)
    gone = {"utterance_id": "u", "branch": "b", "duration_s": 1.0}
    noise = {"kind": "noise", "snr_db": 3.0, "source": "files", "name": "gone.wav", "offset_s": 0.0}
    for effects, message in (([noise], "'gone.wav', which is not among"), ([{"kind": "flanger"}], "effect 'flanger'")):
        with pytest.raises(InputError, match=message):
            augmenter.apply(AugmentDraw.from_json({**gone, "effects": effects}), bursts()[0])
    with pytest.raises(InputError, match="is not an augmentation draw"):
        AugmentDraw.from_json("{}")


def test_categories_are_read_from_a_table_beside_the_noise(tmp_path: Path, materials: Materials) -> None:
    (tmp_path / "a.wav").write_bytes(materials.noises[0].path.read_bytes())
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav", "category": "Restaurant"}\n')
    (found,) = recordings_below(tmp_path, "noise")
    assert "restaurant" in found.words
    assert found.duration_s == pytest.approx(1.5)
