"""The hard parts of a corpus, on which a model may fail that is good on the whole: noisy, short, long, fast, rare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechtune.audio.measures import AudioMeasures, measure_batch
from speechtune.core.files import read_json, write_json
from speechtune.core.progress import track
from speechtune.corpus.sampling import nested_order
from speechtune.corpus.table import Corpus, Utterance

MEASURED = 400
"""Most utterances whose noise is measured where the corpus has no ``snr_db``."""

SHARE = 0.1
_LEAST = 5
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Edge:
    """One hard part: its name, what it holds in a sentence, and its utterances."""

    name: str
    about: str
    utterances: list[Utterance]


def edge_cases(corpus: Corpus, minutes: float, seed: int, kept_at: Path) -> list[Edge]:
    """The extreme tenth of a corpus in five ways, each no longer than ``minutes``.

    Args:
        corpus: the utterances.
        minutes: most audio of each part.
        seed: of the utterances whose noise is measured.
        kept_at: file in which measured noise is kept.
    """
    everyone = corpus.utterances
    noise = signal_to_noise(corpus, seed, kept_at)
    heard = [one for one in everyone if one.utterance_id in noise]
    found = [
        _extreme("noisy", "lowest signal-to-noise ratio", heard, lambda one: noise[one.utterance_id], minutes),
        _extreme("short", "shortest", everyone, lambda one: one.duration_s, minutes),
        _extreme("long", "longest", everyone, lambda one: -one.duration_s, minutes),
        _extreme("fast", "most characters a second", everyone, lambda one: -_rate(one), minutes),
        _rare(everyone, minutes),
    ]
    return [one for one in found if one and len(one.utterances) < len(everyone)]


def _extreme(
    name: str, about: str, utterances: Sequence[Utterance], key: Callable[[Utterance], float], minutes: float
) -> Edge | None:
    values = {key(one) for one in utterances}
    if len(values) < 2:
        return None
    ordered = sorted(utterances, key=lambda one: (key(one), one.utterance_id))
    chosen = _limited(ordered, len(utterances), minutes)
    return Edge(name, f"the {about} ({len(chosen)} utterances)", chosen)


def _limited(ordered: Sequence[Utterance], everything: int, minutes: float) -> list[Utterance]:
    most = min(everything, max(_LEAST, round(SHARE * everything)))
    chosen: list[Utterance] = []
    seconds = 0.0
    for one in ordered[:most]:
        seconds += one.duration_s
        if chosen and seconds > 60 * minutes:
            break
        chosen.append(one)
    return chosen


def _rate(one: Utterance) -> float:
    return len("".join(one.text.split())) / one.duration_s if one.duration_s else 0.0


def _rare(utterances: Sequence[Utterance], minutes: float) -> Edge | None:
    """The kinds of speaker (age and gender) with the fewest utterances, else the speakers with the fewest."""
    for about, key in (
        ("rarest ages and genders", lambda one: (one.age, one.gender) if one.age or one.gender else None),
        ("speakers with the fewest utterances", lambda one: one.speaker_id),
    ):
        counts = Counter(key(one) for one in utterances)
        counts.pop(None, None)
        if len(counts) > 1:
            known = [one for one in utterances if key(one) is not None]
            ordered = sorted(known, key=lambda one: (counts[key(one)], str(key(one)), one.utterance_id))
            chosen = _limited(ordered, len(utterances), minutes)
            return Edge("rare", f"the {about} ({len(chosen)} utterances)", chosen)
    return None


def signal_to_noise(corpus: Corpus, seed: int, kept_at: Path) -> dict[str, float]:
    """Signal-to-noise ratio in dB by utterance id: the column ``snr_db``, else measured on a seeded subset.

    Utterances without speech, or whose audio cannot be read, have none.
    """
    stated = {one.utterance_id: one.column("snr_db") for one in corpus}
    known = {name: float(value) for name, value in stated.items() if isinstance(value, int | float)}
    if len(known) * 2 >= len(stated):
        return known
    if kept_at.is_file():
        return {name: value for name, value in read_json(kept_at).items() if value is not None}
    chosen = [corpus.utterances[place] for place in nested_order(corpus.utterances, seed)[:MEASURED]]
    found: dict[str, float | None] = {}
    for start in track(range(0, len(chosen), _BATCH), "measuring noise"):
        part = chosen[start : start + _BATCH]
        measures = measure_batch([(corpus.path_of(one), one.start_s, one.end_s) for one in part])
        for one, measured in zip(part, measures, strict=True):
            found[one.utterance_id] = measured.snr_db if isinstance(measured, AudioMeasures) else None
    write_json(kept_at, found)
    return {name: value for name, value in found.items() if value is not None}
