"""What a person or a program sees of live transcription."""

from __future__ import annotations

import json
from typing import Any, Protocol, TextIO

from speechtune.decoding.long.timing import word_rows
from speechtune.decoding.streaming.agreement import joined
from speechtune.decoding.streaming.transcriber import Segment, Update

_FAINT, _NORMAL, _CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
_COLUMNS = 80


class Shown(Protocol):
    """Something that shows updates."""

    def show(self, update: Update) -> None:
        """Show what changed."""

    def end(self) -> None:
        """Nothing more comes."""


class EventLines:
    """One JSON object a line for every update and every finished segment."""

    def __init__(self, stream: TextIO, unspaced: bool) -> None:
        self.stream, self.unspaced = stream, unspaced

    def show(self, update: Update) -> None:
        """Write and flush."""
        self._line(update_row(update, self.unspaced))
        if update.segment is not None:
            self._line(segment_row(update.segment))

    def end(self) -> None:
        """The verb's own object is the last line."""

    def _line(self, row: dict[str, Any]) -> None:
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.stream.flush()


def update_row(update: Update, unspaced: bool) -> dict[str, Any]:
    """An update, JSON-ready; times in seconds since the audio began."""
    return {
        "event": "update",
        "kind": update.kind,
        "at_s": round(update.at_s, 3),
        "heard_s": round(update.heard_s, 3),
        "committed": joined([one.text for one in update.committed], unspaced),
        "tentative": joined(update.tentative, unspaced),
        **({"agreed": update.agreed} if update.agreed else {}),
    }


def segment_row(segment: Segment) -> dict[str, Any]:
    """A finished segment, JSON-ready."""
    row = {"start_s": round(segment.start_s, 3), "end_s": round(segment.end_s, 3), "text": segment.text}
    words = {"words": word_rows(segment.times)} if segment.times else {}
    return {"event": "segment", **row, **words}


class Lines:
    """For files and pipes: committed words as they come, one line for each segment."""

    def __init__(self, stream: TextIO, unspaced: bool) -> None:
        self.stream, self.unspaced = stream, unspaced
        self._begun = False

    def show(self, update: Update) -> None:
        """Write the committed words and flush."""
        text = joined([one.text for one in update.committed], self.unspaced)
        if text:
            self.stream.write((" " if self._begun and not self.unspaced else "") + text)
            self._begun = True
        if update.segment is not None and self._begun:
            self.end()
        self.stream.flush()

    def end(self) -> None:
        """Finish the line."""
        if self._begun:
            self.stream.write("\n")
            self._begun = False


class Terminal:
    """For a terminal: committed words stay, the tentative ones behind them are faint and rewritten in place."""

    def __init__(self, stream: TextIO, unspaced: bool, columns: int = _COLUMNS) -> None:
        self.stream, self.unspaced, self.columns = stream, unspaced, columns
        self._line = ""

    def show(self, update: Update) -> None:
        """Draw the last line anew; a full line is finished and the next one begun."""
        from rich.cells import cell_len, set_cell_size

        gap = "" if self.unspaced else " "
        self.stream.write(_CLEAR)
        for word in update.committed:
            longer = f"{self._line}{gap}{word.text}" if self._line else word.text
            if self._line and cell_len(longer) >= self.columns:
                self.stream.write(self._line + "\n")
                longer = word.text
            self._line = longer
        if update.segment is not None and self._line:
            self.stream.write(self._line + "\n")
            self._line = ""
        lead = gap if self._line else ""
        tail = lead + joined(update.tentative, self.unspaced) if update.tentative else ""
        room = self.columns - 1 - cell_len(self._line)
        if cell_len(tail) > room:
            tail = set_cell_size(tail, room - 1) + "…" if room > 1 else ""
        self.stream.write(self._line + (f"{_FAINT}{tail}{_NORMAL}" if tail else ""))
        self.stream.flush()

    def end(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._line:
            self.stream.write(_CLEAR + self._line + "\n")
            self._line = ""
