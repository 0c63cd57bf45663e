"""What a number of hours is worth, what it takes to get more, and whether dev and test are large enough.

The figures are the requirements notebook's (line numbers in each entry), which calls them approximate and names no
experiment. They are kept with their contradictions, and beside them stands what was measured with speechtune.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.planning.recording import RECORDING_FACTOR


@dataclass(frozen=True, slots=True)
class Tier:
    """A volume of training audio and the relative WER cut in percent that its source expects."""

    name: str
    from_h: float
    to_h: float
    gain_percent: tuple[float, float]
    source: str


TIERS = (
    Tier("first attempt", 1, 2, (5, 15), "notebook L5922"),
    Tier("practical minimum", 2, 5, (10, 20), "notebook L5864-5866"),
    Tier("baseline", 5, 10, (15, 25), "notebook L5923"),
    Tier("small", 10, 20, (20, 40), "notebook L5878, L5924"),
    Tier("medium", 50, 100, (40, 60), "notebook L5889, L5925"),
    Tier("large", 200, 500, (60, 80), "notebook L5900, L5926"),
    Tier("very large", 1000, float("inf"), (70, 85), "notebook L5927"),
)
"""Table E of the notebook and its prose. The table has gaps (20-50, 100-200 and 500-1000 hours): there the range spans
both neighbours."""

CAVEATS = (
    "The notebook's ranges are approximate, name no experiment, and depend on the base model and on how far the speech "
    "is from what it knows (L5930).",
    "The notebook contradicts itself: 5-10 h give 15-25 % in its table (L5923), but 30-50 % for "
    "one speaker (L6497-6513).",
    "Measured with speechtune: 0.9 h of 46 children cut the WER of 12 other children by 44 % (39.9 to 22.2 %, tiny.en, "
    "one seed, docs/results/children.md), three times the most that the notebook expects of 1-2 h: a weak "
    "base model far from the data gains more.",
    "10 h of diverse, well transcribed speech beat 50 h of poor speech (L5917).",
)

MINIMUMS = (
    ("vocabulary or accent, a few terms", 16 / 60, "16-50 min, 50-100 clips", "L5729"),
    ("proof of concept", 0.5, "30-60 min", "L5855"),
    ("smallest usable set", 1.0, "1 h", "L4678"),
    ("one speaker, limited vocabulary", 2.0, "2-5 h", "L5864"),
    ("meaningful results in general", 10.0, "10-20 h", "L6016"),
    ("production", 50.0, "50-100 h", "L6017"),
)
"""The notebook's five answers to "how much is the minimum" (contradiction C-8) are answers to different questions."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the recogniser is for: hours that its source calls the least and enough; speakers (0: one will do)."""

    name: str
    least_h: float
    enough_h: float
    speakers: int
    source: str


GOALS = {
    one.name: one
    for one in (
        Goal("vocabulary", 0.5, 1.0, 0, "notebook L16064; L5729 says 16-50 min"),
        Goal("personal", 2.0, 5.0, 0, "notebook L5864, L6079 (5-10 h)"),
        Goal("general", 10.0, 50.0, 5, "notebook L6016-6017"),
        Goal("accent", 20.0, 50.0, 5, "notebook L5940-5942"),
        Goal("medical-legal", 50.0, 100.0, 20, "notebook L5934-5937"),
        Goal("code-switching", 100.0, 200.0, 20, "notebook L5944-5947"),
        Goal("low-resource", 100.0, 300.0, 20, "notebook L5949-5952"),
    )
}
"""Goals, because no single minimum fits: one person's thirty minutes are enough for ten words and useless for a new
language (notebook part 3, conflicts, L14570 against L16064)."""

_SPEAKERS = ((10.0, 5), (50.0, 20), (200.0, 50))
_MODELS = ((10.0, "tiny, base or small"), (50.0, "small or medium"), (float("inf"), "medium or large-v3"))


@dataclass(frozen=True, slots=True)
class VolumeAdvice:
    """What the hours in hand are worth for a goal, and what another number of hours would be."""

    goal: str
    hours: float
    speakers: int
    verdict: str
    tier: str
    gain_percent: tuple[float, float] | None
    gain_source: str
    target_hours: float | None
    target_gain_percent: tuple[float, float] | None
    speakers_wanted: int
    model_size: str
    met_minimums: tuple[str, ...]
    caveats: tuple[str, ...] = CAVEATS

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


def expected_gain(hours: float) -> tuple[str, tuple[float, float] | None, str]:
    """Name of the tier, relative WER cut in percent (low, high), and source; no figure below one hour."""
    if hours < TIERS[0].from_h:
        return "below every tier", None, "the notebook gives no figure under 1 h (L5855-5861: limited, may over-fit)"
    last = TIERS[0]
    for tier in TIERS:
        if hours < tier.from_h:
            span = (last.gain_percent[0], tier.gain_percent[1])
            return f"between {last.name} and {tier.name}", span, f"{last.source} and {tier.source}"
        if hours <= tier.to_h:
            return tier.name, tier.gain_percent, tier.source
        last = tier
    raise AssertionError("the last tier has no end")


def advise_volume(
    hours: float, speakers: int, goal: str = "general", target_hours: float | None = None
) -> VolumeAdvice:
    """Judge the training hours in hand against a goal.

    Args:
        hours: training audio.
        speakers: how many people speak in it (0: not known).
        goal: a name in `GOALS`.
        target_hours: hours that are considered instead.

    Raises:
        InputError: there is no such goal, or ``target_hours`` is not positive.
    """
    if goal not in GOALS:
        raise InputError(f"there is no goal {goal!r}: use one of {', '.join(GOALS)}")
    if target_hours is not None and not 0 < target_hours < float("inf"):
        raise InputError(f"--target-hours must be a positive number of hours, not {target_hours}")
    wanted = GOALS[goal]
    name, gain, source = expected_gain(hours)
    considered = max(hours, target_hours or 0.0)
    speakers_wanted = 0
    if wanted.speakers:
        speakers_wanted = max([wanted.speakers, *(count for from_h, count in _SPEAKERS if considered >= from_h)])
    return VolumeAdvice(
        goal=goal,
        hours=hours,
        speakers=speakers,
        verdict=_verdict(hours, wanted),
        tier=name,
        gain_percent=gain,
        gain_source=source,
        target_hours=target_hours,
        target_gain_percent=expected_gain(target_hours)[1] if target_hours else None,
        speakers_wanted=speakers_wanted,
        model_size=next(size for below_h, size in _MODELS if considered < below_h),
        met_minimums=tuple(f"{what} ({text}, {line})" for what, least_h, text, line in MINIMUMS if hours >= least_h),
    )


def _verdict(hours: float, goal: Goal) -> str:
    if hours < goal.least_h:
        return f"too little for {goal.name}: at least {goal.least_h:g} h ({goal.source})"
    if hours < goal.enough_h:
        return f"above the minimum of {goal.least_h:g} h for {goal.name}, below {goal.enough_h:g} h ({goal.source})"
    return f"enough for {goal.name} ({goal.enough_h:g} h, {goal.source})"


def split_verdicts(seconds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Whether dev and test are large enough to measure with: ``missing``, ``error``, ``warning``, ``ok``, ``ideal``.

    The notebook asks for 30-60 min (L5997-5998) and for 15-30 min at least, 1-2 h recommended, 5-10 h ideal
    (L6001-6003); settled (contradiction C-9) as error under 15 min, warning under 1 h.
    """
    verdicts = {}
    for name in ("dev", "test"):
        minutes = seconds.get(name, 0.0) / 60
        if not minutes:
            level, text = "missing", "there is none: run speechtune split, or give another corpus to evaluate on"
        elif minutes < 15:
            level, text = "error", "under 15 min: differences between models will be chance"
        elif minutes < 60:
            level, text = "warning", "under 1 h: read the confidence interval, not the figure"
        elif minutes < 300:
            level, text = "ok", "1 h or more is the recommendation"
        else:
            level, text = "ideal", "5 h or more"
        verdicts[name] = {"minutes": minutes, "level": level, "meaning": text, "source": "notebook L5997-6003"}
    return verdicts


@dataclass(frozen=True, slots=True)
class Labour:
    """What getting more audio costs in hours of work; money is in US dollars of the notebook's prices."""

    audio_hours: float
    recording_hours: float
    typing_hours: float
    correcting_hours: tuple[float, float]
    typing_cost_usd: float
    service_cost_usd: tuple[float, float]
    source: str = "notebook L5748, L2183, L2374-2377, L2451-2455, L2509-2519"

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


def labour(audio_hours: float) -> Labour:
    """Estimate the work for ``audio_hours`` more of speech.

    Typing takes four hours an hour of audio (the notebook also names 4 to 10), correcting a draft is two to three times
    faster, an hour of work is $30, a service asks $1 to $3 a minute. Sentences read from prompts need no typing.
    """
    typing = 4 * audio_hours
    return Labour(
        audio_hours=audio_hours,
        recording_hours=RECORDING_FACTOR * audio_hours,
        typing_hours=typing,
        correcting_hours=(typing / 3, typing / 2),
        typing_cost_usd=30 * typing,
        service_cost_usd=(60 * audio_hours, 180 * audio_hours),
    )
