"""The work of ``speechtune transcribe``: from an input of any length to transcripts in a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from speechtune.decoding.guards import for_transcribing
from speechtune.decoding.long.timing import can_time
from speechtune.decoding.long.transcribing import transcribe_all
from speechtune.decoding.sources import OpenedModel, open_source
from speechtune.decoding.transcript import Transcript
from speechtune.decoding.transcript_formats import check_target, format_of, write_as


def transcribe_source(
    opened: OpenedModel,
    source: Path,
    split: str | None = None,
    out: Path | None = None,
    named_format: str | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], str]:
    """Transcribe, write, and say what was done: the JSON object and the text of the verb.

    Raises:
        InputError: the input or the output cannot be used, or the format is unknown.
    """
    kind = format_of(out, named_format)
    corpus = open_source(source, split, window_s=math.inf)
    if out is not None:
        check_target(out, kind, len(corpus), overwrite)
    decoding = for_transcribing(opened.decoding)
    if kind in ("srt", "vtt"):
        timed = {"words": True} if can_time(opened.family) else {"leave_out_pauses": False}
        long_form = decoding.long_form.model_copy(update=timed)
        decoding = decoding.model_copy(update={"long_form": long_form})
    transcripts = transcribe_all(opened.family, corpus, decoding)
    if out is not None:
        write_as(out, transcripts, [one.duration_s for one in corpus], kind, overwrite)
    result = {
        "model": str(opened.path),
        "context": decoding.context,
        "kept": len(transcripts),
        "dropped_by_reason": {},
        "seconds_of_audio": round(corpus.seconds_of_audio, 3),
        "interventions": sum(len(one.interventions) for one in transcripts),
        "out": str(out) if out else None,
        "transcripts": [_row(one) for one in transcripts],
    }
    if out is None:
        return result, "\n".join(f"{one.utterance_id}\t{one.text}" for one in transcripts)
    return result, f"{len(transcripts)} transcripts in {out}"


def _row(one: Transcript) -> dict[str, Any]:
    row: dict[str, Any] = {"utterance_id": one.utterance_id, "text": one.text, "flags": one.flags}
    more = {"nbest": one.nbest, "segments": one.segments, "interventions": one.interventions}
    return row | {name: value for name, value in more.items() if value}
