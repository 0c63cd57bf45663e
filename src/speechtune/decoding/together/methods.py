"""The ways to make one transcript of several that need neither references nor audio: ROVER, MBR, agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.decoding.lm.text import Words
from speechtune.decoding.together.hypotheses import candidates_of, least_expected_error
from speechtune.decoding.together.rover import RoverOptions, rover
from speechtune.decoding.together.systems import System
from speechtune.decoding.transcript import Transcript


@dataclass(frozen=True, slots=True)
class MbrOptions:
    """``scale`` of the log-probabilities and ``weights`` of the systems (none: equal)."""

    scale: float = 1.0
    weights: tuple[float, ...] = ()


def combine_rover(systems: Sequence[System], words: Words, options: RoverOptions) -> list[Transcript]:
    """ROVER of the systems' texts; ``log_prob`` is left out, the flag ``disputed`` marks a slot without a majority."""
    if not 0 <= options.alpha <= 1 or not 0 <= options.null_confidence <= 1:
        raise InputError("--alpha and --null-confidence are shares: give numbers from 0 to 1")
    made = []
    for name in track(list(systems[0].transcripts), "rover"):
        chosen = rover([system.words(name, words) for system in systems], options)
        disputed = any(2 * one.share <= 1 for one in chosen)
        made.append(
            Transcript(
                utterance_id=name,
                text=" ".join(one.word.surface for one in chosen),
                language=_language(systems, name),
                flags=["disputed"] if disputed else [],
            )
        )
    return made


def combine_mbr(systems: Sequence[System], words: Words, options: MbrOptions) -> list[Transcript]:
    """The text of least expected word errors in the systems' joint N-best lists, with that list, best first.

    Raises:
        InputError: as many weights as systems are needed, a negative scale, or lists without scores.
    """
    if options.weights and len(options.weights) != len(systems):
        raise InputError(f"{len(options.weights)} weights are given for {len(systems)} systems: give one for each")
    if options.scale < 0 or any(one < 0 for one in options.weights) or (options.weights and not sum(options.weights)):
        raise InputError("--scale and --weight must not be negative, nor all weights 0")
    made = []
    for name in track(list(systems[0].transcripts), "mbr"):
        own = [system.transcripts[name] for system in systems]
        candidates = candidates_of(own, words, options.scale, options.weights or None)
        best = candidates[least_expected_error(candidates)]
        ordered = sorted(candidates, key=lambda one: (one is not best, -one.probability))
        made.append(
            Transcript(
                utterance_id=name,
                text=best.text,
                language=_language(systems, name),
                nbest=[{"text": one.text, "probability": round(one.probability, 6)} for one in ordered],
            )
        )
    return made


def combine_agree(systems: Sequence[System], words: Words, least: int = 0) -> list[Transcript]:
    """What enough systems agree on word by word, else the first system's transcript (give the best one first).

    Args:
        systems: the best one first.
        words: how texts are compared.
        least: systems that must agree; 0: more than half of them. Of two texts with as many systems the one that the
            earlier system gives is taken.

    Raises:
        InputError: more agreement is asked for than there are systems.
    """
    needed = least or len(systems) // 2 + 1
    if not 2 <= needed <= len(systems):
        raise InputError(f"--agree {least} is not possible with {len(systems)} systems: give 2 to {len(systems)}")
    made = []
    for name in systems[0].transcripts:
        keys = [tuple(words(system.transcripts[name].text)) for system in systems]
        key, votes = Counter(keys).most_common(1)[0]
        agreed = votes >= needed
        source = systems[keys.index(key) if agreed else 0].transcripts[name]
        made.append(
            Transcript(
                utterance_id=name,
                text=source.text,
                log_prob=source.log_prob,
                language=source.language,
                flags=[*source.flags, f"agreed-{votes}" if agreed else "disputed"],
            )
        )
    return made


def agreement(systems: Sequence[System], words: Words) -> dict[str, float]:
    """Shares of the utterances: all systems give the same words; more than half do."""
    everything = majority = 0
    names = systems[0].transcripts
    for name in names:
        votes = Counter(tuple(words(system.transcripts[name].text)) for system in systems).most_common(1)[0][1]
        everything += votes == len(systems)
        majority += 2 * votes > len(systems)
    return {"all_agree": everything / len(names), "most_agree": majority / len(names)}


def _language(systems: Sequence[System], name: str) -> str | None:
    return next((one.transcripts[name].language for one in systems if one.transcripts[name].language), None)
