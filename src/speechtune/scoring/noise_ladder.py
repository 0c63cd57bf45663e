"""How a recogniser stands noise: the same clips decoded clean and under noise of three bands of signal-to-noise ratio.

The bands and the expected rises of the WER are the notebook's ("progressive noise conditions", notebook part 1, EV-1
and EV-2), read as relative rises; so are the limits of the diagnosis (EV-3), which are absolute rates. The lower end of
the heavy band, 0 dB, and the limit on clean speech are this project's choices: the notebook leaves both open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.augment.augmenter import rng_for
from speechtune.audio.augment.draws import AugmentDraw, EffectDraw
from speechtune.audio.augment.effects.noise import Noise, Source
from speechtune.audio.augment.materials import Materials, recordings_below
from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json, write_jsonl
from speechtune.core.provenance import provenance
from speechtune.corpus.augmenting import clip_info, speech_of
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.batched import transcribe
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.transcript import Transcript, read_transcripts, write_transcripts
from speechtune.scoring.bootstrap import Difference
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import Score, compare, score_transcripts
from speechtune.scoring.significance import adjust

CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Band:
    """A rung: its range of signal-to-noise ratios in dB, and the relative rise of the WER that is to be expected."""

    name: str
    snr_db: tuple[float, float]
    expected_rise: tuple[float, float]


BANDS = (
    Band("mild", (20.0, 30.0), (0.05, 0.15)),
    Band("moderate", (10.0, 20.0), (0.15, 0.30)),
    Band("heavy", (0.0, 10.0), (0.30, 0.50)),
)

LIMITS = {CLEAN: 0.20, "mild": 0.20, "heavy": 0.80}
"""WER above which the diagnosis speaks: heavy and mild as in the notebook (lines 4443-4444); clean: that of mild."""

_ADVICE = {
    CLEAN: "clean speech is recognised badly: train the model itself first, noise is not the problem",
    "mild": "much is lost already in mild noise: the model may be overfitted to clean speech; add noise in training",
    "heavy": "little is left in heavy noise: train with stronger noise augmentation",
}


@dataclass(slots=True, kw_only=True)
class Rung:
    """One band: its score, the paired difference from clean, and what to think of it.

    ``rise`` is the relative rise of the WER, ``rise_interval`` that of the difference over the clean WER (whose own
    uncertainty is left out). ``verdict``: ``no rise shown`` where the interval of the difference holds 0, else
    ``less than expected``, ``as expected`` or ``more than expected``; ``sure`` says that the whole interval lies there.
    ``adjusted_p_value`` is that of the segment test (`speechtune.scoring.significance.PairTests`), corrected for the
    number of bands (Holm).
    """

    band: Band
    score: Score
    difference: Difference
    adjusted_p_value: float | None
    rise: float | None
    rise_interval: tuple[float, float] | None
    verdict: str
    sure: bool
    mean_snr_db: float

    def to_json(self) -> dict[str, Any]:
        """The rung, JSON-ready."""
        return {
            "snr_db": list(self.band.snr_db),
            "mean_snr_db": round(self.mean_snr_db, 2),
            "score": self.score.to_json(),
            "difference": self.difference.to_json() | {"adjusted_p_value": self.adjusted_p_value},
            "relative_rise": self.rise,
            "relative_rise_interval": list(self.rise_interval) if self.rise_interval else None,
            "expected_rise": list(self.band.expected_rise),
            "verdict": self.verdict,
            "sure": self.sure,
        }


@dataclass(slots=True, kw_only=True)
class NoiseLadder:
    """The clean score, the rungs from mild to heavy, and the diagnosis: rules whose limit was passed."""

    clean: Score
    rungs: list[Rung]
    diagnosis: list[dict[str, Any]]
    noise: str
    seed: int
    draws: list[AugmentDraw] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the draws and the clean score, JSON-ready."""
        return {
            "noise": self.noise,
            "seed": self.seed,
            "clean_wer": self.clean.wer,
            "bands": {one.band.name: one.to_json() for one in self.rungs},
            "diagnosis": self.diagnosis,
            "kept": len(self.clean.utterances),
            "dropped_by_reason": {},
            "seconds_of_audio": self.clean.seconds_of_audio * (1 + len(self.rungs)),
        }

    def to_text(self) -> str:
        """A table and the diagnosis, for a person."""
        lines = [
            f"noise ladder ({self.noise}, seed {self.seed}):",
            "  band        SNR dB   WER %          interval   points over clean          p   rise   expected  verdict",
            f"  {CLEAN:<9}  {'-':>7}  {_percent(self.clean.wer):>6}  {_between(self.clean.interval):>16}",
        ]
        for one in self.rungs:
            low, high = one.band.snr_db
            chance = "-" if one.adjusted_p_value is None else f"{one.adjusted_p_value:.2g}"
            points = f"{_percent(one.difference.difference)} {_between(one.difference.interval)}"
            expected = "-".join(f"{100 * edge:.0f}" for edge in one.band.expected_rise)
            rise = "-" if one.rise is None else f"{100 * one.rise:+.0f} %"
            lines.append(
                f"  {one.band.name:<9}  {f'{low:g}-{high:g}':>7}  {_percent(one.score.wer):>6}  "
                f"{_between(one.score.interval):>16}  {points:>18}  {chance:>9}  {rise:>5}  {expected:>7} %  "
                f"{one.verdict}{'' if one.sure or one.verdict == NO_RISE else ' (not sure)'}"
            )
        for rule in self.diagnosis:
            sure = "" if rule["sure"] else " (not sure: the interval reaches below)"
            rate = f"WER {_percent(rule['wer'])} % is over {100 * rule['limit']:.0f} %"
            lines.append(f"  {rule['band']}: {rate}{sure}: {rule['advice']}")
        return "\n".join([*lines, *([] if self.diagnosis else ["  no limit of the diagnosis is passed"])])


NO_RISE = "no rise shown"


def draw_ladder(
    corpus: Corpus, materials: Materials, sources: Sequence[Source], seed: int
) -> dict[str, dict[str, AugmentDraw]]:
    """The noise of every clip in every band, by band and utterance id.

    A clip has the same noise in all bands, and its ratio lies equally far between the ends of each, so that bands
    differ in nothing but the level.
    """
    drawn: dict[str, dict[str, AugmentDraw]] = {}
    for band in BANDS:
        effect = Noise(snr_db=band.snr_db, sources=tuple(sources))
        effect.needs(materials)
        drawn[band.name] = {}
        for one in corpus:
            parameters = effect.draw(rng_for(seed, 0, one.utterance_id), clip_info(one), materials)
            if parameters is None:
                raise InputError(
                    f"{one.utterance_id} has no other speaker to make babble of: give a directory with --noise"
                )
            effects = (EffectDraw("noise", parameters),)
            drawn[band.name][one.utterance_id] = AugmentDraw(one.utterance_id, band.name, one.duration_s, effects)
    return drawn


def run_ladder(
    opened: OpenedModel,
    corpus: Corpus,
    clean: Score,
    *,
    noise: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    confidence: ScoringConfig | None = None,
) -> NoiseLadder:
    """Decode a corpus under noise of every band and compare with its clean score.

    Args:
        opened: the model.
        corpus: what was scored clean.
        clean: its score.
        noise: directory of recordings of noise; without one, pink noise and babble of the corpus's other speakers,
            each for half of the clips.
        seed: of the draws.
        out: keep ``BAND.jsonl`` (transcripts), ``draws.jsonl`` and ``ladder.json`` (written last) in
            ``out/noise_ladder``; bands that are there from the same model, settings and draws are not decoded again.
        confidence: how intervals are made.

    Raises:
        InputError: the noise cannot be used, or a clip cannot be read or decoded.
    """
    config = confidence or ScoringConfig()
    sources: tuple[Source, ...] = ("files",) if noise else ("pink", "babble")
    materials = Materials(noises=recordings_below(noise, "noise") if noise else [], speech=speech_of(corpus))
    drawn = draw_ladder(corpus, materials, sources, seed)
    folder = _claim(out, opened, corpus, noise, drawn) if out else None
    scores = {}
    for band in BANDS:
        kept = folder / f"{band.name}.jsonl" if folder else None
        transcripts = _kept(kept, corpus) if kept else None
        if transcripts is None:
            transcripts = _decode(opened, corpus, drawn[band.name], materials, band.name)
            if kept:
                write_transcripts(kept, transcripts)
        scores[band.name] = score_transcripts(
            corpus,
            transcripts,
            normaliser=clean.normaliser,
            slice_by=list(clean.slices),
            language=opened.family.language,
            confidence=config,
        )
    ladder = judge(clean, scores, drawn, str(noise) if noise else "pink noise and babble", seed, config)
    if folder:
        facts = {"model": str(opened.path), "corpus": str(corpus.root)}
        write_json(folder / "ladder.json", {**ladder.to_json(), "provenance": provenance(None, **facts)})
    return ladder


def _decode(
    opened: OpenedModel, corpus: Corpus, draws: dict[str, AugmentDraw], materials: Materials, title: str
) -> list[Transcript]:
    def load(utterance: Utterance) -> np.ndarray:
        samples = load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        return Noise.apply(samples, draws[utterance.utterance_id].effects[0].parameters, materials)

    return transcribe(opened.family, corpus.utterances, load, opened.decoding, f"transcribe, {title} noise")


def _claim(
    out: Path, opened: OpenedModel, corpus: Corpus, noise: Path | None, drawn: dict[str, dict[str, AugmentDraw]]
) -> Path:
    """The directory of the ladder; what is there of another model, corpus, setting or draw is removed."""
    folder = out / "noise_ladder"
    rows = [one.to_json() for draws in drawn.values() for one in draws.values()]
    weights = sorted(one for one in opened.path.iterdir() if one.is_file())
    settings = {
        "model": str(opened.path),
        "files": {one.name: [one.stat().st_size, one.stat().st_mtime_ns] for one in weights},
        "decoding": opened.decoding.model_dump(mode="json"),
        "corpus": str(corpus.root.resolve()),
        "noise": str(noise.resolve()) if noise else None,
        "draws": rows,
    }
    file = folder / "settings.json"
    if not file.is_file() or read_json(file) != settings:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("settings.json", "ladder.json", *(f"{band.name}.jsonl" for band in BANDS)):
            (folder / name).unlink(missing_ok=True)
        write_jsonl(folder / "draws.jsonl", rows)
        write_json(file, settings)
    return folder


def _kept(path: Path, corpus: Corpus) -> list[Transcript] | None:
    if not path.is_file():
        return None
    found = read_transcripts(path)
    same = [one.utterance_id for one in found] == [one.utterance_id for one in corpus]
    return found if same else None


def judge(
    clean: Score,
    scores: dict[str, Score],
    drawn: dict[str, dict[str, AugmentDraw]],
    noise: str,
    seed: int,
    config: ScoringConfig,
) -> NoiseLadder:
    """The ladder of scores that were made: differences from clean, verdicts and diagnosis."""
    compared = {name: compare(clean, score, config) for name, score in scores.items()}
    differences = {name: one.wer for name, one in compared.items()}
    p_values = [one.tests.p_value if one.tests else None for one in compared.values()]
    adjusted = dict(zip(compared, adjust(p_values), strict=True))
    rungs = []
    for band in BANDS:
        difference = differences[band.name]
        rise, between, verdict, sure = verdict_of(clean.wer, difference, band)
        ratios = [one.effects[0].parameters["snr_db"] for one in drawn[band.name].values()]
        rungs.append(
            Rung(
                band=band,
                score=scores[band.name],
                difference=difference,
                adjusted_p_value=adjusted[band.name],
                rise=rise,
                rise_interval=between,
                verdict=verdict,
                sure=sure,
                mean_snr_db=float(np.mean(ratios)) if ratios else float("nan"),
            )
        )
    draws = [one for those in drawn.values() for one in those.values()]
    return NoiseLadder(clean=clean, rungs=rungs, diagnosis=diagnose(clean, scores), noise=noise, seed=seed, draws=draws)


def verdict_of(
    clean_wer: float | None, difference: Difference, band: Band
) -> tuple[float | None, tuple[float, float] | None, str, bool]:
    """Relative rise, its interval, the verdict, and whether the whole interval agrees with it."""
    if not clean_wer or difference.difference is None:
        return None, None, "no clean WER to compare with" if difference.difference is None else "no clean errors", False
    low, high = band.expected_rise
    rise = difference.difference / clean_wer
    verdict = "less than expected" if rise < low else "more than expected" if rise > high else "as expected"
    if difference.interval is None:
        return rise, None, verdict, False
    between = (difference.interval.low / clean_wer, difference.interval.high / clean_wer)
    if between[0] <= 0:
        return rise, between, NO_RISE if between[1] >= 0 else "fewer errors than clean", between[1] < 0
    inside = {
        "less than expected": between[1] < low,
        "more than expected": between[0] > high,
        "as expected": low <= between[0] and between[1] <= high,
    }
    return rise, between, verdict, inside[verdict]


def diagnose(clean: Score, scores: dict[str, Score]) -> list[dict[str, Any]]:
    """The rules whose limit is passed. Where clean speech is bad already, that of mild noise would say nothing new."""
    found: list[dict[str, Any]] = []
    for name in (CLEAN, "mild", "heavy"):
        score = clean if name == CLEAN else scores[name]
        if score.wer is None or score.wer <= LIMITS[name] or (name == "mild" and found):
            continue
        sure = score.interval is not None and score.interval.low > LIMITS[name]
        found.append({"band": name, "wer": score.wer, "limit": LIMITS[name], "sure": sure, "advice": _ADVICE[name]})
    return found


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"


def _between(interval: Any) -> str:
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]" if interval else "-"
