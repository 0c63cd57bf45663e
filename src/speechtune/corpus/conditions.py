"""Conditions on the columns of an utterance: the one filter language of recipes and verbs.

A condition is data, never code: ``{column: duration_s, max: 20}``, or the same as text, ``duration_s<=20``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from speechtune.core.config import validate
from speechtune.core.errors import InputError
from speechtune.corpus.table import STANDARD_COLUMNS, Utterance

_TEXT = re.compile(r"\s*([\w.:/-]+)\s*(<=|>=|!=|==|=)\s*(.*?)\s*", re.DOTALL)
_FORMS = "write column>=1, column<=20, column=a,b or column!=a,b"

Value = bool | int | float | str


class Condition(BaseModel):
    """What a column must be for an utterance to stay; several bounds in one condition must all hold.

    Values of ``in`` and ``not_in`` are compared as text, so that ``6`` is the age ``"6"``; ``min`` and ``max`` read the
    column as a number. Given as text, it is ``column>=1``, ``column<=20``, ``column=a,b`` or ``column!=a,b``.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    column: str = Field(min_length=1, description="A column of the corpus, such as duration_s or tier.")
    min: float | None = Field(None, allow_inf_nan=False, description="Smallest number that stays (itself included).")
    max: float | None = Field(None, allow_inf_nan=False, description="Largest number that stays (itself included).")
    in_: list[Value] | None = Field(None, alias="in", min_length=1, description="The only values that stay.")
    not_in: list[Value] | None = Field(None, min_length=1, description="Values that do not stay.")
    unknown: Literal["drop", "keep"] = Field("drop", description="What becomes of utterances that lack the column.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _parsed(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if self.min is None and self.max is None and self.in_ is None and self.not_in is None:
            raise ValueError(f"a condition on {self.column} needs min, max, in or not_in")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no {self.column} is at least {self.min:g} and at most {self.max:g}")
        return self

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys that were given, as a recipe has them."""
        return {("in" if name == "in_" else name): value for name, value in handler(self).items() if value is not None}

    def why_not(self, utterance: Utterance) -> str | None:
        """Why an utterance does not stay, in words that do not depend on the utterance; ``None`` if it stays.

        Raises:
            InputError: ``min`` or ``max`` meets a value that is not a number.
        """
        return self.why_not_value(utterance.column(self.column), utterance.utterance_id)

    def why_not_value(self, value: Any, utterance_id: str) -> str | None:
        """The same for a value of the column that was found elsewhere (in an audit); ``None`` and NaN are unknown.

        Raises:
            InputError: as `why_not`.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None if self.unknown == "keep" else f"{self.column} is unknown"
        if self.min is not None or self.max is not None:
            number = number_of(value, self.column, utterance_id)
            if self.min is not None and number < self.min:
                return f"{self.column} is below {self.min:g}"
            if self.max is not None and number > self.max:
                return f"{self.column} is above {self.max:g}"
        text = _as_text(value)
        if self.in_ is not None and text not in set(map(_as_text, self.in_)):
            return f"{self.column} is not {' or '.join(map(_as_text, self.in_))}"
        if self.not_in is not None and text in set(map(_as_text, self.not_in)):
            return f"{self.column} is {text}"
        return None


def parse_conditions(texts: Iterable[str]) -> list[Condition]:
    """Conditions from the command line.

    Raises:
        InputError: one cannot be read.
    """
    conditions = []
    for text in texts:
        try:
            conditions.append(validate(Condition, _parsed(text), f"--where {text!r}"))
        except ValueError as error:
            raise InputError(f"--where {text!r} cannot be read: {error}") from error
    return conditions


def filter_utterances(
    utterances: Sequence[Utterance], where: Sequence[Condition], place: str
) -> tuple[list[Utterance], dict[str, int]]:
    """The utterances that meet every condition, and how many did not, by the first reason of each.

    Args:
        utterances: what to filter; their order stays.
        where: the conditions.
        place: the corpus, for messages.

    Raises:
        InputError: no utterance has a column that is asked for, a bound meets text, or nothing is left.
    """
    for condition in where:
        require_column(utterances, condition.column, place)
    kept: list[Utterance] = []
    dropped: dict[str, int] = {}
    for utterance in utterances:
        reason = next(filter(None, (condition.why_not(utterance) for condition in where)), None)
        if reason is None:
            kept.append(utterance)
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    if utterances and not kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise InputError(f"no utterance of {place} meets the conditions ({reasons}): loosen them")
    return kept, dropped


def require_column(utterances: Sequence[Utterance], column: str, place: str) -> None:
    """Make sure that at least one utterance has a column.

    Raises:
        InputError: none has; the sentence lists the columns there are.
    """
    if not utterances or any(row.column(column) is not None for row in utterances):
        return
    known = [name for name in STANDARD_COLUMNS if any(row.column(name) is not None for row in utterances)]
    known += sorted({name for row in utterances for name, value in row.extra.items() if value is not None})
    raise InputError(f"no utterance of {place} has {column}: its columns are {', '.join(known)}")


def number_of(value: Any, column: str, utterance_id: str) -> float:
    """A column's value as a finite number.

    Raises:
        InputError: it is not one; the sentence names the utterance.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"utterance {utterance_id} has {column} {value!r}, which is not a number: repair it, or use "
            "in or not_in for text"
        )
    return number


def _parsed(text: str) -> dict[str, Any]:
    match = _TEXT.fullmatch(text)
    if not match or not match[3]:
        raise ValueError(_FORMS)
    column, sign, value = match.groups()
    if sign in ("<=", ">="):
        return {"column": column, "max" if sign == "<=" else "min": value}
    values = [part.strip() for part in value.split(",")]
    return {"column": column, "not_in" if sign == "!=" else "in": values}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
