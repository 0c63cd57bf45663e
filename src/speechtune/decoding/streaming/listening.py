"""The work of ``speechtune listen``: live audio in, text on a terminal, lines or events out."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.interrupt import stop_if_asked
from speechtune.core.progress import note
from speechtune.decoding.long.timing import can_time
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.streaming.clock import Clock, WallClock, instant
from speechtune.decoding.streaming.inputs import Blocks, Captured, file_blocks, microphone_blocks, pcm_blocks
from speechtune.decoding.streaming.opening import open_streams
from speechtune.decoding.streaming.printing import EventLines, Lines, Shown, Terminal, segment_row
from speechtune.decoding.streaming.transcriber import Segment, StreamingTranscriber, Update
from speechtune.decoding.transcript import Transcript
from speechtune.decoding.transcript_formats import check_target, format_of, write_as


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """The options of the verb; ``source``: a file, ``-`` for standard input, ``None`` for a microphone."""

    source: str | None
    stream: TextIO
    as_json: bool = False
    pace: float = 1.0
    rate_hz: int = 16_000
    channels: int = 1
    device: str | None = None
    language: str | None = None
    out: Path | None = None
    named_format: str | None = None
    overwrite: bool = False

    def check(self) -> str:
        """The format of ``out``; refuses before a model is loaded what cannot be read or written.

        Raises:
            InputError: the source is no file, standard input is a terminal, the microphone's package is missing, or
                ``out`` cannot be written.
        """
        kind = format_of(self.out, self.named_format)
        if self.out is not None:
            check_target(self.out, kind, 1, self.overwrite)
        if self.source is None and find_spec("sounddevice") is None:
            raise missing_extra("sounddevice", "live")
        if self.source == "-" and os.isatty(0):
            raise InputError(
                "standard input is a terminal: pipe raw PCM into it, as in arecord -f S16_LE -r 16000 -c 1"
            )
        if self.source not in (None, "-") and not Path(str(self.source)).is_file():
            raise InputError(
                f"{self.source} is not a file: give an audio file, - for standard input, or nothing for a microphone"
            )
        return kind


def listen(opened: OpenedModel, options: ListenOptions) -> tuple[dict[str, Any], str]:
    """Transcribe until the audio ends or the user interrupts; the last JSON object and text of the verb.

    Raises:
        InputError: the audio or ``out`` cannot be used, or the model cannot do what ``decoding.streaming`` asks.
    """
    kind = options.check()
    if kind in ("srt", "vtt") and options.out is not None and can_time(opened.family):
        streaming = opened.decoding.streaming.model_copy(update={"words": True})
        opened.decoding = opened.decoding.model_copy(update={"streaming": streaming})
    blocks, clock = _audio(options)
    transcriber = open_streams(opened, options.language)(clock)
    shown = _shown(options, transcriber.unspaced)
    segments: list[Segment] = []

    def show(updates: list[Update]) -> None:
        for update in updates:
            shown.show(update)
            segments.extend([update.segment] if update.segment else [])

    interrupted = _run(blocks, transcriber, show)
    shown.end()
    result = _result(opened, transcriber, segments, interrupted)
    if options.out is not None:
        transcript = Transcript(utterance_id=options.source or "microphone", text=transcriber.text)
        transcript.segments = [{k: v for k, v in segment_row(one).items() if k != "event"} for one in segments]
        write_as(options.out, [transcript], [transcriber.heard_s], kind, options.overwrite)
        result["out"] = str(options.out)
    return result, f"{len(segments)} segments in {options.out}" if options.out else ""


def _audio(options: ListenOptions) -> tuple[Blocks, Clock]:
    """The audio and the clock that goes with it."""
    if options.source is None:
        captured = Captured(microphone_blocks(options.device))
    elif options.source == "-":
        captured = Captured(pcm_blocks(0, options.rate_hz, options.channels))
    elif options.pace:
        captured = Captured(file_blocks(Path(options.source), options.pace))
    else:
        return file_blocks(Path(options.source), 0.0), instant()
    return iter(captured), WallClock(captured.captured_s)


def _shown(options: ListenOptions, unspaced: bool) -> Shown:
    if options.as_json:
        return EventLines(options.stream, unspaced)
    if options.stream.isatty():
        return Terminal(options.stream, unspaced, shutil.get_terminal_size().columns)
    return Lines(options.stream, unspaced)


def _run(blocks: Blocks, transcriber: StreamingTranscriber, show: Any) -> bool:
    """Feed and show until the end; an interrupt ends the audio, and what was heard is still committed."""
    interrupted = False
    try:
        note("listening; Ctrl-C ends it")
        for block in blocks:
            stop_if_asked()
            show(transcriber.feed(block))
        stop_if_asked()  # one that was swallowed on the way, before the audio ended
    except KeyboardInterrupt:
        interrupted = True
        _forget_interrupt()
        note("\ninterrupted: finishing what was heard")
    show(transcriber.finish())
    return _forget_interrupt() or interrupted  # one that came with the end of the audio counts, too


def _forget_interrupt() -> bool:
    """Whether an interrupt was still remembered; from now on it is not."""
    try:
        stop_if_asked()
    except KeyboardInterrupt:
        return True
    return False


def _result(
    opened: OpenedModel, transcriber: StreamingTranscriber, segments: list[Segment], interrupted: bool
) -> dict[str, Any]:
    heard_s = transcriber.heard_s
    return {
        "event": "end",
        "model": str(opened.path),
        "context": opened.decoding.context,
        "text": transcriber.text,
        "kept": len(segments),
        "dropped_by_reason": {},
        "seconds_of_audio": round(heard_s, 3),
        "compute_s": round(transcriber.clock.busy_s, 3),
        "rtf": round(transcriber.clock.busy_s / heard_s, 4) if heard_s else None,
        "interrupted": interrupted,
    }
