"""Which texts came before an utterance in its recording or session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speechtune.core.errors import InputError
from speechtune.corpus.conditions import number_of, require_column
from speechtune.corpus.table import Utterance
from speechtune.training.format_config import FormatConfig

if TYPE_CHECKING:
    from speechtune.training.pool import Pool

_Key = tuple[str, float | None, str]


@dataclass(slots=True)
class History:
    """For each training utterance, the rows of its recording or session in order, and its position among them."""

    places: list[tuple[list[Utterance], int] | None]
    most: int
    own: list[Utterance]

    def before(self, index: int, shown: Sequence[int], text_of: Callable[[Utterance], str]) -> tuple[str, ...]:
        """The texts of the utterances before one, the nearest last; none that is among those shown with it."""
        found = self.places[index]
        if found is None:
            return ()
        chain, position = found
        hidden = {_key(self.own[one]) for one in shown}
        rows = [row for row in chain[max(0, position - self.most - len(shown)) : position] if _key(row) not in hidden]
        return tuple(text_of(row) for row in rows[-self.most :])

    @property
    def with_history(self) -> int:
        """How many utterances have at least one before them."""
        return sum(found is not None and found[1] > 0 for found in self.places)


def history_of(pool: Pool, config: FormatConfig) -> History:
    """The order of the rows that the training utterances come from; a part of a mixture has its own.

    Rows of the split that are not learnt from still count as what was said before.

    Raises:
        InputError: a column is missing, or no two rows belong together.
    """
    sources = [part.utterances for part in pool.parts] or [pool.corpus.utterances]
    where: dict[_Key, tuple[list[Utterance], int]] = {}
    for rows in sources:
        for name in (config.previous_text_by, config.previous_text_order):
            if name is not None:
                require_column(rows, name, "the training data")
        for chain in _chains(rows, config):
            for position, row in enumerate(chain):
                where[_key(row)] = chain, position
    history = History(
        [where.get(_key(row)) for row in pool.utterances], config.previous_text_utterances, pool.utterances
    )
    if not history.with_history:
        by = config.previous_text_by
        reason = f"no two have the same {by}" if by else "they are no spans of one recording and have no session_id"
        raise InputError(
            f"the training data do not say which utterance came before which ({reason}): name a column in "
            "training.format.previous_text_by, such as speaker_id if the rows of a speaker are in order, or set "
            "training.format.previous_text_share to 0"
        )
    return history


def _chains(rows: Sequence[Utterance], config: FormatConfig) -> list[list[Utterance]]:
    groups: dict[str, list[Utterance]] = {}
    for row in rows:
        if config.previous_text_by is not None:
            value = row.column(config.previous_text_by)
        else:
            value = f"file {row.file_name}" if row.start_s is not None else row.session_id
        if value is not None:
            groups.setdefault(str(value), []).append(row)
    return [_ordered(group, config.previous_text_order) for group in groups.values()]


def _ordered(rows: list[Utterance], column: str | None) -> list[Utterance]:
    if column is None:
        if all(row.start_s is not None for row in rows) and len({row.file_name for row in rows}) == 1:
            return sorted(rows, key=lambda row: row.start_s or 0.0)
        return rows
    values = [row.column(column) for row in rows]
    if None in values:
        row = rows[values.index(None)]
        raise InputError(
            f"utterance {row.utterance_id} has no {column}, which training.format.previous_text_order names: fill it in"
        )
    if all(isinstance(value, str) for value in values) and not all(_is_number(value) for value in values):
        return sorted(rows, key=lambda row: str(row.column(column)))
    return sorted(rows, key=lambda row: number_of(row.column(column), column, row.utterance_id))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _key(row: Utterance) -> _Key:
    return row.file_name, row.start_s, row.utterance_id
