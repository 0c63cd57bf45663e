"""The utterances that one system recognises better than another, word by word, with their recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from speechtune.report.audio_clips import Clip, ClipShelf
from speechtune.report.compare_sections import errors_of
from speechtune.report.utterances import Piece, pieces
from speechtune.report.wording import count, duration, number
from speechtune.scoring.comparison import BANDS, SystemComparison, Wins

_MINUS = "\u2212"


@dataclass(slots=True)
class Heard:
    """What one system made of an utterance."""

    system: str
    errors: str
    pieces: list[Piece]


@dataclass(slots=True)
class ShownUtterance:
    """One utterance of a list. ``heard_at`` is the anchor of an earlier list that has its recording."""

    utterance_id: str
    anchor: str
    place: int
    change: str
    said: str
    heard: list[Heard]
    facts: list[tuple[str, str]]
    clip: Clip = field(default_factory=lambda: Clip(None))
    heard_at: str = ""


@dataclass(slots=True)
class WinList:
    """One system against the reference: the distribution of differences and the largest ones."""

    name: str
    summary: str
    bands: list[tuple[str, int, str]]
    better: list[ShownUtterance]
    worse: list[ShownUtterance]
    fewer_hidden: int
    more_hidden: int

    def in_turn(self) -> Iterator[ShownUtterance]:
        """Better and worse ones alternating, so that both get players when space is short."""
        for pair in zip_longest(self.better, self.worse):
            yield from (one for one in pair if one is not None)


def win_lists(found: SystemComparison, shelf: ClipShelf) -> list[WinList]:
    """The utterances won and lost by every system against the reference; a recording is on the page once."""
    lists = [_list(found, one) for one in found.wins]
    first: dict[int, ShownUtterance] = {}
    has_audio = any(one.file_name for one in found.corpus)
    for row in zip_longest(*(part.in_turn() for part in lists)):
        for one in row:
            if one is None or not has_audio:
                continue
            if one.place in first:
                earlier = first[one.place]
                one.clip, one.heard_at = Clip(None, earlier.clip.reason), earlier.anchor if earlier.clip.uri else ""
                continue
            one.clip = shelf.clip(found.corpus, found.corpus.utterances[one.place])
            first[one.place] = one
    return lists


def _list(found: SystemComparison, wins: Wins) -> WinList:
    name, base = found.names[wins.b], found.names[wins.a]
    labels = [f"{_MINUS if band < 0 else '+' if band > 0 else ''}{abs(band)}" for band in range(-BANDS, BANDS + 1)]
    labels[0], labels[-1] = f"≤{_MINUS}{BANDS}", f"≥+{BANDS}"
    kinds = ["fewer"] * BANDS + [""] + ["more"] * BANDS
    return WinList(
        name=name,
        summary=(
            f"Of {count(len(found.corpus), 'utterance')}, {number(wins.fewer)} have fewer errors with {name} than with "
            f"{base}, {number(wins.more)} have more, {number(wins.same)} as many."
        ),
        bands=list(zip(labels, wins.bands, kinds, strict=True)),
        better=[_shown(found, wins, place, "w") for place in wins.better],
        worse=[_shown(found, wins, place, "l") for place in wins.worse],
        fewer_hidden=wins.fewer - len(wins.better),
        more_hidden=wins.more - len(wins.worse),
    )


def _shown(found: SystemComparison, wins: Wins, place: int, kind: str) -> ShownUtterance:
    utterance = found.corpus.utterances[place]
    change = int(found.systems[wins.b].errors[place] - found.systems[wins.a].errors[place])
    facts = [
        ("speaker", utterance.speaker_id),
        ("age", utterance.age),
        ("gender", utterance.gender),
        ("length", duration(utterance.duration_s) if utterance.duration_s else None),
    ]
    heard = [
        Heard(
            found.names[system],
            errors_of(found.systems[system], place),
            pieces(found.references[place], found.systems[system].hypotheses[place]),
        )
        for system in (wins.a, wins.b)
    ]
    return ShownUtterance(
        utterance_id=utterance.utterance_id,
        anchor=f"{kind}-{wins.b}-{place}",
        place=place,
        change=f"{'+' if change > 0 else _MINUS}{count(abs(change), 'error')}",
        said=utterance.text,
        heard=heard,
        facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
    )
