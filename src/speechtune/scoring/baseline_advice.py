"""What a comparison of candidates says to do: which model, how sure that is, whether to train it, and with what.

The outcomes and the bands of the word error rate are the notebook's ("Finding your best baseline ASR model": below
10 % fine, to 20 % consider fine-tuning, above it needed); the tests behind them are speechtune's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from speechtune.scoring.comparison import SystemComparison

Outcome = Literal["clear", "mixed", "alike", "unsettled"]
ALIKE_POINTS = 0.02
"""Models are alike where the interval of their difference lies within this many either side of zero (2 points)."""

AS_FAST = 1.1
"""Models up to this many times slower count as equally fast: timings vary by that much."""

FINE, POOR = 0.10, 0.20
_SUREST = "the one with the best confidences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The recommendation. ``confidence``: how often it is the best when the set is drawn anew (``None``: unknown).

    ``outcome``: ``clear`` (better than every other finalist), ``mixed`` (another one is better on some part), ``alike``
    (no difference worth having: the fastest, of equally fast ones that with the best confidences), ``unsettled`` (this
    set cannot tell).
    """

    model: str
    confidence: float | None
    outcome: Outcome
    wer: float | None
    sentences: list[str]
    next_command: str

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def advise(full: SystemComparison, edges: Sequence[tuple[str, SystemComparison]], steps: Mapping[str, str]) -> Advice:
    """The recommendation from the finalists on everything and on the hard parts.

    Args:
        full: the finalists on everything.
        edges: the finalists on each hard part, by its name.
        steps: the commands to ``train`` and to ``use`` a model.
    """
    order = full.best()
    best, rest = order[0], order[1:]
    outcome = _outcome(full, best, rest)
    chosen = best
    if outcome == "alike":
        chosen = _of_equals(full, order)
    one = full.systems[chosen]
    sentences = [_why(full, outcome, best, chosen, rest)]
    sentences += _parts(full, best)
    sentences += _confidences(full, order)
    sentences += _hard_parts(full, edges, chosen)
    sentences.append(_train_or_not(one.score.wer))
    poor = one.score.wer is None or one.score.wer >= FINE
    return Advice(
        model=one.name,
        confidence=one.best_probability,
        outcome=outcome,
        wer=one.score.wer,
        sentences=sentences,
        next_command=steps["train"] if poor else steps["use"].replace("MODEL", one.name),
    )


def _outcome(full: SystemComparison, best: int, rest: Sequence[int]) -> Outcome:
    tests = [full.pair(other, best) for other in rest]
    if _parts(full, best):
        return "mixed"
    if all(one.verdict == "better" for one in tests):
        return "clear"
    bounds = [one.difference.interval for one in tests]
    if all(one is not None and one.low >= -ALIKE_POINTS and one.high <= ALIKE_POINTS for one in bounds):
        return "alike"
    return "unsettled"


def _of_equals(full: SystemComparison, order: Sequence[int]) -> int:
    """The fastest; of those about as fast (or where no speed is known) the one with the best confidences."""
    speeds = {place: rtf for place in order if (rtf := full.systems[place].cost.rtf) is not None}
    if not full.confidence_kind():
        return min(speeds, key=lambda place: speeds[place]) if speeds else order[0]
    as_fast = [place for place in speeds if speeds[place] <= AS_FAST * min(speeds.values())] or order
    return min(as_fast, key=lambda place: _surprise(full, place))


def _surprise(full: SystemComparison, place: int) -> float:
    kind = full.confidence_kind()
    return full.systems[place].calibration[kind].nll if kind else 0.0


def _confidences(full: SystemComparison, order: Sequence[int]) -> list[str]:
    kind = full.confidence_kind()
    if not kind:
        return []
    by_surprise = sorted(order, key=lambda place: _surprise(full, place))
    listed = ", ".join(f"{full.names[place]} {_surprise(full, place):.3f}" for place in by_surprise)
    return [f"confidences ({kind}), the best first: NLL {listed}"]


def _why(full: SystemComparison, outcome: Outcome, best: int, chosen: int, rest: Sequence[int]) -> str:
    name, rate = full.names[chosen], _percent(full.systems[chosen].score.wer)
    chance = full.systems[best].best_probability
    sure = "" if chance is None else f"; probability of being the best {100 * chance:.0f} %"
    if outcome == "alike":
        merit = _merit(full, chosen)
        return f"{name}: the candidates differ by less than {100 * ALIKE_POINTS:g} points, so {merit} ({rate} WER)"
    if outcome == "clear":
        return f"{name}: lowest word error rate ({rate}), better than every other finalist beyond chance{sure}"
    if outcome == "mixed":
        return f"{name}: lowest word error rate on the whole ({rate}){sure}, but not on every part"
    power = full.pair(rest[0], best).power
    more = f"; {power.to_text()}" if power else ""
    return f"{name}: lowest word error rate ({rate}){sure}, but this set is too small to be certain{more}"


def _merit(full: SystemComparison, chosen: int) -> str:
    speeds = [one.cost.rtf for one in full.systems if one.cost.rtf is not None]
    if full.systems[chosen].cost.rtf == min(speeds, default=None):
        return "the fastest" if speeds else "the lowest rate" if not full.confidence_kind() else _SUREST
    return f"{_SUREST} of the fastest"


def _parts(full: SystemComparison, best: int) -> list[str]:
    """Slices in which another finalist is better than the overall best beyond chance."""
    if best != full.reference:
        # The slices were tested against the reference system; without it nothing is claimed.
        return []
    found = []
    for column, values in full.slice_tests.items():
        for value, tests in values.items():
            found += [
                f"{full.names[one.b]} is better where {column} is {value}: route that speech to it, or combine the two"
                for one in tests
                if one.verdict == "better"
            ]
    return found


def _hard_parts(full: SystemComparison, edges: Sequence[tuple[str, SystemComparison]], chosen: int) -> list[str]:
    """The chosen model's rate on every hard part, and who is better there beyond chance."""
    rates, better = [], []
    for name, part in edges:
        own, lowest = part.systems[chosen].score.wer, part.best()[0]
        if own is None:
            continue
        rates.append(f"{name} {_percent(own)}")
        if lowest != chosen and part.pair(chosen, lowest).verdict == "better":
            rate = _percent(part.systems[lowest].score.wer)
            better.append(f"on {name} speech {part.names[lowest]} is better beyond chance ({rate})")
    usual = _percent(full.systems[chosen].score.wer)
    return [f"edge cases: {', '.join(rates)} (on everything {usual})", *better] if rates else []


def _train_or_not(rate: float | None) -> str:
    if rate is None:
        return "no reference holds a word, so nothing can be said about training"
    if rate < FINE:
        return f"below {100 * FINE:g} % it can be used as it is; fine-tuning brings little"
    if rate < POOR:
        return f"between {100 * FINE:g} and {100 * POOR:g} % fine-tuning is worth considering"
    return (
        f"above {100 * POOR:g} % fine-tuning is needed: take the largest of these models that this machine can train, "
        "and listen to the worst utterances first (noise, wrong references, words of the field, accent)"
    )


def _percent(rate: float | None) -> str:
    return "no rate" if rate is None else f"{100 * rate:.1f} %"
