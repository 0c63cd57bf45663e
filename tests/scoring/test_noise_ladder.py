"""The noise ladder: exact ratios, one noise for all bands, verdicts, resuming, and the verb on a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from speechtune.audio.augment.effects.noise import Noise
from speechtune.audio.augment.materials import Materials
from speechtune.audio.augment.measure import power, speech_active
from speechtune.audio.io import load_audio, write_audio
from speechtune.cli.app import build
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, read_jsonl
from speechtune.corpus.augmenting import speech_of
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.transcript import Transcript
from speechtune.scoring import noise_ladder
from speechtune.scoring.bootstrap import Difference, Interval
from speechtune.scoring.noise_ladder import BANDS, diagnose, draw_ladder, run_ladder, verdict_of
from speechtune.scoring.score import Score, score_transcripts


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Twelve seconds of bursts of tone by six speakers."""
    root = tmp_path / "corpus"
    (root / "audio").mkdir(parents=True)
    time_s = np.arange(16_000) / 16_000
    rows = []
    for number in range(12):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * time_s) * (np.sin(2 * np.pi * 3 * time_s) > 0)
        write_audio(root / f"audio/{number}.wav", tone.astype(np.float32))
        row = {
            "utterance_id": f"u{number}",
            "file_name": f"audio/{number}.wav",
            "text": "go on then",
            "duration_s": 1.0,
        }
        rows.append(Utterance.from_row({**row, "speaker_id": f"s{number % 6}", "language": "en"}))
    made = Corpus(root, rows, {"kept": 12})
    made.save()
    return made


def test_the_drawn_ratio_is_the_ratio_of_the_mix(corpus: Corpus) -> None:
    materials = Materials(speech=speech_of(corpus))
    drawn = draw_ladder(corpus, materials, ("pink", "babble"), 3)
    for band in BANDS:
        for one in corpus:
            parameters = drawn[band.name][one.utterance_id].effects[0].parameters
            clean = load_audio(corpus.path_of(one))
            noise = Noise.apply(clean, parameters, materials) - clean
            active = speech_active(clean)
            ratio = 10 * np.log10(power(clean, active) / power(noise, active))
            assert ratio == pytest.approx(parameters["snr_db"], abs=0.05)
            assert band.snr_db[0] <= parameters["snr_db"] <= band.snr_db[1]


def test_bands_differ_only_in_level_and_the_seed_decides(corpus: Corpus) -> None:
    materials = Materials(speech=speech_of(corpus))
    drawn = draw_ladder(corpus, materials, ("pink", "babble"), 3)
    kinds = set()
    for one in corpus:
        found = [drawn[band.name][one.utterance_id].effects[0].parameters for band in BANDS]
        rest = [{key: value for key, value in one.items() if key != "snr_db"} for one in found]
        assert rest[0] == rest[1] == rest[2]
        heights = [one["snr_db"] - band.snr_db[0] for one, band in zip(found, BANDS, strict=True)]
        assert heights[0] == pytest.approx(heights[1], abs=0.011) and heights[1] == pytest.approx(heights[2], abs=0.011)
        kinds.add(found[0]["source"])
    assert kinds == {"pink", "babble"}
    shuffled = Corpus(corpus.root, corpus.utterances[::-1])
    assert draw_ladder(shuffled, Materials(speech=speech_of(corpus)), ("pink", "babble"), 3) == drawn
    assert draw_ladder(corpus, materials, ("pink", "babble"), 4) != drawn


def test_the_directory_of_noise_is_used(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    write_audio(tmp_path / "noise" / "fan.wav", np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 9)
    opened = _Opened(corpus)
    ladder = run_ladder(opened, corpus, _clean(corpus), noise=tmp_path / "noise")  # type: ignore[arg-type]
    assert {one.effects[0].parameters["name"] for one in ladder.draws} == {"fan.wav"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no audio"):
        run_ladder(opened, corpus, _clean(corpus), noise=tmp_path / "empty")  # type: ignore[arg-type]


@dataclass
class _Family:
    language: str | None = "en"


class _Opened:
    """A model that hears the wrong word once the noise is strong; ``heard`` counts the clips it was given."""

    def __init__(self, corpus: Corpus) -> None:
        self.path = corpus.root
        self.family = _Family()
        self.decoding = DecodingConfig()


def _clean(corpus: Corpus, errors: int = 1) -> Score:
    texts = ["go in then" if number < errors else "go on then" for number in range(len(corpus))]
    return score_transcripts(corpus, [Transcript(utterance_id=f"u{i}", text=text) for i, text in enumerate(texts)])


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts the listener of `_Opened` in the place of a recogniser, and lists what it heard."""
    calls: list[str] = []

    def listen(family: Any, utterances: Sequence[Utterance], load: Any, config: Any, title: str) -> list[Transcript]:
        found = []
        for one in utterances:
            samples = load(one)
            calls.append(one.utterance_id)
            quiet = float(np.sort(np.abs(samples))[len(samples) // 4])
            words = "go on then" if quiet < 0.01 else "go in then" if quiet < 0.03 else "no no no"
            found.append(Transcript(utterance_id=one.utterance_id, text=words))
        return found

    monkeypatch.setattr(noise_ladder, "transcribe", listen)
    return calls


def test_ladder_from_end_to_end(corpus: Corpus, tmp_path: Path, heard: list[str]) -> None:
    opened: Any = _Opened(corpus)
    clean = _clean(corpus)
    ladder = run_ladder(opened, corpus, clean, seed=5, out=tmp_path / "out")
    rates = [one.score.wer or 0 for one in ladder.rungs]
    assert rates == sorted(rates) and rates[2] > 0.8
    heavy = ladder.rungs[2]
    assert heavy.difference.difference == pytest.approx(rates[2] - 1 / 36)
    assert (
        heavy.rise == pytest.approx((rates[2] - 1 / 36) * 36) and heavy.verdict == "more than expected" and heavy.sure
    )
    assert heavy.adjusted_p_value is not None and heavy.adjusted_p_value < 1e-3
    assert [rule["band"] for rule in ladder.diagnosis] == ["heavy"]
    result = ladder.to_json()
    assert result["kept"] == 12 and result["seconds_of_audio"] == 48.0 and list(result["bands"]) == [
        "mild", "moderate", "heavy",
    ]  # fmt: skip
    text = ladder.to_text()
    assert "more than expected" in text and "stronger noise augmentation" in text
    folder = tmp_path / "out" / "noise_ladder"
    assert read_json(folder / "ladder.json")["bands"] == json.loads(json.dumps(result["bands"]))
    assert len(read_jsonl(folder / "draws.jsonl")) == 36
    # Again: nothing is decoded. One band lost: that one is. Another seed: all are.
    heard.clear()
    assert run_ladder(opened, corpus, clean, seed=5, out=tmp_path / "out").to_json() == result and not heard
    (folder / "moderate.jsonl").unlink()
    assert run_ladder(opened, corpus, clean, seed=5, out=tmp_path / "out").to_json() == result and len(heard) == 12
    run_ladder(opened, corpus, clean, seed=6, out=tmp_path / "out")
    assert len(heard) == 48


def _difference(low: float, middle: float, high: float) -> Difference:
    return Difference(middle, Interval(low, high, 0.95, "speaker", 9, 1000, 0), 0.01)


@pytest.mark.parametrize(
    ("difference", "verdict", "sure"),
    [
        ((-0.01, 0.01, 0.03), "no rise shown", False),
        ((0.032, 0.04, 0.055), "as expected", True),  # 16 to 27.5 % of a clean WER of 20 %
        ((0.01, 0.04, 0.09), "as expected", False),
        ((0.07, 0.10, 0.2), "more than expected", True),
        ((0.04, 0.10, 0.2), "more than expected", False),
        ((0.005, 0.01, 0.02), "less than expected", True),
        ((-0.05, -0.03, -0.01), "fewer errors than clean", True),
    ],
)
def test_verdicts(difference: tuple[float, float, float], verdict: str, sure: bool) -> None:
    rise, between, found, certain = verdict_of(0.2, _difference(*difference), BANDS[1])
    assert (found, certain) == (verdict, sure)
    assert rise == pytest.approx(difference[1] / 0.2) and between == pytest.approx(
        (difference[0] / 0.2, difference[2] / 0.2)
    )


def test_no_clean_errors_is_no_verdict() -> None:
    assert verdict_of(0.0, _difference(0.1, 0.2, 0.3), BANDS[0])[2] == "no clean errors"


def test_bad_clean_speech_silences_the_rule_of_mild_noise(corpus: Corpus) -> None:
    bad, good = _clean(corpus, 12), _clean(corpus, 0)
    assert [rule["band"] for rule in diagnose(bad, {"mild": bad, "heavy": good})] == ["clean"]
    assert [rule["band"] for rule in diagnose(good, {"mild": bad, "heavy": good})] == ["mild"]
    assert diagnose(good, {"mild": good, "heavy": good}) == []


def test_verb(tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speechtune.decoding.batched import transcribe

    monkeypatch.setattr(noise_ladder, "transcribe", transcribe)
    command = ["evaluate", str(tiny_model), str(tiny_corpus), "--split", "dev", "-q", "decoding.max_new_tokens=4"]
    out = ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(build(), [*command, "--noise-ladder", "--seed", "7", *out, "--json"])
    assert result.exit_code == 0, result.output
    ladder = json.loads(result.stdout)["noise_ladder"]
    assert ladder["seed"] == 7 and set(ladder["bands"]) == {"mild", "moderate", "heavy"}
    assert (tmp_path / "out" / "score.json").is_file() and (tmp_path / "out" / "noise_ladder" / "ladder.json").is_file()
    wrong = CliRunner().invoke(build(), [*command, "--noise", str(tmp_path), "--json"])
    assert wrong.exit_code == 2 and "--noise-ladder" in json.loads(wrong.stdout)["error"]
